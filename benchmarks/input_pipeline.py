"""Does the GPU wait for its batches? `python -m benchmarks.input_pipeline`.

Times a training step with its batch fetched and augmented, beside a step on one and the same batch, by turns, on
random pictures of the preset's size. The aim: within 15 %. `--device cpu --preset smoke` only tries the code.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, repeat

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.options import as_count
from training.config import PRESETS, Config, build_config
from training.data.dataset import Sample
from training.loop.engine import train_step
from training.loop.feed import Feed
from training.loop.learner import Batch, Learner
from training.loop.state import State
from training.network.device import find_device
from training.network.model import ReIDNet

AIM = 1.15
CLASSES_A_BATCH = 4  # times the identities of a batch: how many people there are
PICTURES = 16  # of each


@dataclass(frozen=True)
class Times:
    """Seconds a step, one entry each."""

    augmented: list[float]
    constant: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.augmented) / statistics.median(self.constant)


def measure(config: Config, device: torch.device, steps: int, warm_up: int, console: Console | None = None) -> Times:
    """Time `steps` of each kind, by turns, after `warm_up` that do not count."""
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    feed = random_feed(config, device)
    state = State(Learner(ReIDNet(config, max(feed.classes) + 1), None, config).to(device), frozenset())
    state.module.train()
    augmented = endless(feed)
    constant = repeat(next(augmented))
    times = Times([], [])
    for step in track(range(warm_up + steps), "steps", console=console, disable=console is None, transient=True):
        for batches, taken in ((augmented, times.augmented), (constant, times.constant)):
            seconds = timed_step(state, batches, device)
            if step >= warm_up:
                taken.append(seconds)
    return times


def random_feed(config: Config, device: torch.device) -> Feed:
    """As many people as several batches need, with random pictures."""
    classes = [n for n in range(CLASSES_A_BATCH * config.identities) for _ in range(PICTURES)]
    samples = [Sample(f"{n}", n + 1, index % 6 + 1, 0, bytes) for index, n in enumerate(classes)]
    feed = Feed(config, samples, classes, device)
    shape = (len(classes), 3, config.height, config.width)
    feed.pictures = feed.place(torch.randint(0, 256, shape, dtype=torch.uint8))
    return feed


def endless(feed: Feed) -> Iterator[Batch]:
    """The batches of one epoch after the other."""
    for epoch in count():
        yield from feed.batches(feed.draw(epoch))


def timed_step(state: State, batches: Iterator[Batch], device: torch.device) -> float:
    """Seconds from wanting a batch to weights that have learnt from it."""
    began = time.perf_counter()
    train_step(state, next(batches))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def table(times: Times, title: str) -> Table:
    shown = Table(title=title, caption=f"{times.ratio:.3f} times the constant batch; the aim is {AIM} at most")
    for name in ("step on", "median ms", "5 % ms", "95 % ms", "x"):
        shown.add_column(name, justify="left" if name == "step on" else "right")
    base = statistics.median(times.constant)
    for name, seconds in (("augmented batches", times.augmented), ("a constant batch", times.constant)):
        low, *_, high = statistics.quantiles(seconds, n=20)
        median = statistics.median(seconds)
        shown.add_row(name, *(f"{1000 * value:.2f}" for value in (median, low, high)), f"{median / base:.3f}")
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 1 slower than the aim on CUDA, 2 bad input."""
    arguments = parse(argv)
    try:
        config, device = build_config(arguments.preset, None, arguments.set), find_device(arguments.device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    times = measure(config, device, arguments.steps, arguments.warm_up, Console(stderr=True))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu, which shows nothing"
    batch = f"{config.identities * config.shots} x {config.height} x {config.width}, {config.precision}"
    Console().print(table(times, f"{arguments.preset}, {batch}, {name}"))
    return int(device.type == "cuda" and times.ratio > AIM)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="strong")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; repeatable")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--steps", type=as_count, default=200, help="of each kind (default: 200)")
    parser.add_argument("--warm-up", type=int, default=20, help="steps before those that count (default: 20)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
