"""`robolearn deploy`: a policy on a real arm, or on its digital twin."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

from robolearn.agent import open_agent
from robolearn.episodes import Episode
from robolearn.options import DeployConfig
from robolearn.robot import as_vector, kept_episodes, open_robot, open_writer
from robolearn.sources import source_of
from robolearn.stats import wilson


def deploy(config: DeployConfig) -> Iterator[Episode]:
    """Runs episodes and yields each; one that ends with a fault is the last.

    Raises:
        ValueError, OSError: no such policy, or one for another arm or other cameras; no arm.
    """
    # A run that goes on adds checkpoints; all of this means the one of this moment.
    source = source_of(config.policy)
    config = replace(config, policy=source.where)
    pictures = source.picture_options()
    cameras = config.cameras or pictures["cameras"]
    with ExitStack() as stack:
        size = pictures["image_size"]
        env = open_robot(config, autonomous=True, cameras=cameras, image_size=size)
        vector = stack.enter_context(closing(as_vector(env)))
        actor = open_agent(config, vector, background=config.background)
        writer = stack.enter_context(open_writer(config.out, env)) if config.out else None
        seeds = range(config.seed, config.seed + config.episodes)
        for episode in kept_episodes(env, vector, actor, seeds):
            if writer is not None:
                writer.append(episode)
            yield episode


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
    low, high = wilson(successes, n)
    print(f"success {successes} of {n} (95 % interval {low:.1%} to {high:.1%})")
    return 1 if episode.fault else 0
