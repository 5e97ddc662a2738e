from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from tests.training.modelfile.conftest import Traced
from training.modelfile.parity import PARITY, ExportError, Precision, Reference, check_parity
from training.retrieval.onnx_model import open_session


@pytest.fixture(scope="module", params=get_args(Precision))
def precision(request: pytest.FixtureRequest) -> Precision:
    value: Precision = request.param
    return value


@pytest.fixture
def exact(traced: Traced, precision: Precision) -> Reference:
    """What the file itself gives, one crop at a time: from it the file differs by nothing but rounding."""
    session = open_session(traced.files[precision])
    rows = [session.run(["embedding", "attention"], {"crops": crop[None]}) for crop in traced.reference.crops]
    embedding, attention = (np.concatenate(part) for part in zip(*rows, strict=True))
    return Reference(traced.reference.crops, embedding, attention)


def turned(embedding: np.ndarray, cosine: float) -> np.ndarray:
    """The last row turned away, so that it has this cosine with the one that it was."""
    row = embedding[-1] / np.linalg.norm(embedding[-1])
    across = np.random.default_rng(0).normal(size=row.shape)
    across -= (across @ row) * row
    across /= np.linalg.norm(across)
    changed = embedding.copy()
    changed[-1] = cosine * row + np.sqrt(1 - cosine**2) * across
    return changed


def test_one_row_decides_over_the_embedding(traced: Traced, exact: Reference, precision: Precision) -> None:
    bound = PARITY[precision].cosine
    within, beyond = (replace(exact, embedding=turned(exact.embedding, 1 - k * (1 - bound))) for k in (0.5, 2.0))
    check_parity(within, traced.files[precision], precision)
    with pytest.raises(ExportError, match=f"the {precision} file's embedding has cosine .* at least {bound} is needed"):
        check_parity(beyond, traced.files[precision], precision)


def test_one_weight_decides_over_the_attention(traced: Traced, exact: Reference, precision: Precision) -> None:
    bound = min(PARITY[precision].attention, 1.0)
    within, beyond = exact.attention.copy(), exact.attention.copy()
    within[-1, 0, 0] += 0.5 * bound
    beyond[-1, 0, 0] += 2.0 * bound
    check_parity(replace(exact, attention=within), traced.files[precision], precision)
    if precision == "int8":  # any finite weight passes
        beyond[-1, 0, 0] = np.nan
    with pytest.raises(ExportError, match=f"the {precision} file's attention is"):
        check_parity(replace(exact, attention=beyond), traced.files[precision], precision)


def test_what_is_no_number_is_refused(traced: Traced, exact: Reference, precision: Precision) -> None:
    embedding = exact.embedding.copy()
    embedding[0, 0] = np.nan
    with pytest.raises(ExportError, match="has cosine nan"):
        check_parity(replace(exact, embedding=embedding), traced.files[precision], precision)
