"""What every socket of a network has: a life, addresses, options and a stand-in descriptor."""

from __future__ import annotations

import errno
import operator
import socket as kernel
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

import trio

from zttrio.header.address import INTERFACE_INDEX, IPV6_UNSPECIFIED, ip_text, is_link_local, packed

from .options import Options
from .standin import Nothing, StandIn

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable
    from types import TracebackType

    from zttrio.driver import Driver
    from zttrio.resolve import Resolver
    from zttrio.stack import events

__all__ = ["Socket"]

_WILDCARD = {kernel.AF_INET: "0.0.0.0", kernel.AF_INET6: "::"}  # noqa: S104 - our own network's
SCOPE = INTERFACE_INDEX  # sin6_scope_id of link-local addresses: a Network has one interface
_V6_ONLY = (kernel.IPPROTO_IPV6, kernel.IPV6_V6ONLY)
_V4_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2


class Socket(trio.socket.SocketType):
    """A TCP or UDP socket on a Network; make it with `Network.socket`.

    At most one task may wait in each direction; a second raises `trio.BusyResourceError`.  All
    waiting is cancellable: cancelling `accept` or a receive loses nothing that arrived, cancelling
    `connect` closes the socket, and cancelling a send has either queued the data or not.

    Once the Network has been left, or its wire has died, every call raises ENETDOWN, but `accept`
    EINVAL.
    """

    __slots__ = (  # a busy server has thousands
        "_did_shutdown_write",
        "_driver",
        "_family",
        "_is_closed",
        "_options",
        "_resolver",
        "_waiters",
    )

    protocol: ClassVar[int]
    kind: ClassVar[kernel.SocketKind]

    def __init__(
        self,
        driver: Driver,
        resolver: Resolver,
        family: int,
        endpoint: events.Endpoint | None = None,
    ) -> None:
        self._driver = driver
        self._resolver = resolver
        self._family = kernel.AddressFamily(family)
        self._is_closed = False
        self._did_shutdown_write = False
        self._options = Options(family, self.kind)
        self._waiters = StandIn(Nothing() if endpoint is None else endpoint)
        driver.sockets.add(self._waiters)

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
        return self.kind

    @property
    def proto(self) -> int:
        """IPPROTO_TCP or IPPROTO_UDP."""
        return self.protocol

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - the name trio gives it
        """True after ``shutdown(SHUT_WR)``."""
        return self._did_shutdown_write

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"local={self._local_text()}"
        return f"<zttrio.Socket {self._family.name} {self.kind.name} {state}>"

    def _local_text(self) -> str:
        address = self.getsockname()
        return f"{address[0]}:{address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: builtins.type[BaseException] | None,
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

    def set_inheritable(self, inheritable: bool) -> None:
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
        self._driver.sockets.discard(self._waiters)
        self._waiters.close()
        self._release()
        self._waiters.wake_all()
        self._driver.flush()

    def _release(self) -> None:
        """Close what the socket holds of the stack."""
        raise NotImplementedError

    def _attend(self, endpoint: events.Endpoint) -> None:
        """Wait for *endpoint* from now on, behind the same descriptor if there is one."""
        self._waiters.move_to(endpoint)

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

    def _resolve(self, address: Any, *, local: bool) -> tuple[bytes, int]:
        """Turn what a program passes as an address into packed address and port."""
        if not isinstance(address, tuple) or not 2 <= len(address) <= 4:
            raise ValueError(f"address must be (host, port), got {address!r}")
        host, port = address[:2]
        if type(port) is int and 0 <= port <= 0xFFFF:
            try:  # nearly always it is literal already, and of our family
                ip = kernel.inet_pton(self._family, host)
            except (OSError, TypeError, ValueError):
                pass
            else:
                return self._without_mapping(ip), port
        if host == "":
            host = _WILDCARD[self._family] if local else "localhost"
        elif host == "<broadcast>":
            host = "255.255.255.255"
        flags = kernel.AI_PASSIVE if local else 0
        if self._family == kernel.AF_INET6 and not self._options.is_v6_only:
            flags |= kernel.AI_V4MAPPED
        found = self._resolver.getaddrinfo(host, port, self._family, self.kind, 0, flags)
        sockaddr = found[0][4]
        return self._without_mapping(packed(sockaddr[0].partition("%")[0])), sockaddr[1]

    def _without_mapping(self, ip: bytes) -> bytes:
        """The IPv4 address that *ip* stands for, unless this socket keeps to IPv6."""
        if ip.startswith(_V4_MAPPED) and not self._options.is_v6_only:
            return ip[12:]
        return ip

    def _resolve_own(self, address: Any) -> tuple[bytes | None, int]:
        """What a program passes to bind; None is the wildcard of both families.

        Raises:
            OSError: EINVAL, an IPv4 address for a socket that keeps to IPv6.
        """
        ip, port = self._resolve(address, local=True)
        if ip.startswith(_V4_MAPPED):
            raise OSError(errno.EINVAL, f"bind: {ip_text(ip)}, but IPV6_V6ONLY is set")
        return (self._wildcard() if ip == IPV6_UNSPECIFIED else ip), port

    def _wildcard(self) -> bytes | None:
        """Every address this socket may serve; None means both families."""
        if self._family == kernel.AF_INET6 and not self._options.is_v6_only:
            return None
        return packed(_WILDCARD[self._family])

    def _sockaddr(self, address: bytes | None, port: int) -> Any:
        if address is None:
            text = _WILDCARD[self._family]
        elif len(address) == 4:
            text = "{}.{}.{}.{}".format(*address)
        else:
            text = kernel.inet_ntop(kernel.AF_INET6, address)
        if self._family == kernel.AF_INET6:
            if address is not None and len(address) == 4:
                text = f"::ffff:{text}"
            is_scoped = address is not None and len(address) == 16 and is_link_local(address)
            return (text, port, 0, SCOPE if is_scoped else 0)
        return (text, port)

    def getsockname(self) -> Any:
        """Our ``(address, port)``; the wildcard address and port 0 while there is none.

        Raises:
            OSError: EBADF after close.
        """
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        return self._sockaddr(*self._local())

    def getpeername(self) -> Any:
        """The peer's ``(address, port)``.

        Raises:
            OSError: ENOTCONN, or EBADF after close.
        """
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        remote = self._remote()
        if remote is None:
            raise OSError(errno.ENOTCONN, "socket is not connected")
        return self._sockaddr(*remote)

    def _local(self) -> tuple[bytes | None, int]:
        raise NotImplementedError

    def _remote(self) -> tuple[bytes, int] | None:
        raise NotImplementedError

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
        value = self._get_option(level, optname)
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
            OSError: ENOPROTOOPT, no such option here; EINVAL for the value, and for IPV6_V6ONLY
                once the socket has a port; EBADF after close.
        """
        if self._is_closed:
            raise OSError(errno.EBADF, "socket is closed")
        if value is None:
            value = bytes(optlen or 0)
        if (level, optname) == _V6_ONLY and self._family == kernel.AF_INET6 and self._local()[1]:
            raise OSError(errno.EINVAL, f"IPV6_V6ONLY: the socket has {self._local_text()} already")
        self._set_option(level, optname, value)

    def _get_option(self, level: int, optname: int) -> int | bytes:
        if (level, optname) == (kernel.SOL_SOCKET, kernel.SO_ACCEPTCONN):
            return 0
        return self._options.get(level, optname)

    def _set_option(self, level: int, optname: int, value: Any) -> None:
        before = self._options.changes()
        self._options.set(level, optname, value)
        if self._options.changes() != before:
            self._configure()
            self._driver.flush()

    def _configure(self) -> None:
        """Give the options to the endpoints there are."""
        raise NotImplementedError

    # what both kinds do with the same calls

    @staticmethod
    def _size(size: int) -> int:
        """Check a size before anything waits."""
        size = operator.index(size)
        if size < 0:
            raise ValueError(f"recv: size {size} must not be negative")
        return size

    async def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `recv`, into *buffer* (at most *nbytes*, 0 for its whole length)."""
        with memoryview(buffer).cast("B") as view:
            data = await self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
            return len(data)

    async def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As `recvfrom`, into *buffer* (at most *nbytes*, 0 for its whole length)."""
        with memoryview(buffer).cast("B") as view:
            data, address = await self.recvfrom(nbytes or len(view), flags)
            view[: len(data)] = data
            return len(data), address

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
