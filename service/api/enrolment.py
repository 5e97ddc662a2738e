"""Enrolling one group of uploaded files: embed what is new, store everything in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from service.api.answers import EnrolResult
from service.api.pictures import Picture, embed_pictures
from service.api.problems import Problem, unless_problem
from service.api.runtime import Runtime, audited
from service.gallery.records import Enrolled, Labels, NewCrop, UnknownCrop

T = TypeVar("T")


@dataclass(frozen=True)
class Upload:
    """One file of a request that may be enrolled; `index` is its position there."""

    index: int
    crop_id: str
    data: bytes
    labels: Labels


async def enrol_uploads(
    request: Request, runtime: Runtime, uploads: Sequence[Upload | Problem], skip: bool
) -> list[EnrolResult]:
    """Enrols all of `uploads`, one result each in their order.

    All or nothing: the first problem is raised, unless `skip`; then what is bad answers `failed` and the rest
    is stored. Raises Problem, QueueFull, WorkerStopped and what the gallery raises, and then nothing is stored.
    """
    ids = [upload.crop_id for upload in _good(uploads, skip)]
    known = await runtime.storing.run(runtime.gallery.known, ids)
    try:
        return await _enrol(request, runtime, uploads, known, skip)
    except UnknownCrop:  # A known crop was deleted meanwhile: this time nothing counts as known.
        return await _enrol(request, runtime, uploads, set(), skip)


def _good(outcomes: Sequence[T | Problem], skip: bool) -> list[T]:
    """What is no problem; unless `skip`, the first problem is raised."""
    kept = (outcome if skip else unless_problem(outcome) for outcome in outcomes)
    return [outcome for outcome in kept if not isinstance(outcome, Problem)]


async def _enrol(
    request: Request, runtime: Runtime, uploads: Sequence[Upload | Problem], known: set[str], skip: bool
) -> list[EnrolResult]:
    """Embeds what the gallery does not know yet, each file once, and enrols everything in one transaction."""
    fresh: dict[str, Upload] = {}
    for upload in uploads:
        if isinstance(upload, Upload) and upload.crop_id not in known:
            fresh.setdefault(upload.crop_id, upload)
    files = {one.index: one.data for one in fresh.values()}
    found = await embed_pictures(request, runtime, files, skip_bad=skip, keep=runtime.settings.kept_images)
    request.state.timings.update(found.timings)
    pictures = {crop_id: found.outcomes[one.index] for crop_id, one in fresh.items()}
    outcomes = [_new_crop(upload, pictures) for upload in uploads]
    crops = _good(outcomes, skip)
    enrolled = iter(await _store(request, runtime, crops) if crops else ())
    return [
        _failed(index, outcome) if isinstance(outcome, Problem) else _stored(index, next(enrolled))
        for index, outcome in enumerate(outcomes)
    ]


async def _store(request: Request, runtime: Runtime, crops: Sequence[NewCrop]) -> list[Enrolled]:
    """What is enrolled stands in the audit log, with the names that it is given."""
    names = {crop.labels.identity for crop in crops if crop.labels.identity is not None}
    ids = [*(crop.crop_id for crop in crops), *sorted(names)]
    return await audited(request, runtime, "enrol", ids, len(crops), runtime.gallery.enrol, crops)


def _new_crop(upload: Upload | Problem, pictures: Mapping[str, Picture | Problem]) -> NewCrop | Problem:
    """What is to be stored of a file; a known one has no picture and is only relabelled."""
    if isinstance(upload, Problem):
        return upload
    picture = pictures.get(upload.crop_id)
    if isinstance(picture, Problem):
        return picture.at(upload.index)
    if picture is None:
        return NewCrop(upload.crop_id, None, None, upload.labels)
    return NewCrop(upload.crop_id, picture.embedding, picture.stored, upload.labels)


def _stored(index: int, one: Enrolled) -> EnrolResult:
    return EnrolResult(index=index, crop_id=one.crop_id, identity=one.identity, camera=one.camera, status=one.status)


def _failed(index: int, problem: Problem) -> EnrolResult:
    return EnrolResult(index=index, status="failed", problem=problem.body())
