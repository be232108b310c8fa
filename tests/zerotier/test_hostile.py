"""Floods, forgeries and noise: nothing raises, tables stay bounded, answers stay short."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.zerotier import messages
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.fragment import split

from .bench import Bench, Sent, verbs
from .data import node_identities

if TYPE_CHECKING:
    from .bench import Puppet

_LIMITS = {
    "peers": 70,
    "paths": 200,
    "replay": 4096,
    "expected": 8192,
    "reassembly": 32,
    "waiting": 32,
    "questions": 32,
    "validations": 32,
    "surface": 512,
}


def _check(bench: Bench) -> None:
    bench.check_totals()
    for name, size in bench.node.sizes().items():
        assert size <= _LIMITS[name], name


@pytest.fixture(scope="module", params=[None, RelayConfig()], ids=["leaf", "root"])
def busy(request: pytest.FixtureRequest) -> tuple[Bench, Puppet]:
    bench = Bench(relay=request.param)
    bench.online()
    friend = bench.friend("10.1.0.1/1234")
    bench.friend("10.2.0.1/1234")
    return bench, friend


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_datagram_is_counted_and_none_raises(
    busy: tuple[Bench, Puppet], data: st.DataObject
) -> None:
    bench, friend = busy
    bench.now += 0.01
    route = st.sampled_from([bench.node.address + friend.address, friend.address * 2, bytes(10)])
    header = st.builds(
        lambda packet_id, route, flags: packet_id + route + bytes((flags,)),
        st.binary(min_size=8, max_size=8),
        route,
        st.integers(0, 255),
    )
    datagram = data.draw(
        st.binary(max_size=80) | st.builds(lambda h, b: h + b, header, st.binary(max_size=200))
    )
    local = data.draw(st.sampled_from([0, 1]))
    bench.node.receive(local, friend.endpoint, datagram, bench.now)
    bench.collect()
    bench.check_totals()


@settings(deadline=None, max_examples=300)
@given(verb=st.integers(0, 255), payload=st.binary(max_size=150), suite=st.sampled_from([0, 1, 3]))
def test_any_authentic_message_is_counted_and_none_raises(
    busy: tuple[Bench, Puppet], verb: int, payload: bytes, suite: int
) -> None:
    bench, friend = busy
    bench.now += 0.3
    friend.send(verb, payload, suite=suite)
    bench.check_totals()


@settings(deadline=None, max_examples=200)
@given(
    verb=st.sampled_from(
        [
            messages.OK,
            messages.ERROR,
            messages.WHOIS,
            messages.RENDEZVOUS,
            messages.PUSH_DIRECT_PATHS,
        ]
    ),
    head=st.sampled_from([b"\x01", b"\x04", b"\x08", b"\x00\x03", b""]),
    payload=st.binary(max_size=150),
)
def test_a_root_gone_mad_makes_nothing_raise(
    busy: tuple[Bench, Puppet], verb: int, head: bytes, payload: bytes
) -> None:
    bench, _ = busy
    bench.now += 0.3
    expected = list(bench.node._sender.expected._sent)  # quote something that was really sent
    quoted = expected[-1] if expected else bytes(8)
    for body in (head + payload, head[:1] + quoted + payload):
        bench.root.send(verb, body)
    _check(bench)


def test_a_flood_of_hellos_costs_one_agreement_per_two_seconds_and_network() -> None:
    bench = Bench()
    stranger = bench.puppet("10.1.0.1/1234")
    good = stranger.hello()
    served = 0
    for number in range(2000):
        forged = random.Random(number).randbytes(8) + good[8:]
        served += len(stranger.deliver(forged))
        bench.now += 0.001
    counters = bench.node.counters
    assert counters.hello_unauthentic == 1  # the only one that was looked at
    assert counters.hello_gated == 1999
    assert served == 0
    _check(bench)


def test_a_flood_of_identities_from_everywhere_fills_a_bounded_queue() -> None:
    bench = Bench(config=NodeConfig(validation_interval=2))
    for number, identity in enumerate(node_identities()[5:60]):
        stranger = bench.puppet(f"10.{number}.0.1/1", identity)
        bench.node.receive(0, stranger.endpoint, stranger.hello(), bench.now)
    assert bench.node.sizes()["validations"] == 32
    assert bench.node.counters.hello_validation_full == 23
    assert bench.collect() == []
    _check(bench)


def test_a_full_table_of_peers_forgets_who_was_silent_longest_and_never_a_root() -> None:
    bench = Bench(config=NodeConfig(peer_limit=10, validation_interval=0))
    bench.online()
    friends = []
    for number in range(20):
        bench.now += 1
        friend = bench.puppet(f"10.{number}.0.1/1")
        friend.deliver(friend.hello())
        friends.append(friend)
    known = set(bench.node.topology.peers)
    assert len(known) == 10
    assert bench.root.address in known
    assert {f.address for f in friends[-9:]} <= known
    assert bench.node.counters.peers_evicted == 11


def test_a_flood_of_fragments_keeps_bounded_memory_and_honest_packets_still_pass() -> None:
    bench = Bench()
    friend, enemy = bench.friend("10.1.0.1/1234"), Endpoint.parse("10.66.0.1/1")
    for number in range(5000):
        datagram = number.to_bytes(8, "big") + bench.node.address + b"\xff\x71\x00" + bytes(1000)
        bench.node.receive(0, enemy, datagram, bench.now)
    packet = friend.armor.seal(
        b"fragment",
        bench.node.address + friend.address,
        bytes((messages.ECHO,)) + bytes(3000),
        3,
        fragmented=True,
    )
    for part in split(packet, 1432):
        bench.node.receive(0, friend.endpoint, part, bench.now)
    assert bench.node.counters.fragment_completed == 1
    assert bench.node.counters.packet_handled > 1
    _check(bench)


def test_a_spoiled_fragment_costs_its_packet_and_nothing_else() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    route = bench.node.address + friend.address
    packet = friend.armor.seal(
        b"fragment", route, bytes((messages.ECHO,)) + bytes(3000), 3, fragmented=True
    )
    parts = split(packet, 1432)
    spoiled = parts[1][:-1] + b"\xee"
    for part in (spoiled, parts[0], parts[2]):
        assert friend.deliver(part) == []
    assert bench.node.counters.packet_unauthentic == 1
    assert bench.node.sizes()["reassembly"] == 0
    _check(bench)


def _amplification(sent: list[Sent], datagram: bytes) -> float:
    return sum(len(s.raw) for s in sent) / len(datagram)


def test_whoever_replays_a_hello_from_a_forged_address_gains_little() -> None:
    bench = Bench(relay=RelayConfig())
    friend = bench.friend("10.1.0.1/1234")
    victim = Endpoint.parse("10.66.0.1/53")
    datagram = friend.hello()
    first = friend.deliver(datagram, at=victim)
    assert _amplification(first, datagram) < 1.5
    again = friend.deliver(datagram, at=victim)
    assert verbs(again) == ["OK"]
    assert _amplification(again, datagram) < 0.5


def test_a_world_makes_one_long_answer_in_five_seconds() -> None:
    bench = Bench(relay=RelayConfig(), planet_timestamp=10)
    friend = bench.friend("10.1.0.1/1234")
    bench.now += 5
    victim = Endpoint.parse("10.66.0.1/53")
    assert bench.planet is not None
    datagram = friend.hello(planet=(bench.planet.id, 1))
    total = sum(len(s.raw) for _ in range(100) for s in friend.deliver(datagram, at=victim))
    assert total < 100 * 70 + 137 + len(bench.planet.emit())


def test_whois_from_a_forged_address_gains_little() -> None:
    bench = Bench(relay=RelayConfig())
    friend = bench.friend("10.1.0.1/1234")
    victim = Endpoint.parse("10.66.0.1/53")
    question = friend.packet(messages.WHOIS, bench.node.address * 200)
    sent = [s for s in friend.deliver(question, at=victim) if s.verb == messages.OK]
    assert _amplification(sent, question) < 0.2
    short = friend.packet(messages.WHOIS, bench.node.address)
    sent = [s for s in friend.deliver(short, at=victim) if s.verb == messages.OK]
    assert _amplification(sent, short) < 3.4


def test_noise_of_every_length_is_never_answered() -> None:
    bench = Bench(relay=RelayConfig())
    noise = random.Random(9)
    for length in range(200):
        for _ in range(3):
            prefix = noise.choice([b"", bytes(8) + bench.node.address])
            datagram = (prefix + noise.randbytes(length))[:length]
            assert bench.receive(datagram, Endpoint.parse("10.66.0.1/1")) == []
    bench.receive(bytes(10_025), Endpoint.parse("10.66.0.1/1"))
    assert bench.node.counters.datagram_too_long == 1
    _check(bench)


def test_our_own_packets_thrown_back_at_us_are_dropped() -> None:
    bench = Bench(relay=RelayConfig())
    friend = bench.friend("10.1.0.1/1234")
    [sent] = friend.send(messages.ECHO, b"x")
    assert friend.deliver(sent.raw) == []
    assert bench.node.counters.datagram_reflected == 1


def test_forged_packets_of_a_friend_change_nothing() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    before = bench.node.topology.peers[friend.address].last_receive
    bench.now += 5
    datagram = friend.packet(messages.ECHO, b"x")
    for at in (0, 9, 19, 27, 28):
        forged = datagram[:at] + bytes((datagram[at] ^ 1,)) + datagram[at + 1 :]
        assert friend.deliver(forged, at=Endpoint.parse("10.66.0.1/1")) == []
    peer = bench.node.topology.peers[friend.address]
    assert peer.last_receive == before
    assert peer.bad_packets == bench.node.counters.packet_unauthentic == 4
    _check(bench)


def test_events_that_nobody_takes_are_dropped_and_counted() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    for _ in range(5000):
        packet = friend.packet(messages.USER_MESSAGE, bytes(9))
        bench.node.receive(0, friend.endpoint, packet, bench.now)
    assert len(bench.node.take_events()) == 4096
    assert bench.node.events_dropped == 904
