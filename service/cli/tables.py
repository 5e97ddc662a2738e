"""Crops and their labels, listed in a CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

from service.cli.files import file_on_disk
from service.cli.items import Item, Layout, Source, SourceError

CSV_COLUMNS = ("path", "identity", "camera", "captured_at", "track", "split")
SPLITS = ("train", "query", "gallery")


def read_table(table: Path, identity: str | None, camera: str | None, *, growing: bool = False) -> Source:
    """Rows of CSV_COLUMNS in their order; paths are relative to the table; an empty field means unknown.

    Of a table that is `growing`, a last line without an end is not there yet. Raises SourceError.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{table} cannot be read as a UTF-8 table: {error}") from error
    if growing:
        text = text[: text.rfind("\n") + 1]
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in header else ",", strict=True)
    columns = rows.fieldnames or ()
    unknown = [column for column in columns if column not in CSV_COLUMNS]
    if "path" not in columns or unknown:
        wrong = f"has unknown columns {', '.join(map(repr, unknown))}" if unknown else "has no column 'path'"
        raise SourceError(f"{table} {wrong}; its first line names some of: {', '.join(CSV_COLUMNS)}")
    items = []
    try:
        for row in rows:
            if None in row or not row["path"]:
                raise SourceError(f"{table}, line {rows.line_num}: no path, or more fields than columns")
            if (split := row.get("split")) and split not in SPLITS:
                raise SourceError(f"{table}, line {rows.line_num}: split is {split!r}, not one of {', '.join(SPLITS)}")
            items.append(_row_item(table.parent, row, identity, camera))
    except csv.Error as error:
        raise SourceError(f"{table}, line {rows.line_num}: {error}") from error
    return Source(str(table), Layout.CSV, tuple(items))


def _row_item(folder: Path, row: dict[str, str | None], identity: str | None, camera: str | None) -> Item:
    path = row["path"] or ""
    file = file_on_disk(folder / path, PurePosixPath(path))
    return Item(
        name=path,
        size=file.size,
        load=file.load,
        identity=row.get("identity") or identity,
        camera=row.get("camera") or camera,
        captured_at=row.get("captured_at") or None,
        track=row.get("track") or None,
        split=row.get("split") or None,
    )
