"""All variations of tasks by name: `with_variations(env, {"push": 1})`.

| name | what varies or happens | where |
|---|---|---|
| mass, friction, damping, servo, delay | the physics of an episode | `robolearn.envs.randomize` |
| camera, light, texture, distractors | the looks of an episode | `robolearn.envs.randomize` |
| push, displace, slip, freeze, action_delay | in its midst | `robolearn.envs.disturb` |
| tremble | all the time, in tasks of other packages, too | `robolearn.envs.tremble` |
| label | the instruction is another goal's | `robolearn.envs.mislabel` |
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import gymnasium

from robolearn.envs.disturb import DISTURBANCES
from robolearn.envs.mislabel import Mislabelled
from robolearn.envs.randomize import RANDOMIZERS, Delayed, Randomized
from robolearn.envs.tremble import TREMBLE, Trembling
from robolearn.envs.variation import Variation, check_level


def _randomized(name: str, env: gymnasium.Env, level: int) -> Randomized:
    return Randomized(env, name, level)


VARIATIONS: Final[dict[str, Callable[[gymnasium.Env, int], Variation]]] = {
    **{name: partial(_randomized, name) for name in RANDOMIZERS},
    "delay": Delayed,
    **DISTURBANCES,
    TREMBLE: Trembling,
    "label": Mislabelled,
}
ELSEWHERE: Final = (TREMBLE,)  # those that act on tasks of other packages, too


def with_variations(env: gymnasium.Env, variations: Mapping[str, int]) -> gymnasium.Env:
    """Wraps a task; the order of the names changes nothing.

    Args:
        env: the task, perhaps wrapped.
        variations: names and levels, see `robolearn.envs.variation.MAX_LEVEL`.

    Raises:
        ValueError: no such name or level, or one that cannot act on this environment.
    """
    check_names(variations)
    for name, wrap in VARIATIONS.items():
        if name in variations:
            env = wrap(env, variations[name])
    return env


def check_names(variations: Mapping[str, int]) -> None:
    """Whether all of these names and levels exist.

    Raises:
        ValueError: one does not.
    """
    for name, level in variations.items():
        if name not in VARIATIONS:
            raise ValueError(f"no variation {name!r}; choose from {', '.join(VARIATIONS)}")
        check_level(name, level)
