"""`robolearn bench-policies`: our policies beside LeRobot's, after the same time of training.

All learn from the same demonstrations, cameras and joint positions, on the same machine, one after
the other, each for the same wall-clock time; all are evaluated on the same unseen seeds, worded as
training never was.

| policy | what it is |
|---|---|
| `flow` | our flow policy |
| `flow-transformer` | the same with the transformer as its head |
| `diffusion` | our diffusion policy |
| `act` | LeRobot's ACT, see `lerobot.py` for its settings |
| `lerobot-diffusion` | LeRobot's Diffusion policy, likewise |

LeRobot's are made for longer training on GPUs: what is measured is what a CPU gets in the time
given. A success of 0 % says nothing about why, so the distance from demonstrated actions is
measured as well: whether it has come below that of an arm that stands still. A policy that thinks
for seconds plays fewer episodes; n says how many. What was done stays in `out`, and a run that was
interrupted goes on.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.console import Console
from rich.table import Table

from robolearn.files import write_atomic
from robolearn.options import WORKERS, WorkerOptions, check_positive, worker_options
from robolearn.policies.configs import DenoiserConfig, DiffusionConfig, FlowConfig
from robolearn.results import Result, claim, save_result

if TYPE_CHECKING:
    from robolearn.options import EvalConfig

Name = Literal["flow", "flow-transformer", "diffusion", "act", "lerobot-diffusion"]
OURS: Final[dict[str, DenoiserConfig]] = {
    "flow": FlowConfig(),
    "flow-transformer": FlowConfig(head="transformer"),
    "diffusion": DiffusionConfig(),
}
LEROBOT: Final = {"act": "act", "lerobot-diffusion": "diffusion"}  # LeRobot's names of them
REPLAN_EVERY: Final = {"lerobot-diffusion": 8}  # steps; all others as usual
TARGET: Final = Fraction(4, 5)  # exact, so that 80 of 100 reach it
PROBE_EPISODES: Final = 2  # whose decisions tell how many episodes there is time for
FRAMES: Final = 32  # of the demonstrations, on which chunks are compared with what was done
SETTINGS: Final = "bench-policies.json"
TRAINING: Final = "training.json"  # of a policy's folder: how it was trained
FREE: Final = ("policies", "results", *WORKERS, "loader_workers")  # change nothing that is in out
POSITIVE: Final = (
    *("demonstrations", "minutes", "checkpoints", "batch_size", "episodes", "thinking"),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class BenchPoliciesConfig(WorkerOptions):
    """Measure our policies beside LeRobot's, after the same time of training."""

    policies: tuple[Name, ...] = ("flow", "diffusion", "act", "lerobot-diffusion")  # in this order
    env: str = "robolearn/PickPlace-v0"  # a simulated task
    obs_type: Literal["pixels_agent_pos", "state"] = "pixels_agent_pos"  # state: only ours can
    image_size: tuple[int, int] = (48, 84)  # height and width of the pictures, pixels
    results: Path = Path("docs/results")  # where the summary, policies.json, goes
    out: Path = Path("runs/bench-policies")  # data, runs and evaluations
    demonstrations: int = 200  # to train on
    # Of the recording, by name and level: tremble 4 shows how to come back
    variations: dict[str, int] = field(default_factory=dict)
    minutes: float = 8.0  # of training for each policy
    checkpoints: int = 1  # evaluations, at equal distances of the training
    batch_size: int = 128  # observations in a step of ours; LeRobot's have their own
    episodes: int = 100  # of an evaluation
    thinking: float = 10.0  # minutes that a policy may decide in one; then it plays fewer episodes
    loader_workers: int = 2  # processes that decode for LeRobot's policies
    seed: int = 0  # of training; evaluation uses seeds from 0


def bench(config: BenchPoliciesConfig) -> Row:
    """Trains and evaluates what is missing, writes `<results>/policies.json`, returns its figures.

    Raises:
        ValueError, OSError: unusable options or folders; what was finished is kept.
    """
    figures: Row = {"policies": {}}
    for name, row in compared(config):
        figures["policies"][name] = row
    save_result(config.results, "policies", config, figures)  # nothing less than what was asked for
    return figures


def compared(config: BenchPoliciesConfig, data: Path | None = None) -> Iterator[tuple[str, Row]]:
    """Names and figures of the policies, each as soon as it is measured.

    Args:
        config: the settings.
        data: a recording to train on; None records one.

    Raises:
        ValueError, OSError: see `bench`.
    """
    _check(config)
    claim(config, config.out, SETTINGS, FREE)
    data = data or _demonstrations(config)
    for name in config.policies:
        Console(stderr=True).print(f"[bold]{config.env}[/] {name}")
        yield name, measure(config, name, data)


def _check(config: BenchPoliciesConfig) -> None:
    check_positive(config, *POSITIVE)
    if not config.policies:
        raise ValueError(f"--policies is empty; choose among {', '.join((*OURS, *LEROBOT))}")
    blind = [name for name in config.policies if name in LEROBOT]
    if config.obs_type == "state" and blind:
        raise ValueError(
            f"{blind[0]} cannot look at the simulator's state, which LeRobot does not read from a "
            "recording; leave it out of --policies, or take --obs-type pixels_agent_pos"
        )


def _demonstrations(config: BenchPoliciesConfig) -> Path:
    """The dataset folder, recorded where it is incomplete."""
    from robolearn.options import RecordConfig
    from robolearn.record import record

    data = config.out / "data"
    seen = {"obs_type": config.obs_type, "image_size": config.image_size}
    how: Any = {"env": config.env, "variations": config.variations}
    plain: Any = {**how, **seen, **worker_options(config)}
    record(RecordConfig(out=data, episodes=config.demonstrations, **plain))
    return data


def measure(config: BenchPoliciesConfig, name: str, data: Path) -> Row:
    """One policy: trains it, evaluates its checkpoints, looks at the last one."""
    folder = config.out / name
    training = _once(folder / TRAINING, lambda: _train(config, name, data, folder))
    points = training["checkpoints"]
    results = [
        _evaluate(config, name, point["policy"], folder / f"eval-{k}")
        for k, point in enumerate(points, start=1)
    ]
    last, where = points[-1], points[-1]["policy"]
    steps = results[-1]["replan_every"]
    look = _once(folder / "look.json", lambda: _look(config, where, data, steps))
    measured = [point | _success(result) for point, result in zip(points, results, strict=True)]
    reached = (p["seconds"] for p in measured if p["successes"] >= TARGET * p["n"])
    return {
        **measured[-1],
        "latency_ms": results[-1]["latency_ms"],
        "replan_every": steps,
        "time_to_80_percent_s": next(reached, None),
        "samples_per_s": last["samples"] / last["seconds"],
        **look,
        **training,
        "checkpoints": measured,
    }


def _success(result: Result) -> Row:
    names = ("n", "successes", "success", "success_low", "success_high", "seeds")
    return {name: value for name, value in result.items() if name in names}


def _once(path: Path, make: Callable[[], Row]) -> Row:
    """What was made the first time; it is kept in a file."""
    if not path.exists():
        write_atomic(path, (json.dumps(make(), indent=2) + "\n").encode())
    return json.loads(path.read_text())


def _train(config: BenchPoliciesConfig, name: str, data: Path, folder: Path) -> Row:
    from robolearn.bench.learning import train_lerobot, train_ours

    if name in OURS:
        return train_ours(config, OURS[name], data, folder)
    return train_lerobot(config, LEROBOT[name], data, folder, _budget(config))


def _budget(config: BenchPoliciesConfig) -> float:
    """Seconds for LeRobot's, which stop by the clock.

    Ours take as many steps as a probe promised to fit; a machine that got busier took longer over
    them, and then LeRobot's train for as long.
    """
    files = [config.out / name / TRAINING for name in OURS]
    taken = [json.loads(f.read_text())["checkpoints"][-1]["seconds"] for f in files if f.exists()]
    return max([60.0 * config.minutes, *taken])


def _evaluate(config: BenchPoliciesConfig, name: str, where: str, out: Path) -> Result:
    """On as many of the episodes as there is time to think in."""
    from robolearn.evaluate import evaluated
    from robolearn.options import EvalConfig

    settings = EvalConfig(
        policy=where,
        env=config.env,
        out=out / "probe",
        episodes=min(PROBE_EPISODES, config.episodes),
        videos=0,
        **worker_options(config),
    )
    settings = replace(settings, replan_every=REPLAN_EVERY.get(name, settings.replan_every))
    probe = evaluated(settings)
    fitting = _fitting(config, settings, probe)
    if fitting == probe["n"]:
        return probe
    return evaluated(replace(settings, out=out, episodes=fitting))


def _fitting(config: BenchPoliciesConfig, settings: "EvalConfig", probe: Result) -> int:
    """How many episodes there is time for, judged by the decisions of a few."""
    thinking = [
        ceil(episode["length"] / settings.replan_every) * episode["latency_p50_ms"] / 1000.0
        for episode in probe["episodes"]
    ]
    seconds = 60.0 * config.thinking * max(1, config.workers)
    fitting = int(seconds * len(thinking) / sum(thinking))
    return min(config.episodes, max(fitting, len(thinking)))


def _look(config: BenchPoliciesConfig, where: str, data: Path, steps: int) -> Row:
    """How large a policy is, and how far from the demonstrations that it was trained on."""
    from robolearn.bench.open_loop import open_loop_error
    from robolearn.sources import source_of

    policy = source_of(where).load()
    parameters = sum(weight.numel() for weight in policy.parameters())
    errors = open_loop_error(policy, data, steps=steps, frames=FRAMES, seed=config.seed)
    return {"parameters": parameters, **errors}


def main(config: BenchPoliciesConfig) -> int:
    """Runs the command."""
    rows = bench(config)["policies"]
    table = Table("policy", "success", "n", "decision, p50 and p99", "samples/s", "samples")
    for name, row in rows.items():
        success = f"{row['success']:.0%} ({row['success_low']:.0%} to {row['success_high']:.0%})"
        latency = " and ".join(f"{row['latency_ms'][q]:.0f} ms" for q in ("p50", "p99"))
        samples = (f"{row['samples_per_s']:.1f}", str(row["samples"]))
        table.add_row(name, success, str(row["n"]), latency, *samples)
    Console().print(table)
    print(f"{config.results / 'policies.json'} holds everything")
    return 0
