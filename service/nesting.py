"""How deep JSON values nest: what recurses over them, a JSON writer too, gives up at some depth."""

from __future__ import annotations


def deeper_than(value: object, levels: int) -> bool:
    """Whether lists and objects nest deeper than that; looks no further down itself."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(deeper_than(one, levels - 1) for one in inner)
