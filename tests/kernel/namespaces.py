"""Going back to the network namespace that a test came from, with every thread."""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from outcome import Outcome

CLONE_NEWNET = 0x4000_0000


def enter_namespace(space: int) -> None:
    """Put this thread into network namespace *space* (a descriptor), and trio's idle workers, too.

    A worker stays for ten seconds, and would serve later tests where it was started.
    """
    _enter(space)
    threads = threading.active_count() - 1
    if not threads:
        return
    everyone = threading.Barrier(threads)  # so that no worker takes two of the jobs

    def follow() -> None:
        _enter(space)
        everyone.wait(10)

    done: queue.SimpleQueue[Outcome[Any]] = queue.SimpleQueue()
    for _ in range(threads):
        trio.lowlevel.start_thread_soon(follow, done.put)
    for _ in range(threads):
        done.get(timeout=10).unwrap()


def _enter(space: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
