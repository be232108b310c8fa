"""Prints what sockets do with literals, names, wildcards, both families at once, and scopes.

It knows trio's sockets only, so it runs on the kernel's stack and on a Network alike.  Where it
runs there must be an interface with the addresses and names below, and no route out of it.
Ephemeral ports are printed as P1, P2 ... and the interface's number as S, as these may differ.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
import sys
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

DEVICE = "zt0"
V4 = "10.99.0.1"
V6 = "2001:db8:99::1"
LINK_LOCAL = "fe80::99:1"
SCOPED = f"{LINK_LOCAL}%{DEVICE}"
PEER = {"peer": ("10.99.0.2", "2001:db8:99::2"), "six": ("2001:db8:99::3",)}
HOSTS = ["127.0.0.1 localhost", "::1 localhost"] + [
    f"{address} {name}" for name, addresses in PEER.items() for address in addresses
]

INET, INET6 = socket.AF_INET, socket.AF_INET6
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
V6ONLY = (IPV6, socket.IPV6_V6ONLY)
IP_PKTINFO, IP_RECVTTL = 8, 12  # Linux's; Python 3.11 has no names for them
PORT = 7001  # below the ephemeral ones, so printed as it is

LISTENERS = [
    (INET, "", 0),
    (INET, "0.0.0.0", 0),
    (INET, "127.0.0.1", 0),
    (INET, V4, 0),
    (INET, "localhost", 0),
    (INET6, "", 0),
    (INET6, "::", 0),
    (INET6, "::", 1),
    (INET6, "::1", 0),
    (INET6, V6, 0),
    (INET6, SCOPED, 0),
    (INET6, "localhost", 0),
    (INET6, "::ffff:0.0.0.0", 0),
    (INET6, "::ffff:127.0.0.1", 0),
    (INET6, V4, 0),
]
CLIENTS = [
    (INET, "127.0.0.1"),
    (INET, "127.1.2.3"),
    (INET, V4),
    (INET, "0.0.0.0"),
    (INET, "localhost"),
    (INET6, "::1"),
    (INET6, "::"),
    (INET6, V6),
    (INET6, SCOPED),
    (INET6, "localhost"),
    (INET6, "::ffff:127.0.0.1"),
    (INET6, f"::ffff:{V4}"),
    (INET6, V4),
]
_FAMILIES: dict[int, str] = {socket.AF_UNSPEC: "any", INET: "inet", INET6: "inet6"}
_KINDS: dict[int, str] = {TCP: "tcp", UDP: "udp"}


class Transcript:
    """Lines in which ephemeral ports and the interface's number have names."""

    def __init__(self, say: Callable[[str], None], index: int) -> None:
        self.index = index
        self._say = say
        self._ports: dict[int, str] = {}

    def line(self, *words: object) -> None:
        """Print *words*; P1 is the first ephemeral port of this line."""
        self._ports.clear()
        self._say(" ".join(map(self.text, words)))

    def text(self, value: object) -> str:
        """One value, in the same words everywhere."""
        if isinstance(value, str):
            return value
        if isinstance(value, tuple) and len(value) in (2, 4) and isinstance(value[0], str):
            host, port, *rest = value
            if port > 32767:
                port = self._ports.setdefault(port, f"P{len(self._ports) + 1}")
            if rest and rest[1]:
                rest[1] = "S" if rest[1] == self.index else f"scope {rest[1]}"
            host = re.sub("%.*", "%S", host)
            return f"({', '.join(map(str, (host, port, *rest)))})"
        if isinstance(value, OSError) and not isinstance(value, socket.gaierror):
            return errno.errorcode.get(value.errno or 0, repr(value))
        if isinstance(value, socket.gaierror):
            names = {getattr(socket, name): name for name in dir(socket) if name[:4] == "EAI_"}
            return names.get(value.errno, repr(value))
        return str(value)


@asynccontextmanager
async def opened(
    family: int, kind: int, host: str, *, v6_only: int = 0, port: int = PORT, reuse: int = 0
) -> AsyncGenerator[trio.socket.SocketType, None]:
    """A socket with an address; TCP listens."""
    with trio.socket.socket(family, kind) as sock:
        if family == INET6 and v6_only:
            sock.setsockopt(*V6ONLY, v6_only)
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, reuse, 1)
        await sock.bind((host, port))
        if kind == TCP:
            sock.listen()
        yield sock


async def attempt(
    out: Transcript, words: Sequence[object], call: Callable[[], Awaitable[Any]]
) -> None:
    """Print what *call* returns, or how it fails."""
    result: object
    try:
        with trio.fail_after(5):
            result = await call()
    except OSError as exc:
        result = exc
    except trio.TooSlowError:
        result = "silence"
    out.line(*words, *(result if isinstance(result, list) else [result]))


async def names(out: Transcript) -> None:
    """What getaddrinfo makes of literals and names, in its order."""
    for host in (
        *(None, "127.0.0.1", "::1", "::ffff:1.2.3.4", "0.0.0.0", "::", V6.upper(), SCOPED),
        *(
            f"fe80::1%{out.index}",
            "2001:db8:0:0:0:0:0:9",
            "localhost",
            "peer",
            "six",
            "nobody",
            "1.2.3.4.5",
        ),
        *("10.1", "0x7f.1", "2130706433", "[::1]", "::g"),
    ):
        for family in (socket.AF_UNSPEC, INET, INET6):
            for flags in (0, socket.AI_PASSIVE, socket.AI_NUMERICHOST, socket.AI_V4MAPPED):
                if flags == socket.AI_V4MAPPED and family != INET6:
                    continue

                async def look(
                    host: str | None = host, family: int = family, flags: int = flags
                ) -> list[object]:
                    rows = await trio.socket.getaddrinfo(host, 80, family, TCP, 0, flags)
                    # Glibc says 127.0.0.1 twice if /etc/hosts gives localhost both addresses.
                    return list(dict.fromkeys(row[4] for row in rows))

                words = [
                    "getaddrinfo",
                    re.sub("%.*", "%S", host or "None"),
                    _FAMILIES[family],
                    socket_flag(flags),
                ]
                await attempt(out, words, look)


def socket_flag(flags: int) -> str:
    return socket.AddressInfo(flags).name or "0" if flags else "0"


async def conversations(out: Transcript) -> None:
    """Every kind of client with every kind of listener."""
    for kind in (TCP, UDP):
        for family, host, v6_only in LISTENERS:
            words: list[object] = [_KINDS[kind], _FAMILIES[family], repr(host), f"only={v6_only}"]
            try:
                async with opened(family, kind, host, v6_only=v6_only) as server:
                    out.line(*words, "is", server.getsockname())
                    for client_family, target in CLIENTS:
                        await attempt(
                            out,
                            [*words, "<-", _FAMILIES[client_family], target],
                            lambda f=client_family, t=target, s=server: converse(f, t, s),  # type: ignore[misc]
                        )
            except OSError as exc:
                out.line(*words, exc)


async def converse(family: int, target: str, server: trio.socket.SocketType) -> list[object]:
    """Connect to *server*, talk, and return every address that anybody sees."""
    with trio.socket.socket(family, server.type) as client, ExitStack() as stack:
        await client.connect((target, PORT))
        seen: list[object] = [client.getpeername(), "from", client.getsockname()]
        if server.type == TCP:
            accepted, address = await server.accept()
            stack.enter_context(accepted)
            seen += ["accepted", address, accepted.getpeername(), accepted.getsockname()]
            # Nothing in TIME_WAIT that would keep the next listener from the port.
            linger = struct.pack("ii", 1, 0)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return seen
        await client.send(b"?")
        with trio.move_on_after(0.2) as scope:
            data, address = await server.recvfrom(10)
            await server.sendto(data, address)
            seen += ["asked", address, "answered", (await client.recvfrom(10))[1]]
        if scope.cancelled_caught:
            code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            seen += ["silence", errno.errorcode.get(code, code)]
        return seen


async def conflicts(out: Transcript) -> None:
    """Two sockets at one port."""
    wanted = [
        *((INET, "", 0), (INET, "127.0.0.1", 0), (INET6, "", 0), (INET6, "", 1), (INET6, "::1", 0)),
        *((INET6, "::ffff:127.0.0.1", 0), (INET6, "::ffff:0.0.0.0", 0)),
    ]
    for kind in (TCP, UDP):
        for reuse in (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            for first in wanted:
                for second in wanted:
                    words = [_KINDS[kind], f"reuse={reuse}", one_end(*first), one_end(*second)]

                    async def both(
                        kind: int = kind,
                        reuse: int = reuse,
                        first: tuple[int, str, int] = first,
                        second: tuple[int, str, int] = second,
                    ) -> str:
                        family, host, only = first
                        async with opened(family, kind, host, v6_only=only, reuse=reuse):
                            family, host, only = second
                            async with opened(family, kind, host, v6_only=only, reuse=reuse):
                                return "both"

                    await attempt(out, [*words], both)


def one_end(family: int, host: str, v6_only: int) -> str:
    return f"{_FAMILIES[family]}[{host}]" + (" only" if v6_only else "")


async def mistakes(out: Transcript) -> None:
    """Addresses that are not ours, of the wrong family, or without a way."""
    for kind in (TCP, UDP):
        for family in (INET, INET6):
            for v6_only in (0, 1) if family == INET6 else (0,):
                for host in (
                    *("10.99.0.77", "2001:db8:99::77", "::ffff:10.99.0.77", "::ffff:127.0.0.1"),
                    *("203.0.113.1", "2001:db8:1::1", "10.99.0.255", "239.1.2.3", "ff15::1"),
                    *(V4, V6, "localhost", "nobody"),
                ):
                    for verb in ("bind", "connect"):
                        if (verb, kind) == ("connect", TCP) and host.endswith("77"):
                            continue  # seconds of silence on the kernel's stack
                        if (verb, kind) == ("bind", TCP) and host in ("239.1.2.3", "ff15::1"):
                            continue  # Linux lets a stream have an IPv4 group's address

                        async def call(
                            family: int = family,
                            kind: int = kind,
                            v6_only: int = v6_only,
                            verb: str = verb,
                            host: str = host,
                        ) -> list[object]:
                            with trio.socket.socket(family, kind) as sock:
                                if v6_only:
                                    sock.setsockopt(*V6ONLY, 1)
                                await getattr(sock, verb)((host, 9))
                                return [sock.getsockname(), peer_of(sock)]

                        words = [_KINDS[kind], _FAMILIES[family], f"only={v6_only}", verb, host]
                        await attempt(out, [*words], call)
    for family in (INET, INET6):
        for kind in (TCP, UDP):
            with trio.socket.socket(family, kind) as sock:
                out.line(_FAMILIES[family], _KINDS[kind], sock.getsockname(), peer_of(sock))
                await sock.bind(("", 0))
                out.line(_FAMILIES[family], _KINDS[kind], sock.getsockname(), peer_of(sock))
                out.line("again", await failure(sock.bind(("", 0))))
                if family == INET6:
                    out.line("only", option(sock, *V6ONLY, 1), option(sock, *V6ONLY))
    # A second connect() of one socket is left out: Linux keeps the source address of the first.
    for host in (V4, V6, "::1", "127.0.0.1", "::", "::ffff:0.0.0.0", SCOPED):
        with trio.socket.socket(INET6, UDP) as sock:
            await sock.bind(("::", 0))
            out.line("udp", host, await failure(sock.connect((host, 9))), sock.getsockname())
            out.line("udp peer", peer_of(sock))


def peer_of(sock: trio.socket.SocketType) -> object:
    try:
        return sock.getpeername()
    except OSError as exc:
        return exc


async def failure(call: Awaitable[object]) -> object:
    try:
        return await call
    except OSError as exc:
        return exc


def option(sock: trio.socket.SocketType, level: int, name: int, value: Any = None) -> object:
    """Read or set an option."""
    try:
        if value is None:
            return sock.getsockopt(level, name)
        return sock.setsockopt(level, name, value)
    except OSError as exc:
        return exc


def options(out: Transcript) -> None:
    """What can be set, to what, and what is read then."""
    group4, group6 = socket.inet_aton("239.1.2.3"), socket.inet_pton(INET6, "ff15::1:2:3")
    own4, own6 = socket.inet_aton(V4), socket.inet_pton(INET6, V6)
    other4 = socket.inet_aton("10.99.0.77")
    values: list[tuple[str, list[Any]]] = [
        *(("IP_TTL", [-1, 0, 1, 255, 256]), ("IP_TOS", [0, 184, b"\x08"])),
        *(("IP_MULTICAST_TTL", [-1, 0, 1, 255, 256, b"\x07"]), ("IP_MULTICAST_LOOP", [0, 1, 5])),
        (
            "IP_MULTICAST_IF",
            [own4, other4, bytes(4), b"12", own4 * 2, group4 + bytes(4) + b"M\0\0\0"],
        ),
        ("IPV6_UNICAST_HOPS", [-1, 1, 255, 256]),
        ("IPV6_MULTICAST_HOPS", [-1, 0, 1, 255, 256, b"\x07"]),
        *(("IPV6_MULTICAST_LOOP", [0, 1, 5]), ("IPV6_MULTICAST_IF", [out.index, 77, 0])),
        *(("IPV6_TCLASS", [-1, 0, 184, 256]), ("IPV6_V6ONLY", [1, 0, 5, b"\x01"])),
        *(("IP_RECVTOS", [1, 0]), ("IPV6_RECVPKTINFO", [1, 0]), ("IPV6_RECVHOPLIMIT", [1, 0])),
        ("IPV6_RECVTCLASS", [1, 0]),
    ]
    memberships: list[tuple[str, list[bytes]]] = [
        ("IP_DROP_MEMBERSHIP", [group4 + own4]),
        ("IP_ADD_MEMBERSHIP", [group4 + own4, group4 + own4, group4, own4 * 2, group4 + other4]),
        ("IP_ADD_MEMBERSHIP", [group4 + bytes(4) + struct.pack("i", out.index)]),
        ("IP_ADD_MEMBERSHIP", [group4 + bytes(4) + struct.pack("i", 77)]),
        ("IP_DROP_MEMBERSHIP", [group4 + own4, group4 + own4]),
        ("IPV6_LEAVE_GROUP", [group6 + struct.pack("i", out.index)]),
        ("IPV6_JOIN_GROUP", [group6 + struct.pack("i", out.index)] * 2),
        ("IPV6_JOIN_GROUP", [own6 + struct.pack("i", 0), group6 + struct.pack("i", 77), group6]),
        ("IPV6_LEAVE_GROUP", [group6 + struct.pack("i", out.index)] * 2),
    ]
    for family in (INET, INET6):
        for kind in (TCP, UDP):
            with trio.socket.socket(family, kind) as sock:
                words = _FAMILIES[family], _KINDS[kind]
                for name, tried in values:
                    number = getattr(socket, name)
                    level = IPV6 if name.startswith("IPV6") else IP
                    if kind == TCP and "MULTICAST" in name:
                        # Linux reads these of a stream, where they mean nothing; we do not.
                        out.line(*words, name, *(option(sock, level, number, v) for v in tried[:1]))
                        continue
                    out.line(*words, name, option(sock, level, number))
                    for value in tried:
                        result = option(sock, level, number, value)
                        shown = value.hex() if isinstance(value, bytes) else value
                        if isinstance(value, int) and name.endswith("_IF"):
                            shown = "S" if value == out.index else value
                            out.line(*words, name, shown, result)
                        else:
                            out.line(*words, name, shown, result, option(sock, level, number))
                for name, structures in memberships:
                    level = IPV6 if name.startswith("IPV6") else IP
                    for structure in structures:
                        if kind == TCP and len(structure) == 16:
                            continue  # one error or the other
                        result = option(sock, level, getattr(socket, name), structure)
                        out.line(*words, name, f"{len(structure)} octets", result)


async def groups(out: Transcript) -> None:
    """What a member hears, from whom, and what comes with it."""
    for family, group, wildcard in ((INET, "239.1.2.3", ""), (INET6, "ff15::1:2:3", "")):
        async with opened(family, UDP, wildcard) as member:
            packed = socket.inet_pton(family, group)
            if family == INET:
                own = socket.inet_aton(V4)
                member.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, packed + own)
                for number in (IP_PKTINFO, IP_RECVTTL, socket.IP_RECVTOS):
                    member.setsockopt(IP, number, 1)
            else:
                index = struct.pack("i", out.index)
                member.setsockopt(IPV6, socket.IPV6_JOIN_GROUP, packed + index)
                for name in ("RECVPKTINFO", "RECVHOPLIMIT", "RECVTCLASS"):
                    member.setsockopt(IPV6, getattr(socket, f"IPV6_{name}"), 1)
                for number in (IP_PKTINFO, IP_RECVTTL, socket.IP_RECVTOS):
                    member.setsockopt(IP, number, 1)
            hosts = [group, V4] if family == INET else [group, V6, V4, "::1"]
            for host in hosts:
                with trio.socket.socket(family, UDP) as sender:
                    if family == INET:
                        sender.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton(V4))
                        sender.setsockopt(IP, socket.IP_TOS, 0x28)
                    else:
                        sender.setsockopt(IPV6, socket.IPV6_MULTICAST_IF, out.index)
                        sender.setsockopt(IPV6, socket.IPV6_TCLASS, 0x28)
                        sender.setsockopt(IP, socket.IP_TOS, 0x28)
                    for loop in (1, 0) if host == group else (1,):
                        if family == INET:
                            sender.setsockopt(IP, socket.IP_MULTICAST_LOOP, loop)
                        else:
                            sender.setsockopt(IPV6, socket.IPV6_MULTICAST_LOOP, loop)
                        await sender.sendto(b"to all", (host, PORT))
                        await attempt(out, [_FAMILIES[family], host, f"loop={loop}"], heard(member))
                        for room in (0, 8, 18, 24) if host == group and loop else ():
                            await sender.sendto(b"to all", (host, PORT))
                            await attempt(out, [f"room {room}"], heard(member, room))


def heard(member: trio.socket.SocketType, room: int = 400) -> Callable[[], Awaitable[list[object]]]:
    async def receive() -> list[object]:
        with trio.move_on_after(0.2):
            data, ancillary, flags, address = await member.recvmsg(10, room)
            said = [(level, kind, without_index(kind, value)) for level, kind, value in ancillary]
            return [data, address, f"flags={int(flags)}", *said]
        return ["silence"]

    return receive


def without_index(kind: int, value: bytes) -> str:
    """The number of the interface that an own address was reached through is Linux's affair."""
    if kind == IP_PKTINFO:
        value = value[4:]
    elif kind == socket.IPV6_PKTINFO:
        value = value[:16]
    return value.hex()


async def streams(out: Transcript) -> None:
    """Trio's own listeners and happy eyeballs."""
    for host in (None, "localhost", "127.0.0.1", "::1", V6, SCOPED):
        listeners = await trio.open_tcp_listeners(PORT, host=host)
        out.line("listeners", str(host), *(each.socket.getsockname() for each in listeners))
        for each in listeners:
            if each.socket.family == INET6:
                out.line("only", option(each.socket, *V6ONLY))
        async with trio.open_nursery() as nursery:
            for each in listeners:
                nursery.start_soon(serve_shortly, each)
            for target in ("localhost", "127.0.0.1", "::1", V4, V6, SCOPED):
                await attempt(out, [f"to {target}"], lambda t=target: reach(t))  # type: ignore[misc]
            nursery.cancel_scope.cancel()
        for each in listeners:
            await each.aclose()


async def serve_shortly(listener: trio.SocketListener) -> None:
    while True:
        stream = await listener.accept()
        await stream.send_all(b"hello")
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        await stream.receive_some()
        await stream.aclose()


async def reach(target: str) -> list[object]:
    try:
        stream = await trio.open_tcp_stream(target, PORT)
    except OSError as exc:
        raise OSError(errno.ECONNREFUSED, str(exc)) from exc
    async with stream:
        assert await stream.receive_some() == b"hello"
        return [stream.socket.getsockname(), stream.socket.getpeername()]


async def run(say: Callable[[str], None], index: int) -> None:
    """Say everything; *index* is the number of the interface."""
    out = Transcript(say, index)
    await names(out)
    await conversations(out)
    await conflicts(out)
    await mistakes(out)
    options(out)
    await groups(out)
    await streams(out)


if __name__ == "__main__":
    trio.run(run, print, socket.if_nametoindex(DEVICE))
    sys.stdout.flush()
