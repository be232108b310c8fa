"""The kernel's UDP on loopback."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trio

from zttrio.errors import WireError
from zttrio.header.address import packed
from zttrio.wire.zerotier.interfaces import interface_addresses
from zttrio.wire.zerotier.sockets import SocketCounters, UdpSocket, open_udp_sockets
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.sender import Datagram

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

_IP_RECVTTL = 12  # ip(7); the socket module has no name for it
V4, V6 = packed("127.0.0.1"), packed("::1")


@pytest.fixture(params=[V4, V6], ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[UdpSocket, UdpSocket]]:
    made = [open_udp_sockets([request.param], 0, SocketCounters())[0] for _ in range(2)]
    yield made[0], made[1]
    for sock in made:
        sock.close()


def _to(sock: UdpSocket, data: bytes, ttl: int = 0) -> Datagram:
    return Datagram(0, Endpoint(sock.ip, sock.port), data, ttl)


async def _receive(sock: UdpSocket, count: int) -> list[tuple[Endpoint, bytes]]:
    found: list[tuple[Endpoint, bytes]] = []
    with trio.fail_after(5):
        while len(found) < count:
            await sock.wait_readable()
            found += sock.receive()
    return found


async def test_datagrams_arrive_whole_in_order_and_with_their_sender(
    pair: tuple[UdpSocket, UdpSocket],
) -> None:
    one, two = pair
    data = [bytes((n,)) * size for n, size in enumerate((0, 1, 1432, 1432, 1432, 700, 9000, 1432))]
    one.send([_to(two, d) for d in data])
    found = await _receive(two, len(data))
    assert [d for _, d in found] == data
    assert {remote for remote, _ in found} == {Endpoint(one.ip, one.port)}


async def test_a_burst_of_equal_datagrams_takes_few_system_calls(
    pair: tuple[UdpSocket, UdpSocket],
) -> None:
    one, two = pair
    data = [bytes((n,)) * 1400 for n in range(100)] + [b"last"]
    one.send([_to(two, d) for d in data])
    assert [d for _, d in await _receive(two, len(data))] == data
    if one._counters.send_bursts:  # a kernel with UDP_SEGMENT
        assert one._counters.send_calls <= 4
        assert two._counters.receive_calls <= 10


async def test_without_offload_the_same_datagrams_arrive(
    pair: tuple[UdpSocket, UdpSocket],
) -> None:
    one, two = pair
    one._may_burst = False
    data = [bytes((n,)) * 1400 for n in range(50)]
    one.send([_to(two, d) for d in data])
    assert one._counters.send_calls == 50
    assert [d for _, d in await _receive(two, len(data))] == data


async def test_a_burst_for_several_destinations_reaches_each(
    pair: tuple[UdpSocket, UdpSocket],
) -> None:
    one, two = pair
    [three] = open_udp_sockets([one.ip], 0, SocketCounters())
    try:
        one.send([_to((two, three)[n % 2], bytes((n,)) * 100) for n in range(20)])
        assert [d[0] for _, d in await _receive(two, 10)] == list(range(0, 20, 2))
        assert [d[0] for _, d in await _receive(three, 10)] == list(range(1, 20, 2))
    finally:
        three.close()


async def test_the_hop_limit_of_a_datagram_is_the_one_asked_for(
    pair: tuple[UdpSocket, UdpSocket],
) -> None:
    one, two = pair
    sock = two._sock
    if two.length == 4:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        level, kind = socket.IPPROTO_IP, socket.IP_TTL
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        level, kind = socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT
    limits = []
    for datagram in (_to(two, b"junk", 2), _to(two, b"real")):
        one.send([datagram])
        await two.wait_readable()
        _, ancillary, _, _ = sock.recvmsg(100, 100)
        limits += [struct.unpack("=i", d)[0] for lv, k, d in ancillary if (lv, k) == (level, kind)]
    assert limits[0] == 2
    assert limits[1] > 2


def test_what_cannot_be_reached_is_counted_and_the_rest_is_sent() -> None:
    counters = SocketCounters()
    [sock] = open_udp_sockets([V4], 0, counters)
    try:
        nowhere = Datagram(0, Endpoint(packed("255.255.255.255"), 9), b"x")
        sock.send([nowhere, nowhere, _to(sock, b"here")])
        assert counters.send_unreachable == 2
        assert [d for _, d in sock.receive()] == [b"here"]
    finally:
        sock.close()


def _waits(sock: UdpSocket) -> bool:
    return sock.has_backlog


class _Full(socket.socket):
    """A socket whose buffer is full until it is told otherwise."""

    is_full = True

    def sendto(self, *args: Any) -> int:
        if self.is_full:
            raise BlockingIOError(errno.EAGAIN, "full")
        return int(super().sendto(*args))


def test_datagrams_for_a_full_socket_wait_in_bounded_space_and_keep_their_order() -> None:
    raw = _Full(socket.AF_INET, socket.SOCK_DGRAM)
    raw.setblocking(False)
    raw.bind(("127.0.0.1", 0))
    counters = SocketCounters()
    sock = UdpSocket(raw, counters)
    sock._may_burst = False
    try:
        for number in range(1030):
            sock.send([_to(sock, number.to_bytes(2, "big"))])
        assert _waits(sock)
        assert counters.send_blocked == 1
        assert counters.backlog_dropped == 6
        raw.is_full = False
        sock.send_backlog()
        assert not _waits(sock)
        found: list[tuple[Endpoint, bytes]] = []
        while batch := sock.receive():
            found += batch
        assert [int.from_bytes(d, "big") for _, d in found] == list(range(6, 1030))
    finally:
        sock.close()


def test_all_sockets_of_a_node_have_one_port() -> None:
    sockets = open_udp_sockets([V4, V6], 0, SocketCounters())
    try:
        assert len({sock.port for sock in sockets}) == 1
        assert 20_000 <= sockets[0].port < 65_500
        assert [sock.length for sock in sockets] == [4, 16]
    finally:
        for sock in sockets:
            sock.close()


def test_a_port_that_is_taken_is_an_error_and_nothing_stays_open() -> None:
    [taken] = open_udp_sockets([V6], 0, SocketCounters())
    try:
        with pytest.raises(WireError, match=f"UDP ::1 port {taken.port}: Address already in use"):
            open_udp_sockets([V4, V6], taken.port, SocketCounters())
        [free] = open_udp_sockets([V4], taken.port, SocketCounters())
        free.close()
    finally:
        taken.close()


def test_an_address_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(WireError, match=r"UDP 203\.0\.113\.1 port 9: "):
        open_udp_sockets([packed("203.0.113.1")], 9, SocketCounters())


def test_a_closed_socket_is_an_error() -> None:
    [sock] = open_udp_sockets([V4], 0, SocketCounters())
    sock.close()
    with pytest.raises(WireError, match="Bad file descriptor"):
        sock.receive()


def test_interfaces_have_addresses_of_ours_and_none_of_loopback() -> None:
    found = interface_addresses()
    assert len(found) == len(set(found))
    assert V4 not in found
    assert V6 not in found
    for ip in found:
        if len(ip) == 4:
            [sock] = open_udp_sockets([ip], 0, SocketCounters())  # only our own can be bound
            sock.close()
