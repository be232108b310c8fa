"""Namespaces, and the processes in them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WHEEL = "libzt-1.8.4-cp39-cp39-manylinux2010_x86_64.whl"
DOWNLOAD = (
    *("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
    *("--python-version", "3.9", "--platform", "manylinux2010_x86_64", "libzt==1.8.4"),
)


@pytest.fixture(scope="session")
def libzt(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The real core's shared object, and what it needs to be loaded.

    The wheel is the one that ``ZTTRIO_LIBZT_WHEEL`` names, or it is downloaded.
    """
    folder = tmp_path_factory.mktemp("libzt")
    wheel = os.environ.get("ZTTRIO_LIBZT_WHEEL")
    if wheel is None:
        command = [sys.executable, *DOWNLOAD, "--dest", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"libzt cannot be downloaded: {done.stderr.strip()[-200:]}")
        wheel = str(folder / WHEEL)
    with ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith("x86_64-linux-gnu.so")]
        archive.extract(name, folder)
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("libzt needs a C compiler for four missing symbols")
    stub = folder / "stub.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(stub), str(HERE / "stub.c")], check=True
    )
    return str(folder / name), str(stub)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Switch:
    """A bridge, and namespaces on it: 10.77.N.1/24 each, no default route, no IPv6."""

    _serial = itertools.count()

    def __init__(self) -> None:
        self.prefix = f"ztt{os.getpid()}x{next(self._serial)}"
        self._names: list[str] = []
        self._add("sw")
        self._in("sw", "ip", "link", "add", "br0", "type", "bridge")
        self._in("sw", "ip", "link", "set", "br0", "up")

    def host(self, number: int, *reachable: int) -> str:
        """Make namespace *number*; it has routes to those in *reachable* only."""
        name = f"n{number}"
        self._add(name)
        full, switch, port = f"{self.prefix}{name}", f"{self.prefix}sw", f"p{number}"
        _ip(
            *("link", "add", "eth0", "netns", full, "type", "veth"),
            *("peer", "name", port, "netns", switch),
        )
        self._in("sw", "ip", "link", "set", port, "master", "br0", "up")
        self._in(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        self._in(name, "ip", "addr", "add", f"10.77.{number}.1/24", "dev", "eth0")
        self._in(name, "ip", "link", "set", "eth0", "up")
        self.route(number, *reachable)
        return full

    def route(self, number: int, *reachable: int) -> None:
        """Let a namespace reach others."""
        for other in reachable:
            self._in(f"n{number}", "ip", "route", "replace", f"10.77.{other}.0/24", "dev", "eth0")

    def close(self) -> None:
        for name in self._names:
            _ip("netns", "del", name)

    def _add(self, name: str) -> None:
        _ip("netns", "add", self.prefix + name)
        self._names.append(self.prefix + name)

    def _in(self, name: str, *words: str) -> None:
        _ip("netns", "exec", self.prefix + name, *words)


@pytest.fixture
def switch() -> Iterator[Switch]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    try:
        made = Switch()
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no network namespaces here: {exc.stderr.decode().strip()}")
    yield made
    made.close()


class Node:
    """A process that talks JSON lines, and everything it has said."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._news = trio.Event()

    @property
    def address(self) -> str:
        return str(self.find("ready")[-1]["address"])

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """What it said of one kind so far."""
        wanted = {"event": event, **fields}
        return [said for said in self.said if wanted.items() <= said.items()]

    async def wait(self, event: str, seconds: float = 30, **fields: Any) -> dict[str, Any]:
        """The first thing of this kind it says, also if it has said it already."""
        return (await self.wait_count(1, event, seconds, **fields))[0]

    async def wait_count(
        self, count: int, event: str, seconds: float = 30, **fields: Any
    ) -> list[dict[str, Any]]:
        try:
            with trio.fail_after(seconds):
                while len(found := self.find(event, **fields)) < count:
                    await self._news.wait()
        except trio.TooSlowError:
            raise AssertionError(f"no {event} {fields} among {self.said[-12:]}") from None
        return found

    async def ask(self, line: str, answer: str, seconds: float = 30) -> dict[str, Any]:
        """Send a command; returns its answer."""
        before = len(self.find(answer))
        await self.tell(line)
        return (await self.wait_count(before + 1, answer, seconds))[before]

    async def tell(self, line: str) -> None:
        """Send a command that nothing answers."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def listen(self) -> None:
        assert self.process.stdout is not None
        buffer = b""
        async for chunk in self.process.stdout:
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    self.said.append(json.loads(line))
            self._news.set()
            self._news = trio.Event()


async def start_node(nursery: trio.Nursery, namespace: str, *command: str) -> Node:
    """Run a node in a namespace until *nursery* is cancelled."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    full = ["ip", "netns", "exec", namespace, sys.executable, *command]
    process = await nursery.start(
        partial(
            trio.run_process,
            full,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            check=False,
            deliver_cancel=_kill,
        )
    )
    node = Node(process)
    nursery.start_soon(node.listen)
    await node.wait("ready")
    return node


async def _kill(process: trio.Process) -> None:
    process.kill()
