"""Announces accepted connections on a listening stand-in: a record and a descriptor for each.

The program's accept() reads them from its own descriptor, so select, epoll, several acceptors and
inherited listeners work without anybody's help.  What waits in the pair counts against the backlog
just as what waits in the stack does.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import trio

from zttrio.stack.events import CONN, ERR, RD

from . import rpc, standin
from .sockaddr import for_program

if TYPE_CHECKING:
    from zttrio.stack.tcp.listen import TcpListener

    from .stream import StreamConnection

__all__ = ["Acceptor"]

RECORD_LIMIT = 4096  # records that may wait, whatever backlog says: Linux's somaxconn
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Acceptor:
    """The listening half of a `StreamConnection`.

    Attributes:
        listener: the stack's end.
        backlog: what the program asked for.
        is_blocked: records wait in such number that the owner has to hear when they are taken.
    """

    def __init__(
        self, owner: StreamConnection, listener: TcpListener, service: socket.socket, backlog: int
    ) -> None:
        self.listener = listener
        self.is_blocked = False
        self._owner = owner
        self._service = service
        self._pending: tuple[bytes, socket.socket] | None = None
        self._waits_for_descriptors = False
        self.backlog = backlog

    @property
    def _waiting(self) -> int:
        """Records that the program has not taken."""
        charged = standin.count(self._service.fileno(), standin.SIOCOUTQ)
        return -(-charged // self._owner.house.record_charge)

    def pump(self) -> None:
        """Announce what has been accepted, as far as backlog and descriptors allow."""
        limit = min(max(self.backlog, 1), RECORD_LIMIT)
        waiting = self._waiting
        while waiting < limit and self._announce_next():
            waiting += 1
        self.listener.backlog = self.backlog - waiting
        self.is_blocked = self._pending is not None or waiting * 2 >= limit
        self.listener.wanted = CONN | RD | ERR

    def _announce_next(self) -> bool:
        """Announce one connection; False if there is none, or no way to."""
        if self._pending is None and not self._accept():
            return False
        assert self._pending is not None  # noqa: S101 - made by _accept
        record, app = self._pending
        try:
            socket.send_fds(self._service, [record], [app.fileno()], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False  # the queue is full: notify-writable will tell
        except OSError as exc:
            if exc.errno == errno.ETOOMANYREFS:  # too many descriptors are on their way
                self._wait_for_descriptors()
                return False
            if exc.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
            # Nobody will accept any more; closing the app end resets the connection.
        self._pending = None
        app.close()
        return True

    def _accept(self) -> bool:
        """Take a connection from the stack and make a stand-in for it."""
        if not self.listener.is_readable:
            return False
        try:
            service, app, cookie = standin.make_pair(socket.SOCK_STREAM)
        except OSError as exc:
            if exc.errno not in _NO_DESCRIPTOR:
                raise
            self._wait_for_descriptors()
            return False
        tcp = self.listener.accept(trio.current_time())
        if tcp is None:
            service.close()
            app.close()
            return False
        owner = self._owner
        app.send(b"\0")  # the residue: see `standin`
        service.send(b"\0")  # the marker: left unread if nobody ever accepts, which is a reset
        owner.make_accepted(service, cookie, tcp)
        record = rpc.AcceptRecord(
            cookie,
            for_program(*tcp.remote, owner.domain),
            for_program(*tcp.local, owner.domain),
            rpc.RECORD_MARKER,
        )
        self._pending = record.emit(), app
        return True

    def _wait_for_descriptors(self) -> None:
        owner = self._owner
        owner.house.counters.no_descriptors += 1
        if not self._waits_for_descriptors:
            self._waits_for_descriptors = True

            def freed() -> None:
                self._waits_for_descriptors = False
                owner.notify(0)

            owner.house.when_freed(freed)

    def close(self) -> None:
        """Stop listening; who was not accepted is reset."""
        if self._pending is not None:
            self._pending[1].close()
            self._pending = None
        self.listener.close(trio.current_time())
