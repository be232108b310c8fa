"""What the stack has counted: one integer for each thing that can happen to a frame or a packet.

Every frame that comes in ends in exactly one counter of its layer, so that nothing is lost without
a reason; the ``*_OUTCOMES`` below say which counters share a total (a test holds
them to it).
"""

from __future__ import annotations

import attrs

__all__ = [
    "ARP_OUTCOMES",
    "FRAME_OUTCOMES",
    "ICMP_OUTCOMES",
    "IGMP_OUTCOMES",
    "IP_OUTCOMES",
    "LINK_OUTCOMES",
    "UDP_OUTCOMES",
    "Counters",
]


@attrs.define
class Counters:
    """Counts by reason, from zero; a name that is not here cannot be counted."""

    # frames
    frames_in: int = 0
    frames_out: int = 0
    octets_in: int = 0
    octets_out: int = 0
    frame_too_short: int = 0
    frame_too_long: int = 0  # longer than a 64 KiB packet can be
    frame_not_for_us: int = 0
    frame_bad_source: int = 0  # a group address, or our own: a loop in the wire
    frame_unknown_ethertype: int = 0
    frames_out_full: int = 0  # our own output, dropped because the wire takes nothing

    # address resolution
    arp_in: int = 0
    arp_malformed: int = 0
    arp_not_for_us: int = 0
    arp_requests_answered: int = 0
    arp_replies: int = 0
    arp_unsolicited: int = 0
    arp_conflicts: int = 0
    arp_out: int = 0
    neighbor_evicted: int = 0
    neighbor_table_full: int = 0  # not learned, because a stranger may not push others out
    neighbor_queue_full: int = 0  # packets dropped while they waited for an answer
    neighbor_unreachable: int = 0  # questions that nobody answered
    neighbor_packets_lost: int = 0  # packets that had waited for them
    claim_conflicts: int = 0
    claim_defences: int = 0

    # IP in; packets, loopback among them
    ip_in: int = 0
    ip_loopback: int = 0
    ip_truncated: int = 0
    ip_malformed: int = 0
    ip_bad_checksum: int = 0
    ip_martian: int = 0
    ip_not_ours: int = 0
    ip_source_routed: int = 0
    ip_bad_extension: int = 0  # IPv6 extension headers that are malformed, too many or refused
    ip_no_next_header: int = 0
    ip_fragments: int = 0
    ip_unknown_protocol: int = 0
    ip_delivered: int = 0
    ip_group_not_joined: int = 0

    # reassembly
    reassembled: int = 0
    fragment_malformed: int = 0
    fragment_overlap: int = 0
    fragment_duplicate: int = 0
    fragment_refused: int = 0  # for a packet that was discarded because of overlap
    reassembly_timeout: int = 0
    reassembly_evicted: int = 0

    # IP out; packets
    ip_out: int = 0
    ip_out_no_route: int = 0
    ip_out_too_big: int = 0
    ip_out_fragments: int = 0
    ip_out_fragmented: int = 0
    loopback_full: int = 0

    # ICMP and ICMPv6
    icmp_in: int = 0
    icmp_malformed: int = 0
    icmp_bad_checksum: int = 0
    icmp_unknown_type: int = 0
    icmp_echo_requests: int = 0
    icmp_echo_ignored: int = 0  # sent to a broadcast or multicast address
    icmp_echo_replies: int = 0
    icmp_echo_unexpected: int = 0
    icmp_errors_in: int = 0
    icmp_errors_not_ours: int = 0  # quote nothing that we could have sent
    icmp_redirects_ignored: int = 0
    icmp_link_messages: int = 0  # ICMPv6 that stays on the link; see nd_ and mld_
    icmp_errors_out: int = 0
    icmp_errors_limited: int = 0
    icmp_errors_unwanted: int = 0  # would answer an error, a group address or a fragment
    pmtu_lowered: int = 0
    pmtu_refused: int = 0

    # neighbor discovery, by message
    nd_out: int = 0
    nd_malformed: int = 0
    nd_refused: int = (
        0  # fails a check of RFC 4861: from beyond the link, in fragments, contradictory
    )
    nd_ignored: int = 0  # nothing wrong with it, and nothing for us
    nd_answered: int = 0
    nd_advertisements: int = 0
    nd_duplicates: int = 0  # one of our addresses is somebody else's
    nd_conflicts: int = 0  # the same, after we had made sure that it is not
    ra_accepted: int = 0
    ra_limited: int = 0  # prefixes, routes and routers beyond what we keep (not a message each)
    redirects_accepted: int = 0
    # group membership
    mld_queries: int = 0
    mld_ignored: int = 0
    mld_malformed: int = 0
    mld_out: int = 0
    igmp_in: int = 0
    igmp_queries: int = 0
    igmp_ignored: int = 0
    igmp_malformed: int = 0
    igmp_bad_checksum: int = 0
    igmp_out: int = 0

    # UDP
    udp_in: int = 0
    udp_out: int = 0
    udp_malformed: int = 0
    udp_bad_checksum: int = 0
    udp_no_port: int = 0
    udp_group_not_wanted: int = 0
    udp_queue_full: int = 0
    udp_delivered: int = 0
    udp_errors_unmatched: int = 0

    # TCP
    tcp_in: int = 0
    tcp_out: int = 0
    tcp_malformed: int = 0
    tcp_bad_checksum: int = 0
    tcp_not_unicast: int = 0  # to a group address, or port 0: never answered
    tcp_no_connection: int = 0
    tcp_active_opens: int = 0
    tcp_passive_opens: int = 0
    tcp_failed_opens: int = 0
    tcp_syn_queue_full: int = 0
    tcp_accept_queue_full: int = 0
    tcp_syn_acks_unsent: int = 0  # too many wait for the same neighbor to be found
    tcp_resets_in: int = 0
    tcp_resets_out: int = 0
    tcp_resets_ignored: int = 0  # not at the exact sequence number (RFC 5961)
    tcp_challenges_out: int = 0  # ACKs for what was not acceptable
    tcp_challenges_limited: int = 0
    tcp_no_ack: int = 0
    tcp_ack_unsent: int = 0
    tcp_ack_too_old: int = 0
    tcp_no_timestamp: int = 0
    tcp_paws: int = 0
    tcp_out_of_window: int = 0
    tcp_beyond_window: int = 0
    tcp_beyond_fin: int = 0
    tcp_duplicates: int = 0
    tcp_out_of_order: int = 0
    tcp_out_of_order_dropped: int = 0
    tcp_bad_sack: int = 0
    tcp_reneged: int = 0
    tcp_retransmits: int = 0
    tcp_recoveries: int = 0
    tcp_timeouts: int = 0
    tcp_tail_probes: int = 0
    tcp_needless: int = 0  # D-SACKs: the peer had it already
    tcp_undone: int = 0  # recoveries from what turned out to be no loss
    tcp_marks_in: int = 0  # round trips in which the peer told of congestion marks
    tcp_black_holes: int = 0  # large segments vanished, so smaller ones were tried
    tcp_mtu_probes: int = 0
    tcp_keepalives: int = 0
    tcp_cookies_out: int = 0
    tcp_cookies_in: int = 0  # came back and were good
    tcp_cookies_bad: int = 0
    tcp_window_probes: int = 0
    tcp_after_close: int = 0  # data that came for a program which had closed
    tcp_aborts_unread: int = 0  # closed with unread data, so reset
    tcp_orphans_dropped: int = 0
    tcp_time_wait_evicted: int = 0
    tcp_time_wait_reused: int = 0
    tcp_errors_unmatched: int = 0  # news of a segment that we do not know
    tcp_errors_refused: int = 0  # about a sequence number that is not in flight (RFC 5927)

    def as_dict(self) -> dict[str, int]:
        """All counts by name, in the order of the layers."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "__weakref__"}


FRAME_OUTCOMES = (
    "frame_too_short",
    "frame_too_long",
    "frame_not_for_us",
    "frame_bad_source",
    "frame_unknown_ethertype",
    "arp_in",
)
"""With ``ip_in - ip_loopback`` these add up to `Counters.frames_in`."""

ARP_OUTCOMES = (
    "arp_malformed",
    "arp_not_for_us",
    "arp_requests_answered",
    "arp_replies",
    "arp_unsolicited",
    "arp_conflicts",
)
"""These add up to `Counters.arp_in`."""

IP_OUTCOMES = (
    "ip_truncated",
    "ip_malformed",
    "ip_bad_checksum",
    "ip_martian",
    "ip_not_ours",
    "ip_source_routed",
    "ip_bad_extension",
    "ip_no_next_header",
    "ip_fragments",
    "ip_unknown_protocol",
    "ip_delivered",
    "ip_group_not_joined",
)
"""These add up to `Counters.ip_in` plus `Counters.reassembled`."""

ICMP_OUTCOMES = (
    "icmp_malformed",
    "icmp_bad_checksum",
    "icmp_unknown_type",
    "icmp_echo_requests",
    "icmp_echo_ignored",
    "icmp_echo_replies",
    "icmp_echo_unexpected",
    "icmp_errors_in",
    "icmp_errors_not_ours",
    "icmp_redirects_ignored",
    "icmp_link_messages",
)
"""These add up to `Counters.icmp_in`."""

LINK_OUTCOMES = (
    "nd_malformed",
    "nd_refused",
    "nd_ignored",
    "nd_answered",
    "nd_advertisements",
    "nd_duplicates",
    "nd_conflicts",
    "ra_accepted",
    "redirects_accepted",
    "mld_queries",
    "mld_ignored",
    "mld_malformed",
)
"""These add up to `Counters.icmp_link_messages`."""

IGMP_OUTCOMES = (
    "igmp_queries",
    "igmp_ignored",
    "igmp_malformed",
    "igmp_bad_checksum",
)
"""These add up to `Counters.igmp_in`."""

UDP_OUTCOMES = (
    "udp_malformed",
    "udp_bad_checksum",
    "udp_no_port",
    "udp_group_not_wanted",
    "udp_queue_full",
    "udp_delivered",
)
"""These add up to `Counters.udp_in`."""
