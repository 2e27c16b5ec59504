"""Identification: known servos come back from a recording of their motion, and gaps are named."""

import json
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.contract import SO101
from robolearn.envs.scene import arm_spec
from robolearn.envs.servo_model import Servo, ServoModel, apply, settle
from robolearn.envs.task import TIMESTEP
from robolearn.episodes import EpisodeWriter
from robolearn.examples import example_episode
from robolearn.hardware.identify import (
    ALWAYS,
    IdentifyConfig,
    first_guess,
    gaps,
    main,
    read_recording,
    regress,
    undisturbed,
)
from robolearn.hardware.servo_fit import Episode, Simulator, fit

REAL = Path(__file__).parents[2] / "shared/data/so101_real_recording"
FPS = 25
TICK = 2 * np.pi / 4096
HOME = np.array([0.0, -0.3, 0.3, 0.8, 0.05, 0.6])  # rad
LIFT, ELBOW, GRIPPER = 1, 2, 5
SERVOS = ServoModel(
    SO101.joints,
    kp=np.array([9.0, 12.0, 7.0, 9.0, 6.0, 8.0]),
    damping=np.array([0.9, 0.8, 0.6, 0.9, 0.5, 0.7]),
    frictionloss=np.array([0.05, 0.15, 0.1, 0.06, 0.05, 0.08]),
    max_torque=np.array([3.25, 3.25, 3.25, 3.25, 3.25, 1.6]),
    delay=np.array([0.06, 0.03, 0.02, 0.06, 0.04, 0.01]),
    p_gain=16,
)


def targets(seed, seconds):
    """Targets (T, J) that go to a new place every second and rest there for 0.6 s."""
    rng = np.random.default_rng(seed)
    places = np.concatenate([[HOME], HOME + rng.uniform(-0.4, 0.4, (seconds, 6))])
    time = np.arange(seconds * FPS) / FPS
    share = np.clip(time % 1.0 / 0.4, 0.0, 1.0)[:, None]
    smooth = share**2 * (3 - 2 * share)
    return (1 - smooth) * places[time.astype(int)] + smooth * places[time.astype(int) + 1]


def compiled(servos, timestep=TIMESTEP):
    spec = arm_spec()
    spec.option.timestep = timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    apply(spec, servos)
    return spec.compile()


def simulate(servos, target, play=0.0):
    """Positions (T, J) of an arm with MuJoCo's own delay and play in its gears, in whole ticks."""
    model = compiled(servos)
    data = mujoco.MjData(model)
    data.qpos[:] = data.ctrl[:] = target[0]
    settle(model, data)
    mujoco.mj_step(model, data, nstep=200)
    positions, geared = [], target[0]
    for goal in target:
        positions.append(np.round(data.qpos / TICK) * TICK)
        geared = data.ctrl[:] = np.clip(geared, goal - play, goal + play)
        mujoco.mj_step(model, data, nstep=round(1 / FPS / TIMESTEP))
    return np.array(positions)


def recording(servos=SERVOS, seconds=8, play=0.0):
    simulator, episodes = Simulator(SO101, FPS), []
    for seed in range(2):
        target = targets(seed, seconds)
        position = simulate(servos, target, play)
        episodes.append(Episode(target, position, undisturbed(simulator, target, position)))
    return simulator, episodes


def guess(simulator, episodes):
    return first_guess(ServoModel.of(simulator.model, SO101), regress(simulator, episodes))


def rms(simulator, servos, episodes):
    """Free-running errors, rad (J,)."""
    used = np.concatenate([e.used for e in episodes])
    errors = simulator.play([servos], episodes)[0] - np.concatenate([e.position for e in episodes])
    return np.sqrt((errors**2 * used).sum(0) / used.sum(0))


# Known servos come back --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    """A recording of SERVOS, and what was found in it."""
    simulator, episodes = recording()
    return simulator, episodes, fit(simulator, episodes, guess(simulator, episodes))


def test_the_simulation_repeats_the_recording(known):
    simulator, episodes, _ = known
    assert rms(simulator, SERVOS, episodes).max() < TICK
    later = [replace(SERVOS, delay=SERVOS.delay + shift) for shift in (0.01, 0.04)]
    assert rms(simulator, later[0], episodes).min() > TICK
    assert (rms(simulator, later[0], episodes) < rms(simulator, later[1], episodes)).all()


def test_known_servos_are_recovered(known):
    simulator, episodes, found = known
    assert rms(simulator, found.servos, episodes).max() < TICK
    for name, tolerance in {"kp": 0.05, "damping": 0.05, "frictionloss": 0.1}.items():
        ratio = getattr(found.servos, name) / getattr(SERVOS, name)
        np.testing.assert_allclose(ratio, 1, atol=tolerance, err_msg=name)
    np.testing.assert_allclose(found.servos.delay, SERVOS.delay, atol=TIMESTEP)


def test_predictions_one_frame_ahead(known):
    simulator, episodes, _ = known
    wrong = replace(SERVOS, kp=SERVOS.kp * 2, delay=np.zeros(6))
    for episode in episodes:
        moved = np.abs(np.diff(episode.position, axis=0)).max(0)
        right, worse = (
            np.abs(simulator.step(s, episode) - episode.position) for s in (SERVOS, wrong)
        )
        assert (right.max(0) < 0.25 * moved).all()
        assert (right.mean(0) < worse.mean(0)).all()


def test_droop_and_lag_by_regression(known):
    simulator, episodes, _ = known
    regression = regress(simulator, episodes)
    shows = ~np.isnan(regression.kp)
    assert shows.tolist() == [False, True, True, False, False, False]
    np.testing.assert_allclose(regression.kp[shows], SERVOS.kp[shows], rtol=0.15)
    # Hysteresis and inertia add to the lag.
    least = SERVOS.delay + SERVOS.damping / SERVOS.kp
    assert (regression.lag > 0.9 * least).all()
    assert (regression.lag < 1.5 * least).all()


def test_play_in_the_gears_shows_as_hysteresis():
    play = 0.03
    servos = replace(SERVOS, frictionloss=np.full(6, 0.02))
    simulator, episodes = recording(servos, seconds=6, play=play)
    found = fit(simulator, episodes, guess(simulator, episodes)).servos
    expected = play + servos.frictionloss / servos.kp
    np.testing.assert_allclose(found.frictionloss / found.kp, expected, rtol=0.4)
    assert "backlash" in " ".join(ALWAYS)


def test_joints_that_do_not_move_keep_their_guess():
    simulator, episodes = recording(seconds=4)
    still = []
    for episode in episodes:
        target, position = episode.target.copy(), episode.position.copy()
        target[:, GRIPPER], position[:, GRIPPER] = HOME[GRIPPER], HOME[GRIPPER]
        still.append(Episode(target, position, episode.used))
    start, regression = guess(simulator, still), regress(simulator, still)
    found = fit(simulator, still, start)
    sentences = gaps(found, regression)
    assert sentences[0].startswith("anything about gripper: less than 1 rad of free motion")
    assert list(found.servos)[GRIPPER].damping == pytest.approx(
        list(start)[GRIPPER].damping, rel=0.2
    )


# What is not the servo's doing --------------------------------------------------------------------


def rest(frames=100):
    return np.tile(HOME, (frames, 1)), np.tile(HOME, (frames, 1))


def test_all_of_a_free_motion_is_used(known):
    _, episodes, _ = known
    assert np.concatenate([e.used for e in episodes]).mean() > 0.97


def test_the_way_to_the_first_target_is_left_out(known):
    target, position = rest()
    position[:10, LIFT] += np.linspace(0.6, 0.06, 10)
    expected = np.ones_like(position, bool)
    expected[:10, LIFT] = False
    np.testing.assert_array_equal(undisturbed(known[0], target, position), expected)


def test_a_held_object_is_left_out(known):
    target, position = rest()
    target[40:60, GRIPPER] -= 0.3
    used = undisturbed(known[0], target, position)
    assert used[:, :GRIPPER].all()
    # Where the joint still moved within 0.1 s nothing is held, and 0.3 s are left out around it.
    margin = round(0.3 * FPS)
    assert np.flatnonzero(~used[:, GRIPPER]).tolist() == [*range(40 - margin, 60 + margin)]


def test_a_joint_at_its_stop_is_left_out(known):
    target, position = rest()
    position[50:, ELBOW] = target[50:, ELBOW] = SO101.high[ELBOW] - 0.02
    used = undisturbed(known[0], target, position)
    assert used[:50].all()
    assert not used[50:, ELBOW].any()
    assert used[50:, LIFT].all()


# The model of the servos --------------------------------------------------------------------------

numbers = st.lists(st.floats(0, 1e4, allow_nan=False), min_size=6, max_size=6).map(np.array)


@given(values=st.tuples(*[numbers] * len(Servo._fields)), p_gain=st.integers(1, 254))
def test_the_file_keeps_the_servos(tmp_path_factory, values, p_gain):
    path = tmp_path_factory.mktemp("servos") / "servos.json"
    servos = ServoModel(SO101.joints, *values, p_gain=p_gain)
    servos.save(path, {})
    loaded = ServoModel.load(path, SO101)
    assert (loaded.joints, loaded.p_gain) == (SO101.joints, p_gain)
    np.testing.assert_allclose(np.array(list(loaded)), np.array(list(servos)), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("servos"), "KeyError"),
        (lambda content: content["servos"].pop("gripper"), "gripper"),
        (lambda content: content.update(version=2), "version 2"),
        (lambda content: content["servos"]["gripper"].update(kp=-1.0), "negative"),
        (lambda content: content["servos"]["gripper"].update(kp=float("nan")), "negative"),
        (lambda content: content["servos"]["gripper"].update(kp="stiff"), "stiff"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, change, words):
    path = tmp_path / "servos.json"
    SERVOS.save(path, {})
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"not describe the servos of so101.*{words}.*identify"):
        ServoModel.load(path, SO101)
    with pytest.raises(OSError, match="nothing"):
        ServoModel.load(tmp_path / "nothing.json", SO101)


def test_a_model_and_its_spec_take_the_servos_alike():
    model = compiled(SERVOS)
    np.testing.assert_array_equal(list(ServoModel.of(model, SO101)), list(SERVOS))
    slow = replace(SERVOS.at_gain(32), delay=SERVOS.delay / 2)
    apply(model, slow)
    np.testing.assert_array_equal(list(ServoModel.of(model, SO101)), list(slow))
    ends = []
    for m in (model, compiled(replace(slow, p_gain=16))):
        data = mujoco.MjData(m)
        data.ctrl[:] = HOME
        mujoco.mj_step(m, data, nstep=100)
        ends.append(data.qpos.copy())
    np.testing.assert_allclose(*ends, rtol=1e-12)
    np.testing.assert_allclose(slow.kp, 2 * SERVOS.kp)


def test_a_delay_needs_room():
    model = compiled(replace(SERVOS, delay=np.zeros(6)))
    with pytest.raises(ValueError, match=r"shoulder_pan needs a delay of 0.060 s .* for 0.000 s"):
        apply(model, SERVOS)


@pytest.mark.parametrize("timestep", [0.002, 0.005])
def test_the_servo_acts_after_the_delay(timestep):
    model = compiled(SERVOS, timestep)
    data = mujoco.MjData(model)
    data.qpos[:] = data.ctrl[:] = HOME
    settle(model, data)
    mujoco.mj_step(model, data, nstep=round(1.0 / timestep))
    calm, start = data.actuator_force.copy(), data.time
    data.ctrl[:] += 0.2
    acted = np.full(6, np.nan)
    while data.time < start + 0.1:
        mujoco.mj_step(model, data)
        jumped = np.abs(data.actuator_force - calm) > 0.5
        acted = np.where(np.isnan(acted) & jumped, data.time - timestep - start, acted)
    np.testing.assert_allclose(acted, SERVOS.delay, atol=timestep)


def test_after_a_reset_the_arm_stays_where_it_is():
    model = compiled(SERVOS)
    data = mujoco.MjData(model)
    forces = []
    for settled in (False, True):
        mujoco.mj_resetData(model, data)
        data.qpos[:] = data.ctrl[:] = HOME
        if settled:
            settle(model, data)
        mujoco.mj_step(model, data)
        forces.append(np.abs(data.actuator_force).max())
    assert forces[0] > 2.0
    assert forces[1] < 0.01


# The command --------------------------------------------------------------------------------------


def write(root, episodes):
    """A dataset of simulated motion in contract units."""
    joints = Simulator(SO101, FPS).joints
    with EpisodeWriter(root, arm=SO101, fps=FPS, cameras={}) as writer:
        for seed in range(episodes):
            target = targets(seed, 4)
            action = joints.from_ctrl(target)
            example = example_episode(len(target), seed)
            observations = {
                **example.observations,
                "agent_pos": joints.position(simulate(SERVOS, target)),
            }
            writer.append(
                replace(example, observations=observations, action=action, action_requested=action)
            )
    return root


def test_the_command(tmp_path, capsys):
    out = tmp_path / "runs/identified.json"
    assert main(IdentifyConfig(write(tmp_path / "data", 2), out)) == 0
    printed = capsys.readouterr().out
    assert f"{out} is ready" in printed.replace("\n", "")
    assert "max_torque, kept as it was" in printed
    servos = ServoModel.load(out, SO101)
    assert servos.p_gain == 16
    np.testing.assert_allclose(servos.damping / servos.kp, SERVOS.damping / SERVOS.kp, rtol=0.2)
    evidence = json.loads(out.read_text())["evidence"]
    errors = {name: np.array(list(row.values())) for name, row in evidence["rms_rad"].items()}
    assert (errors["free run, after"] < errors["free run, before"]).all()
    assert (errors["free run, unseen"] < errors["free run, before"]).all()
    low, high = evidence["percentile_5"]["kp"], evidence["percentile_95"]["kp"]
    assert all(low[joint] <= high[joint] for joint in SO101.joints)


def test_one_episode_is_too_few(tmp_path):
    with pytest.raises(ValueError, match="1 episodes of a second or more are too few"):
        read_recording(IdentifyConfig(write(tmp_path / "data", 1)))


@pytest.mark.skipif(not REAL.exists(), reason=f"the real recording is not at {REAL}")
def test_a_real_arm_is_predicted_better_than_by_the_model_before():
    simulator, episodes = read_recording(IdentifyConfig(REAL, units="percent"))
    seen, unseen = episodes[:2], episodes[2:]
    found = fit(simulator, seen, guess(simulator, seen)).servos
    before = rms(simulator, ServoModel.of(simulator.model, SO101).at_gain(16), unseen)
    after = rms(simulator, found, unseen)
    assert (after < 0.85 * before).all()
    assert after.mean() < 0.5 * before.mean()
    assert after.max() < 0.03  # rad
