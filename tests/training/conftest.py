from __future__ import annotations

import torch


def pytest_configure() -> None:
    # Tiny networks: a second thread costs more than it gives, above all on a busy machine.
    torch.set_num_threads(1)
