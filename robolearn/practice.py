"""Practice goals: what a policy aims at when nobody judges what becomes of it.

| `--goal` | what is shown in a new scene |
|---|---|
| `demonstration`, `scene`, files | what `robolearn eval` shows, see `goals.py` |
| `own` | what the arm itself sees after it has moved at random: no goal is given |

Some scenes of each round are those of rounds before (`revisits`): their goal is a state that was
reached there, which is surely within reach. In practice nothing is judged: `Unjudged` hides reward,
success and progress, and an episode does not end with success.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import gymnasium
import numpy as np

from robolearn.contract import Info
from robolearn.dataset import EpisodeDataset
from robolearn.goals import (
    DEMONSTRATION,
    SCENE,
    Demonstration,
    Goal,
    GoalPictures,
    Maker,
    Pictures,
    always,
    read_pictures,
)
from robolearn.registry import make_env
from robolearn.seeding import stream

OWN: Final = "own"
LENGTHS: Final = (8, 64)  # steps of an excursion
HELD: Final = 12  # of these an arm moves in the same direction
SPEED: Final = 0.02  # of its range, that a joint moves in a step at most

Make = Callable[..., gymnasium.Env]


class Scene:
    """The task's own picture of an episode's goal.

    Args:
        make: makes an environment of the task.

    Raises:
        ValueError: it draws none.
    """

    def __init__(self, make: Make) -> None:
        self._env = make(goal_pixels=True)
        if "goal_pixels" not in getattr(self._env.observation_space, "spaces", {}):
            raise ValueError("this environment draws no goal; give --goal own, or a --goal FILE")

    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Goal:
        """See `Maker`."""
        told = {"instruction": info[Info.TASK]}
        observation, _ = self._env.reset(seed=int(info[Info.SEED]), options=told)
        return Goal(dict(observation["goal_pixels"]))


class Excursion:
    """What an arm sees after it has moved at random from where an episode begins.

    Args:
        make: makes the environment in which it does so.
    """

    def __init__(self, make: Make) -> None:
        self._env = make()
        task: Any = self._env.unwrapped
        self._low, self._high = task.arm.limits

    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Goal:
        """See `Maker`."""
        seed, told = int(info[Info.SEED]), {"instruction": info[Info.TASK]}
        rng = stream(seed, "excursion")
        observation, _ = self._env.reset(seed=seed, options=told)
        target = np.array(observation["agent_pos"])
        over, direction = False, np.zeros_like(target)
        for step in range(rng.integers(*LENGTHS)):
            if step % HELD == 0:
                direction = rng.uniform(-1.0, 1.0, len(target)) * SPEED * (self._high - self._low)
            target = np.clip(target + direction, self._low, self._high).astype(np.float32)
            if not over:
                observation, _, _, over, _ = self._env.step(target)
        return Goal({camera: x.copy() for camera, x in observation["pixels"].items()})


MAKERS: Final[Mapping[str, Callable[[Make], Maker]]] = {
    DEMONSTRATION: Demonstration,
    SCENE: Scene,
    OWN: Excursion,
}


class Unjudged(gymnasium.Wrapper):
    """Hides reward, success and progress; an episode lasts for so many steps, whatever happens.

    Args:
        env: the task.
        steps: of an episode.
    """

    def __init__(self, env: gymnasium.Env, steps: int) -> None:
        super().__init__(env)
        self._steps = self._left = steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self._left = self._steps
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, _unjudged(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Moves; that the task has ended is not told."""
        observation, _, _, truncated, info = self.env.step(action)
        self._left -= 1
        return observation, 0.0, False, bool(truncated) or self._left <= 0, _unjudged(info)


def _unjudged(info: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in info.items() if not key.startswith(Info.GRADE)}
    return {**told, Info.IS_SUCCESS: False, Info.SUCCESS: False, Info.PROGRESS: 0.0}


def practising(
    goal: Sequence[str],
    cameras: Mapping[str, tuple[int, int]],
    env_id: str,
    options: Mapping[str, Any],
    steps: int,
    known: Mapping[int, Pictures],
) -> Callable[[gymnasium.Env], gymnasium.Env]:
    """What makes an environment one of practice; may be sent to a worker.

    Args:
        goal: see the module's docstring.
        cameras: those of the policy, and height and width of their pictures.
        env_id: the environment.
        options: its options.
        steps: of an episode.
        known: goals of some episodes, by seed; all others get one of their own.

    Raises:
        ValueError, OSError: files that are no pictures of these cameras.
    """
    make = partial(make_env, env_id, **options)
    if len(goal) == 1 and goal[0] in MAKERS:
        open_maker: Callable[[], Maker] = partial(MAKERS[goal[0]], make)
    else:
        open_maker = partial(partial, always, read_pictures(goal, cameras))
    return partial(_practised, open_maker, known, steps)


def _practised(
    open_maker: Callable[[], Maker], known: Mapping[int, Pictures], steps: int, env: gymnasium.Env
) -> gymnasium.Env:
    return GoalPictures(Unjudged(env, steps), partial(_known_or_new, known, open_maker()))


def _known_or_new(
    known: Mapping[int, Pictures],
    new: Maker,
    observation: Mapping[str, Any],
    info: Mapping[str, Any],
) -> Goal:
    seed = int(info[Info.SEED])
    return Goal(known[seed]) if seed in known else new(observation, info)


def revisits(
    earlier: Sequence[EpisodeDataset],
    cameras: Sequence[str],
    count: int,
    rng: np.random.Generator,
) -> dict[int, Pictures]:
    """Scenes of earlier rollouts, by seed, each with what was seen there at a random later moment.

    Args:
        earlier: the rollouts.
        cameras: whose pictures are shown.
        count: of scenes, as far as there are so many.
        rng: chooses.
    """
    newest = {
        int(seed): (dataset, index)
        for dataset in earlier
        for index, seed in enumerate(dataset.episodes.seed)
        if dataset.episodes.length[index] > 1
    }
    chosen = rng.permutation(sorted(newest))[:count].tolist()
    return {seed: _reached(*newest[seed], cameras, rng) for seed in chosen}


def _reached(
    dataset: EpisodeDataset, index: int, cameras: Sequence[str], rng: np.random.Generator
) -> Pictures:
    frame = dataset.episodes.start[index] + rng.integers(1, dataset.episodes.length[index])
    return {camera: np.array(dataset.frames(camera)[frame]) for camera in cameras}
