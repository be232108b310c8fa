"""Groups: who is told, who is asked, who gets the copies, and who answers (11, 12.2)."""

from __future__ import annotations

import random
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

import pytest

from zttrio.header.checksum import finish, pseudo_header, sum_of
from zttrio.zerotier import messages
from zttrio.zerotier.network.derived import (
    BROADCAST,
    Group,
    arp_group,
    mac_of,
    ndp_group,
    rfc4193,
    sixplane,
)
from zttrio.zerotier.network.emulation import NeighborEmulation
from zttrio.zerotier.network.frames import (
    Gather,
    GatherAnswer,
    GatherResults,
    MulticastAnswer,
    MulticastFrame,
    MulticastLike,
    NetworkError,
)
from zttrio.zerotier.network.netconf import (
    ACTIVE_BRIDGE,
    ANCHOR,
    NO_COMPRESSION,
    REPLICATOR,
    Specialist,
)
from zttrio.zerotier.network.rules import ACCEPT, DESTINATION_ADDRESS, DROP, ETHERTYPE, Rule

from .bench import verbs
from .data import network_identity, node_identities
from .member_bench import NETWORK_ID, MemberBench

if TYPE_CHECKING:
    from zttrio.zerotier.network.membership import Membership

    from .bench import Puppet, Sent

GROUP = Group(bytes.fromhex("01005e0000fb"))
FOREIGN = bytes.fromhex("0a1122334455")
ALL_NODES = Group(bytes.fromhex("333300000001"))


def _like(*groups: Group, network_id: int = NETWORK_ID) -> bytes:
    return MulticastLike(tuple((network_id, group) for group in groups)).emit()


def _joined(**fields: object) -> tuple[MemberBench, Membership]:
    bench = MemberBench()
    return bench, bench.join(**fields)


def _send(
    bench: MemberBench,
    group: Group = GROUP,
    payload: bytes = b"hi",
    *,
    kind: bytes = b"\x08\x00",
    source: bytes | None = None,
) -> list[Sent]:
    frame = group.mac + (bench.mac() if source is None else source) + kind + payload
    bench.networks.networks[NETWORK_ID].send(frame, bench.now)
    return bench.sent()


def _frames(sent: list[Sent]) -> dict[bytes, MulticastFrame]:
    """Multicast frames by who got them."""
    return {
        s.raw[8:13]: MulticastFrame.parse(s.payload)
        for s in sent
        if s.verb == messages.MULTICAST_FRAME
    }


def _gathers(sent: list[Sent]) -> list[Sent]:
    return [s for s in sent if s.verb == messages.MULTICAST_GATHER]


def _subscribe(bench: MemberBench, puppet: Puppet, *groups: Group) -> None:
    bench.present(puppet)
    bench.say(puppet, messages.MULTICAST_LIKE, _like(*groups))


def _role(name: str, roles: int) -> Specialist:
    return Specialist(network_identity(name).address, roles)


# announcing (11.2)


def test_own_groups_are_announced_to_the_registries_at_once_and_every_minute() -> None:
    bench = MemberBench(root="10.9.9.9/9993")
    bench.online()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    membership.set_groups(frozenset((GROUP,)), bench.now)
    assert bench.sent() == []  # nobody knows yet whether broadcast belongs to them
    bench.configure(specialists=(_role("peer", ANCHOR), _role("peer2", REPLICATOR)))
    likes = [(t, s) for t, s in bench.pass_time(61) if s.verb == messages.MULTICAST_LIKE]
    registries = {
        bench.root.endpoint,
        bench.controller.endpoint,
        bench.peer.endpoint,
        bench.peer2.endpoint,
    }
    for when in (0, 60):
        assert {s.remote for t, s in likes if t == when} == registries
    assert len(likes) == 8
    assert likes[0][1].payload == _like(GROUP, BROADCAST)


def test_a_registry_that_turns_up_is_told_within_half_a_second_of_the_start() -> None:
    bench = MemberBench(root="10.9.9.9/9993")
    membership = bench.networks.join(0xFF63000000000001, bench.now)
    membership.set_groups(frozenset((GROUP,)), bench.now)
    assert bench.pass_time(2.2) == []
    hello = next(s for s in bench.starting if s.remote == bench.root.endpoint)
    bench.root.answer(hello)
    [(when, like)] = bench.pass_time(0.5)
    assert (round(when, 6), like.verb) == (0.3, messages.MULTICAST_LIKE)
    assert like.remote == bench.root.endpoint


def test_a_registry_that_stays_away_is_looked_for_at_ticks_only() -> None:
    bench = MemberBench(root="10.9.9.9/9993")
    bench.networks.join(0xFF63000000000001, bench.now)
    bench.pass_time(10)
    timer = bench.networks.next_timer()
    assert timer is not None
    assert timer > bench.now + 4


def test_a_new_group_is_announced_alone_and_at_once_also_to_members() -> None:
    bench, membership = _joined()
    bench.present(bench.peer)
    bench.say(bench.peer, messages.FRAME, membership.id_octets + b"\x08\x00")
    membership.set_groups(frozenset((GROUP,)), bench.now)
    sent = bench.sent()
    assert {(s.verb, s.remote, s.payload) for s in sent} == {
        (messages.MULTICAST_LIKE, bench.controller.endpoint, _like(GROUP)),
        (messages.MULTICAST_LIKE, bench.peer.endpoint, _like(GROUP)),
    }
    membership.set_groups(frozenset((GROUP,)), bench.now)
    membership.set_groups(frozenset(), bench.now)
    assert bench.sent() == []  # there is no way to unsubscribe


def test_many_groups_are_announced_in_messages_that_fit_a_datagram() -> None:
    bench, membership = _joined()
    groups = frozenset(arp_group(bytes((10, 0, 0, n))) for n in range(200))
    membership.set_groups(groups, bench.now)
    sent = bench.sent()
    assert all(len(s.raw) <= 1432 for s in sent)
    told = [entry for s in sent for entry in MulticastLike.parse(s.payload).entries]
    assert {group for _, group in told} == groups
    membership.set_groups(frozenset(Group(b"\1" * 6, n) for n in range(4099)), bench.now)
    assert len(membership.own_groups) == 4096 + 1  # and broadcast
    assert bench.networks.counters.groups_refused == 3


def test_broadcast_is_announced_only_where_it_is_enabled() -> None:
    _, membership = _joined(flags=0)
    assert membership.own_groups == frozenset()
    _, membership = _joined(flags=2)
    assert membership.own_groups == {BROADCAST}


# hearing announcements (11.3)


def test_each_entry_of_an_announcement_is_judged_for_itself() -> None:
    bench, _ = _joined()
    bench.present(bench.peer)
    mixed = _like(GROUP) + _like(GROUP, network_id=NETWORK_ID + 1) + _like(BROADCAST)
    bench.say(bench.peer, messages.MULTICAST_LIKE, mixed)
    counters = bench.networks.counters
    assert (counters.likes_taken, counters.likes_refused) == (2, 1)
    now = bench.now
    assert bench.networks.groups.members(NETWORK_ID, GROUP, now) == [bench.peer.address]
    assert bench.networks.groups.members(NETWORK_ID + 1, GROUP, now) == []


def test_an_announcement_of_a_stranger_does_not_count() -> None:
    bench, _ = _joined()
    bench.say(bench.peer, messages.MULTICAST_LIKE, _like(GROUP))
    assert bench.networks.groups.members(NETWORK_ID, GROUP, bench.now) == []


def test_a_member_of_a_group_is_forgotten_after_ten_minutes() -> None:
    bench, _ = _joined()
    _subscribe(bench, bench.peer, GROUP)
    start = bench.now
    groups = bench.networks.groups
    assert groups.members(NETWORK_ID, GROUP, start + 599.9) == [bench.peer.address]
    assert groups.members(NETWORK_ID, GROUP, start + 600) == []


def test_a_root_believes_everybody_about_every_network() -> None:
    bench = MemberBench(is_registry=True)
    bench.say(bench.peer, messages.MULTICAST_LIKE, _like(GROUP, network_id=77))
    ask = Gather(77, GROUP, 10).emit()
    [answer] = bench.say(bench.peer2, messages.MULTICAST_GATHER, ask)
    _, _, data = messages.parse_ok(answer.payload)
    results = GatherResults(1, (bench.peer.address,))
    assert GatherAnswer.parse(data) == GatherAnswer(77, GROUP, results)


def test_a_root_forgets_in_time_even_if_it_is_on_no_network() -> None:
    bench = MemberBench(is_registry=True)
    bench.say(bench.peer, messages.MULTICAST_LIKE, _like(GROUP, network_id=77))
    assert bench.networks.sizes()["groups"] == 1
    bench.pass_time(631)
    assert bench.networks.sizes()["groups"] == 0


# which group a frame is for (11.1)


def _arp(operation: int = 1, *, target: bytes = bytes((10, 5, 0, 9)), length: int = 28) -> bytes:
    head = bytes.fromhex("00010800060400") + bytes((operation,))
    return (head + bytes(6) + bytes((10, 5, 0, 7)) + bytes(6) + target)[:length]


@pytest.mark.parametrize(
    ("payload", "adi"),
    [
        (_arp(1), 0x0A050009),
        (_arp(1, target=bytes((10, 5, 0, 7))), 0x0A050007),  # gratuitous
        (_arp(2), 0),
        (_arp(1, length=27), 0),
        (bytes.fromhex("0001080006050001") + bytes(20), 0),
        (bytes.fromhex("000186dd06100001") + bytes(20), 0),
    ],
)
def test_arp_requests_go_to_the_group_of_the_address_they_ask_for(payload: bytes, adi: int) -> None:
    bench, _ = _joined()
    [gather] = _gathers(_send(bench, BROADCAST, payload, kind=b"\x08\x06"))
    assert Gather.parse(gather.payload).group == Group(BROADCAST.mac, adi)


def test_broadcast_needs_the_networks_leave_and_arp_does_not() -> None:
    bench, _ = _joined(flags=0)
    assert _send(bench, BROADCAST) == []
    assert bench.networks.counters.out_broadcast_off == 1
    assert len(_send(bench, BROADCAST, _arp(), kind=b"\x08\x06")) == 1


def test_a_network_with_limit_0_has_no_multicast() -> None:
    bench, membership = _joined(multicast_limit=0)
    assert _send(bench) == []
    assert bench.networks.counters.out_multicast_off == 1
    _subscribe(bench, bench.peer)
    frame = MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi").emit()
    bench.say(bench.peer, messages.MULTICAST_FRAME, frame)
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_multicast_off == 1


# distributing (11.5)


def test_known_members_get_the_frame_and_the_registries_are_asked_for_more() -> None:
    bench, _ = _joined()
    _subscribe(bench, bench.peer, GROUP)
    sent = _send(bench)
    [gather] = _gathers(sent)
    question = Gather.parse(gather.payload)
    assert (question.group, question.limit) == (GROUP, 32)
    assert question.membership == bench.certificate()
    frames = _frames(sent)
    assert frames == {
        bench.peer.address: MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi", gather_limit=32)
    }
    assert bench.networks.counters.out_multicast == 1


def test_who_turns_up_within_five_seconds_gets_the_frame_too() -> None:
    bench, _ = _joined()
    _send(bench, payload=b"first")
    bench.now += 2
    _send(bench, payload=b"second")
    bench.now += 2.9
    sent = bench.quiet(bench.controller.answer(_gathers(_send(bench))[0], data=_found(bench.peer)))
    frames = [s.payload for s in sent if s.verb == messages.MULTICAST_FRAME]
    assert [MulticastFrame.parse(f).payload for f in frames] == [b"first", b"second", b"hi"]
    bench.now += 0.1
    _subscribe(bench, bench.peer2, GROUP)
    bench.sent()
    assert bench.networks.counters.multicast_copies == 5  # the first one is too old by now


def _found(*puppets: Puppet) -> bytes:
    results = GatherResults(len(puppets), tuple(puppet.address for puppet in puppets))
    return GatherAnswer(NETWORK_ID, GROUP, results).emit()


def test_nobody_gets_a_frame_twice() -> None:
    bench, _ = _joined()
    _subscribe(bench, bench.peer, GROUP)
    [gather] = _gathers(_send(bench))
    sent = bench.quiet(bench.controller.answer(gather, data=_found(bench.peer, bench.peer2)))
    assert set(_frames(sent)) == {bench.peer2.address}
    bench.say(bench.peer, messages.MULTICAST_LIKE, _like(GROUP))
    assert _frames(bench.sent()) == {}


def test_no_more_than_the_limit_get_a_frame() -> None:
    bench, _ = _joined(multicast_limit=1)
    [gather] = _gathers(_send(bench))
    assert Gather.parse(gather.payload).limit == 2
    sent = bench.quiet(bench.controller.answer(gather, data=_found(bench.peer, bench.peer2)))
    assert len(_frames(sent)) == 1
    sizes = bench.networks.networks[NETWORK_ID].sizes()
    assert sizes["queued"] == 0


def test_a_large_group_is_covered_over_time_and_nobody_is_asked() -> None:
    bench, membership = _joined(multicast_limit=3)
    others = [bytes((9, 0, 0, 0, n)) for n in range(10)]
    for address in others:
        bench.networks.groups.add(NETWORK_ID, GROUP, address, bench.now)
    reached: set[bytes] = set()
    send = bench.node.send
    sent: list[bytes] = []

    def spy(address: bytes, verb: int, payload: bytes, now: float, **options: object) -> None:
        if verb == messages.MULTICAST_FRAME:
            assert MulticastFrame.parse(payload).gather_limit == 1
            sent.append(address)

    bench.node.send = spy  # type: ignore[method-assign]
    for _ in range(40):
        sent.clear()
        membership.send(GROUP.mac + bench.mac() + b"\x08\x00hi", bench.now)
        assert len(set(sent)) == len(sent) == 3
        reached.update(sent)
    bench.node.send = send  # type: ignore[method-assign]
    assert reached == set(others)
    assert bench.networks.counters.gathers_out == 0


def test_an_empty_group_is_asked_for_once_a_second_and_a_known_one_once_a_minute() -> None:
    bench, _ = _joined()
    asked = []
    for _ in range(20):
        asked.append(len(_gathers(_send(bench))))
        bench.now += 0.25
    assert asked == [1, 0, 0, 0] * 5
    _subscribe(bench, bench.peer, GROUP)
    bench.now += 1
    last = bench.now - 2.0  # when it was asked last
    asked_at = []
    while bench.now < last + 130:
        if _gathers(_send(bench)):
            asked_at.append(bench.now)
        bench.now += 0.5
        bench.controller.send(messages.NOP)
    assert len(asked_at) == 2
    assert asked_at[1] - asked_at[0] == 60


def test_gathering_asks_root_controller_anchors_and_replicators_but_not_more_than_16() -> None:
    bench = MemberBench(root="10.9.9.9/9993")
    bench.online()
    bench.networks.join(NETWORK_ID, bench.now)
    friends = [
        bench.befriend(identity, f"10.3.0.{n}/1")
        for n, identity in enumerate(node_identities()[20:40])
    ]
    bench.configure(specialists=tuple(Specialist(f.address, ANCHOR) for f in friends))
    remotes = [s.remote for s in _gathers(_send(bench))]
    assert len(remotes) == 16
    assert remotes[:2] == [bench.root.endpoint, bench.controller.endpoint]


def test_rules_decide_about_every_recipient() -> None:
    denied = network_identity("peer").address
    rules = (
        Rule.of(DESTINATION_ADDRESS, denied),
        Rule(DROP),
        Rule(ACCEPT),
    )
    bench, _ = _joined(rules=rules)
    _subscribe(bench, bench.peer, GROUP)
    bench.now += 2
    _subscribe(bench, bench.peer2, GROUP)
    assert set(_frames(_send(bench))) == {bench.peer2.address}


def test_rules_may_drop_a_frame_before_it_is_distributed() -> None:
    bench, _ = _joined(rules=(Rule.of(ETHERTYPE, 0x800), Rule(DROP), Rule(ACCEPT)))
    assert _send(bench) == []
    assert bench.networks.counters.out_filtered == 1


def test_bridges_get_every_frame_and_ours_say_where_theirs_come_from() -> None:
    bench, _ = _joined(specialists=(_role("peer", ACTIVE_BRIDGE), _role("me", ACTIVE_BRIDGE)))
    frames = _frames(_send(bench))
    assert frames[bench.peer.address].source is None
    frames = _frames(_send(bench, source=FOREIGN))
    assert frames[bench.peer.address].source == FOREIGN


def test_compression_can_be_forbidden() -> None:
    raw = []
    for flags in (0, NO_COMPRESSION):
        bench, _ = _joined(flags=flags)
        _subscribe(bench, bench.peer, GROUP)
        [frame] = [
            s for s in _send(bench, payload=bytes(1000)) if s.verb == messages.MULTICAST_FRAME
        ]
        raw.append(len(frame.raw))
    assert raw[0] < 100
    assert raw[1] > 1000


def test_a_frame_that_no_message_can_carry_is_not_sent() -> None:
    bench, _ = _joined()
    assert len(_send(bench, payload=bytes(9965))) == 1
    assert _send(bench, payload=bytes(9966)) == []
    assert bench.networks.counters.out_too_long == 1


def test_the_queue_of_a_group_and_all_queues_are_bounded() -> None:
    bench, membership = _joined()
    for number in range(40):
        _send(bench, payload=bytes((number,)))
    assert membership.sizes()["queued"] == 32
    assert bench.networks.counters.multicast_queue_evicted == 8
    for number in range(5000):
        frame = b"\x01\x00" + number.to_bytes(4, "big") + bench.mac() + b"\x08\x00hi"
        membership.send(frame, bench.now)
        bench.node.datagrams_to_send()
    sizes = membership.sizes()
    assert sizes["queued"] == 1024
    assert sizes["gathered"] == 4096
    bench.pass_time(70)
    sizes = membership.sizes()
    assert (sizes["queued"], sizes["gathered"]) == (0, 0)


# replicators


def test_a_replicator_that_can_be_reached_makes_the_copies() -> None:
    bench, _ = _joined(specialists=(_role("peer", REPLICATOR),))
    _subscribe(bench, bench.peer2, GROUP)
    sent = _send(bench)
    assert verbs(sent) == ["NETWORK_CREDENTIALS", "MULTICAST_FRAME"]
    expected = MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi", source=bench.mac(), replicate=True)
    assert _frames(sent) == {bench.peer.address: expected}


def test_the_nearest_of_several_replicators_is_taken() -> None:
    bench, _ = _joined(specialists=(_role("peer", REPLICATOR), _role("peer2", REPLICATOR)))
    for puppet, latency in ((bench.peer, 0.2), (bench.peer2, 0.1)):
        [path] = bench.node.topology.peers[puppet.address].paths.values()
        path.latency = latency
    assert set(_frames(_send(bench))) == {bench.peer2.address}


def test_without_a_replicator_that_can_be_reached_we_make_the_copies() -> None:
    bench, _ = _joined(specialists=(Specialist(b"\x01\x02\x03\x04\x05", REPLICATOR),))
    _subscribe(bench, bench.peer, GROUP)
    assert set(_frames(_send(bench))) == {bench.peer.address}


def test_a_replicator_passes_a_frame_on_to_all_but_its_origin() -> None:
    bench, membership = _joined(specialists=(_role("me", REPLICATOR),))
    _subscribe(bench, bench.peer, GROUP)
    bench.now += 2
    _subscribe(bench, bench.peer2, GROUP)
    bench.sent()
    source = bench.mac(bench.peer)
    frame = MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi", source=source, replicate=True)
    sent = bench.say(bench.peer, messages.MULTICAST_FRAME, frame.emit())
    copies = _frames(sent)
    assert set(copies) == {bench.peer2.address}
    assert copies[bench.peer2.address].source == source
    assert len(membership.take_frames()) == 1


def test_a_frame_that_would_not_fit_again_is_not_replicated() -> None:
    bench, membership = _joined(specialists=(_role("me", REPLICATOR),))
    _subscribe(bench, bench.peer2, GROUP)
    bench.now += 2
    bench.present(bench.peer)
    frame = MulticastFrame(NETWORK_ID, GROUP, 0x800, bytes(9970), replicate=True)
    assert _frames(bench.say(bench.peer, messages.MULTICAST_FRAME, frame.emit())) == {}
    assert len(membership.take_frames()) == 1


def test_a_frame_to_a_group_that_the_rules_forbid_is_not_delivered() -> None:
    bench, membership = _joined(rules=(Rule(DROP),))
    bench.present(bench.peer)
    frame = MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi").emit()
    bench.say(bench.peer, messages.MULTICAST_FRAME, frame)
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_filtered == 1


def test_bridges_count_towards_the_limit() -> None:
    bench, _ = _joined(
        multicast_limit=1,
        specialists=(_role("peer", ACTIVE_BRIDGE), _role("peer2", ACTIVE_BRIDGE)),
    )
    assert len(_frames(_send(bench))) == 1


def test_who_is_no_replicator_passes_nothing_on() -> None:
    bench, _ = _joined()
    _subscribe(bench, bench.peer, GROUP)
    frame = MulticastFrame(
        NETWORK_ID, GROUP, 0x800, b"hi", source=bench.mac(bench.peer), replicate=True
    )
    assert _frames(bench.say(bench.peer, messages.MULTICAST_FRAME, frame.emit())) == {}


# receiving frames (11.6)


def test_a_frame_to_a_group_is_delivered_without_any_subscription() -> None:
    bench, membership = _joined()
    bench.present(bench.peer)
    frame = MulticastFrame(NETWORK_ID, Group(GROUP.mac, 99), 0x800, b"hi").emit()
    bench.say(bench.peer, messages.MULTICAST_FRAME, frame)
    assert membership.take_frames() == [GROUP.mac + bench.mac(bench.peer) + b"\x08\x00hi"]


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (
            MulticastFrame(NETWORK_ID, Group(bytes((2, 0, 0, 0, 0, 1))), 0x800, b"hi"),
            "not_multicast",
        ),
        (MulticastFrame(NETWORK_ID, GROUP, 0x800, b""), "empty"),
        (MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi", source=FOREIGN), "not_from_bridge"),
    ],
    ids=["unicast", "empty", "foreign"],
)
def test_a_frame_to_a_group_that_cannot_be_is_counted_by_reason(
    frame: MulticastFrame, counter: str
) -> None:
    bench, membership = _joined()
    bench.present(bench.peer)
    bench.say(bench.peer, messages.MULTICAST_FRAME, frame.emit())
    assert membership.take_frames() == []
    assert bench.networks.counters.as_dict()[f"frame_{counter}"] == 1


def test_a_bridges_frame_to_a_group_tells_what_is_behind_it() -> None:
    bench, membership = _joined(specialists=(_role("peer", ACTIVE_BRIDGE),))
    bench.present(bench.peer)
    frame = MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi", source=FOREIGN).emit()
    bench.say(bench.peer, messages.MULTICAST_FRAME, frame)
    assert membership.take_frames() == [GROUP.mac + FOREIGN + b"\x08\x00hi"]
    assert membership.outbound.routes.find(FOREIGN) == bench.peer.address


def test_a_gather_limit_is_answered_if_there_is_something_to_say() -> None:
    bench, membership = _joined()
    bench.present(bench.peer)
    frame = MulticastFrame(NETWORK_ID, GROUP, 0x800, b"hi", gather_limit=5).emit()
    assert "OK" not in verbs(bench.say(bench.peer, messages.MULTICAST_FRAME, frame))
    membership.set_groups(frozenset((GROUP,)), bench.now)
    bench.sent()
    [answer] = bench.say(bench.peer, messages.MULTICAST_FRAME, frame)
    _, _, data = messages.parse_ok(answer.payload)
    results = GatherResults(1, (bench.node.address,))
    assert MulticastAnswer.parse(data) == MulticastAnswer(NETWORK_ID, GROUP, None, results)


# answering questions (11.7)


def _ask(bench: MemberBench, limit: int = 10, *, by: Puppet | None = None) -> GatherResults | None:
    asker = bench.peer if by is None else by
    payload = Gather(NETWORK_ID, GROUP, limit).emit()
    answers = bench.say(asker, messages.MULTICAST_GATHER, payload)
    if not answers:
        return None
    [answer] = answers
    verb, _, data = messages.parse_ok(answer.payload)
    assert verb == messages.MULTICAST_GATHER
    return GatherAnswer.parse(data).results


def test_a_question_is_answered_with_ourselves_first_and_without_the_asker() -> None:
    bench, membership = _joined()
    membership.set_groups(frozenset((GROUP,)), bench.now)
    _subscribe(bench, bench.peer, GROUP)
    bench.now += 2
    _subscribe(bench, bench.peer2, GROUP)
    bench.sent()
    me = bench.node.address
    assert _ask(bench) == GatherResults(3, (me, bench.peer2.address))
    assert _ask(bench, 1) == GatherResults(3, (me,))
    assert _ask(bench, 0) is None


def test_a_question_about_an_empty_group_is_not_answered() -> None:
    bench, _ = _joined()
    bench.present(bench.peer)
    assert "OK" not in verbs(bench.say(bench.peer, 0x0D, Gather(NETWORK_ID, GROUP, 9).emit()))


def test_a_strangers_question_is_not_answered() -> None:
    bench, membership = _joined()
    membership.set_groups(frozenset((GROUP,)), bench.now)
    bench.sent()
    assert _ask(bench) is None
    assert bench.networks.counters.gathers_refused == 1


def test_a_question_may_bring_its_askers_certificate() -> None:
    bench, membership = _joined()
    membership.set_groups(frozenset((GROUP,)), bench.now)
    bench.sent()
    question = Gather(NETWORK_ID, GROUP, 5, bench.certificate(bench.peer.identity)).emit()
    assert "OK" in verbs(bench.say(bench.peer, messages.MULTICAST_GATHER, question))


def test_a_long_answer_fits_one_packet_and_is_random() -> None:
    bench = MemberBench(is_registry=True)
    for number in range(5000):
        address = b"\x01" + number.to_bytes(4, "big")
        bench.networks.groups.add(NETWORK_ID, GROUP, address, bench.now)
    first, second = _ask(bench, 1 << 31), _ask(bench, 1 << 31)
    assert first is not None
    assert second is not None
    assert first.total == 5000
    assert len(set(first.addresses)) == GatherAnswer.MAX_ADDRESSES
    assert set(first.addresses) != set(second.addresses)


def test_who_asks_too_much_is_not_answered() -> None:
    bench = MemberBench(is_registry=True)
    bench.networks.groups.add(NETWORK_ID, GROUP, bytes(4) + b"\1", bench.now)
    answered = sum(_ask(bench) is not None for _ in range(300))
    assert answered == 200
    assert _ask(bench, by=bench.peer2) is not None
    bench.now += 1
    assert _ask(bench) is not None


# believing answers (11.8)


def test_an_answer_is_believed_only_about_the_group_that_was_asked_for() -> None:
    bench, _ = _joined()
    [gather] = _gathers(_send(bench))
    other = GatherAnswer(NETWORK_ID, BROADCAST, GatherResults(1, (bench.peer.address,)))
    bench.controller.answer(gather, data=other.emit())
    assert bench.networks.counters.message_unexpected == 1
    assert bench.networks.groups.members(NETWORK_ID, BROADCAST, bench.now) == []


def test_an_answer_with_more_members_than_were_asked_for_is_cut() -> None:
    bench, _ = _joined(multicast_limit=3)
    [gather] = _gathers(_send(bench))
    many = tuple(bytes((8, 0, 0, 0, n)) for n in range(200))
    answer = GatherAnswer(NETWORK_ID, GROUP, GatherResults(200, many)).emit()
    bench.controller.answer(gather, data=answer)
    assert len(bench.networks.groups.members(NETWORK_ID, GROUP, bench.now)) == 4


def test_an_answer_does_not_make_us_a_recipient_of_our_own_frames() -> None:
    bench, _ = _joined()
    [gather] = _gathers(_send(bench))
    answer = GatherAnswer(NETWORK_ID, GROUP, GatherResults(1, (bench.node.address,))).emit()
    bench.controller.answer(gather, data=answer)
    assert bench.networks.groups.members(NETWORK_ID, GROUP, bench.now) == []


def test_an_answer_that_is_none_is_counted_and_nothing_raises() -> None:
    bench, _ = _joined()
    [gather] = _gathers(_send(bench))
    bench.controller.answer(gather, data=b"junk")
    assert bench.networks.counters.message_malformed == 1
    assert bench.node.counters.packet_malformed == 1


def test_members_are_learned_from_answers_to_frames_too() -> None:
    bench, _ = _joined()
    _subscribe(bench, bench.peer, GROUP)
    [frame] = [s for s in _send(bench) if s.verb == messages.MULTICAST_FRAME]
    results = GatherResults(1, (bench.peer2.address,))
    answer = MulticastAnswer(NETWORK_ID, GROUP, None, results).emit()
    sent = bench.quiet(bench.peer.answer(frame, data=answer))
    assert set(_frames(sent)) == {bench.peer2.address}
    empty = MulticastAnswer(NETWORK_ID, GROUP, None, None).emit()
    assert bench.quiet(bench.peer.answer(frame, data=empty)) == []


def test_only_a_member_may_say_that_it_does_not_want_a_group() -> None:
    bench, _ = _joined()
    _subscribe(bench, bench.peer, GROUP)
    error = NetworkError(NETWORK_ID, GROUP).emit()
    payload = messages.emit_error(0x0E, bytes(8), messages.UNWANTED_MULTICAST, error)
    bench.say(bench.peer2, messages.ERROR, payload)
    assert bench.networks.groups.members(NETWORK_ID, GROUP, bench.now) != []
    bench.say(bench.peer, messages.ERROR, payload)
    assert bench.networks.groups.members(NETWORK_ID, GROUP, bench.now) == []
    bench.say(bench.peer, messages.ERROR, payload)
    assert bench.networks.counters.error_obeyed == 2


# neighbour discovery without packets (12.2)


def _solicitation(source: bytes, target: bytes, mac: bytes) -> bytes:
    group = ndp_group(target).mac
    body = bytes((135, 0, 0, 0, 0, 0, 0, 0)) + target + b"\1\1" + mac
    header = bytes.fromhex("6000000000203aff") + source + bytes.fromhex("ff02") + bytes(14)
    return group + mac + b"\x86\xdd" + header + body


def _emulation() -> tuple[NeighborEmulation, bytes, bytes]:
    me, other = (network_identity(name).address for name in ("me", "peer"))
    addresses = (sixplane(NETWORK_ID, me), rfc4193(NETWORK_ID, me))
    return NeighborEmulation(NETWORK_ID, me, addresses), me, other


@pytest.mark.parametrize("kind", [sixplane, rfc4193])
def test_a_derived_address_is_answered_with_the_mac_of_its_node(kind: object) -> None:
    emulation, me, other = _emulation()
    assert callable(kind)
    source, target = kind(NETWORK_ID, me).packed, kind(NETWORK_ID, other).packed
    mac = mac_of(me, NETWORK_ID)
    frame = emulation.answer(_solicitation(source, target, mac))
    assert frame is not None
    assert frame[:14] == mac + mac_of(other, NETWORK_ID) + b"\x86\xdd"
    packet = frame[14:]
    assert (packet[8:24], packet[24:40]) == (target, source)
    assert packet[40] == 136
    assert packet[48:64] == target
    assert packet[66:72] == mac_of(other, NETWORK_ID)
    total = pseudo_header(target, source, 58, 32) + sum_of(packet[40:])
    assert finish(total) == 0


def test_every_host_behind_a_6plane_node_is_answered_with_its_nodes_mac() -> None:
    emulation, me, other = _emulation()
    source = sixplane(NETWORK_ID, me).packed
    target = sixplane(NETWORK_ID, other).packed[:10] + b"inside"
    frame = emulation.answer(_solicitation(source, target, mac_of(me, NETWORK_ID)))
    assert frame is not None
    assert frame[6:12] == mac_of(other, NETWORK_ID)


@pytest.mark.parametrize("what", ["own", "nobody", "ordinary", "short", "broadcast", "other type"])
def test_everything_else_is_left_to_the_network(what: str) -> None:
    emulation, me, other = _emulation()
    source = sixplane(NETWORK_ID, me).packed
    target = sixplane(NETWORK_ID, other).packed
    if what == "own":
        target = source
    elif what == "nobody":
        target = sixplane(NETWORK_ID, bytes(5)).packed
    elif what == "ordinary":
        target = IPv6Address("fd00::1").packed
    frame = _solicitation(source, target, mac_of(me, NETWORK_ID))
    if what == "short":
        frame = frame[:77]
    elif what == "broadcast":
        frame = b"\xff" * 6 + frame[6:]
    elif what == "other type":
        frame = frame[:54] + b"\x88" + frame[55:]
    assert emulation.answer(frame) is None


def test_without_derived_addresses_of_our_own_nothing_is_answered() -> None:
    me, other = (network_identity(name).address for name in ("me", "peer"))
    foreign = sixplane(NETWORK_ID + 7, me), rfc4193(NETWORK_ID, me).ip
    emulation = NeighborEmulation(
        NETWORK_ID, me, (foreign[0], type(foreign[0])((foreign[1].packed, 64)))
    )
    target = sixplane(NETWORK_ID, other).packed
    source = sixplane(NETWORK_ID, me).packed
    assert emulation.answer(_solicitation(source, target, mac_of(me, NETWORK_ID))) is None


def test_emulation_needs_neither_multicast_nor_packets() -> None:
    me = network_identity("me").address
    bench, membership = _joined(multicast_limit=0, flags=4, addresses=(sixplane(NETWORK_ID, me),))
    source = sixplane(NETWORK_ID, me).packed
    target = sixplane(NETWORK_ID, bench.peer.address).packed
    membership.send(_solicitation(source, target, bench.mac()), bench.now)
    assert bench.sent() == []
    [frame] = membership.take_frames()
    assert frame[:12] == bench.mac() + bench.mac(bench.peer)
    assert bench.networks.counters.out_emulated == 1


def test_noise_is_no_solicitation() -> None:
    emulation, _, _ = _emulation()
    noise = random.Random(5)
    for length in range(200):
        assert emulation.answer(noise.randbytes(length)) is None
