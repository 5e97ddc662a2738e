"""Every kind of network as a file of every precision: is it still the network?"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from tests.training.modelfile.conftest import Traced
from training.modelfile.metadata import map_size
from training.modelfile.parity import Precision, check_parity
from training.retrieval.onnx_model import open_session


@pytest.mark.parametrize("precision", get_args(Precision))
def test_the_file_is_the_network(traced: Traced, precision: Precision) -> None:
    check_parity(traced.reference, traced.files[precision], precision)


def test_fp32_answers_as_pytorch(traced: Traced) -> None:
    embedding, attention = open_session(traced.files["fp32"]).run(None, {"crops": traced.reference.crops})
    np.testing.assert_allclose(embedding, traced.reference.embedding, atol=1e-5)
    np.testing.assert_allclose(attention, traced.reference.attention, atol=1e-5)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_inputs_and_outputs_are_the_contract(traced: Traced, precision: Precision) -> None:
    session = open_session(traced.files[precision])
    (crops,) = session.get_inputs()
    assert (crops.name, crops.type, crops.shape[1:]) == ("crops", "tensor(uint8)", [64, 32, 3])
    assert not isinstance(crops.shape[0], int)
    assert {output.name: output.type for output in session.get_outputs()} == {
        "embedding": "tensor(float)",
        "attention": "tensor(float)",
    }
    rows, columns = map_size(traced.config)
    embedding, attention = session.run(["embedding", "attention"], {"crops": traced.reference.crops[:3]})
    assert embedding.shape == (3, traced.config.embedding_dim or 256)
    assert attention.shape == (3, rows * columns, rows * columns)
    np.testing.assert_allclose(attention.sum(axis=2), 1, atol=1e-5)
