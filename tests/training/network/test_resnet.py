from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.config import Config
from training.network.resnet import InstanceNorm, ResNet, StridePlacement, set_last_stride

PLACEMENTS = pytest.mark.parametrize("placement", ["1x1", "3x3"])


@PLACEMENTS
def test_resnet50_has_the_shapes_of_table_1(placement: StridePlacement) -> None:
    network = ResNet(placement=placement).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"):

        def note(_module: torch.nn.Module, _input: object, output: Tensor, name: str = name) -> None:
            shapes[name] = tuple(output.shape[1:])

        network.get_submodule(name).register_forward_hook(note)
    with torch.inference_mode():
        network(torch.zeros(1, 3, 256, 128))
    assert shapes == {
        "conv1": (64, 128, 64),
        "maxpool": (64, 64, 32),
        "layer1": (256, 64, 32),
        "layer2": (512, 32, 16),
        "layer3": (1024, 16, 8),
        "layer4": (2048, 8, 4),
    }
    assert sum(p.numel() for p in network.parameters()) == 23_508_032  # torchvision's resnet50 without fc


@PLACEMENTS
def test_last_stride_keeps_the_map_when_the_picture_is_halved(placement: StridePlacement) -> None:
    network = ResNet((1, 1, 1, 1), 8, 2, placement).eval()
    full = network(torch.zeros(1, 3, 64, 32)).shape
    set_last_stride(network, 1)
    assert network(torch.zeros(1, 3, 32, 16)).shape == full
    assert network(torch.zeros(1, 3, 64, 32)).shape[2] == 2 * full[2]


@PLACEMENTS
def test_the_stride_lies_where_it_is_asked_for(placement: StridePlacement) -> None:
    block = ResNet((1, 1, 1, 1), 8, 2, placement).get_submodule("layer2.0")
    strides = {name: block.get_submodule(name).stride for name in ("conv1", "conv2", "conv3", "downsample.0")}
    moved = "conv1" if placement == "1x1" else "conv2"
    assert strides == {name: (2, 2) if name in (moved, "downsample.0") else (1, 1) for name in strides}


def test_default_config_is_resnet_50() -> None:
    assert (Config().layers, Config().base_width) == ((3, 4, 6, 3), 64)


def test_instance_norms_end_the_first_stages() -> None:
    network = ResNet((1, 2, 1, 1), 8, instance_norms=3)
    found = [name for name, module in network.named_modules() if isinstance(module, InstanceNorm)]
    assert found == ["norm", "layer1.0.norm", "layer2.1.norm"]
    assert not [name for name in ResNet((1, 2, 1, 1), 8).state_dict() if "norm" in name.split(".")]
    assert any(module is network.norm for module in network.stages()[0][1])


def test_light_and_contrast_of_a_picture_do_not_matter_behind_an_instance_norm() -> None:
    pictures = torch.rand(2, 3, 64, 32)
    darker = 0.5 * pictures
    for norms, alike in ((0, False), (1, True)):
        network = ResNet((1, 1, 1, 1), 8, instance_norms=norms).eval()
        with torch.inference_mode():
            before, after = network(pictures), network(darker)
        assert torch.allclose(before, after, rtol=1e-2, atol=1e-3) == alike


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_instance_norm_keeps_the_layout(layout: torch.memory_format) -> None:
    maps = torch.rand(2, 8, 6, 5).contiguous(memory_format=layout)
    normed = InstanceNorm(8)(maps)
    assert normed.is_contiguous(memory_format=layout)
    torch.testing.assert_close(normed.mean((2, 3)), torch.zeros(2, 8), rtol=0, atol=1e-5)
    torch.testing.assert_close(normed.var((2, 3), correction=0), torch.ones(2, 8), rtol=1e-3, atol=0)
