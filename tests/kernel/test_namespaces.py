"""The fixture that puts a test into a network namespace also takes it back."""

from __future__ import annotations

import ctypes
import os

import pytest
import trio

from .namespaces import CLONE_NEWNET, enter_namespace

pytestmark = pytest.mark.kernel


def _space() -> str:
    return os.readlink("/proc/thread-self/ns/net")


async def test_worker_threads_return_with_the_test() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        home = _space()
        # Workers that are older than the namespace are not in it.
        await trio.to_thread.run_sync(libc.unshare, CLONE_NEWNET)
        assert await trio.to_thread.run_sync(_space) != home
        enter_namespace(before)
        assert await trio.to_thread.run_sync(_space) == home
        assert _space() == home
    finally:
        os.close(before)
