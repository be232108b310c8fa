"""``python -m benchmarks.lab``: bulk between two hosts of a `Lab` without faults, one process."""

from __future__ import annotations

import argparse
import statistics
from time import perf_counter, process_time

import trio

from zttrio.testing import Lab

from .report import machine

CHUNK = 1 << 18  # as in the other benchmarks


async def transfer(lab: Lab, octets: int) -> tuple[float, float]:
    """Wall and CPU seconds of sending *octets* through the segment."""
    async with lab.network("a") as a, lab.network("b") as b:
        [listener] = await a.open_tcp_listeners(5001, host="::")
        await b.wait_online()
        wall, cpu = perf_counter(), process_time()

        async def receive() -> None:
            async with await listener.accept() as stream:
                left = octets
                while left:
                    left -= len(await stream.receive_some(CHUNK))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            async with await b.open_tcp_stream("a", 5001) as stream:
                data = bytes(CHUNK)
                for _ in range(octets // CHUNK):
                    await stream.send_all(data)
        return perf_counter() - wall, process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=512, help="(default: %(default)s)")
    options = parser.parse_args()
    facts = machine()
    print(f"{facts['python']}, {facts['kernel']}, {facts['processor']}, load {facts['load']}")
    octets = options.megabytes << 20
    for title, max_segment in (("super-segments", 1 << 20), ("segments of 1500 octets", 0)):
        size = octets if max_segment else octets // 8
        times = []
        for _ in range(options.rounds):
            lab = Lab(1, trace=0, max_segment=max_segment)
            times.append(lab.run(transfer, lab, size))
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{title:<28}{size / wall / 1e6:>9.1f} MB/s{cpu / size * 1e9:>9.2f} CPU ms/MB")


if __name__ == "__main__":
    main()
