"""What is missing for CUDA is said with what to do; the driver and the libraries are stood in for."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from service.inference.card import (
    CAPABILITY_MAJOR,
    CUDNN,
    DRIVER,
    TENSORRT,
    TENSORRT_PARSER,
    Card,
    CudaError,
    Open,
    cuda_major,
    find_card,
    pin,
    require_cudnn,
    tensorrt_version,
)


class Driver:
    """libcuda as far as it is asked, on a machine with an H200."""

    def __init__(self, started: int = 0, version: int = 13_000, device: int = 0) -> None:
        self.started, self.version, self.device = started, version, device

    def cuInit(self, flags: int) -> int:
        return self.started

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = self.version
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return self.device

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA H200"
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:
        number._obj.value = 9 if attribute == CAPABILITY_MAJOR else 0
        return 0


class TensorRT:
    def getInferLibVersion(self) -> int:
        return 101_401


class Runtime:
    """libcudart, which notes what is locked."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.locked: dict[int | None, int] = {}

    def cudaHostRegister(self, address: ctypes.c_void_p, size: ctypes.c_size_t, flags: int) -> int:
        if not self.code:
            self.locked[address.value] = size.value
        return self.code

    def cudaHostUnregister(self, address: ctypes.c_void_p) -> int:
        del self.locked[address.value]
        return 0


def machine(libraries: Mapping[str, Any]) -> Open:
    def load(name: str) -> Any:
        if name not in libraries:
            raise OSError(f"{name}: cannot open shared object file")
        return libraries[name]

    return load


def test_the_card_is_named() -> None:
    assert find_card(13, machine({DRIVER: Driver()})) == Card("NVIDIA H200", "9.0")


@pytest.mark.parametrize(
    ("libraries", "complaint"),
    [
        ({}, "no NVIDIA driver here .* install driver 580 or newer"),
        ({DRIVER: Driver(started=100)}, "sees no card; look at nvidia-smi"),
        ({DRIVER: Driver(started=803)}, r"does not start \(error 803\)"),
        ({DRIVER: Driver(version=12_040)}, "too old: it knows CUDA 12.4, .* needs 13; install driver 580"),
        ({DRIVER: Driver(device=101)}, "does not show its card"),
    ],
)
def test_what_is_missing_is_said(libraries: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(CudaError, match=complaint):
        find_card(13, machine(libraries))


def test_cudnn_is_looked_for() -> None:
    require_cudnn(machine({CUDNN: None}))
    with pytest.raises(CudaError, match=r"cuDNN 9 is missing \(libcudnn.so.9\); pip install"):
        require_cudnn(machine({}))


def test_tensorrt_needs_both_its_libraries() -> None:
    assert tensorrt_version(machine({TENSORRT: TensorRT(), TENSORRT_PARSER: None})) == 101_401
    with pytest.raises(CudaError, match=r"TensorRT 10 is missing .* or set RESIGHT_DEVICE=cuda"):
        tensorrt_version(machine({}))
    with pytest.raises(CudaError, match="parser is missing"):
        tensorrt_version(machine({TENSORRT: TensorRT()}))


def test_memory_is_locked_for_as_long_as_it_lives() -> None:
    runtime = Runtime()
    buffer = np.empty((2, 3), np.uint8)
    assert pin(buffer, 13, machine({"libcudart.so.13": runtime}))
    assert runtime.locked == {buffer.ctypes.data: 6}
    del buffer
    gc.collect()
    assert not runtime.locked


def test_memory_that_cannot_be_locked_is_used_as_it_is() -> None:
    buffer = np.empty(3, np.uint8)
    assert not pin(buffer, 13, machine({}))
    assert not pin(buffer, 13, machine({"libcudart.so.13": Runtime(code=2)}))


def test_the_version_of_cuda_is_a_number() -> None:
    assert cuda_major() >= 12
