"""What every peer serves: the same decoder, the same file in the same ONNX Runtime, the same search.

Embedding answers as NumPy's file format, a query as the ten nearest crops in JSON. One call takes the crops of as many
requests as the framework has batched, so that the model runs and FAISS searches once for all of them.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.inference.images import decode_crop

TOP = 10
NPY = "application/x-npy"


@dataclass(frozen=True)
class Options:
    """How a peer is started."""

    model: str
    gallery: str  # embeddings [n, D] as .npy
    threads: int
    port: int
    max_batch: int
    wait: float  # seconds for a batch to fill


def options(description: str | None) -> Options:
    """From the command line, alike for every peer."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--wait", type=float, default=0.0)
    return Options(**vars(parser.parse_args()))


class Pipeline:
    """From the bytes of pictures to answers; blocks."""

    def __init__(self, options: Options) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        # As ours: a spinning thread takes the core that decodes the next picture.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
        self._height, self._width = self._session.get_inputs()[0].shape[1:3]
        self._max_batch = options.max_batch
        vectors = np.load(options.gallery)
        # FAISS compares the number of queries times D with this: from four queries on they go through BLAS together.
        faiss.cvar.distance_compute_blas_threshold = 3 * vectors.shape[1]
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def embed(self, requests: list[list[bytes]]) -> list[NDArray[np.float32]]:
        """Embeddings [n, D] of each request's pictures."""
        crops = np.stack(
            [decode_crop(picture, self._height, self._width) for request in requests for picture in request]
        )
        parts = [crops[start : start + self._max_batch] for start in range(0, len(crops), self._max_batch)]
        rows = np.concatenate([self._session.run(["embedding"], {"crops": part})[0] for part in parts])
        return np.split(rows, np.cumsum([len(request) for request in requests])[:-1])

    def answer(self, requests: list[tuple[str, list[bytes]]]) -> list[tuple[str, bytes]]:
        """Media type and body for each (path, pictures): `embed` gives embeddings, `query` the nearest crops."""
        embeddings = self.embed([pictures for _, pictures in requests])
        asked = [place for place, (path, _) in enumerate(requests) if path == "query"]
        answers = [(NPY, npy(rows)) for rows in embeddings]
        if asked:
            means = np.stack([embeddings[place].mean(axis=0) for place in asked])
            means /= np.linalg.norm(means, axis=1, keepdims=True)
            cosines, found = self._index.search(means, TOP)
            distances = np.sqrt(np.maximum(2 - 2 * cosines, 0)) / 2
            for place, crops, near in zip(asked, found.tolist(), distances.tolist(), strict=True):
                matches = [{"crop": crop, "distance": distance} for crop, distance in zip(crops, near, strict=True)]
                answers[place] = ("application/json", json.dumps({"matches": matches}).encode())
        return answers


def npy(rows: NDArray[np.float32]) -> bytes:
    """As NumPy's file format."""
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def repository() -> Path:
    """Where `service` lies, whose decoder the peers use."""
    return Path(__file__).parent.parent.parent
