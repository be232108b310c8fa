"""The descriptor that a virtual socket shows to poll and select."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from zttrio.driver import Waiters
from zttrio.stack import events

__all__ = ["Nothing", "StandIn"]


class Nothing(events.Endpoint):
    """What a socket without a connection waits for: it never reports anything."""

    __slots__ = ()
    is_readable = False


class StandIn(Waiters):
    """Waiters with a descriptor that polls readable while the endpoint is; made on first use."""

    __slots__ = ("descriptor", "endpoint")

    def __init__(self, endpoint: events.Endpoint) -> None:
        super().__init__(endpoint)
        self.endpoint: Any = endpoint
        self.descriptor: int = -1

    def open(self) -> int:
        """The descriptor.  It is for poll and select only, and always writable."""
        if self.descriptor == -1:
            self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.on_readable = True
            self.readable_changed()
        return self.descriptor

    def close(self) -> None:
        """Let go of the endpoint, and close the descriptor, if there is one."""
        self.endpoint.owner = None  # or only the garbage collector could free the two
        if self.descriptor != -1:
            self.on_readable = False
            os.close(self.descriptor)
            self.descriptor = -1

    def refresh(self) -> None:
        """Follow the endpoint after something was taken from it."""
        if self.on_readable:
            self.readable_changed()

    def readable_changed(self) -> None:
        """Make the descriptor say what the endpoint says."""
        if self.endpoint.is_readable:
            os.eventfd_write(self.descriptor, 1)
        else:
            with suppress(BlockingIOError):
                os.eventfd_read(self.descriptor)
            self.endpoint.wanted |= events.RD | events.CONN | events.ERR

    def move_to(self, endpoint: events.Endpoint) -> None:
        """Stand in for another endpoint: a program may hold the number already."""
        self.attend(endpoint)
        self.endpoint = endpoint
        if self.on_readable:
            self.readable_changed()
