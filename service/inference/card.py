"""What this machine has for CUDA: the driver, the libraries, the card. Each that is missing is told with what to do."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

DRIVER, CUDNN, TENSORRT = "libcuda.so.1", "libcudnn.so.9", "libnvinfer.so.10"
TENSORRT_PARSER = "libnvonnxparser.so.10"
DRIVER_VERSION = Path("/proc/driver/nvidia/version")  # there while the driver's kernel module is loaded
LEAST_DRIVER = {12: "525", 13: "580"}  # by the major version of CUDA
NO_DEVICE = 100  # of the driver's cuda.h, as the next two
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
NAME_BYTES = 128

Open = Callable[[str], Any]  # a shared library by its name; raises OSError


class CudaError(RuntimeError):
    """CUDA cannot run here; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Card:
    """The card that ONNX Runtime takes, the first that CUDA shows; `capability` as in 9.0."""

    name: str
    capability: str


def driver_shows() -> bool:
    """Whether this machine seems to have an NVIDIA GPU, whatever is installed to use it."""
    return DRIVER_VERSION.exists() or shutil.which("nvidia-smi") is not None


def cuda_major() -> int:
    """The major version of CUDA that this ONNX Runtime was built for."""
    return int((onnxruntime.cuda_version or "13").split(".")[0])


def find_card(major: int, load: Open = ctypes.CDLL) -> Card:
    """The card, seen by the driver itself. Raises CudaError: no driver, too old a driver, no card."""
    try:
        driver = load(DRIVER)
    except OSError as error:
        raise CudaError(
            f"there is no NVIDIA driver here ({DRIVER}); install driver {LEAST_DRIVER.get(major, 'of its release')}"
            " or newer, and start a container with the card handed in (--gpus all)"
        ) from error
    code = driver.cuInit(0)
    if code == NO_DEVICE:
        raise CudaError("the NVIDIA driver sees no card; look at nvidia-smi, and at CUDA_VISIBLE_DEVICES")
    _require(code, "does not start")
    number = ctypes.c_int()
    _require(driver.cuDriverGetVersion(ctypes.byref(number)), "does not tell its version")
    if number.value // 1000 < major:
        raise CudaError(
            f"the NVIDIA driver is too old: it knows CUDA {number.value // 1000}.{number.value % 1000 // 10}, and this"
            f" ONNX Runtime needs {major}; install driver {LEAST_DRIVER.get(major, 'of its release')} or newer"
        )
    return _card(driver)


def require_cudnn(load: Open = ctypes.CDLL) -> None:
    """Raises CudaError where it is not there; ONNX Runtime would find out at the first convolution."""
    remedy = "pip install -c constraints.txt -c constraints-gpu.txt -e '.[gpu]' brings it"
    require_library(CUDNN, "cuDNN 9", remedy, load)


def _card(driver: Any) -> Card:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
    _require(driver.cuDeviceGet(ctypes.byref(device), 0), "does not show its card")
    _require(driver.cuDeviceGetName(name, NAME_BYTES, device), "does not name its card")
    numbers = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        number = ctypes.c_int()
        _require(driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device), "does not describe its card")
        numbers.append(str(number.value))
    return Card(name.value.decode(errors="replace"), ".".join(numbers))


def _require(code: int, what: str) -> None:
    if code:
        raise CudaError(f"the NVIDIA driver {what} (error {code}); look at nvidia-smi and at the system's log")


def require_library(name: str, called: str, remedy: str, load: Open = ctypes.CDLL) -> Any:
    """The library, loaded; raises CudaError where it is not there."""
    try:
        return load(name)
    except OSError as error:
        raise CudaError(f"{called} is missing ({name}); {remedy}") from error


def tensorrt_version(load: Open = ctypes.CDLL) -> int:
    """TensorRT's version as it numbers itself, and its libraries loaded for ONNX Runtime. Raises CudaError."""
    remedy = f"pip install 'tensorrt-cu{cuda_major()}-libs<11' brings it, or set RESIGHT_DEVICE=cuda"
    found = partial(_load_from_wheel, load=load)
    library = require_library(TENSORRT, "TensorRT 10", remedy, found)
    require_library(TENSORRT_PARSER, "TensorRT's parser", remedy, found)
    return int(library.getInferLibVersion())


def _load_from_wheel(name: str, load: Open) -> Any:
    """By the system's paths, or out of NVIDIA's wheel, which is on none of them."""
    try:
        return load(name)
    except OSError:
        wheel = importlib.util.find_spec("tensorrt_libs")
        if wheel is None or wheel.origin is None:
            raise
        return load(str(Path(wheel.origin).parent / name))


def pin(buffer: NDArray[Any], major: int, load: Open = ctypes.CDLL) -> bool:
    """Locks an array's pages for as long as it lives, so that the card copies them itself; False where CUDA refuses.

    Copies from other memory go through a small locked buffer of the driver's, at a fraction of the speed.
    """
    try:
        runtime = load(f"libcudart.so.{major}")
    except OSError:
        return False
    address = ctypes.c_void_p(buffer.ctypes.data)
    if runtime.cudaHostRegister(address, ctypes.c_size_t(buffer.nbytes), 0):
        return False
    weakref.finalize(buffer, runtime.cudaHostUnregister, address)
    return True


def host_buffer(shape: tuple[int, ...], major: int | None) -> NDArray[np.uint8]:
    """Memory that batches are put into; locked where there is CUDA, of version `major`."""
    buffer = np.empty(shape, np.uint8)
    if major is not None:
        pin(buffer, major)
    return buffer
