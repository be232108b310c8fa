"""Which endpoints become paths, how long they live, and which one packets take."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import PathFound, PathLost, PeerLost
from zttrio.zerotier.peer import Path, ReplayWindow

from .bench import Bench, Puppet, verbs

OTHER = Endpoint.parse("10.5.0.1/4321")


def _echo_to(bench: Bench, puppet: Puppet) -> None:
    bench.node.echo(puppet.address, b"?", bench.now, context=1)


def test_a_path_begins_with_an_answer_to_something_we_sent() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    sent = friend.send(messages.NOP, at=OTHER)
    assert verbs(sent) == ["HELLO"]
    assert sent[0].remote == OTHER
    assert bench.paths(friend) == {(0, friend.endpoint)}
    friend.answer(sent[0], at=OTHER)
    assert bench.paths(friend) == {(0, friend.endpoint), (0, OTHER)}


def test_an_unconfirmed_path_is_asked_once_a_second() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    assert verbs(friend.send(messages.NOP, at=OTHER)) == ["HELLO"]
    bench.now += 0.999
    assert friend.send(messages.NOP, at=OTHER) == []
    bench.now += 0.001
    assert verbs(friend.send(messages.NOP, at=OTHER)) == ["HELLO"]


def test_our_own_probe_does_not_keep_us_from_asking_when_the_other_sides_probe_arrives() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.friend("10.1.0.1/1234")
    hint = messages.Rendezvous(friend.address, OTHER).emit()
    assert verbs(root.send(messages.RENDEZVOUS, hint)) == ["junk", "ECHO"]
    # Real cores answer one ECHO a second, so ours may have been in vain.
    assert verbs(friend.send(messages.ECHO, at=OTHER)) == ["OK", "HELLO"]


def test_a_relayed_packet_says_nothing_about_paths() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    assert friend.send(messages.NOP, at=OTHER, hops=1) == []
    hello = friend.send(messages.NOP, at=OTHER)[0]
    payload = messages.emit_ok(hello.verb, hello.packet_id, bytes(13))
    friend.send(messages.OK, payload, at=OTHER, hops=1)
    assert bench.paths(friend) == {(0, friend.endpoint)}


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    peer = bench.node.topology.peers[friend.address]
    before = peer.last_receive
    bench.now += 10
    hello = friend.send(messages.NOP, at=OTHER)[0]
    heard = peer.last_receive
    assert heard > before
    bench.now += 1
    other = bench.friend("10.2.0.1/1")
    wrong_id = messages.emit_ok(messages.HELLO, bytes(8), bytes(13))
    wrong_verb = messages.emit_ok(messages.ECHO, hello.packet_id)
    for payload in (wrong_id, wrong_verb):
        friend.send(messages.OK, payload, at=OTHER)
    right = messages.emit_ok(messages.HELLO, hello.packet_id, bytes(13))
    other.send(messages.OK, right, at=OTHER)  # the right answer of the wrong peer
    assert bench.node.counters.ok_unexpected == 3
    assert peer.last_receive == heard
    assert (0, OTHER) not in bench.paths(friend) | bench.paths(other)


def test_an_answer_after_sixty_seconds_is_too_late() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    hello = friend.send(messages.NOP, at=OTHER)[0]
    bench.now += 60
    friend.answer(hello, at=OTHER)
    assert bench.node.counters.ok_unexpected == 1
    assert (0, OTHER) not in bench.paths(friend)


def test_another_port_of_a_live_path_is_not_followed() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    moved = Endpoint(friend.endpoint.ip, 4444)
    assert friend.send(messages.NOP, at=moved) == []
    bench.now += 20  # the old one is not alive any more
    assert verbs(friend.send(messages.NOP, at=moved)) == ["HELLO"]


def test_a_port_that_has_moved_takes_the_place_of_the_silent_one() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    moved = Endpoint(friend.endpoint.ip, 4444)
    bench.now += 20
    friend.answer(friend.send(messages.NOP, at=moved)[0], at=moved)
    assert bench.paths(friend) == {(0, moved)}


@pytest.mark.parametrize(
    "text", ["127.0.0.1/1", "224.0.0.1/1", "169.254.1.1/1", "0.1.2.3/1", "255.1.1.1/1"]
)
def test_no_path_leads_to_an_address_that_makes_no_sense(text: str) -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    assert friend.send(messages.NOP, at=Endpoint.parse(text)) == []
    assert bench.node.counters.probe_refused == 1


def test_a_test_may_allow_loopback_paths() -> None:
    bench = Bench(config=NodeConfig(loopback_paths=True))
    friend = bench.friend("127.0.0.1/1234")
    assert bench.paths(friend) == {(0, friend.endpoint)}


def test_no_path_leads_into_a_blacklisted_or_a_virtual_network() -> None:
    bench = Bench(config=NodeConfig(blacklist=(ip_network("10.5.0.0/16"),)))
    friend = bench.friend("10.1.0.1/1234")
    bench.node.set_prohibited([ip_network("10.6.0.0/16")])
    for text in ("10.5.1.1/1", "10.6.1.1/1"):
        assert friend.send(messages.NOP, at=Endpoint.parse(text)) == []
    assert verbs(friend.send(messages.NOP, at=Endpoint.parse("10.7.1.1/1"))) == ["HELLO"]


def test_a_root_is_only_where_its_world_says_on_any_port() -> None:
    bench = Bench()
    root = bench.online()
    bench.now += 20
    assert root.send(messages.NOP, at=OTHER) == []
    assert bench.node.counters.probe_refused == 1
    assert verbs(root.send(messages.NOP, at=Endpoint(root.endpoint.ip, 7))) == ["HELLO"]


def test_a_peer_has_64_paths_at_most_and_the_one_silent_longest_makes_room() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    for number in range(70):
        at = Endpoint(bytes((10, 5, number, 1)), 1)
        bench.now += 0.01
        friend.answer(friend.send(messages.NOP, at=at)[0], at=at)
    paths = bench.paths(friend)
    assert len(paths) == 64
    assert (0, friend.endpoint) not in paths
    assert (0, at) in paths


def test_a_silent_path_is_forgotten_after_243_seconds() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    last = bench.node.topology.peers[friend.address].last_receive
    bench.wait(last + 242.9 - bench.now)
    assert bench.paths(friend) == {(0, friend.endpoint)}
    bench.wait(5)
    assert bench.paths(friend) == set()


def test_a_silent_peer_is_forgotten_after_500_seconds_and_a_root_never() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    bench.online()
    bench.wait(490)
    assert friend.address in bench.node.topology.peers
    bench.wait(15)
    assert friend.address not in bench.node.topology.peers
    assert PeerLost(friend.address) in bench.events
    assert bench.root.address in bench.node.topology.peers


def test_packets_go_directly_while_the_path_is_alive_and_by_the_root_when_it_is_silent() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.friend("10.1.0.1/1234")
    assert PathFound(friend.address, 0, friend.endpoint) in bench.events
    _echo_to(bench, friend)
    assert [s.remote for s in bench.collect()] == [friend.endpoint]
    heard = bench.node.topology.peers[friend.address].last_receive
    bench.now = heard + 18.9
    root.send(messages.NOP)
    _echo_to(bench, friend)
    assert [s.remote for s in bench.collect()] == [friend.endpoint]
    bench.now = heard + 19
    _echo_to(bench, friend)
    sent = bench.collect()
    # The silent path is probed while the root relays.
    assert [(s.remote, verbs([s])[0], s.payload) for s in sent] == [
        (friend.endpoint, "ECHO", b""),
        (root.endpoint, "ECHO", b"?"),
    ]
    friend.answer(sent[0])
    _echo_to(bench, friend)
    assert [s.remote for s in bench.collect()] == [friend.endpoint]


def test_the_owner_is_told_when_the_last_direct_path_falls_silent() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    bench.wait(15)
    assert PathLost(friend.address) not in bench.events
    bench.wait(10)
    assert bench.events.count(PathLost(friend.address)) == 1
    bench.events.clear()
    friend.send(messages.NOP)
    assert PathFound(friend.address, 0, friend.endpoint) in bench.collect_events()


def test_a_silent_path_is_used_when_no_root_can_relay() -> None:
    bench = Bench(root=None)
    friend = bench.friend("10.1.0.1/1234")
    bench.now += 100
    _echo_to(bench, friend)
    assert [s.remote for s in bench.collect()] == [friend.endpoint]


def test_a_peer_reached_by_a_relay_is_asked_once_per_tick_what_it_speaks() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    bench.node.add_peer(friend.identity.without_secret(), (), bench.now)
    _echo_to(bench, friend)
    sent = bench.collect()
    assert [(s.remote, verbs([s])[0], s.suite) for s in sent] == [
        (root.endpoint, "HELLO", 0),
        (root.endpoint, "ECHO", 1),
    ]
    _echo_to(bench, friend)
    assert verbs(bench.collect()) == ["ECHO"]
    bench.puppets[friend.address].endpoint = root.endpoint
    data = messages.HelloAnswer(77, 12, (1, 2, 3)).emit()
    friend.send(messages.OK, messages.emit_ok(1, sent[0].packet_id, data), hops=1)
    _echo_to(bench, friend)
    assert [s.suite for s in bench.collect()] == [3]
    assert bench.paths(friend) == set()


def test_paths_are_ranked_by_latency_scope_and_silence() -> None:
    def path(text: str, latency: float | None, silence: float = 0.0) -> Path:
        found = Path(0, Endpoint.parse(text), 1000.0 - silence)
        found.latency = latency
        return found

    cases = [
        (path("10.0.0.1/1", 0.010), path("10.0.0.2/1", 0.020)),
        (path("10.0.0.1/1", 0.030), path("1.2.3.4/1", 0.010)),  # private: three times the bonus
        (path("1.2.3.4/1", 0.010), path("10.0.0.1/1", 0.050)),
        (path("1.2.3.4/1", 5.0), path("1.2.3.5/1", None)),
        (path("1.2.3.4/1", 5.0), path("10.0.0.1/1", 0.001, silence=30)),
        (path("1.2.3.4/1", 0.1, silence=30), path("1.2.3.5/1", 0.1, silence=60)),
    ]
    for better, worse in cases:
        assert better.cost(1000.0) < worse.cost(1000.0)


def test_latency_is_the_mean_of_the_old_value_and_the_new_sample() -> None:
    path = Path(0, OTHER, 0.0)
    path.add_latency(0.1)
    assert path.latency == 0.1
    path.add_latency(0.3)
    assert path.latency == pytest.approx(0.2)


def test_the_time_of_a_round_trip_is_our_own_measurement() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    path = bench.node.topology.peers[friend.address].paths[0, friend.endpoint]
    path.latency = None
    _echo_to(bench, friend)
    [sent] = bench.collect()
    bench.now += 0.25
    friend.answer(sent)
    assert path.latency == pytest.approx(0.25)


def test_packet_ids_are_remembered_for_a_while_and_in_bounded_space() -> None:
    window = ReplayWindow()
    assert not window.has_seen(b"first", 0.0)
    assert window.has_seen(b"first", 14.9)
    assert not window.has_seen(b"second", 15.0)
    assert window.has_seen(b"first", 29.9)
    assert not window.has_seen(b"third", 30.0)
    assert not window.has_seen(b"first", 30.0)
    for number in range(50_000):
        window.has_seen(number.to_bytes(8, "big"), 31.0)
    assert len(window) <= 4096
    assert window.has_seen((49_000).to_bytes(8, "big"), 31.0)


def test_a_recorded_packet_is_not_believed_twice_unless_it_may_come_by_two_paths() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    recorded = friend.packet(messages.USER_MESSAGE, bytes(7) + b"\xff" + b"once")
    friend.deliver(recorded)
    friend.deliver(recorded)
    assert bench.node.counters.packet_replayed == 1
    hello, echo = friend.hello(), friend.packet(messages.ECHO, b"x")
    for datagram in (hello, echo):
        for _ in range(2):
            bench.now += 1
            assert verbs(friend.deliver(datagram)) == ["OK"]
    bench.check_totals()
