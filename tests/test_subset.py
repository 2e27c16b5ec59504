"""Some episodes of a dataset: their rows, pictures and windows, and nothing of the others."""

import numpy as np
import pytest
import toy

from robolearn.dataset import EpisodeDataset
from robolearn.episodes import EpisodeWriter
from robolearn.features import PictureFeatures
from robolearn.subset import Subset

LENGTHS = (4, 7, 5, 6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("subset") / "data"
    with EpisodeWriter(root, arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS) as writer:
        for seed, length in enumerate(LENGTHS):
            writer.append(toy.example(seed=seed, length=length, instruction=f"task {seed}"))
    return EpisodeDataset(root)


def rows_of(dataset, number):
    start = dataset.episodes.start[number]
    return slice(start, start + dataset.episodes.length[number])


def test_it_has_the_rows_and_pictures_of_what_was_chosen(whole):
    part = Subset(whole, [3, 1])
    assert len(part) == 13
    table = part.episodes
    assert table.seed.tolist() == [3, 1]
    assert table.instruction == ("task 3", "task 1")
    assert table.start.tolist() == [0, 6]
    for number, there in enumerate((3, 1)):
        mine, its = rows_of(part, number), rows_of(whole, there)
        assert part.columns.keys() == whole.columns.keys()
        for name, values in part.columns.items():
            assert np.array_equal(values[mine], whole.columns[name][its]), name
        for camera in whole.cameras:
            assert np.array_equal(part.frames(camera)[mine], whole.frames(camera)[its])
    assert part.frames("top", (6, 8)).shape == (13, 6, 8, 3)


def test_its_windows_end_with_its_episodes(whole):
    windows = Subset(whole, [2, 0]).windows(4, ("top",))
    batch = windows.get(np.array([4, 5]))
    assert batch["instruction"] == ["task 2", "task 0"]
    assert batch["mask"].tolist() == [[True, False, False, False], [True] * 4]
    assert np.array_equal(batch["pixels"]["top"][1], whole.frames("top")[0])


def test_what_a_model_sees_in_it_is_that_of_the_whole(whole):
    features = PictureFeatures("mean", (3,), lambda seen: seen.mean((1, 2)).astype(np.float16))
    part = Subset(whole, [1])
    assert np.array_equal(
        part.features("top", features), whole.features("top", features)[rows_of(whole, 1)]
    )
