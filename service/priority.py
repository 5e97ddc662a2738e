"""Which threads go first when there are fewer cores than work."""

from __future__ import annotations

import os
import sys

NICENESS = 4  # four tenths of the weight of a thread that answers requests


def give_way() -> None:
    """Puts this thread, and those that it starts, below the main one: requests are answered before images are embedded.

    Without it, a service under overload refuses late, because the model has all the cores. Linux alone knows
    priorities of threads; elsewhere nothing happens. A thread that has given way already stays where it is.
    """
    if sys.platform == "linux":
        above = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, 0, max(above + NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
