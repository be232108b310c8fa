"""The part of a stack's configuration that is the wire's: what a network sets, and sets anew.

Knows the difference between what was set last and what is set now, and touches nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zttrio.abc import ManagedRoute, Settings

    from .addresses import Interface
    from .route import Route
    from .stack import Stack

__all__ = ["ManagedSettings"]


class ManagedSettings:
    """What a wire has set on one stack.

    Args:
        stack: whose addresses, routes and MTU they are.

    Attributes:
        current: the last `Settings`, None before the first.
        refused: addresses, routes and MTUs that could not be set so far.
    """

    def __init__(self, stack: Stack) -> None:
        self.current: Settings | None = None
        self.refused = 0
        self._stack = stack
        self._addresses: set[Interface] = set()
        self._routes: dict[ManagedRoute, Route] = {}

    def apply(self, settings: Settings, now: float) -> None:
        """Change what differs from the last call, and leave alone what the user has set.

        An address of both stays the user's.  Never raises: what cannot be is counted.
        """
        if settings == self.current:
            return
        self.current = settings
        stack = self._stack
        # Before the addresses: IPv6 may only be possible with the new one.
        if settings.mtu and settings.mtu != stack.ip.mtus[4]:
            try:
                stack.set_mtu(settings.mtu)
            except ValueError:
                self.refused += 1
        wanted = dict.fromkeys(settings.addresses)
        for interface in self._addresses - wanted.keys():
            self._addresses.discard(interface)
            if interface.ip.packed in stack.addresses.ours:  # or a duplicate was found
                stack.remove_address(interface, now)
        for interface in wanted:
            if interface in self._addresses or interface.ip.packed in stack.addresses.ours:
                continue
            try:
                stack.add_address(interface, now)
            except ValueError:
                self.refused += 1
            else:
                self._addresses.add(interface)
        for managed in self._routes.keys() - set(settings.routes):
            stack.remove_route(self._routes.pop(managed))
        for managed in settings.routes:
            if managed not in self._routes:
                self._add_route(managed)

    def _add_route(self, managed: ManagedRoute) -> None:
        stack = self._stack
        before = len(stack.routes)
        try:
            route = stack.add_route(managed.prefix, managed.gateway, managed.metric)
        except ValueError:
            self.refused += 1
            return
        if len(stack.routes) > before:  # else there is one like it, which is not ours to remove
            self._routes[managed] = route
