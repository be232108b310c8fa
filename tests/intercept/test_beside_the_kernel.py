"""Intercepted programs on one side of a TAP device, the kernel's own TCP on the other."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.kernel.conftest import KERNEL, OURS, inside, namespace, run
from zttrio.wire import Tap

from .test_programs import make_blob, needs

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Host, Segment

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]
__all__ = ["namespace"]

PYTHON = sys.executable


@pytest.fixture
async def ours(namespace: None, segment: Segment) -> Host:
    """A host on the TAP; its programs are isolated as always, the kernel's are `inside`."""
    del namespace
    run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", "tap7")
    run("ip", "link", "set", "tap7", "up", "txqueuelen", "20000")
    return await segment.host(wire=Tap("tap7"), address=OURS)


async def kernel(*argv: str | Path, folder: Path, within: float = 40) -> str:
    """Run a program on the kernel's side."""
    with trio.fail_after(within):
        result = await trio.run_process(
            inside(*map(str, argv)),
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=folder,
        )
    output = result.stdout.decode(errors="replace")
    assert result.returncode == 0, output
    return output


async def kernel_server(host: Host, port: int, *argv: str) -> None:
    """Start a server on the kernel's side; return when it listens."""

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        process = await trio.lowlevel.open_process(
            inside(*argv), cwd=host.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            with trio.fail_after(15):
                while f":{port} " not in run("ss", "-Htln").decode():  # noqa: ASYNC110
                    await trio.sleep(0.02)
            task_status.started()
            await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    await host.nursery.start(serve)


@needs("curl")
async def test_the_kernels_curl_fetches_from_an_intercepted_server(
    ours: Host, tmp_path: Path
) -> None:
    digest = make_blob(ours.folder)
    await ours.start(PYTHON, "-m", "http.server", "8000", port=8000)
    await kernel("curl", "-sS", "-o", "got", f"http://{OURS}:8000/blob", folder=tmp_path)
    assert hashlib.sha256((tmp_path / "got").read_bytes()).hexdigest() == digest


@needs("curl", "nginx")
async def test_the_kernels_curl_fetches_from_intercepted_nginx(ours: Host, tmp_path: Path) -> None:
    from .test_programs import start_nginx

    digest = await start_nginx(ours)
    await kernel("curl", "-sS", "-o", "got", f"http://{OURS}:8080/blob", folder=tmp_path)
    assert hashlib.sha256((tmp_path / "got").read_bytes()).hexdigest() == digest


@needs("curl", "wget")
async def test_intercepted_clients_fetch_from_the_kernels_server(ours: Host) -> None:
    digest = make_blob(ours.folder)
    await kernel_server(ours, 8001, PYTHON, "-m", "http.server", "8001")
    for command in (["curl", "-sS", "-o"], ["wget", "-q", "-O"]):
        await ours.run(*command, "got", f"http://{KERNEL}:8001/blob")
        assert hashlib.sha256((ours.folder / "got").read_bytes()).hexdigest() == digest


@needs("curl")
async def test_a_port_closed_on_the_kernels_side_is_refused(ours: Host) -> None:
    output = await ours.run("curl", "-sS", f"http://{KERNEL}:8002/", check=False)
    assert "(7)" in output


@needs("iperf3")
@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "4"), ("-u", "-b", "20M")])
async def test_iperf3_measures_against_the_kernel(ours: Host, options: tuple[str, ...]) -> None:
    await kernel_server(ours, 5201, "iperf3", "-s")
    output = await ours.run("iperf3", "-c", KERNEL, "-t", "2", *options)
    assert "iperf Done." in output


@needs("redis-server", "redis-benchmark")
async def test_the_kernels_redis_benchmark_drives_an_intercepted_server(
    ours: Host, tmp_path: Path
) -> None:
    await ours.start(
        "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", port=6379
    )
    output = await kernel(
        "redis-benchmark", "-h", OURS, "-n", "2000", "-c", "50", "-q", "-t", "ping,set,get",
        folder=tmp_path,
    )  # fmt: skip
    assert "GET:" in output
    assert "rror" not in output


async def test_datagrams_and_their_errors_cross(ours: Host) -> None:
    program = f"""
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.sendto(b'hello', ('{KERNEL}', 7300))
print(sock.recv(100))
sock.connect(('{KERNEL}', 7301))
sock.send(b'x')
try: print(sock.recv(1))
except OSError as exc: print(exc.strerror)
"""
    echo = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.bind(('', 7300)); l = socket.create_server(('', 7300))\n"
        "while True: d, a = s.recvfrom(100); s.sendto(d.upper(), a)\n"
    )
    await kernel_server(ours, 7300, PYTHON, "-c", echo)
    output = await ours.run(PYTHON, "-c", program)
    assert output.splitlines() == [repr(b"HELLO"), "Connection refused"]


async def test_resets_cross_both_ways(ours: Host, tmp_path: Path) -> None:
    server = (
        "import socket, struct\n"
        "l = socket.create_server(('', 7400))\n"
        "c, _ = l.accept()\n"
        "c.recv(1)\n"
        "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n"
        "c.close()\n"
    )
    client = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], 7400))\n"
        "s.send(b'x')\n"
        "try: print(s.recv(1))\n"
        "except OSError as exc: print(exc.strerror)\n"
    )
    await ours.start(PYTHON, "-c", server, port=7400)
    output = await kernel(PYTHON, "-c", client, OURS, folder=tmp_path)
    assert output.strip() == "Connection reset by peer"
    await kernel_server(ours, 7400, PYTHON, "-c", server)
    assert (await ours.run(PYTHON, "-c", client, KERNEL)).strip() == "Connection reset by peer"


async def test_large_random_transfers_arrive_whole(ours: Host, tmp_path: Path) -> None:
    data = random.Random(9).randbytes(20_000_000)
    (tmp_path / "data").write_bytes(data)
    await ours.start(
        PYTHON,
        "-c",
        "import hashlib, socket\n"
        "c, _ = socket.create_server(('', 7500)).accept()\n"
        "h = hashlib.sha256()\n"
        "while d := c.recv(100_000): h.update(d)\n"
        "c.sendall(h.hexdigest().encode())\n",
        port=7500,
    )
    client = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], 7500))\n"
        "s.sendall(open('data', 'rb').read())\n"
        "s.shutdown(socket.SHUT_WR)\n"
        "print(s.recv(100).decode())\n"
    )
    output = await kernel(PYTHON, "-c", client, OURS, folder=tmp_path)
    assert output.strip() == hashlib.sha256(data).hexdigest()
