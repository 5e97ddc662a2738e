"""Decoding: formats, orientation, modes, and everything hostile that must stop here."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps, MpoImagePlugin

from service.inference.images import MAX_PIXELS, ImageError, decode_and_keep, decode_crop, thumbnail
from tests.drawn_crops import encoded, person

HEIGHT, WIDTH = 64, 32


def png(header: bytes, pixels: bytes) -> bytes:
    """A PNG of this IHDR and these filtered lines."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"\0")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
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


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    crop = decode_crop(encoded(person(2).convert("CMYK"), "JPEG", quality=95), HEIGHT, WIDTH)
    plain = decode_crop(encoded(person(2)), HEIGHT, WIDTH)
    assert np.abs(crop.astype(int) - plain).mean() < 3


def test_sixteen_bits_a_colour_become_eight() -> None:
    rows = np.full((HEIGHT, WIDTH, 3), (0x1234, 0x8000, 0xFFFF), ">u2").reshape(HEIGHT, -1).tobytes()
    lines = b"".join(b"\0" + rows[at : at + 6 * WIDTH] for at in range(0, len(rows), 6 * WIDTH))
    data = png(struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0), lines)
    assert np.all(decode_crop(data, HEIGHT, WIDTH) == (0x12, 0x80, 0xFF))


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
    "gif": (encoded(person(1), "GIF"), "not-an-image"),
    "bmp": (encoded(person(1), "BMP"), "not-an-image"),
    "tiff": (encoded(person(1), "TIFF"), "not-an-image"),
    "ico": (encoded(person(1), "ICO"), "not-an-image"),
    "a sound in a RIFF": (b"RIFF" + bytes(4) + b"WAVE" + bytes(40), "not-an-image"),
    "no pixel": (png_header(0, 10), "truncated-image"),
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


def test_a_bomb_is_named_by_its_size() -> None:
    with pytest.raises(ImageError, match="60000 x 60000"):
        decode_crop(png_header(60_000, 60_000), HEIGHT, WIDTH)


def test_no_other_parser_is_ever_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even Pillow's for a JPEG of several pictures, which it makes of a JPEG by itself."""
    frames = encoded(person(1), "MPO", save_all=True, append_images=[person(2)])
    first = np.asarray(Image.open(io.BytesIO(frames)).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("a parser by way of Pillow's registry")

    monkeypatch.setattr(MpoImagePlugin.MpoImageFile, "_open", reached)
    monkeypatch.setattr(MpoImagePlugin.MpoImageFile, "adopt", reached)
    monkeypatch.setattr(Image, "open", reached)
    assert np.array_equal(decode_crop(frames, HEIGHT, WIDTH), first)
    for file_format in ("GIF", "BMP", "TIFF", "PPM", "ICO", "PCX", "TGA"):
        with pytest.raises(ImageError, match="not a JPEG, PNG or WebP"):
            decode_crop(encoded(person(1), file_format), HEIGHT, WIDTH)


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
    assert decode_crop(PNG + b"\xff\xda" * 101, HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_original_is_the_upright_picture_drawn_anew(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "secret"
    data = encoded(person(5, size=(90, 150)), "JPEG", exif=exif, comment=b"secret", quality=95)
    crop, stored = decode_and_keep(data, HEIGHT, WIDTH, "original")
    assert stored is not None
    assert b"secret" not in stored
    kept = Image.open(io.BytesIO(stored))
    assert (kept.format, kept.size, kept.mode) == ("JPEG", (90, 150) if orientation == 1 else (150, 90), "RGB")
    assert np.abs(decode_crop(stored, HEIGHT, WIDTH).astype(int) - crop).mean() < 1  # enough to embed again


def test_what_is_kept() -> None:
    crop, nothing = decode_and_keep(PNG, HEIGHT, WIDTH, "none")
    assert nothing is None
    assert decode_and_keep(PNG, HEIGHT, WIDTH, "thumbnail")[1] == thumbnail(crop)
