"""The model file's contract: one self-describing ONNX file, loaded only when all of it is understood."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.nesting import deeper_than

FORMAT = "resight/1"
# Choices that the service implements in one way only: another value needs another service.
FIXED = {"colour": "RGB", "resize": "pillow-bilinear", "distance": "euclidean/2"}
PRECISIONS = ("fp32", "fp16", "int8")
SHA256 = re.compile("[0-9a-f]{64}")
MAX_DEPTH = 32  # of JSON in the metadata, which `GET /model` repeats
CHECKPOINTS = {".pt", ".pth"}  # what one might give in place of the file that is made of it
INPUT = "crops"
EMBEDDING = "embedding"
ATTENTION = "attention"


class ModelError(ValueError):
    """A model file that cannot be served; the message names the file and the field."""


@dataclass(frozen=True)
class ImpostorCurve:
    """The distance under which a share `false_match_rate` of the pairs of different persons lies, aligned."""

    false_match_rate: tuple[float, ...]
    distance: tuple[float, ...]
    extrapolated: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """What a model file says about itself. `height` and `width` in pixels, `map_*` in positions.

    `sha256` is the model's identity: the file's own, or that of the file it was derived from by `derivation`.
    """

    path: Path
    sha256: str
    name: str
    architecture: str
    embedding_dim: int
    height: int
    width: int
    map_height: int
    map_width: int
    colour: str
    resize: str
    distance: str
    precision: str
    training_data: str
    licence_notice: str
    protocol: str
    metrics: Mapping[str, Any] | None
    config_sha256: str
    impostor_curve: ImpostorCurve | None
    test_embedding: NDArray[np.float32]
    created: str
    source_revision: str
    derivation: str | None

    @property
    def positions(self) -> int:
        """L, the number of positions of the last feature map."""
        return self.map_height * self.map_width


@dataclass(frozen=True, eq=False, repr=False)
class ModelFile:
    """A verified file: what it says, and the content that was hashed, for the engine to load just that."""

    info: ModelInfo
    content: bytes


def read_model(path: Path) -> ModelFile:
    """Reads and verifies the contract of the model at `path`; raises ModelError with the reason."""
    content = _read_bytes(path)
    return verify_model(path, content)


def verify_model(path: Path, content: bytes) -> ModelFile:
    """The contract of a model that is in memory; `path` is what it is called. Raises ModelError with the reason."""
    session = plain_session(path, content)
    info = _Fields(path, session.get_modelmeta().custom_metadata_map).info(content)
    _check_tensors(info, session)
    return ModelFile(info, content)


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Another value as soon as another file lies at `path`, or other content in it; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"There is no model file at {path}; set RESIGHT_MODEL.") from error
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read: {error.strerror}.") from error


def plain_session(path: Path, data: bytes) -> onnxruntime.InferenceSession:
    """A session that is good for reading only: nothing is optimised."""
    options = onnxruntime.SessionOptions()
    forbid_external_data(options)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base class.
        hint = " (training/export.py makes one of a checkpoint)" if path.suffix in CHECKPOINTS else ""
        raise ModelError(f"{path} is not an ONNX model that this ONNX Runtime can load{hint}: {error}") from error


def forbid_external_data(options: onnxruntime.SessionOptions) -> None:
    """Weights in files beside the model would not be covered by its SHA-256, so that they may lie nowhere."""
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)


class _Fields:
    """The metadata of one file, read field by field with the field's name in every refusal."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self.path = path
        self.metadata = metadata

    def info(self, data: bytes) -> ModelInfo:
        self._check_fixed()
        dim = self.number("embedding_dim")
        source = self.source("derived_from")
        return ModelInfo(
            path=self.path,
            sha256=source["sha256"] if source else hashlib.sha256(data).hexdigest(),
            name=self.text("name"),
            architecture=self.text("architecture"),
            embedding_dim=dim,
            height=self.number("height"),
            width=self.number("width"),
            map_height=self.number("map_height"),
            map_width=self.number("map_width"),
            colour=self.text("colour"),
            resize=self.text("resize"),
            distance=self.text("distance"),
            precision=self.one_of("precision", PRECISIONS),
            training_data=self.text("training_data"),
            licence_notice=self.text("licence_notice"),
            protocol=self.text("protocol"),
            metrics=self.json_object("metrics"),
            config_sha256=self.text("config_sha256"),
            impostor_curve=self.curve("impostor_curve"),
            test_embedding=self.vector("test_embedding", dim),
            created=self.time("created"),
            source_revision=self.text("source_revision"),
            derivation=source["derivation"] if source else None,
        )

    def _check_fixed(self) -> None:
        if self.metadata.get("format") != FORMAT:
            found = self.metadata.get("format")
            said = f"says {found!r}" if found else "is missing"
            raise self.error("format", f"{said}; this service knows {FORMAT!r} only")
        for field, value in FIXED.items():
            self.one_of(field, (value,))

    def error(self, field: str, reason: str) -> ModelError:
        return ModelError(f"{self.path} cannot be served: its metadata field {field!r} {reason}.")

    def text(self, field: str) -> str:
        if field not in self.metadata:
            raise self.error(field, "is missing")
        return self.metadata[field]

    def one_of(self, field: str, allowed: tuple[str, ...]) -> str:
        value = self.text(field)
        if value not in allowed:
            raise self.error(field, f"says {value!r}; this service knows {', '.join(allowed)}")
        return value

    def number(self, field: str) -> int:
        value = self.text(field)
        if not (value.isascii() and value.isdigit() and int(value[:9]) > 0 and len(value) < 9):
            raise self.error(field, f"is not a positive integer but {value[:40]!r}")
        return int(value)

    def time(self, field: str) -> str:
        value = self.text(field)
        try:
            aware = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            raise self.error(field, f"is not a time with offset but {value[:40]!r}")
        return value

    def json_object(self, field: str) -> dict[str, Any] | None:
        if field not in self.metadata:
            return None
        try:
            value = json.loads(self.metadata[field])
        except RecursionError as error:
            raise self.error(field, "nests too deep") from error
        except ValueError as error:
            raise self.error(field, "is not JSON") from error
        if not isinstance(value, dict):
            raise self.error(field, "is not a JSON object")
        if deeper_than(value, MAX_DEPTH):
            raise self.error(field, "nests too deep")
        return value

    def source(self, field: str) -> dict[str, str] | None:
        value = self.json_object(field)
        if value is None:
            return None
        if not (isinstance(value.get("derivation"), str) and SHA256.fullmatch(str(value.get("sha256")))):
            raise self.error(field, "needs the sha256 of a file and the derivation from it")
        return {"sha256": value["sha256"], "derivation": value["derivation"]}

    def curve(self, field: str) -> ImpostorCurve | None:
        value = self.json_object(field)
        if value is None:
            return None
        try:
            curve = ImpostorCurve(
                tuple(map(float, value["false_match_rate"])),
                tuple(map(float, value["distance"])),
                tuple(value["extrapolated"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self.error(field, "needs false_match_rate, distance and extrapolated") from error
        if not all(isinstance(flag, bool) for flag in curve.extrapolated):
            raise self.error(field, "needs true or false for every point in extrapolated")
        points = sorted(zip(curve.false_match_rate, curve.distance, strict=False))
        lengths = {len(curve.false_match_rate), len(curve.distance), len(curve.extrapolated)}
        inside = all(0 < rate <= 1 and 0 <= distance <= 1 for rate, distance in points)
        rising = all(a < b and c <= d for (a, c), (b, d) in pairwise(points))
        if len(lengths) != 1 or not points or not inside or not rising:
            raise self.error(field, "needs equally long lists of distances in [0, 1] that grow with the rate")
        return curve

    def vector(self, field: str, dim: int) -> NDArray[np.float32]:
        try:
            raw = base64.b64decode(self.text(field), validate=True)
        except binascii.Error as error:
            raise self.error(field, "is not base64") from error
        if len(raw) != 4 * dim:
            raise self.error(field, f"has {len(raw)} bytes instead of {dim} float32 values")
        vector = np.frombuffer(raw, "<f4").astype(np.float32)
        if not abs(np.linalg.norm(vector) - 1) < 1e-2:
            raise self.error(field, "is not a vector of length one")
        return vector


def _check_tensors(info: ModelInfo, session: onnxruntime.InferenceSession) -> None:
    """Input and outputs must be what the metadata says; only the first axis, N, is free."""
    pictures = ("tensor(uint8)", [info.height, info.width, 3])
    vectors = ("tensor(float)", [info.embedding_dim])
    weights = ("tensor(float)", [info.positions, info.positions])
    _check_side(info, "input", session.get_inputs(), {INPUT: pictures})
    _check_side(info, "output", session.get_outputs(), {EMBEDDING: vectors, ATTENTION: weights})


def _check_side(info: ModelInfo, side: str, found: list[Any], wanted: Mapping[str, tuple[str, list[int]]]) -> None:
    names = {tensor.name: tensor for tensor in found}
    if set(names) != set(wanted):
        expected = ", ".join(wanted)
        raise ModelError(f"{info.path} cannot be served: its {side}s are {sorted(names)}, expected {expected}.")
    for name, (kind, shape) in wanted.items():
        tensor = names[name]
        batch, *rest = tensor.shape or [1]
        # An exporter may leave an output's axis symbolic; the self-test sees its real size.
        agrees = len(rest) == len(shape) and all(
            size == axis for size, axis in zip(rest, shape, strict=True) if side == "input" or isinstance(size, int)
        )
        if tensor.type != kind or isinstance(batch, int) or not agrees:
            expected = f"{kind} [N, {', '.join(map(str, shape))}]"
            got = f"{tensor.type} {tensor.shape}"
            raise ModelError(f"{info.path} cannot be served: its {side} {name!r} is {got}, expected {expected}.")
