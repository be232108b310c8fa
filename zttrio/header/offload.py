"""What a network card with offloads does for a stack: finish checksums, cut super-segments.

A wire whose other side cannot do it calls this at its edge; see `zttrio.header.frame`.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError

from . import ethernet, ipv4, ipv6, tcp
from .checksum import checksum, finish, fold, pseudo_header, sum_of
from .frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL, Frame

if TYPE_CHECKING:
    from .frame import Buffer

__all__ = [
    "cut",
    "finish_checksum",
    "locate_checksum",
    "locate_segment",
    "split",
    "split_datagrams",
]

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_IPV4_CHANGES = struct.Struct("!HH4sH")  # length, identification, what does not, checksum
_TCP_CHANGES = struct.Struct("!I5sB2sH")  # sequence number, the same, flags, the same, checksum
_CHECKSUM_AT = {ipv4.PROTOCOL_TCP: 16, ipv4.PROTOCOL_UDP: 6, ipv4.PROTOCOL_ICMPV6: 2}
_IP_AT = ethernet.LENGTH
_FIN_AND_PSH = tcp.FIN | tcp.PSH


def finish_checksum(frame: Frame) -> Frame:
    """*frame* with its TCP, UDP or ICMPv6 checksum filled in.

    The same object if there is nothing to do (anything but CHECKSUM_PARTIAL), otherwise a new
    frame with the same payload object, which is CHECKSUM_COMPLETE.  A super-segment stays one, with
    the checksum of its whole length.

    Raises:
        HeaderError: the frame claims a partial checksum and is no such packet.
    """
    if frame.checksum != CHECKSUM_PARTIAL:
        return frame
    header, payload, protocol, start, _, end = _locate(frame)
    # The field holds the pseudo-header's sum already, so it needs no zeroing.
    if end < len(frame):  # Ethernet padding is no part of the packet
        value = checksum(memoryview(bytes(frame))[start:end])
    else:
        value = checksum(memoryview(header)[start:], payload)
    if protocol == ipv4.PROTOCOL_UDP:
        value = value or 0xFFFF
    finished = bytearray(header)
    _U16.pack_into(finished, start + _CHECKSUM_AT[protocol], value)
    return Frame(bytes(finished), payload, frame.gso_size, CHECKSUM_COMPLETE)


def split(frame: Frame, mtu: int | None = None, *, complete: bool = True) -> list[Frame]:
    """*frame* as plain frames without a `gso_size`, each with its checksums filled in.

    A super-segment becomes the TCP segments it stands for, in order: sequence numbers and IPv4
    identifications count up, FIN and PSH are on the last one only and CWR on the first one only
    (RFC 3168 section 6.1.2), options are the same on all.  Payloads are memoryviews of the
    original.  A frame that is not a super-segment comes out as `finish_checksum` returns it.

    The checksum of a super-segment that was not CHECKSUM_PARTIAL is replaced, not verified.

    Args:
        frame: anything the stack sends.
        mtu: if given, segments are shorter than `Frame.gso_size` where an IP packet of this many
            octets would not hold it.
        complete: False leaves checksums unfinished (CHECKSUM_PARTIAL) if they are.

    Raises:
        HeaderError: a frame with a `gso_size` is not a TCP segment.
        ValueError: *mtu* has no room for payload.
    """
    if not frame.gso_size:
        return [finish_checksum(frame) if complete else frame]
    state = frame.checksum
    if state == CHECKSUM_PARTIAL and complete:
        state = CHECKSUM_COMPLETE
    pieces = _cut(frame, mtu, is_partial=state == CHECKSUM_PARTIAL)
    return [Frame(header, payload, 0, state) for header, payload in pieces]


def cut(frame: Frame, mtu: int | None = None) -> tuple[bytearray, int]:
    """What `split` makes of a super-segment, one frame behind the other.

    Returns:
        The frames, and the octets of each; only the last may be shorter.

    Raises:
        HeaderError: *frame* has no `gso_size`, or is not a TCP segment.
        ValueError: *mtu* has no room for payload.
    """
    if not frame.gso_size:
        raise HeaderError("cut: not a super-segment")
    pieces = _cut(frame, mtu, is_partial=False)
    return bytearray().join(chain.from_iterable(pieces)), sum(map(len, pieces[0]))


def _cut(frame: Frame, mtu: int | None, *, is_partial: bool) -> list[tuple[bytes, memoryview]]:
    """The segments of *frame*: pieces of its payload, each behind its own version of the header.

    Raises:
        HeaderError: *frame* is not a TCP segment.
        ValueError: *mtu* has no room for payload.
    """
    start, data_at, end = locate_segment(frame)
    if data_at == len(frame.header):
        header, payload = bytearray(frame.header), memoryview(frame.payload)[: end - data_at]
    else:
        whole = bytes(frame)
        header, payload = bytearray(whole[:data_at]), memoryview(whole)[data_at:end]
    size = frame.gso_size
    if mtu is not None:
        size = min(size, mtu - (data_at - _IP_AT))
        if size <= 0:
            raise ValueError(f"mtu {mtu}: no room behind {data_at - _IP_AT} octets of headers")
    is_ipv4 = header[_IP_AT] >> 4 == 4
    sequence, ack, flags, window, _ = _TCP_CHANGES.unpack_from(header, start + 4)
    # What changes from segment to segment is zeroed for the sums and added to them below.
    _TCP_CHANGES.pack_into(header, start + 4, 0, ack, 0, window, 0)
    identification = ip_sum = 0
    lifetime = b""
    if is_ipv4:
        _, identification, lifetime, _ = _IPV4_CHANGES.unpack_from(header, _IP_AT + 2)
        _IPV4_CHANGES.pack_into(header, _IP_AT + 2, 0, 0, lifetime, 0)
        ip_sum = sum_of(header[_IP_AT:start])
        addresses = header[_IP_AT + 12 : _IP_AT + 20]
    else:
        addresses = header[_IP_AT + 8 : _IP_AT + 40]
    headers_length = data_at - _IP_AT
    pseudo_sum = sum_of(addresses) + ipv4.PROTOCOL_TCP + data_at - start
    tcp_sum = pseudo_sum + sum_of(header[start:])

    pieces = []
    last = max(0, len(payload) - 1) // size * size
    for at in range(0, last + 1, size):
        piece = payload[at : at + size]
        length = len(piece)
        if is_ipv4:
            total = headers_length + length
            number = (identification + at // size) & 0xFFFF
            # This is `finish`, for a sum that is never 0: it has the version in it.
            check = -(ip_sum + total + number) % 0xFFFF
            _IPV4_CHANGES.pack_into(header, _IP_AT + 2, total, number, lifetime, check)
        else:
            _U16.pack_into(header, _IP_AT + 4, headers_length - ipv6.LENGTH + length)
        seq = (sequence + at) & 0xFFFF_FFFF
        own_flags = flags
        if at:
            own_flags &= ~tcp.CWR
        if at < last:
            own_flags &= ~_FIN_AND_PSH
        if is_partial:
            check = fold(pseudo_sum + length)
        else:
            check = finish(tcp_sum + seq + own_flags + length + sum_of(piece))
        _TCP_CHANGES.pack_into(header, start + 4, seq, ack, own_flags, window, check)
        pieces.append((bytes(header), piece))
    return pieces


def split_datagrams(frame: Frame) -> list[Frame]:
    """The UDP datagrams that *frame* stands for, in order (Linux's UDP_SEGMENT).

    Behind the one UDP header there are payloads of `Frame.gso_size` octets, the last may be
    shorter.  IPv4 identifications count up.  Payloads are memoryviews of the original.  Checksums
    stay CHECKSUM_PARTIAL if it was that, and are filled in otherwise.

    Raises:
        HeaderError: the frame has no `gso_size` or is no UDP datagram.
    """
    header, payload, protocol, start, data_at, end = _locate(frame)
    size = frame.gso_size
    if protocol != ipv4.PROTOCOL_UDP or size <= 0:
        raise HeaderError(f"protocol {protocol} with a gso_size of {size}: is no run of datagrams")
    if data_at == len(header):
        payload = memoryview(payload)[: end - data_at]
    else:
        whole = memoryview(bytes(frame))
        header, payload = whole[:data_at], whole[data_at:end]
    is_ipv4 = header[_IP_AT] >> 4 == 4
    at, width = (_IP_AT + 12, 4) if is_ipv4 else (_IP_AT + 8, 16)
    source, destination = bytes(header[at : at + width]), bytes(header[at + width : at + 2 * width])
    frames = []
    for index in range(max(1, -(-len(payload) // size))):
        piece = payload[index * size : (index + 1) * size]
        octets = bytearray(header)
        length = data_at - start + len(piece)
        if is_ipv4:
            identification = (_U16.unpack_from(header, _IP_AT + 4)[0] + index) & 0xFFFF
            total_length = start - _IP_AT + length
            _U32.pack_into(octets, _IP_AT + 2, total_length << 16 | identification)
            _U16.pack_into(octets, _IP_AT + 10, 0)
            _U16.pack_into(octets, _IP_AT + 10, checksum(octets[_IP_AT:start]))
        else:
            _U16.pack_into(octets, _IP_AT + 4, start - _IP_AT - ipv6.LENGTH + length)
        _U16.pack_into(octets, start + 4, length)
        value = fold(pseudo_header(source, destination, protocol, length))
        _U16.pack_into(octets, start + 6, value)
        made = Frame(bytes(octets), piece, 0, CHECKSUM_PARTIAL)
        frames.append(made if frame.checksum == CHECKSUM_PARTIAL else finish_checksum(made))
    return frames


def locate_checksum(frame: Frame) -> tuple[int, int]:
    """The transport's protocol number, and where in *frame* its header starts.

    Raises:
        HeaderError: this is no whole IP packet of a transport whose checksum can be offloaded.
    """
    _, _, protocol, start, _, _ = _locate(frame)
    return protocol, start


def locate_segment(frame: Frame) -> tuple[int, int, int]:
    """Where in *frame* the TCP header and its payload begin, and where the packet ends.

    Raises:
        HeaderError: this is no whole TCP segment.
    """
    _, _, protocol, start, data_at, end = _locate(frame)
    if protocol != ipv4.PROTOCOL_TCP:
        raise HeaderError(f"super-segment of protocol {protocol}: must be TCP")
    return start, data_at, end


def _locate(frame: Frame) -> tuple[Buffer, Buffer, int, int, int, int]:
    """The two pieces of *frame*, its protocol, and where transport, payload and packet start/end.

    If the first piece does not hold all the headers, the pieces returned are others.

    Raises:
        HeaderError: this is no IP packet of a transport with a pseudo-header.
    """
    length = len(frame)
    try:
        return frame.header, frame.payload, *_find_transport(frame.header, length)
    except HeaderError:
        if not frame.payload:
            raise
    joined = bytes(frame)
    return joined, b"", *_find_transport(joined, length)


def _find_transport(header: Buffer, length: int) -> tuple[int, int, int, int]:
    """Protocol, start of transport and of its payload, and end, in a frame of *length* octets.

    Our own frames come here, so the IPv4 checksum is not verified again.

    Raises:
        HeaderError: *header* does not hold all the headers, or has none to offload.
    """
    ethertype = ethernet.EthernetHeader.parse(header).ethertype
    if ethertype == ethernet.ETHERTYPE_IPV4:
        v4 = ipv4.Ipv4Header.parse_quoted(header, _IP_AT)
        protocol, start, end = v4.protocol, _IP_AT + v4.header_length, _IP_AT + v4.total_length
        is_fragment = v4.is_fragment
        counted_from = _IP_AT
    elif ethertype == ethernet.ETHERTYPE_IPV6:
        v6 = ipv6.Ipv6Header.parse_quoted(header, _IP_AT)
        protocol, start = v6.next_header, _IP_AT + ipv6.LENGTH
        end = start + v6.payload_length
        counted_from = start
        is_fragment = False
        for extension in ipv6.iter_extension_headers(protocol, header, start):
            protocol, start = extension.next_header, extension.offset + extension.length
            is_fragment |= extension.kind == ipv6.FRAGMENT
    else:
        raise HeaderError(f"ethertype {ethertype:#06x}: is not IP")
    if end == counted_from and length - counted_from > 0xFFFF:
        end = length  # a super-segment that is longer than any packet
    if is_fragment or protocol not in _CHECKSUM_AT:
        raise HeaderError(f"protocol {protocol}: no checksum to finish here")
    if protocol == ipv4.PROTOCOL_TCP:
        data_at = start + tcp.TcpHeader.parse(header, start).data_offset
    else:
        data_at = start + 8  # the fixed part of both UDP and ICMPv6
    if not data_at <= end <= length or data_at > len(header):
        raise HeaderError(f"IP packet ends at {end}: not between {data_at} and {length}")
    return protocol, start, data_at, end
