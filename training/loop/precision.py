"""Which precision a device can train in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from training.config import Config, ConfigError

# Names of torch.cpu.get_capabilities: x86 with AVX-512 or AMX, ARM.
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def check_precision(config: Config, device: torch.device) -> str:
    """What a user should know about training in this precision on this device; empty if nothing.

    Raises:
        ConfigError: the device cannot train in it.
    """
    if device.type != "cpu":
        return ""
    if config.precision == "fp16":
        raise ConfigError("precision=fp16 needs a CUDA device: set precision=fp32, or bf16 where the CPU has it")
    if config.precision == "bf16" and not _computes_bfloat16(_cpu_capabilities()):
        return "this CPU has no bfloat16 instructions: precision=fp32 is faster on it"
    return ""


def _computes_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Of a CPU that tells nothing, nothing bad is said."""
    return not capabilities or any(capabilities.get(name) for name in CPU_BFLOAT16)


def _cpu_capabilities() -> Mapping[str, Any]:
    """What the CPU can do, by name; empty where an older PyTorch cannot tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return {}
    capabilities: Mapping[str, Any] = torch.cpu.get_capabilities()
    return capabilities
