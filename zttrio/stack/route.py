"""Where a packet goes next: the longest prefix wins, then the lowest metric, for both families."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from zttrio.header.address import ip_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Route", "Routes"]


@attrs.frozen
class Route:
    """One line of the routing table.

    Attributes:
        prefix: packed, with zeros behind the prefix.
        prefix_length: bits.
        gateway: packed address of the next hop, or None if the destinations are on the link.
        metric: lower is better, among routes of the same prefix.
    """

    prefix: bytes
    prefix_length: int
    gateway: bytes | None = None
    metric: int = 0

    def __str__(self) -> str:
        text = f"{ip_text(self.prefix)}/{self.prefix_length}"
        if self.gateway is not None:
            text += f" via {ip_text(self.gateway)}"
        return f"{text} metric {self.metric}" if self.metric else text


class Routes:
    """The routing table.

    Args:
        changed: called after every change.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        # for each family: prefix length, longest first -> prefix as a number -> routes, best first
        self._tables: dict[int, dict[int, dict[int, list[Route]]]] = {4: {}, 16: {}}

    def add(self, route: Route) -> None:
        """Add *route*; adding it twice is the same as adding it once.

        Raises:
            ValueError: the prefix length does not fit the family, there are ones behind the
                prefix, or the gateway is of the other family.
        """
        bits = len(route.prefix) * 8
        if not 0 <= route.prefix_length <= bits:
            raise ValueError(f"route {route}: prefix length must be 0 to {bits}")
        if int.from_bytes(route.prefix) & ((1 << bits - route.prefix_length) - 1):
            raise ValueError(f"route {route}: has bits set behind the prefix")
        if route.gateway is not None and len(route.gateway) != len(route.prefix):
            raise ValueError(f"route {route}: gateway of another family")
        table = self._tables[len(route.prefix)]
        routes = table.setdefault(route.prefix_length, {}).setdefault(_key(route), [])
        if route in routes:
            return
        routes.append(route)
        routes.sort(key=lambda known: known.metric)  # stable: the older of two equals stays first
        self._tables[len(route.prefix)] = dict(sorted(table.items(), reverse=True))
        self._changed()

    def remove(self, route: Route) -> None:
        """Remove *route*.

        Raises:
            KeyError: it is not in the table.
        """
        table = self._tables[len(route.prefix)]
        routes = table.get(route.prefix_length, {}).get(_key(route), [])
        if route not in routes:
            raise KeyError(f"route {route}: not in the table")
        routes.remove(route)
        if not routes:
            del table[route.prefix_length][_key(route)]
            if not table[route.prefix_length]:
                del table[route.prefix_length]
        self._changed()

    def candidates(self, destination: bytes) -> Iterator[Route]:
        """Every route that matches, best first."""
        bits = len(destination) * 8
        number = int.from_bytes(destination)
        for length, prefixes in self._tables[len(destination)].items():
            yield from prefixes.get(number >> bits - length, ())

    def lookup(self, destination: bytes) -> Route | None:
        """The best route to the packed *destination*, or None."""
        return next(self.candidates(destination), None)

    def __iter__(self) -> Iterator[Route]:
        for table in self._tables.values():
            for prefixes in table.values():
                for routes in prefixes.values():
                    yield from routes

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _key(route: Route) -> int:
    return int.from_bytes(route.prefix) >> len(route.prefix) * 8 - route.prefix_length
