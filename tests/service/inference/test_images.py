"""Decoding: formats, orientation, modes, and everything hostile that must stop here."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps

from service.inference.images import MAX_PIXELS, ImageError, decode_crop, thumbnail
from tests.drawn_crops import encoded, person

HEIGHT, WIDTH = 64, 32


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "JPEG", "WEBP"])
def test_every_format_gives_the_pixels_of_pillow(file_format: str) -> None:
    data = encoded(person(3), file_format)
    expected = Image.open(io.BytesIO(data)).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    crop = decode_crop(data, HEIGHT, WIDTH)
    assert crop.dtype == np.uint8
    assert crop.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(crop, np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_put_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(person(5, size=(40, 70)), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = upright.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_crop(data, HEIGHT, WIDTH), np.asarray(expected))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = person(2).convert(mode)
    expected = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_crop(encoded(image), HEIGHT, WIDTH), np.asarray(expected))


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    assert decode_crop(encoded(person(2).convert("CMYK"), "JPEG"), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    grey = Image.fromarray(np.full((HEIGHT, WIDTH), 0x4000, np.uint16))
    assert np.all(decode_crop(encoded(grey), HEIGHT, WIDTH) == 0x40)


def test_transparent_palette_keeps_its_colours() -> None:
    image = person(2).convert("P")
    data = encoded(image, transparency=bytes(range(256)))
    expected = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_crop(data, HEIGHT, WIDTH), np.asarray(expected))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_matter() -> None:
    data = encoded(person(1), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(decode_crop(data, HEIGHT, WIDTH), decode_crop(encoded(person(1), "JPEG"), HEIGHT, WIDTH))


GIF = encoded(person(1), "GIF")
PNG = encoded(person(1))
JPEG = encoded(person(1), "JPEG")
WEBP = encoded(person(1), "WEBP")


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each goes over all pixels."""
    whole = encoded(person(1), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * (count - whole.count(b"\xff\xda")) + whole[-2:]


HOSTILE = {
    "nothing": (b"", "empty-image"),
    "text": (b"not a picture", "not-an-image"),
    "html": (b"<html><script>alert(1)</script></html>", "not-an-image"),
    "zeros": (bytes(10_000), "not-an-image"),
    "zip": (b"PK\x03\x04" + bytes(100), "not-an-image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-an-image"),
    "a format that is not taken": (GIF, "not-an-image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not-an-image"),
    "magic of png only": (PNG[:8], "truncated-image"),
    "magic of jpeg only": (JPEG[:4], "truncated-image"),
    "half a webp": (WEBP[: len(WEBP) // 2], "truncated-image"),
    "half a png": (PNG[: len(PNG) // 2], "truncated-image"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "truncated-image"),
    "png with a broken stream": (PNG[:60] + bytes(40) + PNG[100:], "truncated-image"),
    "too many pixels": (png_header(MAX_PIXELS // 1000 + 1, 1000), "image-too-large"),
    "a bomb that Pillow warns of": (png_header(10_000, 10_000), "image-too-large"),
    "a jpeg of many scans": (jpeg_of_scans(101), "image-too-large"),
    "a bomb that Pillow refuses": (png_header(60_000, 60_000), "image-too-large"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    data, code = HOSTILE[name]
    with pytest.raises(ImageError) as caught:
        decode_crop(data, HEIGHT, WIDTH)
    assert caught.value.code == code
    assert str(caught.value).endswith(".")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_where_warnings_are_not_errors() -> None:
    with pytest.raises(ImageError, match="10000 x 10000"):
        decode_crop(png_header(10_000, 10_000), HEIGHT, WIDTH)


@pytest.mark.parametrize("whole", [PNG, JPEG, WEBP], ids=["png", "jpeg", "webp"])
def test_a_file_cut_anywhere_is_a_picture_or_an_image_error(whole: bytes) -> None:
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        try:
            assert decode_crop(whole[:end], HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)
        except ImageError:
            continue


def test_the_largest_picture_allowed_decodes() -> None:
    assert decode_crop(encoded(Image.new("L", (2000, MAX_PIXELS // 2000))), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)


def test_a_thumbnail_is_the_models_input_as_jpeg() -> None:
    crop = decode_crop(PNG, HEIGHT, WIDTH)
    stored = Image.open(io.BytesIO(thumbnail(crop)))
    assert (stored.format, stored.size, stored.mode) == ("JPEG", (WIDTH, HEIGHT), "RGB")
    assert np.abs(np.asarray(stored).astype(int) - crop).mean() < 4


def test_scans_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoding(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    with pytest.raises(ImageError, match="scans; save it again"):
        decode_crop(jpeg_of_scans(101), HEIGHT, WIDTH)


def test_a_progressive_jpeg_and_scan_markers_in_other_formats_are_fine() -> None:
    assert decode_crop(encoded(person(1), "JPEG", progressive=True), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)
    marked = Image.new("RGB", (200, 2), (0xDA, 0xFF, 0xDA))  # a BMP holds its pixels as they are
    data = encoded(marked, "BMP")
    assert data.count(b"\xff\xda") > 100
    assert decode_crop(data, HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)
