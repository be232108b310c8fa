"""Addresses chosen and defended without configuration: RFC 5227 and RFC 3927, to the second."""

from __future__ import annotations

from ipaddress import ip_interface
from itertools import pairwise

import pytest

from zttrio.config import Config
from zttrio.header import arp
from zttrio.header.address import BROADCAST_MAC, IPV4_UNSPECIFIED, ip_text, packed
from zttrio.stack import events
from zttrio.stack.claim import (
    ANNOUNCING,
    BOUND,
    CONFLICT,
    DEFEND_INTERVAL,
    MAX_CONFLICTS,
    PROBING,
    RELEASED,
    Claim,
)

from .stack_host import MAC, OTHER_MAC, PEER_MAC, US, Host, Sent, arp_frame

RFC = Config(probe_interval=2.0, probe_count=3)  # RFC 5227's own times
ADDRESS = packed("10.0.0.77")


class Empty(Host):
    """A host without an address."""

    def __init__(self, config: Config | None = RFC, *, mac: bytes = MAC, seed: int = 1) -> None:
        super().__init__("192.0.2.1/24", config=config, mac=mac, seed=seed)
        self.stack.remove_address(ip_interface("192.0.2.1/24"), self.now)


def claim(host: Host) -> Claim:
    found = host.stack.claim_address(host.now, ip_interface("10.0.0.77/24"))
    found.wanted = events.CONN | events.ERR
    return found


def steps(host: Host, until: float) -> list[tuple[float, Sent]]:
    found = []
    while (due := host.stack.next_timer()) is not None and due <= until:
        found += [(host.now, sent) for sent in host.at(due)]
    host.at(until)
    return found


def conflict(host: Host, address: bytes = ADDRESS, mac: bytes = PEER_MAC) -> None:
    host.put(arp_frame(arp.REPLY, mac, address, BROADCAST_MAC, address))


def test_three_probes_then_two_announcements_at_the_rfcs_intervals() -> None:
    host = Empty()
    found = claim(host)
    sent = steps(host, 60.0)
    times = [at for at, _ in sent]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(sent) == 5
    assert 0 <= times[0] <= 1  # PROBE_WAIT
    assert all(1 <= gap <= 2 for gap in gaps[:2])  # PROBE_MIN, PROBE_MAX
    assert gaps[2:] == pytest.approx([2.0, 2.0])  # ANNOUNCE_WAIT, ANNOUNCE_INTERVAL
    for number, (_, frame) in enumerate(sent):
        assert frame.destination_mac == BROADCAST_MAC
        sender = IPV4_UNSPECIFIED if number < 3 else ADDRESS
        assert frame.arp == arp.ArpPacket(arp.REQUEST, MAC, sender, bytes(6), ADDRESS)
    assert found.state == BOUND


def test_the_address_is_ours_with_the_first_announcement_and_that_is_reported() -> None:
    host = Empty()
    found = claim(host)
    while found.state == PROBING:
        assert not host.stack.addresses
        assert host.stack.events.take() == []
        due = host.stack.next_timer()
        assert due is not None
        host.at(due)
    assert found.state == ANNOUNCING
    assert found.is_ours
    assert list(host.stack.addresses) == [ip_interface("10.0.0.77/24")]
    assert host.stack.events.take() == [found]
    assert found.ready == events.CONN


def test_the_default_is_done_within_a_fifth_of_a_second() -> None:
    for seed in range(20):
        host = Empty(Config(), seed=seed)
        host.stack.claim_address(host.now)
        host.at(0.2)
        assert len(host.stack.addresses) == 1


@pytest.mark.parametrize("probes_before", [0, 1, 3])
def test_an_answer_to_a_probe_ends_the_claim(probes_before: int) -> None:
    host = Empty()
    found = claim(host)
    for _ in range(probes_before):
        due = host.stack.next_timer()
        assert due is not None
        host.at(due)
    conflict(host)
    assert found.state == CONFLICT
    assert host.stack.events.take() == [found]
    assert found.ready == events.ERR
    assert steps(host, 100.0) == []
    assert not host.stack.addresses
    assert host.counters.arp_conflicts == host.counters.claim_conflicts == 1
    host.check_books()


def test_two_hosts_that_probe_for_the_same_address_both_notice() -> None:
    host = Empty()
    found = claim(host)
    host.put(arp_frame(arp.REQUEST, PEER_MAC, IPV4_UNSPECIFIED, bytes(6), ADDRESS))
    assert found.state == CONFLICT


def test_a_probe_for_an_address_we_have_claimed_is_answered_and_no_conflict() -> None:
    host = Empty()
    found = claim(host)
    steps(host, 60.0)
    host.put(arp_frame(arp.REQUEST, PEER_MAC, IPV4_UNSPECIFIED, bytes(6), ADDRESS))
    (answer,) = host.take()
    assert answer.arp.operation == arp.REPLY
    assert answer.arp.sender_ip == ADDRESS
    assert found.state == BOUND


def test_a_claimed_address_is_defended_once_and_given_up_at_the_second_time() -> None:
    host = Empty()
    found = claim(host)
    steps(host, 60.0)
    host.stack.events.take()
    found.ready = 0
    found.wanted = events.ERR
    conflict(host)
    (defence,) = host.take()
    assert defence.arp.sender_ip == defence.arp.target_ip == ADDRESS
    assert found.state == BOUND
    host.at(60.0 + DEFEND_INTERVAL - 0.001)
    conflict(host)
    assert host.take() == []
    assert found.state == CONFLICT
    assert found.ready == events.ERR
    assert not host.stack.addresses
    assert host.counters.claim_defences == 1


def test_conflicts_ten_seconds_apart_are_each_defended() -> None:
    host = Empty()
    found = claim(host)
    steps(host, 60.0)
    for number in range(5):
        host.at(60.0 + number * DEFEND_INTERVAL)
        conflict(host)
        assert len(host.take()) == 1
    assert found.state == BOUND


def test_link_local_addresses_are_chosen_by_the_mac_and_stay_in_the_rfcs_range() -> None:
    chosen = set()
    for number in range(50):
        mac = bytes((2, 0, 0, 0, 0, number))
        first, again = (Empty(mac=mac, seed=seed).stack.claim_address(0.0) for seed in (1, 2))
        assert first.address == again.address
        assert packed("169.254.1.0") <= first.address <= packed("169.254.254.255")
        assert first.prefix_length == 16
        chosen.add(first.address)
    assert len(chosen) > 45


def test_a_link_local_claim_tries_another_address_after_a_conflict() -> None:
    host = Empty()
    found = host.stack.claim_address(host.now)
    tried = found.address
    conflict(host, tried)
    assert found.state == PROBING
    assert found.address != tried
    steps(host, 60.0)
    assert list(host.stack.addresses) == [ip_interface(f"{ip_text(found.address)}/16")]


def test_a_link_local_address_that_is_lost_is_replaced() -> None:
    host = Empty()
    found = host.stack.claim_address(host.now)
    steps(host, 60.0)
    lost = found.address
    conflict(host, lost)
    conflict(host, lost)
    assert not host.stack.addresses
    assert len(host.stack.routes) == 0
    steps(host, 120.0)
    assert found.state == BOUND
    assert found.address != lost
    assert host.stack.addresses.is_ours(found.address)


def test_after_ten_conflicts_there_is_one_attempt_a_minute() -> None:
    host = Empty()
    found = host.stack.claim_address(host.now)
    for _ in range(MAX_CONFLICTS - 1):
        conflict(host, found.address)
    assert host.at(1.0) != []  # still quick
    conflict(host, found.address)
    assert host.at(60.9) == []
    assert host.at(62.0) != []


def test_a_configured_address_is_announced_and_never_given_up() -> None:
    host = Empty()
    host.stack.add_address(ip_interface("10.0.0.1/24"), host.now)
    (announcement,) = host.take()
    assert announcement.arp == arp.ArpPacket(arp.REQUEST, MAC, US, bytes(6), US)
    host.at(20.0)
    for mac in (PEER_MAC, OTHER_MAC, PEER_MAC):
        conflict(host, US, mac)
    assert len(host.take()) == 1  # RFC 5227 2.4 c: at most one in DEFEND_INTERVAL
    host.at(20.0 + DEFEND_INTERVAL)
    conflict(host, US)
    assert len(host.take()) == 1
    assert host.stack.addresses.is_ours(US)
    assert host.counters.claim_conflicts == 4
    assert host.counters.claim_defences == 2


def test_a_removed_address_is_no_longer_defended() -> None:
    host = Empty()
    host.stack.add_address(ip_interface("10.0.0.1/24"), host.now)
    host.stack.remove_address(ip_interface("10.0.0.1/24").ip, host.now)
    host.at(20.0)
    host.take()
    conflict(host, US)
    assert host.take() == []


def test_a_released_claim_gives_the_address_back() -> None:
    host = Empty()
    found = claim(host)
    steps(host, 60.0)
    found.release(host.now)
    found.release(host.now)
    assert found.state == RELEASED
    assert not host.stack.addresses
    assert steps(host, 100.0) == []


def test_an_address_is_claimed_once() -> None:
    host = Empty()
    claim(host)
    with pytest.raises(ValueError, match=r"10\.0\.0\.77: already being claimed"):
        claim(host)


def test_claims_read_well_and_are_listed() -> None:
    host = Empty()
    found = claim(host)
    assert list(map(str, host.stack.claims)) == ["10.0.0.77/24 PROBING"]
    found.release(host.now)
    assert list(host.stack.claims) == []


def test_an_address_configured_while_it_is_being_claimed_is_the_claims_to_defend() -> None:
    host = Empty()
    found = claim(host)
    host.stack.add_address(ip_interface("10.0.0.77/24"), host.now)
    assert host.take() == []
    steps(host, 60.0)
    assert found.state == BOUND
    host.stack.remove_address(ip_interface("10.0.0.77/24"), host.now)
    found.release(host.now)
    assert not host.stack.addresses
