"""IPv6 packets from the wire: checks, extension headers, fragments, and what is said about them."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.config import Config
from zttrio.header import icmpv6, ipv6
from zttrio.header.address import packed
from zttrio.header.frame import CHECKSUM_VERIFIED, Frame
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_UDP
from zttrio.stack.ipv6 import MAX_EXTENSION_HEADERS

from .ipv6_host import (
    ALL_NODES,
    OTHER6,
    PEER6,
    US6,
    Host6,
    Sent6,
    fragments6,
    frame6,
    icmp_frame6,
    packet6,
    udp_content6,
    udp_frame6,
)
from .stack_host import MAC, OTHER_MAC, PEER_MAC, Host, ethernet

if TYPE_CHECKING:
    from zttrio.stack.udp import UdpEndpoint

DATA = bytes(number % 251 for number in range(3000))


def make(config: Config | None = None) -> tuple[Host6, UdpEndpoint]:
    host = Host6(config=config)
    host.meet6()
    endpoint = host.stack.udp.open()
    endpoint.bind(None, 5000)
    return host, endpoint


def received(endpoint: UdpEndpoint) -> bytes | None:
    datagram = endpoint.receive()
    return None if datagram is None else datagram.data


def options(next_header: int, *kinds: int, data: bytes = b"") -> bytes:
    return ipv6.emit_options(next_header, [ipv6.Option(kind, data) for kind in kinds])


def problem(host: Host6) -> tuple[int, int] | None:
    """Code and pointer of the parameter problem that was sent, or None."""
    sent = host.take6()
    if not sent:
        return None
    (error,) = sent
    assert error.kind == icmpv6.PARAMETER_PROBLEM
    assert error.header.destination == PEER6
    return error.icmp.code, error.icmp.rest


def raw(source: bytes = PEER6, destination: bytes = US6, **fields: int) -> bytes:
    content = udp_content6(b"data", source=source, destination=destination)
    header = ipv6.Ipv6Header(source, destination, PROTOCOL_UDP, len(content))
    for name, value in fields.items():
        setattr(header, name, value)
    return header.emit() + content


def to_us(packet: bytes) -> bytes:
    return frame6(packet, to=MAC)


# plain packets


@pytest.mark.parametrize("as_what", [bytes, bytearray, memoryview])
def test_a_frame_may_be_any_buffer(as_what: type[bytes]) -> None:
    host, endpoint = make()
    host.put(Frame(as_what(udp_frame6(b"data"))))
    assert received(endpoint) == b"data"
    host.check_books()


@pytest.mark.parametrize("cut", [14, 34, 53, 54, 56, 62, 64])
def test_a_frame_may_be_cut_anywhere_behind_the_ethernet_header(cut: int) -> None:
    host, endpoint = make()
    frame = udp_frame6(b"data")
    host.put(Frame(frame[:cut], frame[cut:]), Frame(frame[:cut], frame[cut:] + bytes(9)))
    assert [received(endpoint), received(endpoint)] == [b"data", b"data"]
    host.check_books()


def test_traffic_class_and_hop_limit_come_up() -> None:
    host, endpoint = make()
    content = udp_content6(b"data")
    host.put(frame6(packet6(content, PROTOCOL_UDP, hop_limit=7, traffic_class=0xB9)))
    datagram = endpoint.receive()
    assert datagram is not None
    assert (datagram.hop_limit, datagram.traffic_class) == (7, 0xB9)


BAD_PACKETS = {
    "ip_truncated": [
        to_us(raw())[: 14 + 39],
        to_us(raw())[:-1],
        to_us(raw(payload_length=1000)),
    ],
    "ip_malformed": [ethernet(b"\x50" + raw()[1:], 0x86DD), ethernet(b"\x45" + raw()[1:], 0x86DD)],
    "ip_martian": [
        to_us(raw(source=packed("::1"))),
        to_us(raw(source=packed("::"))),
        to_us(raw(source=packed("ff02::1"))),
        to_us(raw(source=packed("::ffff:10.0.0.2"))),
        to_us(raw(source=US6)),
        to_us(raw(destination=packed("::1"))),
        to_us(raw(destination=packed("::"))),
        to_us(raw(destination=packed("ff00::1"))),
        to_us(raw(destination=packed("ff01::1"))),
    ],
    "ip_not_ours": [to_us(raw(destination=OTHER6)), to_us(raw(destination=packed("::2")))],
    "ip_group_not_joined": [to_us(raw(destination=packed("ff02::1234")))],
    "ip_unknown_protocol": [to_us(raw(next_header=132)), to_us(raw(next_header=1))],
    "ip_no_next_header": [to_us(raw(next_header=59))],
    "udp_bad_checksum": [
        to_us(packet6(udp_content6(b"data")[:6] + b"\0\0data", PROTOCOL_UDP)),
        to_us(packet6(udp_content6(b"data")[:6] + b"\0\1data", PROTOCOL_UDP)),
    ],
}


@pytest.mark.parametrize(
    ("reason", "frame"),
    [(reason, frame) for reason, frames in BAD_PACKETS.items() for frame in frames],
)
def test_a_bad_packet_is_dropped_and_counted_by_its_reason(reason: str, frame: bytes) -> None:
    host, endpoint = make()
    host.put(frame)
    assert host.counters.as_dict()[reason] == 1
    assert received(endpoint) is None
    host.check_books()


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        ("frame_not_for_us", frame6(raw(), to=OTHER_MAC)),
        ("frame_not_for_us", frame6(raw(destination=packed("ff02::1234")))),
        ("frame_bad_source", frame6(raw(), mac=MAC)),
        ("frame_too_long", frame6(raw() + bytes(66_000))),
    ],
)
def test_a_bad_frame_is_dropped_and_counted_by_its_reason(reason: str, frame: bytes) -> None:
    host, endpoint = make()
    host.put(frame)
    assert host.counters.as_dict()[reason] == 1
    assert received(endpoint) is None
    host.check_books()


def test_the_longest_packet_is_taken() -> None:
    host, endpoint = make()
    endpoint.receive_buffer = 1 << 20
    host.put(udp_frame6(bytes(65_527)))
    assert received(endpoint) == bytes(65_527)


# extension headers


def test_extension_headers_do_not_hide_the_transport() -> None:
    host, endpoint = make()
    content = options(ipv6.ROUTING, 5, data=b"\0\0")
    content += ipv6.RoutingHeader(ipv6.DESTINATION_OPTIONS, 4, 0).emit()
    content += options(PROTOCOL_UDP, 0x1E, data=b"abcd") + udp_content6(b"data")
    host.put(frame6(packet6(content, ipv6.HOP_BY_HOP)))
    assert received(endpoint) == b"data"
    assert host.take6() == []
    host.check_books()


@pytest.mark.parametrize(
    ("kind", "answer"),
    [(0x1E, None), (0x5E, None), (0x9E, (2, 42)), (0xDE, (2, 42))],
)
def test_unknown_options_are_treated_as_their_first_bits_say(
    kind: int, answer: tuple[int, int] | None
) -> None:
    host, endpoint = make()
    host.put(frame6(packet6(options(PROTOCOL_UDP, kind) + udp_content6(b"data"), 60)))
    assert (received(endpoint) is not None) == (kind == 0x1E)
    assert problem(host) == answer
    assert host.counters.ip_bad_extension == (kind != 0x1E)
    host.check_books()


@pytest.mark.parametrize(("kind", "answer"), [(0x9E, (2, 42)), (0xDE, None)])
def test_an_unknown_option_sent_to_a_group_is_answered_if_its_bits_insist(
    kind: int, answer: tuple[int, int] | None
) -> None:
    host, _ = make()
    content = options(PROTOCOL_UDP, kind) + udp_content6(b"data", destination=ALL_NODES)
    host.put(frame6(packet6(content, 60, destination=ALL_NODES)))
    assert problem(host) == answer


@pytest.mark.parametrize("segments_left", [0, 1, 255])
@pytest.mark.parametrize("kind", [0, 2, 3, 4, 253])
def test_a_route_that_is_not_gone_is_refused(kind: int, segments_left: int) -> None:
    host, endpoint = make()
    content = ipv6.RoutingHeader(PROTOCOL_UDP, kind, segments_left).emit() + udp_content6(b"data")
    host.put(frame6(packet6(content, ipv6.ROUTING)))
    assert (received(endpoint) is None) == bool(segments_left)
    assert problem(host) == ((0, 42) if segments_left else None)
    host.check_books()


def test_hop_by_hop_options_come_first_or_not_at_all() -> None:
    host, endpoint = make()
    content = options(ipv6.HOP_BY_HOP) + options(PROTOCOL_UDP) + udp_content6(b"data")
    host.put(frame6(packet6(content, ipv6.DESTINATION_OPTIONS)))
    assert received(endpoint) is None
    assert problem(host) == (1, 40)
    host.check_books()


def test_an_unknown_next_header_is_named() -> None:
    host, _ = make()
    host.put(to_us(raw(next_header=132)))
    assert problem(host) == (1, 6)
    host.put(frame6(packet6(options(135) + bytes(16), ipv6.DESTINATION_OPTIONS)))
    assert problem(host) == (1, 40)
    host.check_books()


def test_no_error_answers_an_error_with_bad_headers() -> None:
    host, _ = make()
    error = icmpv6.IcmpV6(1, 4, body=bytes(48)).emit(PEER6, US6)
    host.put(frame6(packet6(options(PROTOCOL_ICMPV6, 0x9E) + error, 60)))
    assert host.take6() == []
    assert host.counters.icmp_errors_unwanted == 1


@pytest.mark.parametrize("length", [9, 100, 8000])
@pytest.mark.parametrize("kind", [0x01, 0x1E])
def test_a_chain_of_equal_headers_may_have_any_length(length: int, kind: int) -> None:
    host, endpoint = make()
    chain = options(ipv6.DESTINATION_OPTIONS, kind) * (length - 1) + options(PROTOCOL_UDP)
    host.put(frame6(packet6(chain + udp_content6(b"data"), ipv6.DESTINATION_OPTIONS)))
    assert received(endpoint) == b"data"
    host.put(frame6(packet6(chain[:-8], ipv6.DESTINATION_OPTIONS)))
    assert host.counters.ip_bad_extension == 1
    host.check_books()


@pytest.mark.parametrize("length", [MAX_EXTENSION_HEADERS - 1, MAX_EXTENSION_HEADERS, 8000])
def test_a_chain_of_different_headers_is_cut_short(length: int) -> None:
    host, endpoint = make()
    chain = b"".join(
        options(ipv6.DESTINATION_OPTIONS, 0x1E, data=bytes([number & 1]))
        for number in range(length)
    )
    content = chain[:-8] + options(PROTOCOL_UDP) + udp_content6(b"data")
    host.put(frame6(packet6(content, ipv6.DESTINATION_OPTIONS)))
    is_read = length < MAX_EXTENSION_HEADERS
    assert received(endpoint) == (b"data" if is_read else None)
    assert host.counters.ip_bad_extension == (not is_read)
    host.check_books()


def test_a_chain_may_go_on_in_the_next_fragment() -> None:
    host, endpoint = make()
    content = options(ipv6.DESTINATION_OPTIONS) * 300 + options(PROTOCOL_UDP) + udp_content6(b"x")
    host.put(*fragments6(content, 1200, next_header=ipv6.DESTINATION_OPTIONS))
    assert received(endpoint) == b"x"
    host.check_books()


def test_hop_by_hop_options_inside_the_fragments_are_refused() -> None:
    host, endpoint = make()
    content = options(PROTOCOL_UDP) + udp_content6(bytes(100))
    host.put(*fragments6(content, 56, next_header=ipv6.HOP_BY_HOP))
    assert received(endpoint) is None
    assert problem(host) == (1, 6)
    host.check_books()


@pytest.mark.parametrize(
    ("payload_length", "kind", "answer"),
    [(None, 0xC2, (0, 42)), (0, 0xC2, (0, 44)), (0, 0x1E, None)],
)
def test_jumbograms_are_refused_by_name(
    payload_length: int | None, kind: int, answer: tuple[int, int] | None
) -> None:
    host, endpoint = make()
    content = options(PROTOCOL_UDP, kind, data=(70_000).to_bytes(4)) + udp_content6(b"data")
    host.put(frame6(packet6(content, ipv6.HOP_BY_HOP, payload_length=payload_length)))
    host.put(frame6(packet6(b"", ipv6.HOP_BY_HOP)))
    assert received(endpoint) is None
    assert problem(host) == answer
    assert host.counters.ip_bad_extension == 2
    host.check_books()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x11",
        b"\x11\x00\x00\x00\x00\x00\x00",
        b"\x11\xff" + bytes(100),
        b"\x11\x00\x1e\x09" + bytes(4),
        b"\x11\x00\x1e\x04" + bytes(4),
        bytes([17, 8]) + b"\x1e\x00" * 35,
    ],
    ids=["nothing", "one", "seven", "too-long", "option", "option-2", "too-many"],
)
def test_malformed_options_are_counted(content: bytes) -> None:
    host, _ = make()
    host.put(frame6(packet6(content, ipv6.DESTINATION_OPTIONS)))
    assert host.counters.ip_bad_extension + host.counters.udp_malformed == 1
    host.check_books()


def test_fragments_within_fragments_do_not_recurse() -> None:
    host, endpoint = make()
    header = ipv6.FragmentHeader(44, 0, False, 1).emit()
    host.put(frame6(packet6(header * 8000, 44)))
    host.put(frame6(packet6(header * 3 + udp_content6(b"data"), 44)))
    assert received(endpoint) is None
    assert host.counters.ip_bad_extension == 2
    host.check_books()


# fragments


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_fragments_may_come_in_any_order(order: tuple[int, ...]) -> None:
    host, endpoint = make()
    pieces = list(fragments6(udp_content6(DATA), 1008))
    for index in order:
        assert received(endpoint) is None
        host.put(pieces[index])
    assert received(endpoint) == DATA
    assert host.stack.sizes["octets of unfinished packets"] == 0
    host.check_books()


def test_headers_around_and_inside_the_fragments_are_read() -> None:
    host, endpoint = make()
    content = options(PROTOCOL_UDP, 0x1E) + udp_content6(DATA)
    for offset in range(0, len(content), 1504):
        more = offset + 1504 < len(content)
        front = options(ipv6.FRAGMENT, 5, data=b"\0\0")
        front += ipv6.FragmentHeader(ipv6.DESTINATION_OPTIONS, offset, more, 3).emit()
        host.put(frame6(packet6(front + content[offset : offset + 1504], ipv6.HOP_BY_HOP)))
    assert received(endpoint) == DATA
    host.check_books()


def test_a_pointer_into_a_reassembled_packet_counts_without_the_fragment_header() -> None:
    host, _ = make()
    content = options(PROTOCOL_UDP, 0x9E) + udp_content6(bytes(100))
    host.put(*fragments6(content, 56, next_header=ipv6.DESTINATION_OPTIONS))
    assert problem(host) == (2, 42)


def test_an_atomic_fragment_is_a_packet_of_its_own() -> None:
    host, endpoint = make()
    host.put(next(iter(fragments6(udp_content6(DATA), 1008))))
    header = ipv6.FragmentHeader(PROTOCOL_UDP, 0, False, 7).emit()
    host.put(frame6(packet6(header + udp_content6(b"atomic"), 44)))
    assert received(endpoint) == b"atomic"
    host.put(*list(fragments6(udp_content6(DATA), 1008))[1:])
    assert received(endpoint) == DATA
    host.check_books()


def test_overlapping_fragments_spoil_the_whole_packet_silently() -> None:
    host, endpoint = make()
    content = udp_content6(DATA)
    first = ipv6.FragmentHeader(PROTOCOL_UDP, 0, True, 7).emit() + content[:1008]
    overlap = ipv6.FragmentHeader(PROTOCOL_UDP, 1000, False, 7).emit() + content[1000:]
    host.put(frame6(packet6(first, 44)), frame6(packet6(overlap, 44)))
    host.put(*fragments6(content, 1008))
    assert received(endpoint) is None
    assert host.counters.fragment_overlap == 1
    assert host.at6(host.now + 100) == []
    host.check_books()


def test_a_fragment_of_odd_length_is_refused_by_name() -> None:
    host, _ = make()
    header = ipv6.FragmentHeader(PROTOCOL_UDP, 0, True, 7).emit()
    host.put(frame6(packet6(header + bytes(1001), 44)))
    assert problem(host) == (0, 4)
    assert host.counters.fragment_malformed == 1
    host.check_books()


def test_a_fragment_that_ends_beyond_64_kib_is_refused_by_name() -> None:
    host, _ = make()
    header = ipv6.FragmentHeader(PROTOCOL_UDP, 65528, False, 7).emit()
    host.put(frame6(packet6(header + bytes(8), 44)))
    assert problem(host) == (0, 42)
    host.check_books()


@pytest.mark.parametrize(
    ("next_header", "content"),
    [
        (PROTOCOL_UDP, b""),
        (6, bytes(16)),
        (ipv6.DESTINATION_OPTIONS, options(PROTOCOL_UDP)),
    ],
)
def test_a_first_fragment_does_not_end_in_its_transports_header(
    next_header: int, content: bytes
) -> None:
    host, _ = make()
    header = ipv6.FragmentHeader(next_header, 0, True, 7).emit()
    host.put(frame6(packet6(header + content, 44)))
    assert problem(host) == (3, 0)
    assert host.stack.sizes["unfinished packets"] == 0
    host.check_books()


def test_an_unfinished_packet_is_given_up_and_its_first_fragment_quoted() -> None:
    host, _ = make()
    start = host.now
    pieces = list(fragments6(udp_content6(DATA), 1008))
    host.put(pieces[0])
    assert host.at6(start + 29.9) == []
    (error,) = host.at6(start + 30)
    assert (error.kind, error.icmp.code) == (icmpv6.TIME_EXCEEDED, 1)
    assert bytes(error.icmp.body) == pieces[0][14:][: 1280 - 48]
    host.put(pieces[1])
    assert [sent.kind for sent in host.at6(start + 100) if sent.kind < 128] == []


def test_unfinished_packets_are_bounded() -> None:
    host, endpoint = make(Config(reassembly_packets=4, reassembly_memory=20_000))
    for number in range(100):
        host.put(next(iter(fragments6(udp_content6(DATA), 1008, identification=number))))
        assert host.stack.sizes["unfinished packets"] <= 4
        assert host.stack.sizes["octets of unfinished packets"] <= 20_000
    host.put(*list(fragments6(udp_content6(DATA), 1008, identification=99))[1:])
    assert received(endpoint) == DATA


@given(st.integers(0, 2**32))
def test_random_cuts_in_random_order_come_together(seed: int) -> None:
    rng = random.Random(seed)
    host, endpoint = make()
    content = udp_content6(DATA)
    cuts = sorted({0, *(rng.randrange(1, len(content) // 8) * 8 for _ in range(rng.randrange(9)))})
    pieces = []
    for start, end in zip(cuts, [*cuts[1:], len(content)], strict=True):
        header = ipv6.FragmentHeader(PROTOCOL_UDP, start, end < len(content), 1).emit()
        pieces.append(frame6(packet6(header + content[start:end], 44)))
    rng.shuffle(pieces)
    host.put(*pieces[:-1], *pieces[:-1])
    assert received(endpoint) is None
    host.put(pieces[-1])
    assert received(endpoint) == DATA
    host.check_books()


# echo, and errors in


@pytest.mark.parametrize("payload", [b"", b"x", bytes(1452), b"\xff" * 56])
@pytest.mark.parametrize("state", [0, CHECKSUM_VERIFIED])
def test_an_echo_comes_back_as_it_went(payload: bytes, state: int) -> None:
    host, _ = make()
    frame = icmp_frame6(icmpv6.IcmpV6(128, 0, rest=0xBEEF, body=payload))
    host.put(Frame(frame, checksum=state))
    (sent,) = host.take6()
    assert (sent.header.source, sent.header.destination) == (US6, PEER6)
    assert (sent.icmp.type, sent.icmp.rest, bytes(sent.icmp.body)) == (129, 0xBEEF, payload)
    host.check_books()


def test_an_echo_to_everybody_is_answered_from_our_own_address() -> None:
    host, _ = make()
    message = icmpv6.IcmpV6(128, 0, rest=1, body=b"all")
    host.put(icmp_frame6(message, destination=ALL_NODES))
    (sent,) = host.take6()
    assert sent.header.source == US6
    assert sent.icmp.type == 129
    host.put(icmp_frame6(message, source=packed("::"), destination=ALL_NODES))
    assert host.take6() == []
    assert host.counters.icmp_echo_ignored == 1
    host.check_books()


def test_a_ping_of_60000_octets_is_answered() -> None:
    host, _ = make()
    content = icmpv6.IcmpV6(128, 0, rest=9, body=bytes(60_000)).emit(PEER6, US6)
    host.put(*fragments6(content, 1448, next_header=PROTOCOL_ICMPV6))
    sent = host.take6()
    assert len(sent) == 42
    other = Host6("fd00::2/64", mac=PEER_MAC)
    other.put(*(packet.frame for packet in sent))
    assert other.counters.reassembled == 1
    assert other.counters.icmp_echo_unexpected == 1


def test_we_ping_others_and_ourselves() -> None:
    host, _ = make()
    ping = host.stack.icmp.ping(PEER6, host.now, payload=b"payload")
    (sent,) = host.take6()
    host.at(host.now + 0.5)
    reply = icmpv6.IcmpV6(129, 0, rest=sent.icmp.rest, body=b"payload")
    host.put(icmp_frame6(reply))
    assert ping.reply_time == pytest.approx(0.5)
    for address in (US6, packed("::1"), host.link_local):
        ping = host.stack.icmp.ping(address, host.now)
        assert host.take6() == []
        assert ping.replies == 1
    host.check_books()


def quoting(sent: Sent6, kind: int, code: int, rest: int = 0) -> bytes:
    return icmp_frame6(icmpv6.IcmpV6(kind, code, rest=rest, body=sent.packet[:200]))


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [(1, 0, 101), (1, 1, 13), (1, 3, 113), (1, 4, 111), (1, 99, 113), (3, 0, 113), (4, 1, 71)],
)
def test_an_error_ends_a_ping(kind: int, code: int, error: int) -> None:
    host, _ = make()
    ping = host.stack.icmp.ping(PEER6, host.now)
    (sent,) = host.take6()
    host.put(quoting(sent, kind, code))
    assert ping.error == error
    host.check_books()


@pytest.mark.parametrize("options_in_front", [False, True])
def test_a_path_mtu_report_about_our_packet_is_believed(options_in_front: bool) -> None:
    host, endpoint = make()
    endpoint.send(bytes(1452), (PEER6, 9), host.now)
    (sent,) = host.take6()
    if options_in_front:
        body = packet6(options(17) + sent.body, 60, source=US6, destination=PEER6)
        frame = icmp_frame6(icmpv6.IcmpV6(2, 0, rest=1400, body=body[:200]))
    else:
        frame = quoting(sent, 2, 0, 1400)
    host.put(frame)
    assert host.stack.ip.path_mtu(PEER6) == 1400
    endpoint.send(bytes(1452), (PEER6, 9), host.now)
    pieces = host.take6()
    assert [len(piece.packet) <= 1400 for piece in pieces] == [True, True]
    host.at(host.now + 600)
    assert host.stack.ip.path_mtu(PEER6) == 1500
    host.check_books()


@pytest.mark.parametrize("mtu", [0, 1279, 1500, 0xFFFF_FFFF])
def test_a_path_mtu_that_is_no_news_or_cannot_be_is_refused(mtu: int) -> None:
    host, endpoint = make()
    endpoint.send(bytes(1452), (PEER6, 9), host.now)
    (sent,) = host.take6()
    host.put(quoting(sent, 2, 0, mtu))
    assert host.stack.ip.path_mtu(PEER6) == 1500


def test_an_error_that_quotes_nothing_of_ours_goes_nowhere() -> None:
    host, _ = make()
    later = ipv6.FragmentHeader(PROTOCOL_UDP, 8, True, 1).emit() + bytes(16)
    for body in (
        b"",
        bytes(48),
        packet6(bytes(8), 17, source=OTHER6, destination=PEER6),
        packet6(bytes(7), 17, source=US6, destination=PEER6),
        packet6(bytes(8), 132, source=US6, destination=PEER6),
        packet6(later, 44, source=US6, destination=PEER6),
        packet6(options(60) * 20, 60, source=US6, destination=PEER6),
    ):
        host.put(icmp_frame6(icmpv6.IcmpV6(2, 0, rest=1300, body=body)))
    assert host.counters.icmp_errors_not_ours + host.counters.icmp_malformed == 7
    host.put(icmp_frame6(icmpv6.IcmpV6(100, 0, body=packet6(bytes(8), 17, source=US6))))
    assert host.counters.icmp_unknown_type == 1
    host.check_books()


# errors out


def test_a_datagram_for_nobody_is_answered_with_its_beginning() -> None:
    host, _ = make()
    frame = udp_frame6(bytes(1400), 4000, 9)
    host.put(frame)
    (sent,) = host.take6()
    assert (sent.kind, sent.icmp.code) == (1, 4)
    assert bytes(sent.icmp.body) == frame[14:][: 1280 - 48]
    assert len(sent.packet) == 1280
    host.check_books()


def test_errors_are_limited_in_rate_for_both_families_together() -> None:
    host, _ = make(Config(icmp_rate=10.0, icmp_burst=5))
    for _ in range(20):
        host.put(udp_frame6(b"data", 4000, 9), to_us(raw(next_header=132)))
    assert len(host.take6()) == 5
    assert host.counters.icmp_errors_limited == 35
    host.check_books()


def test_no_error_answers_what_was_sent_to_a_group() -> None:
    host, _ = make()
    host.put(udp_frame6(b"data", 4000, 9, destination=ALL_NODES))
    host.put(frame6(packet6(bytes(8), 132, destination=ALL_NODES)))
    assert host.take6() == []
    host.check_books()


def test_refusal_reaches_a_connected_endpoint() -> None:
    host, _ = make()
    other = Host6("fd00::2/64", mac=PEER_MAC)
    other.meet6(US6, MAC)
    endpoint = host.stack.udp.open()
    endpoint.connect((PEER6, 9), host.now)
    endpoint.send(b"data", None, host.now)
    other.put(*(sent.frame for sent in host.take6()))
    host.put(*(sent.frame for sent in other.take6()))
    with pytest.raises(ConnectionRefusedError):
        endpoint.receive()
    loop = host.stack.udp.open()
    loop.connect((packed("::1"), 9), host.now)
    loop.send(b"data", None, host.now)
    host.take()
    with pytest.raises(ConnectionRefusedError):
        loop.receive()


def test_of_a_lost_packet_in_fragments_the_first_is_reported() -> None:
    host = Host6()
    ping = host.stack.icmp.ping(OTHER6, host.now, payload=bytes(3000))
    host.at(host.now + 5)
    assert ping.error == 113
    assert host.counters.neighbor_packets_lost == 3


def test_what_a_host_without_ipv6_cannot_answer_it_does_not() -> None:
    host = Host("10.0.0.1/24")
    content = options(PROTOCOL_UDP, 0x9E) + udp_content6(b"data", destination=ALL_NODES)
    host.put(frame6(packet6(content, 60, destination=ALL_NODES)))
    assert host.take() == []
    assert host.counters.icmp_errors_unwanted == 1
    host.check_books()


def test_a_jumbogram_with_malformed_options_is_counted() -> None:
    host, _ = make()
    host.put(frame6(packet6(b"\x11\0\xc2\x40\0\0\0\0", ipv6.HOP_BY_HOP, payload_length=0)))
    assert host.counters.ip_bad_extension == 1
    assert host.take6() == []
