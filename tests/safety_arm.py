"""An arm for the tests of the safety layer: a supervisor and servos that obey."""

from dataclasses import replace

import numpy as np

from robolearn.contract import SO101
from robolearn.hardware.safety import Supervisor
from robolearn.hardware.safety_types import Reading, Request, SafetyConfig, State, Verb

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


def offset(joint, by):
    return HOME + by * (np.arange(J) == joint)
