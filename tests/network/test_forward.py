"""`forward_tcp` and what it is made of: ends and failures travel with the data."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from zttrio.forward import splice_with

from .conftest import Pair, open_pair, wildcard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

RESET = struct.pack("@ii", 1, 0)


@asynccontextmanager
async def open_chain() -> AsyncGenerator[tuple[Pair, trio.SocketListener]]:
    """Clients of a's port 80 end up at a listener on b."""
    async with open_pair() as pair, trio.open_nursery() as nursery:
        (target,) = await pair.b.open_tcp_listeners(8080, host=wildcard())
        connect = partial(pair.a.open_tcp_stream, pair.b_host, 8080)
        await nursery.start(partial(pair.a.serve_tcp, splice_with(connect), 80, host=wildcard()))
        yield pair, target
        nursery.cancel_scope.cancel()


def a_host(pair: Pair) -> str:
    return str(pair.a.addresses[0].ip)


async def test_a_half_close_arrives_as_a_half_close(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_chain() as (pair, target):
        client = await pair.b.open_tcp_stream(a_host(pair), 80)
        server = await target.accept()
        await client.send_all(b"question")
        await client.send_eof()
        assert await server.receive_some() == b"question"
        assert await server.receive_some() == b""
        await server.send_all(b"answer")
        await server.aclose()
        assert await client.receive_some() == b"answer"
        assert await client.receive_some() == b""
        await client.aclose()


async def test_a_reset_arrives_as_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    async with open_chain() as (pair, target):
        client = await pair.b.open_tcp_stream(a_host(pair), 80)
        server = await target.accept()
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await server.aclose()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await client.receive_some()


async def test_a_target_that_refuses_resets_its_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_chain() as (pair, target):
        await target.aclose()
        client = await pair.b.open_tcp_stream(a_host(pair), 80)
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await client.receive_some()


@pytest.mark.kernel
async def test_clients_of_the_network_reach_a_kernel_server() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"from the kernel: " + await stream.receive_some())

    async with open_pair() as pair, trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        await nursery.start(pair.b.forward_tcp, 80, ("127.0.0.1", port))
        client = await pair.a.open_tcp_stream(pair.b_host, 80)
        await client.send_all(b"hello")
        received = b""
        async for chunk in client:
            received += chunk
        assert received == b"from the kernel: hello"
        await client.aclose()
        nursery.cancel_scope.cancel()
