"""LeRobot's own driver, unmodified, on the twin's port: a second opinion on the protocol."""

import json
import time

import numpy as np
import pytest

from robolearn.contract import SO101
from robolearn.hardware.twin import Twin

IDS = range(1, 7)


@pytest.fixture(scope="module")
def live():
    with Twin() as running:
        yield running


@pytest.fixture
def lerobot():
    """LeRobot refuses its own bus class without this package."""
    pytest.importorskip("deepdiff")


@pytest.fixture
def follower(lerobot, live, tmp_path):
    """LeRobot's own robot on our port, calibrated with what the twin says of itself."""
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    (tmp_path / "twin.json").write_text(json.dumps(live.calibration()))
    config = SO101FollowerConfig(port=live.port, id="twin", calibration_dir=tmp_path, cameras={})
    return SO101Follower(config)


def test_lerobot_s_follower_drives_the_twin(live, follower):
    follower.connect(calibrate=False)
    assert follower.is_calibrated
    servos = live.state()["servos"].values()
    assert [s["p_gain"] for s in servos] == [16] * 6
    assert [s["torque_enable"] for s in servos] == [1] * 6
    assert live.state()["servos"]["gripper"]["protection_current"] == 250

    goal = {"shoulder_pan": 30.0, "elbow_flex": 60.0, "gripper": 50.0}
    action = {name: value for name, value in follower.get_observation().items()}
    follower.send_action({**action, **{f"{joint}.pos": v for joint, v in goal.items()}})
    before = live.state()["time"]
    while live.state()["time"] < before + 2.0:
        time.sleep(0.01)
    observed = follower.get_observation()
    assert observed["shoulder_pan.pos"] == pytest.approx(30.0, abs=1.5)
    assert observed["elbow_flex.pos"] == pytest.approx(60.0, abs=8.0)  # at half the gain it droops
    for joint, servo in live.state()["servos"].items():
        seen = observed[f"{joint}.pos"]
        low, high = SO101.low[SO101.joints.index(joint)], SO101.high[SO101.joints.index(joint)]
        ours = seen / 100 if joint == "gripper" else (low + high) / 2 + np.radians(seen)
        assert servo["position"] == pytest.approx(ours, abs=0.02)
    follower.disconnect()
    assert [s["torque_enable"] for s in live.state()["servos"].values()] == [0] * 6


def test_lerobot_s_bus_reads_writes_and_pings(lerobot, live):
    from lerobot.motors import Motor, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    motors = {
        joint: Motor(i, "sts3215", MotorNormMode.DEGREES) for i, joint in enumerate(SO101.joints, 1)
    }
    bus = FeetechMotorsBus(live.port, motors)
    bus.connect()
    assert bus.broadcast_ping() == dict.fromkeys(IDS, 777)
    bus.disable_torque()
    bus.write("Homing_Offset", "elbow_flex", -321, normalize=False)
    assert bus.read("Homing_Offset", "elbow_flex", normalize=False) == -321
    assert live.state()["servos"]["elbow_flex"]["homing_offset"] == -321
    bus.write("Homing_Offset", "elbow_flex", 0, normalize=False)
    present = bus.sync_read("Present_Position", normalize=False)
    truth = live.state()["servos"]
    assert present == {j: pytest.approx(truth[j]["present_position"], abs=3) for j in SO101.joints}
    bus.sync_write("Goal_Velocity", dict.fromkeys(SO101.joints, -700), normalize=False)
    assert [s["goal_velocity"] for s in live.state()["servos"].values()] == [-700] * 6
    bus.sync_write("Goal_Velocity", dict.fromkeys(SO101.joints, 0), normalize=False)
    live.fault("alarm", servo=2, alarm="OVERHEAT")
    with pytest.raises(RuntimeError, match="Overheat"):
        bus.read("Present_Position", "shoulder_lift", normalize=False)
    live.fault("deaf", servo=2)
    with pytest.raises(ConnectionError):
        bus.sync_read("Present_Position", normalize=False)
    live.mend()
    bus.disconnect()


def test_lerobot_refuses_wrong_models_and_mixed_firmware(live, follower):
    live.fault("wrong_firmware", servo=3)
    with pytest.raises(RuntimeError, match="different firmware"):
        follower.connect(calibrate=False)
    live.mend()
    follower.bus.port_handler.closePort()
    live.fault("wrong_model", servo=3)
    with pytest.raises(RuntimeError, match="incorrect model numbers"):
        follower.connect(calibrate=False)
    live.mend()
    follower.bus.port_handler.closePort()
