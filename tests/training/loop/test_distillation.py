from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.retrieval.cells import HEIGHT, WIDTH, unit, write_model
from training.loop.distillation import Distiller, LiveTeacher, TeacherFile, read_teacher, relation_loss
from training.retrieval.onnx_model import INPUT_LAYOUTS

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "array", [None, np.ones((3, 4)), np.ones((16, 4), "S1"), np.zeros((16, 4)), np.full((16, 4), np.nan)]
)
def test_bad_teachers_are_refused(array: NDArray[np.float64] | None, tmp_path: Path) -> None:
    path = tmp_path / "teacher.npy"
    if array is not None:
        np.save(path, array)
    with pytest.raises(ValueError, match=r"teacher\.npy"):
        read_teacher(TeacherFile(path), range(16), 16, CPU)


def test_a_teacher_has_unit_rows_and_an_origin(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(16, 4))
    np.save(tmp_path / "teacher.npy", array)
    teacher = read_teacher(TeacherFile(tmp_path / "teacher.npy"), [3, 0, 5], 16, CPU)
    expected = (array / np.linalg.norm(array, axis=1, keepdims=True))[[0, 5]]
    np.testing.assert_allclose(teacher(torch.tensor([1, 2]), torch.empty(2, 3, 8, 8)).numpy(), expected, rtol=1e-5)
    assert teacher.dim == 4
    assert teacher.origin.startswith("teacher.npy (sha256 ")


def test_the_loss_is_one_minus_the_cosine() -> None:
    distiller = Distiller(5, 3)
    embedding, target = torch.randn(4, 5), torch.nn.functional.normalize(torch.randn(4, 3))
    projected = (embedding @ distiller.project.weight.T).detach()
    expected = sum(float(1 - (a @ b) / (a.norm() * b.norm())) for a, b in zip(projected, target, strict=True)) / 4
    assert distiller(embedding, target).item() == pytest.approx(expected, rel=1e-5)


def test_relations_are_the_cosines_within_the_batch_about_its_mean() -> None:
    embedding, target = torch.randn(4, 5, requires_grad=True), torch.nn.functional.normalize(torch.randn(4, 3))
    loss = relation_loss(embedding, target)
    cosine = torch.nn.functional.cosine_similarity
    own, told = embedding - embedding.mean(dim=0), target - target.mean(dim=0)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    differences = [cosine(own[i], own[j], dim=0) - cosine(told[i], told[j], dim=0) for i, j in pairs]
    torch.testing.assert_close(loss, torch.stack(differences).square().mean())
    assert relation_loss(target * 7 + 3, target).item() == pytest.approx(0, abs=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()


def test_a_model_sees_the_pictures_as_they_were_augmented(tmp_path: Path) -> None:
    layout = "nchw-float-bgr-255"
    path = write_model(tmp_path / "teacher.onnx", INPUT_LAYOUTS[layout])
    teacher = read_teacher(TeacherFile(path, layout), range(16), 16, CPU)
    assert isinstance(teacher, LiveTeacher)
    assert teacher.origin.startswith("teacher.onnx (sha256 ")
    bytes_ = torch.randint(0, 256, (3, 3, HEIGHT, WIDTH))
    found = teacher(torch.arange(3), bytes_ / 255)
    means = torch.nn.functional.avg_pool2d(bytes_ / 255 - 0.5, 16).flatten(1).numpy()
    assert found.shape == (3, teacher.dim)
    np.testing.assert_allclose(found.numpy(), unit(means), atol=1e-4)
    half = torch.full((1, 3, HEIGHT // 2, WIDTH // 2), 0.8)  # is enlarged to the teacher's size
    np.testing.assert_allclose(teacher(torch.arange(1), half).numpy(), unit(np.full((1, teacher.dim), 0.3)), atol=1e-2)


def test_a_model_that_cannot_teach_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.onnx", INPUT_LAYOUTS["nchw-float-rgb-1"])
    with pytest.raises(ValueError, match="name its input layout"):
        read_teacher(TeacherFile(path), range(16), 16, CPU)
    with pytest.raises(ValueError, match=r"--teacher-layout is for models"):
        read_teacher(TeacherFile(tmp_path / "teacher.npy", "nchw-float-rgb-1"), range(16), 16, CPU)
