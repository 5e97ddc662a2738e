"""Opaque cursors: where the next page of a list begins, as text that only this gallery's lists understand."""

from __future__ import annotations

import base64
import binascii

from service.gallery.records import InvalidCursor


def encode_cursor(listed: str, last: str) -> str:
    """The cursor behind the entry `last` of the list named `listed`, a few letters without a colon."""
    return base64.urlsafe_b64encode(f"{listed}:{last}".encode()).decode().rstrip("=")


def decode_cursor(listed: str, cursor: str) -> str:
    """The entry that the cursor stands behind. Raises InvalidCursor for one that this list has not given out."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        content = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise invalid_cursor() from error
    last = content.removeprefix(f"{listed}:")
    if last == content or encode_cursor(listed, last) != cursor:
        raise invalid_cursor()
    return last


def decode_row(listed: str, cursor: str) -> int:
    """The row that the cursor stands behind. Raises InvalidCursor for one that this list has not given out."""
    try:
        row = int(decode_cursor(listed, cursor))
    except ValueError as error:
        raise invalid_cursor() from error
    if not 0 < row < 2**63 or encode_cursor(listed, str(row)) != cursor:
        raise invalid_cursor()
    return row


def invalid_cursor() -> InvalidCursor:
    """The refusal of a foreign cursor."""
    return InvalidCursor("The cursor is not one that this gallery gave out; start again without it.")
