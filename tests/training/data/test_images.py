from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.training.data.drawing import picture
from training.data import images
from training.data.dataset import DataError, Sample
from training.data.images import read_crop, to_crop


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_three_kinds_are_read(kind: str) -> None:
    crop = to_crop(picture(100, kind), 16, 8)
    assert crop.shape == (16, 8, 3)
    assert crop.dtype == np.uint8
    assert np.abs(crop.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF", "PPM", "TGA", "ICO"])
def test_no_other_parser_is_reached(kind: str) -> None:
    with pytest.raises(ValueError, match=r"^not a readable picture: no JPEG, PNG or WebP file$"):
        to_crop(picture(100, kind), 16, 8)


def test_of_a_file_with_several_pictures_the_first_counts() -> None:
    """An MPO is a JPEG with others behind it; Pillow's own door would take another parser for it."""
    encoded = io.BytesIO()
    first, second = (Image.new("RGB", (8, 16), (value,) * 3) for value in (100, 200))
    first.save(encoded, "MPO", save_all=True, append_images=[second])
    np.testing.assert_allclose(to_crop(encoded.getvalue(), 16, 8), 100, atol=2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_damaged_one_is_named_in_words(kind: str, kept: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    encoded = io.BytesIO()
    noise.save(encoded, kind)
    data = encoded.getvalue()[: int(kept * len(encoded.getvalue()))]
    with pytest.raises(DataError, match=r"^0001\.jpg: not a readable picture: damaged \(.+\); remove it") as told:
        read_crop(Sample("0001.jpg", 1, 1, len(data), lambda: data), 16, 8)
    assert "object at" not in str(told.value)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"])
def test_bytes_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a readable picture: ") as told:
        to_crop(data, 16, 8)
    assert "object at" not in str(told.value)


def test_one_that_would_fill_the_memory_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 127)
    with pytest.raises(ValueError, match="128 pixels, more than the 127 that are decoded"):
        to_crop(picture(), 16, 8)
    monkeypatch.setattr(images, "MOST_PIXELS", 128)
    assert to_crop(picture(), 16, 8).shape == (16, 8, 3)


def test_short_memory_is_not_the_pictures_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "upright_rgb", dies)
    with pytest.raises(MemoryError):
        to_crop(picture(), 16, 8)
    with pytest.raises(DataError, match=r"^a\.jpg needs more memory to be decoded than there is"):
        read_crop(Sample("a.jpg", 1, 1, 1, picture), 16, 8)
