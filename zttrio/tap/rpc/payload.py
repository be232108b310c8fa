"""Payloads of requests and answers, where they have a layout."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import RpcError

from .sockaddr import SOCKADDR_ROOM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.header.frame import Buffer

__all__ = [
    "HelloAnswer",
    "HelloRequest",
    "InterfaceRow",
    "QueryRow",
    "ResolveAnswer",
    "ResolveRow",
    "emit_texts",
    "pack_options",
    "parse_options",
    "parse_texts",
]

HELLO_REQUEST = struct.Struct("=ii")
HELLO_ANSWER = struct.Struct("=Qii24s32s32s")
HELLO_ANSWER_LENGTH = HELLO_ANSWER.size
RESOLVE_HEAD = struct.Struct("=II")
RESOLVE_ROW = struct.Struct("=HHHH28s")
RESOLVE_ROW_LENGTH = RESOLVE_ROW.size
INTERFACE_ROW = struct.Struct("=16sIII6sH28s28s28s")
INTERFACE_ROW_LENGTH = INTERFACE_ROW.size
QUERY_ROW = struct.Struct("=BBHHH")
QUERY_ROW_LENGTH = QUERY_ROW.size
OPTION = struct.Struct("=iiI")
OPTION_LENGTH = OPTION.size


@attrs.define
class HelloRequest:
    """Who opened the channel.

    Attributes:
        pid: of the process, in its own namespace.
        ppid: of its parent.
        executable: path of its program.
        name: its ``argv[0]``.
    """

    pid: int
    ppid: int
    executable: str
    name: str

    @classmethod
    def parse(cls, payload: Buffer) -> HelloRequest:
        """Read the payload of a HELLO.

        Raises:
            RpcError: it is too short, or the two texts are missing.
        """
        if len(payload) < HELLO_REQUEST.size:
            raise RpcError(f"hello: {len(payload)} octets are too few")
        pid, ppid = HELLO_REQUEST.unpack_from(payload)
        executable, name = parse_texts(bytes(payload[HELLO_REQUEST.size :]), 2)
        return cls(pid, ppid, executable, name)

    def emit(self) -> bytes:
        """The payload."""
        return HELLO_REQUEST.pack(self.pid, self.ppid) + emit_texts(self.executable, self.name)


@attrs.define
class HelloAnswer:
    """What a program has to know about the service.

    Attributes:
        features: FEATURE_* bits.
        pid: the service's own process, as it sees itself.
        version: of zttrio, at most 24 octets.
        network: what the network is called, at most 32 octets.
        policy: a digest that changes when the policy does, 32 octets.
    """

    features: int
    pid: int
    version: str
    network: str
    policy: bytes

    @classmethod
    def parse(cls, payload: Buffer) -> HelloAnswer:
        """Read the payload of the answer to a HELLO.

        Raises:
            RpcError: it has the wrong length.
        """
        if len(payload) != HELLO_ANSWER_LENGTH:
            raise RpcError(f"hello answer: has {HELLO_ANSWER_LENGTH} octets, got {len(payload)}")
        features, pid, _, version, network, policy = HELLO_ANSWER.unpack_from(payload)
        return cls(features, pid, _text(version), _text(network), policy)

    def emit(self) -> bytes:
        """The payload."""
        return HELLO_ANSWER.pack(
            self.features,
            self.pid,
            0,
            self.version.encode()[:24],
            self.network.encode()[:32],
            self.policy,
        )


@attrs.define
class ResolveRow:
    """One line of a getaddrinfo result.

    Attributes:
        family: AF_INET or AF_INET6.
        type: SOCK_STREAM and so on.
        protocol: IPPROTO_*.
        address: as `Sockaddr.emit` makes it.
    """

    family: int
    type: int
    protocol: int
    address: bytes


@attrs.define
class ResolveAnswer:
    """The payload of a positive answer to RESOLVE.

    Attributes:
        rows: best first.
        canonical: the canonical name, empty unless it was asked for.
    """

    rows: Sequence[ResolveRow]
    canonical: str = ""

    @classmethod
    def parse(cls, payload: Buffer) -> ResolveAnswer:
        """Read the payload.

        Raises:
            RpcError: the counts do not fit its length.
        """
        if len(payload) < RESOLVE_HEAD.size:
            raise RpcError(f"resolve answer: {len(payload)} octets are too few")
        count, canonical_length = RESOLVE_HEAD.unpack_from(payload)
        names_at = RESOLVE_HEAD.size + count * RESOLVE_ROW_LENGTH
        if names_at + canonical_length != len(payload):
            raise RpcError(
                f"resolve answer: {count} rows and a name of {canonical_length} octets"
                f" do not fit {len(payload)}"
            )
        rows = []
        for at in range(RESOLVE_HEAD.size, names_at, RESOLVE_ROW_LENGTH):
            family, kind, protocol, length, address = RESOLVE_ROW.unpack_from(payload, at)
            if length > SOCKADDR_ROOM:
                raise RpcError(f"resolve answer: an address of {length} octets")
            rows.append(ResolveRow(family, kind, protocol, address[:length]))
        return cls(rows, _decode(bytes(payload[names_at:])))

    def emit(self) -> bytes:
        """The payload."""
        canonical = _encode(self.canonical)
        pieces = [RESOLVE_HEAD.pack(len(self.rows), len(canonical))]
        pieces += [
            RESOLVE_ROW.pack(row.family, row.type, row.protocol, len(row.address), row.address)
            for row in self.rows
        ]
        return b"".join([*pieces, canonical])


@attrs.define
class InterfaceRow:
    """One address of a virtual interface; without an address it stands for the hardware.

    Attributes:
        name: at most 15 octets.
        index: from 1.
        flags: IFF_*.
        mtu: octets.
        mac: six octets.
        address: as `Sockaddr.emit` makes it, or empty.
        netmask: likewise.
        broadcast: likewise.
    """

    name: str
    index: int
    flags: int
    mtu: int
    mac: bytes
    address: bytes = b""
    netmask: bytes = b""
    broadcast: bytes = b""

    @classmethod
    def parse(cls, data: Buffer) -> InterfaceRow:
        """Read one row.

        Raises:
            RpcError: it has the wrong length.
        """
        if len(data) != INTERFACE_ROW_LENGTH:
            raise RpcError(f"interface: has {INTERFACE_ROW_LENGTH} octets, got {len(data)}")
        name, index, flags, mtu, mac, length, address, netmask, broadcast = (
            INTERFACE_ROW.unpack_from(data)
        )
        if length > SOCKADDR_ROOM:
            raise RpcError(f"interface: an address of {length} octets")
        return cls(
            _text(name),
            index,
            flags,
            mtu,
            mac,
            address[:length],
            netmask[:length],
            broadcast[:length],
        )

    def emit(self) -> bytes:
        """The 120 octets."""
        return INTERFACE_ROW.pack(
            self.name.encode()[:15],
            self.index,
            self.flags,
            self.mtu,
            self.mac,
            len(self.address),
            self.address,
            self.netmask,
            self.broadcast,
        )


@attrs.define
class QueryRow:
    """What the service says about one cookie.

    Attributes:
        kind: KIND_NONE if the service does not know it.
        state: STATE_*.
        domain: AF_INET or AF_INET6.
        protocol: IPPROTO_*.
    """

    kind: int
    state: int = 0
    domain: int = 0
    protocol: int = 0

    @classmethod
    def parse(cls, data: Buffer) -> QueryRow:
        """Read one row.

        Raises:
            RpcError: it has the wrong length.
        """
        if len(data) != QUERY_ROW_LENGTH:
            raise RpcError(f"query: a row has {QUERY_ROW_LENGTH} octets, got {len(data)}")
        kind, state, domain, protocol, _ = QUERY_ROW.unpack_from(data)
        return cls(kind, state, domain, protocol)

    def emit(self) -> bytes:
        """The 8 octets."""
        return QUERY_ROW.pack(self.kind, self.state, self.domain, self.protocol, 0)


def pack_options(options: Sequence[tuple[int, int, bytes]]) -> bytes:
    """``(level, option, value)`` settings to be repeated on a kernel socket (ANSWER_HOST)."""
    return b"".join(
        OPTION.pack(level, option, len(value)) + value for level, option, value in options
    )


def parse_options(payload: Buffer) -> list[tuple[int, int, bytes]]:
    """The settings that `pack_options` wrote.

    Raises:
        RpcError: a length does not fit.
    """
    options = []
    at = 0
    while at < len(payload):
        if len(payload) - at < OPTION_LENGTH:
            raise RpcError(f"options: {len(payload) - at} octets are too few")
        level, option, length = OPTION.unpack_from(payload, at)
        at += OPTION_LENGTH
        if length > len(payload) - at:
            raise RpcError(f"options: a value of {length} octets does not fit")
        options.append((level, option, bytes(payload[at : at + length])))
        at += length
    return options


def parse_texts(data: bytes, count: int) -> list[str]:
    """*count* texts, each with a NUL behind it.

    Raises:
        RpcError: there are more or fewer.
    """
    pieces = data.split(b"\0")
    if len(pieces) != count + 1 or pieces[-1]:
        raise RpcError(f"texts: {count} texts with a NUL behind each were expected")
    return [_decode(piece) for piece in pieces[:-1]]


def emit_texts(*texts: str) -> bytes:
    """The texts, each with a NUL behind it."""
    return b"".join(_encode(text) + b"\0" for text in texts)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")


def _decode(data: bytes) -> str:
    # Names and paths are octets to the kernel: what is not UTF-8 has to survive the way back.
    return data.decode(errors="surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
