"""Training's evaluation and the service see the same pixels: they share no code, so that this holds them together."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.inference.images import decode_crop
from service.inference.loading import load_engine
from service.inference.model import FORMAT as KNOWN_FORMAT
from service.inference.model import read_model
from service.inference.pattern import draw_pattern as service_pattern
from training.data.images import to_crop
from training.modelfile.pattern import draw_pattern
from training.retrieval.onnx_model import FORMAT as WRITTEN_FORMAT
from training.retrieval.onnx_model import OnnxModel

CROPS = sorted((Path(__file__).parents[2] / "examples" / "crops").glob("*.jpg"))


def test_one_format() -> None:
    assert WRITTEN_FORMAT == KNOWN_FORMAT


@pytest.mark.parametrize("size", [(256, 128), (64, 32), (128, 64), (90, 50)])
def test_both_draw_the_same_pattern(size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(service_pattern(*size), draw_pattern(*size))


def test_the_pattern_is_what_shipped_files_were_tested_with() -> None:
    digest = hashlib.sha256(draw_pattern(256, 128).tobytes()).hexdigest()
    assert digest == "58f36c1c05937ca5a7228f96d5623a5798e944ae123f7e3ede368fe3e1ee4cf0"


@pytest.mark.parametrize("path", CROPS, ids=lambda path: path.stem)
def test_both_decode_the_same_pixels(path: Path) -> None:
    data = path.read_bytes()
    np.testing.assert_array_equal(decode_crop(data, 256, 128), to_crop(data, 256, 128))


def test_decoding_gives_the_golden_pixels() -> None:
    digest = hashlib.sha256()
    for path in CROPS:
        digest.update(decode_crop(path.read_bytes(), 256, 128).tobytes())
    assert digest.hexdigest() == "854cbc3777065032b78473c675842e612bb5d1eb023f4e527f62b1dc037dce52"


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    return image.convert(mode.removeprefix("transparent "))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "transparent P"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_both_agree_on_modes_and_orientations(mode: str, orientation: int) -> None:
    with Image.open(CROPS[0]) as original:
        image = in_mode(original, mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    transparent = {"transparency": bytes(range(256))} if mode == "transparent P" else {}
    image.save(file, "JPEG" if mode in ("L", "CMYK") else "PNG", exif=exif, **transparent)
    data = file.getvalue()
    np.testing.assert_array_equal(decode_crop(data, 64, 32), to_crop(data, 64, 32))


def test_both_embed_a_drawn_example_alike(model_path: Path) -> None:
    data = CROPS[0].read_bytes()
    file, model = read_model(model_path), OnnxModel(model_path)
    size = (model.height, model.width)
    assert (file.info.height, file.info.width) == size
    served = load_engine(file, "cpu", threads=1).run(decode_crop(data, *size)[None]).embeddings[0]
    evaluated = model.embed(to_crop(data, *size)[None])[0]
    assert served @ evaluated / (np.linalg.norm(served) * np.linalg.norm(evaluated)) >= 0.9999
