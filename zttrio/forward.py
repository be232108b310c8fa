"""Two streams tied together: what arrives at one leaves at the other, ends and failures too."""

from __future__ import annotations

import errno
import socket as kernel
import struct
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["splice", "splice_with"]

_RESET = struct.pack("@ii", 1, 0)  # struct linger: close sends RST (RFC 9293 3.10.5's ABORT)


async def splice(one: trio.SocketStream, other: trio.SocketStream) -> None:
    """Carry data both ways until both directions have ended, then close both.

    A half-close is passed on as a half-close, and a reset as a reset.  Nothing is read before what
    was read earlier has been taken, so a slow receiver slows its sender.

    If this is cancelled, both streams are closed at once.
    """
    async with one, other:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_carry, one, other)
                nursery.start_soon(_carry, other, one)
        except* trio.BrokenResourceError:
            for stream in (one, other):  # whoever is still there learns that it was no clean end
                stream.socket.setsockopt(kernel.SOL_SOCKET, kernel.SO_LINGER, _RESET)


async def _carry(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for data in source:
        await sink.send_all(data)
    await sink.send_eof()


def splice_with(
    connect: Callable[[], Awaitable[trio.SocketStream]],
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A handler for `Network.serve_tcp` that ties each stream to a fresh one from *connect*.

    A client whose connection cannot be made is reset, as it would be by the target itself.
    """
    return partial(_splice_with, connect)


async def _splice_with(
    connect: Callable[[], Awaitable[trio.SocketStream]], stream: trio.SocketStream
) -> None:
    try:
        target = await connect()
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise  # our own trouble, not the target's
        stream.socket.setsockopt(kernel.SOL_SOCKET, kernel.SO_LINGER, _RESET)
        await trio.aclose_forcefully(stream)
        return
    await splice(stream, target)
