"""The task that docs/add-a-task.md shows is a whole one."""

import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robolearn.contract import Info
from robolearn.registry import make_env
from robolearn.seeding import stream

ID = "robolearn/Nudge-v0"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "add-a-task.md"


@pytest.fixture(scope="module")
def said():
    """What the document's program prints; its task is registered until the module ends."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    printed = []
    exec(
        compile(code, DOCUMENT.name, "exec"),
        {"__name__": "nudge", "print": lambda *words: printed.append(" ".join(map(str, words)))},
    )
    yield printed
    del gymnasium.registry[ID]


def test_it_does_what_it_says(said):
    (line,) = said
    assert line.endswith("-> True")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_keeps_gymnasiums_contract(said):
    for obs_type in ("state", "pixels_agent_pos"):
        check_env(make_env(ID, obs_type=obs_type).unwrapped)


def test_its_expert_can_do_it_on_both_sides(said):
    env = make_env(ID, obs_type="state")
    solved = {}
    for seed in range(8):
        env.reset(seed=seed)
        script, over = env.unwrapped.expert(stream(seed, "expert")), False
        while not over:
            *_, terminated, truncated, info = env.step(next(script))
            over = terminated or truncated
        solved.setdefault("left" in info[Info.TASK], []).append(info[Info.IS_SUCCESS])
    assert solved.keys() == {True, False}
    assert np.mean(sum(solved.values(), [])) > 0.8
