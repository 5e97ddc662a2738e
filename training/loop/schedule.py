"""What multiplies the learning rate, as a function of the time in epochs."""

from __future__ import annotations

import math
from collections.abc import Callable

from training.config import Config


def learning_rate_factor(config: Config) -> Callable[[float], float]:
    """Factor on the learning rate after `epoch` (fractional) epochs.

    Linear from 0.01 over `warmup_epochs`; then half a cosine to zero at the last epoch, or `step_factor` once
    more every `step_epochs`. The paper's section 4.2 has the latter: 100 epochs, no warm-up.
    """
    warmup = config.warmup_epochs

    def factor(epoch: float) -> float:
        if epoch < warmup:
            return 0.01 + 0.99 * epoch / warmup
        if config.schedule == "step":
            return math.pow(config.step_factor, (epoch - warmup) // config.step_epochs)
        return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(1e-9, config.epochs - warmup)))

    return factor
