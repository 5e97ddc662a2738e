"""The images that a client takes: bytes and paths of JPEG, PNG or WebP files, and Pillow images."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageOps

Image = bytes | str | os.PathLike[str] | Pillow.Image
Images = Image | Sequence[Image]


def files_of(images: Images) -> list[tuple[str, bytes]]:
    """Name and bytes of each image; one image may stand for a list of one."""
    many = [images] if isinstance(images, bytes | str | os.PathLike | Pillow.Image) else images
    return [file_of(image, index) for index, image in enumerate(many)]


def file_of(image: Image, index: int) -> tuple[str, bytes]:
    if isinstance(image, bytes):
        return f"image-{index}", image
    if isinstance(image, Pillow.Image):
        return f"image-{index}.png", _png(image)
    path = Path(image)
    return path.name, path.read_bytes()


def _png(image: Pillow.Image) -> bytes:
    """Lossless, upright whatever its EXIF orientation says."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        upright = upright.convert("RGB")
    buffer = io.BytesIO()
    upright.save(buffer, "PNG")
    return buffer.getvalue()
