"""The emergency stop on a wire."""

import os
import pty

import pytest

from robolearn.hardware.estop import StopButton


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "stop")
    return tmp_path / "stop"


def test_a_pipe_without_a_writer_is_no_press(pipe):
    button = StopButton(pipe)
    assert not button.is_pressed()
    assert not button.is_pressed()


def test_a_byte_is_a_press_once(pipe):
    button = StopButton(pipe)
    writer = os.open(pipe, os.O_WRONLY)
    assert not button.is_pressed()
    os.write(writer, b"!")
    assert button.is_pressed()
    assert not button.is_pressed()


def test_who_has_gone_cannot_press_any_more_so_that_is_a_press(pipe):
    button = StopButton(pipe)
    writer = os.open(pipe, os.O_WRONLY)
    assert not button.is_pressed()
    os.close(writer)
    assert button.is_pressed()
    assert button.is_pressed()  # until there is somebody again


def test_a_serial_button_needs_no_end_of_line():
    master, slave = pty.openpty()
    button = StopButton(os.ttyname(slave))
    assert not button.is_pressed()
    os.write(master, b"\x03")  # neither a line nor Ctrl-C
    assert button.is_pressed()
    os.close(slave)
    os.close(master)
    assert button.is_pressed()  # unplugged
