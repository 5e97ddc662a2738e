"""`/identities`: list them, look at one, rename, merge and erase."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from service.api.answers import json_response
from service.api.auth import ADMIN, QUERY
from service.api.forms import json_body, read_json
from service.api.identity_schemas import (
    IdentityOut,
    IdentityPageQuery,
    IdentityPageResponse,
    IdentityPatch,
    RenamedResponse,
)
from service.api.problems import JSON_KINDS, Kind, documented
from service.api.runtime import NoParameters, ParametersOnce, RuntimeDep, audited
from service.api.schemas import Consistent, Name
from service.gallery.contract import AnyIdentities
from service.gallery.erasures import Selection
from service.gallery.records import UnknownIdentity

router = APIRouter(prefix="/identities", tags=["identities"])

IdentityName = Annotated[Name, Path(description="the identity's name")]
ONE_IDENTITY = (Kind.UNKNOWN_IDENTITY, Kind.UNKNOWN_FIELD, Kind.INVALID_FIELD, Kind.NOT_READY)


@router.get(
    "",
    response_model=IdentityPageResponse,
    dependencies=[QUERY, ParametersOnce],
    responses=documented(Kind.UNKNOWN_FIELD, Kind.INVALID_FIELD, Kind.INVALID_CURSOR, Kind.NOT_READY),
)
async def page(parameters: Annotated[IdentityPageQuery, Query()], runtime: RuntimeDep) -> Response:
    """The identities in the order of their names, page by page."""
    return await runtime.computing.run(_page, runtime.gallery.identities, parameters)


def _page(identities: AnyIdentities, parameters: IdentityPageQuery) -> Response:
    return json_response(
        IdentityPageResponse.of(identities.page(parameters.limit, parameters.cursor, strong=parameters.strong))
    )


@router.get("/{identity}", dependencies=[QUERY, ParametersOnce], responses=documented(*ONE_IDENTITY))
async def get(identity: IdentityName, read: Annotated[Consistent, Query()], runtime: RuntimeDep) -> IdentityOut:
    """How many crops it has, and which cameras saw it between which times."""
    work = partial(runtime.gallery.identities.get, identity, strong=read.strong)
    return IdentityOut.of(await runtime.computing.run(work))


@router.patch(
    "/{identity}",
    dependencies=[ADMIN, NoParameters],
    responses=documented(*JSON_KINDS, *ONE_IDENTITY, Kind.STORAGE_FULL),
    openapi_extra=json_body(IdentityPatch),
)
async def rename(identity: IdentityName, request: Request, runtime: RuntimeDep) -> RenamedResponse:
    """Renames an identity; the name of another one merges the two, which cannot be undone."""
    new = await read_json(request, IdentityPatch)
    work, names = runtime.gallery.identities.rename, [identity, new.identity]
    renamed = await audited(request, runtime, "rename", names, None, work, identity, new.identity)
    return RenamedResponse.of(renamed)


@router.delete(
    "/{identity}",
    status_code=204,
    dependencies=[ADMIN, NoParameters],
    responses=documented(*ONE_IDENTITY, Kind.STORAGE_FULL),
)
async def delete(identity: IdentityName, request: Request, runtime: RuntimeDep) -> None:
    """Erases all crops of an identity; `POST /erasures` does the same and gives a receipt."""
    asked = Selection(identity=identity)
    receipt = await audited(request, runtime, "erase", [identity], None, runtime.gallery.erasures.erase, asked)
    if not receipt.crops:
        raise UnknownIdentity(identity)
