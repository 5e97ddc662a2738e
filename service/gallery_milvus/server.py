"""Talking to Milvus: every call has a deadline, is tried again until then, and fails in the gallery's own words.

All that is sent may be sent twice: crops are upserted by their ids, deletes name what goes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.gallery.records import GalleryUnavailable
from service.gallery_milvus.address import Address

READ_SECONDS = 8.0
WRITE_SECONDS = 15.0
SETUP_SECONDS = 120.0  # making or loading a collection
FIRST_SECONDS = 5.0  # of the first try of all, after which it is said that Milvus does not answer; then twice that
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0
MOST_ROWS = 16_384  # of one answer: Milvus's own limit
SCANNED = 2_000  # rows fetched at once
REFUSED = (  # what Milvus says for good
    "cannot parse expression",
    "invalid expression",
    "field not exist",
    "exceeds max length",
    "DataNotMatch",
    "duplicate collection",
    "at most one distinct index",
)

INSTALLING = "pip install -c constraints.txt '.[cluster]' in a checkout; of the images, `cluster` has it"

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Server:
    """A Milvus server. Thread-safe."""

    def __init__(self, address: Address, token: str = "") -> None:
        """Connects with the first call. Raises GalleryUnavailable where the client library is not installed."""
        try:
            import pymilvus
        except ImportError as error:
            raise GalleryUnavailable(f"A gallery in Milvus needs the package pymilvus: {INSTALLING}.") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what fails is raised, and retries are no errors
        self._library = pymilvus
        self._address, self._token = address, token
        self._connecting = threading.Lock()
        self._client: Any = None
        self._answered = self._told = False

    @property
    def library(self) -> Any:
        """The module `pymilvus`."""
        return self._library

    def close(self) -> None:
        """Ends the connection. Idempotent."""
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def call(self, method: str, seconds: float, /, *arguments: Any, **named: Any) -> Any:
        """`MilvusClient.method` with these arguments, tried again for so many seconds.

        A start that has to wait is said in one line of the log, which is stderr for a command that has set up none.
        Raises GalleryUnavailable when it did not come about until then, or at once where the token is not taken, and
        as it is what else Milvus refuses for good.
        """
        deadline, wait, patience = time.monotonic() + seconds, FIRST_WAIT, FIRST_SECONDS
        while True:
            try:
                left = max(deadline - time.monotonic(), FIRST_WAIT)
                if not self._answered:
                    left = min(left, patience)
                answer = getattr(self._connected(left), method)(*arguments, timeout=left, **named)
                self._answered = True
                return answer
            except Exception as error:
                if _forbidden(error):
                    raise GalleryUnavailable(
                        f"Milvus at {self._address.host}:{self._address.port} does not allow it: "
                        "RESIGHT_MILVUS_TOKEN_FILE must name a file with the token, or user:password, of somebody who "
                        "may make, read and write collections."
                    ) from error
                if not self._passing(error):
                    raise
                if time.monotonic() + wait >= deadline:
                    raise GalleryUnavailable(
                        f"Milvus at {self._address.host}:{self._address.port} does not answer; try again in a moment."
                    ) from error
                self._tell(seconds)
                _log.debug("Milvus did not answer %s; trying again", method, exc_info=error)
            time.sleep(wait)
            wait, patience = min(2 * wait, LONGEST_WAIT), 2 * patience

    def _tell(self, seconds: float) -> None:
        if seconds >= SETUP_SECONDS and not self._told:
            self._told = True
            _log.warning(
                "Milvus at %s:%d does not answer, trying for two minutes", self._address.host, self._address.port
            )

    def _connected(self, seconds: float) -> Any:
        with self._connecting:
            if self._client is None:
                uri = f"http://{self._address.host}:{self._address.port}"
                self._client = self._library.MilvusClient(uri=uri, token=self._token, timeout=seconds, dedicated=True)
            return self._client

    def _passing(self, error: Exception) -> bool:
        """Whether it may go by: Milvus away, starting, or busy; not a request that it can never answer."""
        import grpc

        if isinstance(error, grpc.RpcError):
            return True
        if isinstance(error, self._library.exceptions.ParamError):
            return False
        return isinstance(error, self._library.MilvusException) and not any(words in str(error) for words in REFUSED)

    # What galleries ask for.

    def count(self, collection: str, which: str = "", *, strong: bool = False) -> int:
        """How many rows of a collection the expression lets through."""
        (row,) = self._query(collection, which, ["count(*)"], strong)
        return int(row["count(*)"])

    def rows(
        self, collection: str, which: str, fields: Sequence[str], *, most: int = MOST_ROWS, strong: bool = False
    ) -> list[Row]:
        """Up to `most` rows that the expression lets through, in the order of their primary keys."""
        return self._query(collection, which, fields, strong, limit=most)

    def scan(
        self, collection: str, key: str, which: str, fields: Sequence[str], *, at_once: int = SCANNED
    ) -> Iterator[list[Row]]:
        """All rows, in parts and in the order of the primary key `key`: those acknowledged before, and some since."""
        last = ""
        while True:
            after = both(which, f"{key} > {quoted(last)}")
            rows = self.rows(collection, after, [*fields, key], most=at_once, strong=True)
            if rows:
                yield rows
            if len(rows) < at_once:
                return
            last = rows[-1][key]

    def _query(self, collection: str, which: str, fields: Sequence[str], strong: bool, **more: Any) -> list[Row]:
        found: list[Row] = self.call(
            "query", READ_SECONDS, collection, filter=which, output_fields=list(fields), **self.level(strong), **more
        )
        return list(found)

    @staticmethod
    def level(strong: bool) -> dict[str, str]:
        """The consistency of a read: all that was acknowledged before, or what was some seconds ago at the latest."""
        return {"consistency_level": "Strong" if strong else "Bounded"}

    def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        """Stores rows; acknowledged when Milvus's log has them."""
        if rows:
            self.call("upsert", WRITE_SECONDS, collection, [dict(row) for row in rows])

    def delete(self, collection: str, key: str, values: Sequence[str]) -> None:
        """Deletes the rows with these primary keys."""
        if values:
            self.call("delete", WRITE_SECONDS, collection, filter=among(key, values))


def _forbidden(error: Exception) -> bool:
    """Whether Milvus does not know who asks, or does not let them; the client wraps what a connection fails of."""
    import grpc

    cause = error if isinstance(error, grpc.RpcError) else error.__cause__
    forbidding = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
    return isinstance(cause, grpc.RpcError) and cause.code() in forbidding


def quoted(text: str) -> str:
    """A string in an expression."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def among(field: str, values: Sequence[str]) -> str:
    """The expression: the field has one of these values."""
    return f"{field} in [{', '.join(quoted(value) for value in values)}]"


def both(*expressions: str) -> str:
    """All of these, an empty one being no condition."""
    given = [expression for expression in expressions if expression]
    return given[0] if len(given) == 1 else " && ".join(f"({expression})" for expression in given)
