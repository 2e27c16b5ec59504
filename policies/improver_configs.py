"""The settings of post-training methods; apart from the methods so that help needs no torch."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from robolearn.policies.configs import at_least_one


@dataclass(frozen=True)
class CriticConfig:
    """Sizes of a critic of chunks, and how it is taught."""

    kind: ClassVar[str] = "critic"
    heads: int = 4  # M
    trunk: Literal["mlp", "transformer"] = "mlp"  # what the heads share
    hidden: int = 256  # width
    depth: int = 2  # layers of the trunk
    patch: int = 4  # chunk steps in one token of the transformer, at most
    prior: float = 0.05  # size of each head's frozen random network, in mean episodes
    share: float = 0.8  # of the episodes that each head learns from
    aggregation: Literal["min", "deviations", "quantile"] = "min"  # of the heads, to be cautious
    pessimism: float = 1.0  # deviations below the mean; or the quantile
    steps: int = 6000  # of each round
    batch_size: int = 256  # fragments a step
    learning_rate: float = 1e-3  # peak; warms up linearly, then falls to zero as a cosine
    polyak: float = 0.005  # how much of the weights the target network takes over in a step
    samples: int = 4  # of the policy at every observation
    masked: bool = True  # whether nothing follows the end of a task; without: an ablation
    backup: Literal["policy", "best"] = "policy"  # what follows: a chunk of the policy, or the best

    def __post_init__(self) -> None:
        """Refuses sizes below one and shares outside 0..1.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "heads", "hidden", "depth", "patch", "steps", "batch_size", "samples")
        for name in ("share", "polyak"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"critic {name} is {getattr(self, name)}; give more than 0, to 1")
        if self.aggregation == "quantile" and not 0.0 <= self.pessimism < 0.5:
            raise ValueError(
                f"critic pessimism is {self.pessimism}; a cautious quantile is from 0 to below 0.5"
            )


@dataclass(frozen=True)
class ActorConfig:
    """How a policy is taught what was weighed."""

    steps: int = 1500  # of each round
    batch_size: int = 128  # observations a step
    learning_rate: float = 3e-4  # peak; warms up linearly, then falls to zero as a cosine
    ema: float = 0.995  # decay of the averaged weights, which are the ones that act
    lora: int = 0  # rank of adapters that learn beside the head's layers; 0: the whole head learns

    def __post_init__(self) -> None:
        """Refuses sizes below one, and a negative rank.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "steps", "batch_size")
        if self.lora < 0:
            raise ValueError(f"actor lora is {self.lora}; give a rank of 1 or more, or 0 for none")


@dataclass(frozen=True)
class AdvantageConfig:
    """How advantages become weights."""

    effective: float = 0.45  # share of the data that the weights leave: chooses the temperature
    clip: Literal["weight", "exponent"] = "weight"  # what is limited
    limit: float = 20.0  # the largest weight; or of the exponent, up and down

    def __post_init__(self) -> None:
        """Refuses shares outside 0..1.

        Raises:
            ValueError: naming the setting.
        """
        if not 0.0 < self.effective < 1.0 or self.limit <= 0.0:
            raise ValueError(
                f"effective is {self.effective} and limit {self.limit}; give a share between 0 and "
                "1, and a limit above 0"
            )


@dataclass(frozen=True)
class AloeConfig:
    """What defines ALOE."""

    kind: ClassVar[str] = "aloe"
    critic: CriticConfig = field(default_factory=CriticConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)


@dataclass(frozen=True)
class BcConfig:
    """What defines behaviour cloning of everything, or of what succeeded."""

    kind: ClassVar[str] = "bc"
    successes: bool = False  # only of episodes that succeeded: filtered behaviour cloning
    actor: ActorConfig = field(default_factory=ActorConfig)


@dataclass(frozen=True)
class DaggerConfig:
    """What defines imitation of demonstrations and corrections."""

    kind: ClassVar[str] = "dagger"
    actor: ActorConfig = field(default_factory=ActorConfig)


@dataclass(frozen=True)
class ValueConfig:
    """Sizes of a distributional value of states, and how it is taught."""

    bins: int = 101  # of the value's distribution
    hidden: int = 256  # width
    steps: int = 2000  # of each round
    batch_size: int = 256  # observations a step
    learning_rate: float = 1e-3  # peak; warms up linearly, then falls to zero as a cosine

    def __post_init__(self) -> None:
        """Refuses sizes below one, and a single bin.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "hidden", "steps", "batch_size")
        if self.bins < 2:
            raise ValueError(f"policy bins is {self.bins}; a distribution needs at least 2")


@dataclass(frozen=True)
class AwrConfig(ValueConfig):
    """What defines advantage-weighted regression."""

    kind: ClassVar[str] = "awr"
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)


@dataclass(frozen=True)
class RecapConfig:
    """What defines RECAP."""

    kind: ClassVar[str] = "recap"
    lookahead: int = 12  # steps behind which the value of a state tells whether they were good
    share: float = 0.3  # of what the policy did by itself in a task, that is called good
    dropped: float = 0.1  # how often the policy is told nothing
    guidance: float = 1.0  # how far from what it would do anyway towards what is good, and beyond
    value: ValueConfig = field(default_factory=lambda: ValueConfig(bins=201))
    actor: ActorConfig = field(default_factory=ActorConfig)

    def __post_init__(self) -> None:
        """Refuses no lookahead, and shares outside 0..1.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "lookahead")
        for name in ("share", "dropped"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share between 0 and 1")


@dataclass(frozen=True)
class QChunkingConfig:
    """What defines Q-chunking."""

    kind: ClassVar[str] = "q-chunking"
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(backup="best", samples=16))
    actor: ActorConfig = field(default_factory=ActorConfig)


@dataclass(frozen=True)
class IqlConfig:
    """What defines implicit Q-learning."""

    kind: ClassVar[str] = "iql"
    expectile: float = 0.7  # of what recorded actions are worth; one half is their mean
    hidden: int = 256  # width of the state value
    critic: CriticConfig = field(default_factory=CriticConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)

    def __post_init__(self) -> None:
        """Refuses expectiles outside 0..1.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "hidden")
        if not 0.0 < self.expectile < 1.0:
            raise ValueError(f"expectile is {self.expectile}; give a share between 0 and 1")


# A loop of actor and critic looks at an actor, too, so a step takes longer.
ONLINE: Final[dict[str, Any]] = {"steps": 3000, "learning_rate": 3e-4, "batch_size": 128}


@dataclass(frozen=True)
class FqlConfig:
    """What defines flow Q-learning."""

    kind: ClassVar[str] = "fql"
    alpha: float = 10.0  # how much the distance to the flow weighs, where values weigh one
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(**ONLINE))
    actor: ActorConfig = field(default_factory=ActorConfig)  # of the flow

    def __post_init__(self) -> None:
        """Refuses to flee from the flow.

        Raises:
            ValueError: naming the setting.
        """
        if self.alpha < 0.0:
            raise ValueError(f"alpha is {self.alpha}; give it 0 or more")


@dataclass(frozen=True)
class DsrlConfig:
    """What defines reinforcement learning in the space of a policy's noise."""

    kind: ClassVar[str] = "dsrl"
    bound: float = 1.5  # no number of the noise is larger; 0 leaves none
    shared: bool = False  # all steps of a chunk have the same noise
    hidden: int = 256  # width of what chooses the noise, and of what rates it
    depth: int = 2  # layers of both
    entropy: float = 0.0  # aimed at, of each number of the noise
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(**ONLINE))

    def __post_init__(self) -> None:
        """Refuses sizes below one, and a negative bound.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "hidden", "depth")
        if self.bound < 0.0:
            raise ValueError(f"bound is {self.bound}; give it 0 or more")


@dataclass(frozen=True)
class RlpdConfig:
    """What defines reinforcement learning with prior data."""

    kind: ClassVar[str] = "rlpd"
    cloning: float = 1.0  # how much imitating what was recorded weighs
    bound: float = 3.0  # of a chunk's numbers, in deviations of the demonstrations
    hidden: int = 256  # width of the actor
    depth: int = 2  # its layers
    entropy: float = -1.0  # aimed at, of each number of a chunk
    subset: int = 2  # heads whose least value is the target; drawn in every step
    critic: CriticConfig = field(
        default_factory=lambda: CriticConfig(heads=10, share=1.0, prior=0.0, **ONLINE)
    )

    def __post_init__(self) -> None:
        """Refuses sizes below one, no room for chunks, and more heads than there are.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "hidden", "depth", "subset")
        if self.bound <= 0.0 or self.cloning < 0.0:
            raise ValueError(
                f"bound is {self.bound} and cloning {self.cloning}; give a bound above 0, and a "
                "weight of 0 or more"
            )
        if self.subset > self.critic.heads:
            raise ValueError(f"subset is {self.subset} of {self.critic.heads} heads; give fewer")


@dataclass(frozen=True)
class GorlConfig:
    """What defines GoRL."""

    kind: ClassVar[str] = "gorl"
    horizon: int = 8  # steps of a chunk, all of which are executed
    move: float = 0.1  # rad that a joint moves in a chunk, as one deviation
    bound: float = 3.0  # of a latent's numbers: so many deviations it moves at most
    width: int = 64  # of tokens
    hidden: int = 128  # width of encoder, decoder and value
    depth: int = 2  # their layers
    discount: float = 0.97  # of one decision
    trace: float = 0.95  # lambda: how far advantages look ahead
    clip: float = 0.2  # how far a probability may change at once
    prior: float = 0.001  # pull towards N(0, 1)
    epochs: int = 4  # over the decisions of an iteration
    batch_size: int = 256  # decisions a step
    learning_rate: float = 5e-4
    decoder_steps: int = 600  # of each refinement
    recent: int = 5  # iterations whose episodes the decoder may learn from, the last of a stage
    share: float = 0.5  # of these episodes, the best, that it learns from

    def __post_init__(self) -> None:
        """Refuses sizes below one, and shares outside 0..1.

        Raises:
            ValueError: naming the setting.
        """
        at_least_one(self, "horizon", "width", "hidden", "depth", "epochs", "batch_size")
        at_least_one(self, "decoder_steps", "recent")
        for name in ("discount", "trace", "share"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; give more than 0, to 1")
