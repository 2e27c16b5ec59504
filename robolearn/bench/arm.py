"""`robolearn bench-arm`: faults, punctuality, and a policy on the digital twin.

| part | what is measured |
|---|---|
| `faults` | every row of the fault matrix, repeatedly: seconds from the event to its safe end |
| `timing` | how late the driver's cycles, 50 a second, begin beside a policy and a busy thread |
| `worlds` | a policy on the same seeds: in simulation, and through driver, bus, twin and cameras |

Seconds of the fault rows are the arm's own, cycle by cycle, except where processes die: there they
are those of the clock on the wall. A part's figures are kept in `out` as soon as it is done.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from robolearn.bench.busy import Beside, Busy
from robolearn.bench.speed import collect
from robolearn.contract import SO101
from robolearn.options import ARM_LEAD, WorkerOptions, check_positive, worker_options
from robolearn.results import save_result

if TYPE_CHECKING:
    from robolearn.hardware.client import Snapshot
    from robolearn.hardware.env import SO101Env
    from robolearn.hardware.fault_trial import Outcome

Part = Literal["faults", "timing", "worlds"]
# part -> its figures that the summary always holds; null until the part has run
FIGURES: Final[dict[str, tuple[str, ...]]] = {
    "faults": ("faults_tried", "faults_safe", "worst_seconds_to_safe"),
    "timing": ("deadline_misses_share", "lateness_p99_ms"),
    "worlds": ("success_simulation", "success_twin", "n"),
}
POSITIVE: Final = ("repeats", "minutes", "episodes", "replan_every", "workers")
PHASE: Final = 7  # cycles between the moments at which a fault strikes; the sway has 100
ENV: Final = "robolearn/PickPlace-v0"
PARAPHRASES: Final = "train"  # wording of the instructions, in both worlds


@dataclass(frozen=True)
class BenchArmConfig(WorkerOptions):
    """Measure the arm's driver: faults, punctuality, and a policy in two worlds."""

    parts: tuple[Part, ...] = ("faults", "timing", "worlds")  # what to measure
    results: Path = Path("docs/results")  # where the summary, arm.json, goes
    out: Path = Path("runs/bench-arm")  # figures of each part, and black boxes
    repeats: int = 5  # of every fault
    rows: str = ""  # only faults whose name contains this; the summary then goes to `out`
    minutes: float = 10.0  # of driving, for the punctuality
    policy: Path | None = None  # a checkpoint or a run; only faults does without
    episodes: int = 200  # in each world
    seed: int = 0  # of the first episode
    replan_every: int = 4  # steps of a chunk that are executed before looking again
    lead: int = ARM_LEAD  # steps of a chunk that are left out on the twin, which answers so late
    workers: int = 1  # processes of the simulated evaluation
    device: str = "cpu"


def bench(config: BenchArmConfig) -> dict[str, Any]:
    """Runs the parts, writes `<results>/arm.json`, and returns its figures.

    Raises:
        ValueError, OSError: unusable options or folders; figures of finished parts are kept.
    """
    check_positive(config, *POSITIVE)
    if config.parts != ("faults",) and config.policy is None:
        raise ValueError("timing and worlds need a policy: give --policy RUN, or --parts faults")
    for folder in (config.out, config.results):
        folder.mkdir(parents=True, exist_ok=True)
    for part in config.parts:
        Console(stderr=True).print(f"[bold]bench-arm {part}[/]")
        save_result(config.out, part, config, MEASURES[part](config))
    results = config.out if config.rows else config.results  # some faults are not the summary
    figures = collect(config.out, FIGURES, results / "arm.json", config.parts)
    save_result(results, "arm", config, figures)
    return figures


# faults


def measure_faults(config: BenchArmConfig) -> dict[str, Any]:
    """Tries every row `repeats` times, at different points of the arm's motion.

    Raises:
        ValueError: no row has such a name.
    """
    from robolearn.hardware.fault_matrix import MATRIX
    from robolearn.hardware.fault_rig import Rig
    from robolearn.hardware.fault_trial import trial

    rows = [row for row in MATRIX if config.rows in row.name]
    if not rows:
        raise ValueError(f"no fault has {config.rows!r} in its name")
    outcomes: dict[str, list[Outcome]] = {}
    shutil.rmtree(config.out / "rig", ignore_errors=True)  # what an earlier run left there
    for realtime in (False, True):
        mine = [row for row in rows if row.realtime is realtime]
        tries = [(row, k) for row in mine for k in range(config.repeats)]
        if not tries:
            continue
        with Rig(config.out / "rig", realtime=realtime) as rig:
            for row, k in track(tries, "faults", console=Console(stderr=True)):
                outcome = trial(row, rig, phase=PHASE * k)
                outcomes.setdefault(row.name, []).append(outcome)
    details = {row.name: _row_figures(row.group, row.end, outcomes[row.name]) for row in rows}
    tried = [outcome for each in outcomes.values() for outcome in each]
    struck = [o.seconds for row in rows for o in outcomes[row.name] if row.end != "works"]
    return {
        "faults_tried": len(tried),
        "faults_safe": sum(outcome.safe for outcome in tried),
        "worst_seconds_to_safe": _number(max(struck, default=np.nan)),
        "fault_rows": len(rows),
        "faults": details,
    }


def _row_figures(group: str, end: str, outcomes: list["Outcome"]) -> dict[str, Any]:
    seconds = np.array([outcome.seconds for outcome in outcomes])
    figures = {} if end == "works" else _percentiles(seconds)
    problems = sorted({problem for outcome in outcomes for problem in outcome.problems})
    safe = sum(outcome.safe for outcome in outcomes)
    return {
        "group": group,
        "end": str(end),
        "tried": len(outcomes),
        "safe": safe,
        "seconds": figures,
        "problems": problems,
    }


def _percentiles(seconds: np.ndarray) -> dict[str, float | None]:
    values = {"p50": 50, "p99": 99, "worst": 100}
    return {name: _number(np.percentile(seconds, q, method="higher")) for name, q in values.items()}


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return round(float(value), 4) if np.isfinite(value) else None


# timing


def measure_timing(config: BenchArmConfig) -> dict[str, Any]:
    """Lets the policy drive the twin for `minutes`, beside a thread that never rests."""
    punctuality: dict[str, Any] = {}
    episodes = list(twin_episodes(config, _seeds(config), punctuality, Busy()))
    faults = [episode["fault"] for episode in episodes if episode["fault"]]
    return {**punctuality, "timing_episodes": len(episodes), "timing_faults": faults}


def _seeds(config: BenchArmConfig) -> Iterator[int]:
    """Seeds of episodes, as long as there is time for another one."""
    end = time.monotonic() + 60.0 * config.minutes
    for seed in count(config.seed):
        yield seed
        if time.monotonic() > end:
            return


def _punctuality(first: "Snapshot", last: "Snapshot") -> dict[str, Any]:
    """How late cycles began, and how many were left out, from one snapshot to another."""
    from robolearn.hardware.channel import LATENESS_EDGES

    lateness, missed = last.lateness - first.lateness, last.missed - first.missed
    cycles = lateness.sum()
    return {
        "deadline_misses_share": float(missed / (cycles + missed)),
        "lateness_p99_ms": quantile(lateness, 0.99),
        "lateness_p50_ms": quantile(lateness, 0.50),
        "cycles": int(cycles),
        "missed": int(missed),
        "cycles_without_all_servos": int(last.lost - first.lost),
        "lateness_edges_ms": list(LATENESS_EDGES),
        "lateness": lateness.tolist(),
    }


def quantile(counts: np.ndarray, share: float) -> float | None:
    """The upper end of the bin, ms, in which this share of the cycles is reached; None: beyond."""
    from robolearn.hardware.channel import LATENESS_EDGES

    reached = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return LATENESS_EDGES[reached] if reached < len(LATENESS_EDGES) else None


# worlds


def measure_worlds(config: BenchArmConfig) -> dict[str, Any]:
    """The same seeds in the simulated task, and on the twin as if it were the arm."""
    from robolearn.bench.pairs import beside
    from robolearn.outcomes import kept

    simulated = _simulated(config)
    punctuality: dict[str, Any] = {}
    played = twin_episodes(config, range(config.seed, config.seed + config.episodes), punctuality)
    episodes = list(track(played, "twin", config.episodes, console=Console(stderr=True)))
    real = [bool(episode["success"]) for episode in episodes]
    pairs = beside(real, simulated)
    return {
        **_success("simulation", simulated),
        **_success("twin", real),
        "n": config.episodes,
        "mcnemar_p": pairs["p_value"],
        "only_simulation": pairs["lost"],
        "only_twin": pairs["gained"],
        "twin_episodes": [kept(e | {"agent_instruction": e["instruction"]}) for e in episodes],
        "twin_timing": punctuality,
    }


def _simulated(config: BenchArmConfig) -> list[bool]:
    """Success of each seed in the simulated task."""
    from robolearn.evaluate import evaluate
    from robolearn.options import EvalConfig

    assert config.policy is not None
    plain: dict[str, Any] = {
        "episodes": config.episodes,
        "seed": config.seed,
        "videos": 0,
        "replan_every": config.replan_every,
        "device": config.device,
        **worker_options(config),
    }
    how: dict[str, Any] = {"env": ENV, "paraphrases": PARAPHRASES, "out": config.out / "simulation"}
    result = evaluate(EvalConfig(policy=str(config.policy), **how, **plain))
    return [episode["success"] for episode in result["episodes"]]


def _success(world: str, wins: list[bool]) -> dict[str, float]:
    from robolearn.stats import wilson

    low, high = wilson(sum(wins), len(wins))
    name = f"success_{world}"
    return {name: sum(wins) / len(wins), f"{name}_low": low, f"{name}_high": high}


def twin_episodes(
    config: BenchArmConfig,
    seeds: Iterable[int],
    punctuality: dict[str, Any],
    beside: Busy | None = None,
) -> Iterator[dict[str, Any]]:
    """Runs the policy on the twin in real time; yields what a result keeps of each episode.

    A fault ends an episode as a failure, is reset, and the next episode goes on.

    Args:
        config: the policy.
        seeds: of the episodes.
        punctuality: is filled with that of the driver at the end.
        beside: a thread that is busy while steps are taken, if any.
    """
    import gymnasium

    from robolearn.agent import open_agent
    from robolearn.hardware.client import DriverError
    from robolearn.options import AgentOptions, RobotOptions
    from robolearn.outcomes import row_of
    from robolearn.robot import as_vector, open_robot
    from robolearn.rollout import rollout
    from robolearn.sources import source_of

    assert config.policy is not None
    source = source_of(config.policy)
    steps, rate = gymnasium.spec(ENV).max_episode_steps or 0, SO101.control_hz
    options = RobotOptions(seconds=steps / rate, blackbox=config.out / "blackbox")
    env = open_robot(options, autonomous=True, paraphrases=PARAPHRASES, **source.picture_options())
    arm: Any = env.unwrapped
    if beside is not None:
        env = Beside(env, beside)
    agent = AgentOptions(
        policy=source.where,
        replan_every=config.replan_every,
        lead=config.lead,
        device=config.device,
    )
    with closing(as_vector(env)) as vector:
        actor = open_agent(agent, vector)
        first = arm.driver.read()
        with beside or nullcontext():
            for seed in seeds:
                try:
                    (episode,) = rollout(vector, actor, [seed])
                except DriverError:  # on the way to the start something was in the way
                    _put_home(arm)
                    (episode,) = rollout(vector, actor, [seed])
                if episode.fault:
                    _put_home(arm)
                yield row_of(episode)
        punctuality |= _punctuality(first, arm.driver.read())


def _put_home(arm: "SO101Env") -> None:
    """Ends a fault and brings the arm home, as a hand would."""
    twin = arm.stage.twin  # type: ignore[attr-defined]
    arm.driver.limp()
    if arm.driver.read().fault:
        arm.driver.reset_fault()
    twin.reset(0, arm="home")


MEASURES: Final = {"faults": measure_faults, "timing": measure_timing, "worlds": measure_worlds}


def main(config: BenchArmConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("figure", "measured")
    for name in (name for names in FIGURES.values() for name in names):
        value = figures[name]
        table.add_row(name, "-" if value is None else f"{value:.4g}")
    Console().print(table)
    for name, row in figures.get("faults", {}).items():
        if row["problems"]:
            Console().print(f"[red]{name}[/]: {'; '.join(row['problems'])}")
    print(f"{config.results / 'arm.json'} holds everything")
    return 0 if figures["faults_safe"] == figures["faults_tried"] else 1
