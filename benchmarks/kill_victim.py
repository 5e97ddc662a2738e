"""The process that `benchmarks.kill_cycles` kills: it writes to a gallery and searches it, and says what it does.

Before an operation it writes one line of JSON that says which, after its acknowledgement one that says so. A line is
one `write` of less than PIPE_BUF bytes, so that a kill never leaves half of one.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.erasures import Selection
from service.gallery.gallery import Gallery
from service.gallery.identities import Correction
from service.gallery.records import GalleryError, Labels, NewCrop, QueryOptions

DIM = 32
BATCH = 3  # crops that are enrolled at once, all or none
WRITERS = 3  # threads, each with crops of its own
MODEL = "c" * 64
PAUSE_SECONDS = 0.2  # between two snapshots, on average

Chances = Sequence[float]  # of enrolling, naming, deleting, erasing
ALL_KINDS: Chances = (0.55, 0.2, 0.15, 0.1)
NOTHING_ERASED: Chances = (0.6, 0.4, 0, 0)  # erasures remove snapshots, and a kill is to meet those, too

State = dict[int, str]  # the identity of every crop that is enrolled, by its number


@dataclass(frozen=True)
class Operation:
    """One call: afterwards all `crops` have `identity`, or are gone where that is None."""

    number: int
    kind: str
    crops: list[int]
    identity: str | None


def open_gallery(folder: Path) -> Gallery:
    """The gallery under test."""
    return Gallery.open(folder, MODEL, "killed", DIM, None, 0.2)


def crop_id(number: int) -> str:
    """The id of that crop."""
    return str(uuid.UUID(int=number))


def embedding(number: int) -> NDArray[np.float32]:
    """The embedding [D] of that crop, of unit length."""
    vector = np.random.default_rng(number).standard_normal(DIM)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def picture(number: int) -> bytes:
    """What stands for its picture."""
    return b"picture %d " % number * 20


def run(gallery: Gallery, operation: Operation) -> None:
    """Returns when it is acknowledged."""
    match operation.kind:
        case "enrol":
            labels = Labels(operation.identity)
            gallery.enrol([NewCrop(crop_id(n), embedding(n), picture(n), labels) for n in operation.crops])
        case "name":
            correction = Correction(Labels(operation.identity), frozenset({"identity"}))
            gallery.identities.correct(crop_id(operation.crops[0]), correction)
        case "delete":
            gallery.delete(crop_id(operation.crops[0]))
        case "erase":
            gallery.erasures.erase(Selection(crop_ids=frozenset(map(crop_id, operation.crops))))


def choose(rng: np.random.Generator, thread: int, own: State, numbers: Iterator[int], chances: Chances) -> Operation:
    """What a thread does next: mostly it enrols, or does something to one of its batches."""
    number = next(numbers)
    batches = sorted({crop // BATCH for crop in own})
    kind = str(rng.choice(["enrol", "name", "delete", "erase"], p=chances)) if batches else "enrol"
    if kind == "enrol":
        first = BATCH * (WRITERS * number + thread)
        return Operation(number, kind, list(range(first, first + BATCH)), f"p{first}")
    batch = int(rng.choice(batches))
    crops = [crop for crop in range(BATCH * batch, BATCH * batch + BATCH) if crop in own]
    if kind != "erase":
        crops = crops[:1]
    return Operation(number, kind, crops, f"q{number}.{thread}" if kind == "name" else None)


def effect(operation: Operation, state: State) -> None:
    """Brings the operation's outcome into `state`."""
    for crop in operation.crops:
        if operation.identity is None:
            state.pop(crop, None)
        else:
            state[crop] = operation.identity


def victim(folder: Path, state: State, first: int, journal: Connection) -> None:
    """Opens the gallery and works until it is killed; operations are numbered from `first`."""
    gallery = open_gallery(folder)
    file = journal.fileno()

    def tell(line: dict[str, object]) -> None:
        os.write(file, json.dumps(line).encode() + b"\n")

    def write(thread: int) -> None:
        rng = np.random.default_rng([first, thread])
        chances = ALL_KINDS if first % 2 else NOTHING_ERASED
        own = {crop: name for crop, name in state.items() if crop // BATCH % WRITERS == thread}
        numbers = iter(range(first, 2**40))
        while True:
            operation = choose(rng, thread, own, numbers, chances)
            tell({"thread": thread, "begun": asdict(operation)})
            run(gallery, operation)
            effect(operation, own)
            tell({"thread": thread, "done": operation.number})

    def search() -> None:
        probes = np.stack([embedding(-1 - n & 0xFFFF) for n in range(8)])
        while True:
            for probe in probes:
                gallery.query(probe[np.newaxis], QueryOptions())

    def snapshot() -> None:
        rng = np.random.default_rng(first)
        while True:
            gallery._snapshots.write()
            time.sleep(rng.exponential(PAUSE_SECONDS))  # in which changes pile up behind the snapshot

    jobs = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(WRITERS)]
    jobs += [threading.Thread(target=job, daemon=True) for job in (search, snapshot)]
    for job in jobs:
        job.start()
    try:
        for job in jobs:
            job.join()  # only a failure ends one, and its traceback is on stderr
    except GalleryError:
        os._exit(1)
