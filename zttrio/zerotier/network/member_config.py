"""Every number of the virtual networks that a node's owner may turn.  Times are seconds."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["MemberConfig"]


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be greater than 0, got {value}")


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, got {value}")


@attrs.frozen(kw_only=True)
class MemberConfig:
    """How a node behaves as a member of networks.

    Raises:
        ValueError: a value makes no sense.
    """

    complaint_interval: float = attrs.field(default=1.0, validator=_not_negative)
    """Between two demands for credentials to one peer (8.4); the reference makes one with every
    attempt to deliver what it has kept."""
    gather_interval: float = attrs.field(default=1.0, validator=_not_negative)
    """Between two questions for the members of a group that has none; the reference asks with
    every frame (11.5)."""
    deliver_at_once: bool = True
    """Try kept messages again as soon as credentials arrive; the reference waits for the next of
    its attempts, half a second apart."""
    push_always: bool = True
    """Show credentials also before frames for bridges and replicators, and before announcements to
    members; the reference waits until it is asked, and loses what it sent meanwhile (14)."""
    strict_ownership: bool = True
    """A derived IPv6 address belongs to the node that it names, not to every member (9.4)."""
    network_limit: int = attrs.field(default=256, validator=_positive)
    """Networks joined at once; arbitrary."""
    record_limit: int = attrs.field(default=16_384, validator=_positive)
    """Other members remembered per network; arbitrary, as many as VL1 knows peers."""
    ring: int = attrs.field(default=4096, validator=_positive)
    """Frames that wait for the local stack to take them; arbitrary."""
    kept: int = attrs.field(default=64, validator=_positive)
    """Messages of peers that have not shown credentials yet; twice the reference's (8.4)."""
    kept_per_peer: int = attrs.field(default=16, validator=_positive)
    """And of one of them; arbitrary."""
