"""The contract that simulation and hardware share.

An environment of robolearn, simulated or real, is an ordinary `gymnasium.Env`:

| item | form |
|---|---|
| `obs["agent_pos"]` | float32 (J,): joint positions, rad; a gripper from 0 closed to 1 open |
| `obs["agent_vel"]` | float32 (J,): rad/s; a gripper in fractions per second |
| `obs["agent_effort"]` | float32 (J,): N m (or the unit that `ArmSpec.effort_unit` names) |
| `obs["pixels"][camera]` | uint8 (H, W, 3), RGB |
| `obs["goal_pixels"][camera]` | the same of the reached goal, with `goal_pixels=True` only |
| `obs["environment_state"]` | float32 (S,): privileged simulator state, `obs_type="state"` only |
| action | float32 (J,): absolute joint targets in the units of `agent_pos` |

An environment whose pictures are costly may have an attribute `draw_every`, 1 unless it is set: it
then draws in every so many steps of an episode, from the first on, and in between shows the last
pictures again, for those who look only then.

One `step` is one control period of `1 / ArmSpec.control_hz` seconds. The keys of `info` are the
constants of `Info`. SI units everywhere; degrees, ticks and percent exist only inside `hardware/`
and in the dataset import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Final

import numpy as np
from gymnasium import spaces

OBS_TYPES: Final = ("pixels_agent_pos", "state", "depth")
SIDES: Final = ("left", "right")  # of a pair of arms, as seen from behind them
# Bounds of the velocity and effort observations: what no arm of this size ever reaches.
MAX_VELOCITY: Final = 100.0
MAX_EFFORT: Final = 100.0


class Info:
    """The keys of the `info` dict that `reset` and `step` return."""

    TASK: Final = "task"  # str: the language instruction
    SEED: Final = "seed"  # int: the seed that the whole episode derives from
    IS_SUCCESS: Final = "is_success"  # bool
    SUCCESS: Final = "success"  # bool: the same under the name half of the field uses
    PROGRESS: Final = "progress"  # float, 0..1
    ACTION_REQUESTED: Final = "action_requested"  # float32 (J,): what was asked
    ACTION_SENT: Final = "action_sent"  # float32 (J,): what limits and safety let through
    LIMITED: Final = "limited"  # bool: whether the two differ
    IS_INTERVENTION: Final = "is_intervention"  # bool: a human drives
    TELEOP_ACTION: Final = "teleop_action"  # float32 (J,): what ran
    GRADE: Final = "grade/"  # + name; float: how well it has gone, of tasks that are graded
    FAULT: Final = "fault"  # str: "" or a fault code; a fault truncates the episode
    FAILURE: Final = "failure"  # str: "" or why the episode failed, in evaluations only
    GOAL_SOURCE: Final = "goal_source"  # str: where its goal picture comes from, likewise
    GOAL_STEPS: Final = "goal_steps"  # int: that the expert took to the goal shown; 0: unknown


class ActionError(ValueError):
    """An action that cannot be executed. It is rejected whole and nothing has moved."""


@dataclass(frozen=True)
class ArmSpec:
    """What a policy must know about an arm, whether it is simulated or real."""

    name: str
    joints: tuple[str, ...]
    low: tuple[float, ...]  # rad; 0 for a gripper
    high: tuple[float, ...]  # rad; 1 for a gripper
    home: tuple[float, ...]  # the pose in which episodes begin
    # Indices of the joints that are opening fractions. Policies learn these as they are, and others
    # relative to where the arm is, so they are also the actions of others that are no targets.
    grippers: tuple[int, ...]
    control_hz: float
    effort_unit: str = "N m"

    @cached_property
    def size(self) -> int:
        """The number of joints, J."""
        return len(self.joints)

    @cached_property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest action, float32 (J,) each."""
        return np.array(self.low, np.float32), np.array(self.high, np.float32)


JAW_RANGE: Final = 1.92  # rad that the jaw of the SO-101 turns between closed and open
# rad/s that a joint turns at most unless somebody asks for more. Demonstrations keep to it too:
# what the arm's driver would slow down is no example for a policy that shall run on the arm.
SAFE_SPEED: Final = 1.5
SAFE_ACCELERATION: Final = 20.0  # rad/s^2, likewise; with 10 an arm trails fast goals by 70 ms

SO101 = ArmSpec(
    name="so101",
    joints=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"),
    low=(-1.919862, -1.745329, -1.69, -1.658063, -2.743847, 0.0),
    high=(1.919862, 1.745329, 1.69, 1.658063, 2.841206, 1.0),
    home=(0.0, -0.3, 0.16, 1.6, 0.05, 0.3),
    grippers=(5,),
    control_hz=20.0,
)


def pair_of(arm: ArmSpec) -> ArmSpec:
    """Two of these arms as one: the left one's joints, then the right one's."""
    return ArmSpec(
        name=f"{arm.name}_pair",
        joints=tuple(f"{side}_{joint}" for side in SIDES for joint in arm.joints),
        low=arm.low * 2,
        high=arm.high * 2,
        home=arm.home * 2,
        grippers=(*arm.grippers, *(arm.size + gripper for gripper in arm.grippers)),
        control_hz=arm.control_hz,
        effort_unit=arm.effort_unit,
    )


SO101_PAIR = pair_of(SO101)


def action_space(arm: ArmSpec) -> spaces.Box:
    """The true joint range, float32 (J,)."""
    return spaces.Box(*arm.limits, dtype=np.float32)


def observation_space(
    arm: ArmSpec,
    cameras: Sequence[str] = (),
    image_size: tuple[int, int] = (84, 84),
    state_size: int = 0,
    *,
    depth: bool = False,
    goal_pixels: bool = False,
) -> spaces.Dict:
    """The observation space of an arm with these cameras.

    Args:
        arm: the arm.
        cameras: camera names; none leaves out `pixels`.
        image_size: height and width of every camera, pixels.
        state_size: length of `environment_state`; 0 leaves it out.
        depth: adds `depth`, float32 (H, W) in metres per camera.
        goal_pixels: adds `goal_pixels`, a picture of the reached goal per camera.
    """
    shape = (arm.size,)
    # A servo may be pushed a little past its range, so positions get a margin of 0.5.
    low, high = arm.limits[0] - 0.5, arm.limits[1] + 0.5
    entries: dict[str, spaces.Space] = {
        "agent_pos": spaces.Box(low, high, dtype=np.float32),
        "agent_vel": spaces.Box(-MAX_VELOCITY, MAX_VELOCITY, shape, np.float32),
        "agent_effort": spaces.Box(-MAX_EFFORT, MAX_EFFORT, shape, np.float32),
    }
    if cameras:
        image = spaces.Box(0, 255, (*image_size, 3), np.uint8)
        entries["pixels"] = spaces.Dict(dict.fromkeys(cameras, image))
    if cameras and goal_pixels:
        entries["goal_pixels"] = spaces.Dict(dict.fromkeys(cameras, image))
    if cameras and depth:
        metres = spaces.Box(0.0, np.inf, image_size, np.float32)
        entries["depth"] = spaces.Dict(dict.fromkeys(cameras, metres))
    if state_size:
        entries["environment_state"] = spaces.Box(-np.inf, np.inf, (state_size,), np.float32)
    return spaces.Dict(entries)


def wish(options: Mapping[str, Any] | None) -> str | None:
    """The instruction that a caller of `reset` asks for, if any.

    Other options are let pass, since tools such as LeRobot's have some of their own.

    Raises:
        ValueError: an option that looks like a slip of the pen.
    """
    for key in options or {}:
        if key != "instruction" and get_close_matches(key, ["instruction"]):
            raise ValueError(f"reset has no option {key!r}; give {{'instruction': text}}")
    return (options or {}).get("instruction")


def check_action(arm: ArmSpec, action: np.ndarray, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Returns a copy of the action as float32 (*batch, J).

    Args:
        arm: the arm.
        action: joint targets in the units of `agent_pos`.
        batch: the leading dimensions that are expected, for several arms at once.

    Raises:
        ActionError: wrong shape, or a value that is NaN or infinite (the joint is named).
    """
    action = np.array(action, dtype=np.float32)
    if action.shape != (*batch, arm.size):
        raise ActionError(
            f"action has shape {action.shape}; {arm.name} takes {(*batch, arm.size)}, the joints "
            f"being {', '.join(arm.joints)}"
        )
    finite = np.isfinite(action)
    if np.count_nonzero(finite) < action.size:  # half as long as all()
        bad = ", ".join(_culprit(arm, action, index) for index in np.argwhere(~finite)[:5])
        raise ActionError(f"action rejected, the arm keeps its last target: {bad}")
    return action


def _culprit(arm: ArmSpec, action: np.ndarray, index: np.ndarray) -> str:
    *slot, joint = index.tolist()
    where = f" of slot {slot[0]}" if slot else ""
    return f"{arm.joints[joint]}{where} is {action[tuple(index)]}"


def limit_action(arm: ArmSpec, action: np.ndarray) -> np.ndarray:
    """Clips a checked action, (J,) or (N, J), to the joint range."""
    low, high = arm.limits
    return np.minimum(np.maximum(action, low), high)  # np.clip takes twice as long for one arm
