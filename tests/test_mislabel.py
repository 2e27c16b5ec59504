"""Wrong labels: another goal is pursued and judged than the one that is told."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from observing import assert_same, flat

from robolearn.contract import Info
from robolearn.registry import make_env, simulated_ids
from robolearn.seeding import stream

CUBES = "robolearn/PickPlace-v0"


def mislabelled(env_id=CUBES, level=4):
    return make_env(env_id, obs_type="state", variations={"label": level})


@pytest.mark.parametrize("env_id", simulated_ids())
def test_the_scene_is_the_same_and_the_goal_another(env_id):
    env, plain = mislabelled(env_id), make_env(env_id, obs_type="state")
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        expected, told = plain.reset(seed=seed)
        assert info[Info.TASK] == told[Info.TASK]
        assert_same(flat(observation), flat(expected))
        pursued = env.unwrapped.task_description
        parse = env.unwrapped.phrases.parse
        assert parse(pursued) != parse(told[Info.TASK])


def test_the_expert_pursues_and_is_judged_by_the_other_goal():
    env = mislabelled()
    for seed in range(4):
        _, info = env.reset(seed=seed)
        told = info[Info.TASK]
        for action in env.unwrapped.expert(stream(seed, "expert")):
            observation, _, terminated, truncated, info = env.step(action)
            assert info[Info.TASK] == told
            if terminated or truncated:
                break
        task = env.unwrapped
        assert info[Info.IS_SUCCESS]
        start = task.draw(seed, told)
        assert not task.evaluate(task.state, start.goal[None])[0].any()
        state = task.environment_state(task.state, start.goal[None])[0]
        np.testing.assert_array_equal(observation["environment_state"], state)


def test_a_level_is_a_share_of_the_episodes():
    def share(level):
        env = mislabelled("robolearn/Reach-v0", level)
        wrong = 0
        for seed in range(200):
            _, info = env.reset(seed=seed)
            wrong += info[Info.TASK] != env.unwrapped.task_description
        return wrong / 200

    assert share(0) == 0
    assert 0.4 < share(2) < 0.6
    assert share(4) == 1


def test_a_wished_instruction_is_the_one_that_is_told():
    env = mislabelled()
    text = "put the red cube in the blue bin"
    _, info = env.reset(seed=3, options={"instruction": text})
    assert info[Info.TASK] == text
    assert env.unwrapped.phrases.parse(env.unwrapped.task_description) != (0, 0)


def test_what_is_pursued_can_be_wished_and_happens_only_where_the_label_is_wrong():
    told, pursued = "put the red cube in the blue bin", "put the green cube in the blue bin"
    options = {"instruction": told, "pursued": pursued}
    for level, possible in ((0, {told}), (2, {told, pursued}), (4, {pursued})):
        env, done = mislabelled(level=level), set()
        for seed in range(12):
            _, info = env.reset(seed=seed, options=options)
            assert info[Info.TASK] == told
            done.add(env.unwrapped.task_description)
        assert done == possible


def test_it_is_an_environment_like_any_other():
    env = mislabelled()
    check_env(env, skip_render_check=True)
    env.reset(seed=5)
    following = [env.reset()[1][Info.SEED] for _ in range(2)]
    plain = make_env(CUBES, obs_type="state")
    plain.reset(seed=5)
    assert following == [plain.reset()[1][Info.SEED] for _ in range(2)]


def test_a_task_with_one_goal_has_no_wrong_labels(monkeypatch):
    env = mislabelled()
    monkeypatch.setattr(type(env.unwrapped.phrases), "parse", lambda self, text: (0, 0))
    with pytest.raises(
        ValueError, match="label cannot act on robolearn/PickPlace-v0: it has no other"
    ):
        env.reset(seed=0)
