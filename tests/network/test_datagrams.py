"""UDP through a Network."""

from __future__ import annotations

import errno
import select
import socket

import pytest
import trio
import trio.testing

from .conftest import address_family, open_pair, wildcard

pytestmark = pytest.mark.usefixtures("family")


async def test_datagrams_keep_their_edges_and_their_sender(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        server = await pair.b.open_udp_socket(53, host=wildcard())
        client = await pair.a.open_udp_socket(0, host=wildcard())
        sizes = [0, 1, 1400, 65_487]  # the longest that both families carry
        for size in sizes:
            await client.sendto(bytes(size), (pair.b_host, 53))
        for size in sizes:
            data, sender = await server.recvfrom(65_535)
            assert len(data) == size
            assert sender[:2] == (pair.a_host, client.getsockname()[1])
        await client.sendto(b"0123456789", (pair.b_host, 53))
        data, ancillary, flags, _ = await server.recvmsg(4)
        assert (data, ancillary, flags) == (b"0123", [], socket.MSG_TRUNC)
        client.close()
        server.close()
        await pair.check_nothing_is_left()


async def test_a_connected_socket_learns_that_nobody_listens(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        client = pair.a.socket(address_family(), socket.SOCK_DGRAM)
        await client.connect((pair.b_host, 9))
        assert client.getpeername()[:2] == (pair.b_host, 9)
        await client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            await client.recv(1)
        await client.send(b"still nobody?")
        await trio.sleep(1)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        client.close()
        await pair.check_nothing_is_left()


async def test_a_connected_socket_hears_its_peer_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        server = await pair.b.open_udp_socket(7, host=wildcard())
        stranger = await pair.b.open_udp_socket(8, host=wildcard())
        client = pair.a.socket(address_family(), socket.SOCK_DGRAM)
        await client.connect((pair.b_host, 7))
        await stranger.sendto(b"wrong", client.getsockname())
        await server.sendto(b"right", client.getsockname())
        assert await client.recv(10) == b"right"
        for sock in (server, stranger, client):
            sock.close()
        await pair.check_nothing_is_left()


async def test_the_receive_queue_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        server = await pair.b.open_udp_socket(7, host=wildcard())
        client = await pair.a.open_udp_socket(0, host=wildcard())
        for _ in range(1000):
            await client.sendto(bytes(1000), (pair.b_host, 7))
        await trio.sleep(1)
        assert pair.b.status().sockets[0].queue <= pair.b.config.udp_receive_buffer
        received = 0
        with trio.move_on_after(1):
            while True:
                await server.recv(2000)
                received += 1
        assert 0 < received < 1000
        client.close()
        server.close()


async def test_broadcast_reaches_everybody_who_may(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:  # IPv6 has no broadcast
        server = await pair.b.open_udp_socket(67)
        client = await pair.a.open_udp_socket(68)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        await client.sendto(b"discover", ("<broadcast>", 67))
        data, sender = await server.recvfrom(100)
        assert (data, sender[1]) == (b"discover", 68)
        client.close()
        server.close()


async def test_the_descriptor_polls_as_the_socket_reads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        server = await pair.b.open_udp_socket(7, host=wildcard())
        client = await pair.a.open_udp_socket(0, host=wildcard())
        poll = select.poll()
        poll.register(server.fileno(), select.POLLIN)
        for _ in range(3):
            assert not poll.poll(0)
            assert not server.is_readable()
            await client.sendto(b"x", (pair.b_host, 7))
            await trio.sleep(1)
            assert poll.poll(0)
            assert server.is_readable()
            await server.recv(1)
        one, other = await pair.connect()
        stream_poll = select.poll()
        stream_poll.register(other.socket.fileno(), select.POLLIN)
        for _ in range(3):
            assert not stream_poll.poll(0)
            await one.send_all(b"xy")
            await trio.sleep(1)
            assert stream_poll.poll(0)
            assert await other.receive_some(1) == b"x"
            assert stream_poll.poll(0)
            assert await other.receive_some(1) == b"y"
        await one.send_eof()
        await trio.sleep(1)
        assert stream_poll.poll(0)
        client.close()
        server.close()
        await one.aclose()
        await other.aclose()
