"""What travels on the stand-ins themselves: accept records and datagram headers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import RpcError

from .numbers import (
    ACCEPT_MAGIC,
    ACCEPT_VERSION,
)
from .sockaddr import SOCKADDR_ROOM

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["DATAGRAM_LENGTH", "RECORD_LENGTH", "AcceptRecord", "DatagramHeader"]

RECORD = struct.Struct("=IHHQHHI28s28s")
RECORD_LENGTH = RECORD.size
DATAGRAM = struct.Struct("=HH28sHBB16sIQ")
DATAGRAM_LENGTH = DATAGRAM.size


@attrs.define
class AcceptRecord:
    """What announces an accepted connection on a listening stand-in, beside its descriptor.

    Attributes:
        cookie: SO_COOKIE of the descriptor.
        peer: the remote socket address, as `Sockaddr.emit` makes it.
        local: ours, likewise.
        flags: RECORD_* bits.
    """

    cookie: int
    peer: bytes
    local: bytes
    flags: int = 0

    @classmethod
    def parse(cls, data: Buffer) -> AcceptRecord:
        """Read one record.

        Raises:
            RpcError: not a record of this version.
        """
        if len(data) != RECORD_LENGTH:
            raise RpcError(f"accept record: has {RECORD_LENGTH} octets, got {len(data)}")
        magic, version, flags, cookie, peer_length, local_length, _, peer, local = (
            RECORD.unpack_from(data)
        )
        if magic != ACCEPT_MAGIC or version != ACCEPT_VERSION:
            raise RpcError(f"accept record: magic {magic:#x}, version {version}")
        if peer_length > SOCKADDR_ROOM or local_length > SOCKADDR_ROOM:
            raise RpcError(f"accept record: addresses of {peer_length} and {local_length} octets")
        return cls(cookie, peer[:peer_length], local[:local_length], flags)

    def emit(self) -> bytes:
        """The 80 octets."""
        return RECORD.pack(
            ACCEPT_MAGIC,
            ACCEPT_VERSION,
            self.flags,
            self.cookie,
            len(self.peer),
            len(self.local),
            0,
            self.peer,
            self.local,
        )


@attrs.define
class DatagramHeader:
    """The 64 octets in front of every message on a datagram stand-in.

    Towards the service `peer` is the destination (empty: the connected peer), towards the program
    the source.

    Attributes:
        peer: a socket address as `Sockaddr.emit` makes it, or empty.
        local: our packed address (``ipi_addr``), or empty.
        flags: DATAGRAM_* bits.
        ttl: TTL or hop limit; towards the service 0 stands for the socket's own.
        tos: traffic class.
        ifindex: of the interface, 0 if it does not matter.
        time_ns: when it came, in nanoseconds since 1970; in an error record the errno.
    """

    peer: bytes = b""
    local: bytes = b""
    flags: int = 0
    ttl: int = 0
    tos: int = 0
    ifindex: int = 0
    time_ns: int = 0

    @classmethod
    def parse(cls, data: Buffer) -> DatagramHeader:
        """Read the header in front of a message.

        Raises:
            RpcError: the octets cannot be one.
        """
        if len(data) < DATAGRAM_LENGTH:
            raise RpcError(f"datagram header: needs {DATAGRAM_LENGTH} octets, got {len(data)}")
        flags, peer_length, peer, local_length, ttl, tos, local, ifindex, time_ns = (
            DATAGRAM.unpack_from(data)
        )
        if peer_length > SOCKADDR_ROOM or local_length > len(local):
            raise RpcError(f"datagram header: addresses of {peer_length} and {local_length} octets")
        return cls(peer[:peer_length], local[:local_length], flags, ttl, tos, ifindex, time_ns)

    def emit(self) -> bytes:
        """The 64 octets."""
        return DATAGRAM.pack(
            self.flags,
            len(self.peer),
            self.peer,
            len(self.local),
            self.ttl,
            self.tos,
            self.local,
            self.ifindex,
            self.time_ns,
        )
