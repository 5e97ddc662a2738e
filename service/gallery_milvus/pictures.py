"""Where the pictures of a Milvus gallery are: an S3-compatible store, or nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Pictures(Protocol):
    """Stored JPEGs by crop id. Raises GalleryUnavailable where the store does not answer."""

    def has(self, crop_id: str) -> bool:
        """Whether there is a picture."""

    def put(self, crop_id: str, jpeg: bytes) -> None:
        """Stores a picture, or stores it again."""

    def get(self, crop_id: str) -> bytes | None:
        """The picture, None where there is none."""

    def delete(self, crop_ids: Iterable[str]) -> None:
        """Deletes pictures; those that are not there count as deleted."""


class NoPictures:
    """Nothing is kept."""

    def has(self, crop_id: str) -> bool:
        """There is none."""
        return False

    def put(self, crop_id: str, jpeg: bytes) -> None:
        """Keeps nothing."""

    def get(self, crop_id: str) -> bytes | None:
        """There is none."""
        return None

    def delete(self, crop_ids: Iterable[str]) -> None:
        """There is nothing to delete."""
