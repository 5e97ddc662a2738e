"""Kept engines are used for just the card, model and versions that they were built for, and only unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.inference.enginecache import SEAL, Facts, clear, engine_folder, seal

FACTS: Facts = {
    "model": "0" * 64,
    "card": "NVIDIA H200",
    "capability": "9.0",
    "onnxruntime": "1.31.1",
    "tensorrt": 101_401,
}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with an engine that was built and sealed."""
    folder = engine_folder(tmp_path, FACTS)
    (folder / "resight.engine").write_bytes(b"kernels")
    seal(folder, FACTS)
    return folder


def test_the_next_start_finds_its_engines(built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert engine_folder(tmp_path, FACTS) == built
    assert (built / "resight.engine").read_bytes() == b"kernels"
    assert not caplog.records


@pytest.mark.parametrize("fact", FACTS)
def test_another_card_model_or_version_has_another_folder(built: Path, tmp_path: Path, fact: str) -> None:
    other = engine_folder(tmp_path, {**FACTS, fact: "another"})
    assert other != built
    assert not any(other.iterdir())
    assert (built / "resight.engine").exists()


def damage_engine(folder: Path) -> None:
    (folder / "resight.engine").write_bytes(b"kernelz")


def damage_seal(folder: Path) -> None:
    (folder / SEAL).write_bytes(b"{")


def no_object(folder: Path) -> None:
    (folder / SEAL).write_bytes(b"[]")


def add_engine(folder: Path) -> None:
    (folder / "other.engine").write_bytes(b"of somebody else")


def add_one_with_the_name_of_the_seal(folder: Path) -> None:
    (folder / f"{SEAL}.engine").write_bytes(b"of somebody else")


def add_one_in_a_folder(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "other.engine").write_bytes(b"of somebody else")


def add_link(folder: Path) -> None:
    (folder / "other.engine").symlink_to("nowhere")
    seal(folder, FACTS)


def deep_seal(folder: Path) -> None:
    (folder / SEAL).write_bytes(b"[" * 100_000)


def huge_seal(folder: Path) -> None:
    with (folder / SEAL).open("ab") as file:
        file.truncate(1 << 40)


def link_folder(folder: Path) -> None:
    folder.symlink_to(folder.rename(folder.parent / "elsewhere"))


def link_folder_to_nothing(folder: Path) -> None:
    clear(folder)
    folder.symlink_to("nowhere")


def remove_seal(folder: Path) -> None:
    (folder / SEAL).unlink()


def of_another_card(folder: Path) -> None:
    seal(folder, {**FACTS, "card": "NVIDIA T4"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damage_engine, "they are damaged"),
        (damage_seal, f"their {SEAL} is damaged"),
        (no_object, "another card, model or version"),
        (add_engine, "they are damaged"),
        (add_one_with_the_name_of_the_seal, "they are damaged"),
        (add_one_in_a_folder, "they are damaged"),
        (add_link, "there are links among them"),
        (deep_seal, f"their {SEAL} is damaged"),
        (huge_seal, f"their {SEAL} is damaged"),
        (link_folder, "their folder is a link"),
        (link_folder_to_nothing, "their folder is a link"),
        (remove_seal, "broken off"),
        (of_another_card, "another card, model or version"),
    ],
)
def test_what_was_changed_is_thrown_away_and_said(
    built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: object, reason: str
) -> None:
    assert callable(change)
    change(built)
    assert engine_folder(tmp_path, FACTS) == built
    assert not any(built.iterdir())
    assert reason in vars(caplog.records[-1])["reason"]
