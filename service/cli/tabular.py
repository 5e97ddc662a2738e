"""The tables that commands show: rankings, keys, identities, crops, checks and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from service.cli.checks import Check, State
from service.client.answers import Crop, Match, Ranking
from service.client.decisions import Identity
from service.keys import Key

STATE_STYLES = {State.OK: "green", State.WARN: "yellow", State.FAIL: "bold red"}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[str] = frozenset()) -> Table:
    """A plain table; the columns named in `right` are flushed right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def ranking_table(ranking: Ranking, names: Mapping[str, str]) -> Table:
    """One row an identity; `names` says what to call a crop_id, where it says so."""
    headings = ("rank", "identity", "distance", "similarity", "camera", "support", "crop")
    right = frozenset({"rank", "distance", "similarity", "support"})
    return table(headings, (_match(match, names) for match in ranking.matches), right)


def _match(match: Match, names: Mapping[str, str]) -> tuple[str, ...]:
    return (
        str(match.rank),
        match.identity or "-",
        f"{match.distance:.4f}",
        f"{match.similarity:.4f}",
        match.camera or "-",
        "-" if match.support is None else str(match.support),
        names.get(match.crop_id, match.crop_id),
    )


def key_table(keys: Sequence[Key]) -> Table:
    """One row a key."""
    return table(("name", "scope", "created"), ((key.name, key.scope, key.created) for key in keys))


def identity_table(identities: Sequence[Identity]) -> Table:
    """One row an identity."""
    rows = (
        (
            one.identity,
            f"{one.crops:,}",
            ", ".join(one.cameras) or "-",
            _moment(one.first_captured_at),
            _moment(one.last_captured_at),
        )
        for one in identities
    )
    return table(("identity", "crops", "cameras", "first seen", "last seen"), rows, frozenset({"crops"}))


def crop_table(crops: Sequence[Crop]) -> Table:
    """One row a crop."""
    rows = (
        (
            one.crop_id,
            one.camera or "-",
            _moment(one.captured_at),
            one.track or "-",
            _moment(one.enrolled_at),
            str((one.meta or {}).get("source", "-")),
        )
        for one in crops
    )
    return table(("crop", "camera", "captured", "track", "enrolled", "source"), rows)


def _moment(when: datetime | None) -> str:
    return "-" if when is None else f"{when:%Y-%m-%d %H:%M:%S}"


def check_table(checks: Sequence[Check]) -> Table:
    """One row a check, coloured where there are colours."""
    made = table(("check", "state", "found"), ())
    for check in checks:
        made.add_row(check.name, Text(check.state, style=STATE_STYLES[check.state]), check.found)
    return made


def setting_table(values: Sequence[Mapping[str, str]]) -> Table:
    """One row a setting."""
    return table(("setting", "value", "from"), ((one["name"], one["value"], one["source"]) for one in values))
