"""The header that virtio-net and Linux's TAP devices put before a frame (`virtio_net_hdr`).

It says what is left to do: a checksum to finish, a super-segment to cut.  Virtio 1.2 section 5.1.6
describes it; here it is the older form of 10 octets, in the byte order of the machine.

Knows the header and frames.  Does not know devices.
"""

from __future__ import annotations

import struct

from zttrio.errors import HeaderError
from zttrio.header.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6
from zttrio.header.frame import (
    CHECKSUM_COMPLETE,
    CHECKSUM_PARTIAL,
    CHECKSUM_VERIFIED,
    Frame,
)
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP
from zttrio.header.offload import locate_checksum, split_datagrams
from zttrio.header.tcp import CWR

__all__ = ["LENGTH", "PLAIN", "decode", "encode"]

NEEDS_CSUM = 1
DATA_VALID = 2
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80

_LAYOUT = struct.Struct("=BBHHHH")
LENGTH = _LAYOUT.size
PLAIN = bytes(LENGTH)
"""Of a frame to which nothing is left to do."""

_FRONT = struct.Struct("!12xHB5xB2xB")  # ethertype, first octet, IPv6's protocol, IPv4's
_SHORTEST = 34
_ETHERNET = 14
_SMALL = 4096  # arbitrary: below this one copy is cheaper than two views
_FIELD_AT = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6, PROTOCOL_ICMPV6: 2}


def encode(frame: Frame) -> bytes:
    """What goes in front of *frame*.

    Raises:
        HeaderError: the frame claims a partial checksum or a `gso_size`, and is no packet that can
            have one.
    """
    if frame.checksum != CHECKSUM_PARTIAL and not frame.gso_size:
        return PLAIN
    header = frame.header
    protocol = start = 0
    if len(header) >= _SHORTEST:
        ethertype, first, protocol_6, protocol_4 = _FRONT.unpack_from(header)
        if ethertype == ETHERTYPE_IPV4 and first == 0x45:
            protocol, start = protocol_4, 34
        elif ethertype == ETHERTYPE_IPV6:
            protocol, start = protocol_6, 54
    field = _FIELD_AT.get(protocol)
    if field is None or len(header) < start + 20:
        protocol, start = locate_checksum(frame)  # options, extension headers, other cuts
        field = _FIELD_AT[protocol]
    size = frame.gso_size
    if not size:
        return _LAYOUT.pack(NEEDS_CSUM, GSO_NONE, 0, 0, start, field)
    if protocol != PROTOCOL_TCP or frame.checksum != CHECKSUM_PARTIAL or len(header) < start + 20:
        raise HeaderError("super-segment: needs TCP, unfinished, with its headers in one piece")
    kind = GSO_TCPV4 if header[_ETHERNET] >> 4 == 4 else GSO_TCPV6
    if header[start + 13] & CWR:
        kind |= GSO_ECN
    length = start + (header[start + 12] >> 4) * 4
    return _LAYOUT.pack(NEEDS_CSUM, kind, length, size, start, field)


def decode(octets: bytes) -> list[Frame]:
    """The frame behind the header that *octets* start with; several if it stands for datagrams.

    The pieces of large frames are views of *octets*.

    Raises:
        HeaderError: the header says what we did not ask for, or does not fit its frame.
    """
    flags, kind, _, size, _, _ = _LAYOUT.unpack_from(octets)
    if flags & NEEDS_CSUM:
        state = CHECKSUM_PARTIAL
    elif flags & DATA_VALID:
        state = CHECKSUM_VERIFIED
    else:
        state = CHECKSUM_COMPLETE
    if not kind:
        return [Frame(octets[LENGTH:], b"", 0, state)]
    kind &= ~GSO_ECN
    if not size:
        raise HeaderError(f"virtio header: super-segment of kind {kind} without a segment size")
    if kind == GSO_UDP_L4:
        return split_datagrams(Frame(octets[LENGTH:], b"", size, state))
    if kind not in (GSO_TCPV4, GSO_TCPV6):
        raise HeaderError(f"virtio header: super-segment of kind {kind}")
    if len(octets) < _SMALL:
        return [Frame(octets[LENGTH:], b"", size, state)]
    # Cut where the payload begins, if that is easily found: then nobody has to copy it.
    at = LENGTH + _ETHERNET
    if kind == GSO_TCPV4 and octets[at] == 0x45:
        at += 20 + (octets[at + 32] >> 4) * 4
    elif kind == GSO_TCPV6 and octets[at + 6] == PROTOCOL_TCP:
        at += 40 + (octets[at + 52] >> 4) * 4
    return [Frame(octets[LENGTH:at], memoryview(octets)[at:], size, state)]
