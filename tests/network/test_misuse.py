"""A program's mistakes get clear errors that say what to do."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import pytest

from zttrio import Config, Network

from .conftest import open_pair

if TYPE_CHECKING:
    import trio.testing


async def test_a_port_in_use_names_its_holder(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        (listener,) = await pair.a.open_tcp_listeners(7, host="0.0.0.0")
        with pytest.raises(OSError, match="7") as caught:
            await pair.a.open_tcp_listeners(7, host="0.0.0.0")
        assert caught.value.errno == errno.EADDRINUSE
        first = await pair.a.open_udp_socket(7)
        with pytest.raises(OSError, match="7") as caught:
            await pair.a.open_udp_socket(7)
        assert caught.value.errno == errno.EADDRINUSE
        first.close()
        await listener.aclose()
        (again,) = await pair.a.open_tcp_listeners(7, host="0.0.0.0")
        await again.aclose()
        await pair.check_nothing_is_left()


async def test_an_address_that_is_not_ours_cannot_be_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with pair.a.socket(socket.AF_INET, kind) as sock:
                with pytest.raises(OSError, match=r"203\.0\.113\.5") as caught:
                    await sock.bind(("203.0.113.5", 0))
                assert caught.value.errno == errno.EADDRNOTAVAIL
        await pair.check_nothing_is_left()


async def test_sockets_refuse_what_they_are_not(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        for arguments, code in (
            ((socket.AF_UNIX, socket.SOCK_STREAM), errno.EAFNOSUPPORT),
            ((socket.AF_INET, socket.SOCK_RAW), errno.ESOCKTNOSUPPORT),
            ((socket.AF_INET, socket.SOCK_STREAM, 17), errno.EPROTONOSUPPORT),
        ):
            with pytest.raises(OSError, match="socket") as caught:
                pair.a.socket(*arguments)
            assert caught.value.errno == code
        with pair.a.socket() as sock:
            for call in (sock.recv(1), sock.send(b"x"), sock.accept()):
                with pytest.raises(OSError) as caught:
                    await call
                assert caught.value.errno in (errno.ENOTCONN, errno.EINVAL)
            with pytest.raises(OSError, match="not connected"):
                sock.getpeername()
            with pytest.raises(OSError, match="not connected"):
                sock.shutdown(socket.SHUT_WR)
            with pytest.raises(OSError, match="option"):
                sock.getsockopt(socket.SOL_SOCKET, 9999)
            with pytest.raises(ValueError, match="address"):
                await sock.connect("10.0.0.1")
            await sock.bind(("", 0))
            with pytest.raises(OSError, match="already"):
                await sock.bind(("", 0))
        with pytest.raises(OSError, match="closed"):
            sock.getsockname()
        assert sock.fileno() == -1
        with pair.a.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(OSError, match="stream"):
                sock.listen()
            with pytest.raises(OSError, match="not connected"):
                sock.shutdown(socket.SHUT_WR)
            with pytest.raises(OSError) as caught:
                await sock.send(b"where to?")
            assert caught.value.errno == errno.EDESTADDRREQ
            with pytest.raises(OSError) as caught:
                await sock.sendto(bytes(65_508), (pair.b_host, 9))
            assert caught.value.errno == errno.EMSGSIZE
            with pytest.raises(OSError) as caught:
                await sock.sendto(b"all", ("255.255.255.255", 9))
            assert caught.value.errno == errno.EACCES
        await pair.check_nothing_is_left()


def test_network_refuses_nonsense_before_it_starts() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0"):
        Network(addresses=["10.0.0.300/24"])
    with pytest.raises(ValueError, match="linger"):
        Config(linger=-1)
    with pytest.raises(ValueError, match="congestion"):
        Config(congestion="hope")


async def test_names_that_nobody_has_are_not_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        with pytest.raises(socket.gaierror) as caught:
            await pair.a.open_tcp_stream("nobody.example", 7)
        assert caught.value.errno == socket.EAI_NONAME
