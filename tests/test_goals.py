"""Goal pictures: of a demonstration, of the task itself, and from files."""

from functools import partial

import cv2
import gymnasium
import numpy as np
import pytest
import toy

from robolearn.goals import GoalPictures, goal_wrap, read_pictures
from robolearn.registry import make_env

ONE, TWO = {"top": (12, 16)}, {"top": (12, 16), "wrist": (12, 16)}


def picture(folder, size=(12, 16), name="goal.png"):
    path = folder / name
    cv2.imwrite(str(path), np.full((*size, 3), (10, 20, 30), np.uint8))
    return str(path)


def test_a_picture_is_shown_at_every_step_of_every_episode(tmp_path):
    wrap = goal_wrap([picture(tmp_path)], ONE, toy.ENV_ID, {})
    env = wrap(gymnasium.make(toy.ENV_ID, cameras=("top",)))
    assert isinstance(env, GoalPictures)
    assert env.observation_space["goal_pixels"] == env.observation_space["pixels"]
    for seed in (0, 1):
        for observation in (env.reset(seed=seed)[0], env.step(env.action_space.high)[0]):
            assert (observation["goal_pixels"]["top"] == (30, 20, 10)).all()


def test_a_larger_picture_of_the_same_proportions_is_scaled(tmp_path):
    found = read_pictures([picture(tmp_path, (48, 64))], ONE)
    assert found["top"].shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("goal", "cameras", "error", "word"),
    [
        ("goal.png", TWO, ValueError, "top=FILE wrist=FILE"),
        ("top=goal.png", TWO, ValueError, "wrist"),
        ("side=goal.png", ONE, ValueError, "top"),
        ("square.png", ONE, ValueError, "proportions"),
        ("nothing.png", ONE, OSError, "no picture"),
        ("text.png", ONE, OSError, "no picture"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(tmp_path, monkeypatch, goal, cameras, error, word):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path)
    picture(tmp_path, (12, 12), "square.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(error, match=word):
        read_pictures([goal], cameras)


def test_a_demonstration_ends_where_its_expert_does_and_leaves_the_episode_alone():
    env_id, options = "robolearn/Reach-v0", {"cameras": ("top",), "image_size": (24, 42)}
    plain = make_env(env_id, **options)
    shown = goal_wrap(["demonstration"], {"top": (24, 42)}, env_id, options)(
        make_env(env_id, **options)
    )
    one, other = plain.reset(seed=3)[0], shown.reset(seed=3)[0]
    assert (one["pixels"]["top"] == other["pixels"]["top"]).all()
    assert (other["goal_pixels"]["top"] != one["pixels"]["top"]).any()
    first = other["goal_pixels"]["top"]
    assert (shown.reset(seed=4)[0]["goal_pixels"]["top"] != first).any()
    assert (shown.reset(seed=3)[0]["goal_pixels"]["top"] == first).all()


def test_an_environment_without_an_expert_says_so():
    wrap = goal_wrap(["demonstration"], TWO, "CartPole-v1", {})
    with pytest.raises(ValueError, match="no expert"):
        wrap(gymnasium.make(toy.ENV_ID))
    assert goal_wrap(["scene"], TWO, toy.ENV_ID, {}) is None
    assert isinstance(wrap, partial)
