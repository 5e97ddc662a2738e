"""Memory of crops goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CROP = 256 * 128 * 3
CROPS = 500
SCRIPT = f"""
import resource
from service.cli.memory import keep_steady

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def large():
    return b"." * {CROP}, b"." * 1000

[large() for _ in range(10)]
assert keep_steady()
before = resident()
held = [large() for _ in range({CROPS})]
full = resident()
held = [small for _, small in held]  # which lie between the crops
print(before, full, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be asked")
def test_crops_that_are_let_go_take_no_memory_though_small_things_stay() -> None:
    """In a process of its own: what is asked of glibc holds for good."""
    script = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, full, after = map(int, script.stdout.split())
    assert full - before > 0.5 * CROPS * CROP  # the kernel may count a few pages late
    assert after - before < 0.1 * CROPS * CROP


def test_what_the_start_made_is_not_searched_again() -> None:
    script = (
        "import gc\nfrom service.cli.memory import settle\nsettle()\nprint(gc.get_freeze_count(), *gc.get_threshold())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    frozen, young, *_ = map(int, done.stdout.split())
    assert frozen > 1000
    assert young >= 10_000
