"""Experience: everything collected so far, as the frozen encoder of a policy sees it.

Post-training trains critics and action heads upon the same tokens again and again, so each
observation is encoded once, when its episode is new, and its tokens stay beside the dataset, on
disk. What the policy would do there is drawn anew whenever the policy has changed.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from robolearn.cache import exclusive
from robolearn.dataset import EpisodeDataset
from robolearn.files import AtomicFolder, make_directory
from robolearn.policies.base import Batch, Context, Policy, as_tensors
from robolearn.policies.critic import encoder_digest
from robolearn.policies.fitting import in_bf16
from robolearn.replay import Replay
from robolearn.seeding import stream
from robolearn.windows import Windows

BATCH: Final = 128  # observations that are encoded at once
TOKENS: Final = "tokens.npy"


class Experience:
    """See the module's docstring.

    Args:
        policy: its encoder makes the tokens; it must be in eval mode.
        datasets: where the frames of the replay come from, in this order.
        replay: their fragments.

    Attributes:
        demonstrations: the first so many episodes were shown to it, all others it made.
    """

    def __init__(self, policy: Policy, datasets: Sequence[EpisodeDataset], replay: Replay) -> None:
        self.replay, self.device = replay, policy.device
        self.demonstrations = len(datasets[0].episodes)
        self._parts = [cached_tokens(policy, dataset, replay.stride) for dataset in datasets]
        self._begins = np.cumsum([0, *map(len, self._parts)])
        self._windows: dict[int, Windows] = {}  # by horizon
        self._row = np.full(len(replay.episode), -1)
        self._row[replay.frames] = np.arange(len(replay.frames))

    @property
    def tokens_shape(self) -> tuple[int, int]:
        """T and D."""
        shape = self._parts[0].shape
        return shape[1], shape[2]

    def tokens(self, frames: np.ndarray) -> Tensor:
        """The tokens (B, T, D) of frames that the replay looks at."""
        rows = self._row[frames]
        result = np.empty((len(rows), *self.tokens_shape), np.float16)
        which = np.searchsorted(self._begins, rows, side="right") - 1
        for part in np.unique(which):
            here = which == part
            result[here] = self._parts[part][rows[here] - self._begins[part]]
        return torch.from_numpy(result).to(self.device).float()

    def context(self, frames: np.ndarray) -> Context:
        """What a critic knows of frames (B,)."""
        return Context(self.tokens(frames), self._column("agent_pos", frames))

    def _column(self, name: str, frames: np.ndarray) -> Tensor:
        return torch.from_numpy(self.replay.columns[name][frames]).to(self.device)

    def batch(self, frames: np.ndarray, horizon: int) -> Batch:
        """Frames (B,) and the chunks (B, horizon, J) that followed, for a policy's loss."""
        if horizon not in self._windows:
            lengths = self.replay.lengths
            columns = self.replay.columns
            self._windows[horizon] = Windows(horizon, lengths, [""] * len(lengths), columns, {})
        batch = as_tensors(self._windows[horizon].get(frames), self.device)
        return batch | {"tokens": self.tokens(frames)}

    @torch.inference_mode()
    def samples(self, policy: Policy, count: int, seed: int) -> "Samples":
        """What the policy would do at every frame that is looked at: the executed steps."""
        frames = self.replay.frames
        shape = (len(frames), count, self.replay.executed, policy.joints)
        drawn = np.empty(shape, np.float32)
        for start in range(0, len(frames), BATCH):
            some = frames[start : start + BATCH]
            seen = {"tokens": self.tokens(some), "agent_pos": self._column("agent_pos", some)}
            noise = [stream(seed, f"sample {frame}") for frame in some]
            with in_bf16(self.device):
                chunks = policy.sample(policy.encode(seen, [""] * len(some)), count, noise)
            executed = chunks.actions[:, :, : self.replay.executed]
            drawn[start : start + BATCH] = executed.float().cpu().numpy()
        return Samples(drawn, self._row)


class Samples:
    """Chunks of a policy at every frame that a replay looks at.

    Args:
        chunks: float32 (K, S, H, J).
        row: int (F,), the row of each frame.
    """

    def __init__(self, chunks: np.ndarray, row: np.ndarray) -> None:
        self.chunks, self._row = chunks, row

    def at(self, frames: np.ndarray) -> np.ndarray:
        """All chunks (B, S, H, J) of frames (B,)."""
        return self.chunks[self._row[frames]]


@torch.inference_mode()
def cached_tokens(policy: Policy, dataset: EpisodeDataset, stride: int) -> np.ndarray:
    """Tokens float16 (K, T, D) of every so many frames of each episode, from a file if it is there.

    Args:
        policy: in eval mode.
        dataset: where the file is kept, too.
        stride: frames from one to the next.
    """
    starts, lengths = dataset.episodes.start, dataset.episodes.length
    parts = zip(starts, lengths, strict=True)
    frames = np.concatenate([np.arange(s, s + n, stride) for s, n in parts])
    actions = np.ascontiguousarray(dataset.columns["action"])  # other demonstrations have others
    shown = hashlib.sha256(actions.tobytes()).hexdigest()[:16]
    folder = dataset.cache / f"tokens-{encoder_digest(policy)[:16]}-{stride}-{shown}"
    make_directory(folder.parent)
    with exclusive(folder):  # two runs may begin with the same base
        if not folder.exists():
            with AtomicFolder(folder) as temporary:
                _write_tokens(policy, dataset, frames, temporary / TOKENS)
    return np.load(folder / TOKENS, mmap_mode="r")


def _write_tokens(policy: Policy, dataset: EpisodeDataset, frames: np.ndarray, path: Path) -> None:
    windows = policy.windows(dataset)
    array: np.ndarray = np.empty(0)
    for start in range(0, len(frames), BATCH):
        some = frames[start : start + BATCH]
        batch = as_tensors(windows.get(some), policy.device)
        tokens = policy.encode(batch, batch["instruction"]).tokens.cpu().numpy()
        if not start:
            shape = (len(frames), *tokens.shape[1:])
            array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        array[start : start + len(some)] = tokens
