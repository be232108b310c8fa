"""What a controller remembers: records, and since its start, who has asked (VL2 spec, 16.5, 16.7).

Nothing here sends or signs.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

import attrs

from .mail import Notice

if TYPE_CHECKING:
    from zttrio.zerotier.identity import Identity
    from zttrio.zerotier.network.dictionary import Dictionary

    from .records import MemberRecord, NetworkRecord

__all__ = ["ControllerCounters", "NetworkState", "Session"]

ONLINE = 120.0  # after its last request a member counts as online for that long (1.2)
REMEMBERED = 180.0  # and its multicast messages are answered for that long (1.2)


@attrs.define
class ControllerCounters:
    """What a controller did, by reason, from zero."""

    requests: int = 0
    not_ours: int = 0  # about another controller's network
    too_soon: int = 0
    network_unknown: int = 0
    wrong_identity: int = 0  # the address belongs to somebody else here
    sign_on_due: int = 0
    denied: int = 0
    network_full: int = 0
    records_evicted: int = 0
    configurations: int = 0
    pushes: int = 0
    too_large: int = 0
    revocations: int = 0

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        return attrs.asdict(self)


@attrs.define(eq=False)
class Session:
    """A member that has been authorised and has asked since the controller started.

    Attributes:
        identity: authenticated.
        metadata: what it last said about itself.
        asked_at: when.
        configured_at: when it was last sent a configuration.
    """

    identity: Identity
    metadata: Dictionary
    asked_at: float
    configured_at: float = -inf

    def is_online(self, now: float) -> bool:
        """True if it is worth telling it something."""
        return now - self.asked_at <= ONLINE


class NetworkState:
    """One network with its members.

    Attributes:
        record: of the network.
        members: records by address.
        sessions: by address.
        pristine: addresses of members that nobody but themselves has had to do with, oldest first.
        shut_out: what others are told of members that were shut out, by address.
    """

    def __init__(self, record: NetworkRecord) -> None:
        self.record = record
        self.members: dict[bytes, MemberRecord] = {}
        self.sessions: dict[bytes, Session] = {}
        self.pristine: dict[bytes, None] = {}
        self.shut_out: dict[bytes, Notice] = {}
        self._used: Counter[bytes] = Counter()
        self._bridges: set[bytes] = set()

    def put(self, member: MemberRecord) -> None:
        """Keep the newest form of a member's record."""
        self.forget(member.address)
        self.members[member.address] = member
        self._used.update(address.packed for address in member.addresses)
        if member.is_pristine:
            self.pristine[member.address] = None
        if member.may_bridge:
            self._bridges.add(member.address)
        if member.deauthorized_at and not member.is_authorized:
            self.shut_out[member.address] = self.notice(member.address, member.deauthorized_at)

    def forget(self, address: bytes) -> None:
        """Drop a member's record, if there is one."""
        self._bridges.discard(address)
        self.pristine.pop(address, None)
        self.shut_out.pop(address, None)
        old = self.members.pop(address, None)
        if old is not None:
            for held in old.addresses:
                self._used[held.packed] -= 1
                if not self._used[held.packed]:
                    del self._used[held.packed]

    def is_used(self, packed: bytes) -> bool:
        """True if some member has this IP address."""
        return packed in self._used

    def bridges(self) -> tuple[bytes, ...]:
        """Members that may bridge, ascending; only those that are authorised."""
        return tuple(sorted(self._bridges))

    def notice(self, address: bytes, threshold: int) -> Notice:
        """What others are told when a member is shut out."""
        return Notice(self.record.network_id, address, threshold)

    def online(self, now: float) -> list[bytes]:
        """Addresses of the members that have asked lately."""
        return [a for a, session in self.sessions.items() if session.is_online(now)]
