"""hardware/bus.py on a pty: what is on the wire, and every way in which a line can fail."""

import itertools
import os
import pty
import select
import tempfile
import termios
import threading
import time
import tty

import numpy as np
import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from robolearn.hardware.bus import Bus, BusError, BusLost, ServoStates
from robolearn.hardware.port import Port, parse
from robolearn.hardware.registers import Alarm, Instruction, Register, encode

IDS = (1, 2, 3, 4, 5, 6)
# s: not a verdict, since the answers come from a thread of this process; the wire needs 1.4 ms.
PATIENCE = 20.0


def packet(servo, code, data=b""):
    body = bytes([servo, len(data) + 2, code, *data])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


class Servos:
    """Servos on a pty: they answer reads, writes and pings from their memory.

    `distort` turns the list of status packets of one answer into what goes over the wire.
    """

    def __init__(self, ids=IDS, speed=termios.B1000000):
        self.memory = {servo: bytearray(128) for servo in ids}
        self.errors, self.silent, self.distort = dict.fromkeys(ids, 0), set(), b"".join
        self.requests, self.answered, self.speed, self.stuck = [], 0, speed, set()
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.port, self.plugged = os.ttyname(self.slave), True
        self.put(Register.MODEL, 777)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def put(self, register, value, servo=None):
        for each in [servo] if servo else self.memory:
            data = encode(register, value)
            self.memory[each][register : register + len(data)] = data

    def get(self, register):
        return [memory[register] for memory in self.memory.values()]

    def serve(self):
        received = b""
        while self.plugged:
            if not select.select([self.master], [], [], 0.01)[0]:
                continue
            received += os.read(self.master, 4096)
            while len(received) > 3 and len(received) >= received[3] + 4:
                request, received = received[: received[3] + 4], received[received[3] + 4 :]
                if termios.tcgetattr(self.slave)[5] == self.speed:
                    self.requests.append(request)
                    os.write(self.master, self.distort(list(self.answer(request))))
                    self.answered += 1
        os.close(self.slave)
        os.close(self.master)

    def answer(self, request):
        assert request == packet(request[2], request[4], request[5:-1])
        code, data = request[4], request[5:-1]
        if code == Instruction.SYNC_WRITE:
            step = data[1] + 1
            for k in range(2, len(data), step):
                self.store(data[k], data[0], data[k + 1 : k + step])
            return
        servos = data[2:] if code == Instruction.SYNC_READ else request[2:3]
        for servo in (s for s in servos if s in self.memory and s not in self.silent):
            if code == Instruction.WRITE:
                self.store(servo, data[0], data[1:])
            asked = code in (Instruction.READ, Instruction.SYNC_READ)
            part = self.memory[servo][data[0] : data[0] + data[1]] if asked else b""
            yield packet(servo, self.errors[servo], part)

    def store(self, servo, start, data):
        if servo in self.memory and servo not in self.silent | self.stuck:
            self.memory[servo][start : start + len(data)] = data

    def wait_for(self, requests):
        """Until so many have been answered, in whatever way."""
        patience = time.monotonic() + PATIENCE
        while self.answered < requests and time.monotonic() < patience:
            time.sleep(1e-3)

    def unplug(self):
        self.plugged = False
        self.thread.join()


@pytest.fixture(autouse=True, scope="module")
def _own_locks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture
def plug():
    """Makes servos, and unplugs them in the end."""
    made = []

    def make(**settings):
        made.append(Servos(**settings))
        return made[-1]

    yield make
    for servos in made:
        servos.unplug()


@pytest.fixture
def servos(plug):
    return plug()


@pytest.fixture
def bus(servos):
    with Bus(servos.port, IDS, timeout=PATIENCE) as bus:
        yield bus


def brisk(bus, timeout=0.4):
    """For tests in which an answer fails to come; enough for the other answers to come."""
    bus.timeout = timeout
    return bus


# The control loop --------------------------------------------------------------------------------


def test_states_come_in_si_units_and_in_the_order_of_the_ids(servos):
    values = {
        Register.PRESENT_POSITION: 3000,
        Register.PRESENT_VELOCITY: -250,
        Register.PRESENT_LOAD: -125,
        Register.PRESENT_VOLTAGE: 74,
        Register.PRESENT_TEMPERATURE: 41,
        Register.PRESENT_CURRENT: 200,
        Register.MOVING: 1,
    }
    for register, value in values.items():
        servos.put(register, value, servo=5)
    with Bus(servos.port, (5, 2), timeout=PATIENCE, clock=lambda: 12.5) as bus:
        states = bus.read_states()
    assert states.time == 12.5
    fields = ("position", "velocity", "load", "voltage", "temperature", "current", "moving")
    expected = (3000, -250.0, -0.125, 7.4, 41.0, 1.3, True)
    for field, value in zip(fields, expected, strict=True):
        np.testing.assert_allclose(getattr(states, field), [value, 0], err_msg=field)
    assert states.moving.dtype == bool
    assert states.alarms.dtype == np.uint8
    assert len(servos.requests) == 1, "a cycle is one transmission"


def test_a_cycle_of_goals_is_one_packet(servos, bus):
    position = np.arange(2000, 2006)
    bus.write_goals(position, velocity=977.3, acceleration=np.full(6, 6519.0))
    bus.read(Register.MODEL)  # an answer, so the write has arrived
    parts = [bytes([s, 66, 0xD0 + k, 7, 0, 0, 0xD2, 3]) for k, s in enumerate(IDS)]
    assert servos.requests[0] == packet(0xFE, 0x83, bytes([41, 7]) + b"".join(parts))
    np.testing.assert_array_equal(bus.read(Register.GOAL_POSITION), position)
    assert bus.read(Register.GOAL_VELOCITY).tolist() == [978] * 6  # rounded up
    assert bus.read(Register.ACCELERATION).tolist() == [66] * 6


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"position": [2000] * 5 + [4096]}, r"position is .*4096.0\]; it must lie within 0..4095"),
        ({"position": [-1] * 6}, "position is"),
        ({"position": [np.nan] * 6}, "position is .*nan"),
        ({"position": [2000] * 5}, r"position has shape \(5,\); give one value, or 6"),
        ({"velocity": 0}, "velocity is 0.0; it must lie within 1..32767"),
        ({"velocity": np.inf}, "velocity is inf"),
        ({"acceleration": 0}, "acceleration / 100 is 0.0; it must lie within 1..254"),
        ({"acceleration": 25_401}, "acceleration / 100 is 255.0"),
    ],
)
def test_impossible_goals_are_refused_and_nothing_is_sent(servos, bus, goal, message):
    goal = {"position": [2000] * 6, "velocity": 1000, "acceleration": 5000} | goal
    with pytest.raises(ValueError, match=message):
        bus.write_goals(**goal)
    bus.read(Register.MODEL)
    assert len(servos.requests) == 1


@given(st.lists(st.integers(0, 4095), min_size=6, max_size=6), st.integers(1, 0x7FFF))
def test_every_goal_arrives(shared_bus, position, velocity):
    shared_bus.write_goals(position, velocity=velocity, acceleration=25_400)
    np.testing.assert_array_equal(shared_bus.read(Register.GOAL_POSITION), position)
    assert set(shared_bus.read(Register.GOAL_VELOCITY)) == {velocity}
    assert set(shared_bus.read(Register.ACCELERATION)) == {254}


@pytest.fixture(scope="module")
def shared_bus():
    servos = Servos()
    with Bus(servos.port, IDS, timeout=PATIENCE) as bus:
        yield bus
    servos.unplug()


def test_torque_limits_are_shares(bus):
    bus.write_torque_limits(np.linspace(0.0, 1.0, 6))
    assert bus.read(Register.TORQUE_LIMIT).tolist() == [0, 200, 400, 600, 800, 1000]
    with pytest.raises(ValueError, match="torque limit in 0.1 % is 1100.0"):
        bus.write_torque_limits(1.1)


def test_alarms_are_those_of_one_servo_and_the_cycle_goes_on(servos, bus):
    servos.errors[3] = Alarm.OVERLOAD
    servos.put(Register.STATUS, Alarm.OVERHEAT, servo=3)
    servos.put(Register.PRESENT_POSITION, 1234)
    states = bus.read_states()
    assert states.alarms.tolist() == [0, 0, Alarm.OVERLOAD | Alarm.OVERHEAT, 0, 0, 0]
    assert states.position.tolist() == [1234] * 6


def test_the_tap_sees_every_packet(servos):
    seen, ticks = [], iter(range(100))
    clock = ticks.__next__
    with Bus(servos.port, (1, 2), clock=clock, tap=lambda *packet: seen.append(packet)) as bus:
        bus.timeout = PATIENCE
        bus.read(Register.MODEL)
        bus.enable_torque()
        servos.distort = lambda packets: b"rubbish" if packets else b""
        with pytest.raises(BusError):
            brisk(bus).read(Register.MODEL)
    request = packet(0xFE, 0x82, bytes([3, 2, 1, 2]))
    assert seen == [
        (0, "tx", request),
        (1, "rx", packet(1, 0, b"\x09\x03") + packet(2, 0, b"\x09\x03")),
        (2, "tx", packet(0xFE, 0x83, bytes([40, 1, 1, 1, 2, 1]))),
        (3, "tx", request),
        (4, "rx", b"rubbish"),
    ]


# Answers that are not right ----------------------------------------------------------------------


def corrupt(packets):
    packets[2] = packets[2][:9] + bytes([packets[2][9] ^ 0x40]) + packets[2][10:]
    return b"".join(packets)


def shorten(packets):
    packets[2] = packet(3, 0, bytes(14))
    return b"".join(packets)


def break_off(packets):
    return b"".join(packets)[:-4]


def rename(packets):
    packets[2] = packet(9, 0, bytes(15))
    return b"".join(packets)


def swap(packets):
    packets[2], packets[3] = packets[3], packets[2]
    return b"".join(packets)


TWICE = "answers came twice or in the wrong order"
WRONG = [
    (corrupt, (3,), "no valid answer from servo 3; a status packet has the wrong checksum"),
    (rename, (3,), "no valid answer from servo 3; servo 9 answered and was not asked"),
    (swap, (), TWICE),
    (lambda packets: packets[0] + b"".join(packets), (), TWICE),
    (lambda packets: bytes(2000), IDS, "no valid answer from servo 1, 2, 3, 4, 5, 6; check"),
]
TOO_SHORT = [
    (shorten, (3,), "no valid answer from servo 3; a status packet has the wrong length"),
    (break_off, (6,), "no valid answer from servo 6; a status packet breaks off"),
    (lambda packets: b"".join(packets[:4] + packets[5:]), (5,), "servo 5; check cables and power"),
    (lambda packets: b"", IDS, "no valid answer from servo 1, 2, 3, 4, 5, 6; check cables"),
]


@pytest.mark.parametrize(
    ("distort", "missing", "message", "timeout"),
    [(*case, 3 * PATIENCE) for case in WRONG] + [(*case, 0.4) for case in TOO_SHORT],
)
def test_a_cycle_with_a_wrong_answer_is_dropped_whole(
    servos, bus, distort, missing, message, timeout
):
    servos.distort, start = distort, time.monotonic()
    with pytest.raises(BusError, match=message) as caught:
        brisk(bus, timeout).read_states()
    assert time.monotonic() - start < PATIENCE, "it waits when all that was due has come"
    assert caught.value.missing == missing
    assert servos.port in str(caught.value)
    assert bus.is_connected
    assert not isinstance(caught.value, BusLost)


@pytest.mark.parametrize("noise", [b"\x00", b"\xff", b"\xff\xff", b"\xff\xff\xfe\x04"])
def test_noise_before_an_answer_is_skipped(servos, bus, noise):
    servos.put(Register.PRESENT_POSITION, 77)
    servos.distort = lambda packets: b"".join(noise + each for each in packets)
    assert bus.read_states().position.tolist() == [77] * 6


def test_an_answer_may_come_in_pieces(servos, bus):
    def dribble(packets):
        for piece in b"".join(packets):
            os.write(servos.master, bytes([piece]))
            time.sleep(1e-4)
        return b""

    servos.put(Register.PRESENT_POSITION, 77)
    servos.distort = dribble
    assert bus.read_states().position.tolist() == [77] * 6


@given(st.binary(max_size=200), st.integers(0, 20))
def test_no_bytes_upset_the_parser(received, length):
    packets, flaw = parse(received, length)
    assert all(len(status.data) == length for status in packets)
    assert isinstance(flaw, str)
    good = b"".join(packet(servo, 0, bytes(length)) for servo in IDS)
    assert [status.servo for status in parse(good, length)[0]] == list(IDS)


def test_an_answer_that_comes_late_is_never_taken_for_a_new_one(servos, bus):
    late = []
    servos.put(Register.PRESENT_POSITION, 4000)
    servos.distort = lambda packets: late.append(b"".join(packets)) or b""
    with pytest.raises(BusError):
        brisk(bus, 0.02).read_states()
    servos.distort, bus.timeout = b"".join, PATIENCE
    time.sleep(0.04)  # 60 ms after the question
    os.write(servos.master, late[0])
    assert select.select([servos.slave], [], [], PATIENCE)[0], (
        "it is there, before the next question"
    )
    for position in range(60):
        servos.put(Register.PRESENT_POSITION, position)
        assert bus.read_states().position.tolist() == [position] * 6


def test_a_late_answer_behind_the_next_question_costs_a_cycle_and_no_more(servos, bus):
    servos.put(Register.PRESENT_POSITION, 4000)
    late = b"".join(servos.answer(packet(0xFE, 0x82, bytes([56, 15, *IDS]))))
    servos.distort = lambda packets: late + b"".join(packets)
    servos.put(Register.PRESENT_POSITION, 5)
    with pytest.raises(BusError, match="answers came twice"):
        bus.read_states()
    servos.distort = b"".join
    assert bus.read_states().position.tolist() == [5] * 6


# Time --------------------------------------------------------------------------------------------


def test_waiting_costs_no_processor_time(servos, bus):
    servos.silent.update(IDS)
    bus.timeout, before = 0.3, time.thread_time()
    with pytest.raises(BusError):
        bus.read_states()
    assert time.thread_time() - before < 0.15


def test_setting_the_system_clock_changes_nothing(servos, bus, monkeypatch):
    servos.distort = lambda packets: time.sleep(0.02) or b"".join(packets)
    monkeypatch.setattr(time, "time", itertools.count(step=1000.0).__next__)
    assert isinstance(bus.read_states(), ServoStates)


def test_a_line_that_babbles_does_not_hold_the_cycle_up():
    port, start = Port("babbling", 1_000_000), time.monotonic()

    def babble(length):
        assert time.monotonic() - start < PATIENCE
        return b"\x00"

    port.readPort = babble
    port.setPacketTimeoutMillis(20.0)
    assert set(port.receive(6, 15)) == {0}


# Registers ---------------------------------------------------------------------------------------


def test_one_servo_or_all_are_read_and_written(servos, bus):
    bus.write(Register.P_GAIN, [16, 17, 18, 19, 20, 21])
    bus.write(Register.HOMING_OFFSET, -1365, servo=4)
    assert bus.read(Register.P_GAIN).tolist() == [16, 17, 18, 19, 20, 21]
    assert bus.read(Register.P_GAIN, servo=3).tolist() == [18]
    assert bus.read(Register.HOMING_OFFSET).tolist() == [0, 0, 0, -1365, 0, 0]
    servos.silent.add(4)
    with pytest.raises(BusError, match="servo 4") as caught:
        brisk(bus).write(Register.P_GAIN, 32, servo=4)
    assert caught.value.missing == (4,)


@pytest.mark.parametrize(
    ("register", "value", "servo", "message"),
    [
        (Register.TORQUE_ENABLE, 128, None, "TORQUE_ENABLE is 128; it must be 0 or 1"),
        (Register.TORQUE_ENABLE, [1, 1, 1, 1, 1, 128], None, "it must be 0 or 1"),
        (Register.TORQUE_ENABLE, 2, 1, "it must be 0 or 1"),
        (Register.TORQUE_ENABLE, 0.5, 1, "it must be 0 or 1"),
        (Register.ID, 7, None, "one servo at a time"),
        (Register.P_GAIN, 256, None, "P_GAIN cannot be 256"),
        (Register.P_GAIN, [1, 2], None, r"P_GAIN has shape \(2,\); give one value, or 6"),
        (Register.P_GAIN, [1, 2, 3, 4, 5, 6], 1, r"P_GAIN has shape \(6,\); give one value, or 1"),
        (Register.HOMING_OFFSET, -2048, 2, "HOMING_OFFSET cannot be -2048"),
        (Register.GOAL_POSITION, np.nan, None, "GOAL_POSITION is nan"),
    ],
)
def test_impossible_values_are_refused_and_nothing_is_sent(
    servos, bus, register, value, servo, message
):
    with pytest.raises(ValueError, match=message):
        bus.write(register, value, servo)
    bus.read(Register.MODEL)
    assert len(servos.requests) == 1


def test_the_lock_is_open_inside_the_context_only(servos, bus):
    servos.put(Register.LOCK, 1)
    with bus.unlocked():
        assert servos.get(Register.LOCK) == [0] * 6
    bus.ping(1)
    assert servos.get(Register.LOCK) == [1] * 6
    servos.silent.add(4)
    with pytest.raises(BusError, match="servo 4"), brisk(bus).unlocked():
        pytest.fail("it is not unlocked")
    servos.silent.clear()
    assert bus.read(Register.LOCK).tolist() == [1] * 6


# Torque ------------------------------------------------------------------------------------------


def test_release_confirms_that_the_torque_is_off(servos, bus):
    bus.enable_torque()
    assert bus.read(Register.TORQUE_ENABLE).tolist() == [1] * 6
    assert bus.release() == ()
    assert servos.get(Register.TORQUE_ENABLE) == [0] * 6


@pytest.mark.parametrize("alarm", [*Alarm, Alarm(0x7F)])
def test_an_alarmed_servo_does_not_keep_the_others_under_torque(servos, bus, alarm):
    bus.enable_torque()
    servos.errors[2] = alarm
    servos.put(Register.STATUS, alarm, servo=2)
    assert bus.release() == ()
    assert servos.get(Register.TORQUE_ENABLE) == [0] * 6


def test_release_names_the_servos_that_do_not_confirm(servos, bus):
    bus.enable_torque()
    bus.ping(1)
    servos.silent.add(1)
    servos.stuck.add(5)
    assert brisk(bus).release() == (1, 5)
    assert servos.get(Register.TORQUE_ENABLE) == [1, 0, 0, 0, 1, 0]


def test_release_of_silent_servos_waits_twice_for_each_and_then_gives_up(servos, bus):
    servos.silent.update(IDS)
    assert brisk(bus, 0.02).release() == IDS
    codes = [request[4] for request in servos.requests]
    assert codes == [Instruction.SYNC_WRITE] * 3 + [Instruction.WRITE, Instruction.READ] * 6


def test_release_never_raises(servos):
    def full_disk(*packet):
        raise OSError("no space left")

    servos.put(Register.TORQUE_ENABLE, 1)
    bus = Bus(servos.port, IDS, timeout=PATIENCE, tap=full_disk)
    assert bus.release() == IDS, "not connected"
    with bus:
        bus.release()
        bus.tap = None
        servos.wait_for(15)
        assert servos.get(Register.TORQUE_ENABLE) == [0] * 6
        servos.unplug()
        assert bus.release() == IDS


# The port ----------------------------------------------------------------------------------------


def test_unplugged_and_plugged_in_under_another_name(plug):
    first = plug()
    bus = Bus(first.port, IDS, timeout=PATIENCE)
    with pytest.raises(BusLost, match="is not open; call connect first"):
        bus.read_states()
    bus.connect()
    first.unplug()
    with pytest.raises(BusLost, match=f"{first.port} is gone"):
        bus.read_states()
    assert not bus.is_connected
    with pytest.raises(BusLost, match="cannot be opened: No such file or directory"):
        bus.connect()
    second = plug()
    second.put(Register.PRESENT_POSITION, 9)
    bus.port = second.port
    bus.connect()
    assert bus.read_states().position.tolist() == [9] * 6
    bus.close()
    assert not bus.is_connected


def test_unplugged_while_waiting_for_an_answer(servos, bus):
    servos.silent.update(IDS)
    bus.timeout = PATIENCE
    timer = threading.Timer(0.05, servos.unplug)
    timer.start()
    with pytest.raises(BusLost, match="is gone"):
        bus.read_states()
    timer.join()


@pytest.mark.parametrize("method", ["reset_input_buffer", "write", "fileno", "read"])
@pytest.mark.parametrize(
    "error",
    [termios.error(5, "Input/output error"), serial.SerialException("lost"), OSError(6, "gone")],
)
def test_any_failure_of_the_port_means_that_it_is_lost(servos, bus, monkeypatch, method, error):
    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(serial.Serial, method, fail)
        with pytest.raises(BusLost, match=f"{servos.port} is gone .*; plug it in") as caught:
            bus.read_states()
    assert caught.value.__cause__ is error
    assert not bus.is_connected
    servos.wait_for(1 if method in ("fileno", "read") else 0)
    bus.connect()
    assert isinstance(bus.read_states(), ServoStates)


def test_one_port_is_opened_once(servos, bus, tmp_path):
    link = tmp_path / "arm"
    link.symlink_to(servos.port)
    for name in (servos.port, str(link)):
        second = Bus(name, IDS, timeout=PATIENCE)
        with pytest.raises(BusLost, match=f"{name} cannot be opened: process {os.getpid()} uses"):
            second.connect()
    bus.close()
    with second:
        assert isinstance(second.read_states(), ServoStates)


def test_a_port_of_another_program_is_left_alone(servos):
    with (
        serial.Serial(servos.port, exclusive=True),
        pytest.raises(BusLost, match="cannot be opened: Resource temporarily unavailable"),
    ):
        Bus(servos.port, IDS).connect()
    Bus(servos.port, IDS).connect()


def test_connect_again_while_open(servos, bus):
    bus.connect()
    assert bus.is_connected
    assert isinstance(bus.read_states(), ServoStates)


def test_threads_take_turns(servos, bus):
    servos.put(Register.PRESENT_POSITION, 100)
    servos.put(Register.PRESENT_TEMPERATURE, 40)
    failures = []

    def ask(register, value):
        try:
            for _ in range(100):
                assert bus.read(register).tolist() == [value] * 6
        except (AssertionError, BusError) as error:
            failures.append(error)

    questions = ((Register.PRESENT_POSITION, 100), (Register.PRESENT_TEMPERATURE, 40))
    threads = [threading.Thread(target=ask, args=question) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_signal_handler_may_release_in_the_middle_of_a_cycle(servos, bus):
    """The handler runs in the thread that holds the bus; here the tap stands in for it."""
    servos.put(Register.TORQUE_ENABLE, 1)
    released = []

    def handler(*_):
        bus.tap = None
        released.append(bus.release())

    bus.tap = handler
    with pytest.raises(BusError):  # the answer went to the handler's questions
        brisk(bus).read_states()
    assert released == [()]


# Who is there ------------------------------------------------------------------------------------


def test_ping_tells_the_model(servos, bus):
    servos.put(Register.MODEL, 1284, servo=2)
    assert (bus.ping(1), bus.ping(2)) == (777, 1284)
    with pytest.raises(BusError, match="servo 9"):
        brisk(bus).ping(9)


def test_wrong_servos_are_named(servos, bus):
    bus.check_servos()
    servos.put(Register.FIRMWARE_MINOR, 10, servo=3)
    with pytest.raises(BusError, match="servo 2 has 0.0, servo 3 has 0.10, servo 4.*update it"):
        bus.check_servos()
    servos.put(Register.MODEL, 1284, servo=2)
    with pytest.raises(BusError, match="servo 2 has model number 1284; an STS3215 has 777"):
        bus.check_servos()
    servos.silent.add(6)
    with pytest.raises(BusError, match="servo 6"):
        brisk(bus).check_servos()


def test_scan_finds_servos_at_their_baud_rate(plug):
    servos = plug(ids=(1, 4), speed=termios.B115200)
    found = Bus.scan(servos.port, (1, 2, 4), (1_000_000, 128_000, 115_200), timeout=0.1)
    assert found == {115_200: {1: 777, 4: 777}}
    servos.unplug()
    with pytest.raises(BusLost):
        Bus.scan(servos.port, range(1, 6))


@pytest.mark.parametrize("ids", [(), (1, 1), (254,), (-1,), range(31)])
def test_impossible_ids_are_refused(ids):
    with pytest.raises(ValueError, match="ids are"):
        Bus("port", ids)
