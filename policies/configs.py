"""The settings of every method; apart from the methods so that help and configs need no torch."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal


def at_least_one(config: object, *names: str) -> None:
    """Refuses counts and sizes below one.

    Raises:
        ValueError: naming the setting.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"policy {name} is {getattr(config, name)}; it must be at least 1")


def at_least_zero(config: object, *names: str) -> None:
    """Refuses negative ones.

    Raises:
        ValueError: naming the setting.
    """
    for name in names:
        if getattr(config, name) < 0:
            raise ValueError(f"policy {name} is {getattr(config, name)}; it must not be negative")


@dataclass(frozen=True)
class BackboneConfig:
    """What all backbones have in common: how tokens are read off feature maps."""

    kind: ClassVar[str]
    width: int = 128  # features of a token, D
    channels: int = 32  # of the convolutions
    blocks: int = 2  # residual blocks of them
    keypoints: int = 32  # for each camera

    def __post_init__(self) -> None:
        """Refuses sizes below one.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "width", "channels", "blocks", "keypoints")


@dataclass(frozen=True)
class SmallConfig(BackboneConfig):
    """What defines the small backbone, which is trained from scratch."""

    kind: ClassVar[str] = "small"
    words: int = 64  # features of a word


@dataclass(frozen=True)
class PretrainedConfig(BackboneConfig):
    """What defines a backbone upon a vision model and a language model of others."""

    kind: ClassVar[str] = "pretrained"
    vision: str = "facebook/dinov2-small"  # a folder, or an id of the hub
    language: str = "google-t5/t5-small"  # likewise; "" learns the words from scratch
    grid: int = 8  # its patches are averaged to at most so many rows and columns
    lora: int = 0  # rank of the vision model's adapters; 0 leaves the model as it is
    language_lora: int = 0  # of the language model's
    words: int = 64  # features of a word that is learned from scratch

    def __post_init__(self) -> None:
        """Refuses what makes no map.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        at_least_one(self, "grid", "words")
        at_least_zero(self, "lora", "language_lora")


@dataclass(frozen=True)
class StableControlConfig(BackboneConfig):
    """What defines a backbone upon the features of a text-to-image diffusion model."""

    kind: ClassVar[str] = "stable-control"
    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # a folder, or an id of the hub
    layers: tuple[str, ...] = ("down_blocks.1", "down_blocks.2", "down_blocks.3", "mid_block")
    timestep: int = 0  # how noisy the picture is, 0 (least) to 999
    size: int = 256  # height and width that pictures are scaled to
    grid: int = 8  # rows and columns of the map that all layers are brought to
    prompt: bool = False  # the U-Net hears the instruction; its features are then not kept on disk

    def __post_init__(self) -> None:
        """Refuses what makes no map.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        at_least_one(self, "size", "grid")
        at_least_zero(self, "timestep")
        if not self.layers:
            raise ValueError("policy layers is empty; name at least one, such as mid_block")


@dataclass(frozen=True)
class HindsightConfig:
    """How later frames become the goals of earlier ones; see `robolearn.hindsight`."""

    furthest: int = 128  # steps from a frame to its goal, at most
    finals: float = 0.3  # share of goals that are the last frame of an episode, if within reach
    jitter: float = 0.3  # changes of light and colour, other ones of observation and goal

    def __post_init__(self) -> None:
        """Refuses what draws no goal.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "furthest")
        for name in ("finals", "jitter"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"policy {name} is {getattr(self, name)}; give a share, 0 to 1")


@dataclass(frozen=True)
class ChunkConfig:
    """What all policies that make chunks have in common."""

    kind: ClassVar[str]
    horizon: int = 16  # steps in a chunk
    history: int = 1  # observations that it looks back at, the present one included
    hidden: int = 384  # width of the head
    depth: int = 3  # blocks of the head
    hindsight: HindsightConfig = field(default_factory=HindsightConfig)  # for goal pictures

    def __post_init__(self) -> None:
        """Refuses sizes below one.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "horizon", "history", "hidden", "depth")


@dataclass(frozen=True)
class NoiseConfig(ChunkConfig):
    """What all policies that make chunks of noise have in common."""

    sample_steps: int = 8  # from noise to chunk
    draws: int = 4  # noise draws for each observation in the loss; the picture is encoded once
    patch: int = 4  # chunk steps in one token, for a head that is a transformer

    def __post_init__(self) -> None:
        """Refuses sizes below one.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        at_least_one(self, "sample_steps", "draws", "patch")


@dataclass(frozen=True)
class DenoiserConfig(NoiseConfig):
    """What flow and diffusion policies have in common."""

    head: Literal["mlp", "transformer"] = "mlp"  # what denoises: see policies/heads.py
    backbone: SmallConfig | PretrainedConfig | StableControlConfig = field(
        default_factory=SmallConfig  # what turns observations into tokens
    )
    goal: Literal["words", "pictures"] = "words"  # what tells it the goal; pictures need no words

    def __post_init__(self) -> None:
        """Also refuses chunks that are no whole number of tokens, and goals in the past.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        if self.head == "transformer" and self.horizon % self.patch:
            raise ValueError(
                f"policy patch is {self.patch}; it must divide the horizon {self.horizon}"
            )
        if self.goal == "pictures" and (self.history > 1 or self.backbone.kind != "small"):
            raise ValueError(
                "policy goal is pictures, for which there is a history of 1 and the small backbone"
            )


@dataclass(frozen=True)
class FlowSettings(NoiseConfig):
    """How flow matching is trained and sampled; see policies/flow.py."""

    solver: Literal["euler", "midpoint"] = "euler"  # midpoint looks twice a step
    times: Literal["uniform", "logit-normal", "beta"] = "uniform"  # of training


@dataclass(frozen=True)
class FlowConfig(FlowSettings, DenoiserConfig):
    """What defines a flow policy."""

    kind: ClassVar[str] = "flow"


@dataclass(frozen=True)
class DiffusionConfig(DenoiserConfig):
    """What defines a diffusion policy."""

    kind: ClassVar[str] = "diffusion"
    sample_steps: int = 10  # from noise to chunk; divides train_steps
    train_steps: int = 100  # noise levels, T
    sampler: Literal["ddim", "dpm-solver++"] = "ddim"
    # What the head predicts; epsilon says next to nothing of the chunk where sampling begins.
    prediction: Literal["epsilon", "sample", "v_prediction"] = "v_prediction"

    def __post_init__(self) -> None:
        """Also refuses steps that would land between noise levels.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        if self.train_steps < 1 or self.train_steps % self.sample_steps:
            raise ValueError(
                f"policy sample_steps is {self.sample_steps}; it must divide the "
                f"{self.train_steps} noise levels (train_steps)"
            )


@dataclass(frozen=True)
class TacoConfig:
    """What defines a TACO verifier."""

    kind: ClassVar[str] = "taco"
    flips: int = 512  # coins; the noise of a count falls with their root
    fourier: int = 1024  # random Fourier features that it counts with
    length_scale: float = 0.0  # of these, in distances between neighbours; 0 chooses it
    ridge: float = 0.0  # how much the count is smoothed; 0 chooses it
    prior: bool = True  # by which the unseen reads as a count of one
    scale: float = 0.0  # multiplies features; 0 standardises each instead

    def __post_init__(self) -> None:
        """Refuses what cannot count.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "flips", "fourier")
        at_least_zero(self, "length_scale", "ridge", "scale")


@dataclass(frozen=True)
class KnnConfig:
    """What defines a verifier by the distance to the nearest features."""

    kind: ClassVar[str] = "knn"
    neighbours: int = 1  # whose mean distance counts

    def __post_init__(self) -> None:
        """Refuses no neighbours.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "neighbours")


@dataclass(frozen=True)
class MahalanobisConfig:
    """What defines a verifier by one Gaussian."""

    kind: ClassVar[str] = "mahalanobis"
    ridge: float = 1e-3  # added to the variances, which are one after standardising

    def __post_init__(self) -> None:
        """Refuses what would make a constant feature divide by zero.

        Raises:
            ValueError: naming the setting.
        """
        if self.ridge <= 0:
            raise ValueError(f"policy ridge is {self.ridge}; it must be more than 0")


@dataclass(frozen=True)
class RndConfig:
    """What defines a verifier by random network distillation."""

    kind: ClassVar[str] = "rnd"
    outputs: int = 64
    hidden: int = 256  # width of both networks
    depth: int = 2  # residual blocks
    steps: int = 3000  # of training
    batch_size: int = 512  # features a step
    learning_rate: float = 1e-3  # peak; warms up linearly, then falls to zero as a cosine

    def __post_init__(self) -> None:
        """Refuses sizes below one.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "outputs", "hidden", "depth", "steps", "batch_size")


@dataclass(frozen=True)
class SubgoalFilterConfig:
    """What defines a filter of imagined subgoals."""

    kind: ClassVar[str] = "subgoal-filter"
    hidden: int = 128  # width of the network
    depth: int = 2  # residual blocks
    steps: int = 1000  # of training
    batch_size: int = 64  # examples a step
    learning_rate: float = 1e-3  # peak; warms up linearly, then falls to zero as a cosine

    def __post_init__(self) -> None:
        """Refuses sizes below one.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "hidden", "depth", "steps", "batch_size")
