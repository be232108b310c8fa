"""IPv6, both families on one socket, and multicast."""

from __future__ import annotations

import os
import select
import socket
import struct

from .base import (
    GROUPS,
    group,
    ioctl_number,
    make,
    mask,
    receive_all,
    say,
    say_outcome,
    settle,
)

assert GROUPS is not None
INTERFACE = os.environ.get("TRANSCRIPT_INTERFACE", "10.7.0.1")
SIX = socket.AF_INET6
V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def listen6(host: str = "::1", *, v6_only: int = 0) -> socket.socket:
    listener = make(family=SIX)
    listener.setsockopt(*V6ONLY, v6_only)
    listener.bind((host, 0))
    listener.listen(5)
    return listener


@group
def six() -> None:
    sock = make(family=SIX)
    say("fresh name", sock.getsockname())
    say("domain", sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN))
    say("v6 only", sock.getsockopt(*V6ONLY))
    say("hops", sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS))
    say_outcome("tos", sock.setsockopt, socket.IPPROTO_IP, socket.IP_TOS, 8)
    sock.close()
    with listen6() as listener:
        caller = make(family=SIX)
        say_outcome("connect", caller.connect, listener.getsockname())
        accepted, address = listener.accept()
        say("peer", (address[0], accepted.getpeername() == caller.getsockname()))
        say_outcome("v6 only later", accepted.setsockopt, *V6ONLY, 1)
        caller.sendall(b"through IPv6")
        caller.shutdown(socket.SHUT_WR)
        say("data", receive_all(accepted))
        caller.close()
        accepted.close()
        port = listener.getsockname()[1]
    refused = make(family=SIX)
    say_outcome("refused", refused.connect, ("::1", port))
    refused.close()
    one, two = (make(socket.SOCK_DGRAM, SIX) for _ in range(2))
    two.bind(("::1", 0))
    one.sendto(b"datagram", two.getsockname())
    settle(two, "5")
    data, source = two.recvfrom(100)
    say("datagram", (data, source[0], source[2:]))
    say_outcome("too long", one.sendto, bytes(65_528), two.getsockname())
    two.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    two.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x10)
    one.sendto(b"x", two.getsockname())
    settle(two, "5")
    controls = {(level, kind): value for level, kind, value in two.recvmsg(10, 512)[1]}
    info = controls[socket.IPPROTO_IPV6, socket.IPV6_PKTINFO]
    say("pktinfo", socket.inet_ntop(SIX, info[:16]))
    say("class", controls[socket.IPPROTO_IPV6, socket.IPV6_TCLASS])
    one.close()
    two.close()


@group
def both_families() -> None:
    with listen6("::") as listener:
        port = listener.getsockname()[1]
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", SIX)):
            caller = make(family=family)
            caller.connect((host, port))
            accepted, address = listener.accept()
            say(f"dual-stack {host}", (address[0], accepted.getsockname()[0]))
            caller.close()
            accepted.close()
        taken = make()
        say_outcome("IPv4 port of a dual-stack listener", taken.bind, ("0.0.0.0", port))
        taken.close()
        mapped = make(family=SIX)
        say_outcome("v4-mapped", mapped.connect, ("::ffff:127.0.0.1", port))
        say("v4-mapped names", (mapped.getsockname()[0], mapped.getpeername()[0]))
        mapped.close()
    with listen6("::", v6_only=1) as listener:
        port = listener.getsockname()[1]
        caller = make()
        say_outcome("v6 only refuses IPv4", caller.connect, ("127.0.0.1", port))
        caller.close()
        beside = make()
        say_outcome("IPv4 beside v6 only", beside.bind, ("0.0.0.0", port))
        beside.close()
    strict = make(family=SIX)
    strict.setsockopt(*V6ONLY, 1)
    say_outcome("v6 only to v4-mapped", strict.connect, ("::ffff:127.0.0.1", 9))
    strict.close()
    say_outcome("IPv6 address on IPv4", raw_connect6, make())
    server = make(socket.SOCK_DGRAM, SIX)
    server.bind(("::", 0))
    sender = make(socket.SOCK_DGRAM)
    sender.sendto(b"mapped", ("127.0.0.1", server.getsockname()[1]))
    settle(server, "5")
    data, source = server.recvfrom(100)
    say("datagram from IPv4", (data, source[0]))
    say("answer", server.sendto(b"back", source))
    settle(sender, "5")
    say("answered", sender.recv(100))
    server.close()
    sender.close()


def raw_connect6(sock: socket.socket) -> None:
    """connect(2) with a sockaddr_in6 on an IPv4 socket, which Python would not do."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    address = struct.pack("=H", SIX) + bytes(26)
    result = libc.connect(sock.fileno(), address, len(address))
    sock.close()
    if result:
        raise OSError(ctypes.get_errno(), "")


def disconnect(sock: socket.socket) -> None:
    import ctypes

    ctypes.CDLL(None).connect(sock.fileno(), bytes(16), 16)  # AF_UNSPEC


@group
def address_sorting() -> None:
    """What glibc and others do to find out which addresses can be reached."""
    sock = make(socket.SOCK_DGRAM, SIX)
    say_outcome("IPv6 nowhere", sock.connect, ("2001:db8::1", 9))
    say_outcome("IPv6 loopback", sock.connect, ("::1", 9))
    say("its source", sock.getsockname()[0])
    sock.close()
    sock = make(socket.SOCK_DGRAM)
    say_outcome("IPv4 loopback", sock.connect, ("127.0.0.1", 9))
    say("its source", sock.getsockname()[0])
    disconnect(sock)
    say_outcome("another", sock.connect, (INTERFACE, 9))
    say("its source", sock.getsockname()[0])
    sock.close()


@group
def multicast() -> None:
    address = ("239.1.2.3", 0)
    receivers = []
    port = 0
    for _ in range(2):
        receiver = make(socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        receiver.bind(("", port))
        port = receiver.getsockname()[1]
        membership = socket.inet_aton(address[0]) + socket.inet_aton(INTERFACE)
        say_outcome("join", receiver.setsockopt, 0, 35, membership)
        say_outcome("join again", receiver.setsockopt, 0, 35, membership)
        receivers.append(receiver)
    sender = make(socket.SOCK_DGRAM)
    sender.setsockopt(0, socket.IP_MULTICAST_IF, socket.inet_aton(INTERFACE))
    say("send", sender.sendto(b"to all", (address[0], port)))
    for receiver in receivers:
        settle(receiver, "5")
        say("heard", receiver.recv(100))
    sender.setsockopt(0, socket.IP_MULTICAST_LOOP, 0)
    sender.sendto(b"not to us", (address[0], port))
    select.select([], [], [], 0.1)
    say("without loop", [mask(receiver) for receiver in receivers])
    leaving = socket.inet_aton(address[0]) + socket.inet_aton(INTERFACE)
    say_outcome("leave", receivers[0].setsockopt, 0, 36, leaving)
    say_outcome("leave again", receivers[0].setsockopt, 0, 36, leaving)
    say_outcome("no group", receivers[0].setsockopt, 0, 35, socket.inet_aton("10.0.0.1") + bytes(4))
    say("queue", ioctl_number(receivers[0], 0x541B))
    for sock in [*receivers, sender]:
        sock.close()
