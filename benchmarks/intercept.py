"""``python -m benchmarks.intercept``: what unmodified programs get through their stand-ins.

Every row is measured three times in each round, one after the other: over the kernel's loopback,
over the loopback of one tap service, and from one tap service to another over the host segment.
Ratios are medians of the rounds' quotients.  Beside iperf3 stands the *bare relay*: what a process
of trio moves from one pair of sockets to another with nothing in between.  Needs iperf3 and redis;
no root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from zttrio.intercept import preload

from .report import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

SCHEMA = 1
PATIENCE = 30.0  # s for a server to start
KERNEL, LOOPBACK, SEGMENT = "kernel loopback", "service loopback", "host segment"
CEILING = "bare relay"  # no place: see BARE_RELAY
PYTHON = sys.executable

# Run behind the preload library: prints microseconds, the p50 and p99 of each call.
CALLS = """
import json, socket, statistics, sys, time
listener = socket.create_server(('127.0.0.1', 0))
sock = socket.create_connection(listener.getsockname())
accepted, _ = listener.accept()
def make():
    socket.socket().close()
def measure(call, *arguments):
    times = []
    for _ in range(int(sys.argv[1])):
        start = time.perf_counter_ns()
        call(*arguments)
        times.append((time.perf_counter_ns() - start) / 1000)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]
measure(sock.getpeername)
print(json.dumps({
    'getpeername': measure(sock.getpeername),
    'getsockopt': measure(sock.getsockopt, socket.IPPROTO_TCP, socket.TCP_INFO, 104),
    'socket and close': measure(make),
}))
"""
# The least that a control call could cost: one SEQPACKET message there and back through trio.
BARE = """
import socket, sys, time, trio
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
import os
if not os.fork():
    ours.close()
    async def echo():
        theirs.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(theirs)
            data = theirs.recv(4096)
            if not data: return
            theirs.send(data)
    trio.run(echo)
    os._exit(0)
theirs.close()
times = []
for _ in range(int(sys.argv[1])):
    start = time.perf_counter_ns()
    ours.send(bytes(32))
    ours.recv(4096)
    times.append((time.perf_counter_ns() - start) / 1000)
times.sort()
print(times[len(times) // 2], times[len(times) * 99 // 100])
"""
# A relay in a trio process that has nothing else to do: from one pair to another.
# One program writes as iperf3 does, another reads; prints octets per second.
BARE_RELAY = """
import os, socket, sys, time, trio
CHUNK = 1 << 17
seconds = float(sys.argv[1])
from_writer, writer = socket.socketpair()
to_reader, reader = socket.socketpair()
if not os.fork():
    for end in (from_writer, to_reader, reader):
        end.close()
    data, until = bytes(CHUNK), time.monotonic() + seconds
    while time.monotonic() < until:
        writer.sendall(data)
    os._exit(0)
writer.close()
if not os.fork():
    for end in (from_writer, to_reader):
        end.close()
    room, total, start = bytearray(CHUNK), 0, time.monotonic()
    while size := reader.recv_into(room):
        total += size
    print(total / (time.monotonic() - start), flush=True)
    os._exit(0)
reader.close()
async def relay():
    from_writer.setblocking(False)
    to_reader.setblocking(False)
    while True:
        try:
            data = memoryview(from_writer.recv(2 * CHUNK))
        except BlockingIOError:
            await trio.lowlevel.wait_readable(from_writer)
            continue
        if not data:
            return
        while data:
            try:
                data = data[to_reader.send(data):]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(to_reader)
trio.run(relay)
to_reader.close()
os.wait()
os.wait()
"""
SERVE = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=256)
while True:
    sock, _ = listener.accept()
    sock.sendall(sock.recv(1))
    sock.close()
"""
# Connections one after the other: connect, one octet each way, close.
CALL = """
import socket, sys, time
address = sys.argv[1], int(sys.argv[2])
end = time.monotonic() + float(sys.argv[3])
count, start = 0, time.monotonic()
while time.monotonic() < end:
    with socket.create_connection(address) as sock:
        sock.sendall(b'x')
        sock.recv(1)
    count += 1
print(count / (time.monotonic() - start))
"""


class FailedError(Exception):
    """A program did not do what it should."""


@attrs.frozen
class Place:
    """Where a server and a client run.

    Attributes:
        name: one of the three.
        address: the server's.
        server: environment of the server.
        client: environment of the client.
    """

    name: str
    address: str
    server: dict[str, str]
    client: dict[str, str]


@attrs.frozen
class Row:
    """Something to measure at every place; more is better."""

    key: str
    unit: str
    measure: Callable[[Place, float], float]


def call(
    command: Sequence[str],
    env: dict[str, str],
    *,
    timeout: float = 60,
    ok: Collection[int] = (0,),
) -> str:
    """The output of a program that must end with one of the exit codes *ok*."""
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode not in ok:
        raise FailedError(f"{command[0]}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def running(command: Sequence[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program in the background."""
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_listening(place: Place, port: int) -> None:
    """Return when the server of *place* accepts connections."""
    probe = f"import socket; socket.create_connection(({place.address!r}, {port})).close()"
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            call([PYTHON, "-c", probe], place.client)
        except FailedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def bulk(place: Place, seconds: float) -> float:
    """Octets per second that iperf3's receiver has got."""
    port = str(free_port())
    command = ["iperf3", "-c", place.address, "-p", port, "-t", f"{max(seconds, 1):.0f}", "-J"]
    deadline = time.monotonic() + PATIENCE
    with running(["iperf3", "-s", "-p", port], place.server):
        while True:  # a probe would count as a test, and the server takes one at a time
            report = json.loads(call(command, place.client, ok=(0, 1)))
            if "sum_received" in report["end"]:
                return float(report["end"]["sum_received"]["bits_per_second"]) / 8
            if time.monotonic() > deadline:
                raise FailedError(f"iperf3, {place.name}: {report.get('error', 'no result')}")
            time.sleep(0.05)


def connections(place: Place, seconds: float) -> float:
    """Connections per second, one after the other."""
    port = str(free_port())
    with running([PYTHON, "-c", SERVE, place.address, port], place.server):
        wait_listening(place, int(port))
        return float(call([PYTHON, "-c", CALL, place.address, port, str(seconds)], place.client))


def redis(place: Place, seconds: float) -> float:
    """GETs per second of redis-benchmark with 50 clients."""
    port = str(free_port())
    server = ["redis-server", "--port", port, "--bind", place.address, "--save", ""]
    with running([*server, "--protected-mode", "no"], place.server):
        wait_listening(place, int(port))
        count = str(max(500, int(10_000 * seconds)))
        text = call(
            ["redis-benchmark", "-h", place.address, "-p", port, "-c", "50", "-n", count,
             "-t", "get", "--csv"], place.client, timeout=120,
        )  # fmt: skip
    last = text.strip().splitlines()[-1].replace('"', "").split(",")
    return float(last[1])


ROWS = (
    Row("iperf3", "MB/s", bulk),
    Row("connections", "1/s", connections),
    Row("redis, 50 clients", "GET/s", redis),
)
SCALES = {"MB/s": 1e6}


@contextlib.contextmanager
def open_places(folder: Path) -> Iterator[list[Place]]:
    """The three places; two tap services run meanwhile."""
    base = dict(os.environ, XDG_RUNTIME_DIR=str(folder))
    addresses = ("10.7.0.1", "10.7.0.2")
    envs = []
    with contextlib.ExitStack() as stack:
        for number, address in enumerate(addresses):
            service = stack.enter_context(
                running(
                    [PYTHON, "-m", "zttrio", "service", "--network", f"bench{number}",
                     "--address", f"{address}/24"], base,
                )
            )  # fmt: skip
            assert service.stdout is not None
            name, _, value = service.stdout.readline().strip().partition("=")
            if name != "ZTTRIO_NET":
                raise FailedError("zttrio service did not start")
            envs.append(preload.environment(value, base))
        yield [
            Place(KERNEL, "127.0.0.1", base, base),
            Place(LOOPBACK, "127.0.0.1", envs[0], envs[0]),
            Place(SEGMENT, addresses[0], envs[0], envs[1]),
        ]


Samples = dict[str, dict[str, list[float]]]  # by row and place, one for each round


def measure_rows(rows: Sequence[Row], places: Sequence[Place], options: Any) -> Samples:
    samples: Samples = {row.key: {place.name: [] for place in places} for row in rows}
    for _ in range(options.rounds):
        for row in rows:
            for place in places:
                samples[row.key][place.name].append(row.measure(place, options.seconds))
            if row.measure is bulk:
                text = call([PYTHON, "-c", BARE_RELAY, str(options.seconds)], dict(os.environ))
                samples[row.key].setdefault(CEILING, []).append(float(text))
    return samples


Calls = dict[str, list[tuple[float, float]]]  # p50 and p99 in us, one for each round


def measure_calls(place: Place, rounds: int, count: int) -> Calls:
    found: Calls = {}
    for _ in range(rounds):
        p50, p99 = call([PYTHON, "-c", BARE, str(count)], dict(os.environ)).split()
        found.setdefault("bare round trip", []).append((float(p50), float(p99)))
        text = call([PYTHON, "-c", CALLS, str(count)], place.client)
        for name, (fast, slow) in json.loads(text).items():
            found.setdefault(name, []).append((fast, slow))
    return found


def ratio(samples: dict[str, list[float]], place: str) -> float:
    """The median of the quotients with the kernel, round by round."""
    pairs = zip(samples[place], samples[KERNEL], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def table(samples: Samples, calls: Calls, rounds: int) -> str:
    """The report as text."""
    places = (KERNEL, LOOPBACK, SEGMENT)
    lines = [
        f"medians of {rounds} interleaved rounds",
        "",
        f"{'':<26}" + "".join(f"{place:>18}" for place in places) + f"{'ratios':>14}",
    ]
    units = {row.key: row.unit for row in ROWS}
    for key, found in samples.items():
        unit = units[key]
        values = [statistics.median(found[place]) / SCALES.get(unit, 1) for place in places]
        quotients = " ".join(f"{ratio(found, place):6.2f}" for place in places[1:])
        cells = "".join(f"{value:>18,.0f}" for value in values)
        lines.append(f"{key + ' (' + unit + ')':<26}{cells} {quotients}")
        if CEILING in found:
            most = statistics.median(found[CEILING]) / SCALES.get(unit, 1)
            lines.append(
                f"{f'{CEILING} ({unit})':<26}{'':>18}{most:>18,.0f}{'':>18} "
                f"{ratio(found, CEILING):6.2f}"
            )
    lines += ["", f"{'control calls, us':<26}{'p50':>9}{'p99':>9}"]
    for name, rows in calls.items():
        p50, p99 = (statistics.median(row[index] for row in rows) for index in (0, 1))
        lines.append(f"{name:<26}{p50:>9.1f}{p99:>9.1f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intercept", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--row", action="append", help="only these rows; may be repeated")
    options = parser.parse_args()
    calls_count = 2000
    if options.quick:
        options.rounds, options.seconds, calls_count = 1, 0.2, 200
    missing = [name for name in ("iperf3", "redis-server") if shutil.which(name) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    rows = [row for row in ROWS if row.key in (options.row or [row.key])]
    facts = machine()
    with (
        tempfile.TemporaryDirectory(prefix="zttrio-bench-") as folder,
        open_places(Path(folder)) as places,
    ):
        calls = measure_calls(places[1], options.rounds, calls_count)
        samples = measure_rows(rows, places, options)
    print(f"zttrio {facts['zttrio']}, {facts['python']}, {facts['kernel']}, load {facts['load']}")
    print(table(samples, calls, options.rounds))
    if options.json:
        document = {
            "schema": SCHEMA,
            "machine": facts,
            "units": {row.key: "octets/s" if row.unit == "MB/s" else row.unit for row in rows},
            "samples": samples,
            "ratios": {
                key: {place: ratio(found, place) for place in found if place != KERNEL}
                for key, found in samples.items()
            },
            "control calls": calls,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
