"""What a program may set on a TCP socket, by the names of `setsockopt` without their prefix."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs

__all__ = ["DEFAULT_OPTIONS", "TcpOptions", "changed"]

_not_negative: Any = attrs.validators.ge(0)


@attrs.frozen(kw_only=True, cache_hash=True)  # `changed` looks it up
class TcpOptions:
    """Immutable, so that all connections that change nothing share one.

    Attributes:
        nodelay: TCP_NODELAY: do not wait for ACKs to fill small segments (RFC 896).
        cork: TCP_CORK: send full segments only.
        quick_ack: TCP_QUICKACK: never delay an ACK.
        keep_alive: SO_KEEPALIVE.
        keep_idle: TCP_KEEPIDLE: seconds of silence before the first probe (RFC 9293 3.8.4).
        keep_interval: TCP_KEEPINTVL: seconds between probes.
        keep_count: TCP_KEEPCNT: probes without answer before the connection fails.
        user_timeout: TCP_USER_TIMEOUT: seconds that data may stay unacknowledged, 0 for
            `Config.retries` alone (RFC 5482).
        linger: SO_LINGER: None to close in the background, 0 to reset on close, else seconds that
            the caller of close waits (the socket layer's business).
        max_segment: TCP_MAXSEG: largest payload to send and to ask for, 0 for what the path takes.
        receive_buffer: SO_RCVBUF: octets, 0 for automatic up to `Config.receive_buffer`.
        send_buffer: SO_SNDBUF: octets, 0 for automatic up to `Config.send_buffer`.
        hop_limit: IP_TTL or IPV6_UNICAST_HOPS, 0 for the default.
        traffic_class: IP_TOS or IPV6_TCLASS; its two ECN bits belong to TCP and are ignored.
    """

    nodelay: bool = False
    cork: bool = False
    quick_ack: bool = False
    keep_alive: bool = False
    keep_idle: float = attrs.field(default=7200.0, validator=attrs.validators.gt(0))
    keep_interval: float = attrs.field(default=75.0, validator=attrs.validators.gt(0))
    keep_count: int = attrs.field(default=9, validator=attrs.validators.ge(1))
    user_timeout: float = attrs.field(default=0.0, validator=_not_negative)
    linger: float | None = None
    max_segment: int = attrs.field(default=0, validator=_not_negative)
    receive_buffer: int = attrs.field(default=0, validator=_not_negative)
    send_buffer: int = attrs.field(default=0, validator=_not_negative)
    hop_limit: int = attrs.field(default=0, validator=[_not_negative, attrs.validators.le(255)])
    traffic_class: int = attrs.field(default=0, validator=[_not_negative, attrs.validators.le(255)])


DEFAULT_OPTIONS = TcpOptions()


@lru_cache(maxsize=256)  # arbitrary; a server sets the same few on each of its connections
def changed(options: TcpOptions, changes: tuple[tuple[str, Any], ...]) -> TcpOptions:
    """*options* with *changes*, names and values, made to them; the same object for the same ones.

    Raises:
        ValueError: a value is out of range.
        TypeError: there is no such option.
    """
    return attrs.evolve(options, **dict(changes))
