"""The paper's tables as one command: six tiny runs, resumed, seeded, spread; and every figure of them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from training import ablate, visualize
from training.config import ConfigError, build_config
from training.data.dataset import UNKNOWN_CAMERA, Dataset
from training.figures.ablation import Ablation, base_config
from training.figures.makers import MAKERS
from training.figures.runs import find_runs
from training.figures.variants import TABLES, VARIANTS
from training.loop.distillation import TeacherFile
from training.loop.engine import NotFinite
from training.loop.trainer import Trainer

TINY = [
    *("layers=[1, 1, 1, 1]", "base_width=8", "height=32", "width=32", "last_stride=1", "value_reduction=8"),
    *("identities=4", "shots=2", "epochs=2", "warmup_epochs=0", "precision=fp32"),
]
SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def command(drawn: Path, runs: Path, *more: str) -> list[str]:
    return ["--preset", "smoke", "--data", str(drawn), "--runs", str(runs), "--device", "cpu", *SETTINGS, *more]


@pytest.fixture(scope="module")
def ablated(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished ablation; to be read only."""
    runs = tmp_path_factory.mktemp("ablation")
    assert ablate.main(command(drawn, runs)) == 0
    return runs


def test_cameras_of_the_drawn_data_may_be_ignored_too(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").symlink_to(drawn)
    arguments = ablate.parse(["--preset", "smoke", "--runs", str(tmp_path), *SETTINGS, "--ignore-cameras"])
    data = ablate.prepare(arguments, None).data
    assert {sample.camera for sample in (*data.train, *data.query, *data.gallery)} == {UNKNOWN_CAMERA}


@pytest.fixture
def never_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any) -> Path:
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(Trainer, "train", train)


def test_six_runs_make_three_tables(ablated: Path, drawn: Path) -> None:
    runs = find_runs([ablated])
    assert {run.variant for run in runs} == set(VARIANTS)
    assert len(runs) == len(VARIANTS)
    text = (ablated / "tables.md").read_text()
    for table in TABLES:
        assert f"### Table {table.number}: " in text
    tables, ended = text.split("### The runs")
    assert "–" not in tables
    for run in runs:
        (row,) = [
            line for line in ended.splitlines() if run.variant and line.startswith(f"| {run.variant.title}, seed 0 |")
        ]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        last, measured = run.log()[-1], run.measured()
        assert measured is not None
        assert cells[1] == "2"
        assert cells[3:5] == [f"{last[name]:.3g}" if name in last else "–" for name in ("cross_entropy", "triplet")]
        assert (cells[6] == "–") == (run.config.attention != "self")  # alpha
        assert cells[-2:] == [f"{100 * measured[name]:.1f}" for name in ("rank1", "mAP")]
    found = {run.variant.key: run.measured() for run in runs if run.variant}
    for table in json.loads((ablated / "tables.json").read_text()):
        assert (table["data"], table["paper_data"]) == (drawn.name, "Market-1501")
        for row in table["rows"]:
            (variant,) = [variant for variant in VARIANTS if variant.settings == row["settings"]]
            measured = found[variant.key]
            assert measured is not None
            assert row["ours"]["rank1"]["values"] == [pytest.approx(100 * measured["rank1"])]


def test_a_run_is_measured_on_its_way(ablated: Path) -> None:
    (ours,) = [run for run in find_runs([ablated]) if run.name == "self-attention-seed0"]
    measured = ours.measured()
    assert measured is not None
    log = ours.log()
    assert [line["epoch"] for line in log if "rank1" in line] == [1, 2]
    assert log[-1]["mAP"] == pytest.approx(measured["mAP"], abs=1e-6)
    assert [step["step"] for step in ours.steps()] == list(range(1, len(ours.steps()) + 1))


@pytest.mark.usefixtures("never_trains")
def test_a_finished_ablation_only_prints(ablated: Path, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablate.main(command(drawn, ablated)) == 0
    assert capsys.readouterr().out.strip() == (ablated / "tables.md").read_text().strip()


@pytest.mark.usefixtures("never_trains")
@pytest.mark.parametrize(
    ("more", "named"), [(["--set", "margin=0.5"], "margin=0.3, not 0.5"), (["--weights", "imagenet"], "weights='none'")]
)
def test_another_ablation_does_not_take_the_figures(
    ablated: Path, drawn: Path, more: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate.main(command(drawn, ablated, *more)) == 2
    assert f"was measured with {named}" in capsys.readouterr().err


@pytest.mark.usefixtures("never_trains")
def test_figures_from_before_a_setting_existed_stay(
    ablated: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = shutil.copytree(ablated, tmp_path / "runs")
    for path in runs.glob("*/ablation.json"):
        told = json.loads(path.read_text())
        del told["asked"]["blur"], told["asked"]["teacher layout"]  # of an earlier version
        path.write_text(json.dumps(told))
    assert ablate.main(command(drawn, runs)) == 0
    capsys.readouterr()
    assert ablate.main(command(drawn, runs, "--set", "blur=0.5")) == 2
    assert "was measured with blur=0.0, not 0.5" in capsys.readouterr().err
    told["asked"]["heads"] = 3
    told["asked"]["margin"] = "wide"
    path.write_text(json.dumps(told))
    assert ablate.main(command(drawn, runs)) == 2
    assert "was measured with settings that this version does not take: margin is" in capsys.readouterr().err


def test_the_last_epoch_is_measured_once(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*_: Any, **__: Any) -> Any:
        raise AssertionError("what the trainer had measured was measured again")

    monkeypatch.setattr("training.figures.ablation.evaluate", twice)
    assert ablate.main(command(drawn, tmp_path, "--only", "self-attention-seed0", "--set", "epochs=1")) == 0
    (run,) = find_runs([tmp_path])
    measured = run.measured()
    assert measured is not None
    assert measured["mAP"] == run.log()[-1]["mAP"]


def test_a_run_that_was_complete_but_not_measured_is_measured(
    ablated: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = shutil.copytree(ablated, tmp_path / "runs")
    path = runs / "triplet-seed0" / "ablation.json"
    before = json.loads(path.read_text())
    path.unlink()
    assert ablate.main(command(drawn, runs)) == 0
    after = json.loads(path.read_text())
    assert after["mAP"] == pytest.approx(before["mAP"], abs=1e-6)
    assert {**after, "seconds": 0}.keys() == {**before, "seconds": 0}.keys()


def test_a_stopped_ablation_continues(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    original = Trainer.train

    def interrupted(self: Trainer, weights: str, teacher: TeacherFile | None = None) -> Path:
        if trained == ["softmax"]:
            raise KeyboardInterrupt
        trained.append(self.config.attention_scores)
        return original(self, weights, teacher)

    once = command(drawn, tmp_path, "--table", "6", "--set", "epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", interrupted)
        assert ablate.main(once) == 130
    assert "the same command continues" in capsys.readouterr().err
    (table,) = json.loads((tmp_path / "tables.json").read_text())  # of what was finished
    assert [row["ours"] is None for row in table["rows"]] == [False, True]

    trained.clear()
    monkeypatch.setattr(Trainer, "train", interrupted)
    assert ablate.main(once) == 0
    assert trained == ["sigmoid"]
    assert sorted(run.name for run in find_runs([tmp_path])) == ["self-attention-seed0", "sigmoid-seed0"]


def test_a_run_that_diverges_does_not_stop_the_others(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Trainer.train

    def diverges(self: Trainer, weights: str, teacher: TeacherFile | None = None) -> Path:
        if self.config.attention_scores == "softmax":
            raise NotFinite("the loss of batch 3 is nan")
        return original(self, weights, teacher)

    monkeypatch.setattr(Trainer, "train", diverges)
    assert ablate.main(command(drawn, tmp_path, "--table", "6", "--set", "epochs=1")) == 1
    captured = capsys.readouterr()
    assert "failed: self-attention, seed 0: the loss of batch 3 is nan" in captured.err
    assert "| softmax | – |" in captured.out
    assert "| sigmoid | –" not in captured.out


def test_seeds_are_runs_of_their_own(data: Dataset, tmp_path: Path) -> None:
    ablation = Ablation(base_config(build_config("smoke", overrides=["seed=5"])), data, tmp_path)
    jobs = ablation.jobs(TABLES, seeds=3)
    assert len({job.folder for job in jobs}) == len(jobs) == 18
    assert [job.config.seed for job in jobs] == [5] * 6 + [6] * 6 + [7] * 6
    assert {job.variant for job in ablation.jobs(TABLES[2:], seeds=1)} == {row.variant for row in TABLES[2].rows}


def test_the_curves_have_ten_points_unless_told() -> None:
    assert base_config(build_config("paper")).eval_every == 80
    assert base_config(build_config("smoke", overrides=["epochs=3"])).eval_every == 1
    assert base_config(build_config("paper", overrides=["eval_every=800"])).eval_every == 800


@pytest.mark.parametrize("setting", ["attention=none", "attention_scores=sigmoid", "losses=triplet"])
def test_what_the_tables_vary_cannot_be_set(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"what the tables vary: leave {setting} out"):
        base_config(build_config("paper", overrides=[setting]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "paper"], "--data is needed"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--gpus", "1000"], "--gpus 1000"),
        (["--device", "abacus"], "--device abacus is unknown"),
        (["--only", "self-attention-seed9"], "no run is called 'self-attention-seed9'; there are resnet-50-seed0"),
        (["--set", "identities=99"], "and there are 8 to learn: add --set identities=8"),
        (["--set", "attention=none"], "attention is what the tables vary"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(drawn), "--runs", str(tmp_path)] if "--preset" not in arguments else []
    assert ablate.main([*given, *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_damaged_result_is_named(ablated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "self-attention-seed0"
    folder.mkdir()
    (folder / "run.json").write_text((ablated / folder.name / "run.json").read_text())
    (folder / "ablation.json").write_text("{")
    (run,) = find_runs([folder])
    with pytest.raises(ValueError, match=r"ablation\.json is no JSON: remove it"):
        run.measured()


def test_a_damaged_result_is_no_traceback_and_is_measured_again(
    ablated: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = shutil.copytree(ablated, tmp_path / "runs")
    path = runs / "sigmoid-seed0" / "ablation.json"
    measured = json.loads(path.read_text())
    path.write_text(json.dumps({**measured, "rank5": "0.5"}))
    assert ablate.main(command(drawn, runs)) == 2
    assert f"error: {path} has no number rank5: remove it" in capsys.readouterr().err
    path.unlink()
    assert ablate.main(command(drawn, runs)) == 0
    assert json.loads(path.read_text())["rank5"] == measured["rank5"]


def test_on_gpus_every_run_is_this_command_again(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[list[str], str]] = []
    sigterm: list[str] = []

    class Finished:
        """A process that does at once, here, what it was started for."""

        def __init__(self, arguments: Sequence[str], gpu: str, output: Path) -> None:
            assert sigterm == ["stops"]  # else it would leave the processes behind
            started.append((list(arguments), gpu))
            assert arguments[:3] == [sys.executable, "-m", "training.ablate"]
            assert output.parent == tmp_path
            self.code = ablate.main([*arguments[3:], "--device", "cpu"])

        def poll(self) -> int:
            return self.code

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(ablate, "launch", Finished)
    monkeypatch.setattr(ablate, "stop_on_sigterm", lambda: sigterm.append("stops"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    once = command(drawn, tmp_path, "--table", "6", "--set", "epochs=1", "--gpus", "2")
    assert ablate.main(once) == 0
    assert [gpu for _, gpu in started] == ["0", "1"]
    assert [arguments[arguments.index("--only") + 1] for arguments, _ in started] == [
        "self-attention-seed0",
        "sigmoid-seed0",
    ]
    assert "| softmax | –" not in capsys.readouterr().out


def test_every_figure_of_an_ablation(ablated: Path, drawn: Path, tmp_path: Path) -> None:
    arguments = ["all", str(ablated), "--data", str(drawn), "--output", str(tmp_path), "--device", "cpu"]
    assert visualize.main(arguments) == 0
    stems = {path.stem for path in tmp_path.iterdir()}
    assert len(stems) == len(MAKERS) == 8
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
