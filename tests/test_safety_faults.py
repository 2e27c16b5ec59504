"""hardware/safety.py: faults and what the arm does then."""

import numpy as np
import pytest
from safety_arm import CONFIG, DT, HOME, LIFT, Arm, J, offset

from robolearn.contract import SO101
from robolearn.hardware.registers import Alarm
from robolearn.hardware.safety_types import PARK, REACTIONS, Fault, Reaction, State, Verb


@pytest.fixture
def arm():
    return Arm().engage()


def test_a_gripper_that_squeezes_for_long_is_no_fault(arm):
    (gripper,) = SO101.grippers
    arm.joint("alarms", Alarm.OVERLOAD, gripper)
    arm.run(3.0, HOME)
    assert arm.state is State.ENGAGED
    arm.joint("alarms", Alarm.OVERLOAD | Alarm.OVERCURRENT, gripper)
    arm.tick(HOME)
    assert arm.fault is Fault.OVERCURRENT


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("alarms", Alarm.VOLTAGE, Fault.VOLTAGE),
        ("alarms", Alarm.ENCODER, Fault.ENCODER),
        ("alarms", Alarm.OVERHEAT, Fault.SERVO_OVERHEAT),
        ("alarms", Alarm.OVERCURRENT, Fault.OVERCURRENT),
        ("alarms", Alarm.OVERLOAD, Fault.OVERLOAD),
        ("temperature", 65, Fault.OVERHEAT),
        ("position", HOME[LIFT] + 0.3, Fault.ENCODER),
        ("torque", 0, Fault.TORQUE_LOST),
    ],
)
def test_a_fault_trips_at_once_and_reacts_as_its_table_says(arm, field, value, fault):
    arm.run(0.3, HOME)
    arm.joint(field, value)
    command = arm.tick(HOME)
    assert (command.state, command.fault) == (State.FAULT, fault)
    assert "shoulder_lift" in arm.supervisor.reason
    assert command.torque_enable == (REACTIONS[fault] is not Reaction.LIMP)
    assert (command.goal is None) == (not command.torque_enable)
    arm.changes.clear()
    arm.run(1.0, offset(0, 0.5))
    assert arm.fault is fault  # latched


def test_every_fault_has_a_reaction():
    assert REACTIONS.keys() == set(Fault) - {Fault.NONE}


def test_a_fault_while_engaging_leaves_the_arm_limp():
    arm = Arm()
    arm.tick()
    arm.tick(verb=Verb.ENGAGE)
    arm.run(0.2)
    arm.joint("alarms", Alarm.VOLTAGE)
    command = arm.tick()
    assert (command.fault, command.torque_enable) == (Fault.VOLTAGE, False)


def test_two_alarms_at_once_take_the_stronger_reaction(arm):
    arm.joint("alarms", Alarm.OVERLOAD | Alarm.OVERHEAT)
    assert arm.tick().fault is Fault.SERVO_OVERHEAT


def test_a_worse_fault_replaces_a_lesser_one_but_not_the_other_way_round(arm):
    arm.joint("alarms", Alarm.VOLTAGE)
    arm.run(0.1)
    arm.joint("alarms", Alarm.ENCODER)
    arm.run(0.1)
    assert arm.fault is Fault.ENCODER
    arm.joint("alarms", Alarm.VOLTAGE)
    arm.run(0.1)
    assert arm.fault is Fault.ENCODER


def test_droop_and_short_lag_do_not_trip(arm):
    arm.sink(np.radians(5))
    arm.run(2.0, HOME)
    arm.sink(0.3)
    arm.run(CONFIG.trip_seconds - 4 * DT, HOME)
    arm.sink(np.radians(5))
    arm.run(1.0, HOME)
    assert arm.state is State.ENGAGED


def test_an_arm_that_does_not_follow_yields_to_where_it_is(arm):
    arm.run(0.5, HOME)
    arm.sink(0.3)
    arm.changes["position"] = stuck = offset(LIFT, -0.3)
    arm.run(CONFIG.trip_seconds + 2 * DT, HOME)
    assert arm.fault is Fault.TRACKING
    command = arm.run(1.0, HOME)
    np.testing.assert_allclose(command.goal, stuck)
    assert (command.torque_limit[:5] == CONFIG.torque * CONFIG.hold_torque).all()


def test_pushing_against_something_trips(arm):
    arm.sink(0.12)
    arm.joint("current", -1.7)
    arm.run(CONFIG.trip_seconds - 2 * DT, HOME)
    assert arm.state is State.ENGAGED
    arm.run(0.1, HOME)
    assert arm.fault is Fault.BLOCKED
    assert "pushes with 1.7 A" in arm.supervisor.reason


def test_much_current_without_lag_and_lag_without_current_are_fine(arm):
    arm.joint("current", 2.0)
    arm.run(1.0, HOME)
    arm.changes.clear()
    arm.sag[LIFT] = 0.12
    arm.run(1.0, HOME)
    assert arm.state is State.ENGAGED


def test_a_gripper_may_squeeze(arm):
    """It never gets to its goal, and that is its job."""
    arm.sink(-0.3, joint=5)
    arm.joint("current", 1.7, joint=5)
    arm.run(2.0, [*HOME[:5], 0.0])
    assert arm.state is State.ENGAGED


def test_heat_warns_then_derates_then_parks(arm):
    arm.joint("temperature", 55)
    arm.run(0.2, HOME)
    assert [e for e in arm.events if "55 deg C" in e] == ["shoulder_lift: 55 deg C or more"]
    arm.joint("temperature", 62.5)
    command = arm.run(0.2, HOME)
    np.testing.assert_allclose(command.torque_limit[LIFT], 0.75 * CONFIG.torque)
    np.testing.assert_allclose(command.torque_limit[0], CONFIG.torque)
    assert arm.state is State.ENGAGED
    arm.joint("temperature", 66)
    arm.tick(HOME)
    assert arm.fault is Fault.OVERHEAT
    arm.run(CONFIG.park_seconds + DT)
    np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])
    assert not arm.commands[-1].torque_enable
    arm.tick(verb=Verb.RESET_FAULT)
    assert arm.supervisor.reason == "reset refused: shoulder_lift is at 66 deg C"


def test_a_voltage_that_breaks_down_for_long_is_a_fault(arm):
    arm.joint("voltage", 5.0)
    arm.run(CONFIG.trip_seconds - 2 * DT, HOME)
    assert arm.state is State.ENGAGED
    arm.run(0.1, HOME)
    assert arm.fault is Fault.VOLTAGE


def test_a_limp_arm_may_get_another_supply(arm):
    arm.joint("voltage", 4.6)
    arm.run(1.0)
    arm.tick(verb=Verb.LIMP)
    arm.tick(verb=Verb.RESET_FAULT)
    assert (arm.state, arm.fault) == (State.LIMP, Fault.NONE)


def test_a_brown_out_never_switches_the_torque_on_again(arm):
    arm.run(0.3, HOME)
    arm.changes["torque"] = np.zeros(J)
    arm.tick(HOME)
    del arm.changes["torque"]
    command = arm.run(1.0, HOME)
    assert (arm.fault, command.torque_enable, command.goal) == (Fault.TORQUE_LOST, False, None)
    arm.tick(verb=Verb.RESET_FAULT)
    command = arm.run(1.0, HOME)
    assert (command.state, command.torque_enable) == (State.LIMP, False)


def test_nobody_resets_a_fault_so_it_parks_and_goes_limp(arm):
    arm.run(0.3, HOME)
    arm.tick(HOME, camera_age=1.0)
    arm.run(CONFIG.fault_patience, HOME)
    assert (arm.goals()[-1] == HOME).all()
    arm.run(CONFIG.park_seconds + 0.1, HOME)
    np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])
    assert not arm.commands[-1].torque_enable
    assert arm.fault is Fault.CAMERA


def test_engaging_from_a_fault_is_refused(arm):
    arm.tick(HOME, camera_age=1.0)
    arm.tick(HOME, verb=Verb.ENGAGE)
    assert arm.supervisor.reason == (
        "engaging refused: the fault camera is latched; reset it first"
    )
