"""The device that a command was asked to compute on."""

from __future__ import annotations

import torch


class DeviceError(ValueError):
    """A device that is unknown or not there."""


def find_device(name: str) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1").

    Raises:
        DeviceError: torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name} is unknown: say cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {name} is not supported: say cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"--device {name}: this machine has no CUDA device that PyTorch {torch.__version__} can use")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
