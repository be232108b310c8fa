"""Verbs, and the messages of VL1 as octets: what stands behind the verb byte, and nothing else.

Offsets in the VL1 specification count from the start of the packet, so they are 28 larger.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .constants import ADDRESS_LENGTH
from .endpoint import Endpoint, emit_endpoint, parse_endpoint
from .identity import Identity
from .world import MOON, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Hello",
    "HelloAnswer",
    "PathHint",
    "Rendezvous",
    "UserMessage",
    "emit_error",
    "emit_moons",
    "emit_ok",
    "emit_path_hints",
    "parse_addresses",
    "parse_error",
    "parse_moons",
    "parse_ok",
    "parse_path_hints",
    "parse_worlds",
    "verb_name",
]

NOP = 0x00
HELLO = 0x01
ERROR = 0x02
OK = 0x03
WHOIS = 0x04
RENDEZVOUS = 0x05
FRAME = 0x06
EXT_FRAME = 0x07
ECHO = 0x08
MULTICAST_LIKE = 0x09
NETWORK_CREDENTIALS = 0x0A
NETWORK_CONFIG_REQUEST = 0x0B
NETWORK_CONFIG = 0x0C
MULTICAST_GATHER = 0x0D
MULTICAST_FRAME = 0x0E
PUSH_DIRECT_PATHS = 0x10
ACK = 0x12
QOS_MEASUREMENT = 0x13
USER_MESSAGE = 0x14
REMOTE_TRACE = 0x15
PATH_NEGOTIATION_REQUEST = 0x16

VERB_MASK = 0x1F
COMPRESSED = 0x80

# ERROR codes (11.1)
INVALID_REQUEST = 1
BAD_PROTOCOL = 2
NOT_FOUND = 3
COLLISION = 4
UNSUPPORTED = 5
NEED_MEMBERSHIP = 6
ACCESS_DENIED = 7
UNWANTED_MULTICAST = 8
AUTHENTICATION_REQUIRED = 9

NETWORK_VERBS = frozenset(
    (
        FRAME,
        EXT_FRAME,
        MULTICAST_LIKE,
        NETWORK_CREDENTIALS,
        NETWORK_CONFIG_REQUEST,
        NETWORK_CONFIG,
        MULTICAST_GATHER,
        MULTICAST_FRAME,
    )
)
"""What VL1 carries for the virtual networks."""

_HELLO = struct.Struct("!BBBHQ")
_ANSWER = struct.Struct("!QBBBH")
_PAIR = struct.Struct("!QQ")
_MOON = struct.Struct("!BQQ")
_OK = struct.Struct("!B8s")
_ERROR = struct.Struct("!B8sB")
_RENDEZVOUS = struct.Struct("!B5sHB")
_SHORT = struct.Struct("!H")
_LONG = struct.Struct("!Q")

_VERB_NAMES = {
    verb: name
    for name, verb in {
        "NOP": NOP,
        "HELLO": HELLO,
        "ERROR": ERROR,
        "OK": OK,
        "WHOIS": WHOIS,
        "RENDEZVOUS": RENDEZVOUS,
        "FRAME": FRAME,
        "EXT_FRAME": EXT_FRAME,
        "ECHO": ECHO,
        "MULTICAST_LIKE": MULTICAST_LIKE,
        "NETWORK_CREDENTIALS": NETWORK_CREDENTIALS,
        "NETWORK_CONFIG_REQUEST": NETWORK_CONFIG_REQUEST,
        "NETWORK_CONFIG": NETWORK_CONFIG,
        "MULTICAST_GATHER": MULTICAST_GATHER,
        "MULTICAST_FRAME": MULTICAST_FRAME,
        "PUSH_DIRECT_PATHS": PUSH_DIRECT_PATHS,
        "ACK": ACK,
        "QOS_MEASUREMENT": QOS_MEASUREMENT,
        "USER_MESSAGE": USER_MESSAGE,
        "REMOTE_TRACE": REMOTE_TRACE,
        "PATH_NEGOTIATION_REQUEST": PATH_NEGOTIATION_REQUEST,
    }.items()
}


def verb_name(verb: int) -> str:
    """``HELLO`` for 1, and so on; ``0x1f`` for what does not exist."""
    return _VERB_NAMES.get(verb, f"0x{verb:02x}")


@attrs.frozen
class Hello:
    """HELLO without its encrypted tail (11.2).

    Attributes:
        protocol: what the sender speaks.
        version: its software: major, minor, revision.
        timestamp: echoed in the answer; milliseconds since 1970.
        identity: the sender's.
        sent_to: where the sender sent this, if it says so.
        planet: world ID and timestamp of its planet, if it says so.
        length: octets up to here; the encrypted tail follows.
    """

    protocol: int
    version: tuple[int, int, int]
    timestamp: int
    identity: Identity
    sent_to: Endpoint | None = None
    planet: tuple[int, int] | None = None
    length: int = 0

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        """Read a HELLO.  Everything behind the identity may be missing.

        Raises:
            HeaderError: it is none.
        """
        if len(payload) < _HELLO.size:
            raise HeaderError(f"HELLO: only {len(payload)} octets")
        protocol, major, minor, revision, timestamp = _HELLO.unpack_from(payload)
        identity, end = Identity.parse(payload, _HELLO.size)
        sent_to = planet = None
        if end < len(payload):
            sent_to, end = parse_endpoint(payload, end)
        if end < len(payload):
            if end + _PAIR.size > len(payload):
                raise HeaderError("HELLO: truncated in the planet")
            planet = _PAIR.unpack_from(payload, end)
            end += _PAIR.size
        return cls(protocol, (major, minor, revision), timestamp, identity, sent_to, planet, end)

    def emit(self) -> bytes:
        """The same without the tail."""
        return b"".join(
            (
                _HELLO.pack(self.protocol, *self.version, self.timestamp),
                self.identity.emit(),
                emit_endpoint(self.sent_to),
                _PAIR.pack(*(self.planet or (0, 0))),
            )
        )


def emit_moons(moons: Iterable[tuple[int, int]]) -> bytes:
    """The plaintext of a HELLO's tail: moons as world ID and timestamp (0: wanted, not held)."""
    listed = [_MOON.pack(MOON, world_id, timestamp) for world_id, timestamp in moons]
    return b"".join((_SHORT.pack(len(listed)), *listed))


def parse_moons(tail: bytes) -> list[tuple[int, int]]:
    """The moons in the decrypted tail of a HELLO, as world ID and timestamp.

    Raises:
        HeaderError: it is cut short.
    """
    if not tail:
        return []
    if len(tail) < 2:
        raise HeaderError("HELLO: truncated in the moons")
    (count,) = _SHORT.unpack_from(tail)
    if 2 + count * _MOON.size > len(tail):
        raise HeaderError(f"HELLO: {count} moons in {len(tail)} octets")
    moons = (_MOON.unpack_from(tail, 2 + i * _MOON.size) for i in range(count))
    return [(world_id, timestamp) for kind, world_id, timestamp in moons if kind == MOON]


@attrs.frozen
class HelloAnswer:
    """OK(HELLO) behind the in-re packet ID (11.2).

    Attributes:
        timestamp: the HELLO's.
        protocol: what the responder speaks.
        version: its software.
        seen_from: where the responder saw the HELLO come from.
        worlds: those newer than what the HELLO named, as octets; see `parse_worlds`.
    """

    timestamp: int
    protocol: int
    version: tuple[int, int, int]
    seen_from: Endpoint | None = None
    worlds: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> HelloAnswer:
        """Read an answer.  Everything behind the version may be missing.

        Raises:
            HeaderError: it is none.
        """
        if len(data) < _ANSWER.size:
            raise HeaderError(f"OK(HELLO): only {len(data)} octets")
        timestamp, protocol, major, minor, revision = _ANSWER.unpack_from(data)
        seen_from = None
        worlds = b""
        end = _ANSWER.size
        if end < len(data):
            seen_from, end = parse_endpoint(data, end)
        if end + 2 <= len(data):
            stop = end + 2 + _SHORT.unpack_from(data, end)[0]
            if stop > len(data):
                raise HeaderError("OK(HELLO): truncated in the worlds")
            worlds = data[end + 2 : stop]
        return cls(timestamp, protocol, (major, minor, revision), seen_from, worlds)

    def emit(self) -> bytes:
        """The same as octets."""
        return b"".join(
            (
                _ANSWER.pack(self.timestamp, self.protocol, *self.version),
                emit_endpoint(self.seen_from),
                _SHORT.pack(len(self.worlds)),
                self.worlds,
            )
        )


def parse_worlds(data: bytes) -> list[World]:
    """The worlds in an OK(HELLO), one behind the other.

    Raises:
        HeaderError: something else is among them.
    """
    worlds = []
    at = 0
    while at < len(data):
        world, at = World.parse(data, at)
        worlds.append(world)
    return worlds


def emit_ok(verb: int, packet_id: bytes, data: bytes = b"") -> bytes:
    """The payload of an OK (11.3)."""
    return _OK.pack(verb, packet_id) + data


def parse_ok(payload: bytes) -> tuple[int, bytes, bytes]:
    """Verb and packet ID that an OK answers, and the rest.

    Raises:
        HeaderError: too short.
    """
    if len(payload) < _OK.size:
        raise HeaderError(f"OK: only {len(payload)} octets")
    verb, packet_id = _OK.unpack_from(payload)
    return verb, packet_id, payload[_OK.size :]


def emit_error(verb: int, packet_id: bytes, code: int, data: bytes = b"") -> bytes:
    """The payload of an ERROR (11.1)."""
    return _ERROR.pack(verb, packet_id, code) + data


def parse_error(payload: bytes) -> tuple[int, bytes, int, bytes]:
    """Verb and packet ID that an ERROR is about, its code, and the rest.

    Raises:
        HeaderError: too short.
    """
    if len(payload) < _ERROR.size:
        raise HeaderError(f"ERROR: only {len(payload)} octets")
    verb, packet_id, code = _ERROR.unpack_from(payload)
    return verb, packet_id, code, payload[_ERROR.size :]


def parse_addresses(payload: bytes) -> list[bytes]:
    """The addresses a WHOIS asks for; a shorter rest is ignored (11.4)."""
    end = len(payload) - len(payload) % ADDRESS_LENGTH
    return [payload[i : i + ADDRESS_LENGTH] for i in range(0, end, ADDRESS_LENGTH)]


@attrs.frozen
class Rendezvous:
    """RENDEZVOUS: where another node can be met (11.5)."""

    address: bytes
    endpoint: Endpoint

    @classmethod
    def parse(cls, payload: bytes) -> Rendezvous:
        """Read a RENDEZVOUS.

        Raises:
            HeaderError: it is none.
        """
        end = _RENDEZVOUS.size
        if len(payload) < end:
            raise HeaderError(f"RENDEZVOUS: only {len(payload)} octets")
        _, address, port, length = _RENDEZVOUS.unpack_from(payload)
        if length not in (4, 16) or end + length > len(payload) or not port:
            raise HeaderError(f"RENDEZVOUS: {length} octets of address, port {port}")
        return cls(address, Endpoint(payload[end : end + length], port))

    def emit(self) -> bytes:
        """The same as octets."""
        ip, port = self.endpoint
        return _RENDEZVOUS.pack(0, self.address, port, len(ip)) + ip


@attrs.frozen
class PathHint:
    """One record of PUSH_DIRECT_PATHS (11.7).

    Attributes:
        endpoint: where the sender believes it can be reached.
        forget: True if it says that it cannot any more.
    """

    endpoint: Endpoint
    forget: bool = False


def emit_path_hints(endpoints: Sequence[Endpoint]) -> bytes:
    """The payload of a PUSH_DIRECT_PATHS."""
    pieces = [_SHORT.pack(len(endpoints))]
    for ip, port in endpoints:
        kind, length = (4, 6) if len(ip) == 4 else (6, 18)
        pieces.append(bytes((0, 0, 0, kind, length)) + ip + _SHORT.pack(port))
    return b"".join(pieces)


def parse_path_hints(payload: bytes) -> list[PathHint]:
    """The records of a PUSH_DIRECT_PATHS that are IP addresses.

    Raises:
        HeaderError: it is cut short.
    """
    if len(payload) < 2:
        raise HeaderError("PUSH_DIRECT_PATHS: truncated")
    hints = []
    (count,) = _SHORT.unpack_from(payload)
    at = 2
    for _ in range(count):
        if at + 5 > len(payload):
            raise HeaderError("PUSH_DIRECT_PATHS: truncated")
        flags = payload[at]
        at += 3 + _SHORT.unpack_from(payload, at + 1)[0]
        if at + 2 > len(payload):
            raise HeaderError("PUSH_DIRECT_PATHS: truncated")
        kind, length = payload[at], payload[at + 1]
        at += 2
        if at + length > len(payload):
            raise HeaderError("PUSH_DIRECT_PATHS: truncated")
        if (kind, length) in ((4, 6), (6, 18)):
            port = _SHORT.unpack_from(payload, at + length - 2)[0]
            endpoint = Endpoint(payload[at : at + length - 2], port)
            hints.append(PathHint(endpoint, forget=bool(flags & 1)))
        at += length
    return hints


@attrs.frozen
class UserMessage:
    """USER_MESSAGE (11.8).

    Attributes:
        kind: what the octets are; numbers up to 65535 are reserved.
        data: anything.
    """

    kind: int
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> UserMessage:
        """Read a USER_MESSAGE.

        Raises:
            HeaderError: it is none.
        """
        if len(payload) < _LONG.size:
            raise HeaderError(f"USER_MESSAGE: only {len(payload)} octets")
        return cls(_LONG.unpack_from(payload)[0], payload[_LONG.size :])

    def emit(self) -> bytes:
        """The same as octets."""
        return _LONG.pack(self.kind) + self.data
