"""ACKs that wait for the program's next step, with somebody who gives the turns: see `Driver`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header.tcp import ACK, PSH, RST
from zttrio.stack.tcp.acknowledge import ACK_TURNS, QUICK_ANSWER
from zttrio.testing.trace import TcpTrace

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection


def established() -> tuple[TcpTrace, TcpConnection]:
    t = TcpTrace()
    connection = t.establish()
    t.tcp.gives_turns = True
    return t, connection


def test_the_ack_of_a_short_segment_rides_on_what_the_program_sends_next() -> None:
    t, connection = established()
    connection.owner = object()  # accepted, and nobody waits
    t.send(ACK, b"answer")
    t.expect_nothing()
    connection.send(b"next", t.now)
    t.flush()
    t.expect(ACK | PSH, b"next", seq=1, ack=7)
    assert not t.tcp.end_turn(t.now)
    assert not t.tcp.held


def test_the_ack_of_a_short_segment_waits_for_so_many_turns_and_no_longer() -> None:
    t, _ = established()
    t.send(ACK, b"answer")
    for _ in range(ACK_TURNS - 1):
        assert not t.tcp.end_turn(t.now)
    assert t.tcp.end_turn(t.now)
    t.flush()
    t.expect(ACK, b"", seq=1, ack=7)
    assert not t.tcp.held


def test_a_short_segment_is_acknowledged_at_once_if_nobody_waits_and_nothing_was_asked() -> None:
    t, connection = established()
    connection.owner = object()
    t.at(t.now + QUICK_ANSWER)
    t.send(ACK, b"news")
    t.expect(ACK, b"", seq=1, ack=5)


def test_long_turns_hold_no_ack_for_longer_than_a_delayed_one_would_take() -> None:
    t, _ = established()
    t.send(ACK, b"answer")
    assert not t.tcp.end_turn(t.now + t.tcp.config.delayed_ack - 0.001)
    assert t.tcp.end_turn(t.now + t.tcp.config.delayed_ack)
    t.flush()
    t.expect(ACK, b"", seq=1, ack=7)


def test_nothing_is_held_for_a_connection_that_was_reset() -> None:
    t, connection = established()
    t.send(ACK, b"?")
    t.expect_nothing()
    connection.abort(t.now)
    t.flush()
    t.expect(RST | ACK, b"")
    assert not t.tcp.end_turn(t.now)
    assert not t.tcp.held
    t.expect_nothing()
