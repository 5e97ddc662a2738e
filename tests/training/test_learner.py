"""What is learnt from, against the formulas; what is watched meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.config import build_config
from training.loop.distillation import Distiller
from training.loop.engine import Batch, Learner
from training.loop.probe import probed
from training.network.losses import batch_hard_triplet
from training.network.model import Embedder, ReIDNet

CONFIG = replace(build_config("smoke"), base_width=8, label_smoothing=0.2, distillation=3.0, margin=0.7)
LABELS = torch.arange(4).repeat_interleave(2)


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(0)
    network = ReIDNet(CONFIG, 4)
    network.attention.alpha.data.fill_(0.5)
    torch.nn.init.normal_(network.classifier.weight)
    return Learner(network, Distiller(256, 6), CONFIG).train()


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    return Batch(torch.randn(8, 3, 64, 32), LABELS, functional.normalize(torch.randn(8, 6)))


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Szegedy et al. (2016), which equation 9 cites: the label keeps 1 - epsilon, all classes share epsilon."""
    classes = logits.shape[1]
    target = torch.full_like(logits, epsilon / classes)
    target[torch.arange(len(labels)), labels] += 1 - epsilon
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def test_the_losses_are_the_formulas(learner: Learner, batch: Batch) -> None:
    losses, logits = learner(batch)
    # In training, batch norms use the batch: the same again.
    features = learner.network(batch.pictures.contiguous(memory_format=torch.channels_last))
    assert learner.distiller is not None
    assert batch.target is not None
    torch.testing.assert_close(logits, features.logits)
    torch.testing.assert_close(losses["cross_entropy"], smoothed_cross_entropy(logits, LABELS, 0.2))
    torch.testing.assert_close(losses["triplet"], batch_hard_triplet(features.pooled, LABELS, 0.7))
    projected = features.embedding @ learner.distiller.project.weight.T
    cosine = (functional.normalize(projected) * batch.target).sum(dim=1)
    torch.testing.assert_close(losses["distillation"], 3.0 * (1 - cosine).mean())


def test_the_triplet_sees_the_pooled_map_and_retrieval_the_bnneck(learner: Learner, batch: Batch) -> None:
    features = learner.network(batch.pictures)
    assert not torch.allclose(features.pooled, features.embedding, atol=1e-2)
    losses, _ = learner(batch)
    assert losses["triplet"].item() != pytest.approx(
        batch_hard_triplet(features.embedding, LABELS, 0.7).item(), rel=1e-3
    )
    maps: list[Tensor] = []
    learner.network.attention.register_forward_hook(lambda _module, _inputs, output: maps.append(output[0]))
    crops = torch.randint(0, 256, (3, 64, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        embedding, _ = Embedder(learner.network)(crops)
        pooled = maps[0].mean(dim=(2, 3))
        expected = functional.normalize(learner.network.bnneck(pooled), dim=1)
    torch.testing.assert_close(embedding, expected)


def test_without_a_teacher_there_is_no_distillation(batch: Batch) -> None:
    losses, _ = Learner(ReIDNet(CONFIG, 4), None, CONFIG).train()(batch)
    assert set(losses) == {"cross_entropy", "triplet"}


def test_the_probe_measures_equation_6(learner: Learner, batch: Batch) -> None:
    attention = learner.network.attention
    inputs: list[tuple[Tensor, Tensor, Tensor]] = []
    attention.register_forward_hook(lambda _module, args, output: inputs.append((args[0], *output)))
    with probed(attention) as probe:
        learner(batch)
        figures = probe.figures()
    x, y, weights = inputs[0]
    ratio = torch.stack([(b - a).norm() / a.norm() for a, b in zip(x, y, strict=True)]).mean()
    entropy = -(weights * weights.log()).sum(dim=2).mean()
    assert figures == pytest.approx(
        {"alpha": 0.5, "attention_ratio": ratio.item(), "attention_entropy": entropy.item()}, rel=1e-3
    )
    assert len(attention.h._forward_hooks) == 0
