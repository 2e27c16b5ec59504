"""The settings of policies that are shown their goal and tell one chunk, without noise."""

from dataclasses import dataclass, field
from typing import ClassVar

from robolearn.policies.configs import (
    ChunkConfig,
    PretrainedConfig,
    SmallConfig,
    StableControlConfig,
    at_least_one,
)


@dataclass(frozen=True)
class ModeConfig(ChunkConfig):
    """What all of them have in common."""

    backbone: SmallConfig | PretrainedConfig | StableControlConfig = field(
        default_factory=SmallConfig  # what turns observations and goals into tokens
    )
    spread: float = 0.3  # of further candidates, where demonstrations have a deviation of 1

    def __post_init__(self) -> None:
        """Also refuses what cannot be shown a goal.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        if self.history > 1 or self.backbone.kind != "small":
            raise ValueError(
                f"policy {self.kind} is shown its goal in pictures, for which there is a history "
                "of 1 and the small backbone"
            )
        if self.spread < 0.0:
            raise ValueError(f"policy spread is {self.spread}; it must not be negative")


@dataclass(frozen=True)
class GcbcConfig(ModeConfig):
    """What defines goal-conditioned behaviour cloning."""

    kind: ClassVar[str] = "gcbc"


@dataclass(frozen=True)
class ValuedConfig(ModeConfig):
    """What policies have in common that weigh actions by a value of goals."""

    executed: int = 8  # steps of a chunk whose worth is learned
    ahead: int = 32  # steps to a subgoal, k
    alpha: float = 3.0  # how sharply advantages of chunks tell, for each `executed` steps gained
    beta: float = 3.0  # likewise of subgoals
    discount: float = 0.99  # of a step
    expectile: float = 0.7  # of what follows a state; one half is the mean
    heads: int = 2  # of the value
    representation: int = 16  # numbers that represent a goal
    polyak: float = 0.02  # how much of the value's weights its target takes over in a step

    def __post_init__(self) -> None:
        """Also refuses shares outside 0..1 and a chunk that is shorter than what is executed.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        at_least_one(self, "executed", "ahead", "heads", "representation")
        for name in ("discount", "expectile", "polyak"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(
                    f"policy {name} is {getattr(self, name)}; give a share between 0 and 1"
                )
        for name in ("alpha", "beta"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"policy {name} is {getattr(self, name)}; it must not be negative")
        if self.executed > self.horizon:
            raise ValueError(
                f"policy executed is {self.executed}; a chunk has {self.horizon} steps (horizon)"
            )


@dataclass(frozen=True)
class HiqlConfig(ValuedConfig):
    """What defines HIQL: a policy of subgoals above one of chunks."""

    kind: ClassVar[str] = "hiql"


@dataclass(frozen=True)
class SawConfig(ValuedConfig):
    """What defines SAW: one flat policy that learns from subgoals."""

    kind: ClassVar[str] = "saw"
