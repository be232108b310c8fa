"""What is known about the way to one destination, worked out once and kept.

A `Path` is what sending needs in one dictionary look-up.  It is thrown away when routes or
addresses change; what must survive that, a path MTU that somebody reported, lives in `PathMtus`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .neighbor import Neighbor
    from .timers import TimerQueue

__all__ = ["GROUP", "LOCAL", "MIN_MTU", "NOWHERE", "UNICAST", "Path", "PathMtus"]

UNICAST = 0
LOCAL = 1  # one of our own addresses: never reaches the wire
GROUP = 2  # multicast or broadcast: nobody is asked for a hardware address
NOWHERE = 3  # no route, or no address to send from

MIN_MTU = {4: 552, 16: 1280}
"""Reports below this are not followed to the letter, by octets of an address.

IPv4: Linux's min_pmtu; smaller paths get packets that routers may cut.  IPv6: RFC 8200 section 5.
"""
MTU_TIMEOUT = 600.0  # RFC 8201 4 and RFC 1191 6.3: try a larger one after ten minutes
MTU_LIMIT = 1024  # reported path MTUs at once; arbitrary


class Path:
    """The way to one destination.  Plain slots: the sending path reads it for every packet.

    Attributes:
        destination: packed.
        kind: UNICAST, LOCAL, GROUP or NOWHERE.
        error: with NOWHERE, the errno.
        source: the packed address to send from when the sender has no opinion.
        next_hop: packed address of the neighbor that forwards; of a group the group itself.
        neighbor: its cache entry; stale entries replace themselves on use.
        mtu: octets of the largest packet.
        room: octets behind an IP header without options.
        hop_limit: what packets get if their sender does not say.
        may_discover: packets may say that they must not be cut.
        needs_checksum: transports have to fill in their checksum.
        max_segment: octets of TCP payload under one header, 0 for no super-segments.
        address_sum: checksum of *source* and *destination*, for the IPv4 header.
        identification: of the last packet that may be cut.
        is_broadcast: of a GROUP, that it is a broadcast address.
    """

    __slots__ = (
        "address_sum",
        "destination",
        "error",
        "hop_limit",
        "identification",
        "is_broadcast",
        "kind",
        "max_segment",
        "may_discover",
        "mtu",
        "needs_checksum",
        "neighbor",
        "next_hop",
        "room",
        "source",
    )

    def __init__(self, destination: bytes, kind: int, neighbor: Neighbor) -> None:
        self.destination = destination
        self.kind = kind
        self.neighbor = neighbor
        self.next_hop = destination
        self.source = b""
        self.error = 0
        self.mtu = 0
        self.room = 0
        self.hop_limit = 64
        self.may_discover = True
        self.needs_checksum = True
        self.max_segment = 0
        self.address_sum = 0
        self.identification = 0
        self.is_broadcast = False


class PathMtus:
    """Path MTUs that somebody reported (RFC 1191, RFC 8201); a timer owner, bounded.

    Args:
        timers: where the one deadline is kept.
        changed: called with a destination whose path MTU has changed.
    """

    def __init__(self, timers: TimerQueue, changed: Callable[[bytes], None]) -> None:
        self.deadline = inf
        self.queued = inf
        self._timers = timers
        self._changed = changed
        # destination -> (mtu, when it is forgotten), oldest first
        self._reported: dict[bytes, tuple[int, float]] = {}

    def get(self, destination: bytes) -> int | None:
        """The reported path MTU in octets, or None."""
        entry = self._reported.get(destination)
        return None if entry is None else entry[0]

    def lower(self, destination: bytes, mtu: int, now: float) -> None:
        """Remember *mtu* octets for ten minutes; whether to believe it is the caller's question."""
        self._reported.pop(destination, None)
        if len(self._reported) >= MTU_LIMIT:
            oldest = next(iter(self._reported))
            del self._reported[oldest]
            self._changed(oldest)
        self._reported[destination] = (mtu, now + MTU_TIMEOUT)
        if self.deadline == inf:
            self.deadline = now + MTU_TIMEOUT
            self._timers.schedule(self)
        self._changed(destination)

    def handle_timer(self, now: float) -> None:
        """Forget what is too old."""
        while self._reported:
            destination, (_, until) = next(iter(self._reported.items()))
            if until > now:
                self.deadline = until
                return
            del self._reported[destination]
            self._changed(destination)
        self.deadline = inf

    def __len__(self) -> int:
        return len(self._reported)
