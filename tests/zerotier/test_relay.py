"""What a root does for others."""

from __future__ import annotations

import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.config import RelayConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.messages import Rendezvous

from .bench import Bench, Puppet, Sent, verbs, with_hops


def _relayed(bench: Bench, source: Puppet, destination: Puppet, hops: int = 0) -> list[Sent]:
    return source.deliver(source.packet(messages.NOP, to=destination.address, hops=hops))


def _fragment(destination: bytes, hops: int = 0) -> bytes:
    return b"packetid" + destination + bytes((0xFF, 0x21, hops)) + b"data"


@pytest.mark.parametrize("hops", range(8))
def test_packets_with_fewer_than_three_hops_are_passed_on_with_one_more(hops: int) -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    packet = one.packet(messages.NOP, to=two.address, hops=hops)
    sent = one.deliver(packet)
    if hops < 3:
        assert sent[0].remote == two.endpoint
        assert sent[0].raw == with_hops(packet, hops + 1)
    else:
        assert sent == []
        assert bench.node.counters.relay_hop_limit == 1
    bench.check_totals()


@pytest.mark.parametrize("hops", range(8))
def test_fragments_too(hops: int) -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    sent = one.deliver(_fragment(two.address, hops))
    if hops < 3:
        assert [(s.remote, s.raw) for s in sent] == [
            (two.endpoint, _fragment(two.address, hops + 1))
        ]
    else:
        assert sent == []
    bench.check_totals()


def test_other_bits_of_the_hop_octets_stay() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    assert one.deliver(_fragment(two.address, 0xA8))[0].raw[15] == 0xA9
    packet = one.packet(messages.NOP, to=two.address)
    changed = packet[:18] + b"\xc8" + packet[19:]
    assert one.deliver(changed)[0].raw[18] == 0xC9


def test_a_leaf_relays_nothing() -> None:
    bench = Bench()
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    assert _relayed(bench, one, two) == []
    assert one.deliver(_fragment(two.address)) == []
    assert bench.node.counters.datagram_not_for_us == 2
    bench.check_totals()


def test_strangers_and_wrong_endpoints_are_not_served() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    stranger, elsewhere = bench.puppet("10.3.0.1/3"), Endpoint.parse("10.1.0.1/9")
    assert _relayed(bench, stranger, two) == []
    assert stranger.deliver(_fragment(two.address)) == []
    packet = one.packet(messages.NOP, to=two.address)
    assert one.deliver(packet, at=elsewhere) == []
    assert one.deliver(packet, at=two.endpoint) == []
    assert bench.node.counters.relay_stranger == 4
    bench.check_totals()


def test_nobody_gets_a_path_by_an_unanswered_hello() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    two, stranger = bench.friend("10.2.0.1/2"), bench.puppet("10.3.0.1/3")
    assert verbs(stranger.deliver(stranger.hello())) == ["OK", "HELLO"]
    assert _relayed(bench, stranger, two) == []
    assert bench.node.counters.relay_stranger == 1


def test_an_unknown_destination_is_dropped() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, nobody = bench.friend("10.1.0.1/1"), bench.puppet("10.2.0.1/2")
    assert _relayed(bench, one, nobody) == []
    assert bench.node.counters.relay_unknown_destination == 1


def test_an_unknown_destination_is_left_to_another_root_but_never_sent_back() -> None:
    bench = Bench(relay=RelayConfig())
    root = bench.online()
    one, nobody = bench.friend("10.1.0.1/1"), bench.puppet("10.2.0.1/2")
    [sent] = _relayed(bench, one, nobody)
    assert sent.remote == root.endpoint
    assert _relayed(bench, root, nobody) == []
    assert bench.node.counters.relay_unknown_destination == 1


def test_a_destination_without_a_path_is_dropped() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.puppet("10.2.0.1/2")
    bench.node.add_peer(two.identity.without_secret(), (), bench.now)
    assert _relayed(bench, one, two) == []
    assert bench.node.counters.relay_no_path == 1


def test_one_ip_address_is_relayed_at_a_bounded_rate_and_others_are_not_affected() -> None:
    config = RelayConfig(packets_per_second=100, burst=10)
    bench = Bench(relay=config, root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    passed = 0
    for _ in range(1000):
        passed += len(one.deliver(_fragment(two.address)))
        bench.now += 0.001
    assert 105 <= passed <= 112
    assert bench.node.counters.relay_rate == 1000 - passed
    assert len(two.deliver(_fragment(one.address))) == 1
    bench.check_totals()


def test_a_relayed_packet_introduces_its_two_ends_once_in_thirty_seconds() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    sent = _relayed(bench, one, two)[1:]
    told = {s.remote: Rendezvous.parse(s.payload) for s in sent}
    assert verbs(sent) == ["RENDEZVOUS"] * 2
    assert told == {
        one.endpoint: Rendezvous(two.address, two.endpoint),
        two.endpoint: Rendezvous(one.address, one.endpoint),
    }
    bench.now += 29.9
    assert verbs(_relayed(bench, two, one)) == ["NOP"] or len(_relayed(bench, two, one)) == 1
    bench.now += 0.1
    assert len(_relayed(bench, two, one)) == 3


def test_fragments_introduce_nobody() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    assert len(one.deliver(_fragment(two.address))) == 1


def test_either_side_may_be_told_first() -> None:
    bench = Bench(relay=RelayConfig(introduction_interval=1), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/2")
    first = set()
    for _ in range(20):
        bench.now += 1
        first.add(_relayed(bench, one, two)[1].remote)
    assert first == {one.endpoint, two.endpoint}


def test_the_nearest_scope_that_both_have_is_chosen_and_ipv6_before_ipv4() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("1.1.0.1/1"), bench.friend("1.2.0.1/2")
    ways = [
        (Endpoint.parse(a), Endpoint.parse(b))
        for a, b in (
            ("2600::1/1", "2600::2/1"),
            ("10.1.0.1/1", "10.2.0.1/1"),
            ("fd00::1/1", "fd00::2/1"),
        )
    ]
    for mine, theirs in ways:
        for puppet, at in ((one, mine), (two, theirs)):
            bench.now += 1
            [hello] = [s for s in puppet.send(messages.NOP, at=at) if s.verb == messages.HELLO]
            puppet.answer(hello, at=at)
        bench.now += 31
        hints = {Rendezvous.parse(s.payload).endpoint for s in _relayed(bench, one, two)[1:]}
        assert hints == {mine, theirs}


def test_peers_without_a_common_kind_of_address_are_not_introduced() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one, two = bench.friend("10.1.0.1/1"), bench.friend("2.2.0.1/2")
    assert len(_relayed(bench, one, two)) == 1
    assert bench.node.counters.introductions == 0


def test_a_root_keeps_an_idle_client_for_500_seconds() -> None:
    bench = Bench(relay=RelayConfig(), root=None)
    one = bench.friend("10.1.0.1/1")
    bench.wait(499 - 1.1)
    assert one.address in bench.node.topology.peers
    bench.wait(10)
    assert one.address not in bench.node.topology.peers
