"""Neighbor discovery: what RFC 4861 and RFC 4862 ask of a host, and what it must not believe."""

from __future__ import annotations

import random
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from zttrio.config import Config
from zttrio.header import icmpv6, ndp
from zttrio.header.address import multicast_mac, packed, solicited_node
from zttrio.header.ethernet import ETHERTYPE_IPV6
from zttrio.header.ipv4 import PROTOCOL_ICMPV6
from zttrio.header.ipv6 import DESTINATION_OPTIONS, FragmentHeader, emit_options
from zttrio.stack import neighbor
from zttrio.stack.slaac import is_reserved
from zttrio.stack.stack import Stack

from .ipv6_host import (
    ALL_NODES,
    FAR6,
    OTHER6,
    PEER6,
    PEER_LL,
    UNSPECIFIED,
    US6,
    Host6,
    Sent6,
    advertisement,
    apart,
    frame6,
    icmp_frame6,
    nd_frame,
    packet6,
    solicitation,
)
from .stack_host import MAC, OTHER_MAC, PEER_MAC, Host, Sent

if TYPE_CHECKING:
    from collections.abc import Callable


def state(host: Host6, address: bytes = PEER6) -> int | None:
    entry = host.stack.neighbors.get(address)
    return None if entry is None else entry.state


def send(host: Host6, address: bytes = PEER6) -> None:
    host.stack.ip.send(US6, address, 200, b"header", b"payload", host.now)


# asking


def test_the_first_packet_asks_the_solicited_node_group_and_waits() -> None:
    host = Host6()
    send(host)
    (question,) = host.take6()
    group = solicited_node(PEER6)
    assert question.destination_mac == multicast_mac(group)
    assert (question.header.source, question.header.destination) == (US6, group)
    assert question.header.hop_limit == 255
    assert question.solicitation.target == PEER6
    assert question.solicitation.options.source_mac == MAC
    host.put(advertisement())
    (sent,) = host.take6()
    assert sent.body == b"headerpayload"
    assert sent.destination_mac == PEER_MAC
    assert state(host) == neighbor.REACHABLE
    host.check_books()


def test_a_question_is_repeated_each_second_and_given_up_after_three() -> None:
    host = Host6()
    start = host.now
    ping = host.stack.icmp.ping(PEER6, start)
    host.take()
    for second in (1.0, 2.0):
        assert host.at6(start + second - 0.001) == []
        (question,) = host.at6(start + second)
        assert question.solicitation.target == PEER6
    assert host.at6(start + 3.0) == []
    assert ping.error == 113
    assert host.counters.neighbor_unreachable == 1


def test_a_stale_neighbor_is_probed_directly_after_five_seconds() -> None:
    host = Host6()
    start = host.now
    host.put(solicitation())
    assert state(host) == neighbor.STALE
    host.take()
    send(host)
    host.take()
    assert state(host) == neighbor.DELAY
    (probe,) = host.at6(start + 5.0)
    assert probe.destination_mac == PEER_MAC
    assert probe.header.destination == PEER6
    host.put(advertisement())
    assert state(host) == neighbor.REACHABLE


def test_an_address_that_is_not_verified_yet_asks_without_its_hardware_address() -> None:
    host = Host("fd00::1/64")
    host.stack.ip.send(US6, PEER6, 200, b"", b"", host.now)
    sent = [six for six in discovery(host.take()) if six.solicitation.target == PEER6]
    assert [six.solicitation.options.source_mac for six in sent] == [None]


# answering


def test_a_question_for_us_is_answered_and_its_sender_remembered() -> None:
    host = Host6()
    host.put(solicitation())
    (answer,) = host.take6()
    assert answer.destination_mac == PEER_MAC
    assert (answer.header.source, answer.header.destination) == (US6, PEER6)
    assert answer.header.hop_limit == 255
    message = answer.advertisement
    assert message == ndp.NeighborAdvertisement(
        US6, False, True, True, ndp.NdOptions(target_mac=MAC)
    )
    assert state(host) == neighbor.STALE
    host.check_books()


def test_a_probe_sent_to_us_alone_is_answered_too() -> None:
    host = Host6()
    host.put(solicitation(destination=US6))
    (answer,) = host.take6()
    assert answer.advertisement.is_solicited


def test_a_question_without_hardware_address_is_answered_after_asking_back() -> None:
    host = Host6()
    host.put(solicitation(destination=US6, source_mac=None))
    (question,) = host.take6()
    assert question.solicitation.target == PEER6
    host.put(advertisement())
    (answer,) = host.take6()
    assert answer.advertisement.target == US6
    assert answer.destination_mac == PEER_MAC


def test_a_probe_for_our_address_is_answered_to_everybody() -> None:
    host = Host6()
    host.put(solicitation(source=UNSPECIFIED, source_mac=None))
    (answer,) = host.take6()
    assert answer.header.destination == ALL_NODES
    assert answer.destination_mac == multicast_mac(ALL_NODES)
    assert not answer.advertisement.is_solicited
    assert answer.advertisement.is_override
    assert len(host.stack.neighbors) == 0
    host.check_books()


def test_questions_for_others_are_ignored() -> None:
    host = Host6()
    host.put(solicitation(OTHER6, destination=US6))
    host.put(solicitation(OTHER6))
    assert host.take6() == []
    assert len(host.stack.neighbors) == 0
    assert host.counters.nd_ignored + host.counters.frame_not_for_us == 2


def test_router_solicitations_are_for_routers() -> None:
    host = Host6()
    message = ndp.RouterSolicitation().emit(PEER_LL, ALL_NODES)
    host.put(nd_frame(message, source=PEER_LL, destination=ALL_NODES))
    assert host.counters.nd_ignored == 1
    host.check_books()


# what must not be believed


def _off_link_advertisement() -> bytes:
    return advertisement(FAR6, source=FAR6)


def _fragmented(frame: bytes) -> list[bytes]:
    """The same message in two fragments."""
    content = frame[54:]
    source, destination = frame[22:38], frame[38:54]
    found = []
    for offset in (0, 16):
        more = offset == 0
        piece = content[:16] if more else content[16:]
        header = FragmentHeader(PROTOCOL_ICMPV6, offset, more, 9).emit()
        packet = packet6(header + piece, 44, source=source, destination=destination, hop_limit=255)
        found.append(frame6(packet))
    return found


def _atomic(frame: bytes) -> bytes:
    header = FragmentHeader(PROTOCOL_ICMPV6, 0, False, 9).emit()
    packet = packet6(
        header + frame[54:],
        44,
        source=frame[22:38],
        destination=frame[38:54],
        hop_limit=255,
    )
    return frame6(packet)


@pytest.mark.parametrize("hop_limit", [0, 1, 64, 254])
def test_what_comes_from_beyond_the_link_is_refused(hop_limit: int) -> None:
    host = Host6()
    send(host)
    host.take()
    host.put(advertisement(hop_limit=hop_limit), solicitation(hop_limit=hop_limit))
    assert host.take6() == []
    assert state(host) == neighbor.INCOMPLETE
    assert host.counters.nd_refused == 2
    host.check_books()


def test_neighbor_discovery_in_fragments_is_refused() -> None:
    host = Host6()
    send(host)
    host.take()
    host.put(*_fragmented(advertisement()), _atomic(advertisement()))
    host.put(*_fragmented(solicitation()), _atomic(solicitation()))
    assert host.counters.reassembled == 2
    assert host.counters.nd_refused == 4
    assert state(host) == neighbor.INCOMPLETE
    assert host.take6() == []
    host.check_books()


def test_an_advertisement_of_an_address_off_the_link_makes_no_entry() -> None:
    host = Host6()
    host.put(_off_link_advertisement(), advertisement(is_solicited=False))
    assert len(host.stack.neighbors) == 0
    assert host.counters.nd_ignored == 2


def test_a_question_from_an_address_off_the_link_makes_no_entry() -> None:
    host = Host6()
    host.put(solicitation(source=FAR6))
    assert len(host.stack.neighbors) == 0
    assert host.take6() == []
    assert host.counters.nd_refused == 1


@pytest.mark.parametrize(
    "frame",
    [
        solicitation(packed("ff02::1:ff00:1"), destination=US6),
        solicitation(source=UNSPECIFIED, source_mac=PEER_MAC),
        solicitation(source=UNSPECIFIED, source_mac=None, destination=ALL_NODES),
        solicitation(source_mac=MAC),
        solicitation(source_mac=multicast_mac(ALL_NODES)),
        solicitation(source_mac=bytes(6)),
        advertisement(packed("ff02::1"), source=PEER6),
        advertisement(destination=ALL_NODES, is_solicited=True),
        advertisement(mac=MAC),
        advertisement(mac=multicast_mac(ALL_NODES)),
    ],
)
def test_contradictions_are_refused(frame: bytes) -> None:
    host = Host6()
    host.meet6()
    host.put(frame)
    assert host.counters.nd_refused == 1
    assert state(host) == neighbor.REACHABLE
    assert host.take6() == []
    host.check_books()


@pytest.mark.parametrize(
    "frame",
    [
        solicitation()[:54] + b"",
        icmp_frame6(icmpv6.IcmpV6(135, 0, body=US6[:8]), hop_limit=255),
        icmp_frame6(icmpv6.IcmpV6(135, 0, body=US6 + b"\1\0"), hop_limit=255),
        icmp_frame6(icmpv6.IcmpV6(135, 0, body=US6 + b"\1\2" + bytes(6)), hop_limit=255),
        icmp_frame6(icmpv6.IcmpV6(136, 0, body=PEER6 + b"\2\0" + bytes(6)), hop_limit=255),
        icmp_frame6(icmpv6.IcmpV6(134, 0), hop_limit=255, source=PEER_LL),
        icmp_frame6(icmpv6.IcmpV6(137, 0, body=bytes(8)), hop_limit=255, source=PEER_LL),
    ],
)
def test_malformed_messages_are_counted_and_change_nothing(frame: bytes) -> None:
    host = Host6()
    host.meet6()
    host.put(frame)
    counters = host.counters
    assert counters.nd_malformed + counters.icmp_malformed + counters.ip_truncated == 1
    assert state(host) == neighbor.REACHABLE
    host.check_books()


def test_a_code_that_is_not_zero_is_refused() -> None:
    host = Host6()
    host.put(icmp_frame6(icmpv6.IcmpV6(135, 1, body=US6), hop_limit=255))
    assert host.counters.nd_refused == 1
    host.check_books()


@pytest.mark.parametrize(
    ("is_solicited", "is_override", "changes_mac", "expected", "moves"),
    [
        (True, True, True, neighbor.REACHABLE, True),
        (False, True, True, neighbor.STALE, True),
        (True, False, True, neighbor.STALE, False),
        (False, False, True, neighbor.STALE, False),
        (True, False, False, neighbor.REACHABLE, False),
        (False, False, False, neighbor.REACHABLE, False),
        (False, True, False, neighbor.REACHABLE, False),
    ],
)
def test_an_advertisement_changes_a_reachable_entry_as_the_rfc_says(
    is_solicited: bool, is_override: bool, changes_mac: bool, expected: int, moves: bool
) -> None:
    host = Host6()
    host.meet6()
    host.put(
        advertisement(
            mac=OTHER_MAC if changes_mac else PEER_MAC,
            is_solicited=is_solicited,
            is_override=is_override,
        )
    )
    assert state(host) == expected
    send(host)
    assert host.take6()[0].destination_mac == (OTHER_MAC if moves else PEER_MAC)


def test_a_stale_entry_keeps_its_place_without_override() -> None:
    host = Host6()
    host.put(solicitation())
    host.take()
    host.put(advertisement(mac=OTHER_MAC, is_override=False))
    assert state(host) == neighbor.STALE
    send(host)
    assert host.take6()[0].destination_mac == PEER_MAC


def test_an_unsolicited_first_answer_is_taken_but_not_relied_on() -> None:
    host = Host6()
    send(host)
    host.take()
    host.put(advertisement(mac=None))
    assert state(host) == neighbor.INCOMPLETE
    host.put(advertisement(is_solicited=False))
    assert state(host) == neighbor.STALE
    assert host.take6()[0].body == b"headerpayload"


# duplicate address detection


def starting(config: Config | None = None) -> Host:
    """A host with nothing but a MAC."""
    host = Host("10.0.0.1/24", config=config)
    host.stack.start_ipv6(host.now)
    return host


def discovery(frames: list[Sent]) -> list[Sent6]:
    """The neighbor solicitations among *frames*."""
    found = [apart(sent) for sent in frames if sent.ethertype == ETHERTYPE_IPV6]
    return [
        six
        for six in found
        if six.protocol == PROTOCOL_ICMPV6 and six.kind == icmpv6.NEIGHBOR_SOLICITATION
    ]


def probes(host: Host, until: float) -> list[tuple[float, Sent6]]:
    """When which solicitations are sent."""
    found: list[tuple[float, Sent6]] = []
    while (due := host.stack.next_timer()) is not None and due <= until:
        found += [(host.now, six) for six in discovery(host.at(max(due, host.now)))]
    host.at(until)
    return found


def test_a_configured_address_is_probed_at_once_and_verified_a_second_later() -> None:
    host = Host6()
    start = host.now
    entry = host.stack.add_address(ip_interface("fd00::77/64"), start)
    (probe,) = discovery(host.take())
    group = solicited_node(entry.packed)
    assert (probe.header.source, probe.header.destination) == (UNSPECIFIED, group)
    assert probe.header.hop_limit == 255
    assert probe.solicitation.target == entry.packed
    assert probe.solicitation.options.source_mac is None
    assert len(probe.solicitation.options.nonce or b"") == 6
    host.at(start + 0.999)
    assert entry.is_optimistic
    host.at(start + 1.0)
    assert not entry.is_optimistic


def test_the_link_local_address_waits_a_random_moment_first() -> None:
    delays = set()
    for seed in range(5):
        host = Host("10.0.0.1/24", seed=seed)
        host.stack.start_ipv6(0.0)
        ((at, probe),) = probes(host, 10.0)
        assert 0 < at < 1
        assert probe.solicitation.target[:8] == bytes.fromhex("fe80000000000000")
        delays.add(at)
    assert len(delays) == 5


@pytest.mark.parametrize("transmits", [0, 1, 3])
def test_as_many_probes_are_sent_as_configured(transmits: int) -> None:
    host = starting(Config(dad_transmits=transmits))
    host.at(10.0)
    entry = host.stack.add_address(ip_interface("fd00::77/64"), host.now)
    assert len(discovery(host.take())) == min(transmits, 1)
    assert len(probes(host, 20.0)) == max(0, transmits - 1)
    assert not entry.is_optimistic


def _claim_by_advertisement(address: bytes) -> bytes:
    return advertisement(address, destination=ALL_NODES, is_solicited=False)


def _claim_by_probe(address: bytes) -> bytes:
    return solicitation(address, source=UNSPECIFIED, source_mac=None)


@pytest.mark.parametrize("claim", [_claim_by_advertisement, _claim_by_probe])
def test_an_address_of_somebody_else_is_given_up(claim: Callable[[bytes], bytes]) -> None:
    host = Host6()
    entry = host.stack.add_address(ip_interface("fd00::77/64"), host.now)
    host.put(claim(entry.packed))
    assert not host.stack.addresses.is_ours(entry.packed)
    assert host.counters.nd_duplicates == 1
    assert host.stack.sizes["addresses being verified"] == 0
    assert solicited_node(entry.packed) not in host.stack.groups
    host.check_books()


def test_our_own_probe_that_comes_back_is_no_duplicate() -> None:
    host = Host6()
    entry = host.stack.add_address(ip_interface("fd00::77/64"), host.now)
    (probe,) = discovery(host.take())
    echoed = frame6(probe.packet)  # a bridge sends it back, under another MAC
    host.put(echoed)
    assert host.stack.addresses.is_ours(entry.packed)
    assert host.counters.nd_duplicates == 0
    host.put(solicitation(entry.packed, source=UNSPECIFIED, source_mac=None, nonce=b"others"))
    assert not host.stack.addresses.is_ours(entry.packed)


def test_while_it_is_not_verified_the_address_is_used_with_restraint() -> None:
    host = Host6()
    host.meet6()
    entry = host.stack.add_address(ip_interface("fd00::77/64"), host.now)
    host.take()
    assert host.stack.ip.select_source(PEER6) == US6  # RFC 4429 3.3: others come first
    host.put(solicitation(entry.packed))
    (answer,) = host.take6()
    assert not answer.advertisement.is_override
    host.at(host.now + 1)
    host.put(solicitation(entry.packed))
    (answer,) = host.take6()
    assert answer.advertisement.is_override


def test_a_link_local_address_that_is_taken_is_replaced_three_times() -> None:
    host = starting()
    tried = []
    for _ in range(5):
        if not host.stack.addresses.of_family(16):
            break
        (entry,) = host.stack.addresses.of_family(16)
        tried.append(entry.packed)
        host.put(_claim_by_advertisement(entry.packed))
    assert len(set(tried)) == 4
    assert host.stack.addresses.of_family(16) == []


def test_a_conflict_after_verification_is_counted_and_our_address_stays() -> None:
    host = Host6()
    host.put(_claim_by_advertisement(US6))
    assert host.stack.addresses.is_ours(US6)
    assert host.counters.nd_conflicts == 1
    host.check_books()


def test_link_local_addresses_stay_the_same_for_the_same_secret_only() -> None:
    def address(secret: bytes | None, mac: bytes = MAC, seed: int = 1) -> str:
        stack = Stack(mac=mac, mtu=1500, rng=random.Random(seed), secret=secret)
        stack.start_ipv6(0.0)
        return str(next(iter(stack.addresses)))

    assert address(b"s" * 16) == address(b"s" * 16, seed=2)
    found = {
        address(b"s" * 16),
        address(b"s" * 16, PEER_MAC),
        address(b"t" * 16),
        address(None),
        address(None, seed=2),
    }
    assert len(found) == 5


def test_a_wire_too_narrow_for_ipv6_is_refused() -> None:
    host = Host(mtu=1279)
    with pytest.raises(ValueError, match="MTU 1279: IPv6 needs 1280"):
        host.stack.start_ipv6(0.0)
    with pytest.raises(ValueError, match="IPv6 needs 1280"):
        host.stack.add_address(ip_interface("fd00::1/64"), 0.0)


# bounds


def test_a_scan_of_a_prefix_stays_bounded_and_pushes_nobody_out_who_has_answered() -> None:
    host = Host6(config=Config(neighbor_limit=64))
    known = [packed(f"fd00::{number:x}") for number in range(2, 20)]
    for address in known:
        host.meet6(address)
    for number in range(3000):
        source = packed("fd00::")[:8] + (number + 1000).to_bytes(8)
        host.put(icmp_frame6(icmpv6.IcmpV6(128, 0, rest=number), source=source))
        host.take()
        assert len(host.stack.neighbors) <= 64
    for address in known:
        assert state(host, address) == neighbor.REACHABLE
    assert host.stack.neighbors.waiting_octets <= neighbor.TOTAL_QUEUE_OCTETS
    host.at(host.now + 10)
    assert host.stack.neighbors.waiting_octets == 0
    assert len(host.stack.neighbors) == len(known)
    host.check_books()


def test_a_flood_of_questions_from_made_up_neighbors_stays_bounded() -> None:
    host = Host6(config=Config(neighbor_limit=64))
    host.meet6()
    for number in range(2000):
        source = packed("fd00::")[:8] + (number + 1000).to_bytes(8)
        host.put(solicitation(source=source))
        assert len(host.take6()) == 1  # everybody gets an answer
    assert len(host.stack.neighbors) == 64
    assert state(host) == neighbor.REACHABLE
    assert host.counters.neighbor_table_full == 2000 - 63


def test_options_in_front_do_not_hide_neighbor_discovery() -> None:
    host = Host6()
    message = ndp.NeighborSolicitation(US6, ndp.NdOptions(source_mac=PEER_MAC))
    content = emit_options(PROTOCOL_ICMPV6, ()) + message.emit(PEER6, US6)
    host.put(frame6(packet6(content, DESTINATION_OPTIONS, hop_limit=255)))
    assert len(host.take6()) == 1


# addresses of the wire's own prefix


def test_a_wires_own_prefix_gives_an_address_on_the_link() -> None:
    host = Host("10.0.0.1/24")
    states = [host.stack.has_ipv6]
    host.stack.start_ipv6(0.0, packed("fd00:1::"))
    host.stack.start_ipv6(0.0, packed("fd00:1::"))  # once is enough
    states.append(host.stack.has_ipv6)
    assert states == [False, True]
    entries = host.stack.addresses.of_family(16)
    assert [entry.packed[:8].hex() for entry in entries] == ["fe80000000000000", "fd00000100000000"]
    assert [entry.is_optimistic for entry in entries] == [True, True]
    assert host.stack.is_neighbor(packed("fd00:1::5"))
    assert len(probes(host, 10.0)) == 2


def test_where_hardware_addresses_are_unique_nothing_is_probed() -> None:
    stack = Stack(mac=MAC, mtu=1500, rng=random.Random(1), has_unique_mac=True)
    stack.start_ipv6(0.0, packed("fd00:1::"))
    assert not any(entry.is_optimistic for entry in stack.addresses.of_family(16))
    assert stack.sizes["addresses being verified"] == 0


def test_a_duplicate_in_the_wires_own_prefix_is_replaced_three_times() -> None:
    host = Host("10.0.0.1/24")
    host.stack.start_ipv6(0.0, packed("fd00:1::"))
    tried = set()
    for _ in range(4):
        _, entry = host.stack.addresses.of_family(16)
        tried.add(entry.packed)
        host.put(_claim_by_advertisement(entry.packed))
    assert len(tried) == 4
    assert len(host.stack.addresses.of_family(16)) == 1


def test_a_question_from_a_link_local_address_is_answered() -> None:
    host = Host6()
    host.put(solicitation(source=PEER_LL))
    assert len(host.take6()) == 1
    assert state(host, PEER_LL) == neighbor.STALE


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        (0, True),
        (1, False),
        (0x0200_5EFF_FE00_0000, True),
        (0x0200_5EFF_FEFF_FFFF, True),
        (0x0200_5EFF_FF00_0000, False),
        (0xFDFF_FFFF_FFFF_FF7F, False),
        (0xFDFF_FFFF_FFFF_FF80, True),
        (0xFDFF_FFFF_FFFF_FFFF, True),
    ],
)
def test_reserved_identifiers_are_known(identifier: int, expected: bool) -> None:
    assert is_reserved(identifier) is expected
