"""Two TCP layers back to back through bad pipes: every octet arrives, in order, once."""

from __future__ import annotations

import random

import pytest

from zttrio.config import Config

from .tcp_pair import Pipe, exchange, finish


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
