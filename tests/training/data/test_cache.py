from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.data.drawing import picture
from training.data import cache
from training.data.cache import check_readable, decode_all
from training.data.dataset import DataError, Dataset, Sample
from training.data.images import read_crop

Decode = Callable[..., Tensor]


def test_decoding_resizes_and_keeps_the_order(data: Dataset) -> None:
    pictures = decode_all(data.train, 64, 32)
    assert (pictures.shape, pictures.dtype) == ((32, 3, 64, 32), torch.uint8)
    for index in (0, 3, 31):
        expected = torch.tensor(read_crop(data.train[index], 64, 32)).permute(2, 0, 1)
        torch.testing.assert_close(pictures[index], expected, rtol=0, atol=0)


def test_past_the_limit_the_pictures_are_a_file_without_a_name(data: Dataset, tmp_path: Path) -> None:
    folder, size = tmp_path / "new", 32 * 3 * 64 * 32
    in_memory = decode_all(data.train, 64, 32, 2, folder, limit_bytes=size)
    assert not folder.exists()
    mapped = decode_all(data.train, 64, 32, 2, folder, limit_bytes=size - 1)
    assert list(folder.iterdir()) == []  # nothing is left behind, whatever ends the process
    torch.testing.assert_close(mapped, in_memory, rtol=0, atol=0)
    assert f"{folder}/" in Path("/proc/self/maps").read_text()
    del mapped
    assert f"{folder}/" not in Path("/proc/self/maps").read_text()


def test_the_file_has_no_name_while_it_is_written_either(data: Dataset, tmp_path: Path) -> None:
    seen: list[Path] = []

    def looks(sample: Sample) -> bytes:
        seen.extend(tmp_path.iterdir())
        return sample.read()

    samples = [replace(sample, read=partial(looks, sample)) for sample in data.train[:3]]
    decode_all(samples, 64, 32, 1, tmp_path, limit_bytes=0)
    assert seen == []  # nothing that a killed process would leave behind


def test_the_limit_is_a_share_of_the_available_memory(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 3 * 64 * 32
    for available, expected in ((2 * size, False), (2 * size - 2, True)):
        monkeypatch.setattr(cache, "available_bytes", lambda available=available: available)
        folder = tmp_path / str(available)
        decode_all(data.train[:1], 64, 32, folder=folder)
        assert folder.exists() == expected
    assert decode_all(data.train[:1], 64, 32).shape == (1, 3, 64, 32)  # no folder: in memory all the same


@pytest.mark.parametrize("in_file", [False, True])
def test_the_damaged_picture_is_named_and_ends_it(in_file: bool, tmp_path: Path) -> None:
    whole = picture()
    asked: list[str] = []

    def sample(number: int) -> Sample:
        def read() -> bytes:
            asked.append(f"{number}.jpg")
            return whole[:100] if number == 5 else whole

        return Sample(f"{number}.jpg", number, 1, len(whole), read)

    limit = 0 if in_file else None
    with pytest.raises(DataError, match=r"^5.jpg: not a readable picture.*remove it or copy it again"):
        decode_all([sample(n) for n in range(500)], 64, 32, threads=1, folder=tmp_path, limit_bytes=limit)
    assert len(asked) < 400  # the rest is not decoded
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def full(descriptor: int, block: memoryview, offset: int) -> int:
        written.append(offset)
        if offset:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return 6144

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match=f"{tmp_path}: No space left on device; 0.0 GB .* make room"):
        decode_all(data.train, 64, 32, 1, tmp_path, limit_bytes=0)
    assert written
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "pwrite", lambda *_: 10)  # what is written when the last block is nearly full
    with pytest.raises(DataError, match="No space left"):
        decode_all(data.train, 64, 32, 1, tmp_path, limit_bytes=0)


def test_a_picture_that_is_gone_is_named(data: Dataset) -> None:
    gone = replace(data.train[0], read=Path("/nowhere/0001.jpg").read_bytes)
    with pytest.raises(DataError, match=f"^{gone.name}: .*No such file"):
        decode_all([gone], 64, 32)


def test_what_is_checked_is_read_once_and_the_damaged_one_named() -> None:
    asked: list[str] = []

    def sample(name: str, content: bytes) -> Sample:
        def read() -> bytes:
            asked.append(name)
            return content

        return Sample(name, 1, 1, len(content), read)

    sound = [sample(f"{n}.jpg", picture(n)) for n in range(5)]
    check_readable(sound, threads=1)
    assert asked == [f"{n}.jpg" for n in range(5)]
    with pytest.raises(DataError, match=r"^bad.jpg: not a readable picture"):
        check_readable([*sound, sample("bad.jpg", picture()[:100])], threads=1)
