from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from training.config import Config, build_config
from training.network.model import Embedder, ReIDNet
from training.network.stored import load_checkpoint_model, read_checkpoint

SMOKE = build_config("smoke", overrides=["base_width=4", "score_factor=1"])
# What a checkpoint held before there were other kinds of attention: it is read with the defaults for the rest.
FIRST_SETTINGS = (
    *("layers", "base_width", "last_stride", "stride_placement", "value_reduction", "scale_scores", "bnneck"),
    *("height", "width", "half_size_epochs", "flip", "rotation", "translation", "erasing"),
    *("identities", "shots", "epoch", "margin", "label_smoothing", "distillation"),
    *("epochs", "warmup_epochs", "learning_rate", "fresh_factor", "weight_decay", "frozen_stages"),
    *("precision", "seed"),
)
FIRST_HEAD = {
    *("attention.alpha", "attention.f.weight", "attention.f.bias", "attention.g.weight", "attention.g.bias"),
    *("attention.h.0.weight", "attention.h.0.bias", "attention.h.1.weight", "attention.h.1.bias"),
    *("bnneck.weight", "bnneck.bias", "bnneck.running_mean", "bnneck.running_var", "bnneck.num_batches_tracked"),
    "classifier.weight",
}


def checkpoint_of(network: ReIDNet, config: Config) -> dict[str, Any]:
    return {
        "model": network.state_dict(),
        "epoch": 1,
        "config": config.to_dict(),
        "classes": 4,
        "initialisation": "from scratch",
        "teacher": "none",
        "data": {"name": "drawn"},
    }


def drawn(config: Config) -> ReIDNet:
    """A network whose tensors are all drawn, alpha and the statistics included."""
    network = ReIDNet(config, 4)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.2)
    return network


def embed(embedder: Embedder) -> tuple[torch.Tensor, torch.Tensor]:
    crops = torch.arange(2 * 64 * 32 * 3).remainder(251).to(torch.uint8).view(2, 64, 32, 3)
    with torch.inference_mode():
        embedding, attention = embedder.eval()(crops)
    return embedding, attention


@pytest.mark.parametrize(
    "config",
    [
        SMOKE,
        replace(SMOKE, attention="none", bnneck=False),
        replace(SMOKE, attention="spatial", attention_scores="sigmoid"),
        replace(SMOKE, attention_scores="sigmoid", value_reduction=1, embedding_dim=12),
    ],
    ids=["self", "none", "spatial", "sigmoid"],
)
def test_a_stored_network_is_the_one_that_was_saved(tmp_path: Path, config: Config) -> None:
    network = drawn(config)
    torch.save(checkpoint_of(network, config), path := tmp_path / "checkpoint.pt")
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == config
    restored = embed(load_checkpoint_model(checkpoint))
    assert all(torch.equal(a, b) for a, b in zip(restored, embed(Embedder(network)), strict=True))


def test_a_checkpoint_from_before_the_other_attentions_loads(tmp_path: Path) -> None:
    network = drawn(SMOKE)
    state = checkpoint_of(network, SMOKE)
    assert {name for name in state["model"] if not name.startswith("backbone.")} == FIRST_HEAD
    state["config"] = {name: state["config"][name] for name in FIRST_SETTINGS}
    torch.save(state, path := tmp_path / "checkpoint.pt")
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == SMOKE
    torch.testing.assert_close(embed(load_checkpoint_model(checkpoint)), embed(Embedder(network)))


def test_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (broken := tmp_path / "broken.pt").write_bytes(b"no zip")
    torch.save({"model": {}, "epoch": 1}, part := tmp_path / "part.pt")
    with pytest.raises(
        ValueError, match=r"broken\.pt is no checkpoint of training/train\.py, or a damaged one: take a copy"
    ):
        read_checkpoint(broken)
    with pytest.raises(ValueError, match=r"/checkpoint\.pt does not exist: give a run's folder or its checkpoint\.pt$"):
        read_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"missing\.pt does not exist"):
        read_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(ValueError, match=r"part\.pt is no checkpoint of training/train\.py: it has no config, classes"):
        read_checkpoint(part)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", [1, 2]),
        ("model", {"backbone.conv1.weight": 3}),
        ("epoch", "many"),
        ("epoch", -1),
        ("epoch", 1.5),
        ("config", ["epochs"]),
        ("config", {1: 2}),
        ("classes", 10**12),
        ("classes", 0),
        ("initialisation", None),
        ("teacher", 3),
        ("data", {}),
        ("data", "drawn"),
    ],
)
def test_a_forged_checkpoint_is_refused(tmp_path: Path, key: str, value: object) -> None:
    torch.save({**checkpoint_of(drawn(SMOKE), SMOKE), key: value}, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=rf"checkpoint\.pt is no checkpoint .*: {key} is not what it writes there"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    state = checkpoint_of(drawn(SMOKE), SMOKE)
    state["model"]["bnneck.running_var"][0] = value
    torch.save(state, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: bnneck\.running_var is not finite"):
        read_checkpoint(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, kept: float) -> None:
    torch.save(checkpoint_of(drawn(SMOKE), SMOKE), path := tmp_path / "checkpoint.pt")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is no checkpoint of training/train\.py, or a damaged one:"):
        read_checkpoint(path)


def test_flipped_bits_are_refused_wherever_they_lie(tmp_path: Path) -> None:
    torch.save(checkpoint_of(drawn(SMOKE), SMOKE), path := tmp_path / "checkpoint.pt")
    sound = path.read_bytes()
    with ZipFile(path) as parts:
        weights = [part for part in parts.infolist() if "/data/" in part.filename and part.file_size > 1000]
    assert weights
    for part in weights[:: len(weights) // 3]:
        rotten = bytearray(sound)
        rotten[part.header_offset + part.file_size // 2] ^= 0x04
        path.write_bytes(rotten)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is (damaged|no checkpoint)"):
            read_checkpoint(path)


def test_a_run_folder_stands_for_its_checkpoint(tmp_path: Path) -> None:
    torch.save(checkpoint_of(drawn(SMOKE), SMOKE), tmp_path / "checkpoint.pt")
    assert read_checkpoint(tmp_path).path == tmp_path / "checkpoint.pt"


def test_settings_of_a_network_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    forged = replace(SMOKE, layers=(1, 1, 1, 30), base_width=1024)
    torch.save({**checkpoint_of(drawn(SMOKE), forged), "classes": 10**7}, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt has not the weights of the network"):
        load_checkpoint_model(read_checkpoint(path))


def test_starts_that_are_none_are_left_out(tmp_path: Path) -> None:
    for told in ([3, {"device": "cpu"}], "cpu"):
        torch.save({**checkpoint_of(drawn(SMOKE), SMOKE), "environments": told}, path := tmp_path / "checkpoint.pt")
        assert read_checkpoint(path).environments == ([{"device": "cpu"}] if isinstance(told, list) else [])


def test_settings_of_another_version_are_refused(tmp_path: Path) -> None:
    state = checkpoint_of(drawn(SMOKE), SMOKE)
    state["config"]["heads"] = 4
    torch.save(state, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt was trained with other settings .*'heads'"):
        read_checkpoint(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = checkpoint_of(drawn(SMOKE), replace(SMOKE, attention="none"))
    torch.save(state, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt has not the weights of the network"):
        load_checkpoint_model(read_checkpoint(path))


def test_a_run_that_saw_only_half_size_pictures_is_refused(tmp_path: Path) -> None:
    config = replace(SMOKE, half_size_epochs=1, height=64, width=64)
    torch.save(checkpoint_of(drawn(config), config), path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt stopped after 1 epochs"):
        load_checkpoint_model(read_checkpoint(path))
