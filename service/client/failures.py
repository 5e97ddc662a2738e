"""What was not answered as asked: problems (RFC 9457), the exceptions that carry them, how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """Why something was refused (RFC 9457).

    `type` is stable and for programs, `detail` is for a person; `index` is the position of the bad image, None
    for the whole request; `instance` is the request's id in the service's log; `reasons` say why it is not ready.
    """

    type: str
    title: str
    status: int | None
    detail: str
    index: int | None = None
    instance: str | None = None
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.detail or self.title, *self.reasons])


class ResightError(Exception):
    """A request that was not answered as asked; `problem` says why, in the service's words where it spoke."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem

    @property
    def status(self) -> int | None:
        """The HTTP status, None when there was no answer at all."""
        return self.problem.status


class Unreachable(ResightError):
    """Nothing answers at the URL, or the connection broke."""


class NotResight(ResightError):
    """Something answers at the URL, and not as Resight does."""


def read_problem(answer: Json) -> Problem:
    """A problem of the service; what it left out is filled with RFC 9457's defaults."""
    status, index, instance = answer.get("status"), answer.get("index"), answer.get("instance")
    return Problem(
        type=str(answer.get("type", "about:blank")),
        title=str(answer.get("title", "")),
        status=status if isinstance(status, int) else None,
        detail=str(answer.get("detail", "")),
        index=index if isinstance(index, int) else None,
        instance=instance if isinstance(instance, str) else None,
        reasons=tuple(map(str, answer.get("reasons") or ())),
    )


def problem_of(response: httpx.Response) -> Problem:
    """The problem in an error response; one made from its status line when something else answered (a proxy)."""
    answer = json_object(response)
    if "title" in answer:
        return read_problem({"status": response.status_code, **answer})
    title = response.reason_phrase or "error"
    return Problem("about:blank", title, response.status_code, f"{response.status_code} {title}")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a response; empty when it is none."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}
