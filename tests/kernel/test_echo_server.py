"""The example echo server, beside the kernel on a TAP device, and the kernel's own clients."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from examples import echo_server

from .conftest import KERNEL, OURS, inside, open_tap_network, run
from .verdict import explains

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]


async def in_thread(*command: str, data: bytes | None = None) -> bytes:
    return await trio.to_thread.run_sync(partial(run, *command, data=data))


async def test_the_kernel_s_clients_are_served(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(random.Random(1).randbytes(10_000_000))
    answer = tmp_path / "answer"
    async with open_tap_network() as network, trio.open_nursery() as nursery:
        await nursery.start(echo_server.serve, network)

        pinged = await in_thread("ping", "-c", "3", "-i", "0.2", "-W", "2", OURS)
        assert b" 0% packet loss" in pinged
        pinged = await in_thread("ping", "-c", "2", "-i", "0.2", "-s", "20000", OURS)
        assert b" 0% packet loss" in pinged

        line = await in_thread("nc", "-N", "-w", "5", OURS, "7", data=b"hello\n")
        assert line == b"hello\n"

        # The server answers with what curl sent: the request's head, then the body.  It ends when
        # the client does, which curl does not: it gives up after two seconds of silence (28).
        curl = inside(
            *("curl", "-sS", "--http0.9", "-H", "Expect:", "--data-binary", f"@{body}"),
            *("--speed-time", "2", "--speed-limit", "1", "-o", str(answer), f"http://{OURS}:7/"),
        )
        done = await trio.run_process(curl, capture_stderr=True, check=False)
        assert done.returncode == 28, done.stderr
        echoed = answer.read_bytes()
        assert echoed.startswith(b"POST / HTTP/1.1\r\n")
        _, _, tail = echoed.partition(b"\r\n\r\n")
        assert hashlib.sha256(tail).hexdigest() == hashlib.sha256(body.read_bytes()).hexdigest()
        nursery.cancel_scope.cancel()


@explains("TcpOutRsts")
async def test_a_kernel_server_is_reached() -> None:
    payload = random.Random(2).randbytes(3_000_000)
    async with open_tap_network() as network, trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo_server.echo, 0, host=KERNEL))
        port = listeners[0].socket.getsockname()[1]
        stream = await network.open_tcp_stream(KERNEL, port)
        received = bytearray()

        async def send() -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        nursery.start_soon(send)
        async for chunk in stream:
            received += chunk
        assert bytes(received) == payload
        await stream.aclose()
        with pytest.raises(ConnectionRefusedError):
            await network.open_tcp_stream(KERNEL, 9)
        nursery.cancel_scope.cancel()


async def test_the_example_runs_as_a_program(tmp_path: Path) -> None:
    run("ip", "tuntap", "add", "dev", "tap8", "mode", "tap")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", "tap8")
    run("ip", "link", "set", "tap8", "up")
    program = str(Path(echo_server.__file__))
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                inside(sys.executable, program, "--tap", "tap8", "--address", f"{OURS}/24"),
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        assert process.stdout is not None
        said = b""
        while b"nc" not in said:
            said += await process.stdout.receive_some()
        assert OURS.encode() in said
        assert await in_thread("nc", "-N", "-w", "5", OURS, "7", data=b"hello\n") == b"hello\n"
        process.terminate()
