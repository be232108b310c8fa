"""What has to be on disk, and what must wait until it is.

A configuration that left before its addresses were stored could give them to two members after a
crash; an HTTP answer that left before a change was stored would be a lie.  So everything that
others may rely on happens through `Journal.after`.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Batch", "Journal", "Write"]

_WAITING = 4096  # actions; arbitrary
_HELD = 64 << 20  # octets that they hold; arbitrary


class Write(NamedTuple):
    """One record in its newest form.

    Attributes:
        network_id: the network.
        address: the member, or None for the network itself.
        record: as JSON, or None if there is none any more.
    """

    network_id: int
    address: bytes | None
    record: str | None


class Batch(NamedTuple):
    """Writes to carry out together: all of them, or after a crash none.

    Attributes:
        number: what to tell `Journal.written`.
        writes: at most one for each record.
    """

    number: int
    writes: list[Write]


class Journal:
    """Changed records on their way to the disk, oldest first, and what waits for them.

    Attributes:
        number: of the last change.
        durable: of the last change that is known to be on disk.
        dropped: actions that were given up because too many waited.
    """

    def __init__(self) -> None:
        self.number = 0
        self.durable = 0
        self.dropped = 0
        self._changed: dict[tuple[int, bytes | None], Mapping[str, Any] | None] = {}
        self._waiting: deque[tuple[int, int, Callable[[float], None]]] = deque()
        self._held = 0

    @property
    def has_writes(self) -> bool:
        """True if `take` has something to give."""
        return bool(self._changed)

    def put(self, network_id: int, address: bytes | None, record: Mapping[str, Any] | None) -> None:
        """Note the newest form of a record, which nobody changes from now on; None deletes it."""
        self._changed[network_id, address] = record
        self.number += 1

    def after(self, action: Callable[[float], None], now: float, size: int = 0) -> None:
        """Do something when all changes so far are on disk, at once if they are.

        Actions happen in the order in which they came.  If 4096 wait, or those that wait hold
        64 MiB, the disk is stuck, and the newest is dropped and counted: members ask again every
        five seconds.

        Args:
            action: called with the time.
            now: seconds.
            size: octets that *action* holds.
        """
        if self.durable == self.number and not self._waiting:
            action(now)
        elif len(self._waiting) >= _WAITING or self._held + size > _HELD:
            self.dropped += 1
        else:
            self._waiting.append((self.number, size, action))
            self._held += size

    def take(self) -> Batch:
        """Everything that changed since the last call."""
        writes = [
            Write(network_id, address, None if record is None else json.dumps(record))
            for (network_id, address), record in self._changed.items()
        ]
        self._changed.clear()
        return Batch(self.number, writes)

    def written(self, number: int, now: float) -> None:
        """Say that the batch of this number, and all before it, are on disk."""
        self.durable = number
        while self._waiting and self._waiting[0][0] <= number:
            _, size, action = self._waiting.popleft()
            self._held -= size
            action(now)
