"""Stages: the world around the arm, as far as an episode needs it.

An arm cannot put the cubes back or tell whether it has succeeded. On the twin the simulated task
does both (`TwinStage`); at a real table a person does (`TableStage`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.camera import CameraConfig
from robolearn.hardware.client import Driver
from robolearn.hardware.twin import Twin, TwinConfig
from robolearn.registry import make_env


@dataclass(frozen=True)
class Verdict:
    """What is known of a running episode."""

    success: bool = False
    progress: float = 0.0


class Stage(Protocol):
    """The world around the arm."""

    def begin(self, driver: Driver, seed: int, instruction: str | None) -> str:
        """Brings arm and objects to the start of an episode; returns the instruction.

        Raises:
            ValueError: an instruction that the stage does not know.
            DriverError: the arm does not get there.
        """

    def judge(self) -> Verdict:
        """How the episode stands."""

    def close(self) -> None:
        """Lets go of it."""


class TwinStage:
    """A simulated task under the twin's arm.

    Args:
        twin: the running twin.
        paraphrases: which instructions to draw from: "train", "held_out" or "all".
    """

    def __init__(self, twin: Twin, paraphrases: str) -> None:
        self.twin = twin
        # A second copy of the task, which only says how episodes begin.
        options: dict[str, Any] = {"obs_type": "state", "paraphrases": paraphrases}
        self._task: Any = make_env(str(twin.config.env), **options).unwrapped

    def begin(self, driver: Driver, seed: int, instruction: str | None) -> str:
        """Sets the task up; in lockstep the arm is put to its start, else it moves there."""
        start = self._task.draw(seed, instruction)
        if self.twin.config.lockstep:
            driver.limp()
            self.twin.reset(seed, start.instruction, arm="home")
            driver.engage()
        else:
            driver.engage()
            driver.move_to(self._task.joints.position(start.qpos))
            self.twin.reset(seed, start.instruction)
        return str(start.instruction)

    def judge(self) -> Verdict:
        """What the simulated task says."""
        state = self.twin.state()
        return Verdict(bool(state["success"]), float(state["progress"]))

    def close(self) -> None:
        """Ends the twin."""
        self._task.close()
        self.twin.close()


class TableStage:
    """A real table.

    Args:
        arm: for its home pose.
        instruction: what the policy is told.
    """

    def __init__(self, arm: ArmSpec, instruction: str) -> None:
        self.arm, self.instruction = arm, instruction
        self._verdict = Verdict()

    def begin(self, driver: Driver, seed: int, instruction: str | None) -> str:
        """Moves the arm home; arranging the objects is a person's part, before this."""
        del seed  # nobody can repeat a real scene
        driver.engage()
        driver.move_to(np.array(self.arm.home))
        self._verdict = Verdict()
        return instruction or self.instruction

    def mark(self, *, success: bool) -> None:
        """A person says how the episode went."""
        self._verdict = Verdict(success, float(success))

    def judge(self) -> Verdict:
        """What a person has said so far."""
        return self._verdict

    def close(self) -> None:
        """Nothing to let go of."""


CameraChoice = Mapping[str, CameraConfig | str]


class Site(NamedTuple):
    """An arm and the world around it."""

    port: str
    calibration: Calibration
    stage: Stage
    cameras: CameraChoice  # name -> where it comes from
    lockstep: bool


def open_twin(arm: ArmSpec, config: TwinConfig, cameras: Sequence[str], paraphrases: str) -> Site:
    """Starts a twin.

    Args:
        arm: the arm.
        config: of the twin; `env` is needed.
        cameras: which of the task's cameras to use.
        paraphrases: see `TwinStage`.

    Raises:
        ValueError: an unknown task or camera.
    """
    twin = Twin(config)
    try:
        streams = twin.cameras
        for name in cameras:
            if name not in streams:
                raise ValueError(f"camera is {name!r}; choose one of {', '.join(streams)}")
        # In lockstep a picture is drawn when it is asked for, else the streams run on.
        ending = ".rgb" if config.lockstep else ".mjpg"
        sources = {name: streams[name].removesuffix(".mjpg") + ending for name in cameras}
        calibration = Calibration.from_dict(twin.calibration(), arm)
        stage = TwinStage(twin, paraphrases)
    except BaseException:
        twin.close()
        raise
    return Site(twin.port, calibration, stage, sources, config.lockstep)


def open_table(
    arm: ArmSpec, port: str, calibration: Path | None, cameras: CameraChoice, instruction: str
) -> Site:
    """A real arm at a real table.

    Raises:
        ValueError: no calibration, or one that is not this arm's.
    """
    if calibration is None:
        raise ValueError(
            f"{port} needs a calibration: make one with `robolearn calibrate --port {port}`, or "
            "give LeRobot's file of this arm"
        )
    ours = Calibration.load(calibration, arm)
    ours.check()
    return Site(port, ours, TableStage(arm, instruction), cameras, lockstep=False)
