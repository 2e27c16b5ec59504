"""The twin's arm without its process: droop, limits, heat, hand, lockstep, tasks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from twin_host import ELBOW, IDS, LIFT, REACH, STATE, Host

from robolearn.contract import SO101
from robolearn.envs.servo_model import ServoModel
from robolearn.hardware.registers import Register
from robolearn.hardware.twin import TwinConfig
from robolearn.hardware.twin_arm import TICK, TwinArm
from robolearn.hardware.twin_physics import EmptyTable
from robolearn.registry import make_env


@pytest.fixture
def host():
    return Host(pose=SO101.home)


def test_a_limp_arm_falls_and_one_at_rest_stays(host):
    host.arm.advance(1.0)
    assert host.position[LIFT] > SO101.home[LIFT] + 0.2
    resting = Host()
    before = resting.position
    resting.arm.advance(2.0)
    np.testing.assert_allclose(resting.position, before, atol=0.03)


def test_the_calibration_is_the_contract_in_ticks(host):
    for place, joint in enumerate(SO101.joints):
        entry = host.arm.calibration.to_dict()[joint]
        low, high = host.arm.physics.task.model.joint(joint).range
        assert entry["id"] == place + 1
        assert (entry["range_min"] + entry["range_max"]) / 2 == 2047
        assert (entry["range_max"] - entry["range_min"]) * TICK == pytest.approx(
            high - low, abs=2 * TICK
        )
        servo = host.registers[place]
        assert [servo["min_position"], servo["max_position"], servo["homing_offset"]] == [
            entry["range_min"],
            entry["range_max"],
            entry["homing_offset"],
        ]


def test_a_held_arm_droops_exactly_as_the_task_does():
    """Same spring, damping and limits; only the supply sags a little under the load."""
    host = Host(pose=REACH)
    ticks = host.go(REACH, seconds=3.0)
    task = EmptyTable(obs_type="state")
    task.reset(seed=0)
    task.data.qpos[:] = task.joints.to_ctrl(np.array(REACH))
    target = host.arm.joints.from_ctrl(host.arm.encoders.angle(ticks))
    for _ in range(60):
        observation, *_ = task.step(target)
    np.testing.assert_allclose(host.position, observation["agent_pos"], atol=5e-4)
    droop = np.degrees(host.position - REACH)[[LIFT, ELBOW]]
    assert 1.5 < droop[0] < 4.0
    assert 0.5 < droop[1] < droop[0]


def test_half_the_gain_droops_twice_as_far():
    stiff, soft = Host(pose=REACH), Host(pose=REACH, registers={"P_GAIN": 16})
    droops = [np.array(REACH)[LIFT] - h.position[LIFT] for h in (stiff, soft) if [h.go(REACH, 3.0)]]
    assert droops[1] / droops[0] == pytest.approx(2.0, abs=0.2)


def test_the_firmware_limits_the_speed(host):
    host.go(SO101.home)
    host.write(Register.GOAL_VELOCITY, 400)
    host.write(Register.ACCELERATION, 20)
    start = host.position[0]
    host.go((1.0, *SO101.home[1:]), seconds=1.0)
    moved = host.position[0] - start
    assert 300 * TICK < moved < 400 * TICK
    assert host.read(Register.PRESENT_VELOCITY)[1] == pytest.approx(400, abs=15)


def test_readings_are_those_of_the_simulation(host):
    host.go(REACH)
    physics = host.arm.physics
    ticks = host.arm.encoders.ticks(host.angle)
    assert list(host.read(Register.PRESENT_POSITION).values()) == np.round(ticks).tolist()
    load = host.read(Register.PRESENT_LOAD)[LIFT + 1]
    assert load / 1000 == pytest.approx(0.97 * physics.torque[LIFT] / 3.25, abs=0.01)
    current = host.read(Register.PRESENT_CURRENT)[LIFT + 1]
    assert current * 0.0065 == pytest.approx(abs(physics.torque[LIFT]) / 1.2116, abs=0.004)
    assert physics.voltage < 7.4


def test_backlash_delays_a_return():
    play = 0.0087
    back = []
    for backlash in (0.0, play):
        host = Host(pose=SO101.home, backlash=backlash)
        for pan in (0.3, 0.25):
            host.go((pan, *SO101.home[1:]))
        back.append(host.position[0] - 0.25)
    assert back[1] - back[0] == pytest.approx(play, abs=2e-3)


def test_holding_a_newton_metre_for_ten_minutes_warms_by_15_degrees():
    host = Host(pose=REACH)
    host.go(REACH, seconds=8.0)
    physics = host.arm.physics
    share = (1 - np.exp(-8 / 600)) / (1 - np.exp(-1))  # of the ten minutes' rise
    rise = (physics.temperature[LIFT] - 25.0) / share / physics.torque[LIFT] ** 2
    assert rise == pytest.approx(15.0, abs=2.0)


def test_a_hand_leads_a_limp_arm_and_lets_go(host):
    goal = dict(zip(SO101.joints, (0.5, -1.0, 1.0, -0.5, 1.0, 0.8), strict=True))
    host.arm.physics.push(goal, {})
    host.arm.advance(2.0)
    np.testing.assert_allclose(host.position, list(goal.values()), atol=0.03)
    host.arm.physics.push({}, {"shoulder_pan": 0.3})
    host.arm.advance(0.5)
    assert host.position[0] > 1.0
    assert abs(host.position[LIFT] + 1.0) > 0.05  # let go, it sinks
    with pytest.raises(ValueError, match="no joint 'ellbow'; there are shoulder_pan"):
        host.arm.physics.push({"ellbow": 1.0}, {})


def test_a_gripper_that_closes_on_itself_pulls_half_of_stall(host):
    host.write(Register.MIN_POSITION, 0)
    host.go((*SO101.home[:5], 0.0))
    assert host.registers[5]["torque_limit"] == 500
    host.arm.servos[5][Register.MIN_POSITION] = 0
    host.write(Register.GOAL_POSITION, [2047] * 5 + [200])
    host.arm.advance(1.0)
    assert host.arm.physics.torque[5] == pytest.approx(-1.6, rel=0.02)


def test_a_calibration_file_says_where_the_encoders_sit(tmp_path):
    facts = Host().arm.calibration.to_dict()
    for place, entry in enumerate(facts.values()):
        entry["homing_offset"] = 300 * place - 700
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(facts))
    known = Host(calibration=path, pose=SO101.home)
    assert known.arm.calibration.to_dict() == facts
    new = Host(calibration=path, calibrated=False, pose=SO101.home)
    assert [r["homing_offset"] for r in new.registers] == [0] * 6
    assert [r["max_position"] for r in new.registers] == [4095] * 6
    before, after = known.read(Register.PRESENT_POSITION), new.read(Register.PRESENT_POSITION)
    assert [after[i] - before[i] for i in IDS] == [300 * place - 700 for place in range(6)]
    path.write_text(json.dumps({"shoulder_pan": facts["shoulder_pan"]}))
    with pytest.raises(
        ValueError, match="arm.json: the calibration is for shoulder_pan; so101 has"
    ):
        TwinArm(TwinConfig(calibration=path))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"env": "robolearn/PickPlaces-v0"}, "near matches: robolearn/PickPlace-v0"),
        ({"pose": (0.0, 1.0)}, "pose has 2 joints; the arm has 6"),
        ({"registers": {"P_GAINS": 3}}, "no register 'P_GAINS'; there are .*P_GAIN"),
        ({"registers": {"P_GAIN": 300}}, "P_GAIN cannot be 300"),
        ({"env": "CartPole-v1"}, "CartPole-v1 is not simulated by robolearn"),
    ],
)
def test_configs_that_cannot_be(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        TwinArm(TwinConfig(**options))


# Time and tasks ----------------------------------------------------------------------------------


def test_in_lockstep_each_state_block_is_20_ms():
    host = Host(lockstep=True)
    for _ in range(5):
        host.say(STATE)
        host.read(Register.PRESENT_POSITION)
    assert host.arm.physics.time == pytest.approx(0.1)


def test_lockstep_repeats_bit_for_bit():
    def life():
        host = Host(env="robolearn/PickPlace-v0", lockstep=True, pose=SO101.home)
        host.arm.faults.begin("corrupt", one_in=5)
        rng, heard = np.random.default_rng(0), []
        host.write(Register.TORQUE_ENABLE, 1)
        for _ in range(60):
            host.write(Register.GOAL_POSITION, rng.integers(1500, 2600, 6).tolist())
            heard.append(b"".join(reply.data for reply in host.arm.receive(STATE)))
        return heard, host.arm.state(), host.arm.physics.snapshot()

    (first, state, last), (again, same_state, same_last) = life(), life()
    assert first == again
    assert state == same_state
    assert all(np.array_equal(a, b) for a, b in zip(last, same_last, strict=True))


def test_reset_places_the_objects_of_the_task_and_leaves_the_arm():
    host = Host(env="robolearn/PickPlace-v0")
    host.arm.advance(0.5)
    before, now = host.position, host.arm.physics.time
    text = "put the red cube in the yellow bin"
    host.arm.reset(7, text)
    np.testing.assert_array_equal(host.position, before)
    assert host.arm.physics.time == now
    task = make_env("robolearn/PickPlace-v0", obs_type="state").unwrapped
    observation, _ = task.reset(seed=7, options={"instruction": text})
    ours = host.arm.physics.task
    np.testing.assert_array_equal(
        ours.environment_state(ours.state, ours.goal[None])[0], observation["environment_state"]
    )
    assert host.arm.state()["task"] == text
    with pytest.raises(ValueError, match="PickPlace does not know 'fly'"):
        host.arm.reset(7, "fly")


def test_reset_can_put_the_arm_where_the_episode_begins_and_there_it_stays():
    host = Host(env="robolearn/PickPlace-v0")
    host.go(host.position)
    host.arm.reset(7, place="home")
    task = make_env("robolearn/PickPlace-v0", obs_type="state").unwrapped
    wanted = task.reset(seed=7)[0]["agent_pos"]
    np.testing.assert_array_equal(host.position, wanted)
    host.arm.advance(1.0)
    np.testing.assert_allclose(host.position, wanted, atol=0.08)


def test_identified_servos_can_be_had(tmp_path):
    task = EmptyTable(obs_type="state")
    own = ServoModel.of(task.model, SO101)
    path = tmp_path / "servos.json"
    soft = replace(own, kp=own.kp / 2, delay=np.full(6, 0.05))
    soft.save(path, {})
    host, usual = Host(pose=REACH, servo=path), Host(pose=REACH)
    for arm in (host, usual):
        arm.go(REACH, seconds=3.0)
    droop = [(np.array(REACH) - h.position)[LIFT] for h in (host, usual)]
    assert droop[0] / droop[1] == pytest.approx(2.0, abs=0.2)
    pan = host.angle[0]
    host.go((0.5, *REACH[1:]), seconds=0.05)
    assert host.angle[0] == pytest.approx(pan, abs=1e-4)
    host.arm.advance(0.05)
    assert host.angle[0] > pan + 1e-3


def test_success_is_the_task_s_own():
    host = Host(env="robolearn/PickPlace-v0")
    task = host.arm.physics.task
    host.arm.reset(7, "put the red cube in the blue bin")
    assert host.arm.state()["progress"] < 0.9
    cube = task.model.joint("red cube").qposadr[0]
    task.data.qpos[cube : cube + 2] = task.data.mocap_pos[int(task.goal[1]) - 4][:2]
    host.arm.advance(0.2)
    assert not host.arm.state()["success"]  # not for long enough yet
    host.arm.advance(0.5)
    assert host.arm.state()["success"]
    assert host.arm.state()["progress"] == 1.0
    host.arm.reset(8)
    assert not host.arm.state()["success"]
