"""Long frames by reference: what stands in a station's queue of datagrams for a payload in a ring.

A station offers its ring to each station that it sends long frames to, by a datagram that carries
the memory's descriptor.  Once that is accepted, a datagram with a frame's header and the place of
its payload does for the frame.  Both kinds begin with an address that no station has, so that
nothing is mistaken for a frame.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING

from zttrio.header.frame import CHECKSUM_PARTIAL, Frame

from .link import ETHERNET_HEADER
from .ring import CAN_SHARE, ReceiveRing, SendRing
from .shortcuts import OFFLOAD

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ANCILLARY",
    "FLAGS",
    "LONG",
    "LONGEST_HEADER",
    "MARK",
    "SHARES",
    "Lender",
    "References",
]

SHARES = OFFLOAD and CAN_SHARE
LONG = 16384  # octets of payload that go by datagram all the same; arbitrary
MARK = bytes(6)  # where a frame has its destination
ANCILLARY = socket.CMSG_LEN(4)  # room for one descriptor
FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # which no program that is started inherits
RING_LIMIT = 16  # rings that we read at once, 4 MiB each; arbitrary
_OFFER = struct.Struct("!6s6s")  # mark, MAC of the sender
_REFERENCE = struct.Struct("!6s6sQIH")  # and place, octets, `Frame.gso_size`; then the header
LONGEST_HEADER = 256  # octets of Ethernet, IP and TCP headers, with room to spare
_DESCRIPTOR = struct.Struct("i")

Ancillary = list[tuple[int, int, bytes]]


class Lender:
    """The ring to one other station.

    Args:
        mac: our hardware address.
    """

    def __init__(self, mac: bytes) -> None:
        self._mac = mac
        self._ring: SendRing | None = None
        self._has_offered = False

    @property
    def is_open(self) -> bool:
        """True if the other station takes references."""
        return self._ring is not None and self._ring.is_open

    def offer(self, sock: socket.socket) -> None:
        """Offer a ring, the first time this is called; without memory for one there will be none.

        Raises:
            OSError: the station's queue is full (BlockingIOError), or it is gone.
        """
        if self._has_offered:
            return
        try:
            ring = SendRing()
        except OSError:
            self._has_offered = True
            return
        try:
            socket.send_fds(sock, [_OFFER.pack(MARK, self._mac)], [ring.descriptor])
        except BaseException:
            ring.close()
            raise
        finally:
            os.close(ring.descriptor)
        self._has_offered = True
        self._ring = ring

    def send(self, sock: socket.socket, frame: Frame) -> bool:
        """Send *frame* by reference; False if the ring is full, or of no use any more.

        Raises:
            OSError: the station's queue is full (BlockingIOError), or it is gone.
        """
        ring = self._ring
        if ring is None:
            return False
        payload = frame.payload
        try:
            place = ring.put(payload)
        except ValueError:
            self.close()
            return False
        if place < 0:
            return False
        front = _REFERENCE.pack(MARK, self._mac, place, len(payload), frame.gso_size)
        sock.send(front + frame.header)
        ring.keep()
        return True

    @property
    def is_full(self) -> bool:
        """True if the ring had no room for a frame, and has not now."""
        return self._ring is not None and self._ring.is_full

    def tidy(self) -> None:
        """Give the memory back if the other station does not read it any more."""
        if self._ring is not None and self._ring.is_ended:
            self.close()

    def close(self) -> None:
        """End the ring, if there is one."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None


class References:
    """The rings that other stations have offered us.

    Args:
        longest: octets of the longest frame, and of the longest part of a super-segment.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rings: OrderedDict[bytes, ReceiveRing] = OrderedDict()

    def receive(self, octets: bytes, ancillary: Ancillary) -> Frame | None:
        """The frame that a datagram with our mark stands for; None if it is an offer.

        Raises:
            ValueError: it makes no sense, or its ring is not read any more.
        """
        descriptors = _descriptors(ancillary)
        if descriptors:
            self._accept(octets, descriptors)
            return None
        start = _REFERENCE.size
        if not start + ETHERNET_HEADER <= len(octets) <= start + LONGEST_HEADER:
            raise ValueError("reference: without a header")
        _, mac, place, size, gso_size = _REFERENCE.unpack_from(octets)
        header = len(octets) - start
        if header + (gso_size or size) > self._longest:
            raise ValueError("reference: the frame is too long")
        ring = self._rings.get(mac)
        if ring is None:
            raise ValueError("reference: no such ring")
        self._rings.move_to_end(mac)
        return Frame(octets[start:], ring.take(place, size), gso_size, CHECKSUM_PARTIAL)

    def _accept(self, octets: bytes, descriptors: Sequence[int]) -> None:
        for extra in descriptors[1:]:
            os.close(extra)
        if len(octets) != _OFFER.size:
            os.close(descriptors[0])
            raise ValueError("offer: of another length")
        _, mac = _OFFER.unpack(octets)
        try:
            ring = ReceiveRing(descriptors[0])
        except OSError as exc:
            raise ValueError(f"offer: {exc}") from exc
        for other in [other for other, old in self._rings.items() if old.is_ended]:
            self._rings.pop(other).close()
        old_ring = self._rings.pop(mac, None)
        if old_ring is not None:
            old_ring.close()
        while len(self._rings) >= RING_LIMIT:
            self._rings.popitem(last=False)[1].close()
        self._rings[mac] = ring

    def close(self) -> None:
        """Read none of the rings any more."""
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()


def _descriptors(ancillary: Ancillary) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found += [number for (number,) in _DESCRIPTOR.iter_unpack(data[: len(data) & ~3])]
    return found
