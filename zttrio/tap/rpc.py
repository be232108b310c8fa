"""Messages between intercept and tap service: bytes <-> messages, no state.

The same layouts and numbers stand in ``native/rpc.h``; a test compares the two.  One request is one
message of a SOCK_SEQPACKET channel and so is one answer.  Byte order is the machine's own, since
both ends are on one machine, and so are errno values, socket options and socket addresses.

The seed's words: its ``RPC_SOCKET``, ``RPC_CONNECT``, ``RPC_BIND`` and so on are the `OP_*` numbers
here, its ``RPC_RETVAL`` is the header of an `Answer`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import RpcError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.header.frame import Buffer

__all__ = [
    "AcceptRecord",
    "Answer",
    "DatagramHeader",
    "HelloAnswer",
    "HelloRequest",
    "InterfaceRow",
    "QueryRow",
    "Request",
    "ResolveAnswer",
    "ResolveRow",
    "Sockaddr",
    "pack_options",
    "parse_options",
]

MAGIC = 0x5A545831  # 'ZTX1'
MAJOR = 1
ABI = 1  # of the preload library, told in HELLO
ACCEPT_MAGIC = 0x5A545841  # 'ZTXA'
ACCEPT_VERSION = 1

OP_HELLO = 1
OP_SOCKET = 2
OP_BIND = 3
OP_CONNECT = 4
OP_LISTEN = 5
OP_GETSOCKNAME = 6
OP_GETPEERNAME = 7
OP_GETSOCKOPT = 8
OP_SETSOCKOPT = 9
OP_SHUTDOWN = 10
OP_RESOLVE = 11
OP_NAMEINFO = 12
OP_IFADDRS = 13
OP_IOCTL = 14
OP_REVIVE = 15
OP_QUERY = 16
OP_POLICY = 17
OP_CANCEL = 18
OP_NOTE = 19
ANSWER_BIT = 0x80

REQUEST_NONBLOCK = 1  # CONNECT: the descriptor has O_NONBLOCK
REQUEST_NOREPLY = 2  # SETSOCKOPT: a hint, no answer wanted
REQUEST_NO_NODE = 4  # RESOLVE: the node argument was NULL
REQUEST_NO_SERVICE = 8  # RESOLVE: the service argument was NULL

ANSWER_HOST = 1  # the destination is the host's: replace the stand-in, payload holds the options
ANSWER_REVIVE = 2  # CONNECT: ask for a new stand-in with REVIVE and connect again
ANSWER_NATIVE = 4  # SHUTDOWN: the pair itself can express it, call the kernel

FEATURE_STRICT = 1  # what the service cannot carry must fail instead of reaching the host
FEATURE_HOST = 2  # the policy gives some destinations to the host
FEATURE_OOB = 4  # urgent data works on the pair

PAYLOAD_LIMIT = 4096
RESOLVE_LIMIT = 65536  # payload of a RESOLVE answer

KIND_NONE = 0
KIND_STREAM = 1
KIND_DATAGRAM = 2

STATE_NEW = 0
STATE_BOUND = 1
STATE_CONNECTING = 2
STATE_CONNECTED = 3
STATE_LISTENING = 4
STATE_DEAD = 5

POLICY_VIRTUAL = 0
POLICY_HOST = 1
POLICY_DENY = 2

RECORD_MARKER = 1  # accept record: one octet waits in the new socket and has to be read off first

DATAGRAM_ERROR = 1  # an error record: no payload, the low half of time_ns is an errno
DATAGRAM_PKTINFO = 2  # the program has asked for IP_PKTINFO or IPV6_RECVPKTINFO
DATAGRAM_TTL = 4  # ... IP_RECVTTL or IPV6_RECVHOPLIMIT
DATAGRAM_TOS = 8  # ... IP_RECVTOS or IPV6_RECVTCLASS
DATAGRAM_TIMESTAMP = 16  # ... SO_TIMESTAMP
DATAGRAM_TIMESTAMPNS = 32  # ... SO_TIMESTAMPNS
DATAGRAM_MULTICAST = 64  # the destination is a multicast or broadcast address

AF_INET = 2
AF_INET6 = 10

_HEADER = struct.Struct("=IBBHIIQii")
HEADER_LENGTH = _HEADER.size
_RECORD = struct.Struct("=IHHQHHI28s28s")
RECORD_LENGTH = _RECORD.size
_DATAGRAM = struct.Struct("=HH28sHBB16sIQ")
DATAGRAM_LENGTH = _DATAGRAM.size
_HELLO_REQUEST = struct.Struct("=ii")
_HELLO_ANSWER = struct.Struct("=Qii24s32s32s")
HELLO_ANSWER_LENGTH = _HELLO_ANSWER.size
_RESOLVE_HEAD = struct.Struct("=II")
_RESOLVE_ROW = struct.Struct("=HHHH28s")
RESOLVE_ROW_LENGTH = _RESOLVE_ROW.size
_INTERFACE_ROW = struct.Struct("=16sIII6sH28s28s28s")
INTERFACE_ROW_LENGTH = _INTERFACE_ROW.size
_QUERY_ROW = struct.Struct("=BBHHH")
QUERY_ROW_LENGTH = _QUERY_ROW.size
_OPTION = struct.Struct("=iiI")
OPTION_LENGTH = _OPTION.size
_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2sI16sI")
SOCKADDR_IN_LENGTH = _SOCKADDR_IN.size
SOCKADDR_IN6_LENGTH = _SOCKADDR_IN6.size
SOCKADDR_ROOM = 28
_NATIVE = struct.Struct("=I")
_NETWORK = struct.Struct("!I")


@attrs.define
class Sockaddr:
    """A socket address as the kernel's structures hold it.

    Attributes:
        address: packed, 4 octets (``sockaddr_in``) or 16 (``sockaddr_in6``).
        port: in host order.
        flow_info: ``sin6_flowinfo`` as a number in host order.
        scope: ``sin6_scope_id``.
    """

    address: bytes
    port: int
    flow_info: int = 0
    scope: int = 0

    @classmethod
    def parse(cls, data: Buffer) -> Sockaddr:
        """Read a ``sockaddr_in`` or ``sockaddr_in6``; octets behind it are ignored, as Linux does.

        Raises:
            RpcError: too short, or of another family.
        """
        if len(data) >= SOCKADDR_IN_LENGTH:
            family, port, address = _SOCKADDR_IN.unpack_from(data)
            if family == AF_INET:
                return cls(address, int.from_bytes(port, "big"))
            if family == AF_INET6 and len(data) >= SOCKADDR_IN6_LENGTH:
                _, port, flow_info, address, scope = _SOCKADDR_IN6.unpack_from(data)
                return cls(address, int.from_bytes(port, "big"), _swap(flow_info), scope)
        raise RpcError(f"socket address: {len(data)} octets are no AF_INET or AF_INET6 address")

    def emit(self) -> bytes:
        """The structure the kernel would fill in, 16 or 28 octets."""
        port = self.port.to_bytes(2, "big")
        if len(self.address) == 4:
            return _SOCKADDR_IN.pack(AF_INET, port, self.address)
        return _SOCKADDR_IN6.pack(AF_INET6, port, _swap(self.flow_info), self.address, self.scope)


def _swap(number: int) -> int:
    """``htonl`` between a structure read in native order and its network-order field."""
    return int(_NATIVE.unpack(_NETWORK.pack(number))[0])


def family_of(data: Buffer) -> int:
    """The address family in front of a socket address, or 0 if there is none."""
    return int(struct.unpack_from("=H", data)[0]) if len(data) >= 2 else 0


@attrs.define
class Request:
    """What a program's thread asks for.

    Attributes:
        op: one of OP_*; numbers without a name are parsed too, for ENOSYS is the service's answer.
        flags: REQUEST_* bits.
        seq: chosen by the intercept; the answer repeats it.
        sock: the SO_COOKIE of the program's end of a stand-in, 0 where there is none.
        a: meaning depends on `op`.
        b: meaning depends on `op`.
        payload: meaning depends on `op`.
    """

    op: int
    flags: int = 0
    seq: int = 0
    sock: int = 0
    a: int = 0
    b: int = 0
    payload: bytes = b""

    @classmethod
    def parse(cls, message: Buffer) -> Request:
        """Read one request.

        Raises:
            RpcError: not a request of this protocol; `version_of` says if it is another version.
        """
        op, flags, seq, sock, a, b, payload = _parse(message, PAYLOAD_LIMIT)
        if op & ANSWER_BIT:
            raise RpcError(f"request: op {op:#x} is an answer's")
        return cls(op, flags, seq, sock, a, b, payload)

    def emit(self) -> bytes:
        """The message, 32 octets and the payload."""
        head = _HEADER.pack(
            MAGIC,
            MAJOR,
            self.op,
            self.flags,
            self.seq,
            len(self.payload),
            self.sock,
            self.a,
            self.b,
        )
        return head + self.payload


@attrs.define
class Answer:
    """What the tap service says to one request; the seed's ``RPC_RETVAL``.

    Attributes:
        op: of the request.
        seq: of the request.
        ret: what the libc function returns: 0, -1, or a length.
        err: an errno value, meaningful if *ret* is negative.
        flags: ANSWER_* bits.
        sock: SO_COOKIE of the descriptor that comes with the answer, else that of the request.
        payload: meaning depends on `op`.
        major: the service's own protocol version, for those who speak another.
    """

    op: int
    seq: int
    ret: int = 0
    err: int = 0
    flags: int = 0
    sock: int = 0
    payload: bytes = b""
    major: int = MAJOR

    @classmethod
    def parse(cls, message: Buffer) -> Answer:
        """Read one answer.

        Raises:
            RpcError: not an answer of this protocol.
        """
        op, flags, seq, sock, ret, err, payload = _parse(message, RESOLVE_LIMIT)
        if not op & ANSWER_BIT:
            raise RpcError(f"answer: op {op:#x} is a request's")
        return cls(op & ~ANSWER_BIT, seq, ret, err, flags, sock, payload)

    def emit(self) -> bytes:
        """The message, 32 octets and the payload."""
        head = _HEADER.pack(
            MAGIC,
            self.major,
            self.op | ANSWER_BIT,
            self.flags,
            self.seq,
            len(self.payload),
            self.sock,
            self.ret,
            self.err,
        )
        return head + self.payload


def _parse(message: Buffer, limit: int) -> tuple[int, int, int, int, int, int, bytes]:
    if len(message) < HEADER_LENGTH:
        raise RpcError(f"message: needs {HEADER_LENGTH} octets, got {len(message)}")
    magic, major, op, flags, seq, length, sock, a, b = _HEADER.unpack_from(message)
    if magic != MAGIC:
        raise RpcError(f"message: magic is {magic:#x}, not {MAGIC:#x}")
    if major != MAJOR:
        raise RpcError(f"message: version is {major}, not {MAJOR}")
    if length != len(message) - HEADER_LENGTH:
        raise RpcError(
            f"message: length field {length} does not fit {len(message) - HEADER_LENGTH}"
        )
    if length > limit:
        raise RpcError(f"message: payload of {length} octets is above {limit}")
    return op, flags, seq, sock, a, b, bytes(message[HEADER_LENGTH:])


def version_of(message: Buffer) -> tuple[int, int, int] | None:
    """``(major, op, seq)`` of anything that starts like a message of any version, or None."""
    if len(message) < HEADER_LENGTH:
        return None
    magic, major, op, _, seq, *_ = _HEADER.unpack_from(message)
    return (major, op, seq) if magic == MAGIC else None


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
            _RECORD.unpack_from(data)
        )
        if magic != ACCEPT_MAGIC or version != ACCEPT_VERSION:
            raise RpcError(f"accept record: magic {magic:#x}, version {version}")
        if peer_length > SOCKADDR_ROOM or local_length > SOCKADDR_ROOM:
            raise RpcError(f"accept record: addresses of {peer_length} and {local_length} octets")
        return cls(cookie, peer[:peer_length], local[:local_length], flags)

    def emit(self) -> bytes:
        """The 80 octets."""
        return _RECORD.pack(
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
            _DATAGRAM.unpack_from(data)
        )
        if peer_length > SOCKADDR_ROOM or local_length > len(local):
            raise RpcError(f"datagram header: addresses of {peer_length} and {local_length} octets")
        return cls(peer[:peer_length], local[:local_length], flags, ttl, tos, ifindex, time_ns)

    def emit(self) -> bytes:
        """The 64 octets."""
        return _DATAGRAM.pack(
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
        if len(payload) < _HELLO_REQUEST.size:
            raise RpcError(f"hello: {len(payload)} octets are too few")
        pid, ppid = _HELLO_REQUEST.unpack_from(payload)
        executable, name = parse_texts(bytes(payload[_HELLO_REQUEST.size :]), 2)
        return cls(pid, ppid, executable, name)

    def emit(self) -> bytes:
        """The payload."""
        return _HELLO_REQUEST.pack(self.pid, self.ppid) + emit_texts(self.executable, self.name)


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
        features, pid, _, version, network, policy = _HELLO_ANSWER.unpack_from(payload)
        return cls(features, pid, _text(version), _text(network), policy)

    def emit(self) -> bytes:
        """The payload."""
        return _HELLO_ANSWER.pack(
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
        if len(payload) < _RESOLVE_HEAD.size:
            raise RpcError(f"resolve answer: {len(payload)} octets are too few")
        count, canonical_length = _RESOLVE_HEAD.unpack_from(payload)
        names_at = _RESOLVE_HEAD.size + count * RESOLVE_ROW_LENGTH
        if names_at + canonical_length != len(payload):
            raise RpcError(
                f"resolve answer: {count} rows and a name of {canonical_length} octets"
                f" do not fit {len(payload)}"
            )
        rows = []
        for at in range(_RESOLVE_HEAD.size, names_at, RESOLVE_ROW_LENGTH):
            family, kind, protocol, length, address = _RESOLVE_ROW.unpack_from(payload, at)
            if length > SOCKADDR_ROOM:
                raise RpcError(f"resolve answer: an address of {length} octets")
            rows.append(ResolveRow(family, kind, protocol, address[:length]))
        return cls(rows, _decode(bytes(payload[names_at:])))

    def emit(self) -> bytes:
        """The payload."""
        canonical = _encode(self.canonical)
        pieces = [_RESOLVE_HEAD.pack(len(self.rows), len(canonical))]
        pieces += [
            _RESOLVE_ROW.pack(row.family, row.type, row.protocol, len(row.address), row.address)
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
            _INTERFACE_ROW.unpack_from(data)
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
        return _INTERFACE_ROW.pack(
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
        kind, state, domain, protocol, _ = _QUERY_ROW.unpack_from(data)
        return cls(kind, state, domain, protocol)

    def emit(self) -> bytes:
        """The 8 octets."""
        return _QUERY_ROW.pack(self.kind, self.state, self.domain, self.protocol, 0)


def pack_options(options: Sequence[tuple[int, int, bytes]]) -> bytes:
    """``(level, option, value)`` settings to be repeated on a kernel socket (ANSWER_HOST)."""
    return b"".join(
        _OPTION.pack(level, option, len(value)) + value for level, option, value in options
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
        level, option, length = _OPTION.unpack_from(payload, at)
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
