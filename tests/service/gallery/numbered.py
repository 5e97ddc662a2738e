"""The least database: a table of numbers."""

from __future__ import annotations

from service.gallery.database import Database

FIRST = ("CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT",)


def insert(database: Database, number: int) -> None:
    database.write(lambda connection: connection.execute("INSERT INTO numbers (n) VALUES (?)", (number,)))


def numbers(database: Database) -> list[int]:
    with database.reading() as connection:
        return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n").fetchall()]
