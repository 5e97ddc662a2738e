"""What the project wants to reach, and what the results say of it: a row each, 'reached', 'short' or 'not yet run'."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from benchmarks import engine, enrolment, growth, search, service, start
from benchmarks.results import Results, digits
from service.gallery.building import EXACT_UP_TO

Found = Mapping[str, Results]  # by the name of the file
LARGE = "-large"  # of the names of what `make bench-large` measures


@dataclass(frozen=True)
class Aim:
    """`find` gives the figure, None where it was not measured; it should be at least `limit`, or at most.

    `of` says how long its vectors are, where the aim leaves that to the model.
    """

    text: str
    limit: float
    unit: str
    find: Callable[[Found], float | None]
    at_most: bool = False
    of: Callable[[Found], str | None] = lambda found: None

    def row(self, found: Found) -> tuple[str, str, str, str]:
        """Text, figure, aim and whether it was reached."""
        value = self.find(found)
        text = f"{self.text} of {dim} values" if (dim := self.of(found)) else self.text
        unit = f" {self.unit}" if self.unit else ""
        aim = f"{'≤' if self.at_most else '≥'} {self.limit:,g}{unit}"
        if value is None:
            return text, "–", aim, "not yet run"
        reached = value <= self.limit if self.at_most else value >= self.limit
        return text, digits(value) + unit, aim, "reached" if reached else "short"


def _median(name: str, subject: str, case: str, unit: str) -> Callable[[Found], float | None]:
    def find(found: Found) -> float | None:
        figure = found[name].find(subject, case, unit) if name in found else None
        return figure.median if figure else None

    return find


def _share(case: service.Case) -> Callable[[Found], float | None]:
    """Of the raw engine's rate in the same round."""

    def find(found: Found) -> float | None:
        pair = _pair(found, (service.OURS, str(case), service.RATE), (service.RAW, "best batch", service.RATE))
        return statistics.median(ours / raw for ours, raw in pair) if pair else None

    return find


def _pair(
    found: Found, ours: tuple[str, str, str], other: tuple[str, str, str], name: str = "service"
) -> list[tuple[float, float]]:
    """What two figures were in the same rounds; nothing where one was not measured."""
    if name not in found:
        return []
    first, second = found[name].find(*ours), found[name].find(*other)
    return list(zip(first.values, second.values, strict=False)) if first and second else []


def _more_than_raw(found: Found) -> float | None:
    one = (service.ONE, service.MEDIAN)
    pair = _pair(found, (service.OURS, *one), (service.RAW, *one))
    return statistics.median(ours - raw for ours, raw in pair) if pair else None


def _against_peers(cases: Iterable[str] | None) -> Callable[[Found], float | None]:
    """Our rate over that of the best peer, where it is least."""

    def find(found: Found) -> float | None:
        if "service" not in found:
            return None
        results = found["service"]
        ratios = []
        for ours in results.of(service.RATE, subject=service.OURS):
            peers = [f.median for f in results.of(service.RATE, case=ours.case) if f.subject in service.PEERS.values()]
            if peers and (cases is None or ours.case in cases):
                ratios.append(ours.median / max(peers))
        return min(ratios, default=None)

    return find


def _first(*tries: Callable[[Found], float | None]) -> Callable[[Found], float | None]:
    """The first that was measured."""
    return lambda found: next((value for one in tries if (value := one(found)) is not None), None)


def _enrolled(unit: str) -> Callable[[Found], float | None]:
    """The lesser of both ways."""

    def find(found: Found) -> float | None:
        for name in ("enrolment" + LARGE, "enrolment"):
            if name in found and (figures := found[name].of(unit)):
                return min(figure.median for figure in figures)
        return None

    return find


def _searched(found: Found) -> float | None:
    """ms a query where recall is kept; infinite where it is not."""
    for name in ("search-300000", "search-1000000x512"):
        if name in found:
            time = found[name].find(search.OURS, search.ONE, search.TIME)
            recalled = found[name].of(search.RECALL, subject=search.OURS)
            if time and recalled:
                return time.median if recalled[0].median >= 0.98 else float("inf")
    return None


def _started(name: str, size: int, way: str, unit: str) -> Callable[[Found], float | None]:
    """With the model's own number of values, or what the file was made for."""

    def find(found: Found) -> float | None:
        dim = _values(name, size)(found)
        figure = found[name].find(f"{size:,} x {dim}", way, unit) if dim else None
        return figure.median if figure else None

    return find


def _values(name: str, size: int) -> Callable[[Found], str | None]:
    """How many of them the vectors of a gallery have that was started."""

    def find(found: Found) -> str | None:
        sizes = [figure.subject.split(" x ") for figure in found[name].figures] if name in found else []
        return next((dim for crops, dim in sizes if crops == f"{size:,}"), None)

    return find


def _exponent(found: Found) -> float | None:
    for name in ("growth" + LARGE, "growth"):
        if name in found and (figures := found[name].of(growth.EXPONENT)):
            return figures[-1].median
    return None


def _gpu_engine(found: Found) -> float | None:
    rates = found["gpu-engine"].of(engine.RATE) if "gpu-engine" in found else []
    return max((figure.median for figure in rates if figure.subject.startswith(engine.OURS)), default=None)


def _gpu_exact(found: Found) -> float | None:
    """ms for a batch of 64, by our index and ranking."""
    if "gpu-search" not in found:
        return None
    time = found["gpu-search"].find(search.OURS_ON_GPU, "64 queries at once", search.TIME)
    return 64 * time.median if time else None


def _at_most(
    text: str,
    limit: float,
    unit: str,
    find: Callable[[Found], float | None],
    of: Callable[[Found], str | None] = lambda found: None,
) -> Aim:
    return Aim(text, limit, unit, find, at_most=True, of=of)


BULK, ONE, FILTERED = service.Case(32, 8), service.Case(1, 32), service.Case(1, 32, without_camera=True)
OURS = service.OURS

_own_values = _values("start", 100_000)
_ready = _started("start", 100_000, start.WITH, start.READY)
_ready_large = _started("start-1000000x512", 1_000_000, start.WITH, start.READY)
_answered = _started("start", 100_000, start.WITHOUT, start.ANSWERED)
_memory = _first(
    _median("service", OURS, "all its processes", service.MEMORY),
    _started("start", 20_000, start.WITH, start.MEMORY),
)
_index_memory = _median("search-1000000", search.OURS_COMPRESSED, "all crops", search.MEMORY)
_gpu_bulk = _median("gpu-service", OURS, str(BULK), service.RATE)
_gpu_queries = _median("gpu-queries", OURS, str(ONE), service.RATE)
_gpu_late = _median("gpu-queries", OURS, str(ONE), service.LATE)

EXPONENT = f"Exponent of N of a query's cost, from 10,000 crops up; `auto`, another method past {EXACT_UP_TO:,}"

AIMS = (
    Aim("Bulk embedding over HTTP, share of the raw engine's rate", 0.92, "", _share(BULK)),
    Aim("One crop a query, 32 clients, 20,000 crops: share of the raw rate", 0.80, "", _share(ONE)),
    Aim("The same with one camera left out", 0.80, "", _share(FILTERED)),
    _at_most("One client, one crop, exact: more than the raw engine's time", 8.0, "ms", _more_than_raw),
    _at_most("Search of 300,000 x 2,048 or 1,000,000 x 512 at recall ≥ 0.98", 5.0, "ms", _searched),
    Aim("Rate over the best peer's, in the worst case", 1.0, "", _against_peers(None)),
    Aim("The same for one crop and 32 clients", 1.1, "", _against_peers([str(ONE)])),
    Aim("Enrolment: share of the raw rate, the slower way", 0.90, "", _enrolled(enrolment.SHARE)),
    Aim("Rows of it that are there after kill -9", 100.0, "%", _enrolled(enrolment.DURABLE)),
    _at_most("Start with a snapshot of 100,000 crops", 3.0, "s", _ready, _own_values),
    _at_most("Start with a snapshot of 1,000,000 x 512", 15.0, "s", _ready_large),
    _at_most("First exact answer without a snapshot, 100,000 crops", 5.0, "s", _answered, _own_values),
    _at_most("Memory of the service with 20,000 crops", 600.0, "MB", _memory),
    _at_most("Memory of the index of 1,000,000 x 2,048, `compressed`", 3000.0, "MB", _index_memory),
    _at_most(EXPONENT, 0.6, "", _exponent),
    Aim("GPU: engine in fp16", 8000.0, "crops/s", _gpu_engine),
    Aim("GPU: bulk over HTTP", 6000.0, "crops/s", _gpu_bulk),
    Aim("GPU: one-crop queries, 1,000,000 crops", 1000.0, "a second", _gpu_queries),
    _at_most("GPU: 99th percentile of these", 25.0, "ms", _gpu_late),
    _at_most("GPU: exact search of 10,000,000 x 2,048 for 64 queries", 40.0, "ms", _gpu_exact),
)
