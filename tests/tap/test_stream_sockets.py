"""TCP sockets of programs, asked for over the protocol and used as descriptors."""

from __future__ import annotations

import errno
import random
import select
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel

from zttrio.tap import broker, rpc

from .conftest import ADDRESS, App, connected, sockaddr

if TYPE_CHECKING:
    from .conftest import Client, Tap

NONBLOCK = rpc.REQUEST_NONBLOCK
EVENTS = select.POLLIN | select.POLLOUT | select.POLLERR | select.POLLHUP | select.POLLRDHUP


def mask(app: App) -> str:
    poll = select.poll()
    poll.register(app.end, EVENTS)
    events = poll.poll(0)
    return f"{events[0][1]:x}" if events else "0"


async def settle(app: App, wanted: str) -> None:
    with trio.fail_after(10):
        while mask(app) != wanted:
            await trio.lowlevel.checkpoint()


async def closed_port(client: Client) -> int:
    with await client.socket() as app:
        return await app.bind()


# opening


async def test_a_program_calls_another_and_both_are_told_their_names(client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen()
    caller = await client.socket()
    assert (await caller.connect(ADDRESS, port)).ret == 0
    accepted, record = await listener.accept()
    assert record.peer == sockaddr(*await caller.name())
    assert record.local == sockaddr(ADDRESS, port)
    assert await accepted.name() == (ADDRESS, port)
    assert (await accepted.ask(rpc.OP_GETPEERNAME)).payload == record.peer
    assert (await caller.ask(rpc.OP_GETPEERNAME)).payload == record.local
    await caller.send_all(b"question")
    assert await accepted.receive() == b"question"
    await accepted.send_all(b"answer")
    assert await caller.receive() == b"answer"


async def test_while_it_connects_a_socket_is_neither_readable_nor_writable(
    tap: Tap, client: Client
) -> None:
    nobody = "10.7.0.77"
    app = await client.socket()
    answer = await app.connect(nobody, 80, flags=NONBLOCK)
    assert (answer.ret, answer.err) == (-1, errno.EINPROGRESS)
    assert mask(app) == "0"
    assert (await app.connect(nobody, 80, flags=NONBLOCK)).err == errno.EALREADY
    assert (await app.ask(rpc.OP_GETPEERNAME)).err == errno.ENOTCONN
    app.end.close()
    with trio.fail_after(10):
        while tap.service.broker.connections:
            await trio.lowlevel.checkpoint()
    assert not list(tap.network._driver.stack.tcp.connections())


async def test_connect_says_success_once_after_einprogress(client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen()
    app = await client.socket()
    assert (await app.connect(ADDRESS, port, flags=NONBLOCK)).err == errno.EINPROGRESS
    await settle(app, "4")
    address = sockaddr(ADDRESS, port)
    answers = [await app.ask(rpc.OP_CONNECT, payload=address, flags=NONBLOCK) for _ in range(2)]
    assert [answer.err for answer in answers] == [0, errno.EISCONN]


async def test_a_refused_blocking_connect_may_be_tried_again(client: Client) -> None:
    app = await client.socket()
    answer = await app.connect(ADDRESS, await closed_port(client))
    assert (answer.ret, answer.err) == (-1, errno.ECONNREFUSED)
    assert mask(app) == "4"
    listener = await client.socket()
    port = await listener.listen()
    assert (await app.connect(ADDRESS, port)).ret == 0
    accepted, _ = await listener.accept()
    await app.send_all(b"second time")
    assert await accepted.receive() == b"second time"


async def test_a_bound_socket_keeps_its_port_through_a_refusal(client: Client) -> None:
    app = await client.socket()
    port = await app.bind()
    assert (await app.connect(ADDRESS, await closed_port(client))).err == errno.ECONNREFUSED
    assert await app.name() == (ADDRESS, port)
    listener = await client.socket()
    assert (await app.connect(ADDRESS, await listener.listen())).ret == 0
    assert (await app.name())[1] == port


async def test_a_refused_nonblocking_connect_shows_what_the_kernel_shows(client: Client) -> None:
    port = await closed_port(client)
    app = await client.socket()
    assert (await app.connect(ADDRESS, port, flags=NONBLOCK)).err == errno.EINPROGRESS
    await settle(app, "201d")
    room = struct.pack("I", 4)
    request = {"a": socket.SOL_SOCKET, "b": socket.SO_ERROR, "payload": room}
    errors = [(await app.ask(rpc.OP_GETSOCKOPT, **request)).payload for _ in range(2)]
    assert errors == [struct.pack("i", errno.ECONNREFUSED), bytes(4)]
    again = {"payload": sockaddr(ADDRESS, port), "flags": NONBLOCK}
    answer = await app.ask(rpc.OP_CONNECT, **again)
    assert answer.err == errno.ECONNABORTED  # SO_ERROR has told it already
    answer = await app.ask(rpc.OP_CONNECT, **again)
    assert answer.flags == rpc.ANSWER_REVIVE


async def test_a_dead_socket_gets_a_new_stand_in_with_its_options(client: Client) -> None:
    app = await client.socket()
    one = struct.pack("i", 1)
    level, option = socket.IPPROTO_TCP, socket.TCP_NODELAY
    assert (await app.ask(rpc.OP_SETSOCKOPT, a=level, b=option, payload=one)).ret == 0
    await app.connect(ADDRESS, await closed_port(client), flags=NONBLOCK)
    await settle(app, "201d")
    client.send(rpc.OP_REVIVE, sock=app.cookie)
    answer, number = await client.take()
    revived = client.adopt(number, answer.sock)
    assert revived.cookie != app.cookie
    room = struct.pack("I", 4)
    reading = await revived.ask(rpc.OP_GETSOCKOPT, a=level, b=option, payload=room)
    assert reading.payload == one
    listener = await client.socket()
    assert (await revived.connect(ADDRESS, await listener.listen())).ret == 0
    assert (await app.ask(rpc.OP_REVIVE)).err == errno.ENOTCONN  # the old one is forgotten


async def test_a_live_socket_is_not_revived(client: Client) -> None:
    app = await client.socket()
    assert (await app.ask(rpc.OP_REVIVE)).err == errno.EINVAL


async def test_a_caller_that_gives_up_does_not_end_the_attempt(tap: Tap, client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen(0)
    waiting = [await client.socket() for _ in range(2)]
    assert (await waiting[0].connect(ADDRESS, port)).ret == 0
    late = waiting[1]
    late.plug()
    seq = client.send(rpc.OP_CONNECT, sock=late.cookie, payload=sockaddr(ADDRESS, port))
    client.send(rpc.OP_CANCEL, a=seq)
    assert mask(late) == "0"
    first, _ = await listener.accept()
    first.end.close()
    await listener.accept()  # after the SYN was sent again
    await settle(late, "4")
    assert len(tap.service.broker.connections) >= 3


async def test_addresses_that_make_no_sense_are_refused_as_on_linux(client: Client) -> None:
    app = await client.socket()
    nowhere = sockaddr("203.0.113.1", 80)
    answers = {
        b"": errno.EINVAL,
        b"\2\0": errno.EINVAL,
        nowhere: errno.ENETUNREACH,
        sockaddr(ADDRESS, 0): errno.ECONNREFUSED,
        rpc.Sockaddr(bytes(16), 80).emit(): errno.EAFNOSUPPORT,
    }
    for address, error in answers.items():
        answer = await app.ask(rpc.OP_CONNECT, payload=address)
        assert (answer.ret, answer.err) == (-1, error), address
    assert (await app.ask(rpc.OP_BIND, payload=nowhere)).err == errno.EADDRNOTAVAIL
    assert (await app.ask(rpc.OP_BIND, payload=b"\2\0")).err == errno.EINVAL
    await app.bind()
    assert (await app.ask(rpc.OP_BIND, payload=sockaddr(ADDRESS, 0))).err == errno.EINVAL


async def test_what_the_network_does_not_carry_is_reported_once(tap: Tap, client: Client) -> None:
    app = await client.socket()
    for _ in range(3):
        await app.connect("203.0.113.1", 80)
    assert len(tap.said) == 1
    assert "connect to 203.0.113.1 port 80" in tap.said[0]
    assert tap.service.broker.counters.connects_blocked == 3


async def test_dissolving_an_association_asks_for_a_new_stand_in(client: Client) -> None:
    _, caller, accepted = await connected(client)
    unspecified = bytes(16)
    answer = await caller.ask(rpc.OP_CONNECT, payload=unspecified)
    assert (answer.ret, answer.flags) == (0, rpc.ANSWER_REVIVE)
    with pytest.raises(ConnectionResetError):
        await accepted.receive()
    fresh = await client.socket()
    assert (await fresh.ask(rpc.OP_CONNECT, payload=unspecified)).ret == 0


# listening


async def test_the_port_of_a_listener_is_taken(client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen()
    other = await client.socket()
    answer = await other.ask(rpc.OP_BIND, payload=sockaddr(ADDRESS, port))
    assert answer.err == errno.EADDRINUSE
    listener.end.close()
    with trio.fail_after(10):
        while (await other.ask(rpc.OP_BIND, payload=sockaddr(ADDRESS, port))).ret:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("is_told", [False, True])
async def test_whoever_calls_after_a_listener_was_closed_is_refused(
    tap: Tap, client: Client, is_told: bool
) -> None:
    listener = await client.socket()
    port = await listener.listen()
    caller = await client.socket()
    length = caller.plug()
    payload = sockaddr(ADDRESS, port)
    request = rpc.Request(rpc.OP_CONNECT, sock=caller.cookie, a=length, payload=payload)
    listener.end.close()
    if is_told:  # its task knows, but it is not its turn yet
        tap.service.broker.poller.dispatch()
    assert (await tap.service.broker.perform(request, "a test")).err == errno.ECONNREFUSED


async def test_no_more_connections_are_made_than_backlog_and_one(client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen(3)
    callers = [await client.socket() for _ in range(6)]
    for caller in callers:
        await caller.connect(ADDRESS, port, flags=NONBLOCK)
    for caller in callers[:4]:
        await settle(caller, "4")
    assert [mask(caller) for caller in callers] == ["4"] * 4 + ["0"] * 2
    for _ in range(6):
        await listener.accept()  # the last two come when their SYNs are sent again


async def test_whoever_was_never_accepted_is_reset(client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen()
    callers = [await client.socket() for _ in range(3)]
    for caller in callers:
        assert (await caller.connect(ADDRESS, port)).ret == 0
    listener.end.close()
    for caller in callers:
        with pytest.raises(ConnectionResetError):
            await caller.receive()


async def test_listening_sockets_do_not_connect_and_connected_ones_do_not_listen(
    client: Client,
) -> None:
    listener, caller, _ = await connected(client)
    answer = await listener.ask(rpc.OP_CONNECT, payload=sockaddr(ADDRESS, 9))
    assert answer.err == errno.EISCONN
    assert (await caller.ask(rpc.OP_LISTEN, a=5)).err == errno.EINVAL
    assert (await listener.ask(rpc.OP_LISTEN, a=-1)).ret == 0
    assert (await listener.ask(rpc.OP_GETPEERNAME)).err == errno.ENOTCONN


async def test_shutting_a_listener_down_refuses_callers(client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen()
    assert (await listener.ask(rpc.OP_SHUTDOWN, a=socket.SHUT_WR)).flags == 0
    answer = await listener.ask(rpc.OP_SHUTDOWN, a=socket.SHUT_RD)
    assert (answer.ret, answer.flags) == (0, rpc.ANSWER_NATIVE)
    caller = await client.socket()
    assert (await caller.connect(ADDRESS, port)).err == errno.ECONNREFUSED


# moving data


@pytest.mark.parametrize("size", [1, 70_000, 3_000_000])
async def test_data_arrives_whole_in_both_directions_at_once(client: Client, size: int) -> None:
    _, caller, accepted = await connected(client)
    there, back = random.Random(1).randbytes(size), random.Random(2).randbytes(size)
    received: dict[str, bytes] = {}

    async def read(name: str, app: App) -> None:
        received[name] = await app.receive_exactly(size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.send_all, there)
        nursery.start_soon(accepted.send_all, back)
        nursery.start_soon(read, "there", accepted)
        nursery.start_soon(read, "back", caller)
    assert received == {"there": there, "back": back}


async def test_a_reader_that_stops_stops_the_writer_and_memory_stays_bounded(
    tap: Tap, client: Client
) -> None:
    _, caller, accepted = await connected(client)
    block = bytes(65536)
    sent = idle = 0
    while idle < 200:
        try:
            sent += caller.end.send(block)
            idle = 0
        except BlockingIOError:
            idle += 1
            await trio.lowlevel.checkpoint()
    config = tap.network.config
    assert sent < config.send_buffer + config.receive_buffer + 2_000_000
    assert mask(caller) == "0"
    await accepted.receive_exactly(sent)
    await settle(caller, "4")


async def test_one_direction_may_end_before_the_other(client: Client) -> None:
    _, caller, accepted = await connected(client)
    caller.end.shutdown(socket.SHUT_WR)
    assert await accepted.receive() == b""
    await accepted.send_all(b"still")
    assert await caller.receive() == b"still"
    accepted.end.close()
    assert await caller.receive() == b""
    caller.end.close()


async def test_what_was_sent_before_close_is_delivered(client: Client) -> None:
    _, caller, accepted = await connected(client)
    data = random.Random(3).randbytes(150_000)
    await caller.send_all(data)
    caller.end.close()
    assert await accepted.receive_exactly(len(data)) == data
    assert await accepted.receive() == b""


async def test_closing_with_something_unread_is_a_reset(client: Client) -> None:
    _, caller, accepted = await connected(client)
    await caller.send_all(b"unread")
    await trio.lowlevel.wait_readable(accepted.end)
    accepted.end.close()
    with pytest.raises(ConnectionResetError):
        await caller.receive()


async def test_linger_zero_is_a_reset(client: Client) -> None:
    _, caller, accepted = await connected(client)
    linger = struct.pack("ii", 1, 0)
    answer = await accepted.ask(
        rpc.OP_SETSOCKOPT, a=socket.SOL_SOCKET, b=socket.SO_LINGER, payload=linger
    )
    assert answer.ret == 0
    accepted.end.close()
    with pytest.raises(ConnectionResetError):
        await caller.receive()


@pytest.mark.parametrize("reason", ["linger", "unread"])
async def test_a_reset_does_not_overtake_what_was_written_before_it(
    client: Client, reason: str
) -> None:
    _, caller, accepted = await connected(client)
    if reason == "linger":
        linger = struct.pack("ii", 1, 0)
        fields = {"a": socket.SOL_SOCKET, "b": socket.SO_LINGER, "payload": linger}
        assert (await accepted.ask(rpc.OP_SETSOCKOPT, **fields)).ret == 0
    else:
        await caller.send_all(b"unread")
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(accepted.end)
    accepted.end.send(b"last words")  # the service sees both at once
    accepted.end.close()
    await settle(caller, "201d")
    assert caller.end.recv(100) == b"last words"
    with pytest.raises(ConnectionResetError):
        caller.end.recv(100)


async def test_data_comes_before_the_reset_that_followed_it(client: Client) -> None:
    _, caller, accepted = await connected(client)
    await caller.send_all(b"unread")
    await accepted.send_all(b"last words")
    await trio.lowlevel.wait_readable(caller.end)
    accepted.end.close()
    await settle(caller, "201d")
    assert await caller.receive() == b"last words"
    with pytest.raises(ConnectionResetError):
        await caller.receive()


async def test_writing_to_a_peer_that_has_gone_is_a_reset(client: Client) -> None:
    _, caller, accepted = await connected(client)
    accepted.end.close()
    assert await caller.receive() == b""
    await caller.send_all(b"x")
    await settle(caller, "201d")
    error = await caller.ask(
        rpc.OP_GETSOCKOPT, a=socket.SOL_SOCKET, b=socket.SO_ERROR, payload=struct.pack("I", 4)
    )
    assert error.payload == struct.pack("i", errno.EPIPE)


async def test_a_program_that_wants_no_data_does_not_stop_its_peer(client: Client) -> None:
    _, caller, accepted = await connected(client)
    accepted.end.shutdown(socket.SHUT_RD)
    await caller.send_all(bytes(12_000_000))  # more than all buffers hold


async def test_unsent_octets_are_counted_like_the_kernel_does(client: Client) -> None:
    _, caller, accepted = await connected(client)
    await caller.send_all(bytes(1000))
    assert len(await accepted.receive_exactly(1000)) == 1000
    siocoutq = 0x5411
    with trio.fail_after(10):
        while any((await caller.ask(rpc.OP_IOCTL, a=siocoutq)).payload):
            await trio.lowlevel.checkpoint()


# what is left behind


async def test_nothing_is_left_when_both_ends_are_closed(tap: Tap, client: Client) -> None:
    for _ in range(3):
        for app in await connected(client):
            app.end.close()
    stack = tap.network._driver.stack
    with trio.fail_after(10):
        while tap.service.broker.connections or list(stack.tcp.connections()):
            await trio.lowlevel.checkpoint()
    assert len(tap.service.broker.poller) == 0
    assert not list(stack.tcp.listeners())


async def test_a_socket_whose_connection_has_ended_still_knows_its_name(client: Client) -> None:
    _, caller, accepted = await connected(client)
    name = await caller.name()
    caller.end.shutdown(socket.SHUT_WR)
    assert await accepted.receive() == b""
    accepted.end.shutdown(socket.SHUT_WR)
    assert await caller.receive() == b""
    with trio.fail_after(10):
        while (await caller.ask(rpc.OP_GETPEERNAME)).ret == 0:
            await trio.lowlevel.checkpoint()
    assert await caller.name() == name
    assert (await caller.ask(rpc.OP_SHUTDOWN, a=1)).err == errno.ENOTCONN
    for app in (caller, accepted):  # the end of the stream, which is no reset
        assert mask(app) == "2015"
        assert app.end.recv(1) == b""


async def test_sockets_that_are_gone_are_remembered_but_not_for_ever(
    tap: Tap, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "DEPARTED", 5)
    port = await closed_port(client)
    apps = [await client.socket() for _ in range(8)]
    for app in apps:
        await app.connect(ADDRESS, port, flags=NONBLOCK)
        await settle(app, "201d")
    query = struct.pack("8Q", *[app.cookie for app in apps])
    answer = await client.ask(rpc.OP_QUERY, payload=query)
    rows = [rpc.QueryRow.parse(answer.payload[at : at + 8]) for at in range(0, 64, 8)]
    assert [row.kind for row in rows] == [rpc.KIND_NONE] * 3 + [rpc.KIND_STREAM] * 5
    assert (await apps[0].ask(rpc.OP_GETSOCKNAME)).err == errno.ENOTCONN
    assert tap.service.broker.connections == ()
