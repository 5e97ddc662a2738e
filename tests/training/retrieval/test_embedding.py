"""Pictures in, unit embeddings out, in order."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.retrieval.cells import HEIGHT, WIDTH, cell_means, unit
from training.data.dataset import DataError, Dataset, Sample
from training.data.images import to_crop
from training.retrieval.embedding import embed_samples
from training.retrieval.onnx_model import OnnxModel


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_batches_change_neither_order_nor_figures(own_file: Path, data: Dataset, batch: int) -> None:
    model = OnnxModel(own_file, threads=1)
    expected = unit(np.stack([cell_means(sample) for sample in data.query]))
    heard: list[int] = []
    found = embed_samples(model, data.query, batch, advance=heard.append)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(heard) == len(data.query)
    assert max(heard) <= batch


def test_flip_is_the_mean_of_both_unit_embeddings(own_file: Path, data: Dataset) -> None:
    model = OnnxModel(own_file, threads=1)
    crops = np.stack([to_crop(sample.read(), HEIGHT, WIDTH) for sample in data.query])
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    expected = unit(unit(model.embed(crops)) + unit(model.embed(mirrored)))
    found = embed_samples(model, data.query, flip=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, embed_samples(model, data.query))


def test_a_damaged_picture_is_named(own_file: Path, data: Dataset) -> None:
    broken = Sample("0004_c1s1_000400_00.jpg", 4, 1, 12, lambda: b"\xff\xd8 no picture")
    with pytest.raises(DataError, match=r"0004_c1s1_000400_00\.jpg: not a readable picture"):
        embed_samples(OnnxModel(own_file), [*data.query[:5], broken], batch=2)


def test_a_useless_embedding_is_named(data: Dataset) -> None:
    class Collapsed:
        height, width = HEIGHT, WIDTH

        def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.zeros((len(crops), 4), np.float32)

    with pytest.raises(DataError, match=f"{data.query[0].name}: its embedding is zero"):
        embed_samples(Collapsed(), data.query)


def test_a_batch_is_decoded_by_several_threads_in_order(own_file: Path, data: Dataset) -> None:
    arrived = threading.Barrier(2, timeout=30)  # passes only where two pictures are read at a time

    def read(sample: Sample) -> bytes:
        arrived.wait()
        return sample.read()

    samples = [replace(sample, read=partial(read, sample)) for sample in data.query[:2]]
    expected = unit(np.stack([cell_means(sample) for sample in data.query[:2]]))
    np.testing.assert_allclose(embed_samples(OnnxModel(own_file, threads=1), samples), expected, atol=1e-5)
