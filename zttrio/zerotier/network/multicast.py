"""Who listens to which group: what members have announced, and what others say about them (11.3).

The sender of a multicast frame makes the copies itself, so this table is the whole of routing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..identity import Randomness
    from .derived import Group

__all__ = ["GroupTable", "random_sample"]

LIFETIME = 600.0
_LIMIT = 262_144  # arbitrary
_PER_MEMBER = 4096  # arbitrary; a bridge announces what stands behind it


class GroupTable:
    """Members of the groups of any number of networks, for 600 s after they were last named.

    Args:
        rng: for samples.
        limit: entries at once, in all.
        per_member: entries of one member of one network at once.

    Attributes:
        refused: entries that found no room; the old ones stay, so that a flood gains nothing.
    """

    def __init__(
        self, rng: Randomness, *, limit: int = _LIMIT, per_member: int = _PER_MEMBER
    ) -> None:
        self.refused = 0
        self._rng = rng
        self._limit = limit
        self._per_member = per_member
        # Within a group whoever was named last comes last.
        self._groups: dict[tuple[int, Group], dict[bytes, float]] = {}
        self._held: dict[tuple[int, bytes], int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, network_id: int, group: Group, address: bytes, now: float) -> bool:
        """*address* listens to *group*; True if that is news."""
        members = self._groups.get((network_id, group))
        if members is not None:
            known = members.pop(address, None)
            if known is not None:
                members[address] = now
                return now - known >= LIFETIME
        holder = network_id, address
        held = self._held.get(holder, 0)
        if self._size >= self._limit or held >= self._per_member:
            self.refused += 1
            return False
        if members is None:
            members = self._groups[network_id, group] = {}
        members[address] = now
        self._held[holder] = held + 1
        self._size += 1
        return True

    def remove(self, network_id: int, group: Group, address: bytes) -> None:
        """*address* does not listen to *group*."""
        members = self._groups.get((network_id, group))
        if members is not None and address in members:
            self._drop(network_id, group, members, address)

    def members(self, network_id: int, group: Group, now: float) -> list[bytes]:
        """Who listens to *group*; the one named last comes last."""
        key = network_id, group
        members = self._groups.get(key)
        if members is None:
            return []
        self._expire_group(network_id, group, members, now)
        return list(members)

    def sample(
        self, network_id: int, group: Group, count: int, now: float, *, but_not: bytes
    ) -> tuple[int, list[bytes]]:
        """How many listen to *group*, and a random *count* of them without *but_not* (11.7)."""
        members = self.members(network_id, group, now)
        others = [address for address in members if address != but_not]
        return len(members), random_sample(others, count, self._rng)

    def forget_network(self, network_id: int) -> None:
        """Forget all groups of a network."""
        for key in [key for key in self._groups if key[0] == network_id]:
            self._size -= len(self._groups.pop(key))
        for holder in [holder for holder in self._held if holder[0] == network_id]:
            del self._held[holder]

    def expire(self, now: float) -> None:
        """Forget who has not been named for 600 s."""
        for (network_id, group), members in list(self._groups.items()):
            self._expire_group(network_id, group, members, now)

    def _expire_group(
        self, network_id: int, group: Group, members: dict[bytes, float], now: float
    ) -> None:
        while members:
            address = next(iter(members))
            if now - members[address] < LIFETIME:
                return
            self._drop(network_id, group, members, address)

    def _drop(
        self, network_id: int, group: Group, members: dict[bytes, float], address: bytes
    ) -> None:
        del members[address]
        self._size -= 1
        if not members:
            del self._groups[network_id, group]
        held = self._held[network_id, address] - 1
        if held:
            self._held[network_id, address] = held
        else:
            del self._held[network_id, address]


def random_sample(items: Sequence[bytes], count: int, rng: Randomness) -> list[bytes]:
    """A random *count* of *items* in random order, or all of them if there are fewer."""
    pool = list(items)
    count = min(count, len(pool))
    octets = rng(4 * count) if count else b""
    for at in range(count):
        # The bias of a remainder of 32 bits does not matter here.
        other = at + int.from_bytes(octets[4 * at : 4 * at + 4], "big") % (len(pool) - at)
        pool[at], pool[other] = pool[other], pool[at]
    return pool[:count]
