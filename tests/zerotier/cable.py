"""UDP without a kernel: sockets that `NodeTask` can use, joined by a cable inside this process."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from zttrio.zerotier.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zttrio.wire.zerotier.sockets import SocketCounters
    from zttrio.zerotier.sender import Datagram


class CableSocket:
    """One end."""

    def __init__(self, cable: Cable, endpoint: Endpoint) -> None:
        self.length = len(endpoint.ip)
        self.ip, self.port = endpoint
        self.endpoint = endpoint
        self.is_closed = False
        self.is_blocked = False
        self.error: Exception | None = None
        self._cable = cable
        self._arrived: deque[tuple[Endpoint, bytes]] = deque()
        self._backlog: list[Datagram] = []
        self._readable = trio.Event()
        self._writable = trio.Event()

    async def wait_readable(self) -> None:
        await self._readable.wait()

    async def wait_writable(self) -> None:
        await self._writable.wait()

    def receive(self) -> list[tuple[Endpoint, bytes]]:
        if self.error is not None:
            raise self.error
        arrived = list(self._arrived)
        self._arrived.clear()
        self._readable = trio.Event()
        return arrived

    def send(self, datagrams: Sequence[Datagram]) -> None:
        for datagram in datagrams:
            if self.is_blocked:
                self._backlog.append(datagram)
            elif not datagram.ttl:
                self._cable.carry(self.endpoint, datagram.remote, datagram.data)

    @property
    def has_backlog(self) -> bool:
        return bool(self._backlog)

    def send_backlog(self) -> None:
        waiting, self._backlog = self._backlog, []
        self.send(waiting)

    def close(self) -> None:
        self.is_closed = True

    def unblock(self) -> None:
        """The kernel has room again."""
        self.is_blocked = False
        self._writable.set()

    def die(self, error: Exception) -> None:
        """The next receive fails."""
        self.error = error
        self._readable.set()

    def arrive(self, source: Endpoint, data: bytes) -> None:
        if not self.is_closed:
            self._arrived.append((source, data))
            self._readable.set()


class Cable:
    """Where all of them meet."""

    def __init__(self) -> None:
        self.sockets: dict[Endpoint, CableSocket] = {}
        self.cut: set[Endpoint] = set()
        """Ends that neither send nor receive."""

    def opener(
        self, text: str
    ) -> Callable[[Sequence[bytes], int, SocketCounters], list[CableSocket]]:
        """What makes the sockets of a node at *text* (``10.0.0.1/9993``)."""

        def open_sockets(
            addresses: Sequence[bytes], port: int, counters: SocketCounters
        ) -> list[CableSocket]:
            del addresses, port, counters
            endpoint = Endpoint.parse(text)
            made = self.sockets[endpoint] = CableSocket(self, endpoint)
            return [made]

        return open_sockets

    def carry(self, source: Endpoint, destination: Endpoint, data: bytes) -> None:
        target = self.sockets.get(destination)
        if target is not None and not {source, destination} & self.cut:
            target.arrive(source, data)
