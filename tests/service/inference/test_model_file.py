"""The contract of a model file: what is read, and what is refused with the field's name."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import set_external_data

from service.inference.model import ModelError, ModelFile, read_model
from service.inference.pattern import draw_pattern
from tests.tiny_model import DIM, HEIGHT, METADATA, WIDTH, write_tiny_model


def test_everything_in_the_file_is_read(model_path: Path, model_file: ModelFile) -> None:
    data = model_path.read_bytes()
    model_info = model_file.info
    assert model_file.content == data
    assert model_info.sha256 == hashlib.sha256(data).hexdigest()
    assert model_info.path == model_path
    assert (model_info.name, model_info.embedding_dim) == ("tiny-colours", DIM)
    assert (model_info.height, model_info.width, model_info.positions) == (HEIGHT, WIDTH, 8)
    assert model_info.metrics == {"mAP": 0.5}
    assert model_info.impostor_curve is not None
    assert model_info.impostor_curve.extrapolated == (False, False, False, True, True)
    assert np.linalg.norm(model_info.test_embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("field", ["metrics", "impostor_curve"])
def test_what_was_not_measured_may_be_absent(tmp_path: Path, field: str) -> None:
    info = read_model(write_tiny_model(tmp_path / "m.onnx", {field: None})).info
    assert getattr(info, field) is None


@pytest.mark.parametrize("field", sorted({*METADATA, "test_embedding"} - {"metrics", "impostor_curve"}))
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(ModelError, match=f"'{field}' is missing"):
        read_model(write_tiny_model(tmp_path / "m.onnx", {field: None}))


UNUSABLE = [
    ("format", "resight/2"),
    ("colour", "BGR"),
    ("resize", "opencv-linear"),
    ("distance", "cosine"),
    ("precision", "fp8"),
    ("height", "tall"),
    ("height", "-64"),
    ("width", "0"),
    ("embedding_dim", "9" * 30),
    ("metrics", "[1]"),
    ("metrics", "{"),
    ("metrics", '{"a":' + "[" * 40 + "]" * 40 + "}"),
    ("metrics", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    ("created", "yesterday"),
    ("created", "2026-01-01T00:00:00"),
    ("test_embedding", "!!"),
    ("test_embedding", base64.b64encode(bytes(8)).decode()),
    ("test_embedding", base64.b64encode(bytes(4 * DIM)).decode()),
    ("test_embedding", base64.b64encode(np.full(DIM, np.nan, "<f4").tobytes()).decode()),
    ("impostor_curve", "{}"),
    ("impostor_curve", json.dumps({"false_match_rate": [0.1], "distance": [], "extrapolated": [False]})),
    ("impostor_curve", json.dumps({"false_match_rate": [0.1], "distance": [None], "extrapolated": [False]})),
    ("impostor_curve", json.dumps({"false_match_rate": [0.1], "distance": [0.1], "extrapolated": [0]})),
    ("impostor_curve", json.dumps({"false_match_rate": [0.1], "distance": [0.1], "extrapolated": ["false"]})),
    ("impostor_curve", json.dumps({"false_match_rate": [0.1], "distance": [0.1], "extrapolated": "f"})),
    ("impostor_curve", json.dumps({"false_match_rate": [2], "distance": [0.1], "extrapolated": [False]})),
    (
        "impostor_curve",
        json.dumps({"false_match_rate": [0.1, 0.01], "distance": [0.1, 0.2], "extrapolated": [False, False]}),
    ),
]


@pytest.mark.parametrize(("field", "value"), UNUSABLE)
def test_an_unusable_field_is_named(tmp_path: Path, field: str, value: str) -> None:
    with pytest.raises(ModelError, match=f"'{field}'"):
        read_model(write_tiny_model(tmp_path / "m.onnx", {field: value}))


@pytest.mark.parametrize(
    ("field", "value", "tensor"),
    [("height", "128", "crops"), ("width", "31", "crops"), ("map_width", "4", "attention")],
)
def test_metadata_that_disagrees_with_the_graph_is_refused(tmp_path: Path, field: str, value: str, tensor: str) -> None:
    with pytest.raises(ModelError, match=f"'{tensor}' is tensor"):
        read_model(write_tiny_model(tmp_path / "m.onnx", {field: value}))


def test_another_embedding_size_is_refused(tmp_path: Path) -> None:
    unit = np.full(DIM + 1, (DIM + 1) ** -0.5, "<f4")
    longer = {"embedding_dim": str(DIM + 1), "test_embedding": base64.b64encode(unit.tobytes()).decode()}
    with pytest.raises(ModelError, match="'embedding' is tensor"):
        read_model(write_tiny_model(tmp_path / "m.onnx", longer))


@pytest.mark.parametrize("name", ["crops", "embedding", "attention"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"expected .*{name}"):
        read_model(write_tiny_model(tmp_path / "m.onnx", names={name: "other"}))


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'crops' is tensor"):
        read_model(write_tiny_model(tmp_path / "m.onnx", batch=1))


def test_a_checkpoint_is_refused_with_what_makes_a_model_of_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"is not an ONNX model .*training/export\.py makes one of a checkpoint"):
        read_model(path)


@pytest.mark.parametrize("content", [b"", b"not onnx", bytes(1000)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        read_model(path)


def test_a_missing_file_says_which_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="RESIGHT_MODEL"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(tmp_path)


def test_weights_beside_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would not be covered by the hash that names the model."""
    model = onnx.load(write_tiny_model(tmp_path / "m.onnx"))
    (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == "scale"]
    (tmp_path / "weights.bin").write_bytes(scale.raw_data)
    set_external_data(scale, "weights.bin", 0, len(scale.raw_data))
    scale.ClearField("raw_data")
    (tmp_path / "split.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="External data"):
        read_model(tmp_path / "split.onnx")


def pixel(y: int, x: int, channel: int, height: int, width: int) -> int:
    """The test pattern's definition, one value at a time."""
    if (16 * (x - width // 2)) ** 2 * height**2 + (16 * (y - height // 8)) ** 2 * width**2 < (height * width) ** 2:
        return (210, 170, 140)[channel]
    if 9 * height // 16 <= y < 15 * height // 16 and 3 * width // 8 <= x < 5 * width // 8:
        return (40, 60, 120)[channel] + 10 * ((x // 4) % 2)
    if 3 * height // 16 <= y < 9 * height // 16 and width // 4 <= x < 3 * width // 4:
        return (180, 60, 50)[channel] + 20 * ((y // 8) % 2)
    return 96 + 64 * x // width + 32 * y // height + 8 * channel


@pytest.mark.parametrize(("height", "width"), [(64, 32), (33, 17)])
def test_the_pattern_is_drawn_as_defined(height: int, width: int) -> None:
    drawn = draw_pattern(height, width)
    expected = [
        [[pixel(y, x, channel, height, width) for channel in range(3)] for x in range(width)] for y in range(height)
    ]
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn, np.array(expected))
