"""From uploaded files to embeddings, for every route that takes pictures."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from service.api.auth import count_images
from service.api.problems import Problem, problem_of, shown, unless_problem
from service.api.runtime import Runtime
from service.gallery.records import UnknownCrop
from service.inference.feed import Feed
from service.inference.images import ImageError, Kept, decode_and_keep
from service.inference.outcomes import EmbeddingFailed, Outcome


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A file's crop, uint8 [H, W, 3], and the JPEG that is to be stored of it."""

    crop: NDArray[np.uint8]
    stored: bytes | None


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded and embedded file: embedding float32 [D], attention [L, L], and the JPEG that is to be stored."""

    embedding: NDArray[np.float32]
    attention: NDArray[np.float32] | None
    stored: bytes | None


@dataclass(frozen=True, eq=False)
class Pictures:
    """What became of each file, by its position in the request, and milliseconds by stage."""

    outcomes: Mapping[int, Picture | Problem] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)

    def all_or_first_problem(self) -> list[Picture]:
        """Every picture in order; raises the first file's problem when there is one."""
        return [unless_problem(outcome) for outcome in self.outcomes.values()]


def crop_id_of(data: bytes) -> str:
    """The first 128 bits of the SHA-256 of the uploaded bytes as a UUID: the same file, the same crop."""
    return str(uuid.UUID(bytes=hashlib.sha256(data).digest()[:16]))


def canonical(crop_id: str) -> str:
    """The id as the gallery writes it; what is no UUID can be no crop's."""
    try:
        return str(uuid.UUID(crop_id))
    except ValueError as error:
        raise UnknownCrop(shown(crop_id)) from error


async def embed_pictures(
    request: Request,
    runtime: Runtime,
    files: Mapping[int, bytes],
    attention: bool = False,
    skip_bad: bool = False,
    keep: Kept = "none",
) -> Pictures:
    """Decodes and embeds files, given by their positions in the request.

    Unless `skip_bad`, the first that does not decode is raised as a Problem.
    Raises QueueFull and, over the caller's rate, Problem before anything is decoded, TooLate and WorkerStopped.
    """
    if not files:
        return Pictures()
    with runtime.worker.admission(len(files)), runtime.worker.feed(attention) as feed:
        count_images(request, len(files))
        started = time.perf_counter()
        decoded = await _decode(runtime, files, keep, feed)
        timings = {"decode": (time.perf_counter() - started) * 1e3}
        problems = {at: one for at, one in decoded.items() if isinstance(one, Problem)}
        if problems and not skip_bad:
            raise problems[min(problems)]
        if len(problems) == len(files):
            return Pictures(dict(problems), timings)
        embedded = await feed.outcomes()
    timings |= {"queue": embedded.queue_ms, "inference": embedded.inference_ms}
    following = iter(embedded.outcomes)
    outcomes = {
        index: one if isinstance(one, Problem) else _picture(index, one, next(following))
        for index, one in decoded.items()
    }
    return Pictures(outcomes, timings)


async def _decode(
    runtime: Runtime, files: Mapping[int, bytes], keep: Kept, feed: Feed
) -> dict[int, _Decoded | Problem]:
    """Decodes the files side by side and feeds what comes out, as it comes, to the engine."""
    height, width = runtime.info.height, runtime.info.width

    def decoded(index: int, data: bytes) -> _Decoded | Problem:
        try:
            return _Decoded(*decode_and_keep(data, height, width, keep))
        except ImageError as error:
            return problem_of(error, index)

    async def fed(index: int, data: bytes) -> _Decoded | Problem:
        one = await runtime.decoding.run(decoded, index, data)
        if isinstance(one, _Decoded):
            feed.add(index, one.crop)
        return one

    work = (fed(index, data) for index, data in files.items())
    return dict(zip(files, await asyncio.gather(*work), strict=True))


def _picture(index: int, decoded: _Decoded, outcome: Outcome) -> Picture | Problem:
    if isinstance(outcome, EmbeddingFailed):
        return problem_of(outcome, index)
    return Picture(outcome.embedding, outcome.attention, decoded.stored)
