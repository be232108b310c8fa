"""The neighbor cache through ARP: asking, waiting, believing, and not believing strangers."""

from __future__ import annotations

import errno

import pytest

from zttrio.config import Config
from zttrio.header import arp
from zttrio.header.address import BROADCAST_MAC, IPV4_BROADCAST, IPV4_UNSPECIFIED, packed
from zttrio.header.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4
from zttrio.stack import neighbor

from .stack_host import (
    MAC,
    OTHER,
    OTHER_MAC,
    PEER,
    PEER_MAC,
    US,
    Host,
    arp_frame,
    echo_frame,
    ethernet,
)


def state(host: Host, address: bytes = PEER) -> int | None:
    entry = host.stack.neighbors.get(address)
    return None if entry is None else entry.state


def send(host: Host, address: bytes = PEER) -> None:
    host.stack.ip.send(US, address, 200, b"header", b"payload", host.now)


def test_the_first_packet_asks_and_waits_for_the_answer() -> None:
    host = Host()
    send(host)
    send(host)
    (question,) = host.take()
    assert question.destination_mac == BROADCAST_MAC
    assert question.arp == arp.ArpPacket(arp.REQUEST, MAC, US, bytes(6), PEER)
    host.put(arp_frame(arp.REPLY, PEER_MAC, PEER, MAC, US))
    sent = host.take()
    assert [packet.content for packet in sent] == [b"headerpayload"] * 2
    assert {packet.destination_mac for packet in sent} == {PEER_MAC}
    assert state(host) == neighbor.REACHABLE
    send(host)
    assert host.take()[0].destination_mac == PEER_MAC
    host.check_books()


def test_a_question_is_repeated_each_second_and_given_up_after_three() -> None:
    host = Host()
    ping = host.stack.icmp.ping(PEER, host.now)
    assert len(host.take()) == 1
    for second in (1.0, 2.0):
        assert host.stack.next_timer() == second
        assert host.at(second - 0.001) == []
        (question,) = host.at(second)
        assert question.arp.target_ip == PEER
    assert ping.error == 0
    assert host.stack.next_timer() == 3.0
    assert host.at(3.0) == []
    assert ping.error == errno.EHOSTUNREACH
    assert host.counters.neighbor_unreachable == host.counters.neighbor_packets_lost == 1
    assert host.stack.next_timer() is None
    assert host.stack.neighbors.waiting_octets == 0


def test_after_giving_up_the_next_packet_asks_again() -> None:
    host = Host()
    send(host)
    host.at(3.0)
    assert state(host) is None
    send(host)
    assert len(host.take()) == 1


def test_of_too_many_waiting_packets_the_newest_are_kept() -> None:
    host = Host(config=Config(neighbor_queue=3))
    for number in range(5):
        host.stack.ip.send(US, PEER, 200, bytes([number]), b"", host.now)
    host.put(arp_frame(arp.REPLY, PEER_MAC, PEER, MAC, US))
    assert [packet.content[0] for packet in host.take() if packet.ethertype != ETHERTYPE_ARP] == [
        2,
        3,
        4,
    ]
    assert host.counters.neighbor_queue_full == 2


def test_waiting_octets_are_bounded_for_one_neighbor_and_for_all() -> None:
    host = Host(mtu=65535)
    payload = bytes(60_000)
    for _ in range(10):
        host.stack.ip.send(US, PEER, 200, b"", payload, host.now)
    assert host.stack.neighbors.waiting_octets <= neighbor.QUEUE_OCTETS
    for number in range(3, 150):
        for _ in range(3):
            host.stack.ip.send(US, bytes((10, 0, 0, number)), 200, b"", payload, host.now)
    assert host.stack.neighbors.waiting_octets <= neighbor.TOTAL_QUEUE_OCTETS
    host.at(10.0)
    assert host.stack.neighbors.waiting_octets == 0


def test_a_question_for_us_is_answered_and_its_sender_remembered() -> None:
    host = Host()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, PEER, bytes(6), US))
    (answer,) = host.take()
    assert answer.destination_mac == PEER_MAC
    assert answer.arp == arp.ArpPacket(arp.REPLY, MAC, US, PEER_MAC, PEER)
    assert state(host) == neighbor.STALE
    send(host)
    assert host.take()[0].destination_mac == PEER_MAC  # used while it is being verified
    host.check_books()


def test_a_stale_neighbor_is_probed_directly_after_five_seconds_and_then_dropped() -> None:
    host = Host()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, PEER, bytes(6), US))
    host.take()
    assert host.stack.next_timer() is None  # stale is not wrong: nobody asks before it is used
    send(host)
    host.take()
    assert state(host) == neighbor.DELAY
    for second in (5.0, 6.0, 7.0):
        assert host.stack.next_timer() == second
        (probe,) = host.at(second)
        assert probe.destination_mac == PEER_MAC
        assert probe.arp.operation == arp.REQUEST
        assert state(host) == neighbor.PROBE
    assert host.at(8.0) == []
    assert state(host) is None


def test_an_answer_to_the_probe_makes_it_reachable_again() -> None:
    host = Host()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, PEER, bytes(6), US))
    send(host)
    host.at(5.0)
    host.put(arp_frame(arp.REPLY, PEER_MAC, PEER, MAC, US))
    assert state(host) == neighbor.REACHABLE
    assert host.at(10.0) == []
    assert host.stack.next_timer() is None


def test_an_answer_is_believed_for_the_reachable_time() -> None:
    host = Host()
    host.meet()
    until = host.stack.neighbors.reachable_time[4]
    assert 15 <= until < 45  # RFC 4861: 0.5 to 1.5 times 30 s
    host.at(until - 0.001)
    send(host)
    assert state(host) == neighbor.REACHABLE
    host.at(until)
    send(host)
    assert state(host) == neighbor.DELAY


def test_confirmation_by_a_transport_keeps_it_reachable_without_probes() -> None:
    host = Host()
    host.meet()
    until = host.stack.neighbors.reachable_time[4]
    send(host)
    host.at(until - 1)
    host.stack.ip.confirm(PEER, host.now)
    host.at(until + 1)
    send(host)
    assert state(host) == neighbor.REACHABLE
    host.at(2 * until)
    send(host)
    assert state(host) == neighbor.DELAY
    host.stack.ip.confirm(PEER, host.now)
    host.take()
    assert host.at(host.now + 10) == []  # no probe
    assert state(host) == neighbor.REACHABLE


def test_confirmation_of_what_was_never_heard_of_does_nothing() -> None:
    host = Host()
    send(host)
    host.stack.ip.confirm(PEER, host.now)
    host.stack.ip.confirm(OTHER, host.now)
    assert state(host) == neighbor.INCOMPLETE
    assert state(host, OTHER) is None


def test_questions_for_others_teach_nothing_new() -> None:
    host = Host()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, PEER, bytes(6), OTHER))
    assert host.take() == []
    assert len(host.stack.neighbors) == 0
    assert host.counters.arp_not_for_us == 1
    host.check_books()


@pytest.mark.parametrize("operation", [arp.REQUEST, arp.REPLY])
def test_news_about_a_known_neighbor_is_taken_over_but_verified(operation: int) -> None:
    host = Host()
    host.meet()
    host.put(arp_frame(operation, OTHER_MAC, PEER, BROADCAST_MAC, PEER, destination=BROADCAST_MAC))
    assert state(host) == neighbor.STALE
    send(host)
    assert host.take()[0].destination_mac == OTHER_MAC
    assert state(host) == neighbor.DELAY
    host.check_books()


def test_a_repetition_of_what_is_known_leaves_it_reachable() -> None:
    host = Host()
    host.meet()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, PEER, bytes(6), OTHER))
    assert state(host) == neighbor.REACHABLE


def test_a_question_from_the_neighbor_we_ask_for_is_answer_enough() -> None:
    host = Host()
    send(host)
    host.take()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, PEER, bytes(6), OTHER))
    assert [packet.ethertype for packet in host.take()] == [ETHERTYPE_IPV4]


def test_an_answer_nobody_asked_for_is_not_kept() -> None:
    host = Host()
    host.put(arp_frame(arp.REPLY, PEER_MAC, PEER, MAC, US))
    assert len(host.stack.neighbors) == 0
    assert host.counters.arp_unsolicited == 1


def test_a_probe_for_our_address_is_answered_but_not_learned() -> None:
    host = Host()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, IPV4_UNSPECIFIED, bytes(6), US))
    (answer,) = host.take()
    assert answer.arp.sender_ip == US
    assert len(host.stack.neighbors) == 0


def test_a_question_from_another_subnet_is_answered_but_not_learned() -> None:
    host = Host()
    host.put(arp_frame(arp.REQUEST, PEER_MAC, packed("192.0.2.1"), bytes(6), US))
    assert len(host.take()) == 1
    assert len(host.stack.neighbors) == 0


def _claim(sender_mac: bytes, sender_ip: bytes) -> bytes:
    return arp.ArpPacket(arp.REQUEST, sender_mac, sender_ip, bytes(6), US).emit()


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(_claim(MAC, PEER), ETHERTYPE_ARP),
        ethernet(_claim(BROADCAST_MAC, PEER), ETHERTYPE_ARP),
        ethernet(_claim(PEER_MAC, IPV4_BROADCAST), ETHERTYPE_ARP),
        ethernet(_claim(PEER_MAC, packed("224.0.0.1")), ETHERTYPE_ARP),
        ethernet(_claim(PEER_MAC, packed("127.0.0.1")), ETHERTYPE_ARP),
        ethernet(_claim(PEER_MAC, PEER)[:27], ETHERTYPE_ARP),
        ethernet(b"\0\2" + _claim(PEER_MAC, PEER)[2:], ETHERTYPE_ARP),
    ],
    ids=["our-mac", "group-mac", "broadcast", "multicast", "loopback", "short", "not-ethernet"],
)
def test_nonsense_is_counted_and_changes_nothing(frame: bytes) -> None:
    host = Host()
    host.put(frame)
    assert host.counters.arp_malformed == 1
    assert host.take() == []
    assert len(host.stack.neighbors) == 0
    host.check_books()


def test_strangers_do_not_fill_the_cache_beyond_its_limit() -> None:
    host = Host(config=Config(neighbor_limit=4))
    host.meet()
    for number in range(10, 30):
        host.put(arp_frame(arp.REQUEST, OTHER_MAC, bytes((10, 0, 0, number)), bytes(6), US))
    assert len(host.take()) == 20  # everybody gets an answer
    assert len(host.stack.neighbors) == 4
    assert host.counters.neighbor_table_full == 17
    assert state(host) == neighbor.REACHABLE


def test_a_scan_pushes_out_other_questions_before_answers() -> None:
    host = Host("10.0.0.1/16", config=Config(neighbor_limit=8))
    for number in range(2, 8):
        host.meet(bytes((10, 0, 0, number)), PEER_MAC)
    for number in range(200):
        send(host, bytes((10, 0, 1, number)))
    assert len(host.stack.neighbors) == 8
    for number in range(2, 8):
        assert state(host, bytes((10, 0, 0, number))) == neighbor.REACHABLE
    assert state(host, bytes((10, 0, 1, 199))) == neighbor.INCOMPLETE
    assert host.counters.neighbor_evicted == 198
    host.at(20.0)
    assert host.stack.neighbors.waiting_octets == 0


def test_of_the_answers_the_longest_unused_makes_room() -> None:
    host = Host(config=Config(neighbor_limit=4))
    for number in range(2, 6):
        host.meet(bytes((10, 0, 0, number)), PEER_MAC)
        host.at(host.now + 1)
    host.stack.neighbors.use(bytes((10, 0, 0, 2)), US, host.now)
    host.meet(bytes((10, 0, 0, 9)), PEER_MAC)
    assert state(host, bytes((10, 0, 0, 2))) == neighbor.REACHABLE
    assert state(host, bytes((10, 0, 0, 3))) is None


def test_a_path_whose_neighbor_was_dropped_asks_again() -> None:
    host = Host(config=Config(neighbor_limit=1))
    host.meet(PEER)
    send(host, PEER)
    host.meet(OTHER, OTHER_MAC)
    host.take()
    send(host, PEER)
    (question,) = host.take()
    assert question.arp.target_ip == PEER


def test_questions_come_from_our_address_in_the_subnet() -> None:
    host = Host("10.0.0.1/24", "10.9.0.1/24")
    send(host, packed("10.9.0.2"))
    host.stack.icmp.ping(packed("10.9.0.3"), host.now)
    assert [question.arp.sender_ip for question in host.take()] == [US, packed("10.9.0.1")]


def test_the_cache_reads_well() -> None:
    host = Host()
    host.meet()
    send(host, OTHER)
    assert host.stack.neighbors.as_dict() == {
        "10.0.0.2": "02:00:0a:00:00:02 REACHABLE",
        "10.0.0.3": "INCOMPLETE",
    }


def test_an_echo_is_answered_to_where_it_came_from_after_one_question() -> None:
    host = Host()
    host.put(echo_frame())
    (question,) = host.take()
    assert question.arp.target_ip == PEER
