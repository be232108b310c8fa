"""Sizes that change while a connection lives: of segments (path MTU) and of the send buffer.

The search itself is `mtu`'s; here it meets the connection that it is for.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zttrio.header.tcp import ACK

from .mtu import BLACK_HOLE_RETRIES, FLOOR, MtuSearch
from .scoreboard import IN_FLIGHT, LOST
from .send import Sender
from .state import SENDS_DATA, SYN_RECEIVED, SYN_SENT
from .tcb import OPEN

if TYPE_CHECKING:
    from zttrio.stack.packet import PathError

__all__ = ["Sizer"]


class Sizer(Sender):
    """A sender that adapts its segments to the path."""

    __slots__ = ()

    def fail(self, error: int, now: float) -> None:
        """End the connection with *error*; see `connection`."""
        raise NotImplementedError

    def path_failed(self, error: PathError, now: float) -> None:
        """An ICMP error, or the IP layer, is about a segment of ours.

        The layer has checked that it is one that is in flight (RFC 5927 section 4).
        """
        if error.error == errno.EMSGSIZE:
            if error.reporter:
                self.layer.ip.lower_path_mtu(self.remote[0], error.mtu, now)
            self.shrink()
        elif self.state in (SYN_SENT, SYN_RECEIVED):
            # RFC 5461 section 4: nobody is helped by trying the same for two minutes.
            self.fail(error.error, now)
        else:
            # RFC 5927 5.2: for an established connection even hard errors are soft ones.
            self.soft_error = error.error

    def shrink(self) -> None:
        """The path takes less than we thought: cut what was too long, and send it again."""
        before = self.mss
        self.measure_path()
        if self.mss >= before or self.state not in SENDS_DATA:
            return
        # What was too long is lost for sure, and no sign of congestion (RFC 1191 6.4).
        board = self.board
        board.track()
        for piece in board.pieces:
            if piece.state == IN_FLIGHT and min(piece.mss, piece.end - piece.start) > self.mss:
                board.mark_lost(piece)
        if board.lost:
            self.must_resend = True
            self.mark_dirty()

    def grow_send_buffer(self) -> None:
        """Twice the congestion window ought to fit, so that the program is never waited for."""
        if not self.options.send_buffer:
            limit = self.layer.config.send_buffer
            self.send_buffer = max(self.send_buffer, min(2 * self.congestion.cwnd, limit))

    def suspect_black_hole(self, now: float) -> None:
        """A timeout: if it is not the first, it may be large segments that vanish."""
        search = self.mtu_search
        if search is not None and search.probe_end > self.snd_una:
            search.vanished(now)
            return
        piece = self.board.pieces[0]
        packet = min(piece.mss, self.mss, piece.end - piece.start) + self.headers_size()
        octets = len(self.remote[0])
        if (
            self.retries < BLACK_HOLE_RETRIES
            or not self.layer.config.mtu_probing
            or packet <= FLOOR[octets]
        ):
            return
        if search is None:
            search = MtuSearch(self.path_mtu)
        if search.retreat(octets, now):
            self.layer.counters.tcp_black_holes += 1
            self.mtu_search = search
            self.measure_path()

    def probe_mtu(self, usable: int, now: float) -> bool:
        """Send a larger segment than usual to see whether it arrives; False if not now.

        Args:
            usable: octets that the peer's window takes.
            now: the time.
        """
        search = self.mtu_search
        if search is None or self.loss_state != OPEN or self.send_queue is None:
            return False
        packet = min(search.next_probe(now), self.layer.ip.segment_mtu(self.remote[0]))
        size = min(packet - self.headers_size(), self.peer_mss - self.options_size())
        # Enough must follow it for a loss to be noticed without a timeout (RFC 4821 7.4).  The
        # congestion window is exceeded by less than a segment, as Linux's is.
        needed = size + 3 * self.mss
        available = min(self.write_end - self.snd_nxt, self.congestion.cwnd)
        if size <= self.mss or usable < size or available < needed:
            return False
        seq = self.snd_nxt
        self.layer.counters.tcp_mtu_probes += 1
        search.probe_size = packet
        search.probe_end = seq + size
        self.emit(seq, ACK, self.send_queue.cut(seq, size), now)
        self.board.add(seq, seq + size, size, now)
        self.snd_nxt = seq + size
        return True

    def check_mtu_probe(self, now: float) -> bool:
        """After an ACK: has the probe arrived?  True if it, and nothing else, was lost."""
        search = self.mtu_search
        if search is None or search.probe_end < 0:
            return False
        if self.snd_una >= search.probe_end:
            search.arrived()
            self.measure_path()
            return False
        board = self.board
        piece = board.next_lost() if board.lost else None
        if piece is not None and piece.end == search.probe_end and piece.state == LOST:
            search.vanished(now)
            if board.lost == piece.end - piece.start:
                # RFC 4821 7.6.2: the loss of a probe alone says nothing about congestion.
                self.must_resend = True
                return True
        return False
