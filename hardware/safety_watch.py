"""`Watch`: keeps the readings of the servos and applies the checks to them, cycle by cycle."""

from collections.abc import Iterator

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.safety_checks import CHECKS, ENGAGE_CHECKS, Moment, first_finding
from robolearn.hardware.safety_types import Fault, Reading, SafetyConfig


class Watch:
    """Knows the last readings, and since when each joint breaks each rule.

    Args:
        arm: the arm.
        config: the thresholds.
        scale: units of `agent_pos` per rad, (J,).

    Attributes:
        reading: the last one that was usable.
        lost: cycles in a row without one; 0 when `reading` is of this cycle.
    """

    def __init__(self, arm: ArmSpec, config: SafetyConfig, scale: np.ndarray) -> None:
        self._arm, self._config, self._scale = arm, config, scale
        self.reading = self._previous = Reading.blank(arm.size)
        self.lost = 1
        self._voltage = self.reading.voltage
        self._since = np.full((len(CHECKS), arm.size), np.inf)
        self._warm: set[str] = set()

    def receive(self, now: float, reading: Reading | None) -> None:
        """Takes a cycle's reading; one that is old, misshapen or not finite counts as none."""
        if (
            reading is not None
            and reading.is_sound(self._arm.size)
            and now - reading.time <= self._config.reading_age
        ):
            self._previous, self.reading, self.lost = self.reading, reading, 0
        else:
            self.lost += 1

    def begin(self) -> None:
        """The torque comes on: notes the voltage without load."""
        self._voltage = self.reading.voltage

    def faults(
        self, now: float, goal: np.ndarray, *, confirmed: bool
    ) -> Iterator[tuple[Fault, str]]:
        """The faults of this cycle, each with a sentence.

        Args:
            now: s.
            goal: what the servos were told last, (J,).
            confirmed: whether the servos have said that their torque is on.
        """
        moment = self._moment(goal, confirmed=confirmed)
        for check, since in zip(CHECKS, self._since, strict=True):
            found, values = check.find(self._config, moment)
            since[:] = np.where(found, np.minimum(since, now), np.inf)
            due = now - since >= (self._config.trip_seconds if check.lasting else 0.0)
            if words := check.describe(self._arm, due, values):
                yield check.fault, words

    def cause(self, goal: np.ndarray | None, *, confirmed: bool) -> str:
        """What would be a fault now, however short it lasts; "" if nothing."""
        if self.lost:
            return "the servos do not answer"
        return first_finding(CHECKS, self._config, self._moment(goal, confirmed=confirmed))

    def obstacle(self) -> str:
        """Why the torque must not come on now; "" if it may."""
        if self.lost:
            return "the servos do not answer"
        return first_finding(ENGAGE_CHECKS, self._config, self._moment(None, confirmed=False))

    def newly_warm(self) -> str:
        """The joints that have become warm since the last call, in words; "" for none."""
        temperature = self.reading.temperature
        names = np.array(self._arm.joints)[temperature >= self._config.warm].tolist()
        fresh = [name for name in names if name not in self._warm]
        self._warm = set(names)
        return f"{', '.join(fresh)}: {self._config.warm:.0f} deg C or more" if fresh else ""

    def _moment(self, goal: np.ndarray | None, *, confirmed: bool) -> Moment:
        return Moment(
            arm=self._arm,
            scale=self._scale,
            reading=self.reading,
            previous=self._previous,
            goal=goal,
            voltage=self._voltage,
            confirmed=confirmed,
        )
