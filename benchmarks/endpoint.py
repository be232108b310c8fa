"""One end of one measurement, in a process of its own: ``python -m benchmarks.endpoint``.

It knows two kinds of TCP, the kernel's (plain blocking sockets, so that the anchors are as fast as
Python allows) and zttrio's (under trio), and four things to do with a connection.  A listener
prints ``{"ready": true}`` when it can be connected to; both print one JSON object when done.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import json
import pstats
import resource
import socket
import statistics
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from zttrio.abc import Wire

CHUNK = 1 << 18  # octets per send and receive; arbitrary, large enough that calls do not matter
WARM_UP = 50  # round trips that are not counted; arbitrary
PROFILE_LINES = 30

WORKS = ("send", "receive", "ask", "answer")
Result = dict[str, Any]


class Meter:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._cpu = self._cpu_seconds()
        self._started = perf_counter()

    @staticmethod
    def _cpu_seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    @property
    def wall(self) -> float:
        return perf_counter() - self._started

    def result(self, **values: float) -> Result:
        return {"cpu": self._cpu_seconds() - self._cpu, **values}


def latency(meter: Meter, times: list[float]) -> Result:
    """The result of `ask`, from the seconds that each round trip took."""
    times = sorted(times[WARM_UP:])
    if not times:
        raise RuntimeError(f"fewer than {WARM_UP} round trips in the time given")
    return meter.result(
        rounds=len(times),
        median=statistics.median(times),
        p99=times[len(times) * 99 // 100],
    )


# The kernel's TCP


def kernel_work(sock: socket.socket, work: str, seconds: float) -> Result:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    meter = Meter()
    if work == "send":
        data = bytes(CHUNK)
        while meter.wall < seconds:
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)  # the receiver has everything
        return meter.result()
    buffer = bytearray(CHUNK)
    if work == "receive":
        sock.recv_into(buffer)  # time runs from the first octets on
        octets = 0
        meter = Meter()
        while count := sock.recv_into(buffer):
            octets += count
        return meter.result(octets=octets, seconds=meter.wall)
    if work == "answer":
        while sock.recv_into(buffer, 1):
            sock.sendall(b"x")
        return meter.result()
    times: list[float] = []
    while meter.wall < seconds or len(times) <= WARM_UP:
        started = perf_counter()
        sock.sendall(b"x")
        sock.recv_into(buffer, 1)
        times.append(perf_counter() - started)
    return latency(meter, times)


def kernel_endpoint(options: argparse.Namespace) -> Result:
    if options.listen:
        with socket.create_server((options.host, options.port)) as listener:
            print(json.dumps({"ready": True}), flush=True)
            sock, _ = listener.accept()
    else:
        sock = socket.create_connection((options.host, options.port))
    with sock:
        return kernel_work(sock, options.work, options.seconds)


# the kernel's TCP under trio


async def trio_endpoint(options: argparse.Namespace) -> Result:
    """What a program has that uses trio without zttrio."""
    if options.listen:
        [listener] = await trio.open_tcp_listeners(options.port, host=options.host)
        async with listener:
            print(json.dumps({"ready": True}), flush=True)
            stream = await listener.accept()
    else:
        stream = await trio.open_tcp_stream(options.host, options.port)
    async with stream:
        return await stream_work(stream, options.work, options.seconds)


# zttrio's TCP


async def stream_work(stream: trio.SocketStream, work: str, seconds: float) -> Result:
    meter = Meter()
    if work == "send":
        data = bytes(CHUNK)
        while meter.wall < seconds:
            await stream.send_all(data)
        await stream.send_eof()
        await stream.receive_some(1)  # the receiver has everything
        return meter.result()
    if work == "receive":
        await stream.receive_some(CHUNK)  # time runs from the first octets on
        octets = 0
        meter = Meter()
        while data := await stream.receive_some(CHUNK):
            octets += len(data)
        return meter.result(octets=octets, seconds=meter.wall)
    if work == "answer":
        while await stream.receive_some(1):
            await stream.send_all(b"x")
        return meter.result()
    times: list[float] = []
    while meter.wall < seconds or len(times) <= WARM_UP:
        started = perf_counter()
        await stream.send_all(b"x")
        await stream.receive_some(1)
        times.append(perf_counter() - started)
    return latency(meter, times)


async def zttrio_endpoint(options: argparse.Namespace) -> Result:
    from zttrio import Network  # here, because an anchor's process should not carry it
    from zttrio.wire import HostSegment, Tap

    is_host = options.transport == "host"
    wire: Wire = (
        HostSegment(options.folder)
        if is_host
        else Tap(options.tap, offload=not options.plain, coalesce=not options.single)
    )
    async with Network(wire=wire, addresses=[options.address]) as network:
        await network.wait_online()
        if options.listen:
            [listener] = await network.open_tcp_listeners(options.port, host=options.host)
            async with listener:
                print(json.dumps({"ready": True}), flush=True)
                stream = await listener.accept()
        else:
            stream = await network.open_tcp_stream(options.host, options.port)
        async with stream:
            if not options.profile:
                return await stream_work(stream, options.work, options.seconds)
            with cProfile.Profile() as profile:  # of the work only, not of getting there
                result = await stream_work(stream, options.work, options.seconds)
            return {**result, "profile": profile_text(profile)}


def profile_text(profile: cProfile.Profile) -> str:
    """The functions that took most time themselves, as cProfile prints them."""
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=["kernel", "trio", "host", "tap"], required=True)
    parser.add_argument("--folder", type=Path, help="of the host segment")
    parser.add_argument("--tap", help="name of the TAP device")
    parser.add_argument("--plain", action="store_true", help="use the TAP device without offloads")
    parser.add_argument("--single", action="store_true", help="and without merging segments")
    parser.add_argument("--address", help="ours, with its prefix length")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--host", required=True, help="where to listen or to connect to")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.transport == "kernel":
        result = kernel_endpoint(options)
    elif options.transport == "trio":
        result = trio.run(trio_endpoint, options)
    else:
        result = trio.run(zttrio_endpoint, options)
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
