"""Another model for a gallery: its embeddings gather beside the present ones until they can take their place.

Until then the gallery belongs to its own model and can be served with it; what is enrolled or erased meanwhile
is taken into account.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.closing import Closing
from service.gallery.database import DATABASE_NAME, Database
from service.gallery.ranking import stored_form
from service.gallery.records import GalleryUnavailable
from service.gallery.rows import erase
from service.gallery.schema import MIGRATIONS
from service.gallery.store import Model

_PENDING = "FROM crops LEFT JOIN pictures USING (row) WHERE row NOT IN (SELECT row FROM reembedded)"


@dataclass(frozen=True)
class Unembedded:
    """A crop that the new model has not embedded yet; `picture` is a JPEG, empty where none was stored."""

    row: int
    crop_id: str
    identity: str | None
    picture: bytes


class Reembedding(Closing):
    """A gallery on its way to another model. It owns the data folder; make it with `open`, end it with `close`."""

    def __init__(self, database: Database, model: Model) -> None:
        self._database = database
        self._model = model

    @classmethod
    def open(cls, folder: Path, model: Model) -> Reembedding:
        """Goes on with the change to `model` where it was left, or begins it; one to another model is given up.

        Raises GalleryUnavailable where there is no gallery, and what `Database.open` raises.
        """
        if not (folder / DATABASE_NAME).is_file():
            raise GalleryUnavailable(f"There is no gallery in {folder}; name the folder that holds {DATABASE_NAME}.")
        database = Database.open(folder, MIGRATIONS)
        try:
            database.write(lambda connection: _begin(connection, model))
        except BaseException:
            database.close()
            raise
        return cls(database, model)

    def close(self) -> None:
        """Frees the folder. Idempotent."""
        self._database.close()

    @property
    def needed(self) -> bool:
        """Whether the gallery belongs to another model than the wanted one."""
        return bool(self._count("SELECT model_sha256 <> ? FROM gallery", self._model.sha256))

    @property
    def crop_count(self) -> int:
        """How many crops are enrolled."""
        return self._count("SELECT count(*) FROM crops")

    @property
    def embedded_count(self) -> int:
        """How many of them the new model has embedded."""
        return self._count("SELECT count(*) FROM reembedded")

    def _count(self, query: str, *parameters: str) -> int:
        with self._database.reading() as connection:
            return int(connection.execute(query, parameters).fetchone()[0])

    def without_picture(self) -> list[Unembedded]:
        """The crops that cannot be embedded again because nothing is left to embed."""
        with self._database.reading() as connection:
            records = connection.execute(f"SELECT row, crop_id, identity, x'' {_PENDING} AND jpeg IS NULL").fetchall()
        return [Unembedded(*record) for record in records]

    def pending(self, after: int, limit: int) -> list[Unembedded]:
        """Up to `limit` crops with a picture that are still to be embedded, by row, from behind row `after`."""
        query = f"SELECT row, crop_id, identity, jpeg {_PENDING} AND jpeg IS NOT NULL AND row > ? ORDER BY row LIMIT ?"
        with self._database.reading() as connection:
            return [Unembedded(*record) for record in connection.execute(query, (after, limit)).fetchall()]

    def keep(self, rows: Sequence[int], embeddings: NDArray[np.float32]) -> None:
        """Stores the new model's embeddings [n, D] of these crops, for good. Raises InvalidEmbedding."""
        blobs = [stored_form(embedding, self._model.dim).tobytes() for embedding in embeddings]
        records = [(row, blob, zlib.crc32(blob)) for row, blob in zip(rows, blobs, strict=True)]
        insert = "INSERT INTO reembedded VALUES (?, ?, ?)"
        self._database.write(lambda connection: connection.executemany(insert, records))

    def finish(self, dropped: Sequence[int]) -> None:
        """Puts the new embeddings in the place of the old ones and erases the rows `dropped`, in one transaction.

        Raises ValueError, and changes nothing, when another crop has no new embedding.
        """
        self._database.write(lambda connection: _swap(connection, self._model, dropped), erases=True)


def _begin(connection: sqlite3.Connection, model: Model) -> None:
    under_way = connection.execute("SELECT model_sha256 FROM reembedding").fetchone()
    present = connection.execute("SELECT model_sha256 FROM gallery").fetchone()
    if under_way == (model.sha256,) != present:
        return
    connection.execute("DELETE FROM reembedded")
    connection.execute("DELETE FROM reembedding")
    if present not in (None, (model.sha256,)):
        connection.execute("INSERT INTO reembedding VALUES (1, ?, ?, ?)", astuple(model))


def _swap(connection: sqlite3.Connection, model: Model, dropped: Sequence[int]) -> None:
    erase(connection, dropped)
    (left,) = connection.execute("SELECT count(*) FROM crops WHERE row NOT IN (SELECT row FROM reembedded)").fetchone()
    if left:
        raise ValueError(f"{left} crops have no new embedding")
    connection.execute("DELETE FROM embeddings")
    connection.execute("INSERT INTO embeddings SELECT row, vector, crc32 FROM reembedded")
    connection.execute("DELETE FROM reembedded")
    connection.execute("DELETE FROM reembedding")
    connection.execute("DELETE FROM snapshot")  # it holds the old embeddings
    connection.execute("UPDATE gallery SET model_sha256 = ?, model_name = ?, dim = ?", astuple(model))
