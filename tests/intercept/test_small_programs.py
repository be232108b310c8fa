"""Small programs of our own: both ours on one segment, and each side against the kernel's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.kernel.conftest import namespace

from .programs import PYTHON, make_blob

if TYPE_CHECKING:
    from .hosts import Station

pytestmark = pytest.mark.kernel
__all__ = ["namespace"]

ECHO_DATAGRAMS = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(('', 7300))
ready = socket.create_server(('', 7300))
while True:
    data, address = sock.recvfrom(70_000)
    sock.sendto(data.upper(), address)
"""
CALL_DATAGRAMS = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
for size in (0, 1, 1400, 9000):
    sock.sendto(b'x' * size, (sys.argv[1], 7300))
    data, address = sock.recvfrom(70_000)
    assert (data, address) == (b'X' * size, (sys.argv[1], 7300))
sock.connect((sys.argv[1], 7301))
sock.send(b'x')
try: print(sock.recv(1))
except OSError as exc: print(exc.strerror)
"""


async def test_datagrams_and_their_errors_cross(server: Station, client: Station) -> None:
    await server.start(PYTHON, "-c", ECHO_DATAGRAMS, port=7300)
    output = await client.run(PYTHON, "-c", CALL_DATAGRAMS, server.address)
    assert output == "Connection refused\n"


async def test_resets_cross(server: Station, client: Station) -> None:
    serve = (
        "import socket, struct\n"
        "l = socket.create_server(('', 7400))\n"
        "c, _ = l.accept()\n"
        "c.recv(1)\n"
        "c.send(b'last words')\n"
        "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n"
        "c.close()\n"
    )
    call = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], 7400))\n"
        "s.send(b'x')\n"
        "print(s.recv(100))\n"
        "try: print(s.recv(1))\n"
        "except OSError as exc: print(exc.strerror)\n"
    )
    await server.start(PYTHON, "-c", serve, port=7400)
    output = await client.run(PYTHON, "-c", call, server.address)
    assert output.splitlines() == [repr(b"last words"), "Connection reset by peer"]


async def test_urgent_data_arrives_in_line(server: Station, client: Station) -> None:
    serve = (
        "import socket\n"
        "c, _ = socket.create_server(('', 7600)).accept()\n"
        "c.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)\n"
        "c.sendall(b'go')\n"
        "got = b''\n"
        "while d := c.recv(100): got += d\n"
        "print(got, flush=True)\n"
    )
    call = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], 7600))\n"
        "s.recv(2)\n"
        "for _ in range(50):\n"
        "    s.send(b'abc')\n"
        "    s.send(b'!', socket.MSG_OOB)\n"
        "    s.send(b'def')\n"
    )
    program = await server.start(PYTHON, "-c", serve, port=7600)
    await client.run(PYTHON, "-c", call, server.address)
    with trio.fail_after(20):
        await program.process.wait()
    assert program.output().strip() == repr(b"abc!def" * 50)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_large_random_transfers_arrive_whole(
    server: Station, client: Station, direction: str
) -> None:
    hashing = (
        "import hashlib\n"
        "def take(c):\n"
        "    h = hashlib.sha256()\n"
        "    while d := c.recv(100_000): h.update(d)\n"
        "    return h.hexdigest()\n"
    )
    sending = (
        "def give(c):\n    c.sendall(open('blob', 'rb').read())\n    c.shutdown(socket.SHUT_WR)\n"
    )
    serve = "c, _ = socket.create_server(('', 7500)).accept()\n"
    call = "c = socket.create_connection((sys.argv[1], 7500))\n"
    source = client if direction == "up" else server
    digest = make_blob(source.folder, size=20_000_000)
    if direction == "up":
        serve += "c.sendall(take(c).encode())\n"
        call += "give(c)\nprint(c.recv(100).decode())\n"
    else:
        serve += "give(c)\n"
        call += "print(take(c))\n"
    head = "import socket, sys\n" + hashing + sending
    await server.start(PYTHON, "-c", head + serve, port=7500)
    output = await client.run(PYTHON, "-c", head + call, server.address)
    assert output.strip() == digest
