"""A human beside the policy: takes over while holding a switch, and says how an episode went."""

import time
from typing import Any, Final

import gymnasium
import numpy as np

from robolearn.contract import Info
from robolearn.hardware.teleop import Teleop, TeleopSample

Step = tuple[dict[str, Any], float, bool, bool, dict[str, Any]]
LOOK_EVERY: Final = 0.02  # s between looks at the device while the arm moves by itself


class Intervention(gymnasium.Wrapper):
    """Runs the human's action instead of the policy's while the human is engaged.

    What ran is `info["teleop_action"]` and `info["action_sent"]`; what the policy wanted stays in
    `info["action_requested"]`. When the device is lost, the arm holds. The emergency stop ends the
    episode.

    Args:
        env: any environment.
        teleop: the human's device.
        autonomous: whether somebody else acts when the human does not; otherwise the arm holds.

    Attributes:
        rerecord: the human wants the episode that has just ended thrown away.
    """

    def __init__(self, env: gymnasium.Env, teleop: Teleop, *, autonomous: bool = True) -> None:
        super().__init__(env)
        self.teleop, self.autonomous = teleop, autonomous
        self.rerecord = False
        self._held = np.zeros(0)  # the last goal, where a takeover begins
        self._marks: set[str] = set()  # since the last step

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; marks that were set before do not count for it."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._held, self.rerecord = info[Info.ACTION_SENT], False
        self._marks.clear()
        return observation, info

    def step(self, action: np.ndarray) -> Step:
        """One step, with the human's action or the given one."""
        sample = self._read()
        holding = sample.action is None and not (self.autonomous and sample.alive)
        driven = action if sample.action is None else sample.action
        step = self.env.step(self._held if holding else driven)
        observation, reward, terminated, truncated, info = step
        if not holding:  # what brakes towards a held goal must not take the goal along
            self._held = info[Info.ACTION_SENT]
        info[Info.IS_INTERVENTION] = sample.engaged
        info[Info.ACTION_REQUESTED] = np.array(action, np.float32)
        return self._judged((observation, float(reward), terminated, truncated, info))

    def _read(self) -> TeleopSample:
        """Asks the device; what was marked is kept for the end of the step."""
        sample = self.teleop.read(self._held)
        self._marks |= sample.marks
        return sample

    def _judged(self, step: Step) -> Step:
        """The step as the human sees it."""
        observation, reward, terminated, truncated, info = step
        self.rerecord = "rerecord" in self._marks
        if "success" in self._marks:
            reward, terminated = 1.0, True
            info |= {Info.IS_SUCCESS: True, Info.SUCCESS: True, Info.PROGRESS: 1.0}
        terminated |= "failure" in self._marks  # it is over, and critics learn that it was no good
        if self._marks & {"end", "rerecord", "estop"}:
            truncated = True
        self._marks.clear()
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Puts the arm to rest first, then lets go of the device."""
        try:
            self.env.close()
        finally:
            self.teleop.close()


class ArmIntervention(Intervention):
    """The same for an arm, whose driver hears the emergency stop at any moment.

    Also while the arm moves to the start of an episode.

    Args:
        env: an arm's environment.
        teleop: the human's device.
        autonomous: whether somebody else acts when the human does not; otherwise the arm holds.
    """

    def __init__(self, env: gymnasium.Env, teleop: Teleop, *, autonomous: bool = True) -> None:
        super().__init__(env, teleop, autonomous=autonomous)
        self._driver = env.unwrapped.driver  # type: ignore[attr-defined]
        self._driver.while_waiting = self._look
        self._next_look = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; see `Intervention.reset`."""
        self._held = self._driver.read().goal
        return super().reset(seed=seed, options=options)

    def _look(self) -> None:
        """Called again and again while something waits for the arm."""
        if time.monotonic() >= self._next_look and self._held.size:
            self._read()

    def _read(self) -> TeleopSample:
        self._next_look = time.monotonic() + LOOK_EVERY
        sample = super()._read()
        if "estop" in sample.marks:
            self._driver.press_estop()
        return sample
