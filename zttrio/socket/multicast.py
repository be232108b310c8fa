"""What programs pass to join a group or to choose the interface for groups, and read back.

A Network has one interface, so naming it decides nothing; naming one that is not there is an error,
as on Linux.
"""

from __future__ import annotations

import errno
import socket as kernel
import struct
from typing import TYPE_CHECKING, Any

from zttrio.header.address import INTERFACE_INDEX, ip_text, is_multicast

if TYPE_CHECKING:
    from zttrio.stack.ip import Ip

__all__ = ["DEFAULT_INTERFACE", "INTERFACE", "JOIN", "LEAVE", "group_of", "interface_of"]

_IP, _IPV6 = int(kernel.IPPROTO_IP), int(kernel.IPPROTO_IPV6)
JOIN = ((_IP, kernel.IP_ADD_MEMBERSHIP), (_IPV6, kernel.IPV6_JOIN_GROUP))
LEAVE = ((_IP, kernel.IP_DROP_MEMBERSHIP), (_IPV6, kernel.IPV6_LEAVE_GROUP))
INTERFACE = ((_IP, kernel.IP_MULTICAST_IF), (_IPV6, kernel.IPV6_MULTICAST_IF))
DEFAULT_INTERFACE: dict[int, int | bytes] = {_IP: bytes(4), _IPV6: 0}

_MREQ = struct.Struct("4s4s")  # group, interface's address
_MREQN = struct.Struct("@4s4si")  # and its number
_MREQ6 = struct.Struct("@16si")  # group, interface's number
_INT = struct.Struct("@i")


def group_of(level: int, value: Any, ip: Ip) -> bytes:
    """The packed group of a ``struct ip_mreq``, ``ip_mreqn`` or ``ipv6_mreq``.

    Args:
        level: IPPROTO_IP or IPPROTO_IPV6.
        value: the structure.
        ip: knows which addresses are ours.

    Raises:
        OSError: EINVAL, it is too short or the group is none; ENODEV, no such interface.
    """
    size = _MREQ.size if level == _IP else _MREQ6.size
    if isinstance(value, int) or len(value) < size:
        raise OSError(errno.EINVAL, f"membership: needs a structure of {size} octets")
    interface, index = bytes(4), 0
    if level == _IPV6:
        group, index = _MREQ6.unpack_from(value)
    elif len(value) >= _MREQN.size:
        group, interface, index = _MREQN.unpack_from(value)
    else:
        group, interface = _MREQ.unpack_from(value)
    if not is_multicast(group):
        raise OSError(errno.EINVAL, f"membership: {ip_text(group)} is not a multicast address")
    if index not in (0, INTERFACE_INDEX):
        raise OSError(errno.ENODEV, f"membership: no interface has the number {index}")
    if not index and any(interface) and not ip.is_local(interface):
        raise OSError(errno.ENODEV, f"membership: no interface has {ip_text(interface)}")
    return bytes(group)


def interface_of(level: int, value: Any, ip: Ip) -> int | bytes:
    """What IP_MULTICAST_IF (an address, packed) or IPV6_MULTICAST_IF (a number) reads back.

    Args:
        level: IPPROTO_IP or IPPROTO_IPV6.
        value: ``struct in_addr``, ``ip_mreq``, ``ip_mreqn`` or, for IPv6, a number.
        ip: knows which addresses are ours.

    Raises:
        OSError: EINVAL, it is too short; EADDRNOTAVAIL (IPv4) or ENODEV (IPv6), no such interface.
    """
    data = _INT.pack(value) if isinstance(value, int) else bytes(value)
    if len(data) < _INT.size:
        raise OSError(errno.EINVAL, f"multicast interface: {len(data)} octets are too few")
    if level == _IPV6:
        (index,) = _INT.unpack_from(data)
        if index not in (0, INTERFACE_INDEX):
            raise OSError(errno.ENODEV, f"multicast interface: none has the number {index}")
        return int(index)
    address, index = data[:4], 0
    if len(data) >= _MREQN.size:
        _, address, index = _MREQN.unpack_from(data)
    elif len(data) >= _MREQ.size:
        _, address = _MREQ.unpack_from(data)
    if index:
        if index != INTERFACE_INDEX:
            raise OSError(errno.EADDRNOTAVAIL, f"multicast interface: none has number {index}")
    elif any(address) and not ip.is_local(address):
        raise OSError(errno.EADDRNOTAVAIL, f"multicast interface: none has {ip_text(address)}")
    return bytes(address)
