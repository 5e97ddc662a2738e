"""A process that enrols is killed at a moment of nobody's choosing; what it acknowledged must be there."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np

from service.gallery.database import DATABASE_NAME
from service.gallery.records import Labels, NewCrop, QueryOptions
from tests.service.gallery.cases import crop_id, new_crop, open_gallery, units

DIM = 256
BATCH = 3
ROUNDS = 3
ROOT = Path(__file__).parents[3]
ENROL_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
from tests.service.gallery.cases import open_gallery
from tests.service.gallery.test_crash import DIM, batch

gallery = open_gallery(Path(sys.argv[1]), DIM)
for number in count(int(sys.argv[2])):
    gallery.enrol(batch(number))
    print(number, flush=True)
"""


def batch(number: int) -> list[NewCrop]:
    """What is enrolled in one call: a few crops of one person."""
    vectors = units(np.random.default_rng(number), BATCH, DIM)
    return [new_crop(BATCH * number + n, v, Labels(f"p{number}")) for n, v in enumerate(vectors)]


def enrol_until_killed(folder: Path, first: int, batches: int) -> list[int]:
    """The batches that the process said were enrolled before SIGKILL hit it amid the next ones."""
    command = [sys.executable, "-c", ENROL_FOR_EVER, str(folder), str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(batches)]
        process.kill()
        rest, _ = process.communicate()
    complete = rest[: rest.rfind("\n") + 1]  # the last line may have been cut off
    return seen + [int(line) for line in complete.split()]


def check_stored(folder: Path, acknowledged: list[int]) -> int:
    """Every acknowledged batch is whole, no other is in part, and every row is sound; returns their number."""
    with open_gallery(folder, DIM) as gallery:
        stored = gallery.crop_count
        assert stored % BATCH == 0
        batches = stored // BATCH
        assert batches >= len(acknowledged)
        assert gallery.known(crop_id(n) for n in range(stored)) == {crop_id(n) for n in range(stored)}
        for number in range(batches):
            for crop in batch(number):
                assert crop.embedding is not None
                nearest = gallery.query(crop.embedding[np.newaxis], QueryOptions(top_k=1)).matches[0]
                assert (nearest.crop.crop_id, nearest.identity) == (crop.crop_id, f"p{number}")
                assert gallery.image(crop.crop_id) == crop.thumbnail
    with sqlite3.connect(folder / DATABASE_NAME) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        for table in ("embeddings", "pictures", "changes"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (stored,)
    connection.close()
    return batches


def test_no_acknowledged_crop_is_lost_to_a_kill(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    batches = 0
    for round_number in range(ROUNDS):
        acknowledged += enrol_until_killed(tmp_path, batches, batches=10 + 13 * round_number)
        batches = check_stored(tmp_path, acknowledged)
        assert set(acknowledged) <= set(range(batches))
