"""Who is learnt and who is tested, as a table that `table.read` takes again: to look at, and to edit."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from training.data.dataset import UNKNOWN_CAMERA, DataError, Dataset, Sample, readable
from training.data.table import NEEDED, OPTIONAL


def write_list(data: Dataset, file: Path) -> None:
    """Write a line a picture, each person's together: path (relative to the file's folder), identity, camera, split.

    Raises:
        DataError: it is a benchmark, `file` is no .csv or is there already, or a name cannot stand in such a table.
        OSError: the file cannot be written.
    """
    if not data.is_own:
        raise DataError(f"{data.name} is a benchmark, which has its own division: only your own pictures are listed")
    if file.suffix.lower() != ".csv":
        raise DataError(f"{file} is no .csv, and only such a file is read again: give it that ending")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*NEEDED, *OPTIONAL))
    parts = {"train": data.train, "query": data.query, "gallery": data.gallery}
    lines = [(sample, split) for split, samples in parts.items() for sample in samples]
    folder = file.resolve().parent
    for sample, split in sorted(lines, key=lambda line: (line[0].identity, line[0].name)):
        writer.writerow((*_labels(data, sample, folder), split))
    content = text.getvalue().encode()
    try:
        with file.open("xb") as new:
            new.write(content)
    except FileExistsError as error:
        raise DataError(f"{file} is there already, perhaps with changes of yours: name another file") from error


def _labels(data: Dataset, sample: Sample, folder: Path) -> tuple[str, str, str]:
    """Path, identity and camera ("" where it is unknown)."""
    assert sample.path is not None  # of one's own pictures
    path = os.path.relpath(sample.path.parent.resolve() / sample.path.name, folder)
    labels = path, data.identity_name(sample.identity), _camera(data, sample)
    for label in labels:
        if label != label.strip() or label != readable(label):
            raise DataError(
                f"{readable(label)!r} begins or ends with a space, or has letters that a table in UTF-8 cannot hold: "
                "rename it"
            )
    return labels


def _camera(data: Dataset, sample: Sample) -> str:
    return "" if sample.camera == UNKNOWN_CAMERA else data.camera_name(sample.camera)
