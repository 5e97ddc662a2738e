"""A picture under the model's attention, for people to look at."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.inference.images import decode_picture

# From little to much, equal steps to the eye and to one that sees no colours.
HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
OPACITY = 0.55


def draw_attention(picture: bytes, weights: NDArray[np.float32]) -> bytes:
    """The picture as PNG with `weights` [h, w] laid over it, from its least (dark) to its most (bright).

    `picture` is a file that `decode_picture` takes; raises ImageError as that does.
    """
    image = decode_picture(picture)
    spread = float(np.ptp(weights))
    relative = (weights - weights.min()) / spread if spread > 0 else np.zeros_like(weights)
    smooth = np.asarray(Image.fromarray(relative.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR))
    steps = np.linspace(0, 1, len(HEAT))
    heat = np.stack([np.interp(smooth, steps, channel) for channel in HEAT.T], axis=-1)
    blended = (1 - OPACITY) * np.asarray(image, np.float32) + OPACITY * heat
    file = io.BytesIO()
    Image.fromarray(blended.round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
