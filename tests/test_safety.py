"""hardware/safety.py: goals, engaging, missing goals and missing readings."""

import numpy as np
import pytest
from safety_arm import CONFIG, DT, HOME, LIFT, Arm, J, offset

from robolearn.contract import SO101
from robolearn.hardware.registers import Alarm
from robolearn.hardware.safety_types import PARK, Fault, State, Verb
from robolearn.hardware.workspace import Workspace


@pytest.fixture
def arm():
    return Arm().engage()


# Goals.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_goal_that_is_not_finite_is_rejected_whole(arm, bad):
    arm.run(0.5, HOME)
    goal = offset(0, 1.0)
    goal[3] = bad
    command = arm.tick(goal)
    np.testing.assert_array_equal(command.goal, HOME)
    assert command.limited
    assert "wrist_flex is" in command.events[0]
    assert arm.supervisor.inbox.rejected == 1


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((1, 6)), np.array(["a"] * J), np.zeros(0)])
def test_a_goal_of_the_wrong_shape_is_rejected(arm, bad):
    command = arm.tick(bad)
    np.testing.assert_array_equal(command.goal, HOME)
    assert arm.supervisor.inbox.rejected == 1


def test_several_invalid_goals_in_a_row_hold_and_a_good_one_resumes(arm):
    arm.run(0.1, HOME)
    for _ in range(CONFIG.max_rejects):
        assert arm.state is State.ENGAGED
        arm.tick(HOME * np.nan)
    assert arm.state is State.HOLD
    assert "3 invalid goals in a row" in arm.events[-1]
    arm.tick(HOME)
    assert arm.state is State.ENGAGED


def test_a_rejected_goal_is_one_event_however_long_it_lies_there(arm):
    arm.events.clear()
    for _ in range(5):
        arm.tick(HOME * np.nan, goal_time=1.0)
    assert len(arm.events) == arm.supervisor.inbox.rejected == 1


def test_goals_are_reached(arm):
    goal = [0.5, -0.5, 0.4, 1.0, -0.5, 0.8]
    command = arm.run(2.0, goal)
    np.testing.assert_array_equal(command.goal, goal)
    assert not command.limited


def test_a_jump_is_slewed_from_the_last_goal(arm):
    arm.run(0.2, offset(0, 1.0))
    first = arm.tick(offset(0, -1.0))
    assert first.limited
    rate = np.abs(np.diff(arm.goals(), axis=0)).max(axis=0) / DT
    assert (rate <= arm.supervisor.limits.velocity + 1e-9).all()


def test_a_drooping_arm_reaches_its_goal_instead_of_ratcheting_downhill(arm):
    """5.3 degrees of droop and a goal 40 degrees up; a cap around the measured pose would sink."""
    arm.sag[LIFT] = np.radians(5.3)
    goal = offset(LIFT, np.radians(40))
    command = arm.run(2.0, goal)
    np.testing.assert_array_equal(command.goal, goal)
    assert arm.state is State.ENGAGED
    assert (np.diff(arm.goals()[:, LIFT]) >= 0).all()


def test_the_workspace_holds_the_arm_above_the_table():
    workspace = Workspace()
    arm = Arm(workspace=workspace).engage()
    command = arm.run(3.0, [0.0, 1.2, 0.16, 1.2, 0.05, 0.3])
    assert arm.state is State.ENGAGED
    assert command.limited
    held = [event for event in arm.events if event.startswith("held back")]
    assert len(held) == 1
    assert "under the table" in held[0]
    assert all(workspace.objection(goal) == "" for goal in arm.goals())
    assert arm.goals()[-1, LIFT] > HOME[LIFT] + 0.2  # it went as far as it may
    back = arm.run(2.0, HOME)
    np.testing.assert_array_equal(back.goal, HOME)


def test_an_arm_found_outside_its_workspace_can_come_back_in():
    workspace = Workspace()
    under = np.array([0.0, 0.5, 0.0, 1.0, 0.0, 0.1])
    assert "under the table" in workspace.objection(under)
    arm = Arm(workspace=workspace, at=under).engage()
    command = arm.run(1.0, under + [0, 0.3, 0, 0, 0, 0])
    np.testing.assert_array_equal(command.goal, under)
    np.testing.assert_array_equal(arm.run(3.0, HOME).goal, HOME)


# Engaging.


def test_engaging_never_moves_the_arm():
    arm = Arm(at=offset(0, 0.7)).engage()
    assert (arm.goals() == offset(0, 0.7)).all()


def test_engaging_writes_goal_and_low_torque_before_it_switches_on():
    arm = Arm()
    arm.tick()
    assert arm.commands[-1].goal is None
    first, second = arm.tick(verb=Verb.ENGAGE), arm.tick()
    assert (first.torque_enable, second.torque_enable) == (False, True)
    np.testing.assert_array_equal(first.goal, HOME)
    low = CONFIG.torque * CONFIG.engage_torque
    np.testing.assert_allclose(first.torque_limit[:5], low)
    assert (second.torque_limit[:5] < 1.3 * low).all()


def test_the_torque_ramps_up_over_half_a_second(arm):
    limits = np.array([c.torque_limit for c in arm.commands if c.torque_enable])
    assert (np.diff(limits, axis=0) >= 0).all()
    assert np.diff(limits, axis=0).max() < 1.5 * CONFIG.torque * DT / CONFIG.ramp_seconds
    np.testing.assert_allclose(limits[-1], [*[CONFIG.torque] * 5, CONFIG.gripper_torque])


def test_goals_from_before_engaging_do_not_count():
    arm = Arm()
    arm.tick()
    old = {"goal": offset(0, 1.0), "goal_time": arm.now}
    arm.tick(verb=Verb.ENGAGE, **old)
    for _ in range(40):
        arm.tick(**old)
    assert arm.state is State.HOLD
    assert (arm.goals() == HOME).all()


def test_a_goal_from_before_a_stop_does_not_count_after_it(arm):
    old = {"goal": offset(0, 1.0), "goal_time": arm.now}
    arm.tick(verb=Verb.STOP, **old)
    arm.tick(verb=Verb.ENGAGE, **old)
    arm.tick(**old)
    assert arm.state is State.ENGAGED
    assert (arm.goals() == HOME).all()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("voltage", 3.9, "shoulder_lift has 3.9 V; check the supply"),
        ("voltage", 19.0, "19.0 V"),
        ("temperature", 61, "61 deg C; let it cool down"),
        ("alarms", Alarm.OVERLOAD, "reports its overload alarm"),
        ("position", SO101.low[LIFT] - 0.2, "out of its range; move it by hand"),
        ("velocity", 0.8, "moves at 0.8 rad/s; hold the arm still"),
    ],
)
def test_engaging_is_refused_unless_all_is_well(field, value, words):
    arm = Arm()
    arm.joint(field, value)
    arm.tick()
    arm.tick(verb=Verb.ENGAGE)
    assert arm.state is State.LIMP
    assert arm.supervisor.reason.startswith("engaging refused: shoulder_lift")
    assert words in arm.supervisor.reason
    assert not any(c.torque_enable for c in arm.commands)


def test_engaging_is_refused_without_calibration_or_reading():
    arm = Arm()
    arm.changes["calibrated"] = False
    arm.tick()
    arm.tick(verb=Verb.ENGAGE)
    assert "calibrate shoulder_pan" in arm.supervisor.reason
    arm.answers = False
    arm.tick(verb=Verb.ENGAGE)
    assert arm.supervisor.reason == "engaging refused: the servos do not answer"


def test_an_arm_a_little_out_of_its_range_may_engage_and_comes_back():
    arm = Arm(at=offset(LIFT, SO101.low[LIFT] - 0.05 - HOME[LIFT])).engage()
    assert arm.goals()[-1][LIFT] == SO101.low[LIFT] - 0.05
    assert arm.run(1.0, HOME).goal[LIFT] > SO101.low[LIFT]


def test_a_servo_that_does_not_switch_on_is_a_fault():
    arm = Arm()
    arm.tick()
    arm.joint("torque", 0)
    arm.tick(verb=Verb.ENGAGE)
    arm.run(CONFIG.engage_seconds + 0.1)
    assert arm.fault is Fault.TORQUE_REFUSED
    assert not arm.commands[-1].torque_enable


# Missing goals.


def test_stale_goals_hold_then_relax_then_park_then_go_limp(arm):
    arm.run(0.5, HOME)
    arm.run(CONFIG.stale_goal + 2 * DT)
    assert arm.state is State.HOLD
    assert "no goal for 0.2" in arm.events[-1]
    np.testing.assert_allclose(arm.commands[-1].torque_limit[0], CONFIG.torque)
    arm.run(CONFIG.hold_relax)
    np.testing.assert_allclose(arm.commands[-1].torque_limit[0], CONFIG.torque * CONFIG.hold_torque)
    arm.run(CONFIG.hold_park - CONFIG.hold_relax)
    assert arm.state is State.PARKING
    arm.run(CONFIG.park_seconds)
    assert arm.state is State.LIMP
    np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])
    assert arm.position[5] == HOME[5]  # whatever the gripper holds, it goes on holding


def test_goals_that_arrive_late_are_stale_too(arm):
    arm.run(0.5, HOME)
    for _ in range(10):
        arm.tick(offset(0, 1.0), goal_time=arm.now - 0.25)
    assert arm.state is State.HOLD


def test_a_fresh_goal_resumes_from_hold_without_a_jump(arm):
    arm.run(0.3, offset(0, 1.0))
    arm.run(1.5)
    assert arm.state is State.HOLD
    held = arm.commands[-1].goal
    command = arm.tick(offset(0, 1.0))
    assert arm.state is State.ENGAGED
    assert np.abs(command.goal - held).max() < 10.0 * DT**2
    np.testing.assert_array_equal(arm.run(2.0, offset(0, 1.0)).goal, offset(0, 1.0))


def test_a_time_stamp_of_the_future_does_not_keep_a_goal_fresh(arm):
    for _ in range(20):
        arm.tick(HOME, goal_time=1e9)
    assert arm.state is State.HOLD
    arm.tick(HOME, goal_time=np.nan)
    assert arm.state is State.HOLD


def test_old_pictures_hold_and_older_ones_are_a_fault(arm):
    arm.run(0.3, HOME, camera_age=0.1)
    assert arm.state is State.ENGAGED
    arm.run(0.3, HOME, camera_age=0.2)
    assert arm.state is State.HOLD
    arm.run(0.1, HOME, camera_age=0.05)
    assert arm.state is State.ENGAGED
    arm.tick(HOME, camera_age=0.6)
    assert arm.fault is Fault.CAMERA


def test_a_picture_of_unknown_age_is_too_old(arm):
    arm.tick(HOME, camera_age=np.nan)
    assert arm.fault is Fault.CAMERA
    assert "nan s old" in arm.supervisor.reason


# Communication.


def test_up_to_three_lost_readings_are_no_fault(arm):
    arm.run(0.3, HOME)
    arm.answers = False
    for _ in range(CONFIG.max_lost):
        np.testing.assert_array_equal(arm.tick(HOME).goal, HOME)
    assert arm.state is State.ENGAGED
    arm.answers = True
    arm.tick(HOME)
    assert arm.state is State.ENGAGED


def test_without_readings_the_arm_brakes(arm):
    arm.run(0.4, offset(0, 1.5))
    arm.answers = False
    arm.run(0.4, offset(0, 1.5))
    speed = np.diff(arm.goals()[:, 0])
    assert speed[-21] > 0.02
    assert (speed[-8:] == 0).all()


def test_more_lost_readings_are_a_fault_that_only_a_reset_ends(arm):
    arm.run(0.3, HOME)
    arm.answers = False
    arm.run(0.1, HOME)
    assert arm.fault is Fault.COMMUNICATION
    arm.tick(verb=Verb.RESET_FAULT)
    assert arm.supervisor.reason == "reset refused: the servos do not answer"
    arm.answers = True
    arm.run(0.5, HOME)
    assert arm.state is State.FAULT
    assert arm.commands[-1].torque_enable
    arm.tick(verb=Verb.RESET_FAULT)
    assert (arm.state, arm.fault) == (State.HOLD, Fault.NONE)
    arm.run(0.2, offset(0, 1.0))
    assert arm.state is State.HOLD  # until it is engaged again
    np.testing.assert_array_equal(arm.goals()[-1], HOME)


def test_without_readings_a_fault_ends_limp_and_not_parked(arm):
    arm.answers = False
    arm.run(CONFIG.fault_patience + 0.2)
    assert arm.fault is Fault.COMMUNICATION
    assert not arm.commands[-1].torque_enable
    assert (arm.goals() == HOME).all()


@pytest.mark.parametrize(
    "change",
    [
        {"position": np.full(J, np.nan)},
        {"current": np.zeros(3)},
        {"time": np.nan},
        {"time": 0.0},  # long ago
    ],
)
def test_a_reading_that_is_unusable_counts_as_lost(arm, change):
    arm.changes |= change
    arm.run(0.1, HOME)
    assert arm.fault is Fault.COMMUNICATION


def test_a_limp_arm_that_stops_answering_is_disconnected():
    arm = Arm()
    arm.run(0.1)
    assert arm.state is State.LIMP
    arm.answers = False
    arm.run(0.1)
    assert (arm.state, arm.fault) == (State.DISCONNECTED, Fault.NONE)
    arm.answers = True
    arm.tick()
    assert arm.state is State.LIMP
