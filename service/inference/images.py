"""From uploaded bytes to the model's input. Hostile pictures stop here."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
MAX_PIXELS = 4_000_000
JPEG_START, JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
MAX_SCANS = 100  # a progressive JPEG has about ten
THUMBNAIL_QUALITY = 90

Code = Literal["empty-image", "not-an-image", "truncated-image", "image-too-large"]


class ImageError(ValueError):
    """A picture that cannot be used. `code` is for programs, the message says what to do."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


def decode_crop(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decodes a JPEG, PNG, WebP or BMP file to RGB [height, width, 3], upright by its EXIF orientation.

    Pillow's plain decoder and its bilinear filter, exactly as in training's evaluation: other decoders
    and filters give other pixels and so other embeddings. An animation counts by its first frame.
    Raises ImageError; the size in pixels is checked before anything is decoded.
    """
    image = _open(data)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"This picture has {image.width} x {image.height} pixels")
    # Each scan of a progressive JPEG goes over every pixel again. A scan's data cannot hold its marker.
    if data.startswith(JPEG_START) and data.count(JPEG_SCAN) > MAX_SCANS:
        message = f"This JPEG draws its picture in more than {MAX_SCANS} scans; save it again as a baseline JPEG."
        raise ImageError("image-too-large", message)
    # Pillow's decoders raise many kinds of errors on damaged files, and all mean the same here.
    try:
        image.load()
        return np.asarray(upright_rgb(image).resize((width, height), Image.Resampling.BILINEAR))
    except Exception as error:
        raise _damaged() from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """RGB, upright by the EXIF orientation; colours stay as they are under transparent pixels."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey at 255, which leaves a white picture.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)
    return image.convert("RGB")


def thumbnail(crop: NDArray[np.uint8]) -> bytes:
    """The model's input [H, W, 3] as a JPEG: small, free of metadata, and enough to embed again."""
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty-image", "This file has no bytes; send a picture.")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("This picture has far too many pixels") from error
    except Exception as error:
        if data.startswith(SIGNATURES):
            raise _damaged() from error
        message = "This file is not a JPEG, PNG, WebP or BMP picture; send one of these."
        raise ImageError("not-an-image", message) from error


def _damaged() -> ImageError:
    return ImageError("truncated-image", "This picture is cut short or damaged; send the whole file again.")


def _too_large(what: str) -> ImageError:
    limit = f"{MAX_PIXELS / 1e6:g} megapixels are allowed"
    return ImageError("image-too-large", f"{what}, {limit}; send the crop of one person.")
