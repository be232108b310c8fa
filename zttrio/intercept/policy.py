"""Where the traffic of unmodified programs may go: the virtual network, the host's, or nowhere.

Strict is the default: everything is virtual, and what the virtual network cannot carry fails.
Rules give single destinations to the host, in the order in which they are written; the first that
fits decides.
"""

from __future__ import annotations

import hashlib
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from zttrio.errors import InterceptError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = ["DENY", "HOST", "VIRTUAL", "Policy", "Rule"]

VIRTUAL, HOST, DENY = range(3)  # the numbers of the tap service, rpc.POLICY_*
_VERDICTS = {"virtual": VIRTUAL, "host": HOST, "deny": DENY}
_LOOPBACKS = ("127.0.0.0/8", "::1/128")
_ALL_PORTS = (0, 0xFFFF)


@attrs.frozen
class Rule:
    """One line of a policy.

    Attributes:
        network: the destinations, as ``address/length``.
        ports: first and last port.
        verdict: VIRTUAL, HOST or DENY.
    """

    network: str
    ports: tuple[int, int] = _ALL_PORTS
    verdict: int = HOST

    @classmethod
    def parse(cls, row: dict[str, Any]) -> Self:
        """Read a ``[[rule]]`` of a policy file.

        Raises:
            ValueError: the row makes no sense; the text says why.
        """
        unknown = set(row) - {"to", "port", "verdict"}
        if unknown:
            raise ValueError(f"{min(unknown)}: a rule has to, port and verdict")
        verdict = row.get("verdict", "host")
        if verdict not in _VERDICTS:
            raise ValueError(f"verdict {verdict!r}: must be virtual, host or deny")
        network = ip_network(str(row.get("to", "")), strict=False)
        return cls(str(network), _parse_ports(row.get("port")), _VERDICTS[verdict])

    def __str__(self) -> str:
        names = {number: name for name, number in _VERDICTS.items()}
        return f"{self.network} port {self.ports[0]}-{self.ports[1]} {names[self.verdict]}"


def _parse_ports(value: object) -> tuple[int, int]:
    if value is None:
        return _ALL_PORTS
    first, dash, last = str(value).partition("-")
    ports = int(first), int(last if dash else first)
    if not 0 <= ports[0] <= ports[1] <= 0xFFFF:
        raise ValueError(f"port {value}: must be a port, or two with a dash between")
    return ports


@attrs.frozen
class Policy:
    """What the tap service does with each destination; implements its `Policy` protocol.

    Attributes:
        rules: the first that fits decides.
        default: what happens to all other destinations.
        is_strict: programs that would bypass the virtual network are not started, and system
            calls that would are refused.
        host_names: names that nobody on the virtual network has are asked of the host's resolver.
    """

    rules: tuple[Rule, ...] = ()
    default: int = VIRTUAL
    is_strict: bool = True
    host_names: bool = False
    _prepared: tuple[tuple[int, int, int, int, int, int], ...] = attrs.field(init=False, repr=False)

    @_prepared.default
    def _prepare(self) -> tuple[tuple[int, int, int, int, int, int], ...]:
        rows = []
        for rule in self.rules:
            network = ip_network(rule.network)
            octets = network.max_prefixlen // 8
            shift = network.max_prefixlen - network.prefixlen
            rows.append(
                (octets, int(network.network_address) >> shift, shift, *rule.ports, rule.verdict)
            )
        return tuple(rows)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a policy file (TOML).

        .. code-block:: toml

            strict = true         # the default
            default = "virtual"   # or "host", "deny"
            host-names = false
            [[rule]]
            to = "192.0.2.0/24"
            port = "8000-8100"    # or a number; all ports without it
            verdict = "host"      # the default; or "virtual", "deny"

        Raises:
            InterceptError: it cannot be read, or makes no sense; the text says where.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as exc:
            raise InterceptError(f"policy {path}: {exc.strerror}") from exc
        except ValueError as exc:  # TOML and UTF-8 errors
            raise InterceptError(f"policy {path}: {exc}") from exc
        try:
            return cls._from_table(table)
        except (ValueError, TypeError) as exc:
            raise InterceptError(f"policy {path}: {exc}") from exc

    @classmethod
    def _from_table(cls, table: dict[str, Any]) -> Self:
        unknown = set(table) - {"strict", "default", "host-names", "rule"}
        if unknown:
            raise ValueError(f"{min(unknown)}: not a setting of a policy")
        default = table.get("default", "virtual")
        if default not in _VERDICTS:
            raise ValueError(f"default {default!r}: must be virtual, host or deny")
        for name in ("strict", "host-names"):
            if not isinstance(table.get(name, False), bool):
                raise TypeError(f"{name}: must be true or false")
        rules = []
        for number, row in enumerate(table.get("rule", []), 1):
            try:
                rules.append(Rule.parse(row))
            except ValueError as exc:
                raise ValueError(f"rule {number}: {exc}") from exc
        return cls(
            tuple(rules),
            _VERDICTS[default],
            table.get("strict", True),
            table.get("host-names", False),
        )

    def allow_host(self, destinations: Iterable[str], *, loopback: bool = False) -> Self:
        """The same policy with *destinations* (addresses or CIDR) given to the host first.

        Raises:
            InterceptError: a destination is not an address or a network.
        """
        rules = []
        for text in [*destinations, *(_LOOPBACKS if loopback else ())]:
            try:
                rules.append(Rule(str(ip_network(text, strict=False))))
            except ValueError as exc:
                raise InterceptError(f"allow-host: {exc}") from exc
        return attrs.evolve(self, rules=(*rules, *self.rules))

    def verdict(self, address: bytes, port: int) -> int:
        """VIRTUAL, HOST or DENY for the packed address and port of a destination."""
        number = int.from_bytes(address)
        octets = len(address)
        for length, prefix, shift, first, last, verdict in self._prepared:
            if length == octets and number >> shift == prefix and first <= port <= last:
                return verdict
        return self.default

    @property
    def has_host_rules(self) -> bool:
        """True if some destinations are the host's."""
        return HOST in (self.default, *(rule.verdict for rule in self.rules))

    def digest(self) -> bytes:
        """32 octets that change when the rules do."""
        text = "\n".join(
            [f"{self.default} {self.is_strict} {self.host_names}", *map(str, self.rules)]
        )
        return hashlib.sha256(text.encode()).digest()
