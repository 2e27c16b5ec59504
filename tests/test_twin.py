"""The twin as a process: its port, its speed, its clock, its HTTP interface, its cameras."""

import json
import signal
import subprocess
import sys
import termios
import time
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
import serial
from twin_host import IDS, STATE, packet, parse

from robolearn.contract import SO101
from robolearn.hardware.registers import Register, decode
from robolearn.hardware.twin import Twin


@pytest.fixture(scope="module")
def twin():
    with Twin(pose=SO101.home, lockstep=True, env="robolearn/PickPlace-v0") as running:
        yield running


@pytest.fixture(scope="module")
def live():
    with Twin() as running:
        yield running


def exchange(port, data, expected, timeout=5.0):
    """Sends, and reads so many bytes, or what has come until the timeout."""
    port.reset_input_buffer()
    port.write(data)
    port.timeout = timeout
    return port.read(expected)


def test_the_port_speaks_the_protocol(twin):
    with serial.Serial(twin.port, 1_000_000) as port:
        before = twin.state()["time"]
        replies = parse(exchange(port, STATE, 6 * 21))
        assert [servo for servo, _, _ in replies] == list(IDS)
        assert twin.state()["time"] - before == pytest.approx(0.02)
        lift = twin.state()["servos"]["shoulder_lift"]
        assert decode(Register.PRESENT_POSITION, replies[1][2][:2]) == lift["present_position"]


@pytest.mark.parametrize("baud_rate", [500_000, 115_200, 128_000])
def test_the_wrong_speed_makes_garbage(twin, baud_rate):
    with serial.Serial(twin.port, baud_rate) as port:
        heard = exchange(port, packet(1, 2, 1), 6, timeout=0.2)
        assert not parse(heard)
    with serial.Serial(twin.port, 1_000_000) as port:
        assert parse(exchange(port, packet(1, 2, 1), 6)) == [(1, 0, b"")]


def test_servos_of_another_speed_answer_only_to_that():
    with Twin(registers={"BAUD_RATE": 4}, lockstep=True) as twin:
        with serial.Serial(twin.port, 1_000_000) as port:
            assert not parse(exchange(port, packet(1, 2, 1), 6, timeout=0.2))
        with serial.Serial(twin.port, 115_200) as port:
            assert parse(exchange(port, packet(1, 2, 1), 6)) == [(1, 0, b"")]


def test_a_late_reply_comes_during_the_next_exchange(twin):
    with serial.Serial(twin.port, 1_000_000) as port:
        twin.fault("late", servo=1, times=1, seconds=0.3)
        port.timeout = 0.05
        port.write(packet(1, 2, 1))
        assert port.read(6) == b""
        port.write(packet(2, 2, 1))
        assert port.read(6) == b""
        twin.advance(0.3)  # in lockstep replies are late in the arm's time
        port.timeout = 5.0
        assert [servo for servo, _, _ in parse(port.read(12))] == [1, 2]
        twin.mend()


def test_unplugged_and_plugged_in_again_under_another_name(live):
    old = live.port
    with serial.Serial(old, 1_000_000) as port:
        assert len(parse(exchange(port, STATE, 6 * 21))) == 6
        live.fault("unplug")
        assert live.port == ""
        with pytest.raises((OSError, termios.error)):
            exchange(port, STATE, 6 * 21)
        live.mend("unplug")
        assert live.port not in ("", old)
        with serial.Serial(live.port, 1_000_000) as again:
            assert len(parse(exchange(again, STATE, 6 * 21))) == 6


def test_time_passes_by_itself(live):
    before = live.state()["time"]
    deadline = time.monotonic() + 30
    while live.state()["time"] < before + 0.1:
        assert time.monotonic() < deadline
    with pytest.raises(ValueError, match="follows the clock on the wall"):
        live.advance(1.0)


def test_requests_by_hand(twin):
    state = json.load(urlopen(f"{twin.url}/state"))
    assert state["servos"]["gripper"]["max_torque"] == 500
    with pytest.raises(ValueError, match="no 'GET /nothing'; there are GET /state"):
        twin._ask("GET", "/nothing")
    with pytest.raises(ValueError, match="POST /reset takes .*seed.*'sead'"):
        twin._ask("POST", "/reset", {"seed": 1, "sead": 2})
    with pytest.raises(ValueError, match="arm is 'away'; choose one of stay, home"):
        twin.reset(1, arm="away")
    with pytest.raises(ValueError, match="no fault"):
        twin.fault("")


def test_tasks_and_hands_from_outside(twin):
    start = twin.reset(3, "put the red cube in the blue bin", arm="home")
    assert start["task"] == "put the red cube in the blue bin"
    found = [servo["position"] for servo in start["servos"].values()]
    np.testing.assert_allclose(found, SO101.home, atol=0.2)
    twin.push({"shoulder_pan": 0.5})
    twin.advance(1.0)
    assert twin.state()["servos"]["shoulder_pan"]["position"] == pytest.approx(0.5, abs=0.03)
    twin.push()
    assert twin.calibration()["gripper"]["id"] == 6


def test_pictures_show_what_is_there_now(twin):
    twin.reset(3, arm="home")
    before = twin.picture("top")
    assert before.shape == (48, 84, 3)
    assert before.std() > 10
    np.testing.assert_array_equal(before, twin.picture("top"))
    assert not np.array_equal(before, twin.picture("wrist"))
    twin.reset(4)
    assert not np.array_equal(before, twin.picture("top"))
    assert twin.picture("video").shape == (480, 640, 3)
    response = urlopen(f"{twin.url}/camera/top.rgb")
    assert response.headers["X-Shape"] == "48,84,3"
    assert float(response.headers["X-Time"]) == twin.state()["time"]
    with pytest.raises(ValueError, match="no 'GET /camera/left.rgb'"):
        twin.picture("left")


def test_a_stream_is_what_opencv_understands(live):
    stream = cv2.VideoCapture(live.cameras["top"])
    frames = [stream.read() for _ in range(3)]
    assert all(ok for ok, _ in frames)
    red_first = frames[-1][1][..., ::-1].astype(int)
    assert abs(red_first - live.picture("top")).mean() < 1.5  # JPEG
    live.fault("camera", camera="top", what="end")
    while stream.read()[0]:
        pass
    live.mend()
    assert cv2.VideoCapture(live.cameras["top"]).read()[0]


def test_a_frozen_stream_goes_on_with_an_old_picture(twin):
    twin.reset(3)
    stream = cv2.VideoCapture(twin.cameras["top"])
    before = stream.read()[1]
    twin.fault("camera", camera="top", what="freeze")
    twin.reset(4)
    assert all(np.array_equal(stream.read()[1], before) for _ in range(15))
    twin.mend()
    deadline = time.monotonic() + 60
    while np.array_equal(stream.read()[1], before):
        assert time.monotonic() < deadline


def test_bad_configs_are_told_to_the_caller():
    with pytest.raises(ValueError, match="near matches: robolearn/PickPlace-v0"):
        Twin(env="robolearn/PickPlaces-v0")


ORPHAN = """
import os
from robolearn.hardware.twin import Twin
twin = Twin()
print(twin.url, flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_process_ends_with_its_parent():
    parent = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True)
    assert parent.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while is_there(parent.stdout.strip()):
        assert time.monotonic() < deadline


def is_there(url):
    try:
        urlopen(f"{url}/state").close()
    except OSError:
        return False
    return True


def test_the_command_runs_until_ctrl_c():
    code = "from robolearn.hardware.twin import *; import sys; sys.exit(main(TwinConfig()))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(5)]
    assert lines[0].startswith("serial port")
    assert "top: http://127.0.0.1" in lines[2]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()
