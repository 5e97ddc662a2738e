"""The key that a client sends: given by the program, or found in the environment."""

from __future__ import annotations

import os
import re

VARIABLE = "RESIGHT_API_KEY"
_SENDABLE = re.compile(r"[!-~]+", re.ASCII)


def api_key(given: str | None = None) -> str | None:
    """`given`, else what `RESIGHT_API_KEY` holds, without white space around it; None where there is no key.

    Raises ValueError, without the key in it, when no service can have made such a key.
    """
    key = (os.environ.get(VARIABLE, "") if given is None else given).strip()
    if given is None and not key:
        return None
    if not _SENDABLE.fullmatch(key):
        raise ValueError(f"what {f'stands in {VARIABLE}' if given is None else 'was given'} is no key; copy it again")
    return key
