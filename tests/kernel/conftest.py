"""A network namespace of the test's own, with the kernel's stack on one side of a TAP device."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from zttrio import Config, Network
from zttrio.wire import Tap

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

CLONE_NEWNET = 0x4000_0000
OURS = "10.99.0.1"
KERNEL = "10.99.0.2"


@pytest.fixture
def namespace() -> Iterator[None]:
    """Run the test in a new network namespace: nothing in it leads out of this machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        if not os.path.exists("/dev/net/tun"):
            pytest.skip("no /dev/net/tun")
        try:
            run("ip", "link", "set", "lo", "up")
            yield
        finally:
            assert libc.setns(before, CLONE_NEWNET) == 0
    finally:
        os.close(before)


def inside(*command: str) -> list[str]:
    """*command* in the test's namespace, which is its main thread's.

    Trio starts processes from worker threads, and a worker may still be in the namespace of an
    earlier test.
    """
    return ["nsenter", f"--net=/proc/{os.getpid()}/ns/net", *command]


def run(*command: str, data: bytes | None = None, timeout: float = 60) -> bytes:
    """The output of *command* in the test's namespace; it must succeed."""
    done = subprocess.run(
        inside(*command), input=data, capture_output=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stderr.decode()}"
    return done.stdout


@asynccontextmanager
async def open_tap_network(
    name: str = "tap7", config: Config | None = None
) -> AsyncGenerator[Network, None]:
    """A Network at OURS on a TAP device whose other side is the kernel at KERNEL."""
    run("ip", "tuntap", "add", "dev", name, "mode", "tap")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", name)
    # A device that drops a reset leaves the other side waiting for ever, as TCP does anywhere.
    run("ip", "link", "set", name, "up", "txqueuelen", "20000")
    async with Network(wire=Tap(name), addresses=[f"{OURS}/24"], config=config) as network:
        yield network
