"""UDP sockets for a node: whole bursts per system call where the kernel offers it (udp(7)).

Receiving uses UDP_GRO and sending UDP_SEGMENT when they are there, and single datagrams when they
are not; either is tried, never assumed.
"""

from __future__ import annotations

import errno
import secrets
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio.errors import WireError
from zttrio.header.address import ip_text
from zttrio.wire.shortcuts import OFFLOAD
from zttrio.zerotier.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.zerotier.sender import Datagram

__all__ = ["SocketCounters", "UdpSocket", "open_udp_sockets"]

_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT = 0
_READS = 32  # system calls per wake-up; other tasks want to run too
_LARGEST = 65_536
_SEGMENTS = 44  # datagrams of 1432 octets that fit one call, below UDP_MAX_SEGMENTS
_BURST = 63_000  # octets of them, below the 65 507 of one UDP datagram
_BACKLOG = 1024  # datagrams kept while the kernel takes none; arbitrary
_BUFFER = 4 << 20  # octets asked for; the kernel gives what rmem_max and wmem_max allow
_CACHE = 4096  # addresses kept in both forms; arbitrary
_RANDOM_PORTS = (20_000, 65_500)  # (17.1)
_ATTEMPTS = 50
# Not errors of the socket: this datagram cannot go there now.
_UNREACHABLE = frozenset(
    (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.ECONNREFUSED,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
        errno.EMSGSIZE,
        errno.EAFNOSUPPORT,
    )
)
_NO_OFFLOAD = frozenset((errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP))


@attrs.define
class SocketCounters:
    """What the sockets of a node have counted."""

    receive_calls: int = 0
    send_calls: int = 0
    send_bursts: int = 0
    send_unreachable: int = 0
    send_blocked: int = 0
    backlog_dropped: int = 0


class UdpSocket:
    """One bound socket.

    Args:
        sock: bound and non-blocking; this object closes it.
        counters: shared by the sockets of a node.

    Attributes:
        length: of the addresses of its family, 4 or 16.
        port: what it is bound to.
        ip: packed, all zero if it is bound to every address.
    """

    def __init__(self, sock: socket.socket, counters: SocketCounters) -> None:
        self._sock = sock
        self._counters = counters
        self.length = 4 if sock.family == socket.AF_INET else 16
        name = sock.getsockname()
        self.port: int = name[1]
        self.ip = socket.inet_pton(sock.family, name[0])
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)
        self._endpoints: dict[tuple[str, int], Endpoint] = {}
        self._names: dict[Endpoint, tuple[str, int]] = {}
        self._may_burst = OFFLOAD
        self._backlog: deque[Datagram] = deque()
        self._tune()

    async def wait_readable(self) -> None:
        """Return when there may be something to receive.  Cancelling it loses nothing."""
        await trio.lowlevel.wait_readable(self._sock)

    async def wait_writable(self) -> None:
        """Return when the kernel takes datagrams again.  Cancelling it loses nothing."""
        await trio.lowlevel.wait_writable(self._sock)

    def receive(self) -> list[tuple[Endpoint, bytes]]:
        """The datagrams that have arrived, up to 32 system calls' worth.

        Raises:
            WireError: the socket has died.
        """
        found: list[tuple[Endpoint, bytes]] = []
        buffer = self._buffer
        for _ in range(_READS):
            try:
                size, ancillary, _, name = self._sock.recvmsg_into([buffer], 64)
            except BlockingIOError:
                break
            except ConnectionError:
                continue  # an ICMP error about something we sent
            except OSError as exc:
                raise WireError(f"UDP port {self.port}: {exc.strerror}") from exc
            self._counters.receive_calls += 1
            remote = self._endpoints.get(name[:2]) or self._remember(name[:2])
            part = size
            for level, kind, data in ancillary:
                if level == _SOL_UDP and kind == _UDP_GRO:
                    (part,) = struct.unpack("=i", data[:4])
            if part >= size:
                found.append((remote, bytes(self._view[:size])))
            else:
                found += [
                    (remote, bytes(self._view[at : min(at + part, size)]))
                    for at in range(0, size, part)
                ]
        return found

    def send(self, datagrams: Sequence[Datagram]) -> None:
        """Send datagrams in order; those the kernel does not take wait for `send_backlog`.

        Raises:
            WireError: the socket has died.
        """
        if self._backlog:
            self._keep(datagrams)
            return
        at = 0
        while at < len(datagrams):
            count = self._run(datagrams, at)
            try:
                at += self._send(datagrams, at, count)
            except BlockingIOError:
                self._counters.send_blocked += 1
                self._keep(datagrams[at:])
                return

    @property
    def has_backlog(self) -> bool:
        """True while datagrams wait for the kernel."""
        return bool(self._backlog)

    def send_backlog(self) -> None:
        """Try again to send what waited.

        Raises:
            WireError: the socket has died.
        """
        waiting = list(self._backlog)
        self._backlog.clear()
        self.send(waiting)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _run(self, datagrams: Sequence[Datagram], at: int) -> int:
        """How many datagrams from *at* on go in one call: equal ones, the last may be shorter."""
        first = datagrams[at]
        if not self._may_burst or first.ttl:
            return 1
        size = total = len(first.data)
        end = at + 1
        while end < len(datagrams) and end - at < _SEGMENTS:
            following = datagrams[end]
            length = len(following.data)
            total += length
            if following.remote != first.remote or following.ttl or length > size or total > _BURST:
                break
            end += 1
            if length < size:
                break
        return end - at

    def _send(self, datagrams: Sequence[Datagram], at: int, count: int) -> int:
        """Send *count* datagrams in one call, or one if that fails; returns how many are done."""
        first = datagrams[at]
        name = self._names.get(first.remote) or self._name(first.remote)
        self._counters.send_calls += 1
        try:
            if count > 1:
                size = struct.pack("=H", len(first.data))
                pieces = [datagram.data for datagram in datagrams[at : at + count]]
                self._sock.sendmsg(pieces, [(_SOL_UDP, _UDP_SEGMENT, size)], 0, name)
                self._counters.send_bursts += 1
            elif first.ttl:
                self._sock.sendmsg([first.data], [self._hop_limit(first.ttl)], 0, name)
            else:
                self._sock.sendto(first.data, name)
        except BlockingIOError:
            raise
        except OSError as exc:
            if count > 1:
                if exc.errno in _NO_OFFLOAD:
                    self._may_burst = False
                return self._send(datagrams, at, 1)
            if exc.errno == errno.ENOBUFS:
                raise BlockingIOError(exc.errno, exc.strerror) from exc
            if exc.errno not in _UNREACHABLE:
                raise WireError(f"UDP port {self.port}: {exc.strerror}") from exc
            self._counters.send_unreachable += 1
        return count

    def _keep(self, datagrams: Sequence[Datagram]) -> None:
        for datagram in datagrams:
            if len(self._backlog) >= _BACKLOG:
                self._backlog.popleft()
                self._counters.backlog_dropped += 1
            self._backlog.append(datagram)

    def _hop_limit(self, ttl: int) -> tuple[int, int, bytes]:
        value = struct.pack("=i", ttl)
        if self.length == 4:
            return (socket.IPPROTO_IP, socket.IP_TTL, value)
        return (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, value)

    def _remember(self, name: tuple[str, int]) -> Endpoint:
        host, _, _ = name[0].partition("%")
        endpoint = Endpoint(socket.inet_pton(self._sock.family, host), name[1])
        if len(self._endpoints) >= _CACHE:
            self._endpoints.clear()
        self._endpoints[name] = endpoint
        return endpoint

    def _name(self, endpoint: Endpoint) -> tuple[str, int]:
        if len(self._names) >= _CACHE:
            self._names.clear()
        name = self._names[endpoint] = (ip_text(endpoint.ip), endpoint.port)
        return name

    def _tune(self) -> None:
        sock = self._sock
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        # The path MTU is not ours to discover: better IP fragments than silence (17.2).
        if self.length == 4:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
        if not OFFLOAD:
            return
        try:
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError as exc:  # before Linux 5.0: one datagram per call then
            if exc.errno not in (errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP):
                raise


def open_udp_sockets(
    addresses: Sequence[bytes], port: int, counters: SocketCounters
) -> list[UdpSocket]:
    """Bind the sockets of a node, all to the same port.

    Args:
        addresses: packed addresses to bind; empty for all of both families (IPv6 only if this
            machine has it).
        port: 0 for a random one.
        counters: shared by all of them.

    Raises:
        WireError: the port is taken, or an address is not ours.
    """
    if port:
        return _bind_all(addresses, port, counters)
    low, high = _RANDOM_PORTS
    for attempt in range(_ATTEMPTS):
        try:
            return _bind_all(addresses, low + secrets.randbelow(high - low), counters)
        except WireError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("not reached")


def _bind_all(addresses: Sequence[bytes], port: int, counters: SocketCounters) -> list[UdpSocket]:
    opened: list[UdpSocket] = []
    try:
        for ip in addresses or (bytes(4), bytes(16)):
            try:
                opened.append(UdpSocket(_bind(ip, port), counters))
            except OSError as exc:
                no_ipv6 = exc.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                if no_ipv6 and not addresses and len(ip) == 16:
                    continue
                text = f"UDP {ip_text(ip)} port {port}: {exc.strerror}"
                raise WireError(text) from exc
    except BaseException:
        for udp in opened:
            udp.close()
        raise
    return opened


def _bind(ip: bytes, port: int) -> socket.socket:
    family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((ip_text(ip), port))
    except BaseException:
        sock.close()
        raise
    return sock
