"""The figures' command on runs that were written by hand: what it draws, and what it says is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.figures.reading_back import legend, points, title
from training.config import Config, build_config
from training.data.dataset import Dataset, spread
from training.figures import makers
from training.figures.makers import MAKERS, people_of
from training.figures.material import Material, Missing
from training.figures.runs import Run, find_runs
from training.figures.variants import CROSS_ENTROPY, DUKE, MEASURES, NONE, OURS, SPATIAL, VARIANTS, Variant
from training.network.model import ReIDNet
from training.retrieval.ranking import ranking_of
from training.visualize import main

BASE = build_config("smoke", overrides=["epochs=4", "base_width=8", "height=64", "width=32"])


def write_run(folder: Path, config: Config, data: str = "drawn", measured: bool = True) -> Path:
    """A run folder with an untrained network and invented figures."""
    folder.mkdir(parents=True)
    torch.manual_seed(config.seed)
    provenance = {
        "config": config.to_dict(),
        "classes": 4,
        "initialisation": "from scratch",
        "teacher": "none",
        "data": {"name": data},
    }
    state = {"model": ReIDNet(config, 4).state_dict(), "epoch": config.epochs, **provenance}
    torch.save(state, folder / "checkpoint.pt")
    (folder / "run.json").write_text(json.dumps(provenance))
    figures = {"rank1": 0.5, "mAP": 0.25} if measured else {}
    lines = [{"epoch": epoch, "cross_entropy": 2.0} | (figures if epoch % 2 == 0 else {}) for epoch in (1, 2, 3, 4)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    losses = ["cross_entropy", "triplet"] if config.losses == "both" else [config.losses]
    steps = [{"epoch": 1, "step": step, **dict.fromkeys(losses, 1 / step)} for step in (1, 2, 3)]
    (folder / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Variant, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {variant: write_run(root / variant.key, variant.apply(BASE)) for variant in VARIANTS}


def drawn_stems(material: Material, name: str) -> list[str]:
    return [stem for stem, _ in MAKERS[name](material)]


def test_one_checkpoint_is_enough_for_what_looks_into_it(
    folders: dict[Variant, Path], drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(folders[OURS] / "checkpoint.pt")
    code = main(["all", checkpoint, "--data", str(drawn), "--output", str(tmp_path), "--device", "cpu"])
    assert code == 0
    stems = {path.stem for path in tmp_path.glob("*.png")}
    expected = {"fig4-embeddings", "fig9-feature-maps", "fig10-attention-kernel", "fig11-attention"}
    assert stems == expected | {"ranked-lists", "cmc"}
    said = capsys.readouterr().err
    assert (
        "embeddings: fig4-embeddings is a part of the paper's: there is no run of cross-entropy alone, triplet alone"
        in said
    )
    assert "accuracy: not drawn, it needs a run of Table 3 that was measured while it trained" in said
    assert "losses: not drawn, it needs a run's folder with steps.jsonl" in said
    assert "feature-maps: of self-attention (self-attention, seed 0), epoch 4\n" in said
    assert "" not in said.splitlines()  # bars are for terminals


def test_a_remark_of_a_figure_that_was_not_drawn_is_not_anothers(
    folders: dict[Variant, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(folders[variant]) for variant in (NONE, SPATIAL, OURS)]
    assert main(["embeddings,accuracy", *runs, "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "embeddings: not drawn, it needs --data" in said
    assert "a part of the paper's" not in said


def test_a_picture_says_which_network_and_which_query(folders: dict[Variant, Path], data: Dataset) -> None:
    material = Material(find_runs([folders[OURS]]), data)
    named = {name: title(next(MAKERS[name](material))[1]) for name in ("feature-maps", "kernel", "attention", "ranked")}
    network = f"self-attention (self-attention, seed 0), epoch 4\nData: {data.name}, test part"
    assert all(said.startswith(network) for said in named.values())
    first = data.query[0]
    query = f"query: {data.identity_name(first.identity)}, camera {data.camera_name(first.camera)}"
    assert all(query in named[name] for name in ("feature-maps", "kernel"))
    assert f"6 of {len(data.query)} queries" in named["ranked"]
    _, seen = material.look(material.runs[0], [first])
    most = int(seen.attention[0].sum(axis=0).argmax())
    assert named["kernel"].endswith(f"; position {most} receives the most attention")
    assert "t-SNE, perplexity" in title(next(MAKERS["embeddings"](material))[1])


def test_what_a_part_of_an_ablation_lacks_is_said(
    folders: dict[Variant, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(folders[variant]) for variant in (OURS, SPATIAL)]
    assert main(["accuracy", *runs, "--output", str(tmp_path)]) == 0
    assert "fig6-accuracy-drawn is a part of the paper's: there is no run of ResNet-50\n" in capsys.readouterr().err
    assert main(["accuracy", *runs, str(folders[NONE]), "--output", str(tmp_path)]) == 0
    assert "a part of the paper's" not in capsys.readouterr().err


def test_without_data_the_logs_are_drawn(folders: dict[Variant, Path], tmp_path: Path) -> None:
    code = main(["accuracy,losses", str(folders[OURS].parent), "--output", str(tmp_path)])
    assert code == 0
    assert {path.stem for path in tmp_path.glob("*.svg")} == {"fig6-accuracy-drawn", "fig8-losses-drawn"}


def test_what_was_asked_for_by_name_and_not_drawn_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", BASE)
    assert main(["losses,kernel", str(run)]) == 1
    assert "kernel: not drawn, it needs --data" in capsys.readouterr().err
    assert {path.name for path in (run / "figures").iterdir()} == {"fig8-losses-drawn.png", "fig8-losses-drawn.svg"}


def test_accuracy_compares_the_models_of_table_3_in_a_figure_a_data_set(tmp_path: Path) -> None:
    for variant in (NONE, OURS, CROSS_ENTROPY):
        write_run(tmp_path / variant.key, variant.apply(BASE))
    write_run(tmp_path / "duke", SPATIAL.apply(BASE), data=DUKE)
    (_, market), (stem, duke) = makers.draw_accuracies(Material(find_runs([tmp_path]), None))
    assert [line.get_label() for line in market.get_axes()[0].get_lines()] == ["ResNet-50", "self-attention"]
    assert [line.get_label() for line in duke.get_axes()[0].get_lines()] == ["spatial attention"]
    assert stem == "fig7-accuracy-dukemtmcreid"


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", Config.from_dict({**BASE.to_dict(), "epochs": 9}))
    ((_, figure),) = makers.draw_accuracies(Material(find_runs([tmp_path]), None))
    assert [line.get_label() for line in figure.get_axes()[0].get_lines()] == ["self-attention (4 of 9 epochs)"]


def test_a_network_that_knows_no_full_size_yet_is_not_looked_into(data: Dataset, tmp_path: Path) -> None:
    half = {**BASE.to_dict(), "height": 64, "width": 64, "epochs": 9, "half_size_epochs": 4}
    write_run(tmp_path / "run", Config.from_dict(half))
    with pytest.raises(Missing, match="a checkpoint"):
        next(makers.draw_stage_maps(Material(find_runs([tmp_path]), data)))


def test_seeds_are_averaged_where_all_were_measured(tmp_path: Path) -> None:
    write_run(tmp_path / "a", BASE)
    other = write_run(tmp_path / "b", replace(BASE, seed=1))
    (other / "log.jsonl").write_text('{"epoch": 2, "rank1": 0.7, "mAP": 0.5}\n{"epoch": 3, "rank1": 0.9, "mAP": 0.6}\n')
    ((_, figure),) = makers.draw_accuracies(Material(find_runs([tmp_path]), None))
    np.testing.assert_allclose(points(figure.get_axes()[0], 0), [[2, 60]])


def test_a_seed_without_a_log_leaves_the_others_their_curve(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / "runs" / str(seed), replace(BASE, seed=seed))
    alone = (tmp_path / "runs" / "0" / "checkpoint.pt").rename(tmp_path / "alone.pt")
    shutil.rmtree(tmp_path / "runs" / "0")
    material = Material(find_runs([alone, tmp_path / "runs"]), None)
    ((_, figure),) = makers.draw_accuracies(material)
    assert "2 seeds, mean ± deviation" in title(figure)
    np.testing.assert_allclose(points(figure.get_axes()[0], 0), [[2, 50], [4, 50]])
    ((_, losses),) = makers.draw_loss_curves(material)
    assert [axes.get_title() for axes in losses.get_axes()] == ["both losses"]
    assert not material.groups()[0].repeated


def test_a_run_that_repeats_a_seed_is_left_out_and_said(
    folders: dict[Variant, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = write_run(tmp_path / "again", OURS.apply(BASE))
    assert main(["accuracy", str(folders[OURS]), str(again), "--output", str(tmp_path)]) == 0
    assert f"accuracy: {again} is left out: a run like it has the same seed\n" in capsys.readouterr().err


def test_runs_that_were_not_measured_make_no_curve(tmp_path: Path) -> None:
    write_run(tmp_path / "run", BASE, measured=False)
    with pytest.raises(Missing, match="eval_every=N"):
        drawn_stems(Material(find_runs([tmp_path]), None), "accuracy")


def test_losses_are_called_by_their_loss(folders: dict[Variant, Path]) -> None:
    ((_, figure),) = makers.draw_loss_curves(Material(find_runs(folders.values()), None))
    assert [axes.get_title() for axes in figure.get_axes()] == [
        "both losses",
        "cross-entropy alone",
        "triplet alone",
    ]


def test_the_scatter_has_a_panel_for_every_loss_there_is(folders: dict[Variant, Path], data: Dataset) -> None:
    runs = find_runs([folders[OURS], folders[CROSS_ENTROPY], folders[NONE]])
    ((_, figure),) = makers.draw_embeddings(Material(runs, data))
    assert [axes.get_title() for axes in figure.get_axes()] == ["both losses", "cross-entropy alone"]
    with pytest.raises(Missing, match="trained with losses"):
        drawn_stems(Material(find_runs([folders[NONE]]), data), "embeddings")


@pytest.mark.parametrize("name", ["kernel", "attention"])
def test_a_network_without_attention_has_none_to_show(folders: dict[Variant, Path], data: Dataset, name: str) -> None:
    with pytest.raises(Missing, match="attention that is not none"):
        drawn_stems(Material(find_runs([folders[NONE]]), data), name)
    assert drawn_stems(Material(find_runs([folders[NONE], folders[SPATIAL]]), data), name)


def test_the_papers_own_model_is_looked_into_first(folders: dict[Variant, Path], data: Dataset) -> None:
    material = Material(find_runs([folders[NONE], folders[OURS]]), data)
    assert material.looked_into().variant is OURS
    assert Material(find_runs([folders[NONE]]), data).looked_into().variant is NONE
    unfinished = Run("unfinished", BASE, "drawn", None, None)
    with pytest.raises(Missing, match="a checkpoint"):
        Material((unfinished,), data).looked_into()


def test_cmc_takes_what_an_ablation_measured(folders: dict[Variant, Path], data: Dataset, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", NONE.apply(BASE), data=data.name)
    measured = {**dict.fromkeys(MEASURES, 0.5), "data": data.name, "cmc": [0.125, 1.0]}
    (folder / "ablation.json").write_text(json.dumps(measured))
    ((_, alone),) = makers.draw_cmc_curves(Material(find_runs([folder]), None))
    assert legend(alone.get_axes()[0]) == ["ResNet-50: rank-1 12.5, mAP 50.0"]
    ((_, both),) = makers.draw_cmc_curves(Material(find_runs([folder, folders[OURS]]), data))
    np.testing.assert_allclose(points(both.get_axes()[0], 0), [[1.0, 12.5], [2.0, 100.0]])
    assert len(points(both.get_axes()[0], 1)) == 20
    (folder / "ablation.json").write_text(json.dumps({**measured, "data": "other"}))
    with pytest.raises(Missing, match="--data"):
        drawn_stems(Material(find_runs([folder]), None), "cmc")


def test_cmc_has_a_curve_of_every_seed_that_can_be_measured(data: Dataset, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / str(seed), replace(BASE, seed=seed))
    (tmp_path / "2" / "checkpoint.pt").unlink()
    ((_, figure),) = makers.draw_cmc_curves(Material(find_runs([tmp_path]), data))
    assert "2 seeds, mean ± deviation" in figure.get_axes()[0].get_title()


def test_people_are_spread_over_the_test_part(data: Dataset) -> None:
    people = people_of(ranking_of(data, "test"))
    assert {sample.identity for sample in people} == {sample.identity for sample in data.query}
    assert 0 not in {sample.identity for sample in people}
    assert [sample.name for sample in spread(data.query, 2)] == [data.query[0].name, data.query[-1].name]
    assert spread(data.query, 1000) == list(data.query)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "nowhere"], "nowhere: no such file or folder"),
        (["all", "RUN", "--data", "nowhere"], "nowhere does not exist"),
        (["all", "RUN", "--device", "abacus"], "--device abacus is unknown"),
        (["losses", "RUN", "--output", "RUN/run.json"], "run.json"),
    ],
)
def test_bad_input_is_one_sentence(
    folders: dict[Variant, Path], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(folders[OURS])
    assert main([argument.replace("RUN", run) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_figure_that_cannot_be_written_is_no_bad_input(
    folders: dict[Variant, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fig8-losses-drawn.png.partial").symlink_to("/dev/full")
    assert main(["losses", str(folders[OURS]), "--output", str(tmp_path)]) == 1
    assert f"stopped: {tmp_path / 'fig8-losses-drawn.png'} could not be written (" in capsys.readouterr().err


def test_an_unknown_figure_is_refused(folders: dict[Variant, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["losses,fig12", str(folders[OURS])])
    assert refused.value.code == 2
    assert "no figure is called 'fig12'; there are all, embeddings" in capsys.readouterr().err
