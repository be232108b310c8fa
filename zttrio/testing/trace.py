"""TCP packet traces: play the peer of one connection, segment by segment, in virtual time.

The TCP under test is the real one, alone, without IP, wire or tasks.  A trace reads like a packet
dump: what the peer sends, what has to come back, and when.

    t = TcpTrace()
    connection = t.connect()
    t.expect(SYN, seq=0, mss=1460)
    t.at(1.0)
    t.expect(SYN, seq=0, at=1.0)
    t.send(SYN | ACK, ack=1)
    t.expect(ACK, seq=1, ack=1)

Sequence numbers are relative, as in a dump: 0 is the SYN of whoever sends, 1 the first octet.
"""

from __future__ import annotations

import random
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from zttrio.config import Config
from zttrio.header.address import packed
from zttrio.header.checksum import fold, pseudo_header, transport_checksum
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL, CHECKSUM_VERIFIED
from zttrio.header.ipv4 import PROTOCOL_TCP
from zttrio.header.tcp import ACK, FIN, PSH, SYN, TcpHeader, flags_text
from zttrio.stack.counters import Counters
from zttrio.stack.events import EventQueue
from zttrio.stack.packet import Packet, PathError
from zttrio.stack.ports import Ports
from zttrio.stack.tcp.layer import TcpLayer
from zttrio.stack.tcp.options import DEFAULT_OPTIONS, TcpOptions
from zttrio.stack.timers import TimerQueue

from .trace_ip import TraceIp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zttrio.stack.tcp.connection import TcpConnection
    from zttrio.stack.tcp.listen import TcpListener

__all__ = ["TcpTrace", "TracedSegment"]

_MASK = 0xFFFF_FFFF


@attrs.frozen(kw_only=True)
class TracedSegment:
    """A segment that the TCP under test has sent.

    Attributes:
        time: when.
        port: yours, that it was sent to.
        flags: the sum of FIN, SYN and so on, of `zttrio.header.tcp`.
        seq: relative to the sender's SYN.
        ack: relative to our SYN; 0 without ACK.
        window: the field, not scaled.
        data: payload.
        header: everything else, with numbers as on the wire.
        sack_blocks: relative to our SYN.
        gso_size: as in `zttrio.header.frame.Frame`.
        traffic_class: DSCP and ECN bits of the packet.
        dont_fragment: the packet must not be cut.
    """

    time: float
    port: int
    flags: int
    seq: int
    ack: int
    window: int
    data: bytes
    header: TcpHeader
    sack_blocks: tuple[tuple[int, int], ...]
    gso_size: int
    traffic_class: int
    dont_fragment: bool

    def __str__(self) -> str:
        text = f"{self.time:.6f} [{flags_text(self.flags)}] seq {self.seq}"
        if self.data:
            text += f":{self.seq + len(self.data)}"
        if self.flags & ACK:
            text += f" ack {self.ack}"
        text += f" win {self.window} length {len(self.data)}"
        for name in ("mss", "window_scale", "timestamp"):
            if (value := getattr(self.header, name)) is not None:
                text += f" {name} {value}"
        if self.sack_blocks:
            text += f" sack {self.sack_blocks}"
        return text


@attrs.define
class _Caller:
    """What you know as one port of yours."""

    iss: int
    seq: int = 0
    acked: int = 0
    echo: int = 0
    peer_iss: int | None = None


class TcpTrace:
    """One TCP under test, and you as its peer.

    Args:
        config: of the TCP under test.
        mtu: octets of the largest packet on its wire.
        seed: where its sequence numbers and ports come from.
        family: 4 or 6.
        max_segment: octets of its largest super-segment, 0 for plain segments only.

    Attributes:
        now: virtual time in seconds, from 0.
        tcp: the layer under test.
        ip: what it takes for its IP layer; `mtu` and `checksum` may be changed.
        counters: what it has counted.
        local, remote: packed addresses: its own and yours.
        port, peer_port: its port and yours.
        seq: the next sequence number that `send` uses (of `peer_port`; each port of yours has
            its own).
        window: what `send` announces if not told otherwise.
        timestamps: `send` adds timestamps, and `expect` learns what to echo.
    """

    def __init__(
        self,
        *,
        config: Config | None = None,
        mtu: int = 1500,
        seed: int = 0,
        family: int = 4,
        max_segment: int = 0,
    ) -> None:
        self.now = 0.0
        self.local = packed("10.0.0.1" if family == 4 else "fd00::1")
        self.remote = packed("10.0.0.2" if family == 4 else "fd00::2")
        self.port = 0
        self.peer_port = 0
        self.counters = Counters()
        self.timers = TimerQueue()
        self.events = EventQueue()
        self.ip = TraceIp(self.local, mtu, max_segment, self._take)
        self._rng = rng = random.Random(seed)
        self.config = Config() if config is None else config
        self.tcp = TcpLayer(
            self.ip,
            Ports(rng, self.config.ephemeral_ports),
            self.timers,
            self.events,
            self.counters,
            self.config,
            rng,
        )
        self.window = 0xFFFF
        self.timestamps = False
        self.clock = 5000
        """The peer's timestamp clock at time 0, in milliseconds."""
        self._callers: dict[int, _Caller] = {}
        self._sent: deque[TracedSegment] = deque()
        self._in_burst = False

    def _caller(self, port: int) -> _Caller:
        if port not in self._callers:
            self._callers[port] = _Caller(self._rng.getrandbits(32))
        return self._callers[port]

    @property
    def seq(self) -> int:
        """The next sequence number that `send` uses."""
        return self._caller(self.peer_port).seq

    @seq.setter
    def seq(self, value: int) -> None:
        self._caller(self.peer_port).seq = value

    # the program's side

    def connect(self, port: int = 80, *, options: TcpOptions = DEFAULT_OPTIONS) -> TcpConnection:
        """Let the TCP under test open a connection to you."""
        connection = self.tcp.connect((self.remote, port), self.now, options=options)
        self.port = connection.local[1]
        self.peer_port = port
        self.flush()
        return connection

    def listen(
        self, port: int = 80, backlog: int = 10, *, options: TcpOptions = DEFAULT_OPTIONS
    ) -> TcpListener:
        """Let the TCP under test listen, so that you can call."""
        self.port = port
        if not self.peer_port:
            self.peer_port = 40000
        binding = self.tcp.bind(self.local, port)
        return self.tcp.listen(binding, backlog, self.now, options=options)

    def establish(
        self,
        *,
        passive: bool = False,
        options: TcpOptions = DEFAULT_OPTIONS,
        mss: int | None = 1460,
        window_scale: int | None = None,
        sack: bool = False,
        timestamps: bool = False,
        rtt: float = 0.0,
    ) -> TcpConnection:
        """Do a whole handshake and return the connection, ESTABLISHED and silent.

        Args:
            passive: you call, instead of being called.
            options: the program's.
            mss: what you announce.
            window_scale: what you announce.
            sack: you understand SACK.
            timestamps: you use timestamps.
            rtt: seconds the handshake's round trip takes.
        """
        stamp = (self.peer_clock(), 0) if timestamps else None
        if passive:
            listener = self.listen(options=options)
            self.send(SYN, mss=mss, window_scale=window_scale, sack_permitted=sack, timestamp=stamp)
            self.expect(SYN | ACK)
            self.timestamps = timestamps
            self.at(self.now + rtt)
            self.send(ACK)
            connection = listener.accept(self.now)
            if connection is None:
                raise AssertionError("the handshake is complete, but nobody was accepted")
            self.expect_nothing()
            return connection
        connection = self.connect(options=options)
        syn = self.expect(SYN)
        if timestamps and syn.header.timestamp is not None and stamp is not None:
            stamp = (stamp[0], syn.header.timestamp[0])
        self.at(self.now + rtt)
        self.send(
            SYN | ACK, mss=mss, window_scale=window_scale, sack_permitted=sack, timestamp=stamp
        )
        self.timestamps = timestamps
        self.expect(ACK, seq=1, ack=1)
        self.expect_nothing()
        return connection

    def flush(self) -> None:
        """Let the TCP under test send whatever it may send now.

        Needed after its program's calls; the methods here do it themselves.
        """
        self.tcp.end_of_burst(self.now)
        while self.tcp.pump(self.now, 64):
            pass

    # the peer's side

    def peer_clock(self) -> int:
        """Your TSval now."""
        return (self.clock + int(self.now * 1000)) & _MASK

    def send(
        self,
        flags: int,
        data: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        window: int | None = None,
        mss: int | None = None,
        window_scale: int | None = None,
        sack_permitted: bool = False,
        sack_blocks: tuple[tuple[int, int], ...] = (),
        timestamp: tuple[int, int] | None = None,
        port: int | None = None,
        traffic_class: int = 0,
        gso_size: int = 0,
        damage: bool = False,
    ) -> None:
        """Send a segment to the TCP under test.

        Args:
            flags: the sum of FIN, SYN and so on.
            data: payload.
            seq: relative; the next one in order if None.
            ack: relative to its SYN; everything expected so far if None.
            window: the field; `window` if None.
            mss: option.
            window_scale: option.
            sack_permitted: option.
            timestamp: option, ``(TSval, TSecr)``.
            sack_blocks: relative to its SYN.
            port: yours, if not `peer_port`.
            traffic_class: of the packet.
            gso_size: as if the wire had merged segments of this size.
            damage: flip a bit on the way.
        """
        port = self.peer_port if port is None else port
        caller = self._caller(port)
        following = caller.seq
        start = following if seq is None else seq
        if timestamp is None and self.timestamps:
            timestamp = (self.peer_clock(), caller.echo)
        iss = caller.peer_iss or 0
        header = TcpHeader(
            port,
            self.port,
            (caller.iss + start) & _MASK,
            (iss + (caller.acked if ack is None else ack)) & _MASK if flags & ACK else 0,
            flags,
            self.window if window is None else window,
            mss=mss,
            window_scale=window_scale,
            sack_permitted=sack_permitted,
            sack_blocks=tuple(
                ((iss + left) & _MASK, (iss + right) & _MASK) for left, right in sack_blocks
            ),
            timestamp=timestamp,
        )
        octets = bytearray(header.emit())
        check = transport_checksum(self.remote, self.local, PROTOCOL_TCP, octets, data)
        octets[16:18] = check.to_bytes(2, "big")
        if damage:
            octets[4] ^= 1
        end = start + len(data) + (1 if flags & SYN else 0) + (1 if flags & FIN else 0)
        if start == following:
            caller.seq = end
        self.tcp.receive_packet(
            Packet(
                self.remote,
                self.local,
                PROTOCOL_TCP,
                bytes(octets) + data,
                traffic_class=traffic_class,
                checksum=CHECKSUM_VERIFIED if gso_size else CHECKSUM_COMPLETE,
                gso_size=gso_size,
            ),
            self.now,
        )
        if not self._in_burst:
            self.flush()

    @contextmanager
    def burst(self) -> Iterator[None]:
        """What is sent inside arrives as one burst."""
        self._in_burst = True
        try:
            yield
        finally:
            self._in_burst = False
        self.flush()

    def lose(
        self, seq: int, error: int, *, mtu: int = 0, is_hard: bool = False, reported: bool = True
    ) -> None:
        """Report the segment that started at *seq* as lost, as an ICMP error does.

        Args:
            seq: relative.
            error: an errno, see `zttrio.stack.packet.PathError`.
            mtu: with EMSGSIZE.
            is_hard: see there.
            reported: a router says so, and not our own IP layer.
        """
        quoted = TcpHeader(
            self.port,
            self.peer_port,
            ((self._caller(self.peer_port).peer_iss or 0) + seq) & _MASK,
            0,
            ACK,
            0,
        ).emit()
        self.tcp.receive_error(
            PathError(
                self.local,
                self.remote,
                PROTOCOL_TCP,
                quoted,
                error,
                is_hard,
                mtu,
                self.remote if reported else b"",
            ),
            self.now,
        )
        self.flush()

    # what has to come back

    def expect(
        self,
        flags: int,
        data: bytes | None = None,
        *,
        seq: int | None = None,
        ack: int | None = None,
        window: int | None = None,
        size: int | None = None,
        mss: int | None = None,
        sack_blocks: tuple[tuple[int, int], ...] | None = None,
        gso_size: int | None = None,
        at: float | None = None,
    ) -> TracedSegment:
        """Take the next segment that the TCP under test has sent, which has to be this one.

        What is None is not compared, and PSH only if *flags* has it.

        Raises:
            AssertionError: it is another, or there is none.
        """
        wanted = ", ".join(
            f"{name} {value!r}"
            for name, value in (
                ("data", data),
                ("size", size),
                ("seq", seq),
                ("ack", ack),
                ("window", window),
                ("mss", mss),
                ("sack", sack_blocks),
                ("at", at),
            )
            if value is not None
        )
        wanted = f"[{flags_text(flags)}] {wanted}"
        if not self._sent:
            raise AssertionError(f"expected {wanted} at {self.now:.6f}, but nothing was sent")
        segment = self._sent.popleft()
        differences = [
            name
            for name, value, found in (
                ("flags", flags | (segment.flags & PSH), segment.flags),
                ("data", data, segment.data),
                ("size", size, len(segment.data)),
                ("seq", seq, segment.seq),
                ("ack", ack, segment.ack),
                ("window", window, segment.window),
                ("mss", mss, segment.header.mss),
                ("sack", sack_blocks, segment.sack_blocks),
                ("gso size", gso_size, segment.gso_size),
            )
            if value is not None and value != found
        ]
        if at is not None and abs(segment.time - at) > 1e-6:
            differences.append("time")
        if differences:
            raise AssertionError(
                f"expected {wanted}, but {' and '.join(differences)} differ: {segment}"
            )
        self._note(segment)
        return segment

    def expect_nothing(self) -> None:
        """Nothing else has been sent.

        Raises:
            AssertionError: something has.
        """
        if self._sent:
            raise AssertionError("expected nothing, but: " + "; ".join(map(str, self._sent)))

    def take(self) -> list[TracedSegment]:
        """Everything that has been sent and not been expected yet, in order."""
        segments = list(self._sent)
        self._sent.clear()
        for segment in segments:
            self._note(segment)
        return segments

    def _note(self, segment: TracedSegment) -> None:
        end = segment.seq + len(segment.data)
        end += (1 if segment.flags & SYN else 0) + (1 if segment.flags & FIN else 0)
        caller = self._caller(segment.port)
        caller.acked = max(caller.acked, end)
        if segment.header.timestamp is not None:
            caller.echo = segment.header.timestamp[0]

    # time

    def at(self, when: float) -> None:
        """Let time pass until *when*, with every timer on the way called exactly when it is due.

        Raises:
            ValueError: that is in the past.
        """
        if when < self.now:
            raise ValueError(f"time {when}: it is {self.now} already")
        # A deadline that was added up in another order may differ in the last bit.
        while (due := self.timers.next_timer()) is not None and due <= when + 1e-9:
            self.now = max(due, self.now)
            self.timers.handle_timers(self.now)
            self.flush()
        self.now = max(when, self.now)

    # from the TCP under test

    def _take(
        self,
        source: bytes,
        destination: bytes,
        header: bytes,
        payload: bytes,
        now: float,
        checksum: int,
        gso_size: int,
        traffic_class: int,
        dont_fragment: bool,
    ) -> None:
        if (source, destination) != (self.local, self.remote):
            raise AssertionError(f"a segment from {source!r} to {destination!r}")
        parsed = TcpHeader.parse(header)
        if parsed.data_offset != len(header):
            raise AssertionError(f"data offset {parsed.data_offset} in {len(header)} octets")
        if checksum == CHECKSUM_PARTIAL:
            pseudo = pseudo_header(source, destination, PROTOCOL_TCP, len(header) + len(payload))
            is_right = parsed.checksum == fold(pseudo)
        else:
            is_right = not transport_checksum(source, destination, PROTOCOL_TCP, header, payload)
        if not is_right:
            raise AssertionError(f"the checksum {parsed.checksum:#x} is wrong")
        caller = self._caller(parsed.dst_port)
        if parsed.flags & SYN:
            if caller.peer_iss != parsed.seq:
                caller.acked = 0
            caller.peer_iss = parsed.seq
        iss = caller.peer_iss or 0

        def relative(number: int, start: int) -> int:
            return ((number - start + 0x4000_0000) & _MASK) - 0x4000_0000

        self._sent.append(
            TracedSegment(
                time=now,
                port=parsed.dst_port,
                flags=parsed.flags,
                seq=relative(parsed.seq, iss),
                ack=relative(parsed.ack, caller.iss) if parsed.flags & ACK else 0,
                window=parsed.window,
                data=payload,
                header=parsed,
                sack_blocks=tuple(
                    (relative(left, caller.iss), relative(right, caller.iss))
                    for left, right in parsed.sack_blocks
                ),
                gso_size=gso_size,
                traffic_class=traffic_class,
                dont_fragment=dont_fragment,
            )
        )
