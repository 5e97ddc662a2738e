"""Where a Milvus gallery is: `milvus://host:port/collection`."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "milvus://"
_FORM = re.compile(
    r"milvus://(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(:(?P<port>\d{1,5}))?/(?P<collection>\w+)", re.ASCII
)
DEFAULT_PORT = 19530
LONGEST_COLLECTION = 200  # Milvus takes 255, and the identities' collection has a longer name


@dataclass(frozen=True)
class Address:
    """A Milvus server, and the collection there that holds the crops."""

    host: str
    port: int
    collection: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ValueError for what is no such address."""
        if "@" in url:
            raise ValueError(
                "what Milvus asks for, user:password or a token, is kept in the file that RESIGHT_MILVUS_TOKEN_FILE "
                "names; the address is milvus://HOST:PORT/COLLECTION"
            )
        found = _FORM.fullmatch(url)
        if found is None or not re.match(r"[A-Za-z_]", found["collection"]):
            raise ValueError(
                "a gallery in Milvus is written milvus://HOST:PORT/COLLECTION, letters, digits and _ in the last"
            )
        port = int(found["port"] or DEFAULT_PORT)
        if not 0 < port < 65536 or len(found["collection"]) > LONGEST_COLLECTION:
            raise ValueError(f"a port is below 65536, and a collection's name has at most {LONGEST_COLLECTION} letters")
        return cls(found["host"], port, found["collection"])

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}:{self.port}/{self.collection}"
