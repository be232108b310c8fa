"""Which of our addresses a packet comes from, and which neighbor it goes to first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header.address import is_unspecified

if TYPE_CHECKING:
    from .addresses import Addresses
    from .neighbor import Neighbors
    from .route import Routes

__all__ = ["Selection"]


class Selection:
    """The choices that leave more than one right answer.

    Args:
        addresses: what is ours.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    def source(self, destination: bytes, next_hop: bytes) -> bytes | None:
        """Our packed address for packets to *destination*, or None if no address will do."""
        usable = self._addresses.of_family(len(destination))
        for entry in usable:
            if entry.is_on_link(next_hop):
                return entry.packed
        return usable[0].packed if usable else None

    def next_hop(self, destination: bytes, routes: Routes, neighbors: Neighbors) -> bytes | None:
        """The packed address of the neighbor that packets to *destination* go to, or None."""
        del neighbors
        if is_unspecified(destination):
            return None
        route = routes.lookup(destination)
        if route is None:
            return None
        return destination if route.gateway is None else route.gateway
