"""One trial of a row of the fault matrix, judged by the servos' registers and the black box."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from robolearn.contract import SO101
from robolearn.hardware.blackbox import Recording
from robolearn.hardware.client import DriverError
from robolearn.hardware.fault_matrix import End, Recovery, Row
from robolearn.hardware.fault_rig import Rig, Sample
from robolearn.hardware.fault_wire import violations
from robolearn.hardware.limiter import Limits
from robolearn.hardware.safety_types import State

WARM: Final = 20  # cycles in motion before a fault
SETTLED: Final = 25  # cycles for which an end must last; longer than the sway stands still
SLACK: Final = 3  # cycles by which looks at the registers may be off
ALIVE: Final = 2.0  # s within which a live driver is seen to do something


@dataclass(frozen=True)
class Outcome:
    """How a trial went."""

    row: str
    seconds: float  # from the event to where the row's end began to hold; inf if it never did
    problems: tuple[str, ...]  # what was not as the row, or any row, demands

    @property
    def safe(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def trial(row: Row, rig: Rig, phase: int = 0) -> Outcome:
    """Provokes a row's fault once, watches, and brings the arm back to work.

    Args:
        row: the row.
        rig: on the clock that the row needs; it goes on to the next row afterwards.
        phase: cycles by which the fault comes later, at another point of the arm's motion.

    Raises:
        DriverError: the rig does not even get ready.
    """
    rig.ready()
    row.prepare(rig)
    for _ in range(WARM + phase):
        before = rig.step()
    driver, since = rig.driver, rig.driver.read().time if rig.driver else -np.inf
    recordings = len(rig.saved(row.fault))
    row.provoke(rig)
    samples = [before, *_watch(row, rig, before)]
    seconds = _seconds_to(row.end, samples)
    problems = [] if seconds <= row.seconds else [_missed(row, samples[-1], seconds)]
    problems += _unsupervised(rig, samples[-1])
    problems += _too_fast(rig, samples)
    if recording := rig.recording():
        since = since if rig.driver is driver else -np.inf
        problems += _untold(row, rig, recording, since)
        period = 1.0 / rig.config.hz
        problems += violations(recording, since, rig.calibration, _limits(rig), period)
    if row.fault and len(rig.saved(row.fault)) == recordings:
        problems.append(f"no black box was saved for the fault {row.fault}")
    problems += _recover(row, rig)
    return Outcome(row.name, seconds, tuple(problems))


def _limits(rig: Rig) -> Limits:
    safety = rig.config.safety
    return Limits.of(SO101, velocity=safety.velocity, acceleration=safety.acceleration, margin=0.0)


def _watch(row: Row, rig: Rig, before: Sample) -> Iterator[Sample]:
    """Cycles until the end has held for `SETTLED` of them, or should have by now."""
    settled, since = 0, before.time
    patience = row.seconds + SETTLED / rig.config.hz
    while before.time - since < patience and (settled < SETTLED or row.end is End.WORKS):
        sample = rig.step()
        settled = settled + 1 if _holds(row.end, before, sample) else 0
        before = sample
        yield sample


def _holds(end: End, before: Sample, sample: Sample) -> bool:
    if end is End.LIMP:
        return not sample.torque.any()
    if end is End.HOLD:
        return bool(sample.torque.all() and (sample.goal == before.goal).all())
    return bool(sample.torque.all()) and sample.state == State.ENGAGED


def _seconds_to(end: End, samples: list[Sample]) -> float:
    """From the first sample to the beginning of the stretch, up to the last one, that is right."""
    began = np.inf
    for before, sample in pairwise(samples):
        if not _holds(end, before, sample):
            began = np.inf
        elif np.isinf(began):
            began = sample.time
    return float(began - samples[0].time)


def _missed(row: Row, last: Sample, seconds: float) -> str:
    shown = f"torque {last.torque.astype(int).tolist()}, driver {last.state or 'elsewhere'}"
    late = "never" if np.isinf(seconds) else f"only after {seconds:.2f} s"
    return f"the end is {row.end}, within {row.seconds} s: it came {late} ({shown})"


def _unsupervised(rig: Rig, last: Sample) -> Iterator[str]:
    """Torque that is on although no driver runs cycles."""
    if not last.torque.any():
        return
    first, give_up = _cycles(rig), time.monotonic() + ALIVE
    while time.monotonic() < give_up:
        rig.step()
        if _cycles(rig) > first:
            return
    yield "the torque is on and no driver is alive"


def _cycles(rig: Rig) -> float:
    recording = rig.recording()
    times = recording.cycles["time"] if recording else np.zeros(0)
    return float(times.max(initial=-np.inf))


def _too_fast(rig: Rig, samples: list[Sample]) -> Iterator[str]:
    """Goals in the registers that moved faster than allowed, as far as looking at them can tell."""
    speed = _limits(rig).velocity / np.abs(rig.calibration.scale)  # ticks/s
    for before, sample in pairwise(samples):
        seconds = sample.time - before.time + SLACK / rig.config.hz
        fast = np.abs(sample.goal - before.goal) > speed * seconds + 1.0
        if (fast & before.torque & sample.torque).any():
            yield f"goals in the servos jump at {sample.time:.2f} s"


def _untold(row: Row, rig: Rig, recording: Recording, since: float) -> Iterator[str]:
    """What should stand in the black box, or in a refusal, and does not."""
    events = [event["event"] for event in recording.events if event["time"] >= since]
    if row.told not in "\n".join([*events, rig.refusal]):
        yield f"nobody tells {row.told!r}; told were {events[-5:]} and {rig.refusal!r}"
    latched = {fault.decode() for fault in recording.cycles["fault"][-SETTLED:]}
    if row.fault in {"", "driver_died"}:
        return
    if row.fault not in latched:
        yield f"the fault {row.fault} is not latched; there is {latched}"


def _recover(row: Row, rig: Rig) -> Iterator[str]:
    """The cause goes, and the arm works again in the way that the row promises."""
    try:
        if row.recovery is Recovery.RESTART:
            rig.stop()  # before the cause goes, which may be the cable
        rig.mend()
        if row.recovery is Recovery.RESTART:
            rig.start()
            yield from _stray_torque(rig)
        if row.recovery is not Recovery.ITSELF:
            for _ in range(SETTLED + 5):
                rig.step()
            rig.reset()
            rig.engage()
        if not rig.works():
            snapshot = rig.driver.read() if rig.driver else None
            reason = f"{snapshot.state}: {snapshot.reason}" if snapshot else "no driver"
            yield f"the arm does not work again ({reason})"
    except DriverError as error:
        yield f"the arm does not work again: {error}"
        rig.stop()


def _stray_torque(rig: Rig) -> Iterator[str]:
    """Torque that the one before has left on and the new driver does not know of."""
    for _ in range(SLACK):
        sample = rig.step()
    if sample.state == State.LIMP and sample.torque.any():
        yield "the new driver says limp and the torque is on"
