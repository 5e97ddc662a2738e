"""Whole runs of a tiny network on drawn data."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.loop.tiny import interrupt_in, log_of, same, steps_of, tiny, weights_of
from tests.training.retrieval.cells import write_model
from training.config import Config, ConfigError, build_config
from training.data.dataset import DataError, Dataset
from training.data.holdout import hold_out
from training.loop import checkpoint, engine, precision, runlog, trainer
from training.loop.distillation import StoredTeacher, TeacherFile, read_teacher
from training.loop.engine import NotFinite, Step
from training.loop.files import NotWritten
from training.loop.state import State
from training.loop.trainer import Trainer
from training.network.model import ReIDNet
from training.network.stored import read_checkpoint
from training.retrieval.onnx_model import INPUT_LAYOUTS
from training.retrieval.protocol import evaluate
from training.retrieval.torch_model import TorchModel

HALF = ("epochs=3", "height=64", "width=64", "last_stride=2", "half_size_epochs=2")
RICH = ("ema=0.8", "optimizer=adam", "schedule=step", "step_epochs=1", "group=camera", "eval_every=3", "epochs=4")


@pytest.fixture
def teacher(data: Dataset, tmp_path: Path) -> TeacherFile:
    path = tmp_path / "teacher.npy"
    np.save(path, np.random.default_rng(0).normal(size=(len(data.train), 6)))
    return TeacherFile(path)


@pytest.mark.parametrize("settings", [("distillation=2", "calibration_identities=2"), RICH])
def test_an_interrupted_run_continues_to_the_bit(
    data: Dataset, tmp_path: Path, teacher: TeacherFile, settings: tuple[str, ...]
) -> None:
    config = tiny(*settings)
    file = teacher if config.distillation else None
    Trainer(config, data, tmp_path / "whole", "cpu").train("none", file)
    killed = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in(patch, 2)
        with pytest.raises(KeyboardInterrupt, match=r"checkpoint\.pt holds the 2 complete epochs.*same command"):
            Trainer(config, data, killed, "cpu").train("none", file)
    assert [line["epoch"] for line in log_of(killed)] == [1, 2]
    Trainer(config, data, killed, "cpu").train("none", file)

    assert log_of(killed) == log_of(tmp_path / "whole")
    assert steps_of(killed) == steps_of(tmp_path / "whole")
    parts = ["model", *(["raw"] if config.ema else []), *(["distiller"] if file else [])]
    for part in parts:
        assert same(weights_of(killed, part), weights_of(tmp_path / "whole", part)), part
    assert len(json.loads((killed / runlog.RUN).read_text())["environments"]) == 2


def test_an_interrupt_before_the_first_checkpoint_says_so(data: Dataset, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in(patch, 0)
        with pytest.raises(KeyboardInterrupt, match="nothing is kept; the same command starts anew"):
            Trainer(tiny(), data, tmp_path, "cpu").train("none")


def sizes_of(patch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """A list that fills with height, width and the strides of layer4, trained and kept, of every epoch."""
    seen: list[tuple[int, int, int, int]] = []
    original = Trainer.train_epoch

    def noted(self: Trainer, epoch: int, state: State) -> tuple[dict[str, Any], list[Step]]:
        found = original(self, epoch, state)
        strides = []
        for network in (state.learner.network, state.kept):
            convolution = network.backbone.get_submodule("layer4.0.conv1")
            assert isinstance(convolution, torch.nn.Conv2d)
            strides.append(convolution.stride[0])
        height, width = self.feed.pictures.shape[-2:]
        seen.append((height, width, strides[0], strides[1]))
        return found

    patch.setattr(Trainer, "train_epoch", noted)
    return seen


@pytest.mark.parametrize("last", [1, 2])
def test_a_run_continues_across_the_switch_of_size(data: Dataset, tmp_path: Path, last: int) -> None:
    config = tiny(*HALF, "ema=0.5", "eval_every=1")
    with pytest.MonkeyPatch.context() as patch:
        seen = sizes_of(patch)
        Trainer(config, data, tmp_path / "whole", "cpu").train("none")
    sizes = [(32, 32, 1, 1), (32, 32, 1, 1), (64, 64, 2, 2)]
    assert seen == sizes
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in(patch, last)
        with pytest.raises(KeyboardInterrupt):
            Trainer(config, data, tmp_path / "killed", "cpu").train("none")
    with pytest.MonkeyPatch.context() as patch:
        seen = sizes_of(patch)
        Trainer(config, data, tmp_path / "killed", "cpu").train("none")
    assert seen == sizes[last:]
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed"))


def test_frozen_stages_keep_weights_and_statistics(data: Dataset, tmp_path: Path) -> None:
    frozen = tiny("epochs=1", "frozen_stages=2")
    state = ReIDNet(frozen, 8).backbone.state_dict()
    loaded = {name: tensor for name, tensor in state.items() if not name.startswith(("layer3", "layer4"))}
    torch.save(loaded, tmp_path / "weights.pt")
    Trainer(frozen, data, tmp_path / "run", "cpu").train(str(tmp_path / "weights.pt"))
    after = weights_of(tmp_path / "run")
    fixed = [name for name in loaded if name.startswith(("conv1", "bn1", "layer1"))]
    assert len(fixed) > 20
    assert all(torch.equal(loaded[name], after[f"backbone.{name}"]) for name in fixed)
    assert not torch.equal(loaded["layer2.0.conv1.weight"], after["backbone.layer2.0.conv1.weight"])
    deeper = Trainer(tiny("epochs=1", "frozen_stages=4"), data, tmp_path / "deeper", "cpu")
    with pytest.raises(ConfigError, match="frozen_stages=4 would freeze layer3"):
        deeper.train(str(tmp_path / "weights.pt"))


def test_training_lowers_the_loss_and_moves_alpha(data: Dataset, tmp_path: Path) -> None:
    Trainer(tiny("epochs=8"), data, tmp_path, "cpu").train("none")
    log = log_of(tmp_path)
    assert log[-1]["cross_entropy"] + log[-1]["triplet"] < log[0]["cross_entropy"] + log[0]["triplet"]
    assert log[-1]["alpha"] != 0
    assert 0 < log[-1]["attention_ratio"] < 1
    assert 0 < log[-1]["attention_entropy"] <= np.log(4) + 1e-5  # 32 x 32 at stride 16: four positions


def test_the_paper_runs_scaled_down(data: Dataset, tmp_path: Path) -> None:
    """Its epochs, optimiser, schedule and augmentation, with a network and pictures for a test."""
    small = ["layers=[1, 1, 1, 1]", "base_width=8", "height=64", "width=32", "identities=4", "shots=2"]
    config = build_config("paper", overrides=[*small, "epochs=3", "step_epochs=1"])
    Trainer(config, data, tmp_path, "cpu").train("none")
    log = log_of(tmp_path)
    assert [line["batches"] for line in log] == [2, 2, 2]  # every one of 8 identities once
    assert [line["learning_rate"] for line in log] == pytest.approx([3e-4, 3e-5, 3e-6])
    assert not [name for name in weights_of(tmp_path) if name.startswith("bnneck")]


@pytest.mark.parametrize(
    ("setting", "there", "absent"),
    [
        ("losses=triplet", {"triplet", "alpha"}, {"cross_entropy", "accuracy"}),
        ("losses=cross_entropy", {"cross_entropy", "accuracy"}, {"triplet"}),
        ("attention=none", set(), {"alpha", "attention_ratio", "attention_entropy"}),
        ("attention=spatial", {"attention_entropy"}, {"alpha"}),
        ("embedding_dim=16", {"accuracy"}, {"mAP"}),
    ],
)
def test_the_log_has_what_there_is(
    setting: str, there: set[str], absent: set[str], data: Dataset, tmp_path: Path
) -> None:
    Trainer(tiny("epochs=1", setting), data, tmp_path, "cpu").train("none")
    (line,) = log_of(tmp_path)
    assert there <= set(line)
    assert not absent & set(line)
    losses = {"cross_entropy", "triplet"} & set(line)
    steps = steps_of(tmp_path)
    assert all(set(step) == {"epoch", "step"} | losses for step in steps)
    assert [step["step"] for step in steps] == list(range(1, line["batches"] + 1))
    for name in losses:
        assert line[name] == pytest.approx(np.mean([step[name] for step in steps]))


def test_what_is_kept_is_what_is_measured(data: Dataset, tmp_path: Path) -> None:
    trained = Trainer(tiny("ema=0.9", "eval_every=3"), data, tmp_path, "cpu").train("none")
    log = log_of(tmp_path)
    assert [line["epoch"] for line in log if "mAP" in line] == [3, 4]  # every third one, and the last
    metrics = evaluate(TorchModel(trained), data).metrics
    expected = {"mAP": metrics.mAP, "mAP_official": metrics.mAP_official, "mINP": metrics.mINP}
    expected |= {f"rank{k}": metrics.rank(k) for k in (1, 5, 10, 20)}
    assert {name: log[-1][name] for name in expected} == pytest.approx(expected)


def test_a_live_teacher_teaches_and_continues_to_the_bit(data: Dataset, tmp_path: Path) -> None:
    layout = "nchw-float-rgb-1"
    teacher = TeacherFile(write_model(tmp_path / "teacher.onnx", INPUT_LAYOUTS[layout]), layout)
    config = tiny("epochs=2", "distillation=2", "relations=3", "colour=0.3", "blur=0.5", "alpha_factor=10")
    Trainer(config, data, tmp_path / "whole", "cpu").train("none", teacher)
    assert {"distillation", "relations"} <= steps_of(tmp_path / "whole")[0].keys()
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            Trainer(config, data, tmp_path / "killed", "cpu").train("none", teacher)
    Trainer(config, data, tmp_path / "killed", "cpu").train("none", teacher)
    assert same(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"))


def test_a_teacher_that_is_fed_otherwise_does_not_continue_a_run(data: Dataset, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.onnx", INPUT_LAYOUTS["nchw-float-rgb-1"])
    config, run = tiny("epochs=1", "distillation=2"), tmp_path / "run"
    Trainer(config, data, run, "cpu").train("none", TeacherFile(path, "nchw-float-rgb-1"))
    with pytest.raises(ValueError, match="with teacher_layout='nchw-float-rgb-1', not 'nchw-float-bgr-255'"):
        Trainer(config, data, run, "cpu").train("none", TeacherFile(path, "nchw-float-bgr-255"))
    state = torch.load(run / checkpoint.LATEST, weights_only=True)
    del state["teacher_layout"]  # as earlier versions wrote it
    torch.save(state, run / checkpoint.LATEST)
    Trainer(config, data, run, "cpu").train("none", TeacherFile(path, "nchw-float-bgr-255"))


def test_recombined_people_need_a_live_teacher(data: Dataset, tmp_path: Path, teacher: TeacherFile) -> None:
    config = tiny("epochs=1", "distillation=2", "recombined=1", "warmup_epochs=0")
    with pytest.raises(ConfigError, match="a teacher of theirs is a model"):
        Trainer(config, data, tmp_path / "stored", "cpu").train("none", teacher)
    layout = "nchw-float-rgb-1"
    live = TeacherFile(write_model(tmp_path / "teacher.onnx", INPUT_LAYOUTS[layout]), layout)
    Trainer(config, data, tmp_path / "live", "cpu").train("none", live)


def test_measuring_changes_no_training(data: Dataset, tmp_path: Path) -> None:
    for every in (0, 1):
        Trainer(tiny("epochs=2", f"eval_every={every}"), data, tmp_path / str(every), "cpu").train("none")
    assert same(weights_of(tmp_path / "0"), weights_of(tmp_path / "1"))


def test_held_out_identities_are_not_trained_on(data: Dataset, tmp_path: Path, teacher: TeacherFile) -> None:
    config = tiny("epochs=1", "calibration_identities=3", "distillation=1")
    trainer = Trainer(config, data, tmp_path / "run", "cpu")
    state, provenance = trainer.build("none", teacher)
    kept, held_out = hold_out(data.train, 3, config.seed)
    assert trainer.feed.samples == kept
    assert provenance["classes"] == state.learner.network.classifier.out_features == 5
    assert sorted(set(trainer.feed.classes)) == list(range(5))
    rows = [data.train.index(sample) for sample in kept]
    assert isinstance(trainer.feed.teacher, StoredTeacher)
    everybody = read_teacher(teacher, range(len(data.train)), len(data.train), torch.device("cpu"))
    assert torch.equal(trainer.feed.teacher.embeddings, everybody(torch.tensor(rows), torch.empty(0)))
    assert len(held_out) + len(kept) == provenance["data"]["train"]["images"]
    with pytest.raises(ConfigError, match="calibration_identities is 7, and the training part has 8"):
        Trainer(tiny("calibration_identities=7"), data, tmp_path / "none", "cpu")


@pytest.fixture(scope="module")
def once(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch; to be read only."""
    folder = tmp_path_factory.mktemp("once")
    Trainer(tiny("epochs=1"), data, folder, "cpu").train("none")
    return folder


def test_other_settings_do_not_continue_a_run(data: Dataset, once: Path) -> None:
    with pytest.raises(ValueError, match=r"margin=0\.3, not 0\.5"):
        Trainer(tiny("epochs=1", "margin=0.5"), data, once, "cpu").train("none")


def test_other_weights_do_not_continue_a_run(data: Dataset, once: Path, tmp_path: Path) -> None:
    torch.save(ReIDNet(tiny(), 8).backbone.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"initialisation='from scratch.*', not .weights\.pt"):
        Trainer(tiny("epochs=1"), data, once, "cpu").train(str(tmp_path / "weights.pt"))


def test_a_finished_run_is_left_as_it_is(data: Dataset, once: Path, tmp_path: Path) -> None:
    run = shutil.copytree(once, tmp_path / "run")
    assert Trainer(tiny("epochs=1"), data, run, "cpu").train("none") == run / checkpoint.LATEST
    assert same(weights_of(once), weights_of(run))
    assert log_of(run) == log_of(once)


def test_the_run_folder_tells_what_made_it(once: Path) -> None:
    run = json.loads((once / runlog.RUN).read_text())
    assert run["initialisation"].startswith("from scratch")
    assert Config.from_dict(run["config"]) == tiny("epochs=1")
    assert len(run["data"]["sha256"]) == 64
    assert len(run["environments"]) == 1
    assert (once / "tensorboard").is_dir()


def test_a_log_without_a_checkpoint_starts_anew(data: Dataset, tmp_path: Path) -> None:
    runlog.append(tmp_path, {"epoch": 1, "cross_entropy": -1, "batches": 99})
    Trainer(tiny("epochs=1"), data, tmp_path, "cpu").train("none")
    (line,) = log_of(tmp_path)
    assert line["cross_entropy"] > 0
    assert steps_of(tmp_path)[0]["step"] == 1


def test_nan_stops_with_the_batch_named(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"epoch 1, batch [1-9]"):
        Trainer(tiny("learning_rate=1e30", "warmup_epochs=0"), data, tmp_path, "cpu").train("none")


def test_an_epoch_that_ends_with_infinite_weights_is_not_kept(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint would take the place of the last good one, and could not be read."""
    found = iter(["", "backbone.conv1.weight"])
    monkeypatch.setattr(engine, "overflowed", lambda _: next(found))
    with pytest.raises(NotFinite, match=r"^epoch 2, backbone\.conv1\.weight is not finite"):
        Trainer(tiny("epochs=3"), data, tmp_path, "cpu").train("none")
    assert read_checkpoint(tmp_path / checkpoint.LATEST).state["epoch"] == 1
    assert [line["epoch"] for line in log_of(tmp_path)] == [1]


def test_a_full_disk_stops_a_run_that_then_continues(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("epochs=2")
    original, calls = torch.save, 0

    def full_at_the_second(state: object, file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_at_the_second)
        with pytest.raises(NotWritten, match=r"checkpoint\.pt could not be written"):
            Trainer(config, data, tmp_path / "full", "cpu").train("none")
    Trainer(config, data, tmp_path / "full", "cpu").train("none")
    Trainer(config, data, tmp_path / "whole", "cpu").train("none")
    assert log_of(tmp_path / "full") == log_of(tmp_path / "whole")
    assert same(weights_of(tmp_path / "full"), weights_of(tmp_path / "whole"))


@pytest.mark.parametrize(
    "settings", [("epochs=3", "eval_every=2"), (*HALF, "eval_every=2"), ("epochs=2", "eval_every=5")]
)
def test_an_epoch_whose_measurement_fails_is_kept_and_measured_by_the_next_command(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    config = tiny(*settings)
    Trainer(config, data, tmp_path / "whole", "cpu").train("none")

    def fails(*_arguments: object, **_options: object) -> None:
        raise DataError("0001.jpg: not a readable picture")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", fails)
        with pytest.raises(DataError):
            Trainer(config, data, tmp_path / "failed", "cpu").train("none")
    assert read_checkpoint(tmp_path / "failed" / checkpoint.LATEST).state["epoch"] == 2
    assert ["mAP" in line for line in log_of(tmp_path / "failed")] == [False, False]
    Trainer(config, data, tmp_path / "failed", "cpu").train("none")
    assert log_of(tmp_path / "failed") == log_of(tmp_path / "whole")
    assert steps_of(tmp_path / "failed") == steps_of(tmp_path / "whole")
    assert same(weights_of(tmp_path / "failed"), weights_of(tmp_path / "whole"))


def test_weights_of_the_same_content_under_another_name_continue_a_run(data: Dataset, tmp_path: Path) -> None:
    torch.save(ReIDNet(tiny(), 8).backbone.state_dict(), tmp_path / "weights.pt")
    shutil.copy(tmp_path / "weights.pt", tmp_path / "moved (1).pt")
    for name in ("weights.pt", "moved (1).pt"):
        Trainer(tiny("epochs=1"), data, tmp_path / "run", "cpu").train(str(tmp_path / name))
    torch.manual_seed(99)
    torch.save(ReIDNet(tiny(), 8).backbone.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"initialisation=.weights\.pt \(sha256 .*, not .weights\.pt \(sha256"):
        Trainer(tiny("epochs=1"), data, tmp_path / "run", "cpu").train(str(tmp_path / "weights.pt"))


def test_what_this_cpu_lacks_is_told(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "_cpu_capabilities", lambda: {"avx2": True})
    with caplog.at_level(logging.WARNING, "training"):
        Trainer(tiny("precision=bf16"), data, tmp_path, "cpu")
    assert [record.getMessage() for record in caplog.records] == [
        "this CPU has no bfloat16 instructions: precision=fp32 is faster on it"
    ]
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        Trainer(tiny("precision=fp16"), data, tmp_path, "cpu")


def test_bfloat16_trains(data: Dataset, tmp_path: Path) -> None:
    config: Config = tiny("epochs=1", "precision=bf16")
    Trainer(config, data, tmp_path, "cpu").train("none")
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights_of(tmp_path).values())


@pytest.mark.parametrize(
    ("attention", "remedy"),
    [("self", "smaller score_factor (0.1), or with scale_scores=true"), ("spatial", "smaller learning_rate\n")],
)
def test_a_collapsed_attention_is_told_once(
    attention: str,
    remedy: str,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(trainer, "attention_figures", lambda *_: {"attention_entropy": 4e-13})
    Trainer(tiny("epochs=2", f"attention={attention}"), data, tmp_path, "cpu").train("none")
    assert caplog.text.count("attention has collapsed: attention_entropy is 4e-13") == 1
    assert remedy in caplog.text
