"""A process is killed at random moments, and at chosen ones; what it acknowledged must be there, and whole."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.kill_cycles import PromiseBroken, check, main, run_cycles
from benchmarks.kill_victim import Operation, State, crop_id, effect, open_gallery, run
from service.gallery.columns import Columns
from service.gallery.database import DATABASE_NAME
from service.gallery.folder import DataFolder
from service.gallery.gallery import Gallery
from service.gallery.index import Index
from service.gallery.recovery import SnapshotKeeper
from service.gallery.writer import Writer

CYCLES = 20
MOST_LINES = 40
STORED = [Operation(n, "enrol", [3 * n, 3 * n + 1, 3 * n + 2], f"p{n}") for n in range(4)]
LAST = {
    "enrol": Operation(9, "enrol", [30, 31, 32], "p9"),
    "name": Operation(9, "name", [4], "q"),
    "erase": Operation(9, "erase", [0, 1, 2], None),
}


def test_no_acknowledged_write_is_lost_to_a_kill(tmp_path: Path) -> None:
    report = run_cycles(tmp_path / "data", CYCLES, most_lines=MOST_LINES)
    assert report.cycles == CYCLES
    assert report.acknowledged > 5 * CYCLES
    assert report.interrupted > 0
    assert report.snapshots > 0


def test_the_command_reports_its_cycles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cycles", "1"]) == 0
    assert capsys.readouterr().out.startswith("1 kills: ")


def lose_a_row(gallery: Gallery, folder: Path) -> None:
    gallery.delete(crop_id(5))


def leave_half(gallery: Gallery, folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection, connection:
        connection.execute("DELETE FROM pictures WHERE row = 5")


def lose_a_vector(gallery: Gallery, folder: Path) -> None:
    gallery._index.columns._searchable.values[5] = False
    gallery._index.columns._damaged.add(5)


def mix_vectors_up(gallery: Gallery, folder: Path) -> None:
    gallery._index._vectors.replace(5, np.ones(32, np.float16))


def misname(gallery: Gallery, folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE crops SET identity = 'other' WHERE row = 5")


@pytest.mark.parametrize("harm", [lose_a_row, leave_half, lose_a_vector, mix_vectors_up, misname])
def test_the_check_finds_what_is_wrong(tmp_path: Path, harm: Callable[[Gallery, Path], None]) -> None:
    state = State()
    with open_gallery(tmp_path) as gallery:
        for operation in STORED:
            run(gallery, operation)
            effect(operation, state)
        check(gallery, tmp_path, state, np.random.default_rng(0))
        harm(gallery, tmp_path)
        with pytest.raises(PromiseBroken):
            check(gallery, tmp_path, state, np.random.default_rng(0))


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_commit(gallery: Gallery) -> None:
    connection = gallery._store.database._writer_connection
    connection.set_trace_callback(lambda statement: die() if statement == "COMMIT" else None)


def after_the_commit(gallery: Gallery) -> None:
    gallery._store.database._writer._require_in_place = die


def before(owner: type, name: str) -> Callable[[Gallery], None]:
    """Has the process die when this is called."""
    return lambda _: setattr(owner, name, die)


def after(owner: type, *names: str) -> Callable[[Gallery], None]:
    """Has the process die when one of these has done its work."""

    def arm(name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any) -> None:
            original(*arguments)
            die()

        setattr(owner, name, call)

    def arm_all(_: Gallery) -> None:
        for name in names:
            arm(name)

    return arm_all


def amid_the_vectors(gallery: Gallery) -> None:
    original = SnapshotKeeper._vectors

    def vectors(*arguments: Any) -> Iterator[NDArray[np.float16]]:
        yield from original(*arguments)
        arguments[1].file.flush()
        die()

    setattr(SnapshotKeeper, "_vectors", vectors)  # noqa: B010


WRITING = {
    "before the commit": (before_the_commit, False),
    "after the commit": (after_the_commit, True),
    "between commit and index": (before(Index, "_changing"), True),
    "amid the index": (after(Columns, "append", "relabel", "remove"), True),
}
ERASING = {
    "the snapshot removed, the rows not": (after(DataFolder, "sync"), False),
    "the log not emptied": (before(Writer, "_truncate_log"), True),
}
SNAPSHOTTING = {
    "amid the vectors": amid_the_vectors,
    "written, not renamed": before(SnapshotKeeper, "_adopt"),
    "renamed, not accepted": after(DataFolder, "sync"),
    "accepted, the log not shortened": before(SnapshotKeeper, "_prune"),
}


def work(folder: Path, arm: str, last: Operation) -> None:
    """Enrols, writes a snapshot, enrols once more, and dies of `last`."""
    with open_gallery(folder) as gallery:
        for operation in STORED:
            if operation is STORED[-1]:
                gallery._snapshots.write()
            run(gallery, operation)
        (WRITING | ERASING)[arm][0](gallery)
        run(gallery, last)


def work_on_a_snapshot(folder: Path, arm: str) -> None:
    """The same, but dies of another snapshot."""
    with open_gallery(folder) as gallery:
        for operation in STORED:
            if operation is STORED[-1]:
                gallery._snapshots.write()
            run(gallery, operation)
        SNAPSHOTTING[arm](gallery)
        gallery._snapshots.write()


def kill(target: Callable[..., None], *arguments: object) -> None:
    """Runs it in a process, which must die of it."""
    process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def check_twice(folder: Path, operations: Sequence[Operation]) -> None:
    """That these operations, and no others, are stored; also after one more start."""
    state = State()
    for operation in operations:
        effect(operation, state)
    for _ in range(2):
        with open_gallery(folder) as gallery:
            check(gallery, folder, state, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("moment", "kind"),
    [(moment, kind) for moment in WRITING for kind in LAST] + [(moment, "erase") for moment in ERASING],
)
def test_a_kill_at_any_moment_of_a_write(tmp_path: Path, moment: str, kind: str) -> None:
    kill(work, tmp_path, moment, LAST[kind])
    stored = (WRITING | ERASING)[moment][1]
    check_twice(tmp_path, [*STORED, LAST[kind]] if stored else STORED)


@pytest.mark.parametrize("moment", SNAPSHOTTING)
def test_a_kill_at_any_moment_of_a_snapshot(tmp_path: Path, moment: str) -> None:
    kill(work_on_a_snapshot, tmp_path, moment)
    check_twice(tmp_path, STORED)
