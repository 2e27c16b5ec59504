"""Practice goals: given ones, ones of the arm's own, and states that were reached before."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import toy

from robolearn.contract import Info
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import EpisodeWriter
from robolearn.goals import Demonstration, goal_wrap
from robolearn.practice import Excursion, Scene, Unjudged, practising, revisits
from robolearn.registry import make_env

REACH = "robolearn/Reach-v0"
SMALL = {"cameras": ("top",), "image_size": (24, 42)}
MAKE = partial(make_env, REACH, **SMALL)


def test_the_task_s_own_picture_is_that_of_an_evaluation():
    assert goal_wrap(["scene"], {"top": (24, 42)}, REACH, SMALL) is None
    observation, info = make_env(REACH, **SMALL, goal_pixels=True).reset(seed=3)
    assert info[Info.SEED] == 3
    shown = Scene(MAKE)(observation, info).pictures
    assert (shown["top"] == observation["goal_pixels"]["top"]).all()


def test_an_excursion_shows_the_arm_elsewhere_in_the_same_scene():
    excursion = Excursion(partial(make_env, toy.ENV_ID))
    env = gymnasium.make(toy.ENV_ID)
    observation, info = env.reset(seed=3)
    one, again, other = (
        excursion(observation, {**info, Info.SEED: seed}).pictures for seed in (3, 3, 4)
    )
    assert one.keys() == observation["pixels"].keys()
    assert all((one[camera] == again[camera]).all() for camera in one)
    assert (one["top"] != other["top"]).any()
    began, info = MAKE().reset(seed=3)
    moved = Excursion(MAKE)(began, info).pictures
    assert (moved["top"] != began["pixels"]["top"]).any()


def test_practice_hides_what_it_came_to_and_lasts_as_told():
    env = Unjudged(gymnasium.make(toy.ENV_ID), 7)
    for _ in range(2):
        _, info = env.reset(seed=1)
        task = env.unwrapped
        target = np.float32([*task.goal, 0.5])
        ends = []
        while not ends or not ends[-1][3]:
            ends.append(env.step(target))
            info = ends[-1][4]
            assert not info[Info.IS_SUCCESS]
            assert info[Info.PROGRESS] == ends[-1][1] == 0.0
        assert np.abs(task.position[:2] - task.goal).max() < 0.05  # it did succeed
        assert len(ends) == 7
        assert not any(end[2] for end in ends)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    root = tmp_path_factory.mktemp("practice") / "data"
    with EpisodeWriter(root, arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS) as writer:
        for seed, length in ((5, 8), (6, 8), (7, 1), (5, 8)):
            writer.append(toy.example(seed=seed, length=length))
    return EpisodeDataset(root)


def test_known_scenes_are_visited_again_towards_what_was_seen_there(earlier):
    found = revisits([earlier], ("top",), 9, np.random.default_rng(0))
    assert found.keys() == {5, 6}  # an episode of one frame has reached nothing
    frames = earlier.frames("top")
    later = frames[earlier.episodes.start[1] + 1 :][:7]
    assert any((found[6]["top"] == frame).all() for frame in later)
    again = revisits([earlier], ("top",), 9, np.random.default_rng(0))
    assert all((found[seed]["top"] == again[seed]["top"]).all() for seed in found)
    assert len(revisits([earlier], ("top",), 1, np.random.default_rng(0))) == 1
    assert revisits([], ("top",), 9, np.random.default_rng(0)) == {}


def test_a_known_scene_has_its_goal_and_a_new_one_one_of_its_own():
    known = {3: {camera: np.full((*toy.SIZE, 3), 9, np.uint8) for camera in toy.CAMERAS}}
    wrap = practising(("demonstration",), toy.CAMERAS, toy.ENV_ID, {}, 5, known)
    env = wrap(gymnasium.make(toy.ENV_ID))
    assert (env.reset(seed=3)[0]["goal_pixels"]["top"] == 9).all()
    observation, info = env.reset(seed=4)
    expected = Demonstration(partial(make_env, toy.ENV_ID))(observation, info)
    assert (observation["goal_pixels"]["top"] == expected.pictures["top"]).all()


def test_a_task_that_draws_no_goal_says_so():
    with pytest.raises(ValueError, match="draws no goal; give --goal own"):
        Scene(partial(make_env, toy.ENV_ID))
