from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.loop.distillation import Distiller, read_teacher


@pytest.mark.parametrize(
    "array", [None, np.ones((3, 4)), np.ones((16, 4), "S1"), np.zeros((16, 4)), np.full((16, 4), np.nan)]
)
def test_bad_teachers_are_refused(array: NDArray[np.float64] | None, tmp_path: Path) -> None:
    path = tmp_path / "teacher.npy"
    if array is not None:
        np.save(path, array)
    with pytest.raises(ValueError, match=r"teacher\.npy"):
        read_teacher(path, 16)


def test_a_teacher_has_unit_rows_and_an_origin(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(16, 4))
    np.save(tmp_path / "teacher.npy", array)
    teacher = read_teacher(tmp_path / "teacher.npy", 16)
    expected = array / np.linalg.norm(array, axis=1, keepdims=True)
    np.testing.assert_allclose(teacher.embeddings.numpy(), expected, rtol=1e-5)
    assert teacher.origin.startswith("teacher.npy (sha256 ")


def test_the_loss_is_one_minus_the_cosine() -> None:
    distiller = Distiller(5, 3)
    embedding, target = torch.randn(4, 5), torch.nn.functional.normalize(torch.randn(4, 3))
    projected = (embedding @ distiller.project.weight.T).detach()
    expected = sum(float(1 - (a @ b) / (a.norm() * b.norm())) for a, b in zip(projected, target, strict=True)) / 4
    assert distiller(embedding, target).item() == pytest.approx(expected, rel=1e-5)
