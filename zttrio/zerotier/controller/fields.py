"""What people may write into the fields of a record, and what is kept of it (VL2 spec, 16.5, 16.8).

Each function takes a JSON value and the name of its field, and returns the value to store.  Tools
for the reference controller rely on its leniency in some places, so booleans may be texts, routes
without a good target and pools without two good ends are dropped; where leniency would change
what a network lets through, as with rules, the whole change is refused.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

from zttrio.zerotier.network.rule_json import rules_from_json, rules_to_json
from zttrio.zerotier.network.rules import CAPABILITY_LIMIT, NETWORK_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MEMBER_FIELDS", "NETWORK_FIELDS", "Normalizer", "RecordError"]

Normalizer: TypeAlias = "Callable[[Any, str], Any]"

MTU_RANGE = (1280, 10_000)
WINDOW_RANGE = (300_000, 7_200_000)  # ms (1.2)
NAME_LENGTH = 127  # octets (1.2)
ROUTES = 128
POOLS = 128  # arbitrary
CAPABILITIES = 128
TAGS = 128
ADDRESSES = 32
DNS_SERVERS = 4
TOKENS = 1024  # arbitrary
_DOMAIN_LENGTH = 127
_SOURCE_LENGTH = 1 << 20  # arbitrary
_UINT32 = (1 << 32) - 1
_MAX_TIME = (1 << 63) - 1


class RecordError(ValueError):
    """A field cannot be set to that: ``field: why``."""


def boolean(value: Any, field: str) -> bool:
    """A truth value; a text is true if it starts with t, T or 1, as the reference has it."""
    if isinstance(value, str):
        return value[:1] in ("t", "T", "1")
    if isinstance(value, (bool, int, float)):
        return bool(value)
    raise RecordError(f"{field}: needs true or false, got {_shown(value)}")


def number(low: int, high: int) -> Normalizer:
    """A whole number in a range, maybe written as text."""

    def normalize(value: Any, field: str) -> int:
        found = _whole(value, field)
        if not low <= found <= high:
            raise RecordError(f"{field}: needs {low} to {high}, got {_shown(found)}")
        return found

    return normalize


def clamped(low: int, high: int) -> Normalizer:
    """A whole number, moved into a range."""
    return lambda value, field: min(max(_whole(value, field), low), high)


def text(limit: int) -> Normalizer:
    """A text of at most *limit* octets in UTF-8, without NUL."""

    def normalize(value: Any, field: str) -> str:
        if not isinstance(value, str):
            raise RecordError(f"{field}: needs a text, got {_shown(value)}")
        try:
            length = len(value.encode())
        except UnicodeEncodeError:
            raise RecordError(f"{field}: the text holds half a character") from None
        if length > limit or "\0" in value:
            raise RecordError(f"{field}: at most {limit} octets without NUL, got {length}")
        return value

    return normalize


def ipv4_mode(value: Any, field: str) -> dict[str, bool]:
    """``{"zt": true}`` or the text ``zt``."""
    return _mode(value, field, ("zt",))


def ipv6_mode(value: Any, field: str) -> dict[str, bool]:
    """``{"zt": .., "6plane": .., "rfc4193": ..}`` or the true ones as text, with commas."""
    return _mode(value, field, ("zt", "6plane", "rfc4193"))


def routes(value: Any, field: str) -> list[dict[str, str | None]]:
    """Routes; one without a good target is dropped, one with a bad gateway refused."""
    kept: list[dict[str, str | None]] = []
    for route in _items(value, field, ROUTES):
        if not isinstance(route, dict):
            raise RecordError(f"{field}: needs objects, got {_shown(route)}")
        try:
            target = ip_network(str(route.get("target")), strict=False)
        except ValueError:
            continue
        via = route.get("via")
        if via is not None:
            # Without its gateway the route would say that everything there is a neighbour.
            gateway = _address(via, field)
            if gateway.version != target.version:
                raise RecordError(f"{field}: gateway {via} does not fit target {target}")
            via = str(gateway)
        kept.append({"target": str(target), "via": via})
    return kept


def pools(value: Any, field: str) -> list[dict[str, str]]:
    """Ranges of addresses; one without two good ends of one family, in order, is dropped."""
    kept = []
    for pool in _items(value, field, POOLS):
        if not isinstance(pool, dict):
            raise RecordError(f"{field}: needs objects, got {_shown(pool)}")
        try:
            start = _address(pool.get("ipRangeStart"), field)
            end = _address(pool.get("ipRangeEnd"), field)
        except RecordError:
            continue
        if start.version == end.version and int(start) <= int(end):
            kept.append({"ipRangeStart": str(start), "ipRangeEnd": str(end)})
    return kept


def rules(value: Any, field: str) -> list[dict[str, Any]]:
    """The rules of a network in their JSON form (16.9), every one of them understood."""
    return _rules(value, field, NETWORK_LIMIT)


def capabilities(value: Any, field: str) -> list[dict[str, Any]]:
    """What a network lets some members do: ``[{"id": 1, "default": false, "rules": [..]}]``."""
    kept = {}
    for item in _items(value, field, CAPABILITIES):
        if not isinstance(item, dict) or "id" not in item:
            raise RecordError(f"{field}: needs objects with an id, got {_shown(item)}")
        identifier = _identifier(item["id"], field)
        where = f"{field}: capability {identifier}"
        if identifier in kept:
            raise RecordError(f"{where}: it is there twice")
        kept[identifier] = {
            "id": identifier,
            "default": boolean(item.get("default", False), where),
            "rules": _rules(item.get("rules", []), where, CAPABILITY_LIMIT),
        }
    return [kept[identifier] for identifier in sorted(kept)]


def tag_defaults(value: Any, field: str) -> list[dict[str, int | None]]:
    """The tags of a network: ``[{"id": 1, "default": null}]``."""
    kept: dict[int, dict[str, int | None]] = {}
    for item in _items(value, field, TAGS):
        if not isinstance(item, dict) or "id" not in item:
            raise RecordError(f"{field}: needs objects with an id, got {_shown(item)}")
        identifier = _identifier(item["id"], field)
        if identifier in kept:
            raise RecordError(f"{field}: tag {identifier} is there twice")
        default = item.get("default")
        if default is not None:
            default = _identifier(default, f"{field}: tag {identifier}")
        kept[identifier] = {"id": identifier, "default": default}
    return [kept[identifier] for identifier in sorted(kept)]


def tokens(value: Any, field: str) -> dict[str, int] | list[None]:
    """Join tokens and until when they are good (ms, 0 for ever); none is written ``[null]``."""
    if value is None or (isinstance(value, list) and all(item is None for item in value)):
        return [None]
    if not isinstance(value, dict) or len(value) > TOKENS:
        raise RecordError(f"{field}: needs an object of at most {TOKENS} tokens")
    kept = {}
    for token, expiry in value.items():
        name = text(NAME_LENGTH)(token, field)
        if not name:
            raise RecordError(f"{field}: a token cannot be empty")
        kept[name] = number(0, _MAX_TIME)(expiry, field)
    return kept or [None]


def dns(value: Any, field: str) -> dict[str, Any] | list[Any]:
    """``{"domain": "x", "servers": ["ip", ..]}``; none is written ``[]``."""
    if not value:
        return []
    if not isinstance(value, dict):
        raise RecordError(f"{field}: needs an object, got {_shown(value)}")
    servers = [
        str(_address(item, field)) for item in _items(value.get("servers", []), field, DNS_SERVERS)
    ]
    return {"domain": text(_DOMAIN_LENGTH)(value.get("domain", ""), field), "servers": servers}


def addresses(value: Any, field: str) -> list[str]:
    """IP addresses of a member, without their prefix lengths, each once."""
    kept = []
    for item in _items(value, field, ADDRESSES):
        if not isinstance(item, str):
            raise RecordError(f"{field}: needs texts, got {_shown(item)}")
        kept.append(str(_address(item.partition("/")[0], field)))
    return list(dict.fromkeys(kept))


def member_tags(value: Any, field: str) -> list[list[int]]:
    """Tags of a member: ``[[id, value], ..]``; of one id the last counts."""
    kept = {}
    for item in _items(value, field, TAGS):
        if not isinstance(item, list) or len(item) != 2:
            raise RecordError(f"{field}: needs pairs of id and value, got {_shown(item)}")
        kept[_identifier(item[0], field)] = _identifier(item[1], field)
    return [[identifier, kept[identifier]] for identifier in sorted(kept)]


def identifiers(value: Any, field: str) -> list[int]:
    """Ids of the capabilities that a member has."""
    return sorted({_identifier(item, field) for item in _items(value, field, CAPABILITIES)})


def trace_target(value: Any, field: str) -> str | None:
    """A node address or null.  It is stored and not used: remote tracing is not spoken here."""
    if value is None or value == "":
        return None
    found = str(text(10)(value, field))
    if len(found) != 10 or not set(found) <= set("0123456789abcdef"):
        raise RecordError(f"{field}: needs ten hex digits, got {_shown(value)}")
    return found


NETWORK_FIELDS: dict[str, Normalizer] = {
    "name": text(NAME_LENGTH),
    "private": boolean,
    "enableBroadcast": boolean,
    "multicastLimit": number(0, (1 << 31) - 1),
    "mtu": clamped(*MTU_RANGE),
    "v4AssignMode": ipv4_mode,
    "v6AssignMode": ipv6_mode,
    "routes": routes,
    "ipAssignmentPools": pools,
    "rules": rules,
    "capabilities": capabilities,
    "tags": tag_defaults,
    "authTokens": tokens,
    "dns": dns,
    "ssoEnabled": boolean,
    "clientId": text(_SOURCE_LENGTH),
    "authorizationEndpoint": text(_SOURCE_LENGTH),
    "rulesSource": text(_SOURCE_LENGTH),
    "remoteTraceTarget": trace_target,
    "remoteTraceLevel": number(0, _UINT32),
    "certificateTimeoutWindowSize": clamped(*WINDOW_RANGE),
}
"""What may be set of a network.  The reference does not let anybody set the last one."""

MEMBER_FIELDS: dict[str, Normalizer] = {
    "name": text(4 * NAME_LENGTH),
    "authorized": boolean,
    "activeBridge": boolean,
    "noAutoAssignIps": boolean,
    "ipAssignments": addresses,
    "tags": member_tags,
    "capabilities": identifiers,
    "authenticationExpiryTime": number(0, _MAX_TIME),
    "ssoExempt": boolean,
    "remoteTraceTarget": trace_target,
    "remoteTraceLevel": number(0, _UINT32),
}
"""What may be set of a member."""


def _whole(value: Any, field: str) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    elif isinstance(value, float) and value.is_integer():
        return int(value)
    raise RecordError(f"{field}: needs a whole number, got {_shown(value)}")


def _identifier(value: Any, field: str) -> int:
    return int(number(0, _UINT32)(value, field))


def _items(value: Any, field: str, limit: int) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(f"{field}: needs a list, got {_shown(value)}")
    if len(value) > limit:
        raise RecordError(f"{field}: at most {limit} entries, got {len(value)}")
    return value


def _address(value: Any, field: str) -> Any:
    try:
        found = ip_address(str(value))
    except ValueError:
        found = None
    if found is None or "%" in str(value):  # a zone is about one machine's interfaces
        raise RecordError(f"{field}: {_shown(value)} is no IP address")
    return found


def _mode(value: Any, field: str, known: tuple[str, ...]) -> dict[str, bool]:
    if isinstance(value, str):
        chosen = set(value.replace(" ", "").split(","))
        return {name: name in chosen for name in known}
    if not isinstance(value, dict):
        raise RecordError(f"{field}: needs an object, got {_shown(value)}")
    return {name: boolean(value.get(name, False), field) for name in known}


def _rules(value: Any, field: str, limit: int) -> list[dict[str, Any]]:
    items = _items(value, field, limit)
    try:
        found = rules_to_json(rules_from_json(items))
    except ValueError as exc:
        raise RecordError(f"{field}: {exc}") from exc
    # The reference writes these two for actions too.
    return [{"not": False, "or": False, **item} for item in found]


def _shown(value: Any) -> str:
    found = ascii(value)
    return found if len(found) <= 40 else f"{found[:37]}..."
