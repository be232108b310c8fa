"""Sockets of one network, with the interface of trio's own.

`Socket` is a `trio.socket.SocketType`, so `trio.SocketStream`, `trio.SocketListener` and every
library on top of them work unmodified.  It knows the stack's endpoints and the driver; how TCP and
UDP behave is the stack's business.
"""

from __future__ import annotations

import errno
import os
import socket as kernel
from typing import TYPE_CHECKING, Any, Self, overload

import trio

from .driver import Waiters
from .header.address import ip_text, packed
from .sockopt import Options
from .stack import events
from .stack.tcp.connection import TcpConnection
from .stack.tcp.listen import TcpListener

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from .driver import Driver
    from .header.frame import Buffer
    from .resolve import Resolver
    from .stack.ports import Binding
    from .stack.udp import Datagram, UdpEndpoint

__all__ = ["Socket"]

_PROTOCOLS = {
    kernel.SOCK_STREAM: kernel.IPPROTO_TCP,
    kernel.SOCK_DGRAM: kernel.IPPROTO_UDP,
}
_WILDCARD = {kernel.AF_INET: "0.0.0.0", kernel.AF_INET6: "::"}  # noqa: S104 - our own network's


class StandIn(Waiters):
    """Waiters with a descriptor that polls readable while the endpoint is; made on first use."""

    __slots__ = ("descriptor", "endpoint")

    def __init__(self, endpoint: events.Endpoint) -> None:
        super().__init__(endpoint)
        self.endpoint: Any = endpoint
        self.descriptor = -1

    def open(self) -> int:
        """The descriptor.  It is for poll and select only, and always writable."""
        if self.descriptor == -1:
            self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.on_readable = True
            self.readable_changed()
        return self.descriptor

    def close(self) -> None:
        """Close the descriptor, if there is one."""
        if self.descriptor != -1:
            self.on_readable = False
            os.close(self.descriptor)
            self.descriptor = -1

    def readable_changed(self) -> None:
        """Make the descriptor say what the endpoint says."""
        if self.endpoint.is_readable:
            os.eventfd_write(self.descriptor, 1)
        else:
            try:
                os.eventfd_read(self.descriptor)
            except BlockingIOError:
                pass
            self.endpoint.wanted |= events.RD | events.CONN | events.ERR


class Socket(trio.socket.SocketType):
    """A TCP or UDP socket on a Network; make it with `Network.socket`.

    At most one task may wait in each direction; a second raises `trio.BusyResourceError`.  All
    waiting is cancellable: cancelling `accept` or a receive loses nothing that arrived, cancelling
    `connect` closes the socket, and cancelling a send has either queued the data or not.

    Once the Network has been left, or its wire has died, every call raises ENETDOWN.
    """

    def __init__(
        self,
        driver: Driver,
        resolver: Resolver,
        family: int,
        type: int,  # noqa: A002 - the name trio's interface gives it
        proto: int = 0,
        *,
        connection: TcpConnection | None = None,
    ) -> None:
        type &= ~(kernel.SOCK_NONBLOCK | kernel.SOCK_CLOEXEC)  # noqa: A001
        if family not in _WILDCARD:
            raise OSError(errno.EAFNOSUPPORT, f"socket: family {family} is neither INET nor INET6")
        if type not in _PROTOCOLS:
            raise OSError(errno.ESOCKTNOSUPPORT, f"socket: type {type} is neither STREAM nor DGRAM")
        if proto not in (0, _PROTOCOLS[type]):
            raise OSError(
                errno.EPROTONOSUPPORT, f"socket: protocol {proto} does not fit type {type}"
            )
        driver.check()
        self._driver = driver
        self._resolver = resolver
        self._family = kernel.AddressFamily(family)
        self._type = kernel.SocketKind(type)
        self._is_closed = False
        self._did_shutdown_write = False
        self._binding: Binding | None = None
        self._connection: TcpConnection | None = None
        self._listener: TcpListener | None = None
        self._endpoint: UdpEndpoint | None = None
        self._waiters: StandIn | None = None
        self._options = Options(family, type)
        if type == kernel.SOCK_DGRAM:
            self._endpoint = driver.stack.udp.open()
            self._attend(self._endpoint)
        elif connection is not None:
            self._connection = connection
            self._attend(connection)

    # plain attributes

    @property
    def _sock(self) -> Socket:
        """Libraries ask trio's sockets for the kernel socket; this is all there is."""
        return self

    @property
    def family(self) -> kernel.AddressFamily:
        """AF_INET or AF_INET6."""
        return self._family

    @property
    def type(self) -> kernel.SocketKind:
        """SOCK_STREAM or SOCK_DGRAM."""
        return self._type

    @property
    def proto(self) -> int:
        """IPPROTO_TCP or IPPROTO_UDP."""
        return _PROTOCOLS[self._type]

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        """True after ``shutdown(SHUT_WR)``."""
        return self._did_shutdown_write

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"local={self._local_text()}"
        return f"<zttrio.Socket {self._family.name} {self._type.name} {state}>"

    def _local_text(self) -> str:
        address = self.getsockname()
        return f"{address[0]}:{address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # descriptors

    def fileno(self) -> int:
        """A descriptor that polls readable when the socket is; -1 once closed.

        It is a stand-in: data does not pass through it, and it is always writable.
        """
        if self._is_closed:
            return -1
        if self._waiters is None:  # nothing to wait for yet: an endpoint that never reports
            self._attend(_Nothing())
        assert self._waiters is not None  # noqa: S101 - _attend has just made it
        return self._waiters.open()

    def detach(self) -> int:
        """Not possible: the data does not live in a descriptor.

        Raises:
            OSError: EOPNOTSUPP, always.
        """
        raise OSError(errno.EOPNOTSUPP, "detach: a virtual socket has no descriptor of its own")

    def dup(self) -> trio.socket.SocketType:
        """Not possible: share the socket object itself.

        Raises:
            OSError: EOPNOTSUPP, always.
        """
        raise OSError(errno.EOPNOTSUPP, "dup: share the socket object itself instead")

    def get_inheritable(self) -> bool:
        """False: a virtual socket does not survive exec."""
        return False

    def set_inheritable(self, inheritable: bool) -> None:  # noqa: FBT001 - trio's interface
        """Not possible, unless *inheritable* is False.

        Raises:
            OSError: EOPNOTSUPP.
        """
        if inheritable:
            raise OSError(errno.EOPNOTSUPP, "a virtual socket cannot be inherited; use run_process")

    # life

    def close(self) -> None:
        """Let go of the socket; what was sent is still delivered, then the peer sees the end.

        Unread data turns that into a reset, as on Linux.  Tasks that wait on the socket wake with
        `trio.ClosedResourceError`.
        """
        if self._is_closed:
            return
        self._is_closed = True
        now = trio.current_time()
        if self._waiters is not None:
            self._driver.sockets.discard(self._waiters)
            self._waiters.close()
        if self._connection is not None:
            self._connection.close(now)
        if self._listener is not None:
            self._listener.close(now)
        if self._endpoint is not None:
            self._endpoint.close()
        if self._binding is not None:
            self._binding.release()
            self._binding = None
        if self._waiters is not None:
            self._waiters.wake_all()
        self._driver.flush()

    def _attend(self, endpoint: events.Endpoint) -> None:
        descriptor = -1
        if self._waiters is not None:
            self._driver.sockets.discard(self._waiters)
            descriptor, self._waiters.descriptor = self._waiters.descriptor, -1
        self._waiters = StandIn(endpoint)
        self._driver.sockets.add(self._waiters)
        if descriptor != -1:  # a program may hold the number already: keep it
            self._waiters.descriptor = descriptor
            self._waiters.on_readable = True
            self._waiters.readable_changed()

    def _check(self) -> None:
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        self._driver.check()

    def _check_waiting(self) -> None:
        """After a wait: somebody else may have closed the socket meanwhile."""
        if self._is_closed:
            raise trio.ClosedResourceError("another task closed this socket")
        self._driver.check()

    # addresses

    async def _resolve(self, address: Any, *, local: bool) -> tuple[bytes, int]:
        """Turn what a program passes as an address into packed address and port."""
        if not isinstance(address, tuple) or not 2 <= len(address) <= 4:
            raise ValueError(f"address must be (host, port), got {address!r}")
        host, port = address[:2]
        if host == "":
            host = _WILDCARD[self._family] if local else "localhost"
        elif host == "<broadcast>":
            host = "255.255.255.255"
        flags = kernel.AI_PASSIVE if local else 0
        if self._family == kernel.AF_INET6 and not self._options.is_v6_only:
            flags |= kernel.AI_V4MAPPED
        found = self._resolver.getaddrinfo(host, port, self._family, self._type, 0, flags)
        sockaddr = found[0][4]
        return packed(sockaddr[0].partition("%")[0]), sockaddr[1]

    def _wildcard(self) -> bytes | None:
        """Every address this socket may serve; None means both families."""
        if self._family == kernel.AF_INET6 and not self._options.is_v6_only:
            return None
        return packed(_WILDCARD[self._family])

    def _sockaddr(self, address: bytes | None, port: int) -> Any:
        text = _WILDCARD[self._family] if address is None else ip_text(address)
        if self._family == kernel.AF_INET6:
            if address is not None and len(address) == 4:
                text = f"::ffff:{text}"
            return (text, port, 0, 0)
        return (text, port)

    def getsockname(self) -> Any:
        """Our ``(address, port)``; the wildcard address and port 0 while there is none.

        Raises:
            OSError: EBADF after close.
        """
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        for endpoint in (self._connection, self._listener, self._endpoint, self._binding):
            if endpoint is not None:
                return self._sockaddr(*endpoint.local)
        return self._sockaddr(None, 0)

    def getpeername(self) -> Any:
        """The peer's ``(address, port)``.

        Raises:
            OSError: ENOTCONN, or EBADF after close.
        """
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        remote = None
        if self._connection is not None and self._connection.is_connected:
            remote = self._connection.remote
        elif self._endpoint is not None:
            remote = self._endpoint.remote
        if remote is None:
            raise OSError(errno.ENOTCONN, "socket is not connected")
        return self._sockaddr(*remote)

    async def bind(self, address: Any) -> None:
        """Take an address and port; port 0 picks one.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL (not an address of this network), EINVAL (bound).
        """
        self._check()
        await trio.lowlevel.checkpoint()
        host, port = await self._resolve(address, local=True)
        chosen = host if any(host) else self._wildcard()
        reuse = self._options.reuse()
        if self._endpoint is not None:
            self._endpoint.bind(chosen, port, **reuse)
        else:
            if self._binding is not None or self._connection is not None:
                raise OSError(errno.EINVAL, f"bind: socket already has {self._local_text()}")
            tcp = self._driver.stack.tcp
            self._binding = tcp.bind(chosen, port, **reuse)

    # TCP

    def listen(self, backlog: int = 128) -> None:
        """Accept connections from now on; the SYNs of more than *backlog* waiting ones are dropped.

        Calling it again changes the backlog.

        Raises:
            OSError: EOPNOTSUPP for a datagram socket, EINVAL when connected, EADDRINUSE.
        """
        self._check()
        if self._type != kernel.SOCK_STREAM:
            raise OSError(errno.EOPNOTSUPP, "listen: only stream sockets listen")
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
        self._options.apply(self._listener)
        self._attend(self._listener)

    async def accept(self) -> tuple[Socket, Any]:
        """The next connection and its peer's address.

        Cancelling loses no connection.

        Raises:
            OSError: EINVAL, the socket does not listen; EBADF after close.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        self._check()
        await trio.lowlevel.checkpoint_if_cancelled()
        listener, waiters = self._listener, self._waiters
        if listener is None or waiters is None:
            raise OSError(errno.EINVAL, "accept: socket does not listen")
        has_waited = False
        while (connection := listener.accept(trio.current_time())) is None:
            await waiters.wait_readable()
            has_waited = True
            self._check_waiting()
        if waiters.on_readable:
            waiters.readable_changed()
        sock = Socket(self._driver, self._resolver, self._family, self._type, connection=connection)
        self._options.inherit(sock._options)  # noqa: SLF001 - the same class
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return sock, self._sockaddr(*connection.remote)

    async def connect(self, address: Any) -> None:
        """Connect to *address*; for a datagram socket, choose the peer.

        Cancelling closes the socket.

        Raises:
            OSError: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EADDRINUSE,
                EADDRNOTAVAIL, EISCONN, EALREADY.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        self._check()
        await trio.lowlevel.checkpoint()
        host, port = await self._resolve(address, local=False)
        if not any(host):  # Linux: connecting to the wildcard means ourselves
            host = packed("127.0.0.1" if len(host) == 4 else "::1")
        now = trio.current_time()
        if self._endpoint is not None:
            self._endpoint.connect((host, port), now)
            return
        if self._listener is not None:
            raise OSError(errno.EISCONN, "connect: socket listens")
        if self._connection is not None:
            connected = self._connection.is_connected
            code = errno.EISCONN if connected else errno.EALREADY
            raise OSError(code, f"connect: {os.strerror(code)}")
        connection = self._driver.stack.tcp.connect((host, port), now, binding=self._binding)
        self._binding = None  # the connection's from now on
        self._connection = connection
        self._options.apply(connection)
        self._attend(connection)
        self._driver.flush()
        assert self._waiters is not None  # noqa: S101 - _attend has just made it
        try:
            while not connection.is_connected:
                if code := connection.take_error():
                    self._forget_connection()
                    raise OSError(code, f"connecting to {address[0]}:{port}: {os.strerror(code)}")
                await self._waiters.wait_writable()
                self._check_waiting()
        except trio.Cancelled:
            connection.abort(trio.current_time())
            self.close()
            raise

    def _forget_connection(self) -> None:
        """A failed attempt leaves a socket that may connect again, as on Linux."""
        self._connection = None
        self._attend(_Nothing())

    def shutdown(self, how: int) -> None:
        """End one direction or both; SHUT_WR sends FIN after what is queued.

        Raises:
            OSError: ENOTCONN, EBADF, or EINVAL for an unknown *how*.
        """
        self._check()
        if how not in (kernel.SHUT_RD, kernel.SHUT_WR, kernel.SHUT_RDWR):
            raise OSError(errno.EINVAL, f"shutdown: {how} is none of SHUT_RD, SHUT_WR, SHUT_RDWR")
        if self._endpoint is not None and self._endpoint.remote is not None:
            self._endpoint.shutdown(how)
        elif self._connection is None or not self._connection.is_connected:
            raise OSError(errno.ENOTCONN, "shutdown: socket is not connected")
        else:
            now = trio.current_time()
            if how != kernel.SHUT_RD:
                self._connection.shutdown_write(now)
            if how != kernel.SHUT_WR:
                self._connection.shutdown_read(now)
        if how != kernel.SHUT_RD:
            self._did_shutdown_write = True
        self._driver.flush()

    # receiving

    def is_readable(self) -> bool:
        """True if a receive (or accept) would return at once."""
        endpoint = self._connection or self._listener or self._endpoint
        return endpoint is not None and bool(endpoint.is_readable)

    async def _receive_tcp(self, size: int, flags: int) -> bytes:
        connection = self._connected()
        if size < 0:
            raise ValueError("negative buffersize in recv")
        if flags & ~kernel.MSG_PEEK:
            raise OSError(errno.EOPNOTSUPP, f"recv: flags {flags:#x} are not supported")
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        take = connection.peek if flags else connection.receive
        while (data := take(size, trio.current_time())) is None:
            waiters = self._waiters
            assert waiters is not None  # noqa: S101 - made with the connection
            await waiters.wait_readable()
            has_waited = True
            self._check_waiting()
        self._after_receive()
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    def _after_receive(self) -> None:
        """A read may have opened the window; and a stand-in descriptor must follow."""
        waiters = self._waiters
        if waiters is not None and waiters.on_readable:
            waiters.readable_changed()
        self._driver.flush()

    def _connected(self) -> TcpConnection:
        self._check()
        if self._connection is None:
            raise OSError(errno.ENOTCONN, "socket is not connected")
        return self._connection

    async def _receive_udp(self, flags: int) -> Datagram:
        self._check()
        endpoint, waiters = self._endpoint, self._waiters
        assert endpoint is not None  # noqa: S101 - the caller knows
        assert waiters is not None  # noqa: S101 - made with the endpoint
        if flags & ~kernel.MSG_PEEK:
            raise OSError(errno.EOPNOTSUPP, f"recv: flags {flags:#x} are not supported")
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while (datagram := endpoint.peek() if flags else endpoint.receive()) is None:
            await waiters.wait_readable()
            has_waited = True
            self._check_waiting()
        if waiters.on_readable:
            waiters.readable_changed()
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return datagram

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        """Up to *buflen* octets; b"" is the end of the stream.  Cancelling loses nothing.

        For a datagram socket, one datagram, cut to *buflen*.

        Raises:
            OSError: ECONNRESET, ETIMEDOUT, ECONNREFUSED (datagram), ENOTCONN, EBADF.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        if self._endpoint is None:
            return await self._receive_tcp(buflen, flags)
        return bytes((await self._receive_udp(flags)).data[:buflen])

    async def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `recv`, into *buffer* (at most *nbytes*, 0 for its whole length)."""
        with memoryview(buffer).cast("B") as view:
            size = nbytes or len(view)
            data = await self.recv(size, flags)
            view[: len(data)] = data
            return len(data)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As `recv`, with the sender's address; None for a stream."""
        if self._endpoint is None:
            return await self._receive_tcp(bufsize, flags), None
        datagram = await self._receive_udp(flags)
        return bytes(datagram.data[:bufsize]), self._sockaddr(*datagram.source)

    async def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As `recvfrom`, into *buffer*."""
        with memoryview(buffer).cast("B") as view:
            data, address = await self.recvfrom(nbytes or len(view), flags)
            view[: len(data)] = data
            return len(data), address

    async def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """As `recvfrom`, with MSG_TRUNC if a datagram was cut; there is no ancillary data."""
        del ancbufsize
        if self._endpoint is None:
            return await self._receive_tcp(bufsize, flags), [], 0, None
        datagram = await self._receive_udp(flags)
        cut = kernel.MSG_TRUNC if len(datagram.data) > bufsize else 0
        return bytes(datagram.data[:bufsize]), [], cut, self._sockaddr(*datagram.source)

    async def recvmsg_into(
        self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """As `recvmsg`, spread over *buffers*."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        size = sum(map(len, views))
        data, ancillary, cut, address = await self.recvmsg(size, ancbufsize, flags)
        rest = memoryview(data)
        for view in views:
            piece = rest[: len(view)]
            view[: len(piece)] = piece
            rest = rest[len(piece) :]
        return len(data), ancillary, cut, address

    # sending

    async def wait_writable(self) -> None:
        """Return when a send would take at least one octet."""
        self._check()
        await trio.lowlevel.checkpoint()
        if self._endpoint is not None:
            await self._driver.wait_sendable()
            return
        connection, waiters = self._connected(), self._waiters
        assert waiters is not None  # noqa: S101 - made with the connection
        while not connection.is_writable:
            await waiters.wait_writable()
            self._check_waiting()

    async def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Queue what fits of *data*, waiting while nothing does; returns the octets taken.

        ``bytes`` are kept by reference, anything else is copied.  If this is cancelled, nothing
        was taken.

        Raises:
            OSError: EPIPE, ECONNRESET, ETIMEDOUT, ENOTCONN, EMSGSIZE (datagram), EBADF.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        if self._endpoint is not None:
            return await self._send_datagram(data, None, flags)
        connection = self._connected()
        if flags & ~kernel.MSG_NOSIGNAL:
            raise OSError(errno.EOPNOTSUPP, f"send: flags {flags:#x} are not supported")
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while True:
            taken = connection.send(data, trio.current_time())
            if taken or not len(data):
                break
            waiters = self._waiters
            assert waiters is not None  # noqa: S101 - made with the connection
            await waiters.wait_writable()
            has_waited = True
            self._check_waiting()
        self._driver.flush()
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def _send_datagram(self, data: Buffer, address: Any, flags: int) -> int:
        self._check()
        if flags & ~kernel.MSG_NOSIGNAL:
            raise OSError(errno.EOPNOTSUPP, f"send: flags {flags:#x} are not supported")
        endpoint = self._endpoint
        assert endpoint is not None  # noqa: S101 - the caller knows
        await trio.lowlevel.checkpoint()
        remote = None if address is None else await self._resolve(address, local=False)
        await self._driver.wait_sendable()
        self._check_waiting()
        sent = endpoint.send(data, remote, trio.current_time())
        self._driver.flush()
        return sent

    @overload
    async def sendto(self, data: Any, address: Any, /) -> int: ...

    @overload
    async def sendto(self, data: Any, flags: int, address: Any, /) -> int: ...

    async def sendto(self, *args: Any) -> int:
        """Send one datagram to *address*; waits only while the wire is full.

        Raises:
            OSError: EMSGSIZE, ENETUNREACH, EACCES (broadcast without SO_BROADCAST), ECONNREFUSED
                (an earlier datagram on a connected socket), EBADF.
        """
        if len(args) not in (2, 3):
            raise TypeError("sendto() takes (data, address) or (data, flags, address)")
        data, flags, address = args if len(args) == 3 else (args[0], 0, args[1])
        if self._endpoint is None:
            return await self.send(data, flags)
        return await self._send_datagram(data, address, flags)

    async def sendmsg(
        self,
        buffers: Iterable[Any],
        ancdata: Iterable[tuple[int, int, Any]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """As `send` or `sendto`, from several buffers.

        Raises:
            OSError: EOPNOTSUPP for ancillary data, else as `send` and `sendto`.
        """
        if list(ancdata):
            raise OSError(errno.EOPNOTSUPP, "sendmsg: ancillary data is not supported")
        data = b"".join(buffers)
        if self._endpoint is None:
            return await self.send(data, flags)
        return await self._send_datagram(data, address, flags)

    # options

    @overload
    def getsockopt(self, level: int, optname: int) -> int: ...

    @overload
    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes: ...

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int | bytes:
        """The value of an option, as Linux gives it.

        Raises:
            OSError: ENOPROTOOPT, no such option here; EBADF after close.
        """
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        if (level, optname) == (kernel.SOL_SOCKET, kernel.SO_ACCEPTCONN):
            value: int | bytes = int(self._listener is not None)
        elif (level, optname) == (kernel.SOL_SOCKET, kernel.SO_ERROR):
            endpoint = self._connection or self._endpoint
            value = 0 if endpoint is None else endpoint.take_error()
        else:
            value = self._options.get(level, optname, self._connection)
        if buflen is None:
            if isinstance(value, bytes):
                return int.from_bytes(value[:4], "little", signed=True)
            return value
        if isinstance(value, int):
            value = value.to_bytes(4, "little", signed=True)
        return value[:buflen]

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        """Set an option; it acts at once, also on a connection that is open.

        Raises:
            OSError: ENOPROTOOPT, no such option here; EINVAL for the value; EBADF after close.
        """
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        if value is None:
            value = bytes(optlen or 0)
        self._options.set(level, optname, value)
        for endpoint in (self._connection, self._listener, self._endpoint):
            if endpoint is not None:
                self._options.apply(endpoint)
        self._driver.flush()


class _Nothing(events.Endpoint):
    """What a socket without a connection waits for."""

    __slots__ = ()
    is_readable = False
