"""More candidates than memory allows are refused before the first episode."""

import resource
from dataclasses import replace

import pytest
import torch
import toy

from robolearn import memory
from robolearn.agent import open_agent
from robolearn.options import AgentOptions, ServeConfig
from robolearn.serve import PolicyServer
from robolearn.workers import make_vector

MANY = 10**8


@pytest.fixture
def little(monkeypatch):
    """A machine with 200 MB left, of which a process takes half, and no patience."""
    monkeypatch.setattr(memory, "available", lambda: 200_000_000)
    monkeypatch.setattr(memory, "PATIENCE", 0.2)


@pytest.fixture
def env():
    env = make_vector(toy.ENV_ID, 1)
    yield env
    env.close()


def most_of(message):
    return int(str(message).removesuffix(" fit").rpartition(" ")[2])


@pytest.mark.parametrize("options", [{}, {"delay": 2}], ids=["waiting", "real-time"])
def test_the_error_says_how_many_fit(toy_run, env, little, options):
    settings = {"policy": str(toy_run), "scorer": "random", "replan_every": 2, **options}
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ValueError, match=f"candidates is {MANY}, .* needs more memory") as it:
        open_agent(AgentOptions(candidates=MANY, **settings), env)
    most = most_of(it.value)
    assert 64 < most < MANY
    open_agent(AgentOptions(candidates=most // 2, **settings), env)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limit


def test_a_server_refuses_them_too(toy_run, little):
    with pytest.raises(ValueError, match=r"more memory than is left here; \d+ fit"):
        PolicyServer(ServeConfig(policy=str(toy_run), scorer="random", candidates=MANY))


def test_the_number_is_the_largest_that_was_tried_and_fits():
    tried = []

    def decide(candidates):
        tried.append(candidates)
        if candidates > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")

    memory.check_candidates(decide, 20)
    with pytest.raises(ValueError, match="candidates is 21, .*; 16 fit"):
        memory.check_candidates(decide, 21)
    assert tried == [20, 21, 1, 2, 4, 8, 16]  # what was refused bounds what is tried


def test_not_even_one_may_fit():
    def decide(candidates):
        raise MemoryError

    with pytest.raises(ValueError, match="not even one fits"):
        memory.check_candidates(decide, 4)


def test_a_server_of_a_policy_that_looks_back_rehearses_too(tmp_path):
    toy.tiny_policy(config=replace(toy.TINY, history=3)).save(tmp_path / "model")
    PolicyServer(ServeConfig(policy=str(tmp_path / "model"), scorer="random", candidates=4))


def test_other_errors_are_not_taken_for_it():
    def decide(candidates):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        memory.check_candidates(decide, 8)
