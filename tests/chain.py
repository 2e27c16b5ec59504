"""Small worlds whose values are known: an experience for critics, without a simulator.

A world is deterministic: `move(state, action)` gives the next state; leaving it by the good end is
success, by the bad end a failure. Policies draw the actions of a chunk independently of each other.
"""

import itertools
from collections import Counter

import numpy as np
import torch

from robolearn.experience import Samples
from robolearn.policies.base import Context
from robolearn.policies.critic import Critic
from robolearn.policies.improver_configs import CriticConfig
from robolearn.replay import Replay, Reward

DONE, BROKEN = -1, -2


class Chain:
    """States in a row; action +1 or -1 along it. The right end is success, the left end failure."""

    actions = (-1.0, 1.0)

    def __init__(self, size=5):
        self.size = size

    def move(self, state, action):
        state += 1 if action > 0 else -1
        return DONE if state == self.size else BROKEN if state < 0 else state


class Grid:
    """A square; actions right and up. Its right side is success, its upper side failure."""

    actions = (-1.0, 1.0)

    def __init__(self, side=3):
        self.side, self.size = side, side * side

    def move(self, state, action):
        row, column = divmod(state, self.side)
        if action > 0:
            return DONE if column == self.side - 1 else state + 1
        return BROKEN if row == self.side - 1 else state + self.side


class Known:
    """An experience of a world: tokens are one-hot states, chunks one joint's actions.

    Args:
        world: see above.
        executed: H.
        behaviour: probabilities of the good action, one for each policy that collected.
        limit: time limit, steps.
    """

    device = torch.device("cpu")
    demonstrations = 0

    def __init__(self, world, executed, behaviour, *, limit=30, episodes=400, seed=0):
        self.world, self.executed = world, executed
        self.reward = Reward(mean_length=world.size, patience=3.0)
        rng = np.random.default_rng(seed)
        columns = {name: [] for name in ("state", "action", "success", "terminated")}
        lengths = []
        for episode in range(episodes):
            good = behaviour[episode % len(behaviour)]
            state, steps = int(rng.integers(world.size)), 0
            while state >= 0 and steps < limit:
                action = world.actions[int(rng.random() < good)]
                columns["state"].append(state)
                columns["action"].append([action])
                state, steps = world.move(state, action), steps + 1
                columns["success"].append(state == DONE)
                columns["terminated"].append(state in (DONE, BROKEN))
            lengths.append(steps)
        arrays = {name: np.array(values) for name, values in columns.items()}
        arrays["action"] = arrays["action"].astype(np.float32)
        self.states = arrays.pop("state")
        self.replay = Replay(np.array(lengths), arrays, self.reward, executed=executed)

    tokens_shape = property(lambda self: (1, self.world.size))

    def tokens(self, frames):
        hot = np.eye(self.world.size, dtype=np.float32)[self.states[frames]]
        return torch.from_numpy(hot)[:, None]

    def context(self, frames):
        return Context(self.tokens(frames), torch.zeros(len(frames), 1))

    def samples(self, good, count=16, seed=1):
        """Chunks of a policy that takes the good action with this probability."""
        rng = np.random.default_rng(seed)
        frames = len(self.states)
        right = rng.random((frames, count, self.executed, 1)) < good
        return Samples(np.where(right, 1.0, -1.0).astype(np.float32), np.arange(frames))

    def critic(self, **settings):
        torch.manual_seed(0)
        config = CriticConfig(**{"hidden": 64, "depth": 1, **settings})
        critic = Critic(
            config, self.tokens_shape, [0.0], self.executed, self.reward.lowest, base="toy"
        )
        everywhere = torch.eye(self.world.size)[:, None]
        chunks = torch.tensor([[[-1.0]] * self.executed, [[1.0]] * self.executed])
        critic.fit(everywhere, chunks)
        return critic

    def exact(self, good):
        """The true value of every state and chunk under a policy: {(state, chunk): Q}."""
        gamma, chunks = (
            self.reward.gamma,
            list(itertools.product(self.world.actions, repeat=self.executed)),
        )
        likelihood = [np.prod([good if a > 0 else 1 - good for a in chunk]) for chunk in chunks]
        value = np.zeros(self.world.size)
        for _ in range(2000):
            q = {
                (s, chunk): self._of_chunk(s, chunk, value, gamma)
                for s in range(self.world.size)
                for chunk in chunks
            }
            new = np.array(
                [
                    sum(p * q[s, chunk] for p, chunk in zip(likelihood, chunks, strict=True))
                    for s in range(self.world.size)
                ]
            )
            if np.abs(new - value).max() < 1e-9:
                return q
            value = new
        return q

    def _of_chunk(self, state, chunk, value, gamma):
        total = 0.0
        for k, action in enumerate(chunk):
            state = self.world.move(state, action)
            if state == DONE:
                return total
            if state == BROKEN:
                return total + gamma**k * self.reward.lowest
            total -= gamma**k / self.reward.mean_length
        return total + gamma ** len(chunk) * value[state]

    def wrong(self, critic, q, least=10):
        """Mean error of the critic, as a share of the range, over all pairs seen so often."""
        states, chunks = zip(*self._seen(least), strict=True)
        tokens = torch.eye(self.world.size)[list(states)][:, None]
        actions = torch.tensor(chunks)[:, None, :, None]
        context = Context(tokens, torch.zeros(len(states), 1))
        with torch.inference_mode():
            found = critic.eval()(context, actions).mean(0)[:, 0].numpy()
        true = np.array([q[pair] for pair in zip(states, chunks, strict=True)])
        return float(np.abs(found - true).mean() / self.reward.patience)

    def _seen(self, least):
        """States and whole chunks that were seen so often."""
        replay = self.replay
        fragments = replay.fragments(replay.starts)
        whole = fragments.valid.all(1)
        chunks = map(tuple, fragments.action[whole, :, 0].tolist())
        pairs = Counter(zip(self.states[replay.starts[whole]].tolist(), chunks, strict=True))
        return [pair for pair, count in pairs.items() if count >= least]
