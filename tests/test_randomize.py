"""Domain randomisation: each episode its own world, and none when nothing is asked for."""

from contextlib import closing

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from observing import HEADLIGHT, assert_same, changed, flat, numbers, run

from robolearn import evaluate
from robolearn.config import load_config
from robolearn.contract import ActionError, Info
from robolearn.dataset import EpisodeDataset
from robolearn.envs.props import HIDDEN, SHAPES, SHOWN
from robolearn.envs.randomize import RANDOMIZERS, Randomized
from robolearn.envs.variation import MAX_LEVEL, DelayLine
from robolearn.envs.variations import VARIATIONS, with_variations
from robolearn.options import EvalConfig, RecordConfig
from robolearn.record import record
from robolearn.registry import make_env

IDS = ("robolearn/PickPlace-v0", "robolearn/OpenDrawer-v0", "robolearn/Sort-v0")
LOOKS = ("camera", "light", "texture", "distractors")
EVERY = {**dict.fromkeys(RANDOMIZERS, 2), "delay": 2}
SMALL = {"image_size": (24, 32), "cameras": ("top",)}


@pytest.fixture(params=IDS, scope="module")
def env_id(request):
    return request.param


@pytest.fixture(scope="module")
def plain():
    """What the plain environments do."""
    return {env_id: run(make_env(env_id, **SMALL), seed=3) for env_id in IDS}


@pytest.mark.parametrize("name", VARIATIONS)
def test_level_0_is_the_plain_environment(name, plain):
    env = VARIATIONS[name](make_env(IDS[0], **SMALL), 0)
    assert_same(run(env, seed=3), plain[IDS[0]])
    assert make_env(IDS[0], variations={name: 0}, obs_type="state").reset(seed=0)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mass", {"body_mass", "body_inertia", "body_subtreemass", "dof_M0"}),
        ("friction", {"geom_friction"}),
        ("damping", {"dof_damping", "dof_frictionloss"}),
        ("servo", {"actuator_gainprm", "actuator_biasprm", "actuator_forcerange"}),
        ("camera", {"cam_pos", "cam_quat", "cam_fovy"}),
        ("light", {"light_diffuse", "light_dir", HEADLIGHT}),
        ("texture", {"geom_rgba", "mat_rgba", "geom_matid", "mat_texrepeat"}),
        ("distractors", {"geom_group", "geom_pos", "geom_quat", "geom_rgba"}),
    ],
)
def test_what_a_randomiser_changes(env_id, name, fields):
    env = make_env(env_id, variations={name: MAX_LEVEL}, obs_type="state")
    nominal = numbers(env.unwrapped.model)
    env.reset(seed=1)
    one = numbers(env.unwrapped.model)
    found = changed(nominal, one)
    # Masses decide more constants than these.
    assert fields <= found if name == "mass" else fields == found
    env.reset(seed=2)
    assert changed(one, numbers(env.unwrapped.model)) & fields


@pytest.mark.parametrize("name", [*RANDOMIZERS, "delay"])
def test_worlds_do_not_drift_and_depend_on_the_seed_alone(name):
    options = {"variations": {name: 3}, **SMALL}
    with closing(make_env(IDS[0], **options)) as env:
        expected, world = run(env, seed=7), numbers(env.unwrapped.model)
        for seed in range(10):
            env.reset(seed=seed)
        assert_same(run(env, seed=7), expected)
        assert not changed(world, numbers(env.unwrapped.model))
    with closing(make_env(IDS[0], **options)) as other:
        assert_same(run(other, seed=7), expected)


@pytest.mark.parametrize("name", [*RANDOMIZERS, "delay"])
def test_looks_change_the_pictures_and_physics_the_rest(name, plain):
    env_id = IDS[list(VARIATIONS).index(name) % len(IDS)]
    plain = plain[env_id]
    varied = run(make_env(env_id, variations={name: MAX_LEVEL}, **SMALL), seed=3)
    seen = {
        key
        for one, other in zip(plain, varied, strict=True)
        for key, value in one.items()
        if not np.array_equal(value, other[key])
    }
    if name in LOOKS:
        assert seen == {key for key in plain[0] if key.startswith("pixels")}
    elif name != "friction":  # which random actions may not feel
        assert "agent_pos" in seen
    start = {k: v for k, v in plain[0].items() if k == "agent_pos"}
    assert_same([start], [{k: varied[0][k] for k in start}])


def test_a_higher_level_goes_further_in_the_same_direction():
    logs = []
    for level in range(1, MAX_LEVEL + 1):
        env = make_env(IDS[0], variations={"mass": level}, obs_type="state")
        before = env.unwrapped.model.body_mass.copy()
        env.reset(seed=0)
        moves = before > 0
        logs.append(np.log(env.unwrapped.model.body_mass[moves] / before[moves]))
    for level, log in enumerate(logs, 1):
        np.testing.assert_allclose(log, level * logs[0], atol=1e-9)
        assert np.abs(log).max() <= np.log(2.0) * level / MAX_LEVEL


def test_the_order_of_the_names_changes_nothing(env_id):
    forward, backward = EVERY, dict(reversed(EVERY.items()))
    with closing(make_env(env_id, variations=forward, **SMALL)) as env:
        expected, world = run(env, seed=4), numbers(env.unwrapped.model)
    with closing(make_env(env_id, variations=backward, **SMALL)) as env:
        assert_same(run(env, seed=4), expected)
    inside_out = make_env(env_id, **SMALL)
    for name in reversed(VARIATIONS):
        if name in EVERY:
            inside_out = VARIATIONS[name](inside_out, EVERY[name])
    assert_same(run(inside_out, seed=4), expected)
    assert not changed(world, numbers(inside_out.unwrapped.model))


def test_one_variation_does_not_depend_on_another():
    alone, together = (
        make_env(IDS[0], variations=v, obs_type="state") for v in ({"friction": 2}, EVERY)
    )
    for env in (alone, together):
        env.reset(seed=6)
    frictions = [env.unwrapped.model.geom_friction for env in (alone, together)]
    np.testing.assert_array_equal(*frictions)


def test_a_world_taken_over_is_not_the_nominal_one():
    """A wrapper around one that has begun an episode knows what the model was before."""
    env = Randomized(make_env(IDS[0], obs_type="state"), "mass", 4)
    env.reset(seed=0)
    outer = Randomized(env, "friction", 4)
    assert outer.nominal is env.nominal
    fresh = make_env(IDS[0], obs_type="state").unwrapped.model
    assert not changed(numbers(fresh), numbers(outer.nominal))


def test_seeds_drawn_by_the_environment_have_their_own_worlds():
    env = make_env(IDS[0], variations=EVERY, **SMALL)
    env.reset(seed=3)
    seeds = [env.reset()[1][Info.SEED] for _ in range(2)]
    observation, info = env.reset()
    plain = make_env(IDS[0], obs_type="state")
    plain.reset(seed=3)
    assert [*seeds, info[Info.SEED]] == [plain.reset()[1][Info.SEED] for _ in range(3)]
    again, _ = make_env(IDS[0], variations=EVERY, **SMALL).reset(seed=info[Info.SEED])
    assert_same([flat(observation)], [flat(again)])


def test_a_refused_instruction_leaves_the_running_episode_its_world():
    env = make_env(IDS[0], variations={"mass": 4}, obs_type="state")
    env.reset(seed=0)
    before = numbers(env.unwrapped.model)
    with pytest.raises(ValueError, match="'sing'; try for example"):
        env.reset(seed=1, options={"instruction": "sing"})
    assert not changed(before, numbers(env.unwrapped.model))


@pytest.mark.filterwarnings("ignore:.*")  # check_env takes wrappers for a mistake
def test_varied_environments_keep_the_contract(env_id):
    env = make_env(env_id, variations=EVERY, **SMALL)
    check_env(env, skip_render_check=True)
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    low, high = env.unwrapped.arm.limits
    after = env.step(high + 0.3)[4]
    assert {k: type(v) for k, v in after.items()} == {k: type(v) for k, v in info.items()}
    assert after[Info.LIMITED]
    np.testing.assert_array_equal(after[Info.ACTION_REQUESTED], (high + 0.3).astype(np.float32))
    np.testing.assert_array_equal(after[Info.ACTION_SENT], high)


def test_gymnasium_makes_it_again_from_its_spec():
    env = make_env(IDS[0], variations={"mass": 4, "push": 1, "delay": 2}, obs_type="state")
    again = gymnasium.make(env.spec)
    assert_same(run(again, seed=2), run(env, seed=2))


def test_distractors_stand_on_the_table_and_beside_everything(env_id):
    shown = []
    for level in (1, MAX_LEVEL):
        env = make_env(env_id, variations={"distractors": level}, obs_type="state")
        model, data = env.unwrapped.model, env.unwrapped.data
        props = np.array([model.geom(f"prop {k}").id for k in range(len(SHAPES))])
        for seed in range(5):
            env.reset(seed=seed)
            here = props[model.geom_group[props] == SHOWN]
            assert set(model.geom_group[props]) <= {HIDDEN, SHOWN}
            others = np.flatnonzero((model.geom_bodyid > 0) & (model.geom_rbound < 0.25))
            for prop in here:
                gap = data.geom_xpos[others, :2] - data.geom_xpos[prop, :2]
                assert (np.hypot(*gap.T) > model.geom_rbound[others] + 0.02).all()
                assert 0.0 < data.geom_xpos[prop, 2] < 0.03
            shown.append(len(here))
        assert not model.geom_contype[props].any()
    assert max(shown[:5]) == 2
    assert max(shown[5:]) > 4


def test_a_delay_of_fractions_of_a_step():
    line = DelayLine(3, 1)
    line.begin(np.arange(3), np.zeros((3, 1)), np.array([0.0, 1.0, 1.5]))
    arrived = [line.push(np.full((3, 1), k, np.float32)).ravel().tolist() for k in (1, 2, 4)]
    assert arrived == [[1, 0, 0], [2, 1, 0.5], [4, 2, 1.5]]


def test_a_delayed_arm_follows_later():
    lags = []
    for level in (0, MAX_LEVEL):
        env = make_env(IDS[0], variations={"delay": level}, obs_type="state")
        observation, _ = env.reset(seed=0)
        target = observation["agent_pos"] + np.array([0.5, 0, 0, 0, 0, 0], np.float32)
        pans = [env.step(target)[0]["agent_pos"][0] for _ in range(20)]
        lags.append(np.interp(observation["agent_pos"][0] + 0.25, pans, np.arange(20)))
        np.testing.assert_allclose(pans[-1], target[0], atol=0.02)
    assert 0.9 < lags[1] - lags[0] < 2.1  # between 50 and 100 ms, at 20 steps a second


def test_a_bad_action_is_not_delayed_but_refused():
    env, other = (make_env(IDS[0], variations={"delay": 3}, obs_type="state") for _ in range(2))
    for one in (env, other):
        one.reset(seed=0)
    with pytest.raises(ActionError, match="nan"):
        env.step(np.full(6, np.nan))
    action = env.action_space.high
    assert_same([flat(env.step(action)[0])], [flat(other.step(action)[0])])


@pytest.mark.parametrize(
    ("variations", "words"),
    [
        ({"wind": 1}, "no variation 'wind'; choose from mass, friction, .* action_delay"),
        ({"mass": 5}, "mass has no level 5; choose one from 0 to 4"),
        ({"mass": -1}, "mass has no level -1"),
        ({"push": 1.5}, "push has no level 1.5"),
        ({"push": True}, "push has no level True"),
    ],
)
def test_unknown_names_and_levels(variations, words):
    with pytest.raises(ValueError, match=words):
        make_env(IDS[0], variations=variations, obs_type="state")


def test_only_simulated_tasks_can_be_varied():
    for name in ("mass", "tremble"):
        for env in (gymnasium.Env(), make_env("robolearn/SO101-v0", port="twin")):
            with pytest.raises(ValueError, match=f"{name} varies simulated tasks, and .* is none"):
                with_variations(env, {name: 1})
            env.close()
    with pytest.raises(ValueError, match="no randomiser 'delay'; choose one of mass"):
        Randomized(make_env(IDS[0], obs_type="state"), "delay", 1)


def test_hidden_props_are_not_drawn_and_change_no_constant():
    model = make_env(IDS[0], obs_type="state").unwrapped.model
    props = [model.geom(f"prop {k}").id for k in range(len(SHAPES))]
    assert set(model.geom_group[props]) == {HIDDEN}
    assert (model.geom_sameframe[props] == mujoco.mjtSameFrame.mjSAMEFRAME_NONE).all()


def test_recordings_hold_what_was_asked_for(tmp_path):
    config = RecordConfig(
        out=tmp_path / "data", episodes=1, workers=0, image_size=(24, 32), variations={"camera": 2}
    )
    assert record(config) == 1
    assert load_config(RecordConfig, tmp_path / "data").variations == {"camera": 2}
    dataset = EpisodeDataset(tmp_path / "data")
    (seed,) = dataset.episodes.seed.tolist()
    recorded = dataset.frames("top")[0].astype(float)  # from a video, so not quite the same
    plain, varied = (
        run(make_env(IDS[0], variations=v, **SMALL), seed, 0)[0]["pixels/top"]
        for v in ({}, config.variations)
    )
    assert np.abs(recorded - varied).mean() < 5 < np.abs(recorded - plain).mean()


def test_an_arm_has_no_variations(tmp_path):
    config = RecordConfig(out=tmp_path, robot="so101", teleop="keyboard", variations={"mass": 1})
    with pytest.raises(ValueError, match="variations are for simulated tasks, not for an arm"):
        record(config)


def test_evaluations_have_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("robolearn.sources.CheckpointSource.env", "robolearn/PickPlace-v0")
    (tmp_path / "model.safetensors").touch()
    plain = EvalConfig(policy=str(tmp_path))
    pushed = {"push": 2, "mass": 1}
    varied = EvalConfig(policy=str(tmp_path), variations=pushed, shuffle_instructions=True)
    assert evaluate.default_folder(varied).name == "eval-shuffled-mass1-push2"
    assert evaluate.default_folder(plain).name == "eval"
    with pytest.raises(ValueError, match="no variation 'wind'"):
        evaluate.evaluate(EvalConfig(policy=str(tmp_path), variations={"wind": 1}))
