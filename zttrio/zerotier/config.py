"""Every number of a node that its owner may turn.  Times are seconds, sizes are octets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from . import constants

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

__all__ = ["NodeConfig", "RelayConfig", "TrustedPath"]


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be greater than 0, got {value}")


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, got {value}")


def _path_id(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 0 < value < 1 << 64:
        raise ValueError(f"{attribute.name} must be 1 to 2 ** 64 - 1, got {value}")


@attrs.frozen
class TrustedPath:
    """A physical network whose packets are believed without any cryptography (16).

    Attributes:
        network: where such packets may come from.
        path_id: the number both ends have been given, not 0.
    """

    network: IPv4Network | IPv6Network
    path_id: int = attrs.field(validator=_path_id)


def _mtu(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 1400 <= value <= 10_324:  # 17.2
        raise ValueError(f"{attribute.name} must be 1400 to 10324, got {value}")


def _protocol(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not constants.MIN_PROTOCOL <= value <= constants.PROTOCOL:
        low, high = constants.MIN_PROTOCOL, constants.PROTOCOL
        raise ValueError(f"{attribute.name} must be {low} to {high}, got {value}")


@attrs.frozen(kw_only=True)
class NodeConfig:
    """How one node behaves.

    Raises:
        ValueError: a value makes no sense.
    """

    protocol: int = attrs.field(default=constants.PROTOCOL, validator=_protocol)
    """What we say we speak; below 12 nobody sends us AES."""
    version: tuple[int, int, int] = (1, 14, 0)
    """Software version in HELLO; peers only look at the protocol, so one that they know."""
    mtu: int = attrs.field(default=constants.MTU, validator=_mtu)
    """UDP payload of one datagram."""
    online_timeout: float = attrs.field(default=60.0, validator=_positive)
    """Silence of all roots after which we are offline; the reference's 500 s help nobody, since
    roots are asked for a sign of life every 14 s."""
    peer_timeout: float = attrs.field(default=500.0, validator=_positive)
    """Silence after which a peer is forgotten (12.4)."""
    peer_limit: int = attrs.field(default=16_384, validator=_positive)
    """Peers known at once; the one silent longest makes room.  Arbitrary."""
    paths_per_peer: int = attrs.field(default=64, validator=_positive)
    """12.1."""
    validation_interval: float = attrs.field(default=2.0, validator=_not_negative)
    """Between two identities to validate from one /24 or /48 (15); roots in a lab want less."""
    validation_queue: int = attrs.field(default=32, validator=_positive)
    """Identities waiting for the worker; arbitrary."""
    validate_whois: bool = True
    """Check identities that roots tell us before using them; the reference does not (3.5)."""
    moon_limit: int = attrs.field(default=16, validator=_positive)
    """Moons held or wanted at once; arbitrary."""
    loopback_paths: bool = False
    """Let paths lead to loopback addresses, for tests between our own nodes (17.3)."""
    blacklist: tuple[IPv4Network | IPv6Network, ...] = ()
    """Physical networks that no path may lead to (12.2)."""
    trusted_paths: tuple[TrustedPath, ...] = ()
    """Packets in suite 2 are accepted from these only; none are sent."""


@attrs.frozen(kw_only=True)
class RelayConfig:
    """How one root relays.

    Raises:
        ValueError: a value makes no sense.
    """

    packets_per_second: float = attrs.field(default=5000.0, validator=_positive)
    """Datagrams relayed from one IP address, on average; arbitrary."""
    burst: int = attrs.field(default=2000, validator=_positive)
    """And at once; arbitrary, two full UDP receive buffers."""
    senders: int = attrs.field(default=16_384, validator=_positive)
    """IP addresses whose rate is watched at once; arbitrary."""
    introduction_interval: float = attrs.field(default=30.0, validator=_positive)
    """Between two RENDEZVOUS for one pair of nodes (15)."""
    pairs: int = attrs.field(default=65_536, validator=_positive)
    """Pairs remembered for that; arbitrary."""
    whois_per_second: float = attrs.field(default=100.0, validator=_positive)
    """Identities told to one peer, on average (18.3)."""
    whois_burst: int = attrs.field(default=100, validator=_positive)
    """And at once; arbitrary."""
