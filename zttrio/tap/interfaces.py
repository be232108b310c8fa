"""What programs see when they ask for interfaces: a loopback, and one for the virtual network."""

from __future__ import annotations

import errno
import struct
from ipaddress import IPv4Interface, ip_interface
from typing import TYPE_CHECKING

from zttrio.header.address import INTERFACE_INDEX

from .rpc import AF_INET, AF_INET6, InterfaceRow, Sockaddr
from .sockaddr import for_program

if TYPE_CHECKING:
    from zttrio.stack.stack import Stack

__all__ = ["answer_ioctl", "list_interfaces"]

LOOPBACK_INDEX = 1
NETWORK_NAME = "zt0"
_UP, _BROADCAST, _LOOPBACK, _RUNNING, _MULTICAST = 0x1, 0x2, 0x8, 0x40, 0x1000  # IFF_*
_LOOPBACK_MTU = 65_536
_ETHERNET, _LOOPBACK_HARDWARE = 1, 772  # ARPHRD_*
_NAME = 16
_REQUEST = 40  # sizeof(struct ifreq)
_ROWS = 512  # rows in an answer at most, as the preload library has room for

# ioctl numbers of Linux, linux/sockios.h
SIOCGIFNAME = 0x8910
SIOCGIFCONF = 0x8912
SIOCGIFFLAGS = 0x8913
SIOCGIFADDR = 0x8915
SIOCGIFDSTADDR = 0x8917
SIOCGIFBRDADDR = 0x8919
SIOCGIFNETMASK = 0x891B
SIOCGIFMETRIC = 0x891D
SIOCGIFMTU = 0x8921
SIOCGIFHWADDR = 0x8927
SIOCGIFINDEX = 0x8933
SIOCGIFTXQLEN = 0x8942
_KNOWN = {
    SIOCGIFFLAGS,
    SIOCGIFADDR,
    SIOCGIFDSTADDR,
    SIOCGIFBRDADDR,
    SIOCGIFNETMASK,
    SIOCGIFMETRIC,
    SIOCGIFMTU,
    SIOCGIFHWADDR,
    SIOCGIFINDEX,
    SIOCGIFTXQLEN,
}


def list_interfaces(stack: Stack) -> list[InterfaceRow]:
    """One row for each interface's hardware, then one for each address."""
    lo = ("lo", LOOPBACK_INDEX, _UP | _LOOPBACK | _RUNNING, _LOOPBACK_MTU, bytes(6))
    net = (
        NETWORK_NAME,
        INTERFACE_INDEX,
        _UP | _BROADCAST | _RUNNING | _MULTICAST,
        max(stack.ip.mtus.values()),
        stack.mac,
    )
    rows = [InterfaceRow(*lo), InterfaceRow(*net)]
    owned = [(lo, ip_interface("127.0.0.1/8"))]
    owned += [(net, interface) for interface in stack.addresses]
    if any(not isinstance(interface, IPv4Interface) for _, interface in owned):
        owned.insert(1, (lo, ip_interface("::1/128")))
    for hardware, interface in owned[: _ROWS - len(rows)]:
        network = interface.network
        family = AF_INET if interface.version == 4 else AF_INET6
        rows.append(
            InterfaceRow(
                *hardware,
                for_program(interface.ip.packed, 0, family),
                Sockaddr(network.netmask.packed, 0).emit(),
                Sockaddr(network.broadcast_address.packed, 0).emit(),
            )
        )
    return rows


def answer_ioctl(stack: Stack, request: int, argument: bytes) -> bytes:
    """Fill in a ``struct ifreq``, or a list of them for SIOCGIFCONF.

    Raises:
        OSError: ENODEV, no such interface; EADDRNOTAVAIL, it has no address; EPERM for requests
            that would change something.
    """
    rows = list_interfaces(stack)
    fours = [row for row in rows if len(row.address) == 16]
    if request == SIOCGIFCONF:
        return b"".join(_pack(row.name, row.address) for row in fours)
    if len(argument) != _REQUEST:
        raise OSError(errno.EFAULT, f"interface request: needs {_REQUEST} octets")
    if request == SIOCGIFNAME:
        index = struct.unpack_from("=i", argument, _NAME)[0]
        for row in rows:
            if row.index == index:
                return row.name.encode().ljust(_NAME, b"\0") + argument[_NAME:]
        raise OSError(errno.ENODEV, f"interface {index}: not there")
    name = argument[:_NAME].split(b"\0", 1)[0].decode(errors="replace").partition(":")[0]
    hardware = next((row for row in rows if row.name == name), None)
    if hardware is None:
        raise OSError(errno.ENODEV, f"interface {name}: not there")
    if request not in _KNOWN:
        raise OSError(errno.EPERM, f"interface {name}: cannot be changed by programs")
    four = next((row for row in fours if row.name == name), None)
    return _pack(name, _value(request, hardware, four))


def _value(request: int, hardware: InterfaceRow, four: InterfaceRow | None) -> bytes:
    if request == SIOCGIFFLAGS:
        return struct.pack("=H", hardware.flags)
    if request == SIOCGIFMTU:
        return struct.pack("=i", hardware.mtu)
    if request == SIOCGIFINDEX:
        return struct.pack("=i", hardware.index)
    if request == SIOCGIFTXQLEN:
        return struct.pack("=i", 1000)
    if request == SIOCGIFMETRIC:
        return struct.pack("=i", 0)
    if request == SIOCGIFHWADDR:
        kind = _LOOPBACK_HARDWARE if hardware.flags & _LOOPBACK else _ETHERNET
        return struct.pack("=H", kind) + hardware.mac
    if four is None:
        raise OSError(errno.EADDRNOTAVAIL, f"interface {hardware.name}: has no IPv4 address")
    if request == SIOCGIFNETMASK:
        return four.netmask
    if request == SIOCGIFBRDADDR:
        return four.broadcast
    return four.address  # SIOCGIFADDR, and for the lack of a peer SIOCGIFDSTADDR


def _pack(name: str, value: bytes) -> bytes:
    return name.encode().ljust(_NAME, b"\0") + value.ljust(_REQUEST - _NAME, b"\0")
