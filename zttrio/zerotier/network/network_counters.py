"""What the virtual networks have counted: one integer for each thing that can happen.

Every message ends in exactly one counter of `MESSAGE_OUTCOMES`, every frame of the local stack in
exactly one of `FRAME_OUTCOMES`.
"""

from __future__ import annotations

import attrs

__all__ = ["FRAME_OUTCOMES", "MESSAGE_OUTCOMES", "NetworkCounters"]


@attrs.define
class NetworkCounters:
    """Counts by reason, from zero; a name that is not here cannot be counted."""

    # messages from peers
    messages_in: int = 0
    message_handled: int = 0
    message_malformed: int = 0
    message_not_joined: int = 0  # a network that we are not on
    message_refused: int = 0  # its sender has shown no credentials, and did not within 5 s
    message_refused_evicted: int = 0  # the same, but others needed the room
    message_unexpected: int = 0  # an answer to nothing we asked about this network
    message_too_often: int = 0
    frame_delivered: int = 0
    frame_empty: int = 0
    frame_filtered: int = 0
    frame_redirected: int = 0
    frame_bad_source: int = 0  # zero, ours, or multicast
    frame_not_from_bridge: int = 0  # from a MAC that is not its sender's
    frame_not_for_us: int = 0
    frame_not_multicast: int = 0
    frame_multicast_off: int = 0
    frame_no_room: int = 0  # the local stack does not take them
    piece_kept: int = 0  # and more are to come
    piece_known: int = 0
    piece_refused: int = 0  # unsigned, forged, or of nonsense sizes
    config_accepted: int = 0
    config_unchanged: int = 0
    config_not_ours: int = 0  # another network, or another member
    config_old: int = 0  # somebody repeats what the controller has said before
    config_malformed: int = 0
    error_obeyed: int = 0
    error_ignored: int = 0
    request_taken: int = 0  # by the controller in this node
    request_refused: int = 0  # there is none

    # frames from the local stack
    frames_out: int = 0
    out_unicast: int = 0
    out_bridged: int = 0
    out_multicast: int = 0
    out_to_self: int = 0
    out_emulated: int = 0  # answered here instead
    out_redirected: int = 0
    out_malformed: int = 0
    out_too_long: int = 0
    out_no_config: int = 0
    out_bad_source: int = 0
    out_bad_destination: int = 0  # an address that no node has
    out_filtered: int = 0
    out_broadcast_off: int = 0
    out_multicast_off: int = 0
    out_no_bridge: int = 0
    out_no_room: int = 0  # too many other members are remembered
    out_ring_full: int = 0  # the local stack does not take what it is to get itself

    # details
    credentials_new: int = 0
    credentials_known: int = 0
    credentials_old: int = 0
    credentials_revoked: int = 0
    credentials_forged: int = 0
    credentials_full: int = 0
    credentials_not_joined: int = 0
    credentials_no_controller: int = 0  # its identity is not known yet
    credentials_pushed: int = 0
    complaints: int = 0  # demands for credentials that we have sent
    likes_refused: int = 0  # entries of MULTICAST_LIKE
    likes_taken: int = 0
    groups_refused: int = 0  # of our own stack: too many
    gathers_refused: int = 0
    gathers_answered: int = 0
    gathers_out: int = 0
    requests_out: int = 0
    copies_out: int = 0
    copies_impossible: int = 0  # too long, or for an address that no node has
    pieces_forwarded: int = 0
    revocations_forwarded: int = 0
    multicast_copies: int = 0
    multicast_queue_evicted: int = 0
    records_evicted: int = 0
    stored_config_unusable: int = 0

    def count(self, name: str) -> None:
        """Add one."""
        setattr(self, name, getattr(self, name) + 1)

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        return attrs.asdict(self)


MESSAGE_OUTCOMES = (
    "message_handled",
    "message_malformed",
    "message_not_joined",
    "message_refused",
    "message_refused_evicted",
    "message_unexpected",
    "message_too_often",
    "frame_delivered",
    "frame_empty",
    "frame_filtered",
    "frame_redirected",
    "frame_bad_source",
    "frame_not_from_bridge",
    "frame_not_for_us",
    "frame_not_multicast",
    "frame_multicast_off",
    "frame_no_room",
    "piece_kept",
    "piece_known",
    "piece_refused",
    "config_accepted",
    "config_unchanged",
    "config_not_ours",
    "config_old",
    "config_malformed",
    "error_obeyed",
    "error_ignored",
    "request_taken",
    "request_refused",
)
"""Messages that are kept for later have no outcome yet (`Networks.kept`)."""

FRAME_OUTCOMES = (
    "out_unicast",
    "out_bridged",
    "out_multicast",
    "out_to_self",
    "out_emulated",
    "out_redirected",
    "out_malformed",
    "out_too_long",
    "out_no_config",
    "out_bad_source",
    "out_bad_destination",
    "out_filtered",
    "out_broadcast_off",
    "out_multicast_off",
    "out_no_bridge",
    "out_no_room",
    "out_ring_full",
)
