"""What `resight calibrate` reads beside the gallery, and how it says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.items import Item, SourceError, count
from service.cli.messages import say, stop
from service.cli.sources import open_sources

if TYPE_CHECKING:
    from service.jobs.calibrate import Calibration

TAKEN_AS_NEW = (
    "all people are taken as new to the model: those that it learnt from would flatter it; a column split of train, "
    "query and gallery leaves them out"
)


def labelled_pictures(paths: Sequence[Path]) -> list[tuple[Callable[[], bytes], str, str | None]]:
    """The crops at `paths` that have an identity: how to read each, who it is, which camera. Folders and CSVs only.

    Those of a training part are left out: a model knows whom it learnt from better than anybody else.
    """
    zips = [path for path in paths if path.suffix.lower() == ".zip"]
    if zips:
        stop(f"{zips[0]}: unpack the zip and name the folder.")
    try:
        with open_sources(paths) as sources:
            for source in sources:
                say(source.describe())
            items = [item for source in sources for item in source.items]
    except SourceError as error:
        stop(f"{error}.")
    labelled = [item for item in items if item.identity is not None]
    new = [item for item in labelled if item.split != "train"]
    if len(new) < len(labelled):
        learnt = count(len(labelled) - len(new), "crop")
        say(f"left out: {learnt} of the training part; a model that learnt from them knows them too well")
    else:
        say(TAKEN_AS_NEW)
    return [(_reader(item), item.identity, item.camera) for item in new if item.identity is not None]


def _reader(item: Item) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return item.read()
        except SourceError as error:
            say(f"{item.name}: {error}")
            return b""  # which is no picture

    return read


def calibration_lines(found: Calibration) -> Iterator[str]:
    """The suggestion first, then what it rests on, then what speaks against it."""
    yield f"RESIGHT_MATCH_DISTANCE={found.match_distance:.4f}"
    kind = "extrapolated" if found.extrapolated else "measured"
    yield (
        f"{kind} at a false-match rate of {found.false_match_rate:.1e}; 95 % interval of the distance "
        f"{found.low:.4f} to {found.high:.4f}"
    )
    yield (
        f"on {found.crops:,} crops of {found.identities:,} people: {found.stranger_pairs:,} pairs of strangers, "
        f"{found.same_pairs:,} of one person{' under two cameras' if found.across_cameras else ''}"
    )
    if found.model is not None:
        yield f"embedded by the model {found.model.name} (sha256 {found.model.sha256[:12]}…)"
    if found.found is not None:
        only = "only " if found.misses_most else ""
        yield f"{only}{100 * found.found:.1f} % of the pairs of one person lie under it"
    for warning in found.warnings:
        yield f"warning: {warning}"
