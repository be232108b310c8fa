"""Receiving: when ACKs go out, what they say, and what the window promises."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from zttrio.config import Config
from zttrio.header.tcp import ACK, FIN, SYN
from zttrio.stack.events import RD
from zttrio.stack.tcp.options import TcpOptions
from zttrio.testing.trace import TcpTrace

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection

MSS = 1460


def _slow(t: TcpTrace, *, options: TcpOptions | None = None) -> TcpConnection:
    """A connection behind its quick start."""
    connection = t.establish(options=options or TcpOptions())
    connection.quick_acks = 0
    connection.rcv_mss = MSS
    return connection


def test_data_is_delivered_in_order_and_once() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.wanted = RD
    for start, data in ((7, b"world"), (1, b"hel"), (4, b"lo "), (1, b"hello world")):
        t.send(ACK, data, seq=start)
    assert [endpoint.ready for endpoint in t.events.take()] == [RD]
    assert connection.receive(4, t.now) == b"hell"
    assert connection.receive(100, t.now) == b"o world"
    assert connection.receive(100, t.now) is None


def test_receive_into_fills_a_buffer() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"hello world")
    buffer = bytearray(8)
    assert connection.receive_into(buffer, t.now) == 8
    assert buffer == b"hello wo"
    assert connection.receive_into(buffer, t.now) == 3
    assert connection.receive_into(buffer, t.now) is None
    t.send(FIN | ACK)
    assert connection.receive_into(buffer, t.now) == 0


def test_peeking_takes_nothing() -> None:
    t = TcpTrace()
    connection = t.establish()
    assert connection.peek(5, t.now) is None
    t.send(ACK, b"hello")
    t.send(ACK, b"x" * 2000)
    assert connection.peek(3, t.now) == b"hel"
    assert connection.peek(7, t.now) == b"helloxx"
    assert connection.receive(5, t.now) == b"hello"
    assert connection.peek(5000, t.now) == b"x" * 2000


def test_the_first_segments_are_acknowledged_at_once() -> None:
    t = TcpTrace()
    t.establish()
    for number in range(16):
        t.send(ACK, b"x")
        t.expect(ACK, ack=2 + number)
    t.send(ACK, b"x")
    t.expect_nothing()


def test_an_ack_is_delayed_by_40_milliseconds() -> None:
    t = TcpTrace()
    _slow(t)
    t.at(1.0)
    t.send(ACK, b"hello")
    t.at(1.039)
    t.expect_nothing()
    t.at(1.1)
    t.expect(ACK, b"", ack=6, at=1.04)
    t.expect_nothing()


def test_more_data_does_not_move_a_delayed_ack() -> None:
    t = TcpTrace()
    _slow(t)
    t.at(1.0)
    t.send(ACK, b"hello")
    t.at(1.03)
    t.send(ACK, b"world")
    t.at(1.1)
    t.expect(ACK, ack=11, at=1.04)
    t.expect_nothing()


def test_every_second_full_segment_is_acknowledged() -> None:
    t = TcpTrace()
    _slow(t)
    for number in range(1, 7):
        t.send(ACK, bytes(MSS))
        if number % 2:
            t.expect_nothing()
        else:
            t.expect(ACK, ack=1 + number * MSS)


def test_at_the_start_every_second_full_segment_of_a_burst_is_acknowledged() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.quick_acks = 4
    connection.rcv_mss = MSS
    with t.burst():
        for _ in range(7):
            t.send(ACK, bytes(MSS))
    assert [segment.ack for segment in t.take()] == [1 + n * MSS for n in (2, 4, 6, 7)]


def test_later_every_eighth_full_segment_of_a_burst_is_acknowledged_and_its_end() -> None:
    t = TcpTrace()
    _slow(t)
    with t.burst():
        for _ in range(19):
            t.send(ACK, bytes(MSS))
    assert [segment.ack for segment in t.take()] == [1 + n * MSS for n in (8, 16, 19)]


def test_the_small_tail_of_a_full_segment_counts_as_a_second() -> None:
    t = TcpTrace()
    _slow(t)
    with t.burst():
        t.send(ACK, bytes(MSS))
        t.send(ACK, b"tail")
    t.expect(ACK, ack=5 + MSS, at=0.0)


def test_a_single_full_segment_behind_the_start_waits_for_a_second() -> None:
    t = TcpTrace()
    _slow(t)
    t.send(ACK, bytes(MSS))
    t.at(1.0)
    t.expect(ACK, ack=1 + MSS, at=0.04)


def test_small_segments_of_one_burst_share_an_ack() -> None:
    t = TcpTrace()
    t.establish()
    with t.burst():
        for _ in range(20):
            t.send(ACK, b"x" * 10)
    t.expect(ACK, ack=201)
    t.expect_nothing()


def test_a_super_segment_is_acknowledged_once() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, bytes(20 * MSS), gso_size=MSS)
    t.expect(ACK, ack=1 + 20 * MSS)
    t.expect_nothing()
    assert connection.rcv_mss == MSS


def test_later_four_super_segments_of_a_burst_share_an_ack() -> None:
    t = TcpTrace()
    connection = _slow(t)
    connection.rcv_buffer = 4 << 20
    connection.rcv_adv += 10 * 20 * MSS
    with t.burst():
        for _ in range(10):
            t.send(ACK, bytes(20 * MSS), gso_size=MSS)
    assert [segment.ack for segment in t.take()] == [1 + n * 20 * MSS for n in (4, 8, 10)]


def test_super_segments_that_fill_an_eighth_of_the_buffer_wait_for_one_more_at_most() -> None:
    t = TcpTrace()
    connection = _slow(t)
    connection.rcv_buffer = 8 * 20 * MSS
    connection.rcv_adv += 3 * 20 * MSS
    with t.burst():
        for _ in range(3):
            t.send(ACK, bytes(20 * MSS), gso_size=MSS)
    assert [segment.ack for segment in t.take()] == [1 + n * 20 * MSS for n in (2, 3)]


def test_a_burst_that_a_reader_waits_for_is_acknowledged_when_it_is_read() -> None:
    t = TcpTrace()
    connection = _slow(t)
    connection.wanted = RD
    with t.burst():
        for _ in range(10):
            t.send(ACK, bytes(MSS))
    t.expect_nothing()
    assert connection.receive(100, t.now) == bytes(100)  # even if that is not all of it
    t.flush()
    t.expect(ACK, ack=1 + 10 * MSS)
    assert connection.receive(1 << 20, t.now) == bytes(10 * MSS - 100)
    t.flush()
    t.expect_nothing()


def test_a_reader_that_does_not_come_delays_one_ack_and_not_the_next() -> None:
    t = TcpTrace()
    connection = _slow(t)
    connection.wanted = RD
    with t.burst():
        for _ in range(2):
            t.send(ACK, bytes(MSS))
    t.expect_nothing()
    t.at(t.now + connection.layer.config.delayed_ack)
    t.expect(ACK, ack=1 + 2 * MSS)
    [endpoint] = t.events.take()
    endpoint.ready = 0
    with t.burst():
        for _ in range(2):
            t.send(ACK, bytes(MSS))
    t.expect(ACK, ack=1 + 4 * MSS)


def test_half_a_buffer_is_acknowledged_even_if_its_reader_is_about_to_run() -> None:
    t = TcpTrace()
    connection = _slow(t)
    connection.rcv_buffer = 8 * MSS
    connection.wanted = RD
    with t.burst():
        for _ in range(7):
            t.send(ACK, bytes(MSS))
    t.expect(ACK, ack=1 + 4 * MSS)
    t.expect_nothing()


def test_the_receive_buffer_grows_where_time_stands_still() -> None:
    t = TcpTrace()
    connection = _slow(t)
    before = connection.rcv_buffer
    for _ in range(3):
        with t.burst():
            for _ in range(before // MSS // 2):
                t.send(ACK, bytes(MSS))
        connection.receive(before, t.now)
    t.take()
    assert connection.rcv_buffer > before


def test_quick_ack_never_delays() -> None:
    t = TcpTrace()
    _slow(t, options=TcpOptions(quick_ack=True))
    for number in range(5):
        t.send(ACK, b"x")
        t.expect(ACK, ack=2 + number)


def test_an_answer_carries_the_ack() -> None:
    t = TcpTrace()
    connection = _slow(t)
    t.at(1.0)
    t.send(ACK, b"ping")
    t.at(1.01)
    connection.send(b"pong", t.now)
    t.flush()
    t.expect(ACK, b"pong", ack=5)
    t.at(2.0)
    assert all(segment.data == b"pong" for segment in t.take())  # only repeats of the answer


def test_who_answers_requests_delays_acks_even_at_the_start() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"request")
    t.expect(ACK, ack=8)
    connection.send(b"answer", t.now)
    t.flush()
    t.expect(ACK, b"answer")
    t.send(ACK, b"request")
    t.expect_nothing()
    connection.send(b"answer", t.now)
    t.flush()
    t.expect(ACK, b"answer", ack=15)


def test_a_gap_is_reported_at_once_for_each_segment_behind_it() -> None:
    t = TcpTrace()
    _slow(t)
    with t.burst():
        for number in range(1, 4):
            t.send(ACK, bytes(MSS), seq=1 + number * MSS)
    for _ in range(3):
        t.expect(ACK, b"", ack=1)
    t.expect_nothing()


def test_filling_a_gap_is_acknowledged_at_once() -> None:
    t = TcpTrace()
    _slow(t)
    t.send(ACK, b"world", seq=6)
    t.expect(ACK, ack=1)
    t.send(ACK, b"hello", seq=1)
    t.expect(ACK, ack=11)


# SACK


def test_sack_names_the_newest_block_first() -> None:
    t = TcpTrace()
    t.establish(sack=True)
    t.send(ACK, b"b", seq=11)
    t.expect(ACK, ack=1, sack_blocks=((11, 12),))
    t.send(ACK, b"d", seq=31)
    t.expect(ACK, ack=1, sack_blocks=((31, 32), (11, 12)))
    t.send(ACK, b"c", seq=21)
    t.expect(ACK, ack=1, sack_blocks=((21, 22), (31, 32), (11, 12)))
    t.send(ACK, b"c", seq=12)
    t.expect(ACK, ack=1, sack_blocks=((11, 13), (21, 22), (31, 32)))
    t.send(ACK, b"0123456789", seq=1)
    t.expect(ACK, ack=13, sack_blocks=((21, 22), (31, 32)))


def test_four_blocks_fit_without_timestamps_and_three_with_them() -> None:
    for timestamps, blocks in ((False, 4), (True, 3)):
        t = TcpTrace()
        t.establish(sack=True, timestamps=timestamps)
        for number in range(1, 8):
            t.send(ACK, b"x", seq=1 + 10 * number)
        last = t.take()[-1]
        assert len(last.sack_blocks) == blocks
        assert last.sack_blocks[0] == (71, 72)


def test_no_blocks_are_sent_to_a_peer_that_did_not_ask() -> None:
    t = TcpTrace()
    t.establish()
    t.send(ACK, b"x", seq=10)
    assert t.expect(ACK, ack=1).sack_blocks == ()


def test_what_arrives_twice_is_reported_once_as_a_duplicate() -> None:
    # RFC 2883
    t = TcpTrace()
    t.establish(sack=True)
    t.send(ACK, b"hello")
    t.take()
    t.send(ACK, b"hello", seq=1)
    t.expect(ACK, ack=6, sack_blocks=((1, 6),))
    t.send(ACK, b"lo world", seq=4)
    t.expect(ACK, ack=12, sack_blocks=((4, 6),))
    t.send(ACK, b"ahead", seq=20)
    t.expect(ACK, ack=12, sack_blocks=((20, 25),))
    t.send(ACK, b"ahead", seq=20)
    t.expect(ACK, ack=12, sack_blocks=((20, 25), (20, 25)))


def test_data_that_was_acknowledged_selectively_cannot_be_changed() -> None:
    t = TcpTrace()
    connection = t.establish(sack=True)
    t.send(ACK, b"right", seq=6)
    t.send(ACK, b"helloWRONG", seq=1)
    assert connection.receive(100, t.now) == b"helloright"


# the window


def test_the_window_shrinks_by_what_is_not_read() -> None:
    t = TcpTrace(config=Config(receive_buffer=10_000))
    connection = t.establish()
    t.send(ACK, bytes(3000))
    t.expect(ACK, ack=3001, window=7000)
    t.send(ACK, bytes(3000))
    t.expect(ACK, ack=6001, window=4000)
    assert connection.receive_queued == 6000


def test_the_window_closes_and_what_comes_then_is_not_taken() -> None:
    t = TcpTrace(config=Config(receive_buffer=4000))
    connection = t.establish()
    t.send(ACK, bytes(4000))
    t.expect(ACK, ack=4001, window=0)
    t.send(ACK, b"x", seq=4001)
    t.expect(ACK, ack=4001, window=0)
    assert connection.receive_queued == 4000


def test_an_ack_on_a_segment_that_finds_the_window_closed_still_counts() -> None:
    t = TcpTrace(config=Config(receive_buffer=4000))
    connection = t.establish()
    connection.send(b"hello", t.now)
    t.flush()
    t.expect(ACK, b"hello")
    t.send(ACK, bytes(4000), ack=1)
    t.expect(ACK, window=0)
    t.send(ACK, b"probe", seq=4001, ack=6)
    assert connection.snd_una == connection.snd_nxt
    t.expect(ACK, ack=4001, window=0)


def test_a_probe_of_a_closed_window_is_answered() -> None:
    t = TcpTrace(config=Config(receive_buffer=4000))
    t.establish()
    t.send(ACK, bytes(4000))
    t.expect(ACK, window=0)
    for number in range(3):
        t.at(1.0 + number)
        t.send(ACK, seq=4000)  # as we and Linux probe
        t.expect(ACK, ack=4001, window=0)


def test_reading_half_of_the_buffer_opens_the_window() -> None:
    t = TcpTrace(config=Config(receive_buffer=4000))
    connection = t.establish()
    t.send(ACK, bytes(4000))
    t.expect(ACK, window=0)
    connection.receive(1000, t.now)
    t.expect_nothing()  # not worth a segment yet (RFC 9293 3.8.6.2.2)
    connection.receive(1000, t.now)
    t.expect(ACK, ack=4001, window=2000)
    connection.receive(1000, t.now)
    t.expect_nothing()


def test_reading_does_not_announce_what_the_peer_does_not_need_to_know() -> None:
    t = TcpTrace()
    connection = t.establish(window_scale=7)
    t.send(ACK, bytes(20_000))
    t.take()
    connection.receive(20_000, t.now)
    t.expect_nothing()


def test_the_right_edge_never_moves_back() -> None:
    t = TcpTrace(config=Config(receive_buffer=1 << 20))
    connection = t.establish(window_scale=7)
    edges = []
    for _ in range(20):
        t.send(ACK, bytes(777))
        edges += [segment.ack + (segment.window << connection.rcv_scale) for segment in t.take()]
    # Rounding to the scale may take back less than one unit of it (RFC 7323 2.4).
    unit = 1 << connection.rcv_scale
    assert all(later > before - unit for before, later in itertools.pairwise(edges))


def test_a_fin_is_taken_although_the_window_is_closed() -> None:
    t = TcpTrace(config=Config(receive_buffer=4000))
    connection = t.establish()
    t.send(ACK, bytes(4000))
    t.expect(ACK, window=0)
    t.send(FIN | ACK)
    t.expect(ACK, ack=4002)
    assert len(connection.receive(5000, t.now) or b"") == 4000
    assert connection.receive(10, t.now) == b""


def test_small_receive_buffers_are_announced_as_they_are() -> None:
    t = TcpTrace()
    t.connect(options=TcpOptions(receive_buffer=5000))
    t.expect(SYN, window=5000)


def test_out_of_order_pieces_are_bounded(monkeypatch: object) -> None:
    del monkeypatch
    t = TcpTrace(config=Config(receive_buffer=1 << 20))
    connection = t.establish(window_scale=7, sack=True)
    for number in range(5000):
        t.send(ACK, b"x", seq=3 + 2 * number)
    t.take()
    queue = connection.receive_queue
    assert queue is not None
    assert queue.ahead == 4096
    assert t.counters.tcp_out_of_order_dropped == 5000 - 4096
