"""When received data is acknowledged: with what is sent anyway, for every second segment, or later.

Counts what has come and decides; `emit` makes the segment, and `receive` judges what arrives.
"""

from __future__ import annotations

from zttrio.stack.events import RD

from .handshake import Handshaker

__all__ = ["QUICK_ANSWER", "Acknowledger"]

ACK_STRETCH = 8
"""Full segments of one burst that share an ACK, once the peer is up to speed.

RFC 9293 3.8.6.3 wants (SHOULD) an ACK for every second one.  Linux's receivers share one among up
to 64 KiB that arrive together (GRO), and every sender has had to live with that for years; at the
start, and behind losses, a sender that counts ACKs still gets one for every second segment.
Arbitrary.
"""
ACK_SUPERS = 4
"""Super-segments of one burst that share an ACK, up to an eighth of the receive buffer.

An ACK costs both ends as much as a super-segment does.  Arbitrary.
"""
ACK_TURNS = 5
"""Turns of trio's loop that a program has before what it is told is acknowledged without it.

Enough for ``serve_listeners`` to accept, start a handler, and let that read and answer; and one
more, because nobody knows who comes first in a turn.
"""
QUICK_ANSWER = 0.005
"""Seconds until an answer that finds the program still in the turn it asked in.  Arbitrary."""


class Acknowledger(Handshaker):
    """A connection that acknowledges what it has received."""

    __slots__ = ()

    def note_data(self, size: int, gso_size: int, now: float) -> None:
        """*size* octets were added to the stream in order: tell the reader, think of the ACK."""
        segment = gso_size or size
        if segment > self.rcv_mss:
            self.rcv_mss = min(segment, self.adv_mss)
        self.data_at = now
        self.ack_octets += size
        if not self.is_acking:
            self.is_acking = True
            self.layer.acking.append(self)
        elif self.ack_octets >= (
            2 * self.rcv_mss
            if self.quick_acks
            else self.rcv_buffer >> 1
            if self.ready & RD  # its reader is about to run; see `finish_burst`
            else max(ACK_STRETCH * self.rcv_mss, min(ACK_SUPERS * size, self.rcv_buffer >> 3))
        ):
            self.quick_acks = max(self.quick_acks - 1, 0)
            self.send_ack(now)
        if self.wanted & RD:
            self.layer.events.raise_event(self, RD)

    def finish_burst(self, now: float) -> None:
        """The burst is over: acknowledge it, or arm the delayed ACK (RFC 9293 3.8.6.3)."""
        self.is_acking = False
        if self.ack_now:
            self.send_ack(now)
        elif self.ack_octets:
            # More than one full segment: RFC 9293 3.8.6.3, and Linux's reading of it, by which the
            # small tail of a message counts as a second segment.
            if self.options.quick_ack:
                self.send_ack(now)
            elif self.ack_octets > self.rcv_mss:
                if self.quick_acks or not self.ready & RD:
                    self.send_ack(now)
                else:
                    # A task waits for this, and will read it at once: then one ACK can say that
                    # it has come and that there is room again.  If the task does not read, the
                    # next burst finds nobody waiting, and the timer says it in any case.
                    self.ack_at = min(self.ack_at, now + self.layer.config.delayed_ack)
                    self.arm(self.ack_at)
            elif self.quick_acks and not self.is_interactive:
                self.quick_acks -= 1
                # It is read next, or accepted, or answers what the program has only just sent.
                if self.ready & RD or self.owner is None or now - self.last_sent_at < QUICK_ANSWER:
                    self.hold_ack(now)
                else:
                    self.send_ack(now)
            elif self.ack_at > now + self.layer.config.delayed_ack:
                self.ack_at = now + self.layer.config.delayed_ack
                self.arm(self.ack_at)

    def schedule_ack(self) -> None:
        """Acknowledge at the end of this burst, whatever the delayed-ACK rules say."""
        self.ack_now = True
        if not self.is_acking:
            self.is_acking = True
            self.layer.acking.append(self)

    def hold_ack(self, now: float) -> None:
        """Acknowledge soon, but let the program that learns of this have its turn before.

        What it sends rides on the same segment: a request behind the handshake, an answer, its own
        FIN behind the peer's.  Without a driver that gives turns, the ACK goes out at once.
        """
        layer = self.layer
        if not layer.gives_turns:
            self.send_ack(now)
        elif not self.is_ack_held:
            self.is_ack_held = True
            self.ack_at = min(self.ack_at, now + layer.config.delayed_ack)  # turns may be long
            layer.held.setdefault(self, ACK_TURNS)
