"""``zttrio nc``: both directions of a connection, and two of them as processes."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from typing import TypeAlias

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

import zttrio
from zttrio.cli.nc import join

PairedStream: TypeAlias = trio.StapledStream[MemorySendStream, MemoryReceiveStream]

pytestmark = pytest.mark.usefixtures("segment")


class _Ends:
    """What stands in for standard input and output."""

    def __init__(self, *input_: bytes) -> None:
        self._input = [*input_, b""]
        self.output = b""

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._input.pop(0)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.output += data


async def _read_to_the_end(stream: PairedStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def test_the_end_of_input_half_closes_and_the_answer_still_arrives() -> None:
    ours, theirs = memory_stream_pair()
    ends = _Ends(b"que", b"stion")

    async def peer() -> None:
        question = await _read_to_the_end(theirs)  # ends only if we half-close
        await theirs.send_all(b"answer to " + question)
        await theirs.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        await join(ours, ends.read, ends.write)
    assert ends.output == b"answer to question"


async def test_the_peers_early_end_does_not_cut_off_the_rest_of_the_input() -> None:
    ours, theirs = memory_stream_pair()
    ends = _Ends(b"a", b"b", b"c")
    received: list[bytes] = []

    async def peer() -> None:
        await theirs.send_eof()
        received.append(await _read_to_the_end(theirs))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        await join(ours, ends.read, ends.write)
    assert received == [b"abc"]


async def test_a_broken_connection_ends_the_command_with_that_error() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_stream.aclose()
    await theirs.receive_stream.aclose()
    ends = _Ends(b"nobody reads this")
    with pytest.RaisesGroup(trio.BrokenResourceError):
        await join(ours, ends.read, ends.write)


async def _start_nc(nursery: trio.Nursery, *arguments: str) -> trio.Process:
    run = partial(
        trio.run_process,
        [sys.executable, "-m", "zttrio", "nc", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process: trio.Process = await nursery.start(run)
    return process


async def _say(process: trio.Process, data: bytes) -> None:
    assert process.stdin is not None
    await process.stdin.send_all(data)
    await process.stdin.aclose()


async def test_two_processes_exchange_what_stands_on_their_inputs() -> None:
    outputs: dict[str, bytes] = {}

    async def keep_output(name: str, process: trio.Process) -> None:
        assert process.stdout is not None
        outputs[name] = b"".join([bytes(data) async for data in process.stdout])

    async with trio.open_nursery() as nursery:  # run_process raises if an exit code is not 0
        server = await _start_nc(nursery, "--address", "10.9.0.1/24", "-l", "4000")
        assert server.stderr is not None
        ready = b""
        while not ready.endswith(b"\n"):
            ready += await server.stderr.receive_some()
        client = await _start_nc(nursery, "--address", "10.9.0.2/24", "10.9.0.1", "4000")
        nursery.start_soon(keep_output, "server", server)
        nursery.start_soon(keep_output, "client", client)
        await _say(client, b"from the client")
        await _say(server, b"from the server")
    assert re.fullmatch(rb"listening on .*\b10\.9\.0\.1\b.* port 4000\n", ready)
    assert outputs == {"server": b"from the client", "client": b"from the server"}


async def test_a_port_where_nobody_listens_is_code_1_and_says_refused() -> None:
    async with zttrio.Network(addresses=["10.9.0.1/24"]):
        finished = await trio.run_process(
            [sys.executable, "-m", "zttrio", "nc", "--address=10.9.0.2/24", "10.9.0.1", "4000"],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert finished.returncode == 1
    assert b"refused" in finished.stderr
    assert b"Traceback" not in finished.stderr
