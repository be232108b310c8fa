"""Memory that two stations of a host segment share, so that octets in bulk pass the kernel by.

Each direction between two stations has a ring of its own, made by the one that sends.  Frames keep
their place in the queue of datagrams: what stands there for a long frame is its header and where in
the ring its payload is.  Knows neither sockets nor frames.

The other process may be hostile, or die at any point.  The memory cannot shrink (a seal says so),
everything read from it is checked, and octets are copied before anybody looks at them.
"""

from __future__ import annotations

import fcntl
import mmap
import os

__all__ = ["CAN_SHARE", "CAPACITY", "ReceiveRing", "SendRing"]

CAN_SHARE = hasattr(os, "memfd_create")  # Linux
CAPACITY = 1 << 22  # octets: more than a station's queue of ten datagrams refers to
_FRONT = mmap.PAGESIZE  # what comes before them: two words that both sides see
_SIZE = _FRONT + CAPACITY
_STATE, _TAKEN = 0, 1  # the words: one of the below; octets taken since the beginning
_OFFERED, _ACCEPTED, _ENDED = 0, 1, 2
_SEALS = (
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    if hasattr(fcntl, "F_SEAL_SHRINK")
    else 0
)


class _Ring:
    """One side's view of the memory."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._view = memoryview(self._memory)
        self._words = self._view[:16].cast("Q")
        self._octets = self._view[_FRONT:]

    @property
    def is_ended(self) -> bool:
        """True if the other side does not use the ring any more."""
        return self._words[_STATE] > _ACCEPTED

    def close(self) -> None:
        """Tell the other side that the ring has ended, and give the memory back; once."""
        self._words[_STATE] = _ENDED
        self._words.release()
        self._octets.release()
        self._view.release()
        self._memory.close()


class SendRing(_Ring):
    """Our end of a ring that we have made.

    Attributes:
        descriptor: of the memory, for the receiver; to be closed when it is sent.

    Raises:
        OSError: there is no memory, or no descriptor, to be had.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("zttrio ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, _SIZE)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
            super().__init__(self.descriptor)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._put = 0  # octets since the beginning, gaps at the end of the memory included
        self._next = 0
        self._refused = False

    @property
    def is_open(self) -> bool:
        """True once the receiver has accepted the ring."""
        return self._words[_STATE] == _ACCEPTED

    def put(self, payload: bytes | bytearray | memoryview) -> int:
        """Copy *payload* in and return its place; -1 if there is no room now.

        The next one takes the same room unless `keep` is called.

        Raises:
            ValueError: *payload* never fits, or the receiver says what cannot be.
        """
        size = len(payload)
        place = self._put
        at = place % CAPACITY
        if at + size > CAPACITY:
            place += CAPACITY - at
            at = 0
        self._next = place + size
        waiting = self._next - self._words[_TAKEN]
        if waiting < size or size > CAPACITY:
            raise ValueError("ring: more was taken than was there, or too much is put")
        if waiting > CAPACITY:
            self._refused = True
            return -1
        self._refused = False
        self._octets[at : at + size] = payload
        return place

    @property
    def is_full(self) -> bool:
        """True while what `put` has refused would still not fit, and the receiver is there."""
        if self._refused:
            waiting = self._next - self._words[_TAKEN]
            self._refused = self.is_open and waiting > CAPACITY
        return self._refused

    def keep(self) -> None:
        """The receiver has been told of what was `put` last."""
        self._put = self._next


class ReceiveRing(_Ring):
    """Our end of a ring that another station has offered.

    Args:
        descriptor: of its memory; ours to close, which is done here.

    Raises:
        ValueError: it is no such memory.
        OSError: likewise, or there is no descriptor to be had.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            # Without the seal its owner could cut it, and our next look would end this process.
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            if seals & _SEALS != _SEALS or os.fstat(descriptor).st_size != _SIZE:
                raise ValueError("ring: memory of another size, or that may be cut")
            super().__init__(descriptor)
        finally:
            os.close(descriptor)
        self._taken = 0
        self._words[_STATE] = _ACCEPTED

    def take(self, place: int, size: int) -> bytes:
        """The *size* octets at *place*; the room is the sender's again at the next call.

        Not sooner, so that a system call lies in between: the sender must not see that they are
        taken before they are, whatever the processor does.

        Raises:
            ValueError: *place* and *size* are not within the ring.
        """
        at = place % CAPACITY
        if not 0 < size <= CAPACITY - at or place >> 63:
            raise ValueError(f"ring: {size} octets at {at} are not in it")
        self._words[_TAKEN] = self._taken
        self._taken = place + size
        return bytes(self._octets[at : at + size])
