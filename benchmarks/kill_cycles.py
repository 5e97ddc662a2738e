"""Kill -9 at random moments, under load, again and again: `python -m benchmarks.kill_cycles --cycles 200`.

A process enrols, names, deletes, erases, searches and writes snapshots, all at once, and is killed. Then the gallery is
opened again and compared with what was acknowledged: nothing of that may be missing, no operation may be there in
part, and the index must answer as a comparison with every row of the database does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import zlib
from contextlib import closing
from dataclasses import dataclass, field, fields
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.kill_victim import (
    Operation,
    State,
    crop_id,
    effect,
    embedding,
    open_gallery,
    picture,
    victim,
)
from benchmarks.options import as_count
from service.gallery.database import DATABASE_NAME
from service.gallery.folder import SNAPSHOT_NAME
from service.gallery.gallery import Gallery
from service.gallery.records import Filters, QueryOptions

MOST_LINES = 160  # that a process may write before it is killed
PROBES = 3
CYCLES_A_GALLERY = 25  # then a new one begins, so that every answer can be compared in full
PAGE = 1000


class PromiseBroken(Exception):
    """The gallery did not keep what it acknowledged; the message says what."""


@dataclass
class Report:
    """What was done, over all cycles."""

    cycles: int = 0
    acknowledged: int = 0
    interrupted: int = 0
    survived: int = 0  # of the interrupted operations, those that were stored
    crops: int = 0
    snapshots: int = 0  # cycles after which there was a snapshot to start from

    def __add__(self, other: Report) -> Report:
        return Report(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def line(self) -> str:
        """For people."""
        return (
            f"{self.cycles} kills: {self.acknowledged} operations acknowledged, 0 lost; {self.interrupted} interrupted,"
            f" {self.survived} of them stored whole, 0 in part; {self.snapshots} starts found a snapshot;"
            f" {self.crops} crops, every answer equal to brute force"
        )


@dataclass
class Journal:
    """What a process said until it was killed: what it acknowledged, and what it was about, by thread."""

    acknowledged: list[Operation] = field(default_factory=list)
    begun: dict[int, Operation] = field(default_factory=dict)

    def add(self, line: bytes) -> None:
        said = json.loads(line)
        if "begun" in said:
            self.begun[said["thread"]] = Operation(**said["begun"])
        else:
            self.acknowledged.append(self.begun.pop(said["thread"]))


def run_cycles(folder: Path, cycles: int, seed: int = 0, most_lines: int = MOST_LINES) -> Report:
    """Kills that many processes that use `folder`. Raises PromiseBroken."""
    rng = np.random.default_rng(seed)
    report, state, first = Report(), State(), 1
    for _ in range(cycles):
        journal = kill_one(folder, state, first, int(rng.integers(most_lines)))
        numbers = [operation.number for operation in (*journal.acknowledged, *journal.begun.values())]
        first = max(numbers, default=first) + 1
        report.snapshots += (folder / SNAPSHOT_NAME).exists()
        for operation in journal.acknowledged:
            effect(operation, state)
        with open_gallery(folder) as gallery:
            report.survived += settle(gallery, journal, state)
            check(gallery, folder, state, rng)
        report.cycles += 1
        report.acknowledged += len(journal.acknowledged)
        report.interrupted += len(journal.begun)
    report.crops = len(state)
    return report


def kill_one(folder: Path, state: State, first: int, lines: int) -> Journal:
    """Starts a process and kills it when it has written so many lines, or is about to open when that is 0."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.kill_victim"])
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=victim, args=(folder, state, first, writer), daemon=True)
    process.start()
    writer.close()
    journal = Journal()
    with reader:
        rest = _read(reader, journal, lines, b"")
        process.kill()
        process.join()
        _read(reader, journal, sys.maxsize, rest)
    if process.exitcode != -9:
        raise PromiseBroken(f"the process ended by itself, with {process.exitcode}")
    return journal


def _read(reader: Connection, journal: Journal, lines: int, rest: bytes) -> bytes:
    """Reads at least so many lines, or to the end; returns what follows the last whole one."""
    while lines > 0:
        part = os.read(reader.fileno(), 1 << 16)
        if not part:
            break
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            journal.add(line)
        lines -= len(whole)
    return rest


def settle(gallery: Gallery, journal: Journal, state: State) -> int:
    """Finds out what became of the interrupted operations, whole or not at all; returns how many are stored."""
    stored = listed(gallery)
    survived = 0
    for operation in journal.begun.values():
        after = dict(state)
        effect(operation, after)
        found = [stored.get(crop) for crop in operation.crops]
        if found == [after.get(crop) for crop in operation.crops]:
            effect(operation, state)
            survived += 1
        elif found != [state.get(crop) for crop in operation.crops]:
            raise PromiseBroken(f"{operation} is there in part: {found}")
    return survived


def listed(gallery: Gallery) -> State:
    """What the gallery lists, page by page."""
    state, cursor = State(), None
    while True:
        page = gallery.page(Filters(), PAGE, cursor)
        state.update({int(crop.crop_id.replace("-", ""), 16): str(crop.identity) for crop in page.crops})
        cursor = page.next_cursor
        if cursor is None:
            return state


def check(gallery: Gallery, folder: Path, state: State, rng: np.random.Generator) -> None:
    """Compares list, file and index with `state`. Raises PromiseBroken."""
    _require(listed(gallery) == state, "what is listed is not what was acknowledged")
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        _require(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the file is damaged")
        _require(not connection.execute("PRAGMA foreign_key_check").fetchall(), "rows belong to nothing")
        joined = "crops JOIN embeddings USING (row) JOIN pictures USING (row)"
        query = f"SELECT crop_id, identity, vector, crc32, jpeg FROM {joined}"
        rows = {crop: rest for crop, *rest in connection.execute(query)}
    _require(len(rows) == len(state) == gallery.crop_count, "crops, embeddings and pictures differ in number")
    for number, identity in state.items():
        vector = embedding(number).astype(np.float16).tobytes()
        expected = [identity, vector, zlib.crc32(vector), picture(number)]
        _require(rows[crop_id(number)] == expected, f"{crop_id(number)} is not stored as it was enrolled")
    if state:
        vectors = {crop: np.frombuffer(row[1], np.float16) for crop, row in rows.items()}
        _compare_index(gallery, vectors, {crop: row[0] for crop, row in rows.items()}, rng)


def _compare_index(
    gallery: Gallery, vectors: dict[str, NDArray[np.float16]], names: dict[str, str], rng: np.random.Generator
) -> None:
    crops = sorted(vectors)
    matrix = np.stack([vectors[crop] for crop in crops]).astype(np.float64)
    for _ in range(PROBES):
        probe = embedding(int(rng.integers(2**40)))
        exact = np.linalg.norm(matrix - probe.astype(np.float16).astype(np.float64), axis=1) / 2
        answer = gallery.query(probe[np.newaxis], QueryOptions(top_k=1000, crops_per_identity=100))
        for found in (hit.crop for match in answer.matches for hit in match.crops):
            _require(found.identity == names[found.crop_id], f"the index has another identity for {found.crop_id}")
        shown = {hit.crop.crop_id: hit.distance for match in answer.matches for hit in match.crops}
        _require(answer.searched == len(crops), "the index has not as many crops as the file")
        complete = len(answer.matches) < 1000
        _require(not complete or sorted(shown) == crops, "the index answers with other crops than the file has")
        _require(answer.matches[0].crop.crop_id == crops[int(exact.argmin())], "the nearest crop is another one")
        for place, crop in enumerate(crops):
            _require(abs(shown.get(crop, exact[place]) - exact[place]) < 1e-5, f"the distance to {crop} is wrong")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise PromiseBroken(message)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_cycles", description=__doc__)
    parser.add_argument("--cycles", type=as_count, default=200, help="processes to kill (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of moments")
    chosen = parser.parse_args(arguments)
    total = Report()
    try:
        while total.cycles < chosen.cycles:
            with tempfile.TemporaryDirectory() as folder:
                cycles = min(CYCLES_A_GALLERY, chosen.cycles - total.cycles)
                total += run_cycles(Path(folder) / "data", cycles, chosen.seed + total.cycles)
    except PromiseBroken as broken:
        print(f"broken after {total.cycles} kills: {broken}", file=sys.stderr)
        return 1
    print(total.line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
