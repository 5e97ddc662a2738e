"""The suggested distance is the quantile it claims to be, its interval covers the truth, and too little says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery.database import DATABASE_NAME
from service.gallery.records import GalleryUnavailable, Labels, NewCrop
from service.inference.loading import load_engine
from service.inference.model import ModelFile
from service.jobs import distances
from service.jobs.calibrate import Sample, calibrate, gallery_sample, picture_sample
from service.jobs.distances import BINS, Labelled, count_pairs, quantile, share_below
from service.jobs.job import JobError
from tests.drawn_crops import crop
from tests.service.gallery.cases import crop_id, open_gallery

DIM = 16


def people(rng: np.random.Generator, count: int, crops: int, spread: float = 0.3, cameras: int = 3) -> Labelled:
    """Crops [count * crops] around a centre for each person; how near two people are depends on both."""
    centres = rng.standard_normal((count, DIM)) * rng.uniform(0.5, 2, (count, 1))
    vectors = np.repeat(centres, crops, axis=0) + spread * rng.standard_normal((count * crops, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    camera = rng.integers(-1, cameras, count * crops)
    return Labelled(vectors.astype(np.float32), np.repeat(np.arange(count), crops), camera)


def loops(labelled: Labelled) -> tuple[list[float], list[float], list[float]]:
    """Distances of strangers, of the same person, and of the same person across cameras, pair by pair."""
    strangers, same, across = [], [], []
    for i in range(len(labelled.identity)):
        for j in range(i + 1, len(labelled.identity)):
            distance = float(np.linalg.norm(labelled.vectors[i].astype(float) - labelled.vectors[j])) / 2
            if labelled.identity[i] != labelled.identity[j]:
                strangers.append(distance)
                continue
            same.append(distance)
            if -1 not in (labelled.camera[i], labelled.camera[j]) and labelled.camera[i] != labelled.camera[j]:
                across.append(distance)
    return strangers, same, across


@pytest.mark.parametrize("block", [7, 1024])
def test_pairs_are_counted_as_by_loops(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK", block)
    labelled = people(np.random.default_rng(1), count=25, crops=4)
    pairs = count_pairs(labelled)
    for counts, expected in zip((pairs.strangers, pairs.same, pairs.across_cameras), loops(labelled), strict=True):
        assert counts.sum() == len(expected)
        middles = np.repeat(np.arange(BINS) + 0.5, counts) / BINS
        assert np.allclose(middles, np.sort(expected), atol=2e-3 / np.sqrt(BINS) + 1 / BINS)
    group = labelled.identity % distances.GROUPS
    for left_out, counts in enumerate(pairs.without_group):
        rest = group != left_out
        expected = loops(Labelled(labelled.vectors[rest], labelled.identity[rest], labelled.camera[rest]))[0]
        assert counts.sum() == len(expected)


def test_the_distance_is_the_quantile() -> None:
    labelled = people(np.random.default_rng(2), count=60, crops=5)
    strangers, _, across = (np.array(part) for part in loops(labelled))
    for rate in (0.2, 0.01, 1e-3):
        found = calibrate(Sample(labelled, candidates=60), rate)
        assert not found.extrapolated
        assert np.mean(strangers < found.match_distance) == pytest.approx(rate, rel=0.15)
        assert np.mean(strangers < found.match_distance) <= rate
        assert found.low < found.match_distance < found.high
        assert found.found == pytest.approx(np.mean(across < found.match_distance), abs=0.02)
    assert (found.identities, found.crops, found.stranger_pairs) == (60, 300, len(strangers))
    assert (found.same_pairs, found.across_cameras, found.warnings) == (len(across), True, ())


def test_the_rate_is_that_of_a_verdict_unless_one_is_given() -> None:
    labelled = people(np.random.default_rng(3), count=60, crops=5)
    found = calibrate(Sample(labelled, candidates=20))
    assert found.false_match_rate == pytest.approx(0.01 / 20)
    assert found == calibrate(Sample(labelled, candidates=20), 0.01 / 20)


def test_the_interval_covers_the_true_distance() -> None:
    rng = np.random.default_rng(4)
    truth = quantile(count_pairs(people(rng, count=1500, crops=2)), 0.01).distance
    covered = naive = 0
    rounds = 60
    for _ in range(rounds):
        labelled = people(rng, count=40, crops=3)
        found = quantile(count_pairs(labelled), 0.01)
        covered += found.low <= truth <= found.high
        strangers = np.sort(loops_fast(labelled))
        place = 0.01 * len(strangers)
        reach = 1.96 * np.sqrt(place)
        naive += strangers[max(0, int(place - reach))] <= truth <= strangers[int(place + reach)]
    assert covered / rounds >= 0.85
    assert covered > naive  # as if the pairs were independent


def loops_fast(labelled: Labelled) -> NDArray[np.float32]:
    cosines = labelled.vectors @ labelled.vectors.T
    apart = np.triu(labelled.identity[:, None] != labelled.identity[None, :], 1)
    return np.asarray(np.sqrt(np.clip((1 - cosines[apart]) / 2, 0, 1)))


def test_below_all_data_it_is_extrapolated_to_the_strict_side_and_says_so() -> None:
    rng = np.random.default_rng(5)
    few, many = people(rng, count=40, crops=2), people(rng, count=1200, crops=2)
    guessed = calibrate(Sample(few, candidates=40), 1e-4)
    known = calibrate(Sample(many, candidates=40), 1e-4)
    assert (guessed.extrapolated, known.extrapolated) == (True, False)
    assert guessed.match_distance < known.match_distance
    assert any("extrapolated" in warning for warning in guessed.warnings)


def test_too_few_labels_are_refused_or_warned_of() -> None:
    rng = np.random.default_rng(6)
    with pytest.raises(JobError, match="4 identities with 80 crops are too few"):
        calibrate(Sample(people(rng, count=4, crops=20), candidates=4))
    with pytest.raises(JobError, match="0 identities with 0 crops"):
        calibrate(Sample(people(rng, count=0, crops=1), candidates=0))
    found = calibrate(Sample(people(rng, count=15, crops=1, cameras=0), candidates=15), 0.1)
    assert [warning.split(":")[0] for warning in found.warnings] == ["only 15 identities", "nobody has two crops"]
    assert found.found is None
    found = calibrate(Sample(people(rng, count=15, crops=3, cameras=0), candidates=15, passed_over=2), 0.1)
    assert found.across_cameras is False
    assert found.warnings[-2].startswith("nobody was seen by two known cameras")
    assert found.warnings[-1] == "2 crops could not be used"


def test_a_distance_that_misses_most_matches_is_no_success() -> None:
    blurred = people(np.random.default_rng(8), count=60, crops=5, spread=3)
    found = calibrate(Sample(blurred, candidates=60), 1e-3)
    assert found.found is not None
    assert found.found < 0.5
    assert found.misses_most
    share = f"{100 * (1 - found.found):.1f} % of the pairs of one person"
    assert found.warnings[0].startswith(f"this distance misses most matches, {share}: allow more false matches")
    clear = calibrate(Sample(people(np.random.default_rng(8), count=60, crops=5), candidates=60), 0.05)
    assert not clear.misses_most
    assert not any("misses" in warning for warning in clear.warnings)


def test_a_lopsided_gallery_has_a_figure() -> None:
    rng = np.random.default_rng(7)
    one = people(rng, count=5, crops=1)
    many = people(rng, count=1, crops=200)
    labelled = Labelled(
        np.concatenate([one.vectors, many.vectors]),
        np.concatenate([one.identity, many.identity + 5]),
        np.concatenate([one.camera, many.camera]),
    )
    found = calibrate(Sample(labelled, candidates=6), 0.1)
    assert 0 <= found.low <= found.match_distance <= found.high <= 1


def test_the_gallery_measures_itself_while_it_is_served(tmp_path: Path) -> None:
    labelled = people(np.random.default_rng(8), count=40, crops=4)
    with open_gallery(tmp_path, DIM) as gallery:
        names = [f"p{who}" if n % 10 else None for n, who in enumerate(labelled.identity)]
        cameras = [None if camera < 0 else f"c{camera}" for camera in labelled.camera]
        gallery.enrol(
            [NewCrop(crop_id(n), v, None, Labels(names[n], cameras[n])) for n, v in enumerate(labelled.vectors)]
        )
        sample = gallery_sample(tmp_path)
        assert (len(sample.labelled.identity), sample.candidates, sample.passed_over) == (144, 40 + 16, 0)
        named = np.array([name is not None for name in names])
        kept = Labelled(labelled.vectors[named], labelled.identity[named], labelled.camera[named])
        assert calibrate(sample, 0.01).match_distance == pytest.approx(
            calibrate(Sample(kept, 0), 0.01).match_distance, abs=2e-3
        )
        spread = gallery_sample(tmp_path, most=60)
        assert len(np.unique(spread.labelled.identity)) == 40
        assert np.unique(spread.labelled.identity, return_counts=True)[1].max() == 2
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE embeddings SET crc32 = crc32 + 1 WHERE row = 2")
    assert gallery_sample(tmp_path).passed_over == 1
    with pytest.raises(GalleryUnavailable, match="There is no gallery"):
        gallery_sample(tmp_path / "nowhere")


def test_pictures_measure_as_well(model_file: ModelFile) -> None:
    engine = load_engine(model_file, "cpu", 1, 4)
    files: list[tuple[Callable[[], bytes], str, str | None]] = [
        (partial(crop, number, view), f"p{number}", f"c{view}") for number in range(12) for view in range(3)
    ]
    files.append((lambda: b"no picture", "p1", None))
    told: list[tuple[int, int]] = []
    sample = picture_sample(files, engine, lambda *step: told.append(step))
    assert (len(sample.labelled.identity), sample.candidates, sample.passed_over) == (36, 12, 1)
    assert told == [(37, 37)]
    found = calibrate(sample, 0.05)
    assert (found.found, found.same_pairs) == (1.0, 36)


def test_share_below() -> None:
    counts = np.zeros(BINS, np.int64)
    assert share_below(counts, 0.5) is None
    counts[[10, BINS // 2, BINS - 1]] = 1
    assert share_below(counts, 0.5) == pytest.approx(1 / 3)
