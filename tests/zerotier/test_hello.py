from __future__ import annotations

import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.armor import SUITE_AES, SUITE_SALSA
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import PeerKnown
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.messages import HelloAnswer

from .bench import Bench, Sent, verbs
from .data import node_identities


def _answer(sent: list[Sent]) -> HelloAnswer:
    verb, _, data = messages.parse_ok(sent[0].payload)
    assert verb == messages.HELLO
    return HelloAnswer.parse(data)


def test_a_strangers_hello_is_answered_where_it_came_from_and_the_path_is_checked() -> None:
    bench = Bench()
    stranger = bench.puppet("10.1.0.1/1234")
    datagram = stranger.hello(timestamp=4711)
    sent = stranger.deliver(datagram)
    assert verbs(sent) == ["OK", "HELLO"]
    assert {s.remote for s in sent} == {stranger.endpoint}
    assert messages.parse_ok(sent[0].payload)[1] == datagram[:8]
    answer = _answer(sent)
    assert answer.timestamp == 4711
    assert (answer.protocol, answer.version) == (12, (1, 14, 0))
    assert answer.seen_from == stranger.endpoint
    assert answer.worlds == b""
    assert len(sent[0].raw) == 59
    assert len(sent[1].raw) == 137
    assert PeerKnown(stranger.address) in bench.events
    assert bench.paths(stranger) == set()
    bench.check_totals()


def test_nothing_is_sent_to_a_stranger_before_the_check_of_its_identity() -> None:
    bench = Bench()
    stranger = bench.puppet("10.1.0.1/1234")
    bench.node.receive(0, stranger.endpoint, stranger.hello(), bench.now)
    identity = bench.node.next_validation()
    assert identity == stranger.identity
    assert bench.node.next_validation() is None
    assert bench.collect() == []
    assert bench.node.waiting == 1
    bench.check_totals()
    assert identity is not None
    bench.node.identity_checked(identity, bench.now, is_valid=False)
    assert bench.collect() == []
    assert stranger.address not in bench.node.topology.peers
    assert bench.node.counters.hello_invalid == 1
    bench.check_totals()


def test_an_identity_that_costs_nothing_is_refused() -> None:
    bench = Bench()
    good = node_identities()[9]
    cheap = Identity(b"\x12\x34\x56\x78\x9a", good.public, good.secret)
    liar = bench.puppet("10.1.0.1/1234", cheap)
    assert liar.deliver(liar.hello()) == []
    assert bench.node.counters.hello_invalid == 1


def test_the_second_stranger_from_a_24_waits_two_seconds() -> None:
    bench = Bench()
    first, second, third, elsewhere = (
        bench.puppet(e) for e in ("10.1.0.1/1", "10.1.0.2/1", "10.1.0.3/1", "10.1.1.1/1")
    )
    assert verbs(first.deliver(first.hello())) == ["OK", "HELLO"]
    bench.now += 1.999
    assert second.deliver(second.hello()) == []
    assert bench.node.counters.hello_gated == 1
    assert verbs(elsewhere.deliver(elsewhere.hello())) == ["OK", "HELLO"]
    bench.now += 0.001
    assert verbs(third.deliver(third.hello())) == ["OK", "HELLO"]
    assert second.deliver(second.hello()) == []
    bench.check_totals()


def test_strangers_from_an_ipv6_48_count_together() -> None:
    bench = Bench()
    first, second, elsewhere = (
        bench.puppet(e) for e in ("2001:db8:1:1::1/1", "2001:db8:1:2::2/1", "2001:db8:2:1::1/1")
    )
    assert verbs(first.deliver(first.hello())) == ["OK", "HELLO"]
    assert second.deliver(second.hello()) == []
    assert verbs(elsewhere.deliver(elsewhere.hello())) == ["OK", "HELLO"]


def test_a_root_may_shorten_the_wait_of_strangers() -> None:
    bench = Bench(config=NodeConfig(validation_interval=0))
    for number in range(5):
        stranger = bench.puppet(f"10.1.0.{number}/1")
        assert verbs(stranger.deliver(stranger.hello())) == ["OK", "HELLO"]


def test_the_queue_of_identities_to_check_is_bounded_and_forgets_after_ten_seconds() -> None:
    bench = Bench(config=NodeConfig(validation_interval=0, validation_queue=3))
    strangers = [bench.puppet(f"10.1.{n}.1/1") for n in range(5)]
    for stranger in strangers:
        bench.node.receive(0, stranger.endpoint, stranger.hello(), bench.now)
    assert bench.node.counters.hello_validation_full == 2
    assert bench.node.sizes()["validations"] == 3
    assert bench.node.next_validation() == strangers[0].identity
    bench.wait(15)
    assert bench.node.sizes()["validations"] == 1  # the one a worker has
    assert bench.node.counters.hello_validation_timeout == 2
    bench.check_totals()


def test_a_repeated_hello_of_a_stranger_is_checked_once_and_the_newest_is_answered() -> None:
    bench = Bench(config=NodeConfig(validation_interval=0))
    stranger = bench.puppet("10.1.0.1/1234")
    bench.node.receive(0, stranger.endpoint, stranger.hello(timestamp=1), bench.now)
    bench.node.receive(0, stranger.endpoint, stranger.hello(timestamp=2), bench.now)
    identity = bench.node.next_validation()
    assert identity is not None
    assert bench.node.next_validation() is None
    bench.node.identity_checked(identity, bench.now, is_valid=True)
    sent = bench.collect()
    assert verbs(sent) == ["OK", "HELLO"]
    assert _answer(sent).timestamp == 2
    bench.check_totals()


@pytest.mark.parametrize(
    ("protocol", "suite"), [(12, SUITE_AES), (11, SUITE_SALSA), (4, SUITE_SALSA)]
)
def test_the_answer_is_sealed_in_what_the_sender_speaks(protocol: int, suite: int) -> None:
    bench = Bench()
    stranger = bench.puppet("10.1.0.1/1234")
    sent = stranger.deliver(stranger.hello(protocol=protocol))
    assert sent[0].suite == suite
    seen_from = _answer(sent).seen_from
    assert seen_from == Endpoint(stranger.endpoint.ip, 1234 if protocol >= 5 else 0)


def test_a_protocol_older_than_four_is_dropped() -> None:
    bench = Bench()
    stranger = bench.puppet("10.1.0.1/1234")
    assert stranger.deliver(stranger.hello(protocol=3)) == []
    assert bench.node.counters.hello_old_protocol == 1


def test_a_hello_whose_identity_is_not_its_source_is_dropped() -> None:
    bench = Bench()
    stranger, other = bench.puppet("10.1.0.1/1234"), bench.puppet("10.1.1.1/1234")
    assert stranger.deliver(stranger.hello(identity=other.identity)) == []
    assert bench.node.counters.hello_wrong_address == 1


def test_a_hello_with_flags_on_its_verb_is_dropped() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    datagram = friend.hello()
    for flag in (0x80, 0x40, 0x20):
        assert friend.deliver(datagram[:27] + bytes((1 | flag,)) + datagram[28:]) == []
    assert bench.node.counters.hello_malformed == 3


@pytest.mark.parametrize("length", [28, 40, 111, 113, 130])
def test_a_hello_that_is_cut_short_is_dropped(length: int) -> None:
    bench = Bench()
    stranger = bench.puppet("10.1.0.1/1234")
    assert stranger.deliver(stranger.hello()[:length]) == []
    counters = bench.node.counters
    assert counters.hello_malformed + counters.hello_unauthentic == 1
    bench.check_totals()


def test_a_hello_with_a_wrong_mac_is_dropped_whoever_sends_it() -> None:
    bench = Bench()
    friend, stranger = bench.friend("10.1.0.1/1234"), bench.puppet("10.1.1.1/1234")
    for puppet in (friend, stranger):
        datagram = puppet.hello()
        assert puppet.deliver(datagram[:-1] + bytes((datagram[-1] ^ 1,))) == []
    assert bench.node.counters.hello_unauthentic == 2
    assert stranger.address not in bench.node.topology.peers
    bench.check_totals()


def test_an_authentic_hello_with_an_impossible_tail_is_dropped() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    assert friend.deliver(friend.hello(tail=b"\x00\x05")) == []
    assert bench.node.counters.hello_malformed == 1


def test_a_hello_that_ends_behind_the_identity_is_answered() -> None:
    bench = Bench()
    stranger = bench.puppet("10.1.0.1/1234")
    whole = stranger.hello()
    route, envelope = whole[8:18], whole[27 : 27 + 1 + 13 + 71]
    datagram = stranger.armor.seal(b"shorthel", route, envelope, 0, fragmented=False)
    assert verbs(stranger.deliver(datagram)) == ["OK", "HELLO"]


def test_the_first_identity_keeps_an_address_and_the_second_is_told() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    other = node_identities()[20]
    twin = Identity(friend.address, other.public, other.secret)
    thief = bench.puppet("10.2.0.1/1234", twin)
    datagram = thief.hello()
    sent = thief.deliver(datagram)
    assert verbs(sent) == ["ERROR"]
    assert messages.parse_error(sent[0].payload) == (
        messages.HELLO,
        datagram[:8],
        messages.COLLISION,
        b"",
    )
    assert bench.node.topology.peers[friend.address].identity == friend.identity
    assert bench.node.counters.hello_collision == 1
    assert thief.deliver(thief.hello()) == []  # the gate is for these too
    assert bench.node.counters.hello_collision_gated == 1
    bench.check_totals()


def test_a_collision_with_a_wrong_mac_is_not_answered() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    other = node_identities()[20]
    thief = bench.puppet("10.2.0.1/1234", Identity(friend.address, other.public, other.secret))
    datagram = thief.hello()
    assert thief.deliver(datagram[:-1] + bytes((datagram[-1] ^ 1,))) == []
    assert bench.node.counters.hello_unauthentic == 1


def test_older_planets_are_told_the_newer_one_at_most_every_five_seconds() -> None:
    bench = Bench(planet_timestamp=10)
    friend = bench.friend("10.1.0.1/1234")
    bench.now += 5  # meeting it took the first turn
    assert bench.planet is not None
    newer = _answer(friend.deliver(friend.hello(planet=(bench.planet.id, 9))))
    assert messages.parse_worlds(newer.worlds) == [bench.planet]
    again = _answer(friend.deliver(friend.hello(planet=(bench.planet.id, 9))))
    assert again.worlds == b""
    bench.now += 5
    for planet in ((bench.planet.id, 10), (bench.planet.id, 11), (bench.planet.id + 1, 0)):
        assert _answer(friend.deliver(friend.hello(planet=planet))).worlds == b""


def test_an_answer_from_a_version_too_old_is_ignored() -> None:
    bench = Bench()
    hello = bench.starting[0]
    data = HelloAnswer(77, 3, (0, 5, 0), None).emit()
    bench.root.send(messages.OK, messages.emit_ok(hello.verb, hello.packet_id, data))
    assert bench.node.topology.peers[bench.root.address].protocol == 0
    assert not bench.is_online()
    bench.check_totals()


def test_hellos_carry_wall_clock_time_the_planet_and_where_they_are_sent() -> None:
    bench = Bench(planet_timestamp=10)
    [sent] = bench.starting
    hello = messages.Hello.parse(sent.payload)
    assert hello.timestamp == 1_700_005_000_000
    assert hello.planet == (bench.planet.id, 10) if bench.planet else False
    assert hello.sent_to == bench.root.endpoint
    tail = bench.root.armor.hello_tail(sent.packet_id, sent.payload[hello.length :])
    assert messages.parse_moons(tail) == []
