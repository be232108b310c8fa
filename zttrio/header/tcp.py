"""The TCP header with its options (RFC 9293 section 3.1, RFC 7323, RFC 2018)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "ACK",
    "CWR",
    "ECE",
    "FIN",
    "LENGTH",
    "MAX_LENGTH",
    "MAX_OPTIONS",
    "PSH",
    "RST",
    "SYN",
    "URG",
    "TcpHeader",
    "flags_text",
]

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMP = 0, 1, 2, 3, 4, 5, 8

_LAYOUT = struct.Struct("!HHIIBBHHH")
_LAYOUT_TIMESTAMP = struct.Struct("!HHIIBBHHHIII")
_PORTS = struct.Struct("!HHI")
_U16 = struct.Struct("!H")
_U32_PAIR = struct.Struct("!II")
_SACK_BLOCKS = tuple(struct.Struct(f"!{2 * count}I") for count in range(5))
LENGTH = _LAYOUT.size
MAX_LENGTH = 60
"""The most the four bits of the data offset can say."""
MAX_OPTIONS = MAX_LENGTH - LENGTH

# NOP NOP TIMESTAMP 10: what nearly every segment of a modern connection carries, and all it does
# (RFC 7323 appendix A).
_TIMESTAMP_WORD = 0x0101080A
_TIMESTAMP_OPTION = _TIMESTAMP_WORD.to_bytes(4, "big")


def flags_text(flags: int) -> str:
    """``SA`` for a SYN with ACK: the letters that packet dumps use."""
    return "".join(letter for bit, letter in enumerate("FSRPAUEC") if flags >> bit & 1)


@attrs.define
class TcpHeader:
    """The 20 to 60 octets in front of a segment.

    Attributes:
        src_port: the sender's port.
        dst_port: the receiver's port.
        seq: sequence number of the first octet, or of the SYN.
        ack: the next sequence number expected; valid if ACK is set.
        flags: the sum of FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
        window: as on the wire, not scaled yet.
        urgent: valid if URG is set.
        checksum: as on the wire; neither verified nor computed here, because the pseudo-header is
            needed for that (`zttrio.header.checksum.transport_checksum`).
        mss: largest segment the sender takes, without options, or None.  An offer of 0 is read as
            none, as Linux does.
        window_scale: shift count as on the wire; TCP treats more than 14 as 14 (RFC 7323 2.3).
        sack_permitted: the sender understands SACK blocks.
        sack_blocks: at most four ``(left, right)`` edges.
        timestamp: ``(TSval, TSecr)`` or None.
        data_offset: octets of header as received, unknown options included.  `emit` computes its
            own.
    """

    src_port: int
    dst_port: int
    seq: int
    ack: int
    flags: int
    window: int
    urgent: int = 0
    checksum: int = 0
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    sack_blocks: tuple[tuple[int, int], ...] = ()
    timestamp: tuple[int, int] | None = None
    data_offset: int = LENGTH

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> TcpHeader:
        """Read the header at *offset* of *data*, which must hold all of it, options included.

        Options are read as tolerantly as Linux and the BSDs read them: an unknown kind is skipped,
        a known kind of a wrong length too, the last of several equal kinds counts, and where a
        length is below 2 or overruns the header, reading stops and what came before it counts.
        RFC 9293 (MUST-7) leaves that to the implementation; to discard the segment instead would
        give a connection that middleboxes pad badly no chance, and gains nothing, since options
        are hints and lengths were bounded before.

        MSS, window scale and SACK permitted are read from every segment; they mean something in a
        SYN only.

        Raises:
            HeaderError: the header is cut short, or its length field is below 20.
        """
        there = len(data) - offset
        if there < LENGTH:
            raise HeaderError(f"TCP header needs {LENGTH} octets, got {there}")
        src_port, dst_port, seq, ack, words, flags, window, check, urgent = _LAYOUT.unpack_from(
            data, offset
        )
        data_offset = words >> 4 << 2
        if data_offset == LENGTH:
            return cls(src_port, dst_port, seq, ack, flags, window, urgent, check)
        if not LENGTH < data_offset <= there:
            raise HeaderError(f"TCP data offset {data_offset}: not between {LENGTH} and {there}")
        header = cls(src_port, dst_port, seq, ack, flags, window, urgent, check)
        header.data_offset = data_offset
        start = offset + LENGTH
        if data_offset == 32 and data[start : start + 4] == _TIMESTAMP_OPTION:
            header.timestamp = _U32_PAIR.unpack_from(data, start + 4)
        else:
            header._read_options(data, start, offset + data_offset)
        return header

    @classmethod
    def parse_quoted(cls, data: Buffer, offset: int = 0) -> TcpHeader:
        """Read what an ICMP error quotes: ports and sequence number, all else is 0.

        RFC 792 promises eight octets of the transport header and no more.

        Raises:
            HeaderError: fewer than eight octets are there.
        """
        if len(data) - offset < _PORTS.size:
            raise HeaderError(
                f"quoted TCP header needs {_PORTS.size} octets, got {len(data) - offset}"
            )
        src_port, dst_port, seq = _PORTS.unpack_from(data, offset)
        return cls(src_port, dst_port, seq, 0, 0, 0)

    def _read_options(self, data: Buffer, at: int, end: int) -> None:
        while at < end:
            kind = data[at]
            if kind == _NOP:
                at += 1
                continue
            if kind == _END or at + 2 > end:
                return
            length = data[at + 1]
            if length < 2 or at + length > end:
                return
            if kind == _TIMESTAMP and length == 10:
                self.timestamp = _U32_PAIR.unpack_from(data, at + 2)
            elif kind == _MSS and length == 4:
                self.mss = _U16.unpack_from(data, at + 2)[0] or None
            elif kind == _WINDOW_SCALE and length == 3:
                self.window_scale = data[at + 2]
            elif kind == _SACK_PERMITTED and length == 2:
                self.sack_permitted = True
            elif kind == _SACK and length in (10, 18, 26, 34):
                edges = _SACK_BLOCKS[length >> 3].unpack_from(data, at + 2)
                self.sack_blocks = tuple(zip(edges[::2], edges[1::2], strict=True))
            at += length

    def emit(self) -> bytes:
        """The same header as octets, options laid out as Linux lays them out.

        Raises:
            ValueError: the options need more than 40 octets (four SACK blocks leave no room for a
                timestamp).
            struct.error: a value does not fit its field.
        """
        if self.mss is None and self.window_scale is None and not self.sack_permitted:
            if self.timestamp is None and not self.sack_blocks:
                return self._pack(LENGTH)
            if not self.sack_blocks and self.timestamp is not None:
                return _LAYOUT_TIMESTAMP.pack(
                    self.src_port,
                    self.dst_port,
                    self.seq,
                    self.ack,
                    0x80,
                    self.flags,
                    self.window,
                    self.checksum,
                    self.urgent,
                    _TIMESTAMP_WORD,
                    *self.timestamp,
                )
        options = self._emit_options()
        if len(options) > MAX_OPTIONS:
            raise ValueError(f"TCP options of {len(options)} octets: at most {MAX_OPTIONS} fit")
        return self._pack(LENGTH + len(options)) + options

    def _pack(self, data_offset: int) -> bytes:
        return _LAYOUT.pack(
            self.src_port,
            self.dst_port,
            self.seq,
            self.ack,
            data_offset << 2,
            self.flags,
            self.window,
            self.checksum,
            self.urgent,
        )

    def _emit_options(self) -> bytes:
        parts: list[bytes] = []
        if self.mss is not None:
            parts.append(struct.pack("!BBH", _MSS, 4, self.mss))
        if self.timestamp is not None:
            # SACK permitted takes the place of the two NOPs.
            lead = b"\x04\x02\x08\x0a" if self.sack_permitted else _TIMESTAMP_OPTION
            parts.append(lead + _U32_PAIR.pack(*self.timestamp))
        elif self.sack_permitted:
            parts.append(b"\x01\x01\x04\x02")
        if self.window_scale is not None:
            parts.append(struct.pack("!BBBB", _NOP, _WINDOW_SCALE, 3, self.window_scale))
        if self.sack_blocks:
            count = len(self.sack_blocks)
            if count >= len(_SACK_BLOCKS):
                raise ValueError(f"TCP options with {count} SACK blocks: at most four fit")
            edges = [edge for block in self.sack_blocks for edge in block]
            lead = bytes((_NOP, _NOP, _SACK, 2 + 8 * count))
            parts.append(lead + _SACK_BLOCKS[count].pack(*edges))
        return b"".join(parts)
