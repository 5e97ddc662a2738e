"""The network as an ONNX graph, preprocessing included."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from training.config import Config
from training.network.model import Embedder


def export_graph(model: Embedder, config: Config, path: Path) -> None:
    """The fp32 graph: crops uint8 [N, H, W, 3] -> embedding [N, D], attention [N, L, L], N free."""
    example = torch.zeros((2, config.height, config.width, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), Quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # of PyTorch's own exporter about itself
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=True,
            input_names=["crops"],
            output_names=["embedding", "attention"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


class Quiet:
    """Hold back what the named loggers say below an error; "" is the root logger."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]
        self.levels = [logger.level for logger in self.loggers]

    def __enter__(self) -> None:
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
