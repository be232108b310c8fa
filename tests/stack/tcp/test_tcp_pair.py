"""Two TCP layers back to back through bad pipes: every octet arrives, in order, once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from zttrio.config import Config
from zttrio.header.tcp import ACK
from zttrio.stack.tcp.connection import TcpConnection

from .tcp_pair import Pipe, PipeEnd, exchange, finish

if TYPE_CHECKING:
    from zttrio.stack.packet import Packet
    from zttrio.stack.tcp.sendqueue import SendQueue


def _data(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("seed", range(40))
def test_every_octet_arrives_over_a_pipe_with_random_faults(seed: int) -> None:
    rng = random.Random(seed)
    pipe = Pipe(
        seed,
        loss=rng.choice((0.0, 0.01, 0.05, 0.15)),
        duplicate=rng.choice((0.0, 0.02, 0.2)),
        reorder=rng.choice((0.0, 0.05, 0.3)),
        delay=rng.choice((0.0001, 0.01, 0.1)),
        jitter=rng.choice((0.0, 0.005)),
        mtu=rng.choice((576, 1500, 9000)),
        max_segment=rng.choice((0, 0, 61440)),
        config=Config(
            congestion=rng.choice(("newreno", "cubic")),
            ecn=rng.choice(("off", "accept", "request")),
            receive_buffer=rng.choice((5000, 65536, 1 << 20)),
            send_buffer=rng.choice((3000, 65536, 1 << 20)),
        ),
        mark=rng.choice((0.0, 0.05)),
        hole=rng.choice((1 << 16, 1 << 16, 1 << 16, 1400, 1000)),
        strip=tuple(
            name
            for name in ("sack_permitted", "timestamp", "window_scale", "mss")
            if rng.random() < 0.25
        ),
    )
    exchange(
        pipe,
        _data(seed, rng.randint(0, 200_000)),
        _data(seed + 1, rng.randint(0, 200_000)),
        chunk=rng.choice((10, 5000, 65536)) if seed % 3 else 1000,
        lazy=rng.choice((0.0, 0.5, 0.9)),
    )
    finish(pipe)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shortcut", ["receive_predicted", "emit_run"])
def test_a_shortcut_changes_nothing_but_speed(
    seed: int, shortcut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> list[tuple[float, bytes, bytes]]:
        pipe = Pipe(
            seed,
            loss=0.03 * (seed % 2),
            reorder=0.1 * (seed % 3),
            delay=0.01,
            mtu=1500,
            max_segment=(seed // 3) * 20_000,
            strip=("timestamp",) if seed == 4 else (),
        )
        seen: list[tuple[float, bytes, bytes]] = []
        carry = pipe.carry

        def record(to: PipeEnd, packet: Packet, now: float) -> None:
            seen.append((now, bytes(packet.transport), bytes(packet.payload)))
            carry(to, packet, now)

        monkeypatch.setattr(pipe, "carry", record)
        exchange(pipe, _data(1, 150_000), _data(2, 50_000))
        return seen

    fast = run()

    def refuse(*args: object) -> bool:
        return False

    def one_by_one(
        self: TcpConnection,
        queue: SendQueue,
        seq: int,
        size: int,
        flags: int,
        now: float,
        ecn: int,
    ) -> None:
        while size:
            part = min(self.segment_limit, size)
            size -= part
            gso_size = self.mss if part > self.mss else 0
            self.emit(seq, flags if not size else ACK, queue.cut(seq, part), now, gso_size, ecn)
            seq += part

    slow = refuse if shortcut == "receive_predicted" else one_by_one
    monkeypatch.setattr(TcpConnection, shortcut, slow)
    assert run() == fast


@pytest.mark.parametrize("strip", [(), ("timestamp",), ("sack_permitted",)], ids=str)
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.1])
def test_on_a_path_that_keeps_order_no_loss_is_taken_back(
    strip: tuple[str, ...], loss: float
) -> None:
    # A slow cable with a queue that slow start overflows: every repair was needed, also what one
    # recovery has sent again and another finds under way.
    pipe = Pipe(1, loss=loss, delay=0.025, strip=strip, queue=0.08)
    client, server = pipe.connect()
    pipe.rate = 1.25e6
    data = _data(1, round(3e6 / (1 + 100 * loss)))
    sent = 0
    received = bytearray()

    def done() -> bool:
        nonlocal sent
        while sent < len(data) and (taken := client.send(data[sent : sent + 65536], pipe.now)):
            sent += taken
        while piece := server.receive(1 << 20, pipe.now):
            received.extend(piece)
        pipe.flush()
        return len(received) == len(data)

    pipe.run(done, limit=100.0)
    assert received == data
    counters = pipe.a.counters
    assert counters.tcp_retransmits > 10
    assert counters.tcp_undone == 0
    # What is sent again and was not lost: next to nothing.
    assert counters.tcp_needless <= counters.tcp_retransmits / 20
