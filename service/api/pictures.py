"""From uploaded files to embeddings, for every route that takes pictures."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.api.problems import Problem, problem_of
from service.api.runtime import Runtime
from service.gallery.records import UnknownCrop
from service.inference.batching import EmbeddingFailed
from service.inference.images import ImageError, decode_crop


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded and embedded file: crop uint8 [H, W, 3], embedding float32 [D], attention [L, L]."""

    crop: NDArray[np.uint8]
    embedding: NDArray[np.float32]
    attention: NDArray[np.float32] | None


@dataclass(eq=False)
class Pictures:
    """Pictures and problems by the position of their file, and milliseconds by stage."""

    good: dict[int, Picture] = field(default_factory=dict)
    bad: dict[int, Problem] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    def all_or_first_problem(self) -> list[Picture]:
        """Every picture in order; raises the first file's problem when there is one."""
        if self.bad:
            raise self.bad[min(self.bad)]
        return [self.good[index] for index in sorted(self.good)]


def crop_id_of(data: bytes) -> str:
    """The first 128 bits of the SHA-256 of the uploaded bytes as a UUID: the same file, the same crop."""
    return str(uuid.UUID(bytes=hashlib.sha256(data).digest()[:16]))


def canonical(crop_id: str) -> str:
    """The id as the gallery writes it; what is no UUID can be no crop's."""
    try:
        return str(uuid.UUID(crop_id))
    except ValueError as error:
        raise UnknownCrop(crop_id) from error


async def embed_pictures(
    runtime: Runtime, files: Sequence[bytes], attention: bool = False, skip_bad: bool = False
) -> Pictures:
    """Decodes and embeds files; unless `skip_bad`, nothing is embedded when one does not decode.

    Raises QueueFull before anything is decoded, and WorkerStopped.
    """
    pictures = Pictures()
    if not files:
        return pictures
    with runtime.worker.admission(len(files)):
        started = time.perf_counter()
        crops = await _decode(runtime, files, pictures.bad)
        pictures.timings["decode"] = (time.perf_counter() - started) * 1e3
        if pictures.bad and not skip_bad:
            return pictures
        try:
            await _embed(runtime, crops, attention, pictures)
        except EmbeddingFailed as failed:
            positions = list(crops)
            for place in failed.failures:
                index = positions[place]
                pictures.bad[index] = problem_of(failed, index)
                del crops[index]
            if skip_bad:
                await _embed(runtime, crops, attention, pictures)
    return pictures


async def _decode(runtime: Runtime, files: Sequence[bytes], bad: dict[int, Problem]) -> dict[int, NDArray[np.uint8]]:
    height, width = runtime.info.height, runtime.info.width
    work = (runtime.in_thread(decode_crop, data, height, width) for data in files)
    crops: dict[int, NDArray[np.uint8]] = {}
    for index, outcome in enumerate(await asyncio.gather(*work, return_exceptions=True)):
        if isinstance(outcome, ImageError):
            bad[index] = problem_of(outcome, index)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            crops[index] = outcome
    return crops


async def _embed(runtime: Runtime, crops: dict[int, NDArray[np.uint8]], attention: bool, pictures: Pictures) -> None:
    if not crops:
        return
    embedded = await runtime.worker.embed(list(crops.values()), attention)
    pictures.timings |= {"queue": embedded.queue_ms, "inference": embedded.inference_ms}
    for row, (index, crop) in enumerate(crops.items()):
        weights = None if embedded.attention is None else embedded.attention[row]
        pictures.good[index] = Picture(crop, embedded.embeddings[row], weights)
