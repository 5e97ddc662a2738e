"""`resight reembed`: the gallery's stored pictures through another model, so that it can be served with that one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.audit import Act, Audit
from service.gallery.reembedding import Reembedding, Unembedded
from service.gallery.store import Model
from service.inference.engine import Engine
from service.inference.images import ImageError, decode_crop
from service.jobs.embedding import embed
from service.jobs.job import JobError, Progress, unheard

ACTOR = "reembed"
CHUNK = 256  # crops that share one commit: what a kill can cost

Pictures = list[tuple[Unembedded, NDArray[np.uint8]]]


@dataclass(frozen=True)
class Lost:
    """A crop that the new model cannot embed, and why."""

    row: int
    crop_id: str
    identity: str | None
    reason: str


class PicturesMissing(JobError):
    """Some crops cannot be embedded, and nobody said that they may be dropped. The gallery is as it was."""

    def __init__(self, lost: Sequence[Lost]) -> None:
        which = "1 crop has" if len(lost) == 1 else f"{len(lost):,} crops have"
        super().__init__(
            f"{which} no picture that can be embedded. Enrol the pictures again with the old model, or erase these "
            "crops by --drop-missing and enrol their pictures afterwards. The gallery is as it was."
        )
        self.lost = tuple(lost)


@dataclass(frozen=True)
class Reembedded:
    """What was done: crops embedded now, those that an earlier run had, those erased. `needed` False: nothing."""

    needed: bool
    embedded: int = 0
    found: int = 0
    dropped: tuple[Lost, ...] = ()


def reembed(folder: Path, engine: Engine, *, drop_missing: bool = False, progress: Progress = unheard) -> Reembedded:
    """Embeds every stored picture of the gallery in `folder` with `engine`, then gives the gallery to its model.

    The old embeddings stay, and can be served with their model, until all new ones are there: then one transaction
    swaps them. Stopped or killed, it goes on where it was when it is called again. Crops without a picture that can
    be embedded are erased with `drop_missing`; else they are told, at once where none was stored, and nothing
    changes. Progress is told in crops.

    Raises PicturesMissing, EngineError when the engine fails, GalleryLocked as long as a service runs,
    GalleryUnavailable, GalleryDamaged, GalleryTooNew.
    """
    info = engine.info
    with Reembedding.open(folder, Model(info.sha256, info.name, info.embedding_dim)) as change:
        if not change.needed:
            return Reembedded(needed=False)
        lost = [_lost(crop, "no picture was stored") for crop in change.without_picture()]
        if lost and not drop_missing:
            raise PicturesMissing(lost)
        found = change.embedded_count
        lost += _embed_all(change, engine, progress)
        embedded = change.embedded_count - found
        if lost and not drop_missing:
            raise PicturesMissing(lost)
        _finish(change, folder, lost)
    return Reembedded(True, embedded, found, tuple(lost))


def _finish(change: Reembedding, folder: Path, dropped: Sequence[Lost]) -> None:
    """Crops that go stand in the audit log before they do."""
    if not dropped:
        change.finish([])
        return
    with Audit.open(folder) as audit:
        act = Act("erase", ACTOR, [one.crop_id for one in dropped], len(dropped))
        audit.perform(act, change.finish, [one.row for one in dropped])


def _lost(crop: Unembedded, reason: str) -> Lost:
    return Lost(crop.row, crop.crop_id, crop.identity, reason)


def _embed_all(change: Reembedding, engine: Engine, progress: Progress) -> list[Lost]:
    """Embeds what is pending and returns what cannot be."""
    lost: list[Lost] = []
    total, done = change.crop_count, change.embedded_count
    progress(done, total)
    for crops in _chunks(change):
        pictures, broken = _decoded(crops, engine)
        vectors, failed = embed(pictures, engine)
        if vectors:
            change.keep([crop.row for crop, _ in vectors], np.stack([vector for _, vector in vectors]))
        lost += broken + [_lost(crop, "the model gives no embedding for its picture") for crop in failed]
        done += len(crops)
        progress(done, total)
    return lost


def _chunks(change: Reembedding) -> Iterator[list[Unembedded]]:
    after = 0
    while crops := change.pending(after, CHUNK):
        after = crops[-1].row
        yield crops


def _decoded(crops: Sequence[Unembedded], engine: Engine) -> tuple[Pictures, list[Lost]]:
    pictures: Pictures = []
    broken = []
    for crop in crops:
        try:
            pictures.append((crop, decode_crop(crop.picture, engine.info.height, engine.info.width)))
        except ImageError:
            broken.append(_lost(crop, "its stored picture is damaged"))
    return pictures, broken
