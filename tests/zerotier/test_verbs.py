"""ECHO, RENDEZVOUS, PUSH_DIRECT_PATHS, USER_MESSAGE, ERROR and the verbs of virtual networks."""

from __future__ import annotations

import itertools
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from zttrio.errors import HeaderError
from zttrio.zerotier import messages
from zttrio.zerotier.armor import SUITE_AES, SUITE_PLAIN, SUITE_SALSA
from zttrio.zerotier.compression import compress
from zttrio.zerotier.config import NodeConfig, TrustedPath
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import IdentityCollision, UserMessageReceived
from zttrio.zerotier.messages import Rendezvous, UserMessage

from .bench import Bench, verbs
from .data import vectors

if TYPE_CHECKING:
    from zttrio.zerotier.events import Message

OTHER = Endpoint.parse("10.5.0.1/4321")
V6 = Endpoint.parse("2001:db8::5/4321")


def test_an_echo_comes_back_by_the_way_it_came() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    datagram = friend.packet(messages.ECHO, b"payload")
    sent = friend.deliver(datagram, at=OTHER)
    assert verbs(sent) == ["OK", "HELLO"]
    assert sent[0].remote == OTHER
    assert messages.parse_ok(sent[0].payload) == (messages.ECHO, datagram[:8], b"payload")


def test_one_path_gets_six_echoes_a_second() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    answered = 0
    for _ in range(100):
        answered += len(friend.send(messages.ECHO, b"x"))
        bench.now += 0.01
    assert answered == 6
    assert bench.node.counters.echo_refused == 94
    bench.check_totals()


def test_a_refused_echo_is_no_sign_of_life() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    peer = bench.node.topology.peers[friend.address]
    friend.send(messages.ECHO)
    heard = peer.last_receive
    bench.now += 0.1
    assert friend.send(messages.ECHO) == []
    assert peer.last_receive == heard


def test_a_long_echo_is_answered_in_fragments() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    bench.node.receive(0, friend.endpoint, friend.packet(messages.ECHO, bytes(3000)), bench.now)
    sizes = [len(d.data) for d in bench.node.datagrams_to_send()]
    assert len(sizes) == 3
    assert max(sizes) <= 1432
    assert max(sizes) - min(sizes) <= 2


def test_a_rendezvous_from_a_root_opens_our_nat_and_probes() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.friend("10.1.0.1/1234")
    hint = Rendezvous(friend.address, OTHER).emit()
    bench.node.receive(0, root.endpoint, root.packet(messages.RENDEZVOUS, hint), bench.now)
    junk, probe = bench.node.datagrams_to_send()
    assert (junk.remote, len(junk.data), junk.ttl) == (OTHER, 4, 2)
    assert (probe.remote, probe.ttl) == (OTHER, 0)
    assert friend.armor.open(probe.data) == bytes((messages.ECHO,))
    assert bench.paths(friend) == {(0, friend.endpoint)}


def test_a_peer_of_unknown_protocol_is_probed_with_hello() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    bench.node.add_peer(friend.identity.without_secret(), (), bench.now)
    sent = root.send(messages.RENDEZVOUS, Rendezvous(friend.address, OTHER).emit())
    assert verbs(sent) == ["junk", "HELLO"]


def test_a_rendezvous_of_the_other_family_is_tried_from_its_socket() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.friend("10.1.0.1/1234")
    hint = Rendezvous(friend.address, V6).emit()
    bench.node.receive(0, root.endpoint, root.packet(messages.RENDEZVOUS, hint), bench.now)
    assert {d.local for d in bench.node.datagrams_to_send()} == {1}


def test_a_rendezvous_counts_only_from_a_root_about_a_known_peer_and_a_usable_address() -> None:
    bench = Bench(config=NodeConfig(blacklist=(ip_network("10.66.0.0/16"),)))
    root, friend, other = bench.online(), bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/1")
    good = Rendezvous(friend.address, OTHER).emit()
    assert other.send(messages.RENDEZVOUS, good) == []
    unknown = Rendezvous(b"\x01\x02\x03\x04\x05", OTHER).emit()
    assert root.send(messages.RENDEZVOUS, unknown) == []
    for text in ("127.0.0.1/1", "224.0.0.1/1", "10.66.0.1/1"):
        hint = Rendezvous(friend.address, Endpoint.parse(text)).emit()
        assert root.send(messages.RENDEZVOUS, hint) == []
    assert bench.node.counters.rendezvous_refused == 5
    bench.check_totals()


@pytest.mark.parametrize("payload", ["", "00", "00aabbccddee270905", "00aabbccddee00000401020304"])
def test_a_malformed_rendezvous_is_dropped(payload: str) -> None:
    bench = Bench()
    root = bench.online()
    assert root.send(messages.RENDEZVOUS, bytes.fromhex(payload)) == []
    assert bench.node.counters.packet_malformed == 1
    bench.check_totals()


def test_a_rendezvous_that_comes_during_the_check_of_an_identity_is_followed_after_it() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    [question] = bench.collect()
    ok = messages.emit_ok(messages.WHOIS, question.packet_id, friend.identity.emit())
    bench.node.receive(0, root.endpoint, root.packet(messages.OK, ok), bench.now)
    hint = Rendezvous(friend.address, OTHER).emit()
    bench.node.receive(0, root.endpoint, root.packet(messages.RENDEZVOUS, hint), bench.now)
    assert bench.collect() == []
    bench.check_identities()
    sent = bench.collect()
    assert [(s.remote, v) for s, v in zip(sent, verbs(sent), strict=True)][:2] == [
        (OTHER, "junk"),
        (OTHER, "HELLO"),
    ]


def test_path_hints_are_probed_unless_they_are_known_withdrawn_or_useless() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    useless = [Endpoint.parse(t) for t in ("127.0.0.1/1", "169.254.0.1/1", "10.5.0.9/0")]
    hints = messages.emit_path_hints([friend.endpoint, OTHER, V6, *useless])
    withdrawn = bytes.fromhex("0100000406") + bytes((10, 5, 0, 2)) + b"\x00\x07"
    payload = (7).to_bytes(2, "big") + hints[2:] + withdrawn
    bench.node.receive(
        0, friend.endpoint, friend.packet(messages.PUSH_DIRECT_PATHS, payload), bench.now
    )
    sent = bench.node.datagrams_to_send()
    assert [(d.local, d.remote, d.ttl) for d in sent] == [(0, OTHER, 0), (1, V6, 0)]
    assert bench.node.counters.push_skipped == 2


def test_eight_hints_of_a_scope_and_family_are_followed() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    private = [Endpoint(bytes((10, 5, 0, n)), 9) for n in range(1, 12)]
    public = [Endpoint(bytes((1, 5, 0, n)), 9) for n in range(1, 12)]
    sent = friend.send(messages.PUSH_DIRECT_PATHS, messages.emit_path_hints(private + public))
    assert [s.remote for s in sent] == private[:8] + public[:8]


def test_hints_in_quick_succession_are_ignored_from_the_ninth_on_until_a_pause() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    followed = []
    for number in range(12):
        hint = messages.emit_path_hints([Endpoint(bytes((10, 6, 0, number)), 9)])
        followed.append(len(friend.send(messages.PUSH_DIRECT_PATHS, hint)))
        bench.now += 5
    assert followed == [1] * 8 + [0] * 4
    assert bench.node.counters.push_refused == 4
    bench.now += 30
    hint = messages.emit_path_hints([OTHER])
    assert len(friend.send(messages.PUSH_DIRECT_PATHS, hint)) == 1
    bench.check_totals()


def test_a_trusted_peer_is_told_our_addresses_every_15_or_120_seconds() -> None:
    bench = Bench(root=None)
    friend, witness = bench.friend("10.1.0.1/1234"), bench.friend("10.2.0.1/1")
    outside = Endpoint.parse("10.77.0.1/5555")  # what the witness sees of us
    witness.deliver(witness.hello(sent_to=outside))
    assert friend.send(messages.NOP) == []  # not trusted yet
    bench.node.trust(friend.address, bench.now + 500)
    [sent] = friend.send(messages.NOP)
    assert sent.verb == messages.PUSH_DIRECT_PATHS
    told = [hint.endpoint for hint in messages.parse_path_hints(sent.payload)]
    assert outside in told
    assert Endpoint.parse("10.0.0.1/9993") in told
    times = []
    start = bench.now
    for hops in (0, 1):
        for _ in range(300):
            bench.now += 1
            times += [(hops, bench.now - start) for _ in friend.send(messages.NOP, hops=hops)]
    direct = [when for hops, when in times if hops == 0]
    relayed = [when for hops, when in times if hops == 1]
    assert direct == [120, 240]
    assert relayed[0] == 301
    assert [b - a for a, b in itertools.pairwise(relayed)] == [15] * (len(relayed) - 1)
    assert max(relayed) < 500  # trust has an end


def test_a_user_message_reaches_the_application() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    assert friend.send(messages.USER_MESSAGE, UserMessage(1 << 40, b"data").emit()) == []
    assert UserMessageReceived(friend.address, 1 << 40, b"data") in bench.events
    friend.send(messages.USER_MESSAGE, b"short")
    assert bench.node.counters.packet_malformed == 1


def test_a_user_message_is_sent_compressed_when_that_helps() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    bench.node.send_user_message(friend.address, 70_000, bytes(500), bench.now)
    [sent] = bench.collect()
    assert len(sent.raw) < 100
    assert UserMessage.parse(sent.payload) == UserMessage(70_000, bytes(500))


def test_what_cannot_be_sent_is_an_error_of_the_caller() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    with pytest.raises(ValueError, match="above 65535"):
        bench.node.send_user_message(friend.address, 65_535, b"", bench.now)
    for address in (bench.node.address, bytes(5), b"\xff" + bytes(4)):
        with pytest.raises(ValueError, match="cannot be sent to"):
            bench.node.echo(address, b"", bench.now, context=1)
    with pytest.raises(ValueError, match="at most 9996"):
        bench.node.echo(friend.address, bytes(9997), bench.now, context=1)
    bench.node.echo(friend.address, bytes(9890), bench.now, context=1)
    assert len(bench.node.datagrams_to_send()) == 7
    bench.node.echo(friend.address, bytes(9996), bench.now, context=1)
    assert bench.node.datagrams_to_send() == []  # fragment headers take their share
    assert bench.node.counters.packet_too_long == 1


def test_a_compressed_message_is_read_and_a_bomb_is_not() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    good = compress(UserMessage(70_000, bytes(500)).emit())
    bomb = compress(bytes(20_000))
    assert good is not None
    assert bomb is not None
    verb = messages.USER_MESSAGE | messages.COMPRESSED
    friend.send(verb, good)
    assert UserMessageReceived(friend.address, 70_000, bytes(500)) in bench.events
    friend.send(verb, bomb)
    assert bench.node.counters.packet_bad_compression == 1
    bench.check_totals()


def test_a_collision_is_believed_from_a_root_only() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.friend("10.1.0.1/1234")
    error = messages.emit_error(messages.HELLO, bytes(8), messages.COLLISION)
    friend.send(messages.ERROR, error)
    assert IdentityCollision(friend.address) not in bench.events
    assert bench.node.counters.error_refused == 1
    root.send(messages.ERROR, error)
    assert IdentityCollision(root.address) in bench.events
    bench.check_totals()


@pytest.mark.parametrize("verb", [0x0F, 0x11, 0x17, 0x1F])
def test_verbs_that_do_not_exist_are_a_sign_of_life_and_no_more(verb: int) -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    bench.now += 5
    assert friend.send(verb, b"whatever") == []
    assert bench.node.counters.unknown_verb == 1
    assert bench.node.topology.peers[friend.address].last_receive == bench.now
    bench.check_totals()


@pytest.mark.parametrize(
    "verb", [messages.ACK, messages.QOS_MEASUREMENT, messages.PATH_NEGOTIATION_REQUEST]
)
@pytest.mark.parametrize("suite", [SUITE_PLAIN, SUITE_SALSA, SUITE_AES])
def test_bonding_is_ignored_in_every_suite(verb: int, suite: int) -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    assert friend.send(verb, b"12345678", suite=suite) == []
    assert bench.node.counters.ignored_verb == 1
    bench.check_totals()


@pytest.mark.parametrize("verb", [messages.ECHO, messages.USER_MESSAGE, messages.FRAME])
def test_nothing_else_than_hello_is_taken_in_the_clear(verb: int) -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    assert friend.send(verb, bytes(20), suite=SUITE_PLAIN) == []
    assert bench.node.counters.packet_plain == 1
    bench.check_totals()


def test_salsa_and_aes_are_both_taken_and_the_peers_protocol_chooses_ours() -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    for suite in (SUITE_SALSA, SUITE_AES):
        bench.now += 1
        [sent] = friend.send(messages.ECHO, b"x", suite=suite)
        assert sent.suite == SUITE_AES
    friend.deliver(friend.hello(protocol=11))
    bench.now += 1
    [sent] = friend.send(messages.ECHO, b"x")
    assert sent.suite == SUITE_SALSA


@pytest.mark.parametrize("suite", [2, 4, 5, 6, 7])
def test_other_suites_are_dropped(suite: int) -> None:
    bench = Bench()
    friend = bench.friend("10.1.0.1/1234")
    datagram = friend.packet(messages.ECHO)
    assert friend.deliver(datagram[:18] + bytes((suite << 3,)) + datagram[19:]) == []
    counters = bench.node.counters
    assert (counters.packet_bad_suite, counters.packet_untrusted) == (
        (0, 1) if suite == 2 else (1, 0)
    )
    bench.check_totals()


def test_a_trusted_path_is_believed_with_its_number_and_from_its_network_only() -> None:
    [vector] = vectors("trusted_path")
    raw = bytes.fromhex(str(vector["raw"]))
    path_id = int.from_bytes(raw[19:27], "big")
    trusted = TrustedPath(ip_network("10.1.0.0/16"), path_id)
    bench = Bench(config=NodeConfig(trusted_paths=(trusted,)))
    friend = bench.friend("10.1.0.1/1234")
    recorded = raw[:8] + bench.node.address + friend.address + raw[18:]
    assert friend.deliver(recorded, at=OTHER) == []
    assert friend.deliver(recorded[:26] + bytes((recorded[26] ^ 1,)) + recorded[27:]) == []
    assert bench.node.counters.packet_untrusted == 2
    friend.deliver(recorded)
    assert bench.node.counters.packet_untrusted == 2
    assert bench.node.counters.packet_handled > 1
    bench.check_totals()


class _Layer:
    """A layer of virtual networks that writes down what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def receive_message(self, message: Message, now: float) -> None:
        del now
        if message.payload == b"bad":
            raise HeaderError("bad")
        self.seen.append((message.verb, message.peer.address, message.payload))

    def receive_ok(
        self,
        message: Message,
        verb: int,
        packet_id: bytes,
        data: bytes,
        context: object,
        now: float,
    ) -> None:
        del message, packet_id, now
        self.seen.append(("OK", verb, data, context))

    def receive_error(
        self, message: Message, verb: int, packet_id: bytes, code: int, data: bytes, now: float
    ) -> bool:
        del message, packet_id, data, now
        self.seen.append(("ERROR", verb, code))
        return code == messages.ACCESS_DENIED


def test_messages_of_virtual_networks_are_handed_to_their_layer() -> None:
    bench = Bench()
    layer = _Layer()
    friend = bench.friend("10.1.0.1/1234")
    friend.send(messages.FRAME, b"early")
    assert bench.node.counters.no_network_layer == 1
    bench.node.set_network_layer(layer)
    for verb in sorted(messages.NETWORK_VERBS):
        friend.send(verb, b"payload")
    assert [verb for verb, *_ in layer.seen] == sorted(messages.NETWORK_VERBS)
    friend.send(messages.FRAME, b"bad")
    assert bench.node.counters.packet_malformed == 1
    layer.seen.clear()
    bench.node.send(friend.address, messages.MULTICAST_GATHER, b"who", bench.now, context="c")
    [sent] = bench.collect()
    friend.send(messages.OK, messages.emit_ok(sent.verb, sent.packet_id, b"they"))
    for code in (messages.NOT_FOUND, messages.ACCESS_DENIED):
        friend.send(messages.ERROR, messages.emit_error(sent.verb, sent.packet_id, code))
    assert layer.seen == [
        ("OK", messages.MULTICAST_GATHER, b"they", "c"),
        ("ERROR", messages.MULTICAST_GATHER, messages.NOT_FOUND),
        ("ERROR", messages.MULTICAST_GATHER, messages.ACCESS_DENIED),
    ]
    assert bench.node.counters.error_refused == 1
    bench.check_totals()
