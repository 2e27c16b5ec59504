"""The policy protocol: `encode`, `sample`, and for what learns here `loss`, `save`, `load`.

Data layout. B batch, n candidates, H chunk steps, J joints, D features:
    observation  {"agent_pos": float32 (B, J), "pixels": {camera: uint8 (B, h, w, 3)}, ...}
    batch        an observation, "action" (B, H, J), "mask" (B, H), "instruction" list of B strings
    chunk        absolute joint targets (B, n, H, J), in the units of the environment
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from robolearn import checkpoint
from robolearn.config import to_json
from robolearn.contract import ArmSpec, observation_space

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.policies.world_model import Imagined
    from robolearn.windows import Sampler

Batch = dict[str, Any]
Generators = Sequence[np.random.Generator]  # one for each observation of a batch
Info = dict[str, float]


@dataclass
class Context:
    """An encoded observation, computed once per decision and shared by all candidates.

    Attributes:
        tokens: (B, T, D) vision, language and state tokens.
        agent_pos: (B, J) the joint positions that relative chunks start from.
        cache: what the policy itself keeps of the tokens, e.g. keys and values of every layer; each
            begins with B, and no candidate needs a copy of it.
    """

    tokens: Tensor
    agent_pos: Tensor
    cache: tuple[Tensor, ...] = ()


@dataclass
class Chunks:
    """Candidate action chunks.

    Attributes:
        actions: (B, n, H, J) absolute joint targets.
        features: (B, n, F) what the policy felt while it made them; critics and verifiers read it.
        plans: (B, n, 3, N, C), what is seen now, what each is expected to lead to, and the goal, in
            latents; None of policies that were not asked to plan, see `Fitted.prepare`.
    """

    actions: Tensor
    features: Tensor
    plans: Tensor | None = None


@dataclass
class Overlap:
    """What a new chunk shall agree with, since the arm is busy with it.

    Attributes:
        actions: (H, J), what is planned for the steps of the new chunk; anything where the weight
            is 0.
        weights: (H,), from 1, where the new chunk comes too late to change it, to 0, where it is
            free.
    """

    actions: np.ndarray
    weights: np.ndarray


Overlaps = Sequence[Overlap]


def as_batch(overlaps: Overlaps) -> tuple[Tensor, Tensor]:
    """What is planned for B contexts, (B, 1, H, J), and its weights, (B, 1, H, 1)."""
    actions = np.stack([overlap.actions for overlap in overlaps])[:, None]
    weights = np.stack([overlap.weights for overlap in overlaps])[:, None, :, None]
    return torch.from_numpy(actions), torch.from_numpy(weights)


class Policy(nn.Module, ABC):
    """A policy that predicts action chunks from observations and an instruction."""

    horizon: int  # H, steps in a chunk
    # T, observations that it looks back at, the present one included. With more than one, each
    # quantity of an observation is (B, T, ...), the oldest first.
    history: int = 1
    arm: Mapping[str, Any]  # the fields of the `ArmSpec` that it was trained on, as far as known
    env_id: str = ""  # where its demonstrations were recorded; "" if in several, or unknown

    @abstractmethod
    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Encodes B observations and their instructions."""

    @abstractmethod
    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """Draws n chunks for each of B contexts, with one noise generator for each context."""

    def refine(
        self,
        context: Context,
        actions: Tensor,
        noise: Generators,
        level: float,
    ) -> Chunks:
        """Puts noise on chunks and takes it off again: what the policy would rather do near them.

        A policy that cannot start in between, as here, draws whole chunks: a level of 1.

        Args:
            context: B observations.
            actions: chunks (B, n, H, J).
            noise: one generator for each context.
            level: share of the noise, 0 (next to none) to 1 (nothing but noise).
        """
        del level
        return self.sample(context, actions.shape[1], noise)

    def follow(self, context: Context, n: int, noise: Generators, overlaps: Overlaps) -> Chunks:
        """Draws n chunks for each context that go on with what is under way.

        A policy that cannot be guided, as here, draws as always, and the chunks are blended.

        Args:
            context: B observations.
            n: chunks for each.
            noise: one generator for each context.
            overlaps: one for each context.
        """
        chunks = self.sample(context, n, noise)
        planned, weights = (part.to(chunks.actions) for part in as_batch(overlaps))
        return replace(chunks, actions=chunks.actions.lerp(planned, weights))

    def notes(self, context: Context) -> dict[str, Tensor]:
        """What it knows of its decision besides actions, by name, (B,) each.

        A policy that estimates how far its goal is says so in "steps_to_goal", and in "plan_found",
        1 or 0, whether that is within its reach.
        """
        del context
        return {}

    def imagine(self, observation: Batch) -> "Imagined | None":
        """What it expects to see from B observations on; None for one that imagines nothing."""
        del observation
        return None

    def gist(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """What pictures (B, h, w, 3) of its cameras show, (B, F), near where they look alike.

        Here coarse colours; a policy that encodes pictures for themselves knows better.
        """
        views = (pixels[name].movedim(-1, 1).float() for name in self.cameras)
        return torch.cat([adaptive_avg_pool2d(view, 8).flatten(1) for view in views], 1)

    def encoder(self) -> nn.Module:
        """The part that makes the tokens of a context, which post-training leaves as it is."""
        return self

    def windows(self, dataset: "EpisodeDataset") -> "Sampler":
        """Windows of a dataset as it looks at them."""
        return dataset.windows(self.horizon, tuple(self.cameras), history=self.history)

    @property
    @abstractmethod
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """Those that it looks through, and the height and width of their pictures."""

    def present(self, quantity: Tensor) -> Tensor:
        """The newest (B, ...) of what `history` observations hold."""
        return quantity[:, -1] if self.history > 1 else quantity

    @property
    def joints(self) -> int:
        """J, joints of its arm."""
        return len(self.arm["joints"])

    @property
    def state_size(self) -> int:
        """Numbers of the simulator's state that it looks at; 0 for none."""
        return 0

    @property
    def goals(self) -> bool:
        """Whether it is shown its goal: "goal_pixels" of the cameras that it looks through."""
        return False

    @property
    def spread(self) -> Tensor:
        """How far demonstrations spread, by joint, (J,); (1,), a one, where nobody knows."""
        return torch.ones(1, device=self.device)

    def check_fits(self, arm: ArmSpec, observations: spaces.Dict) -> None:
        """Refuses an environment that the policy was not trained for.

        Raises:
            CheckpointError: another arm's joints, a camera missing or of another size.
        """
        for key in ("joints", "grippers", "low", "high", "control_hz"):
            found, trained = to_json(getattr(arm, key)), to_json(self.arm.get(key))
            if key in self.arm and found != trained:
                raise checkpoint.CheckpointError(
                    f"the policy was trained on {self.arm['name']} with {key} {trained}, and "
                    f"{arm.name} has {found}; train one for this arm"
                )
        pixels = observations.spaces.get("pixels")
        pictures = pixels.spaces if isinstance(pixels, spaces.Dict) else {}
        for camera, size in self.cameras.items():
            if camera not in pictures or (pictures[camera].shape or ())[:2] != tuple(size):
                raise checkpoint.CheckpointError(
                    f"the policy was trained on camera {camera!r} at {size[0]}x{size[1]}; "
                    "give the environment that camera and image_size"
                )
        shown = observations.spaces.get("goal_pixels")
        if self.goals and not (isinstance(shown, spaces.Dict) and {*self.cameras} <= {*shown}):
            raise checkpoint.CheckpointError(
                f"the policy is shown its goal in pictures of {', '.join(self.cameras)}; give the "
                "environment goal_pixels=True, or `robolearn eval` and `robolearn deploy` a --goal"
            )
        state, space = self.state_size, observations.spaces.get("environment_state")
        if state and (space is None or space.shape != (state,)):
            raise checkpoint.CheckpointError(
                f"the policy looks at the simulator's state, {state} numbers of "
                f"{self.env_id or 'its task'}; give it that task with obs_type='state'"
            )

    def check_dataset(self, dataset: "EpisodeDataset") -> None:
        """Refuses demonstrations that it cannot look at.

        Raises:
            CheckpointError: see `check_fits`.
        """
        state = dataset.columns.get("environment_state")
        seen = observation_space(dataset.arm, state_size=0 if state is None else state.shape[1])
        pictures: dict[str, spaces.Space] = {
            camera: spaces.Box(0, 255, (*size, 3), np.uint8)
            for camera, size in dataset.cameras.items()
        }
        seen["pixels"] = seen["goal_pixels"] = spaces.Dict(pictures)  # goals are later frames
        self.check_fits(replace(dataset.arm, control_hz=dataset.fps), seen)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


class TrainablePolicy(Policy):
    """A policy that learns from demonstrations, and whose checkpoints are ours."""

    kind: ClassVar[str]  # names the method in checkpoints and on the command line
    config: Any  # the method's settings, one of `robolearn.policies.configs`

    @property
    def fixed(self) -> nn.Module | None:
        """A part that stays as it was before the first step, whatever the policy learns later."""
        return None

    @property
    def novel(self) -> Sequence[nn.Parameter]:
        """What a method added to the policy that it began with: adapters do not replace it."""
        return ()

    def begin_alike(self) -> None:
        """Fresh adapters were put in: parts that follow others get theirs. Most have no such."""

    @abstractmethod
    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """The training loss (scalar) and figures to log, all randomness from `rng`."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """JSON values that rebuild the policy: its config and what it needs to know of the data."""

    @classmethod
    @abstractmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`; the weights are loaded afterwards."""

    @classmethod
    @abstractmethod
    def for_dataset(
        cls,
        config: Any,  # noqa: ANN401 (the method's own)
        dataset: "EpisodeDataset",
        cameras: Mapping[str, tuple[int, int]],
    ) -> Self:
        """A fresh policy whose vocabulary and normalisers are those of a dataset."""

    def save(self, folder: Path) -> None:
        """Writes the checkpoint `folder` (config.json, model.safetensors) atomically."""
        checkpoint.save_model(folder, self.kind, self.description(), self.state_dict())

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Reads a checkpoint that `save` wrote.

        Raises:
            CheckpointError: missing or damaged files, another kind of policy, missing statistics.
        """
        description, weights = checkpoint.load_model(folder, cls.kind)
        with checkpoint.describing(folder, f"{cls.kind} policy"):
            policy = cls.from_description(description)
        checkpoint.assign_weights(policy, weights, folder)
        return policy.to(usable_device(device)).eval()


def usable_device(name: str) -> torch.device:
    """The device called "cpu" or "cuda".

    Raises:
        ValueError: this machine has no such device.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no device {name!r} here ({reason}); choose cpu") from error


def as_tensors(observation: Mapping[str, Any], device: torch.device | str) -> Batch:
    """Numpy arrays become tensors on the device; nested dicts stay nested, other values stay."""
    moved: Batch = {}
    for key, value in observation.items():
        if isinstance(value, Mapping):
            moved[key] = as_tensors(value, device)
        elif isinstance(value, np.ndarray):
            moved[key] = torch.from_numpy(np.ascontiguousarray(value)).to(device)
        else:
            moved[key] = value
    return moved


def stacked(observations: Sequence[Mapping[str, Any]], axis: int = 0) -> dict[str, Any]:
    """Numpy observations of one kind as one, with a new dimension; nested dicts stay nested."""
    return {
        key: stacked([o[key] for o in observations], axis)
        if isinstance(value, Mapping)
        else np.stack([o[key] for o in observations], axis)
        for key, value in observations[0].items()
    }
