"""Who has signed in with a browser: what its cookie says, and that nobody but this process can have written it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from service.keys import Key, KeyRing

SESSION_SECONDS = 12 * 3600


class Sessions:
    """Cookie values `EXPIRES.NAME.SIGNATURE`, signed with a secret that lives as long as this object.

    The signature covers the hash of the key, so that a session ends with its key, even if another one takes
    the name. Belongs to one thread.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._ended: dict[str, int] = {}  # signatures, and when they may be forgotten

    def begin(self, key: Key) -> str:
        """The cookie's value for a session of the key's owner, which ends after SESSION_SECONDS."""
        expires = int(self._clock()) + SESSION_SECONDS
        return f"{expires}.{key.name}.{self._signature(expires, key)}"

    def holder(self, cookie: str, keys: KeyRing) -> Key | None:
        """The key that began the session, as it is now; None when the session has ended or is none of ours."""
        expires, name, signature = _parts(cookie)
        if expires <= self._clock() or signature in self._ended:
            return None
        key = keys.named(name)
        if key is None or not hmac.compare_digest(self._signature(expires, key), signature):
            return None
        return key

    def end(self, cookie: str, keys: KeyRing) -> None:
        """Ends a session before its time; what is none changes nothing."""
        if self.holder(cookie, keys) is None:
            return
        now = self._clock()
        self._ended = {signature: expires for signature, expires in self._ended.items() if expires > now}
        expires, _, signature = _parts(cookie)
        self._ended[signature] = expires

    def _signature(self, expires: int, key: Key) -> str:
        message = f"{expires}.{key.name}.{key.sha256}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def _parts(cookie: str) -> tuple[int, str, str]:
    """Expiry, name and signature; expired long ago where it has another form."""
    expires, _, rest = cookie.partition(".")
    name, _, signature = rest.rpartition(".")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12 and signature.isascii()):
        return 0, "", ""
    return int(expires), name, signature
