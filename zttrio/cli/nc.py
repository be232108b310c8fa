"""``zttrio nc``: standard input and output at one end of a TCP connection."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from .network import add_options, open_network, wait_online

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .main import Subparsers

__all__ = ["accept_one", "join", "register", "run"]

_CHUNK = 65536  # arbitrary: what a pipe holds on Linux


def register(subparsers: Subparsers) -> None:
    """Add ``nc`` to the command line."""
    parser = subparsers.add_parser(
        "nc",
        help="join standard input and output to a TCP connection",
        usage="zttrio nc [options] HOST PORT\n       zttrio nc [options] -l PORT",
    )
    parser.add_argument("host", nargs="?", help="a name or an address to connect to")
    parser.add_argument("port", nargs="?", type=_port, help="its port")
    parser.add_argument(
        "-l", "--listen", type=_port, metavar="PORT", help="wait for one connection on PORT instead"
    )
    add_options(parser)
    parser.set_defaults(run=partial(run, parser))


async def run(parser: argparse.ArgumentParser, namespace: argparse.Namespace) -> None:
    """Carry out the command.

    Raises:
        OSError: the connection could not be made.
        BrokenResourceError: it broke.
    """
    if (namespace.listen is None) == (namespace.port is None):
        parser.error("give HOST and PORT, or -l PORT")
    async with open_network(namespace) as network:
        addresses = await wait_online(network)
        if namespace.listen is None:
            stream = await network.open_tcp_stream(namespace.host, namespace.port)
        else:
            listeners = await network.open_tcp_listeners(namespace.listen)
            names = ", ".join(str(interface.ip) for interface in addresses)
            print(f"listening on {names} port {namespace.listen}", file=sys.stderr, flush=True)
            stream = await accept_one(listeners)
        async with stream:
            await join(stream, _read_stdin, _write_stdout)


async def accept_one(listeners: Sequence[trio.SocketListener]) -> trio.SocketStream:
    """The first connection that comes to any of *listeners*, which are closed afterwards."""
    streams: list[trio.SocketStream] = []

    async def accept(listener: trio.SocketListener) -> None:
        async with listener:
            streams.append(await listener.accept())
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accept, listener)
        return streams.pop(0)
    finally:  # two listeners accepted in the same instant, or we were cancelled in that instant
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def join(
    stream: trio.abc.HalfCloseableStream,
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[None]],
) -> None:
    """Carry what *read* gives to *stream* and what *stream* gives to *write*, until both ended.

    The end of one direction does not end the other: when *read* returns ``b""`` the stream is
    half-closed, and what the peer still sends is written.

    Raises:
        BaseExceptionGroup: of BrokenResourceError, the connection broke.
    """

    async def upload() -> None:
        while data := await read():
            await stream.send_all(data)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upload)
        while data := await stream.receive_some():
            await write(bytes(data))


async def _read_stdin() -> bytes:
    # A thread, because standard input may be a file, which cannot be waited for, or a terminal
    # shared with other programs, which must not be switched to non-blocking.
    return await trio.to_thread.run_sync(os.read, 0, _CHUNK, abandon_on_cancel=True)


async def _write_stdout(data: bytes) -> None:
    def write() -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    await trio.to_thread.run_sync(write)


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)
