"""What the program has sent and the peer has not acknowledged: immutable chunks, by reference.

Positions are unwrapped sequence numbers.  A segment is a view into one chunk; only a segment that
crosses from one chunk into the next is joined.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["SendQueue"]

SMALL = 1024  # arbitrary: below this, copying is cheaper than keeping another chunk


class SendQueue:
    """Octets between the peer's acknowledgement and the end of what the program has sent.

    Attributes:
        start: sequence number of the oldest octet kept.
        end: sequence number behind the newest.
    """

    __slots__ = ("_chunks", "_starts", "end", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self._chunks: list[bytes | memoryview] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, data: Buffer) -> None:
        """Add *data* at the end.

        ``bytes``, and views into ``bytes``, are kept by reference; anything that could change
        later is copied.
        """
        if isinstance(data, memoryview) and isinstance(data.obj, bytes) and data.c_contiguous:
            data = data.cast("B")  # a view of our own: the caller may release its own at any time
        elif not isinstance(data, bytes):
            data = bytes(data)
        size = len(data)
        if not size:
            return
        chunks = self._chunks
        if chunks and len(chunks[-1]) + size <= SMALL:
            # A program that writes octet by octet must not cost a chunk for each.
            chunks[-1] = bytes(chunks[-1]) + data
        else:
            # A view of our own: trio's send_all releases the one it passed.
            chunks.append(data if isinstance(data, bytes) else memoryview(data))
            self._starts.append(self.end)
        self.end += size

    def cut(self, seq: int, length: int) -> bytes | memoryview:
        """The *length* octets from *seq* on, which must all be there."""
        index = bisect_right(self._starts, seq) - 1
        chunk = self._chunks[index]
        at = seq - self._starts[index]
        if at + length <= len(chunk):
            if length == len(chunk):
                return chunk
            return memoryview(chunk)[at : at + length]
        parts: list[bytes | memoryview] = [memoryview(chunk)[at:]]
        length -= len(chunk) - at
        while length:
            index += 1
            chunk = self._chunks[index]
            if length < len(chunk):
                chunk = memoryview(chunk)[:length]
            parts.append(chunk)
            length -= len(chunk)
        return b"".join(parts)

    def cut_run(self, seq: int, size: int, step: int) -> list[bytes | memoryview]:
        """*size* octets from *seq* on, which must all be there, in pieces of *step*."""
        starts = self._starts
        index = bisect_right(starts, seq) - 1
        chunk = memoryview(self._chunks[index])
        at = seq - starts[index]
        pieces: list[bytes | memoryview] = []
        while size:
            part = min(size, step)
            size -= part
            end = at + part
            if end <= len(chunk):
                pieces.append(chunk[at:end])
            else:
                pieces.append(self.cut(starts[index] + at, part))
            while size and end >= len(chunk):
                end -= len(chunk)
                index += 1
                chunk = memoryview(self._chunks[index])
            at = end
        return pieces

    def acknowledge(self, seq: int) -> None:
        """Forget what comes before *seq*."""
        self.start = seq
        starts = self._starts
        count = 0
        # A chunk is done with when the next one (or the end) begins at or before seq.
        while count < len(starts):
            following = starts[count + 1] if count + 1 < len(starts) else self.end
            if following > seq:
                break
            count += 1
        if count:
            del starts[:count]
            del self._chunks[:count]

    def clear(self) -> None:
        """Forget everything; the connection has failed."""
        self.start = self.end
        self._chunks.clear()
        self._starts.clear()
