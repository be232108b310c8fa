"""Closing: every transition behind ESTABLISHED, TIME_WAIT, and connections nobody holds."""

from __future__ import annotations

import errno

import pytest

from zttrio.config import Config
from zttrio.header.tcp import ACK, FIN, RST, SYN
from zttrio.stack.events import CLOSE, ERR, RD, WR
from zttrio.stack.tcp.options import TcpOptions
from zttrio.stack.tcp.state import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    TIME_WAIT,
)
from zttrio.stack.tcp.timewait import TimeWait
from zttrio.testing.trace import TcpTrace


def test_the_side_that_closes_first_goes_through_both_fin_waits_to_time_wait() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.shutdown_write(t.now)
    t.flush()
    assert connection.state == FIN_WAIT_1
    t.expect(FIN | ACK, b"", seq=1, ack=1)
    t.send(ACK)
    assert connection.state == FIN_WAIT_2
    t.expect_nothing()
    t.send(ACK, b"late words")
    t.send(FIN | ACK)
    assert connection.state == TIME_WAIT
    assert t.take()[-1].ack == 12
    assert connection.receive(100, t.now) == b"late words"
    assert connection.receive(100, t.now) == b""
    assert isinstance(next(iter(t.tcp.table.values())), TimeWait)
    t.at(59.999)
    assert connection.state == TIME_WAIT
    t.at(60.0)
    assert connection.state == CLOSED
    assert t.tcp.table == {}
    assert len(t.tcp._ports) == 0
    t.expect_nothing()


def test_the_side_that_closes_second_goes_through_close_wait_and_last_ack() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.wanted = RD
    t.send(FIN | ACK)
    assert connection.state == CLOSE_WAIT
    t.expect(ACK, b"", seq=1, ack=2)
    assert [endpoint.ready for endpoint in t.events.take()] == [RD]
    assert connection.receive(10, t.now) == b""
    assert connection.send(b"more", t.now) == 4
    t.flush()
    t.expect(ACK, b"more", seq=1)
    t.send(ACK)
    connection.close(t.now)
    t.flush()
    assert connection.state == LAST_ACK
    t.expect(FIN | ACK, seq=5, ack=2)
    t.send(ACK)
    assert connection.state == CLOSED
    assert connection.error == 0
    assert t.tcp.table == {}
    t.expect_nothing()


def test_fins_that_cross_go_through_closing_to_time_wait() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.close(t.now)
    t.flush()
    t.expect(FIN | ACK, seq=1)
    t.send(FIN | ACK, ack=1)
    assert connection.state == CLOSING
    t.expect(ACK, seq=2, ack=2)
    t.send(ACK, ack=2)
    assert connection.state == TIME_WAIT
    t.expect_nothing()


def test_a_fin_that_acknowledges_ours_goes_straight_to_time_wait() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.wanted = CLOSE
    connection.shutdown_write(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(FIN | ACK, ack=2)
    assert connection.state == TIME_WAIT
    t.expect(ACK, seq=2, ack=2)
    assert [endpoint.ready for endpoint in t.events.take()] == [CLOSE]


def test_a_fin_goes_with_the_last_data() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.send(b"x" * 1460 + b"tail", t.now)
    connection.shutdown_write(t.now)
    t.flush()
    t.expect(ACK, b"x" * 1460, seq=1)
    t.expect(FIN | ACK, b"tail", seq=1461)
    t.expect_nothing()


def test_nothing_can_be_sent_after_shutdown() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.shutdown_write(t.now)
    with pytest.raises(BrokenPipeError, match="cannot send"):
        connection.send(b"x", t.now)
    connection.shutdown_write(t.now)  # twice is as good as once
    t.flush()
    t.expect(FIN | ACK)
    t.expect_nothing()


def test_a_lost_fin_is_sent_again() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.shutdown_write(t.now)
    t.flush()
    first = t.expect(FIN | ACK, seq=1)
    rto = connection.rtt.timeout()
    t.at(first.time + rto)
    t.expect(FIN | ACK, seq=1, at=first.time + rto)
    t.send(ACK, ack=2)
    assert connection.state == FIN_WAIT_2


def test_a_fin_ahead_of_missing_data_waits_for_it() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(FIN | ACK, b"world", seq=6)
    t.expect(ACK, ack=1)
    assert connection.state == ESTABLISHED
    t.send(ACK, b"hello", seq=1)
    t.expect(ACK, ack=12)
    assert connection.state == CLOSE_WAIT
    assert connection.receive(100, t.now) == b"helloworld"
    assert connection.receive(100, t.now) == b""


def test_data_behind_a_fin_is_ignored() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(FIN | ACK, seq=5)
    t.take()
    t.send(ACK, b"goodbye!", seq=1)
    t.expect(ACK, ack=6)
    assert connection.receive(100, t.now) == b"good"
    assert connection.receive(100, t.now) == b""
    assert t.counters.tcp_beyond_fin == 1
    t.send(ACK, b"still here", seq=6)
    assert connection.receive(100, t.now) == b""


def test_a_repeated_fin_is_acknowledged_in_close_wait() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(FIN | ACK)
    t.expect(ACK, ack=2)
    t.send(FIN | ACK, seq=1)
    t.expect(ACK, ack=2)
    assert connection.state == CLOSE_WAIT


# TIME_WAIT


def _time_wait(t: TcpTrace, *, timestamps: bool = False, orphan: bool = True) -> None:
    connection = t.establish(timestamps=timestamps)
    connection.shutdown_write(t.now)
    t.flush()
    t.expect(FIN | ACK, seq=1)
    t.send(FIN | ACK, ack=2)
    t.expect(ACK, seq=2, ack=2)
    if orphan:
        connection.close(t.now)
    assert connection.state == TIME_WAIT


def test_time_wait_answers_the_fin_again_and_starts_over() -> None:
    t = TcpTrace()
    _time_wait(t)
    t.at(30.0)
    t.send(FIN | ACK, seq=1, ack=2)
    t.expect(ACK, b"", seq=2, ack=2, at=30.0)
    t.at(60.0)
    assert len(t.tcp.table) == 1
    t.at(90.0)
    assert t.tcp.table == {}


def test_time_wait_keeps_the_port() -> None:
    t = TcpTrace()
    binding = t.tcp.bind(t.local, 5000)
    connection = t.tcp.connect((t.remote, 80), t.now, binding=binding)
    t.port, t.peer_port = 5000, 80
    t.expect(SYN)
    t.send(SYN | ACK, ack=1)
    t.expect(ACK)
    connection.close(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(FIN | ACK, ack=2)
    with pytest.raises(OSError, match="taken"):
        t.tcp.bind(t.local, 5000)
    t.at(60.0)
    t.tcp.bind(t.local, 5000)


def test_time_wait_ends_with_an_exact_reset_only() -> None:
    t = TcpTrace()
    _time_wait(t)
    t.send(RST, seq=50)
    assert len(t.tcp.table) == 1
    assert t.counters.tcp_resets_ignored == 1
    t.send(RST, seq=2)
    assert t.tcp.table == {}
    t.expect_nothing()


def test_time_wait_answers_old_segments_but_not_in_a_storm() -> None:
    t = TcpTrace()
    _time_wait(t)
    for _ in range(5):
        t.send(ACK, b"old", seq=-100, ack=1)
    t.expect(ACK, seq=2, ack=2)
    t.expect_nothing()
    t.send(ACK, seq=2, ack=2)
    t.expect_nothing()


def test_a_syn_beyond_the_old_numbers_starts_over() -> None:
    # RFC 9293 3.6.1 and RFC 6191, without timestamps: the sequence number decides.
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN, mss=1460)
    old = t.expect(SYN | ACK)
    t.send(ACK)
    connection = listener.accept(t.now)
    assert connection is not None
    connection.close(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(FIN | ACK)
    t.expect(ACK)
    assert connection.state == TIME_WAIT
    t.send(SYN, seq=1)  # an old number
    t.expect(ACK, ack=2)
    t.send(SYN, seq=5000)
    answer = t.expect(SYN | ACK, ack=5001)
    assert (answer.header.seq - old.header.seq - 2) & 0xFFFFFFFF < 0x8000_0000
    assert t.counters.tcp_time_wait_reused == 1
    t.seq = 5001
    t.send(ACK)
    assert listener.is_readable


def test_with_timestamps_a_newer_syn_starts_over_whatever_its_number() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN, mss=1460, timestamp=(1000, 0))
    t.expect(SYN | ACK)
    t.timestamps = True
    t.send(ACK)
    connection = listener.accept(t.now)
    assert connection is not None
    connection.close(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(FIN | ACK)
    t.expect(ACK)
    t.at(2.0)
    t.send(SYN, seq=-900, timestamp=(1, 0))
    t.expect(ACK, ack=2)
    t.send(SYN, seq=-900, timestamp=(t.peer_clock(), 0))
    t.expect(SYN | ACK, ack=-899)


def test_our_own_next_connection_may_take_the_place_of_a_time_wait_with_timestamps() -> None:
    t = TcpTrace(config=Config(ephemeral_ports=(40000, 40000)))
    _time_wait(t, timestamps=True)
    with pytest.raises(OSError, match="40000"):
        t.tcp.connect((t.remote, 80), t.now)
    t.at(1.5)
    connection = t.tcp.connect((t.remote, 80), t.now)
    assert connection.local[1] == 40000
    assert t.counters.tcp_time_wait_reused == 1
    assert len(t.tcp.table) == 1
    t.expect(SYN)


def test_without_timestamps_a_time_wait_keeps_its_place() -> None:
    t = TcpTrace(config=Config(ephemeral_ports=(40000, 40000)))
    _time_wait(t)
    t.at(30.0)
    with pytest.raises(OSError, match="taken"):
        t.tcp.connect((t.remote, 80), t.now)
    assert t.tcp.connect((t.remote, 81), t.now).local[1] == 40000


def test_the_oldest_time_wait_makes_room() -> None:
    t = TcpTrace(config=Config(time_wait_limit=2))
    for port in (5001, 5002, 5003):
        binding = t.tcp.bind(t.local, port)
        connection = t.tcp.connect((t.remote, port), t.now, binding=binding)
        t.port = t.peer_port = port
        t.expect(SYN)
        t.send(SYN | ACK, ack=1)
        t.expect(ACK)
        connection.close(t.now)
        t.flush()
        t.expect(FIN | ACK)
        t.send(FIN | ACK, ack=2)
        t.expect(ACK)
    assert [entry.local[1] for entry in t.tcp.time_waits()] == [5002, 5003]
    assert t.counters.tcp_time_wait_evicted == 1
    t.tcp.bind(t.local, 5001)


# connections nobody holds


def test_closing_with_unread_data_resets() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"unread")
    t.take()
    connection.close(t.now)
    t.flush()
    t.expect(RST | ACK, b"", seq=1, ack=7)
    t.expect_nothing()
    assert connection.state == CLOSED
    assert t.tcp.table == {}
    assert t.counters.tcp_aborts_unread == 1


def test_data_for_a_closed_program_is_reset() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.close(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(ACK)
    assert connection.state == FIN_WAIT_2
    t.send(ACK, b"anybody there?")
    t.expect(RST | ACK, seq=2)
    assert t.tcp.table == {}
    assert t.counters.tcp_after_close == 1


def test_a_half_closed_program_still_receives() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.shutdown_write(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(ACK)
    t.send(ACK, b"answer")
    assert connection.receive(100, t.now) == b"answer"
    assert connection.state == FIN_WAIT_2
    t.at(3600.0)
    assert connection.state == FIN_WAIT_2  # as long as somebody holds it


def test_an_orphan_does_not_wait_for_ever_in_fin_wait_2() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.close(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.at(10.0)
    t.take()
    t.send(ACK)
    assert connection.state == FIN_WAIT_2
    t.at(69.999)
    assert len(t.tcp.table) == 1
    t.at(70.0)
    assert t.tcp.table == {}
    assert connection.state == CLOSED
    t.expect_nothing()
    t.send(FIN | ACK)
    t.expect(RST)


def test_a_connection_closed_in_fin_wait_2_gets_the_same_time_limit() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.shutdown_write(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(ACK)
    t.at(100.0)
    connection.close(t.now)
    t.at(160.0)
    assert t.tcp.table == {}


def test_an_orphan_gives_up_sooner() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.send(b"x", t.now)
    connection.close(t.now)
    t.flush()
    t.at(1000.0)
    assert len(t.take()) == 9  # the first, and eight more
    assert t.tcp.table == {}
    assert connection.error == 0  # there is nobody to tell


def test_the_number_of_orphans_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zttrio.stack.tcp.layer.ORPHAN_LIMIT", 1)
    t = TcpTrace()
    t.establish().close(t.now)
    t.flush()
    t.expect(FIN | ACK)
    second = t.connect(81)
    t.expect(SYN)
    t.send(SYN | ACK, ack=1)
    t.expect(ACK)
    second.close(t.now)
    t.flush()
    t.expect(RST | ACK)
    assert second.state == CLOSED
    assert t.counters.tcp_orphans_dropped == 1


def test_abort_sends_a_reset_and_forgets() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.wanted = RD | WR | ERR | CLOSE
    connection.send(b"never", t.now)
    connection.abort(t.now)
    t.flush()
    t.expect(RST | ACK, b"", seq=1, ack=1)
    t.expect_nothing()
    assert t.tcp.table == {}
    assert [endpoint.ready for endpoint in t.events.take()] == [RD | WR | ERR | CLOSE]


def test_linger_zero_makes_close_an_abort() -> None:
    t = TcpTrace()
    connection = t.establish(options=TcpOptions(linger=0.0))
    connection.send(b"never", t.now)
    connection.close(t.now)
    t.flush()
    t.expect(RST | ACK)
    t.expect_nothing()


def test_leaving_resets_every_connection_and_forgets_everything() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.listen(81)
    t.send(SYN, port=999)
    t.expect(SYN | ACK)
    t.tcp.abort_all(t.now)
    t.expect(RST | ACK)
    t.expect_nothing()
    assert connection.error == errno.ECONNABORTED
    assert t.tcp.table == {}
    assert list(t.tcp.listeners()) == []
    assert len(t.tcp._ports) == 0


def test_unfinished_is_what_has_not_ended_in_both_directions() -> None:
    t = TcpTrace()
    connection = t.establish()
    assert t.tcp.has_unfinished()
    connection.close(t.now)
    t.flush()
    t.expect(FIN | ACK)
    t.send(ACK)
    assert t.tcp.has_unfinished()
    t.send(FIN | ACK)
    assert not t.tcp.has_unfinished()


def test_what_arrives_after_shutdown_of_reading_is_acknowledged_and_thrown_away() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"before")
    connection.shutdown_read(t.now)
    t.take()
    t.send(ACK, b"after")
    assert connection.receive(100, t.now) in (b"before", b"")
    t.at(1.0)
    assert t.take()[-1].ack == 12
    assert connection.receive(100, t.now) == b""
    assert connection.send(b"still", t.now) == 5
