"""Every choice of a training run, as one frozen dataclass: presets, TOML file, `--set key=value`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

SMALLEST = 32  # pixels: the network halves a picture five times
TINY = 5e-324  # the least positive float: more than zero
# Both ends belong to the range; what is unbounded must still be finite.
RANGES: dict[str, tuple[float, float]] = {
    "base_width": (1, 1024),
    "height": (SMALLEST, 2048),
    "width": (SMALLEST, 2048),
    "half_size_epochs": (0, math.inf),
    "flip": (0, 1),
    "rotation": (0, 180),
    "translation": (0, 1),
    "erasing": (0, 1),
    "identities": (2, math.inf),
    "shots": (2, math.inf),
    "margin": (0, math.inf),
    "label_smoothing": (0, 1),
    "distillation": (0, math.inf),
    "epochs": (1, math.inf),
    "warmup_epochs": (0, math.inf),
    "learning_rate": (TINY, math.inf),
    "fresh_factor": (TINY, math.inf),
    "weight_decay": (0, math.inf),
    "frozen_stages": (0, 5),
    "seed": (0, 2**32 - 1),
}


class ConfigError(ValueError):
    """A setting that does not exist or cannot have that value; the message names both."""


@dataclass(frozen=True)
class Config:
    """One run. Times are in epochs, sizes in pixels, probabilities in [0, 1]."""

    # network
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    base_width: int = 64
    last_stride: Literal[1, 2] = 2
    stride_placement: Literal["1x1", "3x3"] = "1x1"
    value_reduction: Literal[1, 8] = 1
    scale_scores: bool = False
    bnneck: bool = True
    # pictures
    height: int = 256
    width: int = 128
    # The first epochs at half the size and last stride 1: a quarter of the work and, at last stride 2, the same map.
    half_size_epochs: int = 0
    # augmentation
    flip: float = 0.5
    rotation: float = 0.0  # degrees, either way
    translation: float = 0.05  # of height and width, either way
    erasing: float = 0.5
    # batches and losses
    identities: int = 16
    shots: int = 4
    # An epoch shows about every picture once ("images"), or `shots` pictures of every identity ("identities").
    epoch: Literal["images", "identities"] = "images"
    margin: float = 0.3
    label_smoothing: float = 0.1
    distillation: float = 0.0  # weight of the loss against a teacher's embeddings (--teacher)
    # optimisation
    epochs: int = 60
    warmup_epochs: float = 5.0
    learning_rate: float = 3.5e-4
    fresh_factor: float = 2.0  # learning rate of what no pretrained weights were loaded into, over the rest's
    weight_decay: float = 5e-4
    frozen_stages: int = 0  # of stem, layer1 … layer4, from the front: these keep their weights and statistics
    precision: Literal["fp32", "bf16"] = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        if any(blocks < 1 for blocks in self.layers):
            raise ConfigError(f"layers is {list(self.layers)}: every stage needs a block")
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(f"warmup_epochs is {self.warmup_epochs}: less than epochs ({self.epochs}) is needed")
        if self.half_size_epochs >= self.epochs:
            raise ConfigError(
                f"half_size_epochs is {self.half_size_epochs}: less than epochs ({self.epochs}) is needed, "
                "because the network is used at full size"
            )
        if self.half_size_epochs and min(self.height, self.width) < 2 * SMALLEST:
            raise ConfigError(f"half_size_epochs needs a height and width of {2 * SMALLEST} at least")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The inverse of `to_dict`; refuses unknown keys and wrong types."""
        hints = get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ConfigError(f"no setting is called {unknown[0]!r}; there are {', '.join(hints)}")
        return cls(**{key: _typed(key, value, hints[key]) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


PRESETS: dict[str, dict[str, Any]] = {
    # What the field learnt since the paper, around the same self-attention.
    "strong": {"last_stride": 1, "scale_scores": True},
    # A tiny network through the same code, for the drawn data set.
    "smoke": {
        "layers": (1, 1, 1, 1),
        "base_width": 16,
        "height": 64,
        "width": 32,
        "last_stride": 1,
        "value_reduction": 8,
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
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
    values = dict(PRESETS[preset])
    if file is not None:
        values |= _parse_toml(file.read_text(encoding="utf-8"), str(file))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set takes key=value, not {override!r}")
        values |= _parse_override(key.strip(), value.strip())
    return Config.from_dict(values)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if low <= value <= high and value != math.inf:  # false for NaN
        return
    if low == TINY:
        raise ConfigError(f"{name} is {value}: a finite number above 0 is needed")
    if high == math.inf:
        raise ConfigError(f"{name} is {value}: a finite number, at least {low}, is needed")
    raise ConfigError(f"{name} is {value}: a number from {low} to {high} is needed")


def _parse_override(key: str, value: str) -> dict[str, Any]:
    try:
        return {key: tomllib.loads(f"value = {value}")["value"]}
    except tomllib.TOMLDecodeError:
        return {key: value}  # a bare word is a string: --set precision=bf16


def _parse_toml(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is no TOML: {error}") from error


def _typed(key: str, value: Any, hint: Any) -> Any:
    """`value` as the field's type; ints pass for floats, lists for tuples, nothing else is converted."""
    if get_origin(hint) is Literal:
        # 1 == True == 1.0, but a setting that is 1 or 2 is neither true nor a fraction.
        if any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            return value
        raise ConfigError(f"{key} is one of {', '.join(map(str, get_args(hint)))}, not {value!r}")
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if isinstance(value, (list, tuple)) and len(value) == len(kinds):
            return tuple(_typed(key, item, kind) for item, kind in zip(value, kinds, strict=True))
        raise ConfigError(f"{key} is a list of {len(kinds)} numbers, not {value!r}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{key} is a {hint.__name__}, not {value!r}")
    return value
