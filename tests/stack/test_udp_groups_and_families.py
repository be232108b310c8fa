"""UDP over both families at once: multicast membership, dual-stack endpoints, their limits."""

from __future__ import annotations

import errno
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from zttrio.header.address import (
    IPV4_UNSPECIFIED,
    IPV6_UNSPECIFIED,
    multicast_mac,
    packed,
)
from zttrio.header.ipv4 import PROTOCOL_UDP
from zttrio.stack.datagram import MEMBERSHIP_LIMIT

from .ipv6_host import PEER6, UNSPECIFIED, US6, Host6, apart, frame6, packet6, udp_content6
from .ipv6_host import udp_frame6 as unicast6
from .stack_host import PEER, PEER_MAC, US, Host, udp_frame

if TYPE_CHECKING:
    from zttrio.stack.udp import UdpEndpoint

GROUP4 = packed("239.1.2.3")
GROUP6 = packed("ff05::1234")
LOOPBACK4 = packed("127.0.0.1")
LOOPBACK6 = packed("::1")


def make() -> Host6:
    host = Host6()
    host.stack.add_address(ip_interface("10.0.0.1/24"), host.now)
    host.meet()
    host.meet6()
    return host


def opened(host: Host, address: bytes | None = None, port: int = 5000) -> UdpEndpoint:
    endpoint = host.stack.udp.open()
    endpoint.bind(address, port, reuse_address=True)
    return endpoint


def drain(endpoint: UdpEndpoint) -> list[bytes]:
    found = []
    while (datagram := endpoint.receive()) is not None:
        found.append(datagram.data)
    return found


def to_group(group: bytes, data: bytes = b"data") -> bytes:
    if len(group) == 4:
        return udp_frame(data, destination=group, destination_mac=multicast_mac(group))
    return frame6(packet6(udp_content6(data, destination=group), PROTOCOL_UDP, destination=group))


# membership


@pytest.mark.parametrize("group", [GROUP4, GROUP6])
def test_what_is_sent_to_a_group_arrives_while_somebody_is_a_member(group: bytes) -> None:
    host = make()
    endpoint = opened(host)
    host.put(to_group(group))
    assert drain(endpoint) == []
    endpoint.join_group(group)
    host.put(to_group(group, b"one"))
    datagram = endpoint.receive()
    assert datagram is not None
    assert (datagram.data, datagram.destination) == (b"one", (group, 5000))
    endpoint.leave_group(group)
    host.put(to_group(group, b"two"))
    assert drain(endpoint) == []
    assert host.counters.frame_not_for_us == 2
    host.check_books()


@pytest.mark.parametrize("group", [GROUP4, GROUP6])
def test_every_endpoint_on_the_port_hears_the_group(group: bytes) -> None:
    host = make()
    first, second, exact = opened(host), opened(host), opened(host, group)
    unicast = opened(host, US if len(group) == 4 else US6)
    other_port = opened(host, port=5001)
    first.join_group(group)
    host.put(to_group(group))
    assert [drain(endpoint) for endpoint in (first, second, exact)] == [[b"data"]] * 3
    assert drain(unicast) == drain(other_port) == []


def test_closing_leaves_the_groups() -> None:
    host = make()
    one, other = opened(host), opened(host)
    for endpoint in (one, other):
        endpoint.join_group(GROUP4)
    one.close()
    assert GROUP4 in host.stack.groups
    other.close()
    assert GROUP4 not in host.stack.groups


def test_refusals_of_membership_have_their_errno() -> None:
    host = make()
    endpoint = opened(host)
    endpoint.join_group(GROUP4)
    for call, argument, code in (
        (endpoint.join_group, GROUP4, errno.EADDRINUSE),
        (endpoint.join_group, PEER, errno.EINVAL),
        (endpoint.leave_group, GROUP6, errno.EADDRNOTAVAIL),
    ):
        with pytest.raises(OSError, match="group") as caught:
            call(argument)
        assert caught.value.errno == code
    for number in range(MEMBERSHIP_LIMIT - 1):
        endpoint.join_group(GROUP4[:3] + bytes([number + 100]))
    with pytest.raises(OSError, match="20 are joined") as caught:
        endpoint.join_group(GROUP6)
    assert caught.value.errno == errno.ENOBUFS
    endpoint.close()
    with pytest.raises(OSError, match="closed"):
        endpoint.join_group(GROUP4)


@pytest.mark.parametrize("group", [GROUP4, GROUP6])
def test_our_own_members_hear_us_unless_we_do_not_want_it(group: bytes) -> None:
    host = make()
    member = opened(host)
    member.join_group(group)
    host.at(host.now + 5)
    sender = host.stack.udp.open()
    sender.send(b"looped", (group, 5000), host.now)
    assert len(host.take()) == 1
    assert drain(member) == [b"looped"]
    sender.multicast_loop = False
    sender.send(b"alone", (group, 5000), host.now)
    assert len(host.take()) == 1
    assert drain(member) == []
    sender.multicast_loop = True
    sender.multicast_hop_limit = 0
    sender.send(b"inside", (group, 5000), host.now)
    assert host.take() == []
    assert drain(member) == [b"inside"]
    host.check_books()


def test_an_ipv6_multicast_goes_no_further_than_asked() -> None:
    host = make()
    sender = host.stack.udp.open()
    sender.send(b"", (GROUP6, 9), host.now)
    sender.multicast_hop_limit = 5
    sender.send(b"", (GROUP6, 9), host.now)
    sender.multicast_hop_limit = -1
    sender.send(b"", (GROUP6, 9), host.now)
    sent = host.take6()
    assert [packet.header.hop_limit for packet in sent] == [1, 5, 1]
    assert {packet.destination_mac for packet in sent} == {multicast_mac(GROUP6)}
    assert sent[0].header.source == US6


def test_a_link_local_group_is_spoken_to_from_a_link_local_address() -> None:
    host = make()
    host.stack.udp.open().send(b"", (packed("ff02::fb"), 5353), host.now)
    (sent,) = host.take6()
    assert sent.header.source == host.link_local


# both families


def test_one_endpoint_serves_both_families() -> None:
    host = make()
    endpoint = opened(host)
    host.put(udp_frame(b"four"), unicast6(b"six"))
    sources = []
    while (datagram := endpoint.receive()) is not None:
        sources.append(datagram.source)
        endpoint.send(datagram.data, datagram.source, host.now)
    assert sources == [(PEER, 4000), (PEER6, 4000)]
    four, six = host.take()
    assert four.ip.destination == PEER
    assert apart(six).header.destination == PEER6


@pytest.mark.parametrize(
    ("address", "hears"),
    [
        (None, [b"four", b"six"]),
        (IPV4_UNSPECIFIED, [b"four"]),
        (IPV6_UNSPECIFIED, [b"six"]),
        (US, [b"four"]),
        (US6, [b"six"]),
    ],
)
def test_an_endpoint_hears_what_its_address_covers(
    address: bytes | None, hears: list[bytes]
) -> None:
    host = make()
    endpoint = opened(host, address)
    host.put(udp_frame(b"four"), unicast6(b"six"))
    assert drain(endpoint) == hears
    assert host.counters.udp_no_port == 2 - len(hears)


def test_the_wildcards_of_the_families_do_not_conflict_but_the_one_of_both_does() -> None:
    host = make()
    for address in (IPV4_UNSPECIFIED, IPV6_UNSPECIFIED):
        host.stack.udp.open().bind(address, 6000)
    with pytest.raises(OSError, match="taken by a UDP socket"):
        host.stack.udp.open().bind(None, 6000)


@pytest.mark.parametrize(
    ("unspecified", "loopback"), [(IPV4_UNSPECIFIED, LOOPBACK4), (IPV6_UNSPECIFIED, LOOPBACK6)]
)
def test_connecting_to_nobody_in_particular_is_this_host(
    unspecified: bytes, loopback: bytes
) -> None:
    host = make()
    server = opened(host)
    client = host.stack.udp.open()
    client.connect((unspecified, 5000), host.now)
    assert client.remote == (loopback, 5000)
    assert client.local[0] == loopback
    client.send(b"data", None, host.now)
    host.take()
    assert drain(server) == [b"data"]


@pytest.mark.parametrize("address", [US6, LOOPBACK6])
def test_ipv6_works_within_the_host(address: bytes) -> None:
    host = make()
    server = opened(host, address)
    client = host.stack.udp.open()
    client.send(bytes(65_527), (address, 5000), host.now)
    assert host.take() == []
    assert drain(server) == [bytes(65_527)]
    with pytest.raises(OSError, match="at most 65527 fit") as caught:
        client.send(bytes(65_528), (address, 5000), host.now)
    assert caught.value.errno == errno.EMSGSIZE
    host.check_books()


def test_two_stacks_talk_over_ipv6() -> None:
    host = make()
    other = Host6("fd00::2/64", mac=PEER_MAC)
    other.meet6(US6, host.stack.mac)
    server = opened(other)
    client = host.stack.udp.open()
    client.connect((PEER6, 5000), host.now)
    for number in range(20):
        client.send(bytes([number]) * number * 500, None, host.now)
    other.put(*(packet.frame for packet in host.take()))
    while (datagram := server.receive()) is not None:
        server.send(datagram.data, datagram.source, other.now)
    host.put(*(packet.frame for packet in other.take()))
    assert drain(client) == [bytes([number]) * number * 500 for number in range(20)]
    assert UNSPECIFIED not in {client.local[0], server.local[0]}
    host.check_books()
    other.check_books()
