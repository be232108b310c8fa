"""Two TCP layers back to back, through a pipe that loses, duplicates, reorders and delays."""

from __future__ import annotations

import heapq
import random
from itertools import count
from typing import TYPE_CHECKING

from zttrio.config import Config
from zttrio.header.address import packed
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_VERIFIED
from zttrio.header.tcp import SYN, TcpHeader
from zttrio.stack.counters import Counters
from zttrio.stack.events import EventQueue
from zttrio.stack.packet import Packet
from zttrio.stack.ports import Ports
from zttrio.stack.tcp.layer import TcpLayer
from zttrio.stack.timers import TimerQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import Transport
    from zttrio.stack.tcp.connection import TcpConnection
    from zttrio.stack.tcp.listen import TcpListener

PORT = 80


class PipeEnd:
    """One host: a TCP layer whose packets go to the other end of the pipe."""

    def __init__(
        self, pipe: Pipe, address: bytes, config: Config, mtu: int, max_segment: int
    ) -> None:
        self.address = address
        self.mtu = mtu
        self.segment = max_segment
        self.needs = not max_segment
        self.pipe = pipe
        self.peer: PipeEnd
        self.counters = Counters()
        self.timers = TimerQueue()
        self.events = EventQueue()
        rng = random.Random(address)
        self.tcp = TcpLayer(
            self,
            Ports(rng, config.ephemeral_ports),
            self.timers,
            self.events,
            self.counters,
            config,
            rng,
        )

    def send(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        header: Buffer,
        payload: Buffer,
        now: float,
        *,
        checksum: int = CHECKSUM_COMPLETE,
        gso_size: int = 0,
        hop_limit: int = 0,
        traffic_class: int = 0,
        dont_fragment: bool = True,
    ) -> None:
        assert not isinstance(payload, bytearray)
        assert len(header) + len(payload) <= max(self.mtu - 20, self.segment + 60)
        self.pipe.carry(
            self.peer,
            Packet(
                source,
                destination,
                protocol,
                header,
                payload,
                traffic_class=traffic_class,
                checksum=checksum,
                gso_size=gso_size,
            ),
            now,
        )

    def send_run(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        segments: list[tuple[bytes, Buffer]],
        now: float,
        *,
        checksum: int,
        gso_size: int,
        hop_limit: int,
        traffic_class: int,
    ) -> None:
        for header, payload in segments:
            self.send(
                source,
                destination,
                protocol,
                header,
                payload,
                now,
                checksum=checksum,
                gso_size=gso_size if len(payload) > gso_size else 0,
                hop_limit=hop_limit,
                traffic_class=traffic_class,
            )

    def select_source(self, destination: bytes) -> bytes:
        return self.address

    def segment_mtu(self, destination: bytes) -> int:
        return self.mtu

    def is_local(self, address: bytes) -> bool:
        return address == self.address

    def may_bind(self, address: bytes) -> bool:
        return address == self.address

    def needs_checksum(self, destination: bytes) -> bool:
        return self.needs

    def max_segment(self, destination: bytes) -> int:
        return self.segment

    def register(self, protocol: int, transport: Transport, families: tuple[int, ...]) -> None:
        pass

    def lower_path_mtu(self, destination: bytes, mtu: int, now: float) -> None:
        self.mtu = mtu

    def waiting(self, destination: bytes) -> int:
        return 0

    def confirm(self, destination: bytes, now: float) -> None:
        pass


class Pipe:
    """Time, and what happens to packets between two ends."""

    def __init__(
        self,
        seed: int,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        delay: float = 0.01,
        jitter: float = 0.0,
        rate: float = 0.0,
        queue: float = 0.1,
        config: Config | None = None,
        mtu: int = 1500,
        max_segment: int = 0,
        strip: tuple[str, ...] = (),
        mark: float = 0.0,
        hole: int = 1 << 16,
    ) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.delay = delay
        self.jitter = jitter
        self.rate = rate
        self.queue = queue
        self.strip = strip
        self.mark = mark
        self.hole = hole
        self.dropped = 0
        self.drop: Callable[[Packet], bool] | None = None
        config = Config() if config is None else config
        self.a = PipeEnd(self, packed("10.0.0.1"), config, mtu, max_segment)
        self.b = PipeEnd(self, packed("10.0.0.2"), config, mtu, max_segment)
        self.a.peer, self.b.peer = self.b, self.a
        self._order = count()
        self._flying: list[tuple[float, int, PipeEnd, Packet]] = []
        self._free_at = {id(self.a): 0.0, id(self.b): 0.0}

    def carry(self, to: PipeEnd, packet: Packet, now: float) -> None:
        rng = self.rng
        if self.strip and packet.transport[13] & SYN:
            # A middlebox that takes options out of SYNs.
            header = TcpHeader.parse(packet.transport)
            for name in self.strip:
                setattr(header, name, False if name == "sack_permitted" else None)
            packet.transport = header.emit()
            packet.checksum = CHECKSUM_VERIFIED
        if packet.traffic_class & 3 == 2 and rng.random() < self.mark:
            packet.traffic_class |= 3
        wire_size = packet.gso_size or len(packet.payload)
        if wire_size > self.hole:  # nobody says why
            self.dropped += 1
            return
        if (self.drop is not None and self.drop(packet)) or rng.random() < self.loss:
            self.dropped += 1
            return
        start = now
        if self.rate:
            start = max(now, self._free_at[id(to)])
            if start - now > self.queue:
                self.dropped += 1
                return
            start += (len(packet.transport) + len(packet.payload) + 20) / self.rate
            self._free_at[id(to)] = start
        for _ in range(1 + (rng.random() < self.duplicate)):
            arrival = start + self.delay + rng.random() * self.jitter
            if rng.random() < self.reorder:
                arrival += self.delay * rng.random()
            heapq.heappush(self._flying, (arrival, next(self._order), to, packet))

    def flush(self) -> None:
        for end in (self.a, self.b):
            while end.tcp.pump(self.now, 16):
                pass

    def next_time(self) -> float | None:
        times = [self._flying[0][0]] if self._flying else []
        for end in (self.a, self.b):
            due = end.timers.next_timer()
            times += [] if due is None else [due]
        return min(times, default=None)

    def step(self) -> bool:
        """Let the next thing happen; False if nothing ever will."""
        self.flush()
        when = self.next_time()
        if when is None:
            return False
        self.now = max(self.now, when)
        got = set()
        while self._flying and self._flying[0][0] <= self.now:
            _, _, end, packet = heapq.heappop(self._flying)
            end.tcp.receive_packet(packet, self.now)
            got.add(end)
        for end in (self.a, self.b):
            if end in got:
                end.tcp.end_of_burst(self.now)
            end.timers.handle_timers(self.now)
        self.flush()
        return True

    def run(self, until: Callable[[], bool], limit: float = 3600.0) -> None:
        """Run until *until* says so; *limit* is virtual seconds from now."""
        end = self.now + limit
        while not until():
            if not self.step():
                self.now += 1.0  # only a program that was lazy can go on now
            assert self.now < end, f"not done after {limit} virtual seconds"

    def connect(self) -> tuple[TcpConnection, TcpConnection]:
        listener: TcpListener = self.b.tcp.listen(self.b.tcp.bind(None, PORT), 100, self.now)
        client = self.a.tcp.connect((self.b.address, PORT), self.now)
        self.run(lambda: listener.is_readable)
        server = listener.accept(self.now)
        assert server is not None
        return client, server


class Stream:
    """A program at one end of a connection: it writes *data* and reads until the end."""

    def __init__(
        self,
        connection: TcpConnection,
        data: bytes,
        rng: random.Random,
        *,
        chunk: int = 65536,
        lazy: float = 0.0,
    ) -> None:
        self.connection = connection
        self.unsent = memoryview(data)
        self.received = bytearray()
        self.is_at_end = False
        self.rng = rng
        self.chunk = chunk
        self.lazy = lazy
        self.has_shut_down = False

    def act(self, now: float) -> None:
        """Write and read what is possible."""
        connection = self.connection
        while self.unsent:
            taken = connection.send(bytes(self.unsent[: self.rng.randint(1, self.chunk)]), now)
            if not taken:
                break
            self.unsent = self.unsent[taken:]
        if not self.unsent and not self.has_shut_down:
            connection.shutdown_write(now)
            self.has_shut_down = True
        if self.rng.random() < self.lazy:
            return
        while not self.is_at_end:
            data = connection.receive(self.rng.randint(1, 100_000), now)
            if data is None:
                break
            if data == b"":
                self.is_at_end = True
            self.received += data


def exchange(
    pipe: Pipe, forth: bytes, back: bytes, *, chunk: int = 65536, lazy: float = 0.0
) -> None:
    """Send *forth* and *back* at once over one connection, half-closing each way when done."""
    client, server = pipe.connect()
    one = Stream(client, forth, pipe.rng, chunk=chunk, lazy=lazy)
    other = Stream(server, back, pipe.rng, chunk=chunk, lazy=lazy)

    def done() -> bool:
        one.act(pipe.now)
        other.act(pipe.now)
        pipe.flush()
        return one.is_at_end and other.is_at_end

    pipe.run(done)
    assert bytes(one.received) == back
    assert bytes(other.received) == forth
    client.close(pipe.now)
    server.close(pipe.now)


def finish(pipe: Pipe) -> None:
    """Run until nothing is left of any connection."""
    pipe.run(lambda: not pipe.a.tcp.table and not pipe.b.tcp.table, limit=1000.0)
    for end in (pipe.a, pipe.b):
        assert not any(size for name, size in end.tcp.sizes.items() if name != "tcp dirty"), (
            end.tcp.sizes
        )
