"""What users may implement: a wire of their own, and instruments that watch frames go by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio

    from .header.frame import Frame

__all__ = ["Instrument", "Wire", "WirePort"]


class WirePort(Protocol):
    """The network's end of the cable: what a wire calls while it runs.

    Both methods are synchronous and never raise.
    """

    def deliver(self, frames: list[Frame]) -> None:
        """Hand a burst of received frames to the stack, in order.

        The list belongs to the stack afterwards.  If the stack is behind, the oldest burst that
        waits is dropped and counted, as a network card's ring does.
        """

    def send_ready(self) -> None:
        """Say that `Wire.send` accepts frames again after it accepted fewer than it was given."""


class Wire(ABC):
    """Where Ethernet frames come from and go to.

    A wire object serves one `zttrio.Network`, once.

    Attributes:
        name: what people call it, for messages and `Network.status`.
        mac: the six octets of the hardware address that frames to us carry.
        mtu: the largest IP packet in octets (without the Ethernet header).
        max_segment: octets of TCP payload that one frame may carry under one header when it has a
            `Frame.gso_size`; 0 if the wire wants plain frames only.
        checksum_offload: True if `send` takes frames with CHECKSUM_PARTIAL.
        configures_addresses: True if addresses are chosen on the wire without configuration when
            the user gives none (RFC 3927's method).
        ipv6_prefix: with `configures_addresses`, 16 octets of the /64 that the wire's stations
            choose IPv6 addresses in, or None.
        has_unique_macs: True if the wire sees to it that no two stations have the same *mac*.
    """

    name: str
    mac: bytes
    mtu: int
    max_segment: int = 0
    checksum_offload: bool = False
    configures_addresses: bool = False
    ipv6_prefix: bytes | None = None
    has_unique_macs: bool = False

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

    def counters(self) -> dict[str, int]:
        """What the wire has counted so far, drops by reason among it."""
        return {}

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
