"""A script for gym-pusht, which brings none: pushes that were tried in a copy of its world.

A push is straight: the pusher goes around the T to a place beside it, and from there towards it.
The script tries pushes from all around the T and does the one that gains most for its time, again
and again. What is pushed stops where the pusher stops, so a copy of the world tells how far a push
should go.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

FIELD: Final = 512.0  # pixels
RADIUS: Final = 15.0  # of the pusher, pixels
GAP: Final = 5.0  # between pusher and T where pushes begin, pixels
WIDE: Final = 20.0  # between them on the way around it: the pusher is late and cuts corners
SPACING: Final = 14.0  # of the places where pushes begin, pixels
TILTS: Final = np.radians([-40.0, -20.0, 0.0, 20.0, 40.0])  # from the straight way to the T
FAR: Final = 130  # pixels that a push goes at most
QUICK: Final = 25.0  # pixels in a control step, around the T
SLOW: Final = 15.0  # pixels in a control step, in a push
DETOUR: Final = 10.0 * FIELD  # pixels that are rather gone than the T touched on the way
REST: Final = 2  # control steps in which the pusher comes to rest
STEP: Final = 0.01  # s, of the world


class Push(NamedTuple):
    """A push.

    Attributes:
        way: (P, 2) pixels, from where the pusher is to where the push begins.
        end: (2,) pixels, where it ends.
        rate: what it gains, pixels in a control step.
    """

    way: np.ndarray
    end: np.ndarray
    rate: float


def actions(task: Any) -> Iterator[np.ndarray]:  # noqa: ANN401
    """Where the pusher shall be, (2,) pixels, in every step.

    Args:
        task: the package's environment; each push begins with where its things are.
    """
    world = _World(task)
    while True:
        push = max(_pushes(world, np.array(task.agent.position)), key=lambda push: push.rate)
        start = push.way[-1]
        yield from _paced(push.way, QUICK)
        yield from [start] * REST
        yield from _paced(np.array([start, push.end]), SLOW)
        yield from [push.end] * REST


def _pushes(world: "_World", pusher: np.ndarray) -> Iterator[Push]:
    """Every push that can be tried."""
    pose, surroundings = world.pose(), _Surroundings(world.shape(), pusher)
    for start, ahead in surroundings.starts():
        way = surroundings.way(start)
        steps = surroundings.effort(way) / QUICK + 2 * REST
        for tilt in TILTS:
            towards = _turned(ahead[None], tilt)[0]
            gains = world.gains(pose, start, towards)
            rates = gains / (steps + np.arange(1, len(gains) + 1) / SLOW)
            far = int(rates.argmax())
            yield Push(way, start + (far + 1) * towards, rates[far])


class _World:
    """The T of a task, and a copy of its world to try pushes in."""

    def __init__(self, task: Any) -> None:  # noqa: ANN401
        self._task, self._copy = task, type(task)()
        self._copy.reset(seed=0)
        corners = [vertex for shape in task._block_shapes for vertex in shape.get_vertices()]
        self._corners = np.array(corners)  # (8, 2), from the T's place
        self._wanted = self._placed(task.goal_pose[None])

    def pose(self) -> np.ndarray:
        """Of the T: x, y, pixels, and the angle, rad, (3,)."""
        return np.array([*self._task.block.position, self._task.block.angle])

    def shape(self) -> Any:  # noqa: ANN401
        """The outline of the T, a polygon of shapely's."""
        from shapely.geometry import Polygon

        corners = self._placed(self.pose()[None])[0]
        return Polygon(corners[:4]).union(Polygon(corners[4:]))

    def gains(self, pose: np.ndarray, start: np.ndarray, towards: np.ndarray) -> np.ndarray:
        """How much nearer the corners of the T are to where they belong, on the mean, pixels.

        Args:
            pose: of the T before the push, (3,).
            start: where it begins, (2,) pixels.
            towards: its direction, (2,).

        Returns:
            (P,), one for each pixel of the push.
        """
        poses = np.array([pose, *self._pushed(pose, start, towards)])
        distances = np.linalg.norm(self._placed(poses) - self._wanted, axis=-1).mean(-1)
        return distances[0] - distances[1:]

    def _pushed(self, pose: np.ndarray, start: np.ndarray, towards: np.ndarray) -> np.ndarray:
        """The poses (P, 3) of the T on the way of a push, one for each pixel."""
        agent, block, space = self._copy.agent, self._copy.block, self._copy.space
        block.angle = float(pose[2])
        block.position, agent.position = tuple(pose[:2]), tuple(start)
        block.velocity, block.angular_velocity = (0.0, 0.0), 0.0
        agent.velocity = tuple(towards / STEP)
        space.reindex_shapes_for_body(block)
        space.reindex_shapes_for_body(agent)
        poses = np.empty((_room(start, towards), 3))
        for row in poses:
            space.step(STEP)
            row[:] = *block.position, block.angle
        return poses

    def _placed(self, poses: np.ndarray) -> np.ndarray:
        """The corners of the T (N, 8, 2) in poses (N, 3)."""
        return np.array([_turned(self._corners, pose[2]) + pose[:2] for pose in poses])


class _Surroundings:
    """Where the pusher may go without touching the T."""

    def __init__(self, shape: Any, pusher: np.ndarray) -> None:  # noqa: ANN401
        self._pusher = pusher
        self._starts = shape.buffer(RADIUS + GAP).exterior
        self._ring = shape.buffer(RADIUS + WIDE).exterior
        self._near, self._touched = shape.buffer(RADIUS + 0.9 * WIDE), shape.buffer(0.9 * RADIUS)

    def starts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places where pushes begin, (2,) pixels, and the straight way to the T, (2,)."""
        line = self._starts
        for along in np.arange(0.0, line.length, SPACING):
            start, later = (_at(line, place) for place in (along, along + 1.0))
            if ((start > 0.0) & (start < FIELD)).all():
                forward = (later - start) / np.linalg.norm(later - start)
                inward = np.array([-forward[1], forward[0]])
                yield start, inward if line.is_ccw else -inward

    def way(self, start: np.ndarray) -> np.ndarray:
        """The way (P, 2) of the pusher to where a push begins: around the T, corners cut."""
        from shapely.geometry import Point

        here, there = (self._ring.project(Point(*place)) for place in (self._pusher, start))
        ahead = (there - here) % self._ring.length
        both = [self._around(here, length) for length in (ahead, ahead - self._ring.length)]
        ways = [np.vstack([self._pusher, way, start]) for way in both]
        return min(ways, key=self.effort)

    def _around(self, here: float, length: float) -> np.ndarray:
        """Places (P, 2) on the ring, as few as keep away from the T."""
        count = max(2, int(abs(length) / 5.0))
        places = [_at(self._ring, here + share * length) for share in np.linspace(0.0, 1.0, count)]
        return self._cut(np.clip(places, 0.0, FIELD))

    def _cut(self, way: np.ndarray) -> np.ndarray:
        """Goes straight to the farthest place that can be reached so, again and again."""
        from shapely.geometry import LineString

        cut, now = [way[0]], 0
        while now < len(way) - 1:
            farther = range(len(way) - 1, now, -1)
            free = (k for k in farther if not LineString(way[[now, k]]).intersects(self._near))
            now = next(free, now + 1)
            cut.append(way[now])
        return np.array(cut)

    def effort(self, way: np.ndarray) -> float:
        """Its length, pixels, and more if it touches the T.

        Its first leg leads away from the T, in which an episode may begin.
        """
        from shapely.geometry import LineString

        return _length(way) + DETOUR * LineString(way[1:]).intersects(self._touched)


def _at(line: Any, along: float) -> np.ndarray:  # noqa: ANN401
    """A place (2,) on a closed line of shapely's."""
    return np.array(line.interpolate(along % line.length).coords[0])


def _room(start: np.ndarray, towards: np.ndarray) -> int:
    """Pixels that a push may go before it leaves the field."""
    ways = start + np.arange(1, FAR + 1)[:, None] * towards
    inside = ((ways >= 0.0) & (ways <= FIELD)).all(-1)
    return max(1, FAR if inside.all() else int(inside.argmin()))


def _length(way: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(way, axis=0), axis=-1).sum())


def _turned(places: np.ndarray, angle: float) -> np.ndarray:
    """Places (N, 2) turned about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return places @ np.array([[c, s], [-s, c]])


def _paced(way: np.ndarray, pace: float) -> Iterator[np.ndarray]:
    """Places (2,) on a way that are `pace` pixels apart, and its end."""
    legs = np.linalg.norm(np.diff(way, axis=0), axis=-1)
    passed = np.concatenate([[0.0], legs.cumsum()])
    for along in [*np.arange(pace, passed[-1], pace), passed[-1]]:
        yield np.array([np.interp(along, passed, way[:, axis]) for axis in range(2)])
