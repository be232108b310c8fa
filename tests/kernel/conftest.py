"""A network namespace of the test's own, with the kernel's stack on one side of a TAP device."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio import Config, Network
from zttrio.wire import Tap

from .namespaces import CLONE_NEWNET, enter_namespace
from .verdict import unexplained

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

OURS = "10.99.0.1"
KERNEL = "10.99.0.2"
OURS6 = "fd00:99::1"
KERNEL6 = "fd00:99::2"


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the test in a new network namespace: nothing in it leads out of this machine.

    Afterwards the kernel must have nothing to complain of that the test does not explain.
    """
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
            # pytest-trio has wrapped the function itself.
            assert not unexplained(getattr(request.module, request.node.originalname))
        finally:
            enter_namespace(before)
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


class Far:
    """A host of the kernel's in a namespace of its own, behind a cable from the test's."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            inside("unshare", "-n", "sh", "-c", "echo && exec sleep 600"), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # from here on it is in its namespace
        self._namespace = f"/proc/{self._process.pid}/ns/net"
        run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
        run("ip", "link", "set", "far", "netns", str(self._process.pid))
        self.run("ip", "link", "set", "lo", "up")

    def connect(self, near: str, far: str) -> None:
        """Give both ends of the cable an address, and the far host a way to everybody."""
        flags = ("nodad",) if ":" in near else ()
        bits = "64" if ":" in near else "24"
        run("ip", "address", "add", f"{near}/{bits}", "dev", "near", *flags)
        run("ip", "link", "set", "near", "up")
        self.run("ip", "address", "add", f"{far}/{bits}", "dev", "far", *flags)
        self.run("ip", "link", "set", "far", "up")
        self.run("ip", "route", "add", "default", "via", near)

    def run(self, *command: str) -> bytes:
        """The output of *command* on the far host."""
        return subprocess.run(
            ["nsenter", f"--net={self._namespace}", *command], capture_output=True, check=True
        ).stdout

    def socket(self, family: int, kind: int) -> trio.socket.SocketType:
        """A socket of the far host."""
        libc = ctypes.CDLL(None, use_errno=True)
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self._namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert libc.setns(there, CLONE_NEWNET) == 0
            return trio.socket.socket(family, kind)
        finally:
            assert libc.setns(back, CLONE_NEWNET) == 0
            os.close(back)
            os.close(there)

    def close(self) -> None:
        """End it, its cable with it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def far(namespace: None) -> Iterator[Far]:
    """A host behind the kernel, which forwards what it gets for others."""
    del namespace
    run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    host = Far()
    try:
        yield host
    finally:
        host.close()


@asynccontextmanager
async def open_tap_network(
    name: str = "tap7", config: Config | None = None
) -> AsyncGenerator[Network, None]:
    """A Network at OURS and OURS6 on a TAP device, and the kernel at KERNEL and KERNEL6."""
    run("ip", "tuntap", "add", "dev", name, "mode", "tap")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", name)
    run("ip", "address", "add", f"{KERNEL6}/64", "dev", name, "nodad")
    # A device that drops a reset leaves the other side waiting for ever, as TCP does anywhere.
    run("ip", "link", "set", name, "up", "txqueuelen", "20000")
    addresses = [f"{OURS}/24", f"{OURS6}/64"]
    async with Network(wire=Tap(name), addresses=addresses, config=config) as network:
        yield network
