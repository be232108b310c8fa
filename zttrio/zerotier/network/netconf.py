"""Network configurations: what a controller says to a member (6.1).

Parsing takes what it can use and bounds everything.  Whether a configuration is for us, and newer
than what we have, is for its receiver to decide (6.3).
"""

from __future__ import annotations

import struct
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import attrs

from zttrio.errors import HeaderError

from ..constants import ADDRESS_LENGTH
from ..endpoint import Endpoint, emit_endpoint, parse_endpoint
from .capability import Capability
from .certificate import MembershipCertificate
from .credential import Ownership, Tag
from .dictionary import Dictionary
from .piece import MAX_CONFIGURATION
from .rules import NETWORK_LIMIT, Rule, emit_rules, parse_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.header.frame import Buffer

__all__ = ["DnsConfig", "ManagedRoute", "NetworkConfig", "Specialist"]

Interface: TypeAlias = IPv4Interface | IPv6Interface
Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

DEFAULT_MTU = 2800
MIN_MTU = 1280
MAX_MTU = 10_000
MAX_CAPABILITIES = 128
MAX_TAGS = 128
MAX_OWNERSHIPS = 4
MAX_ADDRESSES = 32
MAX_ROUTES = 128
MAX_SPECIALISTS = 256
MAX_DNS_SERVERS = 4
MAX_NAME = 127
MAX_DOMAIN = 127

# Flags of a configuration.
BROADCAST = 0x02
NDP_EMULATION = 0x04
UNKNOWN_MATCHES = 0x08
NO_COMPRESSION = 0x10

# Roles of a specialist.
ACTIVE_BRIDGE = 1 << 41
ANCHOR = 1 << 42
REPLICATOR = 1 << 43

FORMAT = 7
_MIN_FORMAT = 6
_PUBLIC = 1
_DOMAIN_LENGTH = 128
_ADDRESS_MASK = (1 << 40) - 1
_MAX_LIMIT = (1 << 32) - 1  # what fits into a MULTICAST_GATHER
_SPECIALIST = struct.Struct("!Q")
_ROUTE_TAIL = struct.Struct("!HH")
_NOBODY = bytes(ADDRESS_LENGTH)

_Item = TypeVar("_Item")


class Specialist(NamedTuple):
    """A member with a role.

    Attributes:
        address: whose.
        roles: ACTIVE_BRIDGE, ANCHOR, REPLICATOR, or others in the high 24 of 64 bits.
    """

    address: bytes
    roles: int


class ManagedRoute(NamedTuple):
    """A route that the network's administrator wants members to have.

    Attributes:
        target: where it leads.
        via: the gateway; None if *target* is directly reachable.
        flags: always 0.
        metric: always 0.
    """

    target: Network
    via: Address | None = None
    flags: int = 0
    metric: int = 0


class DnsConfig(NamedTuple):
    """Who resolves names of the network.

    Attributes:
        domain: under which these names are.
        servers: at most 4.
    """

    domain: str
    servers: tuple[Address, ...]


@attrs.frozen
class NetworkConfig:
    """A member's configuration.

    Attributes:
        network_id: which network.
        address: of the member whom it was issued to.
        timestamp: when it was issued, in the controller's milliseconds.
        window: how far credentials may be away from *timestamp*, in milliseconds.
        revision: of the network's settings.
        name: at most 127 octets of UTF-8.
        mtu: 1280 to 10000.
        multicast_limit: how many members get a multicast frame; 0 switches multicast off.
        is_public: True if certificates of membership are not needed.
        flags: BROADCAST, NDP_EMULATION, UNKNOWN_MATCHES, NO_COMPRESSION.
        membership: the member's own certificate.
        capabilities: the member's own, by ascending ID.
        tags: the member's own, by ascending ID.
        ownerships: the member's own.
        specialists: members with roles.
        routes: what the administrator wants to be in the routing table.
        addresses: the member's own.
        rules: the network's; none drops everything.
        dns: who resolves names, if anybody.
        sign_on_version: of single sign-on.
        sign_on_enabled: True if the user has to authenticate from time to time.
        sign_on_url: where, if *sign_on_enabled*.
        sign_on_expiry: until when the authentication is good, in the controller's milliseconds.
    """

    network_id: int
    address: bytes
    timestamp: int = 0
    window: int = 0
    revision: int = 0
    name: str = ""
    mtu: int = DEFAULT_MTU
    multicast_limit: int = 0
    is_public: bool = False
    flags: int = 0
    membership: MembershipCertificate | None = None
    capabilities: tuple[Capability, ...] = ()
    tags: tuple[Tag, ...] = ()
    ownerships: tuple[Ownership, ...] = ()
    specialists: tuple[Specialist, ...] = ()
    routes: tuple[ManagedRoute, ...] = ()
    addresses: tuple[Interface, ...] = ()
    rules: tuple[Rule, ...] = ()
    dns: DnsConfig | None = None
    sign_on_version: int = 0
    sign_on_enabled: bool = False
    sign_on_url: str = ""
    sign_on_expiry: int = 0

    @property
    def broadcast(self) -> bool:
        """True if members get broadcasts other than ARP."""
        return self.flags & BROADCAST != 0

    @property
    def ndp_emulation(self) -> bool:
        """True if members answer neighbor solicitations for 6PLANE and RFC 4193 by themselves."""
        return self.flags & NDP_EMULATION != 0

    @property
    def unknown_matches(self) -> bool:
        """True if matches that a member does not know count as matching."""
        return self.flags & UNKNOWN_MATCHES != 0

    @property
    def no_compression(self) -> bool:
        """True if multicast frames are not to be compressed."""
        return self.flags & NO_COMPRESSION != 0

    @cached_property
    def active_bridges(self) -> frozenset[bytes]:
        """Who may send and receive frames of other MACs than its own."""
        return self._with_role(ACTIVE_BRIDGE)

    @cached_property
    def anchors(self) -> frozenset[bytes]:
        """Who is always reachable."""
        return self._with_role(ANCHOR)

    @cached_property
    def replicators(self) -> frozenset[bytes]:
        """Who passes on multicast frames for others."""
        return self._with_role(REPLICATOR)

    def _with_role(self, role: int) -> frozenset[bytes]:
        return frozenset(address for address, roles in self.specialists if roles & role)

    @classmethod
    def parse(cls, data: Buffer) -> NetworkConfig:
        """Read a configuration.  No signature is checked.

        Of lists that are too long the first entries count.  Addresses and routes with impossible
        prefix lengths are left out.

        Raises:
            HeaderError: it is none, or it is too large or of a format that is no longer used.
        """
        if len(data) > MAX_CONFIGURATION:
            raise HeaderError(f"configuration: {len(data)} octets, at most {MAX_CONFIGURATION}")
        keys = Dictionary.parse(data)
        version = keys.get_int("v")
        if version < _MIN_FORMAT:
            raise HeaderError(f"configuration: format {version}, at least {_MIN_FORMAT}")
        network_id = keys.get_int("nwid")
        address = keys.get_address("id")
        if not network_id or address == _NOBODY:
            raise HeaderError("configuration: it does not say whose it is")
        mtu = keys.get_int("mtu", DEFAULT_MTU)
        capabilities = _parse_leniently(keys.get_bytes("CAP"), Capability.parse, MAX_CAPABILITIES)
        tags = _parse_leniently(keys.get_bytes("TAG"), Tag.parse, MAX_TAGS)
        certificate = keys.get_bytes("C")
        sign_on_version = keys.get_int("ssov")
        return cls(
            network_id=network_id,
            address=address,
            timestamp=keys.get_signed("ts"),
            window=keys.get_int("ctmd"),
            revision=keys.get_int("r"),
            name=_text(keys.get_bytes("n"), MAX_NAME),
            mtu=min(max(mtu, MIN_MTU), MAX_MTU),
            multicast_limit=min(keys.get_int("ml"), _MAX_LIMIT),
            is_public=keys.get_int("t") == _PUBLIC,
            flags=keys.get_int("f"),
            membership=MembershipCertificate.parse(certificate)[0] if certificate else None,
            capabilities=tuple(sorted(capabilities, key=_id_of)),
            tags=tuple(sorted(tags, key=_id_of)),
            ownerships=_parse_all(keys.get_bytes("COO"), Ownership.parse, MAX_OWNERSHIPS),
            specialists=_parse_specialists(keys.get_bytes("S")),
            routes=_parse_routes(keys.get_bytes("RT")),
            addresses=_parse_addresses(keys.get_bytes("I")),
            rules=parse_rules(keys.get_bytes("R"), NETWORK_LIMIT),
            dns=_parse_dns(keys.get_bytes("DNS")),
            sign_on_version=sign_on_version,
            sign_on_enabled=keys.get_bool("ssoe"),
            sign_on_url=keys.get_text("iurl" if sign_on_version == 1 else "aurl"),
            sign_on_expiry=keys.get_signed("aexpt"),
        )

    def emit(self) -> bytes:
        """The dictionary as a controller sends it (16.6).

        Raises:
            ValueError: the name, the DNS domain or a rule is too long, or there are too many DNS
                servers.
        """
        name = self.name.encode()
        if len(name) > MAX_NAME:
            raise ValueError(f"network name: at most {MAX_NAME} octets, got {len(name)}")
        keys = Dictionary()
        keys.set_int("v", FORMAT)
        keys.set_int("nwid", self.network_id)
        keys.set_int("ts", self.timestamp)
        keys.set_int("ctmd", self.window)
        keys.set_int("r", self.revision)
        keys.set_address("id", self.address)
        keys.set_address("tt", _NOBODY)
        keys.set_int("tl", 0)
        keys.set_int("f", self.flags)
        keys.set_int("ml", self.multicast_limit)
        keys.set_int("t", _PUBLIC if self.is_public else 0)
        keys.set_bytes("n", name)
        keys.set_int("mtu", self.mtu)
        for key, blob in (
            ("C", b"" if self.membership is None else self.membership.emit()),
            ("CAP", b"".join(capability.emit() for capability in self.capabilities)),
            ("TAG", b"".join(tag.emit() for tag in self.tags)),
            ("COO", b"".join(ownership.emit() for ownership in self.ownerships)),
            ("S", b"".join(map(_emit_specialist, self.specialists))),
            ("RT", b"".join(map(_emit_route, self.routes))),
            ("I", b"".join(map(_emit_address, self.addresses))),
            ("R", emit_rules(self.rules)),
            ("DNS", _emit_dns(self.dns)),
        ):
            if blob:
                keys.set_bytes(key, blob)
        keys.set_int("ssov", self.sign_on_version)
        keys.set_bool("ssoe", self.sign_on_enabled)
        if self.sign_on_enabled:
            keys.set_text("iurl" if self.sign_on_version == 1 else "aurl", self.sign_on_url)
            keys.set_int("aexpt", self.sign_on_expiry)
        return keys.emit()


def _text(octets: bytes, limit: int) -> str:
    text = octets.partition(b"\0")[0][:limit].decode("utf-8", "replace")
    # U+FFFD takes more octets than what it stands for, and the text has to fit again.
    return text.encode()[:limit].decode("utf-8", "ignore")


def _id_of(item: Capability | Tag) -> int:
    return item.id


def _parse_all(
    blob: bytes, parse: Callable[[Buffer, int], tuple[_Item, int]], limit: int
) -> tuple[_Item, ...]:
    found: list[_Item] = []
    at = 0
    while at < len(blob) and len(found) < limit:
        item, at = parse(blob, at)
        found.append(item)
    return tuple(found)


def _parse_leniently(
    blob: bytes, parse: Callable[[Buffer, int], tuple[_Item, int]], limit: int
) -> list[_Item]:
    found: list[_Item] = []
    at = 0
    while at < len(blob) and len(found) < limit:
        try:
            item, at = parse(blob, at)
        except HeaderError:
            break  # what was read before counts (6.1)
        found.append(item)
    return found


def _parse_specialists(blob: bytes) -> tuple[Specialist, ...]:
    end = min(len(blob) // _SPECIALIST.size, MAX_SPECIALISTS) * _SPECIALIST.size
    return tuple(
        Specialist((word & _ADDRESS_MASK).to_bytes(ADDRESS_LENGTH, "big"), word & ~_ADDRESS_MASK)
        for (word,) in _SPECIALIST.iter_unpack(blob[:end])
    )


def _emit_specialist(specialist: Specialist) -> bytes:
    return _SPECIALIST.pack(specialist.roles | int.from_bytes(specialist.address, "big"))


def _parse_routes(blob: bytes) -> tuple[ManagedRoute, ...]:
    routes: list[ManagedRoute] = []
    at = 0
    for _ in range(MAX_ROUTES):
        if at >= len(blob):
            break
        target, at = parse_endpoint(blob, at)
        via, at = parse_endpoint(blob, at)
        if at + _ROUTE_TAIL.size > len(blob):
            raise HeaderError(f"routes: truncated at {len(blob)} octets")
        flags, metric = _ROUTE_TAIL.unpack_from(blob, at)
        at += _ROUTE_TAIL.size
        interface = _interface(target)
        if interface is not None:
            gateway = None if via is None else _address(via)
            routes.append(ManagedRoute(interface.network, gateway, flags, metric))
    return tuple(routes)


def _emit_route(route: ManagedRoute) -> bytes:
    target = Endpoint(route.target.network_address.packed, route.target.prefixlen)
    via = None if route.via is None else Endpoint(route.via.packed, 0)
    tail = _ROUTE_TAIL.pack(route.flags, route.metric)
    return b"".join((emit_endpoint(target), emit_endpoint(via), tail))


def _parse_addresses(blob: bytes) -> tuple[Interface, ...]:
    blocks = _parse_all(blob, parse_endpoint, MAX_ADDRESSES)
    interfaces = map(_interface, blocks)
    return tuple(interface for interface in interfaces if interface is not None)


def _emit_address(interface: Interface) -> bytes:
    return emit_endpoint(Endpoint(interface.ip.packed, interface.network.prefixlen))


def _interface(block: Endpoint | None) -> Interface | None:
    if block is None:
        return None
    ip, prefix_length = block
    if len(ip) == 4:
        return IPv4Interface((ip, prefix_length)) if prefix_length <= 32 else None
    return IPv6Interface((ip, prefix_length)) if prefix_length <= 128 else None


def _address(block: Endpoint) -> Address:
    return IPv4Address(block.ip) if len(block.ip) == 4 else IPv6Address(block.ip)


def _parse_dns(blob: bytes) -> DnsConfig | None:
    if not blob:
        return None
    if len(blob) < _DOMAIN_LENGTH:
        raise HeaderError(f"DNS: only {len(blob)} octets")
    domain = _text(blob[:_DOMAIN_LENGTH], MAX_DOMAIN)
    servers = []
    at = _DOMAIN_LENGTH
    for _ in range(MAX_DNS_SERVERS):
        block, at = parse_endpoint(blob, at)
        if block is not None:
            servers.append(_address(block))
    return DnsConfig(domain, tuple(servers)) if domain or servers else None


def _emit_dns(dns: DnsConfig | None) -> bytes:
    domain = b"" if dns is None else dns.domain.encode()
    servers = () if dns is None else dns.servers
    if len(domain) > MAX_DOMAIN:
        raise ValueError(f"DNS domain: at most {MAX_DOMAIN} octets, got {len(domain)}")
    if len(servers) > MAX_DNS_SERVERS:
        raise ValueError(f"DNS: at most {MAX_DNS_SERVERS} servers, got {len(servers)}")
    blocks = [emit_endpoint(Endpoint(server.packed, 0)) for server in servers]
    blocks += [emit_endpoint(None)] * (MAX_DNS_SERVERS - len(servers))
    return b"".join((domain.ljust(_DOMAIN_LENGTH, b"\0"), *blocks))
