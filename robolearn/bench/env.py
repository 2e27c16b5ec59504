"""`robolearn bench --parts env`: simulation and rendering against bare MuJoCo.

What the environment adds to physics is measured against `mj_step` alone on the same model, from
the same start, with the same controls: a block of both ends in the same state, bit for bit, or the
measurement is refused. The controls are the expert's, so the blocks hold grasps, not empty air.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import gymnasium
import mujoco
import numpy as np

from robolearn.bench.speed import ENV, BenchConfig
from robolearn.contract import limit_action
from robolearn.doctor import usable_cores
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.render import Renderer, gl_renderer
from robolearn.registry import make_env
from robolearn.seeding import stream

STEPS: Final = 50  # control steps of a block, unless the demonstration is shorter
SEEDS: Final = 8  # different blocks
IMAGE_SIZE: Final = (84, 84)
Turn = Callable[[], object]
PICTURES: Final = 10  # rounds of the fast renderer for each of the slow one


def measure(config: BenchConfig) -> dict[str, Any]:
    """The figures of this part."""
    env = make_env(ENV, obs_type="state")
    blocks = [Block(env, seed) for seed in range(SEEDS)]
    return {
        **single_figures(env, blocks, config.blocks),
        **batched_figures(ENV, blocks, config.num_envs, config.blocks),
        **pixel_figures(ENV, config.blocks),
        "substeps": task_of(env).substeps,
        "cores": usable_cores(),
        "renderer": gl_renderer(),
    }


def task_of(env: gymnasium.Env) -> ManipulationEnv:
    """The simulated task inside the wrappers."""
    task = env.unwrapped
    assert isinstance(task, ManipulationEnv)
    return task


class Block:
    """The beginning of a demonstration, before it succeeds: where it starts, and its actions.

    Attributes:
        seed: the episode.
        actions: (T, J), T at most `STEPS`, for the environment.
        controls: (T, nu), the same for bare MuJoCo.
        start: the simulation after the reset.
    """

    def __init__(self, env: gymnasium.Env, seed: int) -> None:
        self.task, self.seed = task_of(env), seed
        env.reset(seed=seed)
        self.start = mujoco.MjData(self.task.model)
        mujoco.mj_copyData(self.start, self.task.model, self.task.data)
        script, over = self.task.expert(stream(seed, "expert")), False
        actions: list[np.ndarray] = []
        while not over and len(actions) <= STEPS:
            actions.append(next(script).astype(np.float32))
            over = bool(env.step(actions[-1])[2])
        self.actions = np.stack(actions[:-1])
        self.controls = self.task.joints.to_ctrl(limit_action(self.task.arm, self.actions))

    def run_bare(self, data: mujoco.MjData, steps: int = STEPS) -> None:
        """Plays the controls with nothing but `mj_step`."""
        model, substeps = self.task.model, self.task.substeps
        for control in self.controls[:steps]:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, nstep=substeps)


def single_figures(env: gymnasium.Env, blocks: list[Block], count: int) -> dict[str, Any]:
    """One environment, made by `gymnasium.make`, against `mj_step`."""
    task, seconds = task_of(env), []
    twin = mujoco.MjData(task.model)

    def run_env(block: Block) -> None:
        for action in block.actions:
            env.step(action)

    for i in range(count):
        block = blocks[i % len(blocks)]
        env.reset(seed=block.seed)
        mujoco.mj_copyData(twin, task.model, block.start)
        turns = [partial(run_env, block), partial(block.run_bare, twin)]
        turn = take_turns(turns, backwards=i % 2 == 1)
        seconds.append(np.array(turn) / len(block.actions))
        _check_same(task.data.qpos, twin.qpos)
    ours, bare = np.array(seconds).T
    return {
        "step_rate_share_of_mj_step": float(np.median(bare / ours)),
        "steps_per_s": float(1.0 / np.median(ours)),
        "mj_step_steps_per_s": float(1.0 / np.median(bare)),
    }


def batched_figures(env_id: str, blocks: list[Block], num_envs: int, count: int) -> dict[str, Any]:
    """The batched environment against `mj_step` in as many threads as there are cores."""
    chosen = [blocks[i % len(blocks)] for i in range(num_envs)]
    seeds = [block.seed for block in chosen]
    steps = min(len(block.actions) for block in chosen)
    actions = np.stack([block.actions[:steps] for block in chosen], axis=1)  # (steps, N, J)
    task, seconds = chosen[0].task, []
    twins = [mujoco.MjData(task.model) for _ in chosen]
    last: dict[str, np.ndarray] = {}
    vector = gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", obs_type="state"
    )

    def run_vector() -> None:
        for action in actions:
            last.update(vector.step(action)[0])

    with ThreadPoolExecutor(usable_cores()) as pool:
        turns: list[Turn] = [run_vector, partial(_run_bare, pool, chosen, twins, steps)]
        for i in range(count):
            # gymnasium documents a list of seeds and does not annotate it.
            vector.reset(seed=seeds)  # type: ignore[arg-type]
            for twin, block in zip(twins, chosen, strict=True):
                mujoco.mj_copyData(twin, task.model, block.start)
            seconds.append(take_turns(turns, backwards=i % 2 == 1))
            ended = np.stack([task.joints.position(twin.qpos) for twin in twins])
            _check_same(last["agent_pos"], ended)
    vector.close()
    ours, bare = np.array(seconds).T
    return {
        "batched_share_of_mj_step": float(np.median(bare / ours)),
        "batched_steps_per_s": float(num_envs * steps / np.median(ours)),
        "batched_mj_step_steps_per_s": float(num_envs * steps / np.median(bare)),
        "batched_envs": num_envs,
    }


def _run_bare(
    pool: ThreadPoolExecutor, blocks: list[Block], twins: list[mujoco.MjData], steps: int
) -> None:
    """Every thread plays its share of the simulations; `mj_step` lets go of Python's lock."""

    def play(first: int) -> None:
        for k in range(first, len(twins), usable_cores()):
            blocks[k].run_bare(twins[k], steps)

    list(pool.map(play, range(usable_cores())))


def pixel_figures(env_id: str, count: int) -> dict[str, Any]:
    """All cameras at 84x84, drawn fast and with MuJoCo's default settings."""
    env, plain = (make_env(env_id, image_size=IMAGE_SIZE) for _ in range(2))
    block, task, slow_task = Block(env, 0), task_of(env), task_of(plain)
    use_default_visuals(slow_task.model)
    fast = Renderer(task.model, IMAGE_SIZE, "fast")
    slow = Renderer(slow_task.model, IMAGE_SIZE, "default")

    def draw(renderer: Renderer, rounds: int) -> None:
        for camera in task.active_cameras * rounds:
            renderer.rgb(task.data, camera)

    turns = [partial(draw, fast, PICTURES), partial(draw, slow, 1)]
    take_turns(turns)  # the first picture is slow: shaders are compiled
    env.reset(seed=block.seed)
    seconds, steps = [], []
    for i in range(min(count, len(block.actions))):
        steps += take_turns([partial(env.step, block.actions[i])])
        seconds.append(take_turns(turns, backwards=i % 2 == 1))
    ours, default = np.array(seconds).T
    pictures = len(task.active_cameras)
    return {
        "pixels_speedup_over_default_render": float(np.median(default * PICTURES / ours)),
        "pictures_per_s": float(pictures * PICTURES / np.median(ours)),
        "default_pictures_per_s": float(pictures / np.median(default)),
        "pixel_steps_per_s": float(1.0 / np.median(steps)),
    }


def use_default_visuals(model: mujoco.MjModel) -> None:
    """Gives a model the rendering settings of a model that sets none."""
    default = mujoco.MjSpec().compile().vis.quality
    for name in ("shadowsize", "offsamples", "numslices", "numstacks", "numquads"):
        setattr(model.vis.quality, name, getattr(default, name))


def take_turns(turns: Sequence[Turn], *, backwards: bool = False) -> list[float]:
    """Runs each once, in this order or the other, and returns the seconds in this order."""
    seconds = [0.0] * len(turns)
    for k in sorted(range(len(turns)), reverse=backwards):
        begin = time.perf_counter()
        turns[k]()
        seconds[k] = time.perf_counter() - begin
    return seconds


def _check_same(ours: np.ndarray, bare: np.ndarray) -> None:
    """Raises RuntimeError unless both sides simulated the same: else speeds compare nothing."""
    if not np.array_equal(ours, bare):
        raise RuntimeError("the environment and bare mj_step ended in different states")
