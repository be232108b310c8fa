"""What happens to an endpoint, as bits: the seed's `EV_CONN`, `EV_RD`, `EV_WR` and their kin.

An endpoint (a TCP connection, a listener, a UDP endpoint) collects the bits it `wanted`; the stack
lists each endpoint once until the driver takes the list and wakes exactly the tasks that wait.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CLOSE", "CONN", "ERR", "RD", "WR", "Endpoint", "EventQueue"]

CONN = 1  # the connection is established, or a listener has one to accept
RD = 2  # there is something to receive: data, end of stream, or an error
WR = 4  # there is room in the send buffer, or nothing can be sent any more
ERR = 8  # the connection failed; `error` holds the errno
CLOSE = 16  # both directions are finished and acknowledged; the endpoint is gone from the tables


class Endpoint:
    """What the stack tells the driver about.

    Attributes:
        wanted: the bits that somebody waits for; only these are reported, and reporting clears
            them.
        ready: the bits reported and not yet taken.
        owner: for whoever made the endpoint; the stack does not look at it.
    """

    __slots__ = ("owner", "ready", "wanted")

    def __init__(self) -> None:
        self.wanted = 0
        self.ready = 0
        self.owner: Any = None


class EventQueue:
    """Endpoints with something to tell, each listed once."""

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []

    def raise_event(self, endpoint: Endpoint, bits: int) -> None:
        """Report *bits* if anybody wants them."""
        bits &= endpoint.wanted
        if bits:
            endpoint.wanted &= ~bits
            if not endpoint.ready:
                self._endpoints.append(endpoint)
            endpoint.ready |= bits

    @property
    def waits(self) -> bool:
        """True if an endpoint has something to tell."""
        return bool(self._endpoints)

    def take(self) -> list[Endpoint]:
        """The endpoints with something to tell; the caller reads and clears their `ready`."""
        endpoints = self._endpoints
        if endpoints:
            self._endpoints = []
        return endpoints
