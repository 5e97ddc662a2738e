from __future__ import annotations

import torch

from tests.training.loop.tiny import build_batch, build_state, same, tiny
from training.loop.engine import train_step

DECAY = 0.75


def test_the_mean_follows_weights_and_statistics() -> None:
    state = build_state(tiny(f"ema={DECAY}"))
    expected = {name: tensor.double() for name, tensor in state.learner.network.state_dict().items()}
    state.learner.train()
    for seed in (1, 2, 3):
        train_step(state, build_batch(seed))
        for name, tensor in state.learner.network.state_dict().items():
            counter = not tensor.is_floating_point()
            expected[name] = tensor.double() if counter else DECAY * expected[name] + (1 - DECAY) * tensor.double()
    kept = state.kept.state_dict()
    assert kept.keys() == expected.keys()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)
    assert not same(kept, state.learner.network.state_dict())


def test_training_is_not_touched() -> None:
    trained = []
    for decay in (0, DECAY):
        state = build_state(tiny(f"ema={decay}"))
        state.learner.train()
        train_step(state, build_batch())
        trained.append(state.learner.network.state_dict())
    assert same(*trained)


def test_the_mean_does_not_learn_by_itself() -> None:
    state = build_state(tiny(f"ema={DECAY}"))
    state.learner.train()
    assert not state.kept.training
    assert not any(parameter.requires_grad for parameter in state.kept.parameters())
    learnt = {id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]}
    assert not any(id(parameter) in learnt for parameter in state.kept.parameters())


def test_without_it_the_trained_network_is_kept() -> None:
    state = build_state(tiny())
    assert state.kept is state.learner.network
    assert state.state_dict()["raw"] is None
