"""What a figure was measured on: it says nothing without."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

LIBRARIES = ("faiss-cpu", "fastapi", "numpy", "onnxruntime", "pillow", "uvicorn")


def host() -> dict[str, str]:
    """Processor, cores that may be used, memory, Python and the libraries that matter."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
