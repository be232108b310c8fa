"""Listeners: the SYN queue of unfinished handshakes and the accept queue of finished ones.

A handshake is a `Request`, not a connection, until its last ACK: a flood of SYNs costs a few
hundred octets each, and no more of them than the SYN queue holds.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from zttrio.header.tcp import ACK, CWR, ECE, FIN, RST, SYN, TcpHeader
from zttrio.stack.events import CONN, RD, Endpoint

from .emit import CHALLENGE_INTERVAL
from .numbers import COOKIE_LIFETIME, Numbers
from .offer import MAX_SCALE
from .options import DEFAULT_OPTIONS, TcpOptions, changed
from .seq import MASK, is_newer, unwrap
from .state import LISTEN, SYN_RECEIVED

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import Packet
    from zttrio.stack.ports import Binding

    from .connection import TcpConnection
    from .layer import TcpLayer

__all__ = ["Request", "TcpListener"]

UNSENT_LIMIT = 8  # arbitrary: packets that wait for a neighbor beside which no SYN-ACK waits, too


class TcpListener(Endpoint):
    """A listening socket; made by `TcpLayer.listen`.

    Attributes:
        local: packed address (None for the wildcard of both families) and port.
        backlog: connections that may wait to be accepted, less one, as on Linux.
        state: LISTEN.
        options: what accepted connections start with.
        requests: unfinished handshakes, by table key.
        error: 0; listeners do not fail.
    """

    __slots__ = (
        "_cookies_until",
        "_queue",
        "backlog",
        "binding",
        "is_closed",
        "layer",
        "options",
        "requests",
    )

    state = LISTEN
    error = 0

    def __init__(self, layer: TcpLayer, binding: Binding, backlog: int) -> None:
        super().__init__()
        self.layer = layer
        self.binding = binding
        self.backlog = backlog
        self.options: TcpOptions = DEFAULT_OPTIONS
        self.requests: dict[bytes, Request] = {}
        self.is_closed = False
        self._cookies_until = -inf
        self._queue: deque[TcpConnection] = deque()

    @property
    def local(self) -> tuple[bytes | None, int]:
        """Packed address (None for the wildcard of both families) and port."""
        return self.binding.address, self.binding.port

    @property
    def is_readable(self) -> bool:
        """True if `accept` would return a connection."""
        return bool(self._queue)

    @property
    def queued(self) -> int:
        """Connections that wait to be accepted."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """True if no more connections may wait to be accepted."""
        return len(self._queue) > self.backlog

    def accept(self, now: float) -> TcpConnection | None:
        """The connection that has waited longest, or None.

        It may have failed since; then its first use says so.
        """
        del now
        return self._queue.popleft() if self._queue else None

    def configure(self, **changes: Any) -> None:
        """Change `options` for connections that come from now on.

        Raises:
            ValueError: a value is out of range.
            TypeError: there is no such option.
        """
        self.options = changed(self.options, tuple(changes.items()))

    def close(self, now: float) -> None:
        """Stop listening; who has not been accepted is reset, as on Linux."""
        if self.is_closed:
            return
        self.is_closed = True
        self.layer.forget_listener(self)
        for request in list(self.requests.values()):
            request.end()
        while self._queue:
            self._queue.popleft().abort(now)
        self.binding.release()

    def receive_syn(
        self, packet: Packet, header: TcpHeader, now: float, *, above: int | None = None
    ) -> None:
        """RFC 9293 3.10.7.2: somebody calls.

        Args:
            packet: what the SYN came in.
            header: the SYN.
            now: the time.
            above: a sequence number that ours has to be greater than, because an earlier
                connection between the same ends used those before (RFC 6191).
        """
        counters = self.layer.counters
        if self.is_full:
            counters.tcp_accept_queue_full += 1
            return
        if self.layer.is_full:
            counters.tcp_syn_queue_full += 1
            return
        request = Request(self, packet, header, now)
        if len(self.requests) >= self.layer.config.syn_queue:
            counters.tcp_syn_queue_full += 1
            if self.layer.config.syn_cookies:
                self._send_cookie(request, now)
            return
        if above is not None and unwrap(request.iss, above) <= above:
            request.iss = (above + 1 + self.layer.rng.getrandbits(20)) & MASK
        self.requests[request.key] = request
        self.layer.table[request.key] = request
        request.send_syn_ack(now)
        request.deadline = now + self.layer.config.rto_initial
        self.layer.timers.schedule(request)

    def _send_cookie(self, request: Request, now: float) -> None:
        """Answer a SYN and forget it: whoever is really there brings back what it said."""
        self.layer.counters.tcp_cookies_out += 1
        self._cookies_until = now + COOKIE_LIFETIME
        default = 536 if len(request.remote[0]) == 4 else 1220
        request.iss = self.layer.numbers.cookie(
            request.key, request.irs, request.mss or default, now
        )
        request.is_cookie = True
        if not request.ts_ok:
            # Only timestamps can bring back more than the MSS.
            request.window_scale = None
            request.sack_ok = request.ecn_ok = False
        request.send_syn_ack(now)

    def receive_cookie(self, packet: Packet, header: TcpHeader, data: Buffer, now: float) -> bool:
        """An ACK for nobody: True if it brings back a cookie of ours."""
        if now >= self._cookies_until or self.layer.is_full:
            return False
        request = Request(self, packet, header, now)
        request.irs = (header.seq - 1) & MASK
        request.iss = (header.ack - 1) & MASK
        cookie = self.layer.numbers.read_cookie(request.key, request.irs, request.iss, now)
        if cookie is None:
            self.layer.counters.tcp_cookies_bad += 1
            return False
        request.sent_at = -1.0
        if header.timestamp is not None:
            cookie = Numbers.read_options(cookie, header.timestamp[1])
            stamp = (int(now * 1000) + request.ts_offset) & MASK
            request.sent_at = now - ((stamp - header.timestamp[1]) & MASK) / 1000
        request.mss = cookie.mss
        request.window_scale = cookie.window_scale
        request.sack_ok = cookie.sack_ok
        request.ecn_ok = cookie.ecn_ok
        self.layer.counters.tcp_cookies_in += 1
        connection = self.complete(request, header, now)
        if connection is not None:
            connection.receive_segment(packet, header, data, now)
        return True

    def complete(self, request: Request, header: TcpHeader, now: float) -> TcpConnection | None:
        """The last ACK of a handshake has come; None if there is no room for the connection."""
        if self.is_full:
            self.layer.counters.tcp_accept_queue_full += 1
            return None
        request.end()
        connection = self.layer.make_accepted(self, request, header, now)
        self._queue.append(connection)
        self.layer.events.raise_event(self, CONN | RD)
        return connection


class Request:
    """An unfinished handshake: SYN_RECEIVED after a passive open (RFC 9293 3.10.7.4).

    Attributes:
        listener: who asked for it.
        key: its place in the layer's table.
        local: packed address and port.
        remote: packed address and port.
        irs: the peer's sequence number.
        iss: ours.
        mss: what the peer announced, or None.
        window_scale: what the peer announced, at most 14, or None.
        sack_ok: the peer understands SACK.
        ts_ok: the peer sends timestamps.
        ts_recent: its last one.
        ts_recent_at: when that came.
        ecn_ok: the peer asked for ECN, and we agree.
        is_cookie: our SYN is a cookie, and this object is not kept.
        offer: what our SYN announces.
        sent_at: when our SYN went out first, -1 if nobody knows.
        retries: how often it went out again.
    """

    __slots__ = (
        "answered_at",
        "deadline",
        "ecn_ok",
        "irs",
        "is_cookie",
        "iss",
        "key",
        "listener",
        "local",
        "mss",
        "offer",
        "queued",
        "remote",
        "retries",
        "sack_ok",
        "sent_at",
        "ts_offset",
        "ts_ok",
        "ts_recent",
        "ts_recent_at",
        "window_scale",
    )

    state = SYN_RECEIVED

    def __init__(
        self,
        listener: TcpListener,
        packet: Packet,
        header: TcpHeader,
        now: float,
    ) -> None:
        self.listener = listener
        layer = listener.layer
        self.local = (packet.destination, header.dst_port)
        self.remote = (packet.source, header.src_port)
        self.key = packet.source + packet.destination + bytes(packet.transport[:4])
        self.irs = header.seq
        self.iss, self.ts_offset = layer.numbers.initial(self.key, now)
        self.mss = header.mss
        self.window_scale = header.window_scale
        if self.window_scale is not None:
            self.window_scale = min(self.window_scale, MAX_SCALE)
        self.sack_ok = header.sack_permitted
        self.ts_ok = header.timestamp is not None
        self.ts_recent = 0 if header.timestamp is None else header.timestamp[0]
        self.ts_recent_at = self.sent_at = now
        # RFC 3168 6.1.1: both bits together ask for it.
        asks = header.flags & (ECE | CWR) == ECE | CWR
        self.ecn_ok = asks and layer.config.ecn != "off"
        self.is_cookie = False
        self.offer = layer.offer(packet.source, listener.options)
        self.retries = 0
        self.answered_at = -inf
        self.deadline = inf
        self.queued = inf

    def send_syn_ack(self, now: float) -> None:
        """Answer the peer's SYN with ours."""
        layer = self.listener.layer
        if layer.ip.waiting(self.remote[0]) >= UNSENT_LIMIT:
            # SYNs from a neighbor that is not there would fill all memory for waiting packets.
            layer.counters.tcp_syn_acks_unsent += 1
            return
        options = self.listener.options
        stamp = None
        if self.ts_ok:
            value = (int(now * 1000) + self.ts_offset) & MASK
            if self.is_cookie:
                value = Numbers.stamp_options(
                    value, self.window_scale, sack_ok=self.sack_ok, ecn_ok=self.ecn_ok
                )
            stamp = (value, self.ts_recent)
        scale = None
        if self.window_scale is not None:
            scale = self.offer.window_scale
        header = TcpHeader(
            self.local[1],
            self.remote[1],
            self.iss,
            (self.irs + 1) & MASK,
            SYN | ACK | ECE if self.ecn_ok else SYN | ACK,
            self.offer.window,
            mss=self.offer.mss,
            window_scale=scale,
            sack_permitted=self.sack_ok,
            timestamp=stamp,
        )
        layer.send_header(
            self.local[0],
            self.remote[0],
            header,
            now,
            hop_limit=options.hop_limit,
            traffic_class=options.traffic_class & 0xFC,
        )

    def receive_predicted(self, packet: Packet, transport: Buffer, now: float) -> bool:
        """No segment of a handshake is what most segments are."""
        del packet, transport, now
        return False

    def receive_segment(self, packet: Packet, header: TcpHeader, data: Buffer, now: float) -> None:
        """RFC 9293 3.10.7.4 in SYN_RECEIVED; arguments as for `Receiver.receive_segment`."""
        listener = self.listener
        layer = listener.layer
        flags = header.flags
        rcv_nxt = self.irs + 1
        number = unwrap(header.seq, rcv_nxt)
        if flags & (SYN | RST | ACK) == SYN and number == self.irs:
            self._answer(now, is_syn=True)  # our answer was lost, or is on its way
            return
        stamp = header.timestamp
        if self.ts_ok and not flags & RST:
            if stamp is None:
                layer.counters.tcp_no_timestamp += 1
                return
            if is_newer(self.ts_recent, stamp[0]):
                layer.counters.tcp_paws += 1
                self._answer(now)
                return
        length = len(data) + (flags & FIN) + (flags >> 1 & 1)
        if not (number <= rcv_nxt + self.offer.window and number + max(length, 1) > rcv_nxt):
            layer.counters.tcp_out_of_window += 1
            if not flags & RST:
                self._answer(now)
            return
        if flags & RST:
            if number == rcv_nxt:
                layer.counters.tcp_resets_in += 1
                self.end()  # back to LISTEN, and nobody is told
            else:
                layer.counters.tcp_resets_ignored += 1
                self._answer(now)
            return
        if flags & SYN:
            self._answer(now)  # RFC 5961 section 4
            return
        if not flags & ACK:
            layer.counters.tcp_no_ack += 1
            return
        if header.ack != (self.iss + 1) & MASK:
            layer.reset_stranger(packet, header, len(data), now)
            return
        connection = listener.complete(self, header, now)
        if connection is not None:
            connection.receive_segment(packet, header, data, now)

    def _answer(self, now: float, *, is_syn: bool = False) -> None:
        """Say where we are, but not too often (RFC 5961 section 7)."""
        layer = self.listener.layer
        if now - self.answered_at < CHALLENGE_INTERVAL or not layer.may_challenge(now):
            layer.counters.tcp_challenges_limited += 1
            return
        self.answered_at = now
        if is_syn:
            layer.counters.tcp_retransmits += 1
            self.send_syn_ack(now)
            return
        layer.counters.tcp_challenges_out += 1
        stamp = None
        if self.ts_ok:
            stamp = ((int(now * 1000) + self.ts_offset) & MASK, self.ts_recent)
        header = TcpHeader(
            self.local[1],
            self.remote[1],
            (self.iss + 1) & MASK,
            (self.irs + 1) & MASK,
            ACK,
            self.offer.window,
            timestamp=stamp,
        )
        layer.send_header(self.local[0], self.remote[0], header, now)

    def handle_timer(self, now: float) -> None:
        """Nobody has acknowledged our SYN: send it again, or give up."""
        config = self.listener.layer.config
        self.retries += 1
        if self.retries > config.syn_ack_retries:
            self.listener.layer.counters.tcp_failed_opens += 1
            self.end()
            return
        self.listener.layer.counters.tcp_retransmits += 1
        self.ecn_ok = False  # RFC 3168 6.1.1.1: perhaps it is this that does not get through
        self.send_syn_ack(now)
        self.deadline = now + config.rto_initial * (1 << self.retries)

    def end(self) -> None:
        """Leave the tables; the connection, if there is one, takes the place over."""
        self.deadline = inf
        self.listener.requests.pop(self.key, None)
        layer = self.listener.layer
        if layer.table.get(self.key) is self:
            del layer.table[self.key]
