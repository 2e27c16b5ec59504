"""hardware/so101robot.py: our arm behind LeRobot's own commands, which know nothing of us."""

import sys
from importlib import import_module

import numpy as np
import pytest

pytest.importorskip("deepdiff")  # which LeRobot's robots need

from lerobot_script import Scripted, save_calibration, servos

from robolearn.contract import SO101, ActionError
from robolearn.dataset import EpisodeDataset
from robolearn.hardware.client import DriverError
from robolearn.hardware.safety import SafetyConfig
from robolearn.hardware.so101robot import SO101Robot, SO101RobotConfig
from robolearn.hardware.twin import Twin


@pytest.fixture(scope="module")
def live():
    with Twin() as running:
        yield running


@pytest.fixture
def config(live, tmp_path):
    save_calibration(live, tmp_path)
    return SO101RobotConfig(
        port=live.port, id="black", calibration_dir=tmp_path, blackbox=tmp_path / "blackbox"
    )


@pytest.fixture
def command(monkeypatch, config):
    """Runs one of LeRobot's commands, as its script does, with our arm and the scripted human."""

    def run(name, *options):
        arguments = [
            "--robot.discover_packages_path=robolearn.hardware",
            "--robot.type=robolearn_so101",
            *(f"--robot.{key}={getattr(config, key)}" for key in ("port", "id", "calibration_dir")),
            f"--robot.blackbox={config.blackbox}",
            f"--teleop.type={Scripted.name}",
            *options,
        ]
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        import_module(f"lerobot.scripts.{name}").main()

    return run


def assert_parked(live):
    """The pan is straight, and the arm lies down: it is limp, so it has sunk towards its stop."""
    np.testing.assert_allclose(servos(live, "position")[:2], [0, -1.7], atol=0.2)


def test_lerobot_records_with_our_arm(command, live, tmp_path):
    command(
        "lerobot_record",
        "--robot.cameras={top: {type: grey, width: 64, height: 48, fps: 20}}",
        f"--dataset.root={tmp_path / 'data'}",
        "--dataset.repo_id=me/wave",
        "--dataset.single_task=wave",
        "--dataset.num_episodes=1",
        "--dataset.episode_time_s=1.5",
        "--dataset.fps=20",
        "--dataset.push_to_hub=false",
        "--dataset.rgb_encoder.vcodec=h264",
        "--play_sounds=false",
    )
    data = EpisodeDataset(tmp_path / "data", units="degrees")
    assert data.arm == SO101
    assert data.cameras == {"top": (48, 64)}
    assert data.episodes.instruction == ("wave",)
    assert len(data) > 3  # of 30 on a machine that is not busy
    np.testing.assert_allclose(data.columns["action"][:, 0], np.radians(20), atol=1e-5)
    pan = data.columns["agent_pos"][:, 0]
    assert pan[-1] > pan[0] + 0.1
    assert (np.abs(np.diff(pan)) < 0.3).all()  # slowly, though the human asked for it at once
    assert not servos(live, "torque_enable").any()
    assert_parked(live)


def test_a_human_who_sends_nan_ends_the_command_and_the_arm_parks(command, live):
    with pytest.raises(ActionError, match="shoulder_pan is nan"):
        command("lerobot_teleoperate", "--teleop.pan=nan", "--teleop_time_s=9")
    assert not servos(live, "torque_enable").any()
    assert_parked(live)


def test_lerobot_finds_the_robot_by_the_name_of_a_distribution(tmp_path, monkeypatch, config):
    """A distribution `lerobot_robot_...` of one line is enough for LeRobot to find it by itself."""
    from lerobot.robots import make_robot_from_config
    from lerobot.utils.import_utils import register_third_party_plugins

    name = "lerobot_robot_robolearn"
    (tmp_path / f"{name}.py").write_text("import robolearn.hardware.so101robot\n")
    (tmp_path / f"{name}-0.1.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
    (tmp_path / f"{name}-0.1.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    register_third_party_plugins()
    assert name in sys.modules
    assert isinstance(make_robot_from_config(config), SO101Robot)


def test_a_fault_ends_lerobot_s_loop(config):
    robot = SO101Robot(config)
    robot.connect()
    try:
        observed = robot.get_observation()
        assert set(observed) == set(robot.observation_features)
        robot.send_action(observed)
        robot.driver.estop()
        with pytest.raises(DriverError, match="the arm has stopped: .*emergency stop"):
            robot.get_observation()
        with pytest.raises(DriverError, match="the arm has stopped"):
            robot.send_action(observed)
    finally:
        robot.disconnect()
    assert not robot.is_connected
    with pytest.raises(ConnectionError):
        robot.get_observation()


def test_an_arm_without_calibration_is_not_driven(config):
    config.id = "white"
    robot = SO101Robot(config)
    assert not robot.is_calibrated
    with pytest.raises(ValueError, match="white.json is not there .* `robolearn calibrate"):
        robot.connect()
    assert not robot.is_connected


def test_calibrations_are_shared_with_lerobot_s_follower():
    robot = SO101Robot(SO101RobotConfig(port="/dev/null", id="nobody"))
    assert robot.calibration_fpath.parts[-2:] == ("so_follower", "nobody.json")


def test_the_thresholds_reach_the_driver(config):
    config.speed, config.on_exit = 0.4, "limp"
    settings = SO101Robot(config)._driver_config()
    assert settings.safety == SafetyConfig(velocity=0.4, on_exit="limp")
