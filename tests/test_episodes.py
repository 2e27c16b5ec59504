"""The recorder: what it writes is exact, and nothing that was recorded is ever lost."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

import robolearn.episodes as episodes
import robolearn.files as files
from robolearn import lerobot_format as v3
from robolearn.contract import SO101
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.examples import example_episode
from robolearn.lerobot_statistics import column_statistics, image_statistics, merge_statistics

CAMERAS = {"top": (32, 32)}
FPS = 20


class Crash(BaseException):
    """What `kill -9` is to the files: nothing after it runs."""


def record(root, *recorded, cameras=CAMERAS, **settings):
    with EpisodeWriter(root, arm=SO101, fps=FPS, cameras=cameras, **settings) as writer:
        return [writer.append(episode) for episode in recorded]


def make(seed=0, length=6, **settings):
    return example_episode(length, seed, **{"cameras": CAMERAS, **settings})


@pytest.fixture
def stock(tmp_path, monkeypatch):
    """Opens a folder with stock lerobot, offline."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets
    import huggingface_hub.constants
    from lerobot.datasets import LeRobotDataset

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return lambda root, **settings: LeRobotDataset("robolearn/test", root=root, **settings)


def assert_holds(dataset, *recorded, tolerance=4.0):
    """Stock lerobot gives every frame of these episodes, and no other."""
    assert dataset.num_episodes == len(recorded)
    assert len(dataset) == sum(len(episode) for episode in recorded)
    index = 0
    for number, episode in enumerate(recorded):
        for frame in range(len(episode)):
            assert_same(dataset[index], episode, number, frame, tolerance)
            index += 1


def assert_same(item, episode, number, frame, tolerance):
    seen = episode.observations
    expected = {
        "observation.state": seen["agent_pos"][frame],
        "observation.velocity": seen["agent_vel"][frame],
        "observation.effort": seen["agent_effort"][frame],
        "action": episode.action[frame],
        "complementary_info.action_requested": episode.action_requested[frame],
        "next.reward": episode.reward[frame],
        "next.progress": episode.progress[frame],
        "next.success": episode.success[frame],
        "next.done": frame == len(episode) - 1,
        "next.truncated": episode.truncated and frame == len(episode) - 1,
        "intervention": episode.intervention[frame],
        "seed": episode.seed,
        "episode_index": number,
        "frame_index": frame,
    }
    for key, value in expected.items():
        np.testing.assert_array_equal(item[key].numpy(), value, err_msg=key)
    assert item["task"] == episode.instruction
    for camera in (key for key in seen if key.startswith("pixels/")):
        image = item[camera.replace("pixels/", v3.CAMERA)].numpy().transpose(1, 2, 0) * 255
        assert np.abs(image - seen[camera][frame]).mean() < tolerance


# What is written ---------------------------------------------------------------------------------


def test_import_is_light():
    code = "import robolearn.episodes, sys; print([m for m in %r if m in sys.modules])"
    heavy = ("torch", "lerobot", "av", "pyarrow", "pandas", "cv2")
    command = [sys.executable, "-c", code % (heavy,)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("backend", ["pyav", "torchcodec"])
def test_stock_lerobot_reads_every_frame_after_every_episode(tmp_path, stock, backend):
    if backend == "torchcodec":
        pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError, OSError))
    cameras = {"top": (32, 48), "wrist": (31, 17)}  # odd sizes too
    recorded = [
        make(0, 5, cameras=cameras),
        make(1, 1, cameras=cameras, instruction="open the drawer", success=False),
        make(2, 7, cameras=cameras),
    ]
    root = tmp_path / "set"
    with EpisodeWriter(root, arm=SO101, fps=30, cameras=cameras) as writer:
        for count, episode in enumerate(recorded):
            assert writer.append(episode) == count
            assert_holds(stock(root, video_backend=backend), *recorded[: count + 1])
            assert len(writer) == count + 1


def test_pictures_come_back_nearly_as_they_were(tmp_path, stock):
    cameras = {"top": (84, 84)}
    episode = make(0, 4, cameras=cameras)
    record(tmp_path / "set", episode, cameras=cameras)
    assert_holds(stock(tmp_path / "set"), episode, tolerance=1.5)


def test_wall_time_is_stored_in_full_precision(tmp_path, stock):
    episode = make()
    record(tmp_path / "set", episode)
    stored = stock(tmp_path / "set").hf_dataset.with_format("numpy")["wall_time"]
    np.testing.assert_array_equal(np.array(stored), episode.wall_time)


def test_large_images_use_the_format_that_every_player_shows(tmp_path, stock):
    cameras = {"top": (240, 320)}
    episode = make(0, 3, cameras=cameras)
    record(tmp_path / "set", episode, cameras=cameras)
    dataset = stock(tmp_path / "set")
    assert (
        dataset.meta.info.features["observation.images.top"]["info"]["video.pix_fmt"] == "yuv420p"
    )
    assert_holds(dataset, episode)


def test_policies_of_lerobot_see_observations_and_the_sent_action_only(tmp_path, stock):
    record(tmp_path / "set", make(state_size=3))
    dataset = stock(tmp_path / "set")
    from lerobot.utils.feature_utils import dataset_to_policy_features

    features = dataset_to_policy_features(dataset.meta.features)
    assert {key: feature.type.value for key, feature in features.items()} == {
        "observation.state": "STATE",
        "observation.velocity": "STATE",
        "observation.effort": "STATE",
        "observation.images.top": "VISUAL",
        "action": "ACTION",
    }
    assert features.keys() <= dataset.meta.stats.keys()


def test_statistics_are_those_of_lerobot(stock):
    from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats

    parts, theirs = [], []
    for seed in range(2):
        episode = make(seed, 300 + 100 * seed, cameras={"top": (20, 24)})
        frames = episode.observations["pixels/top"][:100]  # lerobot samples longer ones
        parts.append(
            {"action": column_statistics(episode.action), "image": image_statistics(frames)}
        )
        image = get_feature_stats(frames.transpose(0, 3, 1, 2), (0, 2, 3), keepdims=True)
        image = {k: v if k == "count" else (v / 255)[0] for k, v in image.items()}
        action = get_feature_stats(episode.action, 0, keepdims=False)
        theirs.append({"action": action, "image": image})
    for ours, stocks in [
        *zip(parts, theirs, strict=True),
        (merge_statistics(parts), aggregate_stats(theirs)),
    ]:
        for key, entries in stocks.items():
            assert ours[key].keys() == entries.keys()
            for name, values in entries.items():
                # lerobot estimates quantiles from a histogram and rounds; ours are exact.
                tolerance = 0.1 if name.startswith("q") else 1e-4
                np.testing.assert_allclose(ours[key][name], values, atol=tolerance, err_msg=name)


def test_statistics_of_the_folder_cover_all_episodes(tmp_path, stock):
    recorded = [make(0, 5), make(1, 8)]
    record(tmp_path / "set", *recorded)
    stats = stock(tmp_path / "set").meta.stats["action"]
    actions = np.concatenate([episode.action for episode in recorded]).astype(np.float64)
    np.testing.assert_allclose(stats["mean"], actions.mean(0))
    np.testing.assert_allclose(stats["std"], actions.std(0))
    np.testing.assert_array_equal(stats["max"], actions.max(0))
    assert stats["count"] == 13


def test_recording_conditions_are_kept_beside_the_data(tmp_path):
    record(tmp_path, make(), notes={"physics": {"timestep": 0.002}})
    kept = json.loads((tmp_path / v3.OURS).read_text())
    assert kept["units"] == "si"
    assert kept["arm"]["joints"] == list(SO101.joints)
    assert kept["notes"] == {"physics": {"timestep": 0.002}}
    assert kept["versions"].keys() == {"robolearn", "mujoco"}


def test_chunk_folders_hold_a_limited_number_of_files(tmp_path, stock, monkeypatch):
    monkeypatch.setattr(v3, "CHUNK_SIZE", 2)
    recorded = [make(seed, 3) for seed in range(5)]
    record(tmp_path / "set", *recorded[:3])
    record(tmp_path / "set", *recorded[3:])
    assert (tmp_path / "set/data/chunk-002/file-000.parquet").exists()
    assert_holds(stock(tmp_path / "set"), *recorded)


# What can go wrong -------------------------------------------------------------------------------


def contents(root):
    return {
        path: path.read_bytes() for path in root.rglob("*") if path.suffix in (".parquet", ".mp4")
    }


def test_resuming_leaves_earlier_files_as_they_are(tmp_path, stock):
    root = tmp_path / "set"
    recorded = [make(seed) for seed in range(3)]
    record(root, *recorded[:2])
    before = contents(root)
    assert record(root, recorded[2]) == [2]
    after = contents(root)
    assert before.items() <= after.items()
    assert_holds(stock(root), *recorded)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_rename_loses_only_the_episode_at_hand(tmp_path, stock, monkeypatch, moment):
    kept, lost, later = make(0, 4), make(1, 5, instruction="stack the cubes"), make(2, 3)
    record(tmp_path / "origin", kept)
    survived = []
    for crash_at in itertools.count():
        root = tmp_path / f"crash-{crash_at}"
        shutil.copytree(tmp_path / "origin", root)
        if not append_and_crash(root, lost, monkeypatch, crash_at, moment):
            break
        committed = json.loads((root / v3.INFO).read_text())["total_episodes"] == 2
        survived.append(committed)
        expected = [kept, lost] if committed else [kept]
        assert_holds(stock(root), *expected)
        record(root)
        assert not [path for path in root.rglob("*") if path.suffix == files.TEMPORARY]
        assert len(list((root / "data").rglob("*.parquet"))) == len(expected)
        assert_holds(stock(root), *expected)
        stats = json.loads((root / v3.STATS).read_text())
        assert stats["action"]["count"] == [sum(len(episode) for episode in expected)]
        record(root, later)
        assert_holds(stock(root), *expected, later)
    # tasks, data, video, episodes, stats, info: only the last one commits.
    assert survived == [False] * 5 + [moment == "after"]


def append_and_crash(root, episode, monkeypatch, crash_at, moment):
    """Whether there was a rename number `crash_at`, and so a crash at it."""
    calls, rename = itertools.count(), os.replace

    def crashing(source, target):
        if next(calls) != crash_at:
            return rename(source, target)
        if moment == "after":
            rename(source, target)
        raise Crash

    with (
        monkeypatch.context() as patch,
        EpisodeWriter(root, arm=SO101, fps=FPS, cameras=CAMERAS) as w,
    ):
        patch.setattr(files.os, "replace", crashing)
        try:
            w.append(episode)
        except Crash:
            return True
    return False


def test_a_crash_in_the_first_episode_leaves_a_folder_that_records(tmp_path, stock, monkeypatch):
    for crash_at in range(6):
        root = tmp_path / str(crash_at)
        record(root)
        assert append_and_crash(root, make(1), monkeypatch, crash_at, "before")
        record(root, make(2))
        assert_holds(stock(root), make(2))


def test_the_writer_goes_on_after_an_interrupted_append(tmp_path, stock, monkeypatch):
    """Ctrl-C while the commit itself is under way: the writer asks the disk what happened."""
    root, rename = tmp_path / "set", os.replace
    with EpisodeWriter(root, arm=SO101, fps=FPS, cameras=CAMERAS) as writer:
        writer.append(make(0))
        with monkeypatch.context() as patch:

            def interrupted(source, target):
                rename(source, target)
                if str(target).endswith(v3.INFO):
                    raise KeyboardInterrupt

            patch.setattr(files.os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                writer.append(make(1))
        assert writer.append(make(2)) == 2
    assert_holds(stock(root), make(0), make(1), make(2))


CHILD = """
import sys
from robolearn.contract import SO101
from robolearn.episodes import EpisodeWriter
from robolearn.examples import example_episode
cameras = {"top": (32, 32)}
with EpisodeWriter(sys.argv[1], arm=SO101, fps=20, cameras=cameras) as writer:
    while True:
        index = writer.append(example_episode(6, len(writer), cameras=cameras))
        print(index, flush=True)
"""


def test_kill_9_loses_at_most_the_episode_being_recorded(tmp_path, stock):
    root, moments = tmp_path / "set", random.Random(0)
    total = 0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert int(child.stdout.readline()) == total
        time.sleep(moments.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        acknowledged = [total, *map(int, child.stdout.read().split())]
        child.wait()
        total = json.loads((root / v3.INFO).read_text())["total_episodes"]
        assert total >= acknowledged[-1] + 1
        assert_holds(stock(root), *(make(seed) for seed in range(total)))


@pytest.mark.parametrize("failing", range(6))
def test_full_disk_is_one_sentence_and_costs_one_episode(tmp_path, stock, monkeypatch, failing):
    root, calls, fsync = tmp_path / "set", itertools.count(), os.fsync

    def full(descriptor):
        if next(calls) == 2 * failing:  # one for the file, one for its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with EpisodeWriter(root, arm=SO101, fps=FPS, cameras=CAMERAS) as writer:
        writer.append(make(0))
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", full)
            with pytest.raises(
                DatasetError, match="the disk is full: episode 1 .* was not recorded"
            ):
                writer.append(make(1, instruction="stack the cubes"))
        assert_holds(stock(root), make(0))
        assert writer.append(make(2)) == 1
    assert_holds(stock(root), make(0), make(2))


def test_a_disk_that_is_really_full(tmp_path, stock):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        (disk / "ballast").write_bytes(bytes(600_000))
        with EpisodeWriter(disk / "set", arm=SO101, fps=FPS, cameras=CAMERAS) as writer:
            with pytest.raises(DatasetError, match="the disk is full"):
                deque(map(writer.append, map(make, range(100))))
            count = len(writer)
            assert count > 0
            shutil.copytree(disk / "set", tmp_path / "full")
            (disk / "ballast").unlink()
            assert writer.append(make(count)) == count
        shutil.copytree(disk / "set", tmp_path / "freed")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert_holds(stock(tmp_path / "full"), *(make(seed) for seed in range(count)))
    assert_holds(stock(tmp_path / "freed"), *(make(seed) for seed in range(count + 1)))


def test_a_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    root = folder / "set" if os.geteuid() else "/sys/robolearn"  # not even root writes there
    with pytest.raises(DatasetError, match=f"cannot write to {root} .*choose another one"):
        record(root, make())


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot write to .*choose another one"):
        record(tmp_path / "file" / "set", make())


def test_only_one_recorder_at_a_time(tmp_path):
    with EpisodeWriter(tmp_path, arm=SO101, fps=FPS, cameras=CAMERAS) as writer:
        with pytest.raises(DatasetError, match="is being recorded by another process"):
            record(tmp_path, make())
        writer.append(make())
    assert record(tmp_path, make()) == [1]
    with pytest.raises(DatasetError, match="is closed"):
        writer.append(make())


OTHER_ARM = replace(SO101, name="arm7", joints=("base", *SO101.joints[1:]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"arm": OTHER_ARM}, "another arm: .*shoulder_pan.*base"),
        ({"arm": replace(SO101, high=(1.0, *SO101.high[1:]))}, "another arm: .*high"),
        ({"fps": 30}, "another control rate: it has 20 instead of 30"),
        ({"cameras": {"top": (64, 64)}}, "another cameras: .*32, 32.* instead of .*64, 64"),
        ({"cameras": {**CAMERAS, "wrist": (8, 8)}}, "another cameras: .*none instead of .*wrist"),
        ({"resume": False}, "holds episodes already"),
    ],
)
def test_a_folder_of_another_recording_is_refused(tmp_path, settings, words):
    record(tmp_path, make())
    with pytest.raises(DatasetError, match=words):
        EpisodeWriter(tmp_path, **{"arm": SO101, "fps": FPS, "cameras": CAMERAS, **settings})
    assert record(tmp_path, make()) == [1]  # the refusal left no lock behind


def test_a_folder_with_someone_elses_data_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DatasetError, match="holds data that robolearn did not record"):
        record(tmp_path, make())


def test_a_damaged_info_is_named(tmp_path):
    record(tmp_path, make())
    (tmp_path / v3.INFO).write_text("{")
    with pytest.raises(DatasetError, match="info.json is damaged"):
        record(tmp_path, make())


def with_value(name, value, frame=2):
    episode = make()
    array = episode.observations.get(name, getattr(episode, name, None))
    array[frame] = value
    return episode


@pytest.mark.parametrize(
    ("episode", "words"),
    [
        (replace(make(), action=make().action.astype(np.float64)), "action must be float32"),
        (replace(make(), reward=make().reward[:-1]), r"reward must be float32 \(6,\)"),
        (replace(make(), success=None), "success must be bool"),
        (with_value("action", np.nan), "action is not finite at frame 2"),
        (with_value("agent_pos", np.inf), "agent_pos is not finite at frame 2"),
        (make(cameras={}), "no pixels"),
        (make(cameras={"top": (16, 16)}), "pixels/top must be uint8"),
        (make(cameras={**CAMERAS, "wrist": (8, 8)}), "wrist"),
        (make(length=0), "no frames"),
        (make(arm=OTHER_ARM), "another arm"),
        (make(state_size=2), "does not have the columns"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_whole(tmp_path, episode, words):
    with EpisodeWriter(tmp_path, arm=SO101, fps=FPS, cameras=CAMERAS) as writer:
        writer.append(make())
        before = contents(tmp_path)
        with pytest.raises(DatasetError, match=words):
            writer.append(episode)
        assert contents(tmp_path) == before
        assert writer.append(make(1)) == 1


@pytest.mark.parametrize("fps", [0, 12.5, -1])
def test_the_rate_must_be_a_whole_number(tmp_path, fps):
    with pytest.raises(DatasetError, match="positive whole number"):
        EpisodeWriter(tmp_path, arm=SO101, fps=fps)


def test_an_episode_that_ends_both_ways_counts_as_ended(tmp_path, stock):
    record(tmp_path / "set", replace(make(), truncated=True))
    last = stock(tmp_path / "set")[5]
    assert last["next.done"]
    assert not last["next.truncated"]


def test_an_episode_without_cameras(tmp_path, stock):
    record(tmp_path / "set", make(cameras={}), cameras={})
    assert_holds(stock(tmp_path / "set"), make(cameras={}))
    assert episodes.EpisodeWriter(tmp_path / "set", arm=SO101, fps=FPS).cameras == {}
