"""A learner in a process of its own, that the fault trials kill: `fault_matrix` has the ways."""

import signal
import sys
from itertools import count
from pathlib import Path
from typing import Final

from robolearn.config import load_config
from robolearn.hardware.client import Driver
from robolearn.hardware.driver import DriverConfig
from robolearn.hardware.fault_rig import sway

WARM: Final = 50  # steps until the arm is well in motion


def main(folder: Path) -> None:
    """Drives the arm of a rig until it is made to end.

    Args:
        folder: the rig's; it has the driver's config, and gets the file `moving`.
    """
    sys.stderr = (folder / "learner.log").open("w")  # an error is what is wanted here
    signal.signal(signal.SIGUSR1, _fail)
    # A shell starts what runs in its background with the signal ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = load_config(DriverConfig, folder)
    with Driver(config) as driver:
        driver.engage()
        for step in count():
            driver.send(sway(step / config.hz))
            driver.advance()
            if step == WARM:
                (folder / "moving").touch()


def _fail(number: int, frame: object) -> None:
    raise RuntimeError("the policy has failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
