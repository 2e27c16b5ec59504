"""`robolearn blackbox`: what a black box holds, and the same once more on the digital twin.

A replay plays the recorded packets into a twin at the recorded times, and compares the positions
that it reports with the recorded ones. On an arm that does what the model says they agree; where
they part, something happened that the twin does not know: an object, a hand, a fault.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import numpy as np
from tyro.conf import Positional, subcommand

from robolearn.contract import ArmSpec
from robolearn.hardware.blackbox import Recording, load
from robolearn.hardware.calibration import RADIANS, Calibration
from robolearn.hardware.registers import (
    STATE_BLOCK,
    TICKS_PER_TURN,
    Alarm,
    Instruction,
    Register,
    decode,
)

if TYPE_CHECKING:
    from rich.table import Table

    from robolearn.hardware.twin_arm import TwinArm

LEAD: Final = 2.0  # s before the fault that `show` looks at more closely
_STATE_QUESTION: Final = bytes([Instruction.SYNC_READ, *STATE_BLOCK])


@dataclass(frozen=True)
class BlackboxShow:
    """Print what a black box holds."""

    folder: Positional[Path]  # a recording, e.g. runs/blackbox/20260923T101500.0-overload
    plot: Path | None = None  # also draw it into this file, e.g. fault.png


@dataclass(frozen=True)
class BlackboxReplay:
    """Play a black box into the digital twin, and compare."""

    folder: Positional[Path]  # a recording, e.g. runs/blackbox/20260923T101500.0-overload
    servo: Path | None = None  # what `robolearn identify` wrote; none: the simulated tasks' servos
    p_gain: int = 32  # register P_GAIN of the recorded servos; LeRobot writes 16


BlackboxCommand = (
    Annotated[BlackboxShow, subcommand("show")] | Annotated[BlackboxReplay, subcommand("replay")]
)


def main(config: BlackboxShow | BlackboxReplay) -> int:
    """Runs the command.

    Raises:
        ValueError: the folder is no black box, or one that has nothing to replay.
        OSError: the chart cannot be written.
    """
    from rich.console import Console

    console, recording = Console(), load(config.folder)
    if isinstance(config, BlackboxShow):
        console.print(
            config.folder.name,
            *_summary(recording),
            sep="\n",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        console.print(*_tables(recording))
        if config.plot is not None:
            plot(recording, config.plot)
            print(f"{config.plot} is ready")
        return 0
    with console.status("simulating"):
        comparison = replay(recording, config.servo, config.p_gain)
    console.print(_comparison_table(recording, comparison))
    return 0


# What is in it.


def calibration_of(recording: Recording) -> Calibration:
    """The arm's calibration.

    Raises:
        ValueError: the header has none.
    """
    try:
        values = recording.header["driver"]["calibration"]
        arm = ArmSpec(**{k: _tuples(v) for k, v in values["arm"].items()})
        joints = dict(zip(arm.joints, values["joints"], strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the black box has no usable calibration in its header ({error!r})"
        ) from None
    return Calibration.from_dict(joints, arm)


def _tuples(value: Any) -> Any:  # noqa: ANN401 (a JSON value)
    return tuple(value) if isinstance(value, list) else value


def _summary(recording: Recording) -> Iterator[str]:
    """The header in words, and the events on a time line whose zero is the fault."""
    arm, driver, time = calibration_of(recording).arm, recording.header["driver"], _times(recording)
    reached = f"fault {recording.fault!r}" if recording.fault else "no fault"
    yield f"{arm.name} on {driver.get('port')}, {reached}"
    yield f"{len(time)} cycles in {np.ptp(time) if len(time) else 0.0:.2f} s, " + (
        f"{np.count_nonzero(~recording.cycles['fresh'])} without an answer of all servos, "
        f"{np.count_nonzero(recording.cycles['limited'])} with a goal that was limited"
    )
    yield f"events, in seconds from {_zero(recording)}:"
    for text, group in groupby(recording.events, lambda event: event["event"]):
        first, *others = group
        again = f" (and {len(others)} times more)" if others else ""
        yield f"{first['time'] - recording.end:+9.3f}  {text}{again}"


def _zero(recording: Recording) -> str:
    """What happened at the zero of time."""
    return "the fault" if recording.fault else "the end"


def _times(recording: Recording) -> np.ndarray:
    """Of the cycles, s; see `_zero`."""
    return recording.cycles["time"] - recording.end


def tracking_error(cycles: np.ndarray) -> np.ndarray:
    """How far the joints were from the goal of the cycle before, (T, J); NaN where unknown."""
    error = np.full(cycles["goal"].shape, np.nan)
    error[1:] = np.abs(cycles["goal"][:-1] - cycles["position"][1:])
    error[~cycles["fresh"]] = np.nan
    return error


def _tables(recording: Recording) -> list["Table"]:
    time, error = _times(recording), tracking_error(recording.cycles)
    lead = (time >= -LEAD) & (time <= 0.0)
    return [
        _joint_table("The whole recording", recording, error, np.ones(len(time), bool)),
        _joint_table(f"The {LEAD:g} s before {_zero(recording)}", recording, error, lead),
    ]


def _joint_table(title: str, recording: Recording, error: np.ndarray, which: np.ndarray) -> "Table":
    """The worst of each joint in the cycles `which`, bool (T,)."""
    cycles = recording.cycles[which]
    columns = {
        "error\nrad": (_worst(error[which]), ".3f"),
        "current\nA": (_worst(np.abs(cycles["current"])), ".2f"),
        "heat\ndeg C": (_worst(cycles["temperature"]), ".0f"),
        "least\nvolts": (-_worst(-cycles["voltage"]), ".1f"),
    }
    cells = [
        ["-" if np.isnan(value) else format(value, form) for value in values]
        for values, form in columns.values()
    ]
    alarms = np.bitwise_or.reduce(cycles["alarms"], axis=0, initial=0)
    cells.append([str(Alarm(int(bits)).name or "").lower() for bits in alarms])
    return _table(title, recording, [*columns, "alarms"], cells)


def _worst(values: np.ndarray) -> np.ndarray:
    """The largest value of each joint; NaN where there is none."""
    return np.fmax.reduce(values, axis=0, initial=np.nan)


def _table(title: str, recording: Recording, columns: list[str], cells: list[list[str]]) -> "Table":
    """A table with a row for each joint."""
    from rich.table import Table

    table = Table("", title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for row in zip(calibration_of(recording).arm.joints, *cells, strict=True):
        table.add_row(*row)
    return table


def plot(recording: Recording, path: Path) -> None:
    """Draws positions and goals, errors, currents and temperatures over time.

    Raises:
        ValueError: a file type that matplotlib does not know.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    cycles, time = recording.cycles, _times(recording)
    figure = Figure(figsize=(9, 9), layout="constrained")
    panels = figure.subplots(4, sharex=True)
    drawn = {
        "position, goal dashed": cycles["position"],
        "tracking error": tracking_error(cycles),
        "current, A": cycles["current"],
        "temperature, deg C": cycles["temperature"],
    }
    for axes, (label, values) in zip(panels, drawn.items(), strict=True):
        for joint, name in enumerate(calibration_of(recording).arm.joints):
            axes.plot(time, values[:, joint], f"C{joint}", linewidth=1.0, label=name)
        axes.set_ylabel(label)
        axes.axvline(0.0, color="0.6", linewidth=0.8)
    for joint, goals in enumerate(cycles["goal"].T):
        panels[0].plot(time, goals, f"C{joint}--", linewidth=0.8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    panels[-1].set_xlabel(f"seconds from {_zero(recording)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


# The same once more.


class Comparison(NamedTuple):
    """What arm and twin reported in the same cycles."""

    time: np.ndarray  # s of the recording, (T,)
    recorded: np.ndarray  # ticks, int (T, J)
    replayed: np.ndarray  # ticks, int (T, J)

    @property
    def difference(self) -> np.ndarray:
        """Ticks by which the twin is elsewhere, the short way round, (T, J)."""
        half = TICKS_PER_TURN // 2
        return (self.replayed - self.recorded + half) % TICKS_PER_TURN - half


def replay(recording: Recording, servo: Path | None = None, p_gain: int = 32) -> Comparison:
    """Plays the packets of a recording into a twin that stands where the arm stood.

    The twin stands at an empty table. Its servos have the recorded voltage; all that a recording
    does not tell (gains, loads, what stood in the way) is as the model has it.

    Args:
        recording: what to play.
        servo: what `robolearn identify` wrote; None: the servos of the simulated tasks.
        p_gain: register P_GAIN of the servos.

    Raises:
        ValueError: no calibration, or no complete answer of the servos to begin with.
    """
    played = _played(recording)
    start = next(((time, where) for time, _, where in played if where is not None), None)
    if start is None:
        raise ValueError("the black box holds no complete answer of the servos; nothing to replay")
    arm = _arm_at(recording, start[1], servo, p_gain)
    rows = []
    for time, question, recorded in played:
        arm.advance(time - start[0] - arm.physics.time)
        answer = b"".join(reply.data for reply in arm.receive(question, time=time))
        replayed = _positions(answer, arm.calibration.ids)
        if recorded is not None and replayed is not None:
            rows.append(np.array([[time] * arm.arm.size, recorded, replayed]))
    times, before, now = np.reshape(rows, (-1, 3, arm.arm.size)).swapaxes(0, 1)
    return Comparison(times[:, 0], before.astype(int), now.astype(int))


def _played(recording: Recording) -> Iterator[tuple[float, bytes, np.ndarray | None]]:
    """Each packet to the servos: when, its bytes, and the positions that came in answer, if any."""
    ids = calibration_of(recording).ids
    begin = recording.cycles["time"][:1].sum()  # packets reach back further than cycles
    packets = recording.packets[recording.packets["time"] >= begin]
    data = [bytes(packet["data"][: packet["length"]]) for packet in packets]
    to_servos = packets["direction"] == b"tx"
    for k in np.flatnonzero(to_servos):
        answered = k + 1 < len(packets) and not to_servos[k + 1]
        asked = data[k][4:].startswith(_STATE_QUESTION)
        answer = data[k + 1] if answered and asked else b""
        yield float(packets["time"][k]), data[k], _positions(answer, ids)


def _positions(answer: bytes, ids: tuple[int, ...]) -> np.ndarray | None:
    """PRESENT_POSITION of every servo, int (J,), from the answer to a state question, or None."""
    from robolearn.hardware.port import parse

    start, size = STATE_BLOCK
    packets, flaw = parse(answer, size)
    if flaw or tuple(packet.servo for packet in packets) != ids:
        return None
    where = slice(Register.PRESENT_POSITION - start, Register.PRESENT_POSITION - start + 2)
    return np.array([decode(Register.PRESENT_POSITION, packet.data[where]) for packet in packets])


def _arm_at(recording: Recording, ticks: np.ndarray, servo: Path | None, p_gain: int) -> "TwinArm":
    """A twin whose servos are where the recorded ones were, and do what those did."""
    from robolearn.hardware.twin import TwinConfig
    from robolearn.hardware.twin_arm import TwinArm  # MuJoCo; `--help` does without

    calibration, cycles = calibration_of(recording), recording.cycles
    fresh = cycles["voltage"][cycles["fresh"]]
    with TemporaryDirectory() as folder:
        file = Path(folder, "calibration.json")
        calibration.save(file)
        config = TwinConfig(
            pose=tuple(calibration.position(ticks).tolist()),
            calibration=file,
            servo=servo,
            registers={"P_GAIN": p_gain},
            voltage=float(fresh.max(initial=0.0)) or TwinConfig.voltage,
        )
        arm = TwinArm(config)
    if len(cycles) and np.isfinite(cycles["goal"][0]).all():
        _engage(arm, cycles[0])
    return arm


def _engage(arm: "TwinArm", cycle: np.ndarray) -> None:
    """Puts the servos amid a motion, where a long recording begins."""
    goals, limits = arm.calibration.ticks(cycle["goal"]), np.rint(1000 * cycle["torque_limit"])
    for servo, goal, limit in zip(arm.servos, goals.tolist(), limits.tolist(), strict=True):
        servo[Register.GOAL_POSITION], servo[Register.TORQUE_LIMIT] = goal, int(limit)
        servo[Register.TORQUE_ENABLE] = 1
        servo.setpoint = float(goal)


def _comparison_table(recording: Recording, comparison: Comparison) -> "Table":
    difference = comparison.difference
    if not len(difference):
        raise ValueError("the black box holds one answer of the servos only; nothing to compare")
    rms, largest = np.sqrt(np.mean(difference**2.0, axis=0)), np.abs(difference).max(axis=0)
    when = comparison.time[np.abs(difference).argmax(axis=0)] - recording.end
    columns = {
        "RMS\nticks": [f"{value:.1f}" for value in rms],
        "RMS\nmrad": [f"{1000 * RADIANS * value:.1f}" for value in rms],
        "largest\nticks": [f"{value}" for value in largest],
        "largest\nmrad": [f"{1000 * RADIANS * value:.1f}" for value in largest],
        f"where, s from\n{_zero(recording)}": [f"{value:+.2f}" for value in when],
    }
    title = f"Twin against recording, {len(difference)} cycles"
    return _table(title, recording, [*columns], [*columns.values()])
