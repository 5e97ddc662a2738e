from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.loop.tiny import tiny
from training.config import Config, ConfigError
from training.data.dataset import Dataset
from training.loop.distillation import StoredTeacher
from training.loop.distributed import Processes
from training.loop.feed import Feed


def feed_of(config: Config, data: Dataset, processes: Processes | None = None) -> Feed:
    numbers = {identity: n for n, identity in enumerate(sorted({sample.identity for sample in data.train}))}
    classes = [numbers[sample.identity] for sample in data.train]
    return Feed(config, data.train, classes, torch.device("cpu"), processes)


def test_pictures_labels_and_targets_belong_together(data: Dataset) -> None:
    plain = ["flip=0", "translation=0", "erasing=0"]
    feed = feed_of(tiny(*plain), data)
    feed.decode(32, 32)
    feed.teacher = StoredTeacher(torch.arange(float(len(data.train)))[:, None], "numbers")
    drawn = feed.draw(0)
    for indices, batch in zip(drawn, feed.batches(drawn), strict=True):
        assert batch.target is not None
        assert batch.target[:, 0].tolist() == indices.tolist()
        assert batch.labels.tolist() == [feed.classes[index] for index in indices]
        pictures = feed.pictures[torch.from_numpy(indices)].float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        torch.testing.assert_close(batch.pictures, (pictures - mean) / std)


def test_the_parts_of_the_processes_are_the_batch(data: Dataset) -> None:
    parts = []
    for processes in (Processes(), Processes(0, 2), Processes(1, 2)):
        feed = feed_of(tiny(), data, processes)
        feed.decode(32, 32)
        torch.manual_seed(3)
        parts.append(list(feed.batches(feed.draw(1))))
    for whole, first, second in zip(*parts, strict=True):
        assert torch.equal(whole.pictures, torch.cat([first.pictures, second.pictures]))
        assert torch.equal(whole.labels, torch.cat([first.labels, second.labels]))
        assert len(first.labels) == len(second.labels)
        assert not set(first.labels.tolist()) & set(second.labels.tolist())


def test_a_batch_that_cannot_be_shared_out_is_refused(data: Dataset) -> None:
    with pytest.raises(ConfigError, match="identities is 4: 3 processes need a multiple of 3"):
        feed_of(tiny(), data, Processes(0, 3))


def test_each_size_is_decoded_once(data: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    feed = feed_of(tiny(), data)
    with caplog.at_level(logging.INFO, "training"):
        for size in ((32, 32), (32, 32), (64, 32), (64, 32)):
            feed.decode(*size)
            assert feed.pictures.shape == (len(data.train), 3, *size)
    assert [record.getMessage() for record in caplog.records] == [
        "decoding 32 pictures at 32 x 32",
        "decoding 32 pictures at 64 x 32",
    ]


def test_the_probed_pictures_are_spread(data: Dataset) -> None:
    feed = feed_of(tiny(), data)
    feed.pictures = torch.arange(32, dtype=torch.uint8).view(-1, 1, 1, 1)
    assert feed.spread(4).flatten().tolist() == [0, 10, 20, 31]
    assert len(feed.spread(99)) == 32


def test_groups_of_cameras_are_asked_for(data: Dataset) -> None:
    """Two shots of an identity that two cameras saw: one of each."""
    feed = feed_of(tiny("group=camera"), data)
    cameras = np.array([sample.camera for sample in data.train])
    for indices in feed.draw(0):
        assert all(len(set(pair)) == 2 for pair in cameras[indices].reshape(-1, 2).tolist())
    anyhow = [pair for indices in feed_of(tiny(), data).draw(0) for pair in cameras[indices].reshape(-1, 2).tolist()]
    assert any(len(set(pair)) == 1 for pair in anyhow)


def test_recombined_people_have_no_class_and_the_teacher_sees_them(data: Dataset) -> None:
    feed = feed_of(tiny("flip=0", "translation=0", "erasing=0", "recombined=1"), data)
    feed.decode(32, 32)
    seen: list[Tensor] = []

    class Watching(StoredTeacher):
        def __call__(self, rows: Tensor, pictures: Tensor) -> Tensor:
            seen.append(pictures)
            return super().__call__(rows, pictures)

    feed.teacher = Watching(torch.zeros(len(data.train), 1), "zeros")
    drawn = feed.draw(0)
    for indices, batch in zip(drawn, feed.batches(drawn), strict=True):
        assert batch.labels[0::2].tolist() == [feed.classes[index] for index in indices[0::2]]
        assert batch.labels[1::2].tolist() == [-2, -4, -6, -8]
        torch.testing.assert_close(seen[-1], batch.pictures * feed.augment.std + feed.augment.mean)
        original = feed.pictures[torch.from_numpy(indices)].float() / 255
        assert torch.equal(seen[-1][0::2], original[0::2])
        assert not torch.equal(seen[-1][1::2], original[1::2])
