"""`robolearn bench run`: agents side by side on a suite, on the same seeds.

All evaluations lie in the folder `out`, one for each agent and task. A run that was killed goes on
after the last finished episode, and so does one that names further agents beside those that the
folder has. Before the first episode every agent is tried on every task, so that one that does not
fit is refused at once.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from tyro.conf import Positional

from robolearn.config import check_same, to_json
from robolearn.options import WorkerOptions, worker_options
from robolearn.results import claim, save_result, versions

if TYPE_CHECKING:
    from robolearn.bench.suite import Suite, SuiteTask
    from robolearn.options import EvalConfig

# What all that lies in a folder depends on.
SUITE: Final = "suite.json"
AGENT: Final = "agent.json"
AGAINST: Final = "against.json"
SUMMARY: Final = "bench"
Row = dict[str, Any]


@dataclass(frozen=True)
class BenchRunConfig(WorkerOptions):
    """Run agents side by side on a suite."""

    suite: Positional[str]  # its name, see `robolearn bench list`, or a file NAME.toml
    agents: tuple[str, ...] = ()  # NAME=SOURCE or NAME=SOURCE+SCORER; the first is the baseline
    out: Path | None = None  # evaluations, pages and bench.json; by default runs/bench/SUITE
    videos: int = 2  # of each agent and task
    page_videos: int = 24  # how many of them the page embeds at most
    device: str = "cpu"
    results: Path | None = None  # also write the summary here, as suite-SUITE.json


@dataclass(frozen=True)
class Agent:
    """What is measured: NAME=SOURCE+SCORER."""

    name: str
    source: str  # as for --policy
    scorer: str = ""  # as for --scorer

    @classmethod
    def parse(cls, text: str) -> "Agent":
        """An agent from how it is typed.

        Raises:
            ValueError: it has no name, or one that is no folder's.
        """
        name, equals, source = text.partition("=")
        if not equals or not source or not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(
                f"{text!r} is no agent; give NAME=SOURCE or NAME=SOURCE+SCORER, such as "
                "flow=runs/demo or taco=runs/demo+taco"
            )
        if Path(source).exists():
            return cls(name, source)
        source, _, scorer = source.partition("+")
        return cls(name, source, scorer)


def run(config: BenchRunConfig) -> Row:
    """Evaluates what is missing, writes the summary and the page, returns the figures.

    Raises:
        ValueError, OSError: an agent that does not fit, a folder of something else, and so on;
            finished episodes are kept.
    """
    from robolearn.bench.leaderboard import write_leaderboard
    from robolearn.bench.standings import read_entry, standings
    from robolearn.bench.suite import load_suite
    from robolearn.files import check_writable
    from robolearn.registry import versions_apart

    suite = load_suite(config.suite)
    agents = contestants(config.agents, suite)
    out = config.out or Path("runs/bench") / suite.name
    check_writable(out)
    about = {"name": suite.name, "title": suite.title, "hash": suite.hash, **suite.fixed()}
    used = versions() | versions_apart(task.env for task in suite.tasks)
    claim(about, out, SUITE, ("name", "title"), used)
    for agent in agents:
        _claim(agent, agents[0], suite, out / agent.name)
    cells = [(task, agent) for task in suite.tasks for agent in agents]
    _play(config, suite, cells, out)
    labels = [task.label for task in suite.tasks]
    entries = [read_entry(agent.name, out / agent.name, labels) for agent in agents]
    against = [(entry, entries[0]) for entry in entries[1:]]
    figures = {"versions": used, "suite": about, **standings(entries, against, suite.stop)}
    save_result(out, SUMMARY, config, figures)
    if config.results:
        save_result(config.results, f"suite-{suite.name}", config, figures)
    write_leaderboard(out / f"{SUMMARY}.json", entries, out, config.page_videos)
    return figures


def contestants(typed: Sequence[str], suite: "Suite") -> list[Agent]:
    """The agents that were asked for, then those that the suite itself names.

    Raises:
        ValueError: none, two with one name, or one that is not written as agents are.
    """
    asked = [Agent.parse(text) for text in typed]
    names = [agent.name for agent in asked]
    own = [Agent.parse(f"{k}={v}") for k, v in suite.agents.items() if k not in names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two agents are called {twice[0]!r}; give each a name of its own")
    if not asked and not own:
        raise ValueError("no agent to measure; give --agents NAME=SOURCE")
    return [*asked, *own]


def _claim(agent: Agent, first: Agent, suite: "Suite", folder: Path) -> None:
    """Notes who plays in a folder, and refuses somebody else under the same name."""
    from robolearn.sources import source_of

    about = {**to_json(agent), "fingerprint": source_of(agent.source).fingerprint}
    try:
        check_same(about, folder, AGENT, free=("source",))
    except ValueError as error:
        raise ValueError(
            f"{folder} holds another agent than {agent.name}={agent.source} is now; give it "
            "another name, or take another --out"
        ) from error
    if suite.stop:
        _claim_against(first, folder)


def _claim_against(first: Agent, folder: Path) -> None:
    """Notes whom an agent was measured against, on which depended when it ended."""
    from robolearn.sources import source_of

    try:
        check_same({"first": source_of(first.source).fingerprint}, folder, AGAINST, free=())
    except ValueError as error:
        raise ValueError(
            f"in {folder} episodes ended early against another first agent than "
            f"{first.name}={first.source}; name that one first, or take another --out"
        ) from error


def _play(
    config: BenchRunConfig, suite: "Suite", cells: list[tuple["SuiteTask", Agent]], out: Path
) -> None:
    """Evaluates the cells that are not finished, once all of them are known to fit."""
    from robolearn.evaluate import check_fits, evaluate, is_finished

    missing = []
    for task, agent in cells:
        settings = _settings(config, suite, task, agent, out)
        if not is_finished(settings):
            missing.append((task, agent, settings))
            check_fits(settings)
    for task, agent, settings in missing:
        Console(stderr=True).print(f"[bold]{task.label}[/] {agent.name}")
        first = out / cells[0][1].name / task.label / "result.json"
        rival = agent != cells[0][1] and suite.stop
        evaluate(settings, *([clear(first, suite.stop)] if rival else []))


def _settings(
    config: BenchRunConfig, suite: "Suite", task: "SuiteTask", agent: Agent, out: Path
) -> "EvalConfig":
    return suite.settings(
        task,
        agent.source,
        scorer=agent.scorer,
        out=out / agent.name / task.label,
        videos=config.videos,
        **worker_options(config),
        device=config.device,
    )


def clear(first: Path, level: float) -> Callable[[Sequence[Row]], bool]:
    """Tells from the rows so far whether an agent clearly differs from the first one.

    Args:
        first: the result of the first agent, which plays every seed.
        level: error rate of the decision, however often it is asked.
    """
    import json

    from robolearn.bench.sequential import sequential_p

    baseline = [episode["success"] for episode in json.loads(first.read_text())["episodes"]]

    def enough(rows: Sequence[Row]) -> bool:
        return sequential_p([row["success"] for row in rows], baseline[: len(rows)]) <= level

    return enough


def lines(figures: Row) -> Iterator[str]:
    """The standings and the pairs, a line each, for a terminal."""
    for name, row in figures["agents"].items():
        ends = f"{row['success_low']:.1%} to {row['success_high']:.1%}"
        yield f"{name}: success {row['success']:.1%} ({ends}), {_by_task(row)}"
    for pair in figures["pairs"]:
        row = pair["all"]
        ends = f"{row['gain_points_low']:+.1f} to {row['gain_points_high']:+.1f}"
        yield (
            f"{pair['agent']} against {pair['against']}: {row['gain_points']:+.1f} points ({ends}),"
            f" {row['gained']} seeds only the former, {row['lost']} only the latter, "
            f"p {row['p_value']:.2g}, with Holm {row['p_holm']:.2g}; {_advice(row)}"
        )


def _by_task(row: Row) -> str:
    return ", ".join(f"{label} {c['successes']}/{c['n']}" for label, c in row["tasks"].items())


def _advice(row: Row) -> str:
    needed = row["pairs_for_5_points"]
    if needed is None:
        return "on fewer than one seed in twenty they differ, so 5 points apart they are not"
    return f"to see 5 points it takes {needed} pairs"


def main(config: BenchRunConfig) -> int:
    """Runs the command."""
    figures = run(config)
    print(*lines(figures), sep="\n")
    out = config.out or Path("runs/bench") / figures["suite"]["name"]
    print(f"{out / 'bench.html'} shows it; bench.json and bench.md lie beside it")
    return 0
