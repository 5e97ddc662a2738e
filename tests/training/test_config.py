from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import pytest

from training.config import PRESETS, RANGES, Config, ConfigError, Misfit, build_config


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
        ("epochs_count=3", "no setting is called 'epochs_count'; did you mean epochs"),
        ("xyz=3", "no setting is called 'xyz'; there are layers, "),
        ("epochs", "key=value"),
        ("epochs=many", "epochs is a whole number"),
        ("epochs=0", "from 1 to 1000000"),
        ("flip=2", "from 0 to 1"),
        ("last_stride=3", "one of 1, 2"),
        ("layers=[1, 2]", "list of 4"),
        ("bnneck='yes'", "bnneck is true or false"),
        ("frozen_stages=6", "from 0 to 5"),
        ("epochs=true", "epochs is a whole number"),
        ("flip=true", "flip is a number"),
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
        ("warmup_epochs=-1", "from 0 to 1000000"),
        ("warmup_epochs=20", r"less than epochs \(20\)"),
        ("half_size_epochs=5", "height and width of 64"),
        ("layers=[1, 0, 1, 1]", "every stage needs a block"),
        ("layers=[1, 1, 1, 99999]", "512 at most"),
        ("base_width=3", "from 4 to 1024"),
        ("shots=100000000000", "from 2 to 4096"),
        (f"margin=1{'0' * 400}", "margin is a number of too many digits: a finite number is needed"),
        (f"epochs=1{'0' * 400}", "epochs is a number of too many digits: a number from 1 to"),
        (f"margin=1{'0' * 5000}", "--set margin takes a short value, not 1000"),
        (f"layers={'[' * 5000}", "--set layers takes a short value"),
        ("epochs=2\nheight=64", "--set epochs takes one line, not .*: give --set once for each setting"),
        ("seed=-1", "from 0 to"),
        ("ema=1", "from 0 to 0.99999"),
        ("step_epochs=0", "from 1 to"),
        ("step_factor=0", "above 0"),
        ("step_factor=2", "above 0"),
        ("optimizer=sgd", "one of adam, adamw"),
        ("schedule=linear", "one of cosine, step"),
        ("losses=circle", "one of both, cross_entropy, triplet"),
        ("precision=fp8", "one of fp32, bf16, fp16"),
        ("attention=cross", "one of none, spatial, self"),
        ("group=camera_id", "one of identity, camera"),
        ("compile=1", "compile is true or false"),
        ("eval_every=-1", "from 0 to"),
        ("embedding_dim=9000", "from 0 to 8192"),
        ("calibration_identities=1", "two identities or more"),
        ("recombined=4", "recombined is 4: less than shots (.4.) is needed"),
        ("stretch=1", "from 0 to 0.9"),
        ("instance_norms=5", "from 0 to 4"),
    ],
)
def test_bad_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config("smoke", overrides=[override])


def test_times_that_do_not_fit_are_told_at_once_with_what_to_add() -> None:
    asked = ["epochs=3", "warmup_epochs=5", "half_size_epochs=4", "height=64", "width=64"]
    with pytest.raises(Misfit) as told:
        build_config("smoke", overrides=asked)
    problems, _, options = str(told.value).partition(": add ")
    assert "warmup_epochs is 5.0: less than epochs (3)" in problems
    assert "half_size_epochs is 4: less than epochs (3)" in problems
    added = [word for word in options.split() if word != "--set"]
    assert build_config("smoke", overrides=[*asked, *added]) == told.value.mended


FROZEN = ("frozen_stages=5", "attention=none", "losses=triplet")


def test_something_must_be_left_to_learn() -> None:
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        build_config("smoke", overrides=FROZEN)
    # A later override wins.
    for more in ("frozen_stages=4", "attention=spatial", "losses=both", "embedding_dim=8", "distillation=1"):
        build_config("smoke", overrides=[*FROZEN, more])


def test_the_paper_is_section_4_2() -> None:
    """Batches of 32, Adam at 3e-4, a tenth every 100 of 800 epochs; the readings of docs/reproduction.md."""
    paper = build_config("paper")
    assert (paper.height, paper.width, paper.last_stride, paper.bnneck) == (256, 128, 2, False)
    assert (paper.identities * paper.shots, paper.epoch, paper.epochs, paper.warmup_epochs) == (
        32,
        "identities",
        800,
        0,
    )
    assert (paper.optimizer, paper.learning_rate, paper.weight_decay) == ("adam", 3e-4, 5e-4)
    assert (paper.schedule, paper.step_epochs, paper.step_factor) == ("step", 100, 0.1)
    assert (paper.losses, paper.margin, paper.soft_margin, paper.label_smoothing) == ("both", 0.3, False, 0.1)
    assert (paper.attention, paper.attention_scores, paper.value_reduction) == ("self", "softmax", 1)
    assert (paper.erasing, paper.vertical_flip, paper.ema, paper.calibration_identities) == (0, 0, 0, 0)


def test_every_number_has_a_range() -> None:
    numbers = {name for name, hint in get_type_hints(Config).items() if hint in (int, float)}
    assert numbers == set(RANGES)


def test_bad_preset_and_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preset"):
        build_config("huge")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml is no TOML"):
        build_config("smoke", tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("epochs = 3", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"bad\.toml is no text in UTF-8: save it as UTF-8"):
        build_config("smoke", tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text(f"margin = {'9' * 5000}")
    with pytest.raises(ConfigError, match=r"bad\.toml is no TOML: "):
        build_config("smoke", tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read: No such file"):
        build_config("smoke", tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("line", "override", "alone"),
    [
        ("relations = 100.0", "distillation=20", "relations goes with distillation"),
        ("recombined = 4", "shots=8", "recombined is 4: less than shots"),
        ("half_size_epochs = 2", "width=64", "half_size_epochs needs a height and width of 64"),
        ('frozen_stages = 5\nattention = "none"\nlosses = "triplet"', "embedding_dim=8", "nothing is left to learn"),
    ],
)
def test_a_file_need_not_fit_by_itself(tmp_path: Path, line: str, override: str, alone: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(line)
    settings = line.replace(" = ", "=").splitlines()
    assert build_config("smoke", file, [override]) == build_config("smoke", overrides=[*settings, override])
    with pytest.raises(ConfigError, match=alone):
        build_config("smoke", file)
    file.write_text(f"{line}\ncalibration_identities = 1")  # which nothing else could mend
    with pytest.raises(ConfigError, match=r"own\.toml: calibration_identities is 1"):
        build_config("smoke", file, [override])


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("epochs = 7", encoding="utf-8-sig")
    assert build_config("smoke", tmp_path / "own.toml").epochs == 7


def test_the_file_of_an_unknown_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("epchs = 3")
    with pytest.raises(ConfigError, match=r"own\.toml: no setting is called 'epchs'; did you mean epochs\?"):
        build_config("smoke", file)
    file.write_text("epochs = 3")  # less than the warm-up of the defaults, not of the preset
    assert build_config("smoke", file).epochs == 3
