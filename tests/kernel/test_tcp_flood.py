"""Half-open SYNs by the thousand over a TAP device, and a real client of the kernel's."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trio

from zttrio.header.address import packed
from zttrio.header.checksum import transport_checksum
from zttrio.header.ethernet import ETHERTYPE_IPV4, EthernetHeader
from zttrio.header.ipv4 import PROTOCOL_TCP, Ipv4Header
from zttrio.header.tcp import SYN, TcpHeader

from .conftest import KERNEL, OURS, open_tap_network

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

RATE = 5000  # SYNs a second
SECONDS = 2
PAGE = os.sysconf("SC_PAGE_SIZE")


def half_open(mac: bytes, count: int) -> list[bytes]:
    """Frames with SYNs from a network behind the kernel, which does not forward."""
    rng = random.Random(1)
    frames = []
    ours = packed(OURS)
    for _ in range(count):
        source = b"\xc6\x12" + rng.randbytes(2)  # 198.18.0.0/16
        tcp = TcpHeader(
            rng.randrange(1024, 65536),
            7,
            rng.getrandbits(32),
            0,
            SYN,
            0xFFFF,
            mss=1460,
            window_scale=7,
            sack_permitted=True,
            timestamp=(rng.getrandbits(32), 0),
        )
        plain = tcp.emit()
        tcp.checksum = transport_checksum(source, ours, PROTOCOL_TCP, plain, b"")
        segment = tcp.emit()
        ip = Ipv4Header(source, ours, PROTOCOL_TCP, 20 + len(segment)).emit()
        ethernet = EthernetHeader(mac, b"\x02flood", ETHERTYPE_IPV4).emit()
        frames.append(ethernet + ip + segment)
    return frames


class Flood:
    """Sends *frames* into our end of the device at RATE, in a thread of its own."""

    def __init__(self, device: str, frames: list[bytes]) -> None:
        self.sent = 0
        self.took = 0.0
        self._frames = frames
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((device, 0))
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
        self._socket.close()

    @property
    def is_on(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        began = time.perf_counter()
        while self.sent < len(self._frames):
            due = int((time.perf_counter() - began) * RATE)
            for frame in self._frames[self.sent : due]:
                self._socket.send(frame)
            self.sent = max(self.sent, min(due, len(self._frames)))
            time.sleep(0.002)
        self.took = time.perf_counter() - began


def resident() -> int:
    """Octets of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


async def test_a_real_client_connects_and_echoes_within_a_second() -> None:
    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    took: list[float] = []
    async with open_tap_network() as network, trio.open_nursery() as nursery:
        await nursery.start(network.serve_tcp, echo, 7)
        stack = network._driver.stack
        stack.add_route(ip_network("198.18.0.0/16"), ip_address(KERNEL))
        mac = bytes.fromhex(network.status().mac.replace(":", ""))
        flood = Flood("tap7", half_open(mac, SECONDS * RATE))
        flood.start()
        await trio.sleep(0.5)  # the SYN queue is full long ago
        before = resident()
        while flood.is_on:
            began = trio.current_time()
            with trio.fail_after(1):
                async with await trio.open_tcp_stream(OURS, 7) as stream:
                    await stream.send_all(b"are you there?")
                    assert await stream.receive_some() == b"are you there?"
            took.append(trio.current_time() - began)
            await trio.sleep(0.1)
        grown = resident() - before
        flood.join()
        counters = network.status().counters
        sizes = stack.tcp.sizes
        nursery.cancel_scope.cancel()
    assert len(took) >= 5 * (SECONDS - 0.5) / 2
    assert max(took) < 1
    assert flood.took < 4 * SECONDS  # it was about as fast as it should be
    assert counters["tcp_cookies_out"] > RATE * SECONDS / 2
    assert counters["tcp_cookies_in"] >= len(took) - 1
    assert sizes["tcp half-open"] <= 256
    assert grown < 4 << 20, grown
