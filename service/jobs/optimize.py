"""Deriving what a GPU runs ahead of time, and whether it embeds crops as its source does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.inference.derived import LEAST_COSINE, derive
from service.inference.images import ImageError, decode_crop
from service.inference.loading import load_engine
from service.inference.model import ModelFile, file_stamp, read_model
from service.jobs.job import JobError, Progress, unheard

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MOST_CROPS = 2000  # all pairs of which are compared
BATCH = 16
# Share of the crops; of two that are as near as each other, either may come first.
LEAST_NEAREST: Mapping[str, float] = {"int8": 0.85, "fp32": 0.95}


@dataclass(frozen=True)
class Agreement:
    """How near the derived file's embeddings are to the source's, on `crops` crops.

    Cosines between the two embeddings of a crop; `nearest` is the share of crops whose nearest other crop is the same.
    """

    crops: int
    cosine_least: float
    cosine_median: float
    nearest: float
    needed_cosine: float
    needed_nearest: float

    @property
    def passed(self) -> bool:
        """Whether the derived file may stand for its source."""
        return self.cosine_least >= self.needed_cosine and self.nearest >= self.needed_nearest


def optimize(
    model: Path, target: Path, crops: Path, threads: int, progress: Progress = unheard
) -> tuple[ModelFile, Agreement]:
    """Writes to `target` what is derived from `model`, if it embeds the pictures in the folder `crops` alike.

    `target` appears whole, and only if the agreement has passed. Raises ModelError, EngineError and JobError.
    """
    _check_place(target)
    if file_stamp(model) is None:  # `read_model` advises a setting, which has no part in this
        raise JobError(f"There is no model file at {model}.")
    source = read_model(model)
    if source.info.precision == "fp16":
        raise JobError(f"{model} is fp16 already: a GPU runs it as it is.")
    pictures = list(_decoded(_chosen(crops), source))
    if len(pictures) < 2:
        raise JobError(f"Fewer than two pictures of {crops} can be read; give crops of people with --crops FOLDER.")
    derived = derive(source)
    batches = [np.stack(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)]
    whole = 2 * len(batches)
    first = _embedded(source, batches, threads, lambda done: progress(done, whole))
    second = _embedded(derived, batches, threads, lambda done: progress(len(batches) + done, whole))
    found = agreement(first, second, source.info.precision)
    if found.passed:
        _write(target, derived.content)
    return derived, found


def _embedded(
    file: ModelFile, batches: Sequence[NDArray[np.uint8]], threads: int, tell: Callable[[int], None]
) -> NDArray[np.float32]:
    engine = load_engine(file, "cpu", threads)
    parts = []
    for number, batch in enumerate(batches):
        parts.append(engine.run(batch).embeddings)
        tell(number + 1)
    return np.concatenate(parts)


def agreement(source: NDArray[np.float32], derived: NDArray[np.float32], precision: str) -> Agreement:
    """Compares embeddings [N, D] of the same crops, N >= 2, by a source of this precision and by what it gave."""
    cosines = np.nan_to_num((source * derived).sum(axis=1), nan=-1)
    same = _nearest(source) == _nearest(derived)
    needed = LEAST_COSINE[precision], LEAST_NEAREST[precision]
    return Agreement(len(source), float(cosines.min()), float(np.median(cosines)), float(same.mean()), *needed)


def _nearest(embeddings: NDArray[np.float32]) -> NDArray[np.intp]:
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(similarity.argmax(axis=1))


def _chosen(folder: Path) -> Sequence[Path]:
    """All pictures below the folder, or as many of them, evenly spread, as can be compared."""
    try:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    except OSError as error:
        raise JobError(f"{folder} cannot be read: {error.strerror}.") from error
    if not paths:
        raise JobError(f"There are no pictures in {folder}; give crops of people with --crops FOLDER.")
    return paths[:: -(-len(paths) // MOST_CROPS)]


def _decoded(paths: Sequence[Path], file: ModelFile) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        try:
            yield decode_crop(path.read_bytes(), file.info.height, file.info.width)
        except (ImageError, OSError):  # the others still say whether the files agree
            continue


def _check_place(target: Path) -> None:
    """Raises JobError where nothing can be written, or something is: before minutes of work for it."""
    try:
        if target.exists():
            raise JobError(f"{target} is there already; remove it, or choose another name.")
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> JobError:
    return JobError(f"{target} cannot be written: {error.strerror}.")


def _write(target: Path, content: bytes) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".resight-", delete=False) as file:
            unfinished = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
                unfinished.replace(target)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _unwritable(target, error) from error
