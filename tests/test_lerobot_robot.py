"""hardware/lerobot_robot.py: arms that LeRobot drives, behind our environment and our safety."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("deepdiff")  # LeRobot refuses its own bus class without this package

from lerobot_script import TwinClock, save_calibration, servos

from robolearn.contract import SO101, ActionError, Info, action_space
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.client import DriverError
from robolearn.hardware.lerobot_arm import LeRobotArm
from robolearn.hardware.lerobot_robot import LeRobotEnv, open_lerobot
from robolearn.hardware.safety import Fault
from robolearn.hardware.twin import Twin
from robolearn.units import unit_map

HOME = np.float32(SO101.home)
DT = 1 / SO101.control_hz


def open_follower(twin, folder):
    calibration = save_calibration(twin, folder)
    clock = TwinClock(twin)
    return open_lerobot("so101_follower", port=twin.port, calibration=calibration, clock=clock)


# LeRobot's follower on the twin, behind our environment ------------------------------------------


@pytest.fixture(scope="module")
def twin():
    with Twin(lockstep=True) as running:
        yield running


@pytest.fixture(scope="module")
def shared_env(twin, tmp_path_factory):
    env = open_follower(twin, tmp_path_factory.mktemp("calibration"))
    yield env
    env.close()


@pytest.fixture
def env(shared_env, twin):
    """Engaged and at home."""
    twin.mend()
    shared_env.reset_fault()
    shared_env.reset(seed=5, options={"instruction": "wave"})
    yield shared_env
    twin.mend()


def test_the_follower_keeps_the_contract(env, twin):
    goal = HOME.copy()
    goal[[0, 5]] = 0.5, 0.8
    for _ in range(40):
        observation, reward, terminated, truncated, info = env.step(goal)
        assert observation in env.observation_space
        assert not terminated
        assert not truncated
    truth = servos(twin, "position")
    np.testing.assert_allclose(observation["agent_pos"], truth, atol=0.01)
    np.testing.assert_allclose(truth[[0, 5]], [0.5, 0.8], atol=0.03)
    np.testing.assert_array_equal(info[Info.ACTION_SENT], goal)
    assert (info[Info.TASK], info[Info.SEED], info[Info.LIMITED]) == ("wave", 5, False)
    assert reward == 0.0


def test_an_episode_begins_at_home(env, twin):
    observation, info = env.reset(seed=0)
    np.testing.assert_allclose(info[Info.ACTION_SENT], HOME, atol=0.02)
    np.testing.assert_allclose(observation["agent_pos"], HOME, atol=0.1)  # it droops
    assert env.unwrapped.task_description == ""


def test_the_safety_layer_limits_what_lerobot_sends(env, twin):
    calibration = Calibration.from_dict(twin.calibration(), SO101)
    sent = [calibration.position(servos(twin, "goal_position"))]
    for _ in range(10):
        info = env.step(SO101.limits[1])[-1]
        assert info[Info.LIMITED]
        sent.append(calibration.position(servos(twin, "goal_position")))
    rate = np.abs(np.diff(sent, axis=0)).max(axis=0) / DT
    assert (rate <= env.supervisor.limits.velocity + 0.05).all()  # a tick is 0.03 rad/s
    assert rate.max() > 1.2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_invalid_action_is_rejected(env, twin, bad):
    before = servos(twin, "goal_position")
    with pytest.raises(ActionError, match="elbow_flex"):
        env.step(np.where(np.arange(6) == 2, bad, HOME))
    np.testing.assert_array_equal(servos(twin, "goal_position"), before)
    assert not env.step(HOME)[3]


def test_a_jam_is_a_fault_that_stays(env, twin):
    twin.fault("stuck", servo=1)
    goal = HOME.copy()
    goal[0] = 1.0
    for _ in range(40):
        *_, truncated, info = env.step(goal)
        if truncated:
            break
    assert info[Info.FAULT] == Fault.TRACKING
    assert env.problem
    with pytest.raises(DriverError, match="the fault tracking is latched .* reset_fault"):
        env.reset()
    twin.mend()
    env.reset_fault()
    env.reset()
    assert not env.step(HOME)[3]


def test_a_silent_servo_ends_the_episode(env, twin):
    twin.fault("silent", servo=3)
    before = env.step(HOME)
    assert before[3]
    assert before[-1][Info.FAULT] == Fault.COMMUNICATION
    assert before[0] in env.observation_space
    assert "Failed to sync read" in env.problem


@pytest.fixture(scope="module")
def spare():
    """A twin for tests that open the follower themselves."""
    with Twin(lockstep=True) as running:
        yield running


def test_closing_parks_the_arm(spare, tmp_path):
    env = open_follower(spare, tmp_path)
    env.reset()
    env.close()
    np.testing.assert_allclose(servos(spare, "position")[:4], [0, -1.6, 1.5, 1], atol=0.08)
    assert not servos(spare, "torque_enable").any()


def test_a_pulled_cable_ends_the_episode_and_is_told(spare, tmp_path):
    env = open_follower(spare, tmp_path)
    env.reset()
    spare.fault("unplug")
    *_, truncated, info = env.step(HOME)
    assert truncated
    assert info[Info.FAULT] == Fault.COMMUNICATION
    with pytest.raises(DriverError, match="switch the arm's power off"):
        env.close()
    env.close()  # twice is no error
    spare.mend()


def test_a_robot_that_lerobot_does_not_know_is_named():
    with pytest.raises(ValueError, match=r"LeRobot has no robot 'so102'; it has .*so101_follower"):
        open_lerobot("so102", port="/dev/null")
    with pytest.raises(ValueError, match="what is a koch_follower"):
        open_lerobot("koch_follower", port="/dev/null")


# Any robot ---------------------------------------------------------------------------------------


class FakeRobot:
    """Is at once where it is told to be; its camera sees red on the left."""

    def __init__(self, *, use_degrees=True, calibrated=True):
        self.config = SimpleNamespace(use_degrees=use_degrees)
        self.action_features = {f"{joint}.pos": float for joint in SO101.joints}
        self.observation_features = {**self.action_features, "front": (60, 80, 3), "far": (9, 9, 1)}
        self.is_connected, self.is_calibrated = False, calibrated
        scale, offset = unit_map(SO101, "degrees" if use_degrees else "percent")
        self.position = dict(zip(self.action_features, (HOME - offset) / scale, strict=True))
        self.picture = np.zeros((60, 80, 3), np.uint8)
        self.picture[:, :40, 0] = 200

    def __str__(self):
        return "fake"

    def connect(self, *, calibrate=True):
        assert not calibrate
        self.is_connected = True

    def send_action(self, action):
        self.position = dict(action)
        return action

    def get_observation(self):
        return {**self.position, "front": self.picture}

    def disconnect(self):
        self.is_connected = False


def fake_env(robot, **options):
    clock = SimpleNamespace(now=lambda: 0.0, wait_until=lambda deadline: True)
    return LeRobotEnv(robot, clock=clock, **options)


@pytest.mark.parametrize("use_degrees", [True, False])
def test_units_are_the_robots(use_degrees):
    robot = FakeRobot(use_degrees=use_degrees)
    env = fake_env(robot)
    env.reset()
    goal = HOME.copy()
    goal[[0, 5]] = np.pi / 6, 0.75
    for _ in range(30):
        env.step(goal)
    pan = 30.0 if use_degrees else 100 * (np.pi / 6) / SO101.high[0]
    assert robot.position["shoulder_pan.pos"] == pytest.approx(pan, abs=1e-4)
    assert robot.position["gripper.pos"] == pytest.approx(75.0, abs=1e-4)


def test_pictures_are_fitted():
    env = fake_env(FakeRobot(), image_size=(24, 24), render_mode="rgb_array")
    observation, _ = env.reset()
    assert observation in env.observation_space
    (picture,) = observation["pixels"].values()
    assert picture.shape == (24, 24, 3)
    assert picture[12, 3].tolist() == [200, 0, 0]
    assert picture[12, 20].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(env.render(), picture)


def test_a_position_that_is_no_number_is_a_lost_robot():
    robot = FakeRobot()
    env = fake_env(robot)
    env.reset()
    robot.send_action = lambda action: action
    robot.position["elbow_flex.pos"] = float("nan")
    observation, *_, truncated, info = env.step(HOME)
    assert truncated
    assert info[Info.FAULT] == Fault.COMMUNICATION
    assert observation in env.observation_space


def test_what_the_robot_clips_is_told():
    robot = FakeRobot()
    arm = LeRobotArm(robot, SO101)
    arm.reset()
    held = dict(robot.position)
    robot.send_action = lambda action: held
    info = arm.step(SO101.limits[1])[-1]
    assert info[Info.LIMITED]
    np.testing.assert_allclose(info[Info.ACTION_SENT], HOME, atol=1e-6)
    assert arm.action_space == action_space(SO101)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"action_features": {"x.pos": float}},
            "fake takes x.pos; so101 is driven by shoulder_pan",
        ),
        ({"config": None}, "fake does not tell its units; give one of si, percent, degrees"),
        ({"is_calibrated": False}, "fake is not calibrated; run `lerobot-calibrate` first"),
    ],
)
def test_a_robot_that_does_not_fit_is_refused(change, words):
    robot = FakeRobot()
    vars(robot).update(change)
    with pytest.raises(ValueError, match=words):
        fake_env(robot)
    assert not robot.is_connected


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="camera is 'top'; fake has front"):
        fake_env(FakeRobot(), cameras=["top"])
