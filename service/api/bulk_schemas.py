"""What `POST /gallery` takes and answers for a tar archive: a manifest's lines in, a line a member out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.api.answers import ModelRef
from service.api.schemas import LabelsIn

BulkStatus = Literal["created", "duplicate", "updated", "failed", "skipped"]


class ManifestLine(LabelsIn):
    """One line of `manifest.jsonl`: a member's name and its labels."""

    file: str = Field(min_length=1, max_length=1024, description="the member's name in the archive")


class MemberResult(BaseModel):
    """What became of one member; `skipped` is what Market-1501 calls junk (identity -1)."""

    index: int = Field(description="the member's position among those that are no folders, the manifest left out")
    name: str
    status: BulkStatus
    crop_id: str | None = None
    identity: str | None = None
    camera: str | None = None
    problem: dict[str, Any] | None = Field(default=None, description="with status failed: why, as in an error")


class BulkEnd(BaseModel):
    """The last line: whether the whole archive was read, and how many members ended how."""

    done: bool = Field(description="false: it ended early, see problem; what the lines say is stored")
    counts: dict[BulkStatus, int]
    model: ModelRef
    problem: dict[str, Any] | None = None
