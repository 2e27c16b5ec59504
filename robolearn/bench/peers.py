"""`robolearn bench --parts peers`: the speed of other packages' tasks on this machine.

Their versions of MuJoCo exclude each other and ours, so each gets a virtual environment in the
benchmark's folder, where `peer_probe` measures it.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from robolearn.bench.speed import BenchConfig
from robolearn.venvs import install, last_line, output_of

PROBE: Final = Path(__file__).with_name("peer_probe.py")


class Peer(NamedTuple):
    """Another package."""

    probe: str  # its name in `peer_probe`
    requirements: tuple[str, ...]


PEERS: Final = {
    "gymnasium-robotics FetchPickAndPlace": Peer(
        "fetch", ("gymnasium-robotics==1.4.2", "mujoco<=3.11", "setuptools<81")
    ),
    "Meta-World pick-place": Peer(
        "metaworld", ("metaworld==3.1.1", "mujoco==3.3.0", "packaging", "setuptools<81")
    ),
    "gym-aloha TransferCube": Peer("aloha", ("gym-aloha==0.1.5", "mujoco<3.9", "setuptools<81")),
}


def measure(config: BenchConfig) -> dict[str, Any]:
    """A row for each package; one that cannot be installed or run says why."""
    rows: dict[str, Any] = {}
    for name, peer in PEERS.items():
        Console(stderr=True).print(name)
        rows[name] = _measure(config.out / "peers" / peer.probe, peer)
    return {"peers": rows}


def _measure(folder: Path, peer: Peer) -> dict[str, Any]:
    try:
        python = install(folder, peer.requirements)
        return json.loads(output_of(python, "-P", str(PROBE), peer.probe).splitlines()[-1])
    except subprocess.CalledProcessError as error:
        return {"error": last_line(error)}
