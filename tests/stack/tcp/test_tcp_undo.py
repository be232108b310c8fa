"""Repairs that were not needed: how that is noticed, and taken back."""

from __future__ import annotations

import pytest

from zttrio.header.tcp import ACK, PSH
from zttrio.stack.tcp.tcb import LOSS, OPEN, RECOVERY
from zttrio.testing.trace import TcpTrace

from .tcp_flight import MSS, RTT, at, flight


def test_a_spurious_timeout_is_undone_by_an_ack_of_what_was_sent_once() -> None:
    # F-RTO with SACK (RFC 5682 section 3)
    t = TcpTrace()
    connection = flight(t, 10)
    before = connection.congestion.cwnd
    t.at(t.now + 1.0)
    assert connection.loss_state == LOSS
    t.take()
    # The delay is over; ACKs of the first transmission arrive.
    t.send(ACK, ack=at(3))
    assert connection.loss_state == OPEN
    assert connection.congestion.cwnd >= before
    assert connection.congestion.ssthresh > 100 * MSS
    assert connection.board.lost == 0
    t.expect_nothing()
    t.send(ACK, ack=at(10))
    assert t.counters.tcp_undone == 1


def test_without_sack_f_rto_sends_new_data_to_find_out() -> None:
    # RFC 5682 section 2: the first ACK after the timeout proves nothing.
    t = TcpTrace()
    connection = flight(t, 10, sack=False, more=10 * MSS)
    before = connection.congestion.cwnd
    t.at(t.now + connection.rtt.rto)
    t.expect(ACK, seq=at(0))
    t.send(ACK, ack=at(1))
    assert [segment.seq for segment in t.take()] == [at(10), at(11)]
    t.send(ACK, ack=at(2))
    assert connection.loss_state == OPEN
    assert connection.congestion.cwnd >= before
    assert t.counters.tcp_undone == 1


def test_a_duplicate_after_a_timeout_proves_the_loss() -> None:
    t = TcpTrace()
    connection = flight(t, 10, sack=False, more=10 * MSS)
    t.at(t.now + connection.rtt.rto)
    t.expect(ACK, seq=at(0))
    t.send(ACK, ack=at(1))
    t.take()
    t.send(ACK, ack=at(1))
    assert connection.frto_step == 0
    assert [segment.seq for segment in t.take()][:1] == [at(1)]
    assert connection.loss_state == LOSS
    assert t.counters.tcp_undone == 0


def test_a_timestamp_from_before_the_repair_undoes_it() -> None:
    # RFC 4015: reordering beyond the window looked like a loss.
    t = TcpTrace()
    connection = flight(t, 10, timestamps=True)
    before = connection.congestion.cwnd
    original = t._caller(t.peer_port).echo
    mss = connection.mss
    t.at(t.now + RTT)
    t.send(ACK, ack=1, sack_blocks=((1 + mss, 1 + 5 * mss),))
    assert connection.loss_state == RECOVERY
    assert [segment.seq for segment in t.take()] == [1]
    t.at(t.now + 0.01)
    t.send(ACK, ack=1 + 5 * mss, timestamp=(t.peer_clock(), original))
    assert connection.loss_state == OPEN
    assert connection.congestion.cwnd >= before
    assert t.counters.tcp_undone == 1


def test_where_segments_overtake_a_repair_is_as_old_as_what_it_may_overtake() -> None:
    # Or most peers' PAWS would make losses of those, see `Sender.repair_lag`.
    t = TcpTrace()
    connection = flight(t, 10, timestamps=True)
    connection.is_reordering = True
    mss = connection.mss
    t.at(t.now + RTT)
    t.send(ACK, ack=1, sack_blocks=((1 + mss, 1 + 5 * mss),))
    t.at(t.now + RTT / 4)
    repair = t.expect(ACK, seq=1, size=mss, at=t.now)
    assert repair.header.timestamp is not None
    stamp = repair.header.timestamp[0]
    assert stamp == connection.timestamp(t.now - RTT / 4)
    # The repair arrives: its echo is a round trip's, and no sign that it was needless.
    t.at(t.now + RTT)
    t.send(ACK, ack=1 + 10 * mss, timestamp=(t.peer_clock(), stamp))
    assert connection.loss_state == OPEN
    assert t.counters.tcp_undone == 0
    assert connection.rtt.latest == pytest.approx(RTT)
    # The next new segment has the time of its own.
    connection.send(b"more", t.now)
    t.flush()
    new = t.expect(ACK | PSH, b"more")
    assert new.header.timestamp is not None
    assert new.header.timestamp[0] == connection.timestamp(t.now)


def test_the_original_undoes_such_a_repair_all_the_same() -> None:
    t = TcpTrace()
    connection = flight(t, 10, timestamps=True)
    connection.is_reordering = True
    original = t._caller(t.peer_port).echo
    mss = connection.mss
    t.at(t.now + RTT)
    t.send(ACK, ack=1, sack_blocks=((1 + mss, 1 + 5 * mss),))
    t.at(t.now + RTT / 4)
    t.expect(ACK, seq=1, size=mss)
    t.at(t.now + 0.01)
    t.send(ACK, ack=1 + 5 * mss, timestamp=(t.peer_clock(), original))
    assert connection.loss_state == OPEN
    assert t.counters.tcp_undone == 1


def test_dsacks_for_every_repair_undo_a_recovery() -> None:
    # RFC 3708
    t = TcpTrace()
    connection = flight(t, 10)
    before = connection.congestion.cwnd
    t.at(t.now + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(5)),))
    assert [segment.seq for segment in t.take()] == [at(0)]
    t.send(ACK, ack=at(10))
    assert connection.loss_state == OPEN
    assert connection.congestion.cwnd < before
    t.send(ACK, ack=at(10), sack_blocks=((at(0), at(1)),))
    assert connection.congestion.cwnd >= before
    assert connection.congestion.ssthresh > 100 * MSS
    assert connection.is_reordering  # what looked lost was late: look closer from now on
    t.send(ACK, ack=at(10), sack_blocks=((at(0), at(1)),))  # the network repeats it
    assert t.counters.tcp_undone == 1


def test_a_real_loss_is_not_undone() -> None:
    t = TcpTrace()
    connection = flight(t, 10, timestamps=True)
    mss = connection.mss
    t.at(t.now + RTT)
    t.send(ACK, ack=1, sack_blocks=((1 + mss, 1 + 5 * mss),))
    t.take()
    t.at(t.now + RTT)
    t.send(ACK, ack=1 + 10 * mss)
    assert connection.loss_state == OPEN
    assert t.counters.tcp_undone == 0
    assert connection.congestion.ssthresh < 10 * mss
