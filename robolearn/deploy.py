"""`robolearn deploy`: a policy on a real arm, or on its digital twin."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import gymnasium
import numpy as np

from robolearn.agent import open_agent
from robolearn.episodes import Episode
from robolearn.goals import DEMONSTRATION, SCENE, Wrap, goal_wrap
from robolearn.options import DeployConfig
from robolearn.robot import as_vector, kept_episodes, open_robot, open_writer
from robolearn.sources import Source, source_of
from robolearn.stats import wilson
from robolearn.told import maker_of


def deploy(config: DeployConfig) -> Iterator[Episode]:
    """Runs episodes and yields each; one that ends with a fault is the last.

    Raises:
        ValueError, OSError: no such policy, or one for another arm or other cameras; a goal that
            cannot be shown, or none for a policy that needs one; no arm.
    """
    # A run that goes on adds checkpoints; all of this means the one of this moment.
    source = source_of(config.policy)
    config = replace(config, policy=source.where)
    pictures, shown = source.picture_options(), shown_goal(config, source)
    cameras = config.cameras or pictures["cameras"]
    with ExitStack() as stack:
        size = pictures["image_size"]
        env = open_robot(config, autonomous=True, cameras=cameras, image_size=size)
        vector = stack.enter_context(closing(as_vector(_showing(env, shown))))
        actor = open_agent(config, vector, background=config.background)
        writer = stack.enter_context(open_writer(config.out, env)) if config.out else None
        seeds = range(config.seed, config.seed + config.episodes)
        for episode in kept_episodes(env, vector, actor, seeds):
            if writer is not None:
                writer.append(episode)
            yield episode


def shown_goal(config: DeployConfig, source: Source) -> Wrap | None:
    """What puts goal pictures into an arm's observations; None for a policy that is shown none.

    Raises:
        ValueError, OSError: a goal that the policy cannot be shown, or none if it needs one.
    """
    if not source.goals:
        if config.goal or config.goal_data:
            raise ValueError(f"{config.policy} is told its goal and shown none; leave out --goal")
        return None
    files = " ".join(f"{camera}=FILE" for camera in source.cameras)
    if not config.goal and not config.goal_data:
        raise ValueError(
            f"{config.policy} is shown its goal; give --goal {files}, which "
            "`robolearn goal-picture` takes, or --goal words, or --goal imagined"
        )
    if simulated := {DEMONSTRATION, SCENE}.intersection(config.goal):
        raise ValueError(
            f"--goal {simulated.pop()} is drawn by a simulator, which an arm does not have; give "
            f"--goal {files}, which `robolearn goal-picture` takes"
        )
    maker = maker_of(config.goal, config.goal_data, source, source.env)
    return goal_wrap(config.goal, source.cameras, "", {}, maker)


def _showing(env: gymnasium.Env, shown: Wrap | None) -> gymnasium.Env:
    """An arm with its goal, if there is one; lets go of the arm if that cannot be made."""
    try:
        return shown(env) if shown else env
    except BaseException:
        env.close()
        raise


def main(config: DeployConfig) -> int:
    """Runs the command."""
    successes = n = 0
    for n, episode in enumerate(deploy(config), start=1):
        success = bool(episode.success.any())
        successes += success
        driven = (
            f", {episode.intervention.mean():.0%} by hand" if episode.intervention.any() else ""
        )
        ending = episode.fault or ("success" if success else "no success")
        print(f"episode {n}: {episode.instruction!r}: {ending}, {len(episode)} steps{driven}")
        for further in filter(None, (_source(episode), unplanned(episode))):
            print(f"  {further}")
    low, high = wilson(successes, n)
    print(f"success {successes} of {n} (95 % interval {low:.1%} to {high:.1%})")
    return 1 if episode.fault else 0


def _source(episode: Episode) -> str:
    return episode.goal_source and f"it was shown {episode.goal_source}"


def unplanned(episode: Episode) -> str:
    """A sentence about the decisions that found no plan; "" without any."""
    lost = episode.notes.get("plan_found", np.ones(1)) == 0.0
    if not lost.any():
        return ""
    steps = np.median(episode.notes["steps_to_goal"][lost])
    return (
        f"no plan found in {lost.sum()} of {len(lost)} decisions, where an arm stays where it is "
        f"unless --keep-trying: the goal is an estimated {steps:.0f} steps away, which is beyond "
        "what was trained"
    )
