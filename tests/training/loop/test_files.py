from __future__ import annotations

import errno
from pathlib import Path
from typing import IO

import pytest

from training.loop.files import NotWritten, append, locked, make_folder, write_whole


def full_disk(file: IO[bytes]) -> None:
    file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def torchs_word_for_it(file: IO[bytes]) -> None:
    file.write(b"half")
    raise RuntimeError("PytorchStreamWriter failed writing file")


@pytest.mark.parametrize("write", [full_disk, torchs_word_for_it])
def test_the_earlier_file_stays(write: object, tmp_path: Path) -> None:
    path = tmp_path / "kept.bin"
    with pytest.raises(NotWritten, match=r"kept\.bin could not be written .* there is no earlier one"):
        write_whole(path, write)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    write_whole(path, lambda file: file.write(b"whole"))
    with pytest.raises(NotWritten, match=r"kept\.bin could not be written .* the earlier one is as it was"):
        write_whole(path, write)  # type: ignore[arg-type]
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing_half(tmp_path: Path) -> None:
    def interrupted(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "kept.bin", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_is_told_even_where_nothing_can_be_cleaned_up(tmp_path: Path) -> None:
    (tmp_path / "kept.bin.partial").mkdir()  # it cannot be removed, as on a disk that became read-only
    with pytest.raises(NotWritten, match=r"kept\.bin could not be written .* there is no earlier one"):
        write_whole(tmp_path / "kept.bin", lambda file: file.write(b"whole"))


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=f"^{folder} cannot be a folder: .* is a file; give another name$"):
            make_folder(folder)


def test_append_names_the_file(tmp_path: Path) -> None:
    append(tmp_path / "log", "a\n")
    append(tmp_path / "log", "b\n")
    assert (tmp_path / "log").read_text() == "a\nb\n"
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(NotWritten, match=r"/dev/full could not be written .*[Nn]o space"):
        append(full, "c\n")


def test_a_folder_is_one_commands(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ValueError, match=r"another command is training in .*--run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    (folder := tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="refused"), locked(folder):
        raise ValueError("refused")
    assert not folder.exists()
    folder.mkdir()
    (folder / "log.jsonl").touch()
    with pytest.raises(ValueError, match="refused"), locked(folder):
        raise ValueError("refused")
    assert (folder / "log.jsonl").is_file()
