"""Enrolling any number of crops, streamed: `enrol_stream` from a generator, `enrol_tar` from an archive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace

from service.client.archives import MOST_MEMBERS, Archive, NewCrop, Piece, pieces_of_crops, pieces_of_tar
from service.client.calls import archive_call
from service.client.failures import ResightError
from service.client.members import Archived, Member
from service.client.sending import Answer, Call


class Bulk(ABC):
    """The methods of the client that enrol many crops; `send` is the client's."""

    @abstractmethod
    def send(self, call: Call[Answer]) -> Answer:
        """Send a call and read its answer."""

    def enrol_stream(self, crops: Iterable[NewCrop], *, at_once: int = MOST_MEMBERS) -> Iterator[Member]:
        """Enrol crops as `crops` gives them, `at_once` or 32 MiB to a request; what became of each, in their order.

        A bad crop fails alone. A request that got no answer is sent again: crops are known by their bytes, so what
        it had stored is then a `duplicate`. Raises ResightError where the service takes no more; the members yielded
        before are stored, and who begins again with all of them loses nothing.
        """
        yield from self._enrol_pieces(pieces_of_crops(crops, at_once))

    def enrol_tar(self, archive: Archive, *, at_once: int = MOST_MEMBERS) -> Iterator[Member]:
        """Enrol a tar archive, by its path or as an open binary file, compressed or not; as `enrol_stream`.

        Names in the form of Market-1501 say identity and camera, a first member `manifest.jsonl` says more
        (docs/http-api.md). Raises tarfile.TarError where the archive cannot be read on.
        """
        yield from self._enrol_pieces(pieces_of_tar(archive, at_once))

    def _enrol_pieces(self, pieces: Iterable[Piece]) -> Iterator[Member]:
        start = 0
        for piece in pieces:
            archived = self.send(archive_call(piece.content))
            yield from members_of(archived, piece, start)
            if archived.problem is not None:
                raise ResightError(archived.problem)
            start += len(piece.names)


def members_of(archived: Archived, piece: Piece, start: int) -> Iterator[Member]:
    """The members under the names they have for who asked, counted through all pieces."""
    for member in archived.members:
        yield replace(member, index=start + member.index, name=piece.names[member.index])
