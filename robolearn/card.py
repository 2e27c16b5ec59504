"""`robolearn card`: a model card for a checkpoint, as LeRobot's and the hub's are.

A card is a README.md: a head that the hub reads (YAML, of which JSON values are a part), then what
the policy looks at, how it was trained, and what it was measured to do. Only evaluations of this
very checkpoint are taken, each with n, its interval, its seeds and its settings.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from robolearn.files import write_atomic
from robolearn.pages import duration, percent

RESULT: Final = "result.json"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class CardConfig:
    """Write a model card for a checkpoint."""

    policy: Path  # a checkpoint, or a run (its newest one)
    evaluations: tuple[Path, ...] = ()  # folders of results; by default all inside of the run
    out: Path | None = None  # the card; by default README.md beside the checkpoint's run
    licence: str = ""  # of the weights, e.g. apache-2.0; left out unless given


def write_card(config: CardConfig) -> Path:
    """Writes the card and returns where it is.

    Raises:
        ValueError: no such checkpoint, or an evaluation of another one.
        OSError: it cannot be written.
    """
    from robolearn import checkpoint

    folder = checkpoint.resolve(config.policy)
    run = checkpoint.run_of(folder)
    description = checkpoint.load_model(folder)[0]
    results = _results(config.evaluations, run, folder)
    head = _head(config, run, description, results)
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
    lines += _body(run, folder, description, results)
    out = config.out or run / "README.md"
    write_atomic(out, ("\n".join(lines) + "\n").encode())
    return out


def _results(given: Sequence[Path], run: Path, folder: Path) -> list[Row]:
    """The results of this checkpoint; of the given folders all must be."""
    found = [_read(path / RESULT) for path in given] or [
        result for path in sorted(run.glob(f"**/{RESULT}")) if _is_of(folder, result := _read(path))
    ]
    for path, result in zip(given, found, strict=False):
        if not _is_of(folder, result):
            raise ValueError(f"{path} is an evaluation of {result.get('policy')}, not of {folder}")
    return found


def _read(path: Path) -> Row:
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); run the evaluation again") from error
    return result if isinstance(result, dict) else {}


def _is_of(folder: Path, result: Row) -> bool:
    return "episodes" in result and Path(result.get("policy", "")).resolve() == folder.resolve()


def _head(config: CardConfig, run: Path, description: Row, results: Sequence[Row]) -> Row:
    name = run.resolve().name
    tags = ["robotics", "robolearn", description["kind"], "manipulation"]
    measured = {"name": name, "results": [_measured(result) for result in results]}
    return {
        "library_name": "robolearn",
        "pipeline_tag": "robotics",
        **({"license": config.licence} if config.licence else {}),
        "tags": tags,
        **({"model-index": [measured]} if results else {}),
    }


def _measured(result: Row) -> Row:
    """An evaluation as the hub's model index has it."""
    return {
        "task": {"type": "robotics", "name": _what(result)},
        "dataset": {"type": "simulation", "name": result["env_id"]},
        "metrics": [{"type": "success_rate", "value": result["success"], "name": "success"}],
    }


def _what(result: Row) -> str:
    """The task and in what way it was made harder."""
    split = [result["split"]] if result.get("split", "train") != "train" else []
    harder = [*result.get("variations", {}).items(), *result.get("dynamics", {}).items()]
    varied = [f"{name} {value:g}" for name, value in sorted(harder)]
    shuffled = ["shuffled instructions"] if result["instructions"] == "shuffled" else []
    chooser = [f"{result['scorer']} of {result['candidates']}"] if result.get("scorer") else []
    return ", ".join([result["env_id"], *split, *varied, *shuffled, *chooser])


def _body(run: Path, folder: Path, description: Row, results: Sequence[Row]) -> Iterator[str]:
    arm, cameras = description["arm"], description["cameras"]
    sees = ", ".join(f"`{name}` at {h} x {w} pixels" for name, (h, w) in cameras.items())
    yield f"# {run.resolve().name}"
    yield ""
    yield f"A {description['kind']} policy for `{description.get('env') or 'an arm'}`."
    yield ""
    yield f"- arm: {arm['name']}, joints {', '.join(arm['joints'])}"
    yield f"- looks at: {sees or 'the state of the simulator'}, and reads an instruction"
    yield f"- plans {description['config']['horizon']} steps at once"
    yield from _training(run)
    yield "\n## Measured\n"
    yield from _table(results) if results else ("Nothing yet: `robolearn eval` measures it.",)
    yield "\n## Use\n"
    yield f"```bash\nrobolearn eval --policy {folder}\n```\n"
    yield "```python\nfrom robolearn import agent, checkpoint\n"
    yield f'actor = agent.PolicyAgent(checkpoint.load_policy("{folder}"))\n```'


def _training(run: Path) -> Iterator[str]:
    """What the run's own files tell."""
    if (run / "config.json").exists() and (run / "log.jsonl").exists():
        config = json.loads((run / "config.json").read_text())
        last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
        yield f"- trained for {last['step']} steps of {config['batch_size']} samples on " + (
            f"`{Path(config['data']).name}`, in {duration(last['seconds'])}"
        )


def _table(results: Sequence[Row]) -> Iterator[str]:
    yield "| task | success | 95 % interval | n | seeds | decision, p50 | most frequent failure |"
    yield "|---|---|---|---|---|---|---|"
    for result in results:
        ends = f"{percent(result['success_low'])} to {percent(result['success_high'])}"
        seeds = f"{result['seeds'][0]} to {result['seeds'][1]}"
        latency = f"{result['latency_ms']['p50']:.0f} ms"
        why = ", ".join(f"{k} ({v})" for k, v in list(result.get("failures", {}).items())[:1])
        cells = [_what(result), percent(result["success"]), ends, str(result["n"]), seeds]
        yield "| " + " | ".join([*cells, latency, why or "-"]) + " |"


def main(config: CardConfig) -> int:
    """Runs the command."""
    print(f"{write_card(config)} is ready")
    return 0
