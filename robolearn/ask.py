"""What a policy server is asked, checked against what its policy was trained on.

An observation holds joint positions, pictures and the instruction under any of these keys:
    agent_pos, pixels {camera}, prompt                                      ours
    observation/state, observation/CAMERA, prompt                           flat
    state, images {camera}, prompt                                          nested
Pictures are uint8 (h, w, 3) or (3, h, w). A policy that is shown its goal wants its pictures, too,
as goal_pixels {camera}. A policy that looks back at T observations wants (T, ...)
of each, the oldest first: the server keeps nothing between two requests. `candidates` asks for so
many chunks and their features instead of one chunk; `noise` says where the policy's noise begins
(`robolearn.wire.noise_to`). `refine`, chunks (n, H, J), asks for what becomes of these when noise
of the share `level` is put on them and taken off again (`Policy.refine`), and for their features.
`overlap`, a map of `actions` (H, J) and `weights` (H,), says what the chunks shall go on with while
the arm is busy with it (`Policy.follow`).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from robolearn.policies.base import Overlap, Policy
from robolearn.seeding import stream
from robolearn.wire import WireError, noise_from

MAX_CANDIDATES: Final = 64  # that a client may ask for
MAX_REFINED: Final = 4 * MAX_CANDIDATES  # a scorer may try each of them some times
IMAGE_KEYS: Final = ("pixels", "images")
GOAL_KEY: Final = "goal_pixels"
STATE_KEYS: Final = ("agent_pos", "observation/state", "state")


@dataclass
class Ask:
    """A checked request.

    Attributes:
        observation: as the policy takes it, without a batch dimension.
        instruction: what to do.
        candidates: chunks wanted with their features; 0 for the best one alone.
        noise: of the policy and of the scorer.
        refine: chunks (n, H, J) that shall be refined instead, n being `candidates`.
        level: of the noise for that.
        overlap: what the chunks shall go on with.
        arrived: monotonic seconds.
    """

    observation: dict[str, Any]
    instruction: str
    candidates: int
    noise: np.random.Generator
    arrived: float
    refine: np.ndarray | None = None
    level: float = 1.0
    overlap: Overlap | None = None

    @property
    def kind(self) -> tuple[int, float, bool]:
        """What has to be the same of those that are answered together."""
        level = -1.0 if self.refine is None else self.level
        return self.candidates, level, self.overlap is not None


def request_of(message: Mapping[str, Any], policy: Policy) -> Ask:
    """Checks a message against what the policy was trained on.

    Raises:
        WireError: something is missing, or of another shape; the error says what is wanted.
    """
    state = next((message[key] for key in STATE_KEYS if key in message), None)
    past = (policy.history,) if policy.history > 1 else ()
    numbers = {"agent_pos": (state, policy.joints)}
    if policy.state_size:
        numbers["environment_state"] = (message.get("environment_state"), policy.state_size)
    observation: dict[str, Any] = {
        name: _numbers(told, (*past, size), name) for name, (told, size) in numbers.items()
    }
    observation |= _pictures(message, policy, past)
    candidates, prompt = message.get("candidates", 0), message.get("prompt", "")
    if not isinstance(candidates, int) or not 0 <= candidates <= MAX_CANDIDATES:
        raise WireError(f"candidates is {candidates!r:.40}; ask for 0 to {MAX_CANDIDATES}")
    if not isinstance(prompt, str):
        raise WireError(f"prompt is {prompt!r:.40}; give the instruction as text")
    noise = message.get("noise")
    now = time.perf_counter()
    generator = stream(time.time_ns(), "serve") if noise is None else noise_from(noise)
    ask = Ask(observation, prompt, candidates, generator, now)
    if "refine" in message:
        ask.refine, ask.level = _chunks(message["refine"], policy), _share(message.get("level"))
        ask.candidates = len(ask.refine)
    elif "overlap" in message:
        ask.overlap = _overlap(message["overlap"], policy)
    return ask


def _pictures(
    message: Mapping[str, Any], policy: Policy, past: tuple[int, ...]
) -> dict[str, dict[str, np.ndarray]]:
    """What is seen, and the goal, if the policy wants to be shown them."""
    if not policy.cameras:
        return {}
    seen = next((message[key] for key in IMAGE_KEYS if key in message), None)
    if not isinstance(seen, Mapping):
        seen = {name: message.get(f"observation/{name}") for name in policy.cameras}
    kinds = {"pixels": seen}
    if policy.goals:
        goal = message.get(GOAL_KEY)
        if not isinstance(goal, Mapping):
            raise WireError(f"this policy is shown its goal: give pictures by camera as {GOAL_KEY}")
        kinds[GOAL_KEY] = goal
    return {
        kind: {
            name: _picture(pictures.get(name), (*past, *size), name)
            for name, size in policy.cameras.items()
        }
        for kind, pictures in kinds.items()
    }


def _chunks(value: object, policy: Policy) -> np.ndarray:
    wanted = (policy.horizon, policy.joints)
    count = len(value) if isinstance(value, np.ndarray) and value.shape[1:] == wanted else 0
    if not isinstance(value, np.ndarray) or not 1 <= count <= MAX_REFINED:
        raise WireError(f"refine must be 1 to {MAX_REFINED} chunks of shape {wanted}")
    return _numbers(value, value.shape, "refine")


def _overlap(value: object, policy: Policy) -> Overlap:
    if not isinstance(value, Mapping):
        raise WireError("overlap must be a map of actions and weights")
    actions = _numbers(value.get("actions"), (policy.horizon, policy.joints), "overlap's actions")
    weights = _numbers(value.get("weights"), (policy.horizon,), "overlap's weights")
    if weights.min() < 0.0 or weights.max() > 1.0:
        raise WireError("overlap's weights must be shares from 0 to 1")
    return Overlap(actions, weights)


def _share(value: object) -> float:
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise WireError(f"level is {value!r:.40}; give a share of noise from 0 to 1")
    return float(value)


def _numbers(value: object, shape: tuple[int, ...], name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind not in "iuf":
        raise WireError(f"{name} must be an array of {' x '.join(map(str, shape))} numbers")
    numbers = value.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise WireError(f"{name} has numbers that are not finite")
    return numbers


def _picture(value: object, size: tuple[int, ...], name: str) -> np.ndarray:
    wanted = (*size, 3)
    if isinstance(value, np.ndarray) and value.shape == (*size[:-2], 3, *size[-2:]) != wanted:
        value = np.moveaxis(value, -3, -1)
    if not isinstance(value, np.ndarray) or value.shape != wanted or value.dtype != np.uint8:
        raise WireError(f"the picture of camera {name!r} must be uint8 {wanted}")
    return value
