"""The guardian: a process that does nothing but watch the driver and its client.

The servos have no watchdog: when nobody talks to them they hold their last goal for ever. So if the
driver dies, whatever the reason, the guardian opens the port and switches the torque off. A driver
that hangs is killed first.
"""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from robolearn.config import load_config
from robolearn.hardware.blackbox import live_folder, save_live
from robolearn.hardware.bus import Bus, BusError
from robolearn.hardware.channel import Channel
from robolearn.hardware.driver import DriverConfig, drive
from robolearn.hardware.process import spawn

DIED: Final = "driver_died"  # the fault code
RESCUE_SECONDS: Final = 10.0  # how long the guardian tries to reach the servos
HUNG: Final = 2.0  # s without a cycle, each of which takes 0.02, after which the driver is killed
PAUSE: Final = 0.05  # s between looks at the others, and between attempts


def guard(folder: Path, client: int) -> None:
    """The guardian process: runs the driver and stays until it has ended well.

    Args:
        folder: the config and the channel.
        client: the process that started this one.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # only the driver may end this
    config = load_config(DriverConfig, folder)
    channel = Channel(folder, config.arm.size)
    driver, pulse = spawn(drive, folder), Pulse(channel)
    while driver.poll() is None:
        if os.getppid() != client:
            channel.orphan()
        if not config.lockstep and pulse.silence() > HUNG:  # in lockstep it waits for the client
            driver.kill()
        time.sleep(PAUSE)
    if driver.returncode:
        rescue(config, channel, driver.pid)
    if os.getppid() != client:
        shutil.rmtree(folder, ignore_errors=True)  # nobody else is there to do it


class Pulse:
    """Tells for how long the driver has not run a cycle.

    Args:
        channel: where it counts them.
    """

    def __init__(self, channel: Channel) -> None:
        self._status, self._cycle, self._since = channel.status, 0, time.monotonic()

    def silence(self) -> float:
        """Seconds since the count was last seen to change; 0 before the first cycle."""
        cycle, now = int(self._status.read()["cycle"]), time.monotonic()
        if cycle == 0 or cycle != self._cycle:
            self._cycle, self._since = cycle, now
        return now - self._since


def rescue(config: DriverConfig, channel: Channel, process: int) -> None:
    """Switches the torque off after the driver has died, and says so."""
    if not channel.status.read()["cycle"]:
        return  # it never had the arm; its reason stands in the status
    silent, give_up = release(config), time.monotonic() + RESCUE_SECONDS
    while silent and time.monotonic() < give_up:
        time.sleep(PAUSE)
        silent = release(config)
    words = f"the driver process died; {silent or 'the torque is off'}"
    channel.report(state="fault", fault=DIED, reason=words, torque=bool(silent))
    live = live_folder(config.blackbox, process)
    with suppress(OSError):
        save_live(live, DIED)
        shutil.rmtree(live)


def release(config: DriverConfig) -> str:
    """Tries once to switch the torque off; returns what is not known to be off, or ""."""
    try:
        with Bus(config.port, config.calibration.ids, lockstep=config.lockstep) as bus:
            silent = bus.release()
    except BusError as error:
        return str(error)
    return f"servos {', '.join(map(str, silent))} did not confirm" if silent else ""
