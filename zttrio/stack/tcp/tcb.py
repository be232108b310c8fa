"""The transmission control block: everything one connection remembers, and nothing it does.

The names are those of RFC 9293 3.3.1, RFC 5681, RFC 6298 and RFC 8985.  Sequence numbers are
unwrapped (see `seq`).  What a connection does is in `send`, `recovery`, `receive` and
`connection`, each of which builds on the one before.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import attrs

from zttrio.stack.events import Endpoint

from .options import DEFAULT_OPTIONS, TcpOptions
from .state import CLOSED

if TYPE_CHECKING:
    from zttrio.stack.ports import Binding

    from .congestion import Congestion
    from .layer import TcpLayer
    from .mtu import MtuSearch
    from .receivequeue import ReceiveQueue
    from .rtt import RttEstimator
    from .scoreboard import Scoreboard
    from .sendqueue import SendQueue

__all__ = ["LOSS", "OPEN", "RECOVERY", "Tcb"]

# What recovery is doing, named as in Linux's books.
OPEN = 0  # nothing is missing, or what is missing may only be late
RECOVERY = 1  # losses are repaired within the round trip (RFC 6675, RFC 6937)
LOSS = 2  # the retransmission timer has fired


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Tcb(Endpoint):
    """State of one connection.

    Attributes:
        layer: what all connections share.
        key: the table key: remote address, local address, remote port, local port, as they stand
            in an incoming packet.
        local: packed address and port.
        remote: packed address and port.
        binding: the port we hold, None once it has been given back.
        state: as RFC 9293 spells it.
        error: errno that the program has not been told yet, 0 if none.
        soft_error: errno of the last ICMP error that may pass (RFC 1122 4.2.3.9), 0 if none.
        options: what the program has set.
        is_orphan: the program has closed its end.
        is_read_closed: the program wants no more data.
    """

    layer: TcpLayer
    key: bytes
    local: tuple[bytes, int]
    remote: tuple[bytes, int]
    iss: int
    rtt: RttEstimator
    congestion: Congestion
    board: Scoreboard
    options: TcpOptions = DEFAULT_OPTIONS
    binding: Binding | None = None
    state: str = CLOSED
    error: int = 0
    soft_error: int = 0
    is_orphan: bool = False
    is_read_closed: bool = False
    is_dirty: bool = False
    """Listed by the layer as having something to send."""
    is_acking: bool = False
    """Listed by the layer as having received something in this burst."""

    # the path, fixed when the connection is made and when the path changes
    mss: int = 536
    """Payload octets of a full segment: what is left of peer and path after options."""
    peer_mss: int = 536
    """What the peer announced; 536 or 1220 if it did not (RFC 9293 3.7.1)."""
    adv_mss: int = 536
    """What we announced."""
    path_mtu: int = 576
    segment_limit: int = 536
    """Payload octets of the largest super-segment, a multiple of `mss`."""
    needs_checksum: bool = True
    pseudo_sum: int = 0
    """Sum of the pseudo-header without its length."""

    # negotiated
    ts_ok: bool = False
    sack_ok: bool = False
    scale_ok: bool = False
    snd_scale: int = 0
    rcv_scale: int = 0
    ts_offset: int = 0
    ecn_ok: bool = False
    ecn_echo: bool = False
    """Packets came marked, and the peer has not answered that yet: ECE on everything we send."""
    cwr_pending: bool = False
    """The next new data says that we have slowed down."""
    cwr_end: int = 0
    """`snd_nxt` when we slowed down last for a mark; once for each round trip."""

    # sending
    snd_una: int = 0
    snd_nxt: int = 0
    snd_wnd: int = 0
    snd_wl1: int = 0
    snd_wl2: int = 0
    max_snd_wnd: int = 0
    write_end: int = 0
    """Sequence number behind the last octet that the program has given us."""
    fin_queued: bool = False
    """A FIN follows `write_end`."""
    send_queue: SendQueue | None = None
    send_buffer: int = 0
    """Octets that may wait to be acknowledged, at present."""
    small_end: int = 0
    """End of the last segment sent that was not full (Minshall's variant of RFC 896)."""
    last_sent_at: float = 0.0
    """When data was sent last."""
    is_cwnd_limited: bool = False
    """The window, not the program or the peer, has held us back in the current round."""
    max_flight: int = 0
    usage_end: int = 0
    resent: int = 0
    """Octets sent more than once, since the beginning."""
    mtu_search: MtuSearch | None = None
    """Set once large segments have vanished."""
    pace_at: float = 0.0
    """When the next segment may go out, if sending is paced."""
    pushed: int = 0
    """Data before this is sent without waiting for more of it (TCP_CORK's time is up)."""

    # recovery
    loss_state: int = OPEN
    recover: int = 0
    """`snd_nxt` when the current recovery began (RFC 6582 recover, RFC 6675 RecoveryPoint)."""
    retries: int = 0
    """Timeouts or probes since the peer was heard of last."""
    is_syn_repeated: bool = False
    """Our SYN went out again because the peer answered for an older connection."""
    dupacks: int = 0
    """Duplicate ACKs in a row, from peers without SACK."""
    must_resend: bool = False
    """Send one lost piece whatever the window says."""
    prr_delivered: int = 0
    prr_out: int = 0
    prr_flight: int = 0
    rack_at: float = -1.0
    """RACK.xmit_ts: when the latest-sent of all delivered pieces was sent."""
    rack_end: int = 0
    rack_rtt: float = 0.0
    is_reordering: bool = False
    """RACK.reordering_seen."""
    reorder_mult: int = 1
    """RACK.reo_wnd_mult."""
    reorder_persist: int = 0
    """RACK.reo_wnd_persist: recoveries for which `reorder_mult` stays."""
    dsack_round: int = -1
    """RACK.dsack_round: where the round trip of the last D-SACK that counted ends."""
    tail_end: int = -1
    """TLP.end_seq: `snd_nxt` when a tail loss probe went out, -1 if none is under way."""
    tail_is_repeat: bool = False
    """TLP.is_retrans: the probe was old data."""
    frto_step: int = 0
    """RFC 5682: 0 if the timeout is believed, 1 before the first ACK, 2 before the second."""
    undo_marker: int = -1
    """`snd_una` when the last recovery began, -1 if there is nothing to undo."""
    undo_octets: int = 0
    """Octets that it sent again and that no D-SACK has called needless yet."""
    repair_at: float = -1.0
    """The time that the first repetition carried as its timestamp, -1 before that."""
    progress_at: float = 0.0
    """When the oldest octet in flight or waiting began to be so (RFC 5482)."""

    # receiving
    irs: int = 0
    rcv_nxt: int = 0
    rcv_adv: int = 0
    """Right edge of the widest window we have announced; it never moves back."""
    rcv_buffer: int = 0
    """Octets that may wait to be read, at present."""
    receive_queue: ReceiveQueue | None = None
    fin_seq: int | None = None
    """Where the peer's stream ends, once we know."""
    is_fin_received: bool = False
    """Everything up to and including the peer's FIN has arrived."""
    last_ack_sent: int = 0
    ts_recent: int = 0
    ts_recent_at: float = 0.0
    rcv_mss: int = 536
    """Our guess at the size of the peer's full segments."""
    ack_octets: int = 0
    """Received since the last ACK we sent."""
    ack_now: bool = False
    is_ack_held: bool = False
    """Listed in `TcpLayer.held`: the program may be about to say something that carries the ACK."""
    tuned_at: float = 0.0
    """When `rcv_buffer` was last judged, and at which octet."""
    tuned_seq: int = 0
    tuned_octets: int = 0
    """The most that the program has read in one round trip."""
    quick_acks: int = 0
    """How many more ACKs are not delayed at all."""
    is_interactive: bool = False
    """Answers follow requests here, so ACKs had better wait for them (Linux's pingpong)."""
    received_at: float = 0.0
    """When the peer was heard of last."""
    data_at: float = -inf
    """When data was received last."""
    challenged_at: float = -inf
    """When the last ACK went out that answered something unacceptable."""

    # timers: when each is due, or inf
    deadline: float = inf
    queued: float = inf
    rto_at: float = inf
    persist_at: float = inf
    reorder_at: float = inf
    tail_at: float = inf
    """When a tail loss probe is due (RFC 8985 7.2)."""
    ack_at: float = inf
    life_at: float = inf
    """Keep-alive, or the end of an orphan in FIN_WAIT_2."""
    keep_probes: int = 0
    """Keep-alive probes since the peer was heard of last."""

    def __attrs_pre_init__(self) -> None:
        Endpoint.__init__(self)

    def arm(self, when: float) -> None:
        """Make sure that `handle_timer` is called at *when* or before."""
        if when < self.deadline:
            self.deadline = when
            self.layer.timers.schedule(self)

    def handle_timer(self, now: float) -> None:
        """See `zttrio.stack.timers.TimerOwner`."""
        raise NotImplementedError

    def pipe(self) -> int:
        """Octets in the network, as far as we know (RFC 6675)."""
        board = self.board
        flight = self.snd_nxt - self.snd_una - board.sacked - board.lost
        if self.dupacks:
            # Without SACK each duplicate ACK stands for a segment that has left the network.
            flight -= min(self.dupacks * self.mss, flight)
        return flight
