"""The messages of virtual networks as octets: what stands behind the verb byte (5).

Credentials are in `.credential`, requests in `.config_request`, pieces of a configuration in
`.piece`.  Headers of OK and ERROR are VL1's, see `.messages`: what is parsed here starts behind
them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar

import attrs

from zttrio.errors import HeaderError

from .. import messages
from ..constants import ADDRESS_LENGTH, MAX_PAYLOAD
from .certificate import MembershipCertificate
from .config_request import ConfigAnswer, ConfigRequest, request_metadata
from .derived import Group
from .dictionary import Dictionary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zttrio.header.frame import Buffer

__all__ = [
    "ConfigAnswer",
    "ConfigRequest",
    "ExtFrame",
    "FrameMessage",
    "Gather",
    "GatherAnswer",
    "GatherResults",
    "MulticastAnswer",
    "MulticastFrame",
    "MulticastLike",
    "NetworkError",
    "emit_network_id",
    "parse_network_id",
    "request_metadata",
]

# Flags of EXT_FRAME (5.2).
ORDINARY = 0x00
TEE_OUT = 0x02
REDIRECT_OUT = 0x04
TEE_IN = 0x08
REDIRECT_IN = 0x0A
ACKNOWLEDGE = 0x10
WATCH_OUT = 0x16
WATCH_IN = 0x1C

FRAME_HEADER = 10
"""Octets of FRAME in front of the Ethernet payload."""
EXT_FRAME_HEADER = 23
"""Octets of EXT_FRAME in front of the Ethernet payload."""
MAX_FRAME_PAYLOAD = MAX_PAYLOAD - FRAME_HEADER
LIKES_PER_MESSAGE = MAX_PAYLOAD // 18
MAX_RESULTS = 65535

_MEMBERSHIP_INSIDE = 0x01  # EXT_FRAME, MULTICAST_FRAME and MULTICAST_GATHER alike
_GATHER_LIMIT_INSIDE = 0x02
_SOURCE_INSIDE = 0x04
_REPLICATE = 0x08

_NETWORK = struct.Struct("!Q")
_FRAME = struct.Struct("!QH")
_EXT_HEAD = struct.Struct("!QB")
_EXT_TAIL = struct.Struct("!6s6sH")
_EXT = struct.Struct("!QB6s6sH")
_LIKE = struct.Struct("!Q6sI")
_GATHER = struct.Struct("!QB6sII")
_RESULTS = struct.Struct("!IH")
_MULTICAST_TAIL = struct.Struct("!6sIH")
_MULTICAST_ANSWER = struct.Struct("!Q6sIB")
_INTEGER = struct.Struct("!I")
_LENGTH = struct.Struct("!H")
_GROUP = struct.Struct("!6sI")


def emit_network_id(network_id: int) -> bytes:
    """The network ID alone: what OK(EXT_FRAME) consists of (5.2)."""
    return _NETWORK.pack(network_id)


def parse_network_id(payload: Buffer) -> int:
    """The network ID that every message of this layer but two starts with.

    MULTICAST_LIKE and NETWORK_CREDENTIALS are about any number of networks.

    Raises:
        HeaderError: too short.
    """
    if len(payload) < _NETWORK.size:
        raise HeaderError(f"network message: only {len(payload)} octets")
    return int(_NETWORK.unpack_from(payload)[0])


@attrs.define
class FrameMessage:
    """FRAME: an Ethernet frame between the MACs of its sender and its receiver (5.1).

    Attributes:
        network_id: which network it is on.
        ethertype: of the frame.
        payload: of the frame; if it is empty there is no frame.
    """

    network_id: int
    ethertype: int
    payload: Buffer

    @classmethod
    def parse(cls, payload: Buffer) -> FrameMessage:
        """Read a FRAME; its payload is a slice of *payload*.

        Raises:
            HeaderError: too short.
        """
        if len(payload) < FRAME_HEADER:
            raise HeaderError(f"FRAME: only {len(payload)} octets")
        network_id, ethertype = _FRAME.unpack_from(payload)
        return cls(network_id, ethertype, payload[FRAME_HEADER:])

    def emit(self) -> bytes:
        """The same as octets."""
        return _FRAME.pack(self.network_id, self.ethertype) + self.payload


@attrs.define
class ExtFrame:
    """EXT_FRAME: an Ethernet frame between any MACs (5.2).

    Attributes:
        network_id: which network it is on.
        flags: ACKNOWLEDGE and a subtype that the receiver does not act upon.
        destination: MAC.
        source: MAC.
        ethertype: of the frame.
        payload: of the frame.
        membership: what old senders attach.
    """

    network_id: int
    flags: int
    destination: bytes
    source: bytes
    ethertype: int
    payload: Buffer
    membership: MembershipCertificate | None = None

    @property
    def wants_answer(self) -> bool:
        """True if the receiver has to answer with OK."""
        return self.flags & ACKNOWLEDGE != 0

    @classmethod
    def parse(cls, payload: Buffer) -> ExtFrame:
        """Read an EXT_FRAME; its payload is a slice of *payload*.

        Raises:
            HeaderError: it is none.
        """
        if len(payload) < EXT_FRAME_HEADER:
            raise HeaderError(f"EXT_FRAME: only {len(payload)} octets")
        network_id, flags = _EXT_HEAD.unpack_from(payload)
        membership, at = _parse_membership(payload, _EXT_HEAD.size, flags)
        flags &= ~_MEMBERSHIP_INSIDE
        end = at + _EXT_TAIL.size
        if end > len(payload):
            raise HeaderError(f"EXT_FRAME: truncated at {len(payload)} octets")
        destination, source, ethertype = _EXT_TAIL.unpack_from(payload, at)
        return cls(network_id, flags, destination, source, ethertype, payload[end:], membership)

    def emit(self) -> bytes:
        """The same as octets; the flag of a membership follows from it."""
        flags = self.flags & ~_MEMBERSHIP_INSIDE
        if self.membership is None:
            head = _EXT.pack(self.network_id, flags, self.destination, self.source, self.ethertype)
            return head + self.payload
        return b"".join(
            (
                _EXT_HEAD.pack(self.network_id, flags | _MEMBERSHIP_INSIDE),
                self.membership.emit(),
                _EXT_TAIL.pack(self.destination, self.source, self.ethertype),
                self.payload,
            )
        )


@attrs.frozen
class MulticastLike:
    """MULTICAST_LIKE: the groups of networks that its sender wants frames of (5.3)."""

    entries: tuple[tuple[int, Group], ...]

    @classmethod
    def parse(cls, payload: Buffer) -> MulticastLike:
        """Read a MULTICAST_LIKE; a shorter rest is ignored.  Its size bounds the entries."""
        whole = len(payload) - len(payload) % _LIKE.size
        return cls(
            tuple(
                (network_id, Group(mac, adi))
                for network_id, mac, adi in _LIKE.iter_unpack(bytes(payload[:whole]))
            )
        )

    @classmethod
    def payloads(cls, entries: Iterable[tuple[int, Group]]) -> list[bytes]:
        """As many payloads as *entries* need; none for none."""
        listed = tuple(entries)
        return [
            cls(listed[start : start + LIKES_PER_MESSAGE]).emit()
            for start in range(0, len(listed), LIKES_PER_MESSAGE)
        ]

    def emit(self) -> bytes:
        """The same as octets."""
        return b"".join(_LIKE.pack(network_id, *group) for network_id, group in self.entries)


@attrs.frozen
class Gather:
    """MULTICAST_GATHER: who is in this group? (5.7).

    Attributes:
        network_id: which network.
        group: which group.
        limit: the largest number of members wanted, 32 bits.
        membership: the asker's, for a node that does not have it yet.
    """

    network_id: int
    group: Group
    limit: int
    membership: MembershipCertificate | None = None

    @classmethod
    def parse(cls, payload: Buffer) -> Gather:
        """Read a MULTICAST_GATHER.

        Raises:
            HeaderError: it is none.
        """
        end = _GATHER.size
        if len(payload) < end:
            raise HeaderError(f"MULTICAST_GATHER: only {len(payload)} octets")
        network_id, flags, mac, adi, limit = _GATHER.unpack_from(payload)
        membership, _ = _parse_membership(payload, end, flags)
        return cls(network_id, Group(mac, adi), limit, membership)

    def emit(self) -> bytes:
        """The same as octets."""
        flags = 0 if self.membership is None else _MEMBERSHIP_INSIDE
        head = _GATHER.pack(self.network_id, flags, *self.group, self.limit)
        return head if self.membership is None else head + self.membership.emit()


@attrs.frozen
class GatherResults:
    """Members of a group (5.7).

    Attributes:
        total: how many the sender knows.
        addresses: some of them.
    """

    total: int
    addresses: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[GatherResults, int]:
        """Read results; returns them and where they end.

        Raises:
            HeaderError: there are none at *offset*, or fewer than they say.
        """
        start = offset + _RESULTS.size
        if start > len(data):
            raise HeaderError(f"gather results at {offset}: only {len(data)} octets")
        total, count = _RESULTS.unpack_from(data, offset)
        end = start + count * ADDRESS_LENGTH
        if end > len(data):
            raise HeaderError(f"gather results: {count} addresses in {len(data) - start} octets")
        addresses = (
            bytes(data[at : at + ADDRESS_LENGTH]) for at in range(start, end, ADDRESS_LENGTH)
        )
        return cls(total, tuple(addresses)), end

    def emit(self) -> bytes:
        """The same as octets."""
        return _RESULTS.pack(self.total, len(self.addresses)) + b"".join(self.addresses)


@attrs.frozen
class GatherAnswer:
    """OK(MULTICAST_GATHER) (5.7)."""

    MAX_ADDRESSES: ClassVar[int] = (MAX_PAYLOAD - 9 - _LIKE.size - _RESULTS.size) // ADDRESS_LENGTH
    """How many fit into one packet."""

    network_id: int
    group: Group
    results: GatherResults

    @classmethod
    def parse(cls, data: Buffer) -> GatherAnswer:
        """Read an answer.

        Raises:
            HeaderError: it is none.
        """
        if len(data) < _LIKE.size:
            raise HeaderError(f"OK(MULTICAST_GATHER): only {len(data)} octets")
        network_id, mac, adi = _LIKE.unpack_from(data)
        results, _ = GatherResults.parse(data, _LIKE.size)
        return cls(network_id, Group(mac, adi), results)

    def emit(self) -> bytes:
        """The same as octets."""
        return _LIKE.pack(self.network_id, *self.group) + self.results.emit()


@attrs.define
class MulticastFrame:
    """MULTICAST_FRAME (5.8).

    Attributes:
        network_id: which network it is on.
        group: destination MAC and additional distinguishing information.
        ethertype: of the frame.
        payload: of the frame.
        source: MAC, if it is not the sender's own.
        gather_limit: how many members of the group the sender would like to hear about, or None.
        replicate: True if the receiver should pass it on to the group.
        membership: what old senders attach.
    """

    network_id: int
    group: Group
    ethertype: int
    payload: Buffer
    source: bytes | None = None
    gather_limit: int | None = None
    replicate: bool = False
    membership: MembershipCertificate | None = None

    @classmethod
    def parse(cls, payload: Buffer) -> MulticastFrame:
        """Read a MULTICAST_FRAME; its payload is a slice of *payload*.

        Raises:
            HeaderError: it is none.
        """
        at = _EXT_HEAD.size
        if len(payload) < at:
            raise HeaderError(f"MULTICAST_FRAME: only {len(payload)} octets")
        network_id, flags = _EXT_HEAD.unpack_from(payload)
        membership, at = _parse_membership(payload, at, flags)
        limit_at = at
        at += _INTEGER.size if flags & _GATHER_LIMIT_INSIDE else 0
        source_at = at
        at += 6 if flags & _SOURCE_INSIDE else 0
        end = at + _MULTICAST_TAIL.size
        if end > len(payload):
            raise HeaderError(f"MULTICAST_FRAME: truncated at {len(payload)} octets")
        mac, adi, ethertype = _MULTICAST_TAIL.unpack_from(payload, at)
        return cls(
            network_id,
            Group(mac, adi),
            ethertype,
            payload[end:],
            bytes(payload[source_at:at]) if at > source_at else None,
            _INTEGER.unpack_from(payload, limit_at)[0] if source_at > limit_at else None,
            flags & _REPLICATE != 0,
            membership,
        )

    def emit(self) -> bytes:
        """The same as octets."""
        flags = _REPLICATE if self.replicate else 0
        optional = []
        if self.membership is not None:
            flags |= _MEMBERSHIP_INSIDE
            optional.append(self.membership.emit())
        if self.gather_limit is not None:
            flags |= _GATHER_LIMIT_INSIDE
            optional.append(_INTEGER.pack(self.gather_limit))
        if self.source is not None:
            flags |= _SOURCE_INSIDE
            optional.append(self.source)
        return b"".join(
            (
                _EXT_HEAD.pack(self.network_id, flags),
                *optional,
                _MULTICAST_TAIL.pack(*self.group, self.ethertype),
                self.payload,
            )
        )


@attrs.frozen
class MulticastAnswer:
    """OK(MULTICAST_FRAME) (5.8).

    Attributes:
        network_id: which network.
        group: of the frame.
        membership: what old senders attach.
        results: members of the group, if the frame asked for them.
    """

    network_id: int
    group: Group
    membership: MembershipCertificate | None = None
    results: GatherResults | None = None

    @classmethod
    def parse(cls, data: Buffer) -> MulticastAnswer:
        """Read an answer.

        Raises:
            HeaderError: it is none.
        """
        at = _MULTICAST_ANSWER.size
        if len(data) < at:
            raise HeaderError(f"OK(MULTICAST_FRAME): only {len(data)} octets")
        network_id, mac, adi, flags = _MULTICAST_ANSWER.unpack_from(data)
        membership, at = _parse_membership(data, at, flags)
        results = None
        if flags & _GATHER_LIMIT_INSIDE:
            results, _ = GatherResults.parse(data, at)
        return cls(network_id, Group(mac, adi), membership, results)

    def emit(self) -> bytes:
        """The same as octets."""
        flags = 0
        optional = []
        if self.membership is not None:
            flags |= _MEMBERSHIP_INSIDE
            optional.append(self.membership.emit())
        if self.results is not None:
            flags |= _GATHER_LIMIT_INSIDE
            optional.append(self.results.emit())
        return b"".join((_MULTICAST_ANSWER.pack(self.network_id, *self.group, flags), *optional))


@attrs.frozen
class NetworkError:
    """What an ERROR about a network says behind its code (5.9).

    Attributes:
        network_id: which network.
        group: which group is unwanted, with UNWANTED_MULTICAST only.
        sign_on: how to authenticate, with AUTHENTICATION_REQUIRED only; may be empty.
    """

    network_id: int
    group: Group | None = None
    sign_on: Dictionary | None = None

    @property
    def url(self) -> str:
        """Where the user has to authenticate; empty if the error does not say."""
        if self.sign_on is None:
            return ""
        return self.sign_on.get_text("iU" if self.sign_on.get_int("aV") == 1 else "aU")

    @classmethod
    def parse(cls, code: int, data: Buffer) -> NetworkError:
        """Read what follows *code*, one of those in `.messages`.

        Raises:
            HeaderError: too short for that code.
        """
        network_id = parse_network_id(data)
        at = _NETWORK.size
        if code == messages.UNWANTED_MULTICAST:
            if at + _GROUP.size > len(data):
                raise HeaderError(f"unwanted multicast: only {len(data)} octets")
            return cls(network_id, Group(*_GROUP.unpack_from(data, at)))
        if code != messages.AUTHENTICATION_REQUIRED:
            return cls(network_id)
        if at == len(data):
            return cls(network_id, sign_on=Dictionary())
        start = at + _LENGTH.size
        if start > len(data):
            raise HeaderError(f"authentication required: only {len(data)} octets")
        end = start + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            raise HeaderError(f"authentication required: ends at {end} of {len(data)} octets")
        return cls(network_id, sign_on=Dictionary.parse(data[start:end]))

    def emit(self) -> bytes:
        """The same as octets."""
        head = _NETWORK.pack(self.network_id)
        if self.group is not None:
            return head + _GROUP.pack(*self.group)
        if not self.sign_on:
            return head
        encoded = self.sign_on.emit()
        return b"".join((head, _LENGTH.pack(len(encoded)), encoded))


def _parse_membership(
    payload: Buffer, at: int, flags: int
) -> tuple[MembershipCertificate | None, int]:
    if not flags & _MEMBERSHIP_INSIDE:
        return None, at
    return MembershipCertificate.parse(payload, at)
