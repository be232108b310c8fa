"""What a member knows about machines that are not members but stand behind one (14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .derived import Group

__all__ = ["BridgeRoutes", "GroupsBehind"]

_ROUTES = 65_536  # arbitrary; the reference keeps a thousand times as many
_GROUPS = 1024  # arbitrary
_GROUP_LIFETIME = 1200.0


class BridgeRoutes:
    """Behind which bridge a foreign MAC was seen last.

    Args:
        limit: MACs known at once.  Over it everything behind the bridge with the most of them is
            forgotten, so that a flood of made-up MACs harms the bridge it comes by and no other.
    """

    def __init__(self, limit: int = _ROUTES) -> None:
        self._limit = limit
        self._bridges: dict[bytes, bytes] = {}
        self._counts: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._bridges)

    def learn(self, mac: bytes, bridge: bytes) -> None:
        """A frame from *mac* has come by *bridge*."""
        known = self._bridges.get(mac)
        if known == bridge:
            return
        if known is not None:
            self._counts[known] -= 1
        elif len(self._bridges) >= self._limit:
            self.forget(max(self._counts, key=lambda address: self._counts[address]))
        self._bridges[mac] = bridge
        self._counts[bridge] = self._counts.get(bridge, 0) + 1

    def find(self, mac: bytes) -> bytes | None:
        """The address of the bridge before *mac*, or None."""
        return self._bridges.get(mac)

    def forget(self, bridge: bytes) -> None:
        """Forget everything behind *bridge*."""
        for mac in [mac for mac, address in self._bridges.items() if address == bridge]:
            del self._bridges[mac]
        self._counts.pop(bridge, None)


class GroupsBehind:
    """Groups that machines behind us, a bridge, have sent to: probably they listen to them too.

    Args:
        limit: groups known at once; the one not seen longest makes room.
    """

    def __init__(self, limit: int = _GROUPS) -> None:
        self._limit = limit
        self._seen: dict[Group, float] = {}  # the one not seen longest comes first

    def __len__(self) -> int:
        return len(self._seen)

    def learn(self, group: Group, now: float) -> bool:
        """A frame to *group* has come from behind us; True if that is new."""
        known = self._seen.pop(group, None)
        if known is None and len(self._seen) >= self._limit:
            del self._seen[next(iter(self._seen))]
        self._seen[group] = now
        return known is None

    def groups(self) -> frozenset[Group]:
        """Those not yet forgotten."""
        return frozenset(self._seen)

    def expire(self, now: float) -> bool:
        """Forget what has not been seen for 20 minutes; True if there was any."""
        before = len(self._seen)
        while self._seen:
            group = next(iter(self._seen))
            if now - self._seen[group] < _GROUP_LIFETIME:
                break
            del self._seen[group]
        return len(self._seen) != before
