"""How a connection becomes one: what the peer's SYN settles, and what the last ACK begins.

Active, passive and simultaneous opens meet here; who sends which SYN when is in `connection` and
`listen`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from zttrio.header.tcp import CWR, ECE, SYN
from zttrio.stack.events import CONN, WR

from .congestion import initial_window
from .offer import MAX_SCALE
from .recovery import Recoverer
from .seq import unwrap
from .state import ESTABLISHED, FIN_WAIT_1, SYN_SENT

if TYPE_CHECKING:
    from zttrio.header.tcp import TcpHeader
    from zttrio.stack.packet import Packet

__all__ = ["QUICK_ACKS", "Handshaker"]

QUICK_ACKS = 16  # Linux's TCP_MAX_QUICKACKS: the peer is in slow start and counts on them


class Handshaker(Recoverer):
    """A connection that can be opened."""

    __slots__ = ()

    def send_syn(self, now: float) -> None:
        """Send our SYN, with an ACK if the peer's has come; see `connection`."""
        raise NotImplementedError

    def start_keep_alive(self, now: float) -> None:
        """Arm the keep-alive timer if the program wants it; see `timing`."""
        raise NotImplementedError

    def measure_handshake(self, header: TcpHeader, now: float) -> None:
        """Take the round trip of the SYN as the first sample; see `connection`."""
        raise NotImplementedError

    def accept_options(self, header: TcpHeader, now: float) -> None:
        """Settle what both sides can do, from the peer's SYN."""
        if header.timestamp is not None:
            self.ts_ok = True
            self.ts_recent = header.timestamp[0]
            self.ts_recent_at = now
        else:
            self.ts_ok = False
        self.sack_ok = header.sack_permitted
        # The answer to our request has ECE alone; both together are a request (RFC 3168 6.1.1).
        if self.state == SYN_SENT and header.flags & (ECE | CWR) != ECE:
            self.ecn_ok = False
        self.scale_ok = header.window_scale is not None
        if header.window_scale is None:
            self.snd_scale = self.rcv_scale = 0
            self.rcv_buffer = min(self.rcv_buffer, 0xFFFF)
        else:
            self.snd_scale = min(header.window_scale, MAX_SCALE)
        default = 536 if len(self.remote[0]) == 4 else 1220  # RFC 9293 3.7.1
        self.peer_mss = header.mss or default
        self.measure_path()
        self.snd_wnd = self.max_snd_wnd = header.window  # never scaled in a SYN
        self.snd_wl1 = unwrap(header.seq, self.rcv_nxt)

    def clear_half_open(self, packet: Packet, header: TcpHeader, size: int, now: float) -> None:
        """In SYN_SENT, reset what the peer still has between our two ports, and call again.

        We have lost an older connection, in a crash or by starting anew, or the peer keeps it in
        TIME_WAIT: it has dropped our SYN and answered for that one (RFC 9293 3.5.1, figure 9).  The
        reset ends it, and the SYN follows at once, as Linux does it: waiting for the timer would
        cost a second, and a client that starts again may meet hundreds of these.  Once for each
        timeout, so that a peer that gets no reset does not make us call without end.

        Args:
            packet: as the IP layer delivered it.
            header: its TCP header, whose ACK is not of our SYN.
            size: octets of data behind that.
            now: the time.
        """
        self.layer.reset_stranger(packet, header, size, now)
        if not self.is_syn_repeated:
            self.is_syn_repeated = True
            self.layer.counters.tcp_retransmits += 1
            self.send_syn(now)
            self.start_syn_timer(now)

    def start_syn_timer(self, now: float) -> None:
        """A SYN went out: wait for its answer, twice as long after each timeout."""
        # Not bounded by rto_max: a SYN costs the network little, and 127 s is what people expect.
        self.rto_at = now + self.layer.config.rto_initial * (1 << self.retries)

    def become_established(self, header: TcpHeader, now: float) -> None:
        """The handshake is complete: both SYNs are acknowledged."""
        self.state = FIN_WAIT_1 if self.fin_queued else ESTABLISHED
        self.rto_at = inf
        self.congestion.cwnd = initial_window(self.mss)
        self.snd_una = self.snd_nxt
        self.snd_wl2 = self.snd_una
        if not header.flags & SYN:
            self.snd_wnd = header.window << self.snd_scale
            self.max_snd_wnd = max(self.max_snd_wnd, self.snd_wnd)
        self.measure_handshake(header, now)
        self.quick_acks = QUICK_ACKS
        self.received_at = self.tuned_at = now
        self.tuned_seq = self.rcv_nxt
        self.layer.ip.confirm(self.remote[0], now)  # packets do arrive there
        self.start_keep_alive(now)
        self.layer.events.raise_event(self, CONN | WR)
        if self.write_end > self.snd_nxt or self.fin_queued:
            self.mark_dirty()
