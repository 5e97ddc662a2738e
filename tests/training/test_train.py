from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.config import build_config
from training.data import market1501, synthetic
from training.data.dataset import Dataset
from training.loop import checkpoint, distillation, runlog
from training.loop.engine import Learner, NotFinite, build_optimizer, warmup_cosine
from training.network.model import ReIDNet, read_checkpoint
from training.train import Trainer, main

TINY = ["epochs=4", "height=32", "width=32", "base_width=8", "identities=4", "shots=2", "half_size_epochs=0"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.draw_market1501(folder, train_identities=8, test_identities=4, cameras=2, shots=2)
    return folder


@pytest.fixture(scope="module")
def data(drawn: Path) -> Dataset:
    return market1501.read(drawn)


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    timing = ("seconds", "images_per_second")
    return [{key: value for key, value in line.items() if key not in timing} for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = read_checkpoint(run / checkpoint.LATEST)["model"]
    return model


class Killed(Exception):
    pass


@pytest.mark.parametrize("teacher", [False, True])
def test_a_killed_run_continues_to_the_bit(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: bool
) -> None:
    file = None
    overrides = TINY
    if teacher:
        file, overrides = tmp_path / "teacher.npy", [*TINY, "distillation=2"]
        np.save(file, np.random.default_rng(0).normal(size=(len(data.train), 6)))
    config = build_config("smoke", overrides=overrides)
    Trainer(config, data, tmp_path / "whole", "cpu").train("none", file)

    epochs = 0
    original = Trainer.load

    def dies_in_the_third_epoch(self: Trainer, indices: Any) -> Any:
        nonlocal epochs
        epochs += 1
        batches = original(self, indices)
        yield next(batches)
        if epochs == 3:
            raise Killed
        yield from batches

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "load", dies_in_the_third_epoch)
        trainer = Trainer(config, data, tmp_path / "killed", "cpu")
        with pytest.raises(Killed):
            trainer.train("none", file)
    assert len(losses(tmp_path / "killed")) == 2
    Trainer(config, data, tmp_path / "killed", "cpu").train("none", file)

    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_half_size_epochs_then_full_size(data: Dataset, tmp_path: Path) -> None:
    config = build_config("smoke", overrides=[*TINY, "epochs=2", "height=64", "width=64", "half_size_epochs=1"])
    trainer = Trainer(config, data, tmp_path, "cpu")
    trainer.train("none")
    assert trainer.pictures.shape[-2:] == (64, 64)
    assert [line["epoch"] for line in losses(tmp_path)] == [1, 2]


def test_frozen_stages_keep_weights_and_statistics(data: Dataset, tmp_path: Path) -> None:
    frozen = build_config("smoke", overrides=[*TINY, "epochs=1", "frozen_stages=2"])
    Trainer(frozen, data, tmp_path, "cpu").train("none")
    torch.manual_seed(frozen.seed)
    start = ReIDNet(frozen, 8).state_dict()
    after = weights(tmp_path)
    fixed = [name for name in start if name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))]
    assert all(torch.equal(start[name], after[name]) for name in fixed)
    assert not torch.equal(start["backbone.layer2.0.conv1.weight"], after["backbone.layer2.0.conv1.weight"])


def test_training_lowers_the_loss_and_moves_alpha(data: Dataset, tmp_path: Path) -> None:
    config = build_config("smoke", overrides=[*TINY, "epochs=8"])
    Trainer(config, data, tmp_path, "cpu").train("none")
    log = losses(tmp_path)
    assert log[-1]["cross_entropy"] + log[-1]["triplet"] < log[0]["cross_entropy"] + log[0]["triplet"]
    assert log[-1]["alpha"] != 0


def test_other_settings_do_not_continue_a_run(data: Dataset, tmp_path: Path) -> None:
    config = build_config("smoke", overrides=[*TINY, "epochs=1"])
    Trainer(config, data, tmp_path, "cpu").train("none")
    other = build_config("smoke", overrides=[*TINY, "epochs=1", "margin=0.5"])
    with pytest.raises(ValueError, match=r"margin=0\.3, not 0\.5"):
        Trainer(other, data, tmp_path, "cpu").train("none")


def test_a_torn_checkpoint_is_never_seen(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config("smoke", overrides=[*TINY, "epochs=1"])
    Trainer(config, data, tmp_path, "cpu").train("none")
    before = weights(tmp_path)

    def full_disk(_state: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    longer = build_config("smoke", overrides=[*TINY, "epochs=2"])
    learner = Learner(ReIDNet(longer, 8), None, longer)
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, learner, build_optimizer(learner, frozenset()), 2, {})
    monkeypatch.undo()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path).items())


def test_nan_stops_with_the_batch_named(data: Dataset, tmp_path: Path) -> None:
    config = build_config("smoke", overrides=[*TINY, "learning_rate=1e30", "warmup_epochs=0"])
    with pytest.raises(NotFinite, match=r"batch [1-9]"):
        Trainer(config, data, tmp_path, "cpu").train("none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "strong"], "--data is needed"),
        (["--preset", "smoke", "--data", "nowhere"], "is no folder"),
        (["--preset", "smoke", "--set", "epoch=3"], "epoch is one of"),
        (["--preset", "smoke", "--weights", "absent.pt"], "absent.pt does not exist"),
        (["--preset", "smoke", "--set", "distillation=1"], "--teacher FILE and"),
        (["--preset", "smoke", "--config", "absent.toml"], "absent.toml"),
        (["--preset", "smoke", "--set", "identities=99"], "99 identities cannot be drawn"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--run", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("array", [None, np.ones((3, 4)), np.zeros((16, 4)), np.full((16, 4), np.nan)])
def test_bad_teachers_are_refused(array: Any, tmp_path: Path) -> None:
    path = tmp_path / "teacher.npy"
    if array is not None:
        np.save(path, array)
    with pytest.raises(ValueError, match=r"teacher\.npy"):
        distillation.read_teacher(path, 16)


def test_schedule() -> None:
    factor = warmup_cosine(10, 2)
    assert factor(0) == pytest.approx(0.01)
    assert factor(2) == pytest.approx(1)
    assert factor(6) == pytest.approx(0.5)
    assert factor(9.999) == pytest.approx(0, abs=1e-4)


def test_run_folder_tells_what_made_it(data: Dataset, tmp_path: Path) -> None:
    Trainer(build_config("smoke", overrides=[*TINY, "epochs=1"]), data, tmp_path, "cpu").train("none")
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["initialisation"].startswith("from scratch")
    assert run["data"]["train"] == {"identities": 8, "images": 32, "cameras": 2}
    assert run["environment"]["torch"] == str(torch.__version__)
    assert runlog.source_revision() == run["environment"]["revision"]
