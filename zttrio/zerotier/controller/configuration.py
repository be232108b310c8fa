"""What a member's configuration says, with everything that has to be signed (VL2 spec, 16.3)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from zttrio.zerotier.network.capability import Capability
from zttrio.zerotier.network.certificate import MembershipCertificate
from zttrio.zerotier.network.credential import MAX_THINGS, Ownership, Tag, Thing
from zttrio.zerotier.network.netconf import (
    ACTIVE_BRIDGE,
    BROADCAST,
    MAX_ADDRESSES,
    MAX_SPECIALISTS,
    MAX_TAGS,
    NDP_EMULATION,
    DnsConfig,
    ManagedRoute,
    NetworkConfig,
    Specialist,
)
from zttrio.zerotier.network.rules import ACCEPT, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.zerotier.identity import Identity

    from .assignment import Assignment
    from .records import MemberRecord, NetworkRecord

__all__ = ["build"]

_ACCEPT_ALL = (Rule.of(ACCEPT),)


def build(
    controller: Identity,
    network: NetworkRecord,
    member: MemberRecord,
    identity: Identity,
    assigned: Assignment,
    *,
    bridges: Sequence[bytes],
    timestamp: int,
    knows_rules: bool,
) -> NetworkConfig:
    """The configuration of one member.

    Args:
        controller: who signs, with its secret.
        network: the network's record.
        member: the member's record, with the tags that the network gives to everybody.
        identity: of the member, for its certificate.
        assigned: its addresses.
        bridges: members that may bridge, ascending.
        timestamp: of everything in it, in ms since 1970.
        knows_rules: False for members that can only accept everything.
    """
    network_id, address = network.network_id, member.address
    interfaces = assigned.interfaces[:MAX_ADDRESSES]
    capabilities = []
    tags = []
    if knows_rules:
        for identifier in member.fields["capabilities"]:
            rules = network.capabilities.get(identifier)
            if rules is not None:
                capabilities.append(
                    Capability.issue(
                        controller,
                        network_id=network_id,
                        id=identifier,
                        rules=rules,
                        issued_to=address,
                        timestamp=timestamp,
                    )
                )
        tags = [
            Tag.issue(
                controller,
                network_id=network_id,
                id=identifier,
                value=value,
                issued_to=address,
                timestamp=timestamp,
            )
            for identifier, value in sorted(member.tags.items())[:MAX_TAGS]
        ]
    ownerships = []
    if interfaces:
        ownerships.append(
            Ownership.issue(
                controller,
                network_id=network_id,
                things=[Thing.ip(interface.ip.packed) for interface in interfaces[:MAX_THINGS]],
                issued_to=address,
                timestamp=timestamp,
            )
        )
    fields = network.fields
    flags = BROADCAST if fields["enableBroadcast"] else 0
    if assigned.has_derived:
        flags |= NDP_EMULATION
    return NetworkConfig(
        network_id=network_id,
        address=address,
        timestamp=timestamp,
        window=network.window,
        revision=network.revision,
        name=network.name,
        mtu=fields["mtu"],
        multicast_limit=fields["multicastLimit"],
        is_public=not network.is_private,
        flags=flags,
        membership=MembershipCertificate.issue(
            controller,
            network_id=network_id,
            member=identity,
            timestamp=timestamp,
            window=network.window,
        ),
        capabilities=tuple(capabilities),
        tags=tuple(tags),
        ownerships=tuple(ownerships),
        specialists=tuple(Specialist(a, ACTIVE_BRIDGE) for a in bridges[:MAX_SPECIALISTS]),
        routes=tuple(ManagedRoute(route.target, route.via) for route in network.routes),
        addresses=interfaces,
        rules=network.rules if knows_rules else _ACCEPT_ALL,
        dns=_dns(network),
        sign_on_enabled=network.needs_sign_on,
        sign_on_url=fields["authorizationEndpoint"] if network.needs_sign_on else "",
        sign_on_expiry=member.fields["authenticationExpiryTime"] if network.needs_sign_on else 0,
    )


def _dns(network: NetworkRecord) -> DnsConfig | None:
    dns = network.fields["dns"]
    if not isinstance(dns, dict):
        return None
    return DnsConfig(dns["domain"], tuple(map(ip_address, dns["servers"])))
