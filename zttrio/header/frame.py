"""A frame as it moves between stack and wire, in two pieces and with the state of its checksum.

The header piece and the payload piece are never joined before a wire needs them joined.  A frame
carries what virtio-net's header carries, so that a frame of up to 64 KiB of TCP payload can be cut
late by whoever can do it cheapest: the kernel, a batch kernel, or nobody.
"""

from __future__ import annotations

import attrs

CHECKSUM_COMPLETE = 0  # the TCP or UDP checksum field is filled in; nobody has verified it here
CHECKSUM_VERIFIED = 1  # filled in, and whoever handed the frame over vouches for it
CHECKSUM_PARTIAL = 2  # the field holds the pseudo-header sum only; never left this machine

Buffer = bytes | bytearray | memoryview


@attrs.define
class Frame:
    """One Ethernet frame, with its 14-byte header, as two consecutive pieces.

    The frame's octets are ``header + payload``.  The stack sends frames whose header piece ends
    where the transport payload begins; a received frame may be cut anywhere behind the Ethernet
    header, or not at all (``payload`` empty).

    Attributes:
        header: the first piece, at least the 14 octets of the Ethernet header.
        payload: the rest.  Immutable while the frame is alive.
        gso_size: 0, or the payload octets of each of the TCP segments that this super-segment
            stands for (the last may be shorter).  If it is longer than 65535 octets, its IP header
            says 0 octets, as Linux's do (BIG TCP); only wires whose `max_segment` asks for more
            than that get such frames.
        checksum: one of CHECKSUM_COMPLETE, CHECKSUM_VERIFIED, CHECKSUM_PARTIAL.
    """

    header: Buffer
    payload: Buffer = b""
    gso_size: int = 0
    checksum: int = CHECKSUM_COMPLETE

    def __len__(self) -> int:
        return len(self.header) + len(self.payload)

    def __bytes__(self) -> bytes:
        return b"".join((self.header, self.payload))
