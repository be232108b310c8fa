"""What a connection does when time passes: one deadline for six timers.

Each timer is a field that says when it is due.  `Tcb.deadline` is at or before the earliest of
them; whoever moves a timer earlier calls `Tcb.arm`, moving one later costs nothing.
"""

from __future__ import annotations

import errno
from math import inf

from zttrio.header.tcp import ACK

from .receive import Receiver
from .recovery import ORPHAN_RETRIES
from .state import CLOSE_WAIT, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, SYN_RECEIVED, SYN_SENT

__all__ = ["Timed"]

_KEPT_ALIVE = frozenset((ESTABLISHED, CLOSE_WAIT, FIN_WAIT_1, FIN_WAIT_2))


class Timed(Receiver):
    """A connection that notices time."""

    __slots__ = ()

    def handle_timer(self, now: float) -> None:
        """Do what is due; see `zttrio.stack.timers.TimerOwner`."""
        self.deadline = now  # so that `arm` leaves the queue alone until the end of this
        if self.tail_at <= now:
            self.send_tail_probe(now)  # moves the retransmission timer, if both are due
        if self.rto_at <= now:
            if self.state in (SYN_SENT, SYN_RECEIVED):
                self._syn_time_out(now)
            else:
                self.time_out(now)
        if self.reorder_at <= now:
            self.reorder_time_out(now)
        if self.persist_at <= now:
            self._persist_time_out(now)
        if self.ack_at <= now:
            self.ack_at = inf
            self.is_interactive = False  # nothing came along to carry the ACK
            self.send_ack(now)
        if self.life_at <= now:
            self._life_time_out(now)
        deadline = min(
            self.rto_at,
            self.tail_at,
            self.reorder_at,
            self.persist_at,
            self.ack_at,
            self.life_at,
        )
        if self.congestion.is_paced:
            if self.pace_at > now:
                deadline = min(deadline, self.pace_at)
            else:
                self.mark_dirty()
        self.deadline = deadline

    def _syn_time_out(self, now: float) -> None:
        config = self.layer.config
        limit = config.syn_retries if self.state == SYN_SENT else config.syn_ack_retries
        self.retries += 1
        if self.retries > limit:
            self.fail(self.soft_error or errno.ETIMEDOUT, now)
            return
        self.ecn_ok = False  # RFC 3168 6.1.1.1: something on the path may drop such SYNs
        self.is_syn_repeated = False
        self.layer.counters.tcp_retransmits += 1
        self.send_syn(now)
        self.start_syn_timer(now)

    def _persist_time_out(self, now: float) -> None:
        self.persist_at = inf
        if not self.snd_wnd:
            self.retries += 1
        # An orphan does not ask for ever, whatever the peer answers: RFC 6429 section 4.
        if self.has_given_up(now) or (self.is_orphan and self.rtt.backoff > ORPHAN_RETRIES):
            self.fail(self.soft_error or errno.ETIMEDOUT, now)
        else:
            self.probe_window(now)

    # keep-alive, and the end of orphans

    def start_keep_alive(self, now: float) -> None:
        """Arm the keep-alive timer if the program wants it (RFC 9293 3.8.4)."""
        if self.options.keep_alive and self.state in _KEPT_ALIVE:
            self.keep_probes = 0
            self.life_at = max(self.received_at + self.options.keep_idle, now)
            self.arm(self.life_at)
        elif not self.is_orphan:
            self.life_at = inf

    def start_fin_wait(self, now: float) -> None:
        """FIN_WAIT_2 has begun: an orphan does not stay for ever (as Linux)."""
        if self.is_orphan:
            self.life_at = now + self.layer.config.fin_timeout
            self.arm(self.life_at)

    def _life_time_out(self, now: float) -> None:
        self.life_at = inf
        if self.is_orphan and self.state == FIN_WAIT_2:
            self.layer.counters.tcp_orphans_dropped += 1
            self.finish(now)
        elif self.options.keep_alive and self.state in _KEPT_ALIVE:
            self._keep_alive(now)

    def _keep_alive(self, now: float) -> None:
        options = self.options
        silent = now - self.received_at
        if self.board.pieces or self.persist_at < inf:
            # What is under way asks already; look again later.
            self.keep_probes = 0
            self.life_at = now + options.keep_idle
            return
        if silent < options.keep_idle:
            self.keep_probes = 0
            self.life_at = self.received_at + options.keep_idle
            return
        if (
            silent >= options.user_timeout and self.keep_probes
            if options.user_timeout
            else self.keep_probes >= options.keep_count
        ):
            self.send_reset(now)
            self.fail(self.soft_error or errno.ETIMEDOUT, now)
            return
        self.keep_probes += 1
        self.layer.counters.tcp_keepalives += 1
        # Without data, one number too low: see `Sender.probe_window`.
        self.emit(self.snd_una - 1, ACK, b"", now)
        self.life_at = now + options.keep_interval
