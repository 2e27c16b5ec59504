"""hardware/safety.py: each rule by its name, then whatever can happen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from robolearn.contract import SO101
from robolearn.hardware.registers import Alarm
from robolearn.hardware.safety import (
    Fault,
    Reading,
    Request,
    SafetyConfig,
    State,
    Supervisor,
    Verb,
)
from robolearn.hardware.safety_types import PARK, REACTIONS, Reaction
from robolearn.hardware.workspace import Workspace

DT = 0.02
J = SO101.size
HOME = np.array(SO101.home)
CONFIG = SafetyConfig()
LIFT = 1  # the joint that carries most


class Arm:
    """A supervisor, and servos that do what they are told but for what a test changes.

    `changes` replaces fields of every reading; `sag` is how far the joints stay below their goals.
    """

    def __init__(self, config=CONFIG, workspace=None, at=HOME):
        self.supervisor = Supervisor(SO101, config, DT, workspace)
        self.now, self.position, self.on = 0.0, np.array(at, float), False
        self.sag, self.changes, self.answers = np.zeros(J), {}, True
        self.commands, self.events = [], []

    def reading(self):
        ones = np.ones(J)
        reading = Reading(
            time=self.now,
            position=self.position,
            velocity=0 * ones,
            effort=0 * ones,
            current=0.2 * ones,
            voltage=7.4 * ones,
            temperature=30 * ones,
            alarms=np.zeros(J, np.uint8),
            calibrated=True,
            torque=ones * self.on,
        )
        return replace(reading, **self.changes)

    def tick(self, goal=None, verb=Verb.NONE, **request):
        """One cycle; a goal is new in every one, unless its time is given."""
        self.now += DT
        if goal is not None:
            request = {"goal": np.array(goal), "goal_time": self.now, **request}
        reading = self.reading() if self.answers else None
        command = self.supervisor.tick(self.now, reading, Request(verb=verb, **request))
        self.on = command.torque_enable
        if self.on:
            self.position = command.goal - self.sag
        self.commands.append(command)
        self.events += command.events
        return command

    def run(self, seconds, goal=None, **request):
        return [self.tick(goal, **request) for _ in range(round(seconds / DT))][-1]

    def engage(self):
        self.tick()
        self.tick(verb=Verb.ENGAGE)
        self.run(CONFIG.ramp_seconds + 3 * DT)
        assert self.state is State.ENGAGED, self.events
        return self

    def sink(self, by, joint=LIFT, goal=HOME):
        """Moves a joint away from its goal, no faster than a servo can."""
        for sag in np.linspace(self.sag[joint], by, 5)[1:]:
            self.sag[joint] = sag
            self.tick(goal)

    def joint(self, field, value, joint=LIFT):
        """Readings from now on have this value at one joint."""
        values = np.array(getattr(self.reading(), field))
        values[joint] = value
        self.changes[field] = values

    @property
    def state(self):
        return self.supervisor.state

    @property
    def fault(self):
        return self.supervisor.fault

    def goals(self):
        return np.array([c.goal for c in self.commands if c.goal is not None])


@pytest.fixture
def arm():
    return Arm().engage()


def offset(joint, by):
    return HOME + by * (np.arange(J) == joint)


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


# Faults.


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


# Verbs.


def test_the_emergency_stop_takes_the_torque_at_once_and_latches(arm):
    arm.run(0.3, offset(0, 1.0))
    command = arm.tick(offset(0, 1.0), estop=True)
    assert (command.torque_enable, command.goal) == (False, None)
    arm.tick(verb=Verb.RESET_FAULT, estop=True)
    assert arm.supervisor.reason == "reset refused: let go of the emergency stop"
    arm.run(0.5, HOME)
    assert arm.fault is Fault.ESTOP
    arm.tick(verb=Verb.RESET_FAULT)
    assert (arm.state, arm.commands[-1].torque_enable) == (State.LIMP, False)


def test_stop_brakes_and_no_goal_moves_the_arm_until_it_is_engaged_again(arm):
    arm.run(0.4, offset(0, 1.5))
    arm.tick(offset(0, 1.5), verb=Verb.STOP)
    arm.run(0.3, offset(0, 1.5))
    rest = arm.commands[-1].goal
    arm.run(CONFIG.hold_park + 3.0, offset(0, 1.5))
    assert arm.state is State.HOLD
    np.testing.assert_array_equal(arm.commands[-1].goal, rest)
    arm.tick(verb=Verb.ENGAGE)
    np.testing.assert_array_equal(arm.run(3.0, HOME).goal, HOME)


@pytest.mark.parametrize("field", ["temperature", "alarms"])
def test_after_stop_a_fault_does_not_move_the_arm_either(arm, field):
    arm.sink(0.05)
    arm.tick(verb=Verb.STOP)
    before = arm.commands[-1].goal
    arm.commands.clear()
    arm.joint(field, {"temperature": 70, "alarms": Alarm.OVERLOAD}[field])
    arm.run(CONFIG.fault_patience + CONFIG.park_seconds)
    assert arm.state is State.FAULT
    assert all(c.goal is None or (c.goal == before).all() for c in arm.commands)
    assert not arm.commands[-1].torque_enable


def test_park_goes_there_slowly_and_lets_go(arm):
    arm.tick(verb=Verb.PARK)
    arm.run(CONFIG.park_seconds, offset(0, 1.0))  # goals no longer count
    assert arm.state is State.LIMP
    np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])


def test_park_can_be_stopped(arm):
    arm.tick(verb=Verb.PARK)
    arm.run(0.3)
    arm.tick(verb=Verb.STOP)
    arm.run(5.0)
    assert arm.state is State.HOLD
    assert np.abs(arm.position[:5] - PARK["so101"][:5]).max() > 0.5


def test_engaging_while_parking_is_refused(arm):
    arm.tick(verb=Verb.PARK)
    arm.tick(verb=Verb.ENGAGE)
    assert arm.state is State.PARKING
    assert "the arm is parking" in arm.supervisor.reason


def test_stop_ends_every_motion_of_a_fault(arm):
    arm.joint("temperature", 66)
    arm.run(0.3)
    assert np.abs(np.diff(arm.goals()[-2:], axis=0)).max() > 0  # on its way to park
    arm.changes.clear()
    arm.tick(verb=Verb.STOP)
    arm.run(0.5)
    rest = arm.goals()[-1]
    arm.run(CONFIG.fault_patience)
    assert (arm.goals()[-1] == rest).all()
    assert not arm.commands[-1].torque_enable


def test_park_in_a_fault_parks_if_the_servos_answer_and_goes_limp_if_not(arm):
    arm.tick(HOME, camera_age=1.0)
    arm.tick(verb=Verb.PARK)
    arm.run(CONFIG.park_seconds)
    np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])
    silent = Arm().engage()
    silent.answers = False
    silent.run(0.1)
    assert silent.fault is Fault.COMMUNICATION
    assert not silent.tick(verb=Verb.PARK).torque_enable


def test_the_arm_parks_from_where_it_works():
    """At the table the joints cannot all move at once: the elbow would push the hand down."""
    workspace = Workspace()
    for work in ([0.4, 0.1, 0.3, 1.1, 0.05, 0.3], [-0.6, -0.09, 0.59, 1.07, 0.05, 0.6]):
        arm = Arm(workspace=workspace, at=work).engage()
        arm.tick(verb=Verb.PARK)
        arm.run(CONFIG.park_seconds)
        np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])
        assert all(workspace.objection(goal) == "" for goal in arm.goals())


def test_limp_is_at_once(arm):
    command = arm.tick(HOME, verb=Verb.LIMP)
    assert (command.state, command.torque_enable, command.goal) == (State.LIMP, False, None)
    assert arm.run(0.5, HOME).state is State.LIMP


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.PARK, Verb.LIMP])
def test_whatever_ends_engaging_leaves_the_arm_limp(verb):
    arm = Arm()
    arm.tick()
    arm.tick(verb=Verb.ENGAGE)
    arm.run(0.2)
    assert arm.tick(verb=verb).state is State.LIMP


@pytest.mark.parametrize(
    ("on_exit", "state", "torque"),
    [("park", State.LIMP, False), ("hold", State.HOLD, True), ("limp", State.LIMP, False)],
)
def test_the_exit_policy_is_carried_out_whatever_is_asked(on_exit, state, torque):
    arm = Arm(replace(CONFIG, on_exit=on_exit)).engage()
    arm.run(0.4, offset(0, 1.0))
    arm.supervisor.exit()
    assert not arm.supervisor.finished
    for _ in range(200):
        command = arm.tick(offset(0, 1.0), verb=Verb.ENGAGE)
        if arm.supervisor.finished:
            break
    assert (command.state, command.torque_enable) == (state, torque)
    if on_exit == "park":
        np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])


def test_exit_ends_in_a_fault_too(arm):
    arm.tick(HOME, camera_age=1.0)
    arm.supervisor.exit()
    arm.run(CONFIG.park_seconds + 2 * DT)
    assert arm.supervisor.finished
    assert arm.fault is Fault.CAMERA


def test_every_transition_is_an_event_with_a_reason(arm):
    arm.tick(verb=Verb.STOP)
    arm.tick(verb=Verb.LIMP)
    assert [event for event in arm.events if "->" in event] == [
        "disconnected -> limp: the servos answer",
        "limp -> engaging: asked to",
        "engaging -> engaged: the torque is on",
        "engaged -> hold: stopped",
        "hold -> limp: asked to",
    ]


def test_a_parking_pose_must_fit_the_arm():
    with pytest.raises(ValueError, match="park has 2 numbers; so101 has 6 joints"):
        Supervisor(SO101, replace(CONFIG, park=(0.0, 0.0)), DT)


# Whatever can happen.


class Anything(RuleBasedStateMachine):
    """Random users, servos and clocks."""

    def __init__(self):
        super().__init__()
        self.arm = Arm(workspace=ANY_WORKSPACE)
        self.rest = self.moved_on = None
        self.latched = False

    @initialize(start=st.sampled_from([0.0, 0.05, -0.4]))
    def begin(self, start):
        self.arm.position = offset(LIFT, start)
        self.arm.tick()
        self.step(Verb.ENGAGE, 30)

    def step(self, verb=Verb.NONE, ticks=1, goal=None, **request):
        for k in range(ticks):
            before = self.arm.state
            command = self.arm.tick(goal, verb=verb if k == 0 else Verb.NONE, **request)
            asked = verb if k == 0 else Verb.NONE
            if before is State.FAULT:
                assert command.state is State.FAULT or asked is Verb.RESET_FAULT
            self.check_wire()
            self.check_stop(asked, command)

    def check_wire(self):
        """Limits of consecutive goals, as long as there are goals without a break."""
        supervisor, last = self.arm.supervisor, self.arm.commands[-4:]
        off = [k for k, command in enumerate(last) if not command.torque_enable]
        goals = np.array([c.goal for c in last[off[-1] + 1 if off else 0 :]])
        limits = supervisor.limits
        bounds = (limits.velocity, limits.acceleration, limits.jerk)
        for order, bound in enumerate(bounds, start=1):
            if len(goals) > order:
                steps = np.abs(np.diff(goals, order, axis=0))
                assert (steps <= bound * DT**order + 1e-9).all()
        if len(goals):
            assert ANY_WORKSPACE.objection(goals[-1], self.arm_since()) == ""

    def arm_since(self):
        """What was broken where the arm engaged may stay so."""
        on = [c for c in self.arm.commands if c.torque_enable]
        return ANY_WORKSPACE.depths(on[0].goal) if on else None

    def check_stop(self, asked, command):
        """After STOP the goal is at rest from half a second on."""
        if asked is Verb.STOP and command.state is State.HOLD:
            self.rest = 0
        elif asked in {Verb.ENGAGE, Verb.PARK} or not command.torque_enable:
            self.rest = None
        elif self.rest is not None:
            self.rest += 1
            if self.rest > 25:
                np.testing.assert_array_equal(command.goal, self.arm.commands[-2].goal)

    @rule(goal=st.lists(st.floats(-4, 4), min_size=J, max_size=J), ticks=st.integers(1, 40))
    def goals(self, goal, ticks):
        self.step(goal=goal, ticks=ticks)

    @rule(bad=st.sampled_from([np.nan, np.inf]), ticks=st.integers(1, 5))
    def bad_goals(self, bad, ticks):
        self.step(goal=np.full(J, bad), ticks=ticks)

    @rule(verb=st.sampled_from(Verb), ticks=st.integers(1, 60))
    def verbs(self, verb, ticks):
        self.step(verb, ticks)

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0]))
    def silence(self, seconds):
        self.step(ticks=round(seconds / DT))

    @rule(seconds=st.floats(0.0, 20.0))
    def the_driver_sleeps(self, seconds):
        self.arm.now += seconds
        self.step()

    @rule(age=st.sampled_from([0.2, 0.7, np.nan]))
    def old_pictures(self, age):
        self.step(goal=HOME, ticks=3, camera_age=age)

    @rule(ticks=st.integers(1, 8))
    def lost_readings(self, ticks):
        self.arm.answers = False
        self.step(goal=HOME, ticks=ticks)
        self.arm.answers = True

    @rule(ticks=st.integers(1, 3))
    def emergency_stop(self, ticks):
        self.step(ticks=ticks, estop=True)

    @rule(
        field_value=st.sampled_from(
            [
                ("temperature", 57),
                ("temperature", 66),
                ("voltage", 5.0),
                ("current", 2.0),
                ("torque", 0),
                *(("alarms", bit) for bit in Alarm),
            ]
        ),
        ticks=st.integers(1, 30),
    )
    def servo_trouble(self, field_value, ticks):
        self.arm.joint(*field_value)
        self.step(goal=HOME, ticks=ticks)
        self.arm.changes.clear()

    @rule(sag=st.sampled_from([0.05, 0.12, 0.3, -0.3]), ticks=st.integers(1, 40))
    def the_arm_is_pushed(self, sag, ticks):
        for self.arm.sag[LIFT] in [0.5 * sag, *[sag] * ticks, 0.5 * sag, 0.0]:
            self.step(goal=HOME)

    @precondition(lambda self: self.arm.state is State.FAULT)
    @rule()
    def recover(self):
        self.step(Verb.RESET_FAULT, 2)
        self.step(Verb.ENGAGE, 30)

    @invariant()
    def torque_and_state_agree(self):
        for command in self.arm.commands[-3:]:
            if command.state in {State.LIMP, State.DISCONNECTED}:
                assert not command.torque_enable
                assert command.goal is None
            if command.state in {State.ENGAGED, State.HOLD, State.PARKING}:
                assert command.torque_enable
            if command.torque_enable:
                assert np.isfinite(command.goal).all()
            assert (command.state is State.FAULT) == bool(command.fault)
            assert (command.torque_limit >= 0).all()
            assert (command.torque_limit <= CONFIG.torque).all()


ANY_WORKSPACE = Workspace()
TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
