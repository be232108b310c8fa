"""UDP sockets of unmodified programs: one message on the pair for each datagram, with a header."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

import trio

from zttrio.errors import RpcError
from zttrio.header.address import INTERFACE_INDEX, is_multicast, is_unspecified
from zttrio.stack.events import ERR, RD, WR

from . import rpc
from .connection import Connection
from .options import (
    IP_ADD_MEMBERSHIP,
    IP_DROP_MEMBERSHIP,
    IP_MULTICAST_IF,
    IP_PKTINFO,
    IP_RECVTTL,
    number,
)
from .sockaddr import AF_UNSPEC, for_program, for_stack

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from .connection import House

__all__ = ["DatagramConnection"]

ROUNDS = 64  # datagrams in each direction before other tasks get their turn; arbitrary
_MESSAGE = rpc.DATAGRAM_LENGTH + 65_536
_SOL_IP, _SOL_IPV6 = int(socket.IPPROTO_IP), int(socket.IPPROTO_IPV6)
_MREQ = struct.Struct("4s4s")
_MREQ6 = struct.Struct("=16sI")
_FLAGS = (
    (rpc.DATAGRAM_PKTINFO, (_SOL_IP, IP_PKTINFO), (_SOL_IPV6, socket.IPV6_RECVPKTINFO)),
    (rpc.DATAGRAM_TTL, (_SOL_IP, IP_RECVTTL), (_SOL_IPV6, socket.IPV6_RECVHOPLIMIT)),
    (rpc.DATAGRAM_TOS, (_SOL_IP, socket.IP_RECVTOS), (_SOL_IPV6, socket.IPV6_RECVTCLASS)),
)
_JOIN = {(_SOL_IP, IP_ADD_MEMBERSHIP), (_SOL_IPV6, int(socket.IPV6_JOIN_GROUP))}
_LEAVE = {(_SOL_IP, IP_DROP_MEMBERSHIP), (_SOL_IPV6, int(socket.IPV6_LEAVE_GROUP))}
_INTERFACE = {(_SOL_IP, IP_MULTICAST_IF), (_SOL_IPV6, int(socket.IPV6_MULTICAST_IF))}


class DatagramConnection(Connection):
    """A UDP socket of a program."""

    kind = rpc.KIND_DATAGRAM
    type = int(socket.SOCK_DGRAM)

    def __init__(
        self, house: House, service: socket.socket, cookie: int, domain: int, protocol: int
    ) -> None:
        super().__init__(house, service, cookie, domain, protocol)
        self._endpoint = house.driver.stack.udp.open()
        self._endpoint.owner = self
        self._endpoint.wanted = RD | ERR
        self._buffer = bytearray(0)
        self._unsent: tuple[bytes, tuple[bytes, int] | None] | None = None
        self._undelivered: list[Buffer] | None = None
        self._multicast_interface = bytes(4)
        self._last: tuple[tuple[bytes, int], bytes] | None = None

    # the task

    def pump(self, bits: int) -> None:
        """Move datagrams both ways."""
        del bits
        wanted = RD | ERR
        outcome = self._up()
        has_more = outcome == _MORE
        if outcome == _BLOCKED:
            wanted |= WR
        if self.is_gone:
            if outcome == _DONE:
                self.release()
                self.end()
                return
        else:
            outcome = self._down()
            has_more |= outcome == _MORE
            if outcome == _BLOCKED:
                wanted &= ~RD
            self.set_notify_writable(wanted=outcome == _BLOCKED)
        self._endpoint.wanted = wanted
        if has_more:
            self._wakeup.set()

    def _up(self) -> int:
        """From the program to the stack."""
        for _ in range(ROUNDS):
            if self._unsent is None:
                self._unsent = self._next_from_program()
                if self._unsent is None:
                    return _DONE
            data, remote = self._unsent
            self._report_error()
            try:
                self._endpoint.send(data, remote, trio.current_time())
            except BlockingIOError:
                return _BLOCKED  # the wire is full; it will tell
            except OSError as exc:
                # The program has been told what could be foreseen (see rpc.OP_POLICY).
                self.house.counters.datagrams_failed += 1
                if self._endpoint.remote is not None:
                    self._deliver_error(exc.errno or errno.EIO)
            self._unsent = None
        return _MORE

    def _next_from_program(self) -> tuple[bytes, tuple[bytes, int] | None] | None:
        if not self._buffer:
            self._buffer = bytearray(_MESSAGE)
        while True:
            try:
                length = self._service.recv_into(self._buffer)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # it closed its end with something unread; what it sent is still there
            if not length:
                return None
            view = memoryview(self._buffer)[:length]
            try:
                header = rpc.DatagramHeader.parse(view)
                remote = for_stack(header.peer, rpc.family_of(header.peer)) if header.peer else None
            except (RpcError, OSError):
                self.house.counters.datagrams_malformed += 1
                continue
            return bytes(view[rpc.DATAGRAM_LENGTH :]), remote

    def _down(self) -> int:
        """From the stack to the program."""
        endpoint = self._endpoint
        for _ in range(ROUNDS):
            if self._undelivered is None:
                self._report_error()
                datagram = endpoint.receive()
                if datagram is None:
                    return _DONE
                source = datagram.source
                if self._last is None or self._last[0] != source:
                    self._last = source, for_program(*source, self.domain)
                header = rpc.DatagramHeader(
                    self._last[1],
                    self._local_of(datagram.destination[0]),
                    self._wanted_flags(datagram.destination[0]),
                    datagram.hop_limit,
                    datagram.traffic_class,
                    INTERFACE_INDEX,
                )
                self._undelivered = [header.emit(), datagram.data]
            if not self._deliver(self._undelivered):
                return _BLOCKED
            self._undelivered = None
        return _MORE

    def _deliver(self, pieces: list[Buffer]) -> bool:
        try:
            self._service.sendmsg(pieces, (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            pass  # shutdown(SHUT_RD), or it is going away: nobody wants it
        return True

    def _report_error(self) -> None:
        error = self._endpoint.take_error()
        if error:
            self._deliver_error(error)

    def _deliver_error(self, error: int) -> None:
        """An error record, in the order of the datagrams; if there is no room, SO_ERROR has it."""
        header = rpc.DatagramHeader(flags=rpc.DATAGRAM_ERROR, time_ns=error)
        if not self._deliver([header.emit()]):
            self.error = error

    def _local_of(self, address: bytes) -> bytes:
        return address if self.domain == rpc.AF_INET else for_program(address, 0, self.domain)[8:24]

    def _wanted_flags(self, destination: bytes) -> int:
        flags = 0
        column = 1 if self.domain == rpc.AF_INET else 2
        for row in _FLAGS:
            if self.options.is_on(*row[column]):  # type: ignore[misc]
                flags |= row[0]
        if is_multicast(destination):
            flags |= rpc.DATAGRAM_MULTICAST
        return flags

    def release(self) -> None:
        """Give the port back."""
        self._endpoint.close()

    # addresses

    async def bind(self, address: bytes) -> None:
        """Take an address and port."""
        ip, port = for_stack(address, self.domain, is_bind=True)
        if not is_multicast(ip):
            await self.house.wait_for_address(ip)
        if self.is_over or self._endpoint.binding is not None:
            raise OSError(errno.EINVAL, "bind: the socket has an address")
        is_dual = self.domain == rpc.AF_INET6 and not self.options.is_v6_only
        self._endpoint.bind(
            None if is_dual and is_unspecified(ip) else ip,
            port,
            reuse_address=self.options.reuse_address,
            reuse_port=self.options.reuse_port,
        )
        self.state = rpc.STATE_BOUND

    def connect(self, address: bytes) -> None:
        """Choose the peer, or with AF_UNSPEC none.

        Raises:
            OSError: as connect() on Linux.
        """
        remote = None
        if rpc.family_of(address) != AF_UNSPEC:
            remote = for_stack(address, self.domain)
            if len(remote[0]) == 4 and self.domain == rpc.AF_INET6 and self.options.is_v6_only:
                raise OSError(errno.ENETUNREACH, "connect: IPV6_V6ONLY is set")
        self._settle()
        self._endpoint.connect(remote, trio.current_time())
        if remote is not None:
            self.state = rpc.STATE_CONNECTED
        else:
            self.state = rpc.STATE_NEW if self._endpoint.binding is None else rpc.STATE_BOUND

    def _settle(self) -> None:
        """What the program sent before it changes something goes out under the old settings."""
        if not self.is_over:
            self.pump(0)
            self.house.driver.flush()

    def check_destination(self, address: bytes) -> None:
        """Say now what would be wrong with sending to *address*, since later is too late.

        Raises:
            OSError: ENETUNREACH, EACCES (broadcast), EINVAL.
        """
        ip, _ = for_stack(address, rpc.family_of(address))
        ip_layer = self.house.driver.stack.ip
        if ip_layer.is_broadcast(ip) and not self.options.is_on(
            socket.SOL_SOCKET, socket.SO_BROADCAST
        ):
            raise OSError(errno.EACCES, "sendto: a broadcast address; SO_BROADCAST allows it")
        if not is_unspecified(ip):
            ip_layer.select_source(ip)

    def local_name(self) -> bytes:
        """What getsockname() gives."""
        return for_program(*self._endpoint.local, self.domain)

    def peer_name(self) -> bytes:
        """What getpeername() gives."""
        if self._endpoint.remote is None:
            raise OSError(errno.ENOTCONN, "getpeername: the socket is not connected")
        return for_program(*self._endpoint.remote, self.domain)

    def shutdown(self, how: int) -> int:
        """As inet_shutdown(): the kernel ends the pair's directions, the stack ours."""
        if self._endpoint.remote is None:
            raise OSError(errno.ENOTCONN, "shutdown: the socket is not connected")
        self._settle()
        if how != socket.SHUT_RD:
            self._endpoint.shutdown_write()
        if how != socket.SHUT_WR:
            self._endpoint.shutdown_read()
        return rpc.ANSWER_NATIVE

    # options

    def get_option(self, level: int, option: int, room: int) -> bytes:
        """Answer from the endpoint where it knows better than the table."""
        key = (level, option)
        if level == socket.SOL_SOCKET:
            if option == socket.SO_ACCEPTCONN:
                return number(0, level, room)
            if option == socket.SO_ERROR:
                return number(self.take_error() or self._endpoint.take_error(), level, room)
        if key in _INTERFACE:
            return self._multicast_interface[:room]
        if key in ((_SOL_IP, 14), (_SOL_IPV6, 24)):  # ..._MTU
            if self._endpoint.remote is None:
                raise OSError(errno.ENOTCONN, "path MTU: the socket is not connected")
            path_mtu = self.house.driver.stack.ip.path_mtu(self._endpoint.remote[0])
            return number(path_mtu, level, room)
        return self.options.get(level, option, room)

    def set_option(self, level: int, option: int, value: bytes) -> None:
        """Remember an option and let it act."""
        key = (level, option)
        if key in _JOIN or key in _LEAVE:
            self._change_membership(level, value, join=key in _JOIN)
            return
        if key in _INTERFACE:
            # One interface is all there is: any address or number means it.
            self._multicast_interface = value[:4].ljust(4, b"\0")
            return
        if key == (_SOL_IPV6, socket.IPV6_V6ONLY) and self._endpoint.binding is not None:
            raise OSError(errno.EINVAL, "IPV6_V6ONLY: the socket has an address")
        self._settle()
        self.options.set(level, option, value)
        for name, setting in self.options.changes().items():
            setattr(self._endpoint, name, setting)

    def _change_membership(self, level: int, value: bytes, *, join: bool) -> None:
        layout = _MREQ if level == _SOL_IP else _MREQ6
        if len(value) < layout.size:
            raise OSError(errno.EINVAL, f"membership: {len(value)} octets are too few")
        group = layout.unpack_from(value)[0]
        if not is_multicast(group):
            raise OSError(errno.EINVAL, "membership: not a multicast address")
        if join:
            self._endpoint.join_group(group)
        else:
            self._endpoint.leave_group(group)
        self.house.driver.flush()

    def unsent(self) -> int:
        """Datagrams do not wait here."""
        return 0


_DONE, _MORE, _BLOCKED = range(3)
