"""Segments that are not what they should be: RFC 9293 3.10.7.4 with RFC 5961 and RFC 7323."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from zttrio.header.tcp import ACK, FIN, PSH, RST, SYN, URG
from zttrio.stack.events import ERR, RD
from zttrio.stack.packet import Packet
from zttrio.stack.tcp.state import CLOSE_WAIT, CLOSED, ESTABLISHED
from zttrio.testing.trace import TcpTrace

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection


def test_a_reset_at_the_exact_number_ends_the_connection() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.wanted = RD | ERR
    connection.send(b"lost", t.now)
    t.send(RST, seq=1)
    assert connection.state == CLOSED
    assert [endpoint.ready for endpoint in t.events.take()] == [RD | ERR]
    with pytest.raises(ConnectionResetError, match="reset by the peer"):
        connection.send(b"x", t.now)
    with pytest.raises(BrokenPipeError):
        connection.send(b"x", t.now)
    assert connection.receive(10, t.now) == b""
    assert t.tcp.table == {}


def test_a_reset_is_reported_to_the_reader_after_what_had_arrived() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"last words")
    t.take()
    t.send(RST)
    assert connection.receive(100, t.now) == b"last words"
    with pytest.raises(ConnectionResetError):
        connection.receive(100, t.now)
    assert connection.receive(100, t.now) == b""


def test_a_reset_elsewhere_in_the_window_is_asked_back() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(RST, seq=100)
    t.expect(ACK, b"", seq=1, ack=1)
    assert connection.state == ESTABLISHED
    # A peer that meant it answers with the exact number.
    t.send(RST, seq=1)
    assert connection.state == CLOSED


@pytest.mark.parametrize("seq", [-1, 100_000])
def test_a_reset_outside_the_window_is_not_answered(seq: int) -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(RST, seq=seq)
    t.send(RST | ACK, seq=seq)
    t.expect_nothing()
    assert connection.state == ESTABLISHED
    assert t.counters.tcp_resets_ignored == 2


@pytest.mark.parametrize("seq", [0, 1, 100, 100_000, -5])
def test_a_syn_on_a_connection_is_asked_back_wherever_it_is(seq: int) -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(SYN, seq=seq)
    t.expect(ACK, b"", seq=1, ack=1)
    t.expect_nothing()
    assert connection.state == ESTABLISHED


def test_challenges_are_limited_for_each_connection() -> None:
    t = TcpTrace()
    t.establish()
    for _ in range(10):
        t.send(SYN, seq=5)
    t.expect(ACK, at=0.0)
    t.expect_nothing()
    assert t.counters.tcp_challenges_limited == 9
    t.at(0.499)
    t.send(SYN, seq=5)
    t.expect_nothing()
    t.at(0.5)
    t.send(SYN, seq=5)
    t.expect(ACK, at=0.5)


def test_a_reset_that_the_limit_left_unanswered_is_asked_back_later() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(SYN, seq=5)
    t.expect(ACK, at=0.0)
    t.at(0.1)
    for _ in range(5):
        t.send(RST, seq=100)
    t.at(5.0)
    t.expect(ACK, b"", seq=1, ack=1, at=0.5)
    t.expect_nothing()
    t.send(RST, seq=1)
    assert connection.state == CLOSED


def test_any_ack_that_goes_out_asks_a_reset_back() -> None:
    t = TcpTrace()
    t.establish()
    t.send(SYN, seq=5)
    t.expect(ACK, at=0.0)
    t.at(0.1)
    t.send(RST, seq=100)
    t.at(0.2)
    t.send(ACK, b"alive")
    t.expect(ACK, ack=6, at=0.2)
    t.at(5.0)
    t.expect_nothing()


def test_challenges_are_limited_for_all_connections_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zttrio.stack.tcp.layer.CHALLENGES", 4)
    t = TcpTrace()
    listener = t.listen()
    for port in range(1000, 1020):
        t.send(SYN, port=port)
        t.take()
        t.send(ACK, port=port)
    assert listener.queued == 11
    for port in range(1000, 1011):
        t.send(SYN, seq=9, port=port)
    assert 2 <= len(t.take()) < 6
    t.at(1.0)
    t.send(SYN, seq=9, port=1010)
    assert len(t.take()) == 1


def test_an_ack_of_what_was_never_sent_is_answered_and_dropped() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"data", ack=5000)
    t.expect(ACK, b"", seq=1, ack=1)
    assert connection.receive(10, t.now) is None
    assert connection.snd_una == connection.snd_nxt
    assert t.counters.tcp_ack_unsent == 1


def test_an_ack_that_is_much_too_old_is_answered_and_its_data_dropped() -> None:
    # RFC 5961 section 5: a blind injector has to guess the ACK as well.
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"evil", seq=1, ack=1 - 70000)
    t.expect(ACK, seq=1, ack=1)
    assert connection.receive(10, t.now) is None
    assert t.counters.tcp_ack_too_old == 1
    t.send(ACK, b"good", seq=1, ack=1 - 60000)
    assert connection.receive(10, t.now) == b"good"


def test_a_segment_without_ack_is_dropped() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(PSH, b"data", seq=1)
    t.expect_nothing()
    assert connection.receive(10, t.now) is None
    assert t.counters.tcp_no_ack == 1


def test_old_data_is_acknowledged_at_once() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"hello")
    t.take()
    t.send(ACK, b"hello", seq=1)
    t.expect(ACK, ack=6)
    t.send(ACK, b"hello", seq=1)
    t.expect(ACK, ack=6)
    assert connection.receive(100, t.now) == b"hello"


def test_data_beyond_the_window_is_not_taken() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"far away", seq=70000)
    t.expect(ACK, ack=1)
    t.send(ACK, b"at the edge", seq=65536 - 4)
    t.expect(ACK, ack=1)
    assert connection.receive_queue is not None
    assert connection.receive_queue.ahead == 4
    assert t.counters.tcp_beyond_window == 1


def test_a_damaged_segment_is_dropped() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"hello", damage=True)
    t.expect_nothing()
    assert connection.receive(10, t.now) is None
    assert t.counters.tcp_bad_checksum == 1


@pytest.mark.parametrize(
    "octets",
    [b"", b"x" * 19, bytes(12) + b"\x40" + bytes(7), bytes(12) + b"\xf0" + bytes(30)],
)
def test_a_malformed_segment_is_counted(octets: bytes) -> None:
    t = TcpTrace()
    t.tcp.receive_packet(Packet(t.remote, t.local, 6, octets), t.now)
    t.expect_nothing()
    assert t.counters.tcp_malformed == 1


def test_a_header_cut_between_the_pieces_of_a_frame_is_put_together() -> None:
    t = TcpTrace()
    connection = t.establish()
    seen = []
    original = t.tcp.receive_packet

    def cut(packet: Packet, now: float) -> None:
        whole = bytes(packet.transport)
        for at in (0, 7, 19, 20, 23, len(whole)):
            seen.append(at)
            original(Packet(packet.source, packet.destination, 6, whole[:at], whole[at:]), now)

    t.tcp.receive_packet = cut  # type: ignore[method-assign]
    t.send(ACK, b"hello", seq=1)
    assert len(seen) == 6
    assert connection.receive(100, t.now) == b"hello"
    assert t.counters.tcp_malformed == t.counters.tcp_bad_checksum == 0


def test_nothing_that_was_sent_to_a_group_is_answered() -> None:
    t = TcpTrace()
    listener = t.listen()
    header = bytes.fromhex("9c40 0050 00000001 00000000 5002 ffff 0000 0000")
    t.tcp.receive_packet(Packet(t.remote, t.local, 6, header, checksum=1, is_multicast=True), 0.0)
    assert listener.requests == {}
    t.expect_nothing()
    assert t.counters.tcp_not_unicast == 1


def test_urgent_data_is_received_in_line() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK | URG | PSH, b"abc")
    assert connection.receive(10, t.now) == b"abc"


def test_a_reset_in_close_wait_says_that_sending_broke() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(FIN | ACK)
    assert connection.state == CLOSE_WAIT
    t.send(RST)
    assert connection.take_error() == errno.EPIPE


def test_a_reset_in_last_ack_is_no_error() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(FIN | ACK)
    connection.shutdown_write(t.now)
    t.flush()
    t.send(RST)
    assert connection.state == CLOSED
    assert connection.error == 0


# timestamps


def test_a_segment_with_an_old_timestamp_is_dropped_and_answered() -> None:
    t = TcpTrace()
    connection = t.establish(timestamps=True)
    t.at(1.0)
    t.send(ACK, b"new")
    t.take()
    t.send(ACK, b"old", timestamp=(t.clock, 0))
    t.expect(ACK, ack=4)
    assert connection.receive(100, t.now) == b"new"
    assert t.counters.tcp_paws == 1


def _with_a_late_ack(t: TcpTrace) -> TcpConnection:
    """A connection with a flight out, to which the peer's clock of 0.05 s ago is old."""
    connection = t.establish(timestamps=True, sack=True, window_scale=0, rtt=0.1)
    connection.send(bytes(10 * connection.mss), t.now)
    t.flush()
    t.take()
    t.at(0.2)
    t.send(ACK, ack=1, sack_blocks=((1 + connection.mss, 1 + 2 * connection.mss),))
    t.take()
    return connection


def test_an_ack_that_others_have_overtaken_still_brings_its_sack_blocks() -> None:
    # Linux's tcp_disordered_ack
    t = TcpTrace()
    connection = _with_a_late_ack(t)
    mss, newest = connection.mss, connection.ts_recent
    blocks = ((1 + 4 * mss, 1 + 5 * mss),)
    t.send(ACK, ack=1, sack_blocks=blocks, timestamp=(t.peer_clock() - 50, 0))
    assert connection.board.sacked == 2 * mss
    assert t.counters.tcp_paws == 0
    assert connection.ts_recent == newest  # and it is not what we echo


def test_data_that_a_repair_has_overtaken_is_taken() -> None:
    # The second is lost, the third late, and the second again comes first: RFC 7323 5.3 alone
    # would drop the third, which then looks lost, too, and so on.
    t = TcpTrace()
    connection = t.establish(timestamps=True, sack=True, rtt=0.1)
    t.at(0.3)
    t.send(ACK, b"a")
    then = t.peer_clock()
    t.at(0.35)
    t.send(ACK, b"b", seq=2)
    t.take()
    newest = connection.ts_recent
    t.send(ACK, b"c", seq=3, timestamp=(then, 0))
    assert connection.receive(10, t.now) == b"abc"
    assert t.counters.tcp_paws == 0
    assert connection.ts_recent == newest


@pytest.mark.parametrize(
    "change",
    [
        {"data": b"old", "timestamp": (-1001, 0)},
        {"flags": ACK | FIN},
        {"seq": 2},
        {"ack": 1449},
        {"window": 1000},
        {"timestamp": (-2000, 0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_of_what_has_an_old_timestamp_only_a_bare_and_recent_ack_counts(
    change: dict[str, Any],
) -> None:
    t = TcpTrace()
    connection = _with_a_late_ack(t)
    mss, before = connection.mss, connection.board.sacked
    late = change.get("timestamp", (-50, 0))[0]
    arguments: dict[str, Any] = {"flags": ACK, "ack": 1, **change}
    arguments["timestamp"] = (t.peer_clock() + late, 0)
    t.send(sack_blocks=((1 + 4 * mss, 1 + 5 * mss),), **arguments)
    assert connection.board.sacked == before
    assert connection.snd_una == connection.iss + 1
    assert connection.receive(10, t.now) is None
    assert t.counters.tcp_paws == 1


def test_a_segment_without_the_timestamp_it_should_have_is_dropped() -> None:
    t = TcpTrace()
    connection = t.establish(timestamps=True)
    t.timestamps = False
    t.send(ACK, b"data")
    t.expect_nothing()
    assert connection.receive(10, t.now) is None
    assert t.counters.tcp_no_timestamp == 1
    t.send(RST, seq=1)  # but a reset needs none
    assert connection.state == CLOSED


def test_an_old_timestamp_does_not_save_a_connection_from_its_reset() -> None:
    t = TcpTrace()
    connection = t.establish(timestamps=True)
    t.send(RST, seq=1, timestamp=(t.clock - 5000, 0))
    assert connection.state == CLOSED


def test_after_24_days_of_silence_any_timestamp_is_believed() -> None:
    t = TcpTrace()
    connection = t.establish(timestamps=True)
    t.at(24 * 86400.0 + 1)
    t.send(ACK, b"back", timestamp=(t.clock - 1, 0))
    assert connection.receive(10, t.now) == b"back"


def test_the_timestamp_echoed_is_of_the_segment_in_front_of_the_last_ack() -> None:
    # RFC 7323 4.3: a delayed ACK echoes the first of the segments that it acknowledges.
    t = TcpTrace()
    connection = t.establish(timestamps=True)
    connection.quick_acks = 0
    t.at(0.1)
    first = t.peer_clock()
    t.send(ACK, b"a")
    t.at(0.12)
    t.send(ACK, b"b")
    t.expect_nothing()
    t.at(0.2)
    answer = t.expect(ACK, ack=3, at=0.14)
    assert answer.header.timestamp is not None
    assert answer.header.timestamp[1] == first


def test_out_of_order_segments_do_not_change_the_timestamp_echoed() -> None:
    t = TcpTrace()
    t.establish(timestamps=True)
    before = t.peer_clock()
    t.at(0.1)
    t.send(ACK, b"ahead", seq=100)
    answer = t.expect(ACK, ack=1)
    assert answer.header.timestamp is not None
    assert answer.header.timestamp[1] == before
