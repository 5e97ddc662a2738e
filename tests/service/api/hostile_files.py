"""Files that nobody means well with, and files that are only odd, each with the problem it must meet, or None."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

from tests.drawn_crops import encoded, person

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG, JPEG, WEBP = encoded(person(2)), encoded(person(2), "JPEG"), encoded(person(2), "WEBP")
SCRIPT = b"<script>alert(1)</script><?php system('id'); ?>"


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 2, pixels: bytes | None = None) -> bytes:
    """A PNG that says this size; black unless `pixels` are given; `extra` chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    lines = bytes((1 + 3 * width) * height) if pixels is None else pixels
    return PNG_START + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(lines)) + END


END = chunk(b"IEND", b"")


def with_chunks(*extra: bytes) -> bytes:
    """A good PNG with more chunks behind its header."""
    return PNG[:33] + b"".join(extra) + PNG[33:]


def with_segments(marker: int, content: bytes, count: int = 1) -> bytes:
    """A good JPEG with more segments at its beginning."""
    return JPEG[:2] + (bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content) * count + JPEG[2:]


def exif(*tags: tuple[int, int, int, bytes], after: int = 0) -> bytes:
    """A JPEG with this one EXIF directory; `after` is where the next one is said to be."""
    entries = b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in tags)
    directory = struct.pack(">H", len(tags)) + entries + struct.pack(">I", after)
    return with_segments(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + directory)


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    whole = encoded(person(1), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * (count - whole.count(b"\xff\xda")) + whole[-2:]


def jpeg_that_says(width: int, height: int) -> bytes:
    """A good JPEG with another size in its header."""
    frame = JPEG.index(b"\xff\xc0")
    return JPEG[: frame + 5] + struct.pack(">HH", height, width) + JPEG[frame + 9 :]


def webp_that_says(width: int, height: int) -> bytes:
    """A lossless WebP of this size, of which nothing but the header is there."""
    bits = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(999)
    content = b"WEBPVP8L" + struct.pack("<I", len(bits)) + bits
    return b"RIFF" + struct.pack("<I", len(content)) + content


def animated(file_format: str) -> bytes:
    """Thirty frames of it."""
    frames = [person(number) for number in range(30)]
    return encoded(frames[2], file_format, save_all=True, append_images=frames)


def turned() -> bytes:
    """A picture that lies on its side and says so."""
    orientation = Image.Exif()
    orientation[ExifTags.Base.Orientation] = 6
    return encoded(person(2).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=orientation, quality=95)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", PNG)
    return file.getvalue()


def taped() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    return file.getvalue()


def sixteen_bits() -> bytes:
    """Red above, green below, in 16 bits a colour."""
    upper = b"\0" + struct.pack(">HHH", 0xFFFF, 0, 0x1234) * 8
    lower = b"\0" + struct.pack(">HHH", 0, 0xFFFF, 0x1234) * 8
    return png(8, 8, depth=16, pixels=4 * upper + 4 * lower)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    # other formats, which Pillow itself would open
    "gif": (lambda: encoded(person(1), "GIF"), "not-an-image"),
    "animated gif": (lambda: animated("GIF"), "not-an-image"),
    "tiff": (lambda: encoded(person(1), "TIFF"), "not-an-image"),
    "bmp": (lambda: encoded(person(1), "BMP"), "not-an-image"),
    "ico": (lambda: encoded(person(1), "ICO"), "not-an-image"),
    "jpeg 2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), "not-an-image"),
    "avif": (lambda: b"\0\0\0\x20ftypavif" + bytes(200), "not-an-image"),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(200), "not-an-image"),
    "ppm": (lambda: encoded(person(1), "PPM"), "not-an-image"),
    "tga": (lambda: encoded(person(1), "TGA"), "not-an-image"),
    "pcx": (lambda: encoded(person(1), "PCX"), "not-an-image"),
    "dds": (lambda: encoded(person(1), "DDS"), "not-an-image"),
    "xbm": (lambda: b"#define a_width 9\n#define a_height 9\nstatic char a_bits[] = {0};", "not-an-image"),
    "photoshop": (lambda: b"8BPS\0\x01" + bytes(200), "not-an-image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run", "not-an-image"),
    "pdf": (lambda: b"%PDF-1.7\n" + JPEG, "not-an-image"),
    "svg": (
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "not-an-image",
    ),
    "an xml bomb": (lambda: b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><svg>&d;</svg>', "not-an-image"),
    "html": (lambda: b"<html>" + SCRIPT, "not-an-image"),
    "zip": (zipped, "not-an-image"),
    "gzip": (lambda: gzip.compress(PNG), "not-an-image"),
    "tar": (taped, "not-an-image"),
    "a program": (lambda: b"\x7fELF\x02\x01\x01" + bytes(200), "not-an-image"),
    "a film": (lambda: b"\0\0\0\x18ftypmp42" + bytes(200), "not-an-image"),
    "a sound in a RIFF": (lambda: b"RIFF" + bytes(4) + b"WAVE" + bytes(40), "not-an-image"),
    "an address": (lambda: b"http://169.254.169.254/latest/meta-data/", "not-an-image"),
    "zeros": (lambda: bytes(2**20), "not-an-image"),
    "noise": (lambda: random.Random(1).randbytes(2**20), "not-an-image"),
    # two things at once
    "a gif with a jpeg in it": (lambda: b"GIF89a" + JPEG, "not-an-image"),
    "a png behind a line break": (lambda: b"\n" + PNG, "not-an-image"),
    "jpeg behind the signature of png": (lambda: PNG_START + JPEG, "truncated-image"),
    "png behind the signature of jpeg": (lambda: b"\xff\xd8\xff" + PNG, "truncated-image"),
    "png in a webp": (lambda: b"RIFF" + struct.pack("<I", len(PNG) + 4) + b"WEBP" + PNG, "truncated-image"),
    # cut short and damaged
    "the signature of png": (lambda: PNG_START, "truncated-image"),
    "the signature of jpeg": (lambda: b"\xff\xd8\xff\xe0", "truncated-image"),
    "the signature of webp": (lambda: b"RIFF\x04\0\0\0WEBP", "truncated-image"),
    "half a png": (lambda: PNG[: len(PNG) // 2], "truncated-image"),
    "half a jpeg": (lambda: JPEG[: len(JPEG) // 2], "truncated-image"),
    "half a webp": (lambda: WEBP[: len(WEBP) // 2], "truncated-image"),
    "a png without pixels": (lambda: PNG[:33] + END, "truncated-image"),
    "a chunk as long as the address space": (lambda: PNG[:33] + b"\x7f\xff\xff\xffzTXt", "truncated-image"),
    "pixels that are no zlib": (lambda: png(9, 9).replace(b"\x78\x9c", b"\0\0"), "truncated-image"),
    "no pixel wide": (lambda: png(0, 9), "truncated-image"),
    "no pixel high": (lambda: png(9, 0), "truncated-image"),
    "a jpeg of no pixel": (lambda: jpeg_that_says(0, 0), "truncated-image"),
    "a colour type nobody knows": (lambda: png(9, 9, colour=9), "truncated-image"),
    # bombs
    "60,000 x 60,000": (lambda: png(60_000, 60_000, pixels=b"\0"), "image-too-large"),
    "a line too many": (lambda: png(1000, 4001, pixels=b"\0"), "image-too-large"),
    "1 x 4,000,000": (lambda: encoded(Image.new("RGB", (1, 4_000_000))), "image-too-large"),
    "a real bomb": (lambda: encoded(Image.new("1", (12_000, 12_000))), "image-too-large"),
    "a jpeg of 65,500 x 65,500": (lambda: jpeg_that_says(65_500, 65_500), "image-too-large"),
    "a webp that only says 16,383 x 16,383": (lambda: webp_that_says(16_383, 16_383), "truncated-image"),
    "a webp of 16 megapixels": (
        lambda: encoded(Image.new("RGB", (16_383, 1000)), "WEBP", lossless=True, method=0),
        "image-too-large",
    ),
    "a jpeg of 101 scans": (lambda: jpeg_of_scans(101), "image-too-large"),
    "a text that grows to 100 MB": (
        lambda: with_chunks(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
        "truncated-image",
    ),
    "60 texts that grow to 1 MB": (
        lambda: with_chunks(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 9)))] * 60),
        "image-too-large",
    ),
    "a profile that grows to 100 MB": (
        lambda: with_chunks(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8)))),
        "truncated-image",
    ),
}

ODD: dict[str, Callable[[], bytes]] = {
    "cmyk": lambda: encoded(person(2).convert("CMYK"), "JPEG"),
    "grey jpeg": lambda: encoded(person(2).convert("L"), "JPEG"),
    "progressive jpeg": lambda: encoded(person(2), "JPEG", progressive=True),
    "jpeg of several pictures": lambda: encoded(person(2), "MPO", save_all=True, append_images=[person(3)]),
    "16 bits a colour": sixteen_bits,
    "16-bit grey": lambda: encoded(Image.fromarray(np.asarray(person(2).convert("L"), np.uint16) * 257)),
    "1 bit": lambda: encoded(person(2).convert("1")),
    "palette": lambda: encoded(person(2).convert("P"), transparency=bytes(range(256))),
    "grey and alpha": lambda: encoded(person(2).convert("LA")),
    "transparent": lambda: encoded(person(2).convert("RGBA")),
    "animated png": lambda: animated("PNG"),
    "animated webp": lambda: animated("WEBP"),
    "lossless webp with alpha": lambda: encoded(person(2).convert("RGBA"), "WEBP", lossless=True),
    "turned by EXIF": turned,
    "EXIF that points to itself": lambda: exif((0x0112, 3, 1, b"\0\x06\0\0"), after=8),
    "EXIF of four billion values": lambda: exif((0x0112, 3, 0xFFFFFFFF, b"\xff\xff\xff\xff")),
    "EXIF of a direction nobody knows": lambda: exif((0x0112, 3, 1, b"\xff\xff\0\0")),
    "1 pixel": lambda: encoded(Image.new("RGB", (1, 1), (200, 40, 40))),
    "1 x 16,384": lambda: encoded(Image.new("RGB", (1, 16_384), (200, 40, 40))),
    "a zip behind a jpeg": lambda: JPEG + zipped(),
    "html behind a png": lambda: PNG + SCRIPT,
    "a script as a comment": lambda: with_segments(0xFE, SCRIPT),
    "pixels that go on for 100 MB": lambda: png(8, 8, pixels=sixteen_rows() + bytes(10**8)),
    "100 comments of 64 KiB": lambda: with_segments(0xFE, bytes(65_000), 100),
    "100,000 chunks": lambda: with_chunks(chunk(b"teSt", b"") * 100_000),
}


# As large as pictures may be, which costs memory however honest they are.
LARGEST: dict[str, Callable[[], bytes]] = {
    "2000 x 2000 jpeg": lambda: encoded(Image.new("RGB", (2000, 2000), (200, 40, 40)), "JPEG"),
    "2000 x 2000 progressive": lambda: encoded(Image.new("RGB", (2000, 2000), (200, 40, 40)), "JPEG", progressive=True),
    "2000 x 2000 webp": lambda: encoded(Image.new("RGB", (2000, 2000), (200, 40, 40)), "WEBP"),
    "16,384 x 244 png": lambda: encoded(Image.new("RGB", (16_384, 244), (200, 40, 40))),
}


def sixteen_rows() -> bytes:
    """The lines of an 8 x 8 picture, red above and green below."""
    return (b"\0" + b"\xff\0\x12" * 8) * 4 + (b"\0" + b"\0\xff\x12" * 8) * 4
