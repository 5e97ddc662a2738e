"""What is learnt from, against the formulas."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.training.loop.tiny import CLASSES, build_batch, build_learner, tiny
from training.loop.learner import Learner
from training.network.losses import batch_hard_triplet
from training.network.model import Embedder

SETTINGS = ("label_smoothing=0.2", "margin=0.7")


@pytest.fixture
def learner() -> Learner:
    return build_learner(tiny(*SETTINGS, "distillation=3")).train()


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Szegedy et al. (2016), which equation 9 cites: the label keeps 1 - epsilon, all classes share epsilon."""
    classes = logits.shape[1]
    target = torch.full_like(logits, epsilon / classes)
    target[torch.arange(len(labels)), labels] += 1 - epsilon
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def test_the_losses_are_the_formulas(learner: Learner) -> None:
    batch = build_batch()
    losses, logits = learner(batch)
    # In training, batch norms use the batch: the same again.
    features = learner.network(batch.pictures.contiguous(memory_format=torch.channels_last))
    assert learner.distiller is not None
    assert batch.target is not None
    torch.testing.assert_close(logits, features.logits.detach())
    assert not logits.requires_grad
    torch.testing.assert_close(losses["cross_entropy"], smoothed_cross_entropy(features.logits, batch.labels, 0.2))
    torch.testing.assert_close(losses["triplet"], batch_hard_triplet(features.pooled, batch.labels, 0.7))
    projected = features.embedding @ learner.distiller.project.weight.T
    cosine = (functional.normalize(projected) * batch.target).sum(dim=1)
    torch.testing.assert_close(losses["distillation"], 3.0 * (1 - cosine).mean())


def test_the_triplet_sees_the_pooled_map_and_retrieval_the_bnneck(learner: Learner) -> None:
    batch = build_batch()
    features = learner.network(batch.pictures)
    assert not torch.allclose(features.pooled, features.embedding, atol=1e-2)
    losses, _ = learner(batch)
    other = batch_hard_triplet(features.embedding, batch.labels, 0.7).item()
    assert losses["triplet"].item() != pytest.approx(other, rel=1e-3)
    maps: list[Tensor] = []
    learner.network.attention.register_forward_hook(lambda _module, _inputs, output: maps.append(output[0]))
    crops = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        embedding, _ = Embedder(learner.network)(crops)
        pooled = maps[0].mean(dim=(2, 3))
        expected = functional.normalize(learner.network.bnneck(pooled), dim=1)
    torch.testing.assert_close(embedding, expected)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [("both", ["cross_entropy", "triplet"]), ("cross_entropy", ["cross_entropy"]), ("triplet", ["triplet"])],
)
def test_each_loss_alone_or_both(losses: str, expected: list[str]) -> None:
    learner = build_learner(tiny(*SETTINGS, f"losses={losses}")).train()
    found, _ = learner(build_batch())
    assert list(found) == expected
    torch.stack(list(found.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert (learner.network.classifier.weight.grad is None) == (losses == "triplet")


def test_the_soft_margin_is_asked_for() -> None:
    learner, batch = build_learner(tiny(*SETTINGS, "soft_margin=true")).train(), build_batch()
    features = learner.network(batch.pictures)
    losses, _ = learner(batch)
    expected = batch_hard_triplet(features.pooled, batch.labels, soft=True)
    assert losses["triplet"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_frozen_stages_stay_in_evaluation_mode() -> None:
    learner = build_learner(tiny("frozen_stages=2")).train()
    backbone = learner.network.backbone
    assert not backbone.bn1.training
    assert not any(module.training for module in backbone.get_submodule("layer1").modules())
    assert not any(parameter.requires_grad for parameter in backbone.get_submodule("layer1").parameters())
    assert all(module.training for module in backbone.get_submodule("layer2").modules())
    assert learner.network.classifier.training


def test_the_compiled_network_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the tracer and the differentiation of torch.compile; its last part needs a C++ compiler and minutes."""
    batch = build_batch()
    plain = build_learner(tiny(*SETTINGS)).eval()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
        compiled = build_learner(tiny(*SETTINGS, "compile=true")).eval()
    figures = []
    for learner in (plain, compiled):
        losses, _ = learner(batch)
        sum(losses.values(), torch.zeros(())).backward()
        figures.append((losses, {name: parameter.grad for name, parameter in learner.named_parameters()}))
    assert compiled.compiled is not None
    assert figures[0][1].keys() == figures[1][1].keys()
    torch.testing.assert_close(figures[1], figures[0])
    assert plain.network.classifier.out_features == CLASSES


def test_a_person_without_a_class_is_a_negative_and_not_classified(learner: Learner) -> None:
    batch = build_batch()
    batch = replace(batch, labels=torch.tensor([0, 0, 1, -4, 2, 2, 3, -8]))
    losses, _ = learner(batch)
    features = learner.network(batch.pictures)
    known = batch.labels >= 0
    expected = smoothed_cross_entropy(features.logits[known], batch.labels[known], 0.2)
    assert losses["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-4)
    triplet = batch_hard_triplet(features.pooled, batch.labels, 0.7)
    assert losses["triplet"].item() == pytest.approx(triplet.item(), rel=1e-4)
