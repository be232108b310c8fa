"""What a node has counted: one integer for each thing that can happen to a datagram or a packet.

Every datagram ends in exactly one counter of `DATAGRAM_OUTCOMES`, every packet (whole or put
together) in exactly one of `PACKET_OUTCOMES`, so that nothing is lost without a reason.
"""

from __future__ import annotations

import attrs

__all__ = ["DATAGRAM_OUTCOMES", "PACKET_OUTCOMES", "Counters"]


@attrs.define
class Counters:
    """Counts by reason, from zero; a name that is not here cannot be counted."""

    # datagrams
    datagrams_in: int = 0
    octets_in: int = 0
    datagrams_out: int = 0
    octets_out: int = 0
    datagram_ignored: int = 0  # shorter than a packet: NAT openers, noise
    datagram_beacon: int = 0  # 13 octets, an old way to find neighbours
    datagram_too_long: int = 0
    datagram_not_for_us: int = 0  # and we do not relay
    datagram_reflected: int = 0  # says that we sent it
    datagram_bad_source: int = 0  # reserved address
    fragment_malformed: int = 0
    fragment_duplicate: int = 0
    fragment_kept: int = 0
    fragment_completed: int = 0
    fragment_too_long: int = 0
    packets_whole: int = 0  # in one datagram

    # parts of packets that were kept and never used
    fragment_evicted: int = 0
    fragment_timeout: int = 0

    # relaying
    relayed: int = 0
    relay_hop_limit: int = 0
    relay_unknown_destination: int = 0
    relay_no_path: int = 0
    relay_stranger: int = 0  # the sender has no confirmed path from there
    relay_rate: int = 0
    introductions: int = 0

    # packets for us
    packets_in: int = 0
    packet_handled: int = 0
    packet_bad_suite: int = 0
    packet_plain: int = 0  # suite 0 where encryption is due
    packet_untrusted: int = 0  # suite 2 without being configured
    packet_unauthentic: int = 0
    packet_replayed: int = 0
    packet_bad_compression: int = 0
    packet_malformed: int = 0
    packet_unknown_sender: int = 0  # and no root to ask
    packet_waiting_evicted: int = 0
    packet_waiting_timeout: int = 0
    hello_malformed: int = 0
    hello_old_protocol: int = 0
    hello_wrong_address: int = 0
    hello_unauthentic: int = 0
    hello_collision: int = 0
    hello_collision_gated: int = 0
    hello_gated: int = 0
    hello_invalid: int = 0  # the address does not follow from the keys
    hello_validation_full: int = 0
    hello_validation_timeout: int = 0
    ok_unexpected: int = 0
    ok_not_from_root: int = 0
    error_refused: int = 0
    whois_refused: int = 0
    echo_refused: int = 0
    rendezvous_refused: int = 0
    ignored_verb: int = 0  # ACK, QOS_MEASUREMENT, PATH_NEGOTIATION_REQUEST

    # authentic packets by suite
    opened_plain: int = 0
    opened_salsa: int = 0
    opened_trusted: int = 0
    opened_aes: int = 0

    # details of handled packets
    unknown_verb: int = 0
    remote_trace: int = 0
    no_network_layer: int = 0  # VL2 verbs while no network is joined
    whois_answered: int = 0
    whois_addresses_skipped: int = 0
    whois_identity_unwanted: int = 0
    whois_identity_invalid: int = 0
    whois_validation_full: int = 0
    push_refused: int = 0
    push_skipped: int = 0
    worlds_accepted: int = 0
    worlds_rejected: int = 0
    probe_refused: int = 0  # the address is not usable for this peer
    surface_resets: int = 0

    # sending
    packets_out: int = 0
    packet_too_long: int = 0
    send_waiting_evicted: int = 0
    send_waiting_timeout: int = 0
    whois_out: int = 0
    whois_full: int = 0
    hellos_out: int = 0
    peers_evicted: int = 0

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        return attrs.asdict(self)


DATAGRAM_OUTCOMES = (
    "datagram_ignored",
    "datagram_beacon",
    "datagram_too_long",
    "datagram_not_for_us",
    "datagram_reflected",
    "datagram_bad_source",
    "fragment_malformed",
    "fragment_duplicate",
    "fragment_kept",
    "fragment_completed",
    "fragment_too_long",
    "relayed",
    "relay_hop_limit",
    "relay_unknown_destination",
    "relay_no_path",
    "relay_stranger",
    "relay_rate",
    "packets_whole",
)
PACKET_OUTCOMES = (
    "packet_handled",
    "packet_bad_suite",
    "packet_plain",
    "packet_untrusted",
    "packet_unauthentic",
    "packet_replayed",
    "packet_bad_compression",
    "packet_malformed",
    "packet_unknown_sender",
    "packet_waiting_evicted",
    "packet_waiting_timeout",
    "hello_malformed",
    "hello_old_protocol",
    "hello_wrong_address",
    "hello_unauthentic",
    "hello_collision",
    "hello_collision_gated",
    "hello_gated",
    "hello_invalid",
    "hello_validation_full",
    "hello_validation_timeout",
    "ok_unexpected",
    "ok_not_from_root",
    "error_refused",
    "whois_refused",
    "echo_refused",
    "rendezvous_refused",
    "ignored_verb",
)
"""Packets that wait for their sender's identity have no outcome yet (`Node.waiting`)."""
