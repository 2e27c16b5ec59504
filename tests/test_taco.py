"""TACO's counting network: what it reads, what it forgets, what it prefers."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from robolearn.policies.base import Chunks, Context
from robolearn.policies.configs import TacoConfig
from robolearn.policies.taco import RandomFourier, Taco
from robolearn.seeding import stream

FEATURES = 16
# Without a ridge to speak of, it knows its signs by heart, and counts exactly.
EXACT = {"flips": 256, "fourier": 1024, "ridge": 1e-4, "length_scale": 0.7}


def normal(count, seed, size=FEATURES):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def fitted(features, seed=0, **settings):
    torch.manual_seed(seed)
    taco = Taco(TacoConfig(**settings), features.shape[1], "base")
    figures = taco.fit(torch.as_tensor(features), stream(seed, "fit"))
    return taco.eval(), figures


@torch.inference_mode()
def reading(taco, features):
    return taco.reading(torch.as_tensor(features)).numpy()


def groups():
    """20 vectors each that are seen 1, 2, 4, 8, 16 and 64 times, and all of these rows."""
    seen = {n: normal(20, n) for n in (1, 2, 4, 8, 16, 64)}
    return seen, np.concatenate([np.repeat(group, n, axis=0) for n, group in seen.items()])


@pytest.fixture(scope="module")
def counting():
    seen, rows = groups()
    return fitted(rows, **EXACT)[0], seen


def test_what_was_seen_n_times_reads_one_over_n(counting):
    taco, seen = counting
    for n, group in seen.items():
        assert reading(taco, group).mean() * n == pytest.approx(1.0, abs=0.15), n


def test_what_was_never_seen_reads_about_one(counting):
    taco, seen = counting
    new, far = reading(taco, normal(200, 99)), reading(taco, 4.0 * normal(200, 99))
    assert 0.7 < new.mean() < 1.3
    assert 0.8 < far.mean() < 1.3
    assert new.min() > reading(taco, seen[64]).max()


def test_without_the_prior_the_unseen_looks_familiar():
    _, rows = groups()
    bare, _ = fitted(rows, **EXACT, prior=False)
    assert reading(bare, normal(200, 99)).mean() < 0.3


def test_density_is_ranked():
    """A mixture of four Gaussians with weights 1 : 2 : 4 : 8, at equal distances."""
    rng = np.random.default_rng(0)
    centres = 5.0 * np.eye(4, 8)
    which = rng.choice(4, 4000, p=np.array([1, 2, 4, 8]) / 15)
    shown = (centres[which] + 0.5 * rng.normal(size=(4000, 8))).astype(np.float32)
    taco, figures = fitted(shown)
    at_modes = [reading(taco, shown[which == k]).mean() for k in range(4)]
    assert (np.diff(at_modes) < 0).all()
    share = np.linspace(0, 0.2, 30)[:, None]  # from the densest centre four deviations out
    grid = centres[3] + share * np.array([4, 4, 4, 0, 4, 4, 4, 4.0])
    assert spearmanr(reading(taco, grid.astype(np.float32)), share[:, 0]).statistic > 0.9
    assert figures["rank"] > 0.6


def test_the_most_counted_candidate_is_chosen():
    class Counts(Taco):
        """Reads off the first feature."""

        def forward(self, features):
            return features[:, :1]

    taco = Counts(TacoConfig(), 2, "base")
    features = torch.tensor([[[0.5, 0], [0.1, 0], [-0.9, 0]]])
    context = Context(torch.zeros(1, 1, 1), torch.zeros(1, 3))
    scores = taco.score(context, Chunks(torch.zeros(1, 3, 1, 1), features), [])
    assert int(scores[0].argmax()) == 1


def test_the_prior_is_drawn_once():
    torch.manual_seed(0)
    taco = Taco(TacoConfig(fourier=32), FEATURES, "base")
    before = {name: value.clone() for name, value in taco.prior.state_dict().items()}
    taco.fit(torch.as_tensor(normal(300, 0)), stream(0, "fit"))
    assert all(torch.equal(before[name], value) for name, value in taco.prior.state_dict().items())
    assert not list(taco.parameters())


def test_the_prior_has_mean_zero_and_variance_one_everywhere():
    torch.manual_seed(0)
    prior = RandomFourier(FEATURES, 4096)
    for where in (0.0, 3.0, 100.0):
        values = prior(torch.full((1, FEATURES), where), 1.0)
        assert abs(float(values.mean())) < 0.06
        assert float(values.square().mean()) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
def test_features_are_standardised_or_scaled(scale):
    shown = 5.0 + 0.1 * normal(400, 0)
    taco, _ = fitted(shown, fourier=32, scale=scale)
    expected = (shown - shown.mean(0)) / shown.std(0) if not scale else scale * shown
    np.testing.assert_allclose(taco._scaled(torch.as_tensor(shown)), expected, atol=1e-4)


def test_fitting_is_a_matter_of_the_seed():
    shown = normal(200, 0)
    one, again, other = (fitted(shown, seed, fourier=32)[0] for seed in (0, 0, 1))
    probes = normal(20, 5)
    np.testing.assert_array_equal(reading(one, probes), reading(again, probes))
    assert (reading(one, probes) != reading(other, probes)).any()
