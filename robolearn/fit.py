"""`robolearn train --policy taco --base RUN`: fits what goes beside a policy to its demonstrations.

It is saved with the fingerprint of the policy, so that it never rates another one's candidates, or
writes another one's goals.
"""

from pathlib import Path

from robolearn import checkpoint
from robolearn.config import save_config
from robolearn.dataset import EpisodeDataset
from robolearn.files import check_writable
from robolearn.options import FilterConfig, FitConfig, WriterConfig
from robolearn.policies.base import Policy, usable_device
from robolearn.policies.scorers import taught_type
from robolearn.results import save_result
from robolearn.rounds import demonstrations_of
from robolearn.units import Units

Fitting = FitConfig | FilterConfig | WriterConfig


def fit(config: Fitting) -> Path:
    """Fits a scorer, or what else there is, and returns its folder.

    Raises:
        FileExistsError: `out` holds something already.
        ValueError: a policy or dataset that cannot be used.
    """
    usable_device(config.device)
    base = checkpoint.resolve(config.base)
    out = config.out or checkpoint.run_of(base) / config.policy.kind
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} holds something already; remove it or choose another --out")
    check_writable(out)
    policy, dataset = _opened(config, base)
    kind = taught_type(config.policy.kind)
    fitted, figures = kind.fitted_to(policy, checkpoint.fingerprint(base), dataset, config)
    fitted.save(out)
    save_config(config, out, "fit.json")
    save_result(out, "figures", config, figures)
    return out


def _opened(config: Fitting, base: Path) -> tuple[Policy, EpisodeDataset]:
    policy = checkpoint.load_policy(base, config.device)
    data, units = config.data, config.units
    if data is None:
        data, told = _demonstrations(base)
        units = units or told
    dataset = EpisodeDataset(data, units=units)
    policy.check_dataset(dataset)
    return policy, dataset


def _demonstrations(base: Path) -> tuple[Path, Units | None]:
    """What a policy was trained on.

    Raises:
        ValueError: the checkpoint stands alone, so nobody knows.
    """
    run = checkpoint.run_of(base)
    if run == base:
        raise ValueError(f"{base} does not say what it was trained on; give --data FOLDER")
    return demonstrations_of(run)


def main(config: Fitting) -> int:
    """Runs the command."""
    out = fit(config)
    usage = taught_type(config.policy.kind).usage.format(base=config.base, out=out)
    print(f"{out} is fitted; {usage}")
    return 0
