"""Who is let in, what is kept for those who are not yet, and who sees our credentials (8)."""

from __future__ import annotations

import attrs
import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.network.capability import Capability, Custody
from zttrio.zerotier.network.certificate import MembershipCertificate
from zttrio.zerotier.network.credential import CredentialsMessage, Ownership, Tag, Thing
from zttrio.zerotier.network.derived import BROADCAST
from zttrio.zerotier.network.frames import ExtFrame, MulticastFrame, NetworkError
from zttrio.zerotier.network.member_config import MemberConfig
from zttrio.zerotier.network.piece import cut
from zttrio.zerotier.network.rules import (
    ACCEPT,
    CHARACTERISTICS,
    DROP,
    ETHERTYPE,
    SENDER_OWNS_IP,
    TAG_SENDER,
    Rule,
)
from zttrio.zerotier.network.signature import signed_message

from .bench import Sent, verbs
from .data import network_identity, node_identities
from .member_bench import NETWORK_ID, WINDOW, MemberBench

FRAME = NETWORK_ID.to_bytes(8, "big") + b"\x08\x00hello"
NOTHING_ELSE = (Rule(DROP),)


def _arrive(bench: MemberBench, payload: bytes = FRAME) -> list[Sent]:
    return bench.say(bench.peer, messages.FRAME, payload)


def _texts(bench: MemberBench) -> list[bytes]:
    return [frame[14:] for frame in bench.networks.networks[NETWORK_ID].take_frames()]


def _to(bench: MemberBench, text: bytes = b"x") -> bytes:
    return bench.mac(bench.peer) + bench.mac() + b"\x08\x00" + text


# the gate


def test_a_member_with_a_certificate_that_agrees_is_let_in() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    _arrive(bench)
    assert _texts(bench) == [b"hello"]


def test_nobody_is_let_in_before_there_is_a_configuration() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now)
    bench.present(bench.peer)
    assert verbs(_arrive(bench)) == ["ERROR"]
    assert _texts(bench) == []


def test_a_private_network_without_an_own_certificate_lets_nobody_in() -> None:
    bench = MemberBench()
    bench.join(membership=None)
    bench.present(bench.peer)
    assert verbs(_arrive(bench)) == ["ERROR"]


def test_anybody_may_bring_anybodys_certificate() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer2, memberships=(bench.certificate(bench.peer.identity),))
    _arrive(bench)
    assert _texts(bench) == [b"hello"]
    bench.say(bench.peer2, messages.FRAME, FRAME)
    assert _texts(bench) == []


def test_a_certificate_signed_by_anybody_else_is_worth_nothing() -> None:
    bench = MemberBench()
    bench.join()
    forged = MembershipCertificate.issue(
        network_identity("peer"),
        network_id=NETWORK_ID,
        member=bench.peer.identity,
        timestamp=bench.timestamp,
        window=WINDOW,
    )
    bench.present(bench.peer, memberships=(forged,))
    assert verbs(_arrive(bench)) == ["ERROR"]
    assert bench.networks.counters.credentials_forged == 1
    assert len(bench.networks.networks[NETWORK_ID].members) == 0


def test_an_address_with_another_key_is_not_let_in() -> None:
    bench = MemberBench()
    bench.join()
    # Made for a key whose hash is another's: what an address collision would bring.
    other = bench.certificate(bench.peer2.identity)
    address = int.from_bytes(bench.peer.address, "big")
    qualifiers = tuple(q._replace(value=address) if q.id == 2 else q for q in other.qualifiers)
    unsigned = MembershipCertificate(qualifiers, network_identity("controller").address)
    signature = network_identity("controller").sign(unsigned.body())
    forged = MembershipCertificate(qualifiers, unsigned.signer, signature)
    bench.present(bench.peer, memberships=(forged,))
    assert bench.networks.counters.credentials_new == 1
    assert verbs(_arrive(bench)) == ["ERROR"]


def test_an_older_certificate_does_not_replace_a_newer_one() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    older = bench.certificate(bench.peer.identity, timestamp=bench.timestamp - 1)
    bench.now += 2
    bench.present(bench.peer, memberships=(older,))
    assert bench.networks.counters.credentials_old == 1
    bench.now += 2
    bench.present(bench.peer)
    assert bench.networks.counters.credentials_known == 1


def test_a_member_that_is_not_renewed_falls_out_when_our_own_time_has_moved_on() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    issued = bench.timestamp
    bench.timestamp = issued + WINDOW
    bench.configure()
    _arrive(bench)
    assert _texts(bench) == [b"hello"]
    bench.timestamp = issued + WINDOW + 1
    bench.configure()
    assert verbs(_arrive(bench)) == ["ERROR"]
    assert _texts(bench) == []


def test_a_network_that_becomes_public_needs_no_certificates_any_more() -> None:
    bench = MemberBench()
    bench.join()
    assert verbs(_arrive(bench)) == ["ERROR"]
    bench.configure(is_public=True)
    assert _texts(bench) == [b"hello"]  # what was kept


def test_a_network_that_becomes_private_asks_those_who_were_in_for_certificates() -> None:
    bench = MemberBench()
    bench.join(is_public=True)
    _arrive(bench)
    assert _texts(bench) == [b"hello"]
    bench.timestamp += 1
    bench.configure()
    assert verbs(_arrive(bench)) == ["ERROR"]


def test_a_certificate_attached_to_a_frame_counts_and_is_looked_at_once_a_second() -> None:
    bench = MemberBench()
    bench.join()
    certificate = bench.certificate(bench.peer.identity)
    forged = MembershipCertificate(certificate.qualifiers, certificate.signer, bytes(96))
    ext = ExtFrame(NETWORK_ID, 0, bench.mac(), bench.mac(bench.peer), 0x800, b"ext", forged)
    for _ in range(20):
        bench.say(bench.peer, messages.EXT_FRAME, ext.emit())
    assert bench.networks.counters.credentials_forged == 1
    ext.membership = certificate
    bench.say(bench.peer, messages.EXT_FRAME, ext.emit())
    assert _texts(bench) == []
    bench.now += 1
    bench.say(bench.peer, messages.EXT_FRAME, ext.emit())
    assert b"ext" in _texts(bench)


def test_an_attached_certificate_of_another_network_is_not_used() -> None:
    bench = MemberBench()
    bench.join()
    bench.networks.join(NETWORK_ID + 1, bench.now)
    ext = ExtFrame(
        NETWORK_ID + 1,
        0,
        bench.mac(),
        bench.mac(bench.peer),
        0x800,
        b"ext",
        bench.certificate(bench.peer.identity),
    )
    bench.say(bench.peer, messages.EXT_FRAME, ext.emit())
    assert bench.networks.counters.credentials_not_joined == 1


# what is kept (8.4)


def test_what_is_refused_is_kept_and_delivered_as_soon_as_the_certificate_comes() -> None:
    bench = MemberBench()
    membership = bench.join()
    [error] = _arrive(bench)
    verb, packet_id, code, data = messages.parse_error(error.payload)
    assert (verb, code) == (messages.FRAME, messages.NEED_MEMBERSHIP)
    assert len(packet_id) == 8
    assert NetworkError.parse(code, data).network_id == NETWORK_ID
    assert membership.take_frames() == []
    assert bench.networks.kept == 1
    bench.now += 0.1
    bench.present(bench.peer)
    assert _texts(bench) == [b"hello"]
    assert bench.networks.kept == 0
    assert bench.networks.counters.frame_delivered == 1


def test_what_is_kept_is_tried_every_half_second_for_five_seconds() -> None:
    bench = MemberBench(member_config=MemberConfig(complaint_interval=0))
    bench.join()
    _arrive(bench)
    complaints = [when for when, s in bench.pass_time(8) if s.verb == messages.ERROR]
    assert complaints == [0.5 * n for n in range(1, 10)]
    assert bench.networks.kept == 0
    assert bench.networks.counters.message_refused == 1


def test_a_peer_is_asked_for_its_credentials_once_a_second() -> None:
    bench = MemberBench()
    bench.join()
    for _ in range(10):
        bench.say(bench.peer2, messages.FRAME, FRAME)
    assert bench.networks.counters.complaints == 1
    complaints = [when for when, s in bench.pass_time(8) if s.verb == messages.ERROR]
    assert complaints == [1, 2, 3, 4]


def test_what_is_kept_is_delivered_in_order() -> None:
    bench = MemberBench()
    bench.join()
    for number in range(5):
        _arrive(bench, FRAME + bytes((number,)))
    bench.present(bench.peer)
    assert _texts(bench) == [b"hello" + bytes((number,)) for number in range(5)]


def test_what_is_kept_for_one_peer_is_bounded_and_does_not_crowd_out_another() -> None:
    bench = MemberBench(member_config=MemberConfig(kept=8, kept_per_peer=3))
    bench.join()
    _arrive(bench, FRAME + b"peer")
    for number in range(10):
        bench.say(bench.peer2, messages.FRAME, FRAME + bytes((number,)))
    assert bench.networks.kept == 4
    assert bench.networks.counters.message_refused_evicted == 7
    bench.present(bench.peer)
    assert _texts(bench) == [b"hellopeer"]


def test_a_full_store_of_kept_messages_forgets_the_oldest() -> None:
    bench = MemberBench(member_config=MemberConfig(kept=3, kept_per_peer=3))
    bench.join()
    _arrive(bench)
    for number in range(3):
        bench.say(bench.peer2, messages.FRAME, FRAME + bytes((number,)))
    assert bench.networks.kept == 3
    bench.present(bench.peer)
    assert _texts(bench) == []


@pytest.mark.parametrize("verb", [messages.EXT_FRAME, messages.MULTICAST_FRAME])
def test_every_kind_of_frame_is_kept(verb: int) -> None:
    bench = MemberBench()
    bench.join()
    if verb == messages.EXT_FRAME:
        source, target = bench.mac(bench.peer), bench.mac()
        payload = ExtFrame(NETWORK_ID, 0, target, source, 0x800, b"one").emit()
    else:
        payload = MulticastFrame(NETWORK_ID, BROADCAST, 0x800, b"one").emit()
    [error] = bench.say(bench.peer, verb, payload)
    assert messages.parse_error(error.payload)[0] == verb
    bench.present(bench.peer)
    assert _texts(bench) == [b"one"]


def test_a_frame_for_a_network_that_we_are_not_on_is_neither_kept_nor_answered() -> None:
    bench = MemberBench()
    assert _arrive(bench) == []
    assert bench.networks.kept == 0
    assert bench.networks.counters.message_not_joined == 1


def test_what_was_kept_for_a_network_that_we_have_left_is_dropped() -> None:
    bench = MemberBench()
    bench.join()
    _arrive(bench)
    bench.networks.leave(NETWORK_ID, bench.now)
    bench.pass_time(1)
    assert bench.networks.kept == 0
    assert bench.networks.counters.message_not_joined == 1


# a controller that is not known yet


def _strange_controller() -> tuple[MemberBench, int, bytes]:
    """A network whose controller the node has never met, and a peer's credentials for it."""
    bench = MemberBench(root="10.9.9.9/9993")
    bench.online()
    controller = node_identities()[40]
    network_id = int.from_bytes(controller.address, "big") << 24 | 1
    certificates = {
        identity.address: MembershipCertificate.issue(
            controller,
            network_id=network_id,
            member=identity,
            timestamp=bench.timestamp,
            window=WINDOW,
        )
        for identity in (bench.node.identity, bench.peer.identity)
    }
    config = bench.config(network_id=network_id, membership=certificates[bench.node.address])
    bench.networks.join(network_id, bench.now, stored=config.emit())
    bench.sent()
    [payload] = CredentialsMessage(memberships=(certificates[bench.peer.address],)).emit()
    return bench, network_id, payload


def test_credentials_wait_until_the_controllers_identity_is_known() -> None:
    bench, network_id, payload = _strange_controller()
    membership = bench.networks.networks[network_id]
    controller = node_identities()[40]
    asked = bench.peer.send(messages.NETWORK_CREDENTIALS, payload)
    [question] = [s for s in asked if s.verb == messages.WHOIS]
    assert question.payload == controller.address
    assert bench.networks.counters.credentials_no_controller == 1
    bench.say(bench.peer, messages.FRAME, membership.id_octets + FRAME[8:])
    bench.root.answer(question, data=controller.without_secret().emit())
    bench.check_identities()
    assert membership.take_frames() == []
    bench.pass_time(0.5)
    assert [frame[14:] for frame in membership.take_frames()] == [b"hello"]
    assert bench.networks.kept == 0


def test_credentials_of_a_controller_that_nobody_knows_are_dropped_after_five_seconds() -> None:
    bench, _, payload = _strange_controller()
    bench.say(bench.peer, messages.NETWORK_CREDENTIALS, payload)
    bench.pass_time(6)
    assert bench.networks.kept == 0
    assert bench.networks.counters.message_refused == 1


def test_a_piece_waits_for_the_controllers_identity_too() -> None:
    bench, network_id, _ = _strange_controller()
    controller = node_identities()[40]
    membership = bench.networks.networks[network_id]
    assert membership.config is not None
    newer = attrs.evolve(membership.config, name="newer", timestamp=membership.config.timestamp + 1)
    [piece] = cut(network_id, newer.emit(), 7, controller)
    asked = bench.peer.send(messages.NETWORK_CONFIG, piece.emit())
    [question] = [s for s in asked if s.verb == messages.WHOIS]
    assert membership.config.name == "test"
    bench.root.answer(question, data=controller.without_secret().emit())
    bench.check_identities()
    bench.pass_time(0.5)
    assert membership.config.name == "newer"


def test_a_capability_that_has_passed_through_a_members_hands_counts() -> None:
    bench = MemberBench()
    bench.join(rules=())
    controller, giver = network_identity("controller"), bench.peer2.identity
    first = Capability.issue(
        controller,
        network_id=NETWORK_ID,
        id=1,
        rules=(Rule(ACCEPT),),
        issued_to=giver.address,
        timestamp=bench.timestamp,
        max_custody=2,
    )
    signature = giver.sign(signed_message(first.body()))
    second = Custody(bench.peer.address, giver.address, signature)
    passed_on = attrs.evolve(first, custody=(*first.custody, second))
    bench.present(
        bench.peer,
        memberships=(bench.certificate(bench.peer.identity),),
        capabilities=(passed_on,),
    )
    _arrive(bench)
    assert _texts(bench) == [b"hello"]


def test_what_is_said_about_nobody_is_not_kept() -> None:
    bench = MemberBench()
    membership = bench.join()
    tag = Tag.issue(
        network_identity("controller"),
        network_id=NETWORK_ID,
        id=1,
        value=1,
        issued_to=b"\xff\0\0\0\1",
        timestamp=bench.timestamp,
    )
    bench.present(bench.peer, tags=(tag,))
    assert len(membership.members) == 0


def test_credentials_that_find_no_room_are_counted() -> None:
    bench = MemberBench(member_config=MemberConfig(record_limit=1))
    membership = bench.join()
    bench.present(bench.peer)
    [record] = membership.members
    record.certificate_threshold = bench.timestamp  # it has to stay
    bench.present(bench.peer2)
    assert bench.networks.counters.credentials_full == 1
    assert [one.address for one in membership.members] == [bench.peer.address]


def test_nobody_new_is_let_into_a_public_network_without_room_for_a_record() -> None:
    bench = MemberBench(member_config=MemberConfig(record_limit=1))
    membership = bench.join(is_public=True)
    _arrive(bench)
    [record] = membership.members
    record.certificate_threshold = bench.timestamp  # it has to stay
    bench.say(bench.peer2, messages.FRAME, FRAME + b"2")
    assert _texts(bench) == [b"hello"]


# our own credentials (8.5)


def _pushes(sent: list[Sent]) -> int:
    return verbs(sent).count("NETWORK_CREDENTIALS")


def test_credentials_are_shown_before_the_first_frame_and_after_each_configuration() -> None:
    bench = MemberBench()
    membership = bench.join()
    membership.send(_to(bench), bench.now)
    assert verbs(bench.sent()) == ["NETWORK_CREDENTIALS", "FRAME"]
    membership.send(_to(bench), bench.now)
    assert verbs(bench.sent()) == ["FRAME"]
    bench.timestamp += 1
    bench.configure()
    membership.send(_to(bench), bench.now)
    assert verbs(bench.sent()) == ["NETWORK_CREDENTIALS", "FRAME"]


def test_credentials_are_shown_again_after_500_seconds_without_a_configuration() -> None:
    bench = MemberBench()
    membership = bench.join()
    membership.send(_to(bench), bench.now)
    bench.sent()
    bench.now += 499.9
    bench.peer.send(messages.NOP)  # it is still there
    membership.send(_to(bench), bench.now)
    assert verbs(bench.sent()) == ["FRAME"]
    bench.now += 0.1
    membership.send(_to(bench), bench.now)
    assert _pushes(bench.sent()) == 1


def _demand(bench: MemberBench) -> list[Sent]:
    error = NetworkError(NETWORK_ID).emit()
    payload = messages.emit_error(messages.FRAME, bytes(8), messages.NEED_MEMBERSHIP, error)
    return bench.say(bench.peer, messages.ERROR, payload)


def test_who_asks_for_credentials_gets_them_at_most_once_a_second() -> None:
    bench = MemberBench()
    bench.join()
    assert _pushes(_demand(bench)) == 1
    bench.now += 1
    assert _pushes(_demand(bench)) == 0
    bench.now += 0.01
    assert _pushes(_demand(bench)) == 1
    bench.timestamp += 1
    bench.configure()
    assert _pushes(_demand(bench)) == 1  # they are newer


def test_without_a_certificate_of_our_own_a_demand_is_ignored() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now)
    assert _demand(bench) == []
    bench.configure(membership=None)
    assert _demand(bench) == []
    assert bench.networks.counters.error_ignored == 2


def test_a_public_network_without_credentials_sends_none() -> None:
    bench = MemberBench()
    membership = bench.join(is_public=True)
    membership.send(_to(bench), bench.now)
    assert verbs(bench.sent()) == ["FRAME"]


def test_credentials_that_need_several_messages_are_sent_more_than_a_second_apart() -> None:
    bench = MemberBench()
    controller = network_identity("controller")
    tags = tuple(
        Tag.issue(
            controller,
            network_id=NETWORK_ID,
            id=number,
            value=1,
            issued_to=bench.node.address,
            timestamp=bench.timestamp,
        )
        for number in range(128)
    )
    membership = bench.join(tags=tags)
    membership.send(_to(bench), bench.now)
    first = bench.sent()
    assert verbs(first) == ["NETWORK_CREDENTIALS", "FRAME"]
    assert CredentialsMessage.parse(first[0].payload).memberships  # what is needed first
    later = [(t, s) for t, s in bench.pass_time(4) if s.verb == messages.NETWORK_CREDENTIALS]
    assert [when for when, _ in later] == [1.1]
    told = CredentialsMessage.parse(first[0].payload).tags
    assert told + CredentialsMessage.parse(later[0][1].payload).tags == tags


# credentials of others (4.7, 5.4)


def test_one_message_with_credentials_per_peer_and_second_is_taken() -> None:
    bench = MemberBench()
    bench.join()
    empty = bytes(9)
    bench.say(bench.peer, messages.NETWORK_CREDENTIALS, empty)
    bench.now += 0.99
    bench.present(bench.peer)
    assert bench.networks.counters.message_too_often == 1
    assert bench.networks.counters.credentials_new == 0
    bench.now += 0.01
    bench.present(bench.peer)
    assert bench.networks.counters.credentials_new == 1


def test_a_controller_may_send_several_at_once() -> None:
    bench = MemberBench()
    bench.join()
    for _ in range(3):
        bench.say(bench.controller, messages.NETWORK_CREDENTIALS, bytes(9))
    assert bench.networks.counters.message_too_often == 0
    for _ in range(100):
        bench.say(bench.controller, messages.NETWORK_CREDENTIALS, bytes(9))
    assert bench.networks.counters.message_too_often == 53


def test_a_capability_lets_in_what_the_rules_alone_would_not() -> None:
    bench = MemberBench()
    bench.join(rules=())
    bench.present(bench.peer)
    _arrive(bench)
    capability = Capability.issue(
        network_identity("controller"),
        network_id=NETWORK_ID,
        id=1,
        rules=(Rule.of(ETHERTYPE, 0x800), Rule(ACCEPT)),
        issued_to=bench.peer.address,
        timestamp=bench.timestamp,
    )
    bench.now += 1
    bench.present(bench.peer, capabilities=(capability,))
    _arrive(bench, FRAME + b"!")
    assert _texts(bench) == [b"hello!"]
    bench.timestamp += WINDOW + 1  # and no longer when it is too old
    bench.configure(rules=())
    bench.now += 1
    bench.present(bench.peer)
    _arrive(bench)
    assert _texts(bench) == []
    assert bench.networks.counters.frame_filtered == 2


def test_a_tag_counts_for_its_holder_as_long_as_it_is_in_the_window() -> None:
    rules = (Rule.of(TAG_SENDER, 7, 3), Rule(ACCEPT), Rule(DROP))
    bench = MemberBench()
    bench.join(rules=rules)
    tag = Tag.issue(
        network_identity("controller"),
        network_id=NETWORK_ID,
        id=7,
        value=3,
        issued_to=bench.peer.address,
        timestamp=bench.timestamp - WINDOW,
    )
    bench.present(bench.peer, memberships=(bench.certificate(bench.peer.identity),), tags=(tag,))
    _arrive(bench)
    assert _texts(bench) == [b"hello"]
    bench.timestamp += 1
    bench.configure(rules=rules)
    _arrive(bench)
    assert _texts(bench) == []


def test_an_owner_of_an_address_may_send_from_it() -> None:
    rules = (Rule.of(CHARACTERISTICS, SENDER_OWNS_IP), Rule(ACCEPT), Rule(DROP))
    bench = MemberBench()
    bench.join(rules=rules)
    bench.present(bench.peer)
    packet = bytes((0x45,)) + bytes(11) + bytes((10, 5, 0, 9)) + bytes(4)
    head = NETWORK_ID.to_bytes(8, "big") + b"\x08\x00"
    _arrive(bench, head + packet)
    assert _texts(bench) == []
    ownership = Ownership.issue(
        network_identity("controller"),
        network_id=NETWORK_ID,
        things=(Thing.ip(bytes((10, 5, 0, 9))),),
        issued_to=bench.peer.address,
        timestamp=bench.timestamp,
    )
    bench.now += 1
    bench.present(bench.peer, ownerships=(ownership,))
    _arrive(bench, head + packet)
    assert _texts(bench) == [packet]


def test_credentials_of_a_network_that_we_are_not_on_are_not_kept() -> None:
    bench = MemberBench()
    bench.present(bench.peer)
    assert bench.networks.counters.credentials_not_joined == 1


# who passed the gate hears from us (8.1)


def test_who_passes_the_gate_is_told_our_groups_once_a_minute() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    sent = _arrive(bench)
    assert verbs(sent) == ["NETWORK_CREDENTIALS", "MULTICAST_LIKE"]
    assert _arrive(bench) == []
    start = bench.now
    sent_later = [
        (when, s)
        for when, s in bench.pass_time(70)
        if s.verb == messages.MULTICAST_LIKE and s.remote == bench.peer.endpoint
    ]
    [(when, _)] = sent_later
    assert 60 <= when < 65  # the first tick after a minute
    assert bench.now == start + 70


@pytest.mark.parametrize(("window", "expected"), [(WINDOW, 2), (300_000, 6)])
def test_a_silent_member_sees_our_credentials_only_when_it_might_forget_them(
    window: int, expected: int
) -> None:
    bench = MemberBench()
    bench.join(window=window)
    bench.present(bench.peer)
    sent = _arrive(bench)
    for _ in range(100):
        bench.timestamp += 1
        sent += bench.configure(window=window)  # each with a new certificate
        sent += [s for _, s in bench.pass_time(10)]
        bench.peer.send(messages.NOP)
    assert verbs(sent).count("NETWORK_CREDENTIALS") in (expected, expected + 1)
    assert verbs(sent).count("MULTICAST_LIKE") > 30  # to it, and to the controller


def test_who_passes_the_gate_is_told_our_addresses() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    sent = bench.peer.send(messages.FRAME, FRAME)
    assert "PUSH_DIRECT_PATHS" in verbs(sent)
    assert "PUSH_DIRECT_PATHS" not in verbs(bench.peer2.send(messages.FRAME, FRAME))


def test_members_can_be_looked_at() -> None:
    bench = MemberBench()
    membership = bench.join()
    membership.send(_to(bench), bench.now)
    [member] = membership.peers()
    assert (member.address, member.mac) == (bench.peer.address, bench.mac(bench.peer))
    assert member.certificate_timestamp is None
    assert not member.is_admitted
    bench.present(bench.peer)
    [member] = membership.peers()
    assert member.certificate_timestamp == bench.timestamp
    assert member.is_admitted
    bench.timestamp += WINDOW + 1
    bench.configure()
    [member] = membership.peers()
    assert not member.is_admitted
