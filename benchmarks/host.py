"""What a figure was measured on: it says nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

ENGINES = ("onnxruntime", "onnxruntime-gpu", "faiss-cpu", "faiss-gpu-cuvs", "torch")
LIBRARIES = (*ENGINES, "numpy", "pillow", "fastapi", "uvicorn")


def host() -> dict[str, str]:
    """Processor, graphics card, cores that may be used, memory, Python and the libraries that matter, where present."""
    cards = gpus()
    return {
        "processor": _processor(),
        **({"gpu": ", ".join(cards)} if cards else {}),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def gpus() -> list[str]:
    """The names of NVIDIA's cards, as the driver gives them."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    except (OSError, subprocess.CalledProcessError):
        return []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
