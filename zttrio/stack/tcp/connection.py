"""One TCP connection as the program sees it: what it can ask, and how a connection ends.

The rest of a connection is in the classes it builds on: `timing` (when time passes), `receive`
(what arrives), `recovery` and `rack` (what acknowledgements mean), `sizing`, `send` and `emit`
(what goes out), `tcb` (what is remembered).
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING, Any

from zttrio.header.address import ip_text
from zttrio.header.tcp import ACK, CWR, ECE, SYN, TcpHeader
from zttrio.stack.events import CLOSE, CONN, ERR, RD, WR

from .info import TcpInfo
from .options import changed
from .sendqueue import SendQueue
from .seq import MASK
from .state import (
    CLOSE_WAIT,
    CLOSED,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    MAY_QUEUE,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
)
from .timing import Timed

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["TcpConnection"]

_GONE = CONN | RD | WR | ERR | CLOSE
_REASONS = {
    errno.ECONNREFUSED: "refused by the peer",
    errno.ECONNRESET: "reset by the peer",
    errno.EPIPE: "reset by the peer, which had finished sending",
    errno.ETIMEDOUT: "no answer",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNABORTED: "the network was left",
}


class TcpConnection(Timed):
    """A connection; made by `TcpLayer.connect` or `TcpListener.accept`.

    No method waits or raises for what the network does: failures are kept in `error` and reported
    by the next call that would have to hide them, once, as on Linux.
    """

    __slots__ = ()

    # what the program reads

    @property
    def is_readable(self) -> bool:
        """True if `receive` would return something other than None, or raise."""
        queue = self.receive_queue
        return bool(
            (queue is not None and queue.size)
            or self.is_fin_received
            or self.error
            or self.is_read_closed
            or self.state in (CLOSED, TIME_WAIT)
        )

    @property
    def is_writable(self) -> bool:
        """True if `send` would take a third of the buffer or more, or raise."""
        if self.state in MAY_QUEUE and not self.error and not self.fin_queued:
            return 3 * self.send_queued <= 2 * self.send_buffer
        return self.state not in (SYN_SENT, SYN_RECEIVED) or bool(self.error)

    @property
    def send_queued(self) -> int:
        """Octets from the program that the peer has not acknowledged."""
        return 0 if self.send_queue is None else len(self.send_queue)

    @property
    def receive_queued(self) -> int:
        """Octets in order that the program has not read."""
        return 0 if self.receive_queue is None else self.receive_queue.size

    def take_error(self) -> int:
        """The errno that nobody was told yet, and forget it: SO_ERROR."""
        error, self.error = self.error, 0
        return error

    def _raise_error(self) -> None:
        if self.error:
            error = self.take_error()
            why = _REASONS.get(error) or errno.errorcode.get(error, str(error))
            raise OSError(error, f"{self}: {why}")

    def __str__(self) -> str:
        address, port = self.remote
        return f"tcp connection to {ip_text(address)} port {port}"

    # sending and receiving

    def send(self, data: Buffer, now: float) -> int:
        """Take *data* for sending and return how many octets were taken, 0 if the buffer is full.

        ``bytes`` and views into ``bytes`` are kept by reference, everything else is copied.

        Raises:
            OSError: ENOTCONN before the connection is established; the connection's error, once,
                after it has failed; EPIPE then, and after `shutdown_write`.
        """
        del now
        self._raise_error()
        if self.state not in MAY_QUEUE or self.fin_queued:
            if self.state in (SYN_SENT, SYN_RECEIVED):
                raise OSError(errno.ENOTCONN, f"{self}: not established yet")
            raise OSError(errno.EPIPE, f"{self}: cannot send any more")
        if isinstance(data, memoryview) and (data.itemsize != 1 or data.ndim != 1):
            data = data.cast("B")
        queue = self.send_queue
        if queue is None:
            queue = self.send_queue = SendQueue(self.write_end)
        room = self.send_buffer - len(queue)
        size = len(data)
        if size > room:
            if room <= 0:
                return 0
            data = memoryview(data)[:room]
            size = room
        queue.append(data)
        self.write_end = queue.end
        self.mark_dirty()
        return size

    def receive(self, limit: int, now: float) -> bytes | None:
        """At most *limit* octets; None if nothing is there yet, ``b""`` at the end of the stream.

        Raises:
            OSError: the connection has failed, once; ENOTCONN before it is established.
        """
        queue = self.receive_queue
        if queue is not None and queue.size:
            data = queue.take(limit)
            self._after_read(now)
            return data
        return None if self._receives_more() else b""

    def receive_pieces(self, limit: int, now: float) -> list[Buffer] | None:
        """As `receive`, without a copy: pieces for a vectored write; empty at the end.

        Raises:
            OSError: as `receive`.
        """
        queue = self.receive_queue
        if queue is not None and queue.size:
            pieces = queue.take_pieces(limit)
            self._after_read(now)
            return pieces
        return None if self._receives_more() else []

    def receive_into(self, buffer: bytearray | memoryview, now: float) -> int | None:
        """As `receive`, into *buffer*; return the number of octets, None if there are none yet.

        Raises:
            OSError: as `receive`.
        """
        queue = self.receive_queue
        if queue is not None and queue.size:
            size = queue.take_into(buffer)
            self._after_read(now)
            return size
        return None if self._receives_more() else 0

    def peek(self, limit: int, now: float) -> bytes | None:
        """As `receive`, and what it returns stays to be received (MSG_PEEK).

        Raises:
            OSError: as `receive`.
        """
        del now
        queue = self.receive_queue
        if queue is not None and queue.size:
            return queue.peek(limit)
        return None if self._receives_more() else b""

    def _receives_more(self) -> bool:
        """Nothing is queued: False at the end of the stream."""
        if self.is_fin_received and not self.error:
            return False
        self._raise_error()
        if self.is_read_closed or self.state in (CLOSED, TIME_WAIT):
            return False
        if self.state in (SYN_SENT, SYN_RECEIVED):
            raise OSError(errno.ENOTCONN, f"{self}: not established yet")
        return True

    def _after_read(self, now: float) -> None:
        """The program has read: make the buffer larger if it may be what holds the peer back.

        Dynamic right-sizing, as Linux does it: what the program takes in one round trip is what the
        peer can send in one.  In slow start it will send twice as much in the next, and twice that
        before we know of it, so growth is extrapolated.
        """
        taken = self.rcv_nxt - self.receive_queued - self.tuned_seq
        # A whole buffer takes a round trip at least, whatever our estimate of that is: a receiver
        # has hardly any samples, and in virtual time there may be nothing to measure.
        if now - self.tuned_at >= self.rtt.srtt or taken >= self.rcv_buffer:
            before = self.tuned_octets or min(10 * self.rcv_mss, self.rcv_buffer >> 1)
            if taken > before and not self.options.receive_buffer:
                self.tuned_octets = taken
                wanted = 2 * taken + 16 * self.rcv_mss
                wanted += 2 * wanted * (taken - before) // before
                if wanted > self.rcv_buffer:
                    self.rcv_buffer = max(
                        self.rcv_buffer, min(wanted, self.layer.config.receive_buffer)
                    )
            self.tuned_at = now
            self.tuned_seq = self.rcv_nxt - self.receive_queued
        self._update_window(now)

    def _update_window(self, now: float) -> None:
        """Tell the peer if reading has opened the window a good deal.

        RFC 9293 3.8.6.2.2 with Fr = 1/2; and only if the peer may be waiting for it, since the
        next ACK tells it anyway.
        """
        if self.is_fin_received or self.state not in (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2):
            return
        if self.is_ack_held:
            return  # that one will tell
        if self.ack_octets > self.rcv_mss:
            self.send_ack(now)  # it has waited for this; see `finish_burst`
            return
        gain = self.rcv_nxt + self.rcv_buffer - self.receive_queued - self.rcv_adv
        if gain >= min(self.rcv_buffer >> 1, 2 * self.rcv_mss) and (
            gain >= self.rcv_adv - self.rcv_nxt
        ):
            self.send_ack(now)

    # ending

    def shutdown_write(self, now: float) -> None:
        """No more data will be sent; what is queued will, and then a FIN.

        Raises:
            OSError: ENOTCONN, there is no connection.
        """
        del now
        if self.state in (SYN_SENT, CLOSED) and not self.fin_queued:
            raise OSError(errno.ENOTCONN, f"{self}: not connected")
        self._queue_fin()

    def _queue_fin(self) -> None:
        if self.fin_queued:
            return
        self.fin_queued = True
        if self.state in (ESTABLISHED, SYN_RECEIVED):
            # RFC 9293 3.10.4: a FIN that waits for SYN_RECEIVED to end is sent behind the data.
            if self.state == ESTABLISHED:
                self.state = FIN_WAIT_1
        elif self.state == CLOSE_WAIT:
            self.state = LAST_ACK
        self.mark_dirty()
        if self.wanted & WR:
            self.layer.events.raise_event(self, WR)

    def shutdown_read(self, now: float) -> None:
        """No more data is wanted: what is queued can be read, what comes later is thrown away."""
        del now
        self.is_read_closed = True
        self.layer.events.raise_event(self, RD)

    def close(self, now: float) -> None:
        """The program is done: finish in the background, or reset if data would be lost unread.

        Resetting is what RFC 2525 2.17 asks for and Linux does: the peer learns that what it sent
        was not read.  With `TcpOptions.linger` 0 the connection is reset in any case.
        """
        if self.is_orphan:
            return
        self.is_orphan = True
        if self.state in (SYN_SENT, CLOSED, TIME_WAIT):
            if self.state == SYN_SENT:
                self._end(now)
            return
        if self.options.linger == 0:
            self.abort(now)
            return
        if self.receive_queued and not self.is_fin_received:
            self.layer.counters.tcp_aborts_unread += 1
            self.abort(now)
            return
        if self.receive_queue is not None:
            self.receive_queue.discard()
        if not self.layer.admit_orphan(self):
            self.abort(now)
            return
        self._queue_fin()
        if self.state == FIN_WAIT_2:
            self.start_fin_wait(now)

    def abort(self, now: float) -> None:
        """End the connection at once, with a reset if the peer has to know."""
        self.is_orphan = True
        if self.state not in (CLOSED, TIME_WAIT, SYN_SENT):
            self.send_reset(now)
        self._end(now)

    def fail(self, error: int, now: float) -> None:
        """End the connection with *error*, which the program's next call will raise."""
        if self.state in (SYN_SENT, SYN_RECEIVED):
            self.layer.counters.tcp_failed_opens += 1
        if not self.is_orphan:
            self.error = error
        self._end(now)

    def finish(self, now: float) -> None:
        """End the connection in peace."""
        self._end(now)

    def _end(self, now: float) -> None:
        """Leave the tables; what has been received can still be read."""
        if self.state == CLOSED:
            return
        was_time_wait = self.state == TIME_WAIT
        self.state = CLOSED
        self._stop()
        if not was_time_wait:
            self.layer.forget(self, now)
        if self.binding is not None:
            self.binding.release()
            self.binding = None
        self.layer.events.raise_event(self, _GONE)

    def _stop(self) -> None:
        """Nothing is sent any more: no timers, no send queue."""
        self.rto_at = self.tail_at = self.reorder_at = inf
        self.persist_at = self.ack_at = self.life_at = inf
        self.ack_octets = 0
        self.ack_now = self.is_ack_held = False
        self.deadline = inf
        if self.send_queue is not None:
            self.send_queue.clear()
            self.send_queue = None
        if self.is_orphan:
            self.receive_queue = None

    def enter_time_wait(self, now: float) -> None:
        """Both directions are finished: somebody small keeps watch from here on."""
        self.state = TIME_WAIT
        self._stop()
        self.layer.keep_time_wait(self, now)
        self.layer.events.raise_event(self, RD | WR | CLOSE)

    def time_wait_is_over(self) -> None:
        """TIME_WAIT has ended; the port is already given back."""
        self.state = CLOSED

    # opening

    def open(self, now: float) -> None:
        """Send the first SYN."""
        self.state = SYN_SENT
        self.ecn_ok = self.layer.config.ecn == "request"
        self.snd_una = self.iss
        self.snd_nxt = self.write_end = self.iss + 1
        self.last_sent_at = now
        self.send_syn(now)
        self.rto_at = now + self.rtt.timeout()
        self.arm(self.rto_at)

    def send_syn(self, now: float) -> None:
        """Send our SYN; with an ACK, and what both can do, if the peer's has come."""
        is_answer = self.state == SYN_RECEIVED
        window = min(self.rcv_buffer, 0xFFFF)
        flags = SYN | ACK if is_answer else SYN
        if self.ecn_ok and not is_answer:
            flags |= ECE | CWR
        header = TcpHeader(
            self.local[1],
            self.remote[1],
            self.iss & MASK,
            self.rcv_nxt & MASK if is_answer else 0,
            flags,
            window,
            mss=self.adv_mss,
            window_scale=self.rcv_scale if self.scale_ok or not is_answer else None,
            sack_permitted=self.sack_ok or not is_answer,
            timestamp=(
                (self.timestamp(now), self.ts_recent) if self.ts_ok or not is_answer else None
            ),
        )
        self.rcv_adv = self.rcv_nxt + window
        self.last_ack_sent = self.rcv_nxt
        self.layer.send_header(
            self.local[0],
            self.remote[0],
            header,
            now,
            hop_limit=self.options.hop_limit,
            traffic_class=self.options.traffic_class & 0xFC,
        )

    def measure_handshake(self, header: TcpHeader, now: float) -> None:
        """Take the round trip of the SYN as the first sample (RFC 6298 section 5)."""
        if self.last_sent_at < 0:
            pass  # a SYN cookie without timestamps: nobody knows when that went out
        elif not self.retries and not self.is_syn_repeated:
            self.rtt.sample(now - self.last_sent_at, now)
        elif header.timestamp is not None and self.ts_ok:
            age = (self.timestamp(now) - header.timestamp[1]) & MASK
            self.rtt.sample(max(age, 1) / 1000, now)
        elif self.retries:
            self.rtt.rto = max(self.rtt.rto, 3.0)  # RFC 6298 5.7
        if self.retries and self.last_sent_at >= 0:
            # RFC 5681 3.1: a lost SYN is a sign of congestion, so start with one segment.
            self.congestion.cwnd = self.mss
            self.retries = 0
        self.rtt.backoff = 0

    # settings

    def info(self) -> TcpInfo:
        """What the connection knows of itself, now."""
        return TcpInfo.of(self)

    def configure(self, now: float | None = None, **changes: Any) -> None:
        """Change some of `options`.

        Args:
            now: the time; None takes that of the last segment received, which is good enough for
                everything but keep-alive on a connection that has been silent for long.
            changes: fields of `TcpOptions`.

        Raises:
            ValueError: a value is out of range.
            TypeError: there is no such option.
        """
        before = self.options
        self.options = options = changed(before, tuple(changes.items()))
        if options.receive_buffer != before.receive_buffer:
            self.rcv_buffer = self.layer.offer(self.remote[0], options).receive_buffer
        if options.send_buffer != before.send_buffer:
            self.send_buffer = self.layer.offer(self.remote[0], options).send_buffer
            self.layer.events.raise_event(self, WR)
        if options.max_segment != before.max_segment and self.state != SYN_SENT:
            self.measure_path()
        if options.keep_alive and (
            not before.keep_alive
            or options.keep_idle != before.keep_idle
            or options.keep_interval != before.keep_interval
        ):
            self.start_keep_alive(self.received_at if now is None else now)
        if before.cork and not options.cork:
            self.pushed = self.write_end
        if self.is_held_back():
            self.mark_dirty()
