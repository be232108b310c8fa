"""UDP."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import termios
import time

from .base import (
    BROADCAST,
    HOST,
    UNREACHABLE,
    Address,
    error_of,
    free_port,
    group,
    ioctl_number,
    make,
    mask,
    nonblocking,
    say,
    say_outcome,
    settle,
)

# T9: datagrams


@group
def datagrams() -> None:
    one, two = make(socket.SOCK_DGRAM), make(socket.SOCK_DGRAM)
    say("fresh", mask(one))
    say("fresh name", one.getsockname())
    say_outcome("no destination", one.send, b"x")
    say_outcome("getpeername", one.getpeername)
    say_outcome("shutdown", make(socket.SOCK_DGRAM).shutdown, socket.SHUT_RD)
    say_outcome("listen", one.listen)
    say_outcome("accept", one.accept)
    two.bind((HOST, 0))
    say_outcome("bind twice", two.bind, (HOST, 0))
    address = two.getsockname()
    say("sendto", one.sendto(b"hello", address))
    say("readable", settle(two, "5"))
    say("FIONREAD", ioctl_number(two, termios.FIONREAD))
    data, source = two.recvfrom(100)
    say("recvfrom", (data, source[0], source[1] == one.getsockname()[1]))
    say_outcome("too long", one.sendto, bytes(65_508), address)
    say_outcome("longest", one.sendto, bytes(65_507), address)
    settle(two, "5")
    say("longest arrives", len(two.recv(70_000)))
    say_outcome("port 0", one.sendto, b"x", (HOST, 0))
    say_outcome("broadcast", one.sendto, b"x", (BROADCAST, 9))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    say_outcome("broadcast allowed", one.sendto, b"x", (BROADCAST, 9))
    say_outcome("unreachable", one.sendto, b"x", (UNREACHABLE, 9))
    one.sendto(b"", address)
    say("empty readable", settle(two, "5"))
    data, source = two.recvfrom(100)
    say("empty", (data, source[1] == one.getsockname()[1]))
    one.sendto(b"boundary", address)
    one.sendto(b"kept", address)
    settle(two, "5")
    time.sleep(0.05)
    say("first", two.recv(100))
    say("second", two.recv(100))
    one.sendto(b"truncated", address)
    settle(two, "5")
    say("truncated", (*two.recvmsg(5)[:1], two_flags(one, two, address)))
    one.sendto(b"full length", address)
    settle(two, "5")
    say("MSG_TRUNC", two.recv_into(bytearray(4), 4, socket.MSG_TRUNC))
    one.sendto(b"peeked", address)
    settle(two, "5")
    say("MSG_PEEK", two.recv(100, socket.MSG_PEEK))
    say("MSG_PEEK again", two.recvfrom(3, socket.MSG_PEEK)[0])
    say("peeked", two.recv(100))
    with nonblocking(two):
        say_outcome("empty queue", two.recv, 1)
    two.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
    say_outcome("SO_RCVTIMEO", two.recv, 1)
    one.sendmsg([b"in ", b"pieces"], [], 0, address)
    settle(two, "5")
    say("read", os.read(two.fileno(), 100))
    one.connect(address)
    os.write(one.fileno(), b"written")
    settle(two, "5")
    say("write", two.recv(100))
    one.close()
    two.close()


def two_flags(one: socket.socket, two: socket.socket, address: Address) -> bool:
    one.sendto(b"truncated", address)
    settle(two, "5")
    return bool(two.recvmsg(5)[2] & socket.MSG_TRUNC)


@group
def datagram_peers() -> None:
    server, client, stranger = (make(socket.SOCK_DGRAM) for _ in range(3))
    for sock in (server, stranger):
        sock.bind((HOST, 0))
    client.bind((HOST, free_port()))
    client.connect(server.getsockname())
    say("peer", client.getpeername() == server.getsockname())
    stranger.sendto(b"not from the peer", client.getsockname())
    server.sendto(b"from the peer", client.getsockname())
    settle(client, "5")
    time.sleep(0.05)
    say("filtered", client.recv(100))
    with nonblocking(client):
        say_outcome("only that", client.recv, 100)
    say("send", client.send(b"to the peer"))
    settle(server, "5")
    say("received", server.recv(100))
    say("elsewhere", client.sendto(b"to a stranger", stranger.getsockname()))
    settle(stranger, "5")
    say("stranger", stranger.recv(100))
    unconnect(client)
    say_outcome("dissolved", client.getpeername)
    stranger.sendto(b"welcome now", client.getsockname())
    say("unfiltered", (settle(client, "5"), client.recv(100)))
    # Another socket on the same port takes what the connected one does not.
    first, second = make(socket.SOCK_DGRAM), make(socket.SOCK_DGRAM)
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind((HOST, 0))
    first.connect(server.getsockname())
    second.bind(first.getsockname())
    server.sendto(b"for the first", first.getsockname())
    stranger.sendto(b"for the second", first.getsockname())
    settle(first, "5")
    settle(second, "5")
    say("first", first.recv(100))
    say("second", second.recv(100))
    for sock in (server, client, stranger, first, second):
        sock.close()


def unconnect(sock: socket.socket) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.connect(sock.fileno(), struct.pack("=H", socket.AF_UNSPEC) + bytes(14), 16)


@group
def datagram_errors() -> None:
    port = free_port()
    sock = make(socket.SOCK_DGRAM)
    sock.connect((HOST, port))
    say("first send", sock.send(b"x"))
    say("told", settle(sock, "c", "5") in ("c", "5"))
    say_outcome("then recv", sock.recv, 1)
    with nonblocking(sock):
        say_outcome("once", sock.recv, 1)
    sock.send(b"x")
    settle(sock, "c", "5")
    say_outcome("then send", sock.send, b"x")
    say_outcome("send again", sock.send, b"x")
    settle(sock, "c", "5")
    say("SO_ERROR", error_of(sock))
    say("SO_ERROR again", error_of(sock))
    sock.close()
    sock = make(socket.SOCK_DGRAM)
    sock.sendto(b"x", (HOST, port))
    time.sleep(0.1)
    say("unconnected hears nothing", (mask(sock), error_of(sock)))
    sock.close()


@group
def datagram_controls() -> None:
    one, two = make(socket.SOCK_DGRAM), make(socket.SOCK_DGRAM)
    two.bind(("0.0.0.0", 0))
    address = (HOST, two.getsockname()[1])
    two.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    two.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
    one.sendto(b"x", address)
    settle(two, "5")
    _, controls, flags, _ = two.recvmsg(10, 512)
    found = {(level, kind): data for level, kind, data in controls}
    info = found.get((0, 8), bytes(12))
    say("pktinfo", socket.inet_ntoa(info[8:12]))
    say("tos", found.get((0, 1)))
    say("flags", flags)
    one.sendto(b"x", address)
    settle(two, "5")
    say("no room for controls", bool(two.recvmsg(10, 8)[2] & socket.MSG_CTRUNC))
    one.close()
    two.close()
