"""What has been sent and not acknowledged, piece by piece, and what became of each piece.

A piece is what was sent under one header: a segment, or a super-segment of many.  It is cut only
where an acknowledgement or a retransmission ends inside it, so a window of megabytes is a handful
of pieces.  Positions are unwrapped sequence numbers; FIN counts as one octet.

It knows nothing of windows and timers; `recovery` decides what is lost and when to send it again.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from math import inf

import attrs

__all__ = ["IN_FLIGHT", "LOST", "SACKED", "Scoreboard", "Sent"]

IN_FLIGHT, LOST, SACKED = range(3)

MAX_PIECES = 16384  # arbitrary: beyond this, SACK edges inside a piece are ignored


@attrs.define(eq=False, weakref_slot=False)
class Sent:
    """One piece of sequence space, sent at one time.

    Attributes:
        start: its first octet.
        end: the octet behind its last.
        sent_at: when it was sent last.
        mss: payload octets of each segment that it went out as.
        state: IN_FLIGHT, LOST (and not sent again yet) or SACKED.
        is_retransmitted: it was sent more than once.
        order: of its entry in the timeline; earlier entries are of earlier transmissions.
    """

    start: int
    end: int
    sent_at: float
    mss: int
    state: int = IN_FLIGHT
    is_retransmitted: bool = False
    order: int = -1

    def segments(self) -> int:
        """How many segments this went out as."""
        return -(-(self.end - self.start) // self.mss)


_NOBODY = Sent(0, 0, 0.0, 1)  # never compared, because no two orders are equal


_NO_LOSSES: list[tuple[int, int, Sent]] = []  # shared by those who have had none; never filled


def _start_of(piece: Sent) -> int:
    return piece.start


class Scoreboard:
    """The pieces in order, with running totals.

    Attributes:
        pieces: contiguous, in order of sequence.
        sacked: octets that arrived out of order, as the peer says.
        sacked_segments: the same in segments, about.
        lost: octets that are lost and not sent again yet.
        highest_sacked: end of the highest SACK block ever, 0 if none (RFC 6675 HighData's kin,
            RFC 8985 RACK.fack).
        retransmitted_out: octets in flight for at least the second time.
        newest_at: of the pieces that the current ACK newly delivered, when the one sent last was
            sent; -1 if there is none.  See `begin_ack`.
        newest_end: its end.
        newest_is_retransmitted: it was sent more than once.
        oldest_at: when the first of them was sent, of those that were never sent twice; -1 if there
            are none.
        is_ambiguous: one of them was sent more than once, or none is acknowledged.
        original_end: the lowest end of those that were never sent twice, -1 if there are none.
        reordered: the lowest end of a piece that arrived after others sent later, None if none.
        trust_before: a piece that was sent again at or after this time is not what the ACK is
            about, its earlier transmission is (RFC 8985 6.2 step 2).
    """

    __slots__ = (
        "_lost_heap",
        "_order",
        "_timeline",
        "highest_sacked",
        "is_ambiguous",
        "lost",
        "newest_at",
        "newest_end",
        "newest_is_retransmitted",
        "oldest_at",
        "original_end",
        "pieces",
        "reordered",
        "retransmitted_out",
        "sacked",
        "sacked_segments",
        "trust_before",
    )

    def __init__(self) -> None:
        self.pieces: list[Sent] = []
        self.sacked = 0
        self.sacked_segments = 0
        self.lost = 0
        self.highest_sacked = 0
        self.retransmitted_out = 0
        self.newest_at = -1.0
        self.newest_end = 0
        self.newest_is_retransmitted = False
        self.oldest_at = -1.0
        self.original_end = -1
        self.is_ambiguous = False
        self.reordered: int | None = None
        self.trust_before = inf
        # In order of sending, built when the first loss or SACK makes that order matter.
        self._timeline: list[tuple[float, int, int, Sent]] | None = None
        self._lost_heap = _NO_LOSSES
        self._order = 0  # breaks ties, because pieces do not compare

    def add(self, start: int, end: int, mss: int, now: float) -> Sent:
        """New data went out."""
        piece = Sent(start, end, now, mss)
        self.pieces.append(piece)
        if self._timeline is not None:
            self._track(piece)
        return piece

    def begin_ack(self, trust_before: float) -> None:
        """Start collecting what one ACK delivers.

        Args:
            trust_before: see `trust_before`; inf if nothing was sent again.
        """
        self.newest_at = self.oldest_at = -1.0
        self.newest_is_retransmitted = self.is_ambiguous = False
        self.original_end = -1
        self.reordered = None
        self.trust_before = trust_before

    def acknowledge(self, ack: int) -> int:
        """Everything before *ack* has arrived; return how many octets of it are news.

        Octets that a SACK had reported before are no news.
        """
        pieces = self.pieces
        done = 0
        delivered = 0
        for piece in pieces:
            end = piece.end
            if end > ack:
                if piece.start < ack:
                    before = piece.segments()
                    delivered += self._deliver(piece, ack - piece.start, ack)
                    piece.start = ack
                    if piece.state == SACKED:
                        self.sacked_segments += piece.segments() - before
                break
            done += 1
            delivered += self._deliver(piece, end - piece.start, end)
            if piece.state == SACKED:
                self.sacked_segments -= piece.segments()
            else:
                piece.state = SACKED  # for the timeline and the heap: nothing to wait for
        if done:
            del pieces[:done]
            if not pieces and self._timeline is not None:
                self._timeline = None  # nothing is in flight: forget the bookkeeping of losses
                self._lost_heap.clear()
        return delivered

    def _deliver(self, piece: Sent, size: int, end: int) -> int:
        """*size* octets of *piece*, up to *end*, have arrived; return how many are news."""
        state = piece.state
        if piece.is_retransmitted:
            self.is_ambiguous = True
        if state == SACKED:
            self.sacked -= size
            return 0
        if state == LOST:
            self.lost -= size
        elif piece.is_retransmitted:
            self.retransmitted_out -= size
        at = piece.sent_at
        if not piece.is_retransmitted:
            if self.oldest_at < 0 or at < self.oldest_at:
                self.oldest_at = at
            if self.original_end < 0 or end < self.original_end:
                self.original_end = end
            # Arrived behind something that was sent later: the path reorders (RFC 8985 6.2 step 3).
            if end < self.highest_sacked and (self.reordered is None or end < self.reordered):
                self.reordered = end
        elif at >= self.trust_before:
            return size
        if at > self.newest_at or (at == self.newest_at and end > self.newest_end):
            self.newest_at = at
            self.newest_end = end
            self.newest_is_retransmitted = piece.is_retransmitted
        return size

    def sack(self, left: int, right: int) -> int:
        """A SACK block says that *left* to *right* arrived; return how many octets are news."""
        pieces = self.pieces
        index = max(bisect_right(pieces, left, key=_start_of) - 1, 0)
        delivered = 0
        self.track()
        merge_from = index
        while index < len(pieces):
            piece = pieces[index]
            if piece.start >= right:
                break
            if piece.state == SACKED or piece.end <= left:
                index += 1
                continue
            if piece.start < left:
                if not self._split(index, left):
                    index += 1
                    continue
                index += 1
                piece = pieces[index]
            if piece.end > right:
                if not self._split(index, right):
                    break
                piece = pieces[index]
            size = piece.end - piece.start
            delivered += self._deliver(piece, size, piece.end)
            piece.state = SACKED
            self.sacked += size
            self.sacked_segments += piece.segments()
            index += 1
        if delivered:
            self.highest_sacked = max(self.highest_sacked, min(right, pieces[-1].end))
            self._merge(max(merge_from - 1, 0), index + 1)
        return delivered

    def _merge(self, low: int, high: int) -> None:
        """Join neighbours that are SACKED: nothing will ask for them apart again."""
        pieces = self.pieces
        kept: list[Sent] = []
        for piece in pieces[low:high]:
            if kept and piece.state == SACKED == kept[-1].state:
                before = kept[-1]
                self.sacked_segments -= before.segments() + piece.segments()
                before.end = piece.end
                before.mss = max(before.mss, piece.mss)
                self.sacked_segments += before.segments()
            else:
                kept.append(piece)
        pieces[low:high] = kept

    def _split(self, index: int, seq: int) -> bool:
        """Cut the piece at *index* in two at *seq*; False if there are too many already.

        The piece itself keeps the right part, so what is known of its end stays true.
        """
        if len(self.pieces) >= MAX_PIECES:
            return False
        piece = self.pieces[index]
        left = Sent(piece.start, seq, piece.sent_at, piece.mss, piece.state, piece.is_retransmitted)
        piece.start = seq
        self.pieces.insert(index, left)
        if left.state == IN_FLIGHT:
            self._track(left)
        elif left.state == LOST:
            self._queue_lost(left)
        return True

    # in order of time

    def track(self) -> None:
        """Start keeping the pieces in order of sending as well."""
        if self._timeline is None:
            self._timeline = []
            self._lost_heap = []
            for piece in self.pieces:
                if piece.state == IN_FLIGHT:
                    self._track(piece)

    def _track(self, piece: Sent) -> None:
        if self._timeline is not None:
            piece.order = self._order = self._order + 1
            insort(self._timeline, (piece.sent_at, piece.end, piece.order, piece))

    def sent_before(self, sent_at: float, end: int) -> list[Sent]:
        """Pieces still in flight that were sent before (*sent_at*, *end*), the oldest first."""
        timeline = self._timeline
        if timeline is None:
            return []
        stop = bisect_left(timeline, (sent_at, end, -1, _NOBODY))
        waiting = [
            entry
            for entry in timeline[:stop]
            if entry[3].state == IN_FLIGHT and entry[3].order == entry[2]
        ]
        if len(waiting) < stop:
            timeline[:stop] = waiting
        return [entry[3] for entry in waiting]

    # losses

    def mark_lost(self, piece: Sent) -> None:
        """A piece in flight is taken for lost."""
        size = piece.end - piece.start
        piece.state = LOST
        self.lost += size
        if piece.is_retransmitted:
            self.retransmitted_out -= size
        self._queue_lost(piece)

    def _queue_lost(self, piece: Sent) -> None:
        self.track()
        self._order += 1
        heapq.heappush(self._lost_heap, (piece.start, self._order, piece))

    def mark_head_lost(self, octets: int) -> bool:
        """Take the first *octets*, if they are in flight, for lost (RFC 6582's retransmission)."""
        if not self.pieces or self.pieces[0].state != IN_FLIGHT:
            return False
        self.track()
        piece = self.pieces[0]
        if piece.end - piece.start > octets:
            self._split(0, piece.start + octets)
        self.mark_lost(self.pieces[0])
        return True

    def next_lost(self) -> Sent | None:
        """The lost piece with the lowest sequence number, or None."""
        heap = self._lost_heap
        while heap:
            start, _, piece = heap[0]
            if piece.state != LOST:
                heapq.heappop(heap)
            elif start != piece.start:  # acknowledged in part, or cut, since
                self._order += 1
                heapq.heapreplace(heap, (piece.start, self._order, piece))
            else:
                return piece
        return None

    def resend(self, piece: Sent, octets: int, mss: int, now: float) -> None:
        """The first *octets* of *piece*, which was `next_lost`, went out again."""
        heapq.heappop(self._lost_heap)
        if piece.end - piece.start > octets:
            index = bisect_right(self.pieces, piece.start, key=_start_of) - 1
            rest = piece
            piece = Sent(rest.start, rest.start + octets, now, mss, LOST, True)
            rest.start += octets
            self.pieces.insert(index, piece)
            self._queue_lost(rest)
        self.lost -= octets
        self.retransmitted_out += octets
        piece.state = IN_FLIGHT
        piece.sent_at = now
        piece.mss = mss
        piece.is_retransmitted = True
        self._track(piece)

    def resend_tail(self, octets: int, mss: int, now: float) -> Sent:
        """The last *octets* of all went out again, as a probe (RFC 8985 7.3)."""
        piece = self.pieces[-1]
        if piece.end - piece.start > octets:
            self._split(len(self.pieces) - 1, piece.end - octets)
        if not piece.is_retransmitted:
            self.retransmitted_out += piece.end - piece.start
        piece.sent_at = now
        piece.mss = mss
        piece.is_retransmitted = True
        self._track(piece)
        return piece

    def unmark_lost(self) -> None:
        """What was taken for lost, and not sent again yet, is still on its way after all."""
        for piece in self.pieces:
            if piece.state == LOST:
                piece.state = IN_FLIGHT
                if piece.is_retransmitted:
                    self.retransmitted_out += piece.end - piece.start
                self._track(piece)
        self.lost = 0
        self._lost_heap.clear()

    def forget_sacks(self) -> None:
        """The peer may have thrown away what it had SACKed (RFC 2018 section 8)."""
        for piece in self.pieces:
            if piece.state == SACKED:
                piece.state = IN_FLIGHT
                if piece.is_retransmitted:
                    self.retransmitted_out += piece.end - piece.start
                self._track(piece)
        self.sacked = self.sacked_segments = 0
