"""Destinations that the policy gives to the host, and those it denies."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.intercept.policy import DENY, HOST, Policy, Rule

from .programs import needs

if TYPE_CHECKING:
    from .hosts import Host, Segment

pytestmark = pytest.mark.kernel

PYTHON = sys.executable
PROGRAM = """
import errno, socket
def call(kind, port):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30_000)
        number = sock.fileno()
        try:
            sock.connect(('127.0.0.1', port))
        except OSError as exc:
            return errno.errorcode[exc.errno]
        keep = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return keep, room, sock.fileno() == number, sock.getpeername()[0]
print(call(socket.SOCK_STREAM, 7000))
print(call(socket.SOCK_DGRAM, 7000))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    try:
        print('sent', sock.sendto(b'x', ('127.0.0.1', 7000)))
    except OSError as exc:
        print(errno.errorcode[exc.errno])
with socket.socket() as sock:
    try:
        sock.bind(('127.0.0.1', 7001))
        sock.listen()
        print('listens')
    except OSError as exc:
        print(errno.errorcode[exc.errno])
"""
# A namespace with a loopback, and on it a kernel listener whose shell has no library.
SCRIPT = """
ip link set lo up
{python} -c "import socket,time; s = socket.create_server(('127.0.0.1', 7000)); time.sleep(30)" &
server=$!
while ! grep -q ":1B58 " /proc/net/tcp; do sleep 0.05; done
strace -f -e trace=socket -o trace env "$@"
kill $server
"""


async def run(host: Host) -> tuple[list[str], int]:
    """What the program says, and how many kernel sockets it made."""
    variables = [f"{name}={host.env[name]}" for name in ("LD_PRELOAD", "ZTTRIO_NET")]
    (host.folder / "program.py").write_text(PROGRAM)
    script = SCRIPT.format(python=PYTHON)
    with trio.fail_after(30):
        result = await trio.run_process(
            ["unshare", "--net", "sh", "-c", script, "sh", *variables, PYTHON, "program.py"],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            cwd=host.folder,
        )
    trace = (host.folder / "trace").read_text()
    return result.stdout.decode().splitlines(), trace.count("socket(AF_INET,")


async def test_by_default_the_loopback_is_private(segment: Segment) -> None:
    output, sockets = await run(await segment.host())
    assert output[0] == "ECONNREFUSED"
    assert output[3] == "listens"
    assert sockets == 0


async def test_what_the_policy_gives_to_the_host_gets_kernel_sockets(segment: Segment) -> None:
    host = await segment.host(Policy().allow_host([], loopback=True))
    output, sockets = await run(host)
    # The same number, with the options that had been set before.
    assert output[:2] == ["(1, 60000, True, '127.0.0.1')"] * 2
    assert output[2] == "sent 1"
    assert output[3] == "listens"
    assert sockets == 4


async def test_what_the_policy_denies_fails_and_is_reported(segment: Segment) -> None:
    rules = (Rule("127.0.0.0/8", (7000, 7000), DENY), Rule("127.0.0.0/8", verdict=HOST))
    host = await segment.host(Policy(rules))
    output, sockets = await run(host)
    assert output == ["EACCES", "EACCES", "EACCES", "listens"]
    assert sockets == 1
    assert any("denied by policy" in text for text in host.said)


@needs("busybox")
async def test_without_strictness_a_static_program_may_run(segment: Segment) -> None:
    host = await segment.host(Policy(is_strict=False))
    assert (await host.run("sh", "-c", "busybox echo ran")).strip() == "ran"
    assert any("runs on the host" in text for text in host.said)
