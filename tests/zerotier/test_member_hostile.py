"""Junk, floods and liars against a member: nothing raises, nothing grows, nothing gets through."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.zerotier import messages
from zttrio.zerotier.network.certificate import MembershipCertificate
from zttrio.zerotier.network.credential import CredentialsMessage, Tag
from zttrio.zerotier.network.derived import Group
from zttrio.zerotier.network.frames import (
    ExtFrame,
    Gather,
    MulticastFrame,
    MulticastLike,
    NetworkError,
)
from zttrio.zerotier.network.member_config import MemberConfig
from zttrio.zerotier.network.netconf import ACTIVE_BRIDGE, REPLICATOR, Specialist
from zttrio.zerotier.network.network_counters import FRAME_OUTCOMES, MESSAGE_OUTCOMES
from zttrio.zerotier.network.networks import NetworkStatus
from zttrio.zerotier.network.piece import Piece, cut
from zttrio.zerotier.network.rules import ACCEPT, REDIRECT, TEE, Rule

from .bench import verbs
from .data import network_identity, node_identities
from .member_bench import NETWORK_ID, WINDOW, MemberBench

HEAD = NETWORK_ID.to_bytes(8, "big")
VERBS = sorted(messages.NETWORK_VERBS | {messages.OK, messages.ERROR})
_LIMITS = {
    "networks": 256,
    "groups": 262_144,
    "kept": 64,
    "complaints": 16_384,
    "forgers": 16_384,
    "gathers": 16_384,
    "credentials": 3 * 16_384,
    "members": 16_384,
    "ring": 4096,
    "later": 256,
    "routes": 65_536,
    "behind": 1024,
    "queued": 1024,
    "gathered": 4096,
}


def _check(bench: MemberBench) -> None:
    """Every message and every frame has one outcome, and every table fits."""
    networks = bench.networks
    counted = networks.counters.as_dict()
    outcomes = sum(counted[name] for name in MESSAGE_OUTCOMES)
    assert outcomes + networks.kept == counted["messages_in"]
    assert sum(counted[name] for name in FRAME_OUTCOMES) == counted["frames_out"]
    bench.check_totals()
    sizes = networks.sizes()
    for membership in networks.networks.values():
        for name, size in (sizes | membership.sizes()).items():
            assert size <= _LIMITS[name], name


def _busy(**fields: object) -> MemberBench:
    """A member in the middle of things: with a friend, bridges, copies, queues."""
    bench = MemberBench(is_registry=True)
    me, peer2 = network_identity("me").address, network_identity("peer2").address
    special = tuple(Specialist(a, ACTIVE_BRIDGE | REPLICATOR) for a in (me, peer2))
    rules = (Rule.of(TEE, peer2, 0, 20), Rule(ACCEPT))
    bench.join(specialists=special, rules=rules, **fields)
    bench.present(bench.peer)
    return bench


@pytest.fixture(scope="module")
def busy() -> MemberBench:
    return _busy()


@settings(deadline=None, max_examples=500)
@given(
    verb=st.sampled_from(VERBS),
    head=st.sampled_from([HEAD, b"", HEAD + b"\x01\x01\x00\x07", b"\x0e" + bytes(8) + HEAD]),
    payload=st.binary(max_size=200),
)
def test_any_message_of_a_member_is_counted_and_none_raises(
    busy: MemberBench, verb: int, head: bytes, payload: bytes
) -> None:
    busy.now += 0.3
    busy.say(busy.peer, verb, head + payload)
    busy.networks.networks[NETWORK_ID].take_frames()
    busy.networks.handle_timers(busy.now)
    busy.collect()
    _check(busy)


@settings(deadline=None, max_examples=300)
@given(
    verb=st.sampled_from(VERBS),
    sample=st.integers(0, 8),
    at=st.integers(0, 400),
    octet=st.integers(0, 255),
    cut_at=st.integers(0, 500),
)
def test_messages_that_are_nearly_right_are_counted_and_none_raises(
    busy: MemberBench, verb: int, sample: int, at: int, octet: int, cut_at: int
) -> None:
    busy.now += 0.3
    payload = bytearray(_samples(busy)[sample])
    if at < len(payload):
        payload[at] = octet
    for sender in (busy.peer, busy.controller, busy.peer2):
        busy.say(sender, verb, bytes(payload[:cut_at]))
    busy.networks.networks[NETWORK_ID].take_frames()
    _check(busy)


def _samples(bench: MemberBench) -> list[bytes]:
    controller = network_identity("controller")
    certificate = bench.certificate(bench.peer.identity)
    tag = Tag.issue(
        controller, network_id=NETWORK_ID, id=1, value=1, issued_to=bench.peer.address, timestamp=9
    )
    macs = bench.mac(), bench.mac(bench.peer)
    group = Group(b"\xff" * 6, 1)
    return [
        HEAD + b"\x08\x00" + bytes(40),
        ExtFrame(NETWORK_ID, 0x10, *macs, 0x800, bytes(40), certificate).emit(),
        MulticastLike(((NETWORK_ID, group),) * 5).emit(),
        CredentialsMessage((certificate,), (), (tag,)).emit()[0],
        cut(NETWORK_ID, bench.config().emit(), 3, controller)[0].emit(),
        Gather(NETWORK_ID, group, 9, certificate).emit(),
        MulticastFrame(NETWORK_ID, group, 0x800, bytes(40), macs[1], 9, True, certificate).emit(),
        messages.emit_ok(messages.MULTICAST_GATHER, bytes(8), HEAD + bytes(40)),
        messages.emit_error(messages.FRAME, bytes(8), 6, NetworkError(NETWORK_ID).emit()),
    ]


@settings(deadline=None, max_examples=200)
@given(code=st.integers(0, 255), verb=st.integers(0, 255), data=st.binary(max_size=60))
def test_any_error_of_the_controller_is_counted_and_none_raises(
    busy: MemberBench, code: int, verb: int, data: bytes
) -> None:
    busy.now += 0.3
    payload = messages.emit_error(verb, bytes(8), code, HEAD + data)
    busy.say(busy.controller, messages.ERROR, payload)
    _check(busy)


@settings(deadline=None, max_examples=200)
@given(dictionary=st.binary(max_size=120), key=st.sampled_from(["C", "COO", "RT", "I", "R", "DNS"]))
def test_a_controller_gone_mad_makes_nothing_raise(
    busy: MemberBench, dictionary: bytes, key: str
) -> None:
    busy.now += 0.3
    busy.timestamp += 1
    lines = busy.config().emit().split(b"\n")
    broken = b"\n".join([f"{key}=".encode() + dictionary.replace(b"\0", b""), *lines])
    for octets in (dictionary, broken):
        if octets:
            busy.push(octets)
    _check(busy)


@settings(deadline=None, max_examples=200)
@given(frame=st.binary(max_size=120), prefix=st.sampled_from(["", "mine", "peer", "group"]))
def test_any_frame_of_the_local_stack_is_counted_and_none_raises(
    busy: MemberBench, frame: bytes, prefix: str
) -> None:
    membership = busy.networks.networks[NETWORK_ID]
    targets = {"mine": busy.mac(), "peer": busy.mac(busy.peer), "group": b"\x33\x33\xff\0\0\1"}
    if prefix:
        frame = targets[prefix] + busy.mac() + b"\x86\xdd" + frame
    membership.send(frame, busy.now)
    membership.take_frames()
    busy.collect()
    _check(busy)


# floods


def test_a_stranger_who_floods_frames_is_asked_for_credentials_once_a_second() -> None:
    bench = MemberBench()
    bench.join()
    sent = []
    for _ in range(1900):
        sent += bench.say(bench.peer, messages.FRAME, HEAD + b"\x08\0hi")
        bench.now += 0.001
        sent += bench.tick()
    assert verbs(sent).count("ERROR") == 2
    assert bench.networks.kept <= 16
    assert bench.networks.networks[NETWORK_ID].take_frames() == []
    _check(bench)


def test_forged_certificates_cost_at_most_one_check_a_second_and_no_memory() -> None:
    bench = MemberBench()
    membership = bench.join()
    good = bench.certificate(bench.peer.identity)
    for number in range(200):
        forged = []
        for index in range(3):
            address = number * 1000 + index + 1
            qualifiers = tuple(
                q._replace(value=address) if q.id == 2 else q for q in good.qualifiers
            )
            forged.append(MembershipCertificate(qualifiers, good.signer, good.signature))
        bench.present(bench.peer, memberships=tuple(forged))
        bench.now += 0.01
    assert bench.networks.counters.credentials_forged == 2  # the first of each message
    assert bench.networks.counters.message_too_often == 198
    assert len(membership.members) == 0
    _check(bench)


def test_revocations_are_not_lost_behind_other_credentials_and_bounded_all_the_same() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    junk = bytes(5) + (1).to_bytes(2, "big") + bytes(150) + b"\0\0"
    for _ in range(200):
        bench.say(bench.peer, messages.NETWORK_CREDENTIALS, junk)
    counters = bench.networks.counters
    assert counters.message_too_often == 150
    assert counters.message_malformed + counters.message_handled >= 50
    _check(bench)


def test_members_made_up_by_the_local_stack_are_bounded() -> None:
    bench = MemberBench(member_config=MemberConfig(record_limit=50))
    membership = bench.join()
    for number in range(500):
        mac = bench.mac()[:1] + number.to_bytes(5, "big")
        membership.send(mac + bench.mac() + b"\x08\0hi", bench.now)
    assert len(membership.members) == 50
    assert bench.networks.counters.records_evicted >= 440
    _check(bench)


def test_members_that_pass_the_gate_of_a_public_network_are_bounded() -> None:
    bench = MemberBench(member_config=MemberConfig(record_limit=5))
    membership = bench.join(is_public=True)
    for number, identity in enumerate(node_identities()[20:40]):
        puppet = bench.befriend(identity, f"10.4.0.{number}/1")
        bench.say(puppet, messages.FRAME, HEAD + b"\x08\0hi")
    assert len(membership.take_frames()) == 20
    assert len(membership.members) == 5
    _check(bench)


def test_a_member_that_announces_everything_fills_its_own_share_only() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    bench.now += 2
    bench.present(bench.peer2)
    for number in range(20):
        entries = tuple((NETWORK_ID, Group(b"\1" * 6, number * 500 + n)) for n in range(500))
        bench.say(bench.peer, messages.MULTICAST_LIKE, MulticastLike(entries).emit())
    assert bench.networks.sizes()["groups"] == 4096
    assert bench.networks.groups.refused == 10_000 - 4096
    mine = MulticastLike(((NETWORK_ID, Group(b"\3" * 6)),)).emit()
    bench.say(bench.peer2, messages.MULTICAST_LIKE, mine)
    assert bench.networks.groups.members(NETWORK_ID, Group(b"\3" * 6), bench.now) != []
    _check(bench)


def test_unfinished_configurations_take_no_more_than_their_share() -> None:
    bench = MemberBench()
    membership = bench.join()
    controller = network_identity("controller")
    dictionary = bench.config(name="x" * 100).emit()
    for update_id in range(1, 20):
        first = cut(NETWORK_ID, dictionary, update_id, controller, length=100)[0]
        bench.say(bench.peer, messages.NETWORK_CONFIG, first.emit())
    assembler = bench.networks._assemblers[NETWORK_ID]
    assert assembler.evicted == 16
    assert membership.config is not None
    assert membership.config.name == "test"
    _check(bench)


def test_who_brings_forged_pieces_is_not_listened_to_for_a_second() -> None:
    bench = MemberBench()
    membership = bench.join()
    forged = [
        piece.emit()
        for piece in cut(NETWORK_ID, bytes(300), 4, network_identity("peer"), length=10)
    ]
    bench.timestamp += 1
    [good] = cut(NETWORK_ID, bench.config(name="good").emit(), 5, network_identity("controller"))
    for payload in (*forged, good.emit()):
        bench.say(bench.peer, messages.NETWORK_CONFIG, payload)
    assert bench.networks.counters.piece_refused == len(forged) + 1
    bench.say(bench.peer2, messages.NETWORK_CONFIG, good.emit())
    assert membership.config is not None
    assert membership.config.name == "good"
    bench.timestamp += 1
    [later] = cut(NETWORK_ID, bench.config(name="later").emit(), 6, network_identity("controller"))
    bench.now += 1
    bench.say(bench.peer, messages.NETWORK_CONFIG, later.emit())
    assert membership.status is NetworkStatus.OK
    assert bench.networks.counters.config_accepted == 3
    _check(bench)


def test_fast_pieces_that_somebody_plays_back_are_not_passed_on_for_ever() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    bench.now += 2
    bench.present(bench.peer2)
    controller = network_identity("controller")
    for update_id in range(1, 301):
        [piece] = cut(NETWORK_ID, b"old", update_id, controller, flags=1)
        bench.say(bench.peer, messages.NETWORK_CONFIG, piece.emit())
    assert bench.networks.counters.pieces_forwarded == 100
    bench.now += 2
    [piece] = cut(NETWORK_ID, bench.config(name="new").emit(), 999, controller, flags=1)
    sent = bench.say(bench.controller, messages.NETWORK_CONFIG, piece.emit())
    assert verbs(sent).count("NETWORK_CONFIG") == 2
    _check(bench)


def test_pieces_that_overlap_do_not_make_a_configuration() -> None:
    bench = MemberBench()
    membership = bench.join()
    controller = network_identity("controller")
    dictionary = bench.config(name="overlap").emit()
    half = len(dictionary) // 2
    for position in (0, 1, 2, 3):
        piece = Piece(
            NETWORK_ID,
            dictionary[position : position + half],
            update_id=9,
            total=len(dictionary),
            position=position,
        ).sign(controller)
        bench.say(bench.peer, messages.NETWORK_CONFIG, piece.emit())
    assert membership.config is not None
    assert membership.config.name == "test"
    assert bench.networks.counters.piece_kept == 4


def test_a_loop_of_redirections_between_two_members_ends() -> None:
    # Both are told to send everything on to the other; what arrives from there is accepted.
    me, peer = network_identity("me").address, network_identity("peer").address
    rules = (Rule.of(REDIRECT, peer, 0, 0), Rule.of(REDIRECT, me, 0, 0), Rule(ACCEPT))
    bench = MemberBench()
    membership = bench.join(rules=rules)
    bench.present(bench.peer)
    ext = ExtFrame(NETWORK_ID, 4, bench.mac(bench.peer2), bench.mac(bench.peer), 0x800, b"hi")
    sent = bench.say(bench.peer, messages.EXT_FRAME, ext.emit())
    assert all(s.verb != messages.EXT_FRAME for s in sent)
    assert len(membership.take_frames()) == 1


def test_an_hour_of_noise_leaves_nothing_behind() -> None:
    bench = _busy()
    noise = random.Random(8)
    for _ in range(400):
        verb = noise.choice(VERBS)
        payload = HEAD + noise.randbytes(noise.randrange(120))
        bench.say(noise.choice([bench.peer, bench.peer2]), verb, payload)
        bench.now += 0.05
    bench.networks.networks[NETWORK_ID].take_frames()
    bench.pass_time(3600)
    sizes = bench.networks.sizes()
    assert {
        sizes[name]
        for name in ("groups", "kept", "complaints", "forgers", "gathers", "credentials")
    } == {0}
    _check(bench)


def test_messages_for_everything_at_once_have_one_outcome_each() -> None:
    bench = _busy()
    for payload in _samples(bench):
        for verb in VERBS:
            bench.now += 0.3
            bench.say(bench.peer, verb, payload)
    assert bench.networks.counters.messages_in > 50
    _check(bench)


def test_the_window_is_the_configurations_and_not_a_peers() -> None:
    bench = MemberBench()
    membership = bench.join(membership=None)
    generous = bench.certificate(window=10)
    bench.timestamp += 1
    bench.configure(membership=generous)
    theirs = bench.certificate(bench.peer.identity, timestamp=bench.timestamp + 100, window=WINDOW)
    bench.present(bench.peer, memberships=(theirs,))
    bench.say(bench.peer, messages.FRAME, HEAD + b"\x08\0hi")
    assert membership.take_frames() == []
