from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.loop.tiny import tiny
from training.config import ConfigError
from training.loop import precision
from training.loop.precision import check_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_fp16_needs_cuda() -> None:
    with pytest.raises(ConfigError, match="precision=fp16 needs a CUDA device"):
        check_precision(tiny("precision=fp16"), CPU)
    assert check_precision(tiny("precision=fp16"), CUDA) == ""


@pytest.mark.parametrize(
    ("capabilities", "warns"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ({"avx512_bf16": True}, False),
        ({"amx_bf16": True, "avx512_bf16": False}, False),
        ({"neon": True, "bf16": True}, False),
        ({}, False),
    ],
)
def test_a_cpu_without_bfloat16_is_told(
    capabilities: dict[str, Any], warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_cpu_capabilities", lambda: capabilities)
    warning = check_precision(tiny("precision=bf16"), CPU)
    assert ("precision=fp32 is faster" in warning) == warns
    assert check_precision(tiny("precision=fp32"), CPU) == ""
    assert check_precision(tiny("precision=bf16"), CUDA) == ""


def test_this_cpu_tells_what_it_can() -> None:
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this PyTorch does not tell what the CPU can do")
    assert "architecture" in precision._cpu_capabilities()
