"""ICMP: echo both ways, errors to the right transport, and no error where none may be."""

from __future__ import annotations

import errno

import pytest

from zttrio.config import Config
from zttrio.header import icmpv4
from zttrio.header.address import BROADCAST_MAC, packed
from zttrio.header.ipv4 import PROTOCOL_ICMP, PROTOCOL_UDP
from zttrio.stack import events
from zttrio.stack.echo import REMEMBERED, WAITER_LIMIT
from zttrio.stack.ratelimit import TokenBucket

from .stack_host import (
    BROADCAST,
    OTHER,
    OTHER_MAC,
    PEER,
    PEER_MAC,
    US,
    Host,
    echo_frame,
    ethernet,
    ip_packet,
    udp_content,
    udp_frame,
)

ALL_HOSTS = packed("224.0.0.1")


def make(config: Config | None = None) -> Host:
    host = Host(config=config)
    host.meet()
    return host


def icmp_frame(
    kind: int, code: int = 0, rest: int = 0, body: bytes = b"", *, source: bytes = PEER
) -> bytes:
    message = icmpv4.IcmpV4(kind, code, rest=rest, body=body).emit()
    return ethernet(ip_packet(message, PROTOCOL_ICMP, source=source))


def quoting(host: Host, kind: int, code: int = 0, rest: int = 0) -> bytes:
    """An error about the packet that *host* has just sent."""
    (sent,) = host.take()
    return icmp_frame(kind, code, rest, sent.body[:28])


# echo


@pytest.mark.parametrize("payload", [b"", b"x", b"odd", bytes(1472), b"\xff" * 56])
def test_an_echo_comes_back_as_it_went(payload: bytes) -> None:
    host = make()
    host.put(echo_frame(payload, rest=0xBEEF0102))
    (sent,) = host.take()
    assert (sent.ip.source, sent.ip.destination) == (US, PEER)
    assert (sent.icmp.type, sent.icmp.code, sent.icmp.rest) == (0, 0, 0xBEEF0102)
    assert bytes(sent.icmp.body) == payload
    answer = Host("10.0.0.2/24", mac=PEER_MAC)
    answer.put(sent.frame)
    assert answer.counters.icmp_bad_checksum == 0
    host.check_books()


@pytest.mark.parametrize("destination", [BROADCAST, ALL_HOSTS, packed("255.255.255.255")])
def test_an_echo_to_a_group_is_not_answered(destination: bytes) -> None:
    host = make()
    message = icmpv4.IcmpV4(icmpv4.ECHO_REQUEST, 0, body=b"smurf").emit()
    packet = ip_packet(message, PROTOCOL_ICMP, destination=destination)
    mac = bytes.fromhex("01005e000001") if destination == ALL_HOSTS else BROADCAST_MAC
    host.put(ethernet(packet, destination=mac))
    host.put(ethernet(ip_packet(message, PROTOCOL_ICMP), destination=BROADCAST_MAC))
    assert host.take() == []
    assert host.counters.icmp_echo_ignored == 2
    host.check_books()


def test_a_ping_reports_its_round_trip_time() -> None:
    host = make()
    ping = host.stack.icmp.ping(PEER, host.now, payload=b"payload")
    ping.wanted = events.RD
    (sent,) = host.take()
    assert sent.icmp.type == icmpv4.ECHO_REQUEST
    assert bytes(sent.icmp.body) == b"payload"
    host.at(0.25)
    assert not ping.is_readable
    host.put(icmp_frame(icmpv4.ECHO_REPLY, rest=sent.icmp.rest, body=b"payload"))
    assert host.stack.events.take() == [ping]
    assert (ping.replied_at, ping.reply_time, ping.replies) == (0.25, 0.25, 1)
    host.check_books()


def test_a_second_request_of_the_same_ping_has_its_own_time() -> None:
    host = make()
    ping = host.stack.icmp.ping(PEER, host.now)
    (first,) = host.take()
    host.at(1.0)
    ping.send(host.now)
    (second,) = host.take()
    assert second.icmp.rest == first.icmp.rest + 1
    host.at(1.5)
    host.put(icmp_frame(icmpv4.ECHO_REPLY, rest=second.icmp.rest, body=bytes(second.icmp.body)))
    assert ping.reply_time == 0.5
    host.put(icmp_frame(icmpv4.ECHO_REPLY, rest=first.icmp.rest, body=bytes(first.icmp.body)))
    assert ping.reply_time == 1.5
    host.put(icmp_frame(icmpv4.ECHO_REPLY, rest=first.icmp.rest, body=bytes(first.icmp.body)))
    assert ping.replies == 2  # the third was a duplicate
    assert host.counters.icmp_echo_unexpected == 1


@pytest.mark.parametrize("change", ["source", "rest", "body", "closed"])
def test_a_reply_that_does_not_fit_is_unexpected(change: str) -> None:
    host = make()
    ping = host.stack.icmp.ping(PEER, host.now)
    (sent,) = host.take()
    rest, body, source = sent.icmp.rest, bytes(sent.icmp.body), PEER
    if change == "source":
        source = OTHER
    elif change == "rest":
        rest ^= 0x10000
    elif change == "body":
        body += b"!"
    else:
        ping.close()
        ping.close()
    host.put(icmp_frame(icmpv4.ECHO_REPLY, rest=rest, body=body, source=source))
    assert ping.replied_at is None
    assert host.counters.icmp_echo_unexpected == 1
    host.check_books()


def test_we_can_ping_ourselves() -> None:
    host = make()
    for address in (US, packed("127.0.0.1")):
        ping = host.stack.icmp.ping(address, host.now)
        assert host.take() == []
        assert ping.replies == 1
    host.check_books()


def test_anybody_may_answer_a_ping_to_a_group() -> None:
    host = make()
    ping = host.stack.icmp.ping(BROADCAST, host.now)
    (sent,) = host.take()
    reply = icmp_frame(icmpv4.ECHO_REPLY, rest=sent.icmp.rest, body=bytes(sent.icmp.body))
    host.put(reply)
    assert ping.replies == 1


def test_pings_are_bounded_and_refuse_what_cannot_be_sent() -> None:
    host = make()
    with pytest.raises(OSError, match="no route") as caught:
        host.stack.icmp.ping(packed("192.0.2.1"), host.now)
    assert caught.value.errno == errno.ENETUNREACH
    with pytest.raises(OSError, match="65508 octets") as caught:
        host.stack.icmp.ping(PEER, host.now, payload=bytes(65_508))
    assert caught.value.errno == errno.EMSGSIZE
    pings = [host.stack.icmp.echoes.open(PEER, b"", 0, is_group=False) for _ in range(WAITER_LIMIT)]
    assert len({ping.identifier for ping in pings}) == WAITER_LIMIT
    with pytest.raises(OSError, match="4096 are waiting") as caught:
        host.stack.icmp.ping(PEER, host.now)
    assert caught.value.errno == errno.ENOBUFS
    pings[7].close()
    host.stack.icmp.ping(PEER, host.now)


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        (3, 0, errno.ENETUNREACH),
        (3, 1, errno.EHOSTUNREACH),
        (3, 3, errno.ECONNREFUSED),
        (3, 13, errno.EHOSTUNREACH),
        (3, 99, errno.EHOSTUNREACH),
        (11, 0, errno.EHOSTUNREACH),
        (12, 0, errno.EPROTO),
    ],
)
def test_an_error_ends_a_ping(kind: int, code: int, error: int) -> None:
    host = make()
    ping = host.stack.icmp.ping(PEER, host.now)
    ping.wanted = events.RD | events.ERR
    host.put(quoting(host, kind, code))
    assert ping.error == error
    assert host.stack.events.take() == [ping]
    assert ping.ready == events.RD | events.ERR
    assert host.counters.icmp_errors_in == 1
    host.check_books()


# errors in


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(28),
        ip_packet(udp_content(b""), PROTOCOL_UDP, source=OTHER, destination=PEER),
        ip_packet(udp_content(b""), PROTOCOL_UDP, source=US, destination=PEER)[:27],
        ip_packet(udp_content(b""), PROTOCOL_UDP, source=US, destination=PEER, fragment_offset=8),
        ip_packet(udp_content(b""), 132, source=US, destination=PEER),
    ],
    ids=["empty", "zeros", "not-ours", "short", "fragment", "unknown-protocol"],
)
def test_an_error_that_quotes_nothing_of_ours_goes_nowhere(body: bytes) -> None:
    host = make()
    host.put(icmp_frame(icmpv4.DESTINATION_UNREACHABLE, 3, body=body))
    assert host.counters.icmp_errors_not_ours + host.counters.icmp_malformed == 1
    assert host.counters.icmp_errors_in == 0
    host.check_books()


@pytest.mark.parametrize("kind", [icmpv4.REDIRECT, icmpv4.SOURCE_QUENCH])
def test_redirects_and_source_quench_change_nothing(kind: int) -> None:
    host = make()
    ping = host.stack.icmp.ping(PEER, host.now)
    host.put(quoting(host, kind, 1, int.from_bytes(OTHER)))
    assert ping.error == 0
    host.stack.icmp.ping(PEER, host.now)
    assert host.take()[0].destination_mac == PEER_MAC
    host.check_books()


@pytest.mark.parametrize(
    ("mtu", "believed"), [(1400, 1400), (552, 552), (300, 552), (0, 1492), (1500, 1500)]
)
def test_a_path_mtu_report_about_our_packet_is_believed(mtu: int, believed: int) -> None:
    host = make()
    endpoint = host.stack.udp.open()
    endpoint.connect((PEER, 9), host.now)
    endpoint.send(bytes(1472), None, host.now)
    host.put(quoting(host, 3, 4, mtu))
    assert host.stack.ip.path_mtu(PEER) == believed
    if believed == 1500:
        assert host.counters.pmtu_refused == 1
        return
    assert host.counters.pmtu_lowered == 1
    with pytest.raises(OSError, match="earlier datagram") as caught:
        endpoint.send(bytes(1472), None, host.now)
    assert caught.value.errno == errno.EMSGSIZE
    endpoint.send(bytes(1472), None, host.now)
    sent = host.take()
    assert all(packet.ip.total_length <= believed for packet in sent)
    assert len(sent) > 1
    endpoint.send(bytes(100), None, host.now)
    (small,) = host.take()
    assert small.ip.dont_fragment is (mtu != 300)  # below the minimum routers may cut
    host.check_books()


def test_a_path_mtu_is_forgotten_after_ten_minutes() -> None:
    host = make()
    endpoint = host.stack.udp.open()
    endpoint.send(bytes(1472), (PEER, 9), host.now)
    host.put(quoting(host, 3, 4, 1000))
    host.at(599.9)
    assert host.stack.ip.path_mtu(PEER) == 1000
    host.at(600.0)
    assert host.stack.ip.path_mtu(PEER) == 1500


def test_a_path_mtu_report_about_somebody_elses_packet_is_not_believed() -> None:
    host = make()
    forged = ip_packet(
        udp_content(b"", 1111, 2222, source=US, destination=PEER),
        PROTOCOL_UDP,
        source=US,
        destination=PEER,
    )
    host.put(icmp_frame(3, 4, 600, forged))
    assert host.stack.ip.path_mtu(PEER) == 1500
    assert host.counters.udp_errors_unmatched == 1


def test_reported_path_mtus_are_bounded() -> None:
    host = Host("10.0.0.1/8")
    for number in range(2000):
        host.stack.ip.lower_path_mtu((0x0A010000 + number).to_bytes(4), 1000, host.now)
    assert host.stack.sizes["path mtus"] == 1024
    assert host.stack.ip.path_mtu(packed("10.1.0.0")) == 1500
    assert host.stack.ip.path_mtu((0x0A010000 + 1999).to_bytes(4)) == 1000


# errors out


def test_a_datagram_for_nobody_is_answered_with_its_beginning() -> None:
    host = make()
    frame = udp_frame(bytes(1000))
    host.put(frame)
    (sent,) = host.take()
    assert (sent.icmp.type, sent.icmp.code) == (3, 3)
    assert bytes(sent.icmp.body) == frame[14:][: 576 - 28]
    assert sent.ip.traffic_class == 0xC0
    assert (sent.ip.source, sent.ip.destination) == (US, PEER)
    assert host.counters.icmp_errors_out == 1
    host.check_books()


def test_an_unknown_protocol_is_unreachable() -> None:
    host = make()
    host.put(ethernet(ip_packet(b"abc", 132)))
    (sent,) = host.take()
    assert (sent.icmp.type, sent.icmp.code) == (3, 2)
    host.check_books()


@pytest.mark.parametrize(
    ("destination", "mac"),
    [
        (BROADCAST, BROADCAST_MAC),
        (packed("255.255.255.255"), BROADCAST_MAC),
        (ALL_HOSTS, bytes.fromhex("01005e000001")),
        (US, BROADCAST_MAC),
    ],
)
def test_no_error_answers_what_was_sent_to_a_group(destination: bytes, mac: bytes) -> None:
    host = make()
    host.put(ethernet(ip_packet(b"abc", 132, destination=destination), destination=mac))
    host.put(udp_frame(b"data", destination=destination, destination_mac=mac))
    assert host.take() == []
    host.check_books()


def test_no_error_answers_an_icmp_error() -> None:
    # Nothing sends errors about ICMP but reassembly: a cut error message runs out of time.
    host = make()
    error = icmpv4.IcmpV4(icmpv4.DESTINATION_UNREACHABLE, 3, body=bytes(56)).emit()
    host.put(ethernet(ip_packet(error[:32], PROTOCOL_ICMP, more_fragments=True)))
    assert host.at(31.0) == []
    assert host.counters.icmp_errors_unwanted == 1


def test_errors_are_limited_in_rate() -> None:
    host = make(Config(icmp_rate=10.0, icmp_burst=5))
    for _ in range(20):
        host.put(udp_frame(b"data"))
    assert len(host.take()) == 5
    assert host.counters.icmp_errors_limited == 15
    host.at(0.1)
    for _ in range(3):
        host.put(udp_frame(b"data"))
    assert len(host.take()) == 1
    host.at(10.0)
    for _ in range(20):
        host.put(udp_frame(b"data"))
    assert len(host.take()) == 5
    host.check_books()


def test_echo_replies_are_not_limited_by_that_rate() -> None:
    host = make(Config(icmp_rate=10.0, icmp_burst=5))
    for _ in range(20):
        host.put(echo_frame())
    assert len(host.take()) == 20


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("icmp_malformed", b"\x08\x00\xf7\xff"),
        ("icmp_bad_checksum", icmpv4.IcmpV4(8, 0, body=b"x").emit()[:-1] + b"y"),
        ("icmp_unknown_type", icmpv4.IcmpV4(13, 0, body=bytes(12)).emit()),
        ("icmp_unknown_type", icmpv4.IcmpV4(200, 0).emit()),
        ("icmp_malformed", icmpv4.IcmpV4(3, 0, body=b"\x65" + bytes(30)).emit()),
    ],
)
def test_a_bad_message_is_counted_by_its_reason(reason: str, message: bytes) -> None:
    host = make()
    host.put(ethernet(ip_packet(message, PROTOCOL_ICMP)))
    assert host.counters.as_dict()[reason] == 1
    assert host.take() == []
    host.check_books()


def test_an_error_goes_back_through_the_cache_like_everything_else() -> None:
    host = make()
    host.put(udp_frame(b"data", source=OTHER))
    (question,) = host.take()
    assert question.arp.target_ip == OTHER
    assert question.destination_mac != OTHER_MAC  # the frame's source is no proof


def test_a_token_bucket_holds_its_burst_and_refills_at_its_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=3)
    assert [bucket.take(5.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(5.49)
    assert bucket.take(5.5)
    assert not bucket.take(5.5)
    assert not bucket.take(1.0)  # time that runs backwards gives nothing
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_a_ping_remembers_its_latest_requests_only() -> None:
    host = make()
    ping = host.stack.icmp.ping(PEER, host.now)
    (first,) = host.take()
    for _ in range(REMEMBERED):
        ping.send(host.now)
    host.put(icmp_frame(icmpv4.ECHO_REPLY, rest=first.icmp.rest, body=bytes(first.icmp.body)))
    assert ping.replies == 0
    for sent in host.take():
        host.put(icmp_frame(icmpv4.ECHO_REPLY, rest=sent.icmp.rest, body=bytes(sent.icmp.body)))
    assert ping.replies == REMEMBERED


def test_identifiers_in_use_are_passed_over() -> None:
    host = make()
    echoes = host.stack.icmp.echoes
    first = echoes.open(PEER, b"", 0, is_group=False)
    for _ in range(0xFFFF):
        echoes.open(PEER, b"", 0, is_group=False).close()
    assert echoes.open(PEER, b"", 0, is_group=False).identifier == first.identifier + 1 & 0xFFFF


def test_each_path_mtu_has_its_own_deadline() -> None:
    host = Host("10.0.0.1/8")
    for second in (0.0, 100.0):
        host.at(second)
        host.stack.ip.lower_path_mtu(PEER if second else OTHER, 1000, host.now)
    host.at(600.0)
    assert host.stack.ip.path_mtu(OTHER) == 1500
    assert host.stack.ip.path_mtu(PEER) == 1000
    host.at(700.0)
    assert host.stack.ip.path_mtu(PEER) == 1500


def test_a_ping_that_is_too_big_for_the_path_is_cut_the_next_time() -> None:
    host = make()
    ping = host.stack.icmp.ping(PEER, host.now, payload=bytes(1400))
    host.put(quoting(host, 3, 4, 1000))
    assert ping.error == 0
    ping.send(host.now)
    assert len(host.take()) == 2
