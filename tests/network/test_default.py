"""`as_default` moves trio's own functions to the network, for the tasks of one block only."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from zttrio.socket import Socket

from .conftest import open_pair


async def test_inside_the_block_trio_s_functions_use_the_network(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:

        async def echo(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.send_all(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            with pair.b.as_default():
                listeners = await nursery.start(trio.serve_tcp, echo, 7)
                assert isinstance(listeners[0].socket, Socket)
            with pair.a.as_default():
                stream = await trio.open_tcp_stream(pair.b_host, 7)
                assert isinstance(stream.socket, Socket)
                await stream.send_all(b"hi")
                assert await stream.receive_some() == b"hi"
                await stream.aclose()
            nursery.cancel_scope.cancel()


async def test_outside_the_block_sockets_are_the_kernel_s(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        with pair.a.as_default():
            inner = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            assert isinstance(inner, Socket)
            unix = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            assert not isinstance(unix, Socket)
            unix.close()
            inner.close()
        outer = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        assert not isinstance(outer, Socket)
        outer.close()
    after = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    assert not isinstance(after, Socket)
    after.close()


async def test_each_task_has_the_network_of_its_block(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        names: dict[str, str] = {}

        async def look(name: str) -> None:
            await trio.sleep(1)
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                await sock.connect((pair.b_host, 7))
                names[name] = sock.getsockname()[0]

        async with trio.open_nursery() as nursery:
            with pair.a.as_default():
                nursery.start_soon(look, "a")
            with pair.b.as_default():
                nursery.start_soon(look, "b")
        assert names == {"a": str(pair.a.addresses[0].ip), "b": pair.b_host}


async def test_names_resolve_on_the_network_and_nowhere_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        with pair.a.as_default():
            (found, *_) = await trio.socket.getaddrinfo("b", 7, type=socket.SOCK_STREAM)
            assert found[4] == (pair.b_host, 7)
            (found, *_) = await trio.socket.getaddrinfo("b.local", 7, type=socket.SOCK_STREAM)
            assert found[4] == (pair.b_host, 7)
            with pytest.raises(socket.gaierror):
                await trio.socket.getaddrinfo("www.example.com", 80)
            assert await trio.socket.getnameinfo((pair.b_host, 80), 0) == (pair.b_host, "80")


async def test_a_factory_that_was_there_before_comes_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Factory(trio.abc.SocketFactory):
        calls = 0

        def socket(
            self,
            family: int = 2,
            type: int = 1,  # noqa: A002 - trio's name
            proto: int = 0,
        ) -> trio.socket.SocketType:
            self.calls += 1
            return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))

    factory = Factory()
    trio.socket.set_custom_socket_factory(factory)
    async with open_pair():
        trio.socket.socket().close()
        assert factory.calls == 1
    trio.socket.socket().close()
    assert factory.calls == 2
    assert trio.socket.set_custom_socket_factory(None) is factory
