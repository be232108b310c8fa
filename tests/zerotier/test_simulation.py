"""Many nodes, NATs and loss in virtual time: who meets directly, and what is left after a day."""

from __future__ import annotations

from itertools import combinations

import pytest

from zttrio.zerotier.constants import PATH_ALIVE
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import EchoAnswered, Offline, Online, PathLost, UserMessageReceived

from .lab import Host, Lab, Nat, NatKind

_KINDS: list[NatKind | None] = [None, *NatKind]


def _can_meet(one: NatKind | None, other: NatKind | None) -> bool:
    """What follows from how the NATs map and filter (RFC 5128, 3.3)."""
    pair = {one, other}
    if pair == {NatKind.SYMMETRIC}:
        return False
    return pair != {NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED}


def _behind(lab: Lab, name: str, number: int, kind: NatKind | None, planet: object) -> Host:
    nat = None if kind is None else Nat(kind, bytes((60, 0, number, 1)))
    ip = f"61.0.{number}.1" if nat is None else f"192.168.{number}.2"
    return lab.host(name, ip, nat=nat, planet=planet)  # type: ignore[arg-type]


def _talk(one: Host, other: Host) -> None:
    one.node.send_user_message(other.address, 70_000, b"hello", one.lab.now)
    one.flush()


@pytest.mark.parametrize("one_kind", _KINDS, ids=str)
@pytest.mark.parametrize("other_kind", _KINDS, ids=str)
def test_two_nodes_meet_directly_exactly_if_their_nats_allow_it(
    one_kind: NatKind | None, other_kind: NatKind | None
) -> None:
    lab = Lab()
    _, planet = lab.root(ip="50.0.0.1")
    one = _behind(lab, "one", 1, one_kind, planet)
    other = _behind(lab, "other", 2, other_kind, planet)
    lab.start()
    lab.run(10)
    for _ in range(8):
        _talk(one, other)
        _talk(other, one)
        lab.run(5)
    assert len(one.seen(UserMessageReceived)) == len(other.seen(UserMessageReceived)) == 8
    assert one.is_direct_to(other) is other.is_direct_to(one) is _can_meet(one_kind, other_kind)
    one.node.echo(other.address, b"?", lab.now, context=1)
    one.flush()
    lab.run(1)
    [answered] = one.seen(EchoAnswered)
    assert (answered.hops == 0) is _can_meet(one_kind, other_kind)


def _fifty(lab: Lab) -> tuple[Host, list[Host]]:
    root, planet = lab.root(ip="50.0.0.1")
    hosts = [
        _behind(lab, f"node{number}", number, _KINDS[number % len(_KINDS)], planet)
        for number in range(50)
    ]
    lab.start()
    return root, hosts


def _kind(host: Host) -> NatKind | None:
    return None if host.nat is None else host.nat.kind


def test_fifty_nodes_with_loss_all_reach_each_other_and_those_who_can_do_so_directly() -> None:
    lab = Lab(seed=5, loss=0.05)
    root, hosts = _fifty(lab)
    lab.run(30)
    assert all(host.node.is_online for host in hosts)
    pairs = lab.random.sample(list(combinations(hosts, 2)), 120)
    met: set[tuple[Host, Host]] = set()
    for _ in range(18):  # introductions get lost too, and come every half minute
        for one, other in pairs:
            _talk(one, other)
            _talk(other, one)
        lab.run(10)
        direct = {pair for pair in pairs if pair[0].is_direct_to(pair[1])}
        met |= direct
    possible = {pair for pair in pairs if _can_meet(_kind(pair[0]), _kind(pair[1]))}
    assert met == possible
    assert len(direct) >= 0.95 * len(possible)  # one path or another has just been unlucky
    assert 0 < len(possible) < len(pairs)
    heard = sum(len(host.seen(UserMessageReceived)) for host in hosts)
    # A relayed message crosses two lossy links, and nothing is sent again.
    assert heard >= 0.85 * 2 * 18 * len(pairs)
    counters = root.node.counters
    assert counters.relayed > 0
    assert counters.introductions >= len(possible)


def test_a_dead_path_is_left_for_the_root_within_the_time_that_a_path_counts_as_alive() -> None:
    lab = Lab()
    _, planet = lab.root(ip="50.0.0.1")
    one = _behind(lab, "one", 1, None, planet)
    other = _behind(lab, "other", 2, NatKind.PORT_RESTRICTED, planet)
    lab.start()
    lab.run(10)
    for _ in range(5):
        _talk(one, other)
        _talk(other, one)
        lab.run(2)
    assert one.is_direct_to(other)
    assert other.nat is not None
    lab.blocked.add(frozenset((one.endpoint.ip, other.nat.ip)))
    cut_at = lab.now
    before = len(other.seen(UserMessageReceived))
    while len(other.seen(UserMessageReceived)) == before:
        _talk(one, other)
        lab.run(0.5)
    assert lab.now - cut_at <= PATH_ALIVE + 1
    lab.run(6)
    assert PathLost(other.address) in one.events
    lab.blocked.clear()
    for _ in range(5):  # the probes of the silent path bring it back
        _talk(one, other)
        _talk(other, one)
        lab.run(1)
    assert one.is_direct_to(other)


def test_a_nat_that_gets_another_address_is_noticed_and_its_node_is_reached_again() -> None:
    lab = Lab()
    root, planet = lab.root(ip="50.0.0.1")
    nat = Nat(NatKind.RESTRICTED, bytes((60, 0, 1, 1)))
    one = lab.host("one", "192.168.1.2", nat=nat, planet=planet)
    other = _behind(lab, "other", 2, None, planet)
    lab.start()
    lab.run(10)
    for _ in range(4):
        _talk(one, other)
        _talk(other, one)
        lab.run(1)
    assert one.is_direct_to(other)
    lab.move(nat, bytes((60, 0, 99, 1)))
    moved_at = lab.now
    while not any(
        path.remote.ip == nat.ip for path in other.node.topology.peers[one.address].paths.values()
    ):
        _talk(one, other)
        lab.run(1)
        assert lab.now - moved_at < 2 * PATH_ALIVE
    lab.run(70)
    peer = root.node.topology.peers[one.address]
    best = peer.best_path(lab.now)
    assert best is not None
    assert best.remote.ip == nat.ip


def test_a_root_that_restarts_is_found_again_by_everybody() -> None:
    lab = Lab()
    root, planet = lab.root(ip="50.0.0.1")
    one, other = (_behind(lab, n, i, NatKind.RESTRICTED, planet) for i, n in enumerate("ab", 1))
    lab.start()
    lab.run(10)
    root.is_up = False
    lab.run(120)
    assert Offline() in one.events
    root.is_up = True
    lab.run(10)
    assert one.events.count(Online()) == 2
    _talk(one, other)
    lab.run(5)
    assert len(other.seen(UserMessageReceived)) == 1


def test_two_nodes_behind_one_nat_meet_at_their_public_address_if_it_turns_around() -> None:
    lab = Lab()
    _, planet = lab.root(ip="50.0.0.1")
    nat = Nat(NatKind.FULL_CONE, bytes((60, 0, 1, 1)))
    one = lab.host("one", "192.168.1.2", nat=nat, planet=planet)
    other = lab.host("other", "192.168.1.3", nat=nat, planet=planet)
    lab.start()
    lab.run(10)
    for _ in range(4):
        _talk(one, other)
        _talk(other, one)
        lab.run(1)
    assert one.is_direct_to(other)
    assert len(other.seen(UserMessageReceived)) == 4


def test_the_same_seed_gives_the_same_history() -> None:
    def history(seed: int) -> list[object]:
        lab = Lab(seed=seed, loss=0.2)
        _, planet = lab.root(ip="50.0.0.1")
        one = _behind(lab, "one", 1, NatKind.RESTRICTED, planet)
        other = _behind(lab, "other", 2, NatKind.SYMMETRIC, planet)
        one.keep = True
        lab.start()
        for _ in range(10):
            lab.run(5)
            _talk(one, other)
        return [*one.events, *one.sent]

    assert history(1) == history(1)
    assert history(1) != history(2)


def _check_bounds(host: Host, nodes: int) -> None:
    sizes = host.node.sizes()
    assert sizes["peers"] <= nodes
    assert sizes["paths"] <= 2 * nodes + 4
    assert sizes["replay"] <= 4096
    assert sizes["expected"] <= 8192
    assert max(sizes[n] for n in ("reassembly", "waiting", "questions", "validations")) <= 32
    assert sizes["surface"] <= 2 * nodes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_state_stays_bounded_over_a_day_and_everybody_stays_online() -> None:
    lab = Lab(seed=7, loss=0.02)
    root, hosts = _fifty(lab)
    pairs = lab.random.sample(list(combinations(hosts, 2)), 30)
    for hour in range(24):
        for one, other in pairs:
            _talk(one, other)
        lab.run(3600)
        for host in (root, *hosts):
            _check_bounds(host, 51)
            host.events = [event for event in host.events if isinstance(event, Offline)]
            assert host.node.is_online, (hour, host.name)
    assert len(root.node.topology.peers) == 50
    assert all(host.node.surface(lab.now) for host in hosts)
    assert isinstance(root.endpoint, Endpoint)
