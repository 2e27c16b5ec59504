"""How advantages become weights, and how a policy is taught what was weighed.

Weights are exp(A / temperature), limited (Peng et al. 2019, "Advantage-weighted regression"). The
temperature follows from how much of the data shall still count: the effective sample size

    (sum w)^2 / sum w^2

as a share of the data. An advantage that does not differ gives equal weights.

A policy learns from weights by drawing frames as often as they weigh. That is the weighted loss in
expectation, whatever the policy's loss is; with equal weights it is behaviour cloning, and no step
is spent on what counts for nothing. Flow matching and diffusion bound the likelihood only loosely,
so this is a step towards the better actions, not the exact solution of a regularised problem.
"""

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from robolearn.policies.base import Info, TrainablePolicy, as_tensors
from robolearn.policies.fitting import in_bf16, minimise
from robolearn.policies.improver_configs import ActorConfig, AdvantageConfig
from robolearn.policies.lora import adapted_policy, merge
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.experience import Experience

TEMPERATURES = 400  # that are tried
LIMITINGS = 8


def weights_of(advantage: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """Weights (N,) of mean 1 for advantages (N,).

    Limits can keep the weights from leaving so little; then they leave as little as they can.

    Raises:
        ValueError: an advantage that is not finite.
    """
    if not np.isfinite(advantage).all():
        raise ValueError("advantages are not finite: the critic diverged; lower its learning rate")
    centred = np.asarray(advantage, np.float64) - np.mean(advantage)
    spread = float(np.abs(centred).max())
    if spread < 1e-12:
        return np.ones(len(centred))
    shares = []
    temperatures = spread * np.geomspace(1e3, 1e-3, TEMPERATURES)  # the hotter, the more counts
    for temperature in temperatures:
        shares.append(effective_share(_limited(centred / temperature, config)))
        if shares[-1] <= config.effective:
            break
    return _limited(centred / temperatures[int(np.argmin(shares))], config)


def _limited(exponent: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """Weights of mean 1."""
    if config.clip == "exponent":
        weights = np.exp(np.clip(exponent, -config.limit, config.limit))
        return weights / weights.mean()
    weights = np.exp(exponent - exponent.max())
    for _ in range(LIMITINGS):  # what is limited lowers the mean, which raises all others
        weights = np.minimum(weights / weights.mean(), config.limit)
    return weights / weights.mean()


def effective_share(weights: np.ndarray) -> float:
    """The effective sample size of weights (N,), as a share of N."""
    return float(weights.sum() ** 2 / (np.square(weights).sum() * len(weights)))


def imitate(
    policy: TrainablePolicy,
    experience: "Experience",
    frames: np.ndarray,
    weights: np.ndarray,
    config: ActorConfig,
    seed: int,
    told: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> tuple[TrainablePolicy, Info]:
    """A policy that was taught these frames as often as they weigh; it shares the old encoder.

    Args:
        policy: where it begins; stays as it is.
        experience: holds the frames.
        frames: int (N,).
        weights: (N,), not all zero.
        config: how long.
        seed: of the draws.
        told: further values (N,) of the frames, which the policy's loss is told by name.
    """
    encoder = policy.encoder().requires_grad_(requires_grad=False)
    student = copy.deepcopy(policy, {id(encoder): encoder})
    if config.lora:
        adapted_policy(student, config.lora, seed, fixed=encoder)
    average = copy.deepcopy(student, {id(encoder): encoder})
    student.train()
    until = np.cumsum(weights / weights.sum())

    def loss(step: int) -> Tensor:
        rng = stream(seed, f"imitate {step}")
        chosen = np.searchsorted(until, rng.random(config.batch_size), side="right")
        chosen = np.minimum(chosen, len(frames) - 1)
        batch = experience.batch(frames[chosen], student.horizon)
        batch |= as_tensors({name: values[chosen] for name, values in told.items()}, student.device)
        with in_bf16(student.device):
            return student.loss(batch, rng)[0]

    losses = minimise(
        student,
        loss,
        steps=config.steps,
        learning_rate=config.learning_rate,
        follower=average,
        pace=1.0 - config.ema,
    )
    if config.lora:
        merge(average)
    return average.eval(), {"actor_loss": losses[-1]}
