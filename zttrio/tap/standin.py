"""Stand-ins: the kernel socket pairs between a program and the tap service; the seed's `PhySocket`.

The program holds the *app end*, the service the *service end*.  Two tricks make a pair of AF_UNIX
sockets show what a TCP socket would show, without a word to the program:

The *plug*: while a connection is being made, the app end's send queue is full of filler, so it is
neither readable nor writable.  Swallowing the filler is what makes it writable.

The *residue*: the service leaves the last octet that it has already processed in its receive
queue.  Closing the service end then gives the app end ECONNRESET, ERR and HUP, bit for bit what a
reset gives; taking the residue out first makes it a clean end of file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.header.frame import Buffer

__all__ = ["StreamEnd", "keeps_residue_harmless", "make_pair"]

SO_COOKIE = 57  # Linux's; Python 3.11 has no name for it
SIOCOUTQ = termios.TIOCOUTQ  # the same number on Linux
APP_SEND_BUFFER = 140_000
"""SO_SNDBUF of a stream's app end.

The kernel calls an AF_UNIX stream writable while four times what is charged fits its buffer, and a
residue keeps its whole last kernel buffer charged: up to 66 304 octets, seen after sendfile().
Doubled by the kernel this number is above four times that.
"""
SERVICE_SEND_BUFFER = 212_992
"""SO_SNDBUF of a stream's service end.

As much as Linux lets anybody have by default, which it doubles: room for a chunk of the relay in
one piece, and for most of the next while the program reads.
"""
DATAGRAM_BUFFER = 212_992  # Linux's default; room for one datagram of 65 507 octets at least
BULK = 1 << 15  # octets at once from which on a program is taken to send more; arbitrary
REST = 1 << 10  # octets left for the next turn then; arbitrary
READ_LIMIT = 1 << 18  # octets taken from a program at once; what fits APP_SEND_BUFFER

_COUNT = struct.Struct("=i")


def make_pair(kind: int) -> tuple[socket.socket, socket.socket, int]:
    """A new pair as ``(service end, app end, cookie)``; the service end does not block.

    Args:
        kind: SOCK_STREAM, or SOCK_SEQPACKET for datagrams: unlike SOCK_DGRAM it tells when the
            program has closed its end.

    Raises:
        OSError: EMFILE, ENFILE, ENOMEM.
    """
    service, app = socket.socketpair(socket.AF_UNIX, kind)
    service.setblocking(False)
    if kind == socket.SOCK_STREAM:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, APP_SEND_BUFFER)
        service.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        service.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SERVICE_SEND_BUFFER)
    else:
        for end in (service, app):
            if end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < DATAGRAM_BUFFER:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, DATAGRAM_BUFFER)
    return service, app, cookie_of(app)


def cookie_of(end: socket.socket) -> int:
    """What the kernel calls this socket, whoever holds it and under whatever number."""
    return int.from_bytes(end.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


def count(fd: int, request: int) -> int:
    """The number that an ioctl like FIONREAD tells about *fd*."""
    return int(_COUNT.unpack(fcntl.ioctl(fd, request, b"\0\0\0\0"))[0])


class StreamEnd:
    """The service end of a stream, which keeps the residue.

    Attributes:
        residue: octets at the front of the queue that have been processed: 0 or 1.
        keeps_residue: False if this kernel cannot have one (see `keeps_residue_harmless`).
        was_reset: the program has closed its end and left something unread; see `is_reset`.
        has_more: the last `take` left something, so the poller will not tell of it again.
    """

    __slots__ = ("_fd", "_socket", "has_more", "keeps_residue", "residue", "was_reset")

    def __init__(self, service: socket.socket, *, keeps_residue: bool) -> None:
        self._socket = service
        self._fd = service.fileno()
        self.residue = 0
        self.keeps_residue = keeps_residue
        self.was_reset = False
        self.has_more = False

    @property
    def queued(self) -> int:
        """Octets from the program that have not been processed."""
        return count(self._fd, termios.FIONREAD) - self.residue

    def take(self, room: int) -> bytes:
        """At most *room* octets from the program; ``b""`` if none wait.

        All but the last are taken out of the queue, or all of them if more wait than there is
        room for: then what waits is the better residue.
        """
        if room <= 0:
            self.has_more = True
            return b""
        queued = count(self._fd, termios.FIONREAD)
        residue = self.residue
        fresh = queued - residue
        if fresh <= 0:
            self.has_more = False
            return b""
        room = min(room, READ_LIMIT)
        if fresh > room or not self.keeps_residue:
            self.has_more = fresh > room
            data = self._consume(residue + min(fresh, room))
            self.residue = 0
            return data[residue:]
        if fresh > BULK:
            # More is coming, or will have come when we are back for the rest: that is a residue
            # too, and what is taken need not be joined with it.
            self.has_more = True
            self.residue = 0
            return self._consume(queued - REST)[residue:]
        head = self._consume(queued - 1)
        if len(head) < queued - 1:  # something unusual in the queue ended the read early
            self.has_more = True
            self.residue = 0
            return head[residue:]
        self.has_more = False
        last = self._receive(1, socket.MSG_PEEK)  # nothing if FIONREAD counts an urgent octet
        self.residue = len(last)
        return b"".join((memoryview(head)[residue:], last)) if head else last

    def _consume(self, size: int) -> bytes:
        data = self._receive(size) if size else b""
        while data and len(data) < size:
            more = self._receive(size - len(data))
            if not more:
                break
            data += more
        return data

    def _receive(self, size: int, flags: int = 0) -> bytes:
        try:
            return self._socket.recv(size, flags)
        except BlockingIOError:
            return b""
        except ConnectionResetError:
            self.was_reset = True  # the kernel says so once
            return b""

    def swallow_plug(self, length: int, *, keep_last: bool) -> None:
        """Take the filler out; with *keep_last* its last octet becomes the residue."""
        keep_last = keep_last and self.keeps_residue
        length -= keep_last
        while length > 0 and (taken := self._receive(min(length, READ_LIMIT))):
            length -= len(taken)
        self.residue = int(keep_last)

    def drop_residue(self) -> None:
        """Take the residue out, so that closing is a clean end of file."""
        if self.residue:
            self.residue = 0
            self._receive(1)

    def give(self, pieces: Sequence[Buffer]) -> int:
        """Hand *pieces* to the program and return how much it took; -1 if it wants no more."""
        try:
            return self._socket.sendmsg(pieces, (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            self.was_reset = True
            return -1
        except BrokenPipeError:
            return -1

    def finish(self) -> None:
        """The peer has finished: end of file behind what was given."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:
                raise

    @property
    def is_hung_up(self) -> bool:
        """True if the program's end is closed, or shut down in both directions."""
        poll = select.poll()
        poll.register(self._fd, 0)
        return bool(poll.poll(0))

    @property
    def is_reset(self) -> bool:
        """True if the program has closed its end and left something unread."""
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET:
            self.was_reset = True
        return self.was_reset


def keeps_residue_harmless() -> bool:
    """Find out if a residue leaves the app end writable on this kernel.

    It does with Linux's usual buffer limits and page size.  Where it does not, a program that
    waits for room would wait for ever, so the service goes without residues there.
    """
    service, app, _ = make_pair(socket.SOCK_STREAM)
    with service, app, open("/dev/zero", "rb") as zero:
        app.setblocking(False)
        memory = os.memfd_create("zttrio-probe")
        try:
            os.write(memory, zero.read(1 << 20))
            sent = 0
            try:
                while sent < 1 << 20:
                    sent += os.sendfile(app.fileno(), memory, sent, (1 << 20) - sent)
            except BlockingIOError:
                pass  # the queue is full, as it should be
        finally:
            os.close(memory)
        left = sent - 1
        while left > 0:
            left -= len(service.recv(left))
        poll = select.poll()
        poll.register(app, select.POLLOUT)
        return bool(poll.poll(0))
