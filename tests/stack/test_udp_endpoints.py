"""UDP endpoints behave as programs know it from Linux."""

from __future__ import annotations

import errno
from ipaddress import ip_interface

import pytest

from zttrio.config import Config
from zttrio.header.address import BROADCAST_MAC, IPV4_UNSPECIFIED, IPV6_UNSPECIFIED, packed
from zttrio.header.checksum import transport_checksum
from zttrio.header.frame import Frame
from zttrio.header.ipv4 import PROTOCOL_UDP
from zttrio.stack import events
from zttrio.stack.ip import OUTBOX_LIMIT
from zttrio.stack.packet import PathError
from zttrio.stack.udp import OVERHEAD, Control, Datagram, UdpEndpoint

from .stack_host import (
    BROADCAST,
    OTHER,
    PEER,
    PEER_MAC,
    US,
    Host,
    arp_frame,
    ethernet,
    ip_packet,
    udp_content,
    udp_frame,
)

SECOND = packed("10.0.0.200")
LOOPBACK = packed("127.0.0.1")


def make(config: Config | None = None) -> Host:
    host = Host("10.0.0.1/24", "10.0.0.200/24", config=config)
    host.meet()
    return host


def opened(
    host: Host,
    address: bytes | None = None,
    port: int = 5000,
    *,
    remote: tuple[bytes, int] | None = None,
    reuse_address: bool = False,
    reuse_port: bool = False,
) -> UdpEndpoint:
    endpoint = host.stack.udp.open()
    endpoint.bind(address, port, reuse_address=reuse_address, reuse_port=reuse_port)
    if remote is not None:
        endpoint.connect(remote, host.now)
    return endpoint


def drain(endpoint: UdpEndpoint) -> list[bytes]:
    found = []
    while (datagram := endpoint.receive()) is not None:
        found.append(datagram.data)
    return found


def code(host: Host, endpoint: UdpEndpoint, data: bytes, remote: tuple[bytes, int] | None) -> int:
    """The errno of sending."""
    with pytest.raises(OSError, match=r"^\[Errno \d+\] ") as caught:
        endpoint.send(data, remote, host.now)
    assert host.take() == []
    assert caught.value.errno is not None
    return caught.value.errno


# receiving


def test_a_datagram_comes_with_all_that_is_known_about_it() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.wanted = events.RD
    packet = ip_packet(udp_content(b"data"), PROTOCOL_UDP, ttl=9, traffic_class=0xB8)
    host.put(ethernet(packet))
    assert host.stack.events.take() == [endpoint]
    assert endpoint.is_readable
    expected = Datagram(b"data", (PEER, 4000), (US, 5000), 9, 0xB8)
    assert endpoint.peek() == expected
    assert endpoint.receive() == expected
    assert drain(endpoint) == []
    assert endpoint.peek() is None
    assert endpoint.receive_queue == 0
    host.check_books()
    assert not endpoint.is_readable


def test_a_datagram_of_no_octets_is_one() -> None:
    host = make()
    endpoint = opened(host)
    host.put(udp_frame(b""))
    assert drain(endpoint) == [b""]


def test_a_missing_checksum_is_allowed_and_a_wrong_one_is_not() -> None:
    host = make()
    endpoint = opened(host)
    content = udp_content(b"data")
    host.put(ethernet(ip_packet(content[:6] + b"\0\0" + content[8:], PROTOCOL_UDP)))
    assert drain(endpoint) == [b"data"]
    host.put(ethernet(ip_packet(content[:6] + b"\0\1" + content[8:], PROTOCOL_UDP)))
    assert drain(endpoint) == []
    assert host.counters.udp_bad_checksum == 1
    host.check_books()


@pytest.mark.parametrize("length", [0, 7, 13, 65535])
def test_a_length_that_cannot_be_is_malformed(length: int) -> None:
    host = make()
    opened(host)
    content = udp_content(b"data")
    host.put(ethernet(ip_packet(content[:4] + length.to_bytes(2) + content[6:], PROTOCOL_UDP)))
    assert host.counters.udp_malformed == 1
    assert host.take() == []
    host.check_books()


def test_a_truncated_header_is_malformed() -> None:
    host = make()
    host.put(ethernet(ip_packet(udp_content(b"data")[:7], PROTOCOL_UDP)))
    assert host.counters.udp_malformed == 1
    host.check_books()


def test_octets_behind_the_udp_length_are_not_data() -> None:
    host = make()
    endpoint = opened(host)
    host.put(ethernet(ip_packet(udp_content(b"data") + b"trailer", PROTOCOL_UDP)))
    assert drain(endpoint) == [b"data"]


def test_the_closest_endpoint_gets_it() -> None:
    host = make()
    connected = opened(host, US, remote=(PEER, 4000), reuse_address=True)
    bound = opened(host, US, reuse_address=True)
    wildcard = opened(host, reuse_address=True)
    host.put(udp_frame(b"peer"))
    host.put(udp_frame(b"port", 4001))
    host.put(udp_frame(b"other", source=OTHER))
    host.put(udp_frame(b"second", destination=SECOND))
    assert drain(connected) == [b"peer"]
    assert drain(bound) == [b"port", b"other"]
    assert drain(wildcard) == [b"second"]
    connected.close()
    host.put(udp_frame(b"again"))
    assert drain(bound) == [b"again"]


def test_a_connected_endpoint_hears_its_peer_only() -> None:
    host = make()
    endpoint = opened(host, remote=(PEER, 4000))
    host.put(udp_frame(b"peer"), udp_frame(b"stranger", 4001), udp_frame(b"other", source=OTHER))
    assert drain(endpoint) == [b"peer"]
    assert host.counters.udp_no_port == 2
    endpoint.connect(None, host.now)
    host.put(udp_frame(b"stranger", 4001))
    assert drain(endpoint) == [b"stranger"]
    assert endpoint.remote is None
    assert endpoint.local == (None, 5000)


def test_with_reuse_address_the_last_one_gets_it() -> None:
    host = make()
    first = opened(host, reuse_address=True)
    second = opened(host, reuse_address=True)
    host.put(udp_frame(b"data"))
    assert (drain(first), drain(second)) == ([], [b"data"])


def test_with_reuse_port_senders_are_spread_and_each_stays_where_it_is() -> None:
    host = make()
    endpoints = [opened(host, reuse_port=True) for _ in range(4)]
    for port in range(4000, 4100):
        host.put(udp_frame(b"a", port), udp_frame(b"b", port))
    shares = [drain(endpoint) for endpoint in endpoints]
    assert sorted(map(len, shares)) == [50, 50, 50, 50]
    assert all(share[::2] == [b"a"] * 25 for share in shares)


def test_a_broadcast_reaches_every_endpoint_that_accepts_it() -> None:
    host = make()
    wildcard = opened(host, reuse_address=True)
    any_v4 = opened(host, IPV4_UNSPECIFIED, reuse_address=True)
    exact = opened(host, BROADCAST, reuse_address=True)
    unicast = opened(host, US, reuse_address=True)
    peer_only = opened(host, remote=(PEER, 4000), reuse_address=True)
    other_only = opened(host, remote=(OTHER, 4000), reuse_address=True)
    host.put(udp_frame(b"all", destination=BROADCAST, destination_mac=BROADCAST_MAC))
    for endpoint in (wildcard, any_v4, exact, peer_only):
        assert drain(endpoint) == [b"all"]
    for endpoint in (unicast, other_only):
        assert drain(endpoint) == []
    host.put(udp_frame(b"all", 1, 2, destination=BROADCAST, destination_mac=BROADCAST_MAC))
    assert host.counters.udp_group_not_wanted == 1
    assert host.take() == []
    host.check_books()


def test_a_program_that_does_not_read_loses_the_newest_and_memory_stays_bounded() -> None:
    host = make(Config(udp_receive_buffer=10 * (100 + OVERHEAD)))
    endpoint = opened(host)
    for number in range(15):
        host.put(udp_frame(bytes([number]) * 100))
    assert endpoint.receive_queue == 10 * (100 + OVERHEAD)
    assert host.counters.udp_queue_full == 5
    assert [data[0] for data in drain(endpoint)] == list(range(10))
    for _ in range(1000):
        host.put(udp_frame(b""))
    assert endpoint.receive_queue <= endpoint.receive_buffer
    host.check_books()


def test_one_long_datagram_fits_the_smallest_buffer() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.receive_buffer = 10
    host.put(udp_frame(bytes(1000)), udp_frame(b"no"))
    assert drain(endpoint) == [bytes(1000)]


# sending


def test_sending_binds_to_a_free_port_and_the_right_source() -> None:
    host = make()
    endpoint = host.stack.udp.open()
    assert endpoint.send(b"data", (PEER, 9), host.now) == 4
    address, port = endpoint.local
    assert address is None
    assert 32768 <= port <= 60999
    (sent,) = host.take()
    assert (sent.ip.source, sent.ip.destination) == (US, PEER)
    assert sent.ip.dont_fragment
    assert sent.content[:8] == port.to_bytes(2) + b"\0\x09\0\x0c" + sent.content[6:8]
    assert transport_checksum(US, PEER, PROTOCOL_UDP, sent.content) == 0
    assert list(host.stack.udp.endpoints()) == [endpoint]


def test_a_bound_address_is_the_source() -> None:
    host = make()
    opened(host, SECOND).send(b"data", (PEER, 9), host.now)
    (sent,) = host.take()
    assert sent.ip.source == SECOND


def test_a_zero_checksum_is_sent_as_ones() -> None:
    host = make()
    endpoint = opened(host)
    header = bytes.fromhex("13880009000a0000")
    # the data that makes the sum come out as all ones is the checksum without it
    data = transport_checksum(US, PEER, PROTOCOL_UDP, header, b"\0\0").to_bytes(2)
    assert transport_checksum(US, PEER, PROTOCOL_UDP, header, data) == 0
    endpoint.send(data, (PEER, 9), host.now)
    (sent,) = host.take()
    assert sent.content[6:8] == b"\xff\xff"


@pytest.mark.parametrize("data", [bytearray(b"data"), memoryview(b"data")])
def test_what_may_change_is_copied(data: bytearray | memoryview) -> None:
    host = make()
    opened(host).send(data, (PEER, 9), host.now)
    if isinstance(data, bytearray):
        data[:] = b"gone"
    (sent,) = host.take()
    assert sent.content[8:] == b"data"


def test_a_datagram_longer_than_the_path_travels_in_fragments() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.send(bytes(1472), (PEER, 9), host.now)
    assert len(host.take()) == 1
    endpoint.send(bytes(1473), (PEER, 9), host.now)
    assert len(host.take()) == 2
    endpoint.send(bytes(65_507), (PEER, 9), host.now)
    assert len(host.take()) == 45
    assert code(host, endpoint, bytes(65_508), (PEER, 9)) == errno.EMSGSIZE


def test_options_reach_the_header() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.hop_limit = 3
    endpoint.traffic_class = 0x10
    endpoint.send(b"", (PEER, 9), host.now)
    endpoint.hop_limit = -1  # what programs set for "the default again"
    endpoint.send(b"", (PEER, 9), host.now)
    first, second = host.take()
    assert (first.ip.ttl, first.ip.traffic_class) == (3, 0x10)
    assert second.ip.ttl == 64


def test_every_refusal_has_its_errno() -> None:
    host = make()
    endpoint = opened(host)
    assert code(host, endpoint, b"", None) == errno.EDESTADDRREQ
    assert code(host, endpoint, b"", (PEER, 0)) == errno.EINVAL
    assert code(host, endpoint, b"", (BROADCAST, 9)) == errno.EACCES
    assert code(host, endpoint, b"", (packed("192.0.2.1"), 9)) == errno.ENETUNREACH
    assert code(host, endpoint, b"", (packed("fd00::1"), 9)) == errno.ENETUNREACH
    v6 = opened(host, IPV6_UNSPECIFIED, 5001)
    assert code(host, v6, b"", (PEER, 9)) == errno.ENETUNREACH
    loopback = opened(host, LOOPBACK, 5002)
    assert code(host, loopback, b"", (PEER, 9)) == errno.EINVAL
    second = opened(host, SECOND, 5003)
    host.stack.remove_address(ip_interface("10.0.0.200/24"), host.now)
    assert code(host, second, b"", (PEER, 9)) == errno.EADDRNOTAVAIL
    endpoint.shutdown_write()
    assert code(host, endpoint, b"", (PEER, 9)) == errno.EPIPE


def test_broadcasting_needs_permission() -> None:
    host = make()
    endpoint = opened(host)
    with pytest.raises(OSError, match="SO_BROADCAST"):
        endpoint.connect((BROADCAST, 9), host.now)
    endpoint.may_broadcast = True
    endpoint.connect((BROADCAST, 9), host.now)
    endpoint.send(b"all", None, host.now)
    (sent,) = host.take()
    assert sent.destination_mac == BROADCAST_MAC
    assert sent.ip.ttl == 64


def test_a_multicast_goes_no_further_than_asked() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.hop_limit = 9
    endpoint.send(b"", (packed("239.1.2.3"), 9), host.now)
    endpoint.multicast_hop_limit = 5
    endpoint.send(b"", (packed("239.1.2.3"), 9), host.now)
    assert [sent.ip.ttl for sent in host.take()] == [1, 5]


def test_sending_to_nobody_in_particular_reaches_this_host() -> None:
    host = make()
    endpoint = opened(host)
    sender = host.stack.udp.open()
    sender.send(b"data", (IPV4_UNSPECIFIED, 5000), host.now)
    host.take()
    assert drain(endpoint) == [b"data"]


def test_a_full_wire_blocks_the_sender_until_half_is_gone() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.wanted = events.WR
    for _ in range(OUTBOX_LIMIT // 2):
        endpoint.send(b"x", (PEER, 9), host.now)
    with pytest.raises(BlockingIOError, match="the wire is full"):
        endpoint.send(b"x", (PEER, 9), host.now)
    endpoint.send(b"x", (US, 9), host.now)  # this host is not behind the wire
    assert host.stack.events.take() == []
    host.take(1)
    assert host.stack.events.take() == [endpoint]
    assert endpoint.ready == events.WR
    endpoint.send(b"x", (PEER, 9), host.now)
    assert host.counters.frames_out_full == 0


# errors


def refused(host: Host) -> None:
    """The peer answers what we have just sent with port unreachable."""
    (sent,) = host.take()
    other = Host("10.0.0.2/24", mac=PEER_MAC)
    other.meet(US, host.stack.mac)
    other.put(sent.frame)
    host.put(*(answer.frame for answer in other.take()))


def test_a_connected_endpoint_learns_that_it_was_refused_once() -> None:
    host = make()
    endpoint = opened(host, remote=(PEER, 9))
    endpoint.wanted = events.RD
    endpoint.send(b"data", None, host.now)
    refused(host)
    assert host.stack.events.take() == [endpoint]
    assert endpoint.is_readable
    with pytest.raises(ConnectionRefusedError, match=r"to 10\.0\.0\.2:9 was refused"):
        endpoint.receive()
    assert endpoint.receive() is None
    endpoint.send(b"data", None, host.now)
    refused(host)
    with pytest.raises(ConnectionRefusedError):
        endpoint.send(b"data", None, host.now)
    endpoint.send(b"data", None, host.now)
    refused(host)
    assert endpoint.take_error() == errno.ECONNREFUSED
    assert endpoint.take_error() == 0


def test_an_endpoint_that_is_not_connected_does_not() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.send(b"data", (PEER, 9), host.now)
    refused(host)
    assert endpoint.receive() is None
    assert host.counters.icmp_errors_in == 1


def test_a_neighbor_that_does_not_answer_is_a_soft_error() -> None:
    host = make()
    endpoint = opened(host, remote=(OTHER, 9))
    endpoint.send(b"data", None, host.now)
    host.at(5.0)
    assert endpoint.error == 0  # as on Linux
    assert host.counters.neighbor_packets_lost == 1


def test_refusal_works_on_loopback_too() -> None:
    host = make()
    endpoint = host.stack.udp.open()
    endpoint.connect((LOOPBACK, 9), host.now)
    assert endpoint.local[0] == LOOPBACK
    endpoint.send(b"data", None, host.now)
    host.take()
    assert endpoint.error == errno.ECONNREFUSED


# life


def test_binding_follows_the_rules() -> None:
    host = make()
    endpoint = opened(host, US)
    with pytest.raises(OSError, match="already bound to udp") as caught:
        endpoint.bind(US, 1)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError, match=r"10\.0\.0\.2 is not our address") as caught:
        opened(host, PEER)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(OSError, match="taken by a UDP socket") as caught:
        opened(host)
    assert caught.value.errno == errno.EADDRINUSE
    assert opened(host, packed("239.1.2.3"), 6000).local == (packed("239.1.2.3"), 6000)


def test_closing_gives_everything_back() -> None:
    host = make()
    endpoint = opened(host, remote=(PEER, 4000))
    host.put(udp_frame(b"data"))
    endpoint.close()
    endpoint.close()
    assert len(host.stack.ports) == 0
    assert list(host.stack.udp.endpoints()) == []
    assert endpoint.receive_queue == 0
    host.put(udp_frame(b"data"))
    assert host.counters.udp_no_port == 1
    for call in (endpoint.receive, endpoint.peek):
        with pytest.raises(OSError, match="closed") as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_after_shutdown_of_reading_what_waits_can_still_be_read() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.wanted = events.RD
    host.put(udp_frame(b"data"))
    endpoint.shutdown_read()
    states = [endpoint.is_at_end]
    assert drain(endpoint) == [b"data"]
    states.append(endpoint.is_at_end)
    assert states == [False, True]
    assert endpoint.is_readable


def test_two_stacks_talk() -> None:
    host = make()
    other = Host("10.0.0.2/24", mac=PEER_MAC)
    server = opened(other)
    client = host.stack.udp.open()
    client.connect((PEER, 5000), host.now)
    for number in range(20):
        client.send(bytes([number]) * number * 500, None, host.now)
    other.put(*(packet.frame for packet in host.take()))
    while (datagram := server.receive()) is not None:
        server.send(datagram.data, datagram.source, other.now)
    host.put(*(packet.frame for packet in other.take()))
    other.put(*(packet.frame for packet in host.take()))
    host.put(*(packet.frame for packet in other.take()))
    assert drain(client) == [bytes([number]) * number * 500 for number in range(20)]
    host.check_books()
    other.check_books()


def test_a_learned_address_is_used_for_the_answer() -> None:
    host = make()
    host.put(arp_frame(1, PEER_MAC, PEER, bytes(6), US))
    host.take()
    endpoint = opened(host)
    endpoint.send(b"data", (PEER, 9), host.now)
    assert host.take()[0].destination_mac == PEER_MAC


def test_an_error_without_ports_belongs_to_nobody() -> None:
    host = make()
    endpoint = opened(host, remote=(PEER, 9))
    error = PathError(US, PEER, PROTOCOL_UDP, b"\0\0\0", errno.ECONNREFUSED, is_hard=True)
    host.stack.udp.receive_error(error, host.now)
    assert endpoint.error == 0
    assert host.counters.udp_errors_unmatched == 1


def test_two_endpoints_may_be_connected_to_the_same_peer() -> None:
    host = make()
    first = opened(host, remote=(PEER, 4000), reuse_address=True)
    second = opened(host, remote=(PEER, 4000), reuse_address=True)
    host.put(udp_frame(b"one"))
    assert (drain(first), drain(second)) == ([], [b"one"])
    second.close()
    host.put(udp_frame(b"two"))
    assert drain(first) == [b"two"]


def test_closing_before_binding_is_fine() -> None:
    host = make()
    endpoint = host.stack.udp.open()
    endpoint.close()
    assert endpoint.is_closed


def test_a_datagram_in_two_pieces_may_be_shorter_than_its_packet() -> None:
    host = make()
    endpoint = opened(host)
    frame = ethernet(ip_packet(udp_content(b"data") + b"trailer", PROTOCOL_UDP))
    host.put(Frame(frame[:44], frame[44:]))
    assert drain(endpoint) == [b"data"]


def test_one_datagram_may_differ_from_the_others() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.send(b"", (PEER, 9), host.now, Control(SECOND, 9, 0x10))
    endpoint.send(b"", (PEER, 9), host.now, Control())
    first, second = host.take()
    assert (first.ip.source, first.ip.ttl, first.ip.traffic_class) == (SECOND, 9, 0x10)
    assert (second.ip.source, second.ip.ttl, second.ip.traffic_class) == (US, 64, 0)
    for source in (PEER, packed("::1")):
        with pytest.raises(OSError, match="is not our address") as caught:
            endpoint.send(b"", (PEER, 9), host.now, Control(source))
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("address", [None, IPV4_UNSPECIFIED])
def test_groups_may_have_a_source_of_their_own(address: bytes | None) -> None:
    host = make()
    endpoint = opened(host, address)
    endpoint.multicast_source = SECOND
    endpoint.send(b"", (packed("239.1.2.3"), 9), host.now)
    endpoint.send(b"", (PEER, 9), host.now)
    assert [sent.ip.source for sent in host.take()] == [SECOND, US]
    host.stack.remove_address(ip_interface("10.0.0.200/24"), host.now)
    endpoint.send(b"", (packed("239.1.2.3"), 9), host.now)
    assert [sent.ip.source for sent in host.take()] == [US]
