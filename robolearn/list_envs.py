"""`robolearn envs`: the environments, what their tasks are, and what they look like.

Those of other packages are listed with how they are installed, and `--install` installs them.
"""

from importlib import import_module

import gymnasium
from rich.console import Console
from rich.table import Column, Table

from robolearn.envs.foreign_packages import PACKAGES, PREFIX, install, kind_of, state_of
from robolearn.options import EnvsConfig
from robolearn.registry import env_ids, simulated_ids


def main(config: EnvsConfig) -> int:
    """Prints a table of ids, time limits and the first line of each task's docstring.

    Raises:
        ValueError: a task that is not simulated is asked for, or a package that is not known.
    """
    if config.gallery is not None:
        return _gallery(config)
    for package in config.install:
        print(f"{package} is installed in {install(package)}")
    if not config.install:
        _list()
    return 0


def _list() -> None:
    table = Table("environment", "time limit", "task")
    for name in env_ids():
        spec = gymnasium.spec(name)
        module = import_module(str(spec.entry_point).partition(":")[0])
        summary = (module.__doc__ or "").partition("\n")[0].partition(": ")[2]
        table.add_row(name, f"{spec.max_episode_steps} steps", summary)
    Console().print(table)
    whole = Column("environment of others", no_wrap=True)
    others = Table(whole, "time limit", "package", "installed")
    for package, known in PACKAGES.items():
        for name in known.ids:
            kind = kind_of(name)
            assert kind is not None  # both tables stand in one file
            others.add_row(PREFIX + name, f"{kind.steps} steps", package, state_of(package))
    Console().print(others)
    print("Whatever is missing: robolearn envs --install PACKAGE")


def _gallery(config: EnvsConfig) -> int:
    from robolearn.gallery import make_gallery

    assert config.gallery is not None
    wanted = [name if "/" in name else f"robolearn/{name}-v0" for name in config.only]
    for env_id in wanted:
        if env_id not in simulated_ids():
            raise ValueError(f"{env_id!r} is no simulated task; see `robolearn envs`")
    sheet = make_gallery(wanted or simulated_ids(), config.gallery)
    print(f"{sheet} shows the tasks; the videos lie beside it")
    return 0
