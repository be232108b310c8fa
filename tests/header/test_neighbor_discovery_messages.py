from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header.address import packed, parse_mac
from zttrio.header.checksum import transport_checksum
from zttrio.header.ipv4 import PROTOCOL_ICMPV6
from zttrio.header.ndp import (
    INFINITY,
    DnsServers,
    NdOptions,
    NeighborAdvertisement,
    NeighborSolicitation,
    PrefixInformation,
    Redirect,
    RouteInformation,
    RouterAdvertisement,
    RouterSolicitation,
)

from .header_samples import IPV6, KERNEL_FRAMES, MACS, U8, U16, U32, disguises, quick

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer


class Message(Protocol):
    def emit(self, source: bytes, destination: bytes) -> bytes: ...


BITS = st.booleans()
PREFERENCES = st.integers(-1, 1)
PREFIX_LENGTHS = st.integers(0, 128)
MILLISECONDS = U32.map(lambda milliseconds: milliseconds / 1000)
PADDED = st.integers(0, 5).map(lambda n: bytes(range(6 + 8 * n)))
OPTIONS = st.builds(
    NdOptions,
    st.none() | MACS,
    st.none() | MACS,
    st.none() | U32,
    st.none() | PADDED,
    st.lists(
        st.builds(PrefixInformation, IPV6, PREFIX_LENGTHS, BITS, BITS, U32, U32), max_size=3
    ).map(tuple),
    st.lists(st.builds(RouteInformation, IPV6, PREFIX_LENGTHS, PREFERENCES, U32), max_size=3).map(
        tuple
    ),
    st.lists(
        st.builds(DnsServers, U32, st.lists(IPV6, min_size=1, max_size=3).map(tuple)), max_size=2
    ).map(tuple),
    st.none() | st.integers(0, 4).map(lambda n: bytes(range(8 * n))),
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(RouterSolicitation, OPTIONS),
    st.builds(
        RouterAdvertisement,
        *(U8, BITS, BITS, PREFERENCES, U16, MILLISECONDS, MILLISECONDS, OPTIONS),
    ),
    st.builds(NeighborSolicitation, IPV6, OPTIONS),
    st.builds(NeighborAdvertisement, IPV6, BITS, BITS, BITS, OPTIONS),
    st.builds(Redirect, IPV6, IPV6, OPTIONS),
)
KINDS = (
    RouterSolicitation,
    RouterAdvertisement,
    NeighborSolicitation,
    NeighborAdvertisement,
    Redirect,
)


def parse(kind: type[object], data: Buffer, offset: int = 0) -> object:
    for known in KINDS:
        if known is kind:
            return known.parse(data, offset)
    raise AssertionError(kind)


@quick
@given(MESSAGES, IPV6, IPV6)
def test_a_message_survives_the_wire(message: Message, source: bytes, destination: bytes) -> None:
    octets = message.emit(source, destination)
    assert transport_checksum(source, destination, PROTOCOL_ICMPV6, octets) == 0
    for data, offset in disguises(octets):
        assert parse(type(message), data, offset) == message


@quick
@given(MESSAGES)
def test_a_message_of_another_type_or_cut_short_is_refused(message: Message) -> None:
    octets = message.emit(bytes(16), bytes(16))
    for kind in KINDS:
        if kind is not type(message):
            with pytest.raises(HeaderError):
                kind.parse(octets)
    with pytest.raises(HeaderError):
        parse(type(message), octets[:-1])


OURS, THEIRS = packed("fd00:9::1"), packed("fd00:9::2")
OUR_MAC, THEIR_MAC = parse_mac("02:00:00:00:00:0a"), parse_mac("02:00:00:00:00:0b")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("router solicitation", RouterSolicitation(NdOptions(source_mac=OUR_MAC))),
        ("neighbor solicitation", NeighborSolicitation(THEIRS, NdOptions(source_mac=OUR_MAC))),
        (
            "duplicate address probe",
            NeighborSolicitation(OURS, NdOptions(nonce=bytes.fromhex("c4d4879a3d7d"))),
        ),
        (
            "neighbor advertisement",
            NeighborAdvertisement(
                THEIRS, is_solicited=True, is_override=True, options=NdOptions(target_mac=THEIR_MAC)
            ),
        ),
    ],
)
def test_the_kernels_messages_are_read_and_written_alike(name: str, message: Message) -> None:
    frame = KERNEL_FRAMES[name]
    source, destination, octets = frame[22:38], frame[38:54], frame[54:]
    assert parse(type(message), octets) == message
    assert message.emit(source, destination) == octets


def test_a_router_advertisement_is_read_as_rfc_4861_draws_it() -> None:
    # Laid out by hand from RFC 4861 4.2, 4.6.1, 4.6.2, 4.6.4, RFC 4191 2.3 and RFC 8106 5.1.
    octets = bytes.fromhex(
        "86000000 40 c8 0708 00007530 000003e8"  # hop limit 64; M, O, high; 1800 s; 30 s; 1 s
        "0101 02000000000b"
        "0501 0000 000005dc"
        "0304 40 c0 ffffffff 00000e10 00000000 20010db8000000000000000000000000"
        "1802 30 18 00000e10 20010db800010000"
        "1903 0000 00000258 20010db8000000000000000000000053"
        "7f01 000000000000".replace(" ", "")
    )
    assert RouterAdvertisement.parse(octets) == RouterAdvertisement(
        hop_limit=64,
        is_managed=True,
        has_other=True,
        preference=1,
        lifetime=1800,
        reachable_time=30.0,
        retransmit_time=1.0,
        options=NdOptions(
            source_mac=THEIR_MAC,
            mtu=1500,
            prefixes=(PrefixInformation(packed("2001:db8::"), 64, True, True, INFINITY, 3600),),
            routes=(RouteInformation(packed("2001:db8:1::"), 48, -1, 3600),),
            dns_servers=(DnsServers(600, (packed("2001:db8::53"),)),),
        ),
    )


def test_the_reserved_preference_is_medium() -> None:
    octets = bytearray(RouterAdvertisement().emit(OURS, THEIRS))
    octets[5] = 0x10
    assert RouterAdvertisement.parse(octets).preference == 0


@pytest.mark.parametrize(
    "text",
    [
        "0100" + "00" * 6,  # length 0
        "0102" + "00" * 6,  # runs out of the message
        "01",  # no length
        "0101020000",  # cut short
        "0101" + "00" * 6 + "00",  # something behind the last option
        "7f00" + "00" * 6,  # unknown kinds are no exception
    ],
)
def test_an_option_that_cannot_be_discards_the_message(text: str) -> None:
    with pytest.raises(HeaderError, match="ND option"):
        NdOptions.parse(bytes.fromhex(text))


@pytest.mark.parametrize(
    "text",
    [
        "0102" + "11" * 14,  # a hardware address that is not Ethernet's
        "0202" + "11" * 14,
        "0502" + "11" * 14,
        "0303" + "11" * 22,
        "0304" + "81" + "11" * 29,  # a prefix of 129 bits
        "1801" + "01" + "11" * 5,  # a prefix longer than what is there of it
        "1802" + "41" + "11" * 13,
        "1803" + "81" + "11" * 21,
        "1804" + "40" + "11" * 29,
        "1901" + "11" * 6,  # no server
        "1902" + "11" * 14,  # half a server
        "1904" + "11" * 30,  # one and a half
        "7f01" + "11" * 6,  # unknown
    ],
)
def test_an_option_that_is_not_what_it_says_is_skipped(text: str) -> None:
    octets = bytes.fromhex(text + "0201020000000007")
    assert NdOptions.parse(octets) == NdOptions(target_mac=parse_mac("02:00:00:00:00:07"))


def test_of_options_that_come_once_the_first_counts() -> None:
    octets = bytes.fromhex(
        "0101020000000001 0101020000000002 0201020000000003 0201020000000004"
        "0501000000000500 0501000000000600 0e01010101010101 0e01020202020202"
        "0402000000000000aaaaaaaaaaaaaaaa 0402000000000000bbbbbbbbbbbbbbbb".replace(" ", "")
    )
    assert NdOptions.parse(octets) == NdOptions(
        source_mac=parse_mac("02:00:00:00:00:01"),
        target_mac=parse_mac("02:00:00:00:00:03"),
        mtu=0x500,
        nonce=b"\1" * 6,
        redirected=b"\xaa" * 8,
    )


@pytest.mark.parametrize("units", [1, 2, 3])
def test_a_route_may_leave_out_what_is_zero(units: int) -> None:
    octets = bytes((24, units, 0, 8)) + bytes(4) + bytes(8 * (units - 1))
    (route,) = NdOptions.parse(octets).routes
    assert route == RouteInformation(bytes(16), 0, 1, 0)


@pytest.mark.parametrize("options", [NdOptions(nonce=bytes(7)), NdOptions(redirected=bytes(7))])
def test_options_of_odd_sizes_are_not_emitted(options: NdOptions) -> None:
    with pytest.raises(ValueError, match="not a multiple of 8"):
        options.emit()


@pytest.mark.parametrize(("kind", "length"), [(134, 16), (135, 24), (136, 24), (137, 40)])
def test_a_message_without_its_fixed_part_is_refused(kind: int, length: int) -> None:
    known = KINDS[kind - 133]
    known.parse(bytes((kind,)) + bytes(length - 1))
    with pytest.raises(HeaderError, match=f"type {kind} needs {length} octets, got {length - 1}"):
        known.parse(bytes((kind,)) + bytes(length - 2))
