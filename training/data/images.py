"""Bytes of a picture -> the uint8 crop that the network sees, and the statistics that it is normalised with."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from training.data.dataset import DataError, Sample

# Of ImageNet's pictures, RGB in [0, 1]: what every pretrained backbone is used to.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_crop(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decode a picture to an RGB crop, uint8 [height, width, 3].

    EXIF orientation first, then Pillow's bilinear resize: the service does the same, bit for bit.

    Raises:
        ValueError: the bytes are no picture, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(upright_rgb(image).resize((width, height), Image.Resampling.BILINEAR))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable picture: {error}") from error


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
