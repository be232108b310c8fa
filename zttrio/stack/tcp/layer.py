"""All TCP connections of one stack: who gets a segment, who may open, and what they share.

A segment finds its connection by one dictionary look-up, whose key is the addresses and ports as
they stand in the packet.  Segments for nobody are answered here (RFC 9293 3.10.7.1).
"""

from __future__ import annotations

import errno
import struct
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError
from zttrio.header.address import (
    IPV4_UNSPECIFIED,
    IPV6_UNSPECIFIED,
    ip_text,
    is_multicast,
    is_unspecified,
    packed,
)
from zttrio.header.checksum import fold, pseudo_header, transport_checksum
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL
from zttrio.header.ipv4 import PROTOCOL_TCP
from zttrio.header.tcp import ACK, FIN, LENGTH, RST, SYN, TcpHeader

from .congestion import Congestion, NewReno
from .connection import TcpConnection
from .cubic import Cubic
from .listen import Request, TcpListener
from .numbers import Numbers
from .offer import Offer
from .options import DEFAULT_OPTIONS, TcpOptions
from .rtt import RttEstimator
from .scoreboard import Scoreboard
from .seq import MASK, unwrap
from .state import SYN_RECEIVED
from .timewait import TimeWait

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from zttrio.config import Config
    from zttrio.header.frame import Buffer
    from zttrio.stack.counters import Counters
    from zttrio.stack.events import EventQueue
    from zttrio.stack.packet import Packet, PathError
    from zttrio.stack.ports import Binding, Ports
    from zttrio.stack.timers import TimerQueue

    from .acknowledge import Acknowledger
    from .lower import IpService
    from .send import Sender

__all__ = ["TcpConnection", "TcpLayer", "TcpListener"]

_PORTS = struct.Struct("!HH")
_SEQ_AT = struct.Struct("!I")
QUANTUM = 8  # segments that one connection sends before the next has its turn; arbitrary
CHALLENGES = 1000  # a second; Linux's tcp_challenge_ack_limit
ORPHAN_LIMIT = 4096  # connections that nobody holds any more; Linux's tcp_max_orphans, small
_ALGORITHMS: dict[str, type[Congestion]] = {"newreno": NewReno, "cubic": Cubic}
_LOOPBACK = {4: packed("127.0.0.1"), 16: packed("::1")}


class TcpLayer:
    """TCP for one stack; implements `zttrio.stack.packet.Transport`.

    Attributes:
        ip: the layer below.
        timers: all deadlines.
        events: endpoints with something to tell.
        counters: what happened, by reason.
        config: every number that can be turned.
        rng: the source of everything that must be hard to guess.
        numbers: sequence numbers, cookies and the like.
        table: connections, unfinished handshakes and TIME_WAITs, by key.
        dirty: connections that may have something to send.
        acking: connections that have received something in this burst.
        gives_turns: somebody calls `end_turn` while there is something in `held`.
        held: connections whose ACK waits for the program's next step, and for how many more turns;
            see `Acknowledger.hold_ack`.
    """

    def __init__(
        self,
        ip: IpService,
        ports: Ports,
        timers: TimerQueue,
        events: EventQueue,
        counters: Counters,
        config: Config,
        rng: random.Random,
    ) -> None:
        self.ip = ip
        self.timers = timers
        self.events = events
        self.counters = counters
        self.config = config
        self.rng = rng
        self.table: dict[bytes, TcpConnection | Request | TimeWait] = {}
        self.dirty: deque[Sender] = deque()
        self.acking: list[Acknowledger] = []
        self.gives_turns = False
        self.held: dict[Acknowledger, int] = {}
        self._ports = ports
        self._listeners: dict[tuple[bytes | None, int], list[TcpListener]] = {}
        self._time_waits: OrderedDict[bytes, TimeWait] = OrderedDict()
        self._orphans: set[TcpConnection] = set()
        self.numbers = Numbers(rng)
        self._last_local = self._last_remote = (b"", 0)
        self._offer = Offer.make(config, DEFAULT_OPTIONS, 0, 4)
        self._offer_for = (0, 4, DEFAULT_OPTIONS)
        self._challenge_second = -1
        self._challenges_left = 0
        ip.register(PROTOCOL_TCP, self, (4, 16))

    # opening

    def bind(
        self,
        address: bytes | None,
        port: int,
        *,
        reuse_address: bool = False,
        reuse_port: bool = False,
        owner_text: str = "another socket",
    ) -> Binding:
        """Take *port* at *address* (None: the wildcard of both families); 0 takes a free one.

        Raises:
            OSError: EADDRINUSE, the text says by whom; EADDRNOTAVAIL, the address is not ours.
            OverflowError: *port* is not a port.
        """
        if address is not None and (not self.ip.may_bind(address) or is_multicast(address)):
            raise OSError(errno.EADDRNOTAVAIL, f"{ip_text(address)}: not an address of ours")
        return self._ports.bind(
            PROTOCOL_TCP,
            address,
            port,
            reuse_address=reuse_address,
            reuse_port=reuse_port,
            owner_text=owner_text,
        )

    def listen(
        self,
        binding: Binding,
        backlog: int | None,
        now: float,
        *,
        options: TcpOptions = DEFAULT_OPTIONS,
    ) -> TcpListener:
        """Accept connections to *binding*, which belongs to the listener from now on.

        Args:
            binding: from `bind`.
            backlog: see `TcpListener`; None for `Config.backlog`.
            now: the time.
            options: what accepted connections start with.

        Raises:
            OSError: EADDRINUSE, somebody else listens there.
        """
        del now
        binding.start_listening()
        listener = TcpListener(self, binding, self.config.backlog if backlog is None else backlog)
        listener.options = options
        self._listeners.setdefault(listener.local, []).append(listener)
        return listener

    def connect(
        self,
        remote: tuple[bytes, int],
        now: float,
        *,
        binding: Binding | None = None,
        options: TcpOptions = DEFAULT_OPTIONS,
    ) -> TcpConnection:
        """Start to open a connection; CONN or ERR is raised when it is known how that ended.

        Args:
            remote: packed address and port.
            now: the time.
            binding: from `bind`, and the connection's from now on; None takes an ephemeral port.
            options: what the program has set.

        Raises:
            OSError: ENETUNREACH, no way there; EADDRINUSE, no ephemeral port is left;
                EADDRNOTAVAIL, there is such a connection already; EAFNOSUPPORT, the families do
                not fit; ECONNREFUSED, port 0; ENOBUFS, `Config.connection_limit` is reached.
        """
        address, port = remote
        if is_unspecified(address):
            address = _LOOPBACK[len(address)]  # as Linux: "this host"
        if is_multicast(address):
            raise OSError(errno.ENETUNREACH, f"{ip_text(address)}: TCP needs a single peer")
        if not port:
            raise OSError(errno.ECONNREFUSED, f"{ip_text(address)} port 0: nobody can listen there")
        if self.is_full:
            raise OSError(
                errno.ENOBUFS, f"tcp: {self.config.connection_limit} connections are open already"
            )
        source = self.ip.select_source(address)
        if binding is not None and binding.address and not is_unspecified(binding.address):
            source = binding.address
        if len(source) != len(address):
            raise OSError(
                errno.EAFNOSUPPORT, f"{ip_text(address)}: cannot be reached from {ip_text(source)}"
            )
        if binding is None:
            remote_octets = address + port.to_bytes(2, "big")

            def is_taken(candidate: int) -> bool:
                return self._is_taken(self._key(source, candidate, address, port), now)

            binding = self._ports.connect(PROTOCOL_TCP, source, remote_octets, is_taken)
        key = self._key(source, binding.port, address, port)
        if self._is_taken(key, now):
            raise OSError(
                errno.EADDRNOTAVAIL,
                f"{ip_text(address)} port {port}: there is a connection from port {binding.port} "
                "already",
            )
        iss, ts_offset = self.numbers.initial(key, now)
        old = self.table.get(key)
        if isinstance(old, TimeWait):
            if unwrap(iss, old.snd_nxt) <= old.snd_nxt:
                iss = (old.snd_nxt + 1 + self.rng.getrandbits(20)) & MASK
            self.counters.tcp_time_wait_reused += 1
            old.end()
        connection = self._make(
            key,
            (source, binding.port),
            (address, port),
            iss,
            ts_offset,
            options,
            self.offer(address, options),
        )
        connection.binding = binding
        connection.peer_mss = connection.adv_mss
        connection.measure_path()
        self.counters.tcp_active_opens += 1
        connection.open(now)
        return connection

    def _key(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> bytes:
        return remote + local + _PORTS.pack(remote_port, local_port)

    def _is_taken(self, key: bytes, now: float) -> bool:
        entry = self.table.get(key)
        if entry is None:
            return False
        return not (isinstance(entry, TimeWait) and entry.may_be_reused(now))

    def _make(
        self,
        key: bytes,
        local: tuple[bytes, int],
        remote: tuple[bytes, int],
        iss: int,
        ts_offset: int,
        options: TcpOptions,
        offer: Offer,
    ) -> TcpConnection:
        config = self.config
        # One object for the same address and port: a server's connections share one end, and so
        # do a busy client's.  That is a few per cent of what an idle connection needs.
        if local == self._last_local:
            local = self._last_local
        self._last_local = local
        if remote == self._last_remote:
            remote = self._last_remote
        self._last_remote = remote
        connection = TcpConnection(
            self,
            key,
            local,
            remote,
            iss,
            RttEstimator.from_config(config),
            _ALGORITHMS[config.congestion](536),
            Scoreboard(),
            options,
        )
        connection.ts_offset = ts_offset
        connection.adv_mss = offer.mss
        connection.rcv_buffer = offer.receive_buffer
        connection.rcv_scale = offer.window_scale
        connection.send_buffer = offer.send_buffer
        self.table[key] = connection
        return connection

    def make_accepted(
        self, listener: TcpListener, request: Request, header: TcpHeader, now: float
    ) -> TcpConnection:
        """The connection that *request* has become; its last ACK is *header*."""
        connection = self._make(
            request.key,
            request.local,
            request.remote,
            request.iss,
            request.ts_offset,
            listener.options,
            request.offer,
        )
        connection.binding = listener.binding.share()
        connection.state = SYN_RECEIVED
        connection.irs = request.irs
        connection.rcv_nxt = connection.last_ack_sent = request.irs + 1
        connection.rcv_adv = connection.rcv_nxt + min(connection.rcv_buffer, 0xFFFF)
        connection.snd_una = request.iss
        connection.snd_nxt = connection.write_end = request.iss + 1
        connection.last_sent_at = request.sent_at
        connection.retries = request.retries
        connection.ecn_ok = request.ecn_ok
        connection.accept_options(
            TcpHeader(
                request.remote[1],
                request.local[1],
                request.irs,
                0,
                SYN,
                header.window,
                mss=request.mss,
                window_scale=request.window_scale,
                sack_permitted=request.sack_ok,
                timestamp=(request.ts_recent, 0) if request.ts_ok else None,
            ),
            request.ts_recent_at,
        )
        connection.become_established(header, now)
        self.counters.tcp_passive_opens += 1
        return connection

    def offer(self, destination: bytes, options: TcpOptions) -> Offer:
        """What to announce to *destination*: the same as last time, nearly always."""
        mtu, octets = self.ip.segment_mtu(destination), len(destination)
        known = self._offer_for
        if known[0] != mtu or known[1] != octets or known[2] is not options:
            self._offer = Offer.make(self.config, options, mtu, octets)
            self._offer_for = (mtu, octets, options)
        return self._offer

    # receiving

    def receive_packet(self, packet: Packet, now: float) -> None:
        """Take in one segment.  Never raises; what is wrong with it is counted."""
        counters = self.counters
        counters.tcp_in += 1
        transport = packet.transport
        entry = self.table.get(packet.source + packet.destination + bytes(transport[:4]))
        if entry is not None and entry.receive_predicted(packet, transport, now):
            return
        data = packet.payload
        size = len(transport)
        if data and (size < LENGTH or size < transport[12] >> 2 & 0x3C):
            transport = packet.data()  # the header was cut in two
            data = b""
        try:
            header = TcpHeader.parse(transport)
        except HeaderError:
            counters.tcp_malformed += 1
            return
        if packet.checksum == CHECKSUM_COMPLETE and transport_checksum(
            packet.source, packet.destination, PROTOCOL_TCP, transport, data
        ):
            counters.tcp_bad_checksum += 1
            return
        if len(transport) > header.data_offset:
            rest = memoryview(transport)[header.data_offset :]
            data = b"".join((rest, data)) if data else rest
        if entry is None and size < 4:
            entry = self.table.get(packet.source + packet.destination + bytes(transport[:4]))
        if entry is None:
            self.receive_stranger(packet, header, data, now)
        else:
            entry.receive_segment(packet, header, data, now)

    def receive_stranger(
        self,
        packet: Packet,
        header: TcpHeader,
        data: Buffer,
        now: float,
        *,
        above: int | None = None,
    ) -> None:
        """A segment that belongs to no connection: RFC 9293 3.10.7.1 and 3.10.7.2.

        Args:
            packet: what it came in.
            header: its header.
            data: its data.
            now: the time.
            above: see `TcpListener.receive_syn`.
        """
        if packet.is_multicast or not header.src_port or not header.dst_port:
            self.counters.tcp_not_unicast += 1  # RFC 9293 3.9.2.3: never answered
            return
        flags = header.flags
        if flags & (SYN | RST | ACK | FIN) == SYN:
            listener = self._find_listener(packet, header.dst_port)
            if listener is not None:
                listener.receive_syn(packet, header, now, above=above)
                return
        elif flags & (SYN | RST | ACK) == ACK:
            listener = self._find_listener(packet, header.dst_port)
            if listener is not None and listener.receive_cookie(packet, header, data, now):
                return
        self.counters.tcp_no_connection += 1
        self.reset_stranger(packet, header, len(data), now)

    def _find_listener(self, packet: Packet, port: int) -> TcpListener | None:
        wildcard = IPV4_UNSPECIFIED if len(packet.destination) == 4 else IPV6_UNSPECIFIED
        for address in (packet.destination, wildcard, None):
            found = self._listeners.get((address, port))
            if found:
                if len(found) == 1:
                    return found[0]
                # SO_REUSEPORT: the same caller finds the same listener while none comes or goes.
                key = packet.source + bytes(packet.transport[:2])
                return found[self.numbers.hash(key) % len(found)]
        return None

    def reset_stranger(self, packet: Packet, header: TcpHeader, size: int, now: float) -> None:
        """Answer a segment with a reset that its sender will believe (RFC 9293 3.10.7.1)."""
        flags = header.flags
        if flags & RST or packet.is_multicast:
            return
        if flags & ACK:
            answer = TcpHeader(header.dst_port, header.src_port, header.ack, 0, RST, 0)
        else:
            length = size + (flags & FIN) + (flags >> 1 & 1)
            answer = TcpHeader(
                header.dst_port, header.src_port, 0, (header.seq + length) & MASK, RST | ACK, 0
            )
        self.counters.tcp_resets_out += 1
        self.send_header(packet.destination, packet.source, answer, now)

    def end_of_burst(self, now: float) -> None:
        """Everything that came in together has been taken in: acknowledge it."""
        acking = self.acking
        if acking:
            self.acking = []
            for connection in acking:
                connection.finish_burst(now)

    def end_turn(self, now: float) -> bool:
        """Every program had a turn: send ACKs that have waited long enough; False if none has."""
        held = self.held
        is_due = False
        for connection, turns in list(held.items()):
            if connection.is_ack_held:
                if turns > 1 and now < connection.ack_at:
                    held[connection] = turns - 1
                    continue
                connection.send_ack(now)
                is_due = True
            del held[connection]
        return is_due

    def receive_error(self, error: PathError, now: float) -> None:
        """Learn that a segment of ours was lost.  Never raises."""
        if len(error.quoted) < 8:
            self.counters.tcp_errors_unmatched += 1
            return
        src_port, dst_port = _PORTS.unpack_from(error.quoted)
        entry = self.table.get(self._key(error.source, src_port, error.destination, dst_port))
        (seq,) = _SEQ_AT.unpack_from(error.quoted, 4)
        if not isinstance(entry, TcpConnection):  # a handshake has its own few retries
            self.counters.tcp_errors_unmatched += 1
            return
        number = unwrap(seq, entry.snd_una)
        # RFC 5927 4.1: only about what is in flight.
        if not entry.snd_una <= number < entry.snd_nxt and number != entry.snd_nxt:
            self.counters.tcp_errors_refused += 1
            return
        entry.path_failed(error, now)

    # sending

    def pump(self, now: float, room: int) -> int:
        """Let connections send at most *room* segments together, in turns; return how many."""
        sent = 0
        dirty = self.dirty
        while dirty and sent < room:
            connection = dirty.popleft()
            connection.is_dirty = False
            share = min(room - sent, QUANTUM)
            count = connection.transmit(now, share)
            sent += count
            if count == share:
                connection.mark_dirty()  # there may be more
        return sent

    def send_header(
        self,
        source: bytes,
        destination: bytes,
        header: TcpHeader,
        now: float,
        payload: Buffer = b"",
        *,
        gso_size: int = 0,
        hop_limit: int = 0,
        traffic_class: int = 0,
    ) -> None:
        """Send a segment that is not worth a fast path; its checksum is filled in here."""
        octets = header.emit()
        if gso_size or not self.ip.needs_checksum(destination):
            state = CHECKSUM_PARTIAL
            length = len(octets) + len(payload)
            check = fold(pseudo_header(source, destination, PROTOCOL_TCP, length))
        else:
            state = CHECKSUM_COMPLETE
            check = transport_checksum(source, destination, PROTOCOL_TCP, octets, payload)
        self.counters.tcp_out += 1
        self.ip.send(
            source,
            destination,
            PROTOCOL_TCP,
            octets[:16] + check.to_bytes(2, "big") + octets[18:],
            payload,
            now,
            checksum=state,
            gso_size=gso_size,
            hop_limit=hop_limit,
            traffic_class=traffic_class,
        )

    def may_challenge(self, now: float) -> bool:
        """True if one more challenge ACK fits into this second (RFC 5961 section 7).

        The limit is drawn anew each second, so that nobody can learn from it what others did
        (CVE-2016-5696).
        """
        second = int(now)
        if second != self._challenge_second:
            self._challenge_second = second
            self._challenges_left = CHALLENGES // 2 + self.rng.randrange(CHALLENGES)
        if not self._challenges_left:
            return False
        self._challenges_left -= 1
        return True

    # ending

    def forget(self, connection: TcpConnection, now: float) -> None:
        """A connection has ended."""
        del now
        self._orphans.discard(connection)
        if self.table.get(connection.key) is connection:
            del self.table[connection.key]

    def keep_time_wait(self, connection: TcpConnection, now: float) -> None:
        """A connection has gone to TIME_WAIT; the oldest makes room if there are too many."""
        self._orphans.discard(connection)
        if len(self._time_waits) >= self.config.time_wait_limit:
            self.counters.tcp_time_wait_evicted += 1
            next(iter(self._time_waits.values())).end()
        entry = TimeWait(connection, now)
        self.table[entry.key] = entry
        self._time_waits[entry.key] = entry
        self.timers.schedule(entry)

    def forget_time_wait(self, entry: TimeWait) -> None:
        """A TIME_WAIT is over."""
        if self._time_waits.pop(entry.key, None) is not None:
            del self.table[entry.key]

    def forget_listener(self, listener: TcpListener) -> None:
        """A listener has closed."""
        group = self._listeners[listener.local]
        group.remove(listener)
        if not group:
            del self._listeners[listener.local]

    def admit_orphan(self, connection: TcpConnection) -> bool:
        """True if *connection* may finish in the background."""
        if len(self._orphans) >= ORPHAN_LIMIT:
            self.counters.tcp_orphans_dropped += 1
            return False
        self._orphans.add(connection)
        return True

    def abort_all(self, now: float) -> None:
        """Reset every connection, forget every listener: the network is going away."""
        for group in list(self._listeners.values()):
            for listener in list(group):
                listener.close(now)
        for entry in list(self.table.values()):
            if isinstance(entry, TcpConnection):
                entry.abort(now)
                entry.error = entry.error or errno.ECONNABORTED
            else:
                entry.end()

    # looking

    @property
    def is_full(self) -> bool:
        """True if no more connections fit."""
        return len(self.table) - len(self._time_waits) >= self.config.connection_limit

    def connections(self) -> Iterator[TcpConnection]:
        """Every connection that is not in TIME_WAIT, those still to be accepted among them."""
        return (entry for entry in self.table.values() if isinstance(entry, TcpConnection))

    def time_waits(self) -> Iterator[TimeWait]:
        """Every connection in TIME_WAIT."""
        return iter(self._time_waits.values())

    def listeners(self) -> Iterator[TcpListener]:
        """Every listener."""
        return (listener for group in self._listeners.values() for listener in group)

    def has_unfinished(self) -> bool:
        """True while any stream has not ended in both directions."""
        return any(True for _ in self.connections())

    @property
    def sizes(self) -> dict[str, int]:
        """How much every table that the network can fill holds, by name; all are bounded."""
        return {
            "tcp connections": len(self.table),
            "tcp time waits": len(self._time_waits),
            "tcp orphans": len(self._orphans),
            "tcp half-open": sum(len(listener.requests) for listener in self.listeners()),
            "tcp dirty": len(self.dirty),
            "tcp out of order": sum(
                connection.receive_queue.ahead
                for connection in self.connections()
                if connection.receive_queue is not None
            ),
        }
