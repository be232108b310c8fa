"""Our TCP and the kernel's over cables that lose, reorder, duplicate, delay and corrupt."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from zttrio.wire.link import Link

from .bridge import ROOT, rate_limited
from .cable import KERNEL6, open_cable
from .conftest import KERNEL, run
from .verdict import explains, kernel_connections, kernel_counters, violations

if TYPE_CHECKING:
    from zttrio import Network

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

RATE = 4e6  # octets a second: 32 Mbit/s, which a Python bridge carries without thinking
KILO, MEGA = 1000, 1_000_000
GOOD = Link()
LONGEST = 400.0  # seconds for all long cases on a busy machine


@attrs.frozen
class Case:
    """A cable, and how much goes over it each way.

    Attributes:
        name: for pytest.
        rtt: seconds.
        size: octets.
        forth: what happens to frames from us to the kernel; its delay and rate are set here.
        back: the same for the other way.
        address: the kernel's, which decides about the family.
    """

    name: str
    rtt: float
    size: int
    forth: Link = GOOD
    back: Link = GOOD
    address: str = KERNEL

    def link(self, which: Link) -> Link:
        return rate_limited(attrs.evolve(which, delay=self.rtt / 2), RATE, self.rtt)


def lossy_cases() -> list[Case]:
    sizes = {0.001: 4 * MEGA, 0.01: 3 * MEGA, 0.05: MEGA, 0.1: 500 * KILO}
    cases = []
    for loss, size in sizes.items():
        bad = Link(loss=loss)
        cases += [
            Case(f"{loss:.1%}-forth", 0.02, size, bad, GOOD),
            Case(f"{loss:.1%}-back", 0.02, size, GOOD, bad),
            Case(f"{loss:.1%}-both-50ms", 0.05, size // 2, bad, bad),
            Case(f"{loss:.1%}-both-200ms", 0.2, size // 10, bad, bad),
        ]
    return cases


SHUFFLED = Link(reorder=0.2, reorder_delay=0.005)
DOUBLED = Link(duplicate=0.1)
UGLY = Link(loss=0.01, duplicate=0.02, reorder=0.05, jitter=0.002)
FLIPPED = Link(corrupt=0.01)
CASES = [
    *lossy_cases(),
    Case("clean", 0.02, 4 * MEGA),
    Case("reordered", 0.02, 4 * MEGA, SHUFFLED, SHUFFLED),
    Case("reordered-50ms", 0.05, 4 * MEGA, SHUFFLED, SHUFFLED),
    Case("reordered-200ms", 0.2, 2 * MEGA, SHUFFLED, SHUFFLED),
    Case("duplicated", 0.02, 4 * MEGA, DOUBLED, DOUBLED),
    Case("all-at-once", 0.03, 2 * MEGA, UGLY, UGLY),
    Case("all-at-once-ipv6", 0.03, 2 * MEGA, UGLY, UGLY, KERNEL6),
]


def long_cases() -> dict[str, Case]:
    """Twenty million octets each way; where much is lost the way is short, to be done today."""
    size = 20 * MEGA
    cases = [
        Case("50ms", 0.05, size),
        Case("200ms", 0.2, size),
        Case("reordered-50ms", 0.05, size, SHUFFLED, SHUFFLED),
    ]
    for loss in (0.001, 0.01, 0.05, 0.1):
        bad = Link(loss=loss)
        cases += [
            Case(f"{loss:.1%}-forth", 0.002, size, bad, GOOD),
            Case(f"{loss:.1%}-back", 0.002, size, GOOD, bad),
        ]
    return {case.name: case for case in cases}


async def exchange(network: Network, address: str, size: int, seed: int) -> dict[str, int]:
    """Send *size* octets each way at once, over one connection for each way.

    Returns:
        The kernel's counters when all data had arrived and both connections were still open, and
        with them our resets.  Afterwards a reordered ACK may find nobody and be reset.
    """
    ours, theirs = (random.Random(f"{seed}/{side}").randbytes(size) for side in "ab")
    received: list[bytes] = []
    server = socket.create_server((address, 5001), family=family_of(address))
    # What ours is like, whatever this machine's default is.  Needs CAP_NET_ADMIN, we are root.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")

    def send_theirs(sock: socket.socket) -> None:
        with sock:
            sock.sendall(theirs)
            assert sock.recv(1) == b"k"
            sock.shutdown(socket.SHUT_WR)
            assert not sock.recv(1)

    def receive_ours(sock: socket.socket) -> None:
        with sock:
            digest, count = hashlib.sha256(), 0
            while data := sock.recv(1 << 18):
                digest.update(data)
                count += len(data)
                if count == size:
                    sock.sendall(b"k")
            received.append(digest.digest())

    def kernel_end() -> None:
        threads = []
        for _ in range(2):
            sock, _ = server.accept()
            work = {b"s": send_theirs, b"r": receive_ours}[sock.recv(1)]
            threads.append(threading.Thread(target=work, args=(sock,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    thread = threading.Thread(target=kernel_end, daemon=True)
    thread.start()

    async def send(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.send_all(b"r" + ours)
        assert await stream.receive_some(1) == b"k"

    async def receive(stream: trio.abc.HalfCloseableStream) -> None:
        digest, count = hashlib.sha256(), 0
        await stream.send_all(b"s")
        while count < size:
            data = await stream.receive_some()
            assert data
            digest.update(data)
            count += len(data)
        assert digest.digest() == hashlib.sha256(theirs).digest()

    with server:
        async with (
            await network.open_tcp_stream(address, 5001) as up,
            await network.open_tcp_stream(address, 5001) as down,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, up)
                nursery.start_soon(receive, down)
            await settle(network, size)
            kernel = kernel_counters()
            for name in ("tcp_resets_in", "tcp_resets_out"):
                kernel[name] = network.status().counters.get(name, 0)
            await up.send_eof()
            await down.send_all(b"k")
            for stream in (up, down):
                assert not await stream.receive_some()
        await trio.to_thread.run_sync(thread.join)
    assert received == [hashlib.sha256(ours).digest()]
    return kernel


def is_settled(network: Network) -> bool:
    """True if neither end waits for an ACK."""
    return not any(c.board.pieces for c in network._driver.stack.tcp.connections()) and not any(
        {"unacked", "lost"} & theirs.keys() for theirs in kernel_connections().values()
    )


async def settle(network: Network, size: int) -> None:
    """Wait until nothing is under way, and compare what both ends say of both connections."""
    while not is_settled(network):  # noqa: ASYNC110 - the kernel tells nobody when
        await trio.sleep(0.05)
    stack = network._driver.stack
    connections = {c.local[1]: c.info() for c in stack.tcp.connections()}
    kernel = kernel_connections()
    assert connections.keys() == kernel.keys()
    for port, ours in connections.items():
        theirs = kernel[port]
        assert {"sack", "ts", "cubic"} <= theirs.keys()
        assert ours.has_sack
        assert ours.has_timestamps
        assert theirs["wscale"] == f"{ours.rcv_scale},{ours.snd_scale}"
        assert (theirs["recv_q"], theirs["send_q"]) == ("0", "0")
        # SYNs count for the kernel where they were acknowledged.
        assert ours.acknowledged - int(theirs.get("bytes_received", 0)) in (0, 1)
        assert int(theirs.get("bytes_acked", 0)) - ours.received in (0, 1)
        assert int(theirs["mss"]) == ours.mss
        assert int(theirs["pmtu"]) == ours.path_mtu == 1500
        assert sorted((ours.acknowledged, ours.received)) >= [1, size]


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def run_case(case: Case) -> dict[str, int]:
    """Both ways over the cable of *case*; the counters that `exchange` returns."""
    forth, back = case.link(case.forth), case.link(case.back)
    async with open_cable(forth, back, seed=case.name) as cable:
        kernel = await exchange(cable.network, case.address, case.size, seed=1)
        counters = cable.network.status().counters
    assert not cable.counts.refused
    for link, counts in ((forth, cable.counts.forth), (back, cable.counts.back)):
        # The cable did what this test is about.
        assert bool(link.loss) == bool(counts["lost"])
        assert bool(link.reorder) == bool(counts["reordered"])
        assert bool(link.duplicate) == bool(counts["duplicated"])
        assert bool(link.corrupt) == bool(counts["corrupted"])
    if not case.back.corrupt:
        assert "tcp_bad_checksum" not in counters
    return kernel


# After both ends have closed, what was late or doubled finds nobody.
@explains("TcpOutRsts")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_both_ways_arrive_whole_and_the_kernel_has_nothing_to_complain_of(case: Case) -> None:
    with trio.fail_after(90):
        kernel = await run_case(case)
    assert not violations(kernel)


@explains("TcpInErrs", "TcpInCsumErrors", "IpInHdrErrors", "IpInAddrErrors", "TcpOutRsts")
async def test_flipped_bits_are_lost_frames_and_nothing_else() -> None:
    with trio.fail_after(90):
        kernel = await run_case(Case("corrupted", 0.02, 2 * MEGA, FLIPPED, FLIPPED))
    assert kernel["TcpInCsumErrors"]
    found = violations(kernel)
    # Both headers have a checksum, and these count what it found.
    assert not found.keys() - {"TcpInErrs", "TcpInCsumErrors", "IpInHdrErrors", "IpInAddrErrors"}
    assert found["TcpInErrs"] == found["TcpInCsumErrors"]


def run_alone(case: Case) -> str:
    """Run *case* in a process and a network namespace of its own; what is wrong, or nothing."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-P", "-m", __name__, case.name],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    found = done.stdout.strip() if not done.returncode else done.stderr
    return "" if found == "{}" else f"{case.name}: {found}"


@pytest.mark.slow
@pytest.mark.timeout(LONGEST + 10)
def test_twenty_megabytes_each_way_arrive_whole_over_every_kind_of_bad_cable() -> None:
    # Where much is lost little is to be done, so these cases run beside all others.
    with ThreadPoolExecutor(4) as beside, ThreadPoolExecutor(1) as alone:
        found = [
            (beside if max(case.forth.loss, case.back.loss) >= 0.05 else alone).submit(
                run_alone, case
            )
            for case in long_cases().values()
        ]
    assert not list(filter(None, (future.result() for future in found)))


def main() -> None:
    """Run the long case that is named on the command line, in this network namespace."""
    run("ip", "link", "set", "lo", "up")
    kernel = trio.run(run_case, long_cases()[sys.argv[1]])
    print(json.dumps(violations(kernel)))  # noqa: T201 - that is what the other process reads


if __name__ == "__main__":
    main()
