"""What of a network's configuration this machine's stack gets: the owner's choices decide (15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from zttrio.abc import ManagedRoute, Settings
from zttrio.zerotier.endpoint import GLOBAL, LINK_LOCAL, LOOPBACK, MULTICAST, NONE, scope_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zttrio.zerotier.network.netconf import NetworkConfig

__all__ = ["Choices", "make_settings"]

_NEVER = (NONE, MULTICAST, LOOPBACK, LINK_LOCAL)


@attrs.frozen(kw_only=True)
class Choices:
    """What a network's controller may set, as its member's owner wants it.

    Attributes:
        managed: anything at all.
        public: addresses and routes that are publicly routable.
        default: routes to everything.
        dns: name servers.
    """

    managed: bool = True
    public: bool = False
    default: bool = False
    dns: bool = False

    @classmethod
    def from_file(cls, stored: Mapping[str, bool]) -> Choices:
        """The choices in a ``local.conf``; see `zttrio.wire.zerotier.home.Home.load_choices`."""
        names = {
            "managed": "allowManaged",
            "public": "allowGlobal",
            "default": "allowDefault",
            "dns": "allowDNS",
        }
        return cls(**{name: stored[key] for name, key in names.items() if key in stored})


def make_settings(config: NetworkConfig, choices: Choices) -> Settings:
    """The part of *config* that *choices* allow.  The MTU is the network's in any case."""
    if not choices.managed:
        return Settings(mtu=config.mtu)
    addresses = tuple(
        interface
        for interface in dict.fromkeys(config.addresses)
        if _is_allowed(interface.ip.packed, choices)
    )
    own = {interface.ip for interface in addresses}
    on_link = {interface.network for interface in addresses}
    families = {interface.version for interface in addresses}
    routes = []
    for target, via, _, metric in config.routes:
        if target.version not in families or via in own:
            continue
        if via is None and target in on_link:
            continue
        if target.prefixlen == 0:
            is_allowed = choices.default
        else:
            is_allowed = _is_allowed(target.network_address.packed, choices)
        if is_allowed and (via is None or via.version == target.version):
            routes.append(ManagedRoute(target, via, metric))
    has_dns = choices.dns and config.dns is not None and bool(config.dns.domain)
    return Settings(
        addresses=addresses,
        routes=tuple(dict.fromkeys(routes)),
        mtu=config.mtu,
        dns_domain=config.dns.domain if has_dns and config.dns is not None else "",
        dns_servers=config.dns.servers if has_dns and config.dns is not None else (),
    )


def _is_allowed(ip: bytes, choices: Choices) -> bool:
    scope = scope_of(ip)
    return scope not in _NEVER and (scope != GLOBAL or choices.public)
