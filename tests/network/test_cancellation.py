"""Cancelling any public await, at any of its checkpoints, leaves nothing behind."""

from __future__ import annotations

import inspect
from contextlib import suppress
from socket import SOCK_DGRAM
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from zttrio import InterceptError, Network
from zttrio.socket import DatagramSocket, StreamSocket
from zttrio.testing import Lab

from .conftest import address_family, host_of, open_pair, wildcard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("family")

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


async def test_cancelling_open_tcp_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        async with trio.open_nursery() as nursery:
            (listener,) = await pair.b.open_tcp_listeners(0, host=wildcard())
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
                (listener,) = await pair.b.open_tcp_listeners(0, host=wildcard())
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
        (listener,) = await pair.b.open_tcp_listeners(0, host=wildcard())
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
            sock = await pair.a.open_udp_socket(0, host=wildcard())
            with sock:
                await sock.sendto(b"lost", (pair.b_host, 9))

        await cancel_everywhere(operation)
        receiver = await pair.b.open_udp_socket(5353, host=wildcard())
        sender = await pair.a.open_udp_socket(0, host=wildcard())
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


async def test_cancelling_ping_and_lookups(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        assert await cancel_everywhere(lambda: pair.a.ping(pair.b_host)) >= 1
        assert await cancel_everywhere(pair.a.wait_online) >= 1
        assert await cancel_everywhere(lambda: pair.a.getaddrinfo("localhost", 1)) >= 1
        name = ("127.0.0.1", 1)
        assert await cancel_everywhere(lambda: pair.a.getnameinfo(name, 0)) >= 1
        await pair.check_nothing_is_left()


PUBLIC_AWAITS: dict[str, str] = {
    "Network.forward_tcp": "test_cancelling_what_opens_and_serves",
    "Network.getaddrinfo": "test_cancelling_ping_and_lookups",
    "Network.getnameinfo": "test_cancelling_ping_and_lookups",
    "Network.open_tcp_listeners": "test_cancelling_what_opens_and_serves",
    "Network.open_tcp_stream": "test_cancelling_open_tcp_stream",
    "Network.open_udp_socket": "test_cancelling_what_opens_and_serves",
    "Network.ping": "test_cancelling_ping_and_lookups",
    "Network.run_process": "test_cancelling_the_tap_service",
    "Network.serve_tap": "test_cancelling_the_tap_service",
    "Network.serve_tcp": "test_cancelling_what_opens_and_serves",
    "Network.wait_online": "test_cancelling_ping_and_lookups",
    "StreamSocket.accept": "test_cancelling_accept_loses_no_connection",
    "StreamSocket.bind": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.connect": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.recv": "test_cancelling_receive_some_loses_no_data",
    "StreamSocket.recv_into": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.recvfrom": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.recvfrom_into": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.recvmsg": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.recvmsg_into": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.send": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.sendmsg": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.sendto": "test_cancelling_every_call_of_a_stream_socket",
    "StreamSocket.wait_writable": "test_cancelling_every_call_of_a_stream_socket",
    "DatagramSocket.accept": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.bind": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.connect": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.recv": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.recv_into": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.recvfrom": "test_cancelling_datagram_calls_loses_nothing",
    "DatagramSocket.recvfrom_into": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.recvmsg": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.recvmsg_into": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.send": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.sendmsg": "test_cancelling_every_call_of_a_datagram_socket",
    "DatagramSocket.sendto": "test_cancelling_datagram_calls_loses_nothing",
    "DatagramSocket.wait_writable": "test_cancelling_every_call_of_a_datagram_socket",
}
"""Which test of this file cancels what."""


@pytest.mark.parametrize("owner", [Network, StreamSocket, DatagramSocket])
def test_no_public_await_was_forgotten(owner: type) -> None:
    found = {
        f"{owner.__name__}.{name}"
        for name in dir(owner)
        if not name.startswith("_") and inspect.iscoroutinefunction(getattr(owner, name))
    }
    listed = {name for name in PUBLIC_AWAITS if name.startswith(f"{owner.__name__}.")}
    assert found == listed
    assert all(test in globals() for test in PUBLIC_AWAITS.values())


async def test_cancelling_what_opens_and_serves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:

        async def listen() -> None:
            for listener in await pair.a.open_tcp_listeners(7, host=wildcard()):
                listener.socket.close()  # not aclose: a checkpoint in between is no news

        async def serve() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(pair.a.serve_tcp, echo, 7)
                nursery.cancel_scope.cancel()

        async def forward() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(pair.a.forward_tcp, 7, ("127.0.0.1", 9))
                nursery.cancel_scope.cancel()

        async def bind() -> None:
            (await pair.a.open_udp_socket(7, host=wildcard())).close()

        for operation in (listen, serve, forward, bind):
            assert await cancel_everywhere(operation) >= 1
            assert pair.a.status().ports == ()
            assert pair.a.status().sockets == ()
        await pair.check_nothing_is_left()


async def test_cancelling_the_tap_service(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    folder = tmp_path / "tap"
    async with open_pair() as pair:

        async def serve() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(pair.a.serve_tap, folder / "socket")
                nursery.cancel_scope.cancel()

        async def run() -> None:
            with suppress(InterceptError):
                await pair.a.run_process(["no-such-program-anywhere"])

        assert await cancel_everywhere(serve) >= 1
        assert not list(folder.iterdir())
        assert await cancel_everywhere(run) >= 1
        await pair.check_nothing_is_left()


async def test_cancelling_every_call_of_a_stream_socket(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair, trio.open_nursery() as nursery:
        (listener,) = await pair.b.open_tcp_listeners(7, host=wildcard())
        nursery.start_soon(trio.serve_listeners, echo, [listener])

        async def talk() -> None:
            with pair.a.socket(address_family()) as sock:
                await sock.bind(("", 0))
                await sock.connect((pair.b_host, 7))
                await sock.wait_writable()
                assert await sock.send(b"1") == 1
                assert await sock.sendto(b"2", (pair.b_host, 7)) == 1
                assert await sock.sendmsg([b"3", b"4"]) == 2
                buffer = bytearray(1)
                received = await sock.recv(1)
                received += (await sock.recvfrom(1))[0]
                received += (await sock.recvmsg(1))[0]
                assert await sock.recv_into(buffer) == 1
                assert received + buffer == b"1234"
                await sock.send(b"56")
                assert (await sock.recvfrom_into(buffer))[0] == 1
                assert (await sock.recvmsg_into([buffer]))[0] == 1

        assert await cancel_everywhere(talk) >= 12
        nursery.cancel_scope.cancel()
    # nothing is left: leaving the pair would wait for whatever is


async def test_cancelling_every_call_of_a_datagram_socket(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair, trio.open_nursery() as nursery:
        server = await pair.b.open_udp_socket(7, host=wildcard())

        async def answer() -> None:
            while True:
                data, address = await server.recvfrom(100)
                await server.sendto(data, address)

        nursery.start_soon(answer)

        async def talk() -> None:
            with pair.a.socket(address_family(), SOCK_DGRAM) as sock:
                await sock.bind(("", 0))
                await sock.connect((pair.b_host, 7))
                await sock.wait_writable()
                with pytest.raises(OSError, match="stream"):
                    await sock.accept()
                for _ in range(2):
                    await sock.send(b"1")
                    await sock.sendmsg([b"2", b"3"])
                buffer = bytearray(10)
                assert await sock.recv(10) == b"1"
                assert await sock.recv_into(buffer) == 2
                assert (await sock.recvmsg(10))[0] == b"1"
                assert (await sock.recvfrom_into(buffer))[0] == 2
                await sock.send(b"4")
                assert (await sock.recvmsg_into([buffer]))[0] == 1

        assert await cancel_everywhere(talk) >= 12
        nursery.cancel_scope.cancel()
        server.close()
        assert pair.a.status().ports == ()


async def test_cancelling_the_network_itself(autojump_clock: trio.testing.MockClock) -> None:
    lab = Lab(seed=3)
    async with lab.network("server") as server:
        await server.wait_online()
        host = host_of(server)
        async with trio.open_nursery() as nursery:
            (listener,) = await server.open_tcp_listeners(7, host=wildcard())
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
