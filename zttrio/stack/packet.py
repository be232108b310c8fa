"""What the IP layer and the transports hand each other: packets going up, and news of lost ones."""

from __future__ import annotations

from typing import Protocol

import attrs

from zttrio.header.frame import CHECKSUM_COMPLETE, Buffer

__all__ = ["Packet", "PathError", "Transport"]


@attrs.define
class Packet:
    """An IP packet for us, whole, on its way up to a transport.

    Its octets behind the IP header are ``transport + payload``, and a cut between the two may be
    anywhere (see `zttrio.header.frame.Frame`).

    Attributes:
        source: packed, 4 or 16 octets.
        destination: packed, of the same family.
        protocol: the transport's protocol number.
        transport: from the transport header on.
        payload: the second piece, often empty.
        ip_header: the IP header as it came, for ICMP errors to quote; empty on loopback.
        hop_limit: TTL or hop limit.
        traffic_class: DSCP and ECN bits.
        checksum: state of the transport checksum, a CHECKSUM_* of `Frame`.
        gso_size: as in `Frame`: 0, or the size of the segments that were coalesced into this one.
        is_multicast: True if the destination is a multicast or broadcast address, or the frame was
            sent to one on the link: no errors and no resets may answer it.
        was_fragmented: it came in fragments, which neighbor discovery must not (RFC 6980).
    """

    source: bytes
    destination: bytes
    protocol: int
    transport: Buffer
    payload: Buffer = b""
    ip_header: Buffer = b""
    hop_limit: int = 64
    traffic_class: int = 0
    checksum: int = CHECKSUM_COMPLETE
    gso_size: int = 0
    is_multicast: bool = False
    was_fragmented: bool = False

    def data(self) -> Buffer:
        """Transport header and payload in one piece; copies only if there are two."""
        if not self.payload:
            return self.transport
        return b"".join((self.transport, self.payload))


@attrs.define
class PathError:
    """A packet of ours did not arrive: an ICMP error said so, or no neighbor answered.

    Attributes:
        source: our address in the packet that was lost.
        destination: where it was going.
        protocol: its transport.
        quoted: the first octets of its transport header, at least 8.
        error: an errno: ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EMSGSIZE, EPROTO, EACCES.
        is_hard: True if RFC 1122 4.2.3.9 calls it a hard error.
        mtu: with EMSGSIZE, the MTU that the message named (0 if it named none).
        reporter: the packed address of who said so.
    """

    source: bytes
    destination: bytes
    protocol: int
    quoted: bytes
    error: int
    is_hard: bool = False
    mtu: int = 0
    reporter: bytes = b""


class Transport(Protocol):
    """What the IP layer delivers to: TCP, UDP, ICMP."""

    def receive_packet(self, packet: Packet, now: float) -> None:
        """Take in one whole packet.  Never raises."""

    def receive_error(self, error: PathError, now: float) -> None:
        """Learn that a packet of ours was lost.  Never raises."""
