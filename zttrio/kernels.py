"""Loops over octets, in C if the package was built with a compiler, in Python if not.

Knows headers and sums, and no protocol state.  Every function has a twin of the same signature
in Python, whose name ends in ``_in_python``; the same tests run against both.  The environment
variable ``ZTTRIO_PURE=1`` makes this module use the twins even if the library is there.

A wire whose other side is a plain cable calls these at its edge: with `split` the stack may send
super-segments there too, and with `merge` it receives them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .errors import HeaderError
from .header.checksum import finish, fold, sum_of
from .header.frame import (
    CHECKSUM_COMPLETE,
    CHECKSUM_PARTIAL,
    CHECKSUM_VERIFIED,
    Frame,
)
from .header.ipv4 import PROTOCOL_TCP
from .header.offload import cut as cut_in_python
from .header.offload import locate_segment
from .header.offload import split as split_in_python
from .header.tcp import ACK, PSH

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MERGE_LIMIT",
    "cut",
    "cut_in_python",
    "is_native",
    "merge",
    "merge_burst",
    "merge_burst_in_python",
    "merge_in_python",
    "split",
    "split_in_python",
    "sum_of",
    "write_frames",
    "write_frames_in_python",
]

LIBRARY = Path(__file__).parent / "_native" / "libzttrio_kernels.so"
ABI = 2
MERGE_LIMIT = 256
"""Frames that `merge` takes at once."""

_IP_AT = 14
_MAX_PACKET = 0xFFFF
_IPV4_START, _IPV6_START = b"\x08\0\x45", b"\x86\xdd"  # from the EtherType on, without options
# What comes before the length, the length, what comes behind it but identification and checksum,
# addresses and ports, sequence number, acknowledgment and header length, flags, window.
_IPV4_TCP = struct.Struct("!16sH2x4s2x12sI5sB2s")
_IPV6_TCP = struct.Struct("!18sH2s36sI5sB2s")
_TIMESTAMPS = b"\1\1\x08\x0a"  # NOP, NOP, kind, length
_Fixed = tuple[bytes, bytes, bytes, bytes, bytes]
_NOTHING: _Fixed = (b"",) * 5
_COLUMNS = 5
_TABLE = (ctypes.c_uint32 * (_COLUMNS * MERGE_LIMIT))()
_ROWS = memoryview(_TABLE).cast("B").cast("I")
_LENGTHS = (ctypes.c_uint32 * MERGE_LIMIT)()
_ERROR = ctypes.c_int32()


def _load(path: Path) -> ctypes.CDLL | None:
    """The library, or None if it is not there, not for this machine, or of another version."""
    if os.environ.get("ZTTRIO_PURE") == "1":
        return None
    try:
        library = ctypes.CDLL(str(path))
        if library.zttrio_start() != ABI:
            return None
    except (OSError, AttributeError):
        return None
    library.zttrio_sum.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    library.zttrio_sum.restype = ctypes.c_uint32
    library.zttrio_split.argtypes = (
        ctypes.c_char_p,
        *(ctypes.c_size_t,) * 4,
        ctypes.POINTER(ctypes.c_char),
    )
    library.zttrio_split.restype = ctypes.c_uint32
    library.zttrio_merge.argtypes = (
        ctypes.POINTER(ctypes.c_char),
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_uint32),
        ctypes.c_uint32,
        ctypes.POINTER(ctypes.c_char),
        ctypes.POINTER(ctypes.c_uint32),
    )
    library.zttrio_merge.restype = ctypes.c_uint32
    library.zttrio_write.argtypes = (
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_int32),
    )
    library.zttrio_write.restype = ctypes.c_uint32
    return library


_library = _load(LIBRARY)
is_native = _library is not None
"""Whether the C library is in use."""


def _split_natively(frame: Frame, mtu: int | None = None) -> list[Frame]:
    found = locate_segment(frame) if frame.gso_size else None
    if found is None:
        return split_in_python(frame, mtu)
    out, step = _cut(frame, mtu, *found)
    state = CHECKSUM_VERIFIED if frame.checksum == CHECKSUM_VERIFIED else CHECKSUM_COMPLETE
    view = memoryview(out)
    return [Frame(view[at : at + step], b"", 0, state) for at in range(0, len(out), step)]


def _cut(
    frame: Frame, mtu: int | None, start: int, data_at: int, end: int
) -> tuple[bytearray, int]:
    assert _library is not None  # noqa: S101 - chosen below
    size = frame.gso_size
    if mtu is not None:
        size = min(size, mtu - (data_at - _IP_AT))
        if size <= 0:
            raise ValueError(f"mtu {mtu}: no room behind {data_at - _IP_AT} octets of headers")
    count = max(1, -(-(end - data_at) // size))
    out = bytearray(end + (count - 1) * data_at)
    _library.zttrio_split(
        bytes(frame), end, start, data_at, size, ctypes.byref(ctypes.c_char.from_buffer(out))
    )
    return out, data_at + size


def _cut_natively(frame: Frame, mtu: int | None = None) -> tuple[bytearray, int]:
    if not frame.gso_size:
        raise HeaderError("cut: not a super-segment")
    return _cut(frame, mtu, *locate_segment(frame))


def write_frames_in_python(
    device: int, frames: bytearray, step: int, start: int = 0
) -> tuple[int, int]:
    """Write *frames* to a device, one call of `os.write` for each *step* octets.

    Args:
        device: the descriptor.
        frames: as `cut` returns them.
        step: octets of each, at least one; the last may be shorter.
        start: where to begin.

    Returns:
        How many frames were written, and the errno that kept the next one from it, or 0.
    """
    count = 0
    with memoryview(frames) as view:
        for at in range(start, len(frames), step):
            try:
                os.write(device, view[at : at + step])
            except OSError as exc:
                return count, exc.errno or errno.EIO
            count += 1
    return count, 0


def _write_frames_natively(
    device: int, frames: bytearray, step: int, start: int = 0
) -> tuple[int, int]:
    assert _library is not None  # noqa: S101 - chosen below
    if step <= 0:
        raise ValueError(f"step {step}: must be positive")
    length = len(frames) - start
    if length <= 0:
        return 0, 0
    octets = ctypes.c_char.from_buffer(frames, start)
    count = _library.zttrio_write(device, ctypes.addressof(octets), length, step, _ERROR)
    return count, _ERROR.value


def merge_in_python(buffer: bytearray, stride: int, lengths: list[int]) -> list[Frame]:
    """The frames of a burst, with TCP segments that belong together merged into super-segments.

    The rules are those of Linux's GRO: segments of one flow, each the next of the one before, with
    data, no flags but ACK and PSH, and headers that differ in nothing but sequence number,
    identification, length and checksum; a short one or one with PSH is the last.  Of pure ACKs
    that follow each other, each acknowledging more and none with options but timestamps, the last
    one is kept (RFC 3449 section 5.2.1, ACK filtering).  No segment overtakes another of its flow.
    Merged segments are CHECKSUM_PARTIAL, and only merged if their checksums were right; TCP
    segments that stay alone are CHECKSUM_VERIFIED if theirs was, and everything else is
    CHECKSUM_COMPLETE, for the stack to look at.

    Args:
        buffer: the burst; frame *i* starts at ``i * stride``.  It may be reused at once.
        stride: octets from one frame's start to the next.
        lengths: octets of each frame, at least 14 and at most *stride*; at most `MERGE_LIMIT`.
    """
    with memoryview(buffer) as view:
        starts = range(0, len(lengths) * stride, stride)
        burst = [bytes(view[at : at + size]) for at, size in zip(starts, lengths, strict=True)]
    return merge_burst_in_python(burst)


def merge_burst_in_python(burst: list[bytes]) -> list[Frame]:
    """What `merge_in_python` does, of frames that are `bytes` already, at most `MERGE_LIMIT`."""
    made: list[_Group] = []
    open_groups: dict[bytes, _Group] = {}
    for octets in burst:
        segment = _look_at(octets)
        if segment is None:
            made.append(_Group(octets))
            continue
        data_at, end, flow, seq, flags, fixed = segment
        payload = end - data_at
        group = open_groups.get(flow)
        if group is not None:
            if (
                payload
                and seq == group.next_seq
                and flags & ~PSH == ACK
                and payload <= group.gso_size
                and fixed == group.fixed
                and data_at - _IP_AT + group.payload + payload <= _MAX_PACKET
            ):
                group.pieces.append(octets[data_at:end])
                group.payload += payload
                group.next_seq = (seq + payload) & 0xFFFF_FFFF
                if flags & PSH or payload < group.gso_size:
                    group.has_push = flags & PSH
                    del open_groups[flow]
                continue
            if (
                not payload
                and not group.payload
                and seq == group.next_seq
                and flags == ACK
                and _is_plain(fixed[4])
                and _outdates(fixed, group.fixed)
            ):
                group.octets, group.end, group.fixed = octets, end, fixed
                continue
            del open_groups[flow]
        group = _Group(octets, CHECKSUM_VERIFIED)
        made.append(group)
        group.data_at, group.end = data_at, end
        group.gso_size = group.payload = payload
        if flags == ACK and (payload or _is_plain(fixed[4])):
            group.next_seq = (seq + payload) & 0xFFFF_FFFF
            group.fixed = fixed
            open_groups[flow] = group
    return [group.frame() for group in made]


class _Group:
    """Segments that are becoming one, or anything else, alone."""

    __slots__ = (
        "data_at", "end", "fixed", "gso_size", "has_push", "next_seq", "octets", "payload",
        "pieces", "state",
    )  # fmt: skip

    def __init__(self, octets: bytes, state: int = CHECKSUM_COMPLETE) -> None:
        self.octets = octets
        self.state = state
        self.pieces: list[bytes] = []
        self.fixed: _Fixed = _NOTHING
        self.has_push = 0
        self.data_at = self.end = 0
        self.gso_size = self.payload = self.next_seq = 0

    def frame(self) -> Frame:
        octets = self.octets
        if not self.pieces:
            if self.payload and self.end == len(octets):
                view = memoryview(octets)
                return Frame(octets[: self.data_at], view[self.data_at :], 0, self.state)
            return Frame(octets, b"", 0, self.state)
        data_at = self.data_at
        header = bytearray(octets[:data_at])
        total = data_at - _IP_AT + self.payload
        if header[_IP_AT] >> 4 == 4:
            tcp_at, addresses = 34, octets[26:34]
            header[_IP_AT + 2 : _IP_AT + 4] = total.to_bytes(2, "big")
            header[_IP_AT + 10 : _IP_AT + 12] = b"\0\0"
            check = finish(sum_of(header[_IP_AT:tcp_at]))
            header[_IP_AT + 10 : _IP_AT + 12] = check.to_bytes(2, "big")
        else:
            tcp_at, addresses = 54, octets[22:54]
            header[_IP_AT + 4 : _IP_AT + 6] = (total - 40).to_bytes(2, "big")
        header[tcp_at + 13] |= self.has_push
        check = fold(sum_of(addresses) + PROTOCOL_TCP + data_at - tcp_at + self.payload)
        header[tcp_at + 16 : tcp_at + 18] = check.to_bytes(2, "big")
        payload = b"".join((memoryview(octets)[data_at : self.end], *self.pieces))
        return Frame(bytes(header), memoryview(payload), self.gso_size, CHECKSUM_PARTIAL)


def _look_at(octets: bytes) -> tuple[int, int, bytes, int, int, _Fixed] | None:
    """What there is to know about a segment; None if checksums are not right.

    Only for packets without IP options, extension headers and fragments.

    Returns:
        Where payload and packet end, addresses and ports, sequence number, flags, and everything
        else that must be the same in two segments that are merged.
    """
    length = len(octets)
    start = octets[12:15]
    if start == _IPV4_START and length >= 54:
        front, size, middle, flow, seq, ack, flags, window = _IPV4_TCP.unpack_from(octets)
        if middle[3] != PROTOCOL_TCP or (middle[0] & 0x3F) | middle[1]:
            return None
        if int.from_bytes(octets[14:34], "big") % 0xFFFF:
            return None
        addresses_at, tcp_at, end = 26, 34, 14 + size
    elif start[:2] == _IPV6_START and length >= 74 and octets[14] >> 4 == 6:
        front, size, middle, flow, seq, ack, flags, window = _IPV6_TCP.unpack_from(octets)
        if middle[0] != PROTOCOL_TCP:
            return None
        addresses_at, tcp_at, end = 22, 54, 54 + size
    else:
        return None
    data_at = tcp_at + (ack[4] >> 4) * 4
    if not tcp_at + 20 <= data_at <= end <= length:
        return None
    # The addresses are right before the TCP header, so the pseudo-header needs no sum of its own.
    if (sum_of(octets[addresses_at:end]) + PROTOCOL_TCP + end - tcp_at) % 0xFFFF:
        return None
    return (
        data_at,
        end,
        flow,
        seq,
        flags,
        (front, middle, ack, window, octets[tcp_at + 18 : data_at]),
    )


def _is_plain(tail: bytes) -> bool:
    """True if behind the checksum are no options, or just timestamps where everybody puts them."""
    length = len(tail)
    return length == 2 or (length == 14 and tail[2:6] == _TIMESTAMPS)


def _outdates(new: _Fixed, old: _Fixed) -> bool:
    """True if a plain pure ACK says all that another said, and acknowledges more."""
    front, middle, ack, _, tail = new
    old_front, old_middle, old_ack, _, old_tail = old
    return (
        front == old_front
        and middle == old_middle
        and ack[4] == old_ack[4]
        and 0 < _distance(ack, old_ack, 0) < 1 << 31
        and (len(tail) == 2 or _distance(tail, old_tail, 6) < 1 << 31)
    )


def _distance(new: bytes, old: bytes, at: int) -> int:
    difference = int.from_bytes(new[at : at + 4], "big") - int.from_bytes(old[at : at + 4], "big")
    return difference & 0xFFFF_FFFF


def _merge_natively(buffer: bytearray, stride: int, lengths: list[int]) -> list[Frame]:
    assert _library is not None  # noqa: S101 - chosen below
    count = len(lengths)
    if not 0 < count <= MERGE_LIMIT or len(buffer) < count * stride:
        raise ValueError(f"merge: {count} frames in {len(buffer)} octets")
    _LENGTHS[:count] = cast("list[ctypes.c_uint32 | int]", lengths)
    out = bytearray(sum(lengths))
    rows = _library.zttrio_merge(
        ctypes.byref(ctypes.c_char.from_buffer(buffer)),
        stride,
        _LENGTHS,
        count,
        ctypes.byref(ctypes.c_char.from_buffer(out)),
        _TABLE,
    )
    view = memoryview(out)
    table = _ROWS[: rows * _COLUMNS].tolist()
    frames = []
    for row in range(0, rows * _COLUMNS, _COLUMNS):
        at, length, cut, gso_size, state = table[row : row + _COLUMNS]
        if 0 < cut < length:
            header = bytes(view[at : at + cut])
            frames.append(Frame(header, view[at + cut : at + length], gso_size, state))
        else:
            frames.append(Frame(bytes(view[at : at + length]), b"", 0, state))
    return frames


def _merge_burst_natively(burst: list[bytes]) -> list[Frame]:
    if not burst:
        return []
    lengths = list(map(len, burst))
    stride = max(lengths)
    buffer = bytearray(b"".join([octets.ljust(stride, b"\0") for octets in burst]))
    return _merge_natively(buffer, stride, lengths)


split: Callable[..., list[Frame]] = _split_natively if is_native else split_in_python
cut: Callable[..., tuple[bytearray, int]] = _cut_natively if is_native else cut_in_python
write_frames: Callable[..., tuple[int, int]] = (
    _write_frames_natively if is_native else write_frames_in_python
)
merge: Callable[[bytearray, int, list[int]], list[Frame]] = (
    _merge_natively if is_native else merge_in_python
)
merge_burst: Callable[[list[bytes]], list[Frame]] = (
    _merge_burst_natively if is_native else merge_burst_in_python
)
