from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training import export
from training.config import ConfigError, build_config
from training.data import market1501, synthetic
from training.data.dataset import Dataset, short_name
from training.loop import checkpoint, distillation, runlog
from training.loop.engine import Batch, Learner, NotFinite, build_optimizer, train_step, warmup_cosine
from training.loop.trainer import Trainer
from training.modelfile import parity
from training.network.model import ReIDNet
from training.network.stored import read_checkpoint
from training.train import RUNS, draw_data, find_data, main, parse

TINY = ["epochs=4", "height=32", "width=32", "base_width=8", "identities=4", "shots=2", "warmup_epochs=0.5"]
HALF = [*TINY, "epochs=3", "height=64", "width=64", "last_stride=2", "half_size_epochs=2"]


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    timing = ("seconds", "images_per_second")
    return [{key: value for key, value in line.items() if key not in timing} for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = read_checkpoint(run / checkpoint.LATEST).state["model"]
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


def note_epochs(monkeypatch: pytest.MonkeyPatch, dies_in: int | None = None) -> list[tuple[int, int, int]]:
    """A list that fills with (height, width, stride of layer4) of every epoch's pictures; one epoch may die."""
    seen: list[tuple[int, int, int]] = []
    original = Trainer.train_epoch

    def noted(self: Trainer, epoch: int, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        if epoch == dies_in:
            raise Killed
        original(self, epoch, learner, optimizer)
        stride = learner.network.backbone.get_submodule("layer4.0.conv1")
        assert isinstance(stride, torch.nn.Conv2d)
        seen.append((self.pictures.shape[2], self.pictures.shape[3], stride.stride[0]))

    monkeypatch.setattr(Trainer, "train_epoch", noted)
    return seen


def test_half_size_epochs_then_full_size(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = note_epochs(monkeypatch)
    Trainer(build_config("smoke", overrides=HALF), data, tmp_path, "cpu").train("none")
    assert seen == [(32, 32, 1), (32, 32, 1), (64, 64, 2)]
    assert [line["epoch"] for line in losses(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("last", [1, 2])
def test_a_run_continues_across_the_switch_of_size(data: Dataset, tmp_path: Path, last: int) -> None:
    config = build_config("smoke", overrides=HALF)
    Trainer(config, data, tmp_path / "whole", "cpu").train("none")
    with pytest.MonkeyPatch.context() as patch:
        note_epochs(patch, dies_in=last)
        with pytest.raises(Killed):
            Trainer(config, data, tmp_path / "killed", "cpu").train("none")
    with pytest.MonkeyPatch.context() as patch:
        seen = note_epochs(patch)
        Trainer(config, data, tmp_path / "killed", "cpu").train("none")
    assert seen == [(32, 32, 1), (32, 32, 1), (64, 64, 2)][last:]
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    environments = json.loads((tmp_path / "killed" / runlog.RUN).read_text())["environments"]
    assert len(environments) == 2


def test_frozen_stages_keep_weights_and_statistics(data: Dataset, tmp_path: Path) -> None:
    frozen = build_config("smoke", overrides=[*TINY, "epochs=1", "frozen_stages=2"])
    state = ReIDNet(frozen, 8).backbone.state_dict()
    loaded = {name: tensor for name, tensor in state.items() if not name.startswith(("layer3", "layer4"))}
    torch.save(loaded, tmp_path / "weights.pt")
    Trainer(frozen, data, tmp_path / "run", "cpu").train(str(tmp_path / "weights.pt"))
    after = weights(tmp_path / "run")
    fixed = [name for name in loaded if name.startswith(("conv1", "bn1", "layer1"))]
    assert len(fixed) > 20
    assert all(torch.equal(loaded[name], after[f"backbone.{name}"]) for name in fixed)
    assert not torch.equal(loaded["layer2.0.conv1.weight"], after["backbone.layer2.0.conv1.weight"])
    deeper = build_config("smoke", overrides=[*TINY, "epochs=1", "frozen_stages=4"])
    with pytest.raises(ConfigError, match="frozen_stages=4 would freeze layer3"):
        Trainer(deeper, data, tmp_path / "deeper", "cpu").train(str(tmp_path / "weights.pt"))


def test_training_lowers_the_loss_and_moves_alpha(data: Dataset, tmp_path: Path) -> None:
    config = build_config("smoke", overrides=[*TINY, "epochs=8"])
    Trainer(config, data, tmp_path, "cpu").train("none")
    log = losses(tmp_path)
    assert log[-1]["cross_entropy"] + log[-1]["triplet"] < log[0]["cross_entropy"] + log[0]["triplet"]
    assert log[-1]["alpha"] != 0


@pytest.fixture(scope="module")
def trained(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch; to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    Trainer(build_config("smoke", overrides=[*TINY, "epochs=1"]), data, folder, "cpu").train("none")
    return folder


def test_other_settings_do_not_continue_a_run(data: Dataset, trained: Path) -> None:
    other = build_config("smoke", overrides=[*TINY, "epochs=1", "margin=0.5"])
    with pytest.raises(ValueError, match=r"margin=0\.3, not 0\.5"):
        Trainer(other, data, trained, "cpu").train("none")


def test_other_data_does_not_continue_a_run(data: Dataset, trained: Path) -> None:
    config = build_config("smoke", overrides=[*TINY, "epochs=1"])
    before = weights(trained)
    one_other = (replace(data.train[0], size=data.train[0].size + 1), *data.train[1:])
    with pytest.raises(ValueError, match=r"data\.sha256='[0-9a-f]{64}', not '[0-9a-f]{64}'"):
        Trainer(config, replace(data, train=one_other), trained, "cpu").train("none")
    people = sorted({sample.identity for sample in data.train})[:-1]
    fewer = tuple(sample for sample in data.train if sample.identity in people)
    with pytest.raises(ValueError, match="classes=8, not 7"):
        Trainer(config, replace(data, train=fewer), trained, "cpu").train("none")
    Trainer(config, replace(data, name="moved"), trained, "cpu").train("none")  # another name is no other data
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trained).items())


def test_other_weights_do_not_continue_a_run(data: Dataset, trained: Path, tmp_path: Path) -> None:
    config = build_config("smoke", overrides=[*TINY, "epochs=1"])
    torch.save(ReIDNet(config, 8).backbone.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"initialisation='from scratch.*', not 'weights\.pt"):
        Trainer(config, data, trained, "cpu").train(str(tmp_path / "weights.pt"))


def test_an_early_checkpoint_is_still_read(trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / checkpoint.LATEST, weights_only=True)
    (start,) = state.pop("environments")
    torch.save({**state, "environment": start}, tmp_path / "early.pt")
    assert read_checkpoint(tmp_path / "early.pt").environments == [start]


def test_a_torn_log_line_is_dropped(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        runlog.append(tmp_path, {"epoch": epoch})
    with (tmp_path / runlog.LOG).open("a") as file:
        file.write('{"epoch": 4, "cross_entr')
    runlog.truncate(tmp_path, 2)
    assert (tmp_path / runlog.LOG).read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    assert [path.name for path in tmp_path.iterdir()] == [runlog.LOG]


def test_a_log_without_a_checkpoint_starts_anew(data: Dataset, tmp_path: Path) -> None:
    runlog.append(tmp_path, {"epoch": 1, "cross_entropy": -1})
    Trainer(build_config("smoke", overrides=[*TINY, "epochs=1"]), data, tmp_path, "cpu").train("none")
    assert len(losses(tmp_path)) == 1
    assert losses(tmp_path)[0]["cross_entropy"] > 0


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


def test_a_gradient_that_is_not_finite_harms_nothing() -> None:
    config = build_config("smoke", overrides=TINY)
    torch.manual_seed(0)
    learner = Learner(ReIDNet(config, 4), None, config)
    optimizer = build_optimizer(learner, frozenset())
    before = [parameter.clone() for parameter in learner.parameters()]
    conv1 = learner.network.backbone.conv1.weight
    conv1.register_hook(lambda gradient: gradient * torch.nan)  # type: ignore[no-untyped-call]
    batch = Batch(torch.randn(8, 3, 32, 32), torch.arange(4).repeat_interleave(2))
    with pytest.raises(NotFinite, match="gradient nan"):
        train_step(learner, optimizer, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))


def test_the_drawn_data_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(folder: Path) -> None:
        (folder / "query").mkdir(parents=True)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "draw_market1501", dies)
        with pytest.raises(Killed):
            draw_data(tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()
    assert len(market1501.read(draw_data(tmp_path / "drawn")).train) == 216
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "smoke", "--device", "abacus"], "abacus is unknown"),
        (["--preset", "smoke", "--device", "cuda:99"], "--device cuda:99: this machine has"),
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
    arguments: list[str], message: str, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "smoke" in arguments and "--data" not in arguments:
        arguments = [*arguments, "--data", str(drawn)]
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
    (start,) = run["environments"]
    assert start["torch"] == str(torch.__version__)
    assert start["revision"] == runlog.source_revision()
    assert set(start) == {"revision", "python", "torch", "numpy", "kornia", "device", "threads", "started"}
    assert start["device"].startswith("cpu")
    assert len(run["data"]["sha256"]) == 64


def test_the_log_tells_what_the_attention_does(trained: Path) -> None:
    (line,) = losses(trained)
    assert 0 < line["attention_ratio"] < 1
    assert 0 < line["attention_entropy"] <= np.log(4) + 1e-5  # 32 x 32 at stride 16: four positions


def smoke_command(drawn: Path, run: Path, *more: str) -> list[str]:
    settings = [word for setting in [*TINY, "epochs=1"] for word in ("--set", setting)]
    return ["--preset", "smoke", "--data", str(drawn), "--run", str(run), "--device", "cpu", *settings, *more]


def test_a_refused_export_is_told(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_arguments: object, **_options: object) -> None:
        raise parity.ExportError("the fp32 file's embedding is another: nothing was written")

    monkeypatch.setattr(export, "export", refuses)
    assert main(smoke_command(drawn, tmp_path)) == 1
    told = capsys.readouterr().err
    assert "stopped: the fp32 file's embedding is another" in told
    assert f"the checkpoint is {tmp_path / checkpoint.LATEST}" in told


def test_a_missing_exporter_is_told_before_training(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "training.export", None)
    assert main(smoke_command(drawn, tmp_path / "run")) == 2
    assert "install resight[cpu,train] or resight[gpu,train]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(smoke_command(drawn, tmp_path / "run", "--no-export")) == 0


def test_the_default_folder_names_preset_data_and_settings(drawn: Path) -> None:
    config = build_config("smoke")
    arguments = parse(["--preset", "smoke", "--data", str(drawn)])
    data, run = find_data(arguments, config)
    assert run.parent == RUNS
    assert run.name == f"smoke-{short_name(data.name)}-{config.sha256()[:8]}"
    assert short_name("Market-1501") == "market1501"
