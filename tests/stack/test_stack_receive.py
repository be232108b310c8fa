"""What the stack takes from the wire, what it does not, and that it says why."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from zttrio.header import icmpv4
from zttrio.header.address import BROADCAST_MAC, packed
from zttrio.header.frame import CHECKSUM_PARTIAL, CHECKSUM_VERIFIED, Frame
from zttrio.header.ipv4 import PROTOCOL_ICMP, PROTOCOL_UDP, Ipv4Header

from .stack_host import (
    BROADCAST,
    MAC,
    OTHER,
    OTHER_MAC,
    PEER,
    US,
    Host,
    ethernet,
    ip_packet,
    udp_content,
    udp_frame,
)

if TYPE_CHECKING:
    from zttrio.stack.udp import UdpEndpoint


def listening(host: Host, port: int = 5000) -> UdpEndpoint:
    endpoint = host.stack.udp.open()
    endpoint.bind(None, port)
    return endpoint


def received(endpoint: UdpEndpoint) -> bytes | None:
    datagram = endpoint.receive()
    return None if datagram is None else datagram.data


def raw_packet(**fields: int | bytes) -> bytes:
    """A UDP packet whose IPv4 header says what *fields* say, with a right checksum."""
    content = udp_content(b"data")
    header = Ipv4Header(PEER, US, PROTOCOL_UDP, 20 + len(content))
    for name, value in fields.items():
        setattr(header, name, value)
    return header.emit() + content


@pytest.mark.parametrize("as_what", [bytes, bytearray, memoryview])
def test_a_frame_may_be_any_buffer(as_what: type[bytes]) -> None:
    host = Host()
    endpoint = listening(host)
    host.put(Frame(as_what(udp_frame(b"data"))))
    assert received(endpoint) == b"data"
    host.check_books()


@pytest.mark.parametrize("cut", [14, 20, 33, 34, 36, 42, 44, 46])
def test_a_frame_may_be_cut_anywhere_behind_the_ethernet_header(cut: int) -> None:
    host = Host()
    endpoint = listening(host)
    frame = udp_frame(b"data")
    host.put(Frame(frame[:cut], frame[cut:]))
    host.put(Frame(frame[:cut], frame[cut:] + bytes(9)))  # with padding
    assert [received(endpoint), received(endpoint)] == [b"data", b"data"]
    host.check_books()


def test_ethernet_padding_is_not_part_of_the_packet() -> None:
    host = Host()
    endpoint = listening(host)
    host.put(udp_frame(b"data").ljust(60, b"\xff"))
    assert received(endpoint) == b"data"


def test_options_do_not_hide_the_transport() -> None:
    host = Host()
    endpoint = listening(host)
    content = udp_content(b"data")
    header = Ipv4Header(PEER, US, PROTOCOL_UDP, 0, options=b"\x01\x94\x04\0\0")
    header.total_length = header.header_length + len(content)
    host.put(ethernet(header.emit() + content))
    assert received(endpoint) == b"data"
    host.check_books()


BAD_PACKETS = {
    "ip_truncated": [
        raw_packet()[:19],
        raw_packet()[:-1],
        raw_packet(total_length=1000),
    ],
    "ip_malformed": [
        b"\x55" + raw_packet()[1:],
        b"\x44" + raw_packet()[1:],
        b"\x4f" + raw_packet()[1:],
        raw_packet(total_length=19),
        raw_packet(options=b"\x94\x00\0\0", total_length=36),
        raw_packet(options=b"\x94\x09\0\0", total_length=36),
        raw_packet(options=b"\x01\x01\x01\x94", total_length=36),
    ],
    "ip_bad_checksum": [
        raw_packet()[:8] + b"\x3f" + raw_packet()[9:],
        raw_packet()[:10] + b"\0\0" + raw_packet()[12:],
    ],
    "ip_martian": [
        raw_packet(source=packed("127.0.0.1")),
        raw_packet(source=packed("0.0.0.0")),
        raw_packet(source=packed("0.1.2.3")),
        raw_packet(source=packed("224.0.0.1")),
        raw_packet(source=packed("240.0.0.1")),
        raw_packet(source=packed("255.255.255.255")),
        raw_packet(source=BROADCAST),
        raw_packet(source=US),
        raw_packet(destination=packed("127.0.0.1")),
        raw_packet(destination=packed("0.0.0.0")),
    ],
    "ip_not_ours": [
        raw_packet(destination=OTHER),
        raw_packet(destination=packed("192.0.2.255")),
    ],
    "ip_group_not_joined": [raw_packet(destination=packed("239.1.2.3"))],
    "ip_source_routed": [
        raw_packet(options=b"\x83\x07\x04\x0a\0\0\x03", total_length=40),
        raw_packet(options=b"\x89\x07\x04\x0a\0\0\x03", total_length=40),
    ],
    "ip_unknown_protocol": [raw_packet(protocol=132)],
}


@pytest.mark.parametrize(
    ("reason", "packet"),
    [(reason, packet) for reason, packets in BAD_PACKETS.items() for packet in packets],
)
def test_a_bad_packet_is_dropped_and_counted_by_its_reason(reason: str, packet: bytes) -> None:
    host = Host()
    endpoint = listening(host)
    host.put(ethernet(packet))
    assert host.counters.as_dict()[reason] == 1
    assert received(endpoint) is None
    host.check_books()


BAD_FRAMES = {
    "frame_too_short": [b"", b"\0", ethernet(b"")[:13]],
    "frame_too_long": [ethernet(raw_packet() + bytes(66_000))],
    "frame_not_for_us": [
        ethernet(raw_packet(), destination=OTHER_MAC),
        ethernet(raw_packet(), destination=bytes.fromhex("01005e010203")),
        ethernet(b"", 0x1234, destination=OTHER_MAC),
    ],
    "frame_bad_source": [
        ethernet(raw_packet(), source=MAC),
        ethernet(raw_packet(), source=BROADCAST_MAC),
        ethernet(b"", source=MAC),
    ],
    "frame_unknown_ethertype": [
        ethernet(raw_packet(), 0x8100),
        ethernet(b"", 46),
    ],
}


@pytest.mark.parametrize(
    ("reason", "frame"),
    [(reason, frame) for reason, frames in BAD_FRAMES.items() for frame in frames],
)
def test_a_bad_frame_is_dropped_and_counted_by_its_reason(reason: str, frame: bytes) -> None:
    host = Host()
    host.put(frame)
    assert host.counters.as_dict()[reason] == 1
    assert host.take() == []
    host.check_books()


def test_a_checksum_the_wire_vouches_for_is_not_verified_again() -> None:
    host = Host()
    endpoint = listening(host)
    frame = bytearray(udp_frame(b"data"))
    frame[-1] ^= 1
    host.put(bytes(frame))
    assert host.counters.udp_bad_checksum == 1
    for state in (CHECKSUM_VERIFIED, CHECKSUM_PARTIAL):
        host.put(Frame(bytes(frame), checksum=state))
        assert received(endpoint) == b"dat`"


@pytest.mark.parametrize("destination", [BROADCAST, packed("255.255.255.255")])
def test_broadcasts_are_for_us(destination: bytes) -> None:
    host = Host()
    endpoint = listening(host)
    host.put(udp_frame(b"data", destination=destination, destination_mac=BROADCAST_MAC))
    assert received(endpoint) == b"data"


def test_the_broadcast_address_of_a_prefix_goes_with_its_address() -> None:
    host = Host()
    endpoint = listening(host)
    host.stack.remove_address(ip_interface("10.0.0.1/24"), host.now)
    host.put(udp_frame(b"data", destination=BROADCAST, destination_mac=BROADCAST_MAC))
    assert received(endpoint) is None
    assert host.counters.ip_not_ours == 1


def test_a_host_without_address_may_speak_to_everybody_only() -> None:
    host = Host()
    endpoint = listening(host, 67)
    nobody = packed("0.0.0.0")
    everybody = packed("255.255.255.255")
    host.put(
        udp_frame(
            b"discover",
            68,
            67,
            source=nobody,
            destination=everybody,
            destination_mac=BROADCAST_MAC,
        )
    )
    assert received(endpoint) == b"discover"
    host.put(udp_frame(b"discover", 68, 67, source=nobody))
    assert received(endpoint) is None
    assert host.counters.ip_martian == 1


def test_a_burst_may_mix_everything() -> None:
    host = Host()
    endpoint = listening(host)
    echo = icmpv4.IcmpV4(icmpv4.ECHO_REQUEST, 0, rest=1, body=b"x").emit()
    host.put(
        udp_frame(b"one"),
        b"",
        ethernet(ip_packet(echo, PROTOCOL_ICMP)),
        ethernet(raw_packet(destination=OTHER)),
        udp_frame(b"two"),
    )
    assert [received(endpoint), received(endpoint)] == [b"one", b"two"]
    assert host.counters.frames_in == 5
    assert host.counters.icmp_echo_requests == 1
    host.check_books()


def test_octets_are_counted_both_ways() -> None:
    host = Host()
    host.meet()
    before = host.counters.octets_in, host.counters.octets_out
    listening(host).send(b"data", (PEER, 9), host.now)
    host.put(udp_frame(b"data"))
    (sent,) = host.take()
    assert host.counters.octets_in - before[0] == len(udp_frame(b"data"))
    assert host.counters.octets_out - before[1] == len(sent.frame)
