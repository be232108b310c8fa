"""A program that starts again, and the kernel that keeps its old connections in TIME_WAIT."""

from __future__ import annotations

import pytest
import trio

from zttrio import Config, Network
from zttrio.wire import Tap

from .conftest import KERNEL, OURS, open_tap_network
from .verdict import kernel_counters

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

CONNECTIONS = 32
# No more ports than are needed, so that each is used again.
CONFIG = Config(ephemeral_ports=(50000, 50000 + CONNECTIONS - 1))


async def answer(stream: trio.SocketStream) -> None:
    """Close first, so that TIME_WAIT is the kernel's."""
    async with stream:
        assert await stream.receive_some() == b"?"
        await stream.send_all(b"!")


async def open_all(network: Network) -> float:
    """Open connections one after the other, and return the seconds that the slowest took."""
    slowest = 0.0
    for _ in range(CONNECTIONS):
        began = trio.current_time()
        stream = await network.open_tcp_stream(KERNEL, 80)
        slowest = max(slowest, trio.current_time() - began)
        async with stream:
            await stream.send_all(b"?")
            assert await stream.receive_some() == b"!"
            assert await stream.receive_some() == b""
    return slowest


async def test_a_program_that_starts_again_does_not_wait_for_old_connections(
    nursery: trio.Nursery,
) -> None:
    async with open_tap_network(config=CONFIG) as network:
        [listener] = await trio.open_tcp_listeners(80, host=KERNEL)
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        await open_all(network)
    assert kernel_counters().get("TcpExtPAWSTimewait", 0) == 0
    async with Network(wire=Tap("tap7"), addresses=[f"{OURS}/24"], config=CONFIG) as again:
        await again.wait_online()
        slowest = await open_all(again)
    # Timestamps begin anywhere: the kernel takes about every second SYN for an old one.
    assert kernel_counters().get("TcpExtPAWSTimewait", 0) > 0
    assert slowest < 0.5, slowest  # the timer for a lost SYN is a second
    nursery.cancel_scope.cancel()
