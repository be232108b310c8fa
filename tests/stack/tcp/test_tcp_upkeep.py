"""Keep-alive, buffers that grow, SYN cookies, pacing, and what a connection tells of itself."""

from __future__ import annotations

import errno
import itertools
from math import inf

import pytest

from zttrio.config import Config
from zttrio.header.tcp import ACK, CWR, ECE, FIN, RST, SYN
from zttrio.stack.tcp.congestion import NewReno
from zttrio.stack.tcp.options import TcpOptions
from zttrio.stack.tcp.state import CLOSED, ESTABLISHED
from zttrio.testing.trace import TcpTrace

MSS = 1460
KEEP = TcpOptions(keep_alive=True, keep_idle=10.0, keep_interval=2.0, keep_count=3)


# keep-alive (RFC 9293 3.8.4)


def test_a_silent_connection_is_probed_and_a_dead_peer_noticed() -> None:
    t = TcpTrace()
    connection = t.establish(options=KEEP)
    for when in (10.0, 12.0, 14.0):
        t.at(when)
        t.expect(ACK, b"", seq=0, ack=1, at=when)
    t.at(15.999)
    assert connection.state == ESTABLISHED
    t.at(16.0)
    t.expect(RST | ACK, at=16.0)
    assert connection.state == CLOSED
    assert connection.error == errno.ETIMEDOUT
    assert t.counters.tcp_keepalives == 3


def test_an_answer_starts_the_silence_over() -> None:
    t = TcpTrace()
    connection = t.establish(options=KEEP)
    for start in (0.0, 11.0, 22.0):
        t.at(start + 10.0)
        t.expect(ACK, b"", seq=0, at=start + 10.0)
        t.at(start + 11.0)
        t.send(ACK)
    assert connection.state == ESTABLISHED


def test_traffic_keeps_probes_away() -> None:
    t = TcpTrace()
    t.establish(options=KEEP)
    for number in range(1, 8):
        t.at(number * 5.0)
        t.send(ACK, b"x")
        t.take()
    t.at(44.9)
    t.expect_nothing()
    t.at(45.0)
    t.expect(ACK, b"", seq=0, at=45.0)


def test_without_being_asked_nobody_probes() -> None:
    t = TcpTrace()
    t.establish()
    t.at(86_400.0)
    t.expect_nothing()


def test_keep_alive_may_be_asked_for_later() -> None:
    t = TcpTrace()
    connection = t.establish()
    t.at(100.0)
    connection.configure(t.now, keep_alive=True, keep_idle=10.0)
    t.at(100.0)
    t.expect(ACK, b"", seq=0)


def test_unacknowledged_data_needs_no_keep_alive() -> None:
    t = TcpTrace()
    connection = t.establish(options=KEEP, rtt=0.1)
    connection.send(b"x", t.now)
    t.flush()
    t.at(60.0)
    assert {segment.data for segment in t.take()} == {b"x"}
    assert t.counters.tcp_keepalives == 0


def test_a_probe_of_ours_is_what_we_would_answer() -> None:
    t = TcpTrace()
    t.establish()
    t.send(ACK, seq=0)
    t.expect(ACK, b"", seq=1, ack=1)


# buffers


def test_the_receive_buffer_grows_with_what_the_program_reads_in_a_round_trip() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1, window_scale=7)
    sizes = [connection.rcv_buffer]
    assert sizes == [262_144]
    for _ in range(12):
        for _ in range(connection.rcv_buffer * 3 // 4 // MSS):
            t.send(ACK, bytes(MSS))
        t.take()
        t.at(t.now + 0.1)
        while connection.receive(1 << 20, t.now):
            pass
        sizes.append(connection.rcv_buffer)
    assert sizes == sorted(sizes)
    assert sizes[-1] == 4 << 20  # Config.receive_buffer


def test_the_receive_buffer_does_not_grow_for_a_program_that_does_not_read() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1, window_scale=7)
    for _ in range(80):
        t.send(ACK, bytes(MSS))
        t.at(t.now + 0.1)
        connection.receive(10, t.now)
    assert connection.rcv_buffer == 262_144


def test_a_buffer_that_the_program_has_chosen_stays() -> None:
    t = TcpTrace()
    connection = t.establish(
        rtt=0.1, window_scale=7, options=TcpOptions(receive_buffer=50_000, send_buffer=60_000)
    )
    for _ in range(5):
        for _ in range(30):
            t.send(ACK, bytes(MSS))
        t.at(t.now + 0.1)
        connection.receive(1 << 20, t.now)
        connection.send(bytes(60_000), t.now)
        t.flush()
        t.take()
        t.send(ACK)
    assert (connection.rcv_buffer, connection.send_buffer) == (50_000, 60_000)


def test_the_send_buffer_grows_with_the_congestion_window() -> None:
    t = TcpTrace(config=Config(send_buffer=1 << 20))
    connection = t.establish(window_scale=10)
    t.send(ACK)
    assert connection.send_buffer == 262_144
    for _ in range(10):
        connection.send(bytes(1 << 20), t.now)
        t.flush()
        t.take()
        t.send(ACK)
    assert connection.congestion.cwnd > 1 << 19
    assert connection.send_buffer == 1 << 20


def test_changing_buffers_takes_effect_at_once() -> None:
    t = TcpTrace()
    connection = t.establish()
    connection.configure(receive_buffer=10_000, send_buffer=5000)
    assert connection.rcv_buffer == 10_000
    assert connection.send(bytes(9000), t.now) == 5000
    connection.configure(receive_buffer=0, send_buffer=0)
    assert (connection.rcv_buffer, connection.send_buffer) == (262_144, 262_144)


# SYN cookies (RFC 4987)


def _pressed(t: TcpTrace) -> None:
    """Fill the SYN queue."""
    for port in range(1, 5):
        t.send(SYN, port=port)
    t.take()


def test_a_full_syn_queue_still_lets_real_clients_in() -> None:
    t = TcpTrace(config=Config(syn_queue=4))
    listener = t.listen()
    _pressed(t)
    t.send(SYN, mss=1460)
    answer = t.expect(SYN | ACK, seq=0, ack=1)
    assert answer.header.window_scale is None
    assert not answer.header.sack_permitted
    assert len(listener.requests) == 4
    assert len(t.tcp.table) == 4  # nothing is kept
    t.at(30.0)
    t.take()
    t.send(ACK, b"hello")
    connection = listener.accept(t.now)
    assert connection is not None
    assert connection.mss == 1460
    assert connection.receive(10, t.now) == b"hello"
    connection.send(b"world", t.now)
    t.flush()
    assert b"world" in [segment.data for segment in t.take()]
    assert t.counters.tcp_cookies_in == 1


def test_with_timestamps_a_cookie_keeps_window_scale_sack_and_ecn() -> None:
    t = TcpTrace(config=Config(syn_queue=4))
    listener = t.listen()
    _pressed(t)
    t.at(0.5)
    t.send(SYN | ECE | CWR, mss=8960, window_scale=9, sack_permitted=True, timestamp=(777, 0))
    answer = t.expect(SYN | ACK | ECE, seq=0, ack=1)
    assert answer.header.window_scale == 7
    assert answer.header.sack_permitted
    assert answer.header.timestamp is not None
    t.at(0.6)
    t.timestamps = True
    t.send(ACK, window=100)
    connection = listener.accept(t.now)
    assert connection is not None
    assert connection.snd_wnd == 100 << 9
    assert connection.sack_ok
    assert connection.ts_ok
    assert connection.ecn_ok
    assert connection.peer_mss == 8960
    assert connection.rtt.srtt == pytest.approx(0.1, abs=0.07)  # 6 bits of time were used up


def test_a_made_up_cookie_is_reset() -> None:
    t = TcpTrace(config=Config(syn_queue=4))
    listener = t.listen()
    _pressed(t)
    t.send(SYN, mss=1460)
    t.expect(SYN | ACK)
    for guess in range(2, 50):
        t.send(ACK, seq=1, ack=guess)
        t.expect(RST, seq=guess)
    assert not listener.is_readable
    assert t.counters.tcp_cookies_bad == 48
    t.send(ACK, seq=2, ack=1)  # the right cookie for another SYN
    t.expect(RST)
    assert not listener.is_readable


def test_cookies_expire() -> None:
    t = TcpTrace(config=Config(syn_queue=4, syn_ack_retries=7))
    listener = t.listen()
    _pressed(t)
    t.send(SYN)
    t.expect(SYN | ACK)
    t.at(128.1)
    t.send(SYN, port=999)
    t.take()
    t.send(ACK, ack=1)
    t.expect(RST)
    assert not listener.is_readable


def test_without_pressure_no_cookie_is_believed() -> None:
    t = TcpTrace()
    listener = t.listen()
    key = t.remote + t.local + b"\x9c\x40\x00\x50"
    t.send(SYN)
    t.expect(SYN | ACK)
    t.send(RST, seq=1)
    caller = t._caller(t.peer_port)
    caller.peer_iss = t.tcp.numbers.cookie(key, caller.iss, 1460, t.now)
    t.send(ACK, seq=1, ack=1)
    t.expect(RST)
    assert not listener.is_readable


def test_a_flood_of_syns_costs_no_memory_and_does_not_lock_clients_out() -> None:
    t = TcpTrace()
    listener = t.listen(backlog=100)
    flooded = 0
    for second in range(10):
        t.at(float(second))
        t.take()
        for number in range(500):
            t.peer_port = 1024 + (second * 500 + number)
            t.send(SYN, seq=number)
            flooded += 1
        t.take()
        t.peer_port = 40_000 + second
        t.send(SYN, mss=1460)
        t.expect(SYN | ACK)
        t.send(ACK, b"echo?")
        connection = listener.accept(t.now)
        assert connection is not None
        assert connection.receive(100, t.now) == b"echo?"
    assert flooded == 5000
    assert len(listener.requests) <= t.config.syn_queue
    assert len(t.tcp.table) <= t.config.syn_queue + 10
    assert len(t.timers) <= t.config.syn_queue + 30


# pacing


def test_a_paced_algorithm_spreads_segments_out() -> None:
    class Paced(NewReno):
        is_paced = True

        def pacing_rate(self, srtt: float) -> float:
            return MSS / 0.02  # a segment every 20 ms

    t = TcpTrace()
    connection = t.establish(rtt=0.5)
    connection.congestion = Paced(MSS)
    t.at(1.0)
    connection.send(bytes(5 * MSS), t.now)
    t.flush()
    t.at(2.0)
    times = [segment.time for segment in t.take()][:5]
    gaps = [later - before for before, later in itertools.pairwise(times)]
    assert times[0] == 1.0
    assert gaps[1:] == pytest.approx([0.02] * 3)
    assert gaps[0] == pytest.approx(0.01)  # what it is late by at first is made up for


# TCP_INFO


def test_a_connection_tells_what_it_knows() -> None:
    t = TcpTrace()
    connection = t.establish(sack=True, timestamps=True, rtt=0.1, window_scale=7)
    connection.send(bytes(3000), t.now)
    t.flush()
    t.take()
    t.send(ACK, b"hello")
    t.send(ACK, b"!", seq=10)
    info = connection.info()
    assert info.state == "ESTABLISHED"
    assert info.recovery == "open"
    assert (info.has_timestamps, info.has_sack, info.has_ecn) == (True, True, False)
    assert (info.mss, info.path_mtu) == (1448, 1500)
    assert info.unacknowledged == 0
    assert info.acknowledged == 3000
    assert (info.received, info.unread, info.out_of_order) == (5, 5, 1)
    assert info.srtt == pytest.approx(0.1, abs=0.02)
    assert info.ssthresh == 1 << 62
    assert info.min_rtt < inf
    t.send(FIN | ACK, seq=6)
    assert connection.info().received == 5  # the FIN is no octet


def test_what_was_sent_again_is_counted() -> None:
    t = TcpTrace()
    connection = t.establish(rtt=0.1)
    connection.send(bytes(100), t.now)
    t.flush()
    t.at(1.0)
    info = connection.info()
    assert info.resent == 200
    assert info.recovery == "loss"
    assert info.retries == 2


def test_an_option_that_makes_no_sense_is_refused() -> None:
    t = TcpTrace()
    connection = t.establish()
    with pytest.raises(ValueError, match="keep_count"):
        connection.configure(keep_count=0)
    with pytest.raises(TypeError):
        connection.configure(no_such_thing=1)
