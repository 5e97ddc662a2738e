"""One JPEG decoder in a process of its own: `python -m benchmarks.decoders NAME`, asked by a Worker.

Each makes the model's input, RGB [256, 128, 3], of one JPEG file. The peers decode and resize by their fastest way
that keeps every pixel, and by the one that their documentation has for speed where that gives other pixels.
"""

from __future__ import annotations

import argparse
import base64
import io
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.worker import serve

HEIGHT, WIDTH = 256, 128
Decode = Callable[[bytes], NDArray[np.uint8]]


def resight() -> Decode:
    """What the service does, its checks of hostile files included."""
    from service.inference.images import decode_crop

    return lambda data: decode_crop(data, HEIGHT, WIDTH)


def pillow() -> Decode:
    """Opened, converted, resized; nothing checked."""
    from PIL import Image

    size, filter_ = (WIDTH, HEIGHT), Image.Resampling.BILINEAR
    return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(size, filter_))


def opencv() -> Decode:
    """With its own bilinear filter, which does not average when it makes a picture smaller."""
    import cv2

    def decode(data: bytes) -> NDArray[np.uint8]:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        resized: NDArray[np.uint8] = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        return resized

    return decode


def simplejpeg() -> Decode:
    """libjpeg-turbo's plain decoding, resized by Pillow: the same pixels as Pillow alone."""
    import simplejpeg
    from PIL import Image

    size, filter_ = (WIDTH, HEIGHT), Image.Resampling.BILINEAR
    return lambda data: np.asarray(Image.fromarray(simplejpeg.decode_jpeg(data)).resize(size, filter_))


def simplejpeg_fast() -> Decode:
    """With the fast transform and scaled decoding, resized by OpenCV."""
    import cv2
    import simplejpeg

    def decode(data: bytes) -> NDArray[np.uint8]:
        options = {"fastdct": True, "fastupsample": True, "min_height": HEIGHT, "min_width": WIDTH}
        picture = simplejpeg.decode_jpeg(data, **options)
        resized: NDArray[np.uint8] = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        return resized

    return decode


DECODERS: dict[str, Callable[[], Decode]] = {
    "resight": resight,
    "pillow": pillow,
    "opencv": opencv,
    "simplejpeg": simplejpeg,
    "simplejpeg-fast": simplejpeg_fast,
}


class Timed:
    """Answers a worker's questions about one decoder."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decode: Decode | None = None

    def __call__(self, pictures: list[str], seconds: float) -> dict[str, float]:
        """`rate` in pictures a second, for about `seconds`, of files in Base64; `different`: the share of values that
        differ from what the plain Pillow decoder gives."""
        if self._decode is None:
            self._decode = DECODERS[self._name]()
        decode = self._decode
        files = [base64.b64decode(picture) for picture in pictures]
        plain = pillow()
        different = np.mean([decode(file) != plain(file) for file in files])
        count, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for file in files:
                decode(file)
            count += len(files)
        return {"rate": count / (time.perf_counter() - begun), "different": float(different)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=DECODERS)
    serve(Timed(parser.parse_args().name))


if __name__ == "__main__":
    main()
