"""`/gallery`: enrol, list, look at and delete crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from service.api.forms import Form, multipart_body, parse_fields, read_form
from service.api.limits import MAX_IMAGES
from service.api.pictures import Picture, canonical, crop_id_of, embed_pictures
from service.api.problems import FORM_KINDS, PICTURE_KINDS, Kind, Problem, documented, problem_of
from service.api.runtime import NoParameters, Runtime, RuntimeDep
from service.api.schemas import (
    CropOut,
    EnrolForm,
    EnrolResponse,
    EnrolResult,
    LabelsIn,
    ModelRef,
    PageQuery,
    PageResponse,
)
from service.gallery.records import Labels, NewCrop, UnknownCrop
from service.inference.images import thumbnail

router = APIRouter(prefix="/gallery", tags=["gallery"])


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
    response_model_exclude_unset=True,
    dependencies=[NoParameters],
    responses={
        200: {"description": "Nothing was new", "model": EnrolResponse},
        **documented(*FORM_KINDS, *PICTURE_KINDS),
    },
    openapi_extra=multipart_body(EnrolForm, MAX_IMAGES),
)
async def enrol(request: Request, response: Response, runtime: RuntimeDep) -> EnrolResponse:
    """Enrols 1 to 64 crops. The same bytes again are a duplicate, with other labels an update.

    All or nothing: one bad image or item refuses the request, unless `on_error=skip`.
    """
    form = await read_form(request, frozenset(EnrolForm.model_fields), MAX_IMAGES)
    options = parse_fields(EnrolForm, form.fields)
    skip = options.on_error == "skip"
    failed: dict[int, Problem] = {}
    uploads = await runtime.in_thread(_uploads, form, options, failed)
    _stop_at_first(failed, skip)
    known = await runtime.in_thread(runtime.gallery.known, [upload.crop_id for upload in uploads])
    try:
        done = await _enrol(request, runtime, uploads, known, failed, skip)
    except UnknownCrop:  # A known crop was deleted meanwhile: this time nothing counts as known.
        done = await _enrol(request, runtime, uploads, set(), failed, skip)
    if not any(result.status == "created" for result in done):
        response.status_code = 200
    lost = [EnrolResult(index=at, status="failed", problem=why.body()) for at, why in failed.items()]
    results = sorted([*done, *lost], key=lambda result: result.index)
    return EnrolResponse(results=results, model=ModelRef.of(runtime.info))


def _uploads(form: Form, options: EnrolForm, failed: dict[int, Problem]) -> list[_Upload]:
    """Pairs files with their labels; an item that cannot be used goes to `failed`."""
    items = options.items if options.items is not None else [{}] * len(form.images)
    if len(items) != len(form.images):
        detail = f"items: has {len(items)} objects for {len(form.images)} images; give one for each image."
        raise Problem(Kind.INVALID_FIELD, detail)
    uploads = []
    for index, (data, item) in enumerate(zip(form.images, items, strict=True)):
        try:
            labels = LabelsIn.model_validate(item).labels(options)
        except ValidationError as error:
            failed[index] = problem_of(error, index)
        else:
            uploads.append(_Upload(index, crop_id_of(data), data, labels))
    return uploads


def _stop_at_first(failed: Mapping[int, Problem], skip: bool) -> None:
    if failed and not skip:
        raise failed[min(failed)]


async def _enrol(
    request: Request,
    runtime: Runtime,
    uploads: Sequence[_Upload],
    known: set[str],
    failed: dict[int, Problem],
    skip: bool,
) -> list[EnrolResult]:
    """Embeds what the gallery does not know yet, each file once, and enrols everything in one transaction."""
    fresh = {upload.crop_id: upload.data for upload in uploads if upload.crop_id not in known}
    found = await embed_pictures(runtime, list(fresh.values()), skip_bad=skip)
    request.state.timings.update(found.timings)
    ids = list(fresh)
    bad = {ids[at]: problem for at, problem in found.bad.items()}
    failed |= {upload.index: bad[upload.crop_id].at(upload.index) for upload in uploads if upload.crop_id in bad}
    _stop_at_first(failed, skip)
    good = [upload for upload in uploads if upload.crop_id not in bad]
    pictures = {ids[at]: picture for at, picture in found.good.items()}
    crops = await runtime.in_thread(_new_crops, runtime, good, pictures)
    enrolled = await runtime.in_thread(runtime.gallery.enrol, crops) if crops else []
    return [
        EnrolResult(
            index=upload.index, crop_id=one.crop_id, identity=one.identity, camera=one.camera, status=one.status
        )
        for upload, one in zip(good, enrolled, strict=True)
    ]


def _new_crops(runtime: Runtime, uploads: Sequence[_Upload], pictures: Mapping[str, Picture]) -> list[NewCrop]:
    keep = runtime.settings.store_images == "thumbnail"
    crops = []
    for upload in uploads:
        picture = pictures.get(upload.crop_id)
        stored = thumbnail(picture.crop) if picture is not None and keep else None
        embedding = None if picture is None else picture.embedding
        crops.append(NewCrop(upload.crop_id, embedding, stored, upload.labels))
    return crops


@router.get("", responses=documented(Kind.UNKNOWN_FIELD, Kind.INVALID_FIELD, Kind.INVALID_CURSOR))
async def page(parameters: Annotated[PageQuery, Query()], runtime: RuntimeDep) -> PageResponse:
    """The enrolled crops in the order of enrolment, page by page."""
    filters = parameters.filters(parameters.unidentified)
    found = await runtime.in_thread(runtime.gallery.page, filters, parameters.limit, parameters.cursor)
    return PageResponse(crops=[CropOut.of(crop) for crop in found.crops], next_cursor=found.next_cursor)


ONE_CROP: dict[int | str, dict[str, Any]] = documented(Kind.UNKNOWN_CROP, Kind.UNKNOWN_FIELD)


@router.get("/{crop_id}", dependencies=[NoParameters], responses=ONE_CROP)
async def get(crop_id: str, runtime: RuntimeDep) -> CropOut:
    """One crop's labels."""
    return CropOut.of(await runtime.in_thread(runtime.gallery.get, canonical(crop_id)))


@router.delete("/{crop_id}", status_code=204, dependencies=[NoParameters], responses=ONE_CROP)
async def delete(crop_id: str, runtime: RuntimeDep) -> None:
    """Forgets a crop: its labels, its embedding and its picture."""
    await runtime.in_thread(runtime.gallery.delete, canonical(crop_id))


@router.get(
    "/{crop_id}/image",
    dependencies=[NoParameters],
    response_class=Response,
    responses={
        200: {"description": "The stored picture", "content": {"image/jpeg": {}}},
        **documented(Kind.UNKNOWN_CROP, Kind.NO_STORED_IMAGE, Kind.UNKNOWN_FIELD),
    },
)
async def image(crop_id: str, runtime: RuntimeDep) -> Response:
    """The stored thumbnail: what the model saw, as JPEG."""
    stored = await runtime.in_thread(runtime.gallery.image, canonical(crop_id))
    if stored is None:
        detail = "This crop was enrolled without keeping its picture; delete it and enrol it again to keep one."
        raise Problem(Kind.NO_STORED_IMAGE, detail)
    return Response(stored, media_type="image/jpeg", headers={"X-Content-Type-Options": "nosniff"})
