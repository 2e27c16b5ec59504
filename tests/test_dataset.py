"""The reader: what was recorded comes back exactly, from our recordings and from anyone's."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import robolearn.frames as frames
from robolearn import lerobot_format as v3
from robolearn.contract import SO101
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.examples import example_episode
from robolearn.units import unit_map
from robolearn.windows import Windows

CAMERAS = {"top": (32, 48), "wrist": (24, 24)}
REAL = Path(__file__).parents[2] / "shared/data/so101_real_recording"
JOINT_NAMES = [f"{joint}.pos" for joint in SO101.joints]


def make(seed=0, length=6, **settings):
    return example_episode(length, seed, **{"cameras": CAMERAS, **settings})


def record(root, *recorded, cameras=CAMERAS):
    with EpisodeWriter(root, arm=SO101, fps=20, cameras=cameras) as writer:
        for episode in recorded:
            writer.append(episode)


RECORDED = (
    make(3, 5),
    make(4, 1, instruction="stack the cubes", success=False),
    make(5, 7),
)


@pytest.fixture
def root(tmp_path):
    record(tmp_path / "set", *RECORDED)
    return tmp_path / "set"


def joined(name):
    arrays = [e.observations.get(name, getattr(e, name, None)) for e in RECORDED]
    return np.concatenate(arrays)


# Our own recordings ------------------------------------------------------------------------------


def test_every_column_comes_back_bit_by_bit(root):
    dataset = EpisodeDataset(root)
    assert len(dataset) == 13
    for name in ("agent_pos", "agent_vel", "agent_effort", "action", "action_requested", "reward"):
        assert dataset.columns[name].dtype == np.float32
        np.testing.assert_array_equal(dataset.columns[name], joined(name))
    for name in ("success", "progress", "intervention", "wall_time"):
        np.testing.assert_array_equal(dataset.columns[name], joined(name))
    ends = np.array([4, 5, 12])
    assert np.flatnonzero(dataset.columns["terminated"]).tolist() == [4, 12]
    assert np.flatnonzero(dataset.columns["truncated"]).tolist() == [5]
    assert (dataset.arm, dataset.fps, dataset.cameras) == (SO101, 20, CAMERAS)
    table = dataset.episodes
    np.testing.assert_array_equal(table.start + table.length - 1, ends)
    assert table.seed.tolist() == [3, 4, 5]
    assert table.success.tolist() == [True, False, True]
    assert table.instruction == tuple(episode.instruction for episode in RECORDED)


def test_privileged_state_comes_back(tmp_path):
    episode = make(state_size=4)
    record(tmp_path, episode)
    state = EpisodeDataset(tmp_path).columns["environment_state"]
    np.testing.assert_array_equal(state, episode.observations["environment_state"])


def test_frames_come_back_in_order(root):
    for camera, size in CAMERAS.items():
        pixels = EpisodeDataset(root).frames(camera)
        assert pixels.shape == (13, *size, 3)
        assert not pixels.flags.writeable
        error = np.abs(pixels.astype(int) - joined(f"pixels/{camera}")).mean(axis=(1, 2, 3))
        assert error.max() < 4


def test_statistics(root):
    statistics = EpisodeDataset(root).statistics()
    assert statistics.keys() == {"agent_pos", "agent_vel", "agent_effort", "action"}
    for name, entries in statistics.items():
        values = joined(name).astype(np.float64)
        for key in ("min", "max", "mean", "std"):
            assert entries[key].dtype == np.float32
            np.testing.assert_allclose(entries[key], getattr(values, key)(axis=0), rtol=1e-6)


def test_chunks_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr(v3, "CHUNK_SIZE", 2)
    record(tmp_path, *RECORDED)
    monkeypatch.undo()
    dataset = EpisodeDataset(tmp_path)
    np.testing.assert_array_equal(dataset.columns["action"], joined("action"))
    assert dataset.frames("top").shape[0] == 13


def test_another_arm_is_named_by_its_joints(root):
    other = replace(SO101, name="arm7", joints=("base", *SO101.joints[1:]))
    EpisodeDataset(root).check_arm(SO101)
    for read in (
        lambda: EpisodeDataset(root).check_arm(other),
        lambda: EpisodeDataset(root, arm=other),
    ):
        with pytest.raises(DatasetError, match="dataset: shoulder_pan; only in arm7: base"):
            read()


def test_the_same_joints_in_another_order_are_another_arm(root):
    other = replace(SO101, joints=SO101.joints[::-1])
    with pytest.raises(DatasetError, match="the dataset's order is shoulder_pan, shoulder_lift"):
        EpisodeDataset(root).check_arm(other)


def test_an_uncommitted_episode_is_invisible(root):
    """As a crash just before the commit leaves it."""
    info = (root / v3.INFO).read_bytes()
    record(root, make(9, instruction="throw the cube"))
    (root / v3.INFO).write_bytes(info)
    dataset = EpisodeDataset(root)
    np.testing.assert_array_equal(dataset.columns["action"], joined("action"))
    assert len(dataset.frames("top")) == 13


# Damage ------------------------------------------------------------------------------------------


def test_a_folder_without_episodes(tmp_path):
    with pytest.raises(DatasetError, match="holds no recorded episode"):
        EpisodeDataset(tmp_path / "nothing")
    record(tmp_path)
    with pytest.raises(DatasetError, match="holds no recorded episode"):
        EpisodeDataset(tmp_path)


def edit_info(root, **changes):
    info = json.loads((root / v3.INFO).read_text())
    (root / v3.INFO).write_text(json.dumps({**info, **changes}))


def drop_feature(root, key):
    features = json.loads((root / v3.INFO).read_text())["features"]
    del features[key]
    edit_info(root, features=features)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / v3.INFO).write_text("{"), "info.json is damaged"),
        (lambda root: edit_info(root, codebase_version="v2.1"), "version v2.1: convert it to v3.0"),
        (lambda root: drop_feature(root, "action"), "has no column action; it has: observation"),
        (lambda root: edit_info(root, total_episodes=4), "does not list every episode"),
        (lambda root: (root / v3.location(v3.DATA, 1)).write_bytes(b"x" * 99), "data is damaged"),
        (lambda root: (root / v3.location(v3.DATA, 1)).unlink(), "does not hold the frames"),
        (lambda root: (root / v3.location(v3.EPISODES, 2)).unlink(), "does not list every episode"),
    ],
)
def test_a_damaged_dataset_is_refused(root, damage, words):
    damage(root)
    with pytest.raises(DatasetError, match=words):
        EpisodeDataset(root)


def test_without_videos_states_and_actions_remain(root, caplog):
    (root / v3.location(v3.VIDEO, 1, "wrist")).unlink()
    dataset = EpisodeDataset(root)
    assert "the videos of wrist are missing" in caplog.text
    assert (set(dataset.cameras), dataset.unavailable_cameras) == ({"top"}, ("wrist",))
    assert len(dataset.windows(4, cameras=["top"])) == 13
    with pytest.raises(DatasetError, match="videos of camera wrist are missing"):
        dataset.frames("wrist")
    with pytest.raises(DatasetError, match="no camera front; it has: top"):
        dataset.frames("front")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_an_interrupted_video_is_named(root, share):
    video = root / v3.location(v3.VIDEO, 2, "top")
    content = video.read_bytes()
    video.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match=f"{video} is (damaged|cut short)"):
        EpisodeDataset(root).frames("top")
    assert not list((root / "cache").glob("*.u8*"))


def test_a_video_with_too_few_frames_is_named(root):
    video = root / v3.location(v3.VIDEO, 2, "top")
    video.write_bytes((root / v3.location(v3.VIDEO, 0, "top")).read_bytes())
    with pytest.raises(DatasetError, match=f"{video} is cut short: 2 frames .* from number 5 on"):
        EpisodeDataset(root).frames("top")


# The cache of decoded frames ---------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded."""
    names, decode = [], frames.decode_video

    def spy(path, fps):
        names.append(path.name)
        return decode(path, fps)

    monkeypatch.setattr(frames, "decode_video", spy)
    return names


def test_frames_are_decoded_once_and_extended_by_new_episodes(root, decoded):
    first = EpisodeDataset(root).frames("top")
    assert sorted(decoded) == [f"file-00{i}.mp4" for i in range(3)]
    decoded.clear()
    np.testing.assert_array_equal(EpisodeDataset(root).frames("top"), first)
    assert not decoded
    record(root, make(6, 4))
    longer = EpisodeDataset(root).frames("top")
    assert decoded == ["file-003.mp4"]
    assert len(longer) == 17
    np.testing.assert_array_equal(longer[:13], first)


@pytest.mark.parametrize("stale", ["video", "label", "size"])
def test_a_stale_cache_is_rebuilt(root, decoded, stale):
    cache = root / "cache/top-32x48.u8"
    right = np.array(EpisodeDataset(root).frames("top"))
    decoded.clear()
    if stale == "video":
        os.utime(root / v3.location(v3.VIDEO, 0, "top"), (1, 1))
    elif stale == "label":
        cache.with_suffix(".json").write_text("not JSON")
    else:
        cache.write_bytes(cache.read_bytes()[:-1])
    np.testing.assert_array_equal(EpisodeDataset(root).frames("top"), right)
    assert len(decoded) == 3


def test_frames_are_scaled_by_area(root):
    dataset = EpisodeDataset(root)
    small = dataset.frames("top", (16, 12))
    expected = [
        cv2.resize(f, (12, 16), interpolation=cv2.INTER_AREA) for f in dataset.frames("top")
    ]
    np.testing.assert_array_equal(small, expected)


def test_the_cache_may_live_elsewhere(root, tmp_path):
    EpisodeDataset(root, cache=tmp_path / "elsewhere").frames("top")
    assert (tmp_path / "elsewhere/top-32x48.u8").exists()
    assert not (root / "cache").exists()


def test_no_room_for_the_cache(root, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DatasetError, match=r"No space left.*needs .* GB; free some space or pass"):
        EpisodeDataset(root).frames("top")
    assert not list((root / "cache").glob("*.u8*"))


# Other people's recordings -----------------------------------------------------------------------


def foreign(root, *, use_videos, seed=0):
    """Three episodes by stock lerobot, which puts them into one file; returns what was recorded."""
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets import LeRobotDataset

    joints = {"dtype": "float32", "shape": (6,), "names": JOINT_NAMES}
    picture = {"shape": (32, 48, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.state": joints,
        "action": joints,
        "observation.images.top": {"dtype": "video" if use_videos else "image", **picture},
    }
    encoder = RGBEncoderConfig(vcodec="h264", crf=10) if use_videos else None
    dataset = LeRobotDataset.create(
        "robolearn/foreign", 30, features, root, use_videos=use_videos, rgb_encoder=encoder
    )
    recorded = [example_episode(n, seed + n, cameras={"top": (32, 48)}) for n in (4, 3, 5)]
    for number, episode in enumerate(recorded):
        for frame in range(len(episode)):
            dataset.add_frame(
                {
                    "observation.state": episode.observations["agent_pos"][frame],
                    "action": episode.action[frame],
                    "observation.images.top": episode.observations["pixels/top"][frame],
                    "task": f"task {number}",
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return recorded


@pytest.mark.parametrize("use_videos", [True, False])
def test_stock_recordings_with_many_episodes_in_a_file(tmp_path, monkeypatch, use_videos):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    recorded = foreign(tmp_path / "set", use_videos=use_videos)
    assert len(list((tmp_path / "set/data").rglob("*.parquet"))) == 1
    dataset = EpisodeDataset(tmp_path / "set", units="si")
    assert dataset.episodes.length.tolist() == [4, 3, 5]
    assert dataset.episodes.instruction == ("task 0", "task 1", "task 2")
    assert dataset.episodes.seed.tolist() == [-1, -1, -1]
    assert dataset.columns.keys() == {"agent_pos", "action"}
    actions = np.concatenate([episode.action for episode in recorded])
    np.testing.assert_array_equal(dataset.columns["action"], actions)
    pictures = np.concatenate([episode.observations["pixels/top"] for episode in recorded])
    error = np.abs(dataset.frames("top").astype(int) - pictures).mean(axis=(1, 2, 3))
    assert error.max() < (4 if use_videos else 1e-9)
    batch = dataset.windows(2, cameras=["top"]).get(np.array([0, 3]))
    assert "reward" not in batch
    assert batch["mask"].tolist() == [[True, True], [True, False]]


def test_units_must_be_said_and_only_once(root, tmp_path):
    with pytest.raises(DatasetError, match="is in si units: do not pass 'percent'"):
        EpisodeDataset(root, units="percent")
    (root / v3.OURS).unlink()
    with pytest.raises(DatasetError, match="does not say its units: pass units='percent'"):
        EpisodeDataset(root)
    with pytest.raises(DatasetError, match="does not say its units"):
        EpisodeDataset(root, units="radians")
    np.testing.assert_array_equal(
        EpisodeDataset(root, units="si").columns["action"], joined("action")
    )


def test_an_unknown_arm_must_be_described(root):
    (root / v3.OURS).unlink()
    features = json.loads((root / v3.INFO).read_text())["features"]
    names = ["base.pos", *JOINT_NAMES[1:]]
    for layout in (names, {"motors": names}):
        features["action"]["names"] = layout
        edit_info(root, features=features)
        with pytest.raises(DatasetError, match=r"unknown arm \(joints base, .*pass its ArmSpec"):
            EpisodeDataset(root, units="si")
        arm = replace(SO101, name="arm7", joints=("base", *SO101.joints[1:]))
        assert EpisodeDataset(root, units="si", arm=arm).arm == arm
        with pytest.raises(DatasetError, match="dataset: base; only in so101: shoulder_pan"):
            EpisodeDataset(root, units="si", arm=SO101)


def test_percent_spans_the_range_and_degrees_count_from_its_middle():
    low, high = np.array(SO101.low), np.array(SO101.high)
    scale, offset = unit_map(SO101, "percent")
    ends = np.where(np.arange(6) == 5, 0, -100), np.full(6, 100)
    np.testing.assert_allclose(scale * ends[0] + offset, low)
    np.testing.assert_allclose(scale * ends[1] + offset, high)
    scale, offset = unit_map(SO101, "degrees")
    np.testing.assert_allclose(offset[:5], (low + high)[:5] / 2)
    np.testing.assert_allclose(scale[:5] * 180, np.pi)
    assert (scale[5], offset[5]) == (0.01, 0.0)  # the gripper is in percent in both
    scale, offset = unit_map(SO101, "si")
    assert (scale == 1).all()
    assert (offset == 0).all()


def test_velocities_are_scaled_without_offset(root):
    (root / v3.OURS).unlink()
    columns = EpisodeDataset(root, units="degrees").columns
    scale, offset = unit_map(SO101, "degrees")
    np.testing.assert_allclose(columns["agent_vel"], joined("agent_vel") * scale, rtol=1e-6)
    np.testing.assert_allclose(columns["action"], joined("action") * scale + offset, rtol=1e-5)
    np.testing.assert_array_equal(columns["agent_effort"], joined("agent_effort"))


@pytest.mark.skipif(not REAL.exists(), reason=f"the real recording is not at {REAL}")
def test_a_real_recording_without_videos():
    dataset = EpisodeDataset(REAL, units="percent")
    assert (len(dataset), len(dataset.episodes), dataset.fps) == (1492, 4, 30)
    assert dataset.unavailable_cameras == ("front", "top")
    dataset.check_arm(SO101)
    low, high = np.float32(SO101.low), np.float32(SO101.high)
    for name in ("agent_pos", "action"):
        values = dataset.columns[name]
        assert (values >= low - 1e-6).all()
        assert (values <= high + 1e-6).all()
        assert np.ptp(values, axis=0).min() > 0.1  # rad; every joint moved
    # The arm follows its targets, so the two are in the same units.
    error = np.abs(dataset.columns["agent_pos"] - dataset.columns["action"])
    assert np.median(error) < 0.05
    rows = pq.read_table(REAL / "data/chunk-000/file-000.parquet")
    percent = np.array(rows["action"][700].as_py())
    expected = low + (percent + 100) / 200 * (high - low)
    expected[5] = percent[5] / 100
    np.testing.assert_allclose(dataset.columns["action"][700], expected, atol=1e-6)
    assert dataset.episodes.instruction[0] == "Pick the orange cube and place it in the box"
    assert dataset.windows(8).get(np.array([372]))["mask"].sum() == 1


# Windows -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    horizon=st.integers(1, 12),
    data=st.data(),
)
def test_windows_stay_inside_their_episode(lengths, horizon, data):
    total = sum(lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    number = np.arange(total, dtype=np.float32)
    columns = {
        "agent_pos": number[:, None],
        "action": np.stack([number, owner], -1).astype(np.float32),
        "reward": number + 1,
        "terminated": np.append(np.diff(owner) > 0, True),
    }
    pixels = {"top": number.astype(np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)}
    windows = Windows(
        horizon, np.array(lengths), [f"task {i}" for i in owner], columns, {"pixels": pixels}
    )
    assert len(windows) == total
    indices = np.array(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=20)))
    batch = windows.get(indices)
    ends = np.cumsum(lengths)[owner]
    for row, index in enumerate(indices):
        inside = min(horizon, ends[index] - index)
        assert batch["mask"][row].tolist() == [True] * inside + [False] * (horizon - inside)
        steps = np.minimum(index + np.arange(horizon), ends[index] - 1)
        np.testing.assert_array_equal(batch["action"][row], columns["action"][steps])
        assert (batch["action"][row, :, 1] == owner[index]).all()
        rewards = [*columns["reward"][index : index + inside], *[0] * (horizon - inside)]
        assert batch["reward"][row].tolist() == rewards
        assert batch["terminated"][row].sum() == (index + horizon >= ends[index])
        assert not (batch["terminated"][row] & ~batch["mask"][row]).any()
        assert batch["agent_pos"][row, 0] == index
        assert (batch["pixels"]["top"][row] == index).all()
        assert batch["episode"][row] == owner[index]


def test_a_batch_has_the_promised_shapes(root):
    windows = EpisodeDataset(root).windows(16, cameras=("top", "wrist"), image_size=(20, 20))
    batch = windows.get(np.array([12, 0, 5, 5]))
    shapes = {key: (v.dtype, v.shape) for key, v in batch.items() if isinstance(v, np.ndarray)}
    joints, steps = (np.float32, (4, 6)), (4, 16)
    assert shapes == {
        **dict.fromkeys(("agent_pos", "agent_vel", "agent_effort"), joints),
        "action": (np.float32, (4, 16, 6)),
        **dict.fromkeys(("reward", "progress"), (np.float32, steps)),
        **dict.fromkeys(
            ("success", "terminated", "truncated", "intervention", "mask"), (np.bool_, steps)
        ),
        "episode": (np.int64, (4,)),
    }
    assert {k: (v.dtype, v.shape) for k, v in batch["pixels"].items()} == dict.fromkeys(
        ("top", "wrist"), (np.uint8, (4, 20, 20, 3))
    )
    assert batch["instruction"] == [RECORDED[i].instruction for i in (2, 0, 1, 1)]


def test_a_window_is_at_least_one_step(root):
    with pytest.raises(ValueError, match="at least one step"):
        EpisodeDataset(root).windows(0)


def test_a_window_is_what_was_recorded(root):
    batch = EpisodeDataset(root).windows(3).get(np.array([7]))
    episode = RECORDED[2]
    np.testing.assert_array_equal(batch["agent_pos"][0], episode.observations["agent_pos"][1])
    np.testing.assert_array_equal(batch["action"][0], episode.action[1:4])
    np.testing.assert_array_equal(batch["progress"][0], episode.progress[1:4])
