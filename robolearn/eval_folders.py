"""Where an evaluation lies unless a folder is named: beside its run's checkpoints.

What makes the episodes others than those of a plain `robolearn eval` stands in the folder's name,
so that two evaluations of one policy never share a folder.
"""

import re
from pathlib import Path

from robolearn import checkpoint
from robolearn.options import EvalConfig
from robolearn.results import harder
from robolearn.sources import Source, source_of


def default_folder(config: EvalConfig) -> Path:
    """`<run>/eval`; `<run>/eval-shuffled` for the control, `<run>/eval-push2` with a variation.

    Whatever else makes the episodes others stands in the name, too: checkpoint, task, split, seed.
    """
    source = source_of(config.policy)
    parts = [
        "eval",
        *_step(config.policy, source.run),
        *_asked(config),
        *_chosen(config),
        *_executed(config),
        *_where(config, source),
        *harder(config.variations, config.dynamics),
        *([f"seed{config.seed}"] if config.seed else []),
    ]
    return source.run / "-".join(parts)


def _asked(config: EvalConfig) -> list[str]:
    parts = ["shuffled"] * config.shuffle_instructions
    parts += [_plain(config.instruction)] if config.instruction else []
    parts += [] if config.goal == EvalConfig.goal else ["goal", *map(_plain, config.goal)]
    return parts + ([config.goal_data.name] if config.goal_data else [])


def _chosen(config: EvalConfig) -> list[str]:
    parts = [f"{Path(config.scorer).name}{config.candidates}"] if config.scorer else []
    return parts + ["fixed-noise"] * config.fixed_noise + ["keep-trying"] * config.keep_trying


def _executed(config: EvalConfig) -> list[str]:
    usual = config.replan_every == EvalConfig.replan_every
    parts = [] if usual else [f"replan{config.replan_every}"]
    parts += [f"lead{config.lead}"] if config.lead else []
    parts += [f"delay{config.delay}"] if config.delay else []
    parts += ["unguided"] if config.delay and not config.guided else []
    return parts + ([] if config.ensemble is None else [f"ensemble{config.ensemble:g}"])


def _where(config: EvalConfig, source: Source) -> list[str]:
    usual = {
        "env": source.env.rpartition(":")[2],
        "split": EvalConfig.split,
        "paraphrases": EvalConfig.paraphrases,
    }
    values = {name: str(getattr(config, name)).rpartition(":")[2] for name in usual}
    named = [value for name, value in values.items() if value not in ("", usual[name])]
    return [value.rpartition("/")[2] for value in named]


def _step(policy: str, run: Path) -> list[str]:
    """The checkpoint that was named, unless it is the newest one of its run."""
    parts, newest = Path(policy).parts, checkpoint.checkpoints(run)
    named = parts[parts.index("checkpoints") + 1] if "checkpoints" in parts[:-1] else ""
    return [named] if named and newest and named != newest[-1].name else []


def _plain(text: str) -> str:
    """A text as part of a folder's name."""
    return re.sub(r"\W+", "-", text)
