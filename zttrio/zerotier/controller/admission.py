"""Whom a network lets in by itself, and what they get with it (VL2 spec, 16.2, 16.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .records import MemberRecord

if TYPE_CHECKING:
    from zttrio.zerotier.network.dictionary import Dictionary

    from .records import NetworkRecord

__all__ = ["admit", "versions", "with_defaults"]


def admit(
    network: NetworkRecord, member: MemberRecord, metadata: Dictionary, clock: int
) -> MemberRecord:
    """The member's record, authorised if the network is public or the member has a good token.

    Args:
        network: with its tokens.
        member: as it is.
        metadata: of the request.
        clock: ms since 1970.
    """
    if member.is_authorized:
        return member
    kind, _, token = metadata.get_text("a").partition(":")
    if not network.is_private:
        admitted = member.authorized(clock, "public", None)
    elif kind == "token" and network.accepts_token(token, clock):
        admitted = member.authorized(clock, "token", token)
    else:
        return member
    return with_defaults(network, member, admitted)


def with_defaults(
    network: NetworkRecord, before: MemberRecord, after: MemberRecord
) -> MemberRecord:
    """Give a member that is authorised for the first time the default capabilities.

    The reference does so only when the same request creates the record, so that nobody on a
    private network ever gets them.
    """
    defaults = network.default_capabilities
    if not defaults or before.fields["lastAuthorizedTime"] or not after.is_authorized:
        return after
    held = sorted({*after.fields["capabilities"], *defaults})
    return MemberRecord(after.network_id, after.address, {**after.fields, "capabilities": held})


def versions(metadata: Dictionary) -> dict[str, int]:
    """The fields of a record that say which software the member runs."""
    return {
        "vMajor": metadata.get_int("majv"),
        "vMinor": metadata.get_int("minv"),
        "vRev": metadata.get_int("revv"),
        "vProto": metadata.get_int("pv"),
    }
