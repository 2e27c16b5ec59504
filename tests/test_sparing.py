"""Environments that draw only what is looked at: fewer pictures, and the same episodes."""

from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import toy
from observing import assert_same

from robolearn import filming
from robolearn.agent import PolicyAgent, open_agent
from robolearn.contract import SO101
from robolearn.envs.render import Renderer
from robolearn.evaluate import evaluate, job_of, open_sparing
from robolearn.options import EvalConfig
from robolearn.registry import make_env
from robolearn.workers import whole

ENVS = ("robolearn/Reach-v0", "foreign:strangers:Slider-v0")
STEPS = 7


def seen(env, every):
    """The observations of an episode in which the arm moves."""
    env.unwrapped.draw_every = every
    observation, _ = env.reset(seed=5)
    rng, found = np.random.default_rng(0), [observation]
    for _ in range(STEPS):
        low, high = env.unwrapped.arm.limits
        action = observation["agent_pos"] + 0.1 * rng.uniform(low, high).astype(np.float32)
        observation, *_ = env.step(action)
        found.append(observation)
    return found


@pytest.mark.filterwarnings("ignore:.*infinity")
@pytest.mark.parametrize("env_id", ENVS)
def test_pictures_are_drawn_at_every_so_many_steps_and_shown_again_in_between(env_id):
    with closing(make_env(env_id)) as env:
        full, spared, again = seen(env, 1), seen(env, 3), seen(env, 1)
    for step, (whole_one, one) in enumerate(zip(full, spared, strict=True)):
        assert_same({**one, "pixels": {}}, {**whole_one, "pixels": {}})
        assert_same(one["pixels"], full[step - step % 3]["pixels"])
        assert_same(again[step]["pixels"], whole_one["pixels"])
    (camera, *_) = full[0]["pixels"]
    assert not np.array_equal(full[1]["pixels"][camera], full[0]["pixels"][camera])


def test_what_an_observation_holds_is_its_own():
    with closing(make_env("robolearn/Reach-v0")) as env:
        env.unwrapped.draw_every = 2
        first, _ = env.reset(seed=0)
        before = first["pixels"]["top"].copy()
        second, *_ = env.step(first["agent_pos"])
        second["pixels"]["top"][:] = 0
        third, *_ = env.step(first["agent_pos"])
    np.testing.assert_array_equal(first["pixels"]["top"], before)
    assert third["pixels"]["top"].any()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    policy = toy.tiny_policy(SO101, {"top": (12, 16), "wrist": (12, 16)}, words=("reach",))
    policy.save(folder / "model")
    return folder / "model"


def test_an_evaluation_draws_what_the_policy_looks_at_and_nothing_else_changes(run, monkeypatch):
    config = EvalConfig(
        policy=str(run), env="robolearn/Reach-v0", out=run / "x", replan_every=3, episodes=1
    )
    drawn, episodes = [], []
    plain = Renderer.rgb
    monkeypatch.setattr(Renderer, "rgb", lambda *a: drawn.append(a[-1]) or plain(*a))
    for opened in (open_agent, open_sparing):
        job = replace(job_of(config), actor=partial(opened, config), reduce=whole)
        with closing(job.open()) as worker:
            drawn.clear()
            episodes.append(worker.run(11))
        steps = len(episodes[-1])
        assert len(drawn) == 2 * (1 + (steps if opened is open_agent else steps // 3))
    np.testing.assert_array_equal(episodes[0].action, episodes[1].action)
    np.testing.assert_array_equal(episodes[0].progress, episodes[1].progress)
    assert job_of(config).actor.func is open_sparing
    assert job_of(replace(config, variations={"camera": 1})).actor.func is open_agent


def test_a_film_is_of_every_frame_though_the_episode_was_played_sparingly(
    run, tmp_path, monkeypatch
):
    kept = []
    monkeypatch.setattr(filming, "write_strip", lambda policy, played, path: kept.append(played))
    options = {"policy": str(run), "out": tmp_path / "out", "videos": 1, "workers": 0}
    evaluate(EvalConfig(**options, env="robolearn/Reach-v0", replan_every=4, episodes=1))
    (played,) = kept
    frames = played.observations["pixels/top"].astype(float)
    changes = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert (changes > 0.0).mean() > 0.4  # and not at every fourth step alone


def test_who_averages_decides_ahead_or_remembers_looks_at_every_step():
    policy = toy.tiny_policy()
    every = {
        "plain": PolicyAgent(policy, replan_every=2),
        "averaging": PolicyAgent(policy, replan_every=2, ensemble=0.1),
        "delayed": PolicyAgent(policy, replan_every=2, delay=1),
        "remembering": PolicyAgent(
            toy.tiny_policy(config=replace(toy.TINY, history=2)), replan_every=2
        ),
    }
    looks = {name: agent.looks_every for name, agent in every.items()}
    assert looks == {"plain": 2, "averaging": 1, "delayed": 1, "remembering": 1}
