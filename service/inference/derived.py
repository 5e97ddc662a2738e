"""What a GPU runs, derived from a model file: in memory, and kept on the disk for the next start.

A derived file is the same model: it keeps the name and the SHA-256 of its source, to which galleries belong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from service.inference.half import halve
from service.inference.model import (
    EMBEDDING,
    INPUT,
    ModelError,
    ModelFile,
    plain_session,
    verify_model,
)
from service.inference.pattern import draw_pattern

logger = logging.getLogger(__name__)

DERIVATION = "fp16/1"  # another number with whatever changes what comes out
# Between a file's embeddings and those of what is derived from it. int8 rounds, and its rounding is what is undone.
LEAST_COSINE: Mapping[str, float] = {"int8": 0.95, "fp32": 0.999, "fp16": 0.999}
SUFFIX = ".fp16"
DIGEST_BYTES = 32
LARGER, ROOM = 4, 1 << 24  # times its source and bytes more that a derived file never is: int8 becomes twice as large
ORT_MARK = slice(4, 8)  # where a file in ORT format, a flatbuffer, says what it is


def derive(file: ModelFile) -> ModelFile:
    """The model in half precision, without quantisation; `file` itself where it is that already.

    Its self-test is measured anew, on the CPU: against that the GPU is held. Raises ModelError when the graph is of
    another kind than the exporter's, or when the result does not embed the drawn pattern as its source does.
    """
    if file.info.precision == "fp16":
        return file
    if file.content[ORT_MARK] == b"ORTM":
        raise ModelError(
            f"{file.info.path} cannot be made fp16 for a GPU: it is in ORT format, from which nothing can be derived;"
            " take the ONNX file that it was made from."
        )
    model = onnx.load_from_string(file.content)
    try:
        halve(model)
    except ModelError as error:
        raise ModelError(f"{file.info.path} cannot be made fp16 for a GPU: {error}.") from error
    expected = _pattern_embedding(file, model.SerializeToString())
    source = {"name": file.info.name, "sha256": file.info.sha256, "derivation": DERIVATION}
    changed = {
        "precision": "fp16",
        "derived_from": json.dumps(source),
        "test_embedding": base64.b64encode(expected.astype("<f4").tobytes()).decode(),
    }
    metadata = {one.key: one.value for one in model.metadata_props}
    onnx.helper.set_model_props(model, {**metadata, **changed})
    return verify_model(file.info.path, model.SerializeToString())


def _pattern_embedding(file: ModelFile, content: bytes) -> NDArray[np.float32]:
    info = file.info
    pattern = draw_pattern(info.height, info.width)[None]
    (embeddings,) = plain_session(info.path, content).run([EMBEDDING], {INPUT: pattern})
    embedding: NDArray[np.float32] = embeddings[0]
    cosine = float(embedding @ info.test_embedding / np.linalg.norm(info.test_embedding))
    least = LEAST_COSINE[info.precision]
    if not cosine >= least:
        raise ModelError(
            f"{info.path} cannot be made fp16 for a GPU: the result embeds the test pattern with cosine {cosine:.4f}"
            f" to the file's own embedding, {least} is needed."
        )
    return embedding


def derive_cached(file: ModelFile, folder: Path | None) -> ModelFile:
    """`derive`, kept in `folder` under the source's SHA-256; without a folder, in memory only. Raises ModelError.

    A file there that is damaged, of another source or of another derivation is made anew, and a folder that cannot be
    written only costs the next start a second: both are logged. The digest is against accidents: who can write into
    the folder is trusted, for weights that were altered there with a digest to match are taken.
    """
    if folder is None or file.info.precision == "fp16":
        return derive(file)
    path = folder / f"{file.info.sha256}-{DERIVATION.replace('/', '-')}{SUFFIX}"
    kept = _kept(path, file)
    if kept is not None:
        return kept
    derived = derive(file)
    try:
        _keep(path, derived.content)
    except OSError as error:
        logger.warning("the derived model cannot be kept", extra={"file": str(path), "reason": error.strerror})
    return derived


def _kept(path: Path, source: ModelFile) -> ModelFile | None:
    most = LARGER * len(source.content) + ROOM
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("the kept derived model cannot be read", extra={"file": str(path), "reason": error.strerror})
        return None
    digest, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    reason = "it is damaged" if len(data) <= most else "it is too large"
    if len(data) <= most and hashlib.sha256(content).digest() == digest:
        try:
            found = verify_model(path, content)
        except ModelError as error:
            reason = str(error)
        else:
            if (found.info.sha256, found.info.derivation) == (source.info.sha256, DERIVATION):
                return ModelFile(replace(found.info, path=source.info.path), content)
            reason = "it was derived from another model"
    logger.warning("the kept derived model is made anew", extra={"file": str(path), "reason": reason})
    return None


def _keep(path: Path, content: bytes) -> None:
    """Written whole or not at all; what was derived from other models goes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    try:
        with unfinished.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    for other in path.parent.glob(f"*{SUFFIX}"):
        if other != path:
            other.unlink(missing_ok=True)
