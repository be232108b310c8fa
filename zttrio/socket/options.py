"""Socket options: what programs may set, what they read back, and which endpoint attribute it is.

The table below is all there is: an option that is not in it is ENOPROTOOPT.  A value set before
the endpoint exists is kept and applied when it does; accepted sockets inherit as on Linux.
"""

from __future__ import annotations

import errno
import socket as kernel
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Options"]

_LINGER = struct.Struct("@ii")
# Linux's numbers; Python 3.11 has no names for these
IP_PKTINFO = 8
IP_RECVTTL = 12
IP_BIND_ADDRESS_NO_PORT = 24


def _boolean(value: int) -> int:
    return int(bool(value))


def _buffer(value: int) -> int:
    return max(2048, min(value, 1 << 26)) * 2  # Linux doubles what is asked for, and reports that


def _half(value: int) -> int:
    return value // 2


def _octet(value: int) -> int:
    if not 0 <= value <= 255:
        raise OSError(errno.EINVAL, f"socket option: {value} is not 0 to 255")
    return value


def _traffic_class(value: int) -> int:
    return 0 if value == -1 else _octet(value)  # RFC 3542 6.5: -1 is the default


def _group_hops(value: int) -> int:
    return 1 if value == -1 else _octet(value)  # 0 stays on this host


def _zero_or_one(value: int) -> int:
    if value not in (0, 1):
        raise OSError(errno.EINVAL, f"socket option: {value} is neither 0 nor 1")
    return value


def _hops(value: int) -> int:
    if value == -1:  # "the default", as everywhere
        return 64
    if not 1 <= value <= 255:
        raise OSError(errno.EINVAL, f"socket option: {value} is neither -1 nor 1 to 255")
    return value


def _positive(value: int) -> int:
    if value < 1:
        raise OSError(errno.EINVAL, f"socket option: {value} must be at least 1")
    return value


def _not_negative(value: int) -> int:
    if value < 0:
        raise OSError(errno.EINVAL, f"socket option: {value} must not be negative")
    return value


def _from_milliseconds(value: int) -> float:
    return value / 1000


@attrs.frozen
class _Option:
    """One row of the table.

    Attributes:
        name: what the endpoint calls it, or None if the endpoint need not know.
        default: what a program reads that has not set it.
        clean: turns what a program sets into what it reads back.
        convert: turns that into what the endpoint wants.
    """

    name: str | None
    default: int
    clean: Callable[[int], int] = _boolean
    convert: Callable[[int], float] = bool


_BOTH = {
    (kernel.SOL_SOCKET, kernel.SO_REUSEADDR): _Option(None, 0),
    (kernel.SOL_SOCKET, kernel.SO_REUSEPORT): _Option(None, 0),
    (kernel.SOL_SOCKET, kernel.SO_RCVBUF): _Option("receive_buffer", 131_072, _buffer, _half),
    (kernel.SOL_SOCKET, kernel.SO_SNDBUF): _Option("send_buffer", 16_384, _buffer, _half),
    (kernel.IPPROTO_IP, kernel.IP_TTL): _Option("hop_limit", 64, _hops, int),
    (kernel.IPPROTO_IP, kernel.IP_TOS): _Option("traffic_class", 0, _octet, int),
    # A connection's port is chosen by its four-tuple here in any case.
    (kernel.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT): _Option(None, 0),
    # Read by `zttrio.socket.ancillary`.
    (kernel.IPPROTO_IP, IP_PKTINFO): _Option(None, 0),
    (kernel.IPPROTO_IP, IP_RECVTTL): _Option(None, 0),
    (kernel.IPPROTO_IP, kernel.IP_RECVTOS): _Option(None, 0),
}
_IPV6 = {
    (kernel.IPPROTO_IPV6, kernel.IPV6_V6ONLY): _Option(None, 0),
    (kernel.IPPROTO_IPV6, kernel.IPV6_UNICAST_HOPS): _Option("hop_limit", 64, _hops, int),
    (kernel.IPPROTO_IPV6, kernel.IPV6_TCLASS): _Option("traffic_class", 0, _traffic_class, int),
    (kernel.IPPROTO_IPV6, kernel.IPV6_RECVPKTINFO): _Option(None, 0),
    (kernel.IPPROTO_IPV6, kernel.IPV6_RECVHOPLIMIT): _Option(None, 0),
    (kernel.IPPROTO_IPV6, kernel.IPV6_RECVTCLASS): _Option(None, 0),
}
_TCP = {
    (kernel.IPPROTO_IP, kernel.IP_MULTICAST_LOOP): _Option(None, 1),  # means nothing here
    (kernel.SOL_SOCKET, kernel.SO_KEEPALIVE): _Option("keep_alive", 0),
    (kernel.IPPROTO_TCP, kernel.TCP_NODELAY): _Option("nodelay", 0),
    (kernel.IPPROTO_TCP, kernel.TCP_CORK): _Option("cork", 0),
    (kernel.IPPROTO_TCP, kernel.TCP_QUICKACK): _Option("quick_ack", 0),
    (kernel.IPPROTO_TCP, kernel.TCP_KEEPIDLE): _Option("keep_idle", 7200, _positive, float),
    (kernel.IPPROTO_TCP, kernel.TCP_KEEPINTVL): _Option("keep_interval", 75, _positive, float),
    (kernel.IPPROTO_TCP, kernel.TCP_KEEPCNT): _Option("keep_count", 9, _positive, int),
    (kernel.IPPROTO_TCP, kernel.TCP_USER_TIMEOUT): _Option(
        "user_timeout", 0, _not_negative, _from_milliseconds
    ),
    # What a program may have unsent is bounded by the send buffer alone: data that waits here is
    # kept by reference, and long pieces of it are what makes sending cheap.
    (kernel.IPPROTO_TCP, kernel.TCP_NOTSENT_LOWAT): _Option(None, -1, _not_negative, int),
}
_UDP = {
    (kernel.SOL_SOCKET, kernel.SO_BROADCAST): _Option("may_broadcast", 0),
    (kernel.IPPROTO_IP, kernel.IP_MULTICAST_TTL): _Option(
        "multicast_hop_limit", 1, _group_hops, int
    ),
    (kernel.IPPROTO_IP, kernel.IP_MULTICAST_LOOP): _Option("multicast_loop", 1),
}
_TCP_IPV6 = {
    (kernel.IPPROTO_IPV6, kernel.IPV6_MULTICAST_LOOP): _Option(None, 1, _zero_or_one),
}
_UDP_IPV6 = {
    (kernel.IPPROTO_IPV6, kernel.IPV6_MULTICAST_HOPS): _Option(
        "multicast_hop_limit", 1, _group_hops, int
    ),
    (kernel.IPPROTO_IPV6, kernel.IPV6_MULTICAST_LOOP): _Option("multicast_loop", 1, _zero_or_one),
}
_NOT_FOR_STREAMS = {
    (kernel.IPPROTO_IP, kernel.IP_MULTICAST_TTL): errno.EINVAL,
    (kernel.IPPROTO_IP, kernel.IP_MULTICAST_IF): errno.EINVAL,
    (kernel.IPPROTO_IP, kernel.IP_ADD_MEMBERSHIP): errno.EPROTO,
    (kernel.IPPROTO_IP, kernel.IP_DROP_MEMBERSHIP): errno.EPROTO,
    (kernel.IPPROTO_IPV6, kernel.IPV6_JOIN_GROUP): errno.EPROTO,
    (kernel.IPPROTO_IPV6, kernel.IPV6_LEAVE_GROUP): errno.EPROTO,
}
"""What Linux says to stream sockets."""


_Values = tuple[tuple[tuple[int, int], int], ...]


class Options:
    """The options of one socket.

    On an IPv6 socket those of both levels are kept apart, but where both name the same setting of
    the endpoint, IPv6's acts.

    Args:
        family: AF_INET or AF_INET6.
        type: SOCK_STREAM or SOCK_DGRAM.
    """

    __slots__ = ("_family", "_linger", "_type", "_values")

    def __init__(self, family: int, type: int) -> None:  # noqa: A002 - the kernel's word
        self._family = family
        self._type = type
        self._values: _Values = ()  # sorted, so that sockets with the same options share them
        self._linger: tuple[int, int] = (0, 0)

    @property
    def is_v6_only(self) -> bool:
        """True if an IPv6 socket keeps to IPv6."""
        return self.is_on(kernel.IPPROTO_IPV6, kernel.IPV6_V6ONLY)

    @property
    def reuses_address(self) -> bool:
        """SO_REUSEADDR."""
        return self.is_on(kernel.SOL_SOCKET, kernel.SO_REUSEADDR)

    @property
    def reuses_port(self) -> bool:
        """SO_REUSEPORT."""
        return self.is_on(kernel.SOL_SOCKET, kernel.SO_REUSEPORT)

    def is_on(self, level: int, name: int) -> bool:
        """True if the option was set to something other than 0."""
        return bool(self._values) and bool(dict(self._values).get((level, name)))

    def get(self, level: int, name: int) -> int | bytes:
        """The value of an option.

        Raises:
            OSError: ENOPROTOOPT; EOPNOTSUPP, an option of IPv6 for a socket of IPv4.
        """
        if level == kernel.SOL_SOCKET:
            if name == kernel.SO_LINGER:
                return _LINGER.pack(*self._linger)
            fixed = {
                kernel.SO_TYPE: self._type,
                kernel.SO_DOMAIN: self._family,
                kernel.SO_PROTOCOL: 6 if self._type == kernel.SOCK_STREAM else 17,
            }
            if name in fixed:
                return int(fixed[name])
        if level == kernel.IPPROTO_IPV6 and self._family == kernel.AF_INET:
            raise OSError(errno.EOPNOTSUPP, f"socket option: {name} is for IPv6 sockets")
        row = _row(self._family, self._type, level, name)
        return dict(self._values).get((level, name), row.default)

    def set(self, level: int, name: int, value: Any) -> None:
        """Remember an option; `apply` makes it act.

        Raises:
            OSError: ENOPROTOOPT, or EINVAL for the value.
        """
        if (level, name) == (kernel.SOL_SOCKET, kernel.SO_LINGER):
            if isinstance(value, int) or len(value) < _LINGER.size:
                raise OSError(errno.EINVAL, "SO_LINGER: needs struct linger, two ints")
            self._linger = _LINGER.unpack_from(value)
            return
        if self._type == kernel.SOCK_STREAM:
            is_known = level == kernel.IPPROTO_IP or self._family == kernel.AF_INET6
            if is_known and (code := _NOT_FOR_STREAMS.get((level, name))):
                raise OSError(code, f"socket option: level {level} option {name} is for datagrams")
        row = _row(self._family, self._type, level, name)
        if not isinstance(value, int):
            if len(value) >= 4:
                value = int.from_bytes(bytes(value[:4]), "little", signed=True)
            elif level == kernel.IPPROTO_IP:  # BSD's options have one octet, and Linux takes that
                value = value[0] if len(value) else 0
            else:
                raise OSError(errno.EINVAL, f"socket option: needs 4 octets, got {len(value)}")
        self._values = _replaced(self._values, (level, name), row.clean(value))

    def changes(self) -> tuple[tuple[str, Any], ...]:
        """Everything that was set, by the names of the endpoint; the same object for the same."""
        return _changes(self._family, self._type, self._values, self._linger)

    def inherit(self, accepted: Options) -> None:
        """Give the options of a listener to a socket it has accepted, all of them as on Linux."""
        accepted._values = self._values
        accepted._linger = self._linger


# Every stream of a program is given the same two or three options, one by one.


@lru_cache(1024)
def _row(family: int, kind: int, level: int, name: int) -> _Option:
    key = (level, name)
    row = _BOTH.get(key) or (_TCP if kind == kernel.SOCK_STREAM else _UDP).get(key)
    if row is None and family == kernel.AF_INET6:
        more = _TCP_IPV6 if kind == kernel.SOCK_STREAM else _UDP_IPV6
        row = _IPV6.get(key) or more.get(key)
    if row is None:
        raise OSError(
            errno.ENOPROTOOPT, f"socket option: level {level} option {name} is not known here"
        )
    return row


@lru_cache(1024)
def _replaced(values: _Values, key: tuple[int, int], value: int) -> _Values:
    return tuple(sorted({**dict(values), key: value}.items()))


@lru_cache(1024)
def _changes(
    family: int, kind: int, values: _Values, linger: tuple[int, int]
) -> tuple[tuple[str, Any], ...]:
    changes: dict[str, Any] = {}
    for key, value in values:  # IPPROTO_IP before IPPROTO_IPV6
        row = _row(family, kind, *key)
        if row.name is not None:
            changes[row.name] = row.convert(value)
    if kind == kernel.SOCK_STREAM and linger[0]:
        changes["linger"] = float(linger[1])
    return tuple(changes.items())
