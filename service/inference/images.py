"""From uploaded bytes to the model's input. Hostile pictures stop here."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
MAX_PIXELS = 4_000_000
THUMBNAIL_QUALITY = 90

Code = Literal["empty-image", "not-an-image", "truncated-image", "image-too-large"]

# EXIF orientation (1 = upright) -> what turns the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
    # Pillow's decoders raise many kinds of errors on damaged files, and all mean the same here.
    try:
        image.load()
        image = _rgb(_upright(image))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:
        raise _damaged() from error
    return np.asarray(image)


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


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # A broken EXIF block says nothing about the pixels.
        return image
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey at 255, which leaves a white picture.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # Colours stay as they are under transparent pixels.
    return image.convert("RGB")
