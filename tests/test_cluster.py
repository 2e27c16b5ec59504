"""A Ray cluster of two nodes plays the same episodes, also when one of them dies."""

import os
import signal
import sys
import time
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import toy
from test_evaluate import config, same
from test_rollout import assert_same
from test_workers import Mortal, open_policy, reset_options, seed_of

from robolearn import cluster
from robolearn.agent import ExpertAgent
from robolearn.dataset import EpisodeDataset
from robolearn.evaluate import evaluate
from robolearn.options import RecordConfig
from robolearn.record import record
from robolearn.results import versions
from robolearn.workers import Job, crew, run_seeds

pytest.importorskip("ray", reason="Ray is not installed: pip install 'robolearn[ray]'")
import ray


@pytest.fixture(scope="module")
def nodes():
    """The address of a cluster of two nodes, and what loses one of them."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        # Where a node finds the toy.
        paths = f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
        patch.setenv("PYTHONPATH", paths)
        with cluster.nodes_here(2) as made:
            yield made
    assert signal.getsignal(signal.SIGTERM) is before  # other programs' children inherit it


def play(job, seeds, nodes):
    return run_seeds(job, seeds, ray=nodes[0])


def test_a_cluster_does_not_change_the_episodes(nodes):
    job = Job(toy.ENV_ID, partial(open_policy, 1), {"image_size": (12, 16)}, reset_options)
    seeds = [4, 2, 9, 0, 7]
    for a, b in zip(run_seeds(job, seeds), play(job, seeds, nodes), strict=True):
        assert_same(a, b)


def test_a_worker_that_is_killed_changes_nothing(nodes, tmp_path):
    job = Job(toy.ENV_ID, ExpertAgent, wrap=partial(Mortal, tmp_path / "killed", 7))
    whole = list(run_seeds(Job(toy.ENV_ID, ExpertAgent), range(4, 12)))
    again = list(play(job, range(4, 12), nodes))
    assert (tmp_path / "killed").exists()
    for a, b in zip(whole, again, strict=True):
        assert_same(a, b)


def test_an_exception_in_an_episode_arrives(nodes):
    taken = []
    endless = (taken.append(seed) or seed for seed in count())
    episodes = play(Job(toy.ENV_ID, ExpertAgent, {"fail": 3}, reduce=seed_of), endless, nodes)
    assert list(islice(episodes, 3)) == [0, 1, 2]
    with pytest.raises(ArithmeticError, match="^the simulator broke at seed 3$"):
        next(episodes)
    assert len(taken) <= 8  # only a few seeds are taken ahead


def test_what_was_begun_ends_by_itself(nodes, tmp_path):
    """Ray kills the process that cancels a task which is done at that moment."""
    taken = []
    endless = (taken.append(seed) or seed for seed in count())
    episodes = play(Job(toy.ENV_ID, ExpertAgent, reduce=partial(note, tmp_path)), endless, nodes)
    next(episodes)
    episodes.close()
    deadline = time.monotonic() + 60
    while {path.name for path in tmp_path.iterdir()} != set(map(str, taken)):
        assert time.monotonic() < deadline, f"not played: {taken}"
        time.sleep(0.1)


def note(folder, episode):
    time.sleep(0.3)  # so that the first is done while others are not
    (folder / str(seed_of(episode))).touch()


def test_a_worker_serves_one_job_after_the_other(nodes):
    """An error, or another job, leaves nothing open."""
    seeds = Job(toy.ENV_ID, ExpertAgent, {"fail": 3}, reduce=seed_of)
    lengths = Job(toy.ENV_ID, ExpertAgent, reduce=len)
    with crew(seeds, ray=nodes[0]) as one, crew(lengths, ray=nodes[0]) as other:
        assert list(one([1, 2])) == [1, 2]
        assert list(other([1, 2, 3])) == list(run_seeds(lengths, [1, 2, 3]))
        with pytest.raises(ArithmeticError):
            list(one([3]))
        assert list(one([4])) == [4]


def test_recordings_and_evaluations_are_the_same(nodes, tmp_path, toy_run):
    alone = evaluate(config(toy_run, tmp_path / "alone"))
    assert same(evaluate(config(toy_run, tmp_path / "ray", ray=nodes[0]))) == same(alone)
    shared = {"env": toy.ENV_ID, "image_size": toy.SIZE, "workers": 0, "episodes": 3}
    for name, address in {"here": "", "there": nodes[0]}.items():
        record(RecordConfig(out=tmp_path / name, ray=address, **shared))
    here, there = (EpisodeDataset(tmp_path / name) for name in ("here", "there"))
    np.testing.assert_array_equal(there.columns["action"], here.columns["action"])
    np.testing.assert_array_equal(there.frames("top"), here.frames("top"))


def test_a_node_with_other_versions_is_refused(nodes, monkeypatch):
    monkeypatch.setattr(cluster, "versions", lambda: {**versions(), "mujoco": "1.0"})
    with pytest.raises(OSError, match="has mujoco .*, not 1.0; install the same versions"):
        list(play(Job(toy.ENV_ID, ExpertAgent), [1], nodes))


def test_a_node_with_another_package_of_others_is_refused(nodes, monkeypatch):
    monkeypatch.setattr(Job, "versions", lambda _: {"metaworld": "3.1"})  # where it is asked first
    with pytest.raises(OSError, match=r"has metaworld None, not 3\.1; install the same versions"):
        list(play(Job(toy.ENV_ID, ExpertAgent), [1], nodes))


def test_a_node_without_the_folder_is_refused(nodes, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster.Path, "cwd", lambda: tmp_path / "elsewhere")
    with pytest.raises(OSError, match="has no .*elsewhere; run the command in a folder that all"):
        list(play(Job(toy.ENV_ID, ExpertAgent), [1], nodes))


def test_a_node_that_is_lost_changes_nothing(nodes):
    """The last one: the cluster has one node less afterwards."""
    job = Job(toy.ENV_ID, ExpertAgent, reduce=placed)
    episodes = play(job, count(20), nodes)
    seen = list(islice(episodes, 6))
    nodes[1]()
    seen += islice(episodes, 30)  # the window of what was begun before is behind it
    episodes.close()
    whole = run_seeds(Job(toy.ENV_ID, ExpertAgent), count(20))
    for a, (_, b) in zip(islice(whole, len(seen)), seen, strict=True):
        assert_same(a, b)


def placed(episode):
    time.sleep(0.1)  # so that both nodes get some
    return ray.get_runtime_context().get_node_id(), episode


def test_no_cluster_is_one_sentence(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no")))
    with pytest.raises(OSError, match="no Ray cluster answers at 'auto' .no.; start one with"):
        cluster.connected("auto", 1)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'robolearn\[ray\]'"):
        list(run_seeds(Job(toy.ENV_ID, ExpertAgent), [1], ray="local"))
