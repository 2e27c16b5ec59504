"""Scripts for gym-aloha, which brings none: where both grippers shall be, one pose after the other.

Grippers go from pose to pose in straight lines, slowly at their ends. Each pose on the way becomes
joint targets by damped least squares (Buss 2004) on MuJoCo's own kinematics. Scripts look at what
lies on the table once, when the episode begins.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

POINT: Final = np.array([0.14, 0.0, 0.0])  # m, between the fingertips, in the gripper's frame
SIDES: Final = ("left", "right")
FACING: Final = {"left": np.diag([1.0, 1.0, 1.0]), "right": np.diag([-1.0, -1.0, 1.0])}
DOWN: Final = np.radians(60.0)
LIFTED: Final = 0.2  # m above the table
DAMPING: Final = 1e-4
ROUNDS: Final = 50  # of the inverse kinematics, at most


class Pose(NamedTuple):
    """Of one gripper.

    Attributes:
        place: of the point between its fingertips, m.
        pitch: how far it looks down, rad.
        roll: how far it is turned about the way it looks, rad.
        grip: 0 closed to 1 open.
    """

    place: tuple[float, float, float]
    pitch: float = DOWN
    roll: float = 0.0
    grip: float = 1.0


Poses = dict[str, Pose]  # by side
Script = list[tuple[int, Poses]]  # control steps, and where to be after them


def hand_over(things: np.ndarray) -> Script:
    """Takes the cube with the right gripper and hands it to the left one.

    Args:
        things: the state of the task (7,), which begins with the place of the cube, m.
    """
    x, y, _ = map(float, things[:3])
    above, at = Pose((x, y, 0.14)), Pose((x, y, 0.03))
    held = Pose((0.0, 0.5, 0.25), pitch=0.0, grip=0.0)
    waiting = Pose((-0.12, 0.5, 0.25), pitch=0.0, roll=np.pi / 2)  # not to touch the other fingers
    taking = waiting._replace(place=(-0.01, 0.5, 0.25))
    return [
        (45, {"right": above, "left": waiting}),
        (30, {"right": at, "left": waiting}),
        (50, {"right": at._replace(grip=0.0), "left": waiting}),
        (70, {"right": held, "left": waiting}),
        (30, {"right": held, "left": taking}),
        (50, {"right": held, "left": taking._replace(grip=0.0)}),
    ]


def insert(things: np.ndarray) -> Script:
    """Lifts the peg with the right gripper and the socket with the left one, and joins them.

    Args:
        things: the state of the task (14,): the peg's place, m, and quaternion, then the socket's.
    """
    peg, socket = _Carried(things[:2], 0.03, 0.01), _Carried(things[7:9], -0.03, 0.008)
    lifted = {"right": peg.above(LIFTED), "left": socket.above(LIFTED)}
    apart = {"right": peg.at(0.09), "left": socket.at(-0.09)}
    return [
        (45, {"right": peg.above(0.12, 1.0), "left": socket.above(0.12, 1.0)}),
        (30, {"right": peg.above(0.01, 1.0), "left": socket.above(0.022, 1.0)}),
        (50, {"right": peg.above(0.01), "left": socket.above(0.022)}),
        (35, lifted),
        (45, apart),
        (60, {**apart, "right": peg.at(-0.02)}),
    ]


class _Carried(NamedTuple):
    """Something long that lies along x, and is held at one end.

    Attributes:
        lies: where its middle is on the table, m.
        end: from there to where it is held, m.
        over: how far above its middle it is held, m.
    """

    lies: np.ndarray
    end: float
    over: float

    def above(self, height: float, grip: float = 0.0) -> Pose:
        """The gripper's pose with the middle at a height above where it lies."""
        x, y = map(float, self.lies)
        return Pose((x + self.end, y, height + self.over), grip=grip)

    def at(self, x: float) -> Pose:
        """The gripper's pose with the middle lifted to where both are joined."""
        return Pose((x + self.end, 0.5, LIFTED + self.over), grip=0.0)


def actions(model: Any, data: Any, script: Script) -> Iterator[np.ndarray]:  # noqa: ANN401
    """The joint targets (14,) of every step, the last ones for ever.

    Args:
        model: MuJoCo's.
        data: how things are now.
        script: what to do.
    """
    import mujoco

    scratch = mujoco.MjData(model)
    scratch.qpos[:] = data.qpos
    arms = {side: _Arm(model, scratch, side) for side in SIDES}
    poses = {side: arm.pose() for side, arm in arms.items()}
    for steps, ends in script:
        for step in range(1, steps + 1):
            share = (step / steps) ** 2 * (3.0 - 2.0 * step / steps)
            between = {side: _between(poses[side], ends[side], share) for side in SIDES}
            targets = np.concatenate([arms[side].reach(between[side]) for side in SIDES])
            yield targets
        poses = ends
    while True:
        yield targets


def _between(one: Pose, other: Pose, share: float) -> Pose:
    """A pose on the straight way."""
    mixed = [
        (1.0 - share) * np.array(a) + share * np.array(b) for a, b in zip(one, other, strict=True)
    ]
    return Pose(tuple(mixed[0]), *map(float, mixed[1:]))


class _Arm:
    """The kinematics of one arm, which go on where they were."""

    def __init__(self, model: Any, data: Any, side: str) -> None:  # noqa: ANN401
        first = 8 * SIDES.index(side)  # six joints and two fingers each
        self._model, self._data, self._own = model, data, slice(first, first + 6)
        self._facing, self._body = FACING[side], model.body(f"vx300s_{side}/gripper_link").id
        self._jacobian = np.zeros((6, model.nv))

    def _turn_and_point(self) -> tuple[np.ndarray, np.ndarray]:
        """The gripper's frame (3, 3), and the point between its fingertips (3,)."""
        import mujoco

        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        turn = self._data.xmat[self._body].reshape(3, 3)
        return turn, self._data.xpos[self._body] + turn @ POINT

    def pose(self) -> Pose:
        """Where the gripper is; at the beginning it is open and not rolled."""
        turn, point = self._turn_and_point()
        return Pose(tuple(point), float(-np.arcsin(turn[2, 0])))

    def reach(self, pose: Pose) -> np.ndarray:
        """The joints and the grip (7,) with which the gripper has a pose, or nearly."""
        import mujoco

        wanted = self._facing @ _turned(pose.pitch, pose.roll)
        low, high = self._model.jnt_range[self._own].T
        for _ in range(ROUNDS):
            turn, point = self._turn_and_point()
            error = np.concatenate([np.array(pose.place) - point, _axis(wanted @ turn.T)])
            if np.abs(error).max() < 1e-4:
                break
            mujoco.mj_jac(
                self._model, self._data, self._jacobian[:3], self._jacobian[3:], point, self._body
            )
            own = self._jacobian[:, self._own]
            step = own.T @ np.linalg.solve(own @ own.T + DAMPING * np.eye(6), error)
            self._data.qpos[self._own] = np.clip(self._data.qpos[self._own] + step, low, high)
        return np.append(self._data.qpos[self._own], pose.grip)


def _turned(pitch: float, roll: float) -> np.ndarray:
    """A frame (3, 3) that looks down by `pitch` and is turned about the way it looks."""
    (c, s), (d, t) = ((np.cos(angle), np.sin(angle)) for angle in (pitch, roll))
    down = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return down @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])


def _axis(turn: np.ndarray) -> np.ndarray:
    """The vector (3,) of a rotation, rad."""
    import mujoco

    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, turn.ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
