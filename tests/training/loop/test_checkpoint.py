from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.loop.tiny import CLASSES, build_batch, build_state, same, tiny, weights_of
from training.config import Config
from training.loop import checkpoint
from training.loop.engine import train_step
from training.loop.files import NotWritten
from training.loop.state import State
from training.network.stored import read_checkpoint


def provenance(config: Config) -> dict[str, Any]:
    return {
        "config": config.to_dict(),
        "classes": CLASSES,
        "initialisation": "drawn",
        "teacher": "none",
        "data": {"name": "drawn", "sha256": "0" * 64},
        "environments": [],
    }


def trained(config: Config) -> State:
    state = build_state(config)
    state.learner.train()
    for seed in (1, 2):
        train_step(state, build_batch(seed))
    return state


@pytest.mark.parametrize("settings", [(), ("ema=0.9",), ("optimizer=adam", "distillation=2", "ema=0.5")])
def test_a_state_is_taken_up_to_the_bit(settings: tuple[str, ...], tmp_path: Path) -> None:
    config = tiny(*settings)
    whole = trained(config)
    checkpoint.save(tmp_path, whole, 1, provenance(config))
    resumed = build_state(config)
    assert checkpoint.resume(read_checkpoint(tmp_path / checkpoint.LATEST), resumed) == 1
    resumed.learner.train()
    assert train_step(whole, build_batch(3)) == train_step(resumed, build_batch(3))
    assert same(dict(whole.learner.state_dict()), dict(resumed.learner.state_dict()))
    assert same(whole.kept.state_dict(), resumed.kept.state_dict())


def test_model_is_the_mean_and_raw_what_is_trained(tmp_path: Path) -> None:
    config = tiny("ema=0.9")
    state = trained(config)
    checkpoint.save(tmp_path, state, 1, provenance(config))
    assert same(weights_of(tmp_path), state.kept.state_dict())
    assert same(weights_of(tmp_path, "raw"), state.learner.network.state_dict())
    assert not same(weights_of(tmp_path), weights_of(tmp_path, "raw"))


def test_the_gradient_scale_is_taken_up(tmp_path: Path) -> None:
    config = tiny()
    state, resumed = build_state(config), build_state(config)
    state.scaler, resumed.scaler = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (8.0, 2.0))
    train_step(state, build_batch())
    checkpoint.save(tmp_path, state, 1, provenance(config))
    checkpoint.resume(read_checkpoint(tmp_path / checkpoint.LATEST), resumed)
    assert resumed.scaler.state_dict() == state.scaler.state_dict()
    assert resumed.scaler.get_scale() == 8.0


def test_a_checkpoint_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    config = tiny()
    checkpoint.save(tmp_path, trained(config), 3, provenance(config))
    state = torch.load(tmp_path / checkpoint.LATEST, weights_only=True)
    settings = {"layers", "base_width", "epochs", "height", "width", "identities", "shots", "last_stride", "precision"}
    settings |= {"value_reduction", "warmup_epochs", "learning_rate", "fresh_factor", "erasing"}
    early = {key: value for key, value in state.items() if key not in ("raw", "scaler")}
    early["config"] = {key: value for key, value in state["config"].items() if key in settings}
    torch.save(early, tmp_path / "early.pt")
    found = read_checkpoint(tmp_path / "early.pt")
    checkpoint.check_same_run(found, provenance(config))
    assert checkpoint.resume(found, build_state(config)) == 3


def test_one_that_was_stripped_is_not(tmp_path: Path) -> None:
    config = tiny()
    checkpoint.save(tmp_path, build_state(config), 1, provenance(config))
    state = torch.load(tmp_path / checkpoint.LATEST, weights_only=True)
    del state["optimizer"]
    torch.save(state, tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"small\.pt cannot be continued: it has no optimizer"):
        checkpoint.resume(read_checkpoint(tmp_path / "small.pt"), build_state(config))


@pytest.mark.parametrize("optimizer", [{}, {"state": {}, "param_groups": []}, None, "adam"])
def test_another_optimisers_state_is_not_taken_up(optimizer: object, tmp_path: Path) -> None:
    config = tiny()
    checkpoint.save(tmp_path, build_state(config), 1, provenance(config))
    state = torch.load(tmp_path / checkpoint.LATEST, weights_only=True)
    torch.save({**state, "optimizer": optimizer}, tmp_path / "forged.pt")
    with pytest.raises(ValueError, match=r"forged\.pt cannot be continued: its state is not of these settings"):
        checkpoint.resume(read_checkpoint(tmp_path / "forged.pt"), build_state(config))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", 5, "classes=4, not 5"),
        ("initialisation", "weights.pt", "initialisation='drawn', not 'weights.pt'"),
        ("teacher", "a.npy", "teacher='none', not 'a.npy'"),
        ("teacher", f"a.npy (sha256 {'0' * 16})", "teacher='none', not 'a.npy"),
        ("data", {"name": "drawn", "sha256": "1" * 64}, "data.sha256='0+', not '1+'"),
        ("data", {"sha256": "0" * 64, "train": {"images": 3}}, "data.train.images=None, not 3"),
        ("config", tiny("margin=0.5").to_dict(), r"margin=0\.3, not 0\.5"),
    ],
)
def test_another_run_is_not_continued(key: str, value: object, message: str, tmp_path: Path) -> None:
    own = provenance(tiny())
    checkpoint.save(tmp_path, build_state(tiny()), 1, own)
    found = read_checkpoint(tmp_path / checkpoint.LATEST)
    # A picture less to measure with, and another name: what is learnt is the same.
    same_train = {"name": "moved", "sha256": "0" * 64, "test_sha256": "2" * 64, "query": {"images": 1}}
    checkpoint.check_same_run(found, own | {"data": same_train})
    with pytest.raises(ValueError, match=message):
        checkpoint.check_same_run(found, own | {key: value})


def test_a_full_disk_takes_no_checkpoint_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    state = trained(config)
    checkpoint.save(tmp_path, state, 1, provenance(config))
    before = {name: tensor.clone() for name, tensor in weights_of(tmp_path).items()}
    train_step(state, build_batch())

    def full_disk(_state: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(NotWritten, match=r"checkpoint\.pt could not be written .*No space.* the earlier one is"):
            checkpoint.save(tmp_path, state, 2, provenance(config))
    assert same(before, weights_of(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.LATEST]
