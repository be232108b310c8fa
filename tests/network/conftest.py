"""Two hosts on a simulated segment, in virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio import Config, Network
from zttrio.testing import Lab, Link

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

QUICK = Config(time_wait=1.0)
"""TIME_WAIT lasts one virtual second, so that a test can wait for it."""


@attrs.define
class Pair:
    """Two online Networks."""

    lab: Lab
    a: Network
    b: Network

    @property
    def b_host(self) -> str:
        """An address of b."""
        return str(self.b.addresses[0].ip)

    async def connect(self, port: int = 0) -> tuple[trio.SocketStream, trio.SocketStream]:
        """A stream from a to b, and b's end of it."""
        (listener, *others) = await self.b.open_tcp_listeners(port, host="0.0.0.0")
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
