"""One's own pictures as a CSV file: columns `path` and `identity`, and if known `camera` and `split`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from training.data.checks import checked
from training.data.dataset import DIGITS, UNKNOWN_CAMERA, DataError, Dataset, readable
from training.data.own import SPLITS, Divided, Picture, build, divide

NEEDED = ("path", "identity")
OPTIONAL = ("camera", "split")
ALIKE = 3  # first letters that make a column's name look like another: cam, camid, cameraId
BEYOND = "beyond the header"


@dataclass(frozen=True)
class Row:
    """A line of the file."""

    line: int
    path: str
    identity: str
    camera: str
    split: str


def read(path: Path | str, ignore_cameras: bool = False) -> Dataset:
    """Read a CSV file with a header; paths are relative to the file's folder, other columns are named in a note.

    `identity` and `camera` are names of any kind; an empty camera is unknown. `split` is train, query or gallery
    in every line; without it the identities are divided as `own.divide` says.

    Raises:
        DataError: a column, value or picture is missing, a picture or column comes twice, a column looks like a
            misspelt one, a line has more values than the header (the message names it), or as `own.divide` and
            `checks.checked` say.
    """
    file = Path(path)
    columns, rows = _read_rows(file)
    others = [readable(column) for column in columns if column not in (*NEEDED, *OPTIONAL)]
    notes = (f"columns of {readable(str(file))} that are not read: {', '.join(others)}",) if others else ()
    cameras = number_cameras(row.camera for row in rows)
    pictures = {row.line: _picture(file, row, cameras) for row in rows}
    _check_paths(file, rows)
    divided = not any(row.split for row in rows)
    parts = divide(file, list(pictures.values())) if divided else _as_told(file, rows, pictures)
    names = {number: name for name, number in cameras.items() if name}
    data = build(readable(file.stem), parts, names)
    return checked(file, replace(data, notes=notes, divided=divided), ignore_cameras)


def holds_pictures(file: Path) -> bool:
    """Whether a CSV file's first line names the columns that `read` needs."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            line = opened.readline(10_000)
    except (OSError, UnicodeDecodeError):
        return False
    return set(NEEDED) <= {name.strip().strip('"') for name in line.replace(";", ",").split(",")}


def _as_told(file: Path, rows: Sequence[Row], pictures: Mapping[int, Picture]) -> Divided:
    """The parts that the column `split` tells."""
    parts: Divided = {split: [] for split in SPLITS}
    for row in rows:
        split = next((split for split in SPLITS if split == row.split), None)
        if split is None:
            raise DataError(f"{file}, line {row.line}: split is {row.split!r}, not one of {', '.join(SPLITS)}")
        parts[split].append(pictures[row.line])
    return parts


def number_cameras(names: Iterable[str]) -> dict[str, int]:
    """Whole numbers of at most nine digits stay what they are; "" is unknown.

    Where any name is another one, all are numbered from 1 in sorted order.
    """
    known = sorted({name for name in names if name})
    whole = all(name.isdecimal() and len(name) <= DIGITS for name in known)
    numbers = {name: int(name) if whole else number for number, name in enumerate(known, start=1)}
    return {**numbers, "": UNKNOWN_CAMERA}


def _read_rows(file: Path) -> tuple[list[str], list[Row]]:
    """The columns' names, and the lines below them."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            delimiter = ";" if ";" in opened.readline() else ","  # as spreadsheets write it in half of Europe
            opened.seek(0)
            reader = csv.DictReader(opened, restkey=BEYOND, skipinitialspace=True, delimiter=delimiter)
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            _check_columns(file, columns)
            rows = [_row(file, reader.line_num, values) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a CSV file in UTF-8: {error}") from error
    for column in NEEDED:
        for row in rows:
            if not getattr(row, column):
                raise DataError(f"{file}, line {row.line}: no {column}")
    if not rows:
        raise DataError(f"{file} has a header and no line below it: nothing to learn from")
    return columns, rows


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    """Raise DataError unless the header is clear about every column."""
    for column in NEEDED:
        if column not in columns:
            raise DataError(f"{file} has no column {column!r} but {columns}: the first line names path, identity, …")
    for column in (*NEEDED, *OPTIONAL):
        if columns.count(column) > 1:
            raise DataError(f"{file} has {columns.count(column)} columns {column!r}: leave one of them")
    others = {column.casefold(): column for column in columns if column not in (*NEEDED, *OPTIONAL)}
    for column in OPTIONAL:
        if column in columns:
            continue
        alike = [name for name in others if name.startswith(column[:ALIKE])] or get_close_matches(column, others)
        if alike:
            raise DataError(
                f"{file} has a column {others[alike[0]]!r} and no {column!r}: is that meant, name it {column!r}; "
                "if not, give it a name that looks less like it"
            )


def _row(file: Path, line: int, values: Mapping[str, str | None]) -> Row:
    if BEYOND in values:
        raise DataError(f'{file}, line {line}: more values than columns; write a value that holds a comma in "quotes"')
    path, identity, camera, split = (
        (values.get(column) or "").strip() for column in ("path", "identity", "camera", "split")
    )
    return Row(line, path, identity, camera, split)


def _picture(file: Path, row: Row, cameras: Mapping[str, int]) -> Picture:
    path = file.parent / row.path
    if not path.is_file():
        raise DataError(f"{file}, line {row.line}: there is no picture {path}")
    return Picture(row.path, path, row.identity, cameras[row.camera])


def _check_paths(file: Path, rows: Iterable[Row]) -> None:
    lines: dict[Path, int] = {}
    for row in rows:
        if (earlier := lines.setdefault((file.parent / row.path).resolve(), row.line)) != row.line:
            raise DataError(f"{file}, line {row.line}: {row.path} is in line {earlier} already; remove one of them")
