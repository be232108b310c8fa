"""What the network says, and does not say: ICMP errors, path MTUs, black holes, marks."""

from __future__ import annotations

import errno

import pytest

from zttrio.config import Config
from zttrio.header.tcp import ACK, CWR, ECE, SYN
from zttrio.stack.packet import PathError
from zttrio.stack.tcp.state import CLOSED, ESTABLISHED, SYN_SENT
from zttrio.testing.trace import TcpTrace

from .tcp_pair import Pipe, exchange

MSS = 1460


# ICMP errors


@pytest.mark.parametrize(
    "code", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES]
)
def test_an_error_about_our_syn_ends_the_attempt(code: int) -> None:
    # RFC 5461 section 4
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.lose(0, code)
    assert connection.state == CLOSED
    assert connection.take_error() == code


def test_an_error_about_another_number_is_no_error_about_us() -> None:
    # RFC 5927 section 4.1
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.lose(5000, errno.ECONNREFUSED)
    t.lose(-1, errno.ECONNREFUSED)
    assert connection.state == SYN_SENT
    assert t.counters.tcp_errors_refused == 2


def test_no_error_ends_an_established_connection_but_the_last_is_remembered() -> None:
    # RFC 1122 4.2.3.9 and RFC 5927 5.2
    t = TcpTrace(config=Config(retries=2))
    connection = t.establish(rtt=0.1)
    connection.send(b"hello", t.now)
    t.flush()
    t.expect(ACK, b"hello")
    t.lose(1, errno.ECONNREFUSED, is_hard=True)
    t.lose(1, errno.EHOSTUNREACH)
    assert connection.state == ESTABLISHED
    assert connection.error == 0
    t.at(100.0)
    assert connection.state == CLOSED
    assert connection.take_error() == errno.EHOSTUNREACH  # says more than ETIMEDOUT


def test_progress_forgets_a_soft_error() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.send(b"hello", t.now)
    t.flush()
    t.expect(ACK)
    t.lose(1, errno.EHOSTUNREACH)
    t.send(ACK)
    assert connection.soft_error == 0


def test_errors_about_nothing_of_ours_are_counted() -> None:
    t = TcpTrace()
    t.listen()
    t.lose(0, errno.EHOSTUNREACH)
    t.tcp.receive_error(PathError(t.local, t.remote, 6, b"\0\x50\0", errno.EHOSTUNREACH), t.now)
    assert t.counters.tcp_errors_unmatched == 2


def test_an_error_about_a_syn_ack_is_left_to_its_own_retries() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN)
    t.expect(SYN | ACK)
    t.lose(0, errno.EHOSTUNREACH)
    assert len(listener.requests) == 1


# path MTU


def test_a_report_of_a_smaller_mtu_cuts_segments_and_sends_them_again_at_once() -> None:
    t = TcpTrace()
    connection = t.establish()
    data = bytes(range(250)) * 20
    connection.send(data[: 2 * MSS], t.now)
    t.flush()
    assert len(t.take()) == 2
    cwnd = connection.congestion.cwnd
    t.lose(1, errno.EMSGSIZE, mtu=1000)
    t.expect(ACK, data[:960], seq=1)
    t.expect(ACK, data[960:1920], seq=961)
    t.expect(ACK, data[1920:2880], seq=1921)
    t.expect(ACK, data[2880:2920], seq=2881)
    t.expect_nothing()
    assert connection.mss == 960
    assert connection.congestion.cwnd == cwnd  # no sign of congestion


def test_a_report_about_what_is_not_in_flight_changes_nothing() -> None:
    # RFC 5927 section 7: the blind performance-degrading attack.
    t = TcpTrace()
    connection = t.establish()
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.expect(ACK)
    t.lose(99_999, errno.EMSGSIZE, mtu=600)
    assert connection.mss == MSS
    assert t.ip.mtu == 1500
    assert t.counters.tcp_errors_refused == 1


def test_our_own_ip_layer_may_find_a_segment_too_long() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.take()
    t.ip.mtu = 1200
    t.lose(1, errno.EMSGSIZE, mtu=1200, reported=False)
    t.expect(ACK, seq=1, size=1160)
    t.expect(ACK, seq=1161, size=300)
    assert connection.mss == 1160


def test_a_larger_mtu_is_no_news() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.take()
    t.lose(1, errno.EMSGSIZE, mtu=9000)
    t.expect_nothing()
    assert connection.mss == MSS


# black holes (RFC 4821, RFC 8899)


def test_where_large_segments_vanish_smaller_ones_are_tried_after_three_timeouts() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.send(bytes(3 * MSS), t.now)
    t.flush()
    t.take()
    t.at(t.now + 0.3 + 0.6)
    assert [len(segment.data) for segment in t.take()] == [MSS] * 2
    t.at(t.now + 1.2)
    t.expect(ACK, seq=1, size=1160)  # a packet of 1200 octets
    assert t.counters.tcp_black_holes == 1
    t.at(t.now + 2.4)
    t.expect(ACK, seq=1, size=536)
    t.at(t.now + 4.8)
    t.expect(ACK, seq=1, size=536)
    t.send(ACK)
    assert connection.state == ESTABLISHED


def test_small_segments_that_vanish_are_no_black_hole() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.send(bytes(500), t.now)
    t.flush()
    t.at(100.0)
    assert connection.mss == MSS
    assert t.counters.tcp_black_holes == 0


def test_a_black_hole_does_not_hang_a_connection_and_its_edge_is_found() -> None:
    pipe = Pipe(3, delay=0.02, hole=1300, rate=2e6)
    exchange(pipe, bytes(1_000_000), b"")
    assert pipe.a.counters.tcp_black_holes == 1
    assert pipe.a.counters.tcp_mtu_probes >= 3
    assert pipe.now < 30


def test_the_size_that_works_is_found_between_the_two_that_are_known() -> None:
    pipe = Pipe(3, delay=0.02, hole=1300, rate=2e6)
    client, server = pipe.connect()
    unsent = 1_000_000

    def done() -> bool:
        nonlocal unsent
        unsent -= client.send(bytes(min(unsent, 65536)), pipe.now) if unsent else 0
        server.receive(1 << 20, pipe.now)
        return not unsent and not client.send_queued

    pipe.run(done)
    assert 1300 - 32 <= client.mss <= 1300
    assert pipe.a.counters.tcp_timeouts < 8


def test_probing_can_be_turned_off() -> None:
    t = TcpTrace(config=Config(mtu_probing=False))
    connection = t.establish(rtt=0.1)
    connection.send(bytes(MSS), t.now)
    t.flush()
    t.at(100.0)
    assert {len(segment.data) for segment in t.take()} == {MSS}


# explicit congestion notification (RFC 3168)


def _ecn(t: TcpTrace) -> None:
    t.expect(SYN | ECE | CWR)
    t.send(SYN | ACK | ECE, ack=1, mss=MSS, window_scale=7)
    t.expect(ACK)


def test_ecn_is_asked_for_and_granted() -> None:
    t = TcpTrace(config=Config(ecn="request"))
    connection = t.connect()
    _ecn(t)
    assert connection.ecn_ok
    other = TcpTrace()
    listener = other.listen()
    other.send(SYN | ECE | CWR)
    assert other.expect(SYN | ACK | ECE).traffic_class == 0  # RFC 3168 6.1.1: no ECT on SYNs
    other.send(ACK)
    accepted = listener.accept(other.now)
    assert accepted is not None
    assert accepted.ecn_ok


@pytest.mark.parametrize("flags", [0, ECE | CWR])
def test_ecn_is_not_used_with_a_peer_that_does_not_agree(flags: int) -> None:
    t = TcpTrace(config=Config(ecn="request"))
    connection = t.connect()
    t.expect(SYN | ECE | CWR)
    t.send(SYN | ACK | flags, ack=1)
    assert not connection.ecn_ok


def test_ecn_can_be_refused() -> None:
    t = TcpTrace(config=Config(ecn="off"))
    t.listen()
    t.send(SYN | ECE | CWR)
    t.expect(SYN | ACK)


def test_a_second_syn_does_not_ask_for_ecn() -> None:
    # RFC 3168 6.1.1.1: something may drop SYNs that do.
    t = TcpTrace(config=Config(ecn="request"))
    t.connect()
    t.expect(SYN | ECE | CWR)
    t.at(1.0)
    t.expect(SYN)


def test_new_data_says_that_it_may_be_marked_and_nothing_else_does() -> None:
    t = TcpTrace(config=Config(ecn="request"))
    connection = t.connect()
    _ecn(t)
    connection.send(b"data", t.now)
    t.flush()
    assert t.expect(ACK, b"data").traffic_class == 2
    t.at(5.0)
    repeats = t.take()
    assert repeats
    assert {segment.traffic_class for segment in repeats} == {0}
    t.send(ACK, b"data")
    assert {segment.traffic_class for segment in t.take()} == {0}


def test_a_mark_is_echoed_until_the_peer_says_that_it_has_slowed_down() -> None:
    t = TcpTrace(config=Config(ecn="request"))
    t.connect()
    _ecn(t)
    t.send(ACK, b"a", traffic_class=2)
    t.expect(ACK, ack=2)
    t.send(ACK, b"b", traffic_class=3)
    t.expect(ACK | ECE, ack=3)
    t.send(ACK, b"c", traffic_class=2)
    t.expect(ACK | ECE, ack=4)
    t.send(ACK | CWR, b"d", traffic_class=2)
    t.expect(ACK, ack=5)


def test_an_echo_slows_down_once_for_each_round_trip_and_is_answered() -> None:
    t = TcpTrace(config=Config(ecn="request", congestion="newreno"))
    connection = t.connect()
    _ecn(t)
    t.send(ACK)
    connection.send(bytes(30 * MSS), t.now)
    t.flush()
    assert len(t.take()) == 10
    t.send(ACK | ECE, ack=1 + 2 * MSS)
    assert connection.congestion.cwnd == connection.congestion.ssthresh == 5 * MSS
    for number in range(3, 6):
        t.send(ACK | ECE, ack=1 + number * MSS)
    assert connection.congestion.cwnd == 5 * MSS
    assert t.take() == []
    t.send(ACK, ack=1 + 7 * MSS)
    first, second = t.take()
    assert first.flags & CWR
    assert not second.flags & CWR
    assert t.counters.tcp_marks_in == 1
    assert t.counters.tcp_retransmits == 0
