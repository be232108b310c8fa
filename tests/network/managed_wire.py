"""A simulated cable whose network has a will of its own, as a ZeroTier network has."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import trio

from zttrio.abc import ManagedRoute, Settings, Wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from zttrio import JoinError
    from zttrio.abc import WirePort
    from zttrio.header.frame import Frame
    from zttrio.wire import MemorySegment


def settings(*addresses: str, routes: Sequence[str] = (), mtu: int = 0) -> Settings:
    """Settings as people write them; a route is ``PREFIX`` or ``PREFIX via GATEWAY``."""
    found = []
    for route in routes:
        prefix, _, gateway = route.partition(" via ")
        found.append(ManagedRoute(ip_network(prefix), ip_address(gateway) if gateway else None))
    return Settings(addresses=tuple(map(ip_interface, addresses)), routes=tuple(found), mtu=mtu)


class ManagedWire(Wire):
    """A station of a memory segment that the test configures; remembers what it was told."""

    configures = True
    has_unique_macs = True

    def __init__(
        self, segment: MemorySegment, name: str, early: Settings | None = None, preferred: int = 0
    ) -> None:
        self._inner = segment.attach(name)
        self.name = name
        self.mac = self._inner.mac
        self.mtu: int = self._inner.mtu
        self.preferred_packet: int = preferred
        self.port: WirePort
        self.followed: list[tuple[AbstractSet[bytes], AbstractSet[bytes]]] = []
        self.sent: list[bytes] = []
        self._early = early

    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.port = port
        if self._early is not None:
            port.configure(self._early)
        await self._inner.run(port, task_status=task_status)

    def send(self, frames: Sequence[Frame]) -> int:
        self.sent += map(bytes, frames)
        return self._inner.send(frames)

    def follow(self, addresses: AbstractSet[bytes], macs: AbstractSet[bytes]) -> None:
        self.followed.append((addresses, macs))

    def fail(self, failure: JoinError | None) -> None:
        """Let the wire's network refuse us, or not any longer."""
        self.failure: JoinError | None = failure
        self.port.failure_changed()
