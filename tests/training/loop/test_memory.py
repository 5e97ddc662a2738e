from __future__ import annotations

import pytest
import torch

from training.loop.memory import OutOfMemory, enough_memory


def test_what_torch_says_on_a_cpu_is_one_sentence() -> None:
    told = r"memory of this machine does not suffice: lower identities or shots"
    with pytest.raises(OutOfMemory, match=told), enough_memory():
        torch.empty(2**58, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("error", "where"), [(MemoryError(), "this machine"), (torch.OutOfMemoryError("CUDA out of memory"), "the card")]
)
def test_other_words_for_it(error: Exception, where: str) -> None:
    with pytest.raises(OutOfMemory, match=f"the memory of {where}"), enough_memory():
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes$") as raised, enough_memory():
        raise RuntimeError("shapes")
    assert type(raised.value) is RuntimeError
