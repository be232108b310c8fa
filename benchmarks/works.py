"""What the two ends of a connection do: the listener answers, the connector asks.

Every work exists twice, for blocking sockets and for trio's streams, and does the same in both.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import statistics
import threading
import time
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import trio

if TYPE_CHECKING:
    import cProfile
    from collections.abc import Awaitable, Callable, Iterator

__all__ = [
    "ANSWERS",
    "ASKS",
    "Options",
    "Result",
    "kernel_answerer",
    "kernel_connector",
    "kernel_listener",
    "stream_answerer",
    "stream_connector",
]

CHUNK = 1 << 18  # octets per send and receive; arbitrary, large enough that calls do not matter
WARM_UP = 50  # round trips, or connections, that are not counted; arbitrary
SETTLE = 1.0  # seconds until an idle network is idle; arbitrary
BACKLOG = 1024

ANSWERS = ("send", "receive", "answer", "serve", "echo", "idle", "hold")
ASKS = ("send", "receive", "ask", "connect", "poll", "idle", "hold")

Result = dict[str, Any]


class Options(Protocol):
    """What a work has to know: what to do, for how long, on how many connections."""

    work: str
    seconds: float
    connections: int


class Meter:
    """Wall and CPU seconds since it was made, and how often the process was woken."""

    def __init__(self) -> None:
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._started = perf_counter()

    @property
    def wall(self) -> float:
        return perf_counter() - self._started

    def result(self, **values: float) -> Result:
        usage, before = resource.getrusage(resource.RUSAGE_SELF), self._usage
        return {
            "cpu": usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
            "wake_ups": usage.ru_nvcsw - before.ru_nvcsw,
            **values,
        }


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


def resident() -> int:
    """Octets of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# blocking sockets


@contextlib.contextmanager
def kernel_listener(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_server(address, backlog=BACKLOG) as listener:
        yield listener


def kernel_answerer(listener: socket.socket, options: Options) -> Result:
    if options.work == "serve":
        return kernel_serve(listener)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(listener.accept()[0]) for _ in range(options.connections)]
        return kernel_work(socks, options)


def kernel_connector(address: tuple[str, int], options: Options) -> Result:
    if options.work == "connect":
        return kernel_connect(address, options.seconds)
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(address))
            for _ in range(options.connections)
        ]
        return kernel_work(socks, options)


def kernel_work(socks: list[socket.socket], options: Options) -> Result:
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.work == "send":
        return kernel_send(socks, options.seconds)
    if options.work == "receive":
        return kernel_receive(socks)
    if options.work == "ask":
        return kernel_ask(socks[0], options.seconds)
    if options.work == "poll":
        return kernel_poll(socks, options.seconds)
    if options.work in ("answer", "echo"):
        return kernel_echo(socks)
    # idle and hold: the kernel's end costs the process nothing, so it only keeps up its side
    meter = Meter()
    socks[0].settimeout(None)
    if options.work == "idle":
        time.sleep(2 * SETTLE + options.seconds)  # no shorter than the other end's
        return meter.result(octets=0)
    socks[0].sendall(b"x")
    socks[0].recv(1)
    return meter.result(octets=0, held=0)


def in_threads(function: Callable[[socket.socket], None], socks: list[socket.socket]) -> None:
    threads = [threading.Thread(target=function, args=(sock,)) for sock in socks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def kernel_send(socks: list[socket.socket], seconds: float) -> Result:
    meter = Meter()
    data = bytes(CHUNK)

    def send(sock: socket.socket) -> None:
        while meter.wall < seconds:
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)  # the receiver has everything

    if len(socks) == 1:
        send(socks[0])
    else:
        in_threads(send, socks)
    return meter.result()


def kernel_receive(socks: list[socket.socket]) -> Result:
    socks[0].recv(CHUNK)  # time runs from the first octets on
    meter = Meter()
    octets = [0] * len(socks)

    def receive(sock: socket.socket) -> None:
        buffer = bytearray(CHUNK)
        count = 0
        while size := sock.recv_into(buffer):
            count += size
        octets[socks.index(sock)] = count

    if len(socks) == 1:
        receive(socks[0])
    else:
        in_threads(receive, socks)
    return meter.result(octets=sum(octets), seconds=meter.wall)


def kernel_ask(sock: socket.socket, seconds: float) -> Result:
    buffer = bytearray(1)
    times: list[float] = []
    meter = Meter()
    while meter.wall < seconds or len(times) <= WARM_UP:
        started = perf_counter()
        sock.sendall(b"x")
        sock.recv_into(buffer, 1)
        times.append(perf_counter() - started)
    return latency(meter, times)


def kernel_poll(socks: list[socket.socket], seconds: float) -> Result:
    buffer = bytearray(1)
    count = 0
    meter = Meter()
    while meter.wall < seconds:
        for sock in socks:
            sock.sendall(b"x")
        for sock in socks:
            sock.recv_into(buffer, 1)
        count += len(socks)
    return meter.result(count=count, seconds=meter.wall)


def kernel_echo(socks: list[socket.socket]) -> Result:
    buffer = bytearray(CHUNK)
    meter = Meter()
    if len(socks) == 1:
        while size := socks[0].recv_into(buffer):
            socks[0].sendall(buffer[:size])
        return meter.result()
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ)
        left = len(socks)
        while left:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if size := key.fileobj.recv_into(buffer):
                    key.fileobj.sendall(buffer[:size])
                else:
                    selector.unregister(key.fileobj)
                    left -= 1
    return meter.result()


def kernel_serve(listener: socket.socket) -> Result:
    meter = Meter()
    while True:
        sock, _ = listener.accept()
        with sock:
            if sock.recv(1) != b"x":
                return meter.result()
            sock.sendall(b"x")


def kernel_connect(address: tuple[str, int], seconds: float) -> Result:
    for _ in range(WARM_UP):
        kernel_exchange(address)
    count = 0
    meter = Meter()
    while meter.wall < seconds:
        kernel_exchange(address)
        count += 1
    wall = meter.wall
    with socket.create_connection(address) as sock:
        sock.sendall(b"q")
    return meter.result(count=count, seconds=wall)


def kernel_exchange(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as sock:
        sock.sendall(b"x")
        while sock.recv(1):
            pass  # the listener closes first, so that TIME_WAIT is its, and ports last


# trio's streams


async def stream_answerer(
    accept: Callable[[], Awaitable[trio.SocketStream]],
    options: Options,
    profile: cProfile.Profile | None = None,
) -> Result:
    if options.work == "serve":
        with profile or contextlib.nullcontext():
            return await stream_serve(accept)
    return await stream_work(accept, options, profile)


async def stream_connector(
    open_stream: Callable[[], Awaitable[trio.SocketStream]],
    options: Options,
    profile: cProfile.Profile | None = None,
) -> Result:
    if options.work == "connect":
        with profile or contextlib.nullcontext():
            return await stream_connect(open_stream, options.seconds)
    return await stream_work(open_stream, options, profile)


async def stream_work(
    get: Callable[[], Awaitable[trio.SocketStream]],
    options: Options,
    profile: cProfile.Profile | None,
) -> Result:
    streams: list[trio.SocketStream] = []
    try:
        if options.work == "hold":
            return await stream_hold(get, streams, options.connections)
        while len(streams) < options.connections:
            streams.append(await get())
        with profile or contextlib.nullcontext():  # of the work only, not of getting there
            return await stream_one_work(streams, options)
    finally:
        for stream in streams:
            stream.socket.close()


async def stream_one_work(streams: list[trio.SocketStream], options: Options) -> Result:
    if options.work == "send":
        return await stream_send(streams, options.seconds)
    if options.work == "receive":
        return await stream_receive(streams)
    if options.work == "ask":
        return await stream_ask(streams[0], options.seconds)
    if options.work == "poll":
        return await stream_poll(streams, options.seconds)
    if options.work in ("answer", "echo"):
        return await stream_echo(streams)
    await trio.sleep(SETTLE)
    meter = Meter()
    await trio.sleep(options.seconds)
    return meter.result(octets=0)


async def stream_send(streams: list[trio.SocketStream], seconds: float) -> Result:
    meter = Meter()
    data = bytes(CHUNK)

    async def send(stream: trio.SocketStream) -> None:
        while meter.wall < seconds:
            await stream.send_all(data)
        await stream.send_eof()
        await stream.receive_some(1)  # the receiver has everything

    if len(streams) == 1:
        await send(streams[0])
    else:
        await in_tasks(send, streams)
    return meter.result()


async def in_tasks(
    function: Callable[[trio.SocketStream], Awaitable[None]], streams: list[trio.SocketStream]
) -> None:
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(function, stream)


async def stream_receive(streams: list[trio.SocketStream]) -> Result:
    await streams[0].receive_some(CHUNK)  # time runs from the first octets on
    meter = Meter()
    octets = 0

    async def receive(stream: trio.SocketStream) -> None:
        nonlocal octets
        while data := await stream.receive_some(CHUNK):
            octets += len(data)

    if len(streams) == 1:
        await receive(streams[0])
    else:
        await in_tasks(receive, streams)
    return meter.result(octets=octets, seconds=meter.wall)


async def stream_ask(stream: trio.SocketStream, seconds: float) -> Result:
    times: list[float] = []
    meter = Meter()
    while meter.wall < seconds or len(times) <= WARM_UP:
        started = perf_counter()
        await stream.send_all(b"x")
        await stream.receive_some(1)
        times.append(perf_counter() - started)
    return latency(meter, times)


async def stream_poll(streams: list[trio.SocketStream], seconds: float) -> Result:
    count = 0
    meter = Meter()
    while meter.wall < seconds:
        for stream in streams:
            await stream.send_all(b"x")
        for stream in streams:
            await stream.receive_some(1)
        count += len(streams)
    return meter.result(count=count, seconds=meter.wall)


async def stream_echo(streams: list[trio.SocketStream]) -> Result:
    meter = Meter()

    async def echo(stream: trio.SocketStream) -> None:
        while data := await stream.receive_some(CHUNK):
            await stream.send_all(data)

    if len(streams) == 1:
        await echo(streams[0])
    else:
        await in_tasks(echo, streams)
    return meter.result()


async def stream_serve(accept: Callable[[], Awaitable[trio.SocketStream]]) -> Result:
    meter = Meter()
    while True:
        async with await accept() as stream:
            if await stream.receive_some(1) != b"x":
                return meter.result()
            await stream.send_all(b"x")


async def stream_connect(
    open_stream: Callable[[], Awaitable[trio.SocketStream]], seconds: float
) -> Result:
    async def exchange() -> None:
        async with await open_stream() as stream:
            await stream.send_all(b"x")
            while await stream.receive_some(1):
                pass  # the listener closes first, so that TIME_WAIT is its, and ports last

    for _ in range(WARM_UP):
        await exchange()
    count = 0
    meter = Meter()
    while meter.wall < seconds:
        await exchange()
        count += 1
    wall = meter.wall
    async with await open_stream() as stream:
        await stream.send_all(b"q")
    return meter.result(count=count, seconds=wall)


async def stream_hold(
    get: Callable[[], Awaitable[trio.SocketStream]],
    streams: list[trio.SocketStream],
    connections: int,
) -> Result:
    meter = Meter()
    before = 0
    while len(streams) < connections:
        streams.append(await get())
        if len(streams) == WARM_UP:
            before = resident()
    held = (resident() - before) / (connections - WARM_UP)
    await streams[0].send_all(b"x")
    await streams[0].receive_some(1)  # the other side has them all, too
    return meter.result(octets=0, held=held)
