"""Frames in a file that Wireshark and tcpdump read: pcapng (draft-ietf-opsawg-pcapng).

Knows how a frame is written down; does not know where frames come from or who opened the file.
"""

from __future__ import annotations

import struct
import time
from itertools import chain
from typing import TYPE_CHECKING

from .abc import Instrument
from .errors import HeaderError
from .header.address import BROADCAST_MAC, is_multicast_mac
from .header.offload import split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import BinaryIO, Self

    from .header.frame import Frame

__all__ = ["Capture"]

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_ENHANCED_PACKET = 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_LINKTYPE_ETHERNET = 1

_OPTION_END = struct.pack("<HH", 0, 0)
_OPTION_APPLICATION = 4  # shb_userappl
_OPTION_INTERFACE_NAME = 2  # if_name
_OPTION_RESOLUTION = 9  # if_tsresol: a power of ten
_NANOSECONDS = 9

_INBOUND = 1
_OUTBOUND = 2
_UNICAST, _MULTICAST, _BROADCAST = 1 << 2, 2 << 2, 3 << 2

_PACKET = struct.Struct("<IIIIIII")
_PACKET_END = struct.Struct("<HHIHHI")
_FIXED = _PACKET.size + _PACKET_END.size


class Capture(Instrument):
    """Writes the frames it is shown to a binary file, as they pass.

    What is written is what passes between stack and wire, as tcpdump on Linux shows what passes
    between kernel and driver: a frame may be a super-segment of 64 KiB whose checksum is not
    finished.  With *plain* it is written as the segments that a wire without offloads carries.

    An error of the file does not end the network: the capture stops there, and `close` raises it.
    Every burst is flushed, so that a reader may follow.  Used as a context manager it closes
    itself; the file is the caller's to close.

    Args:
        file: open for writing in binary mode, at the place where the capture is to start.  Writes
            block, so a slow file slows the network down.
        name: of the interface, for those who read the capture.
        origin: the Unix time in nanoseconds at which the clock of the instrument was 0.  None takes
            it from the machine's clock when the first burst comes; give 0 for a virtual clock.
        snap_length: octets to keep of each frame; 0 keeps all.
        plain: cut super-segments and finish checksums before writing.

    Attributes:
        written: frames in the file so far.
        error: what stopped the capture, or None.

    Raises:
        OSError: the head of the file cannot be written.
        ValueError: *snap_length* is negative.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        name: str = "zttrio",
        origin: int | None = None,
        snap_length: int = 0,
        plain: bool = False,
    ) -> None:
        if snap_length < 0:
            raise ValueError(f"snap_length must not be negative, got {snap_length}")
        self.written = 0
        self.error: OSError | None = None
        self._file = file
        self._origin = origin
        self._snap_length = snap_length
        self._is_plain = plain
        self._is_open = True
        self._write(_section_header() + _interface_description(name, snap_length))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write no more; the file stays open.  Closing twice is the same as closing once.

        Raises:
            OSError: the capture is not complete, because the file could not be written.
        """
        if self._is_open:
            self._is_open = False
            if self.error is not None:
                raise self.error

    def frames_received(self, frames: Sequence[Frame], now: float) -> None:
        """Write a burst from the wire, all of it with the time *now*."""
        self._record(frames, now, _INBOUND)

    def frames_sent(self, frames: Sequence[Frame], now: float) -> None:
        """Write a burst for the wire, all of it with the time *now*."""
        self._record(frames, now, _OUTBOUND)

    def _record(self, frames: Sequence[Frame], now: float, direction: int) -> None:
        if not self._is_open or self.error is not None:
            return
        elapsed = round(now * 1e9)
        if self._origin is None:
            self._origin = time.time_ns() - elapsed
        # What a virtual clock may say is more than the field holds.
        timestamp = min(max(0, self._origin + elapsed), 0xFFFF_FFFF_FFFF_FFFF)
        if self._is_plain:
            frames = list(chain.from_iterable(map(_plain, frames)))
        blocks = [
            _enhanced_packet(frame, timestamp, direction, self._snap_length) for frame in frames
        ]
        try:
            self._write(b"".join(blocks))
        except OSError as exc:
            self.error = exc
        else:
            self.written += len(frames)

    def _write(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            # An unbuffered file may take less than it was given, or nothing.
            taken = self._file.write(rest)
            if not taken:
                raise BlockingIOError(f"capture file: takes none of {len(rest)} octets")
            rest = rest[taken:]
        self._file.flush()


def _plain(frame: Frame) -> list[Frame]:
    """What a wire without offloads carries for *frame*."""
    try:
        return split(frame)
    except HeaderError:
        return [frame]  # junk from the wire that pretends; it is written as it is


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _section_header() -> bytes:
    # The length of the section is not known in advance: -1 (section 4.1).
    start = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
    return _block(_SECTION_HEADER, start + _option(_OPTION_APPLICATION, b"zttrio") + _OPTION_END)


def _interface_description(name: str, snap_length: int) -> bytes:
    start = struct.pack("<HHI", _LINKTYPE_ETHERNET, 0, snap_length)
    options = _option(_OPTION_INTERFACE_NAME, name.encode())
    options += _option(_OPTION_RESOLUTION, bytes((_NANOSECONDS,)))
    return _block(_INTERFACE_DESCRIPTION, start + options + _OPTION_END)


def _enhanced_packet(frame: Frame, timestamp: int, direction: int, snap_length: int) -> bytes:
    octets = bytes(frame)
    destination = octets[:6]
    if destination == BROADCAST_MAC:
        flags = direction | _BROADCAST
    elif destination and is_multicast_mac(destination):
        flags = direction | _MULTICAST
    else:
        flags = direction | _UNICAST
    kept = octets[:snap_length] if snap_length else octets
    padding = -len(kept) % 4
    length = _FIXED + len(kept) + padding
    start = _PACKET.pack(
        _ENHANCED_PACKET,
        length,
        0,
        timestamp >> 32,
        timestamp & 0xFFFF_FFFF,
        len(kept),
        len(octets),
    )
    # epb_flags (code 2), the end of the options, and the length again
    return b"".join((start, kept, bytes(padding), _PACKET_END.pack(2, 4, flags, 0, 0, length)))
