"""What a benchmark says: agents by task, differences of pairs, aggregates, all with intervals."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from robolearn.bench.aggregates import (
    bootstrap,
    interquartile_mean,
    mean_of_tasks,
    performance_profile,
    probability_of_improvement,
)
from robolearn.bench.pairs import beside, pooled
from robolearn.bench.sequential import confidence_sequence, sequential_p
from robolearn.results import EpisodeResult, Result
from robolearn.stats import (
    holm,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    pairs_needed,
    wilson,
)

POINTS: Final = 5.0  # the difference that a reader is told the number of pairs for
THRESHOLDS: Final = np.linspace(0.0, 1.0, 51)  # of the performance profile
Row = dict[str, Any]
Pairs = list[tuple[EpisodeResult, EpisodeResult]]  # of two agents, on the same seeds


@dataclass(frozen=True)
class Entry:
    """An agent with its evaluations.

    Attributes:
        name: of the agent.
        about: its source, fingerprint, scorer.
        folder: holds a folder for each task.
        results: by the task's label.
    """

    name: str
    about: Mapping[str, Any]
    folder: Path
    results: Mapping[str, Result]


def read_entry(name: str, folder: Path, labels: Sequence[str]) -> Entry:
    """An agent's evaluations of a suite.

    Raises:
        OSError, ValueError: one is missing or damaged.
    """
    about = json.loads((folder / "agent.json").read_text())
    results = {
        label: cast(Result, json.loads((folder / label / "result.json").read_text()))
        for label in labels
    }
    return Entry(name, about, folder, results)


def standings(entries: Sequence[Entry], against: Sequence[tuple[Entry, Entry]], stop: float) -> Row:
    """The figures of a benchmark.

    Args:
        entries: the agents.
        against: which pairs of them are compared: an agent, and what it is measured against.
        stop: error rate with which episodes ended early; 0 if they did not. Tests and intervals
            are then such that may be looked at after every episode.

    Returns:
        `agents` by name, and `pairs`.
    """
    rows = [_pair(entry, other, stop) for entry, other in against]
    _correct(list(chain.from_iterable(row["tasks"].values() for row in rows)))
    _correct([row["all"] for row in rows])
    return {"agents": {entry.name: _agent(entry, stop) for entry in entries}, "pairs": rows}


def _correct(tests: Sequence[Row]) -> None:
    """Adds Holm's p-values to a family of tests."""
    for test, p in zip(tests, holm([test["p_value"] for test in tests]), strict=True):
        test["p_holm"] = p


def _agent(entry: Entry, stop: float) -> Row:
    results = list(entry.results.values())
    successes = [_successes(result) for result in results]
    scores = [np.array([score(e) for e in result["episodes"]]) for result in results]
    cells = {label: cell(result, stop) for label, result in entry.results.items()}
    worlds = _worlds(entry)
    return {
        **entry.about,
        "source": results[0]["policy"],
        "success": float(np.mean([result["success"] for result in results])),
        **_interval("success", _mean_of(cells, "success", worlds)),
        **_interval("other_tasks", bootstrap(successes, mean_of_tasks, tasks=True)),
        "score_iqm": float(interquartile_mean([s[None] for s in scores])[0]),
        **_interval("score_iqm", bootstrap(scores, interquartile_mean, worlds=worlds)),
        "profile": performance_profile(scores, THRESHOLDS).tolist(),
        "latency_ms": {
            "p50": float(np.median([result["latency_ms"]["p50"] for result in results])),
            "p99": max(result["latency_ms"]["p99"] for result in results),
        },
        "training_seconds": results[0].get("training_seconds"),
        "wall_seconds": sum(result["wall_seconds"] for result in results),
        "failures": _count(result.get("failures", {}) for result in results),
        "tasks": cells,
    }


def cell(result: Result, stop: float = 0.0) -> Row:
    """An agent on a task."""
    interval = confidence_sequence if stop else wilson
    return {
        "n": result["n"],
        "successes": result["successes"],
        "success": result["success"],
        **_interval("success", interval(result["successes"], result["n"])),
        "latency_ms": result["latency_ms"],
        "mean_length": float(np.mean([e["length"] for e in result["episodes"]])),
        "seeds": result["seeds"],
        "failed_seeds": [e["seed"] for e in result["episodes"] if not e["success"]],
        "failures": result.get("failures", {}),
        "config_hash": result["config_hash"],
    }


def _worlds(entry: Entry) -> list[str]:
    """The environment of each task: on one seed, tasks of one environment begin alike."""
    return [result["env_id"] for result in entry.results.values()]


def _mean_of(rows: Mapping[str, Row], name: str, worlds: Sequence[str]) -> tuple[float, float]:
    """The interval of the mean over the tasks, those of one world as if they went up together."""
    groups: dict[str, list[list[float]]] = defaultdict(list)
    for row, world in zip(rows.values(), worlds, strict=True):
        groups[world].append([row[f"{name}{end}"] for end in ("", "_low", "_high")])
    rows_of_worlds = [np.mean(group, axis=0).tolist() for group in groups.values()]
    means, lows, highs = zip(*rows_of_worlds, strict=True)
    return mean_interval(means, lows, highs, [len(group) for group in groups.values()])


def _interval(name: str, ends: tuple[float, float]) -> Row:
    return {f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _count(counts: Any) -> dict[str, int]:  # noqa: ANN401 (an iterable of counts)
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common())


def score(episode: EpisodeResult) -> float:
    """How far an episode came, 0..1; success is 1."""
    return 1.0 if episode["success"] else episode["progress"]


def _successes(result: Result) -> np.ndarray:
    return np.array([e["success"] for e in result["episodes"]], np.float64)


def _pair(entry: Entry, other: Entry, stop: float) -> Row:
    """An agent beside another one, on the seeds that both have played."""
    shared = {
        label: _shared(result, other.results[label]) for label, result in entry.results.items()
    }
    tasks = {label: _task_pair(episodes, stop) for label, episodes in shared.items()}
    won = [
        np.array([(a["success"], b["success"]) for a, b in pairs], int) for pairs in shared.values()
    ]
    scores = [np.array([(score(a), score(b)) for a, b in pairs]) for pairs in shared.values()]
    improvement = probability_of_improvement([pairs[None] for pairs in scores])
    worlds = _worlds(entry)
    ahead = _ahead(shared, worlds)
    together = {
        **pooled(list(tasks.values())),
        "p_value": sequential_p(*ahead) if stop else mcnemar_exact(*ahead),
        **_interval("gain_points", _mean_of(tasks, "gain_points", worlds)),
        "improvement": float(improvement[0]),
        **_interval("improvement", bootstrap(scores, probability_of_improvement, worlds=worlds)),
        "pairs_for_5_points": _advice(np.concatenate(won)),
    }
    return {"agent": entry.name, "against": other.name, "tasks": tasks, "all": together}


def _ahead(shared: Mapping[str, Pairs], worlds: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Of every environment and seed, whether one of the two solved more of its tasks, and which.

    Were both equally good, either would be ahead as often, however alike the tasks of a seed are;
    with one task of every environment these are the pairs.
    """
    more: dict[tuple[str, int], int] = defaultdict(int)
    for pairs, world in zip(shared.values(), worlds, strict=True):
        for a, b in pairs:
            more[world, a["seed"]] += a["success"] - b["success"]
    return [lead > 0 for lead in more.values()], [lead < 0 for lead in more.values()]


def _shared(result: Result, other: Result) -> Pairs:
    """The episodes of the seeds that both have played."""
    by_seed = {e["seed"]: e for e in other["episodes"]}
    return [(e, by_seed[e["seed"]]) for e in result["episodes"] if e["seed"] in by_seed]


def _task_pair(pairs: Pairs, stop: float) -> Row:
    a, b = ([episode["success"] for episode in side] for side in zip(*pairs, strict=True))
    low, high = _looked_at(a, b) if stop else paired_difference(a, b)
    row = {"n": len(pairs), **beside(a, b), **_interval("gain_points", (100 * low, 100 * high))}
    return {**row, "p_value": sequential_p(a, b)} if stop else row


def _looked_at(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float]:
    """The interval of a difference that holds at every n; each rate may err half as often."""
    (low_a, high_a), (low_b, high_b) = (
        confidence_sequence(sum(side), len(side), confidence=0.975) for side in (a, b)
    )
    return low_a - high_b, high_a - low_b


def _advice(won: np.ndarray) -> int | None:
    """Pairs for a difference of `POINTS` as these agents differ; None if they hardly ever do."""
    differing = float((won[:, 0] != won[:, 1]).mean())
    return pairs_needed(POINTS, differing) if differing >= POINTS / 100.0 else None
