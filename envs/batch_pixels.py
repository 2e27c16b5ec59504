"""The cameras of a batch: every slot's pictures are those of a single environment, bit for bit."""

from collections.abc import Sequence
from copy import copy

import mujoco
import numpy as np
from mujoco.batch import Batch

from robolearn.envs.base import ManipulationEnv
from robolearn.envs.render import Renderer
from robolearn.envs.task import Start, State

Pictures = dict[str, dict[str, np.ndarray]]


class BatchCameras:
    """Draws what the cameras of some slots see.

    Args:
        batch: the simulations, persistent: pictures need all of a simulation's data.
        models: every slot's model.
        task: says which cameras, how large and how well they are drawn, and whether with depth.
    """

    def __init__(
        self, batch: Batch, models: Sequence[mujoco.MjModel], task: ManipulationEnv
    ) -> None:
        self._batch, self._models, self._task = batch, models, task
        self._data = mujoco.MjData(task.model)  # of the slot that is drawn
        self._renderers: list[Renderer] = []
        kinds = ("pixels", "depth") if task.obs_type == "depth" else ("pixels",)
        self._kinds = kinds if task.active_cameras else ()
        self._goals: dict[str, np.ndarray] = {}
        if task._goal_pixels:
            shape = (batch.nsim, *task.image_size, 3)
            self._goals = {camera: np.zeros(shape, np.uint8) for camera in task.active_cameras}

    def begin(self, slots: np.ndarray, starts: Sequence[Start]) -> None:
        """Draws the goals of the episodes that have begun in some slots, if they are shown."""
        if not self._goals:
            return
        for slot, start in zip(slots.tolist(), starts, strict=True):
            self._batch.get_data(slot, self._data)
            task = _alike(self._task, self._models[slot], self._data, start)
            for camera, picture in task.draw_goal(self._renderer(slot)).items():
                self._goals[camera][slot] = picture

    def draw(self, slots: Sequence[int] | np.ndarray, before: Pictures | None = None) -> Pictures:
        """All pictures, "pixels" and perhaps "depth" and "goal_pixels", {camera: (N, H, W, ...)}.

        Args:
            slots: which to draw.
            before: what the other slots have shown and go on showing.
        """
        pictures = self._blank() if before is None else _copy(before, self._kinds)
        for slot in slots:
            self._batch.get_data(int(slot), self._data)
            renderer = self._renderer(int(slot))
            for kind in self._kinds:
                drawn = renderer.rgb if kind == "pixels" else renderer.depth
                for camera, picture in pictures[kind].items():
                    picture[slot] = drawn(self._data, camera)
        if self._goals:
            pictures["goal_pixels"] = {camera: p.copy() for camera, p in self._goals.items()}
        return pictures

    def _renderer(self, slot: int) -> Renderer:
        task = self._task
        # Made when they are first needed, as an environment may never draw.
        self._renderers = self._renderers or [
            Renderer(model, task.image_size, task.render_quality) for model in self._models
        ]
        return self._renderers[slot]

    def _blank(self) -> Pictures:
        count, size = self._batch.nsim, self._task.image_size
        forms = {"pixels": ((*size, 3), np.uint8), "depth": (size, np.float32)}
        return {
            kind: {
                camera: np.empty((count, *forms[kind][0]), forms[kind][1])
                for camera in self._task.active_cameras
            }
            for kind in self._kinds
        }


def _alike(
    task: ManipulationEnv, model: mujoco.MjModel, data: mujoco.MjData, start: Start
) -> ManipulationEnv:
    """The task as if this was its model and its simulation, just reset."""
    other = copy(task)
    other.model, other.data, other._start = model, data, start
    other.state = State(*(getattr(data, name)[None] for name in State._fields))
    return other


def _copy(pictures: Pictures, kinds: Sequence[str]) -> Pictures:
    return {k: {camera: p.copy() for camera, p in pictures[k].items()} for k in kinds}
