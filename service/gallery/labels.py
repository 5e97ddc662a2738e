"""What enrolling a known crop again makes of its labels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace

from service.gallery.records import Labels


def merged(old: Labels, marks: Collection[str], given: Labels) -> Labels:
    """Given labels replace the old ones, missing ones stay; so does the identity against a person's mark."""
    if given.identity in marks:
        given = replace(given, identity=None)
    names = [label.name for label in fields(Labels)]
    values = {name: getattr(given, name) for name in names}
    return Labels(**{name: getattr(old, name) if value is None else value for name, value in values.items()})
