"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of a container, in its own view (version 2)


def available_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """The machine's available memory or, where that is less, what the container's limit leaves.

    Pages of files that were read and are not in use count as available: the system gives them back when asked.

    Where the system does not tell (it is not Linux), half of the machine's memory.
    """
    machine = _machine(meminfo)
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        lines = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return machine
    files = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return machine if limit == "max" else max(0, min(machine, int(limit) - int(used) + files))


def _machine(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    kibibytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kibibytes) * 1024
