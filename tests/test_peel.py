"""envs/peel.py: how peeling is graded, what is noted of it, how the expert does it."""

import mujoco
import numpy as np
import pytest

from robolearn.agent import ExpertAgent
from robolearn.contract import Info
from robolearn.envs import peel
from robolearn.envs.peel import PHRASES, STRIPS, Peel, force_error
from robolearn.envs.task import State
from robolearn.options import EvalConfig
from robolearn.outcomes import row_of, summarise
from robolearn.registry import make_env
from robolearn.rollout import rollout
from robolearn.seeding import stream
from robolearn.workers import make_vector

ENV_ID = "robolearn/Peel-v0"
FORCE = 1.2
WANTED = {"instruction": "peel the vegetable, pressing with 1.2 N"}


@pytest.fixture(scope="module")
def env():
    return Peel(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Ten episodes of the expert: (info, quality, strips that are hidden) of every step."""
    env = make_env(ENV_ID, obs_type="state")
    return [demonstrate(env, seed) for seed in range(10)]


def demonstrate(env, seed):
    env.reset(seed=seed)
    task, steps = env.unwrapped, []
    for action in task.expert(stream(seed, "expert")):
        *_, terminated, truncated, info = env.step(action)
        quality = info["grade/quality"]
        steps.append((info, quality, int((task.data.mocap_pos[1:, 2] < 0).sum())))
        if terminated or truncated:
            break
    return steps


def copies(env, n):
    """The running simulation n times, writable, and its goal."""
    state = State(*(np.repeat(part, n, axis=0) for part in env.state))
    return state, np.repeat(env.goal[None], n, axis=0)


def peeled(env, n, error=0.0, gouges=0.0, strips=STRIPS):
    """n simulations with so many strips off, and noted errors and gouges."""
    state, goal = copies(env, n)
    state.userdata[:, peel.OFF] = np.arange(STRIPS) < np.reshape(strips, (-1, 1))
    state.userdata[:, peel.ERROR] = np.asarray(error) * strips
    state.userdata[:, peel.COUNT] = gouges
    peel.grade(state.userdata)
    return state, goal


def touch(env, along, force, aside=0.0, n=1):
    """n simulations whose blade presses so hard at a place of the vegetable."""
    state, goal = copies(env, n)
    press(state, along, force, aside)
    return state, goal


def press(state, along, force, aside=0.0):
    """Moves the blade in the sensor data of some simulations."""
    state.sensordata[:, peel.ALONG] = along
    state.sensordata[:, peel.ASIDE] = aside
    state.sensordata[:, peel.PRESSURE] = force


def test_the_expert_solves_it(demonstrations):
    assert sum(steps[-1][0][Info.IS_SUCCESS] for steps in demonstrations) >= 9


def test_progress_grows_and_the_peel_disappears(demonstrations):
    for steps in demonstrations:
        progress = [info[Info.PROGRESS] for info, _, _ in steps]
        assert progress[0] == 0.0
        if steps[-1][0][Info.IS_SUCCESS]:
            assert steps[-1][1] >= peel.GOOD
            assert [hidden for *_, hidden in steps][:: len(steps) - 1] == [0, STRIPS]
            middle = next(k for k, (*_, hidden) in enumerate(steps) if hidden >= STRIPS / 2)
            assert 0.3 < progress[middle] < 0.7


def test_quality_is_monotone_in_each_term(env):
    env.reset(seed=0, options=WANTED)
    falls = [
        peeled(env, STRIPS, strips=np.arange(STRIPS, 0, -1), error=0.1, gouges=1.0),
        peeled(env, 11, error=np.linspace(0, 1, 11), gouges=1.0),
        peeled(env, 5, error=0.1, gouges=np.arange(5.0)),
    ]
    for term, (state, _) in zip(("coverage", "force_error", "gouges"), falls, strict=True):
        terms = env.grades(state)
        quality = terms.pop("quality")
        assert (np.diff(quality) < 0).all()
        assert np.ptp(terms.pop(term)) > 0
        assert all(np.ptp(other) < 1e-9 for other in terms.values())
        assert quality.min() >= 0.0
        assert quality.max() <= 1.0


def test_results_tell_how_well_it_was_peeled():
    env = make_vector(ENV_ID, 1, obs_type="state", quality=0.0)
    config = EvalConfig(policy="expert", env=ENV_ID)
    rows = [
        {**row_of(episode), "agent_instruction": episode.instruction, "latencies_ms": [1.0]}
        for episode in rollout(env, ExpertAgent(env), [0, 1])
    ]
    result = summarise(config, rows, seconds=1.0)
    qualities = [row["grades"]["quality"] for row in result["episodes"]]
    assert result["grades"]["quality"] == pytest.approx(np.mean(qualities))
    assert peel.GOOD <= min(qualities) < max(qualities)


def test_success_needs_all_strips_and_quality(env):
    env.reset(seed=0, options=WANTED)
    worst = 1.0 - peel.GOOD
    for options, done in [
        ({}, True),
        ({"strips": STRIPS - 1}, False),
        ({"error": worst - 0.01}, True),
        ({"error": worst + 0.01}, False),
        ({"gouges": 1.0}, True),
        ({"gouges": 2.0}, False),
    ]:
        (holds,), (progress,) = env.evaluate(*peeled(env, 1, **options))
        assert (holds, progress == 1.0) == (done, done), options


def test_a_strip_comes_off_where_the_blade_cuts(env):
    env.reset(seed=0, options=WANTED)
    a, b = env._strips[[3, 5]] + [-0.001, 0.001]
    for force, aside, off in [
        (FORCE, 0.0, 3),
        (FORCE, 1.2 * peel.STRIP_WIDTH, 0),  # beside the path
        (0.9 * peel.CUTS, 0.0, 0),  # too light
        (0.0, 0.0, 0),  # above it
    ]:
        state, goal = touch(env, a, force, aside)
        env.remember(state, goal)
        press(state, b, force, aside)
        env.remember(state, goal)
        assert state.userdata[0, peel.OFF].sum() == off, (force, aside)
        assert (state.mocap_pos[0, 1:, 2] < 0).sum() == off


def test_a_blade_that_was_lifted_cuts_nothing_between(env):
    env.reset(seed=0, options=WANTED)
    state, goal = touch(env, env._strips[0], FORCE)
    for along, force in [(0, FORCE), (5, 0.0), (9, FORCE)]:
        press(state, env._strips[along], force)
        env.remember(state, goal)
    assert state.userdata[0, peel.OFF].sum() == 0


def test_the_force_is_judged_once_and_gouges_are_counted_once(env):
    env.reset(seed=0, options=WANTED)
    deep = 1.1 * peel.GOUGES * FORCE
    state, goal = touch(env, env._strips[0] - 0.001, FORCE)
    way = [(0, deep), (1, deep), (0, FORCE), (1, FORCE), (0, FORCE), (1, deep)]
    env.remember(state, goal)
    for strip, force in way:
        press(state, env._strips[strip] + 0.001, force)
        env.remember(state, goal)
    grades = {name: float(value[0]) for name, value in env.grades(state).items()}
    worth = 2 / STRIPS * (1 - 1.0) * (1 - 2 * peel.GOUGE_COSTS)
    assert grades == {"coverage": 2 / STRIPS, "force_error": 1.0, "gouges": 2.0, "quality": worth}


def test_the_band_of_the_force():
    forces = FORCE + np.array([-2, -1.01, -0.99, 0, 0.99, 1.01, 1.5, 2]) * peel.BAND
    error = force_error(forces, np.full(8, FORCE))
    np.testing.assert_allclose(error, [1, 0.01, 0, 0, 0, 0.01, 0.5, 1], atol=1e-9)


def test_a_force_out_of_reach_is_refused_with_the_range(env):
    for force in ("0.3", "5"):
        with pytest.raises(ValueError, match=r"0\.7 to 2"):
            env.reset(options={"instruction": f"peel a strip with a force of {force} N"})
    novel = {goal[0] for goal in PHRASES.all("train", "novel_state").values()}
    assert not novel & {goal[0] for goal in PHRASES.all("train", "train").values()}


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    env.reset(seed=3, options=WANTED)
    batch, goals = peeled(env, 6, error=np.linspace(0, 0.5, 6), strips=STRIPS - np.arange(6) % 2)
    press(batch, env._strips[-1], np.linspace(0.0, 3.0, 6))
    rows = [State(*(part[i : i + 1].copy() for part in batch)) for i in range(6)]
    env.remember(batch, goals)
    success, progress = env.evaluate(batch, goals)
    assert 0 < success.sum() < 6
    for i, row in enumerate(rows):
        env.remember(row, goals[i : i + 1])
        alone = env.evaluate(row, goals[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
        np.testing.assert_array_equal(row.userdata[0], batch.userdata[i])
        np.testing.assert_array_equal(
            env.environment_state(batch, goals)[i], env.environment_state(row, goals[i : i + 1])[0]
        )


@pytest.mark.parametrize("split", ["train", "novel_object"])
def test_the_blade_is_clear_of_the_vegetable_at_the_start(split):
    env = Peel(obs_type="state", split=split)
    model, thing = env.model, env.model.body("vegetable").id
    arm = np.flatnonzero(model.geom_contype == 2)
    own = np.flatnonzero((model.geom_bodyid == thing) & (model.geom_contype == 1))
    for seed in range(60):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(model, env.data, a, b, 0.05, None) for a in arm for b in own]
        assert min(gaps) > 0.002, seed


def test_the_goal_picture_is_the_end_of_an_episode(env):
    start = env.draw(4, None)
    goal = env.goal_scene(start)
    assert (start.mocap_pos[:, 2] > 0).all()
    assert (goal.mocap_pos[1:, 2] < 0).all()
    np.testing.assert_array_equal(goal.mocap_pos[0], start.mocap_pos[0])
