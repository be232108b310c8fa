"""RACK-TLP: what is lost, judged by time; and a probe where nothing comes back (RFC 8985).

Marks pieces of the scoreboard as lost and keeps the reordering window.  What follows from a loss is
`recovery`'s business.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from zttrio.header.tcp import ACK, FIN, PSH

from .sizing import Sizer
from .tcb import OPEN

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["DUP_THRESH", "NOISE", "Rack"]

DUP_THRESH = 3  # RFC 5681 3.2
NOISE = 1e-9  # two floats that were computed in different ways may differ by this
MIN_PTO = 0.01  # arbitrary: a probe on a fast path must not beat the peer's scheduler
MAX_ACK_DELAY = 0.2  # RFC 8985 7.2 TLP.max_ack_delay: for peers that delay ACKs longer than we do
DSACK_RECOVERIES = 16  # RFC 8985 6.2 step 4


class Rack(Sizer):
    """A sender that notices losses."""

    __slots__ = ()

    # RACK

    def advance_rack(self, now: float) -> None:
        """Take in what the ACK delivered (RFC 8985 6.2 steps 1 to 3)."""
        board = self.board
        at = board.newest_at
        end = board.newest_end
        if at > self.rack_at or (at == self.rack_at and end > self.rack_end):
            self.rack_at = at
            self.rack_end = end
            self.rack_rtt = now - at
        if board.reordered is not None:
            self.is_reordering = True

    def detect_losses(self, now: float) -> None:
        """Mark what was sent so long before something delivered that it must be lost (step 5)."""
        board = self.board
        self.reorder_at = inf
        if self.rack_at < 0 or not board.pieces:
            return
        patience = self.rack_rtt + self.reorder_window()
        latest = -inf
        for piece in board.sent_before(self.rack_at, self.rack_end):
            due = piece.sent_at + patience
            if due <= now + NOISE:
                board.mark_lost(piece)
            else:
                latest = max(latest, due)
        if latest > -inf:
            self.reorder_at = latest
            self.arm(latest)

    def reorder_window(self) -> float:
        """How long to wait for what may only be late (step 4).

        RFC 8985 does not wait at all while nothing has ever been late, if three segments have
        overtaken, or if losses are being repaired.  But a path that reorders has to show it first,
        so the first time in a connection's life we wait all the same: a quarter of one round trip,
        once, against a window that is halved for nothing.
        """
        if (
            not self.is_reordering
            and self.recover
            and (self.loss_state != OPEN or self.board.sacked_segments >= DUP_THRESH)
        ):
            return 0.0
        if self.rtt.min_rtt == inf:
            return 0.0
        return min(self.reorder_mult * self.rtt.min_rtt / 4, self.rtt.srtt)

    def widen_reorder_window(self) -> None:
        """A D-SACK: we were too impatient; be more patient, once for each round trip (step 4)."""
        if self.snd_una >= self.dsack_round:
            self.dsack_round = self.snd_nxt
            self.reorder_mult += 1
            self.reorder_persist = DSACK_RECOVERIES

    def relax_reorder_window(self) -> None:
        """A recovery has ended."""
        self.reorder_persist -= 1
        if self.reorder_persist <= 0:
            self.reorder_mult = 1

    # tail loss probes

    def schedule_tail_probe(self, now: float) -> None:
        """Arm the probe timer if nothing is known to be missing (RFC 8985 7.2)."""
        board = self.board
        if (
            not self.sack_ok
            or self.loss_state != OPEN
            or self.tail_end >= 0
            or not board.pieces
            or board.sacked
        ):
            self.tail_at = inf
            return
        rtt = self.rtt
        wait = 2 * rtt.srtt if rtt.srtt else 1.0
        if self.snd_nxt - self.snd_una <= self.mss:
            wait += MAX_ACK_DELAY  # a single segment: its ACK may be delayed
        # Never behind the retransmission timer, whose place the probe takes.
        self.tail_at = min(now + max(wait, MIN_PTO), self.rto_at)
        self.arm(self.tail_at)

    def send_tail_probe(self, now: float) -> None:
        """Nothing came back for too long: send one more segment to see (RFC 8985 7.3)."""
        self.tail_at = inf
        board = self.board
        if self.loss_state != OPEN or not board.pieces or board.sacked:
            return
        self.layer.counters.tcp_tail_probes += 1
        seq = self.snd_nxt
        size = min(self.write_end - seq, self.snd_una + self.snd_wnd - seq, self.mss)
        if size > 0:
            self.tail_is_repeat = False
            self._send_new(seq, size, now)
        else:
            self.tail_is_repeat = True
            last = board.pieces[-1]
            piece = board.resend_tail(min(last.end - last.start, self.mss), self.mss, now)
            end = min(piece.end, self.write_end)
            payload: Buffer = b""
            if end > piece.start and self.send_queue is not None:
                payload = self.send_queue.cut(piece.start, end - piece.start)
            self.layer.counters.tcp_retransmits += 1
            flags = ACK | FIN if piece.end > self.write_end else ACK | PSH
            self.emit(piece.start, flags, payload, now)
        self.tail_end = self.snd_nxt
        self.last_sent_at = now
        self.rto_at = now + self.rtt.timeout()

    def check_tail_probe(self, ack: int, dsack: tuple[int, int] | None, *, is_bare: bool) -> bool:
        """Learn what became of a probe; True if it has repaired a loss (RFC 8985 7.4).

        Args:
            ack: what has been acknowledged now.
            dsack: what the ACK calls needless.
            is_bare: it is a duplicate ACK without SACK blocks.
        """
        if ack < self.tail_end:
            return False
        if not self.tail_is_repeat or (dsack is not None and dsack[1] == self.tail_end):
            self.tail_end = -1  # new data, or a repetition that was not needed
        elif ack > self.tail_end:
            self.tail_end = -1
            return True
        elif is_bare:
            self.tail_end = -1
        return False
