"""Networks and members as records: JSON objects outside, typed values inside (VL2 spec, 16.5).

A record never changes; `changed` makes the next one, with a higher revision, or returns the same
one if nothing is different.  What may be written into one is in `fields`.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import attrs

from zttrio.zerotier.network.rule_json import rules_from_json

from .fields import MEMBER_FIELDS, NETWORK_FIELDS, RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zttrio.zerotier.identity import Identity
    from zttrio.zerotier.network.rules import Rule

    from .fields import Normalizer

__all__ = ["MemberRecord", "NetworkRecord", "RecordError", "Route"]

IpAddress: TypeAlias = "IPv4Address | IPv6Address"
IpNetwork: TypeAlias = "IPv4Network | IPv6Network"

DEFAULT_WINDOW = 1_800_000  # ms (1.2)


class Route(NamedTuple):
    """A managed route; without *via* everything in *target* is a neighbour."""

    target: IpNetwork
    via: IpAddress | None


@attrs.frozen(eq=False)
class NetworkRecord:
    """One network.

    Attributes:
        network_id: whose first 40 bits are the controller's address.
        fields: the JSON object; whoever has it must not change it.
    """

    network_id: int
    fields: Mapping[str, Any]

    @classmethod
    def new(cls, network_id: int, clock: int) -> NetworkRecord:
        """A network that nobody has configured yet.

        Args:
            network_id: its ID.
            clock: ms since 1970.
        """
        name = f"{network_id:016x}"
        accept = {"type": "ACTION_ACCEPT", "not": False, "or": False}
        return cls(
            network_id,
            {
                "id": name,
                "nwid": name,
                "objtype": "network",
                "name": "",
                "private": True,
                "creationTime": clock,
                "revision": 1,
                "enableBroadcast": True,
                "multicastLimit": 32,
                "mtu": 2800,
                "v4AssignMode": {"zt": False},
                "v6AssignMode": {"zt": False, "6plane": False, "rfc4193": False},
                "routes": [],
                "ipAssignmentPools": [],
                "rules": [accept],
                "capabilities": [],
                "tags": [],
                "authTokens": [None],
                "dns": [],
                "ssoEnabled": False,
                "clientId": "",
                "authorizationEndpoint": "",
                "rulesSource": "",
                "remoteTraceTarget": None,
                "remoteTraceLevel": 0,
            },
        )

    @classmethod
    def load(cls, network_id: int, fields: Mapping[str, Any]) -> NetworkRecord:
        """A record from storage; fields that are missing there get their defaults.

        Raises:
            RecordError: a field cannot have that value.
        """
        new = cls.new(network_id, 0)
        return cls(network_id, _load(new.fields, fields, NETWORK_FIELDS, ("creationTime",)))

    def changed(self, changes: Mapping[str, Any]) -> NetworkRecord:
        """The record after *changes*; fields that cannot be set are ignored.

        Raises:
            RecordError: a field cannot have that value; nothing is changed.
        """
        fields = _changed(self.fields, changes, NETWORK_FIELDS)
        return self if fields is None else NetworkRecord(self.network_id, fields)

    @property
    def name(self) -> str:
        """What members may show."""
        return str(self.fields["name"])

    @property
    def revision(self) -> int:
        """How often it was changed, from 1."""
        return int(self.fields["revision"])

    @property
    def is_private(self) -> bool:
        """False if every node may join."""
        return bool(self.fields["private"])

    @property
    def window(self) -> int:
        """How far apart credentials may be, in ms (8.2)."""
        return int(self.fields.get("certificateTimeoutWindowSize", DEFAULT_WINDOW))

    @property
    def needs_sign_on(self) -> bool:
        """True if members have to authenticate somewhere else now and then."""
        return bool(self.fields["ssoEnabled"])

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The base rules."""
        return tuple(rules_from_json(self.fields["rules"]))

    @cached_property
    def capabilities(self) -> dict[int, tuple[Rule, ...]]:
        """The rules of each capability, by its id."""
        return {c["id"]: tuple(rules_from_json(c["rules"])) for c in self.fields["capabilities"]}

    @cached_property
    def default_capabilities(self) -> tuple[int, ...]:
        """What a member can do from its first authorisation on."""
        return tuple(c["id"] for c in self.fields["capabilities"] if c["default"])

    @cached_property
    def tag_defaults(self) -> dict[int, int]:
        """Tags that every member has, with the value for those who have not been given another."""
        return {t["id"]: t["default"] for t in self.fields["tags"] if t["default"] is not None}

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The managed routes, in their order."""
        return tuple(
            Route(ip_network(r["target"]), None if r["via"] is None else ip_address(r["via"]))
            for r in self.fields["routes"]
        )

    @cached_property
    def gateways(self) -> frozenset[bytes]:
        """Addresses of the routes' gateways, packed: never to be given to just anybody."""
        return frozenset(route.via.packed for route in self.routes if route.via is not None)

    @cached_property
    def pools(self) -> tuple[tuple[IpAddress, IpAddress], ...]:
        """Ranges that addresses are taken from: first and last, of one family."""
        return tuple(
            (ip_address(pool["ipRangeStart"]), ip_address(pool["ipRangeEnd"]))
            for pool in self.fields["ipAssignmentPools"]
        )

    def accepts_token(self, token: str, clock: int) -> bool:
        """True if whoever knows *token* may join now."""
        tokens = self.fields["authTokens"]
        if not isinstance(tokens, dict) or token not in tokens:
            return False
        expiry = tokens[token]
        return bool(expiry == 0 or expiry > clock)


@attrs.frozen(eq=False)
class MemberRecord:
    """One node of one network.

    Attributes:
        network_id: the network.
        address: the node, 5 octets.
        fields: the JSON object; whoever has it must not change it.
    """

    network_id: int
    address: bytes
    fields: Mapping[str, Any]

    @classmethod
    def new(cls, network_id: int, address: bytes, clock: int) -> MemberRecord:
        """A member that may do nothing yet."""
        name = address.hex()
        return cls(
            network_id,
            address,
            {
                "id": name,
                "address": name,
                "nwid": f"{network_id:016x}",
                "objtype": "member",
                "authorized": False,
                "activeBridge": False,
                "noAutoAssignIps": False,
                "ipAssignments": [],
                "tags": [],
                "capabilities": [],
                "creationTime": clock,
                "lastAuthorizedTime": 0,
                "lastDeauthorizedTime": 0,
                "lastAuthorizedCredentialType": None,
                "lastAuthorizedCredential": None,
                "revision": 1,
                "vMajor": -1,
                "vMinor": -1,
                "vRev": -1,
                "vProto": -1,
                "authenticationExpiryTime": 0,
                "ssoExempt": False,
                "remoteTraceTarget": None,
                "remoteTraceLevel": 0,
            },
        )

    @classmethod
    def load(cls, network_id: int, address: bytes, fields: Mapping[str, Any]) -> MemberRecord:
        """A record from storage; fields that are missing there get their defaults.

        Raises:
            RecordError: a field cannot have that value.
        """
        new = cls.new(network_id, address, 0)
        return cls(network_id, address, _load(new.fields, fields, MEMBER_FIELDS, _OWN_FIELDS))

    def changed(self, changes: Mapping[str, Any], clock: int) -> MemberRecord:
        """The record after *changes* of its owner; fields that cannot be set are ignored.

        Args:
            changes: the fields to set.
            clock: ms since 1970, noted if ``authorized`` changes.

        Raises:
            RecordError: a field cannot have that value; nothing is changed.
        """
        fields = _changed(self.fields, changes, MEMBER_FIELDS)
        if fields is None:
            return self
        if fields["authorized"] and not self.is_authorized:
            fields |= _authorized(clock, "api", None)
        elif not fields["authorized"] and self.is_authorized:
            fields["lastDeauthorizedTime"] = clock
        return MemberRecord(self.network_id, self.address, fields)

    def authorized(self, clock: int, kind: str, credential: str | None) -> MemberRecord:
        """The record after the controller let the member in by itself (16.2, step 4)."""
        return self.replaced({"authorized": True, **_authorized(clock, kind, credential)})

    def replaced(self, values: Mapping[str, Any]) -> MemberRecord:
        """The record with fields that the controller itself keeps; values are not checked."""
        if all(self.fields.get(key, ...) == value for key, value in values.items()):
            return self
        fields = {**self.fields, **values, "revision": self.revision + 1}
        return MemberRecord(self.network_id, self.address, fields)

    @property
    def is_authorized(self) -> bool:
        """True if it gets configurations."""
        return bool(self.fields["authorized"])

    @property
    def may_bridge(self) -> bool:
        """True if it may bridge other devices into the network."""
        return bool(self.fields["activeBridge"]) and self.is_authorized

    @property
    def revision(self) -> int:
        """How often it was changed, from 1."""
        return int(self.fields["revision"])

    @property
    def is_pristine(self) -> bool:
        """True if nobody but its own node has ever had to do with it."""
        return self.revision == 1 and not self.fields["lastAuthorizedTime"]

    @property
    def deauthorized_at(self) -> int:
        """When it was last shut out, in ms since 1970, or 0."""
        return int(self.fields["lastDeauthorizedTime"])

    @cached_property
    def addresses(self) -> tuple[IpAddress, ...]:
        """The IP addresses it was given."""
        return tuple(map(ip_address, self.fields["ipAssignments"]))

    @property
    def tags(self) -> dict[int, int]:
        """Values of its tags by id."""
        return dict(self.fields["tags"])

    def is_pinned_to(self, identity: Identity) -> bool | None:
        """True if this is the identity seen first, False if it is another, None before that."""
        pinned = self.fields.get("identity")
        return None if pinned is None else bool(pinned == identity.text())


_OWN_FIELDS = (
    "creationTime",
    "lastAuthorizedTime",
    "lastDeauthorizedTime",
    "lastAuthorizedCredentialType",
    "lastAuthorizedCredential",
    "vMajor",
    "vMinor",
    "vRev",
    "vProto",
    "identity",
)


def _authorized(clock: int, kind: str, credential: str | None) -> dict[str, Any]:
    return {
        "lastAuthorizedTime": clock,
        "lastAuthorizedCredentialType": kind,
        "lastAuthorizedCredential": credential,
    }


def _changed(
    fields: Mapping[str, Any], changes: Mapping[str, Any], known: Mapping[str, Normalizer]
) -> dict[str, Any] | None:
    """The fields after *changes*, with the next revision, or None if nothing is different."""
    new = dict(fields)
    for field, normalize in known.items():
        if field in changes:
            new[field] = normalize(changes[field], field)
    if new == fields:
        return None
    new["revision"] += 1
    return new


def _load(
    new: Mapping[str, Any],
    stored: Mapping[str, Any],
    known: Mapping[str, Normalizer],
    own: tuple[str, ...],
) -> dict[str, Any]:
    loaded = _changed(new, stored, known) or dict(new)
    for field in (*own, "revision"):
        if field in stored:
            loaded[field] = stored[field]
    return loaded
