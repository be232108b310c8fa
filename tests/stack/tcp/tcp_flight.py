"""A connection with segments under way, for the tests of recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header.tcp import ACK

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection
    from zttrio.testing.trace import TcpTrace

MSS = 1460
RTT = 0.1


def at(number: int) -> int:
    """Sequence number of the first octet of segment *number*."""
    return 1 + number * MSS


def flight(
    t: TcpTrace, count: int, *, sack: bool = True, timestamps: bool = False, more: int = 0
) -> TcpConnection:
    """A connection with *count* segments in flight, sent now, and *more* octets to send.

    It has repaired a loss before, which matters for the first one only.
    """
    connection = t.establish(sack=sack, timestamps=timestamps, rtt=RTT, window_scale=7)
    connection.recover = connection.iss
    t.send(ACK)  # the window of a SYN is not scaled: from here on it does not change
    mss = connection.mss
    connection.congestion.cwnd = count * mss
    connection.send(bytes(count * mss + more), t.now)
    t.flush()
    assert [len(segment.data) for segment in t.take()] == [mss] * count
    t.expect_nothing()
    return connection
