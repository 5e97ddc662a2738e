"""Files of ImageNet weights as torchvision, timm and training programs leave them, made here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.config import ConfigError
from training.network.resnet import ResNet, StridePlacement
from training.network.weights import check_frozen, load_backbone

State = dict[str, Tensor]
LAYERS = (3, 4, 6, 3)
PARTS = ("weight", "bias")
ALL_STAGES = "stem, layer1, layer2, layer3, layer4"


def torchvision_state(width: int, classes: int = 1000) -> State:
    """Random tensors under every name of torchvision's resnet50, in its order, with its shapes at width 64."""
    state: State = {}

    def add_norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.rand(channels)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    state["conv1.weight"] = torch.randn(width, 3, 7, 7)
    add_norm("bn1", width)
    inputs = width
    for stage, blocks in enumerate(LAYERS, start=1):
        inner = width * 2 ** (stage - 1)
        for block in range(blocks):
            shapes = {1: (inner, inputs, 1, 1), 2: (inner, inner, 3, 3), 3: (4 * inner, inner, 1, 1)}
            for n, shape in shapes.items():
                state[f"layer{stage}.{block}.conv{n}.weight"] = torch.randn(shape)
                add_norm(f"layer{stage}.{block}.bn{n}", shape[0])
            if block == 0:
                state[f"layer{stage}.0.downsample.0.weight"] = torch.randn(4 * inner, inputs, 1, 1)
                add_norm(f"layer{stage}.0.downsample.1", 4 * inner)
            inputs = 4 * inner
    state |= {"fc.weight": torch.randn(classes, inputs), "fc.bias": torch.randn(classes)}
    return state


def small(placement: StridePlacement = "1x1") -> ResNet:
    return ResNet(LAYERS, 4, placement=placement)


def holds(network: ResNet, state: State) -> bool:
    """Whether every tensor of `state` but the classifier is in the network, and nothing else is."""
    own = network.state_dict()
    return set(own) == {name for name in state if not name.startswith("fc.")} and all(
        torch.equal(own[name], state[name]) for name in own
    )


@pytest.fixture(scope="module")
def state() -> State:
    return torchvision_state(4)


def saved(folder: Path, content: object) -> str:
    torch.save(content, path := folder / "weights.pt")
    return str(path)


def test_a_full_size_file_of_torchvisions_layout_loads(tmp_path: Path) -> None:
    state = torchvision_state(64)
    assert len(state) == 320  # as many as resnet50-0676ba61.pth has with its counters
    assert sum(tensor.numel() for name, tensor in state.items() if name.endswith(("weight", "bias"))) == 25_557_032
    network = ResNet(placement="3x3")
    loaded = load_backbone(network, saved(tmp_path, state))
    assert holds(network, state)
    assert loaded.names == set(network.state_dict())


@pytest.mark.parametrize("placement", ["1x1", "3x3"])
def test_the_log_says_for_which_strides_a_complete_file_is_taken(
    tmp_path: Path, state: State, placement: StridePlacement
) -> None:
    loaded = load_backbone(small(placement), saved(tmp_path, state))
    assert f": {ALL_STAGES}; taken as trained with stride_placement={placement} (" in loaded.sentence
    assert loaded.sentence.startswith("weights.pt (sha256 ")


def test_without_weights_the_network_is_as_it_was_drawn() -> None:
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loaded = load_backbone(network, "none")
    assert loaded.sentence == "from scratch, no pretrained weights"
    assert not loaded.names
    assert holds(network, before)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPINGS: dict[str, tuple[Callable[[State], object], str]] = {
    "state_dict": (lambda state: {"epoch": 90, "arch": "resnet50", "state_dict": state}, ""),
    "model": (lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, ""),
    "both": (lambda state: {"model": {"state_dict": state}}, ""),
    "module": (lambda state: {"state_dict": prefixed(state, "module.")}, "module."),
    "backbone": (lambda state: prefixed(state, "backbone.") | {"head.fc.weight": torch.zeros(2)}, "backbone."),
    "model.": (lambda state: {"state_dict": prefixed(state, "model.") | {"margin": torch.zeros(1)}}, "model."),
    "nested": (lambda state: prefixed(state, "module.backbone."), "module.backbone."),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_and_prefixed_files_load(tmp_path: Path, state: State, wrapping: str) -> None:
    wrap, prefix = WRAPPINGS[wrapping]
    network = small()
    loaded = load_backbone(network, saved(tmp_path, wrap(state)))
    assert holds(network, state)
    note = f", names under {re.escape(prefix)}" if prefix else ""
    assert re.match(rf"weights\.pt \(sha256 [0-9a-f]{{16}}{note}\): ", loaded.sentence)


def test_timms_safetensors_load(tmp_path: Path, state: State) -> None:
    save_file(state, path := tmp_path / "model.safetensors")
    network = small("3x3")
    assert load_backbone(network, str(path)).sentence.startswith("model.safetensors (sha256 ")
    assert holds(network, state)


def test_half_precision_files_load(tmp_path: Path, state: State) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    network = small()
    load_backbone(network, saved(tmp_path, half))
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, half["conv1.weight"].float())


def test_some_whole_stages_load(tmp_path: Path, state: State) -> None:
    part = {name: tensor for name, tensor in state.items() if not name.startswith("layer4")}
    network = small()
    loaded = load_backbone(network, saved(tmp_path, part))
    assert loaded.sentence.endswith(": stem, layer1, layer2, layer3; fresh: layer4")
    assert torch.equal(network.state_dict()["layer3.5.conv2.weight"], state["layer3.5.conv2.weight"])
    assert "layer4.0.conv1.weight" not in loaded.names
    check_frozen(network, loaded, 4)
    with pytest.raises(ConfigError, match="frozen_stages=5 would freeze layer4"):
        check_frozen(network, loaded, 5)


def test_missing_counters_do_not_matter(tmp_path: Path, state: State) -> None:
    bare = {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    loaded = load_backbone(small(), saved(tmp_path, bare))
    assert f": {ALL_STAGES}; " in loaded.sentence
    assert "fc.weight" not in loaded.names


class Foreign:
    """What a program may pickle beside its tensors."""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip", "is no PyTorch state dict"),
        ({"state_dict": {}, "args": Foreign()}, "save the state dict alone"),
        ([torch.zeros(2)], "is no plain state dict"),
        ({"conv1.weight": 3}, "is no plain state dict"),
        ({0: torch.zeros(2)}, "is no plain state dict"),
        ({}, "there is no tensor in it"),
        ({"fc.weight": torch.zeros(2)}, "there is no tensor in it"),
        ({"head.weight": torch.zeros(2)}, r"head\.weight is no tensor of this network"),
        ({"module.head.weight": torch.zeros(2)}, r"head\.weight is no tensor of this network"),
        ({"conv1.weight": torch.zeros(2)}, r"conv1\.weight is \[2\], this network's \[4, 3, 7, 7\]"),
    ],
)
def test_files_without_weights_are_refused(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=reason) as caught:
        load_backbone(small(), str(path))
    assert "weights.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights\.pt does not exist: --weights takes a file"):
        load_backbone(small(), str(tmp_path / "weights.pt"))


def test_a_broken_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match=r"model\.safetensors is no safetensors file"):
        load_backbone(small(), str(path))


def deep_stem(state: State) -> None:
    """timm's resnet50d: three convolutions in the stem, and a pooling before the shortcut's."""
    state["conv1.0.weight"] = state.pop("conv1.weight")
    for stage in range(1, 5):
        state[f"layer{stage}.0.downsample.1.weight"] = state.pop(f"layer{stage}.0.downsample.0.weight")


CHANGES: dict[str, tuple[Callable[[State], object], str]] = {
    "deep stem": (deep_stem, r"its stem is three convolutions \(resnet50d"),
    "another head": (lambda state: state.update({"head.weight": torch.zeros(2)}), r"head\.weight is no tensor"),
    "resnet101": (lambda state: state.update({"layer3.6.bn1.bias": torch.zeros(16)}), r"layer3\.6\.bn1\.bias is no"),
    "half a stage": (
        lambda state: state.pop("layer2.0.bn2.running_var"),
        r"layer2 is there in part, layer2\.0\.bn2\.running_var is missing",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_of_another_network_are_refused(tmp_path: Path, state: State, change: str) -> None:
    alter, reason = CHANGES[change]
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    alter(changed := dict(state))
    with pytest.raises(ValueError, match=rf"weights\.pt.*{reason}"):
        load_backbone(network, saved(tmp_path, changed))
    assert holds(network, before)


def offer_torchvision(patch: pytest.MonkeyPatch, fetch: Callable[[], State]) -> None:
    """Put a torchvision in place that has one thing, the weights."""

    class Weights:
        @staticmethod
        def get_state_dict(progress: bool) -> State:
            assert progress
            return fetch()

    models: Any = ModuleType("torchvision.models")
    models.ResNet50_Weights = type("ResNet50_Weights", (), {"IMAGENET1K_V1": Weights})
    patch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    patch.setitem(sys.modules, "torchvision.models", models)


def test_torchvisions_weights_load(monkeypatch: pytest.MonkeyPatch, state: State) -> None:
    offer_torchvision(monkeypatch, lambda: state)
    network = small("3x3")
    loaded = load_backbone(network, "imagenet")
    assert loaded.sentence.startswith(f"torchvision's IMAGENET1K_V1 weights: {ALL_STAGES}; ")
    assert holds(network, state)


def test_torchvisions_weights_need_torchvisions_strides(monkeypatch: pytest.MonkeyPatch, state: State) -> None:
    offer_torchvision(monkeypatch, lambda: state)
    with pytest.raises(ConfigError, match="needs --set stride_placement=3x3"):
        load_backbone(small("1x1"), "imagenet")


def test_a_missing_torchvision_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ValueError, match=r"needs a working torchvision .* give --weights FILE"):
        load_backbone(small("3x3"), "imagenet")


def test_weights_that_cannot_be_fetched_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> State:
        raise OSError("no route to host")

    offer_torchvision(monkeypatch, fail)
    with pytest.raises(ValueError, match=r"could not fetch its weights \(no route to host\); give --weights FILE"):
        load_backbone(small("3x3"), "imagenet")


def quantised(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def spoilt(tensor: Tensor) -> Tensor:
    return torch.where(torch.arange(tensor.numel()).view_as(tensor) == 3, torch.nan, tensor)


@pytest.mark.filterwarnings("ignore")  # of torch's, about sparse and nested tensors
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Tensor.to_sparse, "sparse or nested: save it dense"),
        (lambda tensor: torch.nested.nested_tensor(list(tensor)), "sparse or nested: save it dense"),
        (lambda tensor: tensor.to("meta"), "on the meta device, without values"),
        (quantised, "quantised: save it in floating point"),
        (lambda tensor: tensor.to(torch.complex64), "of complex64: save it in floating point"),
        (Tensor.char, "of int8: save it in floating point"),
        (spoilt, "not finite"),
    ],
)
def test_tensors_that_are_no_weights_are_refused_in_a_sentence(
    tmp_path: Path, state: State, change: Callable[[Tensor], Tensor], said: str
) -> None:
    """In whatever way: torch reads some of them not at all."""
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path = saved(tmp_path, state | {"layer1.0.conv1.weight": change(state["layer1.0.conv1.weight"])})
    with pytest.raises(ValueError, match=rf"layer1\.0\.conv1\.weight is {said}|is no PyTorch state dict") as told:
        load_backbone(network, path)
    assert "\n" not in str(told.value)
    assert holds(network, before)


def test_a_classifier_that_is_not_used_may_be_anything(tmp_path: Path, state: State) -> None:
    network = small()
    load_backbone(network, saved(tmp_path, state | {"fc.bias": torch.full((3,), torch.nan)}))
    assert holds(network, state)


def test_instance_norms_start_fresh_unless_the_file_has_them(tmp_path: Path, state: State) -> None:
    """A stage is loaded without them, and cannot be frozen then."""
    network = ResNet(LAYERS, 4, instance_norms=2)
    loaded = load_backbone(network, saved(tmp_path, state))
    assert f": {ALL_STAGES}; " in loaded.sentence
    with pytest.raises(ConfigError, match="frozen_stages=1 would freeze stem"):
        check_frozen(network, loaded, 1)
    norms = {f"{place}norm.{part}": torch.rand(size) for place, size in (("", 4), ("layer1.2.", 16)) for part in PARTS}
    loaded = load_backbone(network, saved(tmp_path, state | norms))
    check_frozen(network, loaded, 5)
    assert torch.equal(network.state_dict()["layer1.2.norm.bias"], norms["layer1.2.norm.bias"])
    with pytest.raises(ValueError, match=r"norm\.weight is no tensor of this network"):
        load_backbone(small(), saved(tmp_path, state | norms))
