"""Requirements of RFC 9293 that no other file is about, and the table that lists all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zttrio.config import Config
from zttrio.header.address import packed
from zttrio.header.tcp import ACK, RST, SYN, URG
from zttrio.stack.tcp.options import TcpOptions
from zttrio.stack.tcp.state import CLOSED, ESTABLISHED
from zttrio.testing.trace import TcpTrace

TESTS = Path(__file__).parents[2]
TABLE = TESTS.parent / "docs" / "conformance.md"


def test_the_window_field_is_unsigned() -> None:  # MUST-1
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, window=0xFFFF)
    assert connection.snd_wnd == 0xFFFF


def test_mss_is_announced_in_syns_only() -> None:  # MUST-65
    t = TcpTrace()
    connection = t.establish(timestamps=True, sack=True)
    connection.send(bytes(3000), t.now)
    t.flush()
    t.send(ACK, b"x", seq=9)
    assert {segment.header.mss for segment in t.take()} == {None}


def test_an_mss_on_a_later_segment_changes_nothing() -> None:  # MUST-5
    t = TcpTrace()
    connection = t.establish()
    t.send(ACK, b"data", mss=300, window_scale=9, sack_permitted=True)
    assert connection.receive(10, t.now) == b"data"
    assert (connection.mss, connection.snd_scale, connection.sack_ok) == (1460, 0, False)


@pytest.mark.parametrize("flags", [RST, RST | ACK])
def test_a_reset_counts_although_the_window_is_closed(flags: int) -> None:  # MUST-66
    t = TcpTrace(config=Config(receive_buffer=4000))
    connection = t.establish()
    t.send(ACK, bytes(4000))
    t.expect(ACK, window=0)
    t.send(flags)
    assert connection.state == CLOSED


def test_urgent_data_does_not_upset_a_closed_window() -> None:  # MUST-66
    t = TcpTrace(config=Config(receive_buffer=4000))
    connection = t.establish()
    t.send(ACK, bytes(4000))
    t.expect(ACK, window=0)
    t.send(ACK | URG, b"!", seq=4001)
    t.expect(ACK, ack=4001, window=0)
    assert connection.state == ESTABLISHED


def test_keep_alive_waits_for_two_hours_unless_told_otherwise() -> None:  # MUST-26, MUST-27
    t = TcpTrace()
    t.establish(options=TcpOptions(keep_alive=True))
    t.at(7199.9)
    t.expect_nothing()
    t.at(7200.0)
    t.expect(ACK, b"", seq=0, at=7200.0)


def test_one_lost_keep_alive_answer_means_nothing() -> None:  # MUST-29
    t = TcpTrace()
    connection = t.establish(options=TcpOptions(keep_alive=True, keep_idle=10, keep_interval=2))
    t.at(13.0)
    assert len(t.take()) == 2
    t.send(ACK)
    t.at(20.0)
    assert connection.state == ESTABLISHED


def test_the_program_chooses_the_diffserv_field_and_tcp_keeps_the_ecn_bits() -> None:  # MUST-48
    t = TcpTrace()
    connection = t.establish(options=TcpOptions(traffic_class=0xB9))
    connection.send(b"x", t.now)
    t.flush()
    assert t.expect(ACK, b"x").traffic_class == 0xB8
    connection.configure(traffic_class=0x20)
    t.send(ACK)
    connection.send(b"y", t.now)
    t.flush()
    assert t.expect(ACK, b"y").traffic_class == 0x20  # SHLD-21


def test_how_long_a_syn_is_repeated_can_be_set() -> None:  # MUST-23
    t = TcpTrace(config=Config(syn_retries=7))
    connection = t.connect()
    t.at(180.0)
    assert connection.state != CLOSED
    t.at(255.0)
    assert connection.state == CLOSED


def test_a_syn_comes_from_the_address_that_was_bound_or_from_the_one_that_ip_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # MUST-43, MUST-44
    t = TcpTrace()
    other = packed("10.0.0.9")
    monkeypatch.setattr(t.ip, "select_source", lambda destination: other)
    t.tcp.connect((t.remote, 80), t.now, binding=t.tcp.bind(t.local, 5000))
    t.port, t.peer_port = 5000, 80
    t.expect(SYN)
    with pytest.raises(AssertionError, match="segment from"):  # as the trace calls strangers
        t.tcp.connect((t.remote, 81), t.now)
    [stranger] = [c for c in t.tcp.connections() if c.remote[1] == 81]
    assert stranger.local[0] == other


def test_a_passive_open_disturbs_no_connection_on_its_port() -> None:  # MUST-41, MUST-42
    t = TcpTrace()
    listener = t.listen()
    for port in (1000, 1001):
        t.send(SYN, port=port)
        t.expect(SYN | ACK)
        t.send(ACK, port=port)
    t.send(ACK, b"one", port=1000)
    t.send(ACK, b"two", port=1001)
    first, second = listener.accept(t.now), listener.accept(t.now)
    assert first is not None
    assert second is not None
    assert (first.receive(9, t.now), second.receive(9, t.now)) == (b"one", b"two")


def test_the_table_names_every_must_and_only_tests_that_exist() -> None:
    text = TABLE.read_text()
    listed = {int(number) for number in re.findall(r"MUST-(\d+)", text)}
    assert listed == set(range(1, 70))
    exist = set()
    for path in TESTS.rglob("test_*.py"):
        exist |= set(re.findall(r"def (test_\w+)", path.read_text()))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named
    assert named <= exist, sorted(named - exist)
