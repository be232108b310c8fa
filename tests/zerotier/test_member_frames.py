"""Frames between members, bridges, revocation: what leaves and what is let in (9.7, 10, 13, 14)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.network.credential import OWNERSHIP, TAG, CredentialsMessage, Revocation, Tag
from zttrio.zerotier.network.derived import Group, mac_of
from zttrio.zerotier.network.frames import ACKNOWLEDGE, ExtFrame, FrameMessage, MulticastFrame
from zttrio.zerotier.network.member_config import MemberConfig
from zttrio.zerotier.network.netconf import ACTIVE_BRIDGE, Specialist
from zttrio.zerotier.network.rules import (
    ACCEPT,
    DESTINATION_ADDRESS,
    DROP,
    ETHERTYPE,
    REDIRECT,
    TAG_SENDER,
    TEE,
    WATCH,
    Rule,
)

from .bench import verbs
from .data import network_identity
from .member_bench import NETWORK_ID, MemberBench

if TYPE_CHECKING:
    from zttrio.zerotier.network.membership import Membership

    from .bench import Puppet, Sent

FOREIGN = bytes.fromhex("0a1122334455")
OTHER = bytes.fromhex("0a9999999999")
IPV4 = b"\x08\x00"
NO_IPV4 = (Rule.of(ETHERTYPE, 0x800), Rule(DROP), Rule(ACCEPT))


def _target(rule: int, address: bytes, length: int = 0) -> Rule:
    return Rule.of(rule, address, 0, length)


def _joined(**fields: object) -> tuple[MemberBench, Membership]:
    bench = MemberBench()
    membership = bench.join(**fields)
    bench.present(bench.peer)
    bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4)  # past the greeting
    return bench, membership


def _send(
    bench: MemberBench,
    to: bytes,
    text: bytes = b"hi",
    *,
    source: bytes | None = None,
    kind: bytes = IPV4,
) -> list[Sent]:
    """Let the local stack send a frame; returns what leaves."""
    frame = to + (bench.mac() if source is None else source) + kind + text
    bench.networks.networks[NETWORK_ID].send(frame, bench.now)
    return bench.sent()


def _ext(
    bench: MemberBench,
    *,
    source: bytes | None = None,
    target: bytes | None = None,
    text: bytes = b"hi",
    flags: int = 0,
) -> list[Sent]:
    """Let the peer send an EXT_FRAME; returns the answer."""
    source = bench.mac(bench.peer) if source is None else source
    target = bench.mac() if target is None else target
    ext = ExtFrame(NETWORK_ID, flags, target, source, 0x800, text)
    return bench.say(bench.peer, messages.EXT_FRAME, ext.emit())


def _bridges_of(*names: str) -> tuple[Specialist, ...]:
    return tuple(Specialist(network_identity(name).address, ACTIVE_BRIDGE) for name in names)


# out (10.1)


def test_a_frame_of_ours_to_a_member_is_a_frame() -> None:
    bench, _ = _joined()
    [frame] = _send(bench, bench.mac(bench.peer))
    assert frame.verb == messages.FRAME
    assert frame.remote == bench.peer.endpoint
    assert FrameMessage.parse(frame.payload) == FrameMessage(NETWORK_ID, 0x800, b"hi")
    assert bench.networks.counters.out_unicast == 1


def test_frames_to_ourselves_come_back() -> None:
    bench, membership = _joined()
    assert _send(bench, bench.mac()) == []
    assert membership.take_frames() == [bench.mac() + bench.mac() + IPV4 + b"hi"]


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (b"short", "out_malformed"),
        (FOREIGN + FOREIGN + IPV4, "out_bad_source"),
        (mac_of(bytes(5), NETWORK_ID), "out_bad_destination"),
        (mac_of(b"\xffabcd", NETWORK_ID), "out_bad_destination"),
        (FOREIGN, "out_no_bridge"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_frame_that_cannot_be_sent_is_counted_by_reason(frame: bytes, counter: str) -> None:
    bench, membership = _joined()
    if len(frame) == 6:
        frame += membership.mac + IPV4 + b"hi"
    membership.send(frame, bench.now)
    assert bench.sent() == []
    assert bench.networks.counters.as_dict()[counter] == 1


def test_without_a_configuration_nothing_is_sent() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now)
    assert _send(bench, bench.mac(bench.peer)) == []
    assert bench.networks.counters.out_no_config == 1


def test_the_longest_frame_is_sent_and_a_longer_one_is_not() -> None:
    bench, _ = _joined()
    [frame] = _send(bench, bench.mac(bench.peer), bytes(9986))
    assert len(frame.payload) == 9996
    assert _send(bench, bench.mac(bench.peer), bytes(9987)) == []
    assert bench.networks.counters.out_too_long == 1


def test_a_full_datagram_carries_1394_octets_of_payload() -> None:
    bench, _ = _joined()
    [frame] = _send(bench, bench.mac(bench.peer), bytes(1394))
    assert len(frame.raw) == 1432


def _frames_of_all_kinds(bench: MemberBench) -> list[bytes]:
    noise = random.Random(5)
    stranger = mac_of(b"\x01\x02\x03\x04\x05", NETWORK_ID)
    targets = [bench.mac(bench.peer), bench.mac(bench.peer2), bench.mac(), FOREIGN, stranger]
    targets += [b"\xff" * 6, mac_of(bytes(5), NETWORK_ID)]
    frames = []
    for _ in range(60):
        target = noise.choice(targets)
        source = noise.choice([bench.mac()] * 4 + [FOREIGN])
        kind = noise.choice([IPV4, b"\x86\xdd"])
        for _ in range(noise.randrange(1, 5)):
            size = noise.choice([0, 40, 1394, 1395, 2800, 9986, 9987])
            frames.append(target + source + kind + noise.randbytes(size))
    return [*frames, b"short", b"", b"short"]


@pytest.mark.parametrize("rules", [(Rule(ACCEPT),), NO_IPV4, ()], ids=["open", "some", "none"])
def test_a_burst_is_the_same_as_its_frames(rules: tuple[Rule, ...]) -> None:
    alone, together = _joined(rules=rules)[0], _joined(rules=rules)[0]
    frames = _frames_of_all_kinds(alone)
    outcomes = []
    for bench in (alone, together):
        membership = bench.networks.networks[NETWORK_ID]
        if bench is alone:
            for frame in frames:
                membership.send(frame, bench.now)
        else:
            membership.send_burst(frames, bench.now)
        sent = [(s.verb, s.remote, s.payload) for s in bench.sent()]
        outcomes.append((sent, membership.take_frames(), bench.networks.counters.as_dict()))
    assert outcomes[0] == outcomes[1]
    assert bool(outcomes[0][0]) is bool(rules)


def test_a_burst_before_there_is_a_configuration_is_dropped_and_counted() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    membership.send_burst([bench.mac(bench.peer) + bench.mac() + IPV4] * 3, bench.now)
    membership.send_burst([], bench.now)
    assert bench.networks.counters.out_no_config == bench.networks.counters.frames_out == 3


def test_a_burst_to_a_member_that_nobody_knows_yet_waits_for_its_identity() -> None:
    bench = MemberBench(root="10.9.9.9/9993")
    bench.online()
    membership = bench.join(is_public=True)
    stranger = bench.puppet("10.6.0.1/1")
    frames = [bench.mac(stranger) + bench.mac() + IPV4 + bytes((n,)) for n in range(3)]
    membership.send(frames[0], bench.now)
    membership.send_burst(frames[1:], bench.now)
    [question] = [s for s in bench.collect() if s.verb == messages.WHOIS]
    bench.root.answer(question, data=stranger.identity.without_secret().emit())
    stranger.endpoint = bench.root.endpoint
    bench.pass_time(0.5)
    assert bench.node.sizes()["waiting"] == 0
    assert bench.networks.counters.out_unicast == 3
    assert bench.node.counters.send_waiting_evicted == 0


def test_a_burst_that_cannot_be_sent_is_refused_as_a_whole() -> None:
    bench = MemberBench()
    for address in (bench.node.address, bytes(5), b"\xff\1\2\3\4"):
        with pytest.raises(ValueError, match="cannot be sent to"):
            bench.node.send_burst(address, messages.FRAME, [b"x"], bench.now)
    with pytest.raises(ValueError, match="9997"):
        bench.node.send_burst(bench.peer.address, messages.FRAME, [b"", bytes(9997)], bench.now)
    assert bench.sent() == []


def test_rules_keep_frames_from_leaving() -> None:
    bench, _ = _joined(rules=NO_IPV4)
    assert _send(bench, bench.mac(bench.peer)) == []
    assert bench.networks.counters.out_filtered == 1
    assert len(_send(bench, bench.mac(bench.peer), kind=b"\x86\xdd")) == 1


@pytest.mark.parametrize(("action", "flags"), [(TEE, 0x02), (WATCH, 0x16)])
def test_an_outbound_copy_goes_to_the_observer_cut_to_its_length(action: int, flags: int) -> None:
    observer = network_identity("peer2").address
    bench, _ = _joined(rules=(_target(action, observer, 3), Rule(ACCEPT)))
    sent = [s for s in _send(bench, bench.mac(bench.peer), b"abcdef") if s.verb != 10]
    copy = ExtFrame(NETWORK_ID, flags, bench.mac(bench.peer), bench.mac(), 0x800, b"abc")
    assert [(s.remote, s.verb) for s in sent] == [
        (bench.peer2.endpoint, messages.EXT_FRAME),
        (bench.peer.endpoint, messages.FRAME),
    ]
    assert sent[0].payload == copy.emit()


def test_an_observers_acknowledgement_is_taken_note_of() -> None:
    bench, _ = _joined(rules=(_target(WATCH, network_identity("peer2").address), Rule(ACCEPT)))
    handled = bench.networks.counters.message_handled
    copy = _send(bench, bench.mac(bench.peer))[0]
    bench.peer2.answer(copy, data=NETWORK_ID.to_bytes(8, "big"))
    assert bench.networks.counters.message_handled == handled + 1


def test_a_redirected_frame_goes_there_and_nowhere_else() -> None:
    bench, _ = _joined(rules=(_target(REDIRECT, network_identity("peer2").address), Rule(ACCEPT)))
    [sent] = _send(bench, bench.mac(bench.peer))
    assert sent.remote == bench.peer2.endpoint
    expected = ExtFrame(NETWORK_ID, 0x04, bench.mac(bench.peer), bench.mac(), 0x800, b"hi")
    assert sent.payload == expected.emit()
    assert bench.networks.counters.out_redirected == 1


def test_a_copy_for_an_address_that_no_node_has_is_not_sent() -> None:
    bench, _ = _joined(rules=(_target(TEE, b"\xff\0\0\0\1"), Rule(ACCEPT)))
    assert verbs(_send(bench, bench.mac(bench.peer))) == ["FRAME"]
    assert bench.networks.counters.copies_impossible == 1


def test_a_copy_that_is_too_long_for_its_message_is_not_sent() -> None:
    bench, _ = _joined(rules=(_target(TEE, network_identity("peer2").address), Rule(ACCEPT)))
    assert verbs(_send(bench, bench.mac(bench.peer), bytes(9980))) == ["FRAME"]
    assert bench.networks.counters.copies_impossible == 1


# in (10.2)


def test_a_frame_of_a_member_has_its_mac_and_ours() -> None:
    bench, membership = _joined()
    bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4 + b"hello")
    assert membership.take_frames() == [bench.mac() + bench.mac(bench.peer) + IPV4 + b"hello"]


def test_a_frame_without_payload_is_traffic_and_no_frame() -> None:
    bench, membership = _joined()
    bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4)
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_empty == 2  # with that of `_joined`


def test_rules_keep_frames_from_coming_in() -> None:
    bench, membership = _joined(rules=NO_IPV4)
    bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4 + b"hello")
    bench.say(bench.peer, messages.FRAME, membership.id_octets + b"\x86\xddhello")
    assert [frame[12:14] for frame in membership.take_frames()] == [b"\x86\xdd"]
    assert bench.networks.counters.frame_filtered == 1


def test_no_rules_let_nothing_in() -> None:
    bench, membership = _joined(rules=())
    bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4 + b"hello")
    assert membership.take_frames() == []


def test_a_frame_with_macs_and_nothing_else_is_no_frame() -> None:
    bench, membership = _joined()
    assert len(_ext(bench, text=b"", flags=ACKNOWLEDGE)) == 1
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_empty == 2  # with that of `_joined`


def test_a_frame_with_macs_is_delivered_with_them() -> None:
    bench, membership = _joined()
    assert _ext(bench) == []
    assert membership.take_frames() == [bench.mac() + bench.mac(bench.peer) + IPV4 + b"hi"]


@pytest.mark.parametrize("rules", [(Rule(ACCEPT),), NO_IPV4], ids=["accepted", "filtered"])
def test_an_acknowledgement_is_sent_also_for_what_was_filtered(rules: tuple[Rule, ...]) -> None:
    bench, membership = _joined(rules=rules)
    [answer] = _ext(bench, flags=ACKNOWLEDGE)
    verb, _, data = messages.parse_ok(answer.payload)
    assert (verb, data) == (messages.EXT_FRAME, membership.id_octets)


def test_no_acknowledgement_is_sent_for_what_was_never_looked_at() -> None:
    bench, membership = _joined()
    assert _ext(bench, flags=ACKNOWLEDGE, target=FOREIGN) == []
    assert _ext(bench, flags=ACKNOWLEDGE, source=FOREIGN) == []
    assert _ext(bench, flags=ACKNOWLEDGE, source=bytes(6)) == []
    assert membership.take_frames() == []


@pytest.mark.parametrize(
    "source", [bytes(6), b"\xff" * 6, bytes.fromhex("0304050607ff"), "mine"], ids=str
)
def test_a_source_that_nobody_can_have_is_refused(source: bytes | str) -> None:
    bench, membership = _joined()
    mac = bench.mac() if isinstance(source, str) else source
    _ext(bench, source=mac)
    multicast = MulticastFrame(NETWORK_ID, Group(b"\xff" * 6), 0x800, b"hi", source=mac)
    bench.say(bench.peer, messages.MULTICAST_FRAME, multicast.emit())
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_bad_source == 2


def test_a_member_cannot_send_in_anothers_name() -> None:
    bench, membership = _joined()
    _ext(bench, source=bench.mac(bench.peer2))
    multicast = MulticastFrame(
        NETWORK_ID, Group(b"\xff" * 6), 0x800, b"hi", source=bench.mac(bench.peer2)
    )
    bench.say(bench.peer, messages.MULTICAST_FRAME, multicast.emit())
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_not_from_bridge == 2


def test_a_member_cannot_use_us_as_a_way_to_others() -> None:
    bench, membership = _joined()
    _ext(bench, target=FOREIGN)
    _ext(bench, target=bench.mac(bench.peer2))
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_not_for_us == 2


def test_an_observer_gets_copies_whatever_their_macs_are() -> None:
    bench = MemberBench()
    me = bench.node.address
    membership = bench.join(rules=(_target(TEE, me), Rule(ACCEPT)))
    bench.present(bench.peer)
    _ext(bench, target=bench.mac(bench.peer2), flags=0x02)
    assert len(membership.take_frames()) == 1
    assert bench.networks.counters.frame_delivered == 1


def test_an_inbound_redirection_takes_the_frame_away_from_us() -> None:
    bench, membership = _joined(
        rules=(_target(REDIRECT, network_identity("peer2").address), Rule(ACCEPT))
    )
    [sent] = bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4 + b"hello")
    assert (sent.remote, sent.payload[8]) == (bench.peer2.endpoint, 0x0A)
    assert membership.take_frames() == []
    assert bench.networks.counters.frame_redirected == 1


def test_a_stack_that_takes_no_frames_loses_them_and_they_are_counted() -> None:
    bench = MemberBench(member_config=MemberConfig(ring=3))
    membership = bench.join(is_public=True)
    for _ in range(5):
        bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4 + b"hello")
    _send(bench, bench.mac())
    assert len(membership.take_frames()) == 3
    assert bench.networks.counters.frame_no_room == 2
    assert bench.networks.counters.out_ring_full == 1


# bridges (14)


def test_a_foreign_mac_is_sent_to_every_bridge_until_it_is_known_behind_one() -> None:
    bench, membership = _joined(specialists=_bridges_of("peer", "peer2"))
    sent = [s for s in _send(bench, FOREIGN) if s.verb == messages.EXT_FRAME]
    assert {s.remote for s in sent} == {bench.peer.endpoint, bench.peer2.endpoint}
    assert sent[0].payload == ExtFrame(NETWORK_ID, 0, FOREIGN, bench.mac(), 0x800, b"hi").emit()
    _ext(bench, source=FOREIGN)
    assert membership.take_frames() == [bench.mac() + FOREIGN + IPV4 + b"hi"]
    sent = [s for s in _send(bench, FOREIGN) if s.verb == messages.EXT_FRAME]
    assert [s.remote for s in sent] == [bench.peer.endpoint]


def test_credentials_are_shown_to_a_bridge_before_its_first_frame() -> None:
    bench = MemberBench()
    bench.join(specialists=_bridges_of("peer"))
    assert verbs(_send(bench, FOREIGN)) == ["NETWORK_CREDENTIALS", "EXT_FRAME"]
    assert verbs(_send(bench, FOREIGN)) == ["EXT_FRAME"]


def test_a_bridge_that_is_none_any_more_is_not_used() -> None:
    bench, _ = _joined(specialists=_bridges_of("peer"))
    _ext(bench, source=FOREIGN)
    bench.timestamp += 1
    bench.configure(specialists=_bridges_of("peer2"))
    sent = [s for s in _send(bench, FOREIGN) if s.verb == messages.EXT_FRAME]
    assert [s.remote for s in sent] == [bench.peer2.endpoint]
    _ext(bench, source=FOREIGN)
    assert bench.networks.counters.frame_not_from_bridge == 1


def test_at_most_32_bridges_are_tried() -> None:
    bench = MemberBench()
    others = tuple(Specialist(bytes((1, 2, 3, 4, n)), ACTIVE_BRIDGE) for n in range(50))
    membership = bench.join(specialists=others)
    _send(bench, FOREIGN)
    assert len(membership.members) == 32


def test_a_frame_too_long_for_a_message_with_macs_is_not_sent_to_a_bridge() -> None:
    bench, _ = _joined(specialists=_bridges_of("peer"))
    assert len(_send(bench, FOREIGN, bytes(9973))) == 1
    assert _send(bench, FOREIGN, bytes(9974)) == []
    assert bench.networks.counters.out_too_long == 1


def test_bridges_are_tried_only_as_far_as_there_is_room_for_their_records() -> None:
    bench = MemberBench(member_config=MemberConfig(record_limit=1))
    membership = bench.join(specialists=_bridges_of("peer2"))
    bench.present(bench.peer)
    _revoke(bench, bench.timestamp)
    assert [record.address for record in membership.members] == [bench.peer.address]
    assert _send(bench, FOREIGN) == []
    assert _send(bench, bench.mac(bench.peer2)) == []
    assert bench.networks.counters.out_no_room == 1


def test_rules_are_asked_about_each_bridge_again() -> None:
    denied = network_identity("peer").address
    rules = (Rule.of(DESTINATION_ADDRESS, denied), Rule(DROP), Rule(ACCEPT))
    bench, _ = _joined(specialists=_bridges_of("peer", "peer2"), rules=rules)
    sent = [s for s in _send(bench, FOREIGN) if s.verb == messages.EXT_FRAME]
    assert [s.remote for s in sent] == [bench.peer2.endpoint]


def test_rules_may_drop_a_frame_before_any_bridge_gets_it() -> None:
    bench, _ = _joined(specialists=_bridges_of("peer", "peer2"), rules=NO_IPV4)
    assert _send(bench, FOREIGN) == []
    assert bench.networks.counters.out_filtered == 1


def test_a_bridge_sends_and_takes_frames_for_others() -> None:
    bench, membership = _joined(specialists=_bridges_of("me"))
    assert membership.is_bridge
    sent = _send(bench, bench.mac(bench.peer), source=FOREIGN)
    ext = ExtFrame(NETWORK_ID, 0, bench.mac(bench.peer), FOREIGN, 0x800, b"hi")
    assert sent[-1].payload == ext.emit()
    _ext(bench, target=FOREIGN)
    assert membership.take_frames() == [FOREIGN + bench.mac(bench.peer) + IPV4 + b"hi"]


def test_a_bridge_announces_the_groups_behind_it_for_20_minutes() -> None:
    bench, membership = _joined(specialists=_bridges_of("me"))
    group = Group(bytes.fromhex("01005e0000fb"))
    sent = _send(bench, group.mac, source=FOREIGN)
    assert {s.remote for s in sent if s.verb == messages.MULTICAST_LIKE} == {
        bench.controller.endpoint,
        bench.peer.endpoint,
    }
    assert group in membership.own_groups
    # The ticks are 3.3 s later each 5 s; the one after 20 minutes forgets it.
    bench.pass_time(1199.9)
    assert group in membership.own_groups
    bench.pass_time(5)
    assert group not in membership.own_groups


def test_who_is_no_bridge_any_more_announces_nothing_for_others() -> None:
    bench, membership = _joined(specialists=_bridges_of("me"))
    _send(bench, bytes.fromhex("01005e0000fb"), source=FOREIGN)
    assert len(membership.own_groups) == 2
    bench.timestamp += 1
    bench.configure()
    assert len(membership.own_groups) == 1


# revocation (13)


def _revoke(
    bench: MemberBench,
    threshold: int,
    *,
    by: Puppet | None = None,
    target: Puppet | None = None,
    kind: int = 1,
    number: int = 0,
    flags: int = 1,
    signer: str = "controller",
) -> list[Sent]:
    target = bench.peer if target is None else target
    revocation = Revocation.issue(
        network_identity(signer),
        network_id=NETWORK_ID,
        id=1,
        threshold=threshold,
        target=target.address,
        credential_type=kind,
        credential_id=number,
        flags=flags,
    )
    [payload] = CredentialsMessage(revocations=(revocation,)).emit()
    sender = bench.controller if by is None else by
    return bench.say(sender, messages.NETWORK_CREDENTIALS, payload)


def _is_in(bench: MemberBench, membership: Membership) -> bool:
    """Whether the peer's frames are delivered."""
    bench.say(bench.peer, messages.FRAME, membership.id_octets + IPV4 + b"hello")
    return len(membership.take_frames()) == 1


def test_a_revoked_member_is_out_at_once_until_it_has_a_younger_certificate() -> None:
    bench, membership = _joined()
    assert _is_in(bench, membership)
    _revoke(bench, bench.timestamp)
    assert not _is_in(bench, membership)
    bench.now += 6
    bench.present(bench.peer)
    assert not _is_in(bench, membership)
    bench.now += 6
    younger = bench.certificate(bench.peer.identity, timestamp=bench.timestamp + 1)
    bench.present(bench.peer, memberships=(younger,))
    membership.take_frames()
    assert _is_in(bench, membership)


def test_a_certificate_that_was_issued_after_the_revocation_stays_good() -> None:
    bench, membership = _joined()
    _revoke(bench, bench.timestamp - 1)
    assert _is_in(bench, membership)


def test_a_revocation_that_arrives_before_the_certificate_keeps_it_out() -> None:
    bench = MemberBench()
    membership = bench.join()
    _revoke(bench, bench.timestamp)
    bench.present(bench.peer)
    assert bench.networks.counters.credentials_revoked == 1
    assert not _is_in(bench, membership)


def test_nobody_but_the_controller_can_revoke() -> None:
    bench, membership = _joined()
    _revoke(bench, bench.timestamp, signer="peer2")
    assert bench.networks.counters.credentials_forged == 1
    assert _is_in(bench, membership)


def test_a_fast_revocation_goes_on_once_to_all_but_its_sender() -> None:
    bench, _ = _joined()
    bench.present(bench.peer2)
    bench.now += 2
    sent = _revoke(bench, bench.timestamp, by=bench.peer2)
    assert [(s.verb, s.remote) for s in sent] == [
        (messages.NETWORK_CREDENTIALS, bench.peer.endpoint)
    ]
    [revocation] = CredentialsMessage.parse(sent[0].payload).revocations
    assert revocation.target == bench.peer.address
    bench.now += 2
    assert _revoke(bench, bench.timestamp) == []
    assert bench.networks.counters.revocations_forwarded == 1


def test_a_slow_revocation_stays_here() -> None:
    bench, _ = _joined()
    bench.present(bench.peer2)
    assert _revoke(bench, bench.timestamp, flags=0) == []


def test_our_own_revocation_is_taken_calmly() -> None:
    bench = MemberBench()
    membership = bench.join()
    me = bench.puppet("10.9.9.1/1", bench.node.identity)
    assert _revoke(bench, bench.timestamp, target=me) == []
    assert len(membership.members) == 0


@pytest.mark.parametrize("kind", [TAG, OWNERSHIP])
def test_a_revoked_credential_counts_no_longer_and_its_holder_is_out(kind: int) -> None:
    rules = (Rule.of(TAG_SENDER, 7, 3), Rule(ACCEPT), Rule(DROP))
    bench, membership = _joined(rules=rules if kind == TAG else (Rule(ACCEPT),))
    tag = Tag.issue(
        network_identity("controller"),
        network_id=NETWORK_ID,
        id=7,
        value=3,
        issued_to=bench.peer.address,
        timestamp=bench.timestamp,
    )
    bench.now += 2
    bench.present(bench.peer, tags=(tag,))
    assert _is_in(bench, membership)
    _revoke(bench, bench.timestamp, kind=kind, number=7)
    assert not _is_in(bench, membership)
    bench.now += 6
    younger = bench.certificate(bench.peer.identity, timestamp=bench.timestamp + 1)
    bench.present(bench.peer, memberships=(younger,), tags=(tag,))
    assert _is_in(bench, membership) is (kind == OWNERSHIP)


def test_the_revocation_of_what_does_not_exist_changes_nothing() -> None:
    bench, membership = _joined()
    _revoke(bench, bench.timestamp, kind=77)
    assert _is_in(bench, membership)


# bursts


def test_a_burst_leaves_like_its_frames_one_by_one() -> None:
    def sent_by(*, together: bool) -> tuple[list[Sent], dict[str, int]]:
        bench = MemberBench()
        membership = bench.join()
        mine, peer, peer2 = (bench.mac(p) for p in (None, bench.peer, bench.peer2))
        group = bytes.fromhex("01005e000001")
        frames = [
            *(peer + mine + b"\x08\0%d" % number for number in range(3)),
            peer + mine + b"\x86\xddanother type",
            *(peer2 + mine + b"\x08\0%d" % number for number in range(3)),
            group + mine + b"\x08\0to a group",
            peer + bytes.fromhex("020000000001") + b"\x08\0not ours",
            peer + mine + b"\x08\0" + bytes(2000),  # needs two datagrams
            peer + mine + b"\x08\0last",
            peer + mine + b"\x08\0" + bytes(10_000),  # too long
            b"short",
        ]
        if together:
            membership.send_burst(frames, bench.now)
        else:
            for frame in frames:
                membership.send(frame, bench.now)
        return bench.collect(), membership.counters.as_dict()

    one_by_one = sent_by(together=False)
    assert one_by_one[1]["out_unicast"] == 9
    assert sent_by(together=True) == one_by_one
