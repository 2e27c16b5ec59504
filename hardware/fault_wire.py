"""What must hold at the wire whatever goes wrong: the packets of a black box against the limits."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from robolearn.hardware.blackbox import Recording
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.limiter import Limits
from robolearn.hardware.registers import (
    GOAL_BLOCK,
    TICKS_PER_TURN,
    Instruction,
    Register,
    decode,
    size_of,
)
from robolearn.hardware.twin_packets import PacketReader

ROUNDING: Final = 1.001  # ticks between two goals, each of which is rounded to half of one


class Goals(NamedTuple):
    """The goals that were sent in one go, from torque on to torque off."""

    time: np.ndarray  # s, (T,)
    ticks: np.ndarray  # (T, J)


def goals(packets: np.ndarray, calibration: Calibration) -> list[Goals]:
    """All goals in the packets of a black box, cut where the torque was switched off."""
    runs: list[list[tuple[float, list[int]]]] = [[]]
    for time, register, values in _writes(packets, calibration):
        if register == GOAL_BLOCK[0]:
            runs[-1].append((time, values))
        elif register == Register.TORQUE_ENABLE and not any(values) and runs[-1]:
            runs.append([])
    return [Goals(*(np.array(column) for column in zip(*run, strict=True))) for run in runs if run]


def _writes(
    packets: np.ndarray, calibration: Calibration
) -> Iterator[tuple[float, int, list[int]]]:
    """Time, first register, and every servo's goal or torque switch, of all sync writes of them."""
    reader, count = PacketReader(), len(calibration)
    for packet in packets[packets["direction"] == b"tx"]:
        data = packet["data"][: packet["length"]].tobytes()
        for _, instruction, parameters in reader.feed(data, float(packet["time"])):
            if instruction != Instruction.SYNC_WRITE:
                continue
            start, size = parameters[0], parameters[1]
            rows = [parameters[2 + k * (size + 1) :][1 : size + 1] for k in range(count)]
            if start == GOAL_BLOCK[0]:
                begin = Register.GOAL_POSITION - start
                part = slice(begin, begin + size_of(Register.GOAL_POSITION))
                yield (
                    float(packet["time"]),
                    start,
                    [decode(Register.GOAL_POSITION, row[part]) for row in rows],
                )
            elif start == Register.TORQUE_ENABLE:
                yield float(packet["time"]), start, [row[0] for row in rows]


def violations(
    recording: Recording, since: float, calibration: Calibration, limits: Limits, period: float
) -> Iterator[str]:
    """Every limit that goals in these packets break, in words; nothing when all is well.

    Args:
        recording: the black box.
        since: s, on its clock; what is older is left out.
        calibration: of the arm.
        limits: what goals must keep, contract units.
        period: s of a cycle.
    """
    scale = np.abs(calibration.scale)
    speed, change = limits.velocity * period / scale, limits.acceleration * period**2 / scale
    ends = np.sort([calibration.ticks(limits.low), calibration.ticks(limits.high)], axis=0)
    packets = recording.packets[recording.packets["time"] >= since]
    for run in goals(packets, calibration):
        step = np.diff(run.ticks, axis=0)
        # Cycles go by that send nothing while the port is gone.
        cycle = np.searchsorted(recording.cycles["time"], run.time, side="right")
        cycles = np.maximum(np.diff(cycle), 1)[:, None]
        yield from _found("velocity", np.abs(step) - speed * cycles, run, calibration)
        if len(step) > 1:
            # Where a cycle is left out between two goals, the change of speed has more time.
            turn = np.abs(np.diff(step / cycles, axis=0)) - change * (cycles[1:] + cycles[:-1]) / 2
            yield from _found("acceleration", turn - ROUNDING, run, calibration)
        # An arm that was pushed out of its range may begin there, and then only goes back.
        out = np.maximum(run.ticks - ends[1], ends[0] - run.ticks)
        allowed = np.maximum(np.minimum.accumulate(out, axis=0), 0)
        yield from _found("range", out - allowed, run, calibration)
        strange = (run.ticks < 0) | (run.ticks >= TICKS_PER_TURN)
        yield from _found("register", strange * 2.0, run, calibration)


def _found(limit: str, excess: np.ndarray, run: Goals, calibration: Calibration) -> Iterator[str]:
    for joint in np.flatnonzero((excess > ROUNDING).any(axis=0)):
        name, worst = calibration.arm.joints[joint], int(excess[:, joint].argmax())
        by = f"{excess[worst, joint]:.1f} ticks"
        yield f"{name} breaks its {limit} limit by {by} at {run.time[worst]:.2f} s"
