"""What a controller tells its owner."""

from __future__ import annotations

import attrs

__all__ = ["MemberAsked", "MemberConfigured", "RecordMissing"]


class RecordMissing(LookupError):
    """There is no such network or member."""


@attrs.frozen
class MemberAsked:
    """A node that is not authorised has asked for the first time."""

    network_id: int
    address: bytes


@attrs.frozen
class MemberConfigured:
    """A member has asked for the first time since the controller started, and is authorised."""

    network_id: int
    address: bytes
