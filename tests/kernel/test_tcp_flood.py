"""Half-open SYNs by the thousand over a TAP device, and a real client of the kernel's."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from .conftest import KERNEL, OURS, open_tap_network
from .flood import Flood
from .verdict import explains

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace", "undisturbed")]

RATE = 5000  # SYNs a second
PAGE = os.sysconf("SC_PAGE_SIZE")
BEHIND_A_ROUTER = "198.18.0.0/16"
ON_LINK = f"{OURS.rsplit('.', 1)[0]}.0/24"


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """A third of a processor is needed, so the other programs of this machine have to wait."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):  # then it depends on the others
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    yield
    os.sched_setscheduler(0, *before)


def resident() -> int:
    """Octets of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


# SYN-ACKs to people who are behind the kernel, which does not forward, or who are the kernel.
flooded = explains("IpInAddrErrors", "TcpOutRsts")


async def check_flood(sources: str, seconds: float) -> None:
    """Let a kernel's client connect and ask, again and again, while *sources* flood us."""

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    took: list[float] = []
    async with open_tap_network() as network, trio.open_nursery() as nursery:
        await nursery.start(network.serve_tcp, echo, 7)
        stack = network._driver.stack
        stack.add_route(ip_network(BEHIND_A_ROUTER), ip_address(KERNEL))
        mac = bytes.fromhex(network.status().mac.replace(":", ""))
        with Flood("tap7", mac, OURS, sources, rate=RATE, seconds=seconds) as flood:
            await trio.sleep(0.5)  # the SYN queue is full long ago
            before = resident()
            while flood.is_on:
                began = trio.current_time()
                with trio.fail_after(1):
                    async with await trio.open_tcp_stream(OURS, 7) as stream:
                        await stream.send_all(b"are you there?")
                        assert await stream.receive_some() == b"are you there?"
                took.append(trio.current_time() - began)
                await trio.sleep(0.1)
                assert stack.neighbors.waiting_octets < 1 << 18
            grown = resident() - before
            flood.finish()
        counters = network.status().counters
        sizes = stack.tcp.sizes
        nursery.cancel_scope.cancel()
    assert flood.sent == RATE * seconds
    assert flood.took < 2 * seconds  # it was about as fast as it should be
    assert len(took) >= 2 * (seconds - 0.5)  # two a second, at least
    assert max(took) < 1
    assert counters["tcp_cookies_out"] > RATE * seconds / 2
    assert counters["tcp_cookies_in"] >= len(took) - 1
    assert sizes["tcp half-open"] <= 256
    assert grown < 4 << 20, grown


@flooded
@pytest.mark.parametrize("sources", [BEHIND_A_ROUTER, ON_LINK])
async def test_a_real_client_connects_and_echoes_within_a_second(sources: str) -> None:
    await check_flood(sources, 2)


@flooded
@pytest.mark.slow
async def test_a_real_client_connects_and_echoes_within_a_second_of_a_long_flood() -> None:
    await check_flood(BEHIND_A_ROUTER, 10)


@flooded
@pytest.mark.slow
async def test_nor_does_a_long_flood_from_neighbors_that_are_not_there_keep_it_out() -> None:
    await check_flood(ON_LINK, 10)
