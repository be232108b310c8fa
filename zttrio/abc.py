"""What users may implement: a wire of their own, and instruments that watch frames go by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from ipaddress import (
        IPv4Address,
        IPv4Interface,
        IPv4Network,
        IPv6Address,
        IPv6Interface,
        IPv6Network,
    )

    import trio

    from .errors import JoinError
    from .header.frame import Frame

__all__ = ["Instrument", "ManagedRoute", "Settings", "Wire", "WirePort"]


@attrs.frozen
class ManagedRoute:
    """A route that the wire's network wants us to have.

    Attributes:
        prefix: where it leads.
        gateway: the next hop, of the same family, or None if *prefix* is on the wire.
        metric: of two routes with one prefix the lower is taken.
    """

    prefix: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None = None
    metric: int = 0

    def __str__(self) -> str:
        return str(self.prefix) if self.gateway is None else f"{self.prefix} via {self.gateway}"


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that a wire's network wants of the stack; what is not in it goes away.

    Attributes:
        addresses: our own, with their prefix lengths.
        routes: beside those that follow from the addresses.
        mtu: octets of the largest IP packet, 0 to leave it as it is.
        dns_domain: of the names that *dns_servers* know.
        dns_servers: their addresses; nothing here asks them yet, programs may.
    """

    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    routes: tuple[ManagedRoute, ...] = ()
    mtu: int = 0
    dns_domain: str = ""
    dns_servers: tuple[IPv4Address | IPv6Address, ...] = ()


class WirePort(Protocol):
    """The network's end of the cable: what a wire calls while it runs.

    The methods are synchronous and never raise.
    """

    def deliver(self, frames: list[Frame]) -> None:
        """Hand a burst of received frames to the stack, in order.

        The list belongs to the stack afterwards.  If the stack is behind, the oldest burst that
        waits is dropped and counted, as a network card's ring does.
        """

    def send_ready(self) -> None:
        """Say that `Wire.send` accepts frames again after it accepted fewer than it was given."""

    def configure(self, settings: Settings) -> None:
        """Give the stack the addresses, routes and MTU that the wire's network wants.

        Only what differs from the last call is changed, so connections live on.  What the user
        has given stays, and what no host can have is left out and counted.
        """

    def failure_changed(self) -> None:
        """Say that `Wire.failure` is another one, or gone."""


class Wire(ABC):
    """Where Ethernet frames come from and go to.

    A wire object serves one `zttrio.Network`, once.

    Attributes:
        name: what people call it, for messages and `Network.status`.
        mac: the six octets of the hardware address that frames to us carry.
        mtu: the largest IP packet in octets (without the Ethernet header), as the wire starts;
            `WirePort.configure` may change it.
        max_segment: octets of TCP payload that one frame may carry under one header when it has a
            `Frame.gso_size`; 0 if the wire wants plain frames only.  More than 65535 for one that
            can do with frames too long for the length field of their IP header.
        checksum_offload: True if `send` takes frames with CHECKSUM_PARTIAL.
        configures_addresses: True if addresses are chosen on the wire without configuration when
            the user gives none (RFC 3927's method).
        ipv6_prefix: with `configures_addresses`, 16 octets of the /64 that the wire's stations
            choose IPv6 addresses in, or None.
        has_unique_macs: True if the wire sees to it that no two stations have the same *mac*.
        configures: True if addresses and routes come by `WirePort.configure`.  A Network is online
            only after the first call then, and listens to no router's advertisements.
        preferred_packet: octets of the largest IP packet that TCP should send, 0 for *mtu*.
        failure: why the wire's network does not let us in at the moment, or None.
        identity: what the wire's network knows us by, for people, or None.
    """

    name: str
    mac: bytes
    mtu: int
    max_segment: int = 0
    checksum_offload: bool = False
    configures_addresses: bool = False
    ipv6_prefix: bytes | None = None
    has_unique_macs: bool = False
    configures: bool = False
    preferred_packet: int = 0
    failure: JoinError | None = None
    identity: str | None = None

    @abstractmethod
    async def run(self, port: WirePort, *, task_status: trio.TaskStatus[None] = ...) -> None:
        """Carry frames until cancelled; ``task_status.started()`` once `send` may be called.

        `name`, `mac` and `mtu` are final when this has started.  Everything the wire opened is
        closed when this returns.

        Raises:
            WireError: the wire cannot be opened (before it has started) or died (afterwards).
        """

    @abstractmethod
    def send(self, frames: Sequence[Frame]) -> int:
        """Take frames for the wire, in order, and return how many were taken.

        Never blocks and never raises.  Frames that were not taken stay with the caller, who
        offers them again after `WirePort.send_ready`.  A frame that can never be sent is taken,
        dropped and counted.
        """

    def follow(self, addresses: AbstractSet[bytes], macs: AbstractSet[bytes]) -> None:
        """Learn what the stack listens to, whenever that changes; for wires that have to know.

        Must not call back.

        Args:
            addresses: its own IP addresses, packed.
            macs: the hardware addresses of groups whose frames are for it, broadcast among them.
        """

    def counters(self) -> dict[str, int]:
        """What the wire has counted so far, drops by reason among it."""
        return {}

    def peers(self) -> list[str]:
        """A line for each station that the wire itself has to do with, and how it is reached."""
        return []

    def publish(self, name: str, addresses: Sequence[bytes]) -> None:
        """Make *name* resolve to *addresses* (packed) for the other stations, if the wire can.

        Raises:
            WireError: another station has the name.
        """

    def lookup(self, name: str) -> list[bytes]:
        """Packed addresses that a station of this wire has published for *name*, or none."""
        return []


class Instrument(ABC):
    """Watches frames pass between stack and wire; see `zttrio.Network`'s *instruments*.

    An exception leaves the network as the wire's death would: instruments must not raise.
    """

    def frames_received(self, frames: Sequence[Frame], now: float) -> None:
        """Called for each burst before the stack sees it; *now* is trio's clock in seconds."""

    def frames_sent(self, frames: Sequence[Frame], now: float) -> None:
        """Called for each burst that the wire has taken."""
