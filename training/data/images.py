"""Bytes of a picture -> the uint8 crop that the network sees."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError


def to_crop(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decode a picture to an RGB crop, uint8 [height, width, 3].

    EXIF orientation first, then Pillow's bilinear resize: the service does the same, bit for bit.

    Raises:
        ValueError: the bytes are no picture, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable picture: {error}") from error
