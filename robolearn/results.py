"""What evaluations and benchmark commands write.

An evaluation writes `result.json`, a `Result`. A benchmark command writes its summary to
`docs/results/NAME.json`, from which all tables are made.
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, TypedDict

from robolearn.config import check_same, config_hash, to_json
from robolearn.files import write_atomic

VERSIONS: Final = "versions.json"  # of a folder that a benchmark fills: what it runs with
FORMAT: Final = 1  # of an evaluation's `result.json`
PACKAGES: Final = ("robolearn", "mujoco", "torch", "gymnasium", "numpy", "lerobot")


class EpisodeResult(TypedDict):
    """One episode of an evaluation."""

    seed: int
    instruction: str  # what the task asked for and judged
    agent_instruction: str  # what the agent was told
    success: bool
    length: int  # steps
    progress: float  # 0..1, the best or last of the episode
    fault: str  # "" without one
    failure: NotRequired[str]  # why it failed, see `robolearn.envs.failures`; "" if it did not
    goal_source: NotRequired[str]  # where its goal picture was recorded, or who imagined it
    goal_steps: NotRequired[int]  # that the expert took to the goal shown; 0 if that is unknown
    grades: NotRequired[Mapping[str, float]]  # how well it went, of tasks that are graded
    latency_p50_ms: float  # of one decision
    # What the policy knew, at the first decision: see `Policy.notes`
    notes: NotRequired[Mapping[str, float]]
    strip: NotRequired[str | None]  # what it imagined beside what then happened, likewise
    video: str | None  # relative to the folder of the evaluation


class Result(TypedDict):
    """An evaluation: the contents of `result.json`."""

    format: int
    env_id: str
    policy: str
    command: str
    n: int
    successes: int
    success: float  # 0..1
    success_low: float  # the 95 % Wilson interval
    success_high: float
    seeds: Sequence[int]  # the first and the last
    replan_every: int  # steps
    lead: NotRequired[int]  # steps left out of each chunk; older results have none
    ensemble: NotRequired[float | None]  # decay with which overlapping chunks were averaged
    delay: NotRequired[int]  # steps that a decision took, while the arm went on
    guided: NotRequired[bool]  # with a delay: whether new chunks went on with what was under way
    candidates: NotRequired[int]  # to choose from; older results have one
    scorer: NotRequired[str]  # who chose; "" with one candidate
    fixed_noise: NotRequired[bool]  # whether every decision got the same noise
    keep_trying: NotRequired[bool]  # whether the arm went on where no plan was found
    latency_ms: Mapping[str, float]  # "p50" and "p99" of one decision
    # Moves of the joints where a chunk begins and inside of chunks, see `robolearn.jumps`.
    jumps: NotRequired[Mapping[str, float]]
    wall_seconds: float
    training_seconds: NotRequired[float | None]  # that led to the policy, if known: steps alone
    versions: Mapping[str, str]
    renderer: str
    config_hash: str
    instructions: Literal["matched", "shuffled"]
    instruction: NotRequired[str]  # that was asked for in all episodes; "": each drew its own
    held_out_instructions: bool
    split: NotRequired[str]  # which objects, scenes and goals; older results have train
    variations: NotRequired[Mapping[str, int]]  # names and levels; none: the plain task
    dynamics: NotRequired[Mapping[str, float]]  # fixed factors, and s of delay; none: as they are
    failures: NotRequired[Mapping[str, int]]  # how many failed why, the most frequent first
    grades: NotRequired[Mapping[str, float]]  # means over the episodes
    goal: NotRequired[Sequence[str]]  # where goal pictures came from; older results have none
    episodes: list[EpisodeResult]


def harder(variations: Mapping[str, int], dynamics: Mapping[str, float]) -> list[str]:
    """What makes a task harder, as parts of a name: ["push2", "dynamics", "mass1.4"]."""
    varied = [f"{name}{level}" for name, level in sorted(variations.items())]
    fixed = [f"{name}{value:g}" for name, value in sorted(dynamics.items())]
    return [*varied, *(["dynamics", *fixed] if fixed else [])]


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def claim(
    config: object,
    folder: Path,
    name: str,
    free: Collection[str],
    used: Mapping[str, str] | None = None,
) -> None:
    """Notes with what a benchmark fills a folder, settings and versions, and refuses others.

    Args:
        config: the settings, or what else decides, by name.
        folder: is filled by a command that goes on where it was interrupted.
        name: of the file for the settings.
        free: settings that may differ from one run of the command to the next.
        used: the versions, if there are more than `versions` tells.

    Raises:
        ValueError: the folder was begun with other settings or versions.
    """
    check_same(config, folder, name, free)
    check_same(used or versions(), folder, VERSIONS, free=())


def command() -> str:
    """The command that is running, as one would type it."""
    return shlex.join(["robolearn", *sys.argv[1:]])


def machine() -> str:
    """The processor and how many cores there are, for example "2 x AMD EPYC"."""
    model = re.search(r"model name\s*: (.*)", _text(Path("/proc/cpuinfo")))
    return f"{os.cpu_count()} x {model.group(1) if model else platform.processor()}"


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def revision() -> str:
    """The commit that runs, with "+" for uncommitted changes; "" outside a git checkout.

    Results are no changes: a command that writes its own again and again runs the same code.
    """
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*here, "rev-parse", "--short=12", "HEAD"], **_QUIET).stdout.strip()
        code = [":(top)", ":(top,exclude)docs/results"]
        changed = subprocess.run([*here, "diff", "--quiet", "HEAD", "--", *code], **_QUIET)
    except OSError:  # no git on this machine
        return ""
    return commit + ("+" if commit and changed.returncode else "")


_QUIET: Final[dict[str, Any]] = {"capture_output": True, "text": True, "check": False}


def save_result(folder: Path, name: str, config: object, figures: dict[str, Any]) -> None:
    """Writes `<folder>/<name>.json`: the command, its config and versions, and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "command": command(),
        "config": to_json(config),
        "config_hash": config_hash(config),
        "versions": versions(),
        "revision": revision(),
        "machine": machine(),
        **figures,
    }
    write_atomic(folder / f"{name}.json", (json.dumps(content, indent=2) + "\n").encode())
