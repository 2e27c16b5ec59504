"""Environments by id, with a helpful word when the id is wrong."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

import robolearn.envs  # noqa: F401  (registers the tasks)
import robolearn.hardware  # noqa: F401  (registers the arm)

PREFIX = "robolearn/"
# beginning of an id -> module with `spec` and `versions` of it; gymnasium knows all others
ELSEWHERE = {"foreign:": "envs.foreign"}


def env_ids() -> list[str]:
    """The ids of all environments of this project."""
    return sorted(name for name in gymnasium.registry if name.startswith(PREFIX))


def simulated_ids() -> list[str]:
    """The ids of the simulated tasks, which are entered by `robolearn.envs`."""
    entries = {name: str(gymnasium.spec(name).entry_point) for name in env_ids()}
    return [name for name, entry in entries.items() if entry.startswith("robolearn.envs.")]


def make_env(
    env_id: str,
    *,
    variations: Mapping[str, int] | None = None,
    dynamics: Mapping[str, float] | None = None,
    **options: Any,  # noqa: ANN401 (the task's own)
) -> gymnasium.Env:
    """`gymnasium.make`, naming the near matches of an unknown id.

    Args:
        env_id: the id; "module:id" imports the module that registers it, and "foreign:id" is a
            task of another package, see `robolearn.envs.foreign`.
        variations: names and levels of what makes a task harder, see
            `robolearn.envs.variations`.
        dynamics: fixed factors of its masses and so on by name, see `robolearn.envs.dynamics`.
        options: keyword arguments of the environment.

    Raises:
        ValueError: no such environment, or no such variation or dynamics of it.
    """
    module = _elsewhere(env_id)
    env = gymnasium.make(module.spec(env_id) if module else _existing(env_id), **options)
    # A robot has none, and shall not need MuJoCo to find that out.
    if dynamics:
        from robolearn.envs.dynamics import Dynamics

        env = Dynamics(env, dynamics)
    if variations:
        from robolearn.envs.variations import with_variations

        env = with_variations(env, variations)
    return env


def spec_of(env_id: str) -> EnvSpec:
    """What an environment was registered with, its time limit among it.

    Args:
        env_id: as for `make_env`.

    Raises:
        ValueError: no such environment.
    """
    if elsewhere := _elsewhere(env_id):
        return elsewhere.spec(env_id)
    module, _, name = env_id.rpartition(":")
    if module:
        import_module(module)
    return gymnasium.spec(_existing(name))


def env_versions(env_id: str) -> dict[str, str]:
    """The versions of packages that an environment runs with, where they are not robolearn's own.

    Raises:
        ValueError: the environment's package is not installed.
    """
    elsewhere = _elsewhere(env_id)
    return elsewhere.versions(env_id) if elsewhere else {}


def versions_apart(env_ids: Iterable[str]) -> dict[str, str]:
    """The same of several, under names such as "metaworld/mujoco".

    Raises:
        ValueError: see `env_versions`.
    """
    return {
        f"{elsewhere.package_of(env_id)}/{name}": number
        for env_id in env_ids
        if (elsewhere := _elsewhere(env_id))
        for name, number in elsewhere.versions(env_id).items()
    }


def _elsewhere(env_id: str) -> Any:  # noqa: ANN401 (a module)
    found = (module for start, module in ELSEWHERE.items() if env_id.startswith(start))
    return next((import_module(f"robolearn.{module}") for module in found), None)


def _existing(env_id: str) -> str:
    if ":" not in env_id and env_id not in gymnasium.registry:
        near = get_close_matches(env_id, env_ids(), n=3, cutoff=0.0)
        raise ValueError(f"no environment {env_id!r}; near matches: {', '.join(near)}")
    return env_id
