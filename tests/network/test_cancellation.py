"""Cancelling any public await, at any of its checkpoints, leaves nothing behind."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from zttrio.testing import Lab

from .conftest import Pair, open_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

STEPS = 200  # far more than any of the operations has; reaching it fails the test


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when its task has run so many steps."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, steps: int) -> None:
        self._task, self._scope, self._steps = task, scope, steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            if self._steps == 0:
                self._scope.cancel()
            self._steps -= 1


async def cancel_everywhere(operation: Callable[[], Awaitable[object]]) -> int:
    """Run *operation* again and again, cancelled one step later each time, until it finishes.

    Returns how often it was cancelled.
    """
    for steps in range(STEPS):
        with trio.CancelScope() as scope:
            instrument = CancelAt(trio.lowlevel.current_task(), scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                await operation()
            finally:
                with suppress(KeyError):
                    trio.lowlevel.remove_instrument(instrument)
        if not scope.cancelled_caught:
            return steps
    pytest.fail(f"not finished after {STEPS} steps")


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        with suppress(trio.BrokenResourceError):
            async for chunk in stream:
                await stream.send_all(chunk)


@asynccontextmanager
async def open_echo_pair() -> AsyncGenerator[tuple[Pair, int], None]:
    async with open_pair() as pair, trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            lambda task_status: pair.b.serve_tcp(echo, 0, host="0.0.0.0", task_status=task_status)
        )
        yield pair, listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
    # leaving the pair checks nothing: the tests do, with the service stopped


async def test_cancelling_open_tcp_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        async with trio.open_nursery() as nursery:
            (listener,) = await pair.b.open_tcp_listeners(0, host="0.0.0.0")
            nursery.start_soon(trio.serve_listeners, echo, [listener])
            port = listener.socket.getsockname()[1]

            async def operation() -> None:
                stream = await pair.a.open_tcp_stream(pair.b_host, port)
                await stream.aclose()

            assert await cancel_everywhere(operation) >= 2
            nursery.cancel_scope.cancel()
        await pair.check_nothing_is_left()


async def test_cancelling_connect_accept_send_and_receive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:

        async def operation() -> None:
            async with trio.open_nursery() as nursery:
                (listener,) = await pair.b.open_tcp_listeners(0, host="0.0.0.0")
                nursery.start_soon(trio.serve_listeners, echo, [listener])
                port = listener.socket.getsockname()[1]
                async with await pair.a.open_tcp_stream(pair.b_host, port) as stream:
                    await stream.send_all(bytes(200_000))
                    await stream.send_eof()
                    received = 0
                    async for chunk in stream:
                        received += len(chunk)
                    assert received == 200_000
                nursery.cancel_scope.cancel()

        assert await cancel_everywhere(operation) >= 5
        await pair.check_nothing_is_left()


async def test_cancelling_accept_loses_no_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        (listener,) = await pair.b.open_tcp_listeners(0, host="0.0.0.0")
        port = listener.socket.getsockname()[1]
        clients = [await pair.a.open_tcp_stream(pair.b_host, port) for _ in range(3)]
        accepted: list[trio.SocketStream] = []

        async def operation() -> None:
            accepted.append(await listener.accept())

        for _ in clients:
            await cancel_everywhere(operation)
        assert len(accepted) == 3
        for stream in clients + accepted:
            await stream.aclose()
        await listener.aclose()
        await pair.check_nothing_is_left()


async def test_cancelling_receive_some_loses_no_data(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        one, other = await pair.connect()
        received: list[bytes] = []

        async def operation() -> None:
            received.append(await other.receive_some(1))

        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.send_all, b"ab")
                await cancel_everywhere(operation)
                await cancel_everywhere(operation)
        assert b"".join(received) == b"ab" * 5
        await one.aclose()
        await other.aclose()
        await pair.check_nothing_is_left()


async def test_cancelling_datagram_calls_loses_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        received: list[bytes] = []

        async def operation() -> None:
            sock = await pair.a.open_udp_socket()
            with sock:
                await sock.sendto(b"lost", (pair.b_host, 9))

        await cancel_everywhere(operation)
        receiver = await pair.b.open_udp_socket(5353)
        sender = await pair.a.open_udp_socket()
        for number in range(3):
            await sender.sendto(bytes([number]), (pair.b_host, 5353))

        async def receive() -> None:
            received.append((await receiver.recvfrom(10))[0])

        for _ in range(3):
            await cancel_everywhere(receive)
        assert received == [b"\0", b"\1", b"\2"]
        sender.close()
        receiver.close()
        await pair.check_nothing_is_left()


async def test_cancelling_ping_and_wait_online(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        assert await cancel_everywhere(lambda: pair.a.ping(pair.b_host)) >= 1
        assert await cancel_everywhere(pair.a.wait_online) >= 1
        assert await cancel_everywhere(lambda: pair.a.getaddrinfo("localhost", 1)) >= 1
        await pair.check_nothing_is_left()


async def test_cancelling_the_network_itself(autojump_clock: trio.testing.MockClock) -> None:
    lab = Lab(seed=3)
    async with lab.network("server") as server:
        await server.wait_online()
        host = str(server.addresses[0].ip)
        async with trio.open_nursery() as nursery:
            (listener,) = await server.open_tcp_listeners(7, host="0.0.0.0")
            nursery.start_soon(trio.serve_listeners, echo, [listener])

            async def operation() -> None:
                async with lab.network("client") as client:
                    await client.wait_online()
                    stream = await client.open_tcp_stream(host, 7)
                    await stream.send_all(b"hello")
                    assert await stream.receive_some() == b"hello"

            assert await cancel_everywhere(operation) >= 5
            nursery.cancel_scope.cancel()
        await trio.sleep(200)
        assert server.status().connections == ()
