"""hardware/safety.py: what a user may ask for, and how it all ends."""

from dataclasses import replace

import numpy as np
import pytest
from safety_arm import CONFIG, DT, HOME, Arm, offset

from robolearn.contract import SO101
from robolearn.hardware.registers import Alarm
from robolearn.hardware.safety import Supervisor
from robolearn.hardware.safety_types import PARK, Fault, SafetyConfig, State, Verb
from robolearn.hardware.workspace import Workspace


@pytest.fixture
def arm():
    return Arm().engage()


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
    assert arm.tick(verb=Verb.ENGAGE).state is State.ENGAGED
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


def test_a_slow_arm_parks_too():
    config = SafetyConfig(velocity=0.3)
    arm = Arm(config).engage()
    arm.tick(verb=Verb.PARK)
    arm.run(CONFIG.park_seconds)
    assert arm.state is State.PARKING
    arm.run(config.parking - CONFIG.park_seconds)
    assert arm.state is State.LIMP
    np.testing.assert_allclose(arm.position[:5], PARK["so101"][:5])
    assert arm.events[-1] == "parking -> limp: parked"


@pytest.mark.parametrize("limits", [{"velocity": 0.5}, {"acceleration": 5.0, "jerk": 500.0}])
def test_who_is_slower_may_park_for_longer(limits):
    assert CONFIG.parking == CONFIG.park_seconds
    assert SafetyConfig(**limits).parking > 1.9 * CONFIG.park_seconds


def test_a_stopped_arm_whose_program_is_gone_lets_go_without_a_move(arm):
    arm.run(0.4, offset(0, 1.5))
    arm.tick(verb=Verb.STOP)
    arm.run(CONFIG.hold_park + 1.0)  # somebody is there: it holds for as long as it takes
    before = arm.goals()[-1]
    arm.run(CONFIG.hold_park - 2 * DT, alone=True)
    assert arm.state is State.HOLD
    np.testing.assert_array_equal(arm.goals()[-1], before)
    assert not arm.run(3 * DT, alone=True).torque_enable
    assert arm.state is State.LIMP


def test_a_gripper_beyond_its_range_does_not_delay_parking():
    arm = Arm(at=[*HOME[:5], -0.04]).engage()
    arm.tick(verb=Verb.PARK)
    arm.run(2.0)
    assert arm.state is State.LIMP


def test_park_can_be_stopped(arm):
    arm.tick(verb=Verb.PARK)
    arm.run(0.3)
    arm.tick(verb=Verb.STOP)
    arm.run(5.0)
    assert arm.state is State.HOLD
    assert np.abs(arm.position[:5] - PARK["so101"][:5]).max() > 0.5


@pytest.mark.parametrize("idle", range(round(1.5 * CONFIG.stale_goal / DT)))
def test_engaging_an_engaged_arm_keeps_it_engaged_however_old_its_goal_is(arm, idle):
    arm.tick(HOME)
    for _ in range(idle):
        arm.tick()
    arm.tick(verb=Verb.ENGAGE)
    assert arm.state is State.ENGAGED


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


def test_what_is_left_holding_is_held_with_less_torque():
    arm = Arm(replace(CONFIG, on_exit="hold")).engage()
    arm.supervisor.exit()
    command = arm.run(CONFIG.hold_relax + 0.1)
    np.testing.assert_allclose(command.torque_limit[0], CONFIG.torque * CONFIG.hold_torque)
    assert sum("hold: stopped" in event for event in arm.events) == 1


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
