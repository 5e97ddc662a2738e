from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.config import Config, build_config
from training.figures.runs import find_runs, groups, read_lines, read_measured
from training.figures.variants import MEASURES, NONE, OURS, TRIPLET

BASE = build_config("smoke")


def write_run(folder: Path, config: Config, data: str = "drawn", sha256: str | None = None, **told: Any) -> Path:
    folder.mkdir(parents=True)
    record = {"config": config.to_dict(), "data": {"name": data, "sha256": sha256}, **told}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def seeded(config: Config, seed: int) -> Config:
    return Config.from_dict({**config.to_dict(), "seed": seed})


def test_runs_are_found_in_folders_and_folders_of_folders(tmp_path: Path) -> None:
    write_run(tmp_path / "many" / "b", TRIPLET.apply(BASE))
    write_run(tmp_path / "many" / "a", BASE)
    (tmp_path / "many" / "drawn").mkdir()
    one = write_run(tmp_path / "one", NONE.apply(BASE))
    runs = find_runs([one, tmp_path / "many"])
    assert [run.name for run in runs] == ["one", "a", "b"]
    assert [run.variant for run in runs] == [NONE, OURS, TRIPLET]
    assert runs[1].config == BASE
    assert all(run.checkpoint is None and run.data == "drawn" for run in runs)


def test_a_run_is_described_by_model_seed_and_epoch(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "self-attention-seed1", seeded(BASE, 1))
    (folder / "log.jsonl").write_text('{"epoch": 3}\n')
    other = write_run(tmp_path / "night", TRIPLET.apply(BASE))
    mixed = write_run(tmp_path / "mixed", Config.from_dict({**NONE.apply(BASE).to_dict(), "losses": "triplet"}))
    assert [run.described for run in find_runs([folder, other, mixed])] == [
        "self-attention-seed1, epoch 3",
        f"night (triplet alone, seed {BASE.seed}), epoch {BASE.epochs}",
        f"mixed (attention=none, seed {BASE.seed}), epoch {BASE.epochs}",
    ]


def test_a_run_tells_its_queries_where_it_knows_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", BASE)
    assert find_runs([folder])[0].queries is None
    told = {"config": BASE.to_dict(), "data": {"name": "drawn", "query": {"images": 36}}}
    (folder / "run.json").write_text(json.dumps(told))
    assert find_runs([folder])[0].queries == 36


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="holds no run: give a checkpoint"):
        find_runs([tmp_path])
    folder = write_run(tmp_path / "run", BASE)
    for text, message in (("{", "is no JSON"), ("[]", "no JSON object"), ('{"config": {}}', "does not describe a run")):
        (folder / "run.json").write_text(text)
        with pytest.raises(ValueError, match=rf"run\.json.*{message}"):
            find_runs([folder])


def test_seeds_are_one_group_under_their_variants_name(tmp_path: Path) -> None:
    configs = {"t": TRIPLET.apply(BASE), "a": seeded(BASE, 0), "b": seeded(BASE, 1)}
    found = groups(find_runs([write_run(tmp_path / name, config) for name, config in configs.items()]))
    assert [(group.title, [run.name for run in group.runs]) for group in found] == [
        ("self-attention", ["a", "b"]),
        ("triplet alone", ["t"]),
    ]


PRETRAINED = "a.pt (sha256 0123456789abcdef): stem, layer1"


@pytest.mark.parametrize(
    "other",
    [
        {"initialisation": "from scratch, no pretrained weights"},
        {"initialisation": PRETRAINED.replace("0123", "4567")},
        {"teacher": "b.onnx (sha256 0123456789abcdef)"},
        {"teacher_layout": "imagenet"},
        {"sha256": "of the pictures of other cameras"},
    ],
)
def test_runs_that_start_or_learn_from_something_else_are_no_seeds_of_each_other(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    told: dict[str, Any] = {
        "initialisation": PRETRAINED,
        "teacher": "none",
        "teacher_layout": None,
        "sha256": "of all pictures",
    }
    renamed = {**told, "initialisation": PRETRAINED.replace("a.pt", "elsewhere/c.pt")}
    folders = [
        write_run(tmp_path / "a", seeded(BASE, 0), **told),
        write_run(tmp_path / "b", seeded(BASE, 1), **told | other),
        write_run(tmp_path / "c", seeded(BASE, 2), **renamed),
    ]
    found = groups(find_runs(folders))
    assert [(group.title, [run.name for run in group.runs]) for group in found] == [("a", ["a", "c"]), ("b", ["b"])]


def test_a_seed_counts_once(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, seeded(BASE, seed)) for name, seed in (("a", 0), ("b", 1), ("again", 0))]
    (found,) = groups(find_runs([*folders, folders[1]]))
    assert [run.name for run in found.runs] == ["a", "b"]
    assert [run.name for run in found.repeated] == ["again", "b"]
    alone = replace(found.runs[0], name="alone", folder=None, checkpoint=tmp_path / "alone.pt")
    (found,) = groups([alone, *found.runs])
    assert [run.name for run in found.runs] == ["a", "b"]
    assert found.repeated == (alone,)


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name / "run", BASE, sha256=name) for name in ("a", "b")]
    assert [group.title for group in groups(find_runs(folders))] == [str(folder) for folder in folders]


def test_different_runs_of_a_variant_keep_their_own_names(tmp_path: Path) -> None:
    other = Config.from_dict({**BASE.to_dict(), "epochs": 30})
    runs = find_runs([write_run(tmp_path / "short", BASE), write_run(tmp_path / "long", other)])
    assert [group.title for group in groups(runs)] == ["short", "long"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", []), ('{"step": 1}\n{"step": 2}\n', [{"step": 1}, {"step": 2}]), ('{"step": 1}\n{"st', [{"step": 1}])],
)
def test_a_torn_last_line_does_not_count(tmp_path: Path, text: str, expected: list[dict[str, Any]]) -> None:
    (tmp_path / "steps.jsonl").write_text(text)
    assert read_lines(tmp_path / "steps.jsonl") == expected


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    for name in ("log.jsonl", "run.json"):
        (tmp_path / name).write_text('{"epoch": 1}\n', encoding="utf-16")
    with pytest.raises(ValueError, match=r"log\.jsonl is no text in UTF-8"):
        read_lines(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match=r"run\.json is no text in UTF-8"):
        find_runs([tmp_path])


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n[]\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2 is no JSON object"):
        read_lines(tmp_path / "log.jsonl")


@pytest.mark.parametrize("epoch", ["1e999", '"2"', "null", "1.5"])
def test_an_epoch_that_is_none_is_named(tmp_path: Path, epoch: str) -> None:
    (tmp_path / "log.jsonl").write_text(f'{{"epoch": 1}}\n{{"epoch": {epoch}}}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2 has an epoch that is no whole number: remove the line"):
        read_lines(tmp_path / "log.jsonl")


@pytest.mark.parametrize("value", ['"0.5"', "null", "[1]", "true"])
def test_a_figure_that_is_no_number_is_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "log.jsonl").write_text(f'{{"epoch": 1, "mAP": NaN}}\n{{"epoch": 2, "mAP": {value}}}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: mAP is no number: remove the line"):
        read_lines(tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"rank5": None}, "number rank5"),
        ({"rank5": "0.5"}, "number rank5"),
        ({"mAP": math.nan}, "number mAP"),
        ({"cmc": "abc"}, "cmc of numbers"),
        ({"cmc": []}, "cmc of numbers"),
        ({"cmc": [0.5, None]}, "cmc of numbers"),
    ],
)
def test_a_damaged_measurement_is_named(tmp_path: Path, damage: dict[str, Any], told: str) -> None:
    measured = {**dict.fromkeys(MEASURES, 0.5), "cmc": [0.5, 1]}
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps(measured))
    assert read_measured(path) == measured
    path.write_text(json.dumps({**measured, **damage}))
    with pytest.raises(ValueError, match=rf"ablation\.json has no {told}: remove it, and .* measures again"):
        read_measured(path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n{\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2 is no JSON: remove the line"):
        read_lines(tmp_path / "log.jsonl")
