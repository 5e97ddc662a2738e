"""`resight calibrate`: the match distance from labelled crops, the gallery's own or others; no torch needed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.ranking import FALSE_MATCHES_PER_QUERY
from service.gallery.readonly import reading_beside, require_newest_schema
from service.gallery.rows import IN_LIST
from service.gallery.store import VECTOR
from service.inference.engine import Engine
from service.inference.images import ImageError, decode_crop
from service.inference.model import ModelInfo
from service.jobs.distances import Labelled, Pairs, count_pairs, quantile, share_below
from service.jobs.embedding import embed
from service.jobs.job import JobError, Progress, unheard
from service.jobs.manifest import Model

MOST_CROPS = 10_000  # compared with each other: five seconds at D = 2048 on one core
FEWEST_IDENTITIES, FEWEST_PAIRS = 5, 100  # below, there is no figure
FEW_IDENTITIES = 30  # below, there is a warning
MOST_MATCHES = 0.5  # share of the pairs of one person: below, most matches are missed
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled crops, and how many candidates a query meets where the distance is to be used; `model` embedded them."""

    labelled: Labelled
    candidates: int
    passed_over: int = 0
    model: Model | None = None


@dataclass(frozen=True)
class Calibration:
    """A suggested RESIGHT_MATCH_DISTANCE with its 95 % interval, what it was measured on, and what speaks against it.

    `found` is the share of the pairs of one person that lie under the distance, across cameras where they are known
    (`across_cameras`); None where no person has two crops.
    """

    match_distance: float
    low: float
    high: float
    false_match_rate: float
    extrapolated: bool
    identities: int
    crops: int
    stranger_pairs: int
    same_pairs: int
    across_cameras: bool
    found: float | None
    model: Model | None
    warnings: tuple[str, ...]

    @property
    def misses_most(self) -> bool:
        """Whether most pairs of one person lie beyond the distance."""
        return self.found is not None and self.found < MOST_MATCHES


def calibrate(sample: Sample, false_match_rate: float | None = None) -> Calibration:
    """The distance under which a share `false_match_rate` of the pairs of different people lies.

    None is the rate of a verdict: one false match in 100 queries, over all candidates together. Raises JobError when
    there is too little to measure.
    """
    labelled = sample.labelled
    identities = len(np.unique(labelled.identity))
    pairs = count_pairs(labelled) if identities >= FEWEST_IDENTITIES else None
    if pairs is None or pairs.strangers.sum() < FEWEST_PAIRS:
        raise JobError(
            f"{identities:,} identities with {len(labelled.identity):,} crops are too few to measure distances between "
            f"strangers: at least {FEWEST_IDENTITIES} identities and {FEWEST_PAIRS} pairs are needed. Name more crops."
        )
    rate = FALSE_MATCHES_PER_QUERY / max(sample.candidates, 1) if false_match_rate is None else false_match_rate
    measured = quantile(pairs, rate)
    across = bool(pairs.across_cameras.any())
    same = pairs.across_cameras if across else pairs.same
    distance = int(measured.distance * 1e4) / 1e4  # rounded to the strict side
    found = share_below(same, distance)
    return Calibration(
        match_distance=distance,
        low=round(measured.low, 4),
        high=round(measured.high, 4),
        false_match_rate=rate,
        extrapolated=measured.extrapolated,
        identities=identities,
        crops=len(labelled.identity),
        stranger_pairs=int(pairs.strangers.sum()),
        same_pairs=int(same.sum()),
        across_cameras=across,
        found=found,
        model=sample.model,
        warnings=tuple(_warnings(sample, identities, pairs, rate, measured.extrapolated, found)),
    )


def _warnings(
    sample: Sample, identities: int, pairs: Pairs, rate: float, extrapolated: bool, found: float | None
) -> Iterable[str]:
    if found is not None and found < MOST_MATCHES:
        yield (
            f"this distance misses most matches, {100 * (1 - found):.1f} % of the pairs of one person: allow more "
            "false matches (--false-match-rate), or train a model on such crops"
        )
    if identities < FEW_IDENTITIES:
        yield f"only {identities} identities: name at least {FEW_IDENTITIES} people before you rely on this"
    if extrapolated:
        yield (
            f"{pairs.strangers.sum():,} pairs of strangers do not reach down to a rate of {rate:.1e}: the distance is "
            "extrapolated, on the strict side; more labelled crops measure it"
        )
    if not pairs.same.any():
        yield "nobody has two crops: how many matches the distance finds cannot be told"
    elif not pairs.across_cameras.any():
        yield "nobody was seen by two known cameras: the share that is found is that of one camera, which is easier"
    if sample.passed_over:
        yield f"{'1 crop' if sample.passed_over == 1 else f'{sample.passed_over:,} crops'} could not be used"


def gallery_sample(folder: Path, model: ModelInfo | None = None, most: int = MOST_CROPS) -> Sample:
    """The named crops of the gallery in `folder`, which a service may own: at most `most`, of as many people as can be.

    Raises JobError where its embeddings are not those of `model`, and what `reading_beside` raises.
    """
    with reading_beside(folder) as connection:
        require_newest_schema(connection, folder)
        stored = connection.execute("SELECT model_name, model_sha256, dim FROM gallery").fetchone()
        owner = None if stored is None else Model(*stored)
        if owner is not None and model is not None and owner.sha256 != model.sha256:
            raise JobError(
                f"The gallery's embeddings are of {owner.name} (sha256 {owner.sha256[:12]}…), not of {model.name} "
                f"(sha256 {model.sha256[:12]}…): name labelled crops for --model to embed, or leave --model out."
            )
        dim = 0 if owner is None else owner.dim
        named = connection.execute(
            "SELECT row, identity, camera FROM crops WHERE identity IS NOT NULL ORDER BY row"
        ).fetchall()
        (nameless,) = connection.execute("SELECT count(*) FROM crops WHERE identity IS NULL").fetchone()
        chosen = [named[place] for place in _spread([identity for _, identity, _ in named], most)]
        found: dict[int, NDArray[np.float32]] = {}
        for start in range(0, len(chosen), CHUNK):
            rows = json.dumps([row for row, _, _ in chosen[start : start + CHUNK]])
            query = f"SELECT row, vector, crc32 FROM embeddings WHERE row {IN_LIST}"
            for row, blob, crc in connection.execute(query, (rows,)):
                if len(blob) == dim * VECTOR.itemsize and zlib.crc32(blob) == crc:
                    found[row] = np.frombuffer(blob, VECTOR).astype(np.float32)
    sound = [(found[row], identity, camera) for row, identity, camera in chosen if row in found]
    candidates = len({identity for _, identity, _ in named}) + nameless
    return Sample(_labelled(sound, dim), candidates, len(chosen) - len(sound), owner)


def picture_sample(
    pictures: Sequence[tuple[Callable[[], bytes], str, str | None]],
    engine: Engine,
    progress: Progress = unheard,
    most: int = MOST_CROPS,
) -> Sample:
    """Pictures, to be read, with the person and the camera, if known; at most `most`, of as many people as can be.

    Raises EngineError when the engine fails.
    """
    chosen = iter([pictures[place] for place in _spread([identity for _, identity, _ in pictures], most)])
    total, done = min(most, len(pictures)), 0
    sound: list[tuple[NDArray[np.float32], str, str | None]] = []
    while chunk := list(islice(chosen, CHUNK)):
        crops = []
        for read, identity, camera in chunk:
            try:
                crops.append(((identity, camera), decode_crop(read(), engine.info.height, engine.info.width)))
            except ImageError:
                continue
        vectors, _ = embed(crops, engine)
        sound += [(vector, identity, camera) for (identity, camera), vector in vectors]
        progress(done := done + len(chunk), total)
    people = len({identity for _, identity, _ in pictures})
    used = Model(engine.info.name, engine.info.sha256, engine.info.embedding_dim)
    return Sample(_labelled(sound, used.dim), people, total - len(sound), used)


def _spread(identities: Sequence[str], most: int) -> list[int]:
    """Places of at most `most` crops: everybody's first, then everybody's second, …, in an order drawn once."""
    drawn = np.random.default_rng(0).permutation(len(identities)).tolist()
    seen: dict[str, int] = {}
    turns = []
    for place in drawn:
        turn = seen.get(identities[place], 0)
        seen[identities[place]] = turn + 1
        turns.append((turn, place))
    return sorted(place for _, place in sorted(turns, key=lambda pair: pair[0])[:most])


def _labelled(crops: Sequence[tuple[NDArray[np.float32], str, str | None]], dim: int) -> Labelled:
    vectors = np.array([vector for vector, _, _ in crops], np.float32).reshape(-1, dim)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return Labelled(vectors, _codes([identity for _, identity, _ in crops]), _codes([camera for _, _, camera in crops]))


def _codes(names: Sequence[str | None]) -> NDArray[np.int64]:
    codes: dict[str, int] = {}
    return np.array([-1 if name is None else codes.setdefault(name, len(codes)) for name in names], np.int64)
