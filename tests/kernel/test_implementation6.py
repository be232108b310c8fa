"""Odd IPv6 packets by thc-ipv6's implementation6, to us and to a host with the kernel's stack.

It sends 59 kinds of them, from two destination headers to routing headers in fragments, and notes
which are answered, and by what.
"""

from __future__ import annotations

import re
import shutil

import pytest
import trio

from .conftest import OURS6, Far, inside, open_tap_network

PROGRAM = "atk6-implementation6"

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.usefixtures("namespace"),
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed"),
]

THEIRS6 = "fd00:98::2"
TESTS = 59
_LINE = re.compile(r"Test +(\d+): (.*?)\t+(PASSED|FAILED) - (.*)")


async def ask(device: str, host: str) -> dict[str, str]:
    """What *host* answers, by the test's number and name: a reply, an error, or nothing."""
    done = await trio.run_process(
        inside(PROGRAM, device, host), capture_stdout=True, capture_stderr=True, check=False
    )
    said = done.stdout.decode()
    answers = {f"{n} {name}": answer for n, name, _, answer in _LINE.findall(said)}
    assert len(answers) == TESTS, said + done.stderr.decode()
    return answers


async def test_we_answer_at_least_what_the_kernel_answers(far: Far) -> None:
    answers: dict[str, dict[str, str]] = {}

    async def note(device: str, host: str) -> None:
        answers[host] = await ask(device, host)

    async with open_tap_network() as network:
        far.connect("fd00:98::1", THEIRS6)
        await trio.sleep(3)  # the far end's own link-local address is verified meanwhile
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "tap7", OURS6)
            nursery.start_soon(note, "near", THEIRS6)
        sizes = network._driver.stack.sizes
    ours, theirs = answers[OURS6], answers[THEIRS6]
    assert ours["0 normal ping6"] == theirs["0 normal ping6"] == "we got a reply"
    less = {
        name: f"the kernel: {theirs[name]}; we: {ours[name]}"
        for name in theirs
        if theirs[name] not in ("no reply", ours[name])
    }
    assert not less
    # Nor do we call wrong what the kernel passes over in silence: more replies, but no errors.
    more = {name: ours[name] for name in ours if ours[name] != theirs[name]}
    assert set(more.values()) <= {"we got a reply"}, more
    assert sizes["unfinished packets"] <= 10, sizes
