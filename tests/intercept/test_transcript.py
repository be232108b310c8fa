"""One program, run twice: kernel sockets and ours show it the same.

The program is tests/intercept/micro.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.tap import standin

if TYPE_CHECKING:
    from .hosts import Host, Segment

ROOT = Path(__file__).parents[2]
GROUPS = [
    name
    for file in sorted(Path(__file__).with_name("micro").glob("*.py"))
    for name in re.findall(r"^@group\ndef (\w+)", file.read_text(), re.MULTILINE)
]
# The same addresses as the virtual network has, so that routes and broadcasts are the same.
KERNEL = """
ip link set lo up
ip link add zt0 type veth peer name zt1
ip address add 10.7.0.1/24 broadcast + dev zt0
ip link set zt0 up
ip link set zt1 up
exec "$@"
"""

pytestmark = pytest.mark.kernel


# Groups that make streams, for the ways of making them that are not the default.
STREAMS = ["states", "nonblocking_connect", "refused", "accepting", "resets", "processes"]


async def on_the_kernel(group: str) -> list[str]:
    with trio.fail_after(60):
        result = await trio.run_process(
            ["unshare", "--net", "sh", "-c", KERNEL, "sh", *command(group)],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    output = result.stdout.decode()
    assert result.returncode == 0, output
    return output.splitlines()


def command(group: str, *variables: str) -> list[str]:
    path = f"PYTHONPATH={ROOT}"
    return ["env", path, *variables, sys.executable, "-m", "tests.intercept.micro", group]


@pytest.mark.parametrize("group", GROUPS)
async def test_a_program_sees_what_the_kernel_would_show(host: Host, group: str) -> None:
    output = await host.run(*command(group), within=60)
    assert output.splitlines() == await on_the_kernel(group)


@pytest.mark.parametrize("group", STREAMS)
async def test_a_connection_that_became_a_socket_shows_the_same(host: Host, group: str) -> None:
    output = await host.run(*command(group, "ZTTRIO_REPURPOSE=1"), within=60)
    assert output.splitlines() == await on_the_kernel(group)


async def test_without_residues_a_reset_is_still_told(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standin, "keeps_residue_harmless", lambda: False)
    host = await segment.host()
    program = (
        "import socket, struct\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "for linger in (1, 0):\n"
        "    sock = socket.create_connection(listener.getsockname())\n"
        "    accepted, _ = listener.accept()\n"
        "    sock.sendall(b'x' * 100_000)\n"
        "    print(len(accepted.recv(100_000, socket.MSG_WAITALL)))\n"
        "    accepted.sendall(b'last words')\n"
        "    option = struct.pack('ii', linger, 0)\n"
        "    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)\n"
        "    accepted.close()\n"
        "    print(sock.recv(100))\n"
        "    try: print(sock.recv(100))\n"
        "    except OSError as exc: print(exc.strerror)\n"
    )
    assert (await host.run(sys.executable, "-c", program)).splitlines() == [
        "100000",
        "b'last words'",
        "Connection reset by peer",
        "100000",
        "b'last words'",
        "b''",
    ]
