"""An ACK waits for the program that learns of what has come, and for nobody longer than that.

What the program sends in its turn carries the ACK: one frame instead of two.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from zttrio.testing import Lab, Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zttrio import Network

PORT = 80
DELAY = 0.05  # seconds from host to host, by two cables
AT = 0.001  # that a frame may take on the cable besides


class Counting:
    """How many frames two networks have sent."""

    def __init__(self, *networks: Network) -> None:
        self._networks = networks
        self._before = self._sent()

    def _sent(self) -> int:
        return sum(network.status().counters["frames_out"] for network in self._networks)

    def __call__(self) -> int:
        return self._sent() - self._before


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Network, Network, trio.SocketListener]]:
    """A client and a server that know each other's MAC, and a listener of the server's."""
    lab = Lab(link=Link(delay=DELAY / 2))
    async with lab.network("client") as client, lab.network("server") as server:
        await client.wait_online()
        await server.wait_online()
        await client.ping(str(server.addresses[0].ip))
        [listener] = await server.open_tcp_listeners(PORT, host=str(server.addresses[0].ip))
        await trio.sleep(1)
        yield client, server, listener


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        while data := await stream.receive_some():
            await stream.send_all(data)


async def test_a_request_an_answer_and_the_end_take_seven_frames(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as (client, server, listener), trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        sent = Counting(client, server)
        async with await client.open_tcp_stream(str(server.addresses[0].ip), PORT) as stream:
            await stream.send_all(b"?")
            assert await stream.receive_some() == b"?"
        await trio.sleep(10 * DELAY)
        # SYN, SYN+ACK, request, answer, FIN, FIN: each carries the ACK of what was before; ACK
        assert sent() == 7
        nursery.cancel_scope.cancel()


async def test_the_fin_of_a_server_carries_the_ack_of_the_client_s(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as (client, server, listener), trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        stream = await client.open_tcp_stream(str(server.addresses[0].ip), PORT)
        await trio.sleep(10 * DELAY)
        sent = Counting(client, server)
        await stream.aclose()
        await trio.sleep(10 * DELAY)
        assert sent() == 3
        nursery.cancel_scope.cancel()


async def test_a_client_that_says_nothing_is_accepted_after_a_round_trip_and_a_half(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as (client, server, listener), trio.open_nursery() as nursery:
        began = trio.current_time()

        async def accept() -> None:
            async with await listener.accept():
                assert trio.current_time() - began == pytest.approx(3 * DELAY, abs=3 * AT)

        nursery.start_soon(accept)
        async with await client.open_tcp_stream(str(server.addresses[0].ip), PORT):
            await trio.sleep(10 * DELAY)


async def test_the_fin_of_a_client_is_acknowledged_at_once_if_the_server_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as (client, server, listener), trio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        stream = await client.open_tcp_stream(str(server.addresses[0].ip), PORT)
        await trio.sleep(10 * DELAY)
        began = trio.current_time()
        await stream.send_eof()
        [connection] = client.status().connections
        assert connection.state == "FIN_WAIT_1"
        await trio.sleep(2 * DELAY + 3 * AT)
        [connection] = client.status().connections
        assert connection.state == "FIN_WAIT_2"
        assert trio.current_time() - began < 3 * DELAY


async def test_data_that_is_read_and_not_answered_is_acknowledged_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with pair() as (client, server, listener), trio.open_nursery() as nursery:

        async def read() -> None:
            stream = await listener.accept()
            while await stream.receive_some():
                pass

        nursery.start_soon(read)
        stream = await client.open_tcp_stream(str(server.addresses[0].ip), PORT)
        await trio.sleep(10 * DELAY)
        await stream.send_all(b"!")
        await trio.sleep(2 * DELAY + 3 * AT)
        [connection] = client.status().connections
        assert connection.send_queue == 0
        await stream.aclose()
