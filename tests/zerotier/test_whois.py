from __future__ import annotations

from zttrio.zerotier import messages
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import EchoAnswered, UserMessageReceived
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.world import PLANET, Root, World

from .bench import Bench, Puppet, Sent, verbs
from .data import node_identities
from .lab import WORLD_KEYS

OTHER = Endpoint.parse("10.5.0.1/1")
_MESSAGE = bytes(5) + b"\x01\x00\x00" + b"hello"  # USER_MESSAGE of kind 65536


def _tell(root: Puppet, question: Sent, *puppets: Puppet) -> list[Sent]:
    return root.answer(question, data=b"".join(p.identity.emit() for p in puppets))


def test_a_message_to_somebody_unknown_waits_for_the_roots_answer() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    bench.node.echo(friend.address, b"?", bench.now, context="mine")
    [question] = bench.collect()
    assert (question.remote, question.verb) == (root.endpoint, messages.WHOIS)
    assert question.payload == friend.address
    sent = _tell(root, question, friend)
    assert verbs(sent) == ["HELLO", "ECHO"]
    assert {s.remote for s in sent} == {root.endpoint}
    friend.endpoint = root.endpoint
    friend.send(messages.OK, messages.emit_ok(messages.ECHO, sent[1].packet_id, b"?"), hops=1)
    [answered] = [e for e in bench.collect_events() if isinstance(e, EchoAnswered)]
    assert (answered.address, answered.payload, answered.context) == (
        friend.address,
        b"?",
        "mine",
    )
    bench.check_totals()


def test_what_was_sent_before_the_root_has_answered_leaves_when_it_does() -> None:
    bench = Bench()
    friend = bench.puppet("10.1.0.1/1234")
    bench.node.echo(friend.address, b"?", bench.now, context="mine")
    assert bench.collect() == []
    bench.now += 0.03
    hello = next(s for s in bench.starting if s.remote == bench.root.endpoint)
    [question] = bench.root.answer(hello)
    assert (question.verb, question.payload) == (messages.WHOIS, friend.address)


def test_the_question_is_repeated_every_half_second_for_five_seconds() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    start = bench.now
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    asked = [(start, s) for s in bench.collect()]
    while bench.now < start + 8:
        asked += [(bench.now, s) for s in bench.wait(0.25) if s.verb == messages.WHOIS]
    times = [round(when - start, 3) for when, _ in asked]
    assert times == [n / 2 for n in range(10)]
    assert {s.remote for _, s in asked} == {root.endpoint}
    assert bench.node.counters.send_waiting_timeout == 1
    assert _tell(root, asked[-1][1], friend) == []  # known now, but nothing waits any more


def test_many_messages_to_one_stranger_ask_once_per_half_second() -> None:
    bench = Bench()
    _, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    for _ in range(10):
        bench.node.echo(friend.address, b"?", bench.now, context=1)
    assert verbs(bench.collect()) == ["WHOIS"]


def test_the_33rd_waiting_message_pushes_out_the_oldest() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    for number in range(40):
        bench.node.echo(friend.address, bytes((number,)), bench.now, context=1)
    [question] = bench.collect()
    assert bench.node.counters.send_waiting_evicted == 8
    sent = _tell(root, question, friend)
    assert [s.payload[0] for s in sent if s.verb == messages.ECHO] == list(range(8, 40))


def test_at_most_32_addresses_are_asked_for_at_once() -> None:
    bench = Bench()
    bench.online()
    for number in range(40):
        bench.node.echo(b"\x01\x02\x03\x04" + bytes((number,)), b"", bench.now, context=1)
    assert len(bench.collect()) == 32
    assert bench.node.counters.whois_full == 8
    assert bench.node.sizes()["questions"] == 32


def test_a_packet_from_somebody_unknown_waits_for_the_roots_answer() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1234")
    [question] = friend.send(messages.USER_MESSAGE, _MESSAGE)
    assert (question.remote, question.payload) == (root.endpoint, friend.address)
    assert bench.node.waiting == 1
    bench.check_totals()
    sent = _tell(root, question, friend)
    assert verbs(sent) == ["HELLO"]  # it came directly, so the path is checked
    assert UserMessageReceived(friend.address, 65536, b"hello") in bench.events
    assert bench.node.waiting == 0
    bench.check_totals()


def test_packets_of_strangers_wait_five_seconds_and_32_at_most() -> None:
    bench = Bench()
    bench.online()
    stranger = bench.puppet("10.1.0.1/1234")
    for _ in range(40):
        stranger.send(messages.NOP)
    assert bench.node.waiting == 32
    assert bench.node.counters.packet_waiting_evicted == 8
    bench.check_totals()
    bench.wait(5.5)
    assert bench.node.waiting == 0
    assert bench.node.counters.packet_waiting_timeout == 32
    bench.check_totals()


def test_without_a_root_packets_of_strangers_are_dropped_at_once() -> None:
    bench = Bench()  # its root has not answered yet
    stranger = bench.puppet("10.1.0.1/1234")
    assert stranger.send(messages.NOP) == []
    assert bench.node.counters.packet_unknown_sender == 1
    assert bench.node.waiting == 0


def test_forged_sources_make_us_ask_a_bounded_number_of_questions() -> None:
    bench = Bench()
    bench.online()
    stranger = bench.puppet("10.1.0.1/1234")
    asked = 0
    for number in range(1000):
        datagram = stranger.packet(messages.NOP)
        forged = datagram[:13] + b"\x05\x00\x00" + number.to_bytes(2, "big") + datagram[18:]
        asked += len(stranger.deliver(forged))
    asked += len(bench.wait(1.0))
    assert asked <= 3 * 32
    assert bench.node.counters.whois_full > 900


def test_an_identity_nobody_asked_for_is_ignored() -> None:
    bench = Bench()
    root, friend, other = bench.online(), bench.puppet("10.1.0.1/1"), bench.puppet("10.2.0.1/1")
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    [question] = bench.collect()
    _tell(root, question, other, friend)
    assert friend.address in bench.node.topology.peers
    assert other.address not in bench.node.topology.peers
    assert bench.node.counters.whois_identity_unwanted == 1


def test_a_lying_root_cannot_give_an_address_to_its_own_key() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1")
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    [question] = bench.collect()
    stolen = friend.address + node_identities()[40].emit()[5:]
    assert root.answer(question, data=stolen) == []
    assert friend.address not in bench.node.topology.peers
    assert bench.node.counters.whois_identity_invalid == 1


def test_an_identity_from_a_root_is_used_at_once_if_the_owner_prefers_speed() -> None:
    bench = Bench(config=NodeConfig(validate_whois=False))
    root, friend = bench.online(), bench.puppet("10.1.0.1/1")
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    [question] = bench.collect()
    bench.node.receive(
        0,
        root.endpoint,
        root.packet(
            messages.OK,
            messages.emit_ok(messages.WHOIS, question.packet_id, friend.identity.emit()),
        ),
        bench.now,
    )
    assert bench.node.next_validation() is None
    assert verbs(bench.collect()) == ["HELLO", "ECHO"]


def test_while_an_identity_is_checked_nobody_is_asked_again() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1")
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    [question] = bench.collect()
    ok = messages.emit_ok(messages.WHOIS, question.packet_id, friend.identity.emit())
    bench.node.receive(0, root.endpoint, root.packet(messages.OK, ok), bench.now)
    assert bench.wait(3) == []
    bench.check_identities()
    assert verbs(bench.collect()) == ["HELLO", "ECHO"]


def test_a_malformed_answer_is_dropped() -> None:
    bench = Bench()
    root, friend = bench.online(), bench.puppet("10.1.0.1/1")
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    [question] = bench.collect()
    root.answer(question, data=friend.identity.emit()[:-1])
    assert bench.node.counters.packet_malformed == 1
    bench.check_totals()


def test_reserved_addresses_are_never_asked_for() -> None:
    bench = Bench()
    bench.online()
    stranger = bench.puppet("10.1.0.1/1")
    datagram = stranger.packet(messages.NOP)
    assert stranger.deliver(datagram[:13] + bytes(5) + datagram[18:]) == []
    assert bench.node.counters.datagram_bad_source == 1


def test_a_leaf_tells_who_it_is_itself_and_nothing_else() -> None:
    bench = Bench()
    friend, other = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/1")
    [sent] = friend.send(messages.WHOIS, bench.node.address)
    assert messages.parse_ok(sent.payload)[2] == bench.node.identity.emit()
    bench.now += 0.1
    assert friend.send(messages.WHOIS, other.address) == []


def test_a_leaf_answers_one_question_per_peer_and_tenth_of_a_second() -> None:
    bench = Bench()
    friend, other = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/1")
    bench.now += 1
    answers = []
    for _ in range(3):
        answers += friend.send(messages.WHOIS, bench.node.address)
        answers += other.send(messages.WHOIS, bench.node.address)
        bench.now += 0.05
    assert len(answers) == 4
    assert bench.node.counters.whois_refused == 2
    bench.check_totals()


def test_a_root_tells_all_it_knows_in_the_order_of_the_question() -> None:
    bench = Bench(relay=RelayConfig())
    friend, other = bench.friend("10.1.0.1/1"), bench.friend("10.2.0.1/1")
    unknown = b"\x01\x02\x03\x04\x05"
    wanted = other.address + unknown + b"\xff" * 5 + bench.node.address + b"xyz"
    [sent] = friend.send(messages.WHOIS, wanted)
    expected = other.identity.emit() + bench.node.identity.emit()
    assert messages.parse_ok(sent.payload)[2] == expected


def test_a_root_says_nothing_when_it_knows_nobody() -> None:
    bench = Bench(relay=RelayConfig())
    friend = bench.friend("10.1.0.1/1")
    assert friend.send(messages.WHOIS, b"\x01\x02\x03\x04\x05") == []
    bench.check_totals()


def test_a_long_question_from_an_unconfirmed_path_gets_one_identity() -> None:
    bench = Bench(relay=RelayConfig())
    friend = bench.friend("10.1.0.1/1")
    question = bench.node.address * 100
    elsewhere = Endpoint.parse("10.7.0.1/1")
    sent = friend.send(messages.WHOIS, question, at=elsewhere)
    assert verbs(sent) == ["OK", "HELLO"]
    assert len(messages.parse_ok(sent[0].payload)[2]) == 71
    assert bench.node.counters.whois_addresses_skipped == 99


def test_a_root_tells_one_peer_a_bounded_number_of_identities_a_second() -> None:
    bench = Bench(relay=RelayConfig(whois_per_second=10, whois_burst=20))
    friend = bench.friend("10.1.0.1/1")
    told = 0
    for _ in range(100):
        for sent in friend.send(messages.WHOIS, bench.node.address * 5):
            told += len(messages.parse_ok(sent.payload)[2]) // 71
        bench.now += 0.01
    assert 20 <= told <= 31
    assert bench.node.counters.whois_refused > 0
    bench.check_totals()


def test_a_root_asks_its_own_roots_about_whom_it_does_not_know() -> None:
    bench = Bench(relay=RelayConfig())
    root, friend, other = bench.online(), bench.friend("10.1.0.1/1"), bench.puppet("10.2.0.1/1")
    [question] = friend.send(messages.WHOIS, other.address)
    assert (question.remote, question.payload) == (root.endpoint, other.address)
    _tell(root, question, other)
    [sent] = friend.send(messages.WHOIS, other.address)
    assert messages.parse_ok(sent.payload)[2] == other.identity.emit()


def test_an_answer_of_somebody_who_is_no_root_any_more_is_ignored() -> None:
    bench = Bench()
    root, friend, other = bench.online(), bench.puppet("10.1.0.1/1"), bench.puppet("10.2.0.1/1")
    bench.node.echo(friend.address, b"?", bench.now, context=1)
    [question] = bench.collect()
    listed = Root(other.identity.without_secret(), (other.endpoint,))
    bench.node.set_world(World.make(PLANET, 1, 1, [listed], signer=WORLD_KEYS), bench.now)
    _tell(root, question, friend)
    assert friend.address not in bench.node.topology.peers
    assert bench.node.counters.ok_not_from_root == 1
    bench.check_totals()


def test_of_two_identities_with_one_address_the_first_that_is_checked_stays() -> None:
    bench = Bench(config=NodeConfig(validation_interval=0))
    one = bench.puppet("10.1.0.1/1")
    keys = node_identities()[40]
    twin = Puppet(bench, Identity(one.address, keys.public, keys.secret), OTHER)
    bench.node.receive(0, one.endpoint, one.hello(), bench.now)
    bench.node.receive(0, twin.endpoint, twin.hello(), bench.now)
    for expected in (one.identity, twin.identity):
        assert bench.node.next_validation() == expected
        bench.node.identity_checked(expected, bench.now, is_valid=True)
    assert bench.node.topology.peers[one.address].identity == one.identity
    assert bench.node.counters.hello_collision == 1
    bench.check_totals()


def test_more_identities_than_can_wait_for_a_check_are_asked_for_again() -> None:
    bench = Bench(config=NodeConfig(validation_queue=1))
    root = bench.online()
    friends = [bench.puppet(f"10.{n}.0.1/1") for n in (1, 2)]
    for friend in friends:
        bench.node.echo(friend.address, b"?", bench.now, context=1)
    for question, friend in zip(bench.collect(), friends, strict=True):
        ok = messages.emit_ok(messages.WHOIS, question.packet_id, friend.identity.emit())
        bench.node.receive(0, root.endpoint, root.packet(messages.OK, ok), bench.now)
    assert bench.node.counters.whois_validation_full == 1
    bench.check_identities()
    bench.collect()
    assert [s.payload for s in bench.wait(0.5)] == [friends[1].address]


def test_an_identity_that_agrees_on_no_key_is_refused() -> None:
    bench = Bench()
    bench.node.add_peer(Identity(b"\x01\x02\x03\x04\x05", bytes(64)), (), bench.now)
    assert b"\x01\x02\x03\x04\x05" not in bench.node.topology.peers
