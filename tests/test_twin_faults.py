"""Every fault of the twin acts, and ends."""

import pytest
from twin_host import IDS, LIFT, REACH, STATE, Host, parse

from robolearn.contract import SO101
from robolearn.hardware.registers import Alarm, Register
from robolearn.hardware.twin_arm import TICK
from robolearn.hardware.twin_faults import NAMES

SENT = 40  # state blocks


@pytest.fixture
def host():
    return Host(pose=SO101.home)


def hear(host, name, **options):
    """Replies to `SENT` state blocks with a fault, as bytes per block."""
    host.arm.faults.begin(name, **options)
    return [b"".join(r.data for r in host.arm.receive(STATE)) for _ in range(SENT)]


def test_without_faults_all_is_heard(host):
    assert [servo for servo, _, _ in host.say(STATE)] == list(IDS)


@pytest.mark.parametrize("name", ["drop", "corrupt", "truncate"])
def test_damaged_replies_are_missing_and_no_others(host, name):
    heard = sum(len(parse(block)) for block in hear(host, name, one_in=4))
    assert 0.65 * 6 * SENT < heard < 0.85 * 6 * SENT
    host.arm.faults.end(name)
    assert len(host.say(STATE)) == 6


def test_a_fault_can_strike_once_and_one_servo(host):
    blocks = hear(host, "drop", servo=3, times=1)
    assert [len(parse(block)) for block in blocks] == [5] + [6] * (SENT - 1)
    assert [servo for servo, _, _ in parse(blocks[0])] == [1, 2, 4, 5, 6]


def test_duplicates_noise_and_wrong_ids(host):
    assert [s for s, _, _ in parse(hear(host, "duplicate", servo=2)[0])] == [1, 2, 2, 3, 4, 5, 6]
    host.arm.faults.end()
    assert len(parse(hear(host, "noise")[0])) == 6
    assert len(hear(host, "noise")[0]) > 6 * 21
    host.arm.faults.end()
    assert [s for s, _, _ in parse(hear(host, "wrong_id", servo=2)[0])] == [1, 3, 3, 4, 5, 6]


def test_a_write_that_nobody_hears_is_lost_without_a_sign(host):
    host.arm.faults.begin("unheard", one_in=2)
    obeyed = 0
    for goal in range(SENT):
        host.write(Register.GOAL_POSITION, goal)
        obeyed += [r["goal_position"] for r in host.registers] == [goal] * 6
    assert 0.3 * SENT < obeyed < 0.7 * SENT


def test_a_late_reply_is_delayed(host):
    host.arm.faults.begin("late", servo=4)
    assert [reply.delay for reply in host.arm.receive(STATE)] == [0, 0, 0, 0.06, 0, 0]


def test_the_silent_obey_and_the_deaf_do_not(host):
    host.arm.faults.begin("silent", servo=2)
    host.arm.faults.begin("deaf", servo=3)
    host.write(Register.TORQUE_ENABLE, 1)
    assert [servo for servo, _, _ in host.say(STATE)] == [1, 4, 5, 6]
    assert [r["torque_enable"] for r in host.registers] == [1, 1, 0, 1, 1, 1]
    host.arm.faults.end()
    assert len(host.say(STATE)) == 6


def test_power_loss_drops_the_arm_and_resets_the_servos(host):
    host.go(SO101.home)
    host.write(Register.TORQUE_LIMIT, 300)
    host.arm.faults.begin("power_loss")
    assert host.say(STATE) == []
    assert not any(r["powered"] for r in host.registers)
    host.arm.advance(1.0)
    assert host.position[LIFT] > SO101.home[LIFT] + 0.2
    host.arm.faults.end("power_loss")
    assert [r["torque_enable"] for r in host.registers] == [0] * 6
    assert [r["torque_limit"] for r in host.registers] == [1000] * 5 + [500]
    assert len(host.say(STATE)) == 6


def test_a_brownout_reboots_one_servo_or_all(host):
    host.go(SO101.home)
    host.arm.faults.begin("brownout", servo=2)
    assert [r["torque_enable"] for r in host.registers] == [1, 0, 1, 1, 1, 1]
    host.arm.faults.begin("brownout")
    assert [r["torque_enable"] for r in host.registers] == [0] * 6


@pytest.mark.parametrize("alarm", list(Alarm))
def test_alarms_are_in_the_error_byte_and_in_the_status(host, alarm):
    host.go(SO101.home)
    host.arm.faults.begin("alarm", servo=5, alarm=alarm.name)
    errors = [error for _, error, _ in host.say(STATE)]
    assert errors == [0, 0, 0, 0, alarm, 0]
    assert host.read(Register.STATUS)[5] == alarm
    host.arm.faults.end()
    assert host.registers[4]["status"] == 0


def test_a_stuck_joint_ends_in_overload_and_then_pulls_less(host):
    host.go(SO101.home)
    host.arm.faults.begin("stuck", servo=1)
    host.go((1.0, *SO101.home[1:]), seconds=1.9)
    assert host.position[0] == pytest.approx(0.0, abs=0.01)
    assert host.registers[0]["status"] == 0
    host.arm.advance(0.4)
    assert host.registers[0]["status"] == Alarm.OVERLOAD
    assert abs(host.registers[0]["present_load"]) <= 200
    host.arm.faults.end("stuck")
    host.write(Register.TORQUE_ENABLE, 0)
    host.go((1.0, *SO101.home[1:]))
    assert host.position[0] == pytest.approx(1.0, abs=0.02)


def test_overload_can_be_had_at_once(host):
    host.go(REACH)
    host.arm.faults.begin("overload", servo=LIFT + 1)
    held = host.position[LIFT]
    host.arm.advance(1.0)
    assert host.registers[LIFT]["status"] == Alarm.OVERLOAD
    assert host.position[LIFT] > held + 0.1  # a fifth of the torque does not hold the arm


def test_an_encoder_that_slips_moves_the_arm(host):
    host.go(SO101.home)
    before = host.angle[0]
    host.arm.faults.begin("encoder_jump", servo=1, ticks=200)
    host.arm.step()
    assert host.read(Register.PRESENT_POSITION)[1] == pytest.approx(2047 + 200, abs=3)
    host.arm.advance(1.0)
    assert host.angle[0] - before == pytest.approx(-200 * TICK, abs=0.01)


def test_heat_and_voltage(host):
    host.go(SO101.home)
    host.arm.faults.begin("heat", servo=3, celsius=72.0)
    host.arm.faults.begin("voltage", volts=3.5)
    host.arm.advance(0.1)
    assert host.read(Register.PRESENT_TEMPERATURE)[3] == 72
    assert host.read(Register.PRESENT_VOLTAGE)[1] in (34, 35)
    assert host.registers[0]["status"] == Alarm.VOLTAGE
    assert host.registers[2]["status"] == Alarm.VOLTAGE | Alarm.OVERHEAT
    assert host.arm.physics.torque[2] == 0  # the hot one has let go
    host.arm.faults.end()
    host.arm.advance(0.1)
    assert host.registers[0]["status"] == 0


def test_identities_that_are_not_as_they_should_be(host):
    faults = ("wrong_model", "wrong_firmware", "eeprom")
    registers = (Register.MODEL, Register.FIRMWARE_MINOR, Register.HOMING_OFFSET)
    for name in faults:
        extra = {"register": "HOMING_OFFSET", "value": -55} if name == "eeprom" else {}
        host.arm.faults.begin(name, servo=2, **extra)
    assert [host.read(r)[2] for r in registers] == [2825, 9, -55]
    host.arm.faults.end()
    assert [host.read(r)[2] for r in registers] == [777, 10, 0]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("drops", {}, "no fault 'drops', did you mean 'drop'"),
        ("stuck", {}, "the fault 'stuck' takes servo, not {}"),
        ("stuck", {"servo": 9}, "no servo 9; they are 1 to 6"),
        ("alarm", {"servo": 1, "alarm": "FIRE"}, "no alarm 'FIRE'; there are VOLTAGE"),
        ("voltage", {"volts": 0}, "use the fault power_loss"),
        ("eeprom", {"servo": 1, "register": "X"}, "no register 'X'"),
        ("camera", {"camera": "top", "what": "x"}, "choose one of stall, freeze, end"),
    ],
)
def test_faults_that_do_not_exist(host, name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        host.arm.faults.begin(name, **options)
    assert host.arm.faults.describe() == []


def test_faults_are_described_by_name_and_setting(host):
    host.arm.faults.begin("stuck", servo=2)
    host.arm.faults.begin("drop", one_in=50)
    assert host.arm.faults.describe() == [
        {"name": "stuck", "servo": 2},
        {"name": "drop", "one_in": 50, "servo": None, "times": None},
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_fault_can_come_and_go(host, name):
    options = {
        "voltage": {"volts": 5.0},
        "camera": {"camera": "top"},
        "power_loss": {},
        "unplug": {},
        "brownout": {},
        "unheard": {},
    }.get(name, {"servo": 1})
    host.arm.faults.begin(name, **options)
    host.arm.advance(0.02)
    host.arm.receive(STATE)
    host.arm.faults.end(name)
    host.arm.advance(0.02)
    assert len(host.say(STATE)) == 6
    assert host.arm.plugged
