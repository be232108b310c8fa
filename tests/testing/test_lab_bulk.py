"""Bulk between hosts of a lab whose wires take super-segments longer than any packet."""

from __future__ import annotations

import random

import pytest
import trio

from zttrio.testing import Lab
from zttrio.wire.link import Link
from zttrio.wire.shortcuts import OFFLOAD

OCTETS = 3_000_000


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize(
    "link",
    [Link(), Link(delay=0.01, loss=0.005), Link(delay=0.01, rate=1e8)],
    ids=["nothing happens", "losses", "a rate"],
)
def test_long_super_segments_arrive_as_they_were_sent(host: str, link: Link) -> None:
    lab = Lab(1, link=link, max_segment=1 << 20)
    data = random.Random(1).randbytes(OCTETS)

    async def transfer() -> bytes:
        received = bytearray()
        async with lab.network("a") as a, lab.network("b") as b:
            [listener] = await a.open_tcp_listeners(80, host=host)
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    async with await listener.accept() as stream:
                        while octets := await stream.receive_some(200_000):
                            received.extend(octets)

                nursery.start_soon(receive)
                addresses = [str(i.ip) for i in a.addresses if (i.version == 6) == (host == "::")]
                async with await b.open_tcp_stream(addresses[-1], 80) as stream:
                    await stream.send_all(data)
        return bytes(received)

    assert lab.run(transfer) == data
    longest = max(len(record.frame) for record in lab.trace() if record.fate == "delivered")
    if OFFLOAD and link == Link():
        assert longest > 100_000
    else:
        assert longest <= 1514
