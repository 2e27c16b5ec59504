"""What benchmarks begin with: policies and verifiers that are made where they are missing."""

from dataclasses import replace

from robolearn.checkpoint import checkpoints
from robolearn.fit import fit
from robolearn.options import FitConfig, TrainConfig
from robolearn.train import train


def trained(config: TrainConfig) -> None:
    """Trains, goes on with what was begun, or finds it done."""
    begun = checkpoints(config.out)
    if not begun or int(begun[-1].name) < config.steps:
        train(replace(config, resume=bool(begun)))


def fitted(config: FitConfig) -> None:
    """Fits a verifier, or finds it done."""
    assert config.out is not None  # whoever calls it says
    if not (config.out / "model.safetensors").exists():
        fit(config)
