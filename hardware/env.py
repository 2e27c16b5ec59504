"""`robolearn/SO101-v0`: the real arm, or its digital twin, as an ordinary gymnasium environment.

Spaces, units, rate and info keys are those of the simulated tasks (`robolearn.contract`). `step` is
paced: it returns one control period after the step before. A fault ends the episode as truncated,
with its code in the info; it never raises in the middle of one.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np
from gymnasium import spaces

from robolearn.contract import (
    SO101,
    ArmSpec,
    Info,
    action_space,
    check_action,
    observation_space,
    wish,
)
from robolearn.hardware.camera import CameraConfig, Cameras
from robolearn.hardware.client import Driver, DriverError, Snapshot
from robolearn.hardware.driver import DriverConfig
from robolearn.hardware.guardian import DIED
from robolearn.hardware.safety_types import SafetyConfig, State
from robolearn.hardware.stage import Site, Verdict, open_table, open_twin
from robolearn.hardware.twin import TwinConfig

TWIN: Final = "twin"  # instead of a port
TWIN_CAMERAS: Final = ("top", "wrist")
SAME: Final = 1e-4  # contract units; what float32 rounds away
OBS_TYPES: Final = ("pixels_agent_pos", "state")
DEAF: Final = (State.PARKING, State.LIMP, State.DISCONNECTED)  # in them the arm takes no goal
PARKED: Final = "parked"  # the fault code of an episode that goes on in one of them


class SO101Env(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One SO-101 follower arm.

    Args:
        port: its serial device, such as /dev/ttyACM0, or "twin".
        calibration: LeRobot's calibration file of this arm; the twin brings its own.
        cameras: name -> where it comes from, see `robolearn.hardware.camera`; for the twin a choice
            of its cameras' names.
        instruction: what the policy is told; the twin's task has instructions of its own.
        task: the simulated task that the twin stands in.
        obs_type: "pixels_agent_pos", or "state": the joints alone, no pictures.
        image_size: height and width of the pictures, pixels.
        render_mode: None or "rgb_array", which shows the first camera.
        paraphrases: which instructions of the twin's task: "train", "held_out" or "all".
        realtime: the twin follows the clock on the wall; otherwise it waits for the caller, and
            the same seed gives the same episode, bit for bit.
        safety: the thresholds of the safety layer.
        blackbox: folder for the recordings of faults.
        estop: a pipe or device; any byte from it, or its loss, is an emergency stop.

    Attributes:
        driver: the arm's driver, for what gymnasium has no name for.
        stage: the world around the arm.
        task_description: the running episode's instruction.

    Raises:
        OSError, ValueError: no arm, no camera, no calibration; the message says what to do.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(SO101.control_hz)}
    arm: ClassVar[ArmSpec] = SO101

    def __init__(
        self,
        port: str = TWIN,
        *,
        calibration: Path | None = None,
        cameras: Mapping[str, CameraConfig | str] | Sequence[str] | None = None,
        instruction: str = "",
        task: str = "robolearn/PickPlace-v0",
        obs_type: str = "pixels_agent_pos",
        image_size: tuple[int, int] = (48, 84),
        render_mode: str | None = None,
        paraphrases: str = "train",
        realtime: bool = False,
        safety: SafetyConfig | None = None,
        blackbox: Path = Path("runs/blackbox"),
        estop: Path | None = None,
    ) -> None:
        if obs_type not in OBS_TYPES:
            raise ValueError(f"obs_type is {obs_type!r}; choose one of {', '.join(OBS_TYPES)}")
        self.render_mode, self.image_size = render_mode, (int(image_size[0]), int(image_size[1]))
        if port == TWIN:
            names = TWIN_CAMERAS if cameras is None else tuple(cameras)
            twin = TwinConfig(env=task, lockstep=not realtime, image_size=self.image_size)
            site = open_twin(self.arm, twin, names, paraphrases)
        else:
            if not isinstance(cameras, Mapping | None):
                raise ValueError(f"cameras are {cameras!r}; name a source for each: name=source")
            site = open_table(self.arm, port, calibration, cameras or {}, instruction)
        self.stage = site.stage
        self._open = ExitStack()
        self._open.callback(self.stage.close)
        try:
            self._connect(site, obs_type, safety or SafetyConfig(), blackbox, estop)
        except BaseException:
            self._open.close()
            raise
        self.task_description = ""
        self._seed = self._steps = self._first_cycle = 0
        self.action_space = action_space(self.arm)
        self.observation_space = observation_space(self.arm, self.active_cameras, self.image_size)
        self._bounds = {
            name: (box.low, box.high)
            for name, box in self.observation_space.items()
            if isinstance(box, spaces.Box)
        }

    def _connect(
        self, site: Site, obs_type: str, safety: SafetyConfig, blackbox: Path, estop: Path | None
    ) -> None:
        config = DriverConfig(
            site.port,
            site.calibration,
            safety=safety,
            blackbox=blackbox,
            estop=estop,
            lockstep=site.lockstep,
        )
        self._observes_pixels = obs_type != "state"
        wanted = self._observes_pixels or self.render_mode is not None
        sources = site.cameras if wanted else {}
        self.driver = self._open.enter_context(Driver(config))
        self._cameras = self._open.enter_context(Cameras(sources, self.image_size))

    @property
    def active_cameras(self) -> tuple[str, ...]:
        """The cameras whose pictures are observed."""
        return tuple(self._cameras.sources) if self._observes_pixels else ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Brings the arm to the start of an episode; at a real table, arrange the objects before.

        Args:
            seed: the episode's seed, for the twin's task and whatever derives from it.
            options: {"instruction": text} asks for a certain goal.

        Raises:
            ValueError: an instruction that the twin's task does not know, or an option that looks
                like a slip of the pen.
            DriverError: a fault is latched (look at the arm, then call `driver.reset_fault()`), or
                the arm does not get to its start.
        """
        asked = wish(options)
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self.task_description = self.stage.begin(self.driver, self._seed, asked)
        self._cameras.renew()  # or the first decision would be made on the episode before
        snapshot = self.driver.read()
        self._steps, self._first_cycle = 0, snapshot.cycle
        goal = snapshot.goal.astype(np.float32)
        return self._observe(snapshot), self._info(goal, snapshot, self.stage.judge())

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Sends joint targets and waits for the end of the control period.

        Raises:
            ActionError: wrong shape, NaN or infinity; the arm keeps its last goal.
        """
        requested = check_action(self.arm, action)
        self.driver.send(requested, self._cameras.age())
        snapshot = self._advance()
        fault = bool(snapshot.fault)
        verdict = Verdict() if fault else self.stage.judge()
        info = self._info(requested, snapshot, verdict)
        return self._observe(snapshot), float(verdict.success), verdict.success, fault, info

    def _advance(self) -> Snapshot:
        """The arm at the end of the control period.

        That the driver has died is a fault, too, and so is an arm that no longer takes goals.
        """
        try:
            snapshot = self.driver.advance_to(self._end_of_period())
        except DriverError:
            return replace(self.driver.read(), fault=DIED)
        deaf = snapshot.state in DEAF and not snapshot.fault
        return replace(snapshot, fault=PARKED) if deaf else snapshot

    def _end_of_period(self) -> int:
        """The driver's cycle at which this step ends; a step that begins late begins a new count.

        The periods are counted from the first one, since 2.5 cycles at 50 Hz are one at 20 Hz.
        """
        self._steps += 1
        end = self._first_cycle + int(self._steps * self.driver.config.hz / self.arm.control_hz)
        late = self.driver.read().cycle + 1 - end
        if late > 0:
            self._first_cycle += late
        return end + max(late, 0)

    def _observe(self, snapshot: Snapshot) -> dict[str, Any]:
        observation: dict[str, Any] = {
            "agent_pos": snapshot.position.astype(np.float32),
            "agent_vel": snapshot.velocity.astype(np.float32),
            "agent_effort": snapshot.effort.astype(np.float32),
        }
        for name, bounds in self._bounds.items():  # a broken encoder may say anything
            observation[name] = np.clip(observation[name], *bounds)
        if self.active_cameras:
            observation["pixels"] = self._cameras.read()
        return observation

    def _info(self, requested: np.ndarray, snapshot: Snapshot, verdict: Verdict) -> dict[str, Any]:
        sent = snapshot.goal.astype(np.float32)
        return {
            Info.TASK: self.task_description,
            Info.SEED: self._seed,
            Info.IS_SUCCESS: verdict.success,
            Info.SUCCESS: verdict.success,
            Info.PROGRESS: verdict.progress,
            Info.ACTION_REQUESTED: requested,
            Info.ACTION_SENT: sent,
            Info.LIMITED: bool(np.abs(requested - sent).max() > SAME),
            Info.IS_INTERVENTION: False,
            Info.TELEOP_ACTION: sent.copy(),
            Info.FAULT: snapshot.fault,
        }

    def render(self) -> np.ndarray | None:
        """The newest picture of the first camera, uint8 (H, W, 3), with `render_mode`."""
        if self.render_mode is None:
            return None
        return next(iter(self._cameras.read().values()), None)

    def close(self) -> None:
        """Puts the arm to rest as `SafetyConfig.on_exit` says and lets go of everything."""
        self._open.close()
