"""How a training begins: afresh, from the weights of another policy, or where it was stopped."""

from dataclasses import fields, replace
from pathlib import Path

from robolearn import checkpoint
from robolearn.config import load_config
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError
from robolearn.options import TrainConfig
from robolearn.policies import POLICIES
from robolearn.policies.base import TrainablePolicy, usable_device


def begun(config: TrainConfig) -> TrainConfig:
    """The config with what the run, or the policy that it begins with, says already.

    Raises:
        FileExistsError: `out` holds a run already and `resume` is off.
        ValueError: a setting is another one than there.
        CheckpointError, ConfigError: there is nothing to begin with.
    """
    if config.resume:
        return _resumed(config)
    if checkpoint.checkpoints(config.out) or (config.out / "model.safetensors").exists():
        raise FileExistsError(f"{config.out} holds a run; add --resume or choose another --out")
    return config if config.init is None else _fine_tuned(config)


def check(config: TrainConfig) -> None:
    """Refuses what cannot be trained.

    Raises:
        ValueError: a setting out of range, or a device that is not here.
    """
    for name in ("steps", "batch_size", "log_every", "save_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if config.threads < 0:
        raise ValueError(f"threads is {config.threads}; give a count, or 0 to measure the best")
    usable_device(config.device)


def first_policy(config: TrainConfig, dataset: EpisodeDataset) -> TrainablePolicy:
    """A fresh policy, or the one to fine-tune, whose words and statistics stay.

    Raises:
        CheckpointError: the one to fine-tune is damaged, or knows another arm or other cameras.
    """
    # The newest checkpoint of a run that goes on: the policy it began with may be gone, and what
    # is learned of a dataset before the first step may have taken minutes.
    start = newest_of(config) / "model" if config.resume else config.init
    if start is None:
        kind = POLICIES[config.policy.kind]()
        return kind.for_dataset(config.policy, dataset, _cameras(config, dataset))
    policy = checkpoint.load_policy(start)
    policy.check_dataset(dataset)
    return policy.train()


def newest_of(config: TrainConfig) -> Path:
    """The newest checkpoint of a run.

    Raises:
        CheckpointError: there is none.
    """
    found = checkpoint.checkpoints(config.out)
    if not found:
        raise checkpoint.CheckpointError(
            f"{config.out} has no checkpoint to resume; leave out --resume to start"
        )
    return found[-1]


def _cameras(config: TrainConfig, dataset: EpisodeDataset) -> dict[str, tuple[int, int]]:
    """The cameras that the policy looks through; none for one that looks at the state.

    Raises:
        DatasetError: the dataset does not have what the policy shall look at.
    """
    if config.obs_type == "state":
        if "environment_state" not in dataset.columns:
            raise DatasetError(
                f"{config.data} does not hold the simulator's state; record it with: "
                "robolearn record --obs-type state"
            )
        return {}
    if not dataset.cameras:
        raise DatasetError(f"{config.data} has no pictures to train on; restore its videos")
    return dataset.cameras


def _fine_tuned(config: TrainConfig) -> TrainConfig:
    """The config with the settings of the policy that it begins with.

    Raises:
        ValueError: other settings were asked for.
    """
    assert config.init is not None
    init = checkpoint.resolve(config.init)
    settings = checkpoint.load_policy(init).config
    if config.policy not in (settings, TrainConfig(config.data, config.out).policy):
        raise ValueError(
            f"the policy's settings are those of {config.init}; leave out --policy and --policy.*"
        )
    return replace(config, init=init, policy=settings)


def _resumed(config: TrainConfig) -> TrainConfig:
    """The config that the run was started with.

    Raises:
        ValueError: a setting was given that is another one; it would change the run's past.
        CheckpointError, ConfigError: there is nothing to resume.
    """
    newest_of(config)
    started = load_config(TrainConfig, config.out, data=config.data, out=config.out, resume=True)
    default = TrainConfig(config.data, config.out)
    for name in (f.name for f in fields(config)):
        given, before = getattr(config, name), getattr(started, name)
        if name == "init" and given is not None and Path(given) in Path(before or "").parents:
            continue  # the run of the checkpoint that it began with
        if given not in (before, getattr(default, name)):
            raise ValueError(
                f"{config.out} was started with {name} {before}, not {given}; resume it without "
                "that option, or start a new run in another --out"
            )
    return started
