"""Training on a real card: `make test-gpu`. Skipped, saying so, where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import build_config
from training.data import market1501, synthetic
from training.data.transforms import Augment
from training.export import export
from training.loop import runlog
from training.loop.trainer import Trainer
from training.network.stored import read_checkpoint
from training.retrieval.embedding import embed_samples
from training.retrieval.onnx_model import OnnxModel
from training.retrieval.protocol import evaluate
from training.retrieval.torch_model import TorchModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no CUDA device"),
]

OVERRIDES = ["epochs=3", "precision=bf16", "identities=4", "warmup_epochs=0.5"]


class Stopped(Exception):
    pass


def test_cuda_trains_continues_exports_and_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.draw_market1501(tmp_path / "drawn", train_identities=12, test_identities=6)
    data, run = market1501.read(tmp_path / "drawn"), tmp_path / "run"
    config = build_config("smoke", overrides=OVERRIDES)
    original = Trainer.train_epoch

    def stops_after_two(self: Trainer, epoch: int, *arguments: object) -> None:
        if epoch == 2:
            raise Stopped
        original(self, epoch, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", stops_after_two)
        with pytest.raises(Stopped):
            Trainer(config, data, run, "cuda").train("none")
    trainer = Trainer(config, data, run, "cuda")
    checkpoint = read_checkpoint(trainer.train("none"))
    assert trainer.pictures.is_cuda
    assert checkpoint.state["epoch"] == 3
    log = [json.loads(line) for line in (run / runlog.LOG).read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert len(checkpoint.environments) == 2
    assert checkpoint.environments[1]["device"].startswith("cuda")

    exported = export(checkpoint, data, run / "model.onnx", "fp32")
    assert exported.evaluation is not None
    on_card = TorchModel(checkpoint, "cuda")
    found = embed_samples(on_card, data.query)
    expected = embed_samples(OnnxModel(exported.path), data.query)
    assert (found * expected).sum(axis=1).min() > 0.999
    measured = evaluate(on_card, data).metrics.mAP
    assert measured == pytest.approx(exported.evaluation.metrics.mAP, abs=0.02)


def test_a_seed_draws_the_same_on_both_devices() -> None:
    config = build_config("smoke", overrides=["erasing=0.8", "translation=0.2"])
    pictures = torch.randint(0, 256, (16, 3, 64, 32), dtype=torch.uint8)
    drawn = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(3)
        drawn.append(Augment(config, torch.device(device))(pictures.to(device)).cpu().numpy())
    same = np.isclose(drawn[0], drawn[1], atol=1e-4).mean()
    assert same > 0.99  # a shift at the middle between two pixels may be rounded either way
