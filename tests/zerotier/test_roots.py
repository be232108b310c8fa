"""How a node finds its roots, keeps in touch with them, and believes new worlds."""

from __future__ import annotations

import itertools
import random

import attrs
import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import Offline, Online, WorldUpdated
from zttrio.zerotier.identity import Identity, KeyPair
from zttrio.zerotier.world import MOON, PLANET, Root, World

from .bench import HERE, Bench, Puppet, Sent, verbs
from .data import node_identities
from .lab import WORLD_ID, WORLD_KEYS

STRANGER_KEYS = KeyPair.generate(random.Random(2).randbytes)
MOON_ID = 0xFEED


def _hellos(sent: list[Sent]) -> list[Sent]:
    return [s for s in sent if s.verb == messages.HELLO]


def _next_hello(bench: Bench, puppet: Puppet) -> Sent:
    """The next HELLO that the node sends to *puppet*, which says nothing until then."""
    for _ in range(20):
        for sent in _hellos(bench.wait(5)):
            if sent.remote == puppet.endpoint:
                return sent
    raise AssertionError("no HELLO")


def _moon(*seeds: Puppet, timestamp: int = 5, signer: KeyPair = WORLD_KEYS) -> World:
    roots = [Root(seed.identity.without_secret(), (seed.endpoint,)) for seed in seeds]
    return World.make(MOON, MOON_ID, timestamp, roots, signer=signer)


def _answer_with(puppet: Puppet, hello: Sent, *worlds: World) -> None:
    data = messages.HelloAnswer(
        1, 12, (1, 2, 3), None, b"".join(world.emit() for world in worlds)
    ).emit()
    puppet.send(messages.OK, messages.emit_ok(messages.HELLO, hello.packet_id, data))


def test_a_root_is_sent_hello_every_five_seconds_until_it_answers() -> None:
    bench = Bench()
    assert [(s.remote, s.verb) for s in bench.starting] == [(bench.root.endpoint, messages.HELLO)]
    sent = bench.wait(20)
    assert verbs(sent) == ["HELLO"] * 4
    assert not bench.is_online()
    bench.root.answer(sent[-1])
    assert bench.is_online()
    assert Online() in bench.events
    assert bench.paths(bench.root) == {(0, bench.root.endpoint)}
    assert bench.wait(9) == []


def test_one_endpoint_of_each_family_is_tried_each_time() -> None:
    bench = Bench(root=None)
    puppet = bench.puppet("10.9.9.9/1")
    v4 = [Endpoint(bytes((10, 9, 9, n)), 1) for n in range(4)]
    v6 = [Endpoint(b"\xfd" + bytes(14) + bytes((n,)), 1) for n in range(4)]
    root = Root(puppet.identity.without_secret(), tuple(v4 + v6))
    bench.node.set_world(World.make(PLANET, 1, 1, [root], signer=WORLD_KEYS), bench.now)
    tried = [s.remote for s in bench.collect() + bench.wait(100)]
    assert set(tried) == set(v4 + v6)
    assert len(tried) == 2 * 21
    for first, second in zip(tried[::2], tried[1::2], strict=True):
        assert (len(first.ip), len(second.ip)) == (4, 16)


def test_a_quiet_root_is_asked_for_a_sign_of_life_and_greeted_every_minute() -> None:
    bench = Bench()
    root = bench.online()
    start = bench.now
    log = []
    while bench.now < start + 200:
        for sent in bench.wait(0.5):
            log.append((bench.now - start, verbs([sent])[0]))
            root.answer(sent)
    assert {verb for _, verb in log} == {"HELLO", "ECHO"}
    hellos = [when for when, verb in log if verb == "HELLO"]
    assert all(60 <= b - a <= 65 for a, b in itertools.pairwise(hellos))
    times = [when for when, _ in log]
    assert all(b - a <= 19 for a, b in zip([0.0, *times], times, strict=False))
    assert len(log) <= 200 / 14 + 2


def test_silence_of_all_roots_makes_us_offline_and_an_answer_online_again() -> None:
    bench = Bench(config=NodeConfig(online_timeout=30))
    bench.online()
    bench.wait(29)
    assert bench.is_online()
    sent = bench.wait(6)
    assert not bench.is_online()
    assert Offline() in bench.events
    bench.root.answer(_hellos(sent)[-1])
    assert bench.is_online()


def test_a_root_that_stops_answering_is_sought_at_its_endpoints_again() -> None:
    bench = Bench()
    bench.online()
    sent = bench.wait(39)
    assert verbs(sent)[0] == "ECHO"
    assert len(_hellos(sent)) == 4  # at 20, 25, 30 and 35 seconds


def test_a_newer_planet_with_the_right_signature_is_taken() -> None:
    bench = Bench(planet_timestamp=10)
    root = bench.online()
    assert bench.planet is not None
    other = bench.puppet("10.8.8.8/9993")
    roots = [*bench.planet.roots, Root(other.identity.without_secret(), (other.endpoint,))]
    newer = World.make(PLANET, WORLD_ID, 11, roots, signer=WORLD_KEYS)
    hello = _next_hello(bench, root)
    _answer_with(root, hello, newer)
    assert bench.node.topology.planet == newer
    assert WorldUpdated(newer) in bench.events
    assert other.endpoint in [s.remote for s in bench.wait(5)]


@pytest.mark.parametrize(
    "name", ["older", "same", "foreign key", "broken signature", "other id", "a moon"]
)
def test_any_other_planet_is_refused(name: str) -> None:
    bench = Bench(planet_timestamp=10)
    root = bench.online()
    held = bench.planet
    assert held is not None
    newer = World.make(PLANET, WORLD_ID, 11, held.roots, signer=WORLD_KEYS)
    candidates = {
        "older": World.make(PLANET, WORLD_ID, 9, held.roots, signer=WORLD_KEYS),
        "same": held,
        "foreign key": World.make(PLANET, WORLD_ID, 11, held.roots, signer=STRANGER_KEYS),
        "broken signature": attrs.evolve(newer, timestamp=12),
        "other id": World.make(PLANET, WORLD_ID + 1, 11, held.roots, signer=WORLD_KEYS),
        "a moon": World.make(MOON, WORLD_ID, 11, held.roots, signer=WORLD_KEYS),
    }
    hello = _next_hello(bench, root)
    _answer_with(root, hello, candidates[name])
    assert bench.node.topology.planet == held
    assert bench.node.topology.moons == {}
    assert bench.node.counters.worlds_rejected == 1
    bench.check_totals()


def test_a_new_key_is_believed_only_when_the_old_one_signed_it() -> None:
    bench = Bench(planet_timestamp=10)
    root = bench.online()
    held = bench.planet
    assert held is not None
    handed_over = World.make(
        PLANET, WORLD_ID, 11, held.roots, signer=WORLD_KEYS, update_key=STRANGER_KEYS.public
    )
    old_key = World.make(PLANET, WORLD_ID, 12, held.roots, signer=WORLD_KEYS)
    new_key = World.make(PLANET, WORLD_ID, 13, held.roots, signer=STRANGER_KEYS)
    for world, taken in ((handed_over, True), (old_key, False), (new_key, True)):
        _answer_with(root, _next_hello(bench, root), world)
        assert (bench.node.topology.planet == world) is taken


def test_worlds_from_somebody_who_is_no_root_are_not_even_read() -> None:
    bench = Bench(planet_timestamp=10)
    friend = bench.friend("10.1.0.1/1234")
    assert bench.planet is not None
    newer = World.make(PLANET, WORLD_ID, 11, bench.planet.roots, signer=WORLD_KEYS)
    [hello] = friend.send(messages.NOP, at=Endpoint.parse("10.1.9.9/1"))
    _answer_with(friend, hello, newer)
    assert bench.node.topology.planet == bench.planet
    counters = bench.node.counters
    assert (counters.worlds_accepted, counters.worlds_rejected) == (0, 0)


def test_a_planet_is_never_taken_from_the_network_when_none_is_held() -> None:
    bench = Bench(root=None)
    seed = bench.friend("10.1.0.1/1234")
    bench.node.orbit(MOON_ID, seed.address, bench.now)
    [hello] = _hellos(bench.collect())
    roots = [Root(seed.identity.without_secret(), (seed.endpoint,))]
    _answer_with(seed, hello, World.make(PLANET, WORLD_ID, 11, roots, signer=WORLD_KEYS))
    assert bench.node.topology.planet is None
    assert bench.node.topology.roots == {}


def test_a_moon_is_taken_from_its_seed_and_its_roots_become_ours() -> None:
    bench = Bench()
    bench.online()
    seed = bench.friend("10.1.0.1/1234")
    bench.node.orbit(MOON_ID, seed.address, bench.now)
    [hello] = _hellos(bench.collect())
    parsed = messages.Hello.parse(hello.payload)
    tail = seed.armor.hello_tail(hello.packet_id, hello.payload[parsed.length :])
    assert messages.parse_moons(tail) == [(MOON_ID, 0)]
    moon = _moon(seed)
    _answer_with(seed, hello, moon)
    assert bench.node.topology.moons == {MOON_ID: moon}
    assert seed.address in bench.node.topology.roots
    assert WorldUpdated(moon) in bench.events


def test_a_moon_that_nobody_wants_or_that_does_not_list_its_seed_is_refused() -> None:
    bench = Bench()
    root = bench.online()
    seed, other = bench.friend("10.1.0.1/1234"), bench.puppet("10.2.0.1/1")
    hello = _next_hello(bench, root)
    _answer_with(root, hello, _moon(root))  # not wanted
    bench.node.orbit(MOON_ID, seed.address, bench.now)
    [hello] = _hellos(bench.collect())
    _answer_with(seed, hello, _moon(other))
    assert bench.node.topology.moons == {}
    assert bench.node.counters.worlds_rejected == 2


def test_a_moon_is_updated_by_any_root_with_the_right_signature() -> None:
    bench = Bench()
    root = bench.online()
    seed = bench.puppet("10.1.0.1/1234")
    bench.node.set_world(_moon(seed), bench.now)
    bench.collect()
    forged = _moon(seed, timestamp=6, signer=STRANGER_KEYS)
    newer = _moon(seed, timestamp=7)
    hello = _next_hello(bench, root)
    _answer_with(root, hello, forged, newer)
    assert bench.node.topology.moons == {MOON_ID: newer}


def test_a_seed_known_by_address_only_is_asked_for_and_reached_through_a_root() -> None:
    bench = Bench()
    root, seed = bench.online(), bench.puppet("10.1.0.1/1234")
    bench.node.orbit(MOON_ID, seed.address, bench.now)
    [question] = bench.collect()
    assert (question.verb, question.payload) == (messages.WHOIS, seed.address)
    root.answer(question, data=seed.identity.emit())
    hellos = [s for s in bench.wait(5) if s.verb == messages.HELLO]
    assert hellos[-1].remote == root.endpoint
    assert hellos[-1].raw[8:13] == seed.address


def test_a_moon_that_is_left_is_neither_held_nor_wanted() -> None:
    bench = Bench()
    seed = bench.puppet("10.1.0.1/1234")
    bench.node.set_world(_moon(seed), bench.now)
    assert seed.address in bench.node.topology.roots
    bench.node.deorbit(MOON_ID, bench.now)
    assert seed.address not in bench.node.topology.roots
    assert bench.node.topology.moons == {}


def test_the_number_of_moons_is_bounded() -> None:
    bench = Bench(config=NodeConfig(moon_limit=2))
    for moon_id in (1, 2, 1):
        bench.node.orbit(moon_id, b"\x01\x02\x03\x04\x05", bench.now)
    with pytest.raises(ValueError, match="2 moons are held or wanted already"):
        bench.node.orbit(3, b"\x01\x02\x03\x04\x05", bench.now)


def test_a_node_that_its_world_lists_is_a_root_and_online_by_itself() -> None:
    bench = Bench(root=None)
    mine = Root(bench.node.identity.without_secret(), (Endpoint.parse("10.0.0.1/9993"),))
    bench.node.set_world(World.make(PLANET, 1, 1, [mine], signer=WORLD_KEYS), bench.now)
    assert bench.node.topology.is_root
    assert bench.wait(5) == []
    assert bench.is_online()


def test_the_root_that_answers_fastest_relays_and_the_next_one_when_it_falls_silent() -> None:
    bench = Bench(root=None)
    puppets = [bench.puppet(f"10.9.9.{n}/9993") for n in (1, 2)]
    roots = [Root(p.identity.without_secret(), (p.endpoint,)) for p in puppets]
    bench.node.set_world(World.make(PLANET, 1, 1, roots, signer=WORLD_KEYS), bench.now)
    hellos = {s.remote: s for s in bench.collect()}
    fast, slow = puppets[1], puppets[0]
    bench.now += 0.02
    fast.answer(hellos[fast.endpoint])
    bench.now += 0.1
    slow.answer(hellos[slow.endpoint])
    friend = bench.puppet("10.1.0.1/1")
    bench.node.add_peer(friend.identity.without_secret(), (), bench.now)
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    assert {s.remote for s in bench.collect()} == {fast.endpoint}
    bench.now += 10
    slow.send(messages.NOP)
    bench.now += 10  # the fast one has been silent for 20 s, the slow one for 10 s
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    assert {s.remote for s in bench.collect()} == {slow.endpoint}


def test_a_change_of_our_own_address_makes_all_paths_of_that_kind_prove_themselves() -> None:
    bench = Bench()
    root = bench.online()
    friend = bench.friend("10.1.0.1/1234")
    public = bench.friend("1.2.3.4/1234")
    after = Endpoint.parse("10.71.0.1/1")
    root.deliver(root.hello(sent_to=Endpoint(HERE.ip, 2)))  # another port is no change
    assert bench.node.counters.surface_resets == 0
    sent = root.deliver(root.hello(sent_to=after))
    assert bench.node.counters.surface_resets == 1
    assert bench.node.surface(bench.now) == [after]
    [probe] = [s for s in sent if s.remote == friend.endpoint]
    assert public.endpoint not in [s.remote for s in sent]
    root_probe = next(s for s in sent if s.remote == root.endpoint and s.verb == messages.ECHO)
    root.answer(root_probe)
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    assert [s.remote for s in bench.collect()] == [root.endpoint]
    friend.answer(probe)
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    assert [s.remote for s in bench.collect()] == [friend.endpoint]


def test_an_ordinary_peer_cannot_make_us_doubt_our_paths() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    for text in ("10.70.0.1/1", "10.71.0.1/1"):
        friend.deliver(friend.hello(sent_to=Endpoint.parse(text)))
    assert bench.node.counters.surface_resets == 0
    assert bench.node.surface(bench.now) == [Endpoint.parse("10.71.0.1/1")]


def test_reports_of_another_scope_and_relayed_ones_do_not_count() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    bench.now += 700  # what was reported on the way here is too old
    for text in ("1.2.3.4/1", "127.0.0.1/1", "224.0.0.1/1"):
        friend.deliver(friend.hello(sent_to=Endpoint.parse(text)))
    friend.deliver(friend.hello(sent_to=Endpoint.parse("10.70.0.1/1"), hops=1))
    assert bench.node.surface(bench.now) == []


def test_a_root_without_endpoints_is_reached_through_another_root() -> None:
    bench = Bench()
    root, hidden = bench.online(), bench.puppet("10.8.8.8/1")
    listed = [Root(hidden.identity.without_secret())]
    bench.node.set_world(World.make(MOON, 9, 1, listed, signer=WORLD_KEYS), bench.now)
    [hello] = bench.collect()
    assert (hello.remote, hello.verb) == (root.endpoint, messages.HELLO)
    assert hello.raw[8:13] == hidden.address


def test_a_root_in_two_worlds_is_tried_at_the_endpoints_of_both() -> None:
    bench = Bench()
    other = Endpoint.parse("10.9.9.8/1")
    listed = [Root(bench.root.identity.without_secret(), (other,))]
    bench.node.set_world(World.make(MOON, 9, 1, listed, signer=WORLD_KEYS), bench.now)
    endpoints = bench.node.topology.roots[bench.root.address].endpoints
    assert set(endpoints) == {bench.root.endpoint, other}


def test_a_signed_world_outweighs_what_was_learned_about_an_address() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1")
    keys = node_identities()[40]
    twin = Identity(friend.address, keys.public)
    world = World.make(MOON, 9, 1, [Root(twin, (friend.endpoint,))], signer=WORLD_KEYS)
    bench.node.set_world(world, bench.now)
    assert bench.node.topology.peers[friend.address].identity == twin
    assert bench.node.topology.peers[friend.address].paths == {}


def test_a_root_of_small_order_is_left_out() -> None:
    bench = Bench()
    useless = Identity(b"\x01\x02\x03\x04\x05", bytes(64))
    world = World.make(MOON, 9, 1, [Root(useless)], signer=WORLD_KEYS)
    bench.node.set_world(world, bench.now)
    assert useless.address not in bench.node.topology.roots


def test_newer_moons_are_told_to_those_who_hold_or_want_them() -> None:
    bench = Bench()
    friend, seed = bench.friend("10.1.0.1/1"), bench.puppet("10.2.0.1/1")
    moon = _moon(seed, timestamp=5)
    bench.node.set_world(moon, bench.now)
    for timestamp, expected in ((0, [moon]), (4, [moon]), (5, []), (6, [])):
        bench.collect()
        bench.now += 5
        [ok, *_] = friend.deliver(friend.hello(moons=[(MOON_ID, timestamp), (1, 0)]))
        _, _, data = messages.parse_ok(ok.payload)
        told = messages.parse_worlds(messages.HelloAnswer.parse(data).worlds)
        assert told == expected
    assert bench.node.topology.peers[friend.address].moons == ((MOON_ID, 6), (1, 0))


def test_a_planet_is_not_taken_under_the_number_of_a_moon_that_is_wanted() -> None:
    bench = Bench(root=None)
    seed = bench.friend("10.1.0.1/1234")
    bench.node.orbit(MOON_ID, seed.address, bench.now)
    [hello] = _hellos(bench.collect())
    roots = [Root(seed.identity.without_secret(), (seed.endpoint,))]
    _answer_with(seed, hello, World.make(PLANET, MOON_ID, 11, roots, signer=WORLD_KEYS))
    assert bench.node.topology.planet is None
    assert bench.node.counters.worlds_rejected == 1
