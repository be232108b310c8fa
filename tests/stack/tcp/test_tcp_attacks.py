"""Somebody off the path who knows addresses and ports, but no numbers (RFC 5961, RFC 4987)."""

from __future__ import annotations

import errno
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from zttrio.config import Config
from zttrio.header.frame import CHECKSUM_VERIFIED
from zttrio.header.ipv4 import PROTOCOL_TCP
from zttrio.header.tcp import ACK, FIN, PSH, RST, SYN, URG, TcpHeader
from zttrio.stack.packet import Packet, PathError
from zttrio.stack.tcp.seq import MASK
from zttrio.stack.tcp.state import ESTABLISHED

from .tcp_pair import PORT, Pipe, PipeEnd, Stream, finish

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection

FLAGS = (
    *(RST, RST | ACK, SYN, SYN | ACK, SYN | RST, SYN | FIN, FIN, FIN | ACK, ACK, PSH | ACK),
    *(0, URG | ACK, FIN | RST | ACK, SYN | ACK | PSH | URG | FIN),
)
STRIKES = 20_000  # a second of virtual time, at each end
SIZES = (0, 0, 1, 100, 1448, 1460, 20_000)


class Attacker:
    """Sends to one end of a connection in the other one's name.

    It guesses, and is lucky: half of its sequence numbers are in the receiver's window.  Not that
    lucky that no TCP could resist, though: a reset never has the one exact number (RFC 5961
    section 3), and data in the window never comes with an ACK that is believable too (section 5).
    """

    def __init__(self, end: PipeEnd, connection: TcpConnection, rng: random.Random) -> None:
        self.end = end
        self.connection = connection
        self.rng = rng
        self.sent: Counter[str] = Counter()

    def strike(self, now: float) -> None:
        connection, rng = self.connection, self.rng
        flags = rng.choice(FLAGS)
        data = b"!" * rng.choice(SIZES)
        left, right = connection.rcv_nxt, connection.rcv_adv
        if is_near := rng.random() < 0.5:
            # Some of them begin before the window, and reach into it.
            seq = rng.randrange(left - len(data), right + 1)
            seq += flags & RST and seq == left
        else:
            seq = rng.getrandbits(32)
            is_near = (seq - left + 65536) & MASK < right - left + 131072
        ack = rng.getrandbits(32) if flags & ACK else 0
        if is_near:
            while self._is_believable(ack):
                ack = rng.getrandbits(32)
        elif rng.random() < 0.5:
            ack = connection.snd_nxt & MASK
        stamp = None
        if rng.random() < 0.7:
            stamp = (rng.getrandbits(32), rng.getrandbits(32))
            if rng.random() < 0.5:  # a clock that is well ahead of the peer's
                stamp = ((connection.ts_recent + rng.randrange(1 << 31)) & MASK, stamp[1])
        header = TcpHeader(
            connection.remote[1],
            connection.local[1],
            seq & MASK,
            ack,
            flags,
            rng.getrandbits(16),
            urgent=rng.getrandbits(16),
            mss=rng.choice((None, 1, 88, 1460)) if flags & SYN else None,
            timestamp=stamp,
            sack_blocks=() if rng.random() < 0.7 else ((rng.getrandbits(32), rng.getrandbits(32)),),
        )
        packet = Packet(
            connection.remote[0],
            connection.local[0],
            PROTOCOL_TCP,
            header.emit() + data,
            checksum=CHECKSUM_VERIFIED,
        )
        self.sent["near" if is_near else "far"] += 1
        self.end.tcp.receive_packet(packet, now)

    def _is_believable(self, ack: int) -> bool:
        connection = self.connection
        oldest = connection.snd_una - connection.max_snd_wnd
        return (ack - oldest) & MASK <= connection.snd_nxt - oldest

    def lie(self, now: float) -> None:
        """An ICMP error about a segment that is not in flight (RFC 5927 section 4)."""
        connection, rng = self.connection, self.rng
        seq = rng.getrandbits(32)
        while (seq - connection.snd_una) & MASK <= connection.snd_nxt - connection.snd_una:
            seq = rng.getrandbits(32)
        code, mtu = rng.choice(
            [(errno.ECONNREFUSED, 0), (errno.EPROTO, 0), (errno.EHOSTUNREACH, 0)]
            + [(errno.EMSGSIZE, size) for size in (0, 68, 576)]
        )
        quoted = (
            connection.local[1].to_bytes(2, "big")
            + connection.remote[1].to_bytes(2, "big")
            + seq.to_bytes(4, "big")
        )
        error = PathError(
            connection.local[0],
            connection.remote[0],
            PROTOCOL_TCP,
            quoted,
            code,
            is_hard=code in (errno.ECONNREFUSED, errno.EPROTO),
            mtu=mtu,
        )
        self.sent["lies"] += 1
        self.end.tcp.receive_error(error, now)


STRIPPED = {
    "all-options": (),
    "no-timestamps": ("timestamp",),
    "nothing": ("timestamp", "sack_permitted", "window_scale"),
}


@pytest.mark.parametrize("strip", STRIPPED.values(), ids=STRIPPED.keys())
@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_guesses_neither_kill_nor_corrupt_a_busy_connection(
    seed: int, strip: tuple[str, ...]
) -> None:
    pipe = Pipe(seed, delay=0.01, rate=1e6, queue=0.2, strip=strip, loss=0.001)
    client, server = pipe.connect()
    data = pipe.rng.randbytes(400_000)
    back = pipe.rng.randbytes(400_000)
    one, other = Stream(client, data, pipe.rng), Stream(server, back, pipe.rng)
    rng = random.Random(seed)
    attackers = [Attacker(pipe.a, client, rng), Attacker(pipe.b, server, rng)]

    strikes = 0

    def done() -> bool:
        nonlocal strikes
        one.act(pipe.now)
        other.act(pipe.now)
        while strikes < pipe.now * STRIKES:  # by time: answers to them must not make for more
            strikes += 1
            for attacker in attackers:
                if attacker.connection.state == ESTABLISHED:
                    attacker.strike(pipe.now)
                    if not strikes % 10:
                        attacker.lie(pipe.now)
        for attacker in attackers:
            attacker.end.tcp.end_of_burst(pipe.now)
        pipe.flush()
        return one.is_at_end and other.is_at_end

    pipe.run(done, limit=60.0)
    assert bytes(one.received) == back
    assert bytes(other.received) == data
    for attacker in attackers:
        assert attacker.sent["near"] > 1000
        assert attacker.sent["far"] > 1000
        counters = attacker.end.counters
        assert not counters.tcp_resets_in
        assert not counters.tcp_resets_out
        assert counters.tcp_challenges_limited > counters.tcp_challenges_out
        assert attacker.connection.mss >= 1448  # nobody has talked it into small segments
    client.close(pipe.now)
    server.close(pipe.now)
    finish(pipe)


@pytest.mark.parametrize("strip", STRIPPED.values(), ids=STRIPPED.keys())
def test_an_idle_connection_outlives_ten_thousand_guesses(strip: tuple[str, ...]) -> None:
    pipe = Pipe(1, strip=strip)
    client, server = pipe.connect()
    client.send(b"before", pipe.now)
    pipe.run(lambda: server.is_readable)
    assert server.receive(100, pipe.now) == b"before"
    attackers = [
        Attacker(pipe.a, client, random.Random(1)),
        Attacker(pipe.b, server, random.Random(2)),
    ]
    for number in range(10_000):
        attackers[number % 2].strike(pipe.now)
        if not number % 100:  # what the two tell each other about it must come to an end
            pipe.a.tcp.end_of_burst(pipe.now)
            pipe.b.tcp.end_of_burst(pipe.now)
            end = pipe.now + 1.0
            while (when := pipe.next_time()) is not None and when <= end:
                pipe.step()
            assert not pipe._flying
            pipe.now = end
    assert client.state == server.state == ESTABLISHED
    # An hour later the two still understand each other.
    pipe.now += 3600
    client.send(b"after", pipe.now)
    pipe.run(lambda: server.is_readable, limit=1.0)
    assert server.receive(100, pipe.now) == b"after"
    server.send(b"indeed", pipe.now)
    pipe.run(lambda: client.is_readable, limit=1.0)
    assert client.receive(100, pipe.now) == b"indeed"
    client.close(pipe.now)
    server.close(pipe.now)
    finish(pipe)


def flood(seconds: float, config: Config, *, rate: int = 5000) -> tuple[Pipe, list[float]]:
    """SYNs from everywhere at *rate* a second, while a real client calls every half second.

    Returns:
        The pipe, and how long each of the real client's calls took, echo included.
    """
    pipe = Pipe(1, config=config, delay=0.02)
    # Nobody is where the flood says that it comes from.
    pipe.drop = lambda packet: packet.destination not in (pipe.a.address, pipe.b.address)
    listener = pipe.b.tcp.listen(pipe.b.tcp.bind(None, PORT), 100, 0.0)
    rng = random.Random(1)
    took: list[float] = []
    step = 0.01
    client: TcpConnection | None = None
    has_asked = False
    server: TcpConnection | None = None
    called_at = 0.0
    ticks = round(seconds / step)
    for tick in range(ticks):
        start = tick * step
        for _ in range(round(rate * step)):
            header = TcpHeader(
                rng.randrange(1024, 65536),
                PORT,
                rng.getrandbits(32),
                0,
                SYN,
                0xFFFF,
                mss=1460,
                window_scale=7,
                sack_permitted=True,
                timestamp=(rng.getrandbits(32), 0),
            )
            source = b"\x0b" + rng.randbytes(3)
            packet = Packet(
                source, pipe.b.address, PROTOCOL_TCP, header.emit(), checksum=CHECKSUM_VERIFIED
            )
            pipe.b.tcp.receive_packet(packet, start)
        if tick % round(0.5 / step) == 0 and tick:
            assert client is None, f"the call of {called_at} is not answered at {start}"
            client = pipe.a.tcp.connect((pipe.b.address, PORT), start)
            called_at, has_asked = start, False
        pipe.now = start
        pipe.flush()
        while (when := pipe.next_time()) is not None and when <= start + step:
            pipe.step()
            while (accepted := listener.accept(pipe.now)) is not None:
                server = accepted
            if server is not None and (data := server.receive(100, pipe.now)):
                server.send(data, pipe.now)
            if client is not None and client.state == ESTABLISHED and not has_asked:
                client.send(b"echo", pipe.now)
                has_asked = True
            if has_asked and client is not None and client.receive(100, pipe.now) == b"echo":
                took.append(pipe.now - called_at)
                client.abort(pipe.now)
                assert server is not None
                server.abort(pipe.now)
                client = server = None
            pipe.flush()
    return pipe, took


def test_a_flood_of_syns_does_not_keep_a_real_client_out() -> None:
    config = Config(syn_queue=64)
    pipe, took = flood(2.0, config)
    assert len(took) == 3
    assert max(took) < 0.1  # two round trips of 40 ms: nobody has waited for a retransmission
    assert pipe.b.counters.tcp_cookies_in == 3
    assert pipe.b.counters.tcp_cookies_out > 9000
    assert pipe.b.tcp.sizes["tcp half-open"] == 64


def test_a_flood_takes_no_more_memory_however_long_it_lasts() -> None:
    def kept(seconds: float) -> tuple[int, int]:
        end = flood(seconds, Config(syn_queue=64))[0].b
        return len(end.tcp.table), len(end.timers)

    assert kept(0.5) == kept(1.5)


@pytest.mark.slow
def test_five_thousand_syns_a_second_for_ten_seconds() -> None:
    pipe, took = flood(10.0, Config())
    assert len(took) == 19
    assert max(took) < 0.1
    assert len(pipe.b.tcp.table) <= Config().syn_queue
    assert len(pipe.b.timers) <= 2 * Config().syn_queue
