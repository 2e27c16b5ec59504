"""What a decision among many candidates costs, beside one of one candidate.

Part of `robolearn bench-taco --policy RUN`.
"""

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from robolearn.policies.base import Policy
    from robolearn.policies.scorers import Scorer

MANY: Final = 32  # candidates
WARM: Final = 3  # decisions that do not count
FEW_FRAMES: Final = 2000  # are enough to fit a verifier whose latency is measured


def latency(policy: Path, out: Path, *, decisions: int, seed: int) -> dict[str, float]:
    """Milliseconds of a decision: with one candidate, with many, and with nothing shared by them.

    Args:
        policy: a run on pictures.
        out: folder for a verifier of few frames: the run shall not keep it.
        decisions: of each of the three kinds.
        seed: of the episode whose first observation is looked at.
    """
    from robolearn.fit import fit
    from robolearn.options import FitConfig
    from robolearn.policies.scorers import open_scorer
    from robolearn.sources import source_of
    from robolearn.workers import make_vector, one_thread

    fitted = out / "latency-taco"
    shutil.rmtree(fitted, ignore_errors=True)
    fit(FitConfig(policy, out=fitted, frames=FEW_FRAMES))
    source = source_of(policy)
    loaded = source.load()
    scorer = open_scorer(str(fitted), loaded, source)
    env = make_vector(source.env, 1, **source.observation_options())
    with one_thread(), closing(env):
        taken = _taken(loaded, scorer, env, decisions, seed)
    quantiles = {
        f"latency_{name}_p{q}_ms": float(np.percentile(values, q))
        for name, values in taken.items()
        for q in (50, 99)
    }
    return {
        "latency_ratio_32_to_1": float(np.median(taken["many"] / taken["one"])),
        "latency_saving_over_naive": float(1.0 - np.median(taken["many"] / taken["naive"])),
        **quantiles,
    }


def _taken(
    policy: "Policy", scorer: "Scorer", env: "VectorEnv", decisions: int, seed: int
) -> dict[str, np.ndarray]:
    """Milliseconds; the kinds take turns, because a machine may be busy with other things."""
    from robolearn.agent import PolicyAgent
    from robolearn.contract import Info

    observation, info = env.reset(seed=seed)
    text = str(info[Info.TASK][0])
    one = PolicyAgent(policy, replan_every=1)
    many = PolicyAgent(policy, replan_every=1, candidates=MANY, scorer=scorer)
    for agent in (one, many):
        agent.reset(0, seed, text)
    naive = []
    for k in range(decisions + WARM):
        one.act(observation)
        many.act(observation)
        naive.append(_share_nothing(policy, scorer, observation, text, k))
    seconds = {"one": one.latency(0), "many": many.latency(0), "naive": naive}
    return {name: 1000.0 * np.array(values[WARM:]) for name, values in seconds.items()}


def _share_nothing(
    policy: "Policy", scorer: "Scorer", observation: dict[str, Any], text: str, decision: int
) -> float:
    """Seconds of a decision that encodes the observation anew for every candidate."""
    import torch

    from robolearn.policies.base import Chunks, as_tensors
    from robolearn.seeding import stream

    begin = time.perf_counter()
    with torch.inference_mode():
        repeated = as_tensors(_repeat(observation), policy.device)
        context = policy.encode(repeated, [text] * MANY)
        noise = [stream(decision, f"naive {k}") for k in range(MANY)]
        each = policy.sample(context, 1, noise)
        chunks = Chunks(each.actions.transpose(0, 1), each.features.transpose(0, 1))
        scorer.score(context, chunks, noise[:1]).argmax()
    return time.perf_counter() - begin


def _repeat(observation: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _repeat(value) if isinstance(value, dict) else np.repeat(value, MANY, axis=0)
        for key, value in observation.items()
    }
