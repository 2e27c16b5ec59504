"""RECAP: the policy is told whether what it imitates was good, and then asked for what is good.

Physical Intelligence 2025, "pi*0.6: a VLA that learns from experience". A distributional value of
states is taught Monte-Carlo returns (as in awr.py); what was done is called good if the advantage

    A = sum_{k<N} gamma^k r_k + gamma^N V(s_{t+N}) - V(s_t)

is among the highest of its task. What was demonstrated or corrected is always good. The policy
imitates everything, with a token that says good or bad; now and then it is told nothing, so that

    v = v(nothing) + guidance (v(good) - v(nothing))        Ho and Salimans 2022, eq. 6

can be asked for at run time. The tokens begin as zeros: at first the policy is what it was.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.awr import fitted_value, value_at
from robolearn.policies.base import (
    Batch,
    Chunks,
    Context,
    Generators,
    Info,
    Overlaps,
    TrainablePolicy,
)
from robolearn.policies.critic import Critic
from robolearn.policies.denoiser import DenoisingPolicy
from robolearn.policies.derived import DerivedPolicy
from robolearn.policies.heads import Head, Prefix
from robolearn.policies.improver import Improved, Judge, Judgement, held_out, rank_correlation
from robolearn.policies.improver_configs import RecapConfig
from robolearn.replay import Replay

if TYPE_CHECKING:
    from robolearn.experience import Experience

BAD, GOOD, NOTHING = range(3)  # what the policy can be told


class Recap(Judge):
    """See the module's docstring, and `Judge`."""

    config: RecapConfig

    def improve(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Improved:
        """See `Improver`; what learns is a policy that listens."""
        listening = RecapPolicy.made_of(policy, self.config)
        return super().improve(listening, experience, before, seed)

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """See `Judge`; all weigh alike."""
        del policy, before
        config, replay = self.config, experience.replay
        returns, held = replay.returns(), held_out(replay.numbers)
        value = fitted_value(config.value, experience, returns, held, seed)
        at = np.full(len(replay.episode), np.nan, np.float32)
        at[replay.frames] = value_at(value, experience, replay.frames)
        good = are_good(
            advantages(replay, returns, at, config.lookahead),
            replay.tasks[replay.episode[replay.starts]],
            replay.episode[replay.starts] < experience.demonstrations,
            np.asarray(replay.fragments(replay.starts).intervention.any(1)),
            config.share,
        )
        unseen = replay.starts_of(held)
        figures = {
            "positive": float(good.mean()),
            "critic_rank": rank_correlation(at[unseen], returns[unseen]),
        }
        return Judgement(np.ones(len(good)), figures, told={"good": good})


def advantages(replay: Replay, returns: np.ndarray, value: np.ndarray, steps: int) -> np.ndarray:
    """A (N,) of the replay's `starts`: what was paid for some steps, and the value behind them.

    What was paid is a difference of returns. Where the task ended meanwhile nothing follows; where
    an episode was cut off, the last observation of it does.

    Args:
        replay: whose starts are looked at.
        returns: of every frame (F,).
        value: of those frames that are looked at (F,).
        steps: N; rounded up to the next frame that is looked at.
    """
    frames, episode = replay.starts, replay.episode[replay.starts]
    ahead = frames + -(-steps // replay.stride) * replay.stride
    ended = (ahead >= replay.ends[episode]) & replay.finished[episode]
    ahead = np.minimum(ahead, replay.last_seen[episode])
    behind = np.where(ended, 0.0, value[ahead] - returns[ahead])
    return returns[frames] + replay.reward.gamma ** (ahead - frames) * behind - value[frames]


def are_good(
    advantage: np.ndarray, task: np.ndarray, shown: np.ndarray, corrected: np.ndarray, share: float
) -> np.ndarray:
    """Which of N fragments are called good, bool (N,).

    Args:
        advantage: (N,).
        task: of each, int (N,).
        shown: demonstrated, bool (N,).
        corrected: bool (N,).
        share: of what the policy did by itself in a task, that is good.
    """
    good = shown | corrected
    for one in np.unique(task):
        own = (task == one) & ~(shown | corrected)
        if own.any():
            good |= own & (advantage > np.quantile(advantage[own], 1.0 - share))
    return good


class RecapPolicy(DerivedPolicy):
    """A policy that is told what is good; see the module's docstring."""

    kind: ClassVar[str] = RecapConfig.kind
    method_type = RecapConfig
    method: RecapConfig

    def __init__(self, inner: DenoisingPolicy, method: RecapConfig) -> None:
        super().__init__(inner, method)
        inner.head = Listening(inner.head, self.tokens[0], method.guidance)
        self.words = nn.Parameter(torch.zeros(3, self.tokens[1]))

    @property
    def novel(self) -> Sequence[nn.Parameter]:
        """The words; see `TrainablePolicy`."""
        return (self.words,)

    def kept(self, tokens: Tensor) -> Prefix:
        """See `DerivedPolicy`: of a policy that is asked for what is good."""
        asked = [GOOD] if self.method.guidance == 1.0 else [GOOD, NOTHING]
        words = self.words[asked].expand(len(tokens), -1, -1)
        return self.inner.head.prefix(torch.cat([tokens, words], 1))

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """See `Policy`."""
        return self.inner.sample(context, n, noise)

    def follow(self, context: Context, n: int, noise: Generators, overlaps: Overlaps) -> Chunks:
        """See `Policy`."""
        return self.inner.follow(context, n, noise, overlaps)

    def refine(self, context: Context, actions: Tensor, noise: Generators, level: float) -> Chunks:
        """See `Policy`."""
        return self.inner.refine(context, actions, noise, level)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """The inner policy's, told "good" bool (B,) of the batch; demonstrations are good."""
        tokens = self.inner.tokens_of(batch, batch["instruction"], rng)
        good = batch.get("good", torch.ones(len(tokens), dtype=torch.bool, device=self.device))
        word = self.words[self.heard(good, rng)][:, None]
        seen = batch | {"tokens": torch.cat([tokens, word], 1)}
        return self.inner.loss(seen | {"agent_pos": self.inner.present_of(batch)}, rng)

    def heard(self, good: Tensor, rng: np.random.Generator) -> Tensor:
        """What the policy is told of fragments (B,): good or bad, or at times nothing."""
        silent = torch.from_numpy(rng.random(len(good)) < self.method.dropped).to(good.device)
        return torch.where(silent, NOTHING, good.long())


class Listening(Head):
    """A head that is told something: words behind the tokens, which are added to all of them.

    With two words it moves from what the last one means towards the first and beyond.

    Args:
        head: what listens.
        tokens: T, without the words.
        guidance: how far it moves; 1 as far as the first word.
    """

    def __init__(self, head: Head, tokens: int, guidance: float) -> None:
        nn.Module.__init__(self)
        self.head, self.count, self.guidance = head, tokens, guidance

    def prefix(self, tokens: Tensor) -> Prefix:
        """What the head keeps of tokens (B, T + words, D), for each word: (B, words, ...)."""
        seen, words = tokens[:, : self.count], tokens[:, self.count :]
        kept = [self.head.prefix(seen + word[:, None]) for word in words.unbind(1)]
        return tuple(torch.stack(part, 1) for part in zip(*kept, strict=True))

    def forward(self, x: Tensor, t: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """See `Head`."""
        words = zip(*[part.unbind(1) for part in prefix], strict=True)
        (said, features), *others = [self.head(x, t, kept) for kept in words]
        for plain, _ in others:
            said = plain + self.guidance * (said - plain)
        return said, features
