"""The multicast groups we are in, and the hardware addresses that we therefore listen to.

Telling routers about it is the business of `zttrio.stack.membership`.
"""

from __future__ import annotations

import errno
from typing import Protocol

from zttrio.header.address import (
    ALL_NODES,
    BROADCAST_MAC,
    ip_text,
    is_multicast,
    multicast_mac,
    packed,
)

__all__ = ["ALL_HOSTS", "GROUP_LIMIT", "GroupListener", "Groups"]

ALL_HOSTS = packed("224.0.0.1")
"""Every IPv4 host is a member, always (RFC 1112 section 4)."""
GROUP_LIMIT = 1024  # groups at once; arbitrary

_PERMANENT = (ALL_HOSTS, ALL_NODES)


class GroupListener(Protocol):
    """Who hears about changes of membership."""

    def joined(self, group: bytes) -> None:
        """We have become a member of *group*."""

    def left(self, group: bytes) -> None:
        """We are no longer a member of *group*."""


class Groups:
    """Membership, counted: a group is left when as many leave it as have joined.

    Attributes:
        listeners: who hears about changes, by octets of an address; set by IGMP and MLD.
        macs: hardware addresses other than our own whose frames are for us.
    """

    def __init__(self) -> None:
        self.listeners: dict[int, GroupListener] = {}
        self._members: dict[bytes, int] = dict.fromkeys(_PERMANENT, 1)
        self.macs: frozenset[bytes] = frozenset()
        self._refresh()

    def join(self, group: bytes) -> None:
        """Become a member once more.

        Raises:
            OSError: EINVAL, not a multicast address; ENOBUFS, GROUP_LIMIT is reached.
        """
        if not is_multicast(group):
            raise OSError(errno.EINVAL, f"group {ip_text(group)}: not a multicast address")
        count = self._members.get(group, 0)
        if not count and len(self._members) >= GROUP_LIMIT:
            raise OSError(errno.ENOBUFS, f"group {ip_text(group)}: {GROUP_LIMIT} are joined")
        self._members[group] = count + 1
        if not count:
            self._refresh()
            self.listeners[len(group)].joined(group)

    def leave(self, group: bytes) -> None:
        """Take back one `join`.

        Raises:
            OSError: EADDRNOTAVAIL, we are not a member.
        """
        count = self._members.get(group, 0)
        if not count:
            raise OSError(errno.EADDRNOTAVAIL, f"group {ip_text(group)}: not joined")
        if count > 1:
            self._members[group] = count - 1
            return
        del self._members[group]
        self._refresh()
        self.listeners[len(group)].left(group)

    def of_family(self, octets: int) -> list[bytes]:
        """The groups of the family with *octets* octets."""
        return [group for group in self._members if len(group) == octets]

    def __contains__(self, group: bytes) -> bool:
        return group in self._members

    def __len__(self) -> int:
        return len(self._members)

    def _refresh(self) -> None:
        self.macs = frozenset({BROADCAST_MAC, *map(multicast_mac, self._members)})
