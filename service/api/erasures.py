"""`POST /erasures`: what was asked to be forgotten is forgotten, with a receipt."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.api.auth import ADMIN
from service.api.forms import json_body, read_json
from service.api.identity_schemas import ErasureBody, ErasureReceipt
from service.api.problems import JSON_KINDS, Kind, documented
from service.api.runtime import NoParameters, RuntimeDep, audited

router = APIRouter(tags=["erasures"])


@router.post(
    "/erasures",
    response_model_exclude_unset=True,
    dependencies=[ADMIN, NoParameters],
    responses=documented(*JSON_KINDS, Kind.NOT_READY, Kind.STORAGE_FULL),
    openapi_extra=json_body(ErasureBody),
)
async def erase(request: Request, runtime: RuntimeDep) -> ErasureReceipt:
    """Erases an identity, some crops, or what a camera saw: all of it, or, with an error, nothing.

    Where nothing is left to erase the receipt counts 0 crops, so it may be asked twice.
    """
    body = await read_json(request, ErasureBody)
    asked = body.selection()
    named = [name for name in (asked.identity, asked.camera) if name is not None]
    ids = [*named, *sorted(asked.crop_ids or ())]
    receipt = await audited(request, runtime, "erase", ids, None, runtime.gallery.erasures.erase, asked)
    return ErasureReceipt.of(receipt, body)
