"""The twin's servo firmware: registers, trajectory, protection."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servo_bench import AT, DT, make, packet, run, switched_on, talk

from robolearn.hardware.registers import Alarm, Register
from robolearn.hardware.twin_servo import Sensed

# Registers ---------------------------------------------------------------------------------------


def test_the_lock_protects_the_permanent_registers():
    servo = make()
    servo.write(Register.P_GAIN, b"\x10")
    assert servo[Register.P_GAIN] == 32
    servo.write(Register.LOCK, b"\x00")
    servo.write(Register.P_GAIN, b"\x10")
    assert servo[Register.P_GAIN] == 16
    servo.write(Register.MODEL, b"\x00\x00")
    servo.write(Register.PRESENT_POSITION, b"\x00\x00")
    assert servo[Register.MODEL] == 777
    assert servo[Register.PRESENT_POSITION] == 2048


def test_power_keeps_the_permanent_registers_only():
    servo = switched_on(make(MAX_TORQUE=500), LOCK=0, GOAL_VELOCITY=300, ACCELERATION=20)
    servo.write(Register.P_GAIN, b"\x10")
    run(servo, 0.1, Sensed(encoder=1500))
    servo.power_off()
    assert run(servo, DT, Sensed(encoder=1500)) is None
    servo.power_on()
    assert servo[Register.P_GAIN] == 16
    assert [servo[r] for r in (Register.TORQUE_ENABLE, Register.GOAL_VELOCITY)] == [0, 0]
    assert servo[Register.TORQUE_LIMIT] == 500
    assert servo[Register.LOCK] == 1
    assert servo[Register.GOAL_POSITION] == 1500


@given(st.integers(-2047, 2047), st.integers(0, 4095))
def test_128_makes_the_present_position_the_middle(offset, encoder):
    servo = make(sensed=Sensed(encoder=encoder), HOMING_OFFSET=offset)
    before = servo[Register.TORQUE_ENABLE]
    servo.write(Register.TORQUE_ENABLE, bytes([128]))
    assert abs(servo.present - 2048) <= 1  # an offset of -2048 cannot be written
    assert servo[Register.TORQUE_ENABLE] == before


@given(st.floats(-9000, 9000), st.integers(-2047, 2047))
def test_the_position_wraps_at_the_end_of_the_turn(encoder, offset):
    servo = make(sensed=Sensed(encoder=encoder), HOMING_OFFSET=offset)
    assert servo.present == (round(encoder) - offset) % 4096
    several_turns = make(sensed=Sensed(encoder=encoder), HOMING_OFFSET=offset, PHASE=12 + 16)
    assert several_turns.present == round(encoder) - offset


def test_pushed_over_the_seam_a_servo_wants_to_go_round():
    servo = switched_on(make(sensed=Sensed(encoder=4090)))
    assert run(servo, 0.1, Sensed(encoder=4094)).target == 4090
    assert run(servo, DT, Sensed(encoder=4100)).target == 4090 + 4096


# Trajectory --------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    goal=st.integers(0, 4095),
    velocity=st.integers(1, 6000),
    acceleration=st.integers(0, 254),
    turn_after=st.integers(1, 200),
)
def test_the_setpoint_keeps_speed_and_acceleration_and_arrives(
    goal, velocity, acceleration, turn_after
):
    servo = switched_on(make(), GOAL_VELOCITY=velocity, ACCELERATION=acceleration)
    top, change = min(velocity, 3400), (acceleration * 100 or math.inf) * DT
    servo[Register.GOAL_POSITION] = 4095 - goal
    for step in range(4000):
        if step == turn_after:
            servo[Register.GOAL_POSITION] = goal
        place, speed = servo.setpoint, servo.speed
        servo.step(DT, AT)
        assert abs(servo.setpoint - place) <= top * DT + 1e-6
        assert abs(servo.speed - speed) <= change + 1e-6
    # Whatever it starts with, 20 s suffice for a turn at 300 ticks/s.
    if velocity >= 300 and (acceleration == 0 or acceleration >= 2):
        assert servo.setpoint == pytest.approx(goal, abs=0.5)
        assert servo[Register.MOVING] == 0


@settings(max_examples=25)
@given(goal=st.integers(0, 4095), acceleration=st.integers(1, 254))
def test_from_rest_the_setpoint_does_not_overshoot(goal, acceleration):
    servo = switched_on(make(), GOAL_POSITION=goal, ACCELERATION=acceleration)
    for _ in range(1000):
        servo.step(DT, AT)
        assert min(2048, goal) - 1e-6 <= servo.setpoint <= max(2048, goal) + 1e-6


def test_the_goal_is_kept_within_the_limits():
    servo = switched_on(make(MIN_POSITION=1000, MAX_POSITION=3000), GOAL_POSITION=4000)
    assert run(servo, 3).target == pytest.approx(3000)
    assert servo[Register.GOAL_POSITION] == 4000
    servo[Register.GOAL_POSITION] = 5
    assert run(servo, 3).target == pytest.approx(1000)


def test_speed_zero_is_no_limit_or_standstill():
    fast, still = (switched_on(make(PHASE=p), GOAL_POSITION=0) for p in (12, 4))
    run(fast, 0.1), run(still, 0.1)
    assert fast.setpoint == pytest.approx(2048 - 340)
    assert still.setpoint == 2048


def test_the_coarse_speed_unit():
    servo = switched_on(make(PHASE=8), GOAL_POSITION=0, GOAL_VELOCITY=10)
    run(servo, 1.0)
    assert servo.setpoint == pytest.approx(2048 - 10 * 0.732 / 60 * 4096, abs=1)


def test_torque_starts_where_the_arm_is_and_goes_to_a_stale_goal():
    servo = make()
    servo[Register.GOAL_POSITION] = 1000
    here = Sensed(encoder=3000)
    assert run(servo, 1.0, here) is None
    drive = run(switched_on(servo), DT, here)
    assert drive.target == pytest.approx(3000 - 3400 * DT)


def test_other_modes_do_not_drive():
    assert run(switched_on(make(MODE=1)), DT) is None


def test_gain_and_torque_limit():
    drive = run(switched_on(make(P_GAIN=16), TORQUE_LIMIT=300), DT)
    assert drive.gain == 0.5
    assert drive.limit == 0.3


# Protection --------------------------------------------------------------------------------------

HEAVY = AT._replace(duty=-0.85)


def test_overload_latches_after_two_seconds_until_the_torque_is_switched_off():
    servo = switched_on(make())
    assert run(servo, 1.99, HEAVY).limit == 1.0
    assert servo.alarms == 0
    assert run(servo, 0.01, HEAVY).limit == 0.2
    assert servo.alarms == Alarm.OVERLOAD
    assert run(servo, 1.0).limit == 0.2  # the load is gone, the alarm is not
    assert servo[Register.STATUS] == 32
    assert talk(servo, packet("01 02 01")) == packet("01 02 20").hex(" ")
    servo.write(Register.TORQUE_ENABLE, b"\x00")
    servo.write(Register.TORQUE_ENABLE, b"\x01")
    assert run(servo, DT).limit == 1.0
    assert servo.alarms == 0


def test_a_pause_in_the_load_starts_the_count_anew():
    servo = switched_on(make())
    run(servo, 1.9, HEAVY), run(servo, DT), run(servo, 1.9, HEAVY)
    assert servo.alarms == 0


def test_overcurrent_and_heat_switch_the_motor_off():
    servo = switched_on(make(PROTECTION_CURRENT=200, OVERCURRENT_TIME=50))
    assert run(servo, 0.495, AT._replace(current=1.4)) is not None
    assert run(servo, 0.01, AT._replace(current=1.4)) is None
    assert servo.alarms == Alarm.OVERCURRENT
    hot = switched_on(make())
    assert run(hot, DT, AT._replace(temperature=69.0)) is not None
    assert run(hot, DT, AT._replace(temperature=71.0)) is None
    assert hot.alarms == Alarm.OVERHEAT
    assert hot[Register.TORQUE_ENABLE] == 1


def test_heat_that_switches_nothing_off():
    servo = switched_on(make(UNLOADING=0))
    assert run(servo, DT, AT._replace(temperature=71.0)) is not None
    assert servo.alarms == Alarm.OVERHEAT


@pytest.mark.parametrize(("volts", "alarm"), [(3.9, 1), (4.1, 0), (7.9, 0), (8.1, 1)])
def test_the_voltage_alarm_lasts_as_long_as_its_cause(volts, alarm):
    servo = switched_on(make())
    assert run(servo, DT, AT._replace(voltage=volts)) is not None
    assert servo[Register.STATUS] == alarm
    run(servo, DT)
    assert servo[Register.STATUS] == 0


@given(
    st.builds(
        Sensed,
        *[st.floats(-bound, bound) for bound in (1e6, 1e6, 1.0, 1e3)],
        voltage=st.floats(0, 30),
        temperature=st.floats(-20, 500),
    )
)
def test_any_measurement_fits_its_register(sensed):
    servo = make(sensed=sensed)
    block = servo.read(Register.PRESENT_POSITION, 15)
    assert len(block) == 15
    assert block[9] == servo.alarms
