"""`robolearn improve`: a policy gets better by what it experiences.

Every round collects episodes with the current policy, lets the method judge everything collected so
far, and lets the policy imitate what was judged worth it. The folder holds rounds (`rounds.py`),
and besides:

    rounds/2/critic             what judged the policy of round 2, if the method has a critic
    critic                      the newest one, for `--scorer critic`
    unit.json                   steps of a mean demonstration when the run began
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from rich.console import Console

from robolearn import checkpoint
from robolearn.agent import open_agent
from robolearn.config import check_same
from robolearn.corrector import corrected
from robolearn.dataset import EpisodeDataset
from robolearn.evaluate import evaluated
from robolearn.experience import Experience
from robolearn.files import AtomicFolder, check_writable, copy_folder, write_atomic
from robolearn.improve_report import COLUMNS, write_improve_report
from robolearn.learn_options import ImproveConfig
from robolearn.options import WORKERS, AgentOptions, EvalConfig, worker_options
from robolearn.policies import IMPROVERS
from robolearn.policies.critic import Critic
from robolearn.policies.improver import Improver
from robolearn.replay import Reward, replay_of
from robolearn.results import save_result
from robolearn.rounds import Rounds, Row, Seconds, check_unused, demonstrations_of, show, timed
from robolearn.sources import source_of
from robolearn.stats import wilson
from robolearn.workers import Job, one_thread

SETTINGS: Final = "improve.json"
UNIT: Final = "unit.json"
PAGE: Final = "report.html"
# Options that change nothing of what the rounds leave.
FREE: Final = ("out", "rounds", *WORKERS, "candidates", "evaluate", "videos")
TABLE: Final = {"round": ("Round", "{:d}"), "success": ("Success", "{:.1%}"), **COLUMNS}


class Improvement(Rounds):
    """One run of `robolearn improve`; see the module's docstring.

    Raises:
        ValueError: unusable options, or a folder with another run.
    """

    def __init__(self, config: ImproveConfig) -> None:
        base = checkpoint.resolve(config.base)
        source = source_of(str(base))
        config = replace(config, base=base, env=config.env or source.env)
        if config.data is None:
            data, units = demonstrations_of(checkpoint.run_of(base))
            config = replace(config, data=data, units=config.units or units)
        if not config.env:
            raise ValueError(f"{base} does not say what it was trained on; give --env ID")
        super().__init__(config, base)
        self.source = source
        self.method: Improver = IMPROVERS[config.algo.kind]()(config.algo)
        check_writable(config.out)
        check_unused(config.out, SETTINGS)
        assert config.data is not None
        first = EpisodeDataset(config.data, units=config.units)
        self.given = [first, *map(EpisodeDataset, config.also)]
        lengths = self.given[0].episodes.length[self.given[0].episodes.success]
        if not len(lengths):
            raise ValueError(f"{config.data} holds no episode that succeeded; give --data FOLDER")
        self._check_policy()
        check_same(config, config.out, SETTINGS, FREE)  # last: a mistake leaves nothing behind
        self.reward = Reward(self._unit(float(lengths.mean())), config.patience)

    def _unit(self, mean_length: float) -> float:
        """The mean length of demonstrations when the run began, in which its critics count."""
        file = self.config.out / UNIT
        if file.exists():
            return float(json.loads(file.read_text()))
        write_atomic(file, json.dumps(mean_length).encode())
        return mean_length

    def _check_policy(self) -> None:
        """Refuses recordings that the base cannot look at, and more judged steps than it proposes.

        Raises:
            ValueError: either.
        """
        policy, config = checkpoint.load_policy(self.config.base), self.config
        for dataset in self.given:
            policy.check_dataset(dataset)
        if max(config.judged, config.replan_every) > policy.horizon:
            raise ValueError(
                f"--judged is {config.judged} and --replan-every {config.replan_every}; a chunk of "
                f"this policy has {policy.horizon} steps"
            )

    def run(self) -> list[Row]:
        """Runs what is missing and returns the table of rounds, one row each."""
        rows: list[Row] = []
        for number in range(1, self.config.rounds + 1):
            rows.append(self.round(number))
            show(rows, TABLE)
        return rows

    def phases(self, number: int, seconds: Seconds) -> Row:
        """Collects, and learns; see `Rounds`."""
        Console(stderr=True).print(f"[bold]round {number}[/] collecting")
        with timed(seconds, "collect"):
            self.collect(number)
        with timed(seconds, "learn"), one_thread():  # two are slower on a busy machine
            learned = self.learn(number)
        return {**self._outcome(EpisodeDataset(self.rollouts(number))), **learned}

    def seconds_per_round(self) -> float:
        """Mean seconds of judging and imitating in a round, as measured when it was done."""
        rounds = range(1, self.config.rounds + 1)
        return float(np.mean([self.seconds(number)["learn"] for number in rounds]))

    def collect(self, number: int) -> None:
        """Lets the policy of the round before act, until the dataset of the round is full."""
        config = self.config
        options = AgentOptions(
            policy=str(self.policy(number - 1)),
            replan_every=config.replan_every,
            device=config.device,
        )
        wrap = corrected if config.correct else None
        job = Job(config.env, partial(open_agent, options), self._env_options(), wrap=wrap)
        first = config.seed + (number - 1) * config.episodes
        self.record(number, job, self.source.cameras, range(first, first + config.episodes))

    def learn(self, number: int) -> Row:
        """Makes the next policy of everything collected so far; figures about it."""
        config = self.config
        policy = checkpoint.load_policy(self.policy(number - 1), config.device)
        datasets = [*self.given, *self._collected(number)]
        judged = config.judged or config.replan_every
        replay = replay_of(datasets, self.reward, executed=judged, stride=config.stride)
        experience = Experience(policy, datasets, replay)
        seed = config.seed + number
        improved = self.method.improve(policy, experience, self._critic(number - 1), seed)
        if improved.critic is not None:
            improved.critic.replan_every = config.replan_every
            improved.critic.save(self.folder(number) / "critic")
        with AtomicFolder(self.checkpoint(number)) as temporary:
            improved.policy.save(temporary / "model")
        if improved.critic is not None:
            copy_folder(self.folder(number) / "critic", config.out / "critic")
        return {"fragments": len(replay.starts), **improved.figures}

    def evaluations(self) -> Iterator[tuple[str, EvalConfig]]:
        """The policy alone, and with its critic if it has one; on the same seeds."""
        config, last = self.config, self.config.rounds
        plain = EvalConfig(
            policy=str(self.policy(last)),
            out=config.out / f"eval-{last}-actor",
            env=config.env,
            replan_every=config.replan_every,
            episodes=config.evaluate,
            variations=config.variations,
            videos=config.videos,
            **worker_options(config),
            device=config.device,
        )
        yield "actor", plain
        critic = self.folder(last) / "critic"
        if critic.exists():
            out, count = config.out / f"eval-{last}-selected{config.candidates}", config.candidates
            yield "selected", replace(plain, out=out, scorer=str(critic), candidates=count)

    def _critic(self, number: int) -> Critic | None:
        folder = self.folder(number) / "critic"
        return Critic.load(folder, self.config.device) if folder.exists() else None

    def _collected(self, number: int) -> list[EpisodeDataset]:
        return [EpisodeDataset(self.rollouts(k)) for k in range(1, number + 1)]

    def _env_options(self) -> dict[str, Any]:
        varied = {"variations": self.config.variations} if self.config.variations else {}
        return {**self.source.observation_options(), **varied}

    def _outcome(self, rollouts: EpisodeDataset) -> Row:
        """What the policy before this round achieved by itself: success, and successes an hour."""
        table = rollouts.episodes
        helped = np.logical_or.reduceat(rollouts.columns["intervention"], table.start)
        wins, n = int((table.success & ~helped).sum()), len(table)
        low, high = wilson(wins, n)
        hours = int(table.length.sum()) / rollouts.fps / 3600.0
        return {
            "n": n,
            "success": wins / n,
            "success_low": low,
            "success_high": high,
            "corrected": float(helped.mean()),
            "per_hour": wins / hours,
            "steps": int(table.length.sum()),
        }


def improve(config: ImproveConfig) -> Row:
    """Runs all rounds, evaluates what came out, writes `result.json` and a page, and returns it.

    Raises:
        ValueError, OSError: unusable options or folders; what was finished is kept.
    """
    run = Improvement(config)
    rows = run.run()
    figures: Row = {"rounds": rows}
    for name, settings in run.evaluations():
        result = evaluated(settings)
        kept = ("n", "success", "success_low", "success_high", "latency_ms")
        figures[name] = {key: result[key] for key in kept}  # type: ignore[literal-required]
    save_result(config.out, "result", run.config, figures)
    write_improve_report(config.out / "result.json", config.out / PAGE)
    return figures


def main(config: ImproveConfig) -> int:
    """Runs the command."""
    figures = improve(config)
    for name in ("actor", "selected"):
        if name in figures:
            row = figures[name]
            print(
                f"{name}: success {row['success']:.1%} "
                f"({row['success_low']:.1%} to {row['success_high']:.1%}, n = {row['n']})"
            )
    print(f"{config.out / PAGE} shows the rounds; {config.out} is a run like any other:")
    print(f"  robolearn eval --policy {config.out}")
    return 0
