"""Messages that cannot be believed yet: their senders' credentials are often right behind (8.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ..events import Message

__all__ = ["Kept", "KeptMessages"]

TIME = 5.0


@attrs.define(eq=False)
class Kept:
    """A message that waits.

    Attributes:
        message: the message.
        network_id: the network it is for; 0 if it is for several.
        since: when it came.
    """

    message: Message
    network_id: int
    since: float


class KeptMessages:
    """A bounded number of them, and of each sender's.

    Args:
        limit: in all.
        per_peer: of one sender.

    Attributes:
        evicted: how many have made room for newer ones.
    """

    def __init__(self, limit: int, per_peer: int) -> None:
        self.evicted = 0
        self._limit = limit
        self._per_peer = per_peer
        self._kept: list[Kept] = []  # oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, kept: Kept) -> bool:
        """Keep a message; True if the oldest, or the sender's oldest, had to go."""
        address = kept.message.peer.address
        same = [one for one in self._kept if one.message.peer.address == address]
        victim: Kept | None = None
        if len(same) >= self._per_peer:
            victim = same[0]
        elif len(self._kept) >= self._limit:
            victim = self._kept[0]
        if victim is not None:
            self._kept.remove(victim)
            self.evicted += 1
        self._kept.append(kept)
        return victim is not None

    def take(self, network_id: int | None = None) -> list[Kept]:
        """Take out all, or those that are for one network or for several."""
        if network_id is None:
            taken, self._kept = self._kept, []
            return taken
        wanted = (network_id, 0)
        taken = [kept for kept in self._kept if kept.network_id in wanted]
        self._kept = [kept for kept in self._kept if kept.network_id not in wanted]
        return taken
