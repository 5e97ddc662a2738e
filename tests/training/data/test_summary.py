from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.data.drawing import samples, sound
from training.data import cuhk03
from training.data.__main__ import main
from training.data.dataset import UNKNOWN_CAMERA
from training.data.reading import read
from training.data.summary import PAPER, Row, count, remarks, table


def test_people_are_counted_without_distractors_and_junk() -> None:
    assert count(sound()) == Row(2, 2, 4, 2, 2, 2, 5)
    unknown = replace(sound(), query=samples((3, UNKNOWN_CAMERA)))
    assert count(unknown).cameras == 2


def test_what_the_table_does_not_say_is_said() -> None:
    data = replace(
        sound(),
        name=cuhk03.CUHK03["labeled"].name,
        gallery=samples((3, 2), (0, 1), (0, 2), (-1, 1), (9, 1)),
        multi_query=samples((3, 1)),
        left_out=3,
        notes=("a note",),
    )
    said = remarks(data)
    for number, (start, inside) in enumerate(
        [
            ("gallery: 2 images are distractors", ""),
            ("gallery: 1 images are junk", ""),
            ("gallery: 1 people (1 images) are no query's", ""),
            ("train: 3 images", "left out"),
            ("multi-query: 1 images", ""),
            ("the paper's line for CUHK03", "detected"),
            ("a note", ""),
        ]
    ):
        assert said[number].startswith(start)
        assert inside in said[number]
    assert len(said) == 7
    assert remarks(replace(sound(), gallery=samples((3, 2), (4, 2)))) == []


def test_what_ones_own_pictures_lack_is_counted() -> None:
    own = replace(sound(), identities={1: "ann", 2: "bob", 3: "cyd", 4: "dan"}, gallery=samples((3, 2), (4, 1)))
    assert remarks(own) == [
        "1 of 4 people are not seen by two known cameras, which teaches most",
        "4 of 4 people have fewer than 10 pictures",
        "4 people: enough to measure a model; training wants hundreds",
    ]
    people = [(identity, camera) for identity in range(1, 101) for camera in (1, 2) for _ in range(5)]
    assert remarks(replace(own, train=samples(*people), query=(), gallery=())) == []
    unknown = replace(own, train=samples((1, UNKNOWN_CAMERA), (2, UNKNOWN_CAMERA)), query=(), gallery=())
    assert not any("cameras" in sentence for sentence in remarks(unknown))


@pytest.mark.parametrize("crops", cuhk03.CROPS)
def test_the_papers_lines_are_the_benchmarks(crops: cuhk03.Crops) -> None:
    assert set(PAPER) == {"Market-1501", "DukeMTMC-reID", "CUHK03 (labeled)", "CUHK03 (detected)"}
    paper = PAPER[cuhk03.CUHK03[crops].name]
    assert (paper.train_images, paper.query_images, paper.gallery_images) == cuhk03.CUHK03["detected"].counts


def test_the_command_prints_the_table(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(drawn)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert f"people and images of {read(drawn).name}" in " ".join(out.split())
    line = next(line for line in out.splitlines() if re.match(r"\|\s+\d", line))
    assert re.findall(r"\d+", line)[:5] == ["2", "8", "32", "4", "8"]
    assert all(word not in out for word in ("paper", "Table 2", "here"))
    assert f"{drawn} is read as market1501" in out


def test_a_data_set_of_the_paper_stands_beside_the_papers_line() -> None:
    shown = io.StringIO()
    Console(file=shown, width=120).print(table(replace(sound(), name="Market-1501")))
    out = shown.getvalue()
    assert "Table 2: Market-1501" in out
    assert re.search(r"\| here ", out)
    assert re.search(r"\| in the paper .* 12,936 ", out)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--layout", "dukemtmc", "--ignore-cameras"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {tmp_path} has neither bounding_box_train/")


def test_the_command_names_every_damaged_picture(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(drawn, tmp_path / "data")
    assert main([str(data), "--decode"]) == 0
    total = sum(len(part) for part in (read(data).train, read(data).query, read(data).gallery))
    assert f"{total} pictures decoded, none damaged" in capsys.readouterr().out
    victims = [min((data / part).iterdir()) for part in ("query", "bounding_box_train")]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:100])
    assert main([str(data)]) == 0
    assert "decoded" not in capsys.readouterr().out
    assert main([str(data), "--decode"]) == 2
    printed = capsys.readouterr()
    assert f"{total} pictures decoded, 2 damaged" in printed.out
    errors = printed.err
    assert all(f"error: {victim.name}: not a readable picture" in errors for victim in victims)
