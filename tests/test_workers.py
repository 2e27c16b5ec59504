"""Workers: the same episodes in the same order, and errors that arrive as errors."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count, islice
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import toy
from test_rollout import assert_same

from robolearn.agent import ExpertAgent, PolicyAgent
from robolearn.workers import Job, make_vector, run_seeds


def open_policy(threads, env):
    assert torch.get_num_threads() == threads
    return PolicyAgent(toy.tiny_policy(), replan_every=2)


def reset_options(seed):
    return {"instruction": toy.INSTRUCTIONS[seed % 2]}


def seed_of(episode):
    return episode.seed


def test_workers_do_not_change_the_episodes():
    job = Job(toy.ENV_ID, partial(open_policy, 1), {"image_size": (12, 16)}, reset_options)
    seeds = [4, 2, 9, 0, 7]
    alone = list(run_seeds(job, seeds, 0))
    assert [e.seed for e in alone] == seeds
    assert [e.instruction for e in alone] == [toy.INSTRUCTIONS[seed % 2] for seed in seeds]
    for workers in (1, 2):
        together = list(run_seeds(job, seeds, workers))
        for a, b in zip(alone, together, strict=True):
            assert_same(a, b)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        list(run_seeds(Job(toy.ENV_ID, partial(open_policy, 1)), [1], 0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_worker_that_is_killed_changes_nothing(tmp_path):
    """The one beside it goes down with it, and both begin again."""
    seeds, options = range(4, 12), {"image_size": (12, 16)}
    whole = list(run_seeds(Job(toy.ENV_ID, ExpertAgent, options), seeds))
    job = Job(toy.ENV_ID, ExpertAgent, options, wrap=partial(Mortal, tmp_path / "killed", 7))
    again = list(run_seeds(job, seeds, 2))
    assert (tmp_path / "killed").exists()
    for a, b in zip(whole, again, strict=True):
        assert_same(a, b)


def test_workers_that_die_again_and_again_are_an_error():
    """Never a failed episode, and not for ever."""
    job = Job(toy.ENV_ID, ExpertAgent, {"die": 3}, reduce=seed_of)
    episodes = run_seeds(job, range(1, 9), 1)
    assert list(islice(episodes, 2)) == [1, 2]
    with pytest.raises(ChildProcessError, match="3 workers died one after the other, .* at 3 or"):
        next(episodes)


class Mortal(gymnasium.Wrapper):
    """The first time that a seed is asked for, the process is killed."""

    def __init__(self, note, seed, env):
        super().__init__(env)
        self.note, self.seed = note, seed

    def reset(self, *, seed=None, options=None):
        if seed == self.seed and not self.note.exists():
            self.note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_in_an_episode_arrives(workers):
    taken = []
    endless = (taken.append(seed) or seed for seed in count())
    job = Job(toy.ENV_ID, ExpertAgent, {"fail": 3}, reduce=seed_of)
    episodes = run_seeds(job, endless, workers)
    assert list(islice(episodes, 3)) == [0, 1, 2]
    with pytest.raises(ArithmeticError, match="the simulator broke at seed 3"):
        next(episodes)
    assert len(taken) <= 4 + 2 * workers  # only a few seeds are taken ahead


def test_an_unknown_environment_is_named():
    with pytest.raises(ValueError, match="near matches: robolearn/PickPlace-v0"):
        make_vector("robolearn/PikPlace-v0", 1)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """An idle one would wait for work for ever."""
    script = tmp_path / "idle.py"
    script.write_text(
        "import sys, toy\n"
        "from test_workers import pid_of\n"
        "from robolearn.agent import ExpertAgent\n"
        "from robolearn.workers import Job, run_seeds\n"
        "if __name__ == '__main__':\n"
        "    job = Job(toy.ENV_ID, ExpertAgent, reduce=pid_of)\n"
        "    episodes = run_seeds(job, [1], 1)\n"
        "    print(next(episodes), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command, pipe = [sys.executable, str(script)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as parent:
        worker = int(parent.stdout.readline())
        assert worker != parent.pid
        parent.kill()
    deadline = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)


def pid_of(episode):
    return os.getpid()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # an orphan that nobody reaps has ended as well
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_job_results_are_reduced_where_they_were_made():
    job = Job(toy.ENV_ID, ExpertAgent, reduce=len)
    lengths = list(run_seeds(job, [1, 2], 0))
    assert all(isinstance(n, int) for n in lengths)
    assert np.min(lengths) > 0
