"""What programs ask besides sockets: names, interfaces, options, states; and the protocol."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from zttrio.header.address import INTERFACE_INDEX
from zttrio.tap import rpc

from .conftest import ADDRESS, sockaddr, until

if TYPE_CHECKING:
    from .conftest import Client, Tap

SIOCGIFCONF = 0x8912


async def test_a_program_is_told_what_it_lives_on(client: Client) -> None:
    hello = rpc.HelloRequest(1, 2, "/usr/bin/prog", "prog").emit()
    answer = await client.ask(rpc.OP_HELLO, a=rpc.ABI, payload=hello)
    told = rpc.HelloAnswer.parse(answer.payload)
    assert told.features & rpc.FEATURE_STRICT
    assert not told.features & rpc.FEATURE_HOST
    assert told.network == "host"


async def test_a_library_of_another_version_is_refused(tap: Tap, client: Client) -> None:
    hello = rpc.HelloRequest(1, 2, "/usr/bin/prog", "prog").emit()
    answer = await client.ask(rpc.OP_HELLO, a=rpc.ABI + 1, payload=hello)
    assert (answer.ret, answer.err) == (-1, errno.EPROTO)
    assert "another version" in tap.said[0]


@pytest.mark.parametrize(
    ("domain", "kind", "protocol", "error"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP, errno.EPROTONOSUPPORT),
        (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_TCP, errno.EPROTONOSUPPORT),
        (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP, errno.EPROTONOSUPPORT),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP, errno.EPERM),
        (socket.AF_INET, socket.SOCK_SEQPACKET, 0, errno.ESOCKTNOSUPPORT),
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, errno.EAFNOSUPPORT),
    ],
)
async def test_sockets_of_other_kinds_are_not_made(
    client: Client, domain: int, kind: int, protocol: int, error: int
) -> None:
    payload = struct.pack("i", protocol)
    answer = await client.ask(rpc.OP_SOCKET, a=domain, b=kind, payload=payload)
    assert (answer.ret, answer.err) == (-1, error)


async def test_a_cookie_that_nobody_knows_is_not_connected(client: Client) -> None:
    for op in (rpc.OP_GETSOCKNAME, rpc.OP_GETPEERNAME, rpc.OP_LISTEN, rpc.OP_REVIVE):
        assert (await client.ask(op, sock=12345)).err == errno.ENOTCONN


async def test_a_query_tells_kinds_and_states(client: Client) -> None:
    stream, datagram = await client.socket(), await client.socket(socket.SOCK_DGRAM)
    await stream.listen()
    cookies = struct.pack("3Q", stream.cookie, datagram.cookie, 99)
    payload = (await client.ask(rpc.OP_QUERY, payload=cookies)).payload
    rows = [rpc.QueryRow.parse(payload[at : at + 8]) for at in range(0, 24, 8)]
    assert rows == [
        rpc.QueryRow(rpc.KIND_STREAM, rpc.STATE_LISTENING, rpc.AF_INET, 6),
        rpc.QueryRow(rpc.KIND_DATAGRAM, rpc.STATE_NEW, rpc.AF_INET, 17),
        rpc.QueryRow(rpc.KIND_NONE),
    ]


async def test_names_are_resolved_on_the_network_only(tap: Tap, client: Client) -> None:
    async def resolve(node: str, service: str = "", family: int = 2) -> rpc.Answer:
        payload = rpc.emit_texts(node, service)
        return await client.ask(rpc.OP_RESOLVE, b=family, payload=payload)

    rows = rpc.ResolveAnswer.parse((await resolve("localhost", "80")).payload).rows
    assert [(row.type, row.protocol) for row in rows] == [(1, 6), (2, 17), (3, 0)]
    assert {row.address for row in rows} == {sockaddr("127.0.0.1", 80)}
    assert (await resolve("nobody.example")).ret == socket.EAI_NONAME
    assert any("nobody.example" in text for text in tap.said)
    answer = await resolve("me", "http")
    assert rpc.ResolveAnswer.parse(answer.payload).rows[0].address == sockaddr("127.0.0.1", 80)


async def test_addresses_have_names(client: Client) -> None:
    async def name(host: str, port: int, flags: int = 0) -> list[str]:
        answer = await client.ask(rpc.OP_NAMEINFO, a=flags, payload=sockaddr(host, port))
        assert answer.ret == 0
        return rpc.parse_texts(answer.payload, 2)

    assert await name("127.0.0.1", 80) == ["localhost", "http"]
    assert await name(ADDRESS, 80, socket.NI_NUMERICSERV) == ["me", "80"]
    assert await name("10.7.0.9", 80, socket.NI_NUMERICHOST) == ["10.7.0.9", "http"]
    required = await client.ask(
        rpc.OP_NAMEINFO, a=socket.NI_NAMEREQD, payload=sockaddr("10.7.0.9", 1)
    )
    assert required.ret == socket.EAI_NONAME


async def test_the_interfaces_are_the_virtual_ones(tap: Tap, client: Client) -> None:
    payload = (await client.ask(rpc.OP_IFADDRS)).payload
    size = rpc.INTERFACE_ROW_LENGTH
    rows = [rpc.InterfaceRow.parse(payload[at : at + size]) for at in range(0, len(payload), size)]
    four = [(row.name, row.address) for row in rows if len(row.address) == 16]
    assert four == [("lo", sockaddr("127.0.0.1", 0)), ("zt0", sockaddr(ADDRESS, 0))]
    six = {row.name: rpc.Sockaddr.parse(row.address) for row in rows if len(row.address) == 28}
    assert (six["lo"].address[-1], six["lo"].scope) == (1, 0)
    assert (six["zt0"].address[:2], six["zt0"].scope) == (b"\xfe\x80", INTERFACE_INDEX)
    hardware = {row.name: row for row in rows if not row.address}
    assert hardware["zt0"].index == INTERFACE_INDEX
    assert hardware["zt0"].mac == tap.network._driver.stack.mac


async def test_interface_requests_are_answered_as_by_ioctl(tap: Tap, client: Client) -> None:
    listed = (await client.ask(rpc.OP_IOCTL, a=SIOCGIFCONF)).payload
    assert [listed[at : at + 16].rstrip(b"\0") for at in (0, 40)] == [b"lo", b"zt0"]

    async def ask(request: int, name: bytes = b"zt0", tail: bytes = b"") -> rpc.Answer:
        argument = name.ljust(16, b"\0") + tail.ljust(24, b"\0")
        return await client.ask(rpc.OP_IOCTL, a=request, payload=argument)

    assert (await ask(0x8915)).payload[16:32] == sockaddr(ADDRESS, 0)
    assert (await ask(0x891B)).payload[20:24] == bytes((255, 255, 255, 0))
    assert (await ask(0x8919)).payload[20:24] == bytes((10, 7, 0, 255))
    assert struct.unpack_from("i", (await ask(0x8933)).payload, 16) == (2,)
    assert (await ask(0x8927)).payload[18:24] == tap.network._driver.stack.mac
    assert (await ask(0x8910, b"", struct.pack("i", 2))).payload[:16].rstrip(b"\0") == b"zt0"
    assert (await ask(0x8915, b"eth0")).err == errno.ENODEV
    assert (await ask(0x8914)).err == errno.EPERM  # SIOCSIFFLAGS


async def test_a_hint_gets_no_answer(client: Client) -> None:
    app = await client.socket()
    client.send(
        rpc.OP_SETSOCKOPT,
        sock=app.cookie,
        a=socket.IPPROTO_TCP,
        b=socket.TCP_NODELAY,
        payload=struct.pack("i", 1),
        flags=rpc.REQUEST_NOREPLY,
    )
    client.send(rpc.OP_NOTE, payload=b"a note\n")
    room = struct.pack("I", 4)
    option = {"a": socket.IPPROTO_TCP, "b": socket.TCP_NODELAY, "payload": room}
    assert (await app.ask(rpc.OP_GETSOCKOPT, **option)).payload == struct.pack("i", 1)


async def test_notes_reach_the_user_without_control_characters(tap: Tap, client: Client) -> None:
    client.send(rpc.OP_NOTE, payload=b"\x1b[31mred\n")
    await until(lambda: tap.said)
    assert "?[31mred?" in tap.said[0]


async def test_the_state_of_a_connection_can_be_read(client: Client) -> None:
    listener = await client.socket()
    port = await listener.listen()
    caller = await client.socket()
    info = {"a": socket.IPPROTO_TCP, "b": socket.TCP_INFO, "payload": struct.pack("I", 500)}
    assert (await caller.ask(rpc.OP_GETSOCKOPT, **info)).payload[0] == 7  # TCP_CLOSE
    assert (await listener.ask(rpc.OP_GETSOCKOPT, **info)).payload[0] == 10  # TCP_LISTEN
    await caller.connect(ADDRESS, port)
    payload = (await caller.ask(rpc.OP_GETSOCKOPT, **info)).payload
    assert payload[0] == 1  # TCP_ESTABLISHED
    assert struct.unpack_from("I", payload, 16)[0] > 500  # tcpi_snd_mss
    mss = {"a": socket.IPPROTO_TCP, "b": socket.TCP_MAXSEG, "payload": struct.pack("I", 4)}
    assert struct.unpack("i", (await caller.ask(rpc.OP_GETSOCKOPT, **mss)).payload)[0] > 1000


async def test_requests_after_the_network_is_gone_say_so(tap: Tap, client: Client) -> None:
    app = await client.socket()
    tap.network._driver.close()
    assert (await app.ask(rpc.OP_LISTEN, a=1)).err == errno.ENETDOWN
