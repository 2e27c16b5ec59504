"""Reading episodes: a LeRobotDataset v3.0 as plain arrays, and windows of them for training.

Columns are read once with pyarrow into contiguous arrays; pixels come from a memory-mapped cache
(see `frames`). Frames are addressed by integer index everywhere: LeRobot's float time stamps are
turned into frame numbers once, on opening.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn import lerobot_format as v3
from robolearn.cache import Clip
from robolearn.contract import SO101, ArmSpec
from robolearn.episodes import DatasetError
from robolearn.features import PictureFeatures, cached_features
from robolearn.frames import cached_frames
from robolearn.units import UNITS, Units, to_si
from robolearn.windows import OBSERVATIONS, Windows

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

# Column of the dataset -> our name. What a dataset does not have is left out, never made up.
COLUMNS = {
    "observation.state": "agent_pos",
    "observation.velocity": "agent_vel",
    "observation.effort": "agent_effort",
    "action": "action",
    v3.REQUESTED: "action_requested",
    v3.STATE: "environment_state",
    "next.reward": "reward",
    "next.progress": "progress",
    "next.success": "success",
    "next.done": "done",
    "next.truncated": "truncated",
    "intervention": "intervention",
    "wall_time": "wall_time",
    "seed": "seed",
}


@dataclass(frozen=True)
class EpisodeTable:
    """One entry per episode, E of them."""

    start: np.ndarray  # int64 (E,): its first frame
    length: np.ndarray  # int64 (E,): its frames
    instruction: tuple[str, ...]
    seed: np.ndarray  # int64 (E,); -1 where the dataset does not say
    success: np.ndarray  # bool (E,): at any step; False where the dataset does not say
    env_id: tuple[str, ...]  # where it was recorded; "" where the dataset does not say

    def __len__(self) -> int:
        """The number of episodes, E."""
        return len(self.start)


class EpisodeDataset:
    """A LeRobotDataset v3.0 folder, read as it is at this moment.

    Attributes:
        arm: the arm that was recorded.
        fps: control steps per second.
        cache: the folder for what is worked out of its frames once.
        cameras: height and width of every camera whose frames are there.
        unavailable_cameras: cameras whose video files are missing.
        episodes: the table of episodes.
        columns: name -> (F, J) or (F,), one row per control step; `COLUMNS` lists the names, with
            "terminated" in place of "done".
    """

    def __init__(
        self,
        root: str | Path,
        *,
        units: Units | None = None,
        arm: ArmSpec | None = None,
        cache: str | Path | None = None,
    ) -> None:
        """Reads everything but the pixels.

        Args:
            root: the dataset's folder.
            units: of positions and actions (see `units`); needed unless robolearn recorded them.
            arm: the arm that was recorded; needed unless robolearn recorded it or the joints are
                those of an SO-101.
            cache: where decoded frames are kept; `<root>/cache` unless given.

        Raises:
            DatasetError: no dataset, a damaged one, unknown units, or another arm's joints.
        """
        self.root = Path(root)
        self.cache = Path(cache) if cache else self.root / "cache"
        self._info = self._read_info()
        self.fps: float = self._info["fps"]
        ours = self._json(v3.OURS) if (self.root / v3.OURS).exists() else {}
        self.arm = self._find_arm(ours, arm)
        units = self._find_units(ours, units)
        self._rows = self._read_episode_rows()
        columns = self._read_columns()
        self.episodes = self._episode_table(columns)
        self.columns = to_si(columns, self.arm, units)
        self.cameras: dict[str, tuple[int, int]] = {}
        self.unavailable_cameras: tuple[str, ...] = ()
        self._clips: dict[str, list[Clip]] = {}
        self._find_cameras()

    def __len__(self) -> int:
        """The number of frames, F."""
        return len(self.columns["action"])

    def check_arm(self, arm: ArmSpec) -> None:
        """Raises DatasetError, naming the joints that differ, unless this arm was recorded."""
        self._check_joints(self.arm.joints, arm)

    def statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """Minimum, maximum, mean and standard deviation of each observation and of the action.

        Returns:
            name -> {"min", "max", "mean", "std"} -> float32 (J,).
        """
        names = [name for name in (*OBSERVATIONS, "action") if name in self.columns]
        result: dict[str, dict[str, np.ndarray]] = {}
        for name in names:
            values = self.columns[name].astype(np.float64)
            result[name] = {
                key: getattr(values, key)(axis=0).astype(np.float32)
                for key in ("min", "max", "mean", "std")
            }
        return result

    def frames(self, camera: str, size: tuple[int, int] | None = None) -> np.ndarray:
        """All frames of a camera, uint8 (F, H, W, 3), read-only; the first call decodes them.

        Args:
            camera: its name.
            size: height and width, pixels; the recorded size unless given.

        Raises:
            DatasetError: no such camera, its videos are missing or damaged, or no room for the
                decoded frames.
        """
        if camera in self.unavailable_cameras:
            raise DatasetError(
                f"the videos of camera {camera} are missing from {self.root}: restore them, or use "
                "the states and actions alone"
            )
        if camera not in self.cameras:
            known = ", ".join(self.cameras) or "none"
            raise DatasetError(f"{self.root} has no camera {camera}; it has: {known}")
        height, width = size or self.cameras[camera]
        path = self.cache / f"{camera}-{height}x{width}.u8"
        return cached_frames(self._clips[camera], self.fps, (height, width), path)

    def features(self, camera: str, features: PictureFeatures) -> np.ndarray:
        """What a model sees in all frames of a camera, float16 (F, *shape); made once, too."""
        frames = self.frames(camera)
        name = "{}-{}x{}-{}.f2".format(camera, *frames.shape[1:3], features.name)
        return cached_features(frames, self._clips[camera], features, self.cache / name)

    def windows(
        self,
        horizon: int,
        cameras: Sequence[str] = (),
        image_size: tuple[int, int] | None = None,
        history: int = 1,
        features: PictureFeatures | None = None,
    ) -> Windows:
        """A sampler of action chunks of `horizon` steps and what was observed before them.

        Args:
            horizon: steps of a chunk.
            cameras: whose pixels come along.
            image_size: their height and width; the recorded size unless given.
            history: observations up to the present one.
            features: what comes along in place of the pixels.
        """
        if features is None:
            views = {"pixels": {camera: self.frames(camera, image_size) for camera in cameras}}
        else:
            views = {"features": {camera: self.features(camera, features) for camera in cameras}}
        table = self.episodes
        return Windows(horizon, table.length, table.instruction, self.columns, views, history)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.root / name).read_text())
        except ValueError as error:
            raise DatasetError(f"{self.root / name} is damaged: restore it") from error

    def _read_info(self) -> dict[str, Any]:
        try:
            info = self._json(v3.INFO)
        except OSError as error:
            raise DatasetError(
                f"{self.root} holds no recorded episode: check the path, or record one first"
            ) from error
        if info.get("codebase_version") != v3.VERSION:
            raise DatasetError(
                f"{self.root} is a LeRobot dataset of version {info.get('codebase_version')}: "
                f"convert it to {v3.VERSION} with lerobot's converter"
            )
        for key in ("observation.state", "action"):
            if key not in info["features"]:
                known = ", ".join(info["features"])
                raise DatasetError(f"{self.root} has no column {key}; it has: {known}")
        return info

    def _check_joints(self, joints: Sequence[str], arm: ArmSpec) -> None:
        if tuple(joints) == arm.joints:
            return
        here = ", ".join(name for name in joints if name not in arm.joints) or "none"
        there = ", ".join(name for name in arm.joints if name not in joints) or "none"
        raise DatasetError(
            f"{self.root} was not recorded with {arm.name}: joints only in the dataset: {here}; "
            f"only in {arm.name}: {there}; the dataset's order is {', '.join(joints)}"
        )

    def _find_arm(self, ours: dict[str, Any], arm: ArmSpec | None) -> ArmSpec:
        if ours:
            recorded = v3.arm_from_json(ours["arm"])
            self._check_joints(recorded.joints, arm or recorded)
            return recorded
        joints = self._joint_names()
        if arm is None and joints != SO101.joints:
            raise DatasetError(
                f"{self.root} was recorded with an unknown arm (joints {', '.join(joints)}): pass "
                "its ArmSpec as arm=..."
            )
        arm = arm or SO101
        self._check_joints(joints, arm)
        return arm

    def _joint_names(self) -> tuple[str, ...]:
        names = self._info["features"]["action"].get("names") or []
        if isinstance(names, dict):  # some recorders write {"motors": [...]}
            names = [name for group in names.values() for name in group]
        return tuple(name.removesuffix(".pos") for name in names)

    def _find_units(self, ours: dict[str, Any], units: Units | None) -> Units:
        if ours and units not in (None, ours["units"]):
            raise DatasetError(f"{self.root} is in {ours['units']} units: do not pass {units!r}")
        if ours:
            return ours["units"]
        if units not in UNITS:
            raise DatasetError(
                f"{self.root} does not say its units: pass units='percent' (-100..100), "
                "units='degrees' or units='si' (radians)"
            )
        return units

    def _read_episode_rows(self) -> dict[str, list[Any]]:
        """The committed rows of meta/episodes, in order."""
        total = self._info["total_episodes"]
        table = self._read_tables("meta/episodes", lambda name: not name.startswith("stats/"))
        rows = table.sort_by("episode_index").slice(0, total).to_pydict()
        if rows["episode_index"] != list(range(total)):
            raise DatasetError(f"{self.root}/meta/episodes does not list every episode: restore it")
        return rows

    def _read_columns(self) -> dict[str, np.ndarray]:
        wanted = {*COLUMNS, "index", "episode_index"}
        table = self._read_tables("data", wanted.__contains__)
        table = table.sort_by("index").slice(0, self._info["total_frames"])
        counts = np.bincount(table["episode_index"].to_numpy())
        if counts.tolist() != self._rows["length"]:
            raise DatasetError(
                f"{self.root}/data does not hold the frames that meta/episodes lists: restore it"
            )
        return {
            COLUMNS[key]: v3.array_of(table[key]) for key in table.column_names if key in COLUMNS
        }

    def _read_tables(self, folder: str, wanted: Callable[[str], bool]) -> "pyarrow.Table":
        """The wanted columns of all parquet files of a folder."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        files = [str(file) for file in sorted((self.root / folder).glob("*/*.parquet"))]
        if not files:
            raise DatasetError(f"{self.root / folder} holds no parquet file: restore it")
        try:
            source = ds.dataset(files, format="parquet")
            return source.to_table(columns=[name for name in source.schema.names if wanted(name)])
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self.root / folder} is damaged ({error}): restore it") from error

    def _episode_table(self, columns: dict[str, np.ndarray]) -> EpisodeTable:
        """Takes what belongs to whole episodes out of the columns."""
        length = np.array(self._rows["length"], np.int64)
        start = np.cumsum(length) - length
        nothing = np.zeros(length.sum(), bool)
        if "done" in columns:
            columns["terminated"] = columns.pop("done") & ~columns.get("truncated", nothing)
        return EpisodeTable(
            start=start,
            length=length,
            instruction=tuple(tasks[0] if tasks else "" for tasks in self._rows["tasks"]),
            seed=columns.pop("seed", np.full(len(nothing), -1))[start],
            success=np.logical_or.reduceat(columns.get("success", nothing), start),
            env_id=tuple(self._rows.get("env_id", [""] * len(length))),
        )

    def _find_cameras(self) -> None:
        missing = []
        for key, feature in self._info["features"].items():
            depth = (feature.get("info") or {}).get("is_depth_map")
            if depth or feature["dtype"] not in ("video", "image"):
                continue
            camera = key.removeprefix(v3.CAMERA).removeprefix("observation.")
            clips = self._find_clips(key, in_table=feature["dtype"] == "image")
            if all(file.exists() for file in {clip.file for clip in clips}):
                self.cameras[camera] = tuple(feature["shape"][:2])
                self._clips[camera] = clips
            else:
                missing.append(camera)
        self.unavailable_cameras = tuple(missing)
        if missing:
            logger.warning(
                "%s: the videos of %s are missing; states and actions can be used",
                self.root,
                ", ".join(missing),
            )

    def _find_clips(self, key: str, *, in_table: bool) -> list[Clip]:
        """Where the frames of each episode are: in a video, or in a column of the data files."""
        rows, clips = self._rows, []
        prefix, template = ("data", "data_path") if in_table else (f"videos/{key}", "video_path")
        places = zip(rows[f"{prefix}/chunk_index"], rows[f"{prefix}/file_index"], strict=True)
        base: dict[tuple[int, int], int] = {}  # the dataset's frame that opens each data file
        for episode, place in enumerate(places):
            path = self._info[template].format(
                video_key=key, chunk_index=place[0], file_index=place[1]
            )
            start = int(self.episodes.start[episode])
            if in_table:
                first = start - base.setdefault(place, start)
            else:
                first = round(rows[f"{prefix}/from_timestamp"][episode] * self.fps)
            length, column = rows["length"][episode], key if in_table else ""
            clips.append(Clip(self.root / path, first, start, length, column))
        return clips
