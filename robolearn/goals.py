"""Goal pictures for policies that are shown their goal: `robolearn eval --goal ...`, and `deploy`.

| `--goal` | what is shown |
|---|---|
| `demonstration` | the last picture of what the task's expert does in the same episode |
| `scene` | the task's own picture: the goal reached, the arm where it starts |
| a file | this picture, for a policy with one camera |
| `CAMERA=FILE` of each camera | these pictures |
| `words` | the last picture of a recorded episode that did what is told, see `robolearn.recall` |
| `imagined` | what a goal-writer imagines of what is told, see `robolearn.told` |
| `imagined FOLDER` | the same of a goal-writer that lies elsewhere than in the run |

A picture of another size with the same proportions is scaled; anything else is refused. An arm can
show neither `demonstration` nor `scene`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces

from robolearn.contract import Info
from robolearn.registry import make_env
from robolearn.rollout import copied
from robolearn.seeding import stream

DEMONSTRATION: Final = "demonstration"
SCENE: Final = "scene"
WORDS: Final = "words"
IMAGINED: Final = "imagined"
ATTEMPTS: Final = 3  # of an expert, which fails now and then
SKEW: Final = 0.02  # proportions may differ by so much
Pictures = dict[str, np.ndarray]
Wrap = Callable[[gymnasium.Env], gymnasium.Env]


@dataclass(frozen=True)
class Goal:
    """The pictures of an episode's goal.

    Attributes:
        pictures: of each camera, uint8 (H, W, 3).
        source: the recorded episode that they come from, or who imagined them; "" if neither.
        steps: that the expert took to get there; 0 if that is unknown.
    """

    pictures: Pictures
    source: str = ""
    steps: int = 0


# Of the first observation of an episode, and what `reset` tells about it.
Maker = Callable[[Mapping[str, Any], Mapping[str, Any]], Goal]


class GoalPictures(gymnasium.ObservationWrapper):
    """Adds "goal_pixels" to observations.

    Args:
        env: with "pixels".
        make: makes the goal of an episode.
    """

    def __init__(self, env: gymnasium.Env, make: Maker) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        self.observation_space = spaces.Dict({**space, "goal_pixels": space["pixels"]})
        self._make, self._goal = make, Goal({})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins an episode, and finds the pictures of its goal."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._goal = self._make(observation, info)
        told = {Info.GOAL_SOURCE: self._goal.source, Info.GOAL_STEPS: self._goal.steps}
        return self.observation(observation), {**info, **told}

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation with the goal in it."""
        return {**observation, "goal_pixels": copied(self._goal.pictures)}


class Demonstration:
    """The last pictures of what the expert does in an episode.

    Args:
        make: makes the environment in which it does so.

    Raises:
        ValueError: it has no expert.
    """

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self._env = make()
        self._task: Any = self._env.unwrapped
        if not hasattr(self._task, "expert"):
            raise ValueError("this environment has no expert to demonstrate; give a --goal FILE")

    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Goal:
        """See `Maker`; of the last of a few attempts if all fail."""
        seed, instruction = int(info[Info.SEED]), str(info[Info.TASK])
        for attempt in range(ATTEMPTS):
            goal, reached = self._play(seed, instruction, f"goal {attempt}")
            if reached:
                break
        return goal

    def _play(self, seed: int, instruction: str, name: str) -> tuple[Goal, bool]:
        self._env.reset(seed=seed, options={"instruction": instruction})
        script = self._task.expert(stream(seed, name))
        steps, ended = 0, False
        while not ended:
            observation, _, reached, over, _ = self._env.step(next(script))
            steps, ended = steps + 1, reached or over
        return Goal(copied(observation["pixels"]), steps=steps), bool(reached)


def demonstrates(env_id: str) -> bool:
    """Whether an environment has an expert that can demonstrate goals."""
    with closing(make_env(env_id)) as env:
        return hasattr(env.unwrapped, "expert")


def goal_wrap(
    goal: Sequence[str],
    cameras: Mapping[str, tuple[int, int]],
    env_id: str,
    options: Mapping[str, Any],
    maker: Callable[[gymnasium.Env], Maker] | None = None,
) -> Wrap | None:
    """What puts goal pictures into an environment; None where its own are wanted.

    Args:
        goal: see the module's docstring.
        cameras: those of the policy, and height and width of their pictures.
        env_id: the environment.
        options: its options, without goal pictures.
        maker: makes the goals of an environment of instructions; see `robolearn.told`.

    Raises:
        ValueError, OSError: files that are no pictures of these cameras.
    """
    if maker is not None:
        return partial(_with, maker)
    if tuple(goal) == (SCENE,):
        return None
    if tuple(goal) == (DEMONSTRATION,):
        return partial(_with_demonstration, env_id, dict(options))
    return partial(_with_pictures, read_pictures(goal, cameras))


def _with(maker: Callable[[gymnasium.Env], Maker], env: gymnasium.Env) -> gymnasium.Env:
    return GoalPictures(env, maker(env))


def _with_demonstration(env_id: str, options: dict[str, Any], env: gymnasium.Env) -> gymnasium.Env:
    return GoalPictures(env, Demonstration(partial(make_env, env_id, **options)))


def _with_pictures(pictures: Pictures, env: gymnasium.Env) -> gymnasium.Env:
    return GoalPictures(env, partial(always, pictures))


def always(pictures: Pictures, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Goal:
    """The same goal in every episode, see `Maker`."""
    del observation, info
    return Goal(pictures)


def read_pictures(goal: Sequence[str], cameras: Mapping[str, tuple[int, int]]) -> Pictures:
    """Goal pictures from files, in the sizes of the cameras.

    Raises:
        ValueError: not one for each camera, or of other proportions.
        OSError: no such picture.
    """
    named = dict(_named(entry, cameras) for entry in goal)
    if named.keys() != cameras.keys() or len(named) != len(goal):
        wanted = " ".join(f"{name}=FILE" for name in cameras)
        raise ValueError(f"the policy looks through {', '.join(cameras)}; give --goal {wanted}")
    return {name: _read(Path(file), cameras[name]) for name, file in named.items()}


def _named(entry: str, cameras: Mapping[str, tuple[int, int]]) -> tuple[str, str]:
    """Camera and file; the camera need not be named if there is only one."""
    name, equals, file = entry.partition("=")
    return (name, file) if equals else (next(iter(cameras)) if len(cameras) == 1 else "", entry)


def picture_file(entry: str) -> Path:
    """The file of an entry of `--goal`, with or without its camera."""
    return Path(_named(entry, {})[1])


def _read(file: Path, size: tuple[int, int]) -> np.ndarray:
    import cv2

    found = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB) if file.is_file() else None
    if found is None:
        raise OSError(f"{file} is no picture, nor a word that names one; give a PNG or JPEG file")
    check_proportions(str(file), found.shape[:2], size)
    return np.asarray(cv2.resize(found, size[::-1], interpolation=cv2.INTER_AREA))


def check_proportions(what: str, found: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuses pictures that scaling would distort.

    Args:
        what: they are, for the error.
        found: height and width.
        size: those of the camera.

    Raises:
        ValueError: other proportions.
    """
    (height, width), (rows, columns) = found, size
    if abs(width * rows / (height * columns) - 1.0) > SKEW:
        raise ValueError(
            f"{what} is {height}x{width} pixels and the camera {rows}x{columns}; give a picture "
            "of the same proportions, taken by the camera itself"
        )
