"""UDP sockets."""

from __future__ import annotations

import errno
import socket as kernel
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from . import ancillary, multicast
from .base import Socket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zttrio.driver import Driver
    from zttrio.header.frame import Buffer
    from zttrio.resolve import Resolver
    from zttrio.stack.datagram import Control, Datagram, UdpEndpoint

__all__ = ["DatagramSocket"]

MSG_PEEK = int(kernel.MSG_PEEK)  # ints, because an enum's operators cost more than a system call
MSG_NOSIGNAL = int(kernel.MSG_NOSIGNAL)


class DatagramSocket(Socket):
    """A UDP socket."""

    protocol: ClassVar[int] = kernel.IPPROTO_UDP
    kind = kernel.SOCK_DGRAM

    def __init__(self, driver: Driver, resolver: Resolver, family: int) -> None:
        super().__init__(driver, resolver, family)
        self._multicast_interface: dict[int, int | bytes] = {}
        self._endpoint: UdpEndpoint = driver.stack.udp.open()
        self._attend(self._endpoint)

    def _release(self) -> None:
        self._endpoint.close()

    def _configure(self) -> None:
        for name, value in self._options.changes():
            setattr(self._endpoint, name, value)

    def _local(self) -> tuple[bytes | None, int]:
        return self._endpoint.local

    def _remote(self) -> tuple[bytes, int] | None:
        return self._endpoint.remote

    def _get_option(self, level: int, optname: int) -> int | bytes:
        if (level, optname) == (kernel.SOL_SOCKET, kernel.SO_ERROR):
            return self._endpoint.take_error()
        if (level, optname) in multicast.INTERFACE and self._knows(level):
            return self._multicast_interface.get(level, multicast.DEFAULT_INTERFACE[level])
        return super()._get_option(level, optname)

    def _set_option(self, level: int, optname: int, value: Any) -> None:
        key = (level, optname)
        if not self._knows(level):
            pass
        elif key in multicast.JOIN:
            self._endpoint.join_group(multicast.group_of(level, value, self._driver.stack.ip))
            self._driver.flush()
            return
        elif key in multicast.LEAVE:
            self._endpoint.leave_group(multicast.group_of(level, value, self._driver.stack.ip))
            self._driver.flush()
            return
        elif key in multicast.INTERFACE:
            chosen = multicast.interface_of(level, value, self._driver.stack.ip)
            self._multicast_interface[level] = chosen
            if isinstance(chosen, bytes):
                self._endpoint.multicast_source = chosen if any(chosen) else None
            return
        super()._set_option(level, optname, value)

    def _knows(self, level: int) -> bool:
        """IPv6 sockets have IPv4's options too, as they may work with it."""
        return level != kernel.IPPROTO_IPV6 or self._family == kernel.AF_INET6

    async def bind(self, address: Any) -> None:
        """Take an address and port; port 0 picks one.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL (not an address of this network), EINVAL (bound, or
                an IPv4 address with IPV6_V6ONLY).
        """
        self._check()
        await trio.lowlevel.checkpoint()
        host, port = self._resolve_own(address)
        self._endpoint.bind(
            host,
            port,
            reuse_address=self._options.reuses_address,
            reuse_port=self._options.reuses_port,
        )

    async def connect(self, address: Any) -> None:
        """Choose the peer: datagrams go there, and only its own are received.

        Raises:
            OSError: ENETUNREACH, EADDRINUSE (no port is left).
        """
        self._check()
        await trio.lowlevel.checkpoint()
        self._endpoint.connect(self._resolve(address, local=False), trio.current_time())

    def listen(self, backlog: int = 128) -> None:
        """Not for datagrams.

        Raises:
            OSError: EOPNOTSUPP, always.
        """
        del backlog
        raise OSError(errno.EOPNOTSUPP, "listen: only stream sockets listen")

    async def accept(self) -> tuple[Socket, Any]:
        """Not for datagrams.

        Raises:
            OSError: EOPNOTSUPP, always.
        """
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EOPNOTSUPP, "accept: only stream sockets accept")

    def shutdown(self, flag: int) -> None:
        """Stop one direction or both of a connected socket.

        Raises:
            OSError: ENOTCONN, EBADF, or EINVAL for an unknown *flag*.
        """
        self._check()
        if flag not in (kernel.SHUT_RD, kernel.SHUT_WR, kernel.SHUT_RDWR):
            raise OSError(errno.EINVAL, f"shutdown: {flag} is none of SHUT_RD, SHUT_WR, SHUT_RDWR")
        if self._endpoint.remote is None:
            raise OSError(errno.ENOTCONN, "shutdown: socket is not connected")
        if flag != kernel.SHUT_RD:
            self._endpoint.shutdown_write()
            self._did_shutdown_write = True
        if flag != kernel.SHUT_WR:
            self._endpoint.shutdown_read()
        self._driver.flush()

    # receiving

    def is_readable(self) -> bool:
        """True if a receive would return at once."""
        return self._endpoint.is_readable

    async def _receive(self, size: int, flags: int) -> Datagram | None:
        """The next datagram; None after ``shutdown(SHUT_RD)``."""
        self._check()
        self._size(size)
        if flags and flags != MSG_PEEK:
            raise OSError(errno.EOPNOTSUPP, f"recv: flags {flags:#x} are not supported")
        endpoint = self._endpoint
        take = endpoint.peek if flags else endpoint.receive
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while (datagram := take()) is None and not endpoint.is_at_end:
            await self._waiters.wait_readable()
            has_waited = True
            self._check_waiting()
        self._waiters.refresh()
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return datagram

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        """One datagram, cut to *buflen* octets.  Cancelling loses nothing.

        Raises:
            OSError: ECONNREFUSED (an earlier datagram of a connected socket), EBADF; EOPNOTSUPP
                for flags but MSG_PEEK.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: another task closed the socket meanwhile.
        """
        datagram = await self._receive(buflen, flags)
        return b"" if datagram is None else bytes(datagram.data[:buflen])

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As `recv`, with the sender's address."""
        data, _, _, address = await self.recvmsg(bufsize, 0, flags)
        return data, address

    async def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """As `recvfrom`, with what was asked for by IP_PKTINFO, IPV6_RECVTCLASS and the like.

        The flags have MSG_TRUNC if the datagram was cut, and MSG_CTRUNC if there was more to tell
        than fits *ancbufsize* octets.
        """
        datagram = await self._receive(bufsize, flags)
        if datagram is None:
            return b"", [], 0, None
        cut = int(kernel.MSG_TRUNC) if len(datagram.data) > bufsize else 0
        found = ancillary.messages(datagram, self._options, self._family, self._driver.stack.ip)
        told, missing = ancillary.fit(found, ancbufsize) if found else ([], 0)
        return bytes(datagram.data[:bufsize]), told, cut | missing, self._sockaddr(*datagram.source)

    # sending

    async def wait_writable(self) -> None:
        """Return when the wire takes datagrams."""
        self._check()
        await trio.lowlevel.checkpoint()
        await self._driver.wait_sendable()

    async def _send(
        self, data: Buffer, address: Any, flags: int, control: Control | None = None
    ) -> int:
        self._check()
        if flags and flags != MSG_NOSIGNAL:
            raise OSError(errno.EOPNOTSUPP, f"send: flags {flags:#x} are not supported")
        await trio.lowlevel.checkpoint()
        remote = None if address is None else self._resolve(address, local=False)
        while True:
            await self._driver.wait_sendable()
            self._check_waiting()
            try:
                sent = self._endpoint.send(data, remote, trio.current_time(), control)
            except BlockingIOError:
                await self._waiters.wait_writable()
            else:
                self._driver.flush()
                return sent

    async def send(self, data: Any, flags: int = 0, /) -> int:
        """Send one datagram to the connected peer; waits only while the wire is full.

        Raises:
            OSError: EDESTADDRREQ (not connected), else as `sendto`.
        """
        return await self._send(data, None, flags)

    async def sendto(self, *args: Any) -> int:
        """Send one datagram, ``(data, address)`` or ``(data, flags, address)``.

        Waits only while the wire is full; if this is cancelled, nothing was sent.

        Raises:
            OSError: EMSGSIZE, ENETUNREACH, EACCES (broadcast without SO_BROADCAST), ECONNREFUSED
                (an earlier datagram of a connected socket), EPIPE, EBADF.
        """
        if len(args) not in (2, 3):
            raise TypeError("sendto() takes (data, address) or (data, flags, address)")
        return await self._send(args[0], args[-1], args[1] if len(args) == 3 else 0)

    async def sendmsg(
        self,
        buffers: Iterable[Any],
        ancdata: Iterable[tuple[int, int, Any]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """As `send` or `sendto`, from several buffers.

        IP_PKTINFO and IPV6_PKTINFO choose the address that this datagram comes from, IP_TTL and
        IPV6_HOPLIMIT, IP_TOS and IPV6_TCLASS override the socket's options.

        Raises:
            OSError: EINVAL for other ancillary data or an address that is not ours, else as
                `sendto`.
        """
        control = ancillary.control(ancdata)
        return await self._send(b"".join(buffers), address, flags, control)
