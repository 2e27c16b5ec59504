"""Rehearsal: shares of batches, and what is left out of them."""

import numpy as np
import pytest

from robolearn.rehearsal import Rehearsal, joined


class Known:
    """Draws windows that tell where they are from."""

    def __init__(self, name, **others):
        self.name, self.others = name, others

    def draw(self, rng, count):
        kept = {key: np.repeat(value, count) for key, value in self.others.items()}
        return {
            "pixels": {"top": np.full((count, 2, 2, 3), len(self.name), np.uint8)},
            "episode": rng.integers(3, size=count),
            "instruction": [self.name] * count,
            "reward": np.ones((count, 4)),
            "success": np.ones((count, 4), bool),
            **kept,
        }


@pytest.mark.parametrize(("share", "old"), [(0.0, 0), (0.25, 2), (0.5, 4)])
def test_a_share_of_each_batch_is_from_before(share, old):
    batch = Rehearsal(Known("new"), Known("before"), share).draw(np.random.default_rng(0), 8)
    assert batch["instruction"] == ["new"] * (8 - old) + ["before"] * old
    assert batch["pixels"]["top"].shape == (8, 2, 2, 3)
    assert batch["pixels"]["top"][:, 0, 0, 0].tolist() == [3] * (8 - old) + [6] * old


def test_nothing_of_rewards_is_left():
    batch = Rehearsal(Known("new"), Known("before"), 0.5).draw(np.random.default_rng(0), 8)
    assert batch.keys() == {"pixels", "episode", "instruction"}


def test_episodes_of_the_same_number_keep_apart():
    batch = Rehearsal(Known("new"), Known("before"), 0.5).draw(np.random.default_rng(0), 64)
    new, old = set(batch["episode"][:32]), set(batch["episode"][32:])
    assert len(new) == len(old) == 3
    assert not new & old


def test_what_only_one_of_them_has_is_left_out():
    rng = np.random.default_rng(0)
    one, other = Known("new", force=1.0).draw(rng, 2), Known("before").draw(rng, 2)
    assert "force" not in joined([one, other])
