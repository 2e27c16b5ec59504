"""Goals from words: which recorded episode shows what an instruction asks for."""

import json

import cv2
import numpy as np
import pytest
import toy

from robolearn.dataset import EpisodeDataset
from robolearn.envs.pick_place import PHRASES
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.eval_folders import default_folder
from robolearn.evaluate import evaluate
from robolearn.goals import GoalPictures
from robolearn.options import EvalConfig
from robolearn.recall import Recall, likeness, same_goal, usable
from robolearn.registry import make_env
from robolearn.report import write_report

RED, BLUE = "put the red cube in the blue bin", "put the blue cube in the red bin"
KNOWN = [*PHRASES.all("train")]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A policy that is shown its goal, and knows nothing."""
    folder = tmp_path_factory.mktemp("recall") / "policy"
    toy.tiny_policy(config=toy.TINY_ACT2GOAL).save(folder)
    return str(folder)


def recording(folder, *episodes):
    with EpisodeWriter(folder, arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS) as writer:
        for episode in episodes:
            writer.append(episode)
    return folder


def test_instructions_that_mean_the_same_are_the_same_goal_in_any_words():
    told = [*PHRASES.all("held_out")][5]
    same = same_goal(told, KNOWN, PHRASES)
    meant = PHRASES.parse(told)
    assert same.any()
    assert [PHRASES.parse(text) == meant for text in KNOWN] == same.tolist()


def test_what_no_episode_was_told_is_nobodys_goal():
    told = [*PHRASES.all("held_out")][5]
    others = [text for text in KNOWN if PHRASES.parse(text) != PHRASES.parse(told)]
    assert not same_goal(told, others, PHRASES).any()


def test_words_are_compared_where_their_meaning_is_unknown():
    """Both name the same colours, and neighbours tell which belongs to what."""
    said = "Move the red cube into the blue bin!"
    found = same_goal(said, [BLUE, RED, "open the drawer", RED])
    assert found.tolist() == [False, True, False, True]
    foreign = [f"{text}, please" for text in (BLUE, RED)]  # which the task cannot read
    assert same_goal(RED, foreign, PHRASES).tolist() == [False, True]
    assert not same_goal("pour out 30 beads", [RED, BLUE]).any()


def test_likeness_is_one_of_the_same_and_zero_of_what_shares_no_word():
    found = likeness(RED, [RED, BLUE, "wave"])
    assert found[0] == pytest.approx(1.0)
    assert 0.0 < found[1] < 1.0
    assert found[2] == 0.0


def test_the_episode_that_began_alike_shows_the_goal(shown, toy_data):
    """Beginning as a demonstration did, its own end is remembered, in the words of the dataset."""
    dataset, env = EpisodeDataset(toy_data), make_env(toy.ENV_ID, **{"image_size": toy.SIZE})
    recall, table = Recall(toy_data, shown, env), dataset.episodes
    wrapped = GoalPictures(env, recall)
    found = []
    for episode in range(len(table)):
        asked = {"instruction": table.instruction[episode]}
        observation, info = wrapped.reset(seed=int(table.seed[episode]), options=asked)
        found.append(info["goal_source"])
        last = table.start[episode] + table.length[episode] - 1
        for camera, picture in observation["goal_pixels"].items():
            assert (picture == dataset.frames(camera)[last]).all()
    assert found == [f"{toy_data}, episode {k}: {text}" for k, text in enumerate(table.instruction)]


def test_only_those_that_did_what_is_told_are_remembered(shown, toy_data):
    dataset, env = EpisodeDataset(toy_data), make_env(toy.ENV_ID, **{"image_size": toy.SIZE})
    told = {*dataset.episodes.instruction}
    wrapped = GoalPictures(env, Recall(toy_data, shown, env))
    for instruction in told:
        source = wrapped.reset(seed=3, options={"instruction": instruction})[1]["goal_source"]
        assert source.endswith(f": {instruction}")


def test_episodes_that_failed_show_no_goal(tmp_path):
    succeeded, failed = (toy.example(seed=k, success=k == 0) for k in range(2))
    mixed = EpisodeDataset(recording(tmp_path / "mixed", failed, succeeded))
    assert usable(mixed, succeeded.env_id).tolist() == [1]
    with pytest.raises(DatasetError, match="none shows a goal"):
        usable(EpisodeDataset(recording(tmp_path / "bad", failed)), failed.env_id)


def test_recordings_that_do_not_help_say_why(shown, toy_data, tmp_path):
    env = make_env(toy.ENV_ID, **{"image_size": toy.SIZE})
    with pytest.raises(DatasetError, match="holds no recorded episode"):
        Recall(tmp_path / "nothing", shown, env)
    other = recording(tmp_path / "other", toy.example(length=4))
    with pytest.raises(DatasetError, match=r"recorded in robolearn/Example-v0 and not in Toy-v0"):
        Recall(other, shown, env)
    with EpisodeWriter(
        tmp_path / "top", arm=toy.TOY_ARM, fps=20, cameras={"top": toy.SIZE}
    ) as writer:
        writer.append(toy.example(length=4, cameras={"top": toy.SIZE}))
    with pytest.raises(DatasetError, match="no camera wrist"):
        Recall(tmp_path / "top", shown, env)
    wide = {name: (12, 32) for name in toy.CAMERAS}
    with EpisodeWriter(tmp_path / "wide", arm=toy.TOY_ARM, fps=20, cameras=wide) as writer:
        writer.append(toy.example(length=4, cameras=wide))
    with pytest.raises(ValueError, match="proportions"):
        Recall(tmp_path / "wide", shown, env)
    with pytest.raises(DatasetError, match="told anything like 'stir the red soup'"):
        GoalPictures(env, Recall(toy_data, shown, env)).reset(
            seed=0, options={"instruction": "stir the red soup"}
        )


def test_a_result_and_its_report_tell_which_episode_was_shown(shown, toy_data, tmp_path):
    config = EvalConfig(
        policy=shown,
        env=toy.ENV_ID,
        out=tmp_path / "eval",
        goal=("words",),
        goal_data=toy_data,
        episodes=2,
        videos=1,
        workers=0,
    )
    evaluate(config)
    result = json.loads((tmp_path / "eval" / "result.json").read_text())
    for episode in result["episodes"]:
        assert episode["goal_source"].startswith(f"{toy_data}, episode ")
    write_report(tmp_path / "eval", None, tmp_path / "report.html")
    assert f"shown: {toy_data}, episode " in (tmp_path / "report.html").read_text()
    strip = cv2.imread(str(tmp_path / "eval" / result["episodes"][0]["strip"]))
    assert np.ptp(strip) > 0


def test_words_and_a_recording_go_together(shown, toy_run, toy_data):
    wordy = EvalConfig(policy=shown, env=toy.ENV_ID, goal=("words",))
    with pytest.raises(ValueError, match="--goal-data"):
        evaluate(wordy)
    plain = EvalConfig(policy=shown, env=toy.ENV_ID, goal_data=toy_data)
    with pytest.raises(ValueError, match="--goal words"):
        evaluate(plain)
    deaf = EvalConfig(policy=str(toy_run), goal=("words",), goal_data=toy_data)
    with pytest.raises(ValueError, match="is told its goal"):
        evaluate(deaf)
    assert not default_folder(deaf).exists()
    named = EvalConfig(policy=shown, env=toy.ENV_ID, goal=("words",), goal_data=toy_data)
    assert default_folder(named).name == f"eval-goal-words-{toy_data.name}-Toy-v0"
