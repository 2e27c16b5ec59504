"""What tests of environments share: episodes as plain arrays, compared bit by bit."""

import hashlib
import re
from collections.abc import Mapping

import numpy as np
from mujoco.batch import MODEL_FIELDS

from robolearn.registry import make_env
from robolearn.seeding import stream

# The arrays of a model, but for constants of cameras and lights that follow a body, and what they
# do not hold.
FOLLOWING = r"(cam|light)_(pos|poscom|mat|dir)0"
ARRAYS = [
    field
    for field in MODEL_FIELDS
    if not field.startswith("opt.") and not re.fullmatch(FOLLOWING, field)
]
HEADLIGHT = "vis.headlight.ambient"


def flat(observation, prefix=""):
    """{"pixels": {"top": x}} becomes {"pixels/top": x}."""
    leaves = {}
    for key, value in observation.items():
        name = prefix + key
        leaves |= flat(value, f"{name}/") if isinstance(value, Mapping) else {name: value}
    return leaves


def run(env, seed, steps=6):
    """The observations of an episode that random actions drive."""
    return [flat(env.reset(seed=seed)[0]), *go_on(env, seed, steps)]


def go_on(env, seed, steps=6):
    """The observations of steps with random actions."""
    space, rng = env.action_space, np.random.default_rng(seed)
    actions = rng.uniform(space.low, space.high, (steps, *space.shape)).astype(np.float32)
    return [flat(env.step(action)[0]) for action in actions]


def digest(env_id, seed):
    """A fingerprint of all bits of an episode; at module level, so that a process can run it."""
    env = make_env(env_id)
    parts = run(env, seed)
    env.close()
    return hashlib.sha256(b"".join(p[k].tobytes() for p in parts for k in sorted(p))).hexdigest()


def numbers(model):
    """All arrays of a model."""
    arrays = {name: getattr(model, name).copy() for name in ARRAYS}
    return arrays | {HEADLIGHT: model.vis.headlight.ambient.copy()}


def changed(before, after):
    """Which arrays differ."""
    return {name for name, value in before.items() if not np.array_equal(value, after[name])}


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_equal(a, b)


def demonstrate(env, seed):
    """The infos of each step of the expert's episode."""
    env.reset(seed=seed)
    infos = []
    for action in env.unwrapped.expert(stream(seed, "expert")):
        *_, terminated, truncated, info = env.step(action)
        infos.append(info)
        if terminated or truncated:
            return infos
    raise AssertionError("an expert acts for ever")
