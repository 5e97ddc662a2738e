"""`/gallery`: enrol, list, look at and delete crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from service.api.forms import Form, multipart_body, parse_fields, read_form
from service.api.limits import MAX_IMAGES
from service.api.pictures import Picture, canonical, crop_id_of, embed_pictures
from service.api.problems import FORM_KINDS, PICTURE_KINDS, Kind, Problem, documented, invalid, unless_problem
from service.api.runtime import NoParameters, ParametersOnce, Runtime, RuntimeDep
from service.api.schemas import (
    CropOut,
    EnrolForm,
    EnrolResponse,
    EnrolResult,
    LabelsIn,
    ModelRef,
    PageQuery,
    PageResponse,
    json_response,
)
from service.gallery.gallery import Gallery
from service.gallery.records import Enrolled, Labels, NewCrop, UnknownCrop
from service.inference.images import thumbnail

router = APIRouter(prefix="/gallery", tags=["gallery"])

T = TypeVar("T")


@dataclass(frozen=True)
class _Upload:
    """One file of a request that may be enrolled."""

    index: int
    crop_id: str
    data: bytes
    labels: Labels


@router.post(
    "",
    status_code=201,
    response_model=EnrolResponse,
    dependencies=[NoParameters],
    responses={
        200: {"description": "Nothing was new", "model": EnrolResponse},
        **documented(*FORM_KINDS, *PICTURE_KINDS, Kind.STORAGE_FULL),
    },
    openapi_extra=multipart_body(EnrolForm, MAX_IMAGES),
)
async def enrol(request: Request, runtime: RuntimeDep) -> Response:
    """Enrols 1 to 64 crops. The same bytes again are a duplicate, with other labels an update.

    All or nothing: one bad image or item refuses the request, unless `on_error=skip`.
    """
    form = await read_form(request, frozenset(EnrolForm.model_fields), MAX_IMAGES)
    options = parse_fields(EnrolForm, form.fields)
    skip = options.on_error == "skip"
    uploads = await runtime.decoding.run(_uploads, form, options)
    ids = [upload.crop_id for upload in _good(uploads, skip)]
    known = await runtime.storing.run(runtime.gallery.known, ids)
    try:
        results = await _enrol(request, runtime, uploads, known, skip)
    except UnknownCrop:  # A known crop was deleted meanwhile: this time nothing counts as known.
        results = await _enrol(request, runtime, uploads, set(), skip)
    created = any(result.status == "created" for result in results)
    return json_response(EnrolResponse(results=results, model=ModelRef.of(runtime.info)), 201 if created else 200)


def _uploads(form: Form, options: EnrolForm) -> list[_Upload | Problem]:
    """Each file with its labels, or why its item cannot be used."""
    items = options.items if options.items is not None else [{}] * len(form.images)
    if len(items) != len(form.images):
        detail = f"items: has {len(items)} objects for {len(form.images)} images; give one for each image."
        raise Problem(Kind.INVALID_FIELD, detail)
    uploads: list[_Upload | Problem] = []
    for index, (data, item) in enumerate(zip(form.images, items, strict=True)):
        try:
            labels = LabelsIn.model_validate(item).labels(options)
        except ValidationError as error:
            uploads.append(invalid(error, index))
        else:
            uploads.append(_Upload(index, crop_id_of(data), data, labels))
    return uploads


def _good(outcomes: Sequence[T | Problem], skip: bool) -> list[T]:
    """What is no problem; unless `skip`, the first problem is raised."""
    kept = (outcome if skip else unless_problem(outcome) for outcome in outcomes)
    return [outcome for outcome in kept if not isinstance(outcome, Problem)]


async def _enrol(
    request: Request, runtime: Runtime, uploads: Sequence[_Upload | Problem], known: set[str], skip: bool
) -> list[EnrolResult]:
    """Embeds what the gallery does not know yet, each file once, and enrols everything in one transaction."""
    fresh: dict[str, _Upload] = {}
    for upload in uploads:
        if isinstance(upload, _Upload) and upload.crop_id not in known:
            fresh.setdefault(upload.crop_id, upload)
    found = await embed_pictures(runtime, {one.index: one.data for one in fresh.values()}, skip_bad=skip)
    request.state.timings.update(found.timings)
    pictures = {crop_id: found.outcomes[one.index] for crop_id, one in fresh.items()}
    keep = runtime.settings.store_images == "thumbnail"
    outcomes = await runtime.decoding.run(_new_crops, uploads, pictures, keep)
    crops = _good(outcomes, skip)
    enrolled = iter(await runtime.storing.run(runtime.gallery.enrol, crops) if crops else ())
    return [
        _failed(index, outcome) if isinstance(outcome, Problem) else _stored(index, next(enrolled))
        for index, outcome in enumerate(outcomes)
    ]


def _new_crops(
    uploads: Sequence[_Upload | Problem], pictures: Mapping[str, Picture | Problem], keep: bool
) -> list[NewCrop | Problem]:
    """What is to be stored of each file; a known one has no picture and is only relabelled."""
    crops: list[NewCrop | Problem] = []
    for upload in uploads:
        if isinstance(upload, Problem):
            crops.append(upload)
            continue
        picture = pictures.get(upload.crop_id)
        if isinstance(picture, Problem):
            crops.append(picture.at(upload.index))
        elif picture is None:
            crops.append(NewCrop(upload.crop_id, None, None, upload.labels))
        else:
            stored = thumbnail(picture.crop) if keep else None
            crops.append(NewCrop(upload.crop_id, picture.embedding, stored, upload.labels))
    return crops


def _stored(index: int, one: Enrolled) -> EnrolResult:
    return EnrolResult(index=index, crop_id=one.crop_id, identity=one.identity, camera=one.camera, status=one.status)


def _failed(index: int, problem: Problem) -> EnrolResult:
    return EnrolResult(index=index, status="failed", problem=problem.body())


@router.get(
    "",
    response_model=PageResponse,
    dependencies=[ParametersOnce],
    responses=documented(Kind.UNKNOWN_FIELD, Kind.INVALID_FIELD, Kind.INVALID_CURSOR, Kind.NOT_READY),
)
async def page(parameters: Annotated[PageQuery, Query()], runtime: RuntimeDep) -> Response:
    """The enrolled crops in the order of enrolment, page by page."""
    return await runtime.searching.run(_page, runtime.gallery, parameters)


def _page(gallery: Gallery, parameters: PageQuery) -> Response:
    found = gallery.page(parameters.filters(parameters.unidentified), parameters.limit, parameters.cursor)
    crops = [CropOut.of(crop) for crop in found.crops]
    return json_response(PageResponse(crops=crops, next_cursor=found.next_cursor))


ONE_CROP = (Kind.UNKNOWN_CROP, Kind.UNKNOWN_FIELD, Kind.NOT_READY)


@router.get("/{crop_id}", dependencies=[NoParameters], responses=documented(*ONE_CROP))
async def get(crop_id: str, runtime: RuntimeDep) -> CropOut:
    """One crop's labels."""
    return CropOut.of(await runtime.storing.run(runtime.gallery.get, canonical(crop_id)))


@router.delete(
    "/{crop_id}",
    status_code=204,
    dependencies=[NoParameters],
    responses=documented(*ONE_CROP, Kind.STORAGE_FULL),
)
async def delete(crop_id: str, runtime: RuntimeDep) -> None:
    """Forgets a crop: its labels, its embedding and its picture."""
    await runtime.storing.run(runtime.gallery.delete, canonical(crop_id))


@router.get(
    "/{crop_id}/image",
    dependencies=[NoParameters],
    response_class=Response,
    responses={
        200: {"description": "The stored picture", "content": {"image/jpeg": {}}},
        **documented(Kind.UNKNOWN_CROP, Kind.NO_STORED_IMAGE, Kind.UNKNOWN_FIELD, Kind.NOT_READY),
    },
)
async def image(crop_id: str, runtime: RuntimeDep) -> Response:
    """The stored thumbnail: what the model saw, as JPEG."""
    stored = await runtime.storing.run(runtime.gallery.image, canonical(crop_id))
    if stored is None:
        detail = "This crop was enrolled without keeping its picture; delete it and enrol it again to keep one."
        raise Problem(Kind.NO_STORED_IMAGE, detail)
    return Response(stored, media_type="image/jpeg", headers={"X-Content-Type-Options": "nosniff"})
