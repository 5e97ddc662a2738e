"""A tar archive of crops at `POST /gallery`: read as it arrives, enrolled in groups, answered line by line.

Each line says what is committed, so an upload that broke off may be sent again as it is: what is stored already
is a `duplicate`. Lines wait for a client that reads only when it has sent everything; their number is limited.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api.answers import EnrolResult, ModelRef
from service.api.bulk_schemas import BulkEnd, BulkStatus, ManifestLine, MemberResult
from service.api.enrolment import Upload, enrol_uploads
from service.api.limits import MAX_GROUP_BYTES, MAX_IMAGES, MAX_TAR_MEMBERS, TAR
from service.api.pictures import crop_id_of
from service.api.problems import Kind, Problem, invalid, problem_of
from service.api.runtime import Runtime
from service.api.schemas import LabelsIn
from service.api.tarstream import MANIFEST, Member, read_tar
from service.gallery.records import Labels
from service.inference.outcomes import QueueFull
from service.marketnames import read_market_name

logger = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"
BUSY = (Kind.QUEUE_FULL, Kind.RATE_LIMITED)
BUSY_SECONDS = 90.0  # for which a group waits for that to pass before the archive is given up


async def enrol_tar(request: Request, runtime: Runtime) -> Response:
    """Enrols a tar archive. Raises Problem, and what `enrol_uploads` raises, where nothing is stored yet."""
    lines = _Bulk(request, runtime).lines()
    return _Lines(await anext(lines), lines)


def with_tar(form: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI's `requestBody` of `form`, or an archive instead."""
    form["requestBody"]["content"][TAR] = {"schema": {"type": "string", "format": "binary"}}
    return form


def tar_answer() -> dict[str, Any]:
    """OpenAPI's content of the answer to an archive."""
    end = BulkEnd.model_json_schema(ref_template="#/components/schemas/{model}")
    del end["$defs"]  # other answers bring them
    return {NDJSON: {"schema": {"anyOf": [MemberResult.model_json_schema(), end]}}}


class _Lines(Response):
    """NDJSON sent while the request's body is still being read.

    Starlette's streaming response listens for the client's end, and so takes the body away from its reader.
    """

    media_type = NDJSON

    def __init__(self, first: bytes, rest: AsyncIterator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        waiting.put_nowait(self._first)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_on(waiting))
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (line := await waiting.get()) is not None:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _read_on(self, waiting: asyncio.Queue[bytes | None]) -> None:
        """Puts the lines where a slow reader of answers holds up no archive."""
        try:
            async for line in self._rest:
                waiting.put_nowait(line)
        except ClientDisconnect:
            logger.info("the client went away before the end of its archive")
        finally:
            waiting.put_nowait(None)


@dataclass
class _Group:
    """Members that are enrolled in one transaction."""

    members: list[Member] = field(default_factory=list)
    size: int = 0

    def add(self, member: Member) -> None:
        self.members.append(member)
        self.size += len(member.content) if isinstance(member.content, bytes) else 0

    @property
    def full(self) -> bool:
        return len(self.members) == MAX_IMAGES or self.size >= MAX_GROUP_BYTES


class _Bulk:
    """One archive on its way in."""

    def __init__(self, request: Request, runtime: Runtime) -> None:
        self._request = request
        self._runtime = runtime
        self._manifest: dict[str, bytes] = {}
        self._answered = 0
        self._counts: Counter[BulkStatus] = Counter()

    async def lines(self) -> AsyncIterator[bytes]:
        """A group's lines at a time, then the last one. What ends the archive is raised where nothing was answered."""
        ended = None
        try:
            async for group in self._groups():
                yield await self._answers(group)
            if self._manifest:
                yield await self._runtime.decoding.run(self._missing)
        except ClientDisconnect:
            raise
        except Exception as error:
            if not self._answered:
                raise
            ended = problem_of(error).body()
        counts = dict(self._counts)
        yield _line(BulkEnd(done=ended is None, counts=counts, model=ModelRef.of(self._runtime.info), problem=ended))

    async def _groups(self) -> AsyncIterator[_Group]:
        """Groups of members; those that came before the archive broke come before the Problem."""
        group, broken, seen, first = _Group(), None, 0, True
        try:
            async for member in read_tar(self._request.stream()):
                if seen == MAX_TAR_MEMBERS:
                    raise Problem(Kind.BODY_TOO_LARGE, f"An archive may have {MAX_TAR_MEMBERS:,} files; send several.")
                leads, first = first and member.path == MANIFEST, False
                if leads:
                    self._manifest = await self._runtime.decoding.run(_read_manifest, member.content)
                    continue
                seen += 1
                group.add(member)
                if group.full:
                    yield group
                    group = _Group()
        except Problem as problem:
            broken = problem
        if group.members:
            yield group
        if broken is not None:
            raise broken

    async def _answers(self, group: _Group) -> bytes:
        """Enrols a group; its lines. Raises GalleryFull where an archive would use up the room that erasing needs."""
        await self._runtime.require_space()
        start = self._answered
        uploads = await self._runtime.decoding.run(self._uploads, group, start)
        results = iter(await self._enrol([one for one in uploads if one is not None]))
        answers = [
            MemberResult(index=start + place, name=member.name, status="skipped")
            if upload is None
            else _result(start + place, member.name, next(results))
            for place, (member, upload) in enumerate(zip(group.members, uploads, strict=True))
        ]
        return self._count(answers)

    def _uploads(self, group: _Group, start: int) -> list[Upload | Problem | None]:
        return [self._upload(start + place, member) for place, member in enumerate(group.members)]

    def _upload(self, index: int, member: Member) -> Upload | Problem | None:
        """A member with its labels, why it is not taken, or None where its name says junk. Computes."""
        said = self._manifest.pop(member.path, None)
        if isinstance(member.content, Problem):
            return member.content.at(index)
        if member.path == MANIFEST:
            return Problem(Kind.REFUSED_MEMBER, f"{MANIFEST} must be the first member of the archive.", index)
        try:
            labels = _labels(member.path) if said is None else ManifestLine.model_validate_json(said).labels()
        except ValidationError as error:
            return invalid(error, index)
        return None if labels is None else Upload(index, crop_id_of(member.content), member.content, labels)

    async def _enrol(self, uploads: list[Upload | Problem]) -> list[EnrolResult]:
        """Waits where the service is busy: the rest of the archive waits with it, in the client's hands."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return await enrol_uploads(self._request, self._runtime, uploads, skip=True)
            except (QueueFull, Problem) as error:
                busy = problem_of(error)
                if busy.kind not in BUSY or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(min(int(busy.headers["Retry-After"]), 1))

    def _missing(self) -> bytes:
        """The lines of those that the manifest names and the archive has not."""
        problem = Problem(Kind.REFUSED_MEMBER, f"{MANIFEST} names this file, and the archive does not have it.")
        start = self._answered
        return self._count(
            [
                MemberResult(index=index, name=name, status="failed", problem=problem.at(index).body())
                for index, name in enumerate(self._manifest, start)
            ]
        )

    def _count(self, answers: list[MemberResult]) -> bytes:
        self._answered += len(answers)
        self._counts.update(answer.status for answer in answers)
        return b"".join(map(_line, answers))


def _labels(path: str) -> Labels | None:
    """What a name in Market-1501's form says, nothing for another name; None for junk."""
    said = read_market_name(PurePosixPath(path).name)
    if said is None:
        return Labels()
    if said.junk:
        return None
    return LabelsIn.model_validate({"identity": said.identity, "camera": said.camera}).labels()


def _read_manifest(content: bytes | Problem) -> dict[str, bytes]:
    """Each file's line, by its name. Raises Problem: what cannot be read in full is not used in part."""
    if isinstance(content, Problem):
        raise content
    lines: dict[str, bytes] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        name = _file_named(line)
        if name is None:
            detail = f'{MANIFEST}: line {number} is no JSON object with the name of a "file".'
            raise Problem(Kind.MALFORMED_BODY, detail)
        if len(lines) == MAX_TAR_MEMBERS:
            raise Problem(Kind.BODY_TOO_LARGE, f"{MANIFEST} may have {MAX_TAR_MEMBERS:,} lines; send several archives.")
        if lines.setdefault(name.removeprefix("./"), line) is not line:
            raise Problem(Kind.MALFORMED_BODY, f"{MANIFEST}: line {number} names a file a second time.")
    return lines


def _file_named(line: bytes) -> str | None:
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = said.get("file") if isinstance(said, dict) else None
    return name if isinstance(name, str) and name else None


def _result(index: int, name: str, result: EnrolResult) -> MemberResult:
    return MemberResult(**{**dict(result), "index": index, "name": name})


def _line(answer: BaseModel) -> bytes:
    return answer.model_dump_json(exclude_unset=True).encode() + b"\n"
