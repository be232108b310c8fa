"""Opening: RFC 9293 3.5 and 3.10.7.2 to 3.10.7.4, and what happens when nobody answers."""

from __future__ import annotations

import errno

import pytest

from zttrio.config import Config
from zttrio.header.tcp import ACK, FIN, RST, SYN
from zttrio.stack.events import CONN, ERR, WR
from zttrio.stack.tcp.congestion import initial_window
from zttrio.stack.tcp.options import TcpOptions
from zttrio.stack.tcp.state import (
    CLOSED,
    ESTABLISHED,
    FIN_WAIT_1,
    SYN_RECEIVED,
    SYN_SENT,
)
from zttrio.testing.trace import TcpTrace


def test_an_active_open_sends_a_syn_with_every_option_we_know() -> None:
    t = TcpTrace()
    connection = t.connect()
    syn = t.expect(SYN, b"", seq=0, mss=1460, window=0xFFFF, at=0.0)
    assert syn.header.window_scale == 7  # 65535 << 7 is the first to hold 4 MiB
    assert syn.header.sack_permitted
    assert syn.header.timestamp is not None
    assert syn.header.timestamp[1] == 0
    t.expect_nothing()
    assert connection.state == SYN_SENT


def test_mss_is_what_the_wire_takes_without_headers_in_both_families() -> None:
    for family, mtu, mss in ((4, 1500, 1460), (6, 1500, 1440), (4, 65520, 65480), (6, 2800, 2740)):
        t = TcpTrace(family=family, mtu=mtu)
        t.connect()
        t.expect(SYN, mss=mss)


def test_an_active_open_is_established_by_syn_ack_and_acknowledges_at_once() -> None:
    t = TcpTrace()
    connection = t.connect()
    connection.wanted = CONN | WR
    t.expect(SYN)
    t.at(0.2)
    t.send(SYN | ACK, ack=1, mss=1000)
    t.expect(ACK, b"", seq=1, ack=1, at=0.2)
    t.expect_nothing()
    assert connection.state == ESTABLISHED
    assert [endpoint.ready for endpoint in t.events.take()] == [CONN | WR]
    assert connection.mss == 1000
    assert connection.rtt.srtt == pytest.approx(0.2)
    assert t.ip.confirmed == 1


def test_a_lost_syn_is_sent_again_after_one_second_and_then_after_twice_as_long_each_time() -> None:
    t = TcpTrace()
    connection = t.connect()
    first = t.expect(SYN, at=0.0)
    for when in (1, 3, 7, 15, 31, 63):
        t.at(when)
        again = t.expect(SYN, at=when)
        assert again.header.seq == first.header.seq
    t.at(126.9)
    t.expect_nothing()
    assert connection.state == SYN_SENT


def test_silence_is_reported_as_a_timeout_after_127_seconds() -> None:
    t = TcpTrace()
    connection = t.connect()
    connection.wanted = ERR
    t.at(126.999)
    assert connection.state == SYN_SENT
    t.at(127.0)
    assert connection.state == CLOSED
    assert connection.error == errno.ETIMEDOUT
    assert [endpoint.ready for endpoint in t.events.take()] == [ERR]
    assert t.tcp.table == {}
    assert t.counters.tcp_failed_opens == 1


def test_a_reset_refuses_an_active_open() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(RST | ACK, ack=1)
    assert connection.state == CLOSED
    assert connection.take_error() == errno.ECONNREFUSED
    assert connection.take_error() == 0
    assert len(t.tcp._ports) == 0
    t.expect_nothing()


@pytest.mark.parametrize("ack", [0, 2, 1000])
def test_a_reset_that_does_not_acknowledge_our_syn_is_ignored(ack: int) -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(RST | ACK, ack=ack)
    t.send(RST)
    assert connection.state == SYN_SENT
    assert t.counters.tcp_resets_ignored == 2
    t.expect_nothing()


def test_a_syn_ack_that_acknowledges_something_else_is_reset() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(SYN | ACK, seq=0, ack=77)
    t.expect(RST, b"", seq=77)
    t.expect(SYN, seq=0)
    t.expect_nothing()
    assert connection.state == SYN_SENT


def test_a_peer_that_remembers_an_older_connection_is_reset_and_called_again_at_once() -> None:
    # RFC 9293 3.5.1, figure 9: it is synchronized, or in TIME_WAIT, and has dropped our SYN.
    t = TcpTrace()
    connection = t.connect()
    first = t.expect(SYN, at=0.0)
    t.at(0.05)
    t.send(ACK, seq=5000, ack=77)
    t.expect(RST, b"", seq=77, at=0.05)
    again = t.expect(SYN, b"", seq=0, at=0.05)
    assert again.header.seq == first.header.seq
    assert again.header.mss == first.header.mss
    assert t.counters.tcp_retransmits == 1
    t.at(0.1)
    t.send(SYN | ACK, seq=0, ack=1)
    t.expect(ACK, seq=1, ack=1, at=0.1)
    assert connection.state == ESTABLISHED
    assert connection.retries == 0
    assert connection.congestion.cwnd == initial_window(connection.mss)  # nothing was lost
    t.at(10.0)
    t.expect_nothing()


def test_a_syn_that_went_out_again_at_once_measures_no_round_trip_without_timestamps() -> None:
    t = TcpTrace()  # Karn's algorithm: the answer may be to either SYN
    connection = t.connect()
    t.at(0.4)
    t.send(ACK, seq=5000, ack=77)
    t.at(0.5)
    t.send(SYN | ACK, seq=0, ack=1)
    assert connection.state == ESTABLISHED
    assert connection.rtt.srtt == 0.0
    assert connection.rtt.rto == 1.0


def test_a_syn_that_went_out_again_at_once_measures_the_round_trip_with_timestamps() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.at(0.4)
    t.send(ACK, seq=5000, ack=77)
    t.expect(RST)
    stamp = t.expect(SYN).header.timestamp
    assert stamp is not None
    t.at(0.5)
    t.send(SYN | ACK, seq=0, ack=1, timestamp=(1, stamp[0]))
    assert connection.state == ESTABLISHED
    assert connection.rtt.srtt == pytest.approx(0.1)


def test_a_peer_that_no_reset_reaches_is_called_twice_for_each_timeout_and_no_more() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN, at=0.0)
    when = 0.0
    for wait in (1, 2, 4, 8, 16, 32, 64):
        for number in range(5):
            t.at(when + 0.01 * (number + 1))
            t.send(ACK, seq=5000, ack=77)
            t.expect(RST)
            if number == 0:
                t.expect(SYN, seq=0)
            t.expect_nothing()
        when += 0.01 + wait  # the peer answers, so its time runs from the second SYN on
        t.at(when - 0.001)
        t.expect_nothing()
        assert connection.state == SYN_SENT
        t.at(when)
        if wait < 64:
            t.expect(SYN, seq=0, at=when)
    assert connection.state == CLOSED
    assert connection.error == errno.ETIMEDOUT
    t.expect_nothing()


def test_an_ack_without_syn_does_not_open() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(ACK, ack=1)
    assert connection.state == SYN_SENT
    t.expect_nothing()


def test_data_and_fin_on_a_syn_ack_are_received() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(SYN | ACK | FIN, b"hello", ack=1)
    t.expect(ACK, ack=7)
    assert connection.receive(100, t.now) == b"hello"
    assert connection.receive(100, t.now) == b""


def test_both_sides_may_call_at_once() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.at(0.1)
    t.send(SYN, mss=1460, window_scale=3)
    assert connection.state == SYN_RECEIVED
    answer = t.expect(SYN | ACK, seq=0, ack=1, mss=1460)
    assert answer.header.window_scale == 7
    assert not answer.header.sack_permitted
    assert answer.header.timestamp is None
    t.send(SYN | ACK, seq=0, ack=1)
    assert connection.state == ESTABLISHED
    t.expect(ACK, seq=1, ack=1)
    t.expect_nothing()


def test_both_sides_may_call_at_once_and_finish_with_a_bare_ack() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(SYN)
    t.expect(SYN | ACK, ack=1)
    t.send(ACK, b"x", ack=1)
    assert connection.state == ESTABLISHED
    assert connection.receive(10, t.now) == b"x"


def test_in_a_simultaneous_open_a_lost_answer_is_sent_again() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(SYN)
    t.expect(SYN | ACK)
    t.at(1.0)
    t.expect(SYN | ACK, seq=0, ack=1, at=1.0)
    t.send(SYN, seq=0)
    t.expect(SYN | ACK)
    t.send(RST, seq=1)
    assert connection.state == CLOSED
    assert connection.error == errno.ECONNREFUSED


def test_a_wrong_ack_in_a_simultaneous_open_is_reset() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(SYN)
    t.expect(SYN | ACK)
    t.send(ACK, ack=99)
    t.expect(RST, seq=99)
    assert connection.state == SYN_RECEIVED


def test_a_passive_open_answers_with_what_the_caller_understands() -> None:
    t = TcpTrace()
    listener = t.listen()
    listener.wanted = CONN
    t.send(SYN, mss=1460)
    answer = t.expect(SYN | ACK, seq=0, ack=1, mss=1460, window=0xFFFF)
    assert answer.header.window_scale is None
    assert not answer.header.sack_permitted
    assert answer.header.timestamp is None
    assert listener.accept(t.now) is None
    assert t.events.take() == []
    t.send(ACK, ack=1)
    assert [endpoint.ready for endpoint in t.events.take()] == [CONN]
    connection = listener.accept(t.now)
    assert connection is not None
    assert connection.state == ESTABLISHED
    assert connection.local == (t.local, 80)
    assert connection.remote == (t.remote, 40000)
    assert connection.rcv_buffer == 0xFFFF  # no scale, so no more can be offered
    t.expect_nothing()


def test_a_passive_open_takes_up_every_option() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN, mss=1400, window_scale=9, sack_permitted=True, timestamp=(1234, 0))
    answer = t.expect(SYN | ACK)
    assert answer.header.window_scale == 7
    assert answer.header.sack_permitted
    assert answer.header.timestamp is not None
    assert answer.header.timestamp[1] == 1234
    t.timestamps = True
    t.send(ACK, ack=1, window=100)
    connection = listener.accept(t.now)
    assert connection is not None
    assert connection.sack_ok
    assert connection.ts_ok
    assert connection.snd_wnd == 100 << 9
    assert connection.mss == 1400 - 12


def test_without_an_mss_option_segments_are_small() -> None:
    for family, mss in ((4, 536), (6, 1220)):
        t = TcpTrace(family=family)
        connection = t.establish(passive=True, mss=None)
        assert connection.mss == mss


def test_a_window_scale_above_14_counts_as_14() -> None:
    t = TcpTrace()
    connection = t.establish(window_scale=200)
    assert connection.snd_scale == 14


def test_a_tiny_mss_is_not_believed() -> None:
    t = TcpTrace()
    connection = t.establish(mss=1)
    assert connection.mss == 48


def test_data_with_the_last_ack_of_the_handshake_is_received() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN)
    t.expect(SYN | ACK)
    t.send(ACK | FIN, b"request", ack=1)
    connection = listener.accept(t.now)
    assert connection is not None
    assert connection.receive(100, t.now) == b"request"
    assert connection.receive(100, t.now) == b""
    t.expect(ACK, ack=9)


def test_a_lost_syn_ack_is_sent_again_until_nobody_can_be_there() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN)
    t.expect(SYN | ACK, at=0.0)
    for when in (1, 3, 7, 15, 31):
        t.at(when)
        t.expect(SYN | ACK, seq=0, ack=1, at=when)
    t.at(62.999)
    assert len(listener.requests) == 1
    t.at(63.0)
    assert listener.requests == {}
    assert t.tcp.table == {}
    t.expect_nothing()


def test_a_repeated_syn_is_answered_again() -> None:
    t = TcpTrace()
    t.listen()
    t.send(SYN)
    first = t.expect(SYN | ACK)
    t.send(SYN, seq=0)
    again = t.expect(SYN | ACK)
    assert again.header.seq == first.header.seq


def test_a_reset_removes_a_half_open_connection() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN)
    t.expect(SYN | ACK)
    t.send(RST, seq=5)  # not the number: asked back
    t.expect(ACK, seq=1, ack=1)
    assert len(listener.requests) == 1
    t.send(RST, seq=1)
    assert listener.requests == {}
    t.expect_nothing()


def test_a_wrong_ack_of_our_syn_is_reset_and_the_handshake_stays() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN)
    t.expect(SYN | ACK)
    t.send(ACK, ack=5)
    t.expect(RST, seq=5)
    assert len(listener.requests) == 1
    t.send(ACK, ack=1)
    assert listener.is_readable


def test_an_old_duplicate_syn_does_not_connect() -> None:
    # RFC 9293 3.5 figure 9: the answer to an old SYN is reset by its supposed sender.
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN, seq=-500)
    t.expect(SYN | ACK, ack=-499)
    t.send(RST, seq=-499)
    assert listener.requests == {}
    t.send(SYN, seq=0)
    t.expect(SYN | ACK, ack=1)
    t.send(ACK, ack=1)
    assert listener.is_readable


def test_nobody_listens_there() -> None:
    t = TcpTrace()
    t.port, t.peer_port = 81, 40000
    t.send(SYN)
    t.expect(RST | ACK, b"", seq=0, ack=1)
    t.send(SYN | FIN, b"abc", seq=100)
    t.expect(RST | ACK, ack=105)
    t.send(ACK, b"xyz", seq=200, ack=300)
    t.expect(RST, seq=300)
    t.send(RST, seq=200)
    t.send(RST | ACK, seq=200, ack=300)
    t.expect_nothing()
    assert t.counters.tcp_no_connection == 5


def test_a_segment_for_a_listener_that_is_no_syn_is_reset() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(ACK, seq=1, ack=44)
    t.expect(RST, seq=44)
    t.send(SYN | ACK, seq=1, ack=45)
    t.expect(RST, seq=45)
    t.send(RST, seq=0)
    t.expect_nothing()
    assert listener.requests == {}


def test_the_syn_queue_is_bounded() -> None:
    t = TcpTrace(config=Config(syn_queue=3, syn_cookies=False))
    listener = t.listen()
    for port in range(5):
        t.send(SYN, seq=0, port=1000 + port)
    assert len(t.take()) == 3
    assert len(listener.requests) == 3
    assert t.counters.tcp_syn_queue_full == 2


def test_no_more_than_a_few_syn_acks_wait_for_a_neighbor_to_be_found() -> None:
    # SYNs from neighbors that are not there would fill the memory for what waits.
    t = TcpTrace()
    t.listen()
    t.ip.queued = 8
    t.send(SYN)
    t.expect_nothing()
    assert t.counters.tcp_syn_acks_unsent == 1
    t.ip.queued = 0  # a neighbor that is there has answered long before the timer
    t.at(1.0)
    t.expect(SYN | ACK, at=1.0)


def test_a_full_accept_queue_drops_syns_and_last_acks_until_there_is_room() -> None:
    t = TcpTrace()
    listener = t.listen(backlog=0)
    for port in (1000, 1001):
        t.send(SYN, port=port)
        t.expect(SYN | ACK)
    t.send(ACK, port=1000)
    t.send(ACK, port=1001)  # there is room for one: Linux's backlog plus one
    t.send(SYN, port=1002)
    t.expect_nothing()
    assert listener.queued == 1
    assert len(listener.requests) == 1
    assert t.counters.tcp_accept_queue_full == 2
    assert listener.accept(t.now) is not None
    # The second handshake is not lost: its SYN-ACK is sent again, and this time there is room.
    t.at(1.0)
    assert t.expect(SYN | ACK, at=1.0).port == 1001
    t.send(ACK, port=1001)
    assert listener.queued == 1
    assert listener.requests == {}


def test_closing_a_listener_resets_those_who_wait_and_forgets_the_rest() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN)
    t.expect(SYN | ACK)
    t.send(ACK, ack=1)
    t.send(SYN, port=1001)
    t.expect(SYN | ACK)
    listener.close(t.now)
    t.expect(RST | ACK, seq=1, ack=1)
    t.expect_nothing()
    assert t.tcp.table == {}
    assert len(t.tcp._ports) == 0
    t.peer_port = 1001
    t.send(SYN, seq=0)
    t.expect(RST | ACK)
    listener.close(t.now)


def test_the_port_of_a_closed_listener_stays_taken_while_a_connection_uses_it() -> None:
    t = TcpTrace()
    listener = t.listen()
    t.send(SYN)
    t.expect(SYN | ACK)
    t.send(ACK, ack=1)
    connection = listener.accept(t.now)
    assert connection is not None
    listener.close(t.now)
    with pytest.raises(OSError, match="taken") as caught:
        t.tcp.bind(t.local, 80)
    assert caught.value.errno == errno.EADDRINUSE
    connection.abort(t.now)
    t.tcp.bind(t.local, 80).release()


def test_two_listeners_share_a_port_only_if_both_say_so() -> None:
    t = TcpTrace()
    first = t.tcp.listen(t.tcp.bind(t.local, 80, reuse_port=True), 5, t.now)
    second = t.tcp.listen(t.tcp.bind(t.local, 80, reuse_port=True), 5, t.now)
    t.port = 80
    for port in range(1000, 1040):
        t.send(SYN, seq=0, port=port)
    assert len(first.requests) + len(second.requests) == 40
    assert first.requests
    assert second.requests
    with pytest.raises(OSError, match="80"):
        t.tcp.bind(t.local, 80)


def test_connecting_twice_between_the_same_ports_is_refused() -> None:
    t = TcpTrace()
    binding = t.tcp.bind(t.local, 5000)
    t.tcp.connect((t.remote, 80), t.now, binding=binding)
    with pytest.raises(OSError, match="already") as caught:
        t.tcp.connect((t.remote, 80), t.now, binding=binding)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    ("address", "port", "code"),
    [
        (bytes([224, 0, 0, 1]), 80, errno.ENETUNREACH),
        (bytes([10, 0, 0, 2]), 0, errno.ECONNREFUSED),
        (bytes(15) + b"\x05", 80, errno.EAFNOSUPPORT),
    ],
)
def test_connecting_where_nobody_can_be_fails_at_once(address: bytes, port: int, code: int) -> None:
    t = TcpTrace()
    with pytest.raises(OSError) as caught:
        t.tcp.connect((address, port), t.now)
    assert caught.value.errno == code
    assert len(t.tcp._ports) == 0


def test_the_number_of_connections_is_bounded() -> None:
    t = TcpTrace(config=Config(connection_limit=2))
    t.connect()
    t.connect()
    with pytest.raises(OSError, match="open already") as caught:
        t.connect()
    assert caught.value.errno == errno.ENOBUFS
    t.take()
    t.listen(81)
    t.send(SYN)
    t.expect_nothing()


def test_initial_sequence_numbers_differ_by_peer_and_move_with_time() -> None:
    t = TcpTrace()
    one, stamp = t.tcp.numbers.initial(b"one", 0.0)
    assert t.tcp.numbers.initial(b"one", 0.0) == (one, stamp)
    two, _ = t.tcp.numbers.initial(b"two", 0.0)
    assert two != one
    later, _ = t.tcp.numbers.initial(b"one", 4e-6)
    assert later == (one + 1) & 0xFFFFFFFF  # RFC 6528: one for every 4 microseconds
    assert TcpTrace(seed=1).tcp.numbers.initial(b"one", 0.0)[0] != one


def test_a_lost_syn_starts_data_with_one_segment() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.at(1.0)
    t.expect(SYN)
    t.at(1.1)
    t.send(SYN | ACK, ack=1, mss=1460)
    t.expect(ACK)
    assert connection.congestion.cwnd == 1460
    assert connection.rtt.timeout() == 3.0  # RFC 6298 5.7


def test_closing_before_the_handshake_ends_forgets_the_connection() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    connection.close(t.now)
    assert connection.state == CLOSED
    assert t.tcp.table == {}
    t.send(SYN | ACK, ack=1)
    t.expect(RST, seq=1)


def test_a_fin_queued_before_a_simultaneous_open_ends_follows_it() -> None:
    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN)
    t.send(SYN)
    t.expect(SYN | ACK)
    connection.shutdown_write(t.now)
    t.flush()
    t.expect_nothing()
    t.send(ACK, ack=1)
    assert connection.state == FIN_WAIT_1
    t.expect(FIN | ACK, seq=1)


def test_options_of_a_listener_are_inherited() -> None:
    t = TcpTrace()
    connection = t.establish(passive=True, options=TcpOptions(nodelay=True, max_segment=500))
    assert connection.options.nodelay
    assert connection.mss == 500


def test_max_segment_bounds_what_is_announced() -> None:
    t = TcpTrace()
    t.connect(options=TcpOptions(max_segment=500))
    t.expect(SYN, mss=500)
