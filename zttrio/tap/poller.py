"""Readiness of stand-ins: one edge-triggered epoll of our own, whose descriptor trio watches.

A stand-in with a residue (see `standin`) is readable all the time, which a level-triggered poller
would report for ever.  Here it is reported when something changes.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Poller"]

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
PEER_SHUT = select.EPOLLRDHUP  # the program will send no more
HANGUP = select.EPOLLHUP  # the last copy of the program's end is gone
ERROR = select.EPOLLERR
_BATCH = 256  # events taken from the kernel at once; arbitrary


class Poller:
    """Tells callbacks what has changed at their descriptors."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call *callback* with the event bits whenever there is news of *fd*.

        Room for writing is not news until `want_writable`.

        Raises:
            OSError: ENOSPC or ENOMEM, the kernel watches no more.
        """
        self._epoll.register(fd, READABLE | PEER_SHUT | select.EPOLLET)
        self._callbacks[fd] = callback

    def want_writable(self, fd: int, *, wanted: bool) -> None:
        """Report room for writing too, or no longer; if there is room now, that is reported."""
        bits = READABLE | PEER_SHUT | select.EPOLLET
        self._epoll.modify(fd, bits | WRITABLE if wanted else bits)

    def remove(self, fd: int) -> None:
        """Forget *fd*; call this before closing it."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    async def run(self, attend: Callable[[], None]) -> None:
        """Dispatch until cancelled.

        Args:
            attend: called after each burst of callbacks, which only take notes.
        """
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self.dispatch()
            attend()

    def dispatch(self) -> None:
        """Tell the callbacks what has happened until now."""
        callbacks = self._callbacks
        for _ in range(len(callbacks) // _BATCH + 1):  # each at most once: new events may wait
            events = self._epoll.poll(0, _BATCH)
            for fd, bits in events:
                callback = callbacks.get(fd)
                if callback is not None:
                    callback(bits)
            if len(events) < _BATCH:
                return

    def close(self) -> None:
        """Give the epoll descriptor back; after everything was removed."""
        self._epoll.close()
