"""Options read back what was set."""

from __future__ import annotations

import socket

from .base import (
    error_of,
    group,
    linger_zero,
    make,
    outcome,
    pair,
    say,
)

# T10: options


@group
def options() -> None:
    stream = [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, (1, 0, 5)),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, (1, 0, 7)),
        (socket.SOL_SOCKET, socket.SO_BROADCAST, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_OOBINLINE, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, (8192, 100_000, 1)),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, (8192, 100_000, 1)),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, (1, 0, 9)),
        (socket.IPPROTO_TCP, socket.TCP_CORK, (1, 0)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, (100, 0, 40_000)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, (10, 0)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, (5, 0, 200)),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, (5000, -1)),
        (socket.IPPROTO_TCP, socket.TCP_SYNCNT, (3, 0)),
        (socket.IPPROTO_TCP, socket.TCP_LINGER2, (30,)),
        (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, (1, 5, 30)),
        (socket.IPPROTO_IP, socket.IP_TOS, (0x10,)),
        (socket.IPPROTO_IP, socket.IP_TTL, (10, 256)),
        (socket.IPPROTO_IP, 10, (0, 2, 9)),  # IP_MTU_DISCOVER
        (socket.IPPROTO_IP, 11, (1, 0)),  # IP_RECVERR
        (socket.IPPROTO_IP, 24, (1, 0)),  # IP_BIND_ADDRESS_NO_PORT
    ]
    sock = make()
    for level, option, values in stream:
        for value in values:
            say(
                f"option {level} {option} = {value}",
                (outcome(sock.setsockopt, level, option, value), sock.getsockopt(level, option)),
            )
    say("linger", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    linger_zero(sock)
    say("linger set", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    say("maxseg", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
    say("one octet", sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1))
    say("short", sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 2))
    say("info state", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0])
    sock.close()
    caller, accepted = pair()
    say("connected info", caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0])
    say("connected nodelay", outcome(caller.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1))
    say("connected reads", caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    for one in (caller, accepted):
        one.close()
    datagram = make(socket.SOCK_DGRAM)
    for level, option, values in (
        (socket.SOL_SOCKET, socket.SO_BROADCAST, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, (8192, 1)),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, (8192, 1)),
        (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, (5,)),
        (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, (0, 1)),
        (socket.IPPROTO_IP, socket.IP_RECVTOS, (1, 0)),
    ):
        for value in values:
            say(
                f"datagram option {level} {option} = {value}",
                (
                    outcome(datagram.setsockopt, level, option, value),
                    datagram.getsockopt(level, option),
                ),
            )
    say("error", error_of(datagram))
    datagram.close()
