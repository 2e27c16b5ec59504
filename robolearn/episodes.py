"""Episodes, and the recorder that never loses one.

The recorder writes LeRobotDataset v3.0 (see `lerobot_format`) with one set of files per episode.
Every file appears whole under its final name, and `meta/info.json` comes last: the episode counts
that it states are the commit. Whatever a crash leaves behind lies beyond those counts, where
readers do not look, and the next recorder removes it. So stock lerobot opens the dataset at every
moment after the first episode, and `kill -9` costs at most the episode being recorded.
"""

import errno
import fcntl
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from robolearn import lerobot_format as v3
from robolearn.contract import ArmSpec
from robolearn.files import TEMPORARY, make_directory, write_atomic
from robolearn.lerobot_statistics import (
    Statistics,
    as_arrays,
    episode_statistics,
    merge_statistics,
)
from robolearn.video import encode_video, pixel_format


class DatasetError(ValueError):
    """A dataset cannot be read or an episode cannot be recorded; the message says what to do."""


@dataclass
class Episode:
    """One finished rollout of T control steps of an arm with J joints."""

    env_id: str  # "robolearn/PickPlace-v0"
    arm: ArmSpec
    seed: int  # the episode's own seed
    instruction: str
    # What was observed BEFORE each action: "agent_pos", "agent_vel", "agent_effort" float32 (T, J),
    # "pixels/<camera>" uint8 (T, H, W, 3), optionally "environment_state" float32 (T, S).
    observations: dict[str, np.ndarray]
    action: np.ndarray  # float32 (T, J): what was sent, after limits
    action_requested: np.ndarray  # float32 (T, J)
    reward: np.ndarray  # float32 (T,)
    success: np.ndarray  # bool (T,): after each step
    progress: np.ndarray  # float32 (T,): after each step, 0..1
    intervention: np.ndarray  # bool (T,): a human drove
    wall_time: np.ndarray  # float64 (T,): unix seconds at which each observation was captured
    terminated: bool  # the last step ended the task
    truncated: bool  # time limit or fault
    fault: str = ""  # fault code
    failure: str = ""  # why it failed, see `robolearn.envs.failures`; not stored in datasets
    goal_source: str = ""  # where its goal picture comes from, if known; not stored in datasets
    goal_steps: int = 0  # that the expert took to that goal, if known; not stored in datasets
    # How well it went, by name, of tasks that are graded; not stored in datasets.
    grades: dict[str, float] = field(default_factory=dict)
    # float32 (D,): seconds per policy decision; not stored in datasets
    latency: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    # float (D,) each: what the policy knew of its decisions; not stored in datasets
    notes: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of control steps, T."""
        return len(self.action)


class EpisodeWriter:
    """Appends episodes to a dataset folder; each one is safe on disk when `append` returns.

    Example:
        with EpisodeWriter("data/demos", arm=SO101, fps=20, cameras={"top": (84, 84)}) as writer:
            writer.append(episode)
    """

    def __init__(
        self,
        root: str | Path,
        *,
        arm: ArmSpec,
        fps: float,
        cameras: Mapping[str, tuple[int, int]] | None = None,
        robot_type: str | None = None,
        notes: Mapping[str, Any] | None = None,
        resume: bool = True,
    ) -> None:
        """Opens a folder for recording and removes what an interrupted recording left there.

        Args:
            root: the dataset's folder; it may not exist yet.
            arm: the arm of every episode.
            fps: control steps per second, a whole number.
            cameras: height and width of each camera's images, pixels.
            robot_type: LeRobot's name of the robot; the arm's name unless given.
            notes: anything else worth knowing about the recording (physics, rendering), as JSON.
            resume: continue a dataset that exists; otherwise it is refused.

        Raises:
            DatasetError: the folder cannot be written, is being recorded by someone else, holds
                something else, or episodes of another arm, camera set or rate.
        """
        if fps != int(fps) or fps <= 0:
            raise DatasetError(f"fps is {fps}; a LeRobot dataset needs a positive whole number")
        self.root, self.arm, self.fps = Path(root), arm, int(fps)
        self.cameras = {name: (int(h), int(w)) for name, (h, w) in (cameras or {}).items()}
        self._setup = self._described(notes or {})
        self._robot_type = robot_type or arm.name
        self._info: dict[str, Any] = {}
        self._tasks: list[str] = []
        self._statistics: Statistics = {}
        self._stale = False  # an `append` was cut off: what it committed is only known on disk
        self._lock = self._acquire_lock()
        try:
            self._open(resume=resume)
        except OSError as error:
            self.close()
            raise self._cannot_write(error) from error
        except BaseException:
            self.close()
            raise

    def _described(self, notes: Mapping[str, Any]) -> dict[str, Any]:
        """What a dataset tells beyond LeRobot's own metadata."""
        import robolearn

        return {
            "format": 1,
            "arm": v3.as_json(asdict(self.arm)),
            "units": "si",
            "fps": self.fps,
            "cameras": v3.as_json(self.cameras),
            "versions": {"robolearn": robolearn.__version__, "mujoco": version("mujoco")},
            "notes": v3.as_json(dict(notes)),
        }

    def __enter__(self) -> Self:
        """Returns the writer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Lets other recorders use the folder."""
        self.close()

    def __len__(self) -> int:
        """The number of episodes in the dataset."""
        return self._info.get("total_episodes", 0)

    def close(self) -> None:
        """Lets other recorders use the folder. Nothing is buffered, so nothing is written."""
        self._lock.close()

    def append(self, episode: Episode) -> int:
        """Adds an episode and returns its index; when this returns it is safe on disk.

        Raises:
            DatasetError: the episode does not fit the dataset, or it could not be written (the
                disk is full, say). The episodes before it are intact, and `append` may be called
                again once the cause is gone.
        """
        if self._lock.closed:
            raise DatasetError(f"the recorder of {self.root} is closed; open a new one")
        self._check(episode)
        try:
            if self._stale:
                self._recover()
            self._stale = True
            self._write_episode(episode)
            self._stale = False
        except OSError as error:
            raise self._cannot_write(error) from error
        return len(self) - 1

    def _write_episode(self, episode: Episode) -> None:
        index, start = len(self), self._info.get("total_frames", 0)
        tasks = list(dict.fromkeys([*self._tasks, episode.instruction]))
        columns = v3.frame_columns(
            episode, index, start, tasks.index(episode.instruction), self.fps
        )
        features = self._features(columns)
        pixels = {camera: episode.observations[f"pixels/{camera}"] for camera in self.cameras}
        statistics = episode_statistics(
            columns, {v3.CAMERA + camera: frames for camera, frames in pixels.items()}
        )
        total = merge_statistics([self._statistics, statistics] if index else [statistics])
        row = v3.episode_row(episode, index, start, self.fps, tuple(self.cameras))
        info = v3.info(
            features, self._robot_type, self.fps, index + 1, start + len(episode), len(tasks)
        )
        # The order matters: what a file refers to is written before it, and the commit last.
        if tasks != self._tasks:
            self._write(v3.TASKS, v3.parquet(v3.tasks_table(tasks)))
        self._write(v3.location(v3.DATA, index), v3.parquet(v3.frames_table(columns)))
        for camera, frames in pixels.items():
            self._write(v3.location(v3.VIDEO, index, camera), encode_video(frames, self.fps))
        self._write(v3.location(v3.EPISODES, index), v3.parquet(v3.episode_table(row, statistics)))
        self._write(v3.STATS, v3.json_bytes(total))
        self._write(v3.INFO, v3.json_bytes(info))
        self._info, self._tasks, self._statistics = info, tasks, total

    def _features(self, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The `features` of info.json, which must not change between episodes."""
        features = v3.describe_columns(columns, self.arm.joints)
        for camera, size in self.cameras.items():
            features[v3.CAMERA + camera] = v3.describe_camera(*size, self.fps, pixel_format(*size))
        recorded = self._info.get("features", features)
        if recorded != features:
            raise DatasetError(
                f"the episode does not have the columns of {self.root}: the dataset has "
                f"{_difference(recorded, features)}"
            )
        return features

    def _write(self, path: str, data: bytes) -> None:
        write_atomic(self.root / path, data)

    def _cannot_write(self, error: OSError) -> DatasetError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DatasetError(
                f"the disk is full: episode {len(self)} of {self.root} was not recorded, the "
                "episodes before it are safe; free some space and record on"
            )
        return DatasetError(
            f"cannot write to {self.root} ({error.strerror or error}): make the folder writable or "
            "choose another one"
        )

    def _acquire_lock(self) -> IO[str]:
        """The kernel drops this lock when the process ends, however it ends."""
        try:
            make_directory(self.root)
            lock = (self.root / ".lock").open("a")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise DatasetError(
                f"{self.root} is being recorded by another process: wait for it, end it, or choose "
                "another folder"
            ) from error
        except OSError as error:
            raise self._cannot_write(error) from error
        return lock

    def _open(self, *, resume: bool) -> None:
        if not (self.root / v3.OURS).exists():
            foreign = [name for name in ("data", "videos", v3.INFO) if (self.root / name).exists()]
            if foreign:
                raise DatasetError(
                    f"{self.root} holds {' and '.join(foreign)} that robolearn did not record: "
                    "choose another folder"
                )
            self._write(v3.OURS, v3.json_bytes(self._setup))
            return
        self._check_setup(self._json(v3.OURS))
        self._recover()
        if len(self) and not resume:
            raise DatasetError(f"{self.root} holds episodes already: choose another folder")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.root / name).read_text())
        except ValueError as error:
            raise DatasetError(
                f"{self.root / name} is damaged: restore it or choose another folder"
            ) from error

    def _check_setup(self, found: dict[str, Any]) -> None:
        """Refuses a folder that was recorded with another arm, other cameras or another rate."""
        names = {"arm": "arm", "fps": "control rate", "cameras": "cameras", "format": "format"}
        for key, name in names.items():
            if found.get(key) != self._setup[key]:
                raise DatasetError(
                    f"{self.root} was recorded with another {name}: it has "
                    f"{_difference(found.get(key), self._setup[key])}; choose another folder"
                )

    def _recover(self) -> None:
        """Loads the committed state; removes what an interrupted `append` left beyond it."""
        if (self.root / v3.INFO).exists():
            self._info = self._json(v3.INFO)
            self._tasks = v3.read_tasks(self.root)[: self._info["total_tasks"]]
        leftovers = self._leftovers()
        if len(self) and leftovers:
            # stats.json may count the lost episode, and must be right before the evidence goes.
            committed = range(len(self))
            self._statistics = merge_statistics(
                [v3.read_statistics(self.root, i) for i in committed]
            )
            self._write(v3.STATS, v3.json_bytes(self._statistics))
        elif len(self):
            self._statistics = as_arrays(self._json(v3.STATS))
        for path in leftovers:
            path.unlink(missing_ok=True)  # stats.json.tmp has just been used up

    def _leftovers(self) -> list[Path]:
        """Temporary files, and the files of an episode that was not committed."""
        roots = [self.root / name for name in ("data", "meta", "videos")]
        lost = [path for root in roots for path in root.rglob(f"*{TEMPORARY}")]
        for camera in ("", *self.cameras):
            for template in (v3.DATA, v3.EPISODES) if not camera else (v3.VIDEO,):
                lost.append(self.root / v3.location(template, len(self), camera))
        return [path for path in lost if path.exists()]

    def _check(self, episode: Episode) -> None:
        """Refuses an episode whose arrays are not what the dataset's columns need."""
        if episode.arm.joints != self.arm.joints:
            raise DatasetError(
                f"the episode is of another arm than {self.root}: the dataset has "
                f"{_difference(list(self.arm.joints), list(episode.arm.joints))}"
            )
        if not len(episode):
            raise DatasetError("the episode has no frames: record at least one control step")
        found = {**vars(episode), **episode.observations}
        cameras = {name for name in found if name.startswith("pixels/")}
        if cameras != {f"pixels/{camera}" for camera in self.cameras}:
            raise DatasetError(
                f"the episode has {sorted(cameras) or 'no pixels'}, the dataset "
                f"{self.root} the cameras {sorted(self.cameras)}"
            )
        for name, (shape, dtype) in self._needed(episode).items():
            values = np.asarray(found.get(name))
            if (values.shape, values.dtype) != (shape, dtype):
                raise DatasetError(
                    f"the episode's {name} must be {dtype} {shape}; it is {values.dtype} "
                    f"{values.shape}"
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                frame = int(np.argwhere(~np.isfinite(values))[0, 0])
                raise DatasetError(f"the episode's {name} is not finite at frame {frame}")

    def _needed(self, episode: Episode) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of each array of this episode."""
        count = len(episode)
        shapes: dict[str, tuple[int, ...]] = {}
        for name in ("agent_pos", "agent_vel", "agent_effort", "action", "action_requested"):
            shapes[name] = (count, self.arm.size)
        for name in ("reward", "progress", "success", "intervention", "wall_time"):
            shapes[name] = (count,)
        for camera, size in self.cameras.items():
            shapes[f"pixels/{camera}"] = (count, *size, 3)
        if "environment_state" in episode.observations:
            state = episode.observations["environment_state"]
            shapes["environment_state"] = (count, state.shape[-1])
        dtypes: dict[str, type] = {"success": bool, "intervention": bool, "wall_time": np.float64}
        dtypes |= {f"pixels/{camera}": np.uint8 for camera in self.cameras}
        return {
            name: (shape, np.dtype(dtypes.get(name, np.float32))) for name, shape in shapes.items()
        }


def _difference(found: object, wanted: object) -> str:
    """What differs between two values, in words; of dicts only the entries that differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        found, wanted = ({key: d[key] for key in keys if key in d} for d in (found, wanted))
    return f"{found or 'none'} instead of {wanted or 'none'}"
