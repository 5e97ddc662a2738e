"""Pretrained weights into the backbone: any ResNet state dict with torchvision's names, which timm's have too."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from training.config import ConfigError
from training.network.resnet import INSTANCE_NORM, ResNet
from training.network.statefile import read_state_dict
from training.network.tensors import COUNTER, first_unusable


@dataclass(frozen=True)
class Loaded:
    """What came from the file: names of the backbone's tensors, and one sentence for the log and the card."""

    names: frozenset[str]
    sentence: str


def load_backbone(network: ResNet, weights: str) -> Loaded:
    """Load `weights` into the backbone.

    Args:
        weights: a file that `read_state_dict` reads, complete or of some whole stages (a classifier `fc.*` is
            ignored), "imagenet" for torchvision's (torchvision must be installed), or "none".

    Raises:
        ConfigError: "imagenet" into a network with the stride elsewhere.
        ValueError: the file is no state dict, a tensor is no finite dense floats, has another shape or a name of
            another network, or a stage is covered in part.
    """
    if weights == "none":
        return Loaded(frozenset(), "from scratch, no pretrained weights")
    if weights == "imagenet":
        state, origin = _torchvision_weights(network), "torchvision's IMAGENET1K_V1 weights"
    else:
        state, origin = read_state_dict(Path(weights))
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    if reason := _misfit(network, state):
        raise ValueError(f"{origin}: {reason}; a ResNet state dict with torchvision's names is needed")
    network.load_state_dict(state, strict=False)
    stages = _tensors_of_stages(network)
    loaded = [stage for stage, names in stages.items() if _usual(names) <= set(state)]
    fresh = [stage for stage in stages if stage not in loaded]
    rest = f"fresh: {', '.join(fresh)}" if fresh else _say_placement(network)
    return Loaded(frozenset(state), f"{origin}: {', '.join(loaded)}; {rest}")


def check_frozen(network: ResNet, loaded: Loaded, stages: int) -> None:
    """Raise ConfigError unless the first `stages` of the network, which are to be frozen, were loaded."""
    for stage, names in list(_tensors_of_stages(network).items())[:stages]:
        if not names <= loaded.names:
            raise ConfigError(
                f"frozen_stages={stages} would freeze {stage} as it was drawn at random: "
                "give --weights that hold it, or freeze fewer stages"
            )


def _say_placement(network: ResNet) -> str:
    """What the user has to know of a complete ImageNet file, and no file tells."""
    return f"taken as trained with stride_placement={network.placement} (torchvision's and timm's are with 3x3)"


def _tensors_of_stages(network: ResNet) -> dict[str, set[str]]:
    """The names of every stage's tensors, counters left out."""
    names = [name for name in network.state_dict() if COUNTER not in name]
    stem = {name for name in names if not name.startswith("layer")}
    return {"stem": stem} | {
        f"layer{n}": {name for name in names if name.startswith(f"layer{n}.")} for n in range(1, 5)
    }


def _usual(names: set[str]) -> set[str]:
    """Without the instance norms, which most files have not: they then start fresh."""
    return {name for name in names if INSTANCE_NORM not in name.split(".")}


def _misfit(network: ResNet, state: dict[str, Tensor]) -> str:
    """Why `state` is not of this network; empty where it is."""
    own = network.state_dict()
    if unusable := first_unusable(state):
        return unusable
    if "conv1.0.weight" in state:
        return "its stem is three convolutions (resnet50d and other deep stems), this network's is one"
    if unknown := [name for name in state if name not in own]:
        return f"{unknown[0]} is no tensor of this network"
    if wrong := [name for name, tensor in state.items() if tensor.shape != own[name].shape]:
        return f"{wrong[0]} is {list(state[wrong[0]].shape)}, this network's {list(own[wrong[0]].shape)}"
    if not state:
        return "there is no tensor in it"
    for stage, names in _tensors_of_stages(network).items():
        if names & set(state) and (missing := _first(_usual(names) - set(state))):
            return f"{stage} is there in part, {missing} is missing"
    return ""


def _first(names: Collection[str]) -> str:
    return min(names, default="")


def _torchvision_weights(network: ResNet) -> dict[str, Tensor]:
    if network.placement != "3x3":
        raise ConfigError(
            "torchvision's weights were trained with the stride in the 3x3 convolution: "
            "--weights imagenet needs --set stride_placement=3x3"
        )
    try:
        from torchvision.models import ResNet50_Weights

        return dict(ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=True))
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"'imagenet' needs a working torchvision ({error}); give --weights FILE") from error
    except OSError as error:
        raise ValueError(f"torchvision could not fetch its weights ({error}); give --weights FILE") from error
