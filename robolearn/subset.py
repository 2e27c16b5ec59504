"""Some episodes of a dataset, as if nobody had recorded the others."""

from collections.abc import Sequence

import numpy as np

from robolearn.dataset import EpisodeDataset, EpisodeTable
from robolearn.features import PictureFeatures


class Subset(EpisodeDataset):
    """Some episodes of a dataset; their frames are copied into memory when they are asked for.

    Args:
        whole: the dataset.
        chosen: int (N,), numbers of its episodes, in the order that they shall have; at least one.
    """

    def __init__(self, whole: EpisodeDataset, chosen: Sequence[int] | np.ndarray) -> None:
        self.root, self.cache, self.fps, self.arm = whole.root, whole.cache, whole.fps, whole.arm
        self.cameras, self.unavailable_cameras = whole.cameras, whole.unavailable_cameras
        self._whole, table, chosen = whole, whole.episodes, np.asarray(chosen)
        spans = zip(table.start[chosen], table.length[chosen], strict=True)
        self._frames = np.concatenate([np.arange(begin, begin + count) for begin, count in spans])
        self.columns = {name: values[self._frames] for name, values in whole.columns.items()}
        length = table.length[chosen]
        self.episodes = EpisodeTable(
            start=np.cumsum(length) - length,
            length=length,
            instruction=tuple(table.instruction[number] for number in chosen),
            seed=table.seed[chosen],
            success=table.success[chosen],
            env_id=tuple(table.env_id[number] for number in chosen),
        )

    def frames(self, camera: str, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `EpisodeDataset`; uint8 (F, H, W, 3) of the chosen episodes."""
        return self._whole.frames(camera, size)[self._frames]

    def features(self, camera: str, features: PictureFeatures) -> np.ndarray:
        """See `EpisodeDataset`; float16 (F, *shape) of the chosen episodes."""
        return self._whole.features(camera, features)[self._frames]
