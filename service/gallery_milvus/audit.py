"""The audit log of replicas without a disk: the same lines as in a folder, on stdout for whoever collects them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import ParamSpec, TextIO, TypeVar

from service.gallery.audit import Act, line_of, pseudonym_of, utc_now
from service.gallery.closing import Closing
from service.gallery.records import GalleryUnavailable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class StreamAudit(Closing):
    """Writes each line at once. Thread-safe. `secret` is the gallery's, the same for all of its replicas."""

    def __init__(self, secret: bytes, stream: TextIO | None = None) -> None:
        self._secret = secret
        self._stream = stream
        self._writing = threading.Lock()

    def close(self) -> None:
        """The stream is somebody else's."""

    def pseudonym(self, name: str) -> str:
        """What a crop id or an identity is called in the log."""
        return pseudonym_of(self._secret, name)

    def note(self, act: Act) -> None:
        """Records what was done. Never fails."""
        self._write(act, {})

    def perform(
        self, act: Act, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Records the act, then does it; a second line says if that failed. Raises what `work` does.

        Raises GalleryUnavailable where stdout takes nothing: then it is not done.
        """
        if not self._write(act, {}):
            raise GalleryUnavailable("The audit log, stdout, cannot be written.")
        try:
            return work(*arguments, **named)
        except BaseException:
            self._write(act, {"failed": True})
            raise

    def _write(self, act: Act, more: Mapping[str, object]) -> bool:
        stream = sys.stdout if self._stream is None else self._stream
        line = line_of(act, utc_now(), self.pseudonym, audit=True, **more)
        try:
            with self._writing:
                stream.write(line + "\n")
                stream.flush()
        except (OSError, ValueError):
            return False
        return True
