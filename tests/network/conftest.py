"""Two hosts on a simulated segment, in virtual time."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from zttrio import Config, Network
from zttrio.testing import Lab, Link

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

QUICK = Config(time_wait=1.0, dad_transmits=0)
"""TIME_WAIT lasts one virtual second, so that a test can wait for it; IPv6 is ready at once."""


_family = ContextVar("family", default=4)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test over IPv4 and over IPv6."""
    token = _family.set(request.param)
    yield request.param
    _family.reset(token)


def wildcard() -> str:
    """What a listener for every address of the test's family binds."""
    return {4: "0.0.0.0", 6: "::"}[_family.get()]


def address_family() -> socket.AddressFamily:
    """AF_INET or AF_INET6, the test's family."""
    return {4: socket.AF_INET, 6: socket.AF_INET6}[_family.get()]


def host_of(network: Network) -> str:
    """The address of *network* in the test's family."""
    return next(str(i.ip) for i in network.addresses if i.version == _family.get())


def loopback() -> str:
    """Ourselves, in the test's family."""
    return {4: "127.0.0.1", 6: "::1"}[_family.get()]


def elsewhere() -> str:
    """An address that no route of ours leads to, in the test's family."""
    return {4: "203.0.113.1", 6: "2001:db8::1"}[_family.get()]


@attrs.define
class Pair:
    """Two online Networks."""

    lab: Lab
    a: Network
    b: Network

    @property
    def a_host(self) -> str:
        """An address of a, of the test's family."""
        return host_of(self.a)

    @property
    def b_host(self) -> str:
        """An address of b, of the test's family."""
        return host_of(self.b)

    async def connect(self, port: int = 0) -> tuple[trio.SocketStream, trio.SocketStream]:
        """A stream from a to b, and b's end of it."""
        (listener, *others) = await self.b.open_tcp_listeners(port, host=wildcard())
        assert not others
        async with trio.open_nursery() as nursery:
            accepted: list[trio.SocketStream] = []

            async def accept() -> None:
                accepted.append(await listener.accept())

            nursery.start_soon(accept)
            name = listener.socket.getsockname()
            stream = await self.a.open_tcp_stream(self.b_host, name[1])
        await listener.aclose()
        return stream, accepted[0]

    async def check_nothing_is_left(self) -> None:
        """No connection, socket or port once TIME_WAIT is over."""
        await trio.sleep(2 * QUICK.time_wait + 5)
        for network in (self.a, self.b):
            status = network.status()
            assert status.connections == (), status
            assert status.sockets == (), status
            assert status.ports == (), status
            assert not network._driver.sockets, network._driver.sockets


@asynccontextmanager
async def open_pair(
    *, link: Link | None = None, config: Config = QUICK, seed: int = 1
) -> AsyncGenerator[Pair, None]:
    """Two Networks, a and b, on a segment of their own."""
    lab = Lab(seed=seed, link=link or Link(delay=0.001))
    async with lab.network("a", config=config) as a, lab.network("b", config=config) as b:
        await a.wait_online()
        await b.wait_online()
        yield Pair(lab, a, b)
