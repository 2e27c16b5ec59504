"""The driver process: owns the serial port and runs the control cycle with absolute deadlines.

One cycle reads all servos, asks the supervisor (`robolearn.hardware.safety`) what may be done, and
writes the goals. Nothing that a learner does can delay it: requests arrive through shared memory
(`robolearn.hardware.channel`), and when they stop arriving the supervisor holds, then parks.

    client (`robolearn.hardware.client`) --spawns--> guardian --spawns--> driver

The guardian (`robolearn.hardware.guardian`) releases the arm if the driver dies; the driver puts
the arm to rest if its client or the guardian dies.
"""

import gc
import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from robolearn.config import load_config, to_json
from robolearn.contract import ArmSpec
from robolearn.hardware.arm import ServoArm
from robolearn.hardware.blackbox import BlackBox
from robolearn.hardware.bus import Bus, BusError
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.channel import LATENESS_EDGES, Channel
from robolearn.hardware.clock import Clock, LockstepClock, WallClock
from robolearn.hardware.estop import StopButton
from robolearn.hardware.safety import Supervisor
from robolearn.hardware.safety_types import Command, Reading, Request, SafetyConfig, State, Verb
from robolearn.hardware.workspace import Workspace

TORQUE_CHECK: Final = 25  # cycles between looks at the servos' own torque switch
AFTERMATH: Final = 1.0  # s that the black box goes on after a fault before it is saved once more
PRIORITY: Final = 20  # of the real-time scheduler; above all ordinary processes
MAX_BURST: Final = 500_000  # us that it may compute without a pause


@dataclass(frozen=True)
class DriverConfig:
    """How to drive an arm."""

    port: str  # serial device
    calibration: Calibration  # which also names the arm
    hz: float = 50.0  # cycles a second; the wire allows about 500, USB adapters less
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    check_poses: bool = True  # against the table, the workspace and the arm itself
    blackbox: Path = Path("runs/blackbox")  # folder for the recordings of faults
    estop: Path | None = None  # a pipe or device: any byte, or its loss, is an emergency stop
    lockstep: bool = False  # time passes only as the client permits; for the twin

    @property
    def arm(self) -> ArmSpec:
        """The arm."""
        return self.calibration.arm


def drive(folder: Path, guardian: int) -> None:
    """The driver process.

    Args:
        folder: the config and the channel.
        guardian: the process that started this one.

    Raises:
        SystemExit: 1 if the arm could not be driven; `status` has the reason.
    """
    config = load_config(DriverConfig, folder)
    channel = Channel(folder, config.arm.size)
    try:
        loop = DriverLoop(config, channel, guardian)
        if not config.lockstep:
            _raise_priority()  # first, since connecting asks for answers in time, too
        loop.connect()
    except (OSError, ValueError) as error:
        channel.report(reason=str(error))
        raise SystemExit(1) from None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: loop.supervisor.exit("the driver was asked to end"))
    try:
        loop.run()
    finally:
        complaint = loop.close()
    if complaint:
        raise SystemExit(complaint)  # the guardian goes on trying


def _raise_priority() -> None:
    """Goes before everything else on this machine, as far as that is allowed."""
    with suppress(OSError):
        os.nice(-10)
    with suppress(OSError, AttributeError):  # root, or a limit `rtprio`; not on macOS
        # A driver that never rests would stop the machine; the kernel ends it, the guardian acts.
        resource.setrlimit(resource.RLIMIT_RTTIME, (MAX_BURST, MAX_BURST))
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    gc.collect()
    gc.freeze()  # what exists now is never looked at again


def within(arm: ArmSpec, calibration: Calibration) -> ArmSpec:
    """The arm with the joint ranges that the calibration found, where these are smaller."""
    low, high = calibration.limits
    return replace(
        arm,
        low=tuple(np.maximum(arm.low, low).tolist()),
        high=tuple(np.minimum(arm.high, high).tolist()),
    )


class DriverLoop:
    """The control cycle of one arm.

    Args:
        config: the arm.
        channel: to the client.
        guardian: the process that watches this one.

    Raises:
        OSError: the black box or the emergency stop cannot be opened.
    """

    def __init__(self, config: DriverConfig, channel: Channel, guardian: int) -> None:
        self.config, self.channel = config, channel
        self.period = 1.0 / config.hz
        self.clock: Clock = WallClock()
        if config.lockstep:
            self.clock = LockstepClock(self.period, self._permitted)
        size = config.arm.size
        self.box = BlackBox(config.blackbox, size, {"driver": to_json(config)})
        bus = Bus(
            config.port,
            config.calibration.ids,
            clock=self.clock.now,
            tap=self.box.packet,
            lockstep=config.lockstep,
        )
        self.arm = ServoArm(config.arm, bus, config.calibration)
        workspace = Workspace(config.arm) if config.check_poses else None
        arm = within(config.arm, config.calibration)
        self.supervisor = Supervisor(arm, config.safety, self.period, workspace)
        self._estop = StopButton(config.estop) if config.estop else None
        self._guardian = guardian
        self._pressed = False
        self._save_at = np.inf
        self._cycle = self._lost = self._missed = self._limited = 0
        self._lateness = np.zeros(len(LATENESS_EDGES) + 1, np.int64)
        self._reading = Reading.blank(size)

    def connect(self) -> None:
        """Connects to the arm; torque that an earlier program has left on becomes ours to end.

        Raises:
            OSError, ValueError: no port, wrong servos, or a calibration that is not theirs.
        """
        try:
            self.arm.connect()
        except BaseException:
            self.box.close()
            raise

    def run(self) -> None:
        """Runs cycles until the arm is at rest and nobody wants it any more."""
        deadline = self.clock.now() + self.period
        while not self.supervisor.finished:
            if not self.clock.wait_until(deadline):
                self._look_after_client()
                continue
            began = self.clock.now()
            self._lateness[np.searchsorted(LATENESS_EDGES, 1000.0 * (began - deadline))] += 1
            self.cycle(began)
            # A cycle that ends late skips ticks; it never catches up in a burst.
            late = max(0, int((self.clock.now() - deadline) / self.period))
            self._missed += late
            deadline += (1 + late) * self.period

    def cycle(self, now: float) -> None:
        """Reads, decides, writes, reports."""
        self._look_after_client()
        request = self._request()
        if request.verb is Verb.RESET_FAULT and not self.arm.torque:
            self.arm.release()  # ends alarms that servos have latched
        reading = self._read(now)
        fault = self.supervisor.fault
        command = self.supervisor.tick(now, reading, request)
        self._write(now, command)
        self._keep(now, request, command, fresh=reading is not None)
        self._report(now, command)
        if command.fault is not fault and command.fault:
            self.box.save(str(command.fault))
            self._save_at = now + AFTERMATH
        elif now >= self._save_at:
            self.box.save(f"{command.fault}-after")
            self._save_at = np.inf

    def _look_after_client(self) -> None:
        """Ends when the client says so; when it has died, after the supervisor has let go.

        Without a guardian it ends at once: nobody would release the arm if this process died.
        """
        if self.channel.is_closing():
            self.supervisor.exit()
        elif os.getppid() != self._guardian:
            self.supervisor.exit("the guardian has died")
        elif self._is_alone() and (not self.arm.torque or self._is_without_twin()):
            self.supervisor.exit("the program that drove the arm has died")

    def _is_alone(self) -> bool:
        return self.channel.is_orphaned() or os.getppid() != self._guardian

    def _is_without_twin(self) -> bool:
        """In lockstep: the twin's process has died with the client, and there is no arm."""
        return self.config.lockstep and not self.arm.bus.is_connected

    def _permitted(self) -> float:
        """Cycles that may run, in lockstep; without a client time goes on by itself."""
        return np.inf if self._is_alone() else self.channel.permitted()

    def _request(self) -> Request:
        request = self.channel.request()
        if self._estop is not None:
            self._pressed = self._pressed and request.verb is not Verb.RESET_FAULT
            self._pressed = self._estop.is_pressed() or self._pressed
        if self._is_alone():  # what it wanted last is no longer wanted
            request = Request(alone=True)
        return replace(request, estop=request.estop or self._pressed)

    def _read(self, now: float) -> Reading | None:
        try:
            with_torque = self.supervisor.state is State.ENGAGING or not self._cycle % TORQUE_CHECK
            self._reading = self.arm.read(now, with_torque=with_torque)
        except (BusError, ValueError) as error:  # a ValueError: another arm was plugged in
            self._lost += 1
            self.box.event(now, str(error))
            return None
        return self._reading

    def _write(self, now: float, command: Command) -> None:
        try:
            if command.goal is not None:
                self.arm.write(
                    command.goal,
                    command.torque_limit,
                    self.supervisor.limits,
                    enable=command.torque_enable,
                )
            elif self.arm.torque and (complaint := self.arm.release()):
                self.box.event(now, complaint)
        except BusError as error:
            self.box.event(now, str(error))

    def _keep(self, now: float, request: Request, command: Command, *, fresh: bool) -> None:
        """Into the black box; the order is that of `blackbox.cycle_fields`."""
        nothing = np.full(self.config.arm.size, np.nan)
        r = self._reading
        self.box.cycle(
            (
                *(now, str(command.state).encode(), str(command.fault).encode()),
                nothing if request.goal is None else request.goal,
                nothing if command.goal is None else command.goal,
                *(command.limited, command.torque_limit, fresh),
                *(r.position, r.velocity, r.effort, r.current, r.voltage, r.temperature, r.alarms),
            )
        )
        for event in command.events:
            self.box.event(now, event)

    def _report(self, now: float, command: Command) -> None:
        r = self._reading
        self._cycle += 1
        self._limited += command.limited
        self.channel.report(
            cycle=self._cycle,
            time=now,
            state=command.state,
            fault=command.fault,
            reason=self.supervisor.reason,
            position=r.position,
            velocity=r.velocity,
            effort=r.effort,
            goal=r.position if command.goal is None else command.goal,
            current=r.current,
            voltage=r.voltage,
            temperature=r.temperature,
            alarms=r.alarms,
            torque=self.arm.torque,
            age=now - r.time,
            limited=self._limited,
            lost=self._lost,
            missed=self._missed,
            lateness=self._lateness,
        )

    def close(self) -> str:
        """Lets go of the arm unless it shall hold; returns what did not let go, in words, or ""."""
        complaint, holds = "", self.config.safety.on_exit == "hold"
        if not (holds and self.supervisor.finished and not self.supervisor.fault):
            complaint = self.arm.release()
        if np.isfinite(self._save_at):
            self.box.save(f"{self.supervisor.fault}-after")
        self.arm.bus.close()
        self.channel.report(state="disconnected", torque=self.arm.torque)
        if complaint:
            self.channel.report(reason=complaint)
        else:
            self.box.close()
        return complaint
