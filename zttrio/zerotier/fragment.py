"""Packets that are longer than one datagram: cutting them, and putting them together again.

Fragments are not authenticated, only the packet they make is, so everything here is bounded: the
number of unfinished packets, how many of them one sender can occupy, and their age
(VL1 specification, 8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .constants import MAX_FRAGMENTS, MAX_PACKET, WAITING_TIME

if TYPE_CHECKING:
    from collections.abc import Callable

    from .counters import Counters
    from .endpoint import Endpoint

__all__ = ["FRAGMENT_HEADER", "Reassembler", "datagram_count", "split"]

FRAGMENT_HEADER = 16
_MARKER = 0xFF
_ENTRIES = 32  # as the reference
_ENTRIES_PER_SENDER = 16  # arbitrary: it takes at least two addresses to push everybody out


def datagram_count(length: int, mtu: int) -> int:
    """How many datagrams of *mtu* octets a packet of *length* octets takes."""
    if length <= mtu:
        return 1
    return 1 + -(-(length - mtu) // (mtu - FRAGMENT_HEADER))


def split(packet: bytes, mtu: int) -> list[bytes]:
    """Cut a sealed packet into datagrams of at most *mtu* octets, all of nearly equal size.

    Equal sizes let one system call send them and those of the next packet (UDP GSO); receivers
    join parts by their number, whatever their sizes.

    Raises:
        ValueError: it takes more than seven.
    """
    length = len(packet)
    count = datagram_count(length, mtu)
    if count == 1:
        return [packet]
    if count > MAX_FRAGMENTS:
        raise ValueError(f"packet of {length} octets: takes {count} datagrams of {mtu}, 7 at most")
    size = -(-(length + FRAGMENT_HEADER * (count - 1)) // count)
    parts = [packet[:size]]
    head = packet[:13]
    offset = size
    for number in range(1, count):
        end = offset + size - FRAGMENT_HEADER
        parts.append(b"%b%c%c\x00%b" % (head, _MARKER, count << 4 | number, packet[offset:end]))
        offset = end
    return parts


@attrs.define
class _Unfinished:
    """The parts of one packet that have arrived."""

    sender: bytes
    since: float
    parts: dict[int, bytes] = attrs.field(factory=dict)
    total: int = 0  # as the tails say; 0 while none has come
    arrival: tuple[int, Endpoint] | None = None  # where the head came in


class Reassembler:
    """Unfinished packets by packet ID.

    Args:
        counters: where drops are counted.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._unfinished: dict[bytes, _Unfinished] = {}

    def __len__(self) -> int:
        return len(self._unfinished)

    def receive_head(self, packet: bytes, local: int, remote: Endpoint, now: float) -> bytes | None:
        """Take in the first datagram of a fragmented packet.

        Returns:
            The whole packet if this completed it.
        """
        entry = self._entry(packet[:8], remote.ip, now)
        if 0 in entry.parts:
            self._counters.fragment_duplicate += 1
            return None
        entry.parts[0] = packet
        entry.arrival = (local, remote)
        return self._finish(packet[:8], entry)

    def receive_tail(
        self, datagram: bytes, remote: Endpoint, now: float
    ) -> tuple[bytes, int, Endpoint] | None:
        """Take in a fragment.

        Returns:
            The whole packet, if this completed it, and the socket and endpoint its head came by.
        """
        total, number = datagram[14] >> 4, datagram[14] & 0x0F
        if not (2 <= total <= MAX_FRAGMENTS and 1 <= number < total):
            self._counters.fragment_malformed += 1
            return None
        entry = self._entry(datagram[:8], remote.ip, now)
        if number in entry.parts:
            self._counters.fragment_duplicate += 1
            return None
        if entry.total not in (0, total):
            self._counters.fragment_malformed += 1
            return None
        entry.total = total
        entry.parts[number] = datagram[FRAGMENT_HEADER:]
        packet = self._finish(datagram[:8], entry)
        if packet is None or entry.arrival is None:
            return None
        return packet, *entry.arrival

    def expire(self, now: float) -> None:
        """Forget packets that have waited too long for their missing parts."""
        old = [key for key, e in self._unfinished.items() if now - e.since >= WAITING_TIME]
        for key in old:
            del self._unfinished[key]
        self._counters.fragment_timeout += len(old)

    def _entry(self, packet_id: bytes, sender: bytes, now: float) -> _Unfinished:
        entry = self._unfinished.get(packet_id)
        if entry is not None and now - entry.since < WAITING_TIME:
            return entry
        if entry is not None:
            del self._unfinished[packet_id]
            self._counters.fragment_timeout += 1
        self._make_room(lambda e: e.sender == sender, _ENTRIES_PER_SENDER)
        self._make_room(lambda e: True, _ENTRIES)
        entry = self._unfinished[packet_id] = _Unfinished(sender, now)
        return entry

    def _make_room(self, counts: Callable[[_Unfinished], bool], limit: int) -> None:
        keys = [key for key, entry in self._unfinished.items() if counts(entry)]
        if len(keys) >= limit:
            del self._unfinished[keys[0]]  # dictionaries keep the order of insertion
            self._counters.fragment_evicted += 1

    def _finish(self, packet_id: bytes, entry: _Unfinished) -> bytes | None:
        if 0 not in entry.parts or len(entry.parts) != entry.total:
            self._counters.fragment_kept += 1
            return None
        del self._unfinished[packet_id]
        packet = b"".join(entry.parts[number] for number in range(entry.total))
        if len(packet) > MAX_PACKET:
            self._counters.fragment_too_long += 1
            return None
        self._counters.fragment_completed += 1
        return packet
