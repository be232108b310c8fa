"""SYNs by the thousand from people who are not there: ``python -m tests.kernel.flood DEVICE ...``.

A process of its own, because who is flooded must not share an interpreter with the flood.  It
prints ``ready`` when it begins, and how many it has sent in how many seconds as JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self

from zttrio.header.address import packed
from zttrio.header.checksum import transport_checksum
from zttrio.header.ethernet import ETHERTYPE_IPV4, EthernetHeader
from zttrio.header.ipv4 import PROTOCOL_TCP, Ipv4Header
from zttrio.header.tcp import SYN, TcpHeader

__all__ = ["Flood", "half_open"]

ROOT = Path(__file__).parents[2]
END = 30.0  # seconds for the process to start and to end; arbitrary


def half_open(mac: bytes, target: str, sources: str, count: int) -> list[bytes]:
    """Frames with SYNs to port 7 of *target* from addresses in the network *sources*."""
    rng = random.Random(1)
    frames = []
    ours = packed(target)
    network = IPv4Network(sources)
    first = int(network.network_address)
    for _ in range(count):
        while (source := (first + rng.randrange(network.num_addresses)).to_bytes(4, "big")) == ours:
            pass
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
    """A running flood; killed at the end of the block at the latest.

    Attributes:
        sent: SYNs that went out, once it has ended.
        took: seconds that took.
    """

    def __init__(
        self, device: str, mac: bytes, target: str, sources: str, *, rate: int, seconds: float
    ) -> None:
        self.sent = 0
        self.took = 0.0
        numbers = [str(rate), str(seconds)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, device, mac.hex(), target, sources, *numbers],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the flood did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def is_on(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> None:
        """Wait for its end, and take in what it says."""
        output = self._process.communicate(timeout=END)[0]
        self.sent, self.took = json.loads(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", help="frames leave there")
    parser.add_argument("mac", type=bytes.fromhex, help="whom to flood")
    parser.add_argument("target", help="its address")
    parser.add_argument("sources", help="a network, from which they seem to come")
    parser.add_argument("rate", type=int, help="a second")
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    count = round(options.rate * options.seconds)
    frames = half_open(options.mac, options.target, options.sources, count)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((options.device, 0))
        print("ready", flush=True)  # noqa: T201 - that is what the other process reads
        began = time.perf_counter()
        sent = 0
        while sent < count:
            due = min(int((time.perf_counter() - began) * options.rate), count)
            for frame in frames[sent:due]:
                raw.send(frame)
            sent = due
            time.sleep(0.002)
        took = time.perf_counter() - began
    print(json.dumps([sent, took]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
