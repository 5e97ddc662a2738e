"""Every choice of a training run, as one frozen dataclass: presets, TOML file, `--set key=value`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_type_hints

from training.values import TINY, check_range, parse_file, parse_override, shown, typed
from training.values import ConfigError as ConfigError

MOST_EPOCHS = 1_000_000
MOST_BLOCKS = 512  # of a stage
SMALLEST = 32  # pixels: the network halves a picture five times
# Both ends belong to the range; what is unbounded must still be finite.
RANGES: dict[str, tuple[float, float]] = {
    "base_width": (4, 1024),
    "embedding_dim": (0, 8192),
    "instance_norms": (0, 4),
    "height": (SMALLEST, 2048),
    "width": (SMALLEST, 2048),
    "half_size_epochs": (0, MOST_EPOCHS),
    "flip": (0, 1),
    "vertical_flip": (0, 1),
    "rotation": (0, 180),
    "zoom": (1, 4),
    "translation": (0, 1),
    "stretch": (0, 0.9),
    "colour": (0, 1),
    "cast": (0, 1),
    "grey": (0, 1),
    "blur": (0, 1),
    "erasing": (0, 1),
    "identities": (2, 65_536),
    "shots": (2, 4_096),
    "recombined": (0, 4_095),
    "margin": (0, math.inf),
    "label_smoothing": (0, 1),
    "distillation": (0, math.inf),
    "relations": (0, math.inf),
    "epochs": (1, MOST_EPOCHS),
    "warmup_epochs": (0, MOST_EPOCHS),
    "learning_rate": (TINY, math.inf),
    "fresh_factor": (TINY, math.inf),
    "alpha_factor": (TINY, math.inf),
    "score_factor": (TINY, math.inf),
    "weight_decay": (0, math.inf),
    "step_epochs": (1, MOST_EPOCHS),
    "step_factor": (TINY, 1),
    "frozen_stages": (0, 5),
    "ema": (0, 0.99999),
    "calibration_identities": (0, 1_000_000),
    "eval_every": (0, MOST_EPOCHS),
    "seed": (0, 2**32 - 1),
}


class Conflict(ConfigError):
    """Settings each of which could have its value, but not together."""


class Misfit(Conflict):
    """Settings that do not fit each other or the data: all that does not, and a remedy for all of it.

    Args:
        problems: a clause each.
        remedy: other values for some settings.
        mended: the settings with these values.
    """

    def __init__(self, problems: Sequence[str], remedy: Mapping[str, Any], mended: Config) -> None:
        options = " ".join(f"--set {name}={value}" for name, value in remedy.items())
        super().__init__(f"{'; '.join(problems)}: add {options}")
        self.problems, self.remedy, self.mended = tuple(problems), dict(remedy), mended


@dataclass(frozen=True)
class Config:
    """One run. Times are in epochs, sizes in pixels, probabilities in [0, 1]."""

    # network
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    base_width: int = 64
    last_stride: Literal[1, 2] = 2
    stride_placement: Literal["1x1", "3x3"] = "1x1"
    attention: Literal["none", "spatial", "self"] = "self"  # Table 3
    attention_scores: Literal["softmax", "sigmoid"] = "softmax"  # Table 6
    value_reduction: Literal[1, 8] = 1
    scale_scores: bool = False
    embedding_dim: int = 0  # 0: the channels of the last map, 2,048 in the paper; else a learnt projection to this
    bnneck: bool = True
    instance_norms: int = 0  # of stem, layer1 … layer3: how many, from the front, end in an instance norm
    # pictures
    height: int = 256
    width: int = 128
    # The first epochs at half the size and last stride 1: a quarter of the work and, at last stride 2, the same map.
    half_size_epochs: int = 0
    # augmentation
    flip: float = 0.5
    vertical_flip: float = 0.0
    rotation: float = 0.0  # degrees, either way
    zoom: float = 1.0  # pictures are enlarged by this before they are shifted, so that no border shows
    stretch: float = 0.0  # how far height and width vary, each by itself: 0.2 is from 0.8 to 1.2
    translation: float = 0.05  # of height and width, either way
    colour: float = 0.0  # how far brightness, contrast and saturation may go: 0.2 is from 0.8 to 1.2
    cast: float = 0.0  # how far red, green and blue may go, each by itself: 0.2 is from 0.8 to 1.2
    grey: float = 0.0  # share of the pictures that lose their colours
    blur: float = 0.0  # share of the pictures
    erasing: float = 0.5
    # batches and losses
    identities: int = 16
    shots: int = 4
    recombined: int = 0  # of the shots: their legs become another identity's, which makes a person of its own
    # An identity's shots are drawn from all its pictures, or from as many of its cameras as there are (the paper's
    # groups, section 4.2).
    group: Literal["identity", "camera"] = "identity"
    # An epoch shows about every picture once ("images"), or `shots` pictures of every identity ("identities").
    epoch: Literal["images", "identities"] = "images"
    losses: Literal["both", "cross_entropy", "triplet"] = "both"  # Table 7
    margin: float = 0.3
    soft_margin: bool = False  # log(1 + exp(x)) in place of the hinge max(0, margin + x)
    label_smoothing: float = 0.1
    distillation: float = 0.0  # weight of the loss against a teacher's embeddings (--teacher)
    relations: float = 0.0  # weight of the loss against the teacher's cosines between the pictures of a batch
    # optimisation
    epochs: int = 60
    optimizer: Literal["adam", "adamw"] = "adamw"  # they differ in the weight decay: coupled to the gradient, or not
    schedule: Literal["cosine", "step"] = "cosine"
    step_epochs: int = 100  # of schedule "step": the learning rate is multiplied by step_factor every so often
    step_factor: float = 0.1
    warmup_epochs: float = 5.0
    learning_rate: float = 3.5e-4
    fresh_factor: float = 2.0  # learning rate of what no pretrained weights were loaded into, over the rest's
    alpha_factor: float = 1.0  # learning rate of the self-attention's alpha over that of what starts fresh
    score_factor: float = 1.0  # and that of its f and g, whose products saturate the softmax when they learn fast
    weight_decay: float = 5e-4
    frozen_stages: int = 0  # of stem, layer1 … layer4, from the front: these keep their weights and statistics
    ema: float = 0.0  # decay a step of the running mean of the weights, which is what is kept; 0: none
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    compile: bool = False  # torch.compile
    # Identities held out of training, on which the exported file's distances between strangers are measured.
    calibration_identities: int = 0
    eval_every: int = 0  # epochs between measurements on the test part while training; 0: only at the end
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            check_range(name, getattr(self, name), low, high)
        if not all(1 <= blocks <= MOST_BLOCKS for blocks in self.layers):
            raise ConfigError(f"layers is {list(self.layers)}: every stage needs a block, and {MOST_BLOCKS} at most")
        if self.calibration_identities == 1:
            raise ConfigError("calibration_identities is 1: distances between strangers need two identities or more")
        if self.half_size_epochs and min(self.height, self.width) < 2 * SMALLEST:
            raise Conflict(f"half_size_epochs needs a height and width of {2 * SMALLEST} at least")
        if self.relations and not self.distillation:
            raise Conflict("relations goes with distillation: set both above 0")
        if self.recombined >= self.shots:
            raise Conflict(f"recombined is {self.recombined}: less than shots ({self.shots}) is needed")
        if not self._learns():
            raise Conflict(
                "nothing is left to learn: frozen_stages=5 with attention=none and losses=triplet freezes "
                "all that the triplet loss sees; freeze fewer stages"
            )
        self._check_times()

    def _check_times(self) -> None:
        problems, remedy = [], dict[str, Any]()
        if self.warmup_epochs >= self.epochs:
            problems.append(f"warmup_epochs is {self.warmup_epochs}: less than epochs ({self.epochs}) is needed")
            remedy["warmup_epochs"] = round(self.epochs / 12, 2)  # as 5 of 60
        if self.half_size_epochs >= self.epochs:
            problems.append(
                f"half_size_epochs is {self.half_size_epochs}: less than epochs ({self.epochs}) is needed, "
                "because the network is used at full size"
            )
            remedy["half_size_epochs"] = self.epochs // 2
        if problems:
            raise Misfit(problems, remedy, dataclasses.replace(self, **remedy))

    def _learns(self) -> bool:
        """Whether the losses see a parameter that is not frozen."""
        fresh = self.attention != "none" or self.embedding_dim > 0 or self.distillation > 0
        return fresh or self.frozen_stages < 5 or self.losses != "triplet"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The inverse of `to_dict`; refuses unknown keys and wrong types."""
        hints = get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            alike = get_close_matches(unknown[0], hints, n=1)
            meant = f"did you mean {alike[0]}?" if alike else f"there are {', '.join(hints)}"
            raise ConfigError(f"no setting is called {unknown[0]!r}; {meant}")
        return cls(**{key: typed(key, value, hints[key]) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


PRESETS: dict[str, dict[str, Any]] = {
    # The paper, in the readings that docs/reproduction.md gives its ambiguities.
    "paper": {
        "bnneck": False,
        "rotation": 10.0,
        "zoom": 1.125,
        "translation": 0.0625,
        "erasing": 0.0,
        "identities": 8,
        "shots": 4,
        "epoch": "identities",
        "epochs": 800,
        "optimizer": "adam",
        "schedule": "step",
        "step_epochs": 100,
        "step_factor": 0.1,
        "warmup_epochs": 0.0,
        "learning_rate": 3e-4,
        "fresh_factor": 1.0,
        "weight_decay": 5e-4,
        "precision": "fp32",
    },
    # What the field learnt since the paper, around the same self-attention.
    "strong": {"last_stride": 1, "scale_scores": True, "calibration_identities": 50},
    # A tiny network through the same code, for the drawn data set.
    "smoke": {
        "layers": (1, 1, 1, 1),
        "base_width": 16,
        "height": 64,
        "width": 32,
        "last_stride": 1,
        "value_reduction": 8,
        "scale_scores": True,  # with the next one: else the attention collapses at this learning rate
        "score_factor": 0.1,
        "identities": 8,
        "epochs": 20,
        "warmup_epochs": 1.0,
        "learning_rate": 2e-3,
        "fresh_factor": 1.0,
        "erasing": 0.2,
        "precision": "fp32",
    },
}


def build_config(preset: str, file: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """A preset, over it the keys of a TOML file, over those the `key=value` overrides (values as in TOML).

    Raises:
        ConfigError: an unknown preset or key, a value of another type or outside its range.
        Conflict: all of them together do not fit each other.
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
    values = dict(PRESETS[preset])
    if file is not None:
        told = parse_file(file)
        try:
            Config.from_dict(told)
        except Conflict:  # which the preset and the overrides may mend
            pass
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
        values |= told
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set takes key=value, not {shown(override)}")
        values |= parse_override(key.strip(), value.strip())
    return Config.from_dict(values)
