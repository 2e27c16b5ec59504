"""Recording: it goes on where it stopped, and keeps what it should."""

from dataclasses import replace

import numpy as np
import pytest
import toy

from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError
from robolearn.options import RecordConfig
from robolearn.record import main, record


def config(folder, **changes):
    settings = {"env": toy.ENV_ID, "image_size": toy.SIZE, "workers": 0}
    return RecordConfig(out=folder, **{**settings, **changes})


def seeds(folder):
    return EpisodeDataset(folder).episodes.seed.tolist()


def test_recordings_of_the_expert_are_a_dataset(toy_data):
    dataset = EpisodeDataset(toy_data)
    assert len(dataset.episodes) == 6
    assert dataset.arm == toy.TOY_ARM
    assert dataset.cameras == toy.CAMERAS
    assert dataset.episodes.success.all()
    assert set(dataset.episodes.instruction) <= set(toy.INSTRUCTIONS)
    assert dataset.frames("top").max() > 150


def test_failures_of_the_expert_are_dropped_unless_they_are_wanted(tmp_path, toy_data):
    # Of the toy's seeds every fifth fails, the very first among them.
    assert seeds(toy_data) == [1_000_001, 1_000_002, 1_000_003, 1_000_004, 1_000_006, 1_000_007]
    record(config(tmp_path / "d", episodes=3, keep_failures=True, seed=9))
    assert seeds(tmp_path / "d") == [9, 10, 11]
    assert EpisodeDataset(tmp_path / "d").episodes.success.tolist() == [True, False, True]


def test_a_script_that_only_fails_does_not_go_on_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("robolearn.record.PATIENCE", 1)
    words = f"the script of {toy.ENV_ID} failed 1 times in a row: make the task easier"
    with pytest.raises(ValueError, match=words):
        record(config(tmp_path / "d", episodes=3, seed=9))
    assert seeds(tmp_path / "d") == [9]  # what was recorded stays
    monkeypatch.setattr("robolearn.record.PATIENCE", 2)  # a success begins the count anew
    assert record(config(tmp_path / "d", episodes=9, seed=9)) == 9


def test_a_recording_goes_on_without_repeating_a_seed(tmp_path):
    folder = tmp_path / "d"
    assert record(config(folder, episodes=3, seed=4)) == 3
    assert record(config(folder, episodes=6, seed=4)) == 6
    assert seeds(folder) == [4, 6, 7, 8, 9, 11]
    assert record(config(folder, episodes=6, seed=4)) == 6  # nothing left to do
    assert record(config(folder, episodes=2, seed=4)) == 6
    assert record(config(folder, episodes=7, seed=100)) == 7
    assert seeds(folder)[-1] == 101


def test_two_tasks_are_not_mixed_in_one_dataset(tmp_path):
    record(config(tmp_path / "d", episodes=1))
    with pytest.raises(ValueError, match=f"holds {toy.ENV_ID}, not robolearn/PickPlace-v0"):
        record(config(tmp_path / "d", episodes=2, env="robolearn/PickPlace-v0"))


def test_workers_do_not_change_what_is_recorded(tmp_path):
    for workers in (0, 2):
        record(config(tmp_path / str(workers), episodes=4, workers=workers))
    alone, together = (EpisodeDataset(tmp_path / str(workers)) for workers in (0, 2))
    assert together.episodes.instruction == alone.episodes.instruction
    np.testing.assert_array_equal(together.episodes.seed, alone.episodes.seed)
    for name in alone.columns.keys() - {"wall_time"}:
        np.testing.assert_array_equal(together.columns[name], alone.columns[name], name)
    for camera in alone.cameras:
        np.testing.assert_array_equal(together.frames(camera), alone.frames(camera))


def test_another_camera_size_is_refused_and_nothing_is_lost(tmp_path):
    record(config(tmp_path / "d", episodes=1))
    with pytest.raises(DatasetError, match="was recorded with another cameras"):
        record(config(tmp_path / "d", episodes=2, image_size=(16, 16)))
    assert len(seeds(tmp_path / "d")) == 1


def test_a_task_without_an_expert_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(toy.Toy, "expert")
    with pytest.raises(ValueError, match="has no scripted expert"):
        record(config(tmp_path / "d"))
    with pytest.raises(ValueError, match="no environment 'robolearn/PickPlce-v0'; near matches"):
        record(config(tmp_path / "d", env="robolearn/PickPlce-v0"))
    assert not (tmp_path / "d").exists()


def test_a_simulator_that_breaks_leaves_what_was_recorded(tmp_path, monkeypatch):
    original = toy.Toy.step

    def step(self, action):
        if self.seed == 1_000_003:
            raise ArithmeticError("broken")
        return original(self, action)

    monkeypatch.setattr(toy.Toy, "step", step)
    with pytest.raises(ArithmeticError):
        record(config(tmp_path / "d", episodes=9))
    assert seeds(tmp_path / "d") == [1_000_001, 1_000_002]


def test_the_command_says_what_to_do_next(tmp_path, capsys):
    assert main(config(tmp_path / "d", episodes=1)) == 0
    assert f"robolearn train --data {tmp_path / 'd'} --out runs/NAME" in capsys.readouterr().out


def test_other_splits_and_variations_are_not_mixed_in(tmp_path):
    settings = RecordConfig(out=tmp_path / "data", env="robolearn/Reach-v0", episodes=1, workers=0)
    record(settings)
    with pytest.raises(ValueError, match="recorded with split train, not novel_scene; take anot"):
        record(replace(settings, episodes=2, split="novel_scene"))
    with pytest.raises(ValueError, match="with variations none, not {'light': 1}; take another"):
        record(replace(settings, episodes=2, variations={"light": 1}))


def test_one_goal_may_be_demonstrated_in_all_episodes(tmp_path):
    goal = toy.INSTRUCTIONS[2]
    record(config(tmp_path / "data", episodes=3, instruction=goal))
    assert set(EpisodeDataset(tmp_path / "data").episodes.instruction) == {goal}
    with pytest.raises(ValueError, match="was recorded with instruction go up to the red dot"):
        record(config(tmp_path / "data", episodes=4))


def test_wrong_labels_may_all_hide_the_same_goal(tmp_path):
    told, pursued = "reach for the red marker", "reach for the blue marker"
    settings = RecordConfig(
        out=tmp_path / "data", env="robolearn/Reach-v0", obs_type="state", episodes=2, workers=0
    )
    with pytest.raises(ValueError, match="--pursued is what wrong labels hide: give --variations"):
        record(replace(settings, pursued=pursued))
    settings = replace(settings, instruction=told, variations={"label": 4})
    record(replace(settings, pursued=pursued))
    assert set(EpisodeDataset(tmp_path / "data").episodes.instruction) == {told}
    with pytest.raises(ValueError, match=f"was recorded with pursued {pursued}, not none; take"):
        record(replace(settings, episodes=3))
    dataset = EpisodeDataset(tmp_path / "data")
    for end in np.cumsum(dataset.episodes.length) - 1:
        markers, tips, told_one = np.split(dataset.columns["environment_state"][end], [12, 15])
        away = np.linalg.norm(markers.reshape(4, 3) + [0, 0, 0.02] - tips, axis=1)
        assert away.argmin() == 2  # blue
        assert away.min() < 0.02
        assert told_one.argmax() == 0  # red


def test_styles_and_qualities_may_be_mixed(tmp_path):
    settings = RecordConfig(out=tmp_path / "data", env="robolearn/Reach-v0", episodes=1, workers=0)
    record(settings)
    assert record(replace(settings, episodes=2, style="slow", quality=0.3)) == 2
    fast, slow = EpisodeDataset(tmp_path / "data").episodes.length
    assert slow > fast
