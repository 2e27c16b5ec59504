"""The black box, alive and dead, shown, and replayed into the twin."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from robolearn.config import to_json
from robolearn.contract import SO101
from robolearn.hardware import blackbox, replay
from robolearn.hardware.blackbox import PACKET, BlackBox, Ring, cycle_fields, load, save_live
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.client import Driver, DriverConfig
from robolearn.hardware.replay import BlackboxCommand, BlackboxReplay, BlackboxShow, main
from robolearn.hardware.twin import Twin

HEADER = {"driver": {"port": "/dev/arm", "calibration": to_json(Calibration.nominal(SO101))}}
NUMBER = np.dtype([("time", np.float64), ("copies", np.int64, (20,))])


def cycle(time, *, fault="", position=0.0, goal=0.0, fresh=True, **values):
    """A record for `BlackBox.cycle`."""
    given = {
        **{"time": time, "state": b"engaged", "fault": fault.encode(), "fresh": fresh},
        **{"position": [position] * 6, "goal": [goal] * 6, "requested": [np.nan] * 6},
        **{name: [value] * 6 for name, value in values.items()},
    }
    record = np.zeros((), cycle_fields(6))
    for name, value in given.items():
        record[name] = value
    return record.item()


@pytest.fixture
def box(tmp_path):
    made = BlackBox(tmp_path, 6, HEADER)
    yield made
    made.close()


@contextmanager
def full_disk():
    """No file can grow beyond a page."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Keeping -----------------------------------------------------------------------------------------


@given(capacity=st.integers(2, 20), count=st.integers(0, 60))
def test_a_ring_holds_the_newest_records_in_order(tmp_path_factory, capacity, count):
    path = tmp_path_factory.mktemp("ring") / "ring.npy"
    ring = Ring(path, NUMBER, capacity)
    for number in range(count):
        ring.append((number, [number] * 20))
    # The place of the oldest one is where the next may be half written.
    kept = min(count, capacity - 1)
    assert Ring.read(path)["time"].tolist() == list(range(count - kept, count))


def test_what_went_in_comes_out(box):
    for tick in range(5):
        box.cycle(cycle(tick, position=0.1 * tick, current=1.0))
        box.packet(tick, "tx", bytes([255, 255, tick]))
        box.packet(tick, "rx", bytes(200))
    box.event(2.5, "servo 3 is too hot: 66 °C")
    saved = box.save("overheat")
    assert saved.name.endswith("-overheat")
    for recording in (load(saved), load(box.live)):
        assert recording.header == HEADER
        assert recording.events == [{"time": 2.5, "event": "servo 3 is too hot: 66 °C"}]
        np.testing.assert_allclose(recording.cycles["position"][:, 2], 0.1 * np.arange(5))
        assert recording.packets["length"].tolist() == [3, 200] * 5
        assert recording.packets["data"][0, :4].tolist() == [255, 255, 0, 0]
    assert not list(box.folder.glob("*.tmp"))


def test_the_fault_is_the_zero_of_time(box):
    for tick in range(10):
        box.cycle(cycle(tick / 50, fault="overload" if tick >= 7 else ""))
    recording = load(box.live)
    assert (recording.fault, recording.end) == ("overload", 7 / 50)


def test_a_long_event_is_cut_and_stays_readable(box):
    box.event(1.0, "é" * 1000)
    (event,) = load(box.live).events
    assert event["event"].startswith("é" * 100)


def test_closing_leaves_only_what_was_saved(box):
    saved = box.save("")
    box.close()
    assert list(box.folder.iterdir()) == [saved]
    assert saved.name.endswith("-asked")


def test_a_full_disk_stops_nothing_and_loses_nothing(box):
    with full_disk():
        for tick in range(4000):  # once round
            box.cycle(cycle(tick))
            box.event(tick, "lost a cycle")
        assert box.save("overload") is None
    box.close()
    assert list(box.folder.iterdir()) == [box.live]
    recording = load(box.live)
    assert recording.cycles["time"][-1] == 3999
    assert recording.events[-1]["time"] == 3999
    assert load(save_live(box.live, "later")).cycles["time"][-1] == 3999


def test_a_disk_that_is_full_at_the_start_is_an_error_then(tmp_path):
    with full_disk(), pytest.raises(OSError, match="File too large|requested and"):
        BlackBox(tmp_path, 6, HEADER)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from robolearn.hardware.blackbox import Ring
ring = Ring(Path(sys.argv[1]), np.dtype([("time", "f8"), ("copies", "i8", (20,))]), 50)
print("begun", flush=True)
for number in range(10**9):
    ring.append((number, [number] * 20))
"""


def test_a_writer_that_is_killed_leaves_whole_records(tmp_path):
    path = tmp_path / "ring.npy"
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"begun\n"
        while (alive := Ring.read(path)).size < 20:  # also while it is being written
            assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    for records in (alive, dead := Ring.read(path)):
        assert (records["copies"] == records["time"][:, None]).all()
        assert (np.diff(records["time"]) == 1).all()
    assert len(dead) == min(49, dead["time"][-1] + 1)


@pytest.mark.parametrize("damage", ["header.json", "cycles.npy", "packets.npy"])
def test_a_damaged_recording_is_refused_and_names_a_whole_one(box, damage):
    saved, whole = box.save("first"), box.save("second")
    (saved / damage).write_bytes(b"{")
    with pytest.raises(ValueError, match="is not a black box"):
        load(saved)
    with pytest.raises(ValueError, match=f"give a folder like .*{whole.name}"):
        load(box.folder)


# Looking -----------------------------------------------------------------------------------------


def test_the_error_of_a_joint_is_its_distance_to_the_goal_before():
    cycles = np.array(
        [
            cycle(0, goal=1.0, position=5.0),
            cycle(1, goal=np.nan, position=0.9),
            cycle(2, goal=2.0, position=9.0),
            cycle(3, goal=2.0, position=9.0, fresh=False),
            cycle(4, goal=2.0, position=2.5),
        ],
        cycle_fields(6),
    )
    expected = [np.nan, 0.1, np.nan, np.nan, 0.5]
    np.testing.assert_allclose(replay.tracking_error(cycles)[:, 0], expected, atol=1e-12)


def test_show_tells_what_led_to_the_fault(box, tmp_path, capsys):
    for tick in range(300):
        fault = "overload" if tick >= 250 else ""
        hot = 40.0 if tick < 10 else 30.0
        goal = 0.25 if tick > 200 else 0.0
        box.cycle(
            cycle(tick / 50, fault=fault, goal=goal, temperature=hot, alarms=32 * bool(fault))
        )
    for _ in range(12):
        box.event(4.9, "no valid answer from servo 3")
    box.event(5.0, "fault: overload")
    chart = tmp_path / "charts/fault.png"
    assert main(BlackboxShow(box.save("overload"), plot=chart)) == 0
    said = capsys.readouterr().out
    assert "so101 on /dev/arm, fault 'overload'" in said
    assert "-0.100  no valid answer from servo 3 (and 11 times more)" in said
    assert "+0.000  fault: overload" in said
    whole, lead = said.replace(str(tmp_path), "").split("The 2 s before the fault")
    assert "40" in whole.split("The whole recording")[1]
    assert "40" not in lead
    assert lead.count("0.250") == 6
    assert lead.count("overload") == 6
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_an_empty_recording_can_be_shown_and_not_replayed(box, tmp_path, capsys):
    assert main(BlackboxShow(box.live, plot=tmp_path / "empty.png")) == 0
    assert "0 cycles" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no complete answer of the servos"):
        main(BlackboxReplay(box.live))


def test_a_recording_of_something_else_is_refused(tmp_path):
    box = BlackBox(tmp_path, 6, {})
    with pytest.raises(ValueError, match="no usable calibration"):
        main(BlackboxShow(box.live))
    box.close()


def test_the_commands_of_the_command_line():
    show = tyro.cli(BlackboxCommand, args=["show", "some/folder", "--plot", "x.png"])
    assert asdict(show) == {"folder": Path("some/folder"), "plot": Path("x.png")}
    assert tyro.cli(BlackboxCommand, args=["replay", "f"]) == BlackboxReplay(Path("f"))


# Replaying ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What the driver recorded of a motion on a twin that ended in an emergency stop."""
    folder = tmp_path_factory.mktemp("recorded")
    with Twin(lockstep=True) as twin:
        calibration = Calibration.from_dict(twin.calibration(), SO101)
        config = DriverConfig(twin.port, calibration, blackbox=folder, lockstep=True)
        with Driver(config) as driver:
            driver.engage()
            driver.move_to(np.array([0.4, -0.9, 0.8, 0.6, 0.3, 0.8]))
            driver.estop()
    return min(folder.glob("2*"))


def test_what_the_twin_did_it_does_again(recorded):
    recording = load(recorded)
    comparison = replay.replay(recording)
    assert recording.fault == "emergency_stop"
    assert len(comparison.time) > 50
    assert np.ptp(comparison.recorded, axis=0).min() > 100  # it moved
    # Ticks. The start is known to half a tick, and how hard the arm lies on itself not at all.
    settled = comparison.time - comparison.time[0] > 0.5
    assert np.abs(comparison.difference).max() <= 20
    assert np.abs(comparison.difference[settled]).max() <= 4


def test_a_recording_that_begins_amid_a_motion_is_replayed(recorded):
    whole = load(recorded)
    moving = np.flatnonzero(np.abs(whole.cycles["velocity"][:, 0]) > 0.2)[5]
    late = blackbox.Recording(whole.header, whole.events, whole.cycles[moving:], whole.packets)
    comparison = replay.replay(late)
    assert np.ptp(comparison.recorded, axis=0).max() > 100
    assert np.sqrt(np.mean(comparison.difference**2.0)) < 12  # ticks, 1 degree


def test_a_recording_of_other_servos_differs(recorded):
    weaker = replay.replay(load(recorded), p_gain=8)
    assert np.abs(weaker.difference).max() > 20


def test_lost_and_broken_answers_are_not_compared(recorded):
    whole = load(recorded)
    packets = whole.packets.copy()
    answers = np.flatnonzero((packets["direction"] == b"rx") & (packets["length"] == 126))
    packets["data"][answers[10], 30] ^= 1
    packets = np.delete(packets, answers[20])
    damaged = blackbox.Recording(whole.header, [], whole.cycles, packets)
    complete, rest = replay.replay(whole), replay.replay(damaged)
    assert len(rest.time) == len(complete.time) - 2
    assert set(complete.replayed[:, 1]) >= set(rest.replayed[:, 1])


def test_replay_prints_a_table(recorded, capsys):
    assert main(BlackboxReplay(recorded)) == 0
    said = capsys.readouterr().out
    assert "Twin against recording" in said
    assert all(joint in said for joint in SO101.joints)


def test_packets_have_room_for_the_answer_of_six_servos():
    assert PACKET["data"].shape[0] >= 6 * (15 + 6)
