"""`robolearn adapt`: a policy that is shown its goals practises by itself, without reward.

Every round the policy tries to reach practice goals (`practice.py`), and learns of what it reached
instead: later frames of its rollouts are the goals of earlier ones (`hindsight.py`). What learns
are adapters of low rank, which are merged into the weights of each checkpoint. The rollouts of a
round are learned from once. Success is measured after every round, and never learned from: during
practice nothing tells it.

The folder holds rounds (`rounds.py`), and besides:

    checkpoints/0000002/learned.safetensors     the adapters after round 2
    rounds/2/imagined.png                       what was imagined in its first episode
    rounds/2/nearest.json                       how near its episodes came, see `nearness.py`
    rounds/2/practised, rounds/2/original       evaluations of the policy after round 2

Round 0 is the policy before any practice, which is only evaluated.
"""

import json
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from torch import Tensor

from robolearn import checkpoint
from robolearn.adapt_report import COLUMNS, STRIP, write_adapt_report
from robolearn.agent import open_agent
from robolearn.config import check_same
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import Episode
from robolearn.evaluate import evaluated, job_of
from robolearn.files import AtomicFolder, check_writable
from robolearn.goals import DEMONSTRATION, Pictures, demonstrates
from robolearn.held_out import apart, watched
from robolearn.imagined import write_strip
from robolearn.learn_options import AdaptConfig
from robolearn.nearness import ALL, KEPT, arrived, check_estimates, note
from robolearn.options import WORKERS, AgentOptions, EvalConfig, worker_options
from robolearn.policies.base import TrainablePolicy, as_tensors
from robolearn.policies.fitting import in_bf16, minimise
from robolearn.policies.lora import merge
from robolearn.practice import OWN, practising, revisits
from robolearn.rehearsal import Rehearsal
from robolearn.results import Result, save_result
from robolearn.rollout import arm_of
from robolearn.rounds import Rounds, Row, Seconds, check_unused, demonstrations_of, show, timed
from robolearn.seeding import stream
from robolearn.sources import source_of
from robolearn.stability import min_acc, wc_acc, windowed_forgetting, worst_by_chance
from robolearn.student import LEARNING, Learning, go_on
from robolearn.subset import Subset
from robolearn.workers import Job, make_vector, one_thread

SETTINGS: Final = "adapt.json"
LEARNED: Final = "learned.safetensors"
PAGE: Final = "report.html"
ORIGINAL: Final = "original"  # the evaluation of what the policy was trained for
PRACTISED: Final = "practised"  # of what it practises
# Options that change nothing of what the rounds leave.
FREE: Final = ("out", "minutes", "rounds", *WORKERS)


class Adaptation(Rounds):
    """One run of `robolearn adapt`; see the module's docstring.

    Raises:
        ValueError: unusable options, a policy that is not shown its goal, or a folder with another
            run.
        OSError: a goal picture that is not there, or a folder that cannot be written.
    """

    config: AdaptConfig

    def __init__(self, config: AdaptConfig) -> None:
        base = checkpoint.resolve(config.policy)
        source = source_of(str(base))
        if not source.goals:
            raise ValueError(
                f"{base} is not shown its goal, so it cannot practise towards goals; train one "
                "that is with: robolearn train --policy act2goal"
            )
        config = replace(config, policy=base, env=config.env or source.env)
        if not config.env:
            raise ValueError(f"{base} does not say what it was trained on; give --env ID")
        if config.rehearsal and config.data is None:
            data, units = demonstrations_of(checkpoint.run_of(base))
            config = replace(config, data=data, units=config.units or units)
        super().__init__(config, base)
        self.source = source
        check_writable(config.out)
        check_unused(config.out, SETTINGS)
        self._check()
        check_same(config, config.out, SETTINGS, FREE)  # last: a mistake leaves nothing behind

    @cached_property
    def demonstrations(self) -> EpisodeDataset | None:
        """What is rehearsed."""
        config = self.config
        return EpisodeDataset(config.data, units=config.units) if config.data else None

    def _check(self) -> None:
        """Refuses what would fail in the first round.

        Raises:
            ValueError, OSError: unusable demonstrations, goals, task or split.
        """
        policy, config = checkpoint.load_policy(self._base), self.config
        if self.demonstrations:
            policy.check_dataset(self.demonstrations)
        if config.replan_every > policy.horizon:
            raise ValueError(
                f"--replan-every is {config.replan_every}; a chunk of this policy has "
                f"{policy.horizon} steps"
            )
        job = self._job(self._base, {})
        with closing(make_vector(config.env, 1, job.wrap, **job.env_options)) as env:
            policy.check_fits(arm_of(env), env.single_observation_space)  # type: ignore[arg-type]
            env.reset(seed=[config.seed])  # there is a goal
            if config.learn_from != ALL:
                check_estimates(job.actor(env), env, config.seed)
        for settings in self._evaluations(0):
            job = job_of(settings)
            make_vector(settings.env, 1, job.wrap, **job.env_options).close()

    def run(self) -> list[Row]:
        """Runs what is missing and returns the table of rounds, one row each."""
        rows: list[Row] = []
        while self._goes_on(len(rows)):
            rows.append(self.round(len(rows)))
            show(self.with_minutes(rows), COLUMNS)
        return rows

    def _goes_on(self, number: int) -> bool:
        """Whether there shall be a round of this number."""
        if not number:
            return True
        if self.config.rounds:
            return number <= self.config.rounds
        return self.minutes(number - 1) < self.config.minutes

    def minutes(self, number: int) -> float:
        """Wall-clock time of acting and learning in all rounds up to this one."""
        parts = [self.seconds(k) for k in range(1, number + 1)]
        return sum(part["collect"] + part["learn"] for part in parts) / 60.0

    def with_minutes(self, rows: list[Row]) -> list[Row]:
        """The table with the time that it took, which no row depends on."""
        return [{**row, "minutes": self.minutes(row["round"])} for row in rows]

    def phases(self, number: int, seconds: Seconds) -> Row:
        """Practises, unless it is round 0, and evaluates; see `Rounds`."""
        learned: Row = {}
        if number:
            Console(stderr=True).print(f"[bold]round {number}[/] practising")
            with timed(seconds, "collect"):
                revisited = self.collect(number)
            with timed(seconds, "learn"), one_thread():  # two are slower on a busy machine
                learned = {**self.learn(number), "revisited": revisited}
        with timed(seconds, "evaluate"):
            found = self.evaluate(number)
        return {**found, **self._stability(number, found), **learned}

    def collect(self, number: int) -> int:
        """Lets the policy of the round before practise; how many scenes it knew."""
        config, policy = self.config, self.policy(number - 1)
        earlier = [EpisodeDataset(self.rollouts(k)) for k in range(1, number)]
        count, rng = round(config.revisit * config.episodes), stream(config.seed + number, "goals")
        known = revisits(earlier, tuple(self.source.cameras), count, rng)
        first = config.seed + (number - 1) * config.episodes
        seeds = [*known, *range(first, first + config.episodes - len(known))]
        look = partial(self._look, number, policy)
        self.record(number, self._job(policy, known), self.source.cameras, seeds, look)
        return len(known)

    def _look(self, number: int, policy: Path, episode: Episode) -> None:
        """Notes how near an episode came; draws what was imagined as the round's first began."""
        note(self.folder(number), episode)
        path = self.folder(number) / STRIP
        if not path.exists():
            write_strip(checkpoint.load_policy(policy, self.config.device), episode, path)

    def _job(self, policy: Path, known: Mapping[int, Pictures]) -> Job:
        config, options = self.config, self._env_options()
        agent = AgentOptions(
            policy=str(policy),
            replan_every=config.replan_every,
            keep_trying=True,  # who stands still learns nothing
            device=config.device,
        )
        cameras, env = self.source.cameras, config.env
        wrap = practising(config.goal, cameras, env, options, config.steps, known)
        lasting = options | {"max_episode_steps": -1}  # `wrap` ends episodes
        return Job(env, partial(open_agent, agent), lasting, wrap=wrap)

    def _env_options(self) -> dict[str, Any]:
        config = self.config
        split = {"split": config.split} if config.split != "train" else {}
        varied = {"variations": config.variations} if config.variations else {}
        return {**self.source.observation_options(), **split, **varied}

    def learn(self, number: int) -> Row:
        """Makes the next policy of the rollouts of the round; figures about it."""
        student, learning = self._student(number)
        rollouts, row = self._kept(number)
        if rollouts is None:
            said = f"round {number} has no {self.config.learn_from}: the policy stays as it was"
            Console(stderr=True).print(said)
        else:
            row |= self._teach(number, student, rollouts)
        with AtomicFolder(self.checkpoint(number)) as temporary:
            checkpoint.save_tensors(temporary / LEARNED, learning)
            merge(student)
            student.eval().save(temporary / "model")
        return row

    def _kept(self, number: int) -> tuple[EpisodeDataset | None, Row]:
        """The rollouts of a round that shall be learned from, if any, and how many these are."""
        rollouts = EpisodeDataset(self.rollouts(number))
        within, seeds = self.config.replan_every, rollouts.episodes.seed
        came = arrived(self.folder(number), seeds, within)
        kept = KEPT[self.config.learn_from](np.ones(len(seeds), bool) if came is None else came)
        share = None if came is None else float(came.mean())
        row = {"arrived": share, "learned": int(kept.sum()), "updates": 0}
        if kept.all():
            return rollouts, row
        return Subset(rollouts, np.flatnonzero(kept)) if kept.any() else None, row

    def _teach(self, number: int, student: TrainablePolicy, rollouts: EpisodeDataset) -> Row:
        """Lets the policy learn of rollouts, and rehearse; figures about it."""
        config, seed = self.config, self.config.seed + number
        taught, held = apart(rollouts, config.held_out, stream(seed, "held out"))
        before = student.windows(self.demonstrations) if self.demonstrations else None
        batches = Rehearsal(student.windows(taught), before, config.rehearsal)

        def loss(step: int) -> Tensor:
            rng = stream(seed, f"adapt {step}")
            batch = as_tensors(batches.draw(rng, size), student.device)
            with in_bf16(student.device):
                return student.loss(batch, rng)[0]

        updates, rate, size = config.updates, config.learning_rate, config.batch_size
        until = watched(student, held, seed, updates, size) if held else None
        losses = minimise(student, loss, steps=updates, learning_rate=rate, until=until)
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"round {number} diverged; take another --out with a smaller --learning-rate"
            )
        figures = until.restore() if until else {"updates": updates}
        return {"loss": losses[-1], **figures}

    def _student(self, number: int) -> tuple[TrainablePolicy, Learning]:
        """The policy before a round, and what of it learns, by name; that goes on where it was."""
        config = self.config
        student = checkpoint.load_policy(self._base, config.device).train()
        learning = LEARNING[config.weights](student, config.rank, config.seed)
        if number > 1:
            go_on(learning, self.checkpoint(number - 1) / LEARNED)
        return student, learning

    def evaluate(self, number: int) -> Row:
        """Success on the goals that are practised, and on those that it was trained for."""
        row: Row = {"n": self.config.evaluate}
        practised, original = self._evaluations(number)
        for name, settings in ((PRACTISED, practised), (ORIGINAL, original)):
            row |= _outcome(name, evaluated(settings))
        return row

    def _evaluations(self, number: int) -> tuple[EvalConfig, EvalConfig]:
        """Of what is practised after a round, and of what the policy was trained for.

        They try whatever seems beyond reach, as practice does: otherwise success would rise once
        the arm only dares to move.
        """
        config, env = self.config, self.source.env or self.config.env
        goal = (DEMONSTRATION,) if config.goal == (OWN,) else config.goal
        original = EvalConfig(
            policy=str(self.policy(number)),
            out=self.folder(number) / ORIGINAL,
            env=env,
            goal=(DEMONSTRATION,) if demonstrates(env) else goal,
            replan_every=config.replan_every,
            episodes=config.evaluate,
            keep_trying=True,
            videos=0,
            **worker_options(config),
            device=config.device,
        )
        practised = replace(
            original, env=config.env, split=config.split, variations=config.variations, goal=goal
        )
        if practised != original:  # otherwise one evaluation tells both
            practised = replace(practised, out=self.folder(number) / PRACTISED)
        return practised, original

    def _stability(self, number: int, found: Row) -> Row:
        """What is lost of the original goals up to a round."""
        curve = [*(self.round(k)[ORIGINAL] for k in range(number)), found[ORIGINAL]]
        if not number:
            return {}
        return {
            "min_acc": min_acc([curve[1:]]),
            "wc_acc": wc_acc(found[PRACTISED], [curve[1:]]),
            "forgetting": windowed_forgetting([curve]),
        }

    def by_chance(self, last: int) -> float | None:
        """What min-ACC would be of noise alone; None before the first round."""
        files = [self.folder(k) / ORIGINAL / "result.json" for k in range(1, last + 1)]
        results = [json.loads(file.read_text())["episodes"] for file in files]
        won = [[episode["success"] for episode in episodes] for episodes in results]
        return worst_by_chance(np.array(won)) if won else None


def _outcome(name: str, result: Result) -> Row:
    keys = {"": "success", "_low": "success_low", "_high": "success_high"}
    return {name + end: result[key] for end, key in keys.items()}  # type: ignore[literal-required]


def adapt(config: AdaptConfig) -> Row:
    """Runs all rounds, writes `result.json` and a page, and returns what it says.

    Raises:
        ValueError, OSError: unusable options or folders; what was finished is kept.
    """
    run = Adaptation(config)
    rows = run.with_minutes(run.run())
    figures: Row = {"rounds": rows, "min_acc_by_chance": run.by_chance(rows[-1]["round"])}
    save_result(config.out, "result", run.config, figures)
    write_adapt_report(config.out / "result.json", config.out / PAGE)
    return figures


def main(config: AdaptConfig) -> int:
    """Runs the command."""
    rows = adapt(config)["rounds"]
    first, last = rows[0], rows[-1]
    for name in (PRACTISED, ORIGINAL):
        print(
            f"{name} goals: success {first[name]:.1%} before and {last[name]:.1%} after "
            f"{last['minutes']:.1f} minutes of practice ({last[name + '_low']:.1%} to "
            f"{last[name + '_high']:.1%}, n = {last['n']})"
        )
    print(f"{config.out / PAGE} shows the rounds; {config.out} is a run like any other:")
    print(f"  robolearn eval --policy {config.out}")
    return 0
