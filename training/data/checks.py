"""What is wrong with a data set, said before hours of training instead of after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.data.dataset import DISTRACTOR, UNKNOWN_CAMERA, DataError, Dataset, Sample

Samples = tuple[Sample, ...]


def checked(root: Path, data: Dataset, ignore_cameras: bool = False) -> Dataset:
    """The data set, its split found sound, with notes on what cannot be measured.

    Every data set has a train part and a test part, because every run ends in a measurement.

    Args:
        root: where it was read, for messages.
        ignore_cameras: take every camera as unknown, so that pictures of one camera match.

    Raises:
        DataError: less than two identities to learn, no query or gallery, an identity in train and test, or no
            query that has a match.
    """
    if ignore_cameras:
        data = replace(
            data,
            train=_without_cameras(data.train),
            query=_without_cameras(data.query),
            gallery=_without_cameras(data.gallery),
            multi_query=_without_cameras(data.multi_query),
        )
    _check_train(root, data)
    for part, samples in (("query", data.query), ("gallery", data.gallery)):
        if not samples:
            raise DataError(f"{root} has no {part} picture: nothing could be measured; add some")
        _check_disjoint(root, data, part, samples)
    return replace(data, notes=(*data.notes, *_unmatched(root, data)))


def _without_cameras(samples: Samples) -> Samples:
    return tuple(replace(sample, camera=UNKNOWN_CAMERA) for sample in samples)


def _check_train(root: Path, data: Dataset) -> None:
    people = len({sample.identity for sample in data.train})
    if people < 2:
        raise DataError(
            f"the train part of {root} holds {'one identity' if people else 'no identity'}: "
            "training needs two at least; add pictures of other people"
        )


def _check_disjoint(root: Path, data: Dataset, part: str, samples: Samples) -> None:
    learnt = {sample.identity: sample for sample in data.train}
    for sample in samples:
        if same := learnt.get(sample.identity):
            name = data.identity_name(sample.identity)
            raise DataError(
                f"identity {name} is in train and {part} of {root} ({same.name}, {sample.name}): "
                "the split must be disjoint; remove one of them"
            )


def _unmatched(root: Path, data: Dataset) -> tuple[str, ...]:
    """A note on the queries that have no match; DataError where none has one."""
    gallery: dict[int, set[int]] = defaultdict(set)
    for sample in data.gallery:
        gallery[sample.identity].add(sample.camera)
    people = [query for query in data.query if query.identity > DISTRACTOR]
    nobody = [query for query in data.query if query.identity <= DISTRACTOR]
    absent = [query for query in people if query.identity not in gallery]
    same = [query for query in people if gallery.get(query.identity) == {query.camera} != {UNKNOWN_CAMERA}]
    left, asked = len(nobody) + len(absent) + len(same), len(data.query)
    if left == asked:
        raise DataError(f"no query of {root} has a match: {_reasons(nobody, absent, same, _REMEDY)}")
    if left:
        return (f"{left} of {asked} queries have no match and are not counted: {_reasons(nobody, absent, same)}",)
    return ()


_REMEDY = " (correct the cameras, or take them as unknown with --ignore-cameras)"


def _reasons(nobody: Sequence[Sample], absent: Sequence[Sample], same: Sequence[Sample], remedy: str = "") -> str:
    reasons = []
    if same:
        also = f", and of {len(same) - 1} more theirs" if len(same) > 1 else ""
        reasons.append(f"every match of query {same[0].name} shares its camera ({same[0].camera}){also}{remedy}")
    if absent:
        also = f", nor is that of {len(absent) - 1} more" if len(absent) > 1 else ""
        reasons.append(f"the person of query {absent[0].name} is not in the gallery{also}")
    if nobody:
        also = f", and so does that of {len(nobody) - 1} more" if len(nobody) > 1 else ""
        number = f"{nobody[0].identity:04d}" if nobody[0].identity >= 0 else f"{nobody[0].identity}"
        reasons.append(
            f"the number of query {nobody[0].name}, {number}, means {'distractor' if number == '0000' else 'junk'}"
            f"{also}: number people from 0001"
        )
    return "; ".join(reasons)
