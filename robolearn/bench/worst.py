"""`robolearn bench worst`: the dynamics at which a policy does worst, and how badly.

CMA-ES searches a box of fixed dynamics (`worst_search.py`), each point on the same seeds. What was
found looks worse on them than it is, being the worst of many, so it is measured again, beside the
nominal dynamics, on seeds that the search never saw. It is a plain setting of `robolearn eval`.

Every point that was judged is on disk. A search that was killed goes on after the last of them, and
one that has ended goes on when it is given more evaluations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import Progress

from robolearn.bench.as_typed import eval_command, suite_of
from robolearn.config import check_same, to_json
from robolearn.options import WORKERS, AgentOptions, EvalConfig, WorkerOptions, worker_options
from robolearn.results import save_result, versions

if TYPE_CHECKING:
    from robolearn.bench.worst_search import Box, Point
    from robolearn.journal import Journal
    from robolearn.results import Result
    from robolearn.sources import Source
    from robolearn.workers import Worker

SETTINGS: Final = "search.json"  # what all points depend on
POINTS: Final = "points.jsonl"
FREE: Final = ("out", "videos", *WORKERS, "evaluations", "fresh")  # change no point
SHARED: Final = ("env", "episodes", "seed", "split", "paraphrases", "variations")  # with eval
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchWorstConfig(AgentOptions, WorkerOptions):
    """Find the dynamics at which a policy does worst."""

    out: Path = Path("runs/worst")  # points, evaluations, result.json and the page
    env: str = ""  # environment id; by default the one that the policy was trained on
    level: int = 2  # how far dynamics may go, as for --variations: 4 is full strength
    factors: tuple[str, ...] = ()  # which may differ; by default mass friction damping servo delay
    episodes: int = 20  # at each point of the search
    evaluations: int = 96  # points of the search, at most
    population: int = 8  # points of a generation
    fresh: int = 200  # episodes of the comparison with nominal dynamics, on seeds of their own
    seed: int = 0  # of the search's first episode; the comparison's follow the search's
    split: str = "train"  # which objects, scenes and goals of the task
    paraphrases: str = "held_out"  # wording of the instructions: train, held_out or all
    variations: dict[str, int] = field(default_factory=dict)  # around all, e.g. push 2 camera 1
    videos: int = 8  # how many episodes at the worst dynamics are filmed, failures first

    def __post_init__(self) -> None:
        """Refuses counts that leave nothing to do.

        Raises:
            ValueError: naming the option.
        """
        least = {"episodes": 1, "fresh": 1, "population": 4, "evaluations": self.population}
        for name, count in least.items():
            if getattr(self, name) < count:
                raise ValueError(f"--{name} is {getattr(self, name)}; give it {count} or more")


def worst(config: BenchWorstConfig) -> Row:
    """Searches, compares, writes `result.json` and the page, and returns the figures.

    Raises:
        ValueError, OSError: a policy that does not fit, a folder of another search, and so on;
            judged points are kept.
    """
    from robolearn.bench.worst_report import write_worst_report
    from robolearn.bench.worst_search import Box
    from robolearn.evaluate import check_fits, evaluated, resolved
    from robolearn.files import check_writable, write_atomic

    box = Box(config.factors, config.level)
    settings, source = resolved(_settings(config))
    check_fits(settings)
    check_writable(config.out)
    about = _about(config, source)
    check_same(about, config.out, SETTINGS, free=())
    found, searched = _search(config, box, settings, about)
    fresh = replace(settings, seed=config.seed + config.episodes, episodes=config.fresh)
    at_worst = replace(fresh, dynamics=found, out=config.out / "worst", videos=config.videos)
    results = {
        "nominal": evaluated(replace(fresh, out=config.out / "nominal")),
        "worst": evaluated(at_worst),
    }
    figures = {
        "env": settings.env,
        "policy": settings.policy,
        "fingerprint": source.fingerprint,
        "box": box.ends,
        "dynamics": found,
        "search": searched,
        **compared(results["worst"], results["nominal"]),
        "replay": eval_command(at_worst),
    }
    save_result(config.out, "result", config, figures)
    write_atomic(config.out / "suite.toml", suite_of(at_worst).encode())
    write_worst_report(config.out, results["worst"])
    return figures


def _settings(config: BenchWorstConfig) -> EvalConfig:
    """The evaluation of every point, but for its dynamics."""
    agent = {f.name: getattr(config, f.name) for f in fields(AgentOptions)}
    shared = {name: getattr(config, name) for name in SHARED}
    return EvalConfig(**agent, **shared, out=config.out, videos=0, **worker_options(config))


def _about(config: BenchWorstConfig, source: "Source") -> Row:
    settings = {key: value for key, value in to_json(config).items() if key not in FREE}
    known = {"policy": source.where, "fingerprint": source.fingerprint}
    return {**settings, **known, "versions": {**versions(), "cma": version("cma")}}


def _search(
    config: BenchWorstConfig, box: "Box", settings: EvalConfig, about: Row
) -> tuple["Point", Row]:
    """The worst point, and the course of the search, which begins with the nominal dynamics."""
    from robolearn.bench.worst_search import search
    from robolearn.envs.dynamics import NOMINAL
    from robolearn.journal import Journal
    from robolearn.seeding import stream
    from robolearn.workers import crew

    bar = Progress(*Progress.get_default_columns(), console=Console(stderr=True))
    players = crew(_Trials(settings), **worker_options(config))
    with Journal(config.out / POINTS, about) as journal, players as play, bar:
        total, done = config.evaluations + 1, len(journal.rows)
        task = bar.add_task("searching", total=total, completed=done)
        judge = Remembered(settings, play, journal, lambda: bar.advance(task))
        judge([{name: NOMINAL[name] for name in box.names}])
        rng = stream(config.seed, "worst")
        ended = search(box, judge, config.evaluations, rng, config.population)
    seeds = [config.seed, config.seed + config.episodes - 1]
    course = judge.course
    found = min(course, key=lambda row: row["score"])
    return found["dynamics"], {"seeds": seeds, "ended": ended, "found": found, "points": course}


@dataclass(frozen=True)
class _Trials:
    """What a worker plays: dynamics and seed, one pair after the other."""

    settings: EvalConfig

    def open(self) -> "_Player":
        return _Player(self.settings)

    def versions(self) -> dict[str, str]:
        return {}


class _Player:
    """Opens the environment anew whenever the dynamics are others."""

    def __init__(self, settings: EvalConfig) -> None:
        self._settings = settings
        self._dynamics: Point | None = None
        self._worker: Worker | None = None

    def run(self, trial: tuple["Point", int]) -> Row:
        from robolearn.evaluate import job_of

        dynamics, seed = trial
        if self._worker is None or dynamics != self._dynamics:
            self.close()
            self._dynamics = dynamics
            self._worker = job_of(replace(self._settings, dynamics=dynamics)).open()
        return self._worker.run(seed)

    def close(self) -> None:
        if self._worker:
            self._worker.close()
            self._worker = None


class Remembered:
    """Judges points by their episodes, and none twice: seeds are paired, so it would be the same.

    Args:
        settings: of the evaluation.
        play: gives the rows of (dynamics, seed) after (dynamics, seed).
        journal: of the points.
        done: is called after every point.

    Attributes:
        course: a row of every point that was asked for, in order.
    """

    def __init__(
        self,
        settings: EvalConfig,
        play: Callable[[Iterator[tuple["Point", int]]], Iterator[Row]],
        journal: "Journal",
        done: Callable[[], None],
    ) -> None:
        from robolearn.registry import spec_of

        self._play, self._journal, self._done = play, journal, done
        self._seeds = range(settings.seed, settings.seed + settings.episodes)
        self._limit = spec_of(settings.env).max_episode_steps or 1
        self._known = {_key(row["dynamics"]): row for row in journal.rows}
        self.course: list[Row] = []

    def __call__(self, points: list["Point"]) -> list[float]:
        """Their scores, see `robolearn.bench.worst_search.score`."""
        missing = {_key(p): p for p in points if _key(p) not in self._known}
        played = iter(self._play((p, seed) for p in missing.values() for seed in self._seeds))
        for key, point in missing.items():
            row = _judged(point, list(islice(played, len(self._seeds))), self._limit)
            self._journal.append(row)
            self._known[key] = row
            self._done()
        self.course += [self._known[_key(point)] for point in points]
        return [self._known[_key(point)]["score"] for point in points]


def _key(point: "Point") -> tuple[float, ...]:
    return tuple(point.values())


def _judged(point: "Point", episodes: Sequence[Row], limit: int) -> Row:
    from robolearn.bench.worst_search import score

    return {
        "dynamics": point,
        "n": len(episodes),
        "successes": sum(row["success"] for row in episodes),
        "score": score(episodes, limit),
    }


def compared(found: "Result", nominal: "Result") -> Row:
    """The worst beside the nominal dynamics: cells, and the pairs of their shared seeds."""
    from robolearn.bench.pairs import beside
    from robolearn.bench.standings import cell
    from robolearn.stats import paired_difference

    a, b = ([e["success"] for e in result["episodes"]] for result in (found, nominal))
    low, high = paired_difference(a, b)
    ends = {"gain_points_low": 100 * low, "gain_points_high": 100 * high}
    return {"nominal": cell(nominal), "worst": cell(found), "pair": {**beside(a, b), **ends}}


def main(config: BenchWorstConfig) -> int:
    """Runs the command."""
    figures = worst(config)
    pair, found = figures["pair"], figures["search"]["found"]
    print("worst:", ", ".join(f"{name} {value:g}" for name, value in figures["dynamics"].items()))
    print(f"in the search {found['successes']} of {found['n']} were solved there; on fresh seeds:")
    for name in ("nominal", "worst"):
        row = figures[name]
        ends = f"{row['success_low']:.1%} to {row['success_high']:.1%}"
        print(f"  {name}: success {row['success']:.1%} ({ends}), n = {row['n']}")
    print(
        f"  {pair['gain_points']:+.1f} points, {pair['lost']} seeds only nominal, "
        f"{pair['gained']} only worst, p {pair['p_value']:.2g}"
    )
    print(figures["replay"])
    print(f"{config.out / 'worst.html'} shows it; result.json and suite.toml lie beside it")
    return 0
