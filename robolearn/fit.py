"""`robolearn train --policy taco --base RUN`: fits a verifier to a policy and its demonstrations.

It collects the policy's features of demonstrated chunks, lets the verifier learn from them, and
saves it with the fingerprint of the policy, so that it never rates another one's candidates.
"""

import time
from pathlib import Path

import numpy as np
import torch

from robolearn import checkpoint
from robolearn.config import load_config, save_config
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError
from robolearn.files import check_writable
from robolearn.options import FitConfig, TrainConfig
from robolearn.policies.base import usable_device
from robolearn.policies.scorers import verifier_type
from robolearn.policies.verifier import demonstrated_features
from robolearn.results import save_result
from robolearn.seeding import stream

LEAST = 16  # features that something can be learned from


def fit(config: FitConfig) -> Path:
    """Fits a verifier and returns its folder.

    Raises:
        FileExistsError: `out` holds something already.
        ValueError: settings out of range, a policy or dataset that cannot be used.
    """
    _check(config)
    base = checkpoint.resolve(config.base)
    out = config.out or checkpoint.run_of(base) / config.policy.kind
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} holds something already; remove it or choose another --out")
    check_writable(out)
    begin = time.perf_counter()
    features = _features(config, base)
    if len(features) < LEAST:
        raise DatasetError(f"{len(features)} frames are too few to fit a verifier; record more")
    if not features.isfinite().all():
        raise ValueError(f"{base} has features that are not finite; train it again")
    collected = time.perf_counter()
    torch.manual_seed(config.seed)  # the initial weights
    kind = verifier_type(config.policy.kind)
    verifier = kind(config.policy, features.shape[1], checkpoint.fingerprint(base))
    verifier.to(features.device).train()
    figures = verifier.fit(features, stream(config.seed, f"fit {config.policy.kind}"))
    verifier.eval().save(out)
    save_config(config, out, "fit.json")
    seconds = {"collect_s": collected - begin, "fit_s": time.perf_counter() - collected}
    save_result(out, "figures", config, {**seconds, **figures})
    return out


def _check(config: FitConfig) -> None:
    for name in ("queries", "executed", "frames"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if not 0.0 <= config.noise <= 1.0:
        raise ValueError(f"noise is {config.noise}; give a share from 0 to 1")
    usable_device(config.device)


def _features(config: FitConfig, base: Path) -> torch.Tensor:
    policy = checkpoint.load_policy(base, config.device)
    data, units = config.data, config.units
    if data is None:
        trained = _training_of(base)
        data, units = trained.data, units or trained.units
    dataset = EpisodeDataset(data, units=units)
    policy.check_dataset(dataset)
    frames = len(dataset)
    wanted = np.unique(np.linspace(0, frames - 1, min(frames, config.frames)).round().astype(int))
    return demonstrated_features(
        policy,
        dataset,
        wanted,
        queries=config.queries,
        level=config.noise,
        executed=config.executed,
        seed=config.seed,
    )


def _training_of(base: Path) -> TrainConfig:
    """How a run was trained.

    Raises:
        ValueError: the checkpoint stands alone, so nobody knows.
    """
    run = checkpoint.run_of(base)
    if run == base:
        raise ValueError(f"{base} does not say what it was trained on; give --data FOLDER")
    return load_config(TrainConfig, run)


def main(config: FitConfig) -> int:
    """Runs the command."""
    out = fit(config)
    print(f"{out} is fitted; choose among candidates with:")
    print(f"  robolearn eval --policy {config.base} --scorer {out} --candidates 16")
    return 0
