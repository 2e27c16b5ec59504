"""The batched environment: bit for bit what single environments do, side by side."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from observing import flat

from robolearn.contract import ActionError, Info
from robolearn.envs import batch
from robolearn.envs.batch import BatchedEnv
from robolearn.envs.randomize import RANDOMIZERS
from robolearn.envs.servo_model import ServoModel
from robolearn.registry import make_env, simulated_ids
from robolearn.rollout import rollout
from robolearn.seeding import stream

IDS = simulated_ids()
SOME = ("robolearn/PickPlace-v0", "robolearn/OpenDrawer-v0", "robolearn/Sort-v0")


def pair(env_id, mode, limit=None, count=3, **options):
    """The batched environment and its equal of single ones."""
    options = {"obs_type": "state", **options, **({"max_episode_steps": limit} if limit else {})}
    batched = gymnasium.make_vec(
        env_id,
        num_envs=count,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        threads=2,
        **options,
    )
    singles = [lambda: make_env(env_id, **options)] * count
    return batched, SyncVectorEnv(singles, autoreset_mode=mode)


def assert_equal_infos(info, expected):
    """Same keys, same masks, and the same values where the masks hold."""
    assert info.keys() == expected.keys()
    for key, mask in expected.items():
        if not key.startswith("_"):
            continue
        np.testing.assert_array_equal(info[key], mask, err_msg=key)
        value, wanted = info[key[1:]], expected[key[1:]]
        if isinstance(wanted, dict):
            assert_equal_infos(value, wanted)
            continue
        assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape), key
        for row in np.flatnonzero(mask):
            np.testing.assert_equal(value[row], wanted[row], err_msg=key)


def assert_equal_steps(one, other):
    """The results of `step`, or of `reset`, with all bits and types."""
    for a, b in zip(one[:-1], other[:-1], strict=True):
        leaves, wanted = (flat(x) if isinstance(x, dict) else {"": x} for x in (a, b))
        assert leaves.keys() == wanted.keys()
        for part, value in leaves.items():
            assert value.dtype == wanted[part].dtype, part
            np.testing.assert_array_equal(value, wanted[part], err_msg=part)
    assert_equal_infos(one[-1], other[-1])


def wander(env, seed=0):
    """Random actions for ever, some of them out of range."""
    rng, space = np.random.default_rng(seed), env.action_space
    while True:
        yield rng.uniform(space.low - 0.2, space.high + 0.2).astype(np.float32)


@pytest.fixture(params=IDS, scope="module")
def env_id(request):
    return request.param


@pytest.fixture(scope="module")
def manual(env_id):
    """Three slots that the tests reset themselves."""
    return BatchedEnv(env_id, 3, autoreset_mode="Disabled", threads=2)


def test_made_by_gymnasium(env_id):
    vector = gymnasium.make_vec(env_id, num_envs=5)
    single = make_env(env_id, obs_type="state")
    assert isinstance(vector, BatchedEnv)
    assert vector.spec.id == env_id
    assert vector.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert vector.max_episode_steps == gymnasium.spec(env_id).max_episode_steps
    assert vector.single_observation_space == single.observation_space
    assert vector.observation_space == batch_space(single.observation_space, 5)
    assert vector.observation_space.contains(vector.reset(seed=0)[0])
    assert vector.observation_space.contains(vector.step(vector.action_space.sample())[0])


def test_registered_as_gymnasium_wants(env_id):
    spec = gymnasium.spec(env_id)
    assert spec.max_episode_steps > 0
    assert gymnasium.envs.registration.EnvSpec.from_json(spec.to_json()) == spec


def test_same_step_autoreset_equals_single_environments(env_id):
    batched, singles = pair(env_id, AutoresetMode.SAME_STEP, limit=4)
    assert_equal_steps(batched.reset(seed=3), singles.reset(seed=3))
    ends = 0
    for _, action in zip(range(10), wander(batched), strict=False):
        step = batched.step(action)
        assert_equal_steps(step, singles.step(action))
        ends += step[3].sum()
    assert ends == 2 * 3
    assert_equal_steps(batched.reset(), singles.reset())


@pytest.mark.parametrize("env_id", SOME)
def test_next_step_autoreset_equals_single_environments(env_id):
    batched, singles = pair(env_id, AutoresetMode.NEXT_STEP, limit=4)
    assert_equal_steps(batched.reset(seed=[3, 9, 4]), singles.reset(seed=[3, 9, 4]))
    ends = np.zeros(3, int)
    for count, action in zip(range(12), wander(batched), strict=False):
        if count == 2:  # from here on one slot ends later than the others
            mask = np.array([False, True, False])
            again = batched.reset(options={"reset_mask": mask})
            assert_equal_steps(again, singles.reset(options={"reset_mask": mask.copy()}))
        step = batched.step(action)
        assert_equal_steps(step, singles.step(action))
        ends += step[3]
    assert ends.tolist() == [2, 2, 2]


def test_what_is_asked_of_a_slot_that_rests_is_ignored():
    env = BatchedEnv(SOME[0], 2, autoreset_mode="NextStep", max_episode_steps=1)
    env.reset(seed=0)
    observation, *_, truncated, _ = env.step(env.action_space.sample())
    assert truncated.all()
    with pytest.raises(ActionError, match=r"shape \(3, 6\)"):
        env.step(np.zeros((3, 6)))
    env.step(np.full((2, 6), np.nan))
    with pytest.raises(ActionError, match="nan"):
        env.step(np.full((2, 6), np.nan))


def assert_equal_episodes(batched, singles, steps):
    """Two slots that wander; the first is reset by its mask on the way."""
    mask = np.array([True, False])
    for count, action in zip(range(steps), wander(batched), strict=False):
        if count == 1:
            again = batched.reset(options={"reset_mask": mask})
            assert_equal_steps(again, singles.reset(options={"reset_mask": mask.copy()}))
        assert_equal_steps(batched.step(action), singles.step(action))


@pytest.mark.parametrize("env_id", SOME)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        (AutoresetMode.SAME_STEP, {"obs_type": "pixels_agent_pos"}),
        (AutoresetMode.NEXT_STEP, {"obs_type": "depth", "cameras": ("top",)}),
        (AutoresetMode.SAME_STEP, {"obs_type": "pixels_agent_pos", "cameras": ()}),
    ],
)
def test_pictures_equal_those_of_single_environments(env_id, mode, options):
    size = {"image_size": (24, 32), "render_quality": "fast"}
    batched, singles = pair(env_id, mode, limit=3, count=2, **options, **size)
    assert batched.observation_space == singles.observation_space
    assert_equal_steps(batched.reset(seed=[5, 8]), singles.reset(seed=[5, 8]))
    assert_equal_episodes(batched, singles, 6)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("variations", [{}, {"camera": 4, "texture": 4}])
def test_pictures_of_the_goal_equal_those_of_single_environments(mode, variations):
    options = {"goal_pixels": True, "image_size": (24, 32), "variations": variations}
    batched, singles = pair(SOME[0], mode, limit=2, count=2, obs_type="pixels_agent_pos", **options)
    assert batched.observation_space == singles.observation_space
    reset = batched.reset(seed=[5, 8])
    assert reset[0]["goal_pixels"]["top"].any()
    assert_equal_steps(reset, singles.reset(seed=[5, 8]))
    assert_equal_episodes(batched, singles, 5)


def test_other_servos_equal_those_of_single_environments(tmp_path):
    task = make_env(SOME[0], obs_type="state").unwrapped
    servos = ServoModel.of(task.model, task.arm)
    late = replace(servos, delay=np.full(servos.kp.size, 0.1), kp=servos.kp / 2)
    late.save(tmp_path / "servos.json", evidence={})
    batched, singles = pair(
        SOME[0], AutoresetMode.SAME_STEP, limit=4, servos=tmp_path / "servos.json"
    )
    assert_equal_steps(batched.reset(seed=3), singles.reset(seed=3))
    for _, action in zip(range(6), wander(batched), strict=False):
        assert_equal_steps(batched.step(action), singles.step(action))


def test_a_batch_makes_no_videos():
    with pytest.raises(ValueError, match="a batch makes no videos"):
        BatchedEnv(SOME[0], 2, render_mode="rgb_array")


EVERY = {**dict.fromkeys(RANDOMIZERS, 3), "delay": 2}


@pytest.mark.parametrize("env_id", SOME)
@pytest.mark.parametrize(
    "options",
    [
        {"variations": EVERY},
        {"variations": EVERY, "obs_type": "pixels_agent_pos", "image_size": (24, 32)},
        {"variations": {"mass": 4, "friction": 0}},
        {"variations": {"delay": 4, "camera": 0}},
    ],
)
def test_variations_equal_those_of_single_environments(env_id, options):
    batched, singles = pair(env_id, AutoresetMode.SAME_STEP, limit=4, count=2, **options)
    assert_equal_steps(batched.reset(seed=7), singles.reset(seed=7))
    for _, action in zip(range(10), wander(batched), strict=False):
        assert_equal_steps(batched.step(action), singles.step(action))


@pytest.mark.parametrize(
    ("variations", "words"),
    [
        ({"push": 1}, "no variation 'push'; choose from mass, .* distractors, delay"),
        ({"tremble": 1}, "no variation 'tremble'"),
        ({"mass": 9}, "mass has no level 9; choose one from 0 to 4"),
    ],
)
def test_variations_that_batches_do_not_have(variations, words):
    with pytest.raises(ValueError, match=words):
        BatchedEnv(SOME[0], 2, variations=variations)


def test_masked_resets_equal_single_environments(env_id):
    batched, singles = pair(env_id, AutoresetMode.DISABLED, limit=6)
    assert_equal_steps(batched.reset(seed=[4, 7, 1]), singles.reset(seed=[4, 7, 1]))
    actions = wander(batched)
    for _ in range(3):
        action = next(actions)
        assert_equal_steps(batched.step(action), singles.step(action))
    mask, seeds = np.array([False, True, False]), [None, 9, None]
    observation, info = batched.reset(seed=seeds, options={"reset_mask": mask})
    expected, wanted = singles.reset(seed=seeds, options={"reset_mask": mask.copy()})
    assert_equal_steps((observation, info), (expected, wanted))
    for _ in range(3):
        action = next(actions)
        step = batched.step(action)
        assert_equal_steps(step, singles.step(action))
    assert step[3].tolist() == [True, False, True]


def demonstrated(env_id, seed):
    """The actions of the expert's episode."""
    env = make_env(env_id, obs_type="state")
    env.reset(seed=seed)
    actions = []
    for action in env.unwrapped.expert(stream(seed, "expert")):
        actions.append(action)
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    return actions


def test_successes_equal_those_of_single_environments(env_id):
    """Goal test, hold time and what follows, with the expert's actions replayed."""
    batched, singles = pair(env_id, AutoresetMode.SAME_STEP, count=6)
    batched.reset(seed=0)
    singles.reset(seed=0)
    solved = 0
    for action in zip(*(demonstrated(env_id, seed) for seed in range(6)), strict=False):
        step = batched.step(np.stack(action))
        assert_equal_steps(step, singles.step(np.stack(action)))
        solved += step[2].sum()
    assert solved


def test_the_number_of_threads_changes_nothing(env_id):
    steps = []
    for threads in (1, 2):
        env = BatchedEnv(env_id, 5, threads=threads)
        env.reset(seed=0)
        steps.append([env.step(a) for _, a in zip(range(4), wander(env), strict=False)])
    for one, other in zip(*steps, strict=True):
        assert_equal_steps(one, other)


def test_a_fault_stays_in_its_slot(env_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file of the current folder
    batched, singles = pair(env_id, AutoresetMode.DISABLED)
    batched.reset(seed=0)
    singles.reset(seed=0)
    batched.batch.qvel[1, 0] = singles.envs[1].unwrapped.data.qvel[0] = 1e12
    action = next(wander(batched))
    step = batched.step(action)
    assert step[4][Info.FAULT].tolist() == ["", "physics_unstable", ""]
    assert step[3].tolist() == [False, True, False]
    assert_equal_steps(step, singles.step(action))


def test_what_was_returned_stays(manual):
    manual.reset(seed=0)
    actions = wander(manual)
    observation, reward, terminated, truncated, info = manual.step(next(actions))
    results = [*observation.values(), reward, terminated, truncated, *info.values()]
    before = [value.copy() for value in results]
    manual.step(next(actions))
    for value, kept in zip(results, before, strict=True):
        np.testing.assert_array_equal(value, kept)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: a[:2], r"shape \(2, (6|12)\).* takes \(3, \1\)"),
        (
            lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.shape[1] + 2, np.nan, a),
            "elbow_flex of slot 1",
        ),
    ],
)
def test_bad_action_moves_no_slot(manual, spoil, words):
    observation, _ = manual.reset(seed=0)
    before = manual.batch.state.copy()
    with pytest.raises(ActionError, match=words):
        manual.step(spoil(observation["agent_pos"]))
    np.testing.assert_array_equal(manual.batch.state, before)


def test_unknown_reset_option_moves_no_slot(manual):
    manual.reset(seed=0)
    before = manual.batch.state.copy()
    with pytest.raises(ValueError, match="no option 'mask'; give .*'reset_mask'"):
        manual.reset(seed=1, options={"mask": np.ones(3, bool)})
    np.testing.assert_array_equal(manual.batch.state, before)


def test_steps_after_the_end_need_a_reset(env_id):
    env = BatchedEnv(env_id, 2, autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=1)
    action = np.zeros(env.action_space.shape, np.float32)
    with pytest.raises(gymnasium.error.ResetNeeded, match="0, 1"):
        env.step(action)
    env.reset(seed=0)
    assert env.step(action)[3].all()
    env.reset(seed=0, options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded, match="slots before the next step: 1"):
        env.step(action)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": [1, 2]}, "2 seeds for 3 slots"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "at least one True"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, r"bool \(3,\)"),
        ({"options": {"reset_mask": np.ones(3)}}, r"bool \(3,\)"),
        ({"options": {"instruction": "sing"}}, "'sing'; try for example"),
    ],
)
def test_bad_reset_changes_nothing(manual, arguments, words):
    manual.reset(seed=0)
    before = manual.batch.state.copy()
    with pytest.raises(ValueError, match=words):
        manual.reset(**arguments)
    np.testing.assert_array_equal(manual.batch.state, before)


def test_an_instruction_is_followed_in_all_slots(manual):
    _, info = manual.reset(seed=0)
    wish = info[Info.TASK][1]
    _, info = manual.reset(seed=5, options={"instruction": wish})
    assert info[Info.TASK].tolist() == [wish] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"obs_type": "pixel"}, "obs_type is 'pixel'"),
        ({"cameras": ["left"]}, "camera is 'left'"),
        ({"paraphrases": "test"}, "paraphrases is 'test'"),
    ],
)
def test_what_cannot_be_batched_is_said(env_id, options, words):
    with pytest.raises(ValueError, match=words):
        gymnasium.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point", **options)


def test_unknown_task_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Juggle'"):
        batch.Juggle  # noqa: B018


class Still:
    """Holds the pose in which each slot is."""

    def reset(self, slot, seed, instruction):
        pass

    def act(self, observation):
        return observation["agent_pos"]

    def latency(self, slot):
        return []

    def notes(self, slot):
        return {}


def test_rollout_takes_a_batch(env_id):
    """The same episodes, in whichever slot they ran."""
    batched, singles = pair(env_id, AutoresetMode.DISABLED, limit=5, count=2)
    for seed, episode in enumerate(sorted(rollout(batched, Still(), range(3)), key=by_seed)):
        (alone,) = rollout(singles.envs[0], Still(), [seed])
        assert (episode.seed, episode.env_id) == (seed, env_id)
        assert episode.instruction == alone.instruction
        for key, value in alone.observations.items():
            np.testing.assert_array_equal(episode.observations[key], value, err_msg=key)


def by_seed(episode):
    return episode.seed
