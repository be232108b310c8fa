"""TIME_WAIT: what is left of a connection that both sides have finished (RFC 9293 3.6.1).

It remembers just enough to acknowledge a FIN that comes again, and to tell an old segment from a
new connection.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from zttrio.header.tcp import ACK, FIN, RST, SYN, TcpHeader

from .emit import CHALLENGE_INTERVAL
from .seq import MASK, is_newer, unwrap
from .state import TIME_WAIT

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import Packet
    from zttrio.stack.ports import Binding

    from .connection import TcpConnection
    from .layer import TcpLayer

__all__ = ["TimeWait"]


class TimeWait:
    """A finished connection; a timer owner and an entry of the layer's table.

    Attributes:
        layer: where it lives.
        key: its place in the table.
        local: packed address and port.
        remote: packed address and port.
        state: TIME_WAIT.
        snd_nxt: the next sequence number we would have used, unwrapped.
        deadline: when it ends.
    """

    __slots__ = (
        "_answered_at",
        "_binding",
        "_connection",
        "_rcv_nxt",
        "_ts_offset",
        "_ts_ok",
        "_ts_recent",
        "_ts_recent_at",
        "_window",
        "deadline",
        "key",
        "layer",
        "local",
        "queued",
        "remote",
        "snd_nxt",
    )

    state = TIME_WAIT

    def __init__(self, connection: TcpConnection, now: float) -> None:
        self.layer: TcpLayer = connection.layer
        self.key = connection.key
        self.local = connection.local
        self.remote = connection.remote
        self.snd_nxt = connection.snd_nxt
        self._rcv_nxt = connection.rcv_nxt
        self._window = connection.receive_window()
        self._ts_ok = connection.ts_ok
        self._ts_offset = connection.ts_offset
        self._ts_recent = connection.ts_recent
        self._ts_recent_at = connection.ts_recent_at
        # Whoever still holds the connection sees it closed when this ends.
        self._connection = None if connection.is_orphan else connection
        self._binding: Binding | None = connection.binding
        connection.binding = None
        self._answered_at = -inf
        self.deadline = now + self.layer.config.time_wait
        self.queued = inf

    def receive_predicted(self, packet: Packet, transport: Buffer, now: float) -> bool:
        """Nothing is expected here."""
        del packet, transport, now
        return False

    def receive_segment(self, packet: Packet, header: TcpHeader, data: Buffer, now: float) -> None:
        """RFC 9293 3.10.7.4 in TIME_WAIT; arguments as for `Receiver.receive_segment`."""
        flags = header.flags
        number = unwrap(header.seq, self._rcv_nxt)
        if flags & (SYN | RST | ACK) == SYN and self._is_new_connection(header, number):
            self.layer.counters.tcp_time_wait_reused += 1
            self.end()
            self.layer.receive_stranger(packet, header, data, now, above=self.snd_nxt)
            return
        if flags & RST:
            if number == self._rcv_nxt:
                self.layer.counters.tcp_resets_in += 1
                self.end()
            else:
                self.layer.counters.tcp_resets_ignored += 1
            return
        stamp = header.timestamp
        if self._ts_ok and stamp is not None and is_newer(self._ts_recent, stamp[0]):
            self.layer.counters.tcp_paws += 1
        elif flags & FIN and number + len(data) + 1 == self._rcv_nxt:
            # The peer has not seen our last ACK: its FIN is answered, and the time starts again.
            if stamp is not None:
                self._ts_recent = stamp[0]
                self._ts_recent_at = now
            self.deadline = now + self.layer.config.time_wait
            self._send_ack(now)
            return
        elif number == self._rcv_nxt and not data and not flags & (SYN | FIN):
            return  # an ACK of our last ACK's kind: nothing to say
        if now - self._answered_at >= CHALLENGE_INTERVAL and self.layer.may_challenge(now):
            self._answered_at = now
            self._send_ack(now)

    def _is_new_connection(self, header: TcpHeader, number: int) -> bool:
        """RFC 6191 section 2: a SYN that cannot be an old duplicate may start over."""
        if self._ts_ok and header.timestamp is not None:
            if header.timestamp[0] != self._ts_recent:
                return is_newer(header.timestamp[0], self._ts_recent)
            return number > self._rcv_nxt
        return number > self._rcv_nxt

    def may_be_reused(self, now: float) -> bool:
        """True if a new connection of ours may take this one's place (RFC 6191 section 3).

        Our timestamps have moved on after one second at most, so the peer can tell the two apart.
        """
        return self._ts_ok and now - self._ts_recent_at > 1.0

    def _send_ack(self, now: float) -> None:
        stamp = None
        if self._ts_ok:
            stamp = ((int(now * 1000) + self._ts_offset) & MASK, self._ts_recent)
        header = TcpHeader(
            self.local[1],
            self.remote[1],
            self.snd_nxt & MASK,
            self._rcv_nxt & MASK,
            ACK,
            self._window,
            timestamp=stamp,
        )
        self.layer.send_header(self.local[0], self.remote[0], header, now)

    def handle_timer(self, now: float) -> None:
        """Twice the maximum segment lifetime is over."""
        if self.deadline <= now:
            self.end()

    def end(self) -> None:
        """Give the port back and leave the table."""
        self.deadline = inf
        self.layer.forget_time_wait(self)
        if self._binding is not None:
            self._binding.release()
            self._binding = None
        if self._connection is not None:
            self._connection.time_wait_is_over()
            self._connection = None
