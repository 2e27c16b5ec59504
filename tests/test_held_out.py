"""Rounds that end when a held-out loss rises: looks, patience, and the weights that are kept."""

import numpy as np
import pytest
import torch
import toy
from torch import nn

from robolearn.dataset import EpisodeDataset
from robolearn.held_out import BATCHES, EVERY, PATIENCE, HeldOut, apart, watched
from robolearn.policies.fitting import minimise


class Line(nn.Module):
    """One weight that moves by one at each update."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(()))
        self.register_buffer("slow", torch.zeros(()))  # a copy that comes after


def ran(losses, updates=1000):
    """How a run ends whose look number k finds losses[k]: the model, and its figures."""
    line, looks = Line(), []

    def loss(number):
        assert not line.training
        assert not torch.is_grad_enabled()
        looks.append(number)
        return torch.tensor(losses[(len(looks) - 1) // BATCHES])

    held_out = HeldOut(line, loss, updates)
    for done in range(1, updates + 1):
        with torch.no_grad():
            line.at += 1.0
            line.slow += 0.5
        if held_out(done):
            break
    return line, held_out.restore(), looks


def test_it_ends_when_the_loss_has_risen_for_some_looks_and_keeps_the_best():
    losses = [1.0, 0.5, 0.7, 0.4, *[0.6] * PATIENCE, 0.1]
    line, figures, looks = ran(losses)
    ended = (3 + PATIENCE) * EVERY
    assert figures == {"updates": ended, "kept": 3 * EVERY, "held_out": pytest.approx(0.4)}
    assert line.at.item() == 3 * EVERY
    assert line.slow.item() == 1.5 * EVERY
    assert looks == [*range(BATCHES)] * (4 + PATIENCE)
    assert line.training


def test_a_loss_that_falls_lets_the_round_be_and_the_last_update_is_looked_at():
    line, figures, _ = ran([1.0, 0.9, 0.8, 0.7], updates=2 * EVERY + 3)
    assert figures["updates"] == figures["kept"] == line.at.item() == 2 * EVERY + 3
    assert figures["held_out"] == pytest.approx(0.7)


def test_where_learning_only_harms_nothing_is_learned():
    line, figures, _ = ran([1.0, *[2.0, float("nan"), 3.0]])
    assert (figures["kept"], line.at.item()) == (0, 0.0)
    assert figures["updates"] == PATIENCE * EVERY


def test_a_loss_that_never_was_a_number_is_an_error():
    with pytest.raises(ValueError, match="held-out rollouts is no number"):
        ran([float("nan")] * (PATIENCE + 1))


def test_teaching_ends_when_it_is_told_to_and_says_what_there_was():
    line, rates = Line(), []

    def loss(step):
        rates.append(step)
        return (line.at - 1.0).square() * (1.0 + 0.0 * step)

    told = []
    losses = minimise(
        line, loss, steps=100, learning_rate=0.1, until=lambda done: told.append(done) or done == 30
    )
    assert rates == [*range(30)]
    assert told == [*range(1, 31)]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert all(np.isfinite(losses))  # means of what there was, and not of what was to come
    assert losses[-1] > 0.0


@pytest.mark.parametrize(
    ("episodes", "share", "held"),
    [(6, 0.0, 0), (6, 0.1, 1), (6, 0.5, 3), (6, 0.99, 5), (1, 0.5, 0)],
)
def test_whole_episodes_are_held_out(toy_data, episodes, share, held):
    from robolearn.subset import Subset

    rollouts = Subset(EpisodeDataset(toy_data), range(episodes))
    taught, away = apart(rollouts, share, np.random.default_rng(0))
    seeds = [*taught.episodes.seed, *(away.episodes.seed if away else [])]
    assert (len(away.episodes) if away else 0) == held
    assert sorted(seeds) == sorted(rollouts.episodes.seed)


def test_which_are_held_out_is_random_and_repeats(toy_data):
    rollouts = EpisodeDataset(toy_data)

    def held(seed):
        away = apart(rollouts, 0.1, np.random.default_rng(seed))[1]
        return int(away.episodes.seed[0])

    assert held(0) == held(0)
    assert len({held(seed) for seed in range(20)}) > 2


def test_a_policy_is_looked_at_with_the_same_noise_every_time(toy_data):
    policy = toy.tiny_policy().train()
    found = []
    loss = type(policy).loss

    class Noted(type(policy)):
        def loss(self, batch, rng):
            assert not batch.keys() & {"reward", "success"}
            value, info = loss(self, batch, rng)
            found.append(float(value))
            return value, info

    policy.__class__ = Noted
    held_out = watched(policy, EpisodeDataset(toy_data), seed=3, updates=EVERY, size=4)
    held_out(EVERY)
    assert found[:BATCHES] == found[BATCHES:]
    assert len(set(found)) == BATCHES
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.1
    held_out(EVERY)
    assert found[-BATCHES:] != found[:BATCHES]
    policy.load_state_dict(before)
    held_out(EVERY)
    assert found[-BATCHES:] == found[:BATCHES]
