"""UDP sockets of programs: one message on the pair for each datagram."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.tap import rpc

from .conftest import ADDRESS, App, sockaddr, until

if TYPE_CHECKING:
    from .conftest import Client, Tap

NOWHERE = "203.0.113.1"


async def datagram(client: Client) -> tuple[App, int]:
    app = await client.socket(socket.SOCK_DGRAM)
    return app, await app.bind()


def send(app: App, data: bytes, host: str = "", port: int = 0) -> None:
    peer = sockaddr(host, port) if host else b""
    app.end.send(rpc.DatagramHeader(peer).emit() + data)


async def receive(app: App) -> tuple[rpc.DatagramHeader, bytes]:
    message = await app.receive(70_000)
    return rpc.DatagramHeader.parse(message), message[rpc.DATAGRAM_LENGTH :]


async def test_a_datagram_arrives_with_its_sender_in_front(client: Client) -> None:
    one, port = await datagram(client)
    two, other = await datagram(client)
    send(one, b"hello", ADDRESS, other)
    header, data = await receive(two)
    assert data == b"hello"
    assert header.peer == sockaddr(ADDRESS, port)
    assert header.local == socket.inet_aton(ADDRESS)
    assert header.flags == 0
    assert header.ttl == 64


async def test_boundaries_and_empty_datagrams_survive(client: Client) -> None:
    one, _ = await datagram(client)
    two, port = await datagram(client)
    sent = [b"", b"a", b"", bytes(1400), bytes(65_507)]
    for data in sent:
        send(one, data, ADDRESS, port)
    assert [(await receive(two))[1] for _ in sent] == sent


async def test_a_connected_socket_hears_its_peer_only(client: Client) -> None:
    app, port = await datagram(client)
    peer, peer_port = await datagram(client)
    stranger, _ = await datagram(client)
    assert (await app.ask(rpc.OP_GETPEERNAME)).err == errno.ENOTCONN
    assert (await app.ask(rpc.OP_CONNECT, payload=sockaddr(ADDRESS, peer_port))).ret == 0
    assert (await app.ask(rpc.OP_GETPEERNAME)).payload == sockaddr(ADDRESS, peer_port)
    send(stranger, b"stranger", ADDRESS, port)
    send(app, b"to the peer")
    assert (await receive(peer))[1] == b"to the peer"
    send(peer, b"peer", ADDRESS, port)
    assert (await receive(app))[1] == b"peer"
    assert (await app.ask(rpc.OP_CONNECT, payload=bytes(16))).ret == 0
    send(stranger, b"welcome", ADDRESS, port)
    assert (await receive(app))[1] == b"welcome"


async def test_an_icmp_error_arrives_as_a_record_without_data(client: Client) -> None:
    gone, port = await datagram(client)
    gone.end.close()
    app, _ = await datagram(client)
    await app.ask(rpc.OP_CONNECT, payload=sockaddr(ADDRESS, port))
    with trio.fail_after(10):
        while (await client.ask(rpc.OP_QUERY, payload=struct.pack("Q", gone.cookie))).payload[0]:
            await trio.lowlevel.checkpoint()
    send(app, b"anybody?")
    header, data = await receive(app)
    assert header.flags == rpc.DATAGRAM_ERROR
    assert (header.time_ns, data) == (errno.ECONNREFUSED, b"")


async def test_what_a_program_wants_to_know_is_flagged_in_each_datagram(client: Client) -> None:
    one, _ = await datagram(client)
    two, port = await datagram(client)
    on = struct.pack("i", 1)
    for level, option in ((0, 8), (0, 12), (0, socket.IP_RECVTOS)):
        assert (await two.ask(rpc.OP_SETSOCKOPT, a=level, b=option, payload=on)).ret == 0
    tos = struct.pack("i", 0x20)
    assert (await one.ask(rpc.OP_SETSOCKOPT, a=0, b=socket.IP_TOS, payload=tos)).ret == 0
    send(one, b"x", ADDRESS, port)
    header, _ = await receive(two)
    assert header.flags == rpc.DATAGRAM_PKTINFO | rpc.DATAGRAM_TTL | rpc.DATAGRAM_TOS
    assert header.tos == 0x20
    assert header.ifindex == 2


async def test_errors_are_told_before_the_datagram_is_sent(tap: Tap, client: Client) -> None:
    app, _ = await datagram(client)
    answers = {
        sockaddr(NOWHERE, 9): errno.ENETUNREACH,
        sockaddr("10.7.0.255", 9): errno.EACCES,
        sockaddr(ADDRESS, 9): 0,
    }
    for address, error in answers.items():
        assert (await app.ask(rpc.OP_POLICY, payload=address)).err == error
    on = struct.pack("i", 1)
    await app.ask(rpc.OP_SETSOCKOPT, a=socket.SOL_SOCKET, b=socket.SO_BROADCAST, payload=on)
    assert (await app.ask(rpc.OP_POLICY, payload=sockaddr("10.7.0.255", 9))).ret == 0
    assert any("send to 203.0.113.1 port 9" in text for text in tap.said)


async def test_a_datagram_to_nowhere_is_counted_and_the_next_one_sent(
    tap: Tap, client: Client
) -> None:
    one, _ = await datagram(client)
    two, port = await datagram(client)
    send(one, b"lost", NOWHERE, 9)
    send(one, b"found", ADDRESS, port)
    assert (await receive(two))[1] == b"found"
    assert tap.service.broker.counters.datagrams_failed == 1


@pytest.mark.parametrize("message", [b"x", bytes(63), b"\0\0\xff\xff" + bytes(60)])
async def test_a_message_that_is_no_datagram_is_counted_and_dropped(
    tap: Tap, client: Client, message: bytes
) -> None:
    one, _ = await datagram(client)
    two, port = await datagram(client)
    one.end.send(message)
    send(one, b"good", ADDRESS, port)
    assert (await receive(two))[1] == b"good"
    assert tap.service.broker.counters.datagrams_malformed == 1


async def test_a_reader_that_stops_loses_the_newest_and_memory_stays_bounded(
    tap: Tap, client: Client
) -> None:
    one, _ = await datagram(client)
    two, port = await datagram(client)
    sent = 0
    while sent < 2000:
        try:
            send(one, b"%04d" % sent + bytes(1000), ADDRESS, port)
            sent += 1
        except BlockingIOError:
            await trio.lowlevel.checkpoint()
    counters = tap.network._driver.stack.counters
    await until(lambda: counters.udp_delivered + counters.udp_queue_full >= sent)
    assert counters.udp_queue_full > 1000
    received = []
    with trio.move_on_after(0.2):
        while True:
            received.append(int((await receive(two))[1][:4]))
    assert received == list(range(len(received)))
    assert 50 < len(received) < 700


async def test_two_sockets_may_share_a_port_if_both_say_so(client: Client) -> None:
    on = struct.pack("i", 1)
    apps = [await client.socket(socket.SOCK_DGRAM) for _ in range(2)]
    for app in apps:
        await app.ask(rpc.OP_SETSOCKOPT, a=socket.SOL_SOCKET, b=socket.SO_REUSEADDR, payload=on)
    port = await apps[0].bind()
    assert await apps[1].bind(port=port) == port


async def test_a_group_is_heard_after_joining_it(client: Client) -> None:
    sender, _ = await datagram(client)
    app = await client.socket(socket.SOCK_DGRAM)
    port = await app.bind("0.0.0.0")
    membership = socket.inet_aton("239.1.2.3") + bytes(4)
    join = {"a": 0, "b": 35, "payload": membership}  # IP_ADD_MEMBERSHIP
    assert (await app.ask(rpc.OP_SETSOCKOPT, **join)).ret == 0
    assert (await app.ask(rpc.OP_SETSOCKOPT, **join)).err == errno.EADDRINUSE
    send(sender, b"everybody", "239.1.2.3", port)
    header, data = await receive(app)
    assert data == b"everybody"
    assert header.flags & rpc.DATAGRAM_MULTICAST
    leave = {"a": 0, "b": 36, "payload": membership}  # IP_DROP_MEMBERSHIP
    assert (await app.ask(rpc.OP_SETSOCKOPT, **leave)).ret == 0
    assert (await app.ask(rpc.OP_SETSOCKOPT, **leave)).err == errno.EADDRNOTAVAIL
    bad = {"a": 0, "b": 35, "payload": socket.inet_aton(ADDRESS) + bytes(4)}
    assert (await app.ask(rpc.OP_SETSOCKOPT, **bad)).err == errno.EINVAL


async def test_datagram_sockets_do_not_listen(client: Client) -> None:
    app, _ = await datagram(client)
    assert (await app.ask(rpc.OP_LISTEN, a=1)).err == errno.EOPNOTSUPP


async def test_only_a_connected_socket_can_be_shut_down(client: Client) -> None:
    app, port = await datagram(client)
    assert (await app.ask(rpc.OP_SHUTDOWN, a=1)).err == errno.ENOTCONN
    await app.ask(rpc.OP_CONNECT, payload=sockaddr(ADDRESS, port))
    assert (await app.ask(rpc.OP_SHUTDOWN, a=1)).flags == rpc.ANSWER_NATIVE


async def test_closing_gives_the_port_back(tap: Tap, client: Client) -> None:
    app, port = await datagram(client)
    app.end.close()
    await until(lambda: not tap.service.broker.connections)
    other = await client.socket(socket.SOCK_DGRAM)
    assert await other.bind(port=port) == port


async def test_what_was_sent_before_close_goes_out(client: Client) -> None:
    one, _ = await datagram(client)
    two, port = await datagram(client)
    for number in range(20):
        send(one, b"%d" % number, ADDRESS, port)
    one.end.close()
    assert [int((await receive(two))[1]) for _ in range(20)] == list(range(20))
