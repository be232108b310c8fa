"""Options read back what Linux would give back, and refuse what it refuses."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest

from zttrio.stack.tcp.options import TcpOptions
from zttrio.tap import options as known
from zttrio.tap.options import SocketOptions

SOL, TCP, IP, IP6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
STREAM, DGRAM = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)


def make(kind: int = STREAM, domain: int = socket.AF_INET) -> SocketOptions:
    return SocketOptions(domain, kind, "newreno")


def pack(value: int) -> bytes:
    return struct.pack("i", value)


def read(options: SocketOptions, level: int, option: int) -> int:
    return int(struct.unpack("i", options.get(level, option, 4))[0])


@pytest.mark.parametrize(
    ("level", "option", "value", "reading"),
    [
        (SOL, socket.SO_REUSEADDR, 5, 1),
        (SOL, socket.SO_KEEPALIVE, -1, 1),
        (SOL, socket.SO_SNDBUF, 8192, 16384),
        (SOL, socket.SO_SNDBUF, 1, 4608),
        (SOL, socket.SO_RCVBUF, 1, 2304),
        (SOL, socket.SO_RCVBUF, 10_000_000, 425_984),
        (SOL, known.SO_RCVBUFFORCE, 1, 2304),
        (TCP, socket.TCP_NODELAY, 9, 1),
        (TCP, socket.TCP_DEFER_ACCEPT, 5, 7),
        (TCP, socket.TCP_DEFER_ACCEPT, 0, 0),
        (TCP, socket.TCP_MAXSEG, 1000, 1000),
        (TCP, socket.TCP_LINGER2, -5, -1),
        (IP, socket.IP_TTL, -1, 64),
        (IP, socket.IP_TOS, 0x110, 0x10),
    ],
)
def test_a_value_reads_back_as_on_linux(level: int, option: int, value: int, reading: int) -> None:
    options = make()
    options.set(level, option, pack(value))
    read_as = (
        {known.SO_RCVBUFFORCE: socket.SO_RCVBUF}.get(option, option) if level == SOL else option
    )
    assert read(options, level, read_as) == reading


@pytest.mark.parametrize(
    ("level", "option", "value", "error"),
    [
        (SOL, 3999, pack(1), errno.ENOPROTOOPT),
        (SOL, socket.SO_TYPE, pack(1), errno.ENOPROTOOPT),
        (SOL, socket.SO_KEEPALIVE, b"\1", errno.EINVAL),
        (SOL, socket.SO_LINGER, pack(1), errno.EINVAL),
        (SOL, known.SO_ZEROCOPY, pack(1), errno.EOPNOTSUPP),
        (TCP, socket.TCP_KEEPIDLE, pack(0), errno.EINVAL),
        (TCP, socket.TCP_KEEPCNT, pack(200), errno.EINVAL),
        (TCP, socket.TCP_MAXSEG, pack(10), errno.EINVAL),
        (TCP, socket.TCP_CONGESTION, b"bbr\0", errno.ENOENT),
        (IP, socket.IP_TTL, pack(256), errno.EINVAL),
        (IP6, socket.IPV6_V6ONLY, pack(1), errno.ENOPROTOOPT),
    ],
)
def test_a_bad_value_is_refused_as_on_linux(
    level: int, option: int, value: bytes, error: int
) -> None:
    with pytest.raises(OSError) as caught:
        make().set(level, option, value)
    assert caught.value.errno == error


def test_the_families_and_kinds_have_options_of_their_own() -> None:
    six = make(domain=socket.AF_INET6)
    six.set(IP6, socket.IPV6_V6ONLY, pack(1))
    assert six.is_v6_only
    six.set(IP, socket.IP_TOS, pack(8))  # also on IPv6 sockets, for their IPv4 peers
    datagram = make(DGRAM)
    datagram.set(SOL, socket.SO_BROADCAST, pack(1))
    assert datagram.changes() == {"may_broadcast": True}
    with pytest.raises(OSError, match="not known"):
        datagram.set(TCP, socket.TCP_NODELAY, pack(1))


def test_short_buffers_get_what_linux_puts_into_them() -> None:
    options = make()
    assert options.get(IP, socket.IP_TTL, 1) == b"\x40"
    assert options.get(SOL, socket.SO_KEEPALIVE, 2) == b"\0\0"
    options.set(IP, socket.IP_TOS, b"\x10")
    assert read(options, IP, socket.IP_TOS) == 0x10
    options.set(IP, socket.IP_TOS, b"")
    assert read(options, IP, socket.IP_TOS) == 0


def test_linger_and_names_are_no_numbers() -> None:
    options = make()
    options.set(SOL, socket.SO_LINGER, struct.pack("ii", 5, 7))
    assert options.get(SOL, socket.SO_LINGER, 8) == struct.pack("ii", 1, 7)
    options.set(SOL, socket.SO_BINDTODEVICE, b"zt0\0")
    assert options.get(SOL, socket.SO_BINDTODEVICE, 16) == b"zt0\0"
    assert options.get(TCP, socket.TCP_CONGESTION, 16) == b"newreno".ljust(16, b"\0")
    options.set(TCP, socket.TCP_CONGESTION, b"newreno\0\0")


def test_the_stack_gets_its_own_words_and_understands_them() -> None:
    options = make()
    for level, option, value in (
        (SOL, socket.SO_KEEPALIVE, 1),
        (SOL, socket.SO_SNDBUF, 50_000),
        (TCP, socket.TCP_KEEPIDLE, 30),
        (TCP, socket.TCP_USER_TIMEOUT, 2500),
        (TCP, socket.TCP_CORK, 1),
        (IP, socket.IP_TOS, 0x10),
        (SOL, socket.SO_REUSEADDR, 1),
    ):
        options.set(level, option, pack(value))
    options.set(SOL, socket.SO_LINGER, struct.pack("ii", 1, 0))
    changes = options.changes()
    assert changes == {
        "keep_alive": True,
        "send_buffer": 100_000,
        "keep_idle": 30.0,
        "user_timeout": 2.5,
        "cork": True,
        "traffic_class": 0x10,
        "linger": 0.0,
    }
    assert TcpOptions(**changes).linger == 0.0


def test_every_option_of_the_table_has_a_default_that_it_accepts() -> None:
    for table, kind in ((known._STREAM, STREAM), (known._DATAGRAM, DGRAM), (known._BOTH, STREAM)):
        for level, option in table:
            options = make(kind)
            options.set(level, option, options.get(level, option, 4))


def test_an_accepted_socket_starts_with_its_listeners_options() -> None:
    listener = make()
    listener.set(TCP, socket.TCP_NODELAY, pack(1))
    listener.set(SOL, socket.SO_LINGER, struct.pack("ii", 1, 3))
    accepted = listener.inherit()
    assert read(accepted, TCP, socket.TCP_NODELAY) == 1
    assert accepted.get(SOL, socket.SO_LINGER, 8) == struct.pack("ii", 1, 3)
    accepted.set(TCP, socket.TCP_NODELAY, pack(0))
    assert read(listener, TCP, socket.TCP_NODELAY) == 1


def test_a_kernel_socket_can_be_given_the_same_settings() -> None:
    options = make()
    settings: list[tuple[int, int, Any]] = [
        (SOL, socket.SO_REUSEADDR, pack(1)),
        (SOL, socket.SO_RCVBUF, pack(50_000)),
        (TCP, socket.TCP_KEEPIDLE, pack(77)),
    ]
    for level, option, value in settings:
        options.set(level, option, value)
    with socket.socket() as real:
        for level, option, value in options.settings():
            real.setsockopt(level, option, value)
        for level, option, _ in settings:
            assert real.getsockopt(level, option, 4) == options.get(level, option, 4)
