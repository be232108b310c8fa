"""Losses: how they are noticed, repaired and paced; `test_tcp_undo` takes them back."""

from __future__ import annotations

import errno
import itertools

import pytest

from zttrio.config import Config
from zttrio.header.tcp import ACK, FIN
from zttrio.stack.tcp.options import TcpOptions
from zttrio.stack.tcp.state import CLOSED, ESTABLISHED
from zttrio.stack.tcp.tcb import LOSS, OPEN, RECOVERY
from zttrio.testing.trace import TcpTrace

from .tcp_flight import MSS, RTT, at, flight

# the retransmission timer


def test_lost_data_is_sent_again_after_the_timeout_with_back_off() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=RTT)
    assert connection.rtt.rto == pytest.approx(RTT + 4 * RTT / 2)  # RFC 6298 2.2
    connection.send(b"hello", t.now)
    t.flush()
    start = t.expect(ACK, b"hello").time
    wait = connection.rtt.rto
    for _ in range(4):
        start += wait
        t.at(start - 0.0001)
        t.expect_nothing()
        t.at(start)
        t.expect(ACK, b"hello", seq=1, at=start)
        wait *= 2
    t.send(ACK)
    assert connection.board.pieces == []
    t.at(1000.0)
    t.expect_nothing()


def test_back_off_stops_at_rto_max() -> None:
    t = TcpTrace(config=Config(rto_max=2.0, retries=8))
    connection = t.establish(rtt=RTT)
    connection.send(b"hello", t.now)
    t.flush()
    t.at(100.0)
    times = [segment.time for segment in t.take()]
    gaps = [later - before for before, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([0.3, 0.6, 1.2, 2.0, 2.0, 2.0, 2.0, 2.0])


def test_data_that_nobody_acknowledges_ends_the_connection() -> None:
    t = TcpTrace(config=Config(retries=3))
    connection = t.establish(rtt=RTT)
    connection.send(b"hello", t.now)
    t.flush()
    t.at(100.0)
    assert len(t.take()) == 4  # and no reset: nobody is there
    assert connection.state == CLOSED
    with pytest.raises(TimeoutError, match="no answer"):
        connection.receive(1, t.now)
    with pytest.raises(BrokenPipeError):
        connection.send(b"x", t.now)


def test_an_ack_starts_the_timer_again() -> None:
    t = TcpTrace()
    connection = flight(t, 2, sack=False)
    start = t.now
    t.at(start + 0.2)
    t.send(ACK, ack=at(1))
    rto = connection.rtt.rto
    t.at(start + 0.2 + rto)
    t.expect(ACK, seq=at(1), at=start + 0.2 + rto)


def test_samples_follow_rfc_6298() -> None:
    t = TcpTrace(config=Config(rto_min=0.001))
    connection = t.establish(rtt=0.1)
    assert (connection.rtt.srtt, connection.rtt.rttvar) == pytest.approx((0.1, 0.05))
    connection.send(b"x", t.now)
    t.flush()
    t.at(t.now + 0.2)
    t.take()
    t.send(ACK, ack=2)
    assert connection.rtt.rttvar == pytest.approx(0.75 * 0.05 + 0.25 * 0.1)
    assert connection.rtt.srtt == pytest.approx(0.875 * 0.1 + 0.125 * 0.2)
    assert connection.rtt.rto == pytest.approx(connection.rtt.srtt + 4 * connection.rtt.rttvar)


def test_the_timeout_is_never_below_its_floor() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.0001)
    for _ in range(50):
        connection.send(b"x", t.now)
        t.flush()
        t.take()
        t.at(t.now + 0.0001)
        t.send(ACK)
    assert connection.rtt.rto == pytest.approx(0.2001, abs=1e-4)


def test_no_sample_is_taken_from_what_was_sent_twice() -> None:
    # Karn's algorithm
    t = TcpTrace()
    connection = t.establish(rtt=RTT)
    connection.send(b"x", t.now)
    t.flush()
    t.at(t.now + connection.rtt.rto)
    assert len(t.take()) == 2
    before = connection.rtt.srtt
    t.at(t.now + 0.01)
    t.send(ACK)
    assert connection.rtt.srtt == before
    assert connection.rtt.backoff == 1  # until a sample says otherwise


def test_with_timestamps_what_was_sent_twice_gives_a_sample() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=RTT, timestamps=True)
    connection.send(b"x", t.now)
    t.flush()
    t.at(t.now + connection.rtt.rto)
    assert len(t.take()) == 2
    t.at(t.now + 0.15)
    t.send(ACK)
    assert connection.rtt.latest == pytest.approx(0.15)
    assert connection.rtt.backoff == 0


def test_after_a_timeout_one_segment_goes_out_and_slow_start_begins() -> None:
    t = TcpTrace()
    connection = flight(t, 8, sack=False)
    t.at(t.now + connection.rtt.rto)
    t.expect(ACK, seq=at(0), size=MSS)
    t.expect_nothing()
    assert connection.loss_state == LOSS
    assert connection.congestion.cwnd == MSS
    assert connection.congestion.ssthresh in (4 * MSS, int(8 * MSS * 0.7))
    t.send(ACK, ack=at(1))
    assert [segment.seq for segment in t.take()] == [at(1), at(2)]
    t.send(ACK, ack=at(3))
    assert [segment.seq for segment in t.take()] == [at(3), at(4), at(5), at(6)]
    t.send(ACK, ack=at(8))
    assert connection.loss_state == OPEN


def test_a_second_timeout_leaves_ssthresh_alone() -> None:
    t = TcpTrace()
    connection = flight(t, 8, sack=False)
    t.at(t.now + connection.rtt.rto)
    ssthresh = connection.congestion.ssthresh
    t.at(t.now + 2 * connection.rtt.rto)
    assert connection.retries == 2
    assert connection.congestion.ssthresh == ssthresh
    assert connection.congestion.cwnd == MSS


def test_a_peer_that_reneges_is_believed_no_longer_after_a_timeout() -> None:
    # RFC 2018 section 8: SACKed data may be thrown away until it is acknowledged.
    t = TcpTrace()
    connection = flight(t, 4)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(4)),))
    t.take()
    t.send(ACK, ack=at(1))  # and yet only the first: the rest was dropped
    assert connection.board.sacked == 3 * MSS
    t.at(t.now + 1.0)
    assert t.counters.tcp_reneged == 1
    sent = {segment.seq for segment in t.take()}
    assert at(1) in sent
    for number in range(2, 5):
        t.send(ACK, ack=at(number))
        t.take()
    assert connection.board.pieces == []


# fast retransmit without SACK


def test_the_third_duplicate_ack_repairs_without_sack() -> None:
    t = TcpTrace(config=Config(congestion="newreno"))
    connection = flight(t, 10, sack=False)
    t.at(t.now + RTT)
    for _ in range(2):
        t.send(ACK, ack=at(0))
        t.expect_nothing()
    t.send(ACK, ack=at(0))
    t.expect(ACK, seq=at(0), size=MSS)
    assert connection.loss_state == RECOVERY
    assert connection.congestion.ssthresh == 5 * MSS
    t.send(ACK, ack=at(10))
    assert connection.loss_state == OPEN
    assert connection.congestion.cwnd == 5 * MSS


def test_limited_transmit_answers_the_first_two_duplicates_with_new_data() -> None:
    # RFC 3042
    t = TcpTrace()
    flight(t, 10, sack=False, more=5 * MSS)
    t.at(t.now + RTT)
    for number in range(2):
        t.send(ACK, ack=at(0))
        t.expect(ACK, seq=at(10 + number), size=MSS)


def test_a_partial_ack_repairs_the_next_hole() -> None:
    # RFC 6582 3.2
    t = TcpTrace(config=Config(congestion="newreno"))
    connection = flight(t, 10, sack=False)
    t.at(t.now + RTT)
    for _ in range(8):  # the first and the fifth are missing
        t.send(ACK, ack=at(0))
    t.expect(ACK, seq=at(0))
    t.expect_nothing()
    t.at(t.now + RTT)
    t.send(ACK, ack=at(4))
    t.expect(ACK, seq=at(4), size=MSS)
    assert connection.loss_state == RECOVERY
    t.at(t.now + RTT)
    t.send(ACK, ack=at(10))
    assert connection.loss_state == OPEN
    assert connection.congestion.cwnd == 5 * MSS
    assert t.counters.tcp_recoveries == 1
    assert t.counters.tcp_timeouts == 0


def test_duplicates_from_an_earlier_recovery_start_no_new_one() -> None:
    t = TcpTrace()
    connection = flight(t, 8, sack=False)
    t.at(t.now + connection.rtt.rto)
    t.take()
    t.send(ACK, ack=at(8))
    connection.send(bytes(4 * MSS), t.now)
    t.flush()
    t.take()
    for _ in range(5):
        t.send(ACK, ack=at(8))
    assert connection.loss_state == OPEN
    t.expect_nothing()


def test_acks_with_data_or_another_window_are_no_duplicates() -> None:
    t = TcpTrace()
    connection = flight(t, 8, sack=False)
    for number in range(4):
        t.send(ACK, b"data", ack=at(0))
        t.send(ACK, ack=at(0), window=1000 + number)
    assert connection.dupacks == 0
    assert connection.loss_state == OPEN


# RACK


def test_three_segments_sacked_behind_a_hole_repair_it_at_once() -> None:
    t = TcpTrace()
    connection = flight(t, 10)
    t.at(t.now + RTT)
    for number in (2, 3):
        t.send(ACK, ack=at(0), sack_blocks=((at(1), at(number)),))
        t.expect_nothing()
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(4)),))
    t.expect(ACK, seq=at(0), size=MSS, at=t.now)
    t.expect_nothing()
    assert connection.loss_state == RECOVERY
    assert connection.recover == connection.snd_nxt


def test_the_first_hole_ever_gets_a_quarter_round_trip_in_case_it_is_only_late() -> None:
    t = TcpTrace()
    connection = flight(t, 20)
    connection.recover = 0  # as in a connection that has never repaired anything
    start = t.now
    t.at(start + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(9)),))
    t.expect_nothing()
    t.at(start + RTT + RTT / 4)
    t.expect(ACK, seq=at(0), at=start + RTT + RTT / 4)
    assert connection.loss_state == RECOVERY
    # The path loses, then, and does not reorder: whatever else is missing is sent again at once.
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(9)), (at(10), at(13))))
    t.expect(ACK, seq=at(9), at=t.now)


def test_what_was_only_late_is_not_sent_again_though_a_whole_window_has_overtaken_it() -> None:
    t = TcpTrace()
    connection = flight(t, 20)
    connection.recover = 0
    start = t.now
    t.at(start + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(20)),))
    t.at(start + RTT + RTT / 4 - 0.001)
    t.send(ACK, ack=at(20))
    t.at(start + 10.0)
    t.expect_nothing()
    assert connection.is_reordering
    assert t.counters.tcp_recoveries == 0


def test_what_arrives_before_it_could_be_sent_again_was_not_lost() -> None:
    # The ACK of the late segment comes in one burst with those that made it look lost.
    t = TcpTrace()
    connection = flight(t, 10)
    before = connection.congestion.cwnd
    t.at(t.now + RTT)
    with t.burst():
        t.send(ACK, ack=at(0), sack_blocks=((at(1), at(5)),))
        assert connection.loss_state == RECOVERY
        t.send(ACK, ack=at(5))
    t.expect_nothing()
    assert connection.loss_state == OPEN
    assert connection.congestion.cwnd >= before
    assert connection.congestion.ssthresh > 100 * MSS
    assert t.counters.tcp_undone == 1
    assert connection.is_reordering


def test_one_segment_sacked_behind_a_hole_repairs_it_after_a_quarter_round_trip() -> None:
    t = TcpTrace()
    connection = flight(t, 2)
    start = t.now
    t.at(start + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(2)),))
    t.expect_nothing()
    t.at(start + 3 * RTT)
    t.expect(ACK, seq=at(0), at=start + RTT + RTT / 4)
    t.expect_nothing()
    assert connection.loss_state == RECOVERY
    t.expect_nothing()


def test_reordering_within_a_quarter_round_trip_repairs_nothing() -> None:
    t = TcpTrace()
    connection = flight(t, 2)
    start = t.now
    t.at(start + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(2)),))
    t.at(start + RTT + RTT / 4 - 0.001)
    t.send(ACK, ack=at(2))
    t.at(start + 10.0)
    t.expect_nothing()
    assert connection.is_reordering
    assert t.counters.tcp_retransmits == 0


def test_once_reordering_was_seen_three_segments_are_no_longer_enough() -> None:
    t = TcpTrace()
    connection = flight(t, 10)
    start = t.now
    t.at(start + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(2)),))
    t.send(ACK, ack=at(2))
    assert connection.is_reordering
    t.send(ACK, ack=at(2), sack_blocks=((at(3), at(8)),))
    t.expect_nothing()
    t.at(start + RTT + RTT / 4)
    t.expect(ACK, seq=at(2), at=start + RTT + RTT / 4)


def test_several_holes_are_repaired_in_one_round_trip() -> None:
    t = TcpTrace()
    connection = flight(t, 20)
    t.at(t.now + RTT)
    t.send(
        ACK,
        ack=at(0),
        sack_blocks=((at(1), at(5)), (at(7), at(12)), (at(13), at(20))),
    )
    first = t.take()
    assert [segment.seq for segment in first[:1]] == [at(0)]
    sent = {segment.seq for segment in first}
    for number in (5, 6, 12):
        t.at(t.now + 0.001)
        t.send(ACK, ack=at(1), sack_blocks=((at(1), at(5)), (at(7), at(12)), (at(13), at(20))))
        sent |= {segment.seq for segment in t.take()}
        assert number
    assert sent == {at(0), at(5), at(6), at(12)}
    t.at(t.now + RTT)
    t.send(ACK, ack=at(20))
    assert connection.loss_state == OPEN
    assert t.counters.tcp_retransmits == 4


def test_a_lost_repair_is_noticed_and_repaired_without_a_timeout() -> None:
    t = TcpTrace()
    connection = flight(t, 10, more=20 * MSS)
    t.at(t.now + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(4)),))
    repair = t.take()
    assert repair[0].seq == at(0)
    t.at(t.now + 0.01)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(9)),))
    new = t.take()
    assert new
    assert all(segment.seq >= at(10) for segment in new)
    # The new data arrives and the repair does not.
    t.at(t.now + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(11)),))
    again = t.take()
    assert again[0].seq == at(0)
    assert t.counters.tcp_timeouts == 0
    assert connection.loss_state == RECOVERY


def test_a_dsack_makes_the_reordering_window_wider() -> None:
    # RFC 8985 6.2 step 4
    t = TcpTrace()
    connection = flight(t, 10)
    t.at(t.now + RTT)
    t.send(ACK, ack=at(0), sack_blocks=((at(1), at(5)),))
    t.take()
    t.send(ACK, ack=at(10), sack_blocks=((at(0), at(1)),))
    assert connection.reorder_mult == 2
    connection.is_reordering = True
    assert connection.reorder_window() == pytest.approx(RTT / 2)


# pacing of repairs


def test_the_window_shrinks_with_what_is_delivered_and_ends_at_ssthresh() -> None:
    # RFC 6937: one segment out for each two in, with NewReno's half.
    t = TcpTrace(config=Config(congestion="newreno"))
    connection = flight(t, 20, more=60 * MSS)
    t.at(t.now + RTT)
    sent = 0
    for number in range(2, 21):
        t.send(ACK, ack=at(0), sack_blocks=((at(1), at(number)),))
        sent += len(t.take())
    # Limited transmit sent two before the loss was sure.
    assert 8 <= sent - 2 <= 10
    t.at(t.now + RTT)
    t.send(ACK, ack=at(20))
    assert connection.congestion.ssthresh == pytest.approx(10 * MSS, abs=MSS)
    t.send(ACK, ack=at(20 + sent - 1))
    assert connection.loss_state == OPEN


# tail loss probes


def test_a_lost_tail_is_found_by_a_probe_and_repaired_without_a_timeout() -> None:
    t = TcpTrace()
    connection = flight(t, 5)
    start = t.now
    t.at(start + RTT)
    t.send(ACK, ack=at(2))
    # Three are left, all lost.  Two round trips later the last is sent again.
    wait = 2 * connection.rtt.srtt
    t.at(start + RTT + wait)
    t.expect(ACK, seq=at(4), size=MSS, at=start + RTT + wait)
    t.expect_nothing()
    t.at(t.now + RTT)
    t.send(ACK, ack=at(2), sack_blocks=((at(4), at(5)),))
    sent = [segment.seq for segment in t.take()]
    t.at(t.now + RTT)
    t.send(ACK, ack=at(3), sack_blocks=((at(4), at(5)),))
    sent += [segment.seq for segment in t.take()]
    assert sent == [at(2), at(3)]
    t.send(ACK, ack=at(5))
    assert connection.loss_state == OPEN
    assert t.counters.tcp_timeouts == 0
    assert t.counters.tcp_tail_probes == 1


def test_a_probe_that_arrived_out_of_order_counts_although_the_echo_is_older() -> None:
    # RFC 7323 4.3: what is echoed is still the timestamp of the last segment in order.
    t = TcpTrace()
    connection = flight(t, 5, timestamps=True)
    mss = connection.mss
    original = t._caller(t.peer_port).echo
    t.at(t.now + RTT)
    t.send(ACK, ack=1 + 2 * mss)
    t.at(t.now + 2 * connection.rtt.srtt)
    t.expect(ACK, seq=1 + 4 * mss, size=mss)
    t.at(t.now + RTT)
    arrived = (1 + 4 * mss, 1 + 5 * mss)
    t.send(ACK, ack=1 + 2 * mss, sack_blocks=(arrived,), timestamp=(t.peer_clock(), original))
    assert [segment.seq for segment in t.take()] == [1 + 2 * mss, 1 + 3 * mss]
    assert t.counters.tcp_timeouts == 0


def test_a_probe_carries_new_data_if_there_is_any() -> None:
    t = TcpTrace()
    flight(t, 2, more=MSS)
    t.at(t.now + 0.2)
    t.expect(ACK, seq=at(2), size=MSS)


def test_the_ack_of_a_single_segment_gets_more_time() -> None:
    # RFC 8985 7.2: it may be delayed.
    t = TcpTrace(config=Config(rto_min=1.0))
    connection = flight(t, 1)
    start = t.now
    t.at(start + 2 * RTT + 0.2)
    t.expect(ACK, seq=at(0), at=start + 2 * connection.rtt.srtt + 0.2)


def test_a_probe_takes_the_place_of_an_earlier_timeout() -> None:
    t = TcpTrace()
    connection = flight(t, 1)
    start = t.now
    rto = connection.rtt.rto
    assert rto < 2 * RTT + 0.2
    t.at(start + rto)
    t.expect(ACK, seq=at(0), at=start + rto)
    assert connection.loss_state == OPEN
    assert t.counters.tcp_tail_probes == 1
    t.at(start + 2 * rto)
    t.expect(ACK, seq=at(0), at=start + 2 * rto)
    assert connection.loss_state == LOSS


def test_a_probe_that_repaired_a_loss_is_paid_for() -> None:
    # RFC 8985 7.4.2: the loss was a sign of congestion, although nobody noticed.
    t = TcpTrace(config=Config(congestion="newreno"))
    connection = flight(t, 4)
    t.at(t.now + 2 * RTT)
    t.expect(ACK, seq=at(3))
    connection.send(bytes(MSS), t.now)
    t.send(ACK, ack=at(4))
    t.flush()
    t.take()
    assert connection.congestion.ssthresh > 100 * MSS
    t.send(ACK, ack=at(5))
    assert connection.congestion.ssthresh == 2 * MSS


def test_a_needless_probe_costs_nothing() -> None:
    t = TcpTrace()
    connection = flight(t, 4)
    t.at(t.now + 2 * RTT)
    t.expect(ACK, seq=at(3))
    t.send(ACK, ack=at(4), sack_blocks=((at(3), at(4)),))
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.take()
    t.send(ACK, ack=at(5))
    assert connection.congestion.ssthresh > 100 * MSS


def test_a_probe_repeats_a_lost_fin() -> None:
    t = TcpTrace()
    connection = flight(t, 2)
    connection.shutdown_write(t.now)
    t.flush()
    t.expect(FIN | ACK, b"")
    t.at(t.now + 0.5)
    assert t.take()[0].flags & FIN


def test_without_sack_there_are_no_probes() -> None:
    t = TcpTrace()
    connection = flight(t, 5, sack=False)
    start = t.now
    t.at(start + connection.rtt.rto)
    t.expect(ACK, seq=at(0), at=start + connection.rtt.rto)
    assert t.counters.tcp_tail_probes == 0


# nonsense from the peer


def test_sack_blocks_that_cannot_be_true_are_counted() -> None:
    t = TcpTrace()
    connection = flight(t, 4)
    for block in ((at(3), at(90)), (at(2), at(1)), (at(1), at(1)), (-(2**30), at(2))):
        t.send(ACK, ack=at(0), sack_blocks=(block,))
    assert connection.board.sacked == 0
    assert t.counters.tcp_bad_sack == 3


def test_the_user_timeout_ends_a_silent_connection_to_the_second() -> None:
    # RFC 5482, TCP_USER_TIMEOUT
    t = TcpTrace()
    connection = t.establish(rtt=RTT, options=TcpOptions(user_timeout=5.0))
    t.at(10.0)
    connection.send(b"hello", t.now)
    t.flush()
    t.at(14.999)
    assert connection.state == ESTABLISHED
    t.at(15.0)
    assert connection.state == CLOSED
    assert connection.error == errno.ETIMEDOUT


def test_the_user_timeout_holds_for_closed_windows_too() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=RTT, options=TcpOptions(user_timeout=5.0))
    t.send(ACK, window=0)
    connection.send(b"hello", t.now)
    t.flush()
    start = t.now
    while connection.state == ESTABLISHED:
        due = t.timers.next_timer()
        assert due is not None
        t.at(due)
        for _ in t.take():
            t.send(ACK, window=0)
    assert t.now == pytest.approx(start + 5.0)
