"""What TCP does about losses, and about what only looks like one, frame by frame in a Lab."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from zttrio.header.ipv4 import PROTOCOL_TCP, Ipv4Header
from zttrio.header.tcp import FIN, SYN, TcpHeader
from zttrio.stack.tcp.congestion import UNLIMITED
from zttrio.stack.tcp.tcb import LOSS, OPEN
from zttrio.testing import Lab, Link

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from zttrio import Network
    from zttrio.stack.tcp.connection import TcpConnection

CABLE = 0.025  # seconds; a frame crosses two cables to the other host, and its ACK two back
WAY = 2 * CABLE
RTT = 2 * WAY
MSS = 1448
MEGA = 1_000_000


@attrs.frozen
class Sent:
    """One data segment of host a, as the Lab saw it.

    Attributes:
        time: when it arrived, or when it was lost.
        fate: as in `FrameRecord`.
        start: the number of its first octet in the stream, from 0.
        end: of the octet behind its last.
    """

    time: float
    fate: str
    start: int
    end: int


def sent_by_a(lab: Lab) -> list[Sent]:
    """Every TCP segment with data, or a FIN, that a has sent, in the order of `time`."""
    found = []
    isn = 0
    for record in lab.trace():
        frame = memoryview(record.frame)
        if record.source != "a" or record.frame[12:14] != b"\x08\x00":
            continue
        ip = Ipv4Header.parse(frame[14:])
        if ip.protocol != PROTOCOL_TCP:
            continue
        tcp = TcpHeader.parse(frame[34:])
        if tcp.flags & SYN:
            isn = tcp.seq + 1
        size = ip.total_length - 20 - tcp.data_offset + (tcp.flags & FIN)
        if size and not tcp.flags & SYN:
            start = (tcp.seq - isn) & 0xFFFF_FFFF
            found.append(Sent(record.time, record.fate, start, start + size))
    return found


def check(sent: list[Sent], expected: list[tuple[float, str, int]]) -> None:
    """*expected*: when each full segment was sent, its fate, its number; the FIN is behind them."""
    assert [attrs.astuple(segment) for segment in sent[:-1]] == [
        (pytest.approx(sent_at + WAY), fate, number * MSS, (number + 1) * MSS)
        for sent_at, fate, number in expected
    ]


@attrs.frozen
class Ends:
    """A stream from a to b.

    Attributes:
        a: who sends.
        stream: its end.
        connection: the same, below.
        received: what b has read.
    """

    a: Network
    stream: trio.SocketStream
    connection: TcpConnection
    received: bytearray


@asynccontextmanager
async def open_stream(lab: Lab, *, down: Link | None = None) -> AsyncGenerator[Ends, None]:
    """A stream from a to b, which reads everything; *down* is b's cable, if it is special."""
    received = bytearray()

    async def read(*, task_status: trio.TaskStatus[None]) -> None:
        [listener] = await b.open_tcp_listeners(80, host="0.0.0.0")
        task_status.started()
        async with listener, await listener.accept() as stream:
            async for data in stream:
                received.extend(data)

    good = Link(delay=CABLE)
    async with (
        lab.network("a", link=good) as a,
        lab.network("b", link=good, down=down) as b,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(read)
        async with await a.open_tcp_stream("b", 80) as stream:
            [connection] = a._driver.stack.tcp.connections()
            yield Ends(a, stream, connection, received)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("late", [0.1, 0.5, 0.99])
async def test_a_path_that_only_reorders_sees_nothing_twice(
    seed: int, late: float, autojump_clock: trio.testing.MockClock
) -> None:
    # Late by up to a quarter of the round trip (RFC 8985 6.2), from the first flight on.
    lab = Lab(seed=seed, trace=None)
    down = Link(delay=CABLE, reorder=0.1, reorder_delay=late * RTT / 4)
    data = Random(seed).randbytes(MEGA)
    async with open_stream(lab, down=down) as ends:
        await ends.stream.send_all(data)
        await ends.stream.send_eof()
        assert await ends.stream.receive_some() == b""
        counters = ends.a.status().counters
    assert ends.received == data
    sent = sent_by_a(lab)
    numbers = [segment.start for segment in sent]
    assert numbers != sorted(numbers)  # there was something to be misled by
    assert len(numbers) == len(set(numbers))
    assert sum(segment.end - segment.start for segment in sent) == MEGA + 1  # and the FIN
    assert "tcp_retransmits" not in counters
    assert "tcp_recoveries" not in counters


async def test_a_lost_tail_is_repaired_without_a_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # RFC 8985 7: two round trips after the last sign of life the last segment is sent again, as a
    # probe; what comes back shows that the two before it are missing, too.
    lab = Lab(trace=None)
    async with open_stream(lab) as ends:
        await trio.sleep(1)
        start = trio.current_time()
        await ends.stream.send_all(bytes(4 * MSS))
        lab.set_link("a", up=Link(loss=1), down=Link(delay=CABLE))
        await ends.stream.send_all(bytes(3 * MSS))
        lab.set_link("a", Link(delay=CABLE))
        await trio.sleep(1.5 * RTT)
        srtt = ends.connection.rtt.srtt
        await trio.sleep(10)
        counters = ends.a.status().counters
    assert len(ends.received) == 7 * MSS
    probe = start + RTT + 2 * srtt
    expected = [(start - WAY, "lost", n) for n in (4, 5, 6)]
    expected += [(start, "delivered", n) for n in (0, 1, 2, 3)]
    expected += [(probe, "delivered", 6)]
    expected += [(probe + RTT, "delivered", n) for n in (4, 5)]
    check(sent_by_a(lab), expected)
    assert "tcp_timeouts" not in counters


async def test_a_timeout_that_was_too_early_is_undone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # The way there takes 0.7 s longer for one flight: RFC 5682, RFC 4015.
    lab = Lab(trace=None)
    async with open_stream(lab) as ends:
        connection = ends.connection
        await trio.sleep(1)
        start = trio.current_time()
        before = connection.congestion.cwnd
        probe = start + 2 * connection.rtt.srtt
        timeout = probe + connection.rtt.rto
        slow = 0.7
        lab.set_link("a", up=Link(delay=CABLE + slow), down=Link(delay=CABLE))
        await ends.stream.send_all(bytes(8 * MSS))
        await trio.sleep(slow)
        lab.set_link("a", Link(delay=CABLE))
        await trio.sleep(timeout + 0.001 - trio.current_time())
        assert connection.loss_state == LOSS
        assert connection.congestion.cwnd == connection.mss
        await trio.sleep(10)
        assert connection.loss_state == OPEN
        assert connection.congestion.cwnd >= before
        assert connection.congestion.ssthresh == UNLIMITED
        counters = ends.a.status().counters
    assert len(ends.received) == 8 * MSS
    # Nothing but the probe and what the timer sent again went out twice.
    expected = [(start + slow, "delivered", n) for n in range(8)]
    expected += [(timeout, "delivered", 0), (probe + slow, "delivered", 7)]
    check(sent_by_a(lab), expected)
    assert (counters["tcp_timeouts"], counters["tcp_undone"]) == (1, 1)
    assert counters["tcp_retransmits"] == 2
