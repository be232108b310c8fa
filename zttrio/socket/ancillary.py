"""Ancillary data of datagrams, as on Linux: how one has come, and how one is to go.

RFC 3542 sections 4 and 6 for IPv6; ip(7) for IPv4, for which no standard exists.
"""

from __future__ import annotations

import errno
import socket as kernel
import struct
from typing import TYPE_CHECKING, Any

from zttrio.header.address import INTERFACE_INDEX, is_multicast
from zttrio.stack.datagram import Control

from .options import IP_PKTINFO, IP_RECVTTL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zttrio.stack.datagram import Datagram
    from zttrio.stack.ip import Ip

    from .options import Options

__all__ = ["Message", "control", "fit", "messages"]

Message = tuple[int, int, bytes]
"""Level, type and data, as the socket module's recvmsg gives it."""

_IP, _IPV6 = int(kernel.IPPROTO_IP), int(kernel.IPPROTO_IPV6)
_INT = struct.Struct("@i")
_IN_PKTINFO = struct.Struct("@i4s4s")  # interface, our address, the destination
_IN6_PKTINFO = struct.Struct("@16si")  # the destination, interface
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2
_HEADER = kernel.CMSG_LEN(0)


def messages(datagram: Datagram, options: Options, family: int, ip: Ip) -> list[Message]:
    """What a program with *options* is told about *datagram*, in Linux's order.

    Args:
        datagram: what was received.
        options: of the socket.
        family: of the socket.
        ip: knows what we answer a group's datagram from.
    """
    found: list[Message] = []
    destination = datagram.destination[0]
    is_v4 = len(destination) == 4
    if family == kernel.AF_INET6 and options.is_on(_IPV6, kernel.IPV6_RECVPKTINFO):
        mapped = _MAPPED + destination if is_v4 else destination
        found.append((_IPV6, int(kernel.IPV6_PKTINFO), _IN6_PKTINFO.pack(mapped, INTERFACE_INDEX)))
    if not is_v4:
        if options.is_on(_IPV6, kernel.IPV6_RECVHOPLIMIT):
            found.append((_IPV6, int(kernel.IPV6_HOPLIMIT), _INT.pack(datagram.hop_limit)))
        if options.is_on(_IPV6, kernel.IPV6_RECVTCLASS):
            found.append((_IPV6, int(kernel.IPV6_TCLASS), _INT.pack(datagram.traffic_class)))
        return found
    if options.is_on(_IP, IP_PKTINFO):
        local = destination
        if ip.is_group(destination):
            try:
                local = ip.select_source(datagram.source[0])
            except OSError:  # there is no way back
                local = bytes(4)
        found.append((_IP, IP_PKTINFO, _IN_PKTINFO.pack(INTERFACE_INDEX, local, destination)))
    if options.is_on(_IP, IP_RECVTTL):
        found.append((_IP, int(kernel.IP_TTL), _INT.pack(datagram.hop_limit)))
    if options.is_on(_IP, kernel.IP_RECVTOS):
        found.append((_IP, int(kernel.IP_TOS), bytes((datagram.traffic_class,))))
    return found


def fit(found: list[Message], room: int) -> tuple[list[Message], int]:
    """As many of *found* as go into *room* octets, the last perhaps cut, and MSG_CTRUNC or 0."""
    told: list[Message] = []
    for level, kind, data in found:
        if room < _HEADER:
            return told, int(kernel.MSG_CTRUNC)
        told.append((level, kind, data[: room - _HEADER]))
        if room < kernel.CMSG_LEN(len(data)):
            return told, int(kernel.MSG_CTRUNC)
        room -= kernel.CMSG_SPACE(len(data))
    return told, 0


def control(ancillary: Iterable[tuple[int, int, Any]]) -> Control | None:
    """What a program says about one datagram with sendmsg; None if it says nothing.

    Raises:
        OSError: EINVAL, no such message, or its data make no sense.
    """
    source: bytes | None = None
    hop_limit = 0
    traffic_class: int | None = None
    is_empty = True
    for level, kind, value in ancillary:
        is_empty = False
        data = bytes(value)
        key = (level, kind)
        if key == (_IP, IP_PKTINFO) and len(data) == _IN_PKTINFO.size:
            index, source, _ = _IN_PKTINFO.unpack(data)
            _check_index(index)
        elif key == (_IPV6, kernel.IPV6_PKTINFO) and len(data) >= _IN6_PKTINFO.size:
            source, index = _IN6_PKTINFO.unpack_from(data)
            _check_index(index)
            source = bytes(source).removeprefix(_MAPPED)
        elif key == (_IP, kernel.IP_TTL):
            hop_limit = _number(key, data, 1)
        elif key == (_IPV6, kernel.IPV6_HOPLIMIT):
            hop_limit = max(0, _number(key, data, -1))
        elif key == (_IP, kernel.IP_TOS):
            traffic_class = data[0] if len(data) == 1 else _number(key, data, 0)
        elif key == (_IPV6, kernel.IPV6_TCLASS):
            wanted = _number(key, data, -1)
            traffic_class = None if wanted < 0 else wanted
        else:
            raise OSError(
                errno.EINVAL,
                f"sendmsg: level {level} type {kind} with {len(data)} octets is not known here",
            )
    if is_empty:
        return None
    if source is not None and (is_multicast(source) or not any(source)):
        source = None
    return Control(source, hop_limit, traffic_class)


def _check_index(index: int) -> None:
    if index not in (0, INTERFACE_INDEX):
        raise OSError(errno.ENODEV, f"sendmsg: no interface has the number {index}")


def _number(key: tuple[int, int], data: bytes, least: int) -> int:
    if len(data) != _INT.size or not least <= (value := _INT.unpack(data)[0]) <= 255:
        raise OSError(
            errno.EINVAL, f"sendmsg: level {key[0]} type {key[1]} needs an int, {least} to 255"
        )
    return int(value)
