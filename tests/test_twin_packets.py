"""The twin's bus protocol, against packets written by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servo_bench import PAN_AND_LIFT, make, packet, talk

from robolearn.hardware.registers import Register
from robolearn.hardware.twin_packets import PacketReader, answer
from robolearn.hardware.twin_servo import Sensed


def test_ping():
    assert talk(make(), bytes.fromhex("ff ff 01 02 01 fb")) == "ff ff 01 02 00 fc"


def test_read_the_position_of_the_middle():
    # address 56, 2 bytes -> 2048, low byte first
    asked = bytes.fromhex("ff ff 01 04 02 38 02 be")
    assert talk(make(), asked) == "ff ff 01 04 00 00 08 f2"


def test_write_a_goal():
    servo = make()
    assert talk(servo, bytes.fromhex("ff ff 01 05 03 2a 00 04 c8")) == "ff ff 01 02 00 fc"
    assert servo[Register.GOAL_POSITION] == 1024


def test_sync_read_answers_in_the_order_of_the_request_and_leaves_gaps():
    servos = [make(1), make(2, Sensed(encoder=100)), make(4)]
    expected = [packet("02 04 00 64 00"), packet("01 04 00 00 08")]
    assert talk(servos, packet("fe 07 82 38 02 02 03 01")) == b"".join(expected).hex(" ")


def test_sync_write_is_obeyed_without_a_word():
    servos = [make(1), make(2)]
    assert talk(servos, packet("fe 0a 83 2a 02 01 00 04 02 00 0c")) == ""
    assert [s[Register.GOAL_POSITION] for s in servos] == [1024, 3072]


def test_the_state_block_has_every_reading():
    sensed = Sensed(2100, -50.0, -0.25, 1.3, 7.4, 33.4)
    servo = make(sensed=sensed, MAX_VOLTAGE=70)
    moving = "01"
    block = f"34 08 32 80 fa 04 4a 21 00 01 {moving} 00 00 c8 00"
    assert talk(servo, packet("fe 05 82 38 0f 01")) == packet(f"01 11 01 {block}").hex(" ")


def test_reg_write_waits_for_action():
    servos = [make(1), make(2)]
    for servo in servos:
        asked = packet(f"0{servo[Register.ID]} 05 04 2a 00 04")
        assert talk(servos, asked) == packet(f"0{servo[Register.ID]} 02 00").hex(" ")
        assert servo[Register.ASYNC_WRITE] == 1
    assert servos[0][Register.GOAL_POSITION] == 2048
    assert talk(servos, packet("fe 02 05")) == ""
    assert [s[Register.GOAL_POSITION] for s in servos] == [1024, 1024]
    assert servos[0][Register.ASYNC_WRITE] == 0


def test_only_a_ping_makes_all_servos_answer():
    servos = [make(2), make(1)]
    both = packet("01 02 00") + packet("02 02 00")
    assert talk(servos, packet("fe 02 01")) == both.hex(" ")
    assert talk(servos, packet("fe 04 02 38 02")) == ""
    assert talk(servos, packet("fe 05 03 2a 00 04")) == ""
    assert [s[Register.GOAL_POSITION] for s in servos] == [1024, 1024]


def test_status_level_0_answers_only_questions():
    servo = make(STATUS_LEVEL=0)
    assert talk(servo, packet("01 05 03 2a 00 04")) == ""
    assert servo[Register.GOAL_POSITION] == 1024
    assert talk(servo, packet("01 04 02 2a 02")) == packet("01 04 00 00 04").hex(" ")
    assert talk(servo, packet("01 02 01")) == packet("01 02 00").hex(" ")


@pytest.mark.parametrize(
    "said",
    [
        packet("02 02 01"),  # nobody of that name
        bytes.fromhex("ff ff 01 02 01 fa"),  # wrong checksum
        packet("01 02 77"),  # no such instruction
        packet("01 03 02 38"),  # a read of no length
        packet("01 02 03"),  # a write of nothing
        packet("01 07 82 38 02 01 02 03"),  # a sync read must be a broadcast
    ],
)
def test_silence(said):
    assert talk(make(), said) == ""


def test_a_new_id_counts_from_the_next_packet_on():
    servo = make()
    servo[Register.LOCK] = 0
    assert talk(servo, packet("01 04 03 05 07")) == packet("01 02 00").hex(" ")
    assert talk(servo, packet("01 02 01") + packet("07 02 01")) == packet("07 02 00").hex(" ")


def test_the_return_delay_goes_with_each_reply():
    servos = [make(i, RETURN_DELAY=250) for i in PAN_AND_LIFT]
    (asked,) = PacketReader().feed(packet("fe 06 82 38 02 01 02"))
    assert [reply.delay for reply in answer(servos, asked)] == [pytest.approx(5e-4)] * 2


STREAM = [packet("01 02 01"), packet("01 04 02 38 02"), packet("01 05 03 2a ff ff")]
JUNK = st.sampled_from([b"", b"\x00", b"\xff", b"\xff\xff\xff", b"\x01\x02", STREAM[1][:5]])


@given(
    parts=st.lists(st.tuples(JUNK, st.sampled_from(STREAM)), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 100), max_size=8),
)
def test_packets_are_found_however_the_stream_is_cut_and_soiled(parts, cuts):
    """Junk may cost nothing: what follows it is understood."""
    stream = b"".join(junk + good for junk, good in parts)
    edges = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    reader, found = PacketReader(), []
    for start, end in zip(edges, edges[1:], strict=False):
        found += reader.feed(stream[start:end])
    said = [p.instruction for p in found]
    assert said == [good[4] for _, good in parts]


@given(st.binary(max_size=300))
def test_noise_breaks_nothing(noise):
    servo = make()
    for found in PacketReader().feed(noise + packet("01 02 01")):
        answer([servo], found)


def test_a_pause_ends_half_a_packet():
    reader, servo = PacketReader(), make()
    long = bytes.fromhex("ff ff 01 f0 02")
    assert not reader.feed(long + packet("01 02 01"), 0.0)
    (found,) = reader.feed(packet("01 02 01"), 1.0)
    assert answer([servo], found)
