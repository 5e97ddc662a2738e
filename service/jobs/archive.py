"""The export format: a tar of `manifest.jsonl` and the crops' pictures.

The manifest's first line says what the archive is, each other line is a crop: its labels, its picture's name in the
archive or null, when it was enrolled, and who a person said it is not.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import Instant, LabelsIn, Name
from service.gallery.records import Crop

MANIFEST_NAME = "manifest.jsonl"


class ArchiveHead(BaseModel):
    """The manifest's first line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["resight-export/1"]
    crops: int = Field(ge=0)


class ArchivedCrop(LabelsIn):
    """One line for a crop; the rules for labels are those of `POST /gallery`."""

    crop_id: UUID
    file: str | None = None
    enrolled_at: Instant
    not_identity: tuple[Name, ...] = ()


def archived(crop: Crop, has_picture: bool) -> ArchivedCrop:
    """The manifest's line for `crop`."""
    return ArchivedCrop.model_construct(
        identity=crop.identity,
        camera=crop.camera,
        captured_at=crop.captured_at,
        track=crop.track,
        meta=crop.meta,
        crop_id=UUID(crop.crop_id),
        file=f"crops/{crop.crop_id}.jpg" if has_picture else None,
        enrolled_at=crop.enrolled_at,
        not_identity=crop.not_identity,
    )
