"""Namespaces, and the processes in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from . import wheel
from .switch import Switch, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="session")
def libzt(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The real core's shared object, and what it needs to be loaded; see `.wheel`."""
    try:
        return wheel.prepare(tmp_path_factory.mktemp("libzt"))
    except wheel.NoWheelError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def namespaces() -> None:
    """There can be network namespaces here."""
    obstacle = why_not()
    if obstacle is None:
        try:
            Switch().close()
        except subprocess.CalledProcessError as exc:
            obstacle = f"no network namespaces here: {exc.stderr.decode().strip()}"
    if obstacle is not None:
        pytest.skip(obstacle)


@pytest.fixture
def switch(namespaces: None) -> Iterator[Switch]:
    del namespaces
    made = Switch()
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
