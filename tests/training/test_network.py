from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.config import Config, ConfigError, build_config
from training.network.attention import SelfAttention
from training.network.losses import batch_hard_triplet
from training.network.model import Embedder, ReIDNet
from training.network.resnet import ResNet, StridePlacement, set_last_stride
from training.network.weights import load_backbone

SMOKE = build_config("smoke")


@pytest.mark.parametrize("placement", ["1x1", "3x3"])
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


@pytest.mark.parametrize("placement", ["1x1", "3x3"])
def test_last_stride_keeps_the_map_when_the_picture_is_halved(placement: StridePlacement) -> None:
    network = ResNet((1, 1, 1, 1), 8, 2, placement).eval()
    full = network(torch.zeros(1, 3, 64, 32)).shape
    set_last_stride(network, 1)
    assert network(torch.zeros(1, 3, 32, 16)).shape == full
    assert network(torch.zeros(1, 3, 64, 32)).shape[2] == 2 * full[2]


@pytest.mark.parametrize("value_reduction", [1, 8])
@pytest.mark.parametrize("scale", [False, True])
def test_attention_equals_the_equations_written_as_loops(value_reduction: int, scale: bool) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16, value_reduction, scale).eval()
    attention.alpha.data.fill_(0.7)
    x = torch.randn(2, 16, 3, 2)
    y, weights = attention(x)
    f, g, h = attention.f(x), attention.g(x), attention.h(x)
    for n in range(2):
        columns = [(row, column) for row in range(3) for column in range(2)]
        for j, (row, column) in enumerate(columns):
            scores = torch.stack(
                [f[n, :, a, b].clamp(min=0) @ g[n, :, row, column].clamp(min=0) for a, b in columns]
            ) / (2**0.5 if scale else 1)
            s = scores.exp() / scores.exp().sum()
            o = sum((s[i] * h[n, :, a, b] for i, (a, b) in enumerate(columns)), start=torch.zeros(16))
            torch.testing.assert_close(weights[n, j], s)
            torch.testing.assert_close(y[n, :, row, column], 0.7 * o + x[n, :, row, column])
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 6))


def test_attention_starts_as_the_identity_and_learns() -> None:
    attention = SelfAttention(64)
    assert attention.f.out_channels == attention.g.out_channels == 8  # D / 8
    x = torch.randn(2, 64, 4, 2)
    y, _ = attention(x)
    torch.testing.assert_close(y, x)
    y.square().sum().backward()
    assert attention.alpha.grad is not None
    assert attention.alpha.grad.abs() > 0


def test_attention_scores_stay_float32_under_mixed_precision() -> None:
    attention = SelfAttention(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, weights = attention(torch.randn(1, 64, 4, 2))
    assert weights.dtype == torch.float32


def loop_triplet(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Equation 7 as it is written: over anchors, the farthest positive and the nearest negative."""
    terms = []
    for anchor, label in zip(features, labels, strict=True):
        positives = [(anchor - f).norm() for f, own in zip(features, labels, strict=True) if own == label]
        negatives = [(anchor - f).norm() for f, own in zip(features, labels, strict=True) if own != label]
        terms.append((margin + torch.stack(positives).max() - torch.stack(negatives).min()).clamp(min=0))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("seed", range(5))
def test_triplet_and_its_gradient_equal_the_loop(seed: int) -> None:
    torch.manual_seed(seed)
    labels = torch.arange(4).repeat_interleave(3)
    features = torch.randn(12, 8, dtype=torch.float32, requires_grad=True)
    copy = features.detach().clone().requires_grad_()
    ours, loop = batch_hard_triplet(features, labels, 0.3), loop_triplet(copy, labels, 0.3)
    torch.testing.assert_close(ours, loop, rtol=1e-5, atol=1e-6)
    ours.backward()  # type: ignore[no-untyped-call]
    loop.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(features.grad, copy.grad, rtol=1e-3, atol=1e-5)


def test_triplet_of_equal_features_has_a_finite_gradient() -> None:
    features = torch.ones(4, 8, requires_grad=True)
    batch_hard_triplet(features, torch.tensor([0, 0, 1, 1])).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_smoothed_cross_entropy_is_the_form_of_szegedy() -> None:
    logits, label, classes, epsilon = torch.randn(1, 5), torch.tensor([2]), 5, 0.1
    target = torch.full((1, classes), epsilon / classes)
    target[0, 2] += 1 - epsilon
    expected = -(target * logits.log_softmax(dim=1)).sum()
    torch.testing.assert_close(functional.cross_entropy(logits, label, label_smoothing=epsilon), expected)


def test_embedder_normalises_inside_and_gives_unit_vectors() -> None:
    embedder = Embedder(ReIDNet(SMOKE, 4)).eval()
    crops = torch.randint(0, 256, (3, SMOKE.height, SMOKE.width, 3), dtype=torch.uint8)
    with torch.inference_mode():
        embedding, attention = embedder(crops)
        scaled = crops.permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        expected = embedder.network((scaled - mean) / std).embedding
    torch.testing.assert_close(embedding, functional.normalize(expected), rtol=1e-4, atol=1e-5)
    assert attention.shape == (3, 8, 8)


def test_weights_load_by_torchvisions_names(tmp_path: object) -> None:
    config = replace(SMOKE, layers=(3, 4, 6, 3), base_width=4)
    source = ResNet(config.layers, config.base_width)
    state = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("layer4")}
    path = f"{tmp_path}/weights.pt"
    torch.save(state, path)
    target = ResNet(config.layers, config.base_width)
    loaded = load_backbone(target, path)
    assert loaded.sentence.endswith(": stem, layer1, layer2, layer3; fresh: layer4")
    torch.testing.assert_close(target.state_dict()["layer3.5.conv2.weight"], state["layer3.5.conv2.weight"])
    assert "layer4.0.conv1.weight" not in loaded.names


@pytest.mark.parametrize("content", [None, b"no zip", {"fc.weight": torch.zeros(2)}, {"conv1.weight": torch.zeros(2)}])
def test_weights_that_do_not_fit_are_refused(tmp_path: object, content: object) -> None:
    path = f"{tmp_path}/weights.pt"
    if isinstance(content, bytes):
        with open(path, "wb") as file:
            file.write(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights\.pt"):
        load_backbone(ResNet((1, 1, 1, 1), 8), path)


def weights_file(folder: object, change: Callable[[dict[str, Tensor]], object]) -> str:
    """The path of a complete state dict, changed."""
    state = ResNet((1, 1, 1, 1), 8).state_dict()
    change(state)
    torch.save(state, path := f"{folder}/weights.pt")
    return path


def test_weights_of_another_network_are_refused(tmp_path: object) -> None:
    path = weights_file(tmp_path, lambda state: state.update({"head.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"head\.weight is no tensor of this network"):
        load_backbone(ResNet((1, 1, 1, 1), 8), path)


def test_half_a_stage_is_refused(tmp_path: object) -> None:
    path = weights_file(tmp_path, lambda state: state.pop("layer2.0.bn2.running_var"))
    with pytest.raises(ValueError, match=r"layer2 is there in part, layer2\.0\.bn2\.running_var is missing"):
        load_backbone(ResNet((1, 1, 1, 1), 8), path)


def test_a_classifier_and_missing_counters_do_not_matter(tmp_path: object) -> None:
    def change(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if "num_batches_tracked" in name]:
            del state[name]
        state["fc.weight"] = torch.zeros(10, 256)

    loaded = load_backbone(ResNet((1, 1, 1, 1), 8), weights_file(tmp_path, change))
    assert loaded.sentence.endswith(": stem, layer1, layer2, layer3, layer4")
    assert "fc.weight" not in loaded.names


def test_torchvisions_weights_need_torchvisions_strides() -> None:
    with pytest.raises(ConfigError, match="stride_placement=3x3"):
        load_backbone(ResNet(placement="1x1"), "imagenet")


def test_what_follows_the_map_is_float32_under_mixed_precision() -> None:
    network = ReIDNet(SMOKE, 4).train()
    seen: list[torch.dtype] = []
    for module in (network.bnneck, network.classifier):
        module.register_forward_hook(lambda _module, inputs, output: seen.extend((inputs[0].dtype, output.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network(torch.randn(4, 3, 64, 32))
    assert seen == [torch.float32] * 4
    assert features.pooled.dtype == features.logits.dtype == torch.float32


def test_bnneck_and_bias() -> None:
    assert ReIDNet(SMOKE, 4).classifier.bias is None
    plain = ReIDNet(replace(SMOKE, bnneck=False), 4)
    assert plain.classifier.bias is not None
    x = torch.randn(2, 3, 64, 32)
    features = plain.eval()(x)
    torch.testing.assert_close(features.embedding, features.pooled)


def test_default_config_is_resnet_50() -> None:
    assert Config().layers == (3, 4, 6, 3)
