"""Many times more than the service can do: `python -m benchmarks.overload --seconds 120` beside `resight serve`.

Measures the rate of answers, offers `--factor` times as much for the time given, rests for 5 s and measures the rate
again. Held are: only 200 and 429, refusals within 150 ms at the 99th percentile, memory within 5 % after the first
quarter, and at least 0.9 of the first rate after the rest.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.held import broken, command, full_rate
from benchmarks.load import Process, Reply, at_rate, good_rate, in_turn, percentile, pictures, process_of, request_of

CLIENTS = 32
MEASURED_SECONDS = 15.0
REST_SECONDS = 5.0  # between the overload and the second measurement
REFUSAL_MS, MEMORY_SHARE, SPEED_SHARE = 150.0, 0.05, 0.9
SAMPLES = 60


@dataclass(frozen=True)
class Overload:
    """What was seen: rates in answers a second, memory in bytes in the order of time."""

    before: float
    offered: float
    replies: Sequence[Reply]
    memory: Sequence[float]
    after: float

    @property
    def refused(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.status == 429]

    @property
    def spread(self) -> float:
        """Of the memory after the first quarter, as a share of its least value."""
        later = self.memory[len(self.memory) // 4 :]
        return max(later) / min(later) - 1

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        statuses = {reply.status for reply in self.replies}
        kept = {
            f"statuses other than 200 and 429: {sorted(statuses - {200, 429})}": statuses <= {200, 429},
            f"refusals took more than {REFUSAL_MS:g} ms": not percentile(self.refused, 99) > REFUSAL_MS,
            f"memory varied by more than {MEMORY_SHARE:.0%}": self.spread <= MEMORY_SHARE,
            "full speed did not come back": self.after >= SPEED_SHARE * self.before,
        }
        return broken(kept)


async def measure(url: str, factor: float, seconds: float, measured: float = MEASURED_SECONDS) -> Overload:
    """Loads the service at `url`; raises LoadError."""
    requests = [request_of("/embed", picture) for picture in pictures(64)]
    process_of(url)
    await in_turn(url, requests, CLIENTS, measured)  # warms connections and caches
    before = await full_rate(url, requests, CLIENTS, measured)
    watching = asyncio.create_task(_watch(url, seconds))
    replies = await at_rate(url, requests, factor * before, seconds)
    memory = await watching
    await asyncio.sleep(REST_SECONDS)
    after = good_rate(await in_turn(url, requests, CLIENTS, measured))
    return Overload(before, factor * before, replies, [process.memory for process in memory], after)


async def _watch(url: str, seconds: float) -> list[Process]:
    found = []
    for _ in range(SAMPLES):
        found.append(await asyncio.to_thread(process_of, url))
        await asyncio.sleep(seconds / SAMPLES)
    return found


def show(seen: Overload, seconds: float) -> list[str]:
    """Prints what was seen; the promises that were not kept."""
    counts = ", ".join(
        f"{status}: {times:,}" for status, times in sorted(Counter(r.status for r in seen.replies).items())
    )
    print(f"before    {seen.before:.1f} answers a second")
    print(f"offered   {seen.offered:.1f} a second for {seconds:g} s; {counts}")
    print(f"refused   p50 {percentile(seen.refused, 50):.1f} ms, p99 {percentile(seen.refused, 99):.1f} ms")
    print(f"memory    {max(seen.memory) / 2**20:.0f} MiB at most, {seen.spread:.1%} apart after the first quarter")
    print(f"after     {seen.after:.1f} answers a second, {REST_SECONDS:g} s later")
    return seen.broken()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all held, 1 not all held, 2 not possible."""
    return command(argv, __doc__, ("factor", 10.0), 120.0, measure, show)


if __name__ == "__main__":
    sys.exit(main())
