"""A program as its users would write it, fully annotated: mypy checks it, and it runs.

`assert_type` does nothing when it runs; mypy fails the build if a type is not the one named.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING, assert_type

import trio

import zttrio
from zttrio.abc import Instrument
from zttrio.testing import Lab

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trio.testing import MockClock

    from zttrio.header.frame import Frame


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.aclose()


async def service(
    network: zttrio.Network,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    await network.serve_tcp(echo, 7, task_status=task_status)


@asynccontextmanager
async def two_networks() -> AsyncGenerator[tuple[zttrio.Network, zttrio.Network]]:
    lab = Lab(seed=1)
    async with lab.network("server") as server, lab.network("client") as client:
        assert_type(server, zttrio.Network)
        yield server, client


async def test_a_service_is_started_with_nursery_start_and_says_where_it_listens(
    autojump_clock: MockClock,
) -> None:
    async with two_networks() as (server, client), trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(service, server)
        assert_type(listeners[0].socket, trio.socket.SocketType)
        assert listeners[0].socket.getsockname()[1] == 7
        stream = await client.open_tcp_stream("server", 7)
        assert_type(stream, trio.SocketStream)
        await stream.send_all(b"typed")
        await stream.send_eof()
        answer = await stream.receive_some()
        assert answer == b"typed"
        nursery.cancel_scope.cancel()


async def test_the_addresses_are_those_of_the_standard_library(autojump_clock: MockClock) -> None:
    async with two_networks() as (server, client):
        addresses = await server.wait_online()
        assert_type(addresses, tuple[IPv4Interface | IPv6Interface, ...])
        assert_type(await client.ping(str(addresses[0].ip)), float)


async def test_a_network_is_what_trios_own_interfaces_ask_for(autojump_clock: MockClock) -> None:
    async with two_networks() as (server, client):
        factory: trio.abc.SocketFactory = server
        resolver: trio.abc.HostnameResolver = client
        assert_type(await server.open_udp_socket(), trio.socket.SocketType)
        with factory.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("0.0.0.0", 0))
        assert await resolver.getaddrinfo(b"server", 7)
        with client.as_default() as same:
            assert_type(same, zttrio.Network)
            assert same is client


async def test_an_instrument_of_ones_own_sees_frames(autojump_clock: MockClock) -> None:
    class Count(Instrument):
        def __init__(self) -> None:
            self.octets = 0

        def frames_sent(self, frames: Sequence[Frame], now: float) -> None:
            assert now >= 0
            self.octets += sum(len(frame) for frame in frames)

    count = Count()
    lab = Lab(seed=1)
    async with (
        lab.network("server") as server,
        lab.network("client", instruments=[count]) as client,
    ):
        await client.ping(str((await server.wait_online())[0].ip))
    assert count.octets > 0
