"""`robolearn bench-aloe`: post-training methods side by side, at equal numbers of episodes.

For every task and seed a base policy is trained on few demonstrations. Every method then begins
with it, has the same rounds of the same number of episodes, and goes the same way (`robolearn
improve`), for the learning steps of its own settings: those that judge teach the policy for as
many, `fql`, `dsrl` and `rlpd` an actor and its critic for more. In the first round all but those
that are corrected learn of the same episodes, which are collected once. p-values take episodes of
all training seeds for independent, which those on the same evaluation seed are not quite; `by_seed`
shows how far the seeds differ.

| method | what is imitated | chooses at run time |
|---|---|---|
| `bc` | everything | |
| `filtered-bc` | what succeeded | |
| `dagger` | demonstrations and corrections, by the task's expert | |
| `awr` | by advantage, of returns over a state value | |
| `iql` | by advantage, over what the better recorded actions are worth | its critic |
| `q-chunking` | everything | its critic, taught the best of its chunks |
| `recap` | everything, told what was good | |
| `fql` | everything, by a flow; its actor of one step also seeks value | its critic |
| `dsrl` | nothing: an actor chooses the noise of the base | its critic |
| `rlpd` | everything, by an actor of its own that also seeks value | its critic |
| `aloe` | by advantage, of chunks under the current policy | its critic |
| `aloe-...` | ALOE with one thing done otherwise: the ablations | its critic |

All are evaluated on the same seeds as the base, by the policy alone and with the critic if there is
one, so that pairs are compared; with `--conditions` also while they are disturbed, or with objects
that no demonstration had. What was done stays in `out`, and a run that was cut off goes on.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from robolearn.bench.pairs import beside, pooled
from robolearn.files import copy_folder
from robolearn.learn_options import Improve, ImproveConfig
from robolearn.options import (
    WORKERS,
    EvalConfig,
    RecordConfig,
    TrainConfig,
    WorkerOptions,
    check_at_least,
    check_choices,
    worker_options,
)
from robolearn.policies.configs import FlowConfig
from robolearn.policies.improver_configs import (
    AloeConfig,
    AwrConfig,
    BcConfig,
    CriticConfig,
    DaggerConfig,
    DsrlConfig,
    FqlConfig,
    IqlConfig,
    QChunkingConfig,
    RecapConfig,
    RlpdConfig,
)
from robolearn.results import claim, save_result

if TYPE_CHECKING:
    from robolearn.improve import Improvement


@dataclass(frozen=True)
class Method:
    """What is compared: how everything is judged, and what else is done otherwise."""

    algo: Improve
    judged: int = 0  # steps of a chunk that a critic rates at once; 0: those that are executed
    correct: bool = False  # let the task's expert take over where the policy gets stuck


METHODS: Final = {
    "bc": Method(BcConfig()),
    "filtered-bc": Method(BcConfig(successes=True)),
    "dagger": Method(DaggerConfig(), correct=True),
    "awr": Method(AwrConfig()),
    "iql": Method(IqlConfig()),
    "q-chunking": Method(QChunkingConfig()),
    "recap": Method(RecapConfig()),
    "fql": Method(FqlConfig()),
    "dsrl": Method(DsrlConfig()),
    "rlpd": Method(RlpdConfig()),
    "aloe": Method(AloeConfig()),
    "aloe-corrected": Method(AloeConfig(), correct=True),
    "aloe-one-head": Method(AloeConfig(CriticConfig(heads=1, share=1.0))),
    "aloe-no-mask": Method(AloeConfig(CriticConfig(masked=False))),
    "aloe-no-prior": Method(AloeConfig(CriticConfig(prior=0.0))),
    "aloe-deviations": Method(AloeConfig(CriticConfig(aggregation="deviations"))),
    "aloe-4-steps": Method(AloeConfig(), judged=4),
    "aloe-whole-chunk": Method(AloeConfig(), judged=16),
}
# What else can be evaluated, beside the task as it is: options, of an environment.
CONDITIONS: Final[dict[str, Callable[[Any], dict[str, Any]]]] = {
    "recovery": lambda env: {"variations": {"push": 2}},
    "unseen": lambda env: {"split": env.splits[1]},  # objects; scenes if that is all there is
}
MEANT: Final = ("per_hour", "critic_auc", *CONDITIONS)  # over the tasks, where all have it
SETTINGS: Final = "bench-aloe.json"
# The summary's name, by what the policies look at: one is no further seed of the other.
NAMES: Final = {"pixels_agent_pos": "aloe", "state": "aloe-state"}
FREE: Final = ("tasks", "methods", "seeds", "conditions", "results", "out", *WORKERS)
COUNTS: Final = ("demonstrations", "steps", "batch_size", "rounds", "collected", "episodes")
Row = dict[str, Any]


@dataclass(frozen=True)
class BenchAloeConfig(WorkerOptions):
    """Measure post-training methods at equal numbers of interactions."""

    tasks: tuple[str, ...] = ("PickPlace", "Insert", "Fold", "Sort")
    methods: tuple[str, ...] = ("bc", "filtered-bc", "dagger", "awr", "iql", "q-chunking", "aloe")
    seeds: tuple[int, ...] = (0, 1, 2)  # of training, and of what is collected
    conditions: tuple[str, ...] = ()  # recovery: pushed meanwhile; unseen: other objects or scenes
    results: Path = Path("docs/results")  # where the summary goes: aloe.json, or aloe-state.json
    out: Path = Path("runs/bench-aloe")  # data, runs and evaluations
    obs_type: Literal["pixels_agent_pos", "state"] = "state"  # what policies look at
    demonstrations: int = 400  # to train the base on
    flow: FlowConfig = field(  # the base policy; small, where states are cheap
        default_factory=lambda: FlowConfig(hidden=256, sample_steps=4, draws=1)
    )
    steps: int = 2500  # of its training
    batch_size: int = 256  # observations a step
    rounds: int = 1
    collected: int = 400  # episodes in each round
    episodes: int = 500  # of each evaluation
    replan_every: int = 8  # steps of a chunk that are executed, and judged, at once
    candidates: int = 16  # among which a critic chooses


def bench(config: BenchAloeConfig) -> Row:
    """Runs what is missing, writes the summary into `results`, and returns its figures.

    Raises:
        ValueError, OSError: unusable options or folders; what was finished is kept.
    """
    _check(config)
    claim(config, config.out, SETTINGS, FREE)
    figures: Row = {"tasks": {}}
    for task in config.tasks:
        outcomes: dict[str, list[Row]] = {}
        for seed in config.seeds:
            for name, outcome in compared(config, task, seed):
                outcomes.setdefault(name, []).append(outcome)
        figures["tasks"][task] = _over_seeds(outcomes)
    figures["mean"] = _over_tasks(list(figures["tasks"].values()))
    save_result(config.results, NAMES[config.obs_type], config, figures)  # not half of it
    return figures


def _check(config: BenchAloeConfig) -> None:
    check_at_least(config, 1, *COUNTS)
    check_choices("methods", config.methods, METHODS)
    if not config.methods:
        raise ValueError(f"--methods has none; choose among {', '.join(METHODS)}")
    check_choices("conditions", config.conditions, CONDITIONS)


def compared(config: BenchAloeConfig, task: str, seed: int) -> "list[tuple[str, Row]]":
    """Names and outcomes of one seed: the base, then every method, alone and with its critic."""
    folder, env = config.out / task, f"robolearn/{task}-v0"
    base = _base(config, env, folder, seed)
    found = [("base", _outcome(config, base, folder / f"eval-base-{seed}"))]
    for method in config.methods:
        Console(stderr=True).print(f"[bold]bench-aloe[/] {task}, seed {seed}: {method}")
        out = folder / f"{method}-{seed}"
        found.extend(_improved(config, method, env, base, out, seed))
    return found


def _base(config: BenchAloeConfig, env: str, folder: Path, seed: int) -> Path:
    """A policy that was trained on few demonstrations, trained where it is missing."""
    from robolearn.bench.prepared import trained
    from robolearn.record import record

    data, run = folder / "data", folder / f"base-{seed}"
    plain: Any = {"obs_type": config.obs_type}
    recording: Any = {"episodes": config.demonstrations, **worker_options(config)}
    record(RecordConfig(out=data, env=env, **recording, **plain))
    plain |= {"policy": config.flow, "batch_size": config.batch_size, "threads": 1, "seed": seed}
    schedule: Any = {"steps": config.steps, "save_every": config.steps}
    trained(TrainConfig(data, run, **schedule, **plain))
    return run


def _improved(
    config: BenchAloeConfig, method: str, env: str, base: Path, out: Path, seed: int
) -> list[tuple[str, Row]]:
    """What a method made of the base: by the policy alone, and with its critic if it has one."""
    from robolearn.improve import Improvement

    run = Improvement(
        ImproveConfig(
            base=base,
            out=out,
            algo=METHODS[method].algo,
            env=env,
            rounds=config.rounds,
            episodes=config.collected,
            replan_every=config.replan_every,
            judged=METHODS[method].judged,
            correct=METHODS[method].correct,
            seed=3_000_000 + 100_000 * seed,
            **worker_options(config),
        )
    )
    if not METHODS[method].correct:
        _collect_once(run, out.with_name(f"collected-{seed}"))
    rows, critic = run.run(), out / "critic"
    known: Row = {
        "interactions": sum(row["steps"] for row in rows),
        "seconds_per_round": run.seconds_per_round(),
        **{key: rows[-1][key] for key in ("critic_auc", "critic_rank") if key in rows[-1]},
    }
    found = [(method, _outcome(config, out, out / "eval") | known)]
    if critic.exists():
        chosen = _outcome(config, out, out / "eval-selected", str(critic))
        found.append((f"{method}+critic", chosen | known))
    return found


def _collect_once(run: "Improvement", shared: Path) -> None:
    """The first round's episodes, which are the same for all that are not corrected."""
    if not shared.exists():
        run.collect(1)
        copy_folder(run.rollouts(1), shared)
    elif not run.rollouts(1).exists():
        copy_folder(shared, run.rollouts(1))


def _outcome(config: BenchAloeConfig, policy: Path, out: Path, scorer: str = "") -> Row:
    """Success by seed, successes in an hour of simulated time, and success in each condition."""
    from robolearn.evaluate import evaluated
    from robolearn.registry import make_env

    settings = EvalConfig(
        policy=str(policy),
        out=out,
        episodes=config.episodes,
        replan_every=config.replan_every,
        videos=0,
        **worker_options(config),
    )
    if scorer:
        settings = replace(settings, scorer=scorer, candidates=config.candidates)
    result = evaluated(settings)
    with closing(make_env(result["env_id"], obs_type="state")) as env:
        others = {name: CONDITIONS[name](env.unwrapped) for name in config.conditions}
        steps_an_hour = 3600.0 * env.metadata["render_fps"]
    elsewhere = {
        name: evaluated(replace(settings, out=out.with_name(f"{out.name}-{name}"), **options))
        for name, options in others.items()
    }
    steps = sum(episode["length"] for episode in result["episodes"])
    return {
        "success": [bool(episode["success"]) for episode in result["episodes"]],
        "per_hour": result["successes"] * steps_an_hour / steps,
        **{name: found["success"] for name, found in elsewhere.items()},
    }


def _over_seeds(outcomes: dict[str, list[Row]]) -> Row:
    """Success of each method over all seeds, and its pairs with the base."""
    base = _all(outcomes["base"])
    return {
        name: {
            "n": len(base),
            "by_seed": [float(np.mean(one["success"])) for one in found],
            **beside(_all(found), base),
            **_against_aloe(found, outcomes),
            **{key: float(np.mean([one[key] for one in found])) for key in _numbers(found)},
        }
        for name, found in outcomes.items()
    }


def _against_aloe(found: list[Row], outcomes: dict[str, list[Row]]) -> Row:
    """Points that ALOE's policy has more than this one, and the p-value of their pairs."""
    if "aloe" not in outcomes:
        return {}
    pairs = beside(_all(outcomes["aloe"]), _all(found))
    return {"aloe_points": pairs["gain_points"], "aloe_p_value": pairs["p_value"]}


def _all(found: list[Row]) -> list[bool]:
    return [win for one in found for win in one["success"]]


def _numbers(found: list[Row]) -> list[str]:
    """What all seeds have beside success."""
    return [k for k in found[0] if k != "success" and all(one.get(k) is not None for one in found)]


def _over_tasks(rows: list[Row]) -> Row:
    """Mean success and gain of each method over the tasks, and all its pairs together."""
    mean: Row = {}
    for name in rows[0]:
        of_tasks = [row[name] for row in rows]
        known = [key for key in MEANT if all(key in row for row in of_tasks)]
        figures = {key: float(np.mean([row[key] for row in of_tasks])) for key in known}
        mean[name] = pooled(of_tasks) | figures
    return mean


def main(config: BenchAloeConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("method", *figures["tasks"], "mean", "points", "p")
    for name, mean in figures["mean"].items():
        cells = [f"{row[name]['success']:.1%}" for row in figures["tasks"].values()]
        gain = f"{mean['gain_points']:+.1f}"
        table.add_row(name, *cells, f"{mean['success']:.1%}", gain, f"{mean['p_value']:.2g}")
    Console().print(table)
    print(f"{config.results / NAMES[config.obs_type]}.json holds everything")
    return 0
