"""What the peer has sent and the program has not read, in order; and what arrived ahead of it.

Positions are unwrapped sequence numbers.  The caller has cut data to the receive window already, so
octets are bounded by the receive buffer; this file bounds the number of pieces.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["MAX_PIECES", "ReceiveQueue"]

SMALL = 1024  # arbitrary: below this a copy costs less memory than keeping the frame it came in
MAX_PIECES = 4096  # arbitrary: out-of-order pieces, each of which costs a few hundred octets
RECENT = 8  # arbitrary: ranges remembered for SACK's order, of which at most four fit


class ReceiveQueue:
    """Octets that wait for the program, and octets that wait for others before them.

    Attributes:
        size: octets in order, to be read.
        ahead: octets out of order.
        duplicate: the range that arrived twice last, to be reported once as a D-SACK (RFC 2883).
    """

    __slots__ = (
        "_chunks",
        "_lefts",
        "_pieces",
        "_recent",
        "_rights",
        "_starts",
        "ahead",
        "duplicate",
        "size",
    )

    def __init__(self) -> None:
        self.size = 0
        self.ahead = 0
        self.duplicate: tuple[int, int] | None = None
        self._chunks: deque[Buffer] = deque()
        # Out of order: the pieces by their start, the starts in order, and the contiguous ranges
        # that they make up.
        self._pieces: dict[int, Buffer] = {}
        self._starts: list[int] = []
        self._lefts: list[int] = []
        self._rights: list[int] = []
        self._recent: list[int] = []

    def append(self, data: Buffer) -> None:
        """Add *data* that is next in order."""
        size = len(data)
        self.size += size
        if size < SMALL:
            chunks = self._chunks
            if chunks and len(chunks[-1]) + size <= SMALL:
                chunks[-1] = b"".join((chunks[-1], data))
                return
            data = bytes(data)
        self._chunks.append(data)

    def insert(self, start: int, data: Buffer, *, is_next: bool = False) -> bool:
        """Keep *data* that starts at *start*, ahead of what is next; False if there is no room.

        There is always room for what *is_next*, since it will not stay here.

        Where it overlaps what is there already, what is there stays, so that nobody can change
        data that has been acknowledged selectively.
        """
        end = start + len(data)
        left, right = start, end
        first = bisect_left(self._rights, start)
        last = bisect_right(self._lefts, end)
        # Ranges first to last - 1 touch this one, or overlap it.
        if first < last and self._lefts[first] <= start and end <= self._rights[first]:
            self.duplicate = (start, end)
            self._touch(start)
            return True
        if len(self._pieces) >= MAX_PIECES and not is_next:
            return False
        at = start
        for index in range(first, last):
            gap_end = self._lefts[index]
            if at < gap_end:
                self._keep(at, data[at - start : gap_end - start])
            # Report what arrived twice, if anything did.
            low, high = max(start, gap_end), min(end, self._rights[index])
            if low < high:
                self.duplicate = (low, high)
            at = max(at, self._rights[index])
        if at < end:
            self._keep(at, data[at - start :])
        if first < last:
            left = min(left, self._lefts[first])
            right = max(right, self._rights[last - 1])
        self._lefts[first:last] = [left]
        self._rights[first:last] = [right]
        self._touch(start)
        return True

    def _keep(self, start: int, data: Buffer) -> None:
        self._pieces[start] = bytes(data) if len(data) < SMALL else data
        insort(self._starts, start)
        self.ahead += len(data)

    def _touch(self, start: int) -> None:
        """Remember that the range around *start* is the most recent one (RFC 2018 section 4)."""
        recent = self._recent
        if start in recent:
            recent.remove(start)
        recent.insert(0, start)
        del recent[RECENT:]

    def advance(self, rcv_nxt: int) -> int:
        """Move what has become in order at *rcv_nxt*; return the new *rcv_nxt*."""
        while self._lefts and self._lefts[0] <= rcv_nxt:
            del self._lefts[0]
            right = self._rights.pop(0)
            count = bisect_left(self._starts, right)
            for start in self._starts[:count]:
                data = self._pieces.pop(start)
                self.ahead -= len(data)
                skip = rcv_nxt - start
                if skip < len(data):
                    if skip > 0:
                        data = data[skip:]
                    self.append(data)
                    rcv_nxt += len(data)
            del self._starts[:count]
        self._recent = [start for start in self._recent if start >= rcv_nxt]
        return rcv_nxt

    def sack_blocks(self, limit: int) -> list[tuple[int, int]]:
        """At most *limit* blocks for a SACK option, the most recent range first.

        A D-SACK block comes before all others, once.
        """
        blocks: list[tuple[int, int]] = []
        if self.duplicate is not None:
            blocks.append(self.duplicate)
            self.duplicate = None
        seen: set[int] = set()
        for start in self._recent:
            if len(blocks) >= limit:
                break
            index = bisect_right(self._lefts, start) - 1
            if index >= 0 and index not in seen and start < self._rights[index]:
                seen.add(index)
                blocks.append((self._lefts[index], self._rights[index]))
        for index, left in enumerate(self._lefts):  # oldest holes first, if there is room
            if len(blocks) >= limit:
                break
            if index not in seen:
                seen.add(index)
                blocks.append((left, self._rights[index]))
        return blocks

    def is_ahead(self) -> bool:
        """True if anything is out of order."""
        return bool(self._lefts)

    def has_report(self) -> bool:
        """True if the next ACK ought to carry SACK blocks."""
        return bool(self._lefts) or self.duplicate is not None

    def take(self, limit: int) -> bytes:
        """At most *limit* octets, in order, at least one if there is one."""
        chunks = self._chunks
        if not chunks:
            return b""
        first = chunks[0]
        if len(first) >= limit:
            if len(first) == limit:
                chunks.popleft()
            else:
                chunks[0] = memoryview(first)[limit:]
                first = memoryview(first)[:limit]
            self.size -= limit
            return bytes(first)
        if len(chunks) == 1:
            chunks.popleft()
            self.size -= len(first)
            return bytes(first)
        return b"".join(self.take_pieces(limit))

    def take_pieces(self, limit: int) -> list[Buffer]:
        """What `take` would return, as it is kept: nothing is copied."""
        chunks = self._chunks
        parts = []
        room = limit
        while chunks and room:
            first = chunks[0]
            if len(first) > room:
                chunks[0] = memoryview(first)[room:]
                first = memoryview(first)[:room]
            else:
                chunks.popleft()
            room -= len(first)
            parts.append(first)
        self.size -= limit - room
        return parts

    def peek(self, limit: int) -> bytes:
        """What `take` would return, which stays."""
        parts = []
        for chunk in self._chunks:
            if limit <= 0:
                break
            parts.append(chunk[:limit])
            limit -= len(chunk)
        return b"".join(parts)

    def take_into(self, buffer: bytearray | memoryview) -> int:
        """Fill *buffer* from the front; return how many octets were there."""
        target = memoryview(buffer).cast("B")
        at = 0
        chunks = self._chunks
        while chunks and at < len(target):
            first = chunks[0]
            room = len(target) - at
            if len(first) > room:
                chunks[0] = memoryview(first)[room:]
                first = memoryview(first)[:room]
            else:
                chunks.popleft()
            target[at : at + len(first)] = first
            at += len(first)
        self.size -= at
        return at

    def discard(self) -> None:
        """Throw everything away: nobody will read it."""
        self._chunks.clear()
        self._pieces.clear()
        self._starts.clear()
        self._lefts.clear()
        self._rights.clear()
        self._recent.clear()
        self.size = self.ahead = 0
        self.duplicate = None
