"""The packages whose tasks are known: what they need, and where they are installed.

A package runs in this process if everything that it needs is installed here, in these versions.
Else it runs in a virtual environment of its own, which `robolearn envs --install NAME` makes: most
packages exclude robolearn's version of MuJoCo.
"""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement

from robolearn import venvs

PREFIX: Final = "foreign:"
HOME: Final = "ROBOLEARN_FOREIGN"  # variable of the folder with the virtual environments


class Package(NamedTuple):
    """A package.

    Attributes:
        requirements: what pip shall install, the package itself first; versions that were tried.
        ids: of its tasks, for lists.
        extra: whether it installs beside robolearn, as the extra of this name.
    """

    requirements: tuple[str, ...]
    ids: tuple[str, ...]
    extra: bool = False

    def is_here(self) -> bool:
        """Whether this process can run it."""
        return all(_holds(Requirement(text)) for text in self.requirements)


class Kind(NamedTuple):
    """Tasks whose ids begin alike."""

    package: str  # in `PACKAGES`
    door: str  # module:class
    steps: int  # time limit, the package's own
    scripted: bool = False  # whether it has an expert


# gym-pusht has no simulator that could clash. The others break with newer versions of MuJoCo.
PACKAGES: Final = {
    "pusht": Package(("gym-pusht>=0.1.8,<0.2",), ("gym_pusht/PushT-v0",), extra=True),
    "aloha": Package(
        ("gym-aloha==0.1.5", "mujoco<3.9", "setuptools<81"),
        ("gym_aloha/AlohaTransferCube-v0", "gym_aloha/AlohaInsertion-v0"),
    ),
    "robotics": Package(
        ("gymnasium-robotics==1.4.2", "mujoco<=3.11", "setuptools<81"),
        (
            *(f"Fetch{task}-v4" for task in ("Reach", "Push", "Slide", "PickAndPlace")),
            "FrankaKitchen-v1",
        ),
    ),
    "metaworld": Package(
        ("metaworld==3.1.1", "mujoco==3.3.0", "packaging", "setuptools<81"),
        ("metaworld/MT10", "metaworld/MT50", "metaworld/reach-v3"),
    ),
    "robosuite": Package(
        ("robosuite==1.5.2", "mujoco==3.3.0", "gymnasium", "h5py"),
        tuple(
            f"robosuite/{task}"
            for task in ("Lift", "PickPlaceCan", "NutAssemblySquare", "ToolHang", "TwoArmTransport")
        ),
    ),
}
KINDS: Final = {
    "gym_pusht/": Kind("pusht", "foreign_pusht:PushT", 300, scripted=True),
    "gym_aloha/": Kind("aloha", "foreign_aloha:Aloha", 300, scripted=True),
    "Fetch": Kind("robotics", "foreign_robotics:Fetch", 50),
    "FrankaKitchen": Kind("robotics", "foreign_robotics:Kitchen", 280),
    "metaworld/": Kind("metaworld", "foreign_metaworld:MetaWorld", 500, scripted=True),
    # robomimic's time limits for its demonstrations of skilled people (Mandlekar et al. 2021); the
    # last is ours, for all others.
    "robosuite/Lift": Kind("robosuite", "foreign_robosuite:Robosuite", 400),
    "robosuite/PickPlaceCan": Kind("robosuite", "foreign_robosuite:Robosuite", 400),
    "robosuite/NutAssemblySquare": Kind("robosuite", "foreign_robosuite:Robosuite", 400),
    "robosuite/ToolHang": Kind("robosuite", "foreign_robosuite:Robosuite", 700),
    "robosuite/TwoArmTransport": Kind("robosuite", "foreign_robosuite:Robosuite", 700),
    "robosuite/": Kind("robosuite", "foreign_robosuite:Robosuite", 500),
}


def kind_of(name: str) -> Kind | None:
    """What is known of a task; None for one of a package that is not in the list.

    Args:
        name: the id without `PREFIX`.
    """
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), None)


def folder_of(package: str) -> Path:
    """The virtual environment of a package."""
    home = os.environ.get(HOME) or "~/.cache/robolearn/foreign"
    return Path(home).expanduser() / package


def install(package: str) -> Path:
    """Makes the virtual environment of a package and returns its folder.

    Raises:
        ValueError: no such package, or pip fails.
    """
    if package not in PACKAGES:
        raise ValueError(f"no package {package!r}; choose among {', '.join(PACKAGES)}")
    folder = folder_of(package)
    try:
        venvs.install(folder, PACKAGES[package].requirements)
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{package} cannot be installed: {venvs.last_line(error)}") from error
    return folder


def state_of(package: str) -> str:
    """Where a package is installed, in words."""
    if PACKAGES[package].is_here():
        return "here"
    return "on its own" if venvs.python_of(folder_of(package)) else "missing"


def how_to_install(package: str) -> str:
    """A sentence."""
    command = f"`robolearn envs --install {package}`"
    if PACKAGES[package].extra:
        return f"install the extra {package} (pip install 'robolearn[{package}]'), or {command}"
    return f"install it with {command}, on its own, since it needs other versions of packages"


def python_for(package: str) -> Path | None:
    """The interpreter that runs a package; None if this process can.

    Raises:
        ValueError: it is not installed; the message says how to.
    """
    if PACKAGES[package].is_here():
        return None
    if (python := venvs.python_of(folder_of(package))) is None:
        name = Requirement(PACKAGES[package].requirements[0]).name
        raise ValueError(f"{name} is missing: {how_to_install(package)}")
    return python


def versions_for(package: str) -> dict[str, str]:
    """The versions of what a package's tasks depend on, where it runs.

    Raises:
        ValueError: it is not installed.
    """
    wanted = {Requirement(text).name for text in PACKAGES[package].requirements}
    wanted = (wanted | {"mujoco", "gymnasium", "numpy"}) - {"setuptools", "packaging"}
    python = python_for(package)
    libraries = python.parent.parent.glob("lib/python*/site-packages") if python else sys.path
    installed = distributions(path=[str(folder) for folder in libraries])
    return {d.name: d.version for d in installed if d.name in wanted}


def _holds(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
