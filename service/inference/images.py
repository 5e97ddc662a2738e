"""From uploaded bytes to the model's input. Hostile pictures stop here."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

# The parsers that a client's bytes can reach: these classes and no others. `Image.open` would hand some JPEGs to
# Pillow's MPO parser.
JPEG, PNG, RIFF, WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
MAX_PIXELS = 4_000_000
MAX_SIDE = 16_384  # resizing a longer one takes many times the picture's own memory
JPEG_SCAN = b"\xff\xda"
MAX_SCANS = 100  # a progressive JPEG has about ten
PNG_TEXTS = (b"zTXt", b"iTXt")
MAX_TEXTS = 16  # in a PNG; Pillow unpacks each, to up to 1 MiB
THUMBNAIL_QUALITY = 90
ORIGINAL_QUALITY = 95

Kept = Literal["none", "thumbnail", "original"]
Code = Literal["empty-image", "not-an-image", "truncated-image", "image-too-large"]


class ImageError(ValueError):
    """A picture that cannot be used. `code` is for programs, the message says what to do."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


def decode_crop(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decodes a JPEG, PNG or WebP file to RGB [height, width, 3], upright by its EXIF orientation.

    Pillow's plain decoder and its bilinear filter, exactly as in training's evaluation: other decoders
    and filters give other pixels and so other embeddings. An animation counts by its first frame.
    Raises ImageError; the size in pixels is checked before anything is decoded.
    """
    return _resized(decode_picture(data), height, width)


def decode_and_keep(data: bytes, height: int, width: int, kept: Kept) -> tuple[NDArray[np.uint8], bytes | None]:
    """`decode_crop`, and what the gallery stores of the picture: a JPEG drawn anew, without metadata, or None.

    `thumbnail` is the crop, `original` the picture in its full size; `decode_crop` reads either. Raises ImageError.
    """
    picture = decode_picture(data)
    crop = _resized(picture, height, width)
    if kept == "none":
        return crop, None
    return crop, thumbnail(crop) if kept == "thumbnail" else _full_size(picture)


def decode_picture(data: bytes) -> Image.Image:
    """The picture in its full size as RGB, upright; what `decode_crop` resizes. Raises ImageError."""
    _refuse_bombs(data)
    image = _open(data)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"This picture has {image.width} x {image.height} pixels")
    if max(image.size) > MAX_SIDE:
        message = f"This picture is more than {MAX_SIDE:,} pixels wide or high; send the crop of one person."
        raise ImageError("image-too-large", message)
    # Pillow's decoders raise many kinds of errors on damaged files, and all mean the same here.
    try:
        image.load()
        return upright_rgb(image)
    except Exception as error:
        raise _damaged() from error


def _refuse_bombs(data: bytes) -> None:
    """What costs much more than its pixels; counted in the bytes, before anything is parsed."""
    # Each scan of a progressive JPEG goes over every pixel again. A scan's data cannot hold its marker.
    if data.startswith(JPEG) and data.count(JPEG_SCAN) > MAX_SCANS:
        message = f"This JPEG draws its picture in more than {MAX_SCANS} scans; save it again as a baseline JPEG."
        raise ImageError("image-too-large", message)
    # Pixels may hold such four bytes by chance, but hardly once in a file.
    if data.startswith(PNG) and sum(map(data.count, PNG_TEXTS)) > MAX_TEXTS:
        message = f"This PNG brings more than {MAX_TEXTS} packed texts; save it again without them."
        raise ImageError("image-too-large", message)


def _resized(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def upright_rgb(image: Image.Image) -> Image.Image:
    """RGB, upright by the EXIF orientation; colours stay as they are under transparent pixels. May change `image`."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey at 255, which leaves a white picture.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)
    picture = image if image.mode == "RGB" else image.convert("RGB")
    picture.info.clear()  # comments and profiles would go along into what is kept of the picture
    return picture


def thumbnail(crop: NDArray[np.uint8]) -> bytes:
    """The model's input [H, W, 3] as a JPEG: small, free of metadata, and enough to embed again."""
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()


def _full_size(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=ORIGINAL_QUALITY, subsampling="4:4:4")
    return file.getvalue()


def _open(data: bytes) -> Image.Image:
    """Reads the header of a file."""
    if not data:
        raise ImageError("empty-image", "This file has no bytes; send a picture.")
    parser = _parser(data)
    if parser is None:
        raise ImageError("not-an-image", "This file is not a JPEG, PNG or WebP picture; send one of these.")
    try:
        return parser(io.BytesIO(data))
    except Exception as error:
        raise _damaged() from error


def _parser(data: bytes) -> type[ImageFile.ImageFile] | None:
    """By content: what a file is called, or said to be, counts for nothing."""
    if data.startswith(JPEG):
        return JpegImagePlugin.JpegImageFile
    if data.startswith(PNG):
        return PngImagePlugin.PngImageFile
    if data.startswith(RIFF) and data[8:12] == WEBP:
        return WebPImagePlugin.WebPImageFile
    return None


def _damaged() -> ImageError:
    return ImageError("truncated-image", "This picture is cut short or damaged; send the whole file again.")


def _too_large(what: str) -> ImageError:
    limit = f"{MAX_PIXELS / 1e6:g} megapixels are allowed"
    return ImageError("image-too-large", f"{what}, {limit}; send the crop of one person.")
