"""One request as a value, when it is sent again, and what of its outcome is an answer. No input or output.

A client over any transport, blocking or not, only sends: `call.arguments()`, `retry_pause`, `accept`, `read_answer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from service.client.failures import NotResight, Problem, ResightError, Unreachable, problem_of

TAR = "application/x-tar"
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0  # seconds between attempts; a longer Retry-After is not waited for
LONGEST_BACKOFF = 8.0
BUSY, UNABLE = 429, 503

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, built and not sent, and how its answer is read.

    `accepted` are the statuses that `parse` reads; `repeatable`, sent twice it does and says the same;
    `patient`, a busy or absent service is waited for.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], Answer]
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    form: Mapping[str, str | list[str]] = field(default_factory=dict)
    json: Mapping[str, object] | None = None
    images: Sequence[tuple[str, bytes]] = ()
    archive: bytes | None = None
    accept: str = "application/json"
    accepted: frozenset[int] = frozenset({200, 201, 204})
    repeatable: bool = True
    patient: bool = True

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of httpx's `request`, of its blocking and of its async client alike."""
        files = [("images", (name, data, "application/octet-stream")) for name, data in self.images]
        return {
            "method": self.method,
            "url": self.path,
            "params": dict(self.params),
            "data": dict(self.form) or None,
            "files": files or None,
            "json": self.json,
            "content": self.archive,
            "headers": {"Accept": self.accept} | ({} if self.archive is None else {"Content-Type": TAR}),
        }


def retry_pause(call: Call[Any], outcome: httpx.Response | httpx.TransportError, attempt: int) -> float | None:
    """Seconds to wait before sending `call` again after its `attempt`-th (from 0) outcome; None: do not.

    Sent again are a busy service (429: nothing was done, after `Retry-After` where it says so), a refused connection,
    and what may have been done by half, a 503 or a connection that broke, under a call that may be repeated.
    """
    if not call.patient:
        return None
    backoff = min(FIRST_PAUSE * 2.0**attempt, LONGEST_BACKOFF)
    if isinstance(outcome, httpx.Response):
        if outcome.status_code != BUSY and not (outcome.status_code == UNABLE and call.repeatable):
            return None
        after = outcome.headers.get("Retry-After", "")
        pause = float(after) if after.isascii() and after.isdigit() else backoff
        return pause if pause <= LONGEST_PAUSE else None
    if isinstance(outcome, httpx.ConnectError):
        return backoff
    broke = isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError)
    return backoff if broke and call.repeatable else None


@dataclass(frozen=True)
class Retrying:
    """How often a call is sent again, and for how many seconds after it was sent first."""

    retries: int
    deadline: float

    def begin(self, call: Call[Any]) -> Attempts:
        """For one call, about to be sent."""
        return Attempts(call, self.retries, time.monotonic() + self.deadline)


@dataclass
class Attempts:
    """The attempts of one call."""

    call: Call[Any]
    left: int
    until: float  # by `time.monotonic`
    made: int = 0

    def pause(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds to wait before the next attempt; None: this outcome stands."""
        if not self.left:
            return None
        pause = retry_pause(self.call, outcome, self.made)
        if pause is None or time.monotonic() + pause > self.until:
            return None
        self.left -= 1
        self.made += 1
        return pause


def accept(call: Call[Any], outcome: httpx.Response | httpx.TransportError, base_url: str) -> httpx.Response:
    """The response when it is an answer to `call`. Raises ResightError when it is a problem or none came."""
    if isinstance(outcome, httpx.Response):
        if outcome.status_code in call.accepted:
            return outcome
        raise ResightError(problem_of(outcome))
    if isinstance(outcome, httpx.TimeoutException) and not isinstance(outcome, httpx.ConnectTimeout):
        raise ResightError(_unanswered(f"{base_url} did not answer in time.")) from outcome
    if isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout):
        raise Unreachable(_unanswered(f"Nothing answers at {base_url}.")) from outcome
    raise Unreachable(_unanswered(f"The connection to {base_url} broke: {outcome}.")) from outcome


def _unanswered(detail: str) -> Problem:
    return Problem("about:blank", "No answer", None, detail)


def read_answer(call: Call[Answer], response: httpx.Response, base_url: str) -> Answer:
    """The answer in an accepted response. Raises NotResight where Resight would not have answered so."""
    try:
        return call.parse(response)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        detail = f"{base_url}{call.path} did not answer as Resight does ({type(error).__name__}: {error})."
        raise NotResight(Problem("about:blank", "Not an answer of Resight", response.status_code, detail)) from error


def unready(error: ResightError) -> ResightError:
    """What `ready` raises for `error`: every Resight has that page, so another refusal comes from something else."""
    problem = error.problem
    if problem.status is None or problem.status >= 500 or problem.type.startswith("/problems/"):
        return error
    return NotResight(problem)
