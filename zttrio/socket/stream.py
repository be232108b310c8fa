"""TCP sockets."""

from __future__ import annotations

import errno
import os
import socket as kernel
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from zttrio.header.address import ip_text, packed
from zttrio.stack.tcp.state import CLOSED, SYN_RECEIVED, SYN_SENT

from .base import Socket
from .standin import Nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zttrio.driver import Driver
    from zttrio.resolve import Resolver
    from zttrio.stack.ports import Binding
    from zttrio.stack.tcp.connection import TcpConnection
    from zttrio.stack.tcp.listen import TcpListener

__all__ = ["StreamSocket"]

_OPENING = (SYN_SENT, SYN_RECEIVED)
_NOT_CONNECTED = (*_OPENING, CLOSED)
MSG_PEEK = int(kernel.MSG_PEEK)  # ints, because an enum's operators cost more than a system call
MSG_NOSIGNAL = int(kernel.MSG_NOSIGNAL)
_DEFAULT_MSS = 536  # RFC 9293 3.7.1, what Linux reports before there is a connection


class StreamSocket(Socket):
    """A TCP socket: fresh, bound, listening or connected."""

    __slots__ = ("_binding", "_connection", "_listener")

    protocol: ClassVar[int] = kernel.IPPROTO_TCP
    kind = kernel.SOCK_STREAM

    def __init__(
        self,
        driver: Driver,
        resolver: Resolver,
        family: int,
        *,
        connection: TcpConnection | None = None,
    ) -> None:
        super().__init__(driver, resolver, family, connection)
        self._binding: Binding | None = None
        self._listener: TcpListener | None = None
        self._connection = connection

    def _release(self) -> None:
        now = trio.current_time()
        if self._connection is not None:
            self._connection.close(now)
        if self._listener is not None:
            self._listener.close(now)
        if self._binding is not None:
            self._binding.release()
            self._binding = None

    def _configure(self) -> None:
        if changes := self._options.changes():
            if self._connection is not None:
                self._connection.configure(**dict(changes))
            if self._listener is not None:
                self._listener.configure(**dict(changes))

    def _local(self) -> tuple[bytes | None, int]:
        if self._connection is not None:
            return self._connection.local
        if self._listener is not None:
            return self._listener.local
        if self._binding is not None:
            return self._binding.address, self._binding.port
        return None, 0

    def _remote(self) -> tuple[bytes, int] | None:
        if self._connection is None or self._connection.state in _NOT_CONNECTED:
            return None
        return self._connection.remote

    def _get_option(self, level: int, optname: int) -> int | bytes:
        if (level, optname) == (kernel.SOL_SOCKET, kernel.SO_ACCEPTCONN):
            return int(self._listener is not None)
        if (level, optname) == (kernel.SOL_SOCKET, kernel.SO_ERROR):
            return 0 if self._connection is None else self._connection.take_error()
        if (level, optname) == (kernel.IPPROTO_TCP, kernel.TCP_MAXSEG):
            return _DEFAULT_MSS if self._connection is None else self._connection.mss
        return super()._get_option(level, optname)

    async def bind(self, address: Any) -> None:
        """Take an address and port; port 0 picks one.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL (not an address of this network), EINVAL (bound, or
                an IPv4 address with IPV6_V6ONLY).
        """
        self._check()
        await trio.lowlevel.checkpoint()
        host, port = self._resolve_own(address)
        if self._binding is not None or self._connection is not None or self._listener is not None:
            raise OSError(errno.EINVAL, f"bind: socket already has {self._local_text()}")
        self._binding = self._driver.stack.tcp.bind(
            host,
            port,
            reuse_address=self._options.reuses_address,
            reuse_port=self._options.reuses_port,
        )

    # opening

    def listen(self, backlog: int = 128) -> None:
        """Accept connections from now on; the SYNs of more than *backlog* waiting ones are dropped.

        Calling it again changes the backlog.

        Raises:
            OSError: EINVAL when connected, EADDRINUSE.
        """
        self._check()
        if self._connection is not None:
            raise OSError(errno.EINVAL, "listen: socket is connected or connecting")
        if self._listener is not None:
            self._listener.backlog = max(1, backlog)
            return
        tcp = self._driver.stack.tcp
        if self._binding is None:
            self._binding = tcp.bind(self._wildcard(), 0)
        self._listener = tcp.listen(self._binding, max(1, backlog), trio.current_time())
        self._binding = None  # the listener's from now on
        self._configure()
        self._attend(self._listener)

    async def accept(self) -> tuple[StreamSocket, Any]:
        """The next connection and its peer's address.

        Cancelling loses no connection.

        Raises:
            OSError: EINVAL, the socket does not listen, or no longer, because the Network was left
                or its wire died; EBADF after close.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        self._check_listening(self._check)
        listener = self._listener
        if listener is None:
            raise OSError(errno.EINVAL, "accept: socket does not listen")
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while (connection := listener.accept(trio.current_time())) is None:
            await self._waiters.wait_readable()
            has_waited = True
            self._check_listening(self._check_waiting)
        self._waiters.refresh()
        sock = StreamSocket(self._driver, self._resolver, self._family, connection=connection)
        self._options.inherit(sock._options)
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return sock, self._sockaddr(*connection.remote)

    @staticmethod
    def _check_listening(check: Callable[[], None]) -> None:
        """Do *check*, but say that a socket of a network that is down does not listen.

        From Linux's accept, ENETDOWN is about one connection that came to nothing, and
        `trio.SocketListener` tries again at once: here, for ever, and nothing else would run.
        """
        try:
            check()
        except OSError as exc:
            if exc.errno != errno.ENETDOWN:
                raise
            raise OSError(
                errno.EINVAL, f"accept: socket does not listen any more: {exc.strerror}"
            ) from exc

    async def connect(self, address: Any) -> None:
        """Connect to *address*.  Cancelling closes the socket.

        After a failure the socket is as new and may try again.

        Raises:
            OSError: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EADDRINUSE,
                EADDRNOTAVAIL, EISCONN, EALREADY.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        self._check()
        await trio.lowlevel.checkpoint_if_cancelled()
        host, port = self._resolve(address, local=False)
        if not any(host):  # Linux: connecting to the wildcard means ourselves
            host = packed("127.0.0.1" if len(host) == 4 else "::1")
        if self._driver.stack.ip.is_group(host):
            raise OSError(errno.ENETUNREACH, f"connect: {ip_text(host)} is more than one host")
        if self._listener is not None:
            raise OSError(errno.EISCONN, "connect: socket listens")
        if self._connection is not None:
            code = errno.EALREADY if self._connection.state in _OPENING else errno.EISCONN
            raise OSError(code, f"connect: {os.strerror(code)}")
        connection = self._driver.stack.tcp.connect(
            (host, port), trio.current_time(), binding=self._binding
        )
        self._binding = None  # the connection's from now on
        self._connection = connection
        self._configure()
        self._attend(connection)
        self._driver.flush()
        try:
            if connection.state not in _OPENING:
                await trio.lowlevel.cancel_shielded_checkpoint()
            while connection.state in _OPENING:
                await self._waiters.wait_writable()
                self._check_waiting()
            if code := connection.take_error():
                self._connection = None
                self._attend(Nothing())
                raise OSError(code, f"connecting to {address[0]}:{port}: {os.strerror(code)}")
        except trio.Cancelled:
            connection.abort(trio.current_time())
            self.close()
            raise

    def _connected(self) -> TcpConnection:
        self._check()
        if self._connection is None:
            raise OSError(errno.ENOTCONN, "socket is not connected")
        return self._connection

    def shutdown(self, flag: int) -> None:
        """End one direction or both; SHUT_WR sends FIN after what is queued.

        Raises:
            OSError: ENOTCONN, EBADF, or EINVAL for an unknown *flag*.
        """
        self._check()
        if flag not in (kernel.SHUT_RD, kernel.SHUT_WR, kernel.SHUT_RDWR):
            raise OSError(errno.EINVAL, f"shutdown: {flag} is none of SHUT_RD, SHUT_WR, SHUT_RDWR")
        if self._connection is None or self._connection.state in _NOT_CONNECTED:
            raise OSError(errno.ENOTCONN, "shutdown: socket is not connected")
        now = trio.current_time()
        if flag != kernel.SHUT_RD:
            self._connection.shutdown_write(now)
            self._did_shutdown_write = True
        if flag != kernel.SHUT_WR:
            self._connection.shutdown_read(now)
        self._driver.flush()

    # receiving

    def is_readable(self) -> bool:
        """True if a receive (or accept) would return at once."""
        endpoint = self._connection or self._listener
        return endpoint is not None and endpoint.is_readable

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        """Up to *buflen* octets; b"" is the end of the stream.  Cancelling loses nothing.

        Raises:
            OSError: ECONNRESET, ETIMEDOUT, ENOTCONN, EBADF; EOPNOTSUPP for flags but MSG_PEEK.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        connection = self._connected()
        buflen = self._size(buflen)
        if flags and flags != MSG_PEEK:
            raise OSError(errno.EOPNOTSUPP, f"recv: flags {flags:#x} are not supported")
        take: Callable[[int, float], bytes | None] = (
            connection.peek if flags else connection.receive
        )
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while (data := take(buflen, trio.current_time())) is None:
            await self._waiters.wait_readable()
            has_waited = True
            self._check_waiting()
        self._waiters.refresh()
        self._driver.flush()  # reading may have opened the window
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As `recv`, and None."""
        return await self.recv(bufsize, flags), None

    async def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """As `recv`; there is no ancillary data."""
        del ancbufsize
        return await self.recv(bufsize, flags), [], 0, None

    # sending

    async def wait_writable(self) -> None:
        """Return when a send would take at least one octet, or fail."""
        connection = self._connected()
        await trio.lowlevel.checkpoint()
        while not connection.is_writable:
            await self._waiters.wait_writable()
            self._check_waiting()

    async def send(self, data: Any, flags: int = 0, /) -> int:
        """Queue what fits of *data*, waiting while nothing does; returns the octets taken.

        ``bytes`` are kept by reference, anything else is copied.  If this is cancelled, nothing
        was taken.

        Raises:
            OSError: EPIPE, ECONNRESET, ETIMEDOUT, ENOTCONN, EBADF; EOPNOTSUPP for flags.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        connection = self._connected()
        if flags and flags != MSG_NOSIGNAL:
            raise OSError(errno.EOPNOTSUPP, f"send: flags {flags:#x} are not supported")
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while not (taken := connection.send(data, trio.current_time())) and len(data):
            await self._waiters.wait_writable()
            has_waited = True
            self._check_waiting()
        self._driver.flush()
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def sendto(self, *args: Any) -> int:
        """As `send`: a connected stream ignores the address, as on Linux.

        Raises:
            OSError: as `send`.
        """
        if len(args) not in (2, 3):
            raise TypeError("sendto() takes (data, address) or (data, flags, address)")
        return await self.send(args[0], args[1] if len(args) == 3 else 0)

    async def sendmsg(
        self,
        buffers: Iterable[Any],
        ancdata: Iterable[tuple[int, int, Any]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """As `send`, from several buffers.

        Raises:
            OSError: EOPNOTSUPP for ancillary data, else as `send`.
        """
        del address
        if list(ancdata):
            raise OSError(errno.EOPNOTSUPP, "sendmsg: ancillary data is not supported")
        return await self.send(b"".join(buffers), flags)
