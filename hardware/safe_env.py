"""`SafeEnv`: the safety layer of the real arm in front of a simulated environment.

A policy that is trained or evaluated behind it meets the same limits, holds and faults as on the
arm, from the same code. `info` tells what was asked (`action_requested`), what was let through
(`action_sent`), whether they differ, and the fault; a fault truncates the episode.
"""

from typing import Any, Final

import gymnasium
import numpy as np

from robolearn.contract import ArmSpec, Info, check_action
from robolearn.hardware.safety import (
    Command,
    Reading,
    Request,
    SafetyConfig,
    State,
    Supervisor,
    Verb,
)
from robolearn.hardware.workspace import Workspace

Observation = dict[str, Any]
TORQUE_CONSTANT: Final = 1.2116  # N m/A of the STS3215 (Rhoban's bam)
VOLTAGE: Final = 7.4  # V
TEMPERATURE: Final = 30.0  # deg C; a simulated servo stays cool


class SafeEnv(gymnasium.Wrapper[Observation, np.ndarray, Observation, np.ndarray]):
    """See the module's docstring.

    Args:
        env: an environment that keeps `robolearn.contract`; its `arm` is what is guarded.
        config: the thresholds; None takes the defaults.
        workspace: what poses are allowed; None allows all.

    Attributes:
        supervisor: of the running episode.
        events: what the supervisor said in the running episode.
    """

    def __init__(
        self,
        env: gymnasium.Env[Observation, np.ndarray],
        config: SafetyConfig | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        super().__init__(env)
        self.arm: ArmSpec = env.get_wrapper_attr("arm")
        self._config = config or SafetyConfig()
        self._workspace = workspace
        self._dt = 1.0 / self.arm.control_hz
        self._begin()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode, with the arm engaged where it is."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._begin()
        self._tick(observation, Request())
        self._tick(observation, Request(verb=Verb.ENGAGE))
        while self.supervisor.state is State.ENGAGING:
            self._tick(observation, Request())
        if self.supervisor.state is not State.ENGAGED:
            raise RuntimeError(f"the arm cannot begin: {self.supervisor.reason}")
        self._observation = observation
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Lets the supervisor limit the joint targets, then steps the simulation with the rest.

        Raises:
            ActionError: wrong shape, NaN or infinity; nothing has moved and the episode goes on.
        """
        requested = check_action(self.arm, action)
        goal_time = self._now + self._dt  # of the tick that follows
        command = self._tick(self._observation, Request(goal=requested, goal_time=goal_time))
        goal = self._observation["agent_pos"] if command.goal is None else command.goal
        observation, reward, terminated, truncated, info = self.env.step(goal.astype(np.float32))
        self._observation = observation
        fault = info[Info.FAULT] or str(command.fault)
        info[Info.ACTION_REQUESTED] = requested
        info[Info.LIMITED] = not np.array_equal(requested, info[Info.ACTION_SENT])
        info[Info.FAULT] = fault
        return observation, float(reward), terminated, truncated or bool(fault), info

    def _begin(self) -> None:
        self.supervisor = Supervisor(self.arm, self._config, self._dt, self._workspace)
        self.events: list[str] = []
        self._now = 0.0
        self._torque = False

    def _tick(self, observation: Observation, request: Request) -> Command:
        self._now += self._dt
        command = self.supervisor.tick(self._now, self._reading(observation), request)
        self.events += command.events
        self._torque = command.torque_enable
        return command

    def _reading(self, observation: Observation) -> Reading:
        """What servos would tell of this observation."""
        ones = np.ones(self.arm.size)
        effort = observation["agent_effort"].astype(float)
        return Reading(
            time=self._now,
            position=observation["agent_pos"].astype(float),
            velocity=observation["agent_vel"].astype(float),
            effort=effort,
            current=effort / TORQUE_CONSTANT,
            voltage=VOLTAGE * ones,
            temperature=TEMPERATURE * ones,
            alarms=np.zeros(self.arm.size, np.uint8),
            calibrated=True,
            torque=ones * self._torque,
        )
