"""`/gallery`: enrol, list, look at and delete crops."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from service.api.answers import CropOut, EnrolResponse, ModelRef, PageResponse, json_response
from service.api.auth import ADMIN, ENROL, QUERY
from service.api.bulk import enrol_tar, tar_answer, with_tar
from service.api.enrolment import Upload, enrol_uploads
from service.api.forms import Form, json_body, multipart_body, parse_fields, read_form, read_json
from service.api.identity_schemas import CropPatch
from service.api.limits import MAX_IMAGES, TAR, media_type
from service.api.pictures import canonical, crop_id_of
from service.api.problems import FORM_KINDS, JSON_KINDS, PICTURE_KINDS, Kind, Problem, documented, invalid
from service.api.runtime import NoParameters, ParametersOnce, RuntimeDep, audited
from service.api.schemas import Consistent, EnrolForm, LabelsIn, PageQuery
from service.gallery.contract import AnyGallery

router = APIRouter(prefix="/gallery", tags=["gallery"])

Read = Annotated[Consistent, Query()]


@router.post(
    "",
    status_code=201,
    response_model=EnrolResponse,
    dependencies=[ENROL, NoParameters],
    responses={
        200: {
            "description": "Nothing was new; of an archive, a line for each member",
            "model": EnrolResponse,
            "content": tar_answer(),
        },
        **documented(*FORM_KINDS, *PICTURE_KINDS, Kind.REFUSED_MEMBER, Kind.STORAGE_FULL),
    },
    openapi_extra=with_tar(multipart_body(EnrolForm, MAX_IMAGES)),
)
async def enrol(request: Request, runtime: RuntimeDep) -> Response:
    """Enrols 1 to 64 crops. The same bytes again are a duplicate, with other labels an update.

    All or nothing: one bad image or item refuses the request, unless `on_error=skip`. A tar archive of any number
    of crops is enrolled as it arrives and answered by a line of JSON for each member, then one that counts them.
    """
    await runtime.require_space()
    if media_type(request.headers) == TAR:
        return await enrol_tar(request, runtime)
    form = await read_form(request, frozenset(EnrolForm.model_fields), MAX_IMAGES)
    options = parse_fields(EnrolForm, form.fields)
    uploads = await runtime.decoding.run(_uploads, form, options)
    results = await enrol_uploads(request, runtime, uploads, options.on_error == "skip")
    created = any(result.status == "created" for result in results)
    return json_response(EnrolResponse(results=results, model=ModelRef.of(runtime.info)), 201 if created else 200)


def _uploads(form: Form, options: EnrolForm) -> list[Upload | Problem]:
    """Each file with its labels, or why its item cannot be used."""
    items = options.items if options.items is not None else [{}] * len(form.images)
    if len(items) != len(form.images):
        detail = f"items: has {len(items)} objects for {len(form.images)} images; give one for each image."
        raise Problem(Kind.INVALID_FIELD, detail)
    uploads: list[Upload | Problem] = []
    for index, (data, item) in enumerate(zip(form.images, items, strict=True)):
        try:
            labels = LabelsIn.model_validate(item).labels(options)
        except ValidationError as error:
            uploads.append(invalid(error, index))
        else:
            uploads.append(Upload(index, crop_id_of(data), data, labels))
    return uploads


@router.get(
    "",
    response_model=PageResponse,
    dependencies=[QUERY, ParametersOnce],
    responses=documented(Kind.UNKNOWN_FIELD, Kind.INVALID_FIELD, Kind.INVALID_CURSOR, Kind.NOT_READY),
)
async def page(parameters: Annotated[PageQuery, Query()], runtime: RuntimeDep) -> Response:
    """The enrolled crops in the order of enrolment, page by page."""
    return await runtime.computing.run(_page, runtime.gallery, parameters)


def _page(gallery: AnyGallery, parameters: PageQuery) -> Response:
    filters = parameters.filters(parameters.unidentified)
    found = gallery.page(filters, parameters.limit, parameters.cursor, strong=parameters.strong)
    crops = [CropOut.of(crop) for crop in found.crops]
    return json_response(PageResponse(crops=crops, next_cursor=found.next_cursor))


ONE_CROP = (Kind.UNKNOWN_CROP, Kind.UNKNOWN_FIELD, Kind.NOT_READY)


@router.get("/{crop_id}", dependencies=[QUERY, ParametersOnce], responses=documented(*ONE_CROP, Kind.INVALID_FIELD))
async def get(crop_id: str, read: Read, runtime: RuntimeDep) -> CropOut:
    """One crop's labels."""
    work = partial(runtime.gallery.get, canonical(crop_id), strong=read.strong)
    return CropOut.of(await runtime.storing.run(work))


@router.patch(
    "/{crop_id}",
    dependencies=[ENROL, NoParameters],
    responses=documented(*ONE_CROP, *JSON_KINDS, Kind.STORAGE_FULL),
    openapi_extra=json_body(CropPatch),
)
async def correct(crop_id: str, request: Request, runtime: RuntimeDep) -> CropOut:
    """Changes a crop's labels, or says who it is not; answers the crop as it is then."""
    correction = (await read_json(request, CropPatch)).correction()
    own = canonical(crop_id)
    named = [name for name in (correction.labels.identity, *(correction.not_identity or ())) if name is not None]
    work = runtime.gallery.identities.correct
    return CropOut.of(await audited(request, runtime, "correct", [own, *named], 1, work, own, correction))


@router.delete(
    "/{crop_id}",
    status_code=204,
    dependencies=[ADMIN, NoParameters],
    responses=documented(*ONE_CROP, Kind.STORAGE_FULL),
)
async def delete(crop_id: str, request: Request, runtime: RuntimeDep) -> None:
    """Forgets a crop: its labels, its embedding and its picture."""
    own = canonical(crop_id)
    await audited(request, runtime, "erase", [own], 1, runtime.gallery.delete, own)


@router.get(
    "/{crop_id}/image",
    dependencies=[QUERY, ParametersOnce],
    response_class=Response,
    responses={
        200: {"description": "The stored picture", "content": {"image/jpeg": {}}},
        **documented(*ONE_CROP, Kind.NO_STORED_IMAGE, Kind.INVALID_FIELD),
    },
)
async def image(crop_id: str, read: Read, runtime: RuntimeDep) -> Response:
    """The stored thumbnail: what the model saw, as JPEG."""
    stored = await runtime.storing.run(partial(runtime.gallery.image, canonical(crop_id), strong=read.strong))
    if stored is None:
        detail = "This crop was enrolled without keeping its picture; delete it and enrol it again to keep one."
        raise Problem(Kind.NO_STORED_IMAGE, detail)
    return Response(stored, media_type="image/jpeg")
