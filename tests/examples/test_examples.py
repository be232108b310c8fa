"""Every example does what it says: its coroutines in a lab, and the main job as two processes."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from examples import echo_client, echo_server, http_client, udp_clock
from zttrio.testing import Lab

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    import zttrio

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def two_networks() -> AsyncGenerator[tuple[zttrio.Network, zttrio.Network, trio.Nursery]]:
    """A client's network, a server's called ``server.local``, and a nursery for services."""
    lab = Lab(seed=1)
    async with (
        lab.network("server") as server,
        lab.network("client") as client,
        trio.open_nursery() as nursery,
    ):
        await server.wait_online()
        await client.wait_online()
        yield client, server, nursery
        nursery.cancel_scope.cancel()


async def test_the_echo_server_sends_back_what_the_client_says(autojump_clock: MockClock) -> None:
    async with two_networks() as (client, server, nursery):
        await nursery.start(echo_server.serve, server)
        line = b"a line\n" * 100_000
        assert await echo_client.ask(client, "server.local", echo_client.PORT, line) == line


async def test_a_client_that_breaks_off_does_not_end_the_echo_server(
    autojump_clock: MockClock,
) -> None:
    async with two_networks() as (client, server, nursery):
        await nursery.start(echo_server.serve, server)
        rude = await client.open_tcp_stream("server.local", echo_server.PORT)
        with trio.move_on_after(5):  # it does not read, so the buffers fill up
            await rude.send_all(b"x" * 1_000_000)
        await rude.aclose()  # with the answer unread, so that the server gets a reset
        assert await echo_client.ask(client, "server.local", 7, b"still there?") == b"still there?"


async def test_the_clock_answers_with_an_rfc_867_line(autojump_clock: MockClock) -> None:
    async with two_networks() as (client, server, nursery):
        await nursery.start(udp_clock.serve, server)
        answer = await udp_clock.ask(client, "server.local")
    assert re.fullmatch(r"[A-Z][a-z]+day, [A-Z][a-z]+ \d\d, \d{4} \d\d:\d\d:\d\d UTC", answer)


async def test_asking_a_silent_clock_ends_after_three_attempts(autojump_clock: MockClock) -> None:
    questions: list[bytes] = []

    async def be_silent(sock: trio.socket.SocketType) -> None:
        with sock:
            while True:
                questions.append(await sock.recv(1024))

    async with two_networks() as (client, server, nursery):
        nursery.start_soon(be_silent, await server.open_udp_socket(udp_clock.PORT))
        with pytest.raises(TimeoutError):
            await udp_clock.ask(client, "server.local")
    assert questions == [b"\n"] * 3


async def test_httpx_fetches_the_page_of_the_example(autojump_clock: MockClock) -> None:
    async with two_networks() as (client, server, nursery):
        await nursery.start(partial(http_client.serve_page, server, 8000))
        response = await http_client.fetch(client, "http://server.local:8000/")
    assert response.content == http_client.PAGE


def readme_command(mark: str) -> str:
    """The command in the README's code block behind the comment ``<!-- ci: mark -->``."""
    found = re.search(
        rf"^<!-- ci: {mark} -->\n```sh\n(.*?)\n```$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, f"README.md has no command marked 'ci: {mark}'"
    return found[1]


async def _start(nursery: trio.Nursery, *command: str) -> trio.Process:
    run = partial(trio.run_process, command, stdout=subprocess.PIPE, cwd=ROOT, check=False)
    process: trio.Process = await nursery.start(run)
    return process


@pytest.mark.usefixtures("segment")
async def test_the_server_prints_the_command_of_the_readme_and_it_works() -> None:
    async with trio.open_nursery() as nursery:
        server = await _start(nursery, sys.executable, "examples/echo_server.py")
        assert server.stdout is not None
        output = b""
        while output.count(b"\n") < 2:
            data = await server.stdout.receive_some()
            assert data, f"the server ended after {output!r}"
            output += data
        said, printed = output.decode().splitlines()
        assert re.match(r"echo server on .*\b169\.254\.\d+\.\d+\b.* port 7;", said)
        # The README's virtual environment may not be the one that runs this test.
        python, *arguments = printed.split()
        documented = readme_command("second terminal").split()
        assert documented == [".venv/bin/python", *arguments]
        assert (ROOT / python).samefile(sys.executable)

        client = await trio.run_process([python, *arguments], capture_stdout=True, cwd=ROOT)
        assert client.stdout == b"echo.local answered: hello from user space\n"
        server.terminate()


async def test_an_interrupted_server_says_nothing_and_leaves_no_socket_behind(
    segment: Path,
) -> None:
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            [sys.executable, "examples/echo_server.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
        server: trio.Process = await nursery.start(run)
        assert server.stdout is not None
        assert server.stderr is not None
        while b"echo_client" not in await server.stdout.receive_some():
            pass
        server.send_signal(2)
        errors = b"".join([bytes(data) async for data in server.stderr])
        assert await server.wait() == 0
    assert errors == b""
    assert not await trio.to_thread.run_sync(lambda: list(segment.rglob("*.sock")))


@pytest.mark.usefixtures("segment")
async def test_a_client_without_a_server_says_what_to_check() -> None:
    finished = await trio.run_process(
        [sys.executable, "examples/echo_client.py"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=ROOT,
    )
    assert finished.returncode == 1
    assert b"is the server running?" in finished.stderr
    assert b"Traceback" not in finished.stderr
