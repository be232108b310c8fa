"""Every number a user may turn, with its source.  Times are seconds, sizes are octets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["Config"]


def _positive(_: object, attribute: Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be greater than 0, got {value}")


def _not_negative(_: object, attribute: Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, got {value}")


@attrs.frozen(kw_only=True)
class Config:
    """How one `Network` behaves.  Immutable; change with `attrs.evolve`.

    Raises:
        ValueError: a value makes no sense.
    """

    # network
    linger: float = attrs.field(default=2.0, validator=_not_negative)
    """How long leaving the Network waits for open connections to finish; arbitrary."""
    ring_size: int = attrs.field(default=8, validator=_positive)
    """Bursts that may wait between wire and stack, like the ring of a network card."""

    # tcp
    backlog: int = attrs.field(default=128, validator=_positive)
    """Accept queue of a listener that does not say; Linux's long-time SOMAXCONN."""
    syn_queue: int = attrs.field(default=256, validator=_positive)
    """Unfinished handshakes per listener; Linux's tcp_max_syn_backlog on small machines."""
    send_buffer: int = attrs.field(default=4 << 20, validator=_positive)
    """Octets a connection keeps until they are acknowledged; Linux's tcp_wmem maximum."""
    receive_buffer: int = attrs.field(default=4 << 20, validator=_positive)
    """Octets a connection keeps for a program that does not read; the largest window offered."""
    rto_initial: float = attrs.field(default=1.0, validator=_positive)
    """RFC 6298 2.1."""
    rto_min: float = attrs.field(default=0.2, validator=_positive)
    """Linux's floor; RFC 6298 2.4 says 1 s, which every current stack finds too slow."""
    rto_max: float = attrs.field(default=60.0, validator=_positive)
    """RFC 6298 2.5 allows a ceiling of 60 s or more."""
    syn_retries: int = attrs.field(default=6, validator=_not_negative)
    """SYNs after the first: silence is ETIMEDOUT after 127 s, as on Linux."""
    syn_ack_retries: int = attrs.field(default=5, validator=_not_negative)
    """Linux's tcp_synack_retries."""
    retries: int = attrs.field(default=15, validator=_positive)
    """Retransmissions of one segment before ETIMEDOUT; Linux's tcp_retries2."""
    delayed_ack: float = attrs.field(default=0.04, validator=_not_negative)
    """Linux's shortest; RFC 9293 3.8.6.3 allows up to 0.5 s."""
    time_wait: float = attrs.field(default=60.0, validator=_not_negative)
    """2 MSL; RFC 9293 says 240 s, Linux and this default say 60 s."""
    time_wait_limit: int = attrs.field(default=4096, validator=_positive)
    """Connections kept in TIME_WAIT; the oldest makes room.  Arbitrary."""
    fin_timeout: float = attrs.field(default=60.0, validator=_positive)
    """How long an orphan may stay in FIN_WAIT_2; Linux's tcp_fin_timeout."""
    connection_limit: int = attrs.field(default=65536, validator=_positive)
    """TCP connections of a Network, in any state; arbitrary."""
    ephemeral_ports: tuple[int, int] = (32768, 60999)
    """First and last port for those who ask for none; Linux's ip_local_port_range."""
    congestion: str = attrs.field(
        default="cubic", validator=attrs.validators.in_(("newreno", "cubic"))
    )
    """Congestion control: RFC 6582 or RFC 9438; Linux's default, too, is CUBIC."""
    ecn: str = attrs.field(
        default="accept", validator=attrs.validators.in_(("off", "accept", "request"))
    )
    """Explicit congestion notification (RFC 3168): never, if the peer asks (Linux), or always."""
    syn_cookies: bool = True
    """Answer SYNs without keeping anything when the SYN queue is full (RFC 4987 3.6)."""
    mtu_probing: bool = True
    """Try smaller segments when large ones vanish, and larger ones later (RFC 4821)."""

    # udp
    udp_receive_buffer: int = attrs.field(default=212_992, validator=_positive)
    """Octets of datagrams that wait for a program; Linux's rmem_default."""

    # ip
    ttl: int = attrs.field(default=64, validator=[attrs.validators.ge(1), attrs.validators.le(255)])
    """Hop limit of what we send; RFC 1700's recommendation."""
    reassembly_timeout: float = attrs.field(default=30.0, validator=_positive)
    """Linux's ipfrag_time; RFC 1122 3.3.2 says 60 to 120 s, RFC 8200 4.5 says 60 s."""
    reassembly_memory: int = attrs.field(default=4 << 20, validator=_positive)
    """Octets of all unfinished packets together; Linux's ipfrag_high_thresh."""
    reassembly_packets: int = attrs.field(default=256, validator=_positive)
    """Unfinished packets at once; arbitrary."""
    icmp_rate: float = attrs.field(default=100.0, validator=_positive)
    """ICMP errors a second (RFC 1812 4.3.2.8, RFC 4443 2.4 f); arbitrary."""
    icmp_burst: int = attrs.field(default=50, validator=_positive)
    """ICMP errors at once; Linux's icmp_msgs_burst."""

    # neighbors
    neighbor_limit: int = attrs.field(default=1024, validator=_positive)
    """Entries of the neighbor cache; Linux's gc_thresh3."""
    neighbor_reachable: float = attrs.field(default=30.0, validator=_positive)
    """How long an answer is believed; RFC 4861 10 REACHABLE_TIME."""
    neighbor_retry: float = attrs.field(default=1.0, validator=_positive)
    """Between two requests for one address; RFC 1122 2.3.2.1."""
    neighbor_attempts: int = attrs.field(default=3, validator=_positive)
    """Requests before a neighbor counts as unreachable; RFC 4861 10 MAX_MULTICAST_SOLICIT."""
    neighbor_queue: int = attrs.field(default=101, validator=_positive)
    """Packets that wait for one neighbor's address; Linux's unres_qlen of full frames."""

    # ipv6
    ipv6: bool = True
    """Take part in IPv6, where the wire's MTU allows it (RFC 8200 5 asks for 1280 octets)."""
    dad_transmits: int = attrs.field(default=1, validator=_not_negative)
    """Probes for duplicates of an IPv6 address; RFC 4862 5.1 DupAddrDetectTransmits."""
    accept_router_advertisements: bool = True
    """Let routers give us prefixes, addresses and routes (RFC 4861 6.3.4, RFC 4862 5.5.3)."""

    # addresses chosen without configuration
    probe_interval: float = attrs.field(default=0.05, validator=_positive)
    """Between two address probes; RFC 5227 says 1 to 2 s for radio, a local cable is faster."""
    probe_count: int = attrs.field(default=3, validator=_positive)
    """RFC 5227 1.1 PROBE_NUM."""
