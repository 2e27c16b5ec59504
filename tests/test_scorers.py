"""Scorers: whom they choose, and whom they refuse."""

import shutil

import numpy as np
import pytest
import torch
import toy

from robolearn import checkpoint, cli
from robolearn.agent import PolicyAgent
from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.fit import fit
from robolearn.options import FitConfig
from robolearn.policies.base import Chunks, Context
from robolearn.policies.configs import KnnConfig, MahalanobisConfig, RndConfig, TacoConfig
from robolearn.policies.scorers import (
    UNFITTED,
    VERIFIERS,
    Blend,
    MedoidScorer,
    RandomScorer,
    ResidualScorer,
    open_scorer,
    scorer_fingerprints,
    taught_type,
)
from robolearn.policies.verifier import demonstrated_features
from robolearn.seeding import stream
from robolearn.sources import source_of

FEATURES = 6
CONFIGS = {
    "taco": TacoConfig(fourier=128, flips=64),
    "knn": KnnConfig(),
    "mahalanobis": MahalanobisConfig(),
    "rnd": RndConfig(steps=300, hidden=32, outputs=16),
}
EMPTY = Context(torch.zeros(2, 1, 1), torch.zeros(2, 3))


def noise(seed=0):
    return [stream(seed, name) for name in "ab"]


def chunks_at(values):
    """Candidates (2, n, 1, 1) with these values."""
    actions = torch.tensor(values, dtype=torch.float32)[..., None, None]
    return Chunks(actions, torch.zeros(*actions.shape[:2], FEATURES))


def fitted(kind, seed=0):
    """A verifier of features around zero."""
    torch.manual_seed(seed)
    verifier = taught_type(kind)(CONFIGS[kind], FEATURES, "base")
    shown = np.random.default_rng(seed).normal(size=(600, FEATURES)).astype(np.float32)
    figures = verifier.fit(torch.from_numpy(shown), stream(seed, "fit"))
    assert figures["features"] == 600
    return verifier.eval()


class Spread:
    """A policy that knows no more than how far its joints spread."""

    def __init__(self, *spread):
        self.spread = torch.tensor(spread or (1.0,))


def test_the_medoid_is_the_candidate_in_the_middle():
    scores = MedoidScorer(Spread()).score(EMPTY, chunks_at([[0, 5, 1], [9, 3, 4]]), noise())
    assert scores.argmax(1).tolist() == [2, 2]


def test_distances_are_in_units_of_the_joints_spread():
    """By the first joint alone, which hardly moved, candidate 1 is in the middle."""
    actions = torch.tensor([[0.0, 1.0], [0.01, 3.0], [0.04, 2.0]])
    chunks = Chunks(actions[None, :, None], torch.zeros(1, 3, FEATURES))
    chosen = [
        int(MedoidScorer(Spread(*spread)).score(EMPTY, chunks, noise())[0].argmax())
        for spread in ((1.0, 1.0), (0.01, 10.0))
    ]
    assert chosen == [2, 1]


@pytest.mark.parametrize("kind", [MedoidScorer, ResidualScorer])
def test_only_executed_steps_count(kind, base):
    policy = load_policy(base)
    with torch.inference_mode():
        context = policy.encode(toy.observations(2), ["go"] * 2)
        chunks = policy.sample(context, 5, noise())
        executed = kind(policy, slice(1, 3))
        before = executed.score(context, chunks, noise(1))
        if kind is MedoidScorer:
            chunks.actions[:, :, [0, 3]] = torch.randn(2, 5, 2, 3)
        else:
            policy.refine = restoring_all_but(policy.refine, [0, 3])
        after = executed.score(context, chunks, noise(1))
        whole = kind(policy).score(context, chunks, noise(1))
    assert torch.equal(before, after)
    assert not torch.allclose(after, whole)


def restoring_all_but(refine, steps):
    """A `refine` that changes these steps beyond recognition."""

    def refined(context, actions, noise, level):
        chunks = refine(context, actions, noise, level)
        chunks.actions[:, :, steps] = 100.0
        return chunks

    return refined


def test_policies_know_how_far_demonstrations_spread(toy_run, toy_data):
    recorded = EpisodeDataset(toy_data).columns["agent_pos"].std(0)
    np.testing.assert_allclose(load_policy(toy_run).spread, recorded, rtol=1e-3)


def test_a_random_choice_belongs_to_the_noise():
    chunks = chunks_at([[0] * 50, [0] * 50])
    one, again, other = (RandomScorer(None).score(EMPTY, chunks, noise(s)) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one[0].argmax() != one[1].argmax()


def test_the_residual_prefers_what_the_policy_would_not_change():
    class Stubborn:
        """Restores every chunk to 1."""

        spread = torch.ones(1)

        def refine(self, context, actions, noise, level):
            del context, noise, level
            return Chunks(torch.ones_like(actions), torch.zeros(0))

    scores = ResidualScorer(Stubborn()).score(EMPTY, chunks_at([[0, 1, 3], [4, 1.5, 0]]), noise())
    assert scores.argmax(1).tolist() == [1, 1]
    torch.testing.assert_close(scores[0], torch.tensor([-1.0, 0.0, -4.0]))


@pytest.mark.parametrize("kind", VERIFIERS)
def test_a_verifier_prefers_what_was_shown(kind):
    verifier = fitted(kind)
    features = torch.randn(2, 8, FEATURES, generator=torch.Generator().manual_seed(1))
    features[0, 1:] = 6.0 + features[0, 1:]
    features[1, :7] = -6.0 + features[1, :7]
    with torch.inference_mode():
        scores = verifier.score(EMPTY, Chunks(torch.zeros(2, 8, 1, 1), features), noise())
    assert scores.shape == (2, 8)
    assert scores.argmax(1).tolist() == [0, 7]
    with torch.inference_mode():
        half = verifier.score(EMPTY, Chunks(torch.zeros(2, 8, 1, 1), features.bfloat16()), noise())
    assert half.isfinite().all()


@pytest.mark.parametrize("kind", VERIFIERS)
def test_a_saved_verifier_rates_as_before(kind, tmp_path):
    verifier = fitted(kind)
    verifier.save(tmp_path / "v")
    loaded = taught_type(kind).load(tmp_path / "v")
    features = torch.randn(20, FEATURES)
    with torch.inference_mode():
        assert torch.equal(loaded.rate(features), verifier.rate(features))
    assert (loaded.config, loaded.base, loaded.size) == (verifier.config, "base", FEATURES)


def test_features_that_cannot_be_rated():
    verifier = fitted("mahalanobis")
    with pytest.raises(ValueError, match="rates 6 features, and the policy gives 5; fit one"):
        verifier.score(EMPTY, Chunks(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 5)), noise())
    features = torch.zeros(2, 3, FEATURES)
    features[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match="features are not finite"):
        verifier.score(EMPTY, Chunks(torch.zeros(2, 3, 1, 1), features), noise())


class Echo:
    """A policy whose query k moves the shown chunk by `shifts[k]`; its feature is k."""

    horizon, device, cameras = 4, torch.device("cpu"), {}

    def __init__(self, *shifts):
        self.shifts = torch.tensor(shifts)

    def windows(self, dataset):
        return dataset.windows(self.horizon)

    def encode(self, batch, instructions):
        return Context(torch.zeros(len(instructions), 1, 1), batch["agent_pos"])

    def sample(self, context, n, noise):
        return Chunks(torch.full((len(noise), n, 4, 3), 7.0), torch.zeros(len(noise), n, 2))

    def refine(self, context, actions, noise, level):
        self.shown = actions
        assert (len(noise), level) == (len(actions), 0.25)
        moved = actions + self.shifts[None, :, :, None]
        which = torch.arange(len(self.shifts), dtype=torch.float32)
        return Chunks(moved, which[None, :, None].expand(len(actions), -1, 2))


def search(dataset, policy, frames, executed=4):
    found = demonstrated_features(
        policy, dataset, np.array(frames), queries=3, level=0.25, executed=executed
    )
    return found[:, 0].tolist()


def test_the_search_takes_the_query_that_came_nearest(toy_data):
    dataset = EpisodeDataset(toy_data)
    exact = Echo([0.1] * 4, [0.0] * 4, [0.2] * 4)
    assert search(dataset, exact, range(len(dataset))) == [1.0] * len(dataset)
    late = Echo([0.0, 0.0, 0.3, 0.3], [0.1, 0.1, 0.1, 0.1], [9.0] * 4)
    assert search(dataset, late, [0], executed=2) == [0.0]
    assert search(dataset, late, [0], executed=4) == [1.0]
    last = int(dataset.episodes.length[0]) - 1  # only its first step lies inside the episode
    assert search(dataset, late, [last], executed=4) == [0.0]
    assert (late.shown[0, :, 1:] == 7).all()  # beyond the end, as the policy would go on
    assert (late.shown[0, :, 0] != 7).all()


@pytest.fixture(scope="module")
def base(toy_run, tmp_path_factory):
    """A run of our own, to put verifiers into."""
    folder = tmp_path_factory.mktemp("base") / "model"
    load_policy(toy_run).save(folder)
    return folder


@pytest.mark.parametrize("kind", VERIFIERS)
def test_fitting_choosing_and_acting(kind, base, toy_data, tmp_path, capsys):
    out = tmp_path / kind
    command = f"train --policy {kind} --base {base} --data {toy_data} --out {out}"
    quick = ["--policy.steps", "20"] if hasattr(CONFIGS[kind], "steps") else []
    assert cli.main([*command.split(), *quick]) == 0
    assert f"--scorer {out}" in capsys.readouterr().out
    policy = load_policy(base)
    scorer = open_scorer(str(out), policy, source_of(base))
    agent = PolicyAgent(policy, candidates=4, scorer=scorer)
    agent.reset(0, 1, "go up to the red dot")
    seen = {k: v.numpy() for k, v in toy.observations(1).items() if k != "pixels"}
    seen["pixels"] = {k: v.numpy() for k, v in toy.observations(1)["pixels"].items()}
    assert agent.act(seen).shape == (1, 3)
    with pytest.raises(FileExistsError, match="holds something already; remove it"):
        fit(FitConfig(base, toy_data, out, CONFIGS[kind]))
    toy.tiny_policy(seed=9).save(tmp_path / "other")
    with pytest.raises(CheckpointError, match=f"this {kind} was fitted to another policy"):
        open_scorer(str(out), policy, source_of(tmp_path / "other"))


@pytest.mark.parametrize("name", UNFITTED)
def test_scorers_that_need_no_fitting(name, base):
    policy = load_policy(base)
    with torch.inference_mode():
        context = policy.encode(toy.observations(2), ["go"] * 2)
        chunks = policy.sample(context, 5, noise())
        scores = open_scorer(name, policy, source_of(base)).score(context, chunks, noise(1))
    assert scores.shape == (2, 5)
    assert scores.isfinite().all()


def test_one_candidate_is_the_plain_policy(base):
    policy = load_policy(base)
    seen = {k: v.numpy() for k, v in toy.observations(1).items() if k != "pixels"}
    seen["pixels"] = {k: v.numpy() for k, v in toy.observations(1)["pixels"].items()}
    played = []
    for scorer in (None, MedoidScorer(policy)):
        agent = PolicyAgent(policy, candidates=1, scorer=scorer)
        agent.reset(0, 3, "go up to the red dot")
        played.append(np.stack([agent.act(seen) for _ in range(9)]))
    np.testing.assert_array_equal(*played)


def test_scorers_that_are_not_there(base, tmp_path):
    policy = load_policy(base)
    with pytest.raises(CheckpointError, match="no scorer 'taco' .*fit one with: robolearn train"):
        open_scorer("taco", policy, source_of(base))
    with pytest.raises(CheckpointError, match="no scorer 'meoid' .*known are random, medoid"):
        open_scorer("meoid", policy, source_of(base))
    with pytest.raises(CheckpointError, match="holds a flow policy, which rates no candidates"):
        open_scorer(str(base), policy, source_of(base))


def test_a_verifier_stays_in_the_run_of_its_policy(toy_run, toy_data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    out = fit(FitConfig(run, toy_data, policy=MahalanobisConfig()))
    assert out == run / "mahalanobis"
    assert open_scorer(
        "mahalanobis", load_policy(run), source_of(run)
    ).base == checkpoint.fingerprint(run)


def test_a_verifier_that_was_fitted_again_is_another_scorer(toy_run, toy_data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    place = fit(FitConfig(run, toy_data, policy=MahalanobisConfig()))
    first = scorer_fingerprints("mahalanobis", source_of(run))
    assert first == scorer_fingerprints(f"medoid+{place}", source_of(run))
    assert scorer_fingerprints("", source_of(run)) == []
    shutil.rmtree(place)
    fit(FitConfig(run, toy_data, policy=MahalanobisConfig(ridge=0.5)))
    assert scorer_fingerprints("mahalanobis", source_of(run)) != first


def test_a_run_is_never_replaced_by_its_verifier(toy_run, toy_data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    with pytest.raises(FileExistsError, match="holds something already; remove it or choose anoth"):
        fit(FitConfig(run, toy_data, out=run))
    assert (run / "config.json").exists()


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("knn", {"neighbours": 0}, "neighbours is 0; it must be at least 1"),
        ("taco", {"flips": 0}, "flips is 0; it must be at least 1"),
        ("taco", {"ridge": -1.0}, "ridge is -1.0; it must not be negative"),
        ("mahalanobis", {"ridge": 0.0}, "ridge is 0.0; it must be more than 0"),
        ("rnd", {"steps": 0}, "steps is 0; it must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        type(CONFIGS[kind])(**settings)


def test_data_that_the_policy_cannot_look_at(base, toy_data, tmp_path):
    toy.tiny_policy(cameras={"front": toy.SIZE}).save(tmp_path / "front")
    toy.tiny_policy(cameras={}, state=5).save(tmp_path / "state")
    with pytest.raises(CheckpointError, match="trained on camera 'front' at 12x16"):
        fit(FitConfig(tmp_path / "front", toy_data, tmp_path / "v"))
    with pytest.raises(CheckpointError, match="looks at the simulator's state, 5 numbers"):
        fit(FitConfig(tmp_path / "state", toy_data, tmp_path / "v"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"queries": 0}, "queries is 0; it must be at least 1"),
        ({"noise": 1.5}, "noise is 1.5; give a share from 0 to 1"),
        ({"frames": 3}, "3 frames are too few"),
        ({"data": None}, "does not say what it was trained on; give --data FOLDER"),
    ],
)
def test_fits_that_cannot_be(base, toy_data, tmp_path, settings, words):
    with pytest.raises(ValueError, match=words):
        fit(FitConfig(**{"base": base, "data": toy_data, "out": tmp_path / "v", **settings}))


def test_a_blend_gives_each_scorer_the_same_say(base):
    policy = load_policy(base)
    with torch.inference_mode():
        context = policy.encode(toy.observations(2), ["go"] * 2)
        chunks = policy.sample(context, 6, noise())

        def scores(name):
            scorer = open_scorer(name, policy, source_of(base))
            return scorer.score(context, chunks, noise(1))

        medoid, residual = scores("medoid"), scores("residual")
        both = scores("medoid+residual")
        huge = Blend([Scaled(1e6), Scaled(1.0)]).score(context, chunks, noise(1))
    torch.testing.assert_close(both, standardised(medoid) + standardised(residual))
    torch.testing.assert_close(huge, 2.0 * standardised(huge))


class Scaled:
    """Prefers later candidates, by more or by less."""

    def __init__(self, size):
        self.size = size

    def score(self, context, chunks, noise):
        return self.size * torch.arange(6.0).expand(2, -1)


def standardised(score):
    return (score - score.mean(1, keepdim=True)) / score.std(1, correction=0, keepdim=True)
