"""One end of a transfer over a bad cable, in a process of its own: ``-m benchmarks.transfer``.

The sender sends random octets, so many or for so long, and both ends digest them; the receiver
measures.  Either end is the kernel's TCP or zttrio's.  A listener prints ``{"ready": true}`` when
it can be connected to, and both print one JSON object when done, with what their TCP has counted.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import random
import socket
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zttrio import Network

CHUNK = 1 << 16  # octets for each call; arbitrary
ATTEMPTS = 5  # where one frame in ten is lost, three questions for an address may be lost, too
BLOCKS = 16  # different random chunks, which then come again
NAMES = ("/proc/net/snmp", "/proc/net/netstat")
Result = dict[str, Any]


class Source:
    """What is sent: *octets* of it, or as much as *seconds* allow."""

    def __init__(self, seed: str, octets: int, seconds: float) -> None:
        rng = random.Random(seed)
        self._blocks = [rng.randbytes(CHUNK) for _ in range(BLOCKS)]
        self._octets = octets
        self._seconds = seconds
        self._hash = hashlib.sha256()
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        end = perf_counter() + self._seconds
        for block in cycle(self._blocks):
            rest = self._octets - self._sent if self._octets else CHUNK
            if rest <= 0 or (not self._octets and perf_counter() >= end):
                return
            data = block[:rest]
            self._hash.update(data)
            self._sent += len(data)
            yield data

    def result(self) -> Result:
        return {"octets": self._sent, "digest": self._hash.hexdigest()}


class Sink:
    """What arrives, and how fast: from the first octets to the last."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._octets = 0
        self._first = 0
        self._began = self._ended = 0.0

    def take(self, data: bytes) -> None:
        self._ended = perf_counter()
        if not self._octets:
            self._began = self._ended
            self._first = len(data)
        self._octets += len(data)
        self._hash.update(data)

    def result(self) -> Result:
        rate = (self._octets - self._first) / max(self._ended - self._began, 1e-9)
        return {"octets": self._octets, "digest": self._hash.hexdigest(), "rate": rate}


def kernel_counters() -> dict[str, int]:
    """What the namespace's kernel has counted since it was made."""
    found: dict[str, int] = {}
    for name in NAMES:
        lines = Path(name).read_text(encoding="ascii").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            prefix = names.split(":")[0].removesuffix("Ext")
            if prefix == "Tcp":
                pairs = zip(names.split()[1:], values.split()[1:], strict=True)
                found |= {key: int(value) for key, value in pairs}
    return found


def kernel_end(options: argparse.Namespace) -> Result:
    before = kernel_counters()
    if options.listen:
        with socket.create_server((options.host, options.port)) as listener:
            print(json.dumps({"ready": True}), flush=True)
            sock, _ = listener.accept()
    else:
        for attempts in range(ATTEMPTS, 0, -1):
            try:
                sock = socket.create_connection((options.host, options.port))
                break
            except OSError as exc:
                if attempts == 1 or exc.errno != errno.EHOSTUNREACH:
                    raise
    with sock:
        if options.listen:
            sink = Sink()
            while data := sock.recv(CHUNK):
                sink.take(data)
            result = sink.result()
        else:
            source = Source(options.seed, options.octets, options.seconds)
            for data in source:
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)  # the receiver has everything
            result = source.result()
    after = kernel_counters()
    return {**result, "counters": difference(before, after)}


async def zttrio_end(options: argparse.Namespace) -> Result:
    from zttrio import Network  # here, because an anchor's process should not carry it
    from zttrio.wire import Tap

    async with Network(wire=Tap(options.tap), addresses=[options.address]) as network:
        await network.wait_online()
        result = await stream_end(network, options)
        return {**result, "counters": difference({}, network.status().counters)}


async def stream_end(network: Network, options: argparse.Namespace) -> Result:
    if options.listen:
        [listener] = await network.open_tcp_listeners(options.port, host=options.host)
        async with listener:
            print(json.dumps({"ready": True}), flush=True)
            stream = await listener.accept()
        async with stream:
            sink = Sink()
            while data := await stream.receive_some(CHUNK):
                sink.take(data)
        return sink.result()
    for attempts in range(ATTEMPTS, 0, -1):
        try:
            stream = await network.open_tcp_stream(options.host, options.port)
            break
        except OSError as exc:
            if attempts == 1 or exc.errno != errno.EHOSTUNREACH:
                raise
    async with stream:
        source = Source(options.seed, options.octets, options.seconds)
        for data in source:
            await stream.send_all(data)
        await stream.send_eof()
        await stream.receive_some(1)  # the receiver has everything
        return source.result()


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name, 0)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tap", help="zttrio at this TAP device, instead of the kernel")
    parser.add_argument("--address", help="ours, with its prefix length")
    parser.add_argument("--listen", action="store_true", help="and receive")
    parser.add_argument("--host", required=True, help="where to listen or to connect to")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--seed", default="0", help="of what is sent")
    parser.add_argument("--octets", type=int, default=0, help="send so many")
    parser.add_argument("--seconds", type=float, default=1.0, help="or send for so long")
    options = parser.parse_args()
    result = trio.run(zttrio_end, options) if options.tap else kernel_end(options)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
