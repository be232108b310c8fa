"""Networks that everybody can compute the configuration of, without a controller (7.6)."""

from __future__ import annotations

from ipaddress import IPv4Interface

from . import rules
from .derived import sixplane
from .netconf import NDP_EMULATION, NetworkConfig, Specialist
from .rules import Rule

__all__ = ["adhoc_config", "is_adhoc"]

_WINDOW = 7_200_000
_MULTICAST_LIMIT = 1024
_IPV6 = 0x86DD
_ICMPV6, _UDP, _TCP = 58, 17, 6
_SYN, _ACK = 0x02, 0x10


def is_adhoc(network_id: int) -> bool:
    """True if a network of this ID has no controller, configurable or not."""
    return network_id >> 56 == 0xFF


def adhoc_config(network_id: int, address: bytes, timestamp: int) -> NetworkConfig | None:
    """The configuration of the member *address*; None if there is no such network.

    ``ffSSSSEEEE000000`` allows TCP connections to ports SSSS to EEEE over IPv6, and all of UDP and
    ICMPv6; ``ffAAhhhhhhhhhh01`` allows everything, and addresses are in the IPv4 network AA/8 too.

    Args:
        network_id: starts with ff.
        address: the member's, 5 octets.
        timestamp: milliseconds since 1970.
    """
    if not is_adhoc(network_id):
        return None
    if network_id & 0xFF_FFFF == 0:
        return _port_range(network_id, address, timestamp)
    if network_id & 0xFF == 1:
        return _everything(network_id, address, timestamp)
    return None


def _port_range(network_id: int, address: bytes, timestamp: int) -> NetworkConfig | None:
    first = network_id >> 40 & 0xFFFF
    last = network_id >> 24 & 0xFFFF
    if last < first:
        return None
    return NetworkConfig(
        network_id=network_id,
        address=address,
        timestamp=timestamp,
        window=_WINDOW,
        revision=1,
        name=f"adhoc-{first:04x}-{last:04x}",
        is_public=True,
        flags=NDP_EMULATION,
        addresses=(sixplane(network_id, address),),
        rules=(
            Rule.of(rules.ETHERTYPE, _IPV6, is_not=True),
            Rule.of(rules.DROP),
            Rule.of(rules.IP_PROTOCOL, _ICMPV6),
            Rule.of(rules.ACCEPT),
            Rule.of(rules.IP_PROTOCOL, _UDP),
            Rule.of(rules.IP_PROTOCOL, _TCP, is_or=True),
            Rule.of(rules.DESTINATION_PORT, first, last),
            Rule.of(rules.ACCEPT),
            # Everything but new connections, UDP to any port too: the reference has it so.
            Rule.of(rules.CHARACTERISTICS, _SYN, is_not=True),
            Rule.of(rules.ACCEPT),
            Rule.of(rules.CHARACTERISTICS, _SYN),
            Rule.of(rules.CHARACTERISTICS, _ACK),
            Rule.of(rules.ACCEPT),
            Rule.of(rules.DROP),
        ),
    )


def _everything(network_id: int, address: bytes, timestamp: int) -> NetworkConfig:
    network = network_id >> 48 & 0xFF
    hub = (network_id >> 8 & 0xFF_FFFF_FFFF).to_bytes(5, "big")
    return NetworkConfig(
        network_id=network_id,
        address=address,
        timestamp=timestamp,
        window=_WINDOW,
        revision=1,
        name=f"adhoc-{network}.0.0.0",
        multicast_limit=_MULTICAST_LIMIT,
        is_public=True,
        flags=NDP_EMULATION,
        specialists=(Specialist(hub, 0),) if any(hub) else (),
        addresses=(
            sixplane(network_id, address),
            IPv4Interface((bytes((network,)) + address[2:], 8)),
        ),
        rules=(Rule.of(rules.ACCEPT),),
    )
