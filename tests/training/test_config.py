from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import pytest

from training.config import PRESETS, RANGES, Config, ConfigError, build_config


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_round_trip(preset: str) -> None:
    config = build_config(preset)
    assert Config.from_dict(config.to_dict()) == config
    assert len(config.sha256()) == 64


def test_overrides_beat_the_file_beats_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('epochs = 7\nlearning_rate = 1\nprecision = "fp32"\nlayers = [1, 2, 3, 4]\n')
    config = build_config("strong", file, ["epochs=9", "precision=bf16", "bnneck=false"])
    assert (config.epochs, config.learning_rate, config.precision) == (9, 1.0, "bf16")
    assert (config.layers, config.bnneck, config.last_stride) == ((1, 2, 3, 4), False, 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch_count=3", "no setting is called 'epoch_count'"),
        ("epochs", "key=value"),
        ("epochs=many", "epochs is a int"),
        ("epochs=0", "at least 1"),
        ("flip=2", "from 0 to 1"),
        ("last_stride=3", "one of 1, 2"),
        ("layers=[1, 2]", "list of 4"),
        ("bnneck='yes'", "bnneck is a bool"),
        ("frozen_stages=6", "from 0 to 5"),
        ("epochs=true", "epochs is a int"),
        ("flip=true", "flip is a float"),
        ("last_stride=true", "one of 1, 2"),
        ("last_stride=1.0", "one of 1, 2"),
        ("learning_rate=0", "above 0"),
        ("learning_rate=inf", "finite number above 0"),
        ("fresh_factor=-1", "above 0"),
        ("margin=nan", "at least 0"),
        ("weight_decay=inf", "finite"),
        ("distillation=-1", "at least 0"),
        ("rotation=181", "from 0 to 180"),
        ("translation=1.5", "from 0 to 1"),
        ("warmup_epochs=-1", "at least 0"),
        ("warmup_epochs=20", r"less than epochs \(20\)"),
        ("half_size_epochs=20", r"less than epochs \(20\)"),
        ("half_size_epochs=5", "height and width of 64"),
        ("layers=[1, 0, 1, 1]", "every stage needs a block"),
        ("base_width=0", "from 1 to 1024"),
        ("seed=-1", "from 0 to"),
    ],
)
def test_bad_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config("smoke", overrides=[override])


def test_every_number_has_a_range() -> None:
    numbers = {name for name, hint in get_type_hints(Config).items() if hint in (int, float)}
    assert numbers == set(RANGES)


def test_bad_preset_and_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preset"):
        build_config("huge")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml is no TOML"):
        build_config("smoke", tmp_path / "bad.toml")
