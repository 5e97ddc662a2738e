"""Two processes are one: each case is computed here, alone, and by two processes that meet over a file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from tests.training.loop.tiny import build_batch, build_state, log_of, steps_of, tiny, weights_of
from training.config import ConfigError
from training.data import market1501
from training.loop.distributed import Processes, joined
from training.loop.engine import train_step
from training.loop.learner import Batch
from training.loop.trainer import Trainer
from training.network.device import DeviceError
from training.network.model import ReIDNet

CPU = torch.device("cpu")
# Every kind of loss, a part of the parameters without a gradient, and a teacher.
STEPS = {
    "both": ("distillation=2", "relations=3"),
    "triplet": ("losses=triplet", "soft_margin=true"),
    "cross_entropy": ("losses=cross_entropy", "attention=none"),
}
# Everything that has statistics is frozen, what is above it learns.
RUN = ("epochs=2", "frozen_stages=5", "bnneck=false", "ema=0.5", "eval_every=1", "losses=triplet")


def step(processes: Processes, settings: tuple[str, ...]) -> dict[str, Any]:
    """The figures of a step on this process's part of a batch, and the gradients."""
    state, batch = build_state(tiny(*settings), processes), build_batch()
    own, teaches = processes.part(4, 2), state.learner.distiller is not None
    assert batch.target is not None
    state.module.eval()  # batch norms frozen
    taken = train_step(state, Batch(batch.pictures[own], batch.labels[own], batch.target[own] if teaches else None))
    gradients = {name: parameter.grad for name, parameter in state.learner.named_parameters()}
    return {
        "losses": taken.losses,
        "accuracy": taken.accuracy,
        "gradients": {name: gradient for name, gradient in gradients.items() if gradient is not None},
    }


def run(processes: Processes, drawn: Path, folder: Path, own: Path | None = None) -> None:
    weights, into = str(folder / "weights.pt"), own or folder / f"of-{processes.size}"
    Trainer(tiny(*RUN), market1501.read(drawn), into, CPU, None, processes).train(weights)


def one_of_two(rank: int, drawn: Path, folder: Path) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    with joined(CPU, f"file://{folder / 'meeting'}") as (processes, device):
        assert (processes, device) == (Processes(rank, 2), CPU)
        rows = torch.arange(2.0).requires_grad_() + 10 * rank
        gathered = processes.gather(rows)
        found = {name: step(processes, settings) for name, settings in STEPS.items()}
        found["gathered"] = {"rows": gathered.detach(), "mean": processes.mean(torch.tensor([rank, torch.nan]))}
        run(processes, drawn, folder)
        processes.agree({"complete epochs": 7})
        with pytest.raises(ConfigError) as told:
            processes.agree({"data": "same", "complete epochs": 5 * rank})
        # As on two machines without a shared folder, of which the first has a checkpoint.
        own = folder / f"machine-{rank}"
        if rank == 0:
            shutil.copytree(folder / "of-2", own)
        with pytest.raises(ConfigError) as apart:
            run(processes, drawn, folder, own)
        found["told"] = {"agree": str(told.value), "apart": str(apart.value)}
    torch.save(found, folder / f"rank-{rank}.pt")


@pytest.fixture(scope="module")
def folder(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, and beside it the same run of one."""
    folder = tmp_path_factory.mktemp("processes")
    torch.manual_seed(0)
    torch.save(ReIDNet(tiny(), 8).backbone.state_dict(), folder / "weights.pt")
    spawn(one_of_two, (drawn, folder), nprocs=2)  # type: ignore[no-untyped-call]
    run(Processes(), drawn, folder)
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", STEPS)
def test_two_processes_take_the_step_of_one(name: str, ranks: list[dict[str, Any]]) -> None:
    expected = step(Processes(), STEPS[name])
    assert ("network.classifier.weight" in expected["gradients"]) == (name != "triplet")
    for rank in ranks:
        assert rank[name]["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        assert rank[name]["accuracy"] == pytest.approx(expected["accuracy"])
        assert rank[name]["gradients"].keys() == expected["gradients"].keys()
        for parameter, gradient in expected["gradients"].items():
            torch.testing.assert_close(
                rank[name]["gradients"][parameter], gradient, rtol=1e-5, atol=1e-5, msg=f"{name}: {parameter}"
            )


def test_two_processes_run_the_run_of_one(folder: Path) -> None:
    """Batches, augmentation, and what is logged and measured. Adam makes steps of rounding errors: no weights."""
    one, two = folder / "of-1", folder / "of-2"
    assert weights_of(two).keys() == weights_of(one).keys()
    for mine, theirs in ((log_of(two), log_of(one)), (steps_of(two), steps_of(one))):
        assert len(mine) == len(theirs)
        for found, expected in zip(mine, theirs, strict=True):
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_rows_are_gathered_in_order(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["gathered"]["rows"].tolist() == [0, 1, 10, 11]
        mean, nan = rank["gathered"]["mean"].tolist()
        assert mean == 0.5
        assert nan != nan


def test_processes_that_found_different_things_stop_instead_of_waiting(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["told"]["agree"].startswith(
            "process 1 found complete epochs 5, the first one 0: every machine needs"
        )
        assert rank["told"]["apart"].startswith(
            "process 1 found complete epochs 0, the first one 2: every machine needs"
        )


def test_alone_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined(CPU) as (processes, device):
        assert (processes, device) == (Processes(0, 1), CPU)
        processes.wait()
        processes.agree({"complete epochs": 3})
    rows, module = torch.ones(2, 3), nn.Linear(2, 2)
    assert processes.gather(rows) is rows
    assert processes.wrap(module, unused=True) is module
    assert processes.own(5) == processes.part(5, 1) == slice(0, 5)


def test_every_process_needs_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, message in (
        ("cuda", "process 1 finds 1 CUDA devices"),
        ("cuda:0", "--device cuda:0: with several processes say cuda"),
    ):
        with pytest.raises(DeviceError, match=message), joined(torch.device(device)):
            pass


def test_a_batch_is_shared_out_evenly() -> None:
    assert [Processes(rank, 4).part(8, 3) for rank in range(4)] == [slice(6 * rank, 6 * rank + 6) for rank in range(4)]
    with pytest.raises(ConfigError, match="identities is 8: 3 processes need a multiple of 3"):
        Processes(0, 3).part(8, 4)


def test_batch_norms_are_joined_on_cuda_only() -> None:
    for device, joins in (("cpu", False), ("cuda", True)):
        network = ReIDNet(tiny(), 4)
        names = set(network.state_dict())
        Processes(0, 2).join_batch_norms(network, torch.device(device))
        assert isinstance(network.bnneck, nn.SyncBatchNorm) == joins
        assert isinstance(network.backbone.bn1, nn.SyncBatchNorm) == joins
        assert set(network.state_dict()) == names
