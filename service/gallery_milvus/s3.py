"""Pictures in an S3-compatible store: one object a crop, named by its id."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.gallery.records import GalleryUnavailable
from service.gallery_milvus.server import INSTALLING

CONNECT_SECONDS, READ_SECONDS, RETRIES = 2.0, 8.0, 3
DEFAULT_ENDPOINT = "https://s3.amazonaws.com"


@dataclass(frozen=True)
class Place:
    """A bucket, and what all names in it begin with; `s3://BUCKET/PREFIX`."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Place:
        """Raises ValueError for what is no such place."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("pictures are kept in s3://BUCKET/PREFIX")
        return cls(parts.netloc, parts.path.strip("/"))


class S3Pictures:
    """Thread-safe. Every method raises GalleryUnavailable when the store does not do it after some tries."""

    def __init__(self, place: Place, endpoint: str, credentials: Path) -> None:
        """`credentials` is a JSON file with `access_key` and `secret_key`. The bucket must exist."""
        try:
            import minio
            import urllib3
        except ImportError as error:
            raise GalleryUnavailable(
                f"Pictures in an S3-compatible store need the package minio: {INSTALLING}."
            ) from error
        self._place = place
        self._errors: tuple[type[Exception], ...] = (minio.error.MinioException, urllib3.exceptions.HTTPError)
        parts = urlsplit(endpoint)
        keys = _read(credentials)
        try:
            self._client: Any = minio.Minio(
                parts.netloc,
                access_key=keys["access_key"],
                secret_key=keys["secret_key"],
                secure=parts.scheme == "https",
                http_client=urllib3.PoolManager(
                    maxsize=64,
                    timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                    retries=urllib3.Retry(total=RETRIES, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
                ),
            )
            with self._translated():
                exists = self._client.bucket_exists(place.bucket)
        except ValueError as error:
            raise GalleryUnavailable(
                f"RESIGHT_PICTURES names the bucket {place.bucket} at {endpoint}, which cannot be: {error}."
            ) from error
        if not exists:
            raise GalleryUnavailable(f"There is no bucket {place.bucket} at {endpoint}; make it first.")

    def has(self, crop_id: str) -> bool:
        """Whether there is a picture."""
        with self._translated():
            try:
                self._client.stat_object(self._place.bucket, self._name(crop_id))
            except self._errors as error:
                if getattr(error, "code", None) == "NoSuchKey":
                    return False
                raise
        return True

    def put(self, crop_id: str, jpeg: bytes) -> None:
        """Stores a picture, or stores it again."""
        with self._translated():
            self._client.put_object(
                self._place.bucket, self._name(crop_id), io.BytesIO(jpeg), len(jpeg), content_type="image/jpeg"
            )

    def get(self, crop_id: str) -> bytes | None:
        """The picture, None where there is none."""
        with self._translated():
            try:
                answer = self._client.get_object(self._place.bucket, self._name(crop_id))
            except self._errors as error:
                if getattr(error, "code", None) == "NoSuchKey":
                    return None
                raise
            try:
                content: bytes = answer.read()
            finally:
                answer.close()
                answer.release_conn()
        return content

    def delete(self, crop_ids: Iterable[str]) -> None:
        """Deletes pictures; those that are not there count as deleted."""
        with self._translated():
            for crop_id in crop_ids:
                self._client.remove_object(self._place.bucket, self._name(crop_id))

    def _name(self, crop_id: str) -> str:
        return f"{self._place.prefix}/{crop_id}.jpg" if self._place.prefix else f"{crop_id}.jpg"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            reason = getattr(error, "code", None) or type(error).__name__
            raise GalleryUnavailable(f"The store of the pictures does not answer ({reason}); try again.") from error


def _read(credentials: Path) -> dict[str, str]:
    try:
        keys = json.loads(credentials.read_text())
        return {name: str(keys[name]).strip() for name in ("access_key", "secret_key")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GalleryUnavailable(
            f"{credentials} cannot be used: it must be a JSON object with access_key and secret_key."
        ) from error
