"""Megabytes between our TCP and the kernel's over a TAP device, with offloads and without."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio import Network
from zttrio.wire import Tap
from zttrio.wire.shortcuts import OFFLOAD

from .conftest import KERNEL, OURS, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

SIZE = 40_000_000
UDP_SEGMENT = 103  # linux/udp.h


@asynccontextmanager
async def open_network(mtu: int, how: str) -> AsyncGenerator[Network, None]:
    run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", "tap7")
    run("ip", "link", "set", "tap7", "mtu", str(mtu))
    run("ip", "link", "set", "tap7", "up")
    wire = Tap("tap7", offload=how == "offload", coalesce=how == "coalesce")
    async with Network(wire=wire, addresses=[f"{OURS}/24"]) as network:
        yield network


def blocking(work: Callable[[], None]) -> threading.Thread:
    """Run the kernel's end in a thread, which is in the test's namespace as its parent is."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["offload", "coalesce", "plain"])
@pytest.mark.parametrize("mtu", [1500, 9000, 65521])
async def test_megabytes_arrive_whole_in_both_directions(mtu: int, how: str) -> None:
    payload = random.Random(mtu).randbytes(SIZE)
    back = payload[::-1]
    received: list[bytes] = []

    def kernel_end(server: socket.socket) -> None:
        with server, server.accept()[0] as sock:
            sender = blocking(partial(sock.sendall, back))
            digest = hashlib.sha256()
            while data := sock.recv(1 << 18):
                digest.update(data)
            received.append(digest.digest())
            sender.join()

    async with open_network(mtu, how) as network:
        server = socket.create_server((KERNEL, 5001))
        thread = blocking(partial(kernel_end, server))
        async with (
            await network.open_tcp_stream(KERNEL, 5001) as stream,
            trio.open_nursery() as nursery,
        ):

            @nursery.start_soon
            async def send() -> None:
                await stream.send_all(payload)
                await stream.send_eof()

            digest = hashlib.sha256()
            async for data in stream:
                digest.update(data)
        await trio.to_thread.run_sync(thread.join)
        counters = network.status().counters
    assert digest.digest() == hashlib.sha256(back).digest()
    assert received == [hashlib.sha256(payload).digest()]
    assert "tcp_bad_checksum" not in counters
    if how == "offload" and mtu == 1500 and OFFLOAD:  # frames of many segments each
        assert counters["frames_received"] < SIZE / 1460
        assert counters["frames_sent"] < SIZE / 1460


@pytest.mark.parametrize("how", ["offload", "coalesce", "plain"])
async def test_runs_of_datagrams_arrive_one_by_one(how: str) -> None:
    """UDP_SEGMENT: where the device takes it, the kernel hands over 20 datagrams as one."""
    sent = random.Random(1).randbytes(19_500)
    async with open_network(1500, how) as network:
        with (
            await network.open_udp_socket(9) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            trio.fail_after(10),
        ):
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            sock.sendto(sent, (OURS, 9))
            got = [await udp.recv(2000) for _ in range(20)]
    assert [len(datagram) for datagram in got] == [1000] * 19 + [500]
    assert b"".join(got) == sent


@pytest.mark.skipif(not OFFLOAD, reason="ZTTRIO_OFFLOAD=0")
async def test_a_device_that_had_offloads_before_is_plain_when_asked_to_be() -> None:
    payload = random.Random(1).randbytes(3_000_000)
    run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", "tap7")
    run("ip", "link", "set", "tap7", "up")
    server = socket.create_server((KERNEL, 5001))
    for offload in (True, False, True):
        thread = blocking(partial(serve_once, server, payload))
        wire = Tap("tap7", offload=offload)
        async with (
            Network(wire=wire, addresses=[f"{OURS}/24"]) as network,
            await network.open_tcp_stream(KERNEL, 5001) as stream,
        ):
            got = b"".join([data async for data in stream])
            counters = wire.counters()
        await trio.to_thread.run_sync(thread.join)
        assert got == payload
        assert not counters["too_long"]
        assert (counters["frames_received"] < 1000) is offload  # 2000 full segments
    server.close()


def serve_once(server: socket.socket, payload: bytes) -> None:
    with server.accept()[0] as sock:
        sock.sendall(payload)
