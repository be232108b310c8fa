"""Socket options as unmodified programs use them: octets in, octets out, Linux's errno values.

This table is larger than the one behind `zttrio.socket`: programs probe for options, and many give
up on an error that no kernel would give.  Those that have a meaning for the stack carry the name
the stack gives them; all others are remembered, because a value that was set must read back.
"""

from __future__ import annotations

import errno
import socket as kernel
import struct
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SocketOptions"]

SOCK_STREAM = int(kernel.SOCK_STREAM)
AF_INET6 = int(kernel.AF_INET6)
_INT = struct.Struct("=i")
_LINGER = struct.Struct("=ii")
_BUFFER_LIMIT = 212_992  # Linux's default wmem_max and rmem_max
_NAME_ROOM = 16  # IFNAMSIZ, and TCP_CA_NAME_MAX

# Linux's numbers; Python 3.11 has no names for these.
SO_NO_CHECK = 11
SO_TIMESTAMPING = 37
SO_RXQ_OVFL = 40
SO_BUSY_POLL = 46
SO_MAX_PACING_RATE = 47
SO_PREFER_BUSY_POLL = 69
SO_BINDTOIFINDEX = 62
SO_ZEROCOPY = 60
SO_REUSEPORT = 15
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
TCP_THIN_LINEAR_TIMEOUTS = 16
TCP_THIN_DUPACK = 17
TCP_FASTOPEN_CONNECT = 30
TCP_FASTOPEN_NO_COOKIE = 34
TCP_SAVE_SYN = 27
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
IP_MTU = 14
IP_FREEBIND = 15
IP_BIND_ADDRESS_NO_PORT = 24
IP_MULTICAST_ALL = 49
IP_UNICAST_IF = 50
IP_PKTINFO = 8
IP_RECVTTL = 12
IP_MULTICAST_IF = 32
IP_ADD_MEMBERSHIP = 35
IP_DROP_MEMBERSHIP = 36
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
IPV6_RECVERR = 25
IPV6_MULTICAST_ALL = 29
IPV6_AUTOFLOWLABEL = 70
IPV6_ADDR_PREFERENCES = 72
IPV6_FREEBIND = 78
IPV6_UNICAST_IF = 76


def _boolean(value: int) -> int:
    return int(bool(value))


def _any(value: int) -> int:
    return value


def _between(low: int, high: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise OSError(errno.EINVAL, f"socket option: {value} is not {low} to {high}")
        return value

    return check


def _send_buffer(value: int) -> int:
    return max(min(value & 0x7FFF_FFFF, _BUFFER_LIMIT) * 2, 4608)  # SOCK_MIN_SNDBUF


def _receive_buffer(value: int) -> int:
    return max(min(value & 0x7FFF_FFFF, _BUFFER_LIMIT) * 2, 2304)  # SOCK_MIN_RCVBUF


def _hops(value: int) -> int:
    return 64 if value == -1 else _between(1, 255)(value)


def _hops_six(value: int) -> int:
    return 64 if value == -1 else _between(0, 255)(value)


def _max_segment(value: int) -> int:
    return value if value == 0 else _between(88, 32767)(value)  # TCP_MIN_MSS, MAX_TCP_WINDOW


def _deferral(value: int) -> int:
    """TCP_DEFER_ACCEPT counts retransmissions, so seconds come back rounded up to one of them."""
    if value <= 0:
        return 0
    period = timeout = 1
    while period < value and period < 10_000:
        timeout = min(timeout * 2, 120)
        period += timeout
    return period


def _seconds(value: int) -> float:
    return float(value)


def _milliseconds(value: int) -> float:
    return value / 1000


@attrs.frozen
class _Option:
    """One row of the table.

    Attributes:
        default: what a program reads that has not set it.
        clean: turns what a program sets into what it reads back, or raises OSError.
        name: what the stack calls it, or None if the stack need not know.
        convert: turns the value into what the stack wants.
    """

    default: int = 0
    clean: Callable[[int], int] = _boolean
    name: str | None = None
    convert: Callable[[int], float] = bool


_Key = tuple[int, int]
_SOL, _IP, _IP6, _TCP_LEVEL, _UDP_LEVEL = (
    int(kernel.SOL_SOCKET),
    int(kernel.IPPROTO_IP),
    int(kernel.IPPROTO_IPV6),
    int(kernel.IPPROTO_TCP),
    int(kernel.IPPROTO_UDP),
)
_toggle = _Option()

_BOTH: dict[_Key, _Option] = {
    (_SOL, kernel.SO_DEBUG): _toggle,
    (_SOL, kernel.SO_REUSEADDR): _toggle,
    (_SOL, SO_REUSEPORT): _toggle,
    (_SOL, kernel.SO_DONTROUTE): _toggle,
    (_SOL, kernel.SO_OOBINLINE): _toggle,
    (_SOL, SO_NO_CHECK): _toggle,
    (_SOL, SO_RXQ_OVFL): _toggle,
    (_SOL, SO_BUSY_POLL): _Option(0, _between(0, 0x7FFF_FFFF)),
    (_SOL, SO_PREFER_BUSY_POLL): _toggle,
    (_SOL, SO_TIMESTAMPING): _Option(0, _any),
    (_SOL, SO_BINDTOIFINDEX): _Option(0, _between(0, 0x7FFF_FFFF)),
    (_SOL, SO_MAX_PACING_RATE): _Option(-1, _any),
    (_SOL, kernel.SO_INCOMING_CPU): _Option(-1, _any),
    (_IP, kernel.IP_TTL): _Option(64, _hops, "hop_limit", int),
    (_IP, kernel.IP_TOS): _Option(0, lambda value: value & 0xFF, "traffic_class", int),
    (_IP, IP_MTU_DISCOVER): _Option(1, _between(0, 5)),
    (_IP, IP_RECVERR): _toggle,
    (_IP, IP_FREEBIND): _toggle,
    (_IP, IP_BIND_ADDRESS_NO_PORT): _toggle,
    (_IP, IP_PKTINFO): _toggle,
    (_IP, IP_RECVTTL): _toggle,
    (_IP, kernel.IP_RECVTOS): _toggle,
    (_IP, IP_MULTICAST_ALL): _Option(1),
    (_IP, IP_UNICAST_IF): _Option(0, _any),
    (_IP, kernel.IP_MULTICAST_TTL): _Option(1, _hops, "multicast_hop_limit", int),
    (_IP, kernel.IP_MULTICAST_LOOP): _Option(1, _boolean, "multicast_loop"),
}
_SIX: dict[_Key, _Option] = {
    (_IP6, kernel.IPV6_V6ONLY): _toggle,
    (_IP6, kernel.IPV6_UNICAST_HOPS): _Option(64, _hops_six, "hop_limit", int),
    (_IP6, kernel.IPV6_TCLASS): _Option(
        0, lambda value: 0 if value == -1 else _between(0, 255)(value), "traffic_class", int
    ),
    (_IP6, IPV6_MTU_DISCOVER): _Option(1, _between(0, 5)),
    (_IP6, IPV6_RECVERR): _toggle,
    (_IP6, IPV6_FREEBIND): _toggle,
    (_IP6, IPV6_AUTOFLOWLABEL): _Option(1),
    (_IP6, IPV6_ADDR_PREFERENCES): _Option(0, _any),
    (_IP6, IPV6_UNICAST_IF): _Option(0, _any),
    (_IP6, IPV6_MULTICAST_ALL): _Option(1),
    (_IP6, kernel.IPV6_RECVPKTINFO): _toggle,
    (_IP6, kernel.IPV6_RECVHOPLIMIT): _toggle,
    (_IP6, kernel.IPV6_RECVTCLASS): _toggle,
    (_IP6, kernel.IPV6_DONTFRAG): _toggle,
    (_IP6, kernel.IPV6_MULTICAST_HOPS): _Option(1, _hops_six, "multicast_hop_limit", int),
    (_IP6, kernel.IPV6_MULTICAST_LOOP): _Option(1, _boolean, "multicast_loop"),
}
_STREAM: dict[_Key, _Option] = {
    (_SOL, kernel.SO_BROADCAST): _toggle,
    (_SOL, kernel.SO_KEEPALIVE): _Option(name="keep_alive"),
    (_SOL, kernel.SO_SNDBUF): _Option(16_384, _send_buffer, "send_buffer", int),
    (_SOL, kernel.SO_RCVBUF): _Option(131_072, _receive_buffer, "receive_buffer", int),
    (_TCP_LEVEL, kernel.TCP_NODELAY): _Option(name="nodelay"),
    (_TCP_LEVEL, kernel.TCP_CORK): _Option(name="cork"),
    (_TCP_LEVEL, kernel.TCP_QUICKACK): _Option(1, _boolean, "quick_ack"),
    (_TCP_LEVEL, kernel.TCP_MAXSEG): _Option(536, _max_segment, "max_segment", int),
    (_TCP_LEVEL, kernel.TCP_KEEPIDLE): _Option(7200, _between(1, 32767), "keep_idle", _seconds),
    (_TCP_LEVEL, kernel.TCP_KEEPINTVL): _Option(75, _between(1, 32767), "keep_interval", _seconds),
    (_TCP_LEVEL, kernel.TCP_KEEPCNT): _Option(9, _between(1, 127), "keep_count", int),
    (_TCP_LEVEL, kernel.TCP_USER_TIMEOUT): _Option(
        0, _between(0, 0x7FFF_FFFF), "user_timeout", _milliseconds
    ),
    (_TCP_LEVEL, kernel.TCP_SYNCNT): _Option(6, _between(1, 127)),
    (_TCP_LEVEL, kernel.TCP_LINGER2): _Option(60, lambda value: -1 if value < 0 else value),
    (_TCP_LEVEL, kernel.TCP_DEFER_ACCEPT): _Option(0, _deferral),
    (_TCP_LEVEL, kernel.TCP_WINDOW_CLAMP): _Option(0, _any),
    (_TCP_LEVEL, kernel.TCP_NOTSENT_LOWAT): _Option(0, _any),
    (_TCP_LEVEL, kernel.TCP_FASTOPEN): _Option(0, _between(0, 0x7FFF_FFFF)),
    (_TCP_LEVEL, TCP_FASTOPEN_CONNECT): _toggle,
    (_TCP_LEVEL, TCP_FASTOPEN_NO_COOKIE): _toggle,
    (_TCP_LEVEL, TCP_THIN_LINEAR_TIMEOUTS): _toggle,
    (_TCP_LEVEL, TCP_THIN_DUPACK): _toggle,
    (_TCP_LEVEL, TCP_SAVE_SYN): _Option(0, _between(0, 2)),
}
_DATAGRAM: dict[_Key, _Option] = {
    (_SOL, kernel.SO_BROADCAST): _Option(name="may_broadcast"),
    (_SOL, kernel.SO_KEEPALIVE): _toggle,
    (_SOL, kernel.SO_SNDBUF): _Option(_BUFFER_LIMIT, _send_buffer, "send_buffer", int),
    (_SOL, kernel.SO_RCVBUF): _Option(_BUFFER_LIMIT, _receive_buffer, "receive_buffer", int),
    (_UDP_LEVEL, 1): _toggle,  # UDP_CORK
}
_FORCED = {SO_SNDBUFFORCE: kernel.SO_SNDBUF, SO_RCVBUFFORCE: kernel.SO_RCVBUF}
_READ_ONLY = {kernel.SO_TYPE, kernel.SO_DOMAIN, kernel.SO_PROTOCOL, kernel.SO_ERROR}
_LINGER_KEY = (_SOL, int(kernel.SO_LINGER))
_DEVICE_KEY = (_SOL, int(kernel.SO_BINDTODEVICE))
_CONGESTION_KEY = (_TCP_LEVEL, int(kernel.TCP_CONGESTION))


def _unknown(level: int, option: int) -> OSError:
    return OSError(errno.ENOPROTOOPT, f"socket option: level {level}, option {option}: not known")


class SocketOptions:
    """The options of one intercepted socket.

    Args:
        domain: AF_INET or AF_INET6.
        type: SOCK_STREAM or SOCK_DGRAM.
        congestion: what TCP_CONGESTION reads.
    """

    __slots__ = ("_congestion", "_device", "_domain", "_linger", "_type", "_values")

    def __init__(self, domain: int, type: int, congestion: str) -> None:  # noqa: A002
        self._domain = domain
        self._type = type
        self._values: dict[_Key, int] = {}
        self._linger = (0, 0)
        self._device = b""
        self._congestion = congestion

    def _row(self, level: int, option: int) -> _Option:
        key = (level, option)
        row = _BOTH.get(key) or (_STREAM if self._type == SOCK_STREAM else _DATAGRAM).get(key)
        if row is None and self._domain == AF_INET6:
            row = _SIX.get(key)
        if row is None:
            raise _unknown(level, option)
        return row

    def value(self, level: int, option: int) -> int:
        """The number an option reads as.

        Raises:
            OSError: ENOPROTOOPT.
        """
        row = self._row(level, option)
        return self._values.get((level, option), row.default)

    @property
    def is_v6_only(self) -> bool:
        """True if an IPv6 socket keeps to IPv6."""
        return bool(self._values.get((_IP6, int(kernel.IPV6_V6ONLY)), 0))

    @property
    def reuse_address(self) -> bool:
        """SO_REUSEADDR."""
        return bool(self._values.get((_SOL, int(kernel.SO_REUSEADDR)), 0))

    @property
    def reuse_port(self) -> bool:
        """SO_REUSEPORT."""
        return bool(self._values.get((_SOL, SO_REUSEPORT), 0))

    @property
    def device(self) -> bytes:
        """SO_BINDTODEVICE, empty for any."""
        return self._device

    def is_on(self, level: int, option: int) -> bool:
        """True if the option was set to something other than 0."""
        return bool(self._values.get((level, option), 0))

    def get(self, level: int, option: int, room: int) -> bytes:
        """What getsockopt() gives a program with *room* octets.

        Raises:
            OSError: ENOPROTOOPT.
        """
        key = (level, option)
        if key == _LINGER_KEY:
            return _LINGER.pack(*self._linger)[:room]
        if key == _DEVICE_KEY:
            return self._device[:room]
        if key == _CONGESTION_KEY and self._type == SOCK_STREAM:
            return self._congestion.encode().ljust(_NAME_ROOM, b"\0")[:room]
        return number(self.value(level, option), level, room)

    def set(self, level: int, option: int, value: bytes) -> None:
        """Remember what setsockopt() brings; `changes` makes it act.

        Raises:
            OSError: ENOPROTOOPT, or EINVAL and its like for the value.
        """
        key = (level, option)
        if key == _LINGER_KEY:
            if len(value) < _LINGER.size:
                raise OSError(errno.EINVAL, "SO_LINGER: needs struct linger, two ints")
            is_on, seconds = _LINGER.unpack_from(value)
            self._linger = (int(bool(is_on)), seconds)
        elif key == _DEVICE_KEY:
            self._device = value[: _NAME_ROOM - 1].split(b"\0", 1)[0]
            if self._device:
                self._device += b"\0"
        elif key == _CONGESTION_KEY and self._type == SOCK_STREAM:
            if value.split(b"\0", 1)[0].decode("ascii", "replace") != self._congestion:
                raise OSError(errno.ENOENT, f"TCP_CONGESTION: only {self._congestion} is here")
        elif level == _SOL and option in _READ_ONLY:
            raise _unknown(level, option)
        elif level == _SOL and option == SO_ZEROCOPY:
            raise OSError(errno.EOPNOTSUPP, "SO_ZEROCOPY: there is always a copy")
        else:
            self._set_number(level, _FORCED.get(option, option) if level == _SOL else option, value)

    def _set_number(self, level: int, option: int, value: bytes) -> None:
        row = self._row(level, option)
        if len(value) >= _INT.size:
            wanted = _INT.unpack_from(value)[0]
        elif level == _IP:  # Linux takes a single octet here, and nothing for zero
            wanted = value[0] if value else 0
        else:
            raise OSError(errno.EINVAL, f"socket option: needs 4 octets, got {len(value)}")
        self._values[level, option] = row.clean(wanted)

    def changes(self) -> dict[str, Any]:
        """Everything that was set and that the stack has a name for, by that name."""
        changes: dict[str, Any] = {}
        for key, value in self._values.items():
            row = self._row(*key)
            if row.name is not None:
                changes[row.name] = row.convert(value)
        if self._type == SOCK_STREAM and self._linger[0]:
            changes["linger"] = float(self._linger[1])
        return changes

    def inherit(self) -> SocketOptions:
        """What a socket starts with that a listener with these options has accepted."""
        accepted = SocketOptions(self._domain, self._type, self._congestion)
        accepted._values = dict(self._values)
        accepted._linger = self._linger
        accepted._device = self._device
        return accepted

    def settings(self) -> list[tuple[int, int, bytes]]:
        """Everything that was set, as setsockopt() would have to be told again."""
        settings = [
            (level, option, _INT.pack(value // 2 if self._is_buffer(level, option) else value))
            for (level, option), value in self._values.items()
        ]
        if self._linger[0]:
            settings.append((*_LINGER_KEY, _LINGER.pack(*self._linger)))
        return settings

    @staticmethod
    def _is_buffer(level: int, option: int) -> bool:
        return level == _SOL and option in (kernel.SO_SNDBUF, kernel.SO_RCVBUF)


def number(value: int, level: int, room: int) -> bytes:
    """*value* as getsockopt() writes it into *room* octets."""
    if level == _IP and 0 < room < _INT.size and 0 <= value <= 255:
        return bytes((value,))
    return _INT.pack(value)[:room]
