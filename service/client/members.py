"""What the service answers to an archive: a line for each member, then one that ends it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import httpx

from service.client.answers import Enrolled, ModelName, read_enrolled, read_model_name
from service.client.failures import Json, Problem, read_problem


@dataclass(frozen=True)
class Member(Enrolled):
    """What became of one file of an archive, or crop of a stream; `status` may be skipped, too: junk by its name."""

    name: str


@dataclass(frozen=True)
class Archived:
    """What became of an archive; `problem` is what ended it early, and what `members` says is stored all the same."""

    members: tuple[Member, ...]
    model: ModelName
    problem: Problem | None


def read_archived(response: httpx.Response) -> Archived:
    """The lines of the answer to an archive; the last one ends it."""
    *members, end = [json.loads(line) for line in response.content.splitlines()]
    problem = None if end["done"] else read_problem(end["problem"])
    return Archived(tuple(map(_member, members)), read_model_name(end["model"]), problem)


def _member(line: Json) -> Member:
    return Member(**vars(read_enrolled(line)), name=line["name"])
