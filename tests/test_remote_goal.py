"""Goals through a server: their pictures go there, and how far they are comes back."""

from dataclasses import replace

import numpy as np
import pytest
import toy
from test_remote import serving

from robolearn.ask import request_of
from robolearn.checkpoint import load_policy
from robolearn.connection import RemoteError
from robolearn.evaluate import evaluate
from robolearn.remote import _notes
from robolearn.train import train
from robolearn.wire import WireError

# toy demonstrations take a few steps
SHORT = replace(toy.TINY_ACT2GOAL, horizon=2, stride=1, far=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_data):
    folder = tmp_path_factory.mktemp("remote-goal") / "run"
    train(toy.train_config(toy_data, folder, policy=SHORT))
    return folder


def pictures(seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for name, size in toy.CAMERAS.items()
    }


def test_a_server_is_shown_goals_and_tells_how_far_they_are(run, tmp_path):
    with serving(run) as there:
        here, away = (
            evaluate(toy.eval_config(where, tmp_path / str(k)))["episodes"]
            for k, where in enumerate((str(run), there))
        )
    assert here[0]["notes"]["steps_to_goal"] > 0.0
    for one, other in zip(here, away, strict=True):
        for name in ("notes", "length", "progress", "success"):
            assert one[name] == other[name]


def test_a_server_wants_the_pictures_of_its_goal(run):
    acting, seen = load_policy(run), {"agent_pos": np.zeros(3), "pixels": pictures(0)}
    asked = request_of({**seen, "goal_pixels": pictures(1)}, acting).observation
    assert asked["goal_pixels"]["top"].tolist() == pictures(1)["top"].tolist()
    assert asked["pixels"]["top"].tolist() == pictures(0)["top"].tolist()
    with pytest.raises(WireError, match="give pictures by camera as goal_pixels"):
        request_of(seen, acting)
    with pytest.raises(WireError, match="the picture of camera 'wrist'"):
        request_of({**seen, "goal_pixels": {"top": pictures(1)["top"]}}, acting)


@pytest.mark.parametrize("notes", [3, {"steps": "far"}, {"steps": [1.0]}])
def test_notes_that_are_no_numbers_are_refused(notes):
    with pytest.raises(RemoteError, match="notes are no numbers"):
        _notes({"notes": notes})
