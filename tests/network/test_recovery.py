"""What TCP does about losses, and about what only looks like one, frame by frame on a Lab's cable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from zttrio.header.ipv4 import PROTOCOL_TCP, Ipv4Header
from zttrio.header.tcp import FIN, SYN, TcpHeader
from zttrio.testing import Lab, Link

from .conftest import wildcard

if TYPE_CHECKING:
    from zttrio import Network
    from zttrio.stack.tcp.connection import TcpConnection

pytestmark = pytest.mark.usefixtures("autojump_clock")

CABLE = 0.025  # seconds; a frame crosses two cables to the other host, and its ACK two back
RTT = 4 * CABLE
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
        if record.source != "a" or frame[12:14] != b"\x08\x00":
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


def repeated(sent: list[Sent]) -> list[Sent]:
    """What had been sent before, by number; *sent* may be in any order."""
    again = []
    seen: set[int] = set()
    for segment in sent:
        if segment.start in seen:
            again.append(segment)
        seen.add(segment.start)
    return again


def connections(network: Network) -> list[TcpConnection]:
    return list(network._driver.stack.tcp.connections())


async def read_all(network: Network, received: bytearray, *, task_status: object) -> None:
    [listener] = await network.open_tcp_listeners(80, host=wildcard())
    task_status.started()  # type: ignore[attr-defined]
    async with listener, await listener.accept() as stream:
        async for data in stream:
            received += data


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("late", [0.1, 0.5, 0.99])
async def test_a_path_that_only_reorders_sees_nothing_twice(seed: int, late: float) -> None:
    """RFC 8985: what is late by less than a quarter of the round trip is not lost.

    Three segments that overtake a fourth are a loss, however, as long as nothing has ever been
    late (6.2 step 4); which is found out in the same round trip, and undone.
    """
    lab = Lab(seed=seed, trace=None)
    received = bytearray()
    down = Link(delay=CABLE, reorder=0.1, reorder_delay=late * RTT / 4)
    async with (
        lab.network("a", link=Link(delay=CABLE)) as a,
        lab.network("b", up=Link(delay=CABLE), down=down) as b,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(lambda **kwargs: read_all(b, received, **kwargs))
        async with await a.open_tcp_stream("b", 80) as stream:
            await stream.send_all(bytes(MEGA))
            await stream.send_eof()
            assert await stream.receive_some() == b""
        counters = a.status().counters
    assert received == bytes(MEGA)
    print(seed, late, {k: v for k, v in counters.items() if k.startswith("tcp")}, len(repeated(sent_by_a(lab))))
