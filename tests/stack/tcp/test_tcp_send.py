"""Sending: segments, Nagle, windows, probes, and super-segments."""

from __future__ import annotations

import errno

import pytest

from zttrio.config import Config
from zttrio.header.tcp import ACK, FIN, PSH, SYN
from zttrio.stack.events import WR
from zttrio.stack.tcp.options import TcpOptions
from zttrio.stack.tcp.state import CLOSED, ESTABLISHED
from zttrio.testing.trace import TcpTrace

MSS = 1460


def test_data_is_cut_into_segments_and_the_last_is_pushed() -> None:
    t = TcpTrace()
    connection = t.establish()
    data = bytes(range(256)) * 20
    assert connection.send(data, t.now) == 5120
    t.flush()
    for start in (0, MSS, 2 * MSS):
        assert not t.expect(ACK, data[start : start + MSS], seq=start + 1).flags & PSH
    t.expect(ACK | PSH, data[3 * MSS :], seq=3 * MSS + 1)
    t.expect_nothing()


def test_timestamps_take_their_twelve_octets_from_every_segment() -> None:
    t = TcpTrace()
    connection = t.establish(timestamps=True)
    connection.send(bytes(2000), t.now)
    t.flush()
    t.expect(ACK, size=1448)
    t.expect(ACK, size=552)


def test_only_the_initial_window_goes_out_at_first() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.send(bytes(100_000), t.now)
    t.flush()
    assert [len(segment.data) for segment in t.take()] == [MSS] * 10  # RFC 6928
    t.send(ACK, ack=1 + 2 * MSS)
    assert len(t.take()) == 4  # slow start: what was acknowledged, and as much again


def test_a_connection_sends_no_more_than_the_peers_window() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, window=4000)
    connection.send(bytes(10_000), t.now)
    t.flush()
    assert [len(segment.data) for segment in t.take()] == [MSS, MSS]
    # The 1080 octets left are less than a segment and less than half the largest window.
    t.send(ACK, ack=1 + 2 * MSS, window=4000)
    assert [len(segment.data) for segment in t.take()] == [MSS, MSS]


def test_a_window_update_sets_waiting_data_free() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, window=MSS)
    connection.send(bytes(3 * MSS), t.now)
    t.flush()
    t.expect(ACK, seq=1, size=MSS)
    t.expect_nothing()
    t.send(ACK, ack=1 + MSS, window=0)
    t.expect_nothing()
    t.send(ACK, ack=1 + MSS, window=10_000)
    assert len(t.take()) == 2


def test_an_old_segment_does_not_change_the_window() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"new", window=5000)
    t.send(ACK, seq=1, window=9000)  # sent before the data
    assert connection.snd_wnd == 5000


def test_a_scaled_window_is_shifted() -> None:
    t = TcpTrace()
    connection = t.establish(window_scale=4)
    t.send(ACK, window=100)
    assert connection.snd_wnd == 1600


# Nagle, cork, nodelay


def test_a_small_segment_waits_while_another_is_unacknowledged() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.send(b"first", t.now)
    t.flush()
    t.expect(ACK, b"first")
    connection.send(b"second", t.now)
    connection.send(b"third", t.now)
    t.flush()
    t.expect_nothing()
    t.send(ACK)
    t.expect(ACK, b"secondthird")


def test_a_full_segment_does_not_wait() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.send(b"first", t.now)
    t.flush()
    t.expect(ACK, b"first")
    connection.send(bytes(MSS + 10), t.now)
    t.flush()
    t.expect(ACK, size=MSS)
    t.expect_nothing()


def test_the_tail_of_full_segments_does_not_wait() -> None:
    # Minshall's modification, as in Linux: only small segments hold back small segments.
    t = TcpTrace()
    connection = t.establish()
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.expect(ACK, size=MSS)
    connection.send(b"tail", t.now)
    t.flush()
    t.expect(ACK, b"tail")


def test_nodelay_sends_everything_at_once() -> None:
    t = TcpTrace()
    connection = t.establish(options=TcpOptions(nodelay=True))
    for word in (b"one", b"two", b"three"):
        connection.send(word, t.now)
        t.flush()
        t.expect(ACK, word)


def test_setting_nodelay_sends_what_waits() -> None:
    t = TcpTrace()
    connection = t.establish()
    for word in (b"one", b"two"):
        connection.send(word, t.now)
        t.flush()
    t.expect(ACK, b"one")
    t.expect_nothing()
    connection.configure(nodelay=True)
    t.flush()
    t.expect(ACK, b"two")


def test_a_fin_sends_what_waits() -> None:
    t = TcpTrace()
    connection = t.establish()
    for word in (b"one", b"two"):
        connection.send(word, t.now)
        t.flush()
    t.expect(ACK, b"one")
    connection.shutdown_write(t.now)
    t.flush()
    t.expect(FIN | ACK, b"two")


def test_cork_holds_small_segments_until_it_is_taken_out() -> None:
    t = TcpTrace()
    connection = t.establish(options=TcpOptions(cork=True))
    connection.send(b"head", t.now)
    t.flush()
    t.expect_nothing()
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.expect(ACK, size=MSS)
    connection.configure(cork=False)
    t.flush()
    t.expect(ACK, size=4)


def test_cork_holds_for_200_milliseconds_at_most() -> None:
    t = TcpTrace()
    connection = t.establish(options=TcpOptions(cork=True))
    connection.send(b"head", t.now)
    t.flush()
    t.at(0.199)
    t.expect_nothing()
    t.at(0.2)
    t.expect(ACK, b"head", at=0.2)


# closed windows


def test_a_closed_window_is_probed_with_back_off() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.expect(ACK, size=MSS)
    t.send(ACK, window=0)
    connection.send(b"waiting", t.now)
    t.flush()
    t.expect_nothing()
    start = t.now
    interval = connection.rtt.timeout()
    for number in range(6):
        start += interval * (1 << number)
        t.at(start)
        t.expect(ACK, b"", seq=MSS, at=start)  # one number too low, so it has to be answered
        t.send(ACK, window=0)
        t.expect_nothing()
    t.send(ACK, window=5000)
    t.expect(ACK, b"waiting", seq=MSS + 1)
    assert t.counters.tcp_window_probes == 6


def test_a_peer_that_answers_probes_keeps_the_connection_for_ever() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, window=0)
    connection.send(b"waiting", t.now)
    t.flush()
    probes = 0
    while t.now < 7200:
        due = t.timers.next_timer()
        assert due is not None
        t.at(due)
        for _ in t.take():
            probes += 1
            t.send(ACK, window=0)
    assert connection.state == ESTABLISHED
    assert 100 < probes < 140  # one a minute


def test_a_peer_that_does_not_answer_probes_is_given_up() -> None:
    t = TcpTrace(config=Config(retries=4))
    connection = t.establish()
    t.send(ACK, window=0)
    connection.send(b"waiting", t.now)
    t.flush()
    t.at(1000.0)
    assert len(t.take()) == 4
    assert connection.state == CLOSED
    assert connection.error == errno.ETIMEDOUT


def test_an_orphan_does_not_probe_for_ever_whatever_the_peer_answers() -> None:
    # RFC 6429: a peer that keeps its window closed must not keep our memory.
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, window=0)
    connection.send(b"waiting", t.now)
    connection.close(t.now)
    t.flush()
    while t.tcp.table and t.now < 7200:
        due = t.timers.next_timer()
        assert due is not None
        t.at(due)
        for _ in t.take():
            t.send(ACK, window=0)
    assert t.tcp.table == {}
    assert t.now < 600


def test_a_window_of_a_few_octets_is_filled_after_200_milliseconds() -> None:
    # RFC 9293 3.8.6.2.1 (4): the override timeout.
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, window=100)
    connection.send(bytes(1000), t.now)
    t.flush()
    t.expect_nothing()
    t.at(0.2)
    t.expect(ACK, size=100, at=0.2)


def test_a_shrunken_window_stops_new_data_but_not_repairs() -> None:
    # RFC 9293 3.8.6: a sender has to live with a right edge that moves back.
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.send(bytes(4 * MSS), t.now)
    t.flush()
    assert len(t.take()) == 4
    t.send(ACK, ack=1, window=MSS)
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.expect_nothing()
    t.at(t.now + 1.0)
    t.expect(ACK, seq=1, size=MSS)


def test_data_in_flight_towards_a_window_that_closed_is_not_given_up_while_the_peer_answers() -> (
    None
):
    t = TcpTrace(config=Config(retries=3))
    connection = t.establish(rtt=0.1)
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.take()
    t.send(ACK, ack=1, window=0)
    for _ in range(10):
        due = t.timers.next_timer()
        assert due is not None
        t.at(due)
        if t.take():
            t.send(ACK, ack=1, window=0)
    assert connection.state == ESTABLISHED


# the program's side


def test_a_full_send_buffer_takes_nothing_and_says_when_there_is_room() -> None:
    t = TcpTrace(config=Config(send_buffer=3000))
    connection = t.establish()
    was_writable = connection.is_writable
    assert connection.send(bytes(4000), t.now) == 3000
    assert connection.send(b"x", t.now) == 0
    assert (was_writable, connection.is_writable) == (True, False)
    connection.wanted = WR
    t.flush()
    t.take()
    t.send(ACK, ack=501)
    assert t.events.take() == []  # a third of the buffer is what makes waking worth it
    t.send(ACK, ack=1001)
    assert [endpoint.ready for endpoint in t.events.take()] == [WR]
    assert connection.send(bytes(4000), t.now) == 1000


def test_nothing_can_be_sent_before_the_handshake_ends() -> None:
    t = TcpTrace()
    connection = t.connect()
    with pytest.raises(OSError, match="not established") as caught:
        connection.send(b"x", t.now)
    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(OSError, match="not established"):
        connection.receive(1, t.now)
    with pytest.raises(OSError, match="not connected"):
        connection.shutdown_write(t.now)
    assert not connection.is_writable
    t.expect(SYN)


def test_what_a_program_changes_after_sending_is_not_sent() -> None:
    t = TcpTrace()
    connection = t.establish()
    data = bytearray(b"before")
    connection.send(data, t.now)
    data[:] = b"after!"
    view = memoryview(bytearray(b"before")).toreadonly()
    connection.send(view, t.now)
    t.flush()
    t.expect(ACK, b"beforebefore")


def test_a_view_of_wider_items_counts_octets() -> None:
    t = TcpTrace()
    connection = t.establish()
    view = memoryview(b"abcdefgh").cast("I")
    assert connection.send(view, t.now) == 8
    t.flush()
    t.expect(ACK, b"abcdefgh")


def test_after_a_long_silence_the_window_starts_over() -> None:
    # RFC 5681 4.1
    t = TcpTrace()
    connection = t.establish(rtt=0.01, window_scale=7)
    for _ in range(6):
        connection.send(bytes(connection.congestion.cwnd), t.now)
        t.flush()
        t.take()
        t.send(ACK)
    assert connection.congestion.cwnd > 20 * MSS
    t.at(t.now + 10.0)
    connection.send(bytes(50 * MSS), t.now)
    t.flush()
    assert len(t.take()) == 10


# super-segments


def test_a_super_segment_carries_many_segments_under_one_header() -> None:
    t = TcpTrace(max_segment=60_000)
    t.ip.checksum = False
    connection = t.establish(timestamps=True, window_scale=7)
    data = bytes(range(250)) * 58
    connection.send(data, t.now)
    t.flush()
    segment = t.expect(ACK, size=10 * 1448, gso_size=1448)  # the initial window
    assert segment.data == data[:14480]
    t.send(ACK)
    t.expect(ACK, size=20, gso_size=0)
    t.expect_nothing()


def test_a_super_segment_is_a_whole_number_of_segments_unless_it_is_the_tail() -> None:
    t = TcpTrace(max_segment=4000)
    connection = t.establish()
    connection.send(bytes(7000), t.now)
    t.flush()
    t.expect(ACK, size=2 * MSS, gso_size=MSS)
    t.expect(ACK, size=2 * MSS, gso_size=MSS)
    t.expect(ACK | PSH, size=7000 - 4 * MSS, gso_size=0)


def test_part_of_a_super_segment_is_sent_again() -> None:
    t = TcpTrace(max_segment=60_000)
    connection = t.establish(sack=True, rtt=0.1)
    data = bytes(range(250)) * 40
    connection.send(data[: 5 * MSS], t.now)
    t.flush()
    t.expect(ACK, size=5 * MSS, gso_size=MSS)
    t.at(0.2)
    # The second of five is missing.
    t.send(ACK, ack=1 + MSS, sack_blocks=((1 + 2 * MSS, 1 + 5 * MSS),))
    t.at(0.225)  # and not only late
    t.expect(ACK, data[MSS : 2 * MSS], seq=1 + MSS, gso_size=0)
    t.expect_nothing()
    t.send(ACK, ack=1 + 5 * MSS)
    assert connection.board.pieces == []
    assert connection.board.sacked == connection.board.lost == 0


def test_the_room_of_a_pump_is_shared_in_turns() -> None:
    t = TcpTrace()
    one = t.establish(window_scale=7)
    two = t.connect(81)
    t.peer_port = 81
    t.expect(SYN)
    t.send(SYN | ACK, ack=1, mss=1460, window_scale=7)
    t.expect(ACK)
    for connection in (one, two):
        connection.congestion.cwnd = 100 * MSS
        connection.send(bytes(100 * MSS), t.now)
    assert t.tcp.pump(t.now, 20) == 20
    ports = [segment.port for segment in t.take()]
    assert ports == [80] * 8 + [81] * 8 + [80] * 4
