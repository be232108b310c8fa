"""Whatever arrives: no exception leaves the stack, memory stays bounded, counters say why.

More than 10,000 frames go through whole stacks in each run.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.header.frame import Frame

from .seeds import random_frame
from .victim import Victim

CORPUS = Path(__file__).parent / "corpus"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_damaged_frames_do_no_harm(seed: int) -> None:
    rng = random.Random(seed)
    victim = Victim()
    for _ in range(10):
        victim.put([random_frame(rng, victim.sent) for _ in range(rng.choice((1, 5, 30, 100)))])
        victim.wait(rng.choice((0.0, 0.001, 0.3, 5.0, 100.0)))
    victim.wait(1000.0)
    assert victim.stack.sizes["octets of unfinished packets"] == 0
    assert victim.stack.sizes["octets that wait for neighbors"] == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=20), st.binary(min_size=14, max_size=14))
def test_noise_does_no_harm(bodies: list[bytes], header: bytes) -> None:
    victim = Victim()
    victim.put([Frame(header + body) for body in bodies])
    victim.put([Frame(body) for body in bodies])
    victim.put([Frame(header, body) for body in bodies])
    victim.wait(100.0)


def entries() -> list[tuple[str, str, bytes]]:
    """What the corpus says: a title, the counter that has to move, and frames to try it with."""
    found = []
    for path in sorted(CORPUS.glob("*.txt")):
        title = ""
        for line in path.read_text().splitlines():
            if line.startswith("#"):
                title = line[1:].strip()
            elif line.strip():
                reason, octets = line.split()
                found.append((f"{path.stem}: {title}", reason, bytes.fromhex(octets)))
    return found


ENTRIES = entries()


@pytest.mark.parametrize(("title", "reason", "octets"), ENTRIES, ids=[row[0] for row in ENTRIES])
def test_a_nasty_frame_is_counted_for_what_it_is(title: str, reason: str, octets: bytes) -> None:
    del title
    victim = Victim()
    before = victim.stack.counters.as_dict()[reason]
    victim.put([Frame(octets)])
    victim.wait(0.0)
    assert victim.stack.counters.as_dict()[reason] > before
    victim.wait(1000.0)


def test_all_nasty_frames_together_do_no_harm() -> None:
    assert len(ENTRIES) > 50
    victim = Victim()
    for cut in (0, 14, 34, 54):
        victim.put(
            [
                Frame(octets[:cut], octets[cut:]) if 14 <= cut <= len(octets) else Frame(octets)
                for _, _, octets in ENTRIES
            ]
        )
        victim.wait(1.0)
    victim.wait(1000.0)
