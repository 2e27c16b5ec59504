"""The settings of methods that imagine in latents; see `configs`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from robolearn.policies.configs import FlowConfig, FlowSettings, at_least_one, at_least_zero

Spacing = Literal["geometric", "printed", "exponential", "uniform", "none"]
Sees = Literal["both", "imagination", "pictures"]


@dataclass(frozen=True)
class Act2GoalConfig(FlowSettings):
    """What defines an Act2Goal policy: a world model that imagines, and an expert that acts."""

    kind: ClassVar[str] = "act2goal"
    sample_steps: int = 4  # from noise to chunk, and to imagined frames
    draws: int = 2
    hidden: int = 256  # width of the action expert
    depth: int = 3  # blocks of the world model and of the expert, which are paired
    width: int = 64  # of the world model
    stride: int = 8  # steps between near frames; divides the horizon
    far: int = 4  # frames and actions between there and the goal
    spacing: Spacing = "geometric"  # of these, see policies/hashing.py
    latents: int = 48  # channels of the autoencoder's latents
    autoencoder_steps: int = 800  # of its training, which comes first
    # One that others have trained, through diffusers: a folder, or an id of the hub; "" trains one
    autoencoder: str = ""
    first_stage: float = 0.5  # share of the steps in which the world model learns to imagine
    action_weight: float = 0.1  # of the actions' loss in the first stage; in the second it is all
    video_weight: float = 0.1  # of the video's loss in the second stage; published: 0
    distance_weight: float = 0.1  # of the loss of the temporal distance, in both
    sees: Sees = "both"  # what the expert acts on: see policies/act2goal.py
    video: str = ""  # a video model of others that imagines: folder or id of the hub; "" for none
    video_lora: int = 0  # rank of its adapters; 0 leaves the model as it is
    limit: float = 2.0  # no plan for goals that are so many times as far as any in training

    def __post_init__(self) -> None:
        """Also refuses what does not fit together.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        at_least_one(self, "width", "stride", "far", "latents", "autoencoder_steps")
        at_least_zero(self, "action_weight", "video_weight", "distance_weight", "video_lora")
        if self.video_lora and not self.video:
            raise ValueError(
                f"policy video_lora is {self.video_lora}, and there is no video model to adapt; "
                "give one (video)"
            )
        if self.history > 1:
            raise ValueError("policy history is for policies that are told their goal; give 1")
        if self.horizon % self.stride:
            raise ValueError(
                f"policy stride is {self.stride}; it must divide the horizon {self.horizon}"
            )
        beyond = 0 if self.spacing == "none" else self.far
        if self.hindsight.furthest < self.horizon + beyond:
            raise ValueError(
                f"policy hindsight.furthest is {self.hindsight.furthest}; a horizon of "
                f"{self.horizon} and {beyond} far points need at least {self.horizon + beyond}"
            )
        if not 0.0 <= self.first_stage <= 1.0:
            raise ValueError(f"policy first_stage is {self.first_stage}; give a share, 0 to 1")
        if self.limit < 1.0:
            raise ValueError(f"policy limit is {self.limit}; it must be at least 1")


@dataclass(frozen=True)
class SusieConfig(FlowConfig):
    """What defines a policy that imagines a subgoal, and acts towards it."""

    kind: ClassVar[str] = "susie"
    sample_steps: int = 4  # from noise to chunk, and to the imagined subgoal
    goal: Literal["pictures"] = "pictures"  # that is what tells it the goal
    ahead: int = 16  # steps to the subgoal, unless the goal is nearer
    width: int = 64  # of what imagines
    latents: int = 48  # channels of the autoencoder's latents
    autoencoder_steps: int = 800  # of its training, which comes first

    def __post_init__(self) -> None:
        """Also refuses subgoals that a chunk goes beyond.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        at_least_one(self, "width", "latents", "autoencoder_steps")
        if self.ahead < self.horizon:
            raise ValueError(
                f"policy ahead is {self.ahead}; a chunk of {self.horizon} steps (horizon) must not "
                "lead beyond the subgoal"
            )


@dataclass(frozen=True)
class CemConfig:
    """What defines a planner: a model of what actions lead to, and a search among chunks."""

    kind: ClassVar[str] = "cem"
    horizon: int = 16  # steps in a chunk
    part: int = 8  # steps that the model predicts at once; divides the horizon
    width: int = 64  # of the model
    depth: int = 3  # its blocks
    latents: int = 48  # channels of the autoencoder's latents
    autoencoder_steps: int = 800  # of its training, which comes first
    directions: int = 12  # in which chunks differ most among demonstrations, which are searched
    samples: int = 64  # chunks that are tried at once; the cost of a decision is that of
    iterations: int = 4  # samples times iterations looks of the model
    elites: int = 8  # best ones of them, of which the next ones are drawn

    def __post_init__(self) -> None:
        """Refuses sizes below one, and what does not fit together.

        Raises:
            ValueError: naming the setting.
        """
        sizes = ("horizon", "part", "width", "depth", "latents", "autoencoder_steps")
        at_least_one(self, *sizes, "directions", "samples", "iterations")
        if self.horizon % self.part:
            raise ValueError(
                f"policy part is {self.part}; it must divide the horizon {self.horizon}"
            )
        if not 2 <= self.elites <= self.samples:
            raise ValueError(
                f"policy elites is {self.elites}; give 2 or more, and at most the {self.samples} "
                "samples"
            )


@dataclass(frozen=True)
class GoalWriterConfig:
    """What defines a writer of goals: it imagines what an instruction asks for."""

    kind: ClassVar[str] = "goal-writer"
    width: int = 64  # of the network
    depth: int = 3  # its blocks
    words: int = 64  # features of a word
    sample_steps: int = 8  # from noise to goal
    steps: int = 2000  # of training
    batch_size: int = 64  # examples a step
    learning_rate: float = 1e-3  # peak; warms up linearly, then falls to zero as a cosine

    def __post_init__(self) -> None:
        """Refuses sizes below one.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "width", "depth", "words", "sample_steps", "steps", "batch_size")
