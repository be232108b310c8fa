"""The multicast groups we are in, and the hardware addresses that we therefore listen to."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zttrio.header.address import (
    ALL_NODES,
    BROADCAST_MAC,
    ip_text,
    is_multicast,
    multicast_mac,
    packed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ALL_HOSTS", "GROUP_LIMIT", "Groups"]

ALL_HOSTS = packed("224.0.0.1")
"""Every IPv4 host is a member, always (RFC 1112 section 4)."""
GROUP_LIMIT = 1024  # groups at once; arbitrary

_PERMANENT = (ALL_HOSTS, ALL_NODES)


class Groups:
    """Membership, counted: a group is left when as many leave it as have joined.

    Attributes:
        macs: hardware addresses other than our own whose frames are for us.
    """

    def __init__(self) -> None:
        self._members: dict[bytes, int] = dict.fromkeys(_PERMANENT, 1)
        self.macs: frozenset[bytes] = frozenset()
        self._refresh()

    def join(self, group: bytes) -> bool:
        """Become a member once more; True if that is news.

        Raises:
            OSError: EINVAL, not a multicast address; ENOBUFS, GROUP_LIMIT is reached.
        """
        if not is_multicast(group):
            raise OSError(errno.EINVAL, f"group {ip_text(group)}: not a multicast address")
        count = self._members.get(group, 0)
        if not count and len(self._members) >= GROUP_LIMIT:
            raise OSError(errno.ENOBUFS, f"group {ip_text(group)}: {GROUP_LIMIT} are joined")
        self._members[group] = count + 1
        if count:
            return False
        self._refresh()
        return True

    def leave(self, group: bytes) -> bool:
        """Take back one `join`; True if we are no longer a member.

        Raises:
            OSError: EADDRNOTAVAIL, we are not.
        """
        count = self._members.get(group, 0)
        if not count:
            raise OSError(errno.EADDRNOTAVAIL, f"group {ip_text(group)}: not joined")
        if count > 1:
            self._members[group] = count - 1
            return False
        del self._members[group]
        self._refresh()
        return True

    def __contains__(self, group: bytes) -> bool:
        return group in self._members

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def _refresh(self) -> None:
        self.macs = frozenset({BROADCAST_MAC, *map(multicast_mac, self._members)})
