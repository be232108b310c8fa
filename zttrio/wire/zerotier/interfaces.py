"""Which IP addresses this machine has, asked from the kernel by netlink (rtnetlink(7)).

Nothing in the standard library lists them, and peers want to be told where we can be reached.
"""

from __future__ import annotations

import socket
import struct

__all__ = ["interface_addresses"]

_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLM_F_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_F_DEPRECATED_TENTATIVE = 0x60  # IFA_F_DEPRECATED | IFA_F_TENTATIVE

_MESSAGE = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
# Tunnels and taps may well lead through this very node, loopback leads nowhere (17.1).
_SKIPPED = ("lo", "zt", "tun", "tap")


def interface_addresses() -> list[bytes]:
    """Packed addresses of this machine's interfaces, without loopback, tunnels and taps.

    Raises:
        OSError: the kernel does not answer.
    """
    found: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(1.0)  # the kernel answers at once or never
        request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        header = _MESSAGE.pack(
            _MESSAGE.size + len(request), _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0
        )
        sock.send(header + request)
        while True:
            data = sock.recv(1 << 16)
            at = 0
            while at + _MESSAGE.size <= len(data):
                length, kind, *_ = _MESSAGE.unpack_from(data, at)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _MESSAGE.size:
                    return found
                if kind == _RTM_NEWADDR:
                    address = _parse(data[at + _MESSAGE.size : at + length])
                    if address is not None:
                        found.append(address)
                at += -(-length // 4) * 4


def _parse(message: bytes) -> bytes | None:
    family, _, flags, _, index = _ADDRESS.unpack_from(message)
    if family not in (socket.AF_INET, socket.AF_INET6) or flags & _IFA_F_DEPRECATED_TENTATIVE:
        return None
    try:
        if socket.if_indextoname(index).startswith(_SKIPPED):
            return None
    except OSError:  # it went away meanwhile
        return None
    address = None
    at = _ADDRESS.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            break
        value = message[at + _ATTRIBUTE.size : at + length]
        # IFA_LOCAL is ours; IFA_ADDRESS is the other end of a point-to-point link.
        if kind == _IFA_LOCAL or (kind == _IFA_ADDRESS and address is None):
            address = value
        at += -(-length // 4) * 4
    return address
