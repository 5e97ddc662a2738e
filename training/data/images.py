"""Bytes of a picture -> the uint8 crop that the network sees, and the statistics that it is normalised with."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from training.data.dataset import DataError, Sample

# Of ImageNet's pictures, RGB in [0, 1]: what every pretrained backbone is used to.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
JPEG, PNG, RIFF, WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
MOST_PIXELS = 100_000_000  # a crop has thousands


def to_crop(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decode a picture to an RGB crop, uint8 [height, width, 3].

    EXIF orientation first, then Pillow's bilinear resize: the service does the same, bit for bit.

    Raises:
        ValueError: the bytes are no JPEG, PNG or WebP picture, a damaged one, or one of more than a hundred megapixels.
    """
    parser = _parser(data)
    if parser is None:
        raise ValueError("not a readable picture: no JPEG, PNG or WebP file")
    try:
        with parser(io.BytesIO(data)) as image:
            pixels = image.width * image.height
            crop = _resized(image, height, width) if pixels <= MOST_PIXELS else None
    except MemoryError:  # which is not the picture's fault
        raise
    except Exception as error:  # Pillow's decoders raise many kinds of errors on damaged files, and all mean the same
        raise ValueError(f"not a readable picture: damaged ({_reason(error)})") from error
    if crop is None:
        raise ValueError(f"not a readable picture: {pixels:,} pixels, more than the {MOST_PIXELS:,} that are decoded")
    return crop


def _resized(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(upright_rgb(image).resize((width, height), Image.Resampling.BILINEAR))


def _reason(error: Exception) -> str:
    """What Pillow says, unless it speaks of objects in memory."""
    return type(error).__name__ if " object at 0x" in str(error) else str(error)


def _parser(data: bytes) -> type[ImageFile.ImageFile] | None:
    """By content. No other parser of Pillow's sees a picture: `Image.open` would try them all."""
    if data.startswith(JPEG):
        return JpegImagePlugin.JpegImageFile
    if data.startswith(PNG):
        return PngImagePlugin.PngImageFile
    if data.startswith(RIFF) and data[8:12] == WEBP:
        return WebPImagePlugin.WebPImageFile
    return None


def upright_rgb(image: Image.Image) -> Image.Image:
    """RGB, upright by the EXIF orientation; colours stay as they are under transparent pixels."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey at 255, which leaves a white picture.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)
    return image.convert("RGB")


def read_crop(sample: Sample, height: int, width: int) -> NDArray[np.uint8]:
    """The crop of a sample, uint8 [height, width, 3] RGB.

    Raises:
        DataError: the picture cannot be read; the message names it.
    """
    try:
        return to_crop(sample.read(), height, width)
    except (ValueError, OSError) as error:
        raise DataError(f"{sample.name}: {error}; remove it or copy it again") from error
    except MemoryError as error:
        raise DataError(
            f"{sample.name} needs more memory to be decoded than there is: make it smaller, or free memory"
        ) from error
