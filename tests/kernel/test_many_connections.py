"""Two hundred kernel connections at once, some of which misbehave."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
from collections import Counter

import pytest
import trio

from examples import echo_server
from zttrio import Config

from .conftest import OURS, open_tap_network
from .verdict import explains

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

CONNECTIONS = 200
RESET = struct.pack("ii", 1, 0)  # struct linger: on, no time; close sends RST


async def talk(number: int, outcomes: Counter[str]) -> None:
    """One client: most read all of their echo, some abort, some stop reading."""
    rng = random.Random(number)
    payload = rng.randbytes(rng.randrange(1, 1_000_000))
    stream = await trio.open_tcp_stream(OURS, 7)
    behaviour = number % 5

    async def send() -> None:
        await stream.send_all(payload)
        if behaviour != 1:
            await stream.send_eof()

    if behaviour == 3:  # abort in the middle
        with trio.move_on_after(rng.uniform(0, 0.3)):
            await send()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await stream.aclose()
        outcomes["aborted"] += 1
        return
    if behaviour == 4:  # half-close at once, and send nothing
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await stream.aclose()
        outcomes["empty"] += 1
        return
    digest, count = hashlib.sha256(), 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while count < len(payload):
            chunk = await stream.receive_some()
            assert chunk, f"client {number}: ended after {count} of {len(payload)}"
            digest.update(chunk)
            count += len(chunk)
    assert digest.digest() == hashlib.sha256(payload).digest(), f"client {number}"
    if behaviour != 1:
        assert await stream.receive_some() == b""
    await stream.aclose()
    outcomes["whole"] += 1


# Some are reset on purpose, by both sides; and on a busy machine more of them wait to be accepted
# than the backlog holds, so that the last ACK of a handshake is dropped and our SYN comes again.
@explains(
    "TcpOutRsts",
    "TcpEstabResets",
    "TcpExtTCPAbortOnData",
    "TcpExtTCPAbortOnClose",
    "TcpExtTCPSYNChallenge",
)
async def test_every_stream_is_right_and_nothing_is_left() -> None:
    outcomes: Counter[str] = Counter()
    async with open_tap_network(config=Config(time_wait=0.5)) as network:
        tasks_before = network.status().tasks
        async with trio.open_nursery() as nursery:
            await nursery.start(echo_server.serve, network)
            with trio.fail_after(100):
                async with trio.open_nursery() as clients:
                    for number in range(CONNECTIONS):
                        clients.start_soon(talk, number, outcomes)
            assert outcomes == Counter(whole=120, aborted=40, empty=40)
            with trio.move_on_after(10):
                while network.status().connections:  # noqa: ASYNC110 - the kernel has no event for it
                    await trio.sleep(0.1)
            status = network.status()
            assert status.connections == (), str(status)
            assert {row.local for row in status.sockets} == {"0.0.0.0:7", "[::]:7"}
            assert {row.queue for row in status.sockets} == {0}
            assert status.ports == ("tcp 0.0.0.0:7", "tcp [::]:7"), status
            nursery.cancel_scope.cancel()
        status = network.status()
        assert status.connections == ()
        assert status.sockets == ()
        assert status.ports == ()
        assert status.tasks == tasks_before
