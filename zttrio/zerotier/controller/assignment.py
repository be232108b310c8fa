"""Which IP addresses a member gets (VL2 spec, 16.4).

Where the reference uses the longest route for the prefix length of an address that a member has,
and the first one for an address that it has just been given, this uses the longest for both, so
that nothing changes with the second configuration.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import TYPE_CHECKING, NamedTuple

from zttrio.zerotier.network.derived import rfc4193, sixplane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Interface, IPv6Interface

    from zttrio.zerotier.identity import Randomness

    from .records import IpAddress, IpNetwork, MemberRecord, NetworkRecord

__all__ = ["Assignment", "assign"]

_TRIES = 1000
_LOW_64 = (1 << 64) - 1
_LOW_40 = (1 << 40) - 1


class Assignment(NamedTuple):
    """What a member's configuration says about addresses.

    Attributes:
        interfaces: its addresses with their prefix lengths, derived ones first.
        given: addresses that are new and belong into its record.
        has_derived: True if neighbour discovery can be emulated.
    """

    interfaces: tuple[IPv4Interface | IPv6Interface, ...]
    given: tuple[IpAddress, ...]
    has_derived: bool


def assign(
    network: NetworkRecord,
    member: MemberRecord,
    is_used: Callable[[bytes], bool],
    rng: Randomness,
) -> Assignment:
    """The addresses of *member*, new ones where its network says so and there are free ones.

    Args:
        network: with routes and pools.
        member: the record.
        is_used: tells whether another member has this (packed) address.
        rng: for IPv6 addresses that cannot be derived.
    """
    interfaces: list[IPv4Interface | IPv6Interface] = []
    given: list[IpAddress] = []
    may_assign = not member.fields["noAutoAssignIps"]
    modes = network.fields["v6AssignMode"]
    if may_assign and modes["rfc4193"]:
        interfaces.append(rfc4193(network.network_id, member.address))
    if may_assign and modes["6plane"]:
        interfaces.append(sixplane(network.network_id, member.address))
    has_derived = bool(interfaces)
    versions = set()
    for address in member.addresses:
        target = _longest_target(network, address)
        if target is not None:  # an address outside every route could not be reached
            interfaces.append(ip_interface((address, target.prefixlen)))
            versions.add(address.version)

    for version, is_wanted, candidates in (
        (6, modes["zt"], _ipv6_candidates),
        (4, network.fields["v4AssignMode"]["zt"], _ipv4_candidates),
    ):
        if not (may_assign and is_wanted) or version in versions:
            continue
        for first, last in network.pools:
            if first.version != version:
                continue
            tried = candidates(first, last, member.address, rng)
            found = _first_free(network, tried, is_used)
            if found is not None:
                interfaces.append(found)
                given.append(found.ip)
                break
    return Assignment(tuple(interfaces), tuple(given), has_derived)


def _longest_target(network: NetworkRecord, address: IpAddress) -> IpNetwork | None:
    targets = [route.target for route in network.routes if address in route.target]
    return max(targets, key=lambda target: target.prefixlen, default=None)


def _first_free(
    network: NetworkRecord, candidates: Iterator[IpAddress], is_used: Callable[[bytes], bool]
) -> IPv4Interface | IPv6Interface | None:
    for address in candidates:
        packed = address.packed
        if packed in network.gateways or is_used(packed):
            continue
        target = _longest_target(network, address)
        if target is None:
            continue
        if address.version == 6:
            if not any(r.via is None and address in r.target for r in network.routes):
                continue
        # The reference gives out the name of an IPv4 network itself, which hosts refuse.
        elif packed[3] == 255 or (
            target.prefixlen < 31 and address in (target.network_address, target.broadcast_address)
        ):
            continue
        return ip_interface((address, target.prefixlen))
    return None


def _ipv4_candidates(
    first: IpAddress, last: IpAddress, address: bytes, rng: Randomness
) -> Iterator[IpAddress]:
    """The last address of a pool is never among them, unless it is the only one."""
    del rng
    length = int(last) - int(first)
    if not length:
        yield first
        return
    wanted = int.from_bytes(address[1:], "big")
    for attempt in range(min(_TRIES, length)):
        yield IPv4Address(int(first) + (wanted + attempt) % length)


def _ipv6_candidates(
    first: IpAddress, last: IpAddress, address: bytes, rng: Randomness
) -> Iterator[IpAddress]:
    start, end = int(first), int(last)
    if (end & _LOW_64) - (start & _LOW_64) >= _LOW_40:
        low = (start + int.from_bytes(address, "big")) & _LOW_64
        own = start & ~_LOW_64 | low
        if start <= own <= end:
            yield IPv6Address(own)
    span = end - start + 1
    for _ in range(_TRIES):
        yield IPv6Address(start + int.from_bytes(rng(24), "big") % span)
