"""What simulated tasks keep besides the contract (tests/test_conformance.py)."""

from dataclasses import replace
from itertools import combinations, islice

import mujoco
import numpy as np
import pytest

from robolearn.contract import JAW_RANGE, SAFE_SPEED, ActionError, Info
from robolearn.envs import scene
from robolearn.envs.expert import Demonstrator
from robolearn.envs.servo_model import ServoModel
from robolearn.registry import make_env, simulated_ids
from robolearn.seeding import stream

IDS = simulated_ids()


def bits(env):
    """Everything that decides how the simulation goes on."""
    model, data = env.unwrapped.model, env.unwrapped.data
    state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    return state.tobytes()


@pytest.fixture(params=IDS, scope="module")
def env_id(request):
    return request.param


@pytest.fixture(scope="module")
def pictures(env_id):
    """An environment that draws, for tests that leave it as they like."""
    return make_env(env_id)


@pytest.fixture(scope="module")
def states(env_id):
    """An environment without pictures."""
    return make_env(env_id, obs_type="state")


def test_depth_observations_are_in_their_space(env_id):
    env = make_env(env_id, obs_type="depth")
    env.reset(seed=1)
    for action in [env.action_space.low, env.action_space.high]:
        assert env.observation_space.contains(env.step(action)[0])


def test_success_terminates(states):
    for seed in range(5):
        states.reset(seed=seed)
        for action in states.unwrapped.expert(stream(seed, "expert")):
            _, reward, terminated, truncated, info = states.step(action)
            assert terminated == info[Info.IS_SUCCESS] == info[Info.SUCCESS] == (reward == 1.0)
            if terminated or truncated:
                break
        if terminated:
            assert info[Info.PROGRESS] == 1.0
            assert not truncated
            return
    pytest.fail("the expert has solved none of five episodes")


def test_one_step_is_one_control_period(states):
    states.reset(seed=0)
    states.step(states.action_space.low)
    assert states.unwrapped.data.time == pytest.approx(1 / states.unwrapped.arm.control_hz)


def test_goal_pictures_show_another_scene(env_id):
    env = make_env(env_id, goal_pixels=True)
    observation, _ = env.reset(seed=3)
    first = observation["goal_pixels"]
    assert env.observation_space.contains(observation)
    assert not np.array_equal(first["top"], observation["pixels"]["top"])
    later = env.step(env.action_space.low)[0]["goal_pixels"]
    other = env.reset(seed=4)[0]["goal_pixels"]
    for camera in env.unwrapped.active_cameras:
        np.testing.assert_array_equal(later[camera], first[camera])
        assert not np.array_equal(other[camera], first[camera])


def test_every_kind_of_demonstrator_can_do_it(env_id):
    for options in ({"style": "fast"}, {"style": "left-first"}, {"quality": 0.3}):
        env = make_env(env_id, obs_type="state", **options)
        assert any(demonstrate(env, seed)[Info.IS_SUCCESS] for seed in range(3)), options


def demonstrate(env, seed):
    """The last info of a demonstration."""
    *_, (_, info) = demonstration(env, seed)
    return info


def demonstration(env, seed):
    """Action and info of every step."""
    env.reset(seed=seed)
    script, over = env.unwrapped.expert(stream(seed, "expert")), False
    while not over:
        action = next(script)
        *_, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        yield action, info


def test_demonstrations_keep_the_speed_that_the_arm_is_driven_at(env_id):
    """What is asked for on top, against gravity and lag, may be faster for a moment."""
    env = make_env(env_id, obs_type="state", style="fast")
    arm = env.unwrapped.arm
    ways = [np.array([action for action, _ in demonstration(env, seed)]) for seed in range(3)]
    speed = np.concatenate([np.abs(np.diff(way, axis=0)) for way in ways]) * arm.control_hz
    speed[:, list(arm.grippers)] *= JAW_RANGE
    assert np.quantile(speed, 0.99) < 1.1 * SAFE_SPEED
    assert (speed > 1.25 * SAFE_SPEED).mean() < 0.002


def test_style_and_quality_change_the_ways(states):
    """In every task the first two seconds differ, on the same seed."""
    ways = []
    for options in (("fast", 1.0), ("slow", 1.0), ("any", 1.0), ("any", 0.3)):
        states.unwrapped.demonstrator = Demonstrator(*options)
        ways.append(np.array([a for a, _ in islice(demonstration(states, 0), 40)]))
    states.unwrapped.demonstrator = Demonstrator()
    assert all(np.abs(one - two).max() > 0.01 for one, two in combinations(ways, 2))


@pytest.mark.parametrize("task", ["CloseDrawer", "Lift"])
def test_slow_and_poor_demonstrations_take_longer(task):
    def mean_steps(**options):
        env = make_env(f"robolearn/{task}-v0", obs_type="state", **options)
        return np.mean([len([*demonstration(env, seed)]) for seed in range(4)])

    assert mean_steps(style="slow") > 1.1 * mean_steps(style="fast")
    assert mean_steps(quality=0.3) > 1.1 * mean_steps()


@pytest.mark.parametrize("task", ["CloseDrawer", "Lift", "PickPlace"])
def test_left_first_and_right_first_go_apart(task):
    def way(style):
        env = make_env(f"robolearn/{task}-v0", obs_type="state", style=style)
        return np.array([a for a, _ in islice(demonstration(env, 0), 20)])

    assert np.abs(way("left-first") - way("right-first")).max() > 0.03


def test_the_arm_starts_within_its_range(states):
    arm, joints = states.unwrapped.arm, states.unwrapped.joints
    low, high = (limit.astype(float) for limit in arm.limits)
    for seed in range(80):
        position = joints.position(states.unwrapped.draw(seed, None).qpos)
        assert ((position >= low - 1e-6) & (position <= high + 1e-6)).all(), seed


def test_no_cameras_no_pictures(env_id):
    assert "pixels" not in make_env(env_id, cameras=[]).reset(seed=2)[0]


def test_observation_types(pictures, states, env_id):
    depth = make_env(env_id, obs_type="depth", image_size=(30, 40)).reset(seed=2)[0]
    plain, state = pictures.reset(seed=2)[0], states.reset(seed=2)[0]
    shared = {"agent_pos", "agent_vel", "agent_effort"}
    assert set(plain) == shared | {"pixels"}
    assert set(state) == shared | {"environment_state"}
    assert set(depth) == shared | {"pixels", "depth"}
    for camera, metres in depth["depth"].items():
        assert metres.shape == depth["pixels"][camera].shape[:2] == (30, 40)
        assert 0.05 < np.median(metres) < 2.0
    for key in shared:
        np.testing.assert_array_equal(plain[key], state[key])


def test_render(env_id):
    env = make_env(env_id, obs_type="state", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert (picture.shape, picture.dtype) == ((480, 640, 3), np.uint8)
    assert picture.std() > 20
    for _ in range(5):
        env.step(env.action_space.low)
    assert not np.array_equal(env.render(), picture)
    assert make_env(env_id).unwrapped.render() is None


def test_bad_action_changes_no_bit(states):
    states.reset(seed=0)
    states.step(states.action_space.low)
    before = bits(states)
    with pytest.raises(ActionError, match="wrist_flex is nan"):
        states.step(np.where(np.arange(states.unwrapped.arm.size) == 3, np.nan, 0.0))
    assert bits(states) == before


def test_action_out_of_range_is_clipped(states):
    states.reset(seed=0)
    low, high = states.unwrapped.arm.limits
    info = states.step(high + 0.3)[4]
    np.testing.assert_array_equal(info[Info.ACTION_SENT], high)
    assert not states.step(low)[4][Info.LIMITED]


def test_divergence_is_a_fault(states, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file of the current folder
    states.reset(seed=0)
    states.unwrapped.data.qvel[0] = 1e12
    observation, _, terminated, truncated, info = states.step(states.action_space.low)
    assert (terminated, truncated, info[Info.FAULT]) == (False, True, "physics_unstable")
    assert info[Info.PROGRESS] == 0.0
    assert states.observation_space.contains(observation)
    _, info = states.reset(seed=0)
    assert info[Info.FAULT] == ""
    assert not states.step(states.action_space.low)[3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"obs_type": "pixel"}, "obs_type is 'pixel'.*pixels_agent_pos, state, depth"),
        ({"cameras": ["front"]}, "camera is 'front'.*top"),
        ({"render_quality": "ultra"}, "render_quality is 'ultra'.*fast, high"),
        ({"split": "tset"}, "split is 'tset'.*train"),
        ({"style": "wild"}, "style is 'wild'.*fast, slow"),
        ({"quality": 1.5}, "quality is 1.5; give 0"),
        ({"paraphrases": "test"}, "paraphrases is 'test'.*train, held_out, all"),
        ({"render_mode": "ascii"}, "render_mode is 'ascii'.*rgb_array"),
        ({"image_size": 84}, "image_size is 84; give height and width"),
        ({"image_size": (0, 84)}, "image_size is .0, 84."),
    ],
)
def test_unknown_option_names_the_choices(states, options, words):
    with pytest.raises(ValueError, match=words):
        type(states.unwrapped)(**options)


def test_unknown_instruction_changes_no_bit(states):
    _, info = states.reset(seed=5)
    before = bits(states)
    with pytest.raises(ValueError, match="try for example"):
        states.reset(seed=6, options={"instruction": info[Info.TASK] + "s"})
    assert bits(states) == before


def test_unknown_reset_option_changes_no_bit(states):
    states.reset(seed=5)
    before = bits(states)
    with pytest.raises(ValueError, match="no option 'instructions'; give {'instruction'"):
        states.reset(seed=6, options={"instructions": "as you like"})
    assert bits(states) == before


def test_a_scene_that_fails_to_load_names_file_and_line(tmp_path, monkeypatch):
    (tmp_path / "so101.xml").write_text(
        "<mujoco>\n  <worldbody>\n    <bdoy/>\n  </worldbody>\n</mujoco>"
    )
    monkeypatch.setattr(scene, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"(?s)so101\.xml: .*line 3") as caught:
        scene.arm_spec()
    assert str(tmp_path) in str(caught.value)


def test_an_identified_arm_moves_otherwise(env_id, states, tmp_path):
    servos = ServoModel.of(states.unwrapped.model, states.unwrapped.arm)
    late = replace(servos, delay=np.full(servos.kp.size, 0.1), kp=servos.kp / 2)
    late.save(tmp_path / "servos.json", evidence={})
    other = make_env(env_id, obs_type="state", servos=tmp_path / "servos.json")
    one, two = states.reset(seed=3)[0], other.reset(seed=3)[0]
    np.testing.assert_array_equal(one["agent_pos"], two["agent_pos"])
    still = one["agent_pos"]  # zeros in the past of the delayed servos would throw the arm
    moved = [env.step(still)[0]["agent_pos"] for env in (states, other)]
    assert np.abs(moved[1] - moved[0]).max() < 0.02
    target = np.where(np.arange(still.size) == 0, 0.5, still).astype(np.float32)
    pan = [[env.step(target)[0]["agent_pos"][0] for _ in range(2)] for env in (states, other)]
    assert pan[1][-1] < pan[0][-1] / 2  # it has only begun
