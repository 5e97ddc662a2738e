"""Pages of crops in the order of enrolment. Milvus 2.3 sorts by no field, so a page is cut out by its numbers.

Every crop has a number that grows with enrolment, `seq`. Counting halves a range of numbers until one answer holds it.
"""

from __future__ import annotations

from service.gallery.cursors import decode_cursor, encode_cursor, invalid_cursor
from service.gallery.records import Filters, Page
from service.gallery_milvus.crops import Crops
from service.gallery_milvus.rows import KEY, LABELS, crop_of, passing
from service.gallery_milvus.server import MOST_ROWS, both, quoted

LISTED = "m"  # the list's name in its cursors
LAST = 2**62  # above every number


def page_of(crops: Crops, filters: Filters, limit: int, cursor: str | None, *, strong: bool) -> Page:
    """Up to `limit` >= 1 crops behind the cursor. Raises InvalidCursor, ValueError, GalleryUnavailable."""
    if limit < 1:
        raise ValueError("limit must be at least 1: empty pages never come to an end")
    seq, crop_id = (0, "") if cursor is None else _behind(cursor)
    server, collection = crops.server, crops.collections.crops
    which = both(passing(filters), f"seq > {seq} || seq == {seq} && {KEY} > {quoted(crop_id)}")
    total = server.count(collection, which, strong=strong)
    upper = LAST if total <= MOST_ROWS else _upper(crops, which, seq, limit, strong)
    rows = server.rows(collection, both(which, f"seq <= {upper}"), [KEY, *LABELS], strong=strong)
    rows = sorted(rows, key=lambda row: (int(row["seq"]), str(row[KEY])))[:limit]
    more = total > len(rows) == limit
    last = f"{rows[-1]['seq']}:{rows[-1][KEY]}" if rows else ""
    return Page(tuple(crop_of(row) for row in rows), encode_cursor(LISTED, last) if more else None)


def _upper(crops: Crops, which: str, seq: int, limit: int, strong: bool) -> int:
    """A number up to which the expression lets through `limit` crops at least, and no more than one answer holds."""
    server, collection = crops.server, crops.collections.crops
    low, high = seq, LAST
    while low < high:
        middle = (low + high) // 2
        count = server.count(collection, both(which, f"seq <= {middle}"), strong=strong)
        if limit < count <= MOST_ROWS:
            return middle
        low, high = (low, middle) if count > MOST_ROWS else (middle + 1, high)
    return high


def _behind(cursor: str) -> tuple[int, str]:
    text, colon, crop_id = decode_cursor(LISTED, cursor).partition(":")
    try:
        seq = int(text)
    except ValueError as error:
        raise invalid_cursor() from error
    if not colon or not 0 < seq < LAST or encode_cursor(LISTED, f"{seq}:{crop_id}") != cursor:
        raise invalid_cursor()
    return seq, crop_id
