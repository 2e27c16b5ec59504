"""hardware/safety.py: whatever users, servos and clocks do."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from safety_arm import CONFIG, DT, HOME, LIFT, Arm, J, offset

from robolearn.hardware.registers import Alarm
from robolearn.hardware.safety_types import State, Verb
from robolearn.hardware.workspace import Workspace


class Anything(RuleBasedStateMachine):
    """Random users, servos and clocks."""

    def __init__(self):
        super().__init__()
        self.arm = Arm(workspace=ANY_WORKSPACE)
        self.rest = None  # ticks since the goal was stopped

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
TestAnything.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
