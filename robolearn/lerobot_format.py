"""The LeRobotDataset v3.0 layout: names of files and columns, tables, statistics.

Source: lerobot 0.6.1, `lerobot/datasets`. Nothing here imports lerobot, so that recording starts
fast and does not depend on its version.

One row per control step:

| column | dtype, shape | meaning |
|---|---|---|
| `observation.state`, `.velocity`, `.effort` | float32 (J,) | measured before the action |
| `action` | float32 (J,) | the target that was sent |
| `complementary_info.action_requested` | float32 (J,) | the target that was asked for |
| `complementary_info.environment_state` | float32 (S,) | privileged simulator state, if recorded |
| `next.reward`, `next.progress` | float32 (1,) | after the action |
| `next.success`, `next.done`, `next.truncated` | bool (1,) | after the action |
| `intervention` | bool (1,) | a human drove |
| `wall_time` | float64 (1,) | unix seconds at which the observation was captured |
| `seed` | int64 (1,) | the episode's seed |

LeRobot takes every column that begins with `action` for an action to predict and every
`observation.environment_state` for a policy input. Hence the requested action and the privileged
state live under `complementary_info`, which its policies never see.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.lerobot_statistics import Statistics

if TYPE_CHECKING:
    import pyarrow

    from robolearn.episodes import Episode

VERSION = "v3.0"
CHUNK_SIZE = 1000  # files per folder
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA = f"data/{FILE}.parquet"
VIDEO = f"videos/{{video_key}}/{FILE}.mp4"
EPISODES = f"meta/episodes/{FILE}.parquet"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
OURS = "meta/robolearn.json"  # beside info.json, because lerobot drops keys that it does not know
CAMERA = "observation.images."
REQUESTED = "complementary_info.action_requested"
STATE = "complementary_info.environment_state"
JOINT_COLUMNS = (
    "observation.state",
    "observation.velocity",
    "observation.effort",
    "action",
    REQUESTED,
)


def location(template: str, index: int, camera: str = "") -> str:
    """The path, relative to the root, of the file that holds episode `index` alone."""
    chunk, file = divmod(index, CHUNK_SIZE)
    return template.format(chunk_index=chunk, file_index=file, video_key=CAMERA + camera)


def frame_columns(
    episode: "Episode", index: int, start: int, task_index: int, fps: int
) -> dict[str, np.ndarray]:
    """The rows of one episode, column by column: (T,) or (T, J) each.

    Args:
        episode: T frames.
        index: the episode's number in the dataset.
        start: the number of frames in the episodes before it.
        task_index: the row of its instruction in the table of tasks.
        fps: frames per second.
    """
    count = len(episode.action)
    frame = np.arange(count)
    last = frame == count - 1
    observations = episode.observations
    columns = {
        "observation.state": observations["agent_pos"],
        "observation.velocity": observations["agent_vel"],
        "observation.effort": observations["agent_effort"],
        "action": episode.action,
        REQUESTED: episode.action_requested,
        "next.reward": episode.reward,
        "next.progress": episode.progress,
        "next.success": episode.success,
        "next.done": last & (episode.terminated or episode.truncated),
        # An episode that ends both ways has ended: its last value is not to be bootstrapped.
        "next.truncated": last & (episode.truncated and not episode.terminated),
        "intervention": episode.intervention,
        "wall_time": episode.wall_time,
        "seed": np.full(count, episode.seed, np.int64),
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(count, index),
        "index": start + frame,
        "task_index": np.full(count, task_index),
    }
    if "environment_state" in observations:
        columns[STATE] = observations["environment_state"]
    return columns


def describe_columns(
    columns: Mapping[str, np.ndarray], joints: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The `features` of info.json for these columns."""

    def names(key: str) -> list[str] | None:
        return [f"{joint}.pos" for joint in joints] if key in JOINT_COLUMNS else None

    return {
        key: {
            "dtype": str(values.dtype),
            "shape": list(values.shape[1:] or (1,)),
            "names": names(key),
        }
        for key, values in columns.items()
    }


def describe_camera(height: int, width: int, fps: int, pixel_format: str) -> dict[str, Any]:
    """The entry of a camera in the `features` of info.json."""
    video = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": pixel_format,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "is_depth_map": False,
    }
    names = ["height", "width", "channels"]
    return {"dtype": "video", "shape": [height, width, 3], "names": names, "info": video}


def info(
    features: dict[str, Any],
    robot_type: str,
    fps: int,
    episodes: int,
    frames: int,
    tasks: int,
) -> dict[str, Any]:
    """info.json of a dataset with these totals."""
    return {
        "codebase_version": VERSION,
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEO,
        "features": features,
    }


def episode_row(
    episode: "Episode", index: int, start: int, fps: int, cameras: Sequence[str]
) -> dict[str, Any]:
    """The row of meta/episodes, without statistics; arguments as in `frame_columns`."""
    chunk, file = divmod(index, CHUNK_SIZE)
    row = {
        "episode_index": index,
        "tasks": [episode.instruction],
        "length": len(episode),
        "dataset_from_index": start,
        "dataset_to_index": start + len(episode),
        "env_id": episode.env_id,
        "fault": episode.fault,
    }
    for group in ("data", "meta/episodes", *(f"videos/{CAMERA}{camera}" for camera in cameras)):
        row[f"{group}/chunk_index"], row[f"{group}/file_index"] = chunk, file
    for camera in cameras:
        row[f"videos/{CAMERA}{camera}/from_timestamp"] = 0.0
        row[f"videos/{CAMERA}{camera}/to_timestamp"] = len(episode) / fps
    return row


def frames_table(columns: Mapping[str, np.ndarray]) -> "pyarrow.Table":
    """The columns of one episode as an arrow table."""
    import pyarrow as pa

    def arrow(values: np.ndarray) -> pa.Array:
        if values.ndim == 1:
            return pa.array(values)
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])

    return pa.table({key: arrow(values) for key, values in columns.items()})


def episode_table(row: Mapping[str, Any], statistics: Statistics) -> "pyarrow.Table":
    """One row of meta/episodes."""
    import pyarrow as pa

    flat = {
        f"stats/{key}/{name}": values.tolist()
        for key, entries in statistics.items()
        for name, values in entries.items()
    }
    return pa.Table.from_pylist([{**row, **flat}])


def parquet(table: "pyarrow.Table") -> bytes:
    """The table as the content of a parquet file."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    # One row or one episode per file: column statistics and dictionaries would outweigh the data.
    pq.write_table(table, buffer, use_dictionary=False, write_statistics=False)
    return buffer.getvalue()


def array_of(column: "pyarrow.ChunkedArray") -> np.ndarray:
    """A column of scalars as (F,), of lists as (F, J); a writable copy."""
    import pyarrow as pa

    array = column.combine_chunks()
    if not pa.types.is_nested(array.type):
        return np.array(array.to_numpy(zero_copy_only=False))
    return np.array(array.flatten().to_numpy(zero_copy_only=False)).reshape(len(array), -1)


def tasks_table(instructions: Sequence[str]) -> "pyarrow.Table":
    """The content of tasks.parquet: row label = instruction, column = its number.

    The row label is pandas' metadata, as its developer guide documents it.
    """
    import pyarrow as pa

    names = {"name": "task", "field_name": "task", "metadata": None}
    label = {**names, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {"index_columns": ["task"], "columns": [label], "column_indexes": []}
    table = pa.table({"task_index": np.arange(len(instructions)), "task": list(instructions)})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def read_tasks(root: Path) -> list[str]:
    """The instructions of a dataset that robolearn recorded, by task index."""
    import pyarrow.parquet as pq

    return pq.read_table(root / TASKS)["task"].to_pylist()


def read_statistics(root: Path, index: int) -> Statistics:
    """The statistics of episode `index`."""
    import pyarrow.parquet as pq

    row = pq.read_table(root / location(EPISODES, index)).to_pylist()[0]
    result: Statistics = {}
    for name, values in row.items():
        if name.startswith("stats/"):
            key, statistic = name.removeprefix("stats/").rsplit("/", 1)
            result.setdefault(key, {})[statistic] = np.array(values)
    return result


def json_bytes(value: object) -> bytes:
    """The value, which may hold arrays, as the content of a JSON file."""
    return json.dumps(value, indent=2, default=np.ndarray.tolist).encode()


def as_json(value: object) -> Any:  # noqa: ANN401
    """The value as it will be when read back from JSON."""
    return json.loads(json_bytes(value))


def arm_from_json(entries: Mapping[str, Any]) -> ArmSpec:
    """The arm that `dataclasses.asdict` and JSON made these entries of."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()}
    return ArmSpec(**values)
