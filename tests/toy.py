"""A toy arm that is stepped in microseconds, and policies that train in seconds.

Importable from workers that are started afresh: `gymnasium.make("toy:Toy-v0")` registers it.
"""

import os
from itertools import repeat
from typing import ClassVar

import gymnasium
import numpy as np
import torch

from robolearn.contract import ArmSpec, Info, action_space, check_action, limit_action
from robolearn.contract import observation_space as space_of
from robolearn.examples import example_episode
from robolearn.policies import POLICIES
from robolearn.policies.base import as_tensors
from robolearn.policies.configs import (
    DiffusionConfig,
    FlowConfig,
    HindsightConfig,
    SmallConfig,
)
from robolearn.policies.goal_configs import GcbcConfig, HiqlConfig, SawConfig
from robolearn.policies.latent_configs import Act2GoalConfig, CemConfig, SusieConfig
from robolearn.seeding import stream

ENV_ID = "toy:Toy-v0"
TOY_ARM = ArmSpec(
    name="toy",
    joints=("left", "right", "grip"),
    low=(-1.0, -1.0, 0.0),
    high=(1.0, 1.0, 1.0),
    home=(0.0, 0.0, 0.5),
    grippers=(2,),
    control_hz=20.0,
)
SIZE = (12, 16)
CAMERAS = {"top": SIZE, "wrist": SIZE}
COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}
INSTRUCTIONS = tuple(
    f"go {side} to the {colour} dot" for side in ("left", "up") for colour in COLOURS
)
STEPS = 24  # time limit
SMALL = SmallConfig(width=8, channels=4, blocks=1, keypoints=2, words=4)
SIZES = {"horizon": 4, "draws": 2, "hidden": 16, "depth": 1, "patch": 2, "backbone": SMALL}
TINY = FlowConfig(sample_steps=2, **SIZES)
GOALS = HindsightConfig(furthest=12, finals=0.3)
TINY_ACT2GOAL = Act2GoalConfig(
    sample_steps=2,
    horizon=4,
    draws=2,
    hidden=16,
    depth=2,
    width=16,
    stride=2,
    far=2,
    latents=8,
    autoencoder_steps=4,
    hindsight=GOALS,
)
TINY_SUSIE = SusieConfig(
    **SIZES | {"sample_steps": 2, "ahead": 6, "width": 16, "latents": 8, "autoencoder_steps": 4},
    hindsight=GOALS,
)
TINY_CEM = CemConfig(
    horizon=2,  # toy demonstrations take a few steps
    part=1,
    width=16,
    depth=2,
    latents=8,
    autoencoder_steps=4,
    directions=3,
    samples=8,
    iterations=2,
    elites=3,
)
# Those that are shown their goal and tell one chunk.
_MODE = {"horizon": 4, "hidden": 16, "depth": 1, "backbone": SMALL, "hindsight": GOALS}
_VALUED = {**_MODE, "executed": 2, "ahead": 4, "representation": 10}
TINY_MODES = {
    "gcbc": GcbcConfig(**_MODE),
    "hiql": HiqlConfig(**_VALUED),
    "saw": SawConfig(**_VALUED),
}
# Every kind of policy with every head and option.
TINIES = {
    "flow": TINY,
    "flow transformer": FlowConfig(sample_steps=3, head="transformer", **SIZES),
    "flow midpoint": FlowConfig(sample_steps=1, solver="midpoint", times="beta", **SIZES),
    "flow logit-normal": FlowConfig(sample_steps=2, times="logit-normal", **SIZES),
    "diffusion": DiffusionConfig(sample_steps=4, train_steps=20, prediction="epsilon", **SIZES),
    "diffusion solver": DiffusionConfig(
        sample_steps=5, train_steps=20, prediction="epsilon", sampler="dpm-solver++", **SIZES
    ),
    "diffusion sample": DiffusionConfig(
        sample_steps=5, train_steps=20, prediction="sample", head="transformer", **SIZES
    ),
    "diffusion v": DiffusionConfig(
        sample_steps=4, train_steps=20, prediction="v_prediction", sampler="dpm-solver++", **SIZES
    ),
}


class Toy(gymnasium.Env):
    """Move both joints to the place that the instruction's colour marks in the picture."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}
    arm: ClassVar[ArmSpec] = TOY_ARM

    def __init__(self, image_size=SIZE, cameras=("top", "wrist"), render_mode=None, **options):
        self.render_mode, self.image_size, self.active_cameras = render_mode, image_size, cameras
        # Seeds at which the process dies, the simulator breaks, the arm faults.
        self.die, self.fail, self.fault = (options.get(k) for k in ("die", "fail", "fault"))
        self.action_space = action_space(TOY_ARM)
        self.observation_space = space_of(TOY_ARM, cameras, image_size)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = int(seed or 0)
        if self.seed == self.die:
            os._exit(3)
        rng = stream(self.seed, "env")
        self.position = rng.uniform(-0.2, 0.2, 3).astype(np.float32)
        self.places = rng.uniform(-0.9, 0.9, (len(COLOURS), 2)).astype(np.float32)
        self.task = (options or {}).get(
            "instruction", INSTRUCTIONS[rng.integers(len(INSTRUCTIONS))]
        )
        self.goal = self.places[["red" in self.task, "blue" in self.task].index(True)]
        self.steps = 0
        return self._observe(), self._info(self.position.copy(), self.position.copy())

    def step(self, action):
        requested = check_action(TOY_ARM, action)
        if self.seed == self.fail:
            raise ArithmeticError(f"the simulator broke at seed {self.seed}")
        sent = limit_action(TOY_ARM, requested)
        self.position += np.clip(sent - self.position, -0.15, 0.15)
        self.steps += 1
        info = self._info(requested, sent)
        if self.seed == self.fault and self.steps == 3:
            info[Info.FAULT] = "overheated"
        success, fault = info[Info.IS_SUCCESS], bool(info[Info.FAULT])
        return self._observe(), float(success), success, fault, info

    def _observe(self):
        zero = np.zeros(3, np.float32)
        views = {camera: self._picture(self.image_size) for camera in self.active_cameras}
        effort = np.full(3, self.steps, np.float32)
        return {
            "agent_pos": self.position.copy(),
            "agent_vel": zero,
            "agent_effort": effort,
            "pixels": views,
        }

    def _picture(self, size):
        picture = np.zeros((*size, 3), np.uint8)
        for place, colour in zip(self.places, COLOURS.values(), strict=True):
            row, column = ((place + 1) / 2 * (np.array(size) - 1)).astype(int)
            picture[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = colour
        return picture

    def _info(self, requested, sent):
        distance = float(np.abs(self.position[:2] - self.goal).max())
        success = distance < 0.05
        return {
            Info.TASK: self.task,
            Info.SEED: self.seed,
            Info.IS_SUCCESS: success,
            Info.SUCCESS: success,
            Info.PROGRESS: 1.0 if success else max(0.0, 1.0 - distance),
            Info.ACTION_REQUESTED: requested,
            Info.ACTION_SENT: sent,
            Info.LIMITED: not np.array_equal(requested, sent),
            Info.IS_INTERVENTION: False,
            Info.TELEOP_ACTION: sent,
            Info.FAULT: "",
        }

    def render(self):
        return self._picture((48, 64))

    def expert(self, rng):
        """Goes there; at every fifth seed it never starts."""
        goal = self.goal if self.seed % 5 else self.position[:2].copy()
        return repeat(np.float32([*goal, rng.uniform(0.2, 0.8)]))


gymnasium.register("Toy-v0", entry_point="toy:Toy", max_episode_steps=STEPS)


def record_demonstrations(folder, episodes):
    from robolearn.options import RecordConfig
    from robolearn.record import record

    record(RecordConfig(out=folder, env=ENV_ID, episodes=episodes, image_size=SIZE, workers=0))
    return folder


def eval_config(run, out):
    """Two episodes of a run, one of them filmed."""
    from robolearn.options import EvalConfig

    return EvalConfig(
        policy=str(run), env=ENV_ID, out=out, replan_every=2, episodes=2, videos=1, workers=0
    )


def train_config(data, run, **changes):
    """Settings with which a step takes milliseconds."""
    from robolearn.options import TrainConfig

    settings = {"steps": 4, "batch_size": 8, "warmup": 2, "log_every": 1, "threads": 1}
    return TrainConfig(data, run, **{"policy": TINY, **settings, **changes})


def arm_description(arm=TOY_ARM):
    return {"name": arm.name, "joints": arm.joints, "grippers": arm.grippers}


def tiny_policy(
    arm=TOY_ARM, cameras=None, words=("blue", "dot", "go", "red"), seed=0, config=TINY, state=0
):
    """A policy with random weights; those that start as zeros are random too."""
    torch.manual_seed(seed)
    seen = CAMERAS if cameras is None else cameras
    policy = POLICIES[config.kind]()(config, seen, arm_description(arm), words, state)
    rng = np.random.default_rng(seed)
    policy.backbone.agent_pos.fit(rng.normal(size=(50, arm.size)).astype(np.float32))
    policy.chunk.fit(0.1 * rng.normal(size=(50, *policy.chunk.mean.shape)).astype(np.float32))
    if state:
        policy.backbone.environment_state.fit(rng.normal(size=(50, state)).astype(np.float32))
    for weight in policy.parameters():
        if not weight.detach().any():
            torch.nn.init.normal_(weight, std=0.3)
    return policy.eval()


def observations(count, seed=0, arm=TOY_ARM, cameras=None):
    """A batch of random observations, as tensors."""
    rng = np.random.default_rng(seed)
    pixels = {
        name: rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
        for name, size in (cameras or CAMERAS).items()
    }
    agent_pos = rng.uniform(arm.low, arm.high, (count, arm.size)).astype(np.float32)
    return as_tensors({"agent_pos": agent_pos, "pixels": pixels}, "cpu")


def example(**changes):
    """A random episode of the toy arm."""
    return example_episode(arm=TOY_ARM, **{"cameras": CAMERAS, **changes})
