"""Steady load for a long time: `python -m benchmarks.soak --seconds 1800` beside `resight serve`.

Measures what the service can answer, then asks for `--share` of that. Held are: after the first fifth memory has no
upward trend (its slope is less than twice its standard error, or under 1 MiB an hour), and no open file is left over.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.held import broken, command, full_rate
from benchmarks.load import Reply, at_rate, percentile, pictures, process_of, request_of

CLIENTS = 16
MEASURED_SECONDS = 10.0
ENDING_SECONDS = 1.0  # in which the service sees that connections were closed
SAMPLES = 180
LEAST_SLOPE = 2**20 / 3600  # bytes a second


@dataclass(frozen=True)
class Soak:
    """What was seen: the rate asked for; times in s and memory in bytes, in the order of time; open files without
    any load: after the rate was measured, when as much was open at once as ever, and at the end."""

    rate: float
    replies: Sequence[Reply]
    times: Sequence[float]
    memory: Sequence[float]
    files_before: int
    files_after: int

    def slope(self) -> tuple[float, float]:
        """Bytes a second after the first fifth, and the standard error of that."""
        start = len(self.times) // 5
        return trend(self.times[start:], self.memory[start:])

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        slope, error = self.slope()
        kept = {
            "memory grows": slope < max(2 * error, LEAST_SLOPE),
            "open files are left over": self.files_after <= self.files_before,
            "not everything was answered with 200": {reply.status for reply in self.replies} == {200},
        }
        return broken(kept)


def trend(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line through n >= 3 points, and its standard error."""
    x, y = np.array(times) - np.mean(times), np.array(values) - np.mean(values)
    slope = float(x @ y / (x @ x))
    rest = y - slope * x
    return slope, float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))


async def measure(url: str, share: float, seconds: float, measured: float = MEASURED_SECONDS) -> Soak:
    """Loads the service at `url`; raises LoadError."""
    requests = [request_of("/query", picture) for picture in pictures(64)]
    process_of(url)
    rate = share * await full_rate(url, requests, CLIENTS, measured)
    await asyncio.sleep(ENDING_SECONDS)
    files_before = process_of(url).files
    loading = asyncio.create_task(at_rate(url, requests, rate, seconds))
    begun = time.perf_counter()
    samples = []
    for number in range(SAMPLES):
        await asyncio.sleep(max(begun + number * seconds / SAMPLES - time.perf_counter(), 0))
        samples.append((time.perf_counter() - begun, await asyncio.to_thread(process_of, url)))
    replies = await loading
    times, memory = [at for at, _ in samples], [process.memory for _, process in samples]
    await asyncio.sleep(ENDING_SECONDS)
    return Soak(rate, replies, times, memory, files_before, process_of(url).files)


def show(seen: Soak, seconds: float) -> list[str]:
    """Prints what was seen; the promises that were not kept."""
    slope, doubt = (value * 3600 / 2**20 for value in seen.slope())
    print(f"asked     {seen.rate:.1f} a second for {seconds:g} s; {dict(Counter(r.status for r in seen.replies))}")
    print(f"answered  p50 {percentile(seen.replies, 50):.1f} ms, p99 {percentile(seen.replies, 99):.1f} ms")
    print(f"memory    {seen.memory[-1] / 2**20:.0f} MiB, {slope:+.2f} ± {doubt:.2f} MiB an hour after the first fifth")
    tenths = seen.memory[:: max(len(seen.memory) // 10, 1)]
    print(f"          {', '.join(f'{memory / 2**20:.1f}' for memory in tenths)} MiB at every tenth of the time")
    print(f"files     {seen.files_before} open before, {seen.files_after} after")
    return seen.broken()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all held, 1 not all held, 2 not possible."""
    return command(argv, __doc__, ("share", 0.7), 1800.0, measure, show)


if __name__ == "__main__":
    sys.exit(main())
