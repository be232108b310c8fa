"""Socket options: what programs may set, what they read back, and which endpoint attribute it is.

The table below is all there is: an option that is not in it is ENOPROTOOPT.  A value set before
the endpoint exists is kept and applied when it does; accepted sockets inherit as on Linux.
"""

from __future__ import annotations

import errno
import socket as kernel
import struct
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Options"]

_LINGER = struct.Struct("@ii")


def _boolean(value: int) -> int:
    return int(bool(value))


def _buffer(value: int) -> int:
    return max(2048, min(value, 1 << 26)) * 2  # Linux doubles what is asked for, and reports that


def _octet(value: int) -> int:
    if not -1 <= value <= 255:
        raise OSError(errno.EINVAL, f"socket option: {value} is not -1 to 255")
    return value


def _positive(value: int) -> int:
    if value < 1:
        raise OSError(errno.EINVAL, f"socket option: {value} must be at least 1")
    return value


def _not_negative(value: int) -> int:
    if value < 0:
        raise OSError(errno.EINVAL, f"socket option: {value} must not be negative")
    return value


@attrs.frozen
class _Option:
    """One row: the attribute it is on an endpoint (if any), its default, and what is allowed."""

    attribute: str | None
    default: int
    clean: Callable[[int], int] = _boolean
    is_inherited: bool = True


_SOCKET = {
    (kernel.SOL_SOCKET, kernel.SO_REUSEADDR): _Option(None, 0),
    (kernel.SOL_SOCKET, kernel.SO_REUSEPORT): _Option(None, 0),
    (kernel.SOL_SOCKET, kernel.SO_BROADCAST): _Option("may_broadcast", 0),
    (kernel.SOL_SOCKET, kernel.SO_KEEPALIVE): _Option("keepalive", 0),
    (kernel.SOL_SOCKET, kernel.SO_RCVBUF): _Option("receive_buffer", 131_072, _buffer),
    (kernel.SOL_SOCKET, kernel.SO_SNDBUF): _Option("send_buffer", 16_384, _buffer),
    (kernel.IPPROTO_IP, kernel.IP_TTL): _Option("hop_limit", 64, _octet),
    (kernel.IPPROTO_IP, kernel.IP_TOS): _Option("traffic_class", 0, _octet),
    # The four-tuple decides here anyway, not the port alone.
    (kernel.IPPROTO_IP, 24): _Option(None, 0),  # IP_BIND_ADDRESS_NO_PORT
}
_IPV6 = {
    (kernel.IPPROTO_IPV6, kernel.IPV6_V6ONLY): _Option(None, 0),
    (kernel.IPPROTO_IPV6, kernel.IPV6_UNICAST_HOPS): _Option("hop_limit", 64, _octet),
    (kernel.IPPROTO_IPV6, kernel.IPV6_TCLASS): _Option("traffic_class", 0, _octet),
}
_TCP = {
    (kernel.IPPROTO_TCP, kernel.TCP_NODELAY): _Option("nodelay", 0),
    (kernel.IPPROTO_TCP, kernel.TCP_NOTSENT_LOWAT): _Option(
        "notsent_lowat", 0xFFFF_FFFF, _not_negative
    ),
    (kernel.IPPROTO_TCP, kernel.TCP_KEEPIDLE): _Option("keepidle", 7200, _positive),
    (kernel.IPPROTO_TCP, kernel.TCP_KEEPINTVL): _Option("keepintvl", 75, _positive),
    (kernel.IPPROTO_TCP, kernel.TCP_KEEPCNT): _Option("keepcnt", 9, _positive),
}


class Options:
    """The options of one socket.

    Args:
        family: AF_INET or AF_INET6.
        type: SOCK_STREAM or SOCK_DGRAM.
    """

    def __init__(self, family: int, type: int) -> None:  # noqa: A002 - the kernel's word
        self._family = family
        self._type = type
        self._values: dict[tuple[int, int], int] = {}
        self._linger: tuple[int, int] = (0, 0)

    @property
    def is_v6_only(self) -> bool:
        """True if an IPv6 socket keeps to IPv6."""
        return bool(self._values.get((kernel.IPPROTO_IPV6, kernel.IPV6_V6ONLY), 0))

    def reuse(self) -> dict[str, bool]:
        """How the socket shares its port, as keyword arguments for `Ports.bind`."""
        values = self._values
        return {
            "reuse_address": bool(values.get((kernel.SOL_SOCKET, kernel.SO_REUSEADDR))),
            "reuse_port": bool(values.get((kernel.SOL_SOCKET, kernel.SO_REUSEPORT))),
        }

    def _row(self, level: int, name: int) -> _Option:
        row = _SOCKET.get((level, name))
        if row is None and self._family == kernel.AF_INET6:
            row = _IPV6.get((level, name))
        if row is None and self._type == kernel.SOCK_STREAM:
            row = _TCP.get((level, name))
        if row is None:
            raise OSError(
                errno.ENOPROTOOPT, f"socket option: level {level} option {name} is not known here"
            )
        return row

    def get(self, level: int, name: int) -> int | bytes:
        """The value of an option.

        Raises:
            OSError: ENOPROTOOPT.
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
        row = self._row(level, name)
        return self._values.get((level, name), row.default)

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
        row = self._row(level, name)
        if not isinstance(value, int):
            if len(value) < 4:
                raise OSError(errno.EINVAL, f"socket option: needs 4 octets, got {len(value)}")
            value = int.from_bytes(bytes(value[:4]), "little", signed=True)
        self._values[level, name] = row.clean(value)

    def apply(self, endpoint: Any) -> None:
        """Give *endpoint* everything that was set and that it has an attribute for."""
        for (level, name), value in self._values.items():
            attribute = self._row(level, name).attribute
            if attribute is not None and hasattr(endpoint, attribute):
                setattr(endpoint, attribute, value)
        if hasattr(endpoint, "linger"):
            is_on, seconds = self._linger
            endpoint.linger = float(seconds) if is_on else None

    def inherit(self, accepted: Options) -> None:
        """Give the options of a listener to a socket it has accepted."""
        accepted._values = {
            key: value for key, value in self._values.items() if self._row(*key).is_inherited
        }
        accepted._linger = self._linger
