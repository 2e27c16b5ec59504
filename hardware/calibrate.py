"""`robolearn calibrate`: finds where the joints of an arm end, and tells its servos and a file.

As in LeRobot's procedure, a human moves the limp arm: first all joints to the middle of their
ranges, then each from stop to stop. The wrist roll has no stops; its range is a full turn. Two
things differ. What is measured are ticks of the encoders, which the servos' old settings do not
touch, and nothing is written to a servo before all joints are measured and plausible.

So an interruption leaves the servos as they were, and the measurements in a file `.partial` beside
the output, with which the next run goes on. Only in the last fraction of a second are the servos
written, and Ctrl-C waits for that. If the cable is pulled just then, some hold the old and some the
new values; neither file fits them, so no driver of this project switches their torque on, and the
next run writes them again.
"""

import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from robolearn.hardware.bus import Bus, BusError
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.eeprom import Wanted, differences, settings, write_servos
from robolearn.hardware.measure import ARM, Human, Measured, Row, Session, share
from robolearn.hardware.registers import Register

if TYPE_CHECKING:
    from rich.table import Table

POLL: Final = 0.02  # s between looks at the moving arm
TIMEOUT: Final = 0.1  # s for an answer; nothing is in a hurry here


@dataclass(frozen=True)
class CalibrateConfig:
    """Find where the joints of an arm end, and tell its servos and a file."""

    port: str  # serial device, e.g. /dev/ttyACM0
    out: Path = Path("calibration.json")  # the file, in LeRobot's form
    check: Path | None = None  # only say whether this calibration file fits the servos
    leader: bool = False  # it is a leader arm: its gripper keeps its torque
    ids: tuple[int, ...] = tuple(range(1, ARM.size + 1))  # of the servos, from the base on
    lerobot_id: str | None = None  # also write it to where LeRobot looks for the arm of this name


def main(config: CalibrateConfig) -> int:
    """Runs the command.

    Raises:
        ValueError: a calibration that does not fit, or bad options.
        OSError: no arm, or a file that cannot be written; what was measured is kept.
    """
    if config.check is not None:
        return check(config, config.check)
    if not sys.stdin.isatty():
        raise ValueError("calibrating takes a human at a terminal; start it in one")
    calibrate(config, Terminal())
    return 0


def calibrate(config: CalibrateConfig, human: Human) -> Calibration:
    """Calibrates an arm together with a human.

    Besides the calibration the servos get what `robolearn.hardware.eeprom.settings` names.

    Raises:
        ValueError: bad options, or an unfinished calibration of another arm.
        OSError: the servos do not answer, or a file cannot be written.
    """
    files = _files(config)
    partial = config.out.with_name(config.out.name + ".partial")
    measured = _resume(partial, config.ids, human)
    with Bus(config.port, config.ids, timeout=TIMEOUT) as bus:
        bus.check_servos()
        _let_go(bus, human)
        try:
            calibration = Session(bus, human, partial, measured).run()
            calibration.check()
            _write(bus, human, settings(bus, ARM, leader=config.leader), calibration)
        except BaseException:
            if partial.exists():
                human.say(f"{partial} keeps what is measured; the same command goes on from there")
            raise
    for file in files:
        calibration.save(file)
        human.say(f"{file} is ready, and the servos hold the same")
    partial.unlink()
    return calibration


def _let_go(bus: Bus, human: Human) -> None:
    """Makes the arm limp."""
    if bus.read(Register.TORQUE_ENABLE).any():
        human.ask("The arm has torque and will sink: hold it, then Enter")
    if stiff := bus.release() and bus.release():  # a confirmation may be lost once
        ids = ", ".join(map(str, stiff))
        raise BusError(f"servos {ids} did not go limp; check cables and power", stiff)


def _write(bus: Bus, human: Human, others: Wanted, calibration: Calibration) -> None:
    """Writes calibration and other settings, and says which of the latter were different."""
    changed = write_servos(bus, others | calibration.registers)
    for index, register, value in changed:
        if register in others:
            now = others[register][index]
            human.say(f"{ARM.joints[index]}: {register.name} was {value} and is {now} now")


def _files(config: CalibrateConfig) -> list[Path]:
    """Where the calibration goes.

    Raises:
        ValueError: not one id for each joint, or a name that is none.
    """
    if len(config.ids) != ARM.size:
        raise ValueError(f"ids are {config.ids}; give {ARM.size}, one for each joint")
    if config.lerobot_id is None:
        return [config.out]
    if config.lerobot_id != Path(config.lerobot_id).name:
        raise ValueError(f"{config.lerobot_id!r} is no name for an arm; give one like my_arm")
    from lerobot.utils.constants import HF_LEROBOT_CALIBRATION  # takes seconds

    kind = "teleoperators/so_leader" if config.leader else "robots/so_follower"
    return [config.out, Path(HF_LEROBOT_CALIBRATION) / kind / f"{config.lerobot_id}.json"]


def _resume(partial: Path, ids: tuple[int, ...], human: Human) -> Measured:
    """An unfinished calibration, if there is one and the human wants it."""
    if not partial.exists():
        return Measured(ids)
    measured = Measured.load(partial)
    if measured.ids != ids:
        raise ValueError(f"{partial} is of servos {measured.ids}; delete it to begin anew")
    done = ", ".join(measured.ends) or "the middle pose"
    told = human.ask(f"{partial} holds {done}: Enter goes on from there, n begins anew")
    return Measured(ids) if told.strip().lower().startswith("n") else measured


def check(config: CalibrateConfig, file: Path) -> int:
    """Says whether a calibration file fits the servos, and where the arm is according to it.

    Raises:
        CalibrationError: it does not fit.
        BusError: the servos do not answer.
    """
    calibration = Calibration.load(file, ARM)
    calibration.check()
    with Bus(config.port, calibration.ids, timeout=TIMEOUT) as bus:
        bus.check_servos()
        calibration.check_servos(bus)
        position = calibration.position(bus.read_states().position)
        others = differences(bus, settings(bus, ARM, leader=config.leader))
    for (name, joint), where in zip(calibration.items(), position, strict=True):
        unit = "open" if ARM.joints.index(name) in ARM.grippers else "rad"
        print(f"{name:14} {share(name, joint):5.0%} of the model's range, now {where:6.3f} {unit}")
    for index, register, value in others:
        print(f"{ARM.joints[index]} has {value} in {register.name}; calibrating changes that")
    print(f"{file} fits the servos on {config.port}")
    return 0


# A human at a terminal.


class Terminal:
    """A human at the terminal of this process."""

    def say(self, text: str) -> None:
        """Prints."""
        print(text)

    def ask(self, text: str) -> str:
        """Reads a line; the end of the input counts as Ctrl-C."""
        try:
            return input(f"{text}: ")
        except EOFError:
            raise KeyboardInterrupt from None

    def watch(self, text: str, look: Callable[[], Row]) -> None:
        """Shows a live table."""
        from rich.live import Live

        with Live(refresh_per_second=10) as live:
            while not select.select([sys.stdin], [], [], POLL)[0]:
                live.update(_table(text, look()))
        if not sys.stdin.readline():
            raise KeyboardInterrupt


def _table(title: str, row: Row) -> "Table":
    from rich.table import Table

    table = Table("", "lowest", "now", "highest", "of the model's range", title=title)
    table.add_row(row.joint, str(row.low), str(row.now), str(row.high), f"{row.share:.0%}")
    return table
