"""`zttrio universe`, `join`, `status` and `--network`: what a newcomer does, on loopback."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.zerotier.data import node_identities
from zttrio.cli import main as cli
from zttrio.errors import InterceptError
from zttrio.intercept import preload
from zttrio.wire.zerotier import Home
from zttrio.wire.zerotier.sockets import SocketCounters, open_udp_sockets

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("segment")]

ZTTRIO = (sys.executable, "-m", "zttrio")
HELLO = "import socket; print(socket.create_connection(('10.99.0.2', 8000)).recv(99).decode())"
SERVE = """
import socket
listener = socket.create_server(('0.0.0.0', 8000))
while True:
    client, _ = listener.accept()
    client.sendall(b'hello from an unmodified program')
    client.close()
"""


def free_port() -> int:
    [sock] = open_udp_sockets([b"\x7f\0\0\x01"], 0, SocketCounters())
    sock.close()
    return sock.port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a universe is to be, with identities that need not be made."""
    folder = tmp_path / "universe"
    for name, identity in zip(("root", "one", "two"), node_identities(), strict=False):
        Home(folder / name).save_identity(identity)
    return folder


class Command:
    """A command that runs, and what it has said so far."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""
        self._news = trio.Event()

    async def listen(self, stream: trio.abc.ReceiveStream) -> None:
        async for data in stream:
            self.said += data.decode()
            self._news.set()
            self._news = trio.Event()

    async def wait_for(self, pattern: str) -> re.Match[str]:
        while (found := re.search(pattern, self.said)) is None:
            await self._news.wait()
        return found

    async def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)
        await self.process.wait()


async def start(nursery: trio.Nursery, *words: str) -> Command:
    process: trio.Process = await nursery.start(
        partial(
            trio.run_process,
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            # A test runner in the background may have it ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    )
    command = Command(process)
    assert process.stdout is not None
    assert process.stderr is not None
    nursery.start_soon(command.listen, process.stdout)
    nursery.start_soon(command.listen, process.stderr)
    return command


async def run(*words: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)


async def test_the_commands_that_a_universe_prints_do_what_it_says(folder: Path) -> None:
    try:
        preload.find_library()
    except InterceptError as exc:
        pytest.skip(str(exc))
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            universe = await start(
                nursery, *ZTTRIO, "universe", "--folder", str(folder), "--port", str(free_port())
            )
            network_id = (await universe.wait_for(r"network ([0-9a-f]{16}), "))[1]
            assert network_id.startswith(str(node_identities()[0]))
            await universe.wait_for("authorize")
            lines = [shlex.split(line) for line in universe.said.splitlines()]
            join, serve, fetch, _ = (line for line in lines if line[:3] == list(ZTTRIO))

            joined = await start(nursery, *join)
            await joined.wait_for(r"online as 10\.99\.0\.1/24")
            program = [sys.executable, "-c", SERVE]
            served = await start(nursery, *serve[: serve.index("--") + 1], *program)
            await served.wait_for(r"online as 10\.99\.0\.2/24")
            program = [sys.executable, "-c", HELLO]
            while True:
                fetched = await run(*fetch[: fetch.index("--") + 1], *program)
                # The server may not listen yet, and a busy machine may take long for identities.
                if not (b"refused" in fetched.stderr or b"No route" in fetched.stderr):
                    break
            assert fetched.stdout == b"hello from an unmodified program\n", fetched.stderr

            home = ["--home", str(folder / "one")]
            status = json.loads((await run(*ZTTRIO, "status", "--json", *home)).stdout)
            assert status["schema"] == 1
            assert status["identity"] == str(node_identities()[1])
            assert "10.99.0.1/24" in status["addresses"]
            assert any("root" in peer for peer in status["peers"])
            shown = (await run(*ZTTRIO, "status", *home)).stdout.decode()
            assert f"zerotier {network_id}  node {node_identities()[1]}" in shown

            await served.interrupt()
            await joined.interrupt()
            gone = await run(*ZTTRIO, "status", *home)
            assert gone.returncode == 1
            assert b"no `zttrio join` is running in it" in gone.stderr

            ping = await run(
                *(*ZTTRIO, "ping", "-c", "1", "-W", "5", "--network", network_id),
                *("--home", str(folder / "two"), "10.99.0.2"),
            )
            assert ping.returncode == 0, ping.stderr
            await universe.interrupt()
    assert "Traceback" not in universe.said + joined.said


async def test_who_is_not_let_in_is_told_what_to_do_and_waits(folder: Path) -> None:
    Home(folder / "three").save_identity(node_identities()[3])
    port = str(free_port())
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            universe = await start(
                nursery, *ZTTRIO, "universe", "--folder", str(folder), "--port", port
            )
            network_id = (await universe.wait_for(r"network ([0-9a-f]{16}), "))[1]
            await universe.wait_for("authorize")
            command = next(line for line in universe.said.splitlines() if "authorize" in line)
            planet = str(folder / "root" / "planet")
            home = str(folder / "three")
            three = await start(
                nursery, *ZTTRIO, "join", network_id, "--home", home, "--planet", planet
            )
            node = (await three.wait_for(r"has not authorised node ([0-9a-f]{10})"))[1]
            assert node == str(node_identities()[3])
            if "controller" in cli._COMMANDS:
                done = await run(*shlex.split(command.replace("NODE", node)))
                assert done.returncode == 0, done.stderr
                await three.wait_for(r"online as 10\.99\.0\.\d+/24")
            three.process.terminate()
            assert await three.process.wait() == 0
            assert not (folder / "three" / "status.sock").exists()
            universe.process.terminate()
            assert await universe.process.wait() == 0


async def test_a_universe_is_the_same_one_the_next_time(folder: Path) -> None:
    port = str(free_port())
    found = []
    with trio.fail_after(60):
        for options in (["--port", port], []):
            async with trio.open_nursery() as nursery:
                universe = await start(
                    nursery, *ZTTRIO, "universe", "--folder", str(folder), *options
                )
                found.append((await universe.wait_for(r"network ([0-9a-f]{16}), "))[1])
                await universe.interrupt()
    assert found[0] == found[1]
    other = await run(*ZTTRIO, "universe", "--folder", str(folder), "--advertise", "10.0.0.1/9")
    assert other.returncode == 1
    assert b"use another --folder" in other.stderr


async def test_silence_is_explained(folder: Path) -> None:
    port = str(free_port())
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            universe = await start(
                nursery, *ZTTRIO, "universe", "--folder", str(folder), "--port", port
            )
            network_id = (await universe.wait_for(r"network ([0-9a-f]{16}), "))[1]
            await universe.interrupt()
            one = await start(nursery, *ZTTRIO, "join", network_id, "--home", str(folder / "one"))
            await one.wait_for("still waiting: no root of the planet answers")
            await one.interrupt()


def test_joining_without_a_planet_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["join", "8056c2e21c000001"]) == 1
    assert "did not choose" in capsys.readouterr().err


def test_a_network_id_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["join", "8056c2e21c00000"]) == 1
    assert "needs sixteen hex digits" in capsys.readouterr().err
