"""Requests drawn from the OpenAPI document: nothing fails inside, and no answer is undocumented.

API_EXAMPLES sets how many requests of each kind every operation gets: 5 in the suite, always the same ones; other
numbers draw anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.service.api.archives import archive
from tests.serving import Served, serve

SUITE_EXAMPLES = 5
EXAMPLES = int(os.environ.get("API_EXAMPLES", SUITE_EXAMPLES))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
AnyCase = Case[Any]
Operation = APIOperation[Any, Any, Any, Any]
TAR = "application/x-tar"
pictures = st.lists(st.integers(0, 20).map(crop) | st.binary(max_size=40), min_size=1, max_size=3)
archives = st.binary(max_size=600) | st.dictionaries(st.text(max_size=9), st.integers(0, 20).map(crop)).map(archive)


@pytest.fixture(scope="module")
def served(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all that is drawn."""
    folder = tmp_path_factory.mktemp("data")
    with serve(Settings(model=model_path, device="cpu", gallery=f"sqlite:///{folder}", threads=2)) as service:
        yield service


def operations(served: Served) -> list[Operation]:
    """Everything that the service says it can do."""
    schema = schemathesis.openapi.from_dict(served.client.get("/openapi.json").json())
    found = [operation.ok() for operation in schema.get_all_operations() if isinstance(operation, Ok)]
    assert len(found) > 10
    return found


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_documented(served: Served, mode: GenerationMode) -> None:
    for operation in operations(served):
        takes_something = operation.body or operation.query or operation.path_parameters
        if takes_something or mode is GenerationMode.POSITIVE:  # nothing cannot be wrong
            _check(served, operation, mode)
    assert served.client.get("/readyz").status_code == 200
    assert served.runtime.worker.admitted == 0


def _check(served: Served, operation: Operation, mode: GenerationMode) -> None:
    known = served.client.post("/gallery", files=uploads(crop(1)), data={"identity": "a"}).json()["results"][0][
        "crop_id"
    ]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES == SUITE_EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode), data=st.data())
    def drawn(case: AnyCase, data: st.DataObject) -> None:
        _sometimes_make_sense(case, data, known)
        answer = case.call(base_url=served.url)
        of_the_tiny_model = answer.status_code == 500 and answer.json()["type"] == "/problems/inference-failed"
        case.validate_response(answer, checks=CHECKS[1:] if of_the_tiny_model else CHECKS)  # which knows no plain grey

    drawn()


def _sometimes_make_sense(case: AnyCase, data: st.DataObject, known: str) -> None:
    """Drawn text is never a picture and never a crop's id: behind those lies most of the service."""
    if not data.draw(st.booleans()):
        return
    if "crop_id" in case.path_parameters:
        case.path_parameters["crop_id"] = known
    if case.media_type == TAR:
        case.body = data.draw(archives)
    elif isinstance(case.body, dict) and "images" in case.body:
        images: list[Any] = data.draw(pictures)
        case.body["images"] = images
