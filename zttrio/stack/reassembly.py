"""Putting fragments together again, for both families (RFC 791 3.2, RFC 815, RFC 8200 4.5).

A packet whose fragments overlap is discarded whole, and so is what still comes of it (RFC 5722;
for IPv4 too, where no honest sender makes them either).  Exact duplicates are ignored, which RFC
8200 allows: networks do duplicate packets.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import TYPE_CHECKING

import attrs

from zttrio.header.frame import CHECKSUM_COMPLETE

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.config import Config

    from .counters import Counters
    from .packet import Packet
    from .timers import TimerQueue

__all__ = ["FragmentKey", "Reassembly"]

FragmentKey = tuple[bytes, bytes, int, int]
"""Source, destination, identification and protocol (RFC 791); the last is 0 for IPv6."""

MAX_PACKET = 0xFFFF
OVERHEAD = 256  # octets charged for keeping a fragment, whatever its size; about what Python needs

_NOT_ECT, _CE = 0, 3


@attrs.define(eq=False)
class _Partial:
    """A packet of which some fragments are here.

    Attributes:
        expires: when it is given up.
        starts: offsets of the fragments, sorted.
        pieces: their contents, in the same order.
        first: the fragment at offset 0, which has the headers.
        total: octets of the whole, or -1 until the last fragment is here.
        received: octets that are here.
        memory: octets charged.
        codepoints: bit set of the ECN codepoints seen (RFC 3168 5.3).
        is_refused: fragments overlapped; nothing of this packet is wanted any more.
    """

    expires: float
    starts: list[int] = attrs.Factory(list)
    pieces: list[memoryview] = attrs.Factory(list)
    first: Packet | None = None
    total: int = -1
    received: int = 0
    memory: int = OVERHEAD
    codepoints: int = 0
    is_refused: bool = False


class Reassembly:
    """All unfinished packets of a stack; a timer owner.  Bounded in packets and in octets.

    Args:
        timers: where the one deadline is kept.
        counters: what is counted.
        config: limits and the timeout.
        expired: called with the first fragment of a packet that never became whole, if that
            fragment had come, and with the time (RFC 1122 3.3.2: only then an error is sent).
    """

    def __init__(
        self,
        timers: TimerQueue,
        counters: Counters,
        config: Config,
        expired: Callable[[Packet, float], None],
    ) -> None:
        self.deadline = inf
        self.queued = inf
        self._timers = timers
        self._counters = counters
        self._timeout = config.reassembly_timeout
        self._max_memory = config.reassembly_memory
        self._max_packets = config.reassembly_packets
        self._expired = expired
        self._partials: dict[FragmentKey, _Partial] = {}  # oldest first, as all wait equally long
        self.memory = 0

    def add(
        self, key: FragmentKey, offset: int, *, is_last: bool, packet: Packet, now: float
    ) -> Packet | None:
        """Take in one fragment; the whole packet if this was what it lacked.

        Args:
            key: what fragments of one packet have in common.
            offset: octets.
            is_last: no more fragments follow it.
            packet: the fragment; its `Packet.transport` is a memoryview of all its content.
            now: seconds.
        """
        data = packet.transport
        end = offset + len(data)
        if not data or end > MAX_PACKET or (not is_last and len(data) & 7):
            self._counters.fragment_malformed += 1
            return None
        partial = self._partials.get(key)
        if partial is None:
            self._make_room(OVERHEAD)
            partial = self._partials[key] = _Partial(now + self._timeout)
            self.memory += partial.memory
            if self.deadline == inf:
                self.deadline = partial.expires
                self._timers.schedule(self)
        elif partial.is_refused:
            self._counters.fragment_refused += 1
            return None
        index = bisect_left(partial.starts, offset)
        if (
            index < len(partial.starts)
            and partial.starts[index] == offset
            and len(partial.pieces[index]) == len(data)
            and is_last == (end == partial.total)
        ):
            self._counters.fragment_duplicate += 1
            return None
        if self._contradicts(partial, index, offset, end, is_last=is_last):
            self._counters.fragment_overlap += 1
            self._refuse(partial)
            return None
        size = len(data) + OVERHEAD
        self._make_room(size, keep=key)
        if key not in self._partials:
            return None  # it alone would be more than all may have
        self.memory += size
        partial.memory += size
        partial.starts.insert(index, offset)
        partial.pieces.insert(index, memoryview(data))
        partial.received += len(data)
        partial.codepoints |= 1 << (packet.traffic_class & 3)
        if is_last:
            partial.total = end
        if offset == 0:
            partial.first = packet
        if partial.received != partial.total:
            return None
        return self._finish(key, partial)

    def handle_timer(self, now: float) -> None:
        """Give up what has waited too long."""
        while self._partials:
            key, partial = next(iter(self._partials.items()))
            if partial.expires > now:
                self.deadline = partial.expires
                return
            self._drop(key)
            self._counters.reassembly_timeout += 1
            if partial.first is not None and not partial.is_refused:
                self._expired(partial.first, now)
        self.deadline = inf

    def __len__(self) -> int:
        return len(self._partials)

    @staticmethod
    def _contradicts(partial: _Partial, index: int, start: int, end: int, *, is_last: bool) -> bool:
        """True if the fragment cannot belong to the same packet as those that are here."""
        starts = partial.starts
        if index and starts[index - 1] + len(partial.pieces[index - 1]) > start:
            return True
        if index < len(starts) and starts[index] < end:
            return True
        if partial.total >= 0:
            return end > partial.total or is_last
        return is_last and bool(starts) and starts[-1] >= end

    def _finish(self, key: FragmentKey, partial: _Partial) -> Packet | None:
        self._drop(key)
        first = partial.first
        assert first is not None  # noqa: S101 - all octets are here, so offset 0 is
        if partial.codepoints >> _CE & 1:
            if partial.codepoints >> _NOT_ECT & 1:  # RFC 3168 5.3: a lie, so nothing is believed
                self._counters.fragment_malformed += 1
                return None
            first.traffic_class |= _CE
        first.transport = b"".join(partial.pieces)
        first.checksum = CHECKSUM_COMPLETE
        self._counters.reassembled += 1
        return first

    def _refuse(self, partial: _Partial) -> None:
        """Keep only the memory of it, until its time is over."""
        self.memory -= partial.memory - OVERHEAD
        partial.memory = OVERHEAD
        partial.is_refused = True
        partial.first = None
        partial.starts = []
        partial.pieces = []

    def _drop(self, key: FragmentKey) -> None:
        self.memory -= self._partials.pop(key).memory

    def _make_room(self, size: int, keep: FragmentKey | None = None) -> None:
        """Evict the oldest packets until *size* octets, and one more packet if new, fit.

        The packet that grows goes last.
        """
        while self._partials and (
            self.memory + size > self._max_memory
            or (keep is None and len(self._partials) >= self._max_packets)
        ):
            oldest = next(iter(self._partials))
            if oldest == keep and len(self._partials) > 1:
                oldest = next(key for key in self._partials if key != keep)
            self._drop(oldest)
            self._counters.reassembly_evicted += 1
