"""`robolearn bench-taco`: what choosing among candidate chunks is worth, task by task.

For every task a policy is trained on demonstrations of two kinds, and then fine-tuned on a few good
ones, so that some of its chunks still come from the other kind. That is of one of two sorts:

| sort | the other half of the demonstrations |
|---|---|
| structured | good ones of another goal than they are told; `modes.GOALS` has both |
| scatter | crooked and hesitant ones of the right goal (quality 0.3) |

Every demonstration of a task is told the same goal; the redundant mode is that of the other one.
Objects and places are new in every episode. Policies look at the simulator's state, which makes
hundreds of episodes affordable.

All scorers choose among the same candidates on the same seeds, so that pairs are compared. On some
tasks TACO is evaluated with other numbers of candidates, and with one thing done otherwise at a
time, too. What was done stays in `out`, and a run that was interrupted goes on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

from robolearn.bench.candidates import latency
from robolearn.bench.modes import KINDS, TASKS, Sort, goals, prepare
from robolearn.bench.pairs import beside, pooled
from robolearn.options import WORKERS, WorkerOptions, check_at_least, worker_options
from robolearn.policies.configs import FlowConfig, TacoConfig
from robolearn.results import claim, save_result

SETTINGS: Final = "bench-taco.json"
NAME: Final = "taco"
SO_FAR: Final = "taco-so-far"
PAGE: Final = "report.html"
# Options that change nothing of what lies in `out`.
FREE: Final = (
    "sorts",
    "tasks",
    "results",
    "candidates",
    "compared",
    "ablated",
    *WORKERS,
    "policy",
    "decisions",
)
COUNTS: Final = (
    "demonstrations",
    "good",
    "steps",
    "batch_size",
    "tuning",
    "compared",
    "episodes",
    "replan_every",
    "decisions",
)
UNFITTED: Final = ("random", "medoid", "residual")
# Ablations whose verifier was fitted otherwise; the one of the noise when acting needs no new fit.
REFITTED: Final[dict[str, dict[str, Any]]] = {
    "search-half": {"noise": 0.5},
    "search-full": {"noise": 1.0},
    "no-prior": {"policy": TacoConfig(prior=False)},
}
FIXED_NOISE: Final = "fixed-noise"
Row = dict[str, Any]


@dataclass(frozen=True)
class BenchTacoConfig(WorkerOptions):
    """Measure what choosing among candidate chunks is worth."""

    sorts: tuple[Sort, ...] = ("structured", "scatter")  # of demonstrations
    tasks: tuple[str, ...] = ()  # e.g. Lift; by default those chosen for each sort
    results: Path = Path("docs/results")  # where the summary, taco.json, goes
    out: Path = Path("runs/bench-taco")  # data, runs and evaluations
    obs_type: Literal["pixels_agent_pos", "state"] = "state"  # what policies look at
    demonstrations: int = 400  # to train on, half of them of the other kind
    good: int = 30  # demonstrations to fine-tune on, all of the right kind
    flow: FlowConfig = field(  # the policies; small, and with one draw where states are cheap
        default_factory=lambda: FlowConfig(hidden=256, sample_steps=4, draws=1)
    )
    steps: int = 2500  # of training
    batch_size: int = 256  # observations a step
    tuning: int = 4  # steps of fine-tuning; more of them leave nothing of the other mode
    compared: int = 16  # candidates at which all scorers are compared
    candidates: tuple[int, ...] = (2, 4, 8, 32, 50)  # further ones for TACO, on the ablated tasks
    ablated: tuple[str, ...] = ("OpenCabinet",)  # structured ones, looked at more closely
    episodes: int = 500  # of each evaluation
    replan_every: int = 8  # steps of a chunk that are executed before looking again
    seed: int = 0  # of the first episode
    policy: Path | None = None  # a run on pictures, e.g. runs/demo: its latency is measured too
    decisions: int = 200  # of each kind, for the latency


def bench(config: BenchTacoConfig) -> Row:
    """Runs everything, writes `<results>/taco.json` and a page in `out`, and returns the figures.

    Raises:
        ValueError, OSError: unusable options or folders; what was finished is kept.
    """
    _check(config)
    claim(config, config.out, SETTINGS, FREE)
    rows: dict[str, dict[str, Row]] = {}
    figures: Row = {}
    if config.policy:
        figures = latency(config.policy, config.out, decisions=config.decisions, seed=config.seed)
    for sort in config.sorts:
        for task in config.tasks or TASKS[sort]:
            Console(stderr=True).print(f"[bold]bench-taco[/] {sort} {task}")
            rows.setdefault(sort, {})[task] = measure(config, sort, task)
            figures |= _summary(rows)
            _show(config, figures)  # hours may lie between two tasks
    for task in [name for name in config.ablated if name in rows.get("structured", {})]:
        Console(stderr=True).print(f"[bold]bench-taco[/] ablations {task}")
        ablated = ablate(config, _folder(config, "structured", task))
        figures.setdefault("ablations", {})[task] = ablated
        _show(config, figures)
    save_result(config.results, NAME, config, figures)  # not half of it
    return figures


def _show(config: BenchTacoConfig, figures: Row) -> None:
    """Writes what is known so far as a page."""
    from robolearn.bench.taco_report import write_taco_report

    save_result(config.out, SO_FAR, config, figures)
    write_taco_report(config.out / f"{SO_FAR}.json", config.out / PAGE)


def _folder(config: BenchTacoConfig, sort: Sort, task: str) -> Path:
    return config.out / f"{sort}-{task}"


def _summary(rows: dict[str, dict[str, Row]]) -> Row:
    """All tasks that were measured, and the means of each sort."""
    return {"tasks": rows} | {sort: _mean(list(rows[sort].values())) for sort in rows}


def _check(config: BenchTacoConfig) -> None:
    check_at_least(config, 1, *COUNTS)
    if not config.sorts:
        raise ValueError("--sorts is empty; give structured, scatter or both")
    if min((config.compared, *config.candidates)) < 2:
        raise ValueError("--candidates and --compared must be 2 or more; one is measured anyway")


def measure(config: BenchTacoConfig, sort: Sort, task: str) -> Row:
    """One task: trains, fits, evaluates, compares with the plain policy pair by pair."""
    folder = _folder(config, sort, task)
    policy = prepare(config, sort, f"robolearn/{task}-v0", folder)
    swept = sort == "structured" and task in config.ablated
    return _compared(dict(evaluations(config, policy, folder, swept=swept)))


def ablate(config: BenchTacoConfig, folder: Path) -> Row:
    """TACO with one thing done otherwise at a time, compared with TACO as it is, pair by pair."""
    from robolearn.bench.prepared import fitted
    from robolearn.options import FitConfig

    tuned = folder / "tuned"
    at_count = partial(evaluation, config, tuned, folder, count=config.compared)
    outcomes = {"taco": at_count("taco"), FIXED_NOISE: at_count("taco", fixed_noise=True)}
    for name, changes in REFITTED.items():
        verifier = tuned / f"taco-{name}"
        fitted(FitConfig(tuned, folder / "good", verifier, seed=config.seed, **changes))
        outcomes[name] = at_count(str(verifier))
    return _compared(outcomes)


def _compared(outcomes: dict[str, Row]) -> Row:
    """Success of each, and its pairs with the first."""
    first = next(iter(outcomes.values()))["success"]
    row: Row = {"n": len(first)}
    for name, outcome in outcomes.items():
        speed = {"latency_p50_ms": outcome["latency_p50_ms"]}
        row[name] = beside(outcome["success"], first) | speed
    return row


def evaluations(
    config: BenchTacoConfig, policy: Path, folder: Path, *, swept: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields name and outcome: the plain policy, all scorers at one count, TACO by candidates."""
    yield "base", evaluation(config, policy, folder, "", 1)
    for scorer in (*(kind.kind for kind in KINDS), *UNFITTED):
        yield scorer, evaluation(config, policy, folder, scorer, config.compared)
    for count in config.candidates if swept else ():
        yield f"taco_{count}", evaluation(config, policy, folder, "taco", count)


def evaluation(
    config: BenchTacoConfig,
    policy: Path,
    folder: Path,
    scorer: str,
    count: int,
    *,
    fixed_noise: bool = False,
) -> Row:
    """Success by seed and latency; read from the folder if it was evaluated before."""
    from robolearn.evaluate import evaluated
    from robolearn.options import EvalConfig
    from robolearn.sources import source_of

    settings = EvalConfig(
        policy=str(policy),
        out=folder / f"eval-{Path(scorer).name or 'base'}{count}{'-fixed-noise' * fixed_noise}",
        scorer=scorer,
        candidates=count,
        replan_every=config.replan_every,
        fixed_noise=fixed_noise,
        episodes=config.episodes,
        seed=config.seed,
        instruction=goals(source_of(policy).env).told,
        videos=0,
        **worker_options(config),
    )
    result = evaluated(settings)
    return {
        "success": [bool(episode["success"]) for episode in result["episodes"]],
        "latency_p50_ms": result["latency_ms"]["p50"],
    }


def _mean(rows: list[Row]) -> Row:
    """Mean success of every scorer over the tasks of a sort, and all their pairs together."""
    names = [name for name, value in rows[0].items() if isinstance(value, dict)]
    shared = [name for name in names if all(name in row for row in rows)]
    means = {name: pooled([row[name] for row in rows]) for name in shared}
    return {"n": sum(row["n"] for row in rows)} | means


def main(config: BenchTacoConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    sorts = [sort for sort in TASKS if sort in figures]
    table = Table("chooses", *[f"{sort}: success" for sort in sorts], *["points"] * len(sorts))
    for name in (key for key, value in figures[sorts[0]].items() if isinstance(value, dict)):
        rows = [figures[sort][name] for sort in sorts]
        successes = [f"{row['success']:.1%}" for row in rows]
        gains = [f"{row['gain_points']:+.1f} (p {row['p_value']:.2g})" for row in rows]
        table.add_row(name, *successes, *gains)
    Console().print(table)
    print(f"{config.results / 'taco.json'} holds everything, {config.out / PAGE} shows it")
    return 0
