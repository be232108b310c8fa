"""Many deadlines, one heap: the earliest is cheap to ask for, moving one later is a mere write.

An owner stores when it wants to be called in its own `deadline`.  The heap holds for each owner at
most one live entry, at or before that deadline; an entry that comes up early is pushed back.
So moving a deadline later (what an ACK does to the retransmission timer) touches no heap at all.
"""

from __future__ import annotations

import heapq
from itertools import count
from math import inf
from typing import Protocol

__all__ = ["TimerOwner", "TimerQueue"]


class TimerOwner(Protocol):
    """Something with one deadline.

    Attributes:
        deadline: when `handle_timer` wants to be called, in seconds, or inf.
        queued: bookkeeping of `TimerQueue`: where the live heap entry stands, inf if none.
    """

    deadline: float
    queued: float

    def handle_timer(self, now: float) -> None:
        """Do what is due at *now*, and set `deadline` anew (later than *now*, or inf)."""


class TimerQueue:
    """The deadlines of any number of owners."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerOwner]] = []
        self._order = count()

    def schedule(self, owner: TimerOwner) -> None:
        """Notice that ``owner.deadline`` may have moved earlier; needless when it moved later."""
        deadline = owner.deadline
        if deadline < owner.queued:
            owner.queued = deadline
            heapq.heappush(self._heap, (deadline, next(self._order), owner))

    def next_timer(self) -> float | None:
        """When `handle_timers` must be called next, or None if never.  May be early, never late."""
        heap = self._heap
        while heap:
            when, _, owner = heap[0]
            if when != owner.queued:  # superseded by an earlier entry that has fired since
                heapq.heappop(heap)
            elif owner.deadline > when:
                heapq.heappop(heap)
                owner.queued = inf
                if owner.deadline < inf:
                    self.schedule(owner)
            else:
                return when
        return None

    def handle_timers(self, now: float) -> None:
        """Call every owner whose deadline has come, in order of their deadlines."""
        while (when := self.next_timer()) is not None and when <= now:
            _, _, owner = heapq.heappop(self._heap)
            owner.queued = inf
            owner.handle_timer(now)
            if owner.deadline < inf:
                self.schedule(owner)

    def __len__(self) -> int:
        return len(self._heap)
