"""The service outlives its programs, and programs outlive the service."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.tap import rpc

from .hosts import until

if TYPE_CHECKING:
    from pathlib import Path

    from .hosts import Host, Segment

pytestmark = pytest.mark.kernel

PYTHON = sys.executable

ECHO = """
import socket, threading
def serve(sock):
    with sock:
        while data := sock.recv(65536):
            sock.sendall(data)
listener = socket.create_server(('', 7200), backlog=256)
while True:
    sock, _ = listener.accept()
    threading.Thread(target=serve, args=(sock,), daemon=True).start()
"""
CALL = """
import socket
with socket.create_connection(('10.7.0.1', 7200)) as sock:
    sock.sendall(b'hello')
    print(sock.recv(100).decode())
"""
LONG_CALL = """
import socket
with socket.create_connection(('10.7.0.1', 7200)) as sock:
    for _ in range(20):
        sock.sendall(bytes(65536))
        left = 65536
        while left: left -= len(sock.recv(left))
"""


def count(host: Host) -> tuple[int, int, int]:
    """Descriptors, tasks and stand-ins: what must return to where it was."""
    return (
        len(os.listdir("/proc/self/fd")),
        trio.lowlevel.current_statistics().tasks_living,
        len(host.tap.broker.connections),
    )


async def read_line(process: trio.Process) -> str:
    """What the program says first."""
    assert process.stdout is not None
    data = b""
    with trio.fail_after(30):
        while not data.endswith(b"\n"):
            piece = await process.stdout.receive_some()
            assert piece, data
            data += piece
    return data.decode().strip()


async def wait_count(host: Host, wanted: tuple[int, int, int]) -> None:
    await until(lambda: count(host) == wanted)


async def test_a_program_killed_at_any_point_leaves_nothing_behind(host: Host) -> None:
    program = """
import socket, sys, time
stage = int(sys.argv[1])
listener = socket.create_server(('', 0))
sock = socket.socket()
if stage >= 1: sock.connect(listener.getsockname())
if stage >= 2: sock.send(b'x' * 100_000)
if stage >= 3: accepted, _ = listener.accept()
if stage >= 4: accepted.recv(1000)
if stage >= 5:
    sock.setblocking(False)
    try:
        while True: sock.send(b'x' * 100_000)
    except BlockingIOError: pass
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.bind(('', 0))
for _ in range(300): datagram.sendto(b'x' * 1000, datagram.getsockname())
print('ready', flush=True)
time.sleep(60)
"""
    await host.run(PYTHON, "-c", "pass")
    before = count(host)
    for stage in range(6):
        process = await trio.lowlevel.open_process(
            host.command([PYTHON, "-c", program, str(stage)]), stdout=subprocess.PIPE
        )
        assert await read_line(process) == "ready"
        assert process.stdout is not None
        assert len(host.tap.broker.connections) >= 3
        process.kill()
        await process.wait()
        await process.stdout.aclose()
        await wait_count(host, before)


async def test_a_program_killed_whenever_leaves_nothing_behind(host: Host) -> None:
    program = """
import os, socket, threading
def work():
    while True:
        listener = socket.create_server(('', 0))
        caller = socket.socket()
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller.connect(listener.getsockname())
        accepted, _ = listener.accept()
        caller.sendall(bytes(50_000))
        accepted.recv(20_000)
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.sendto(bytes(1000), listener.getsockname())
        socket.getaddrinfo('localhost', 80)
        for sock in (listener, caller, accepted, datagram): sock.close()
os.fork()
for _ in range(3): threading.Thread(target=work).start()
"""
    await host.run(PYTHON, "-c", "pass")
    before = count(host)
    chance = random.Random(6)
    counters = host.tap.broker.counters
    for _ in range(10):
        process = await trio.lowlevel.open_process(
            ["setsid", *host.command([PYTHON, "-c", program])]
        )
        start = counters.accepted
        await until(lambda: counters.accepted >= start + 20)  # noqa: B023 - called at once
        await trio.sleep(chance.uniform(0, 0.02))
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await wait_count(host, before)
    assert not list(host.network._driver.stack.tcp.listeners())


async def test_the_peer_of_a_killed_program_learns_of_it(segment: Segment) -> None:
    server, client = await segment.host(), await segment.host()
    await server.start(PYTHON, "-c", ECHO, port=7200)
    caller = await client.start(
        PYTHON,
        "-c",
        "import socket\n"
        "sock = socket.create_connection(('10.7.0.1', 7200))\n"
        "sock.sendall(b'x')\n"
        "sock.recv(1)\n"
        "print('up', flush=True)\n"
        "try: print('end', sock.recv(1))\n"
        "except OSError as exc: print('end', exc)\n",
    )
    await until(lambda: "up" in caller.output())
    with trio.fail_after(20):
        server.programs[0].process.kill()
        await caller.process.wait()
    assert "end" in caller.output()


async def test_ten_threads_make_a_hundred_connections_each(segment: Segment) -> None:
    server, client = await segment.host(), await segment.host()
    await server.start(PYTHON, "-c", ECHO, port=7200)
    program = """
import socket, threading
failures = []
def call(number):
    for turn in range(100):
        try:
            with socket.create_connection(('10.7.0.1', 7200)) as sock:
                text = b'%d-%d' % (number, turn)
                sock.sendall(text)
                got = sock.recv(100)
                if got != text: failures.append((text, got))
        except OSError as exc:
            failures.append(exc)
threads = [threading.Thread(target=call, args=(number,)) for number in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(failures[:5])
"""
    await client.run(PYTHON, "-c", CALL)
    before = count(client)
    assert (await client.run(PYTHON, "-c", program, within=60)).strip() == "[]"
    await wait_count(client, before)


async def test_ten_thousand_sockets_leave_nothing_behind(host: Host) -> None:
    program = """
import os, socket
before = len(os.listdir('/proc/self/fd'))
for number in range(10_000):
    with socket.socket(socket.AF_INET, (socket.SOCK_STREAM, socket.SOCK_DGRAM)[number & 1]) as sock:
        if number % 10 == 0: sock.bind(('127.0.0.1', 0))
print(len(os.listdir('/proc/self/fd')) - before)
"""
    await host.run(PYTHON, "-c", "pass")
    before = count(host)
    # One more afterwards: the control channel of the only thread.
    assert (await host.run(PYTHON, "-c", program, within=60)).strip() == "1"
    await wait_count(host, before)


def open_channel(host: Host) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(host.tap.address)
    return sock


GARBAGE = [
    b"",
    b"\0",
    b"zerotier\0" + bytes(503),
    os.urandom(32),
    os.urandom(5000),
    rpc.Request(rpc.OP_SOCKET).emit(),
    rpc.Request(rpc.OP_HELLO).emit(),
    rpc.Request(rpc.OP_GETSOCKOPT, payload=b"x").emit(),
    rpc.Request(rpc.OP_QUERY, payload=b"123").emit(),
    rpc.Request(rpc.OP_RESOLVE, payload=b"no end").emit(),
    rpc.Request(rpc.OP_NAMEINFO, payload=b"short").emit(),
    rpc.Answer(rpc.OP_BIND, 1).emit(),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_closes_its_own_channel_and_no_other(host: Host, garbage: bytes) -> None:
    before = count(host)
    good, bad = open_channel(host), open_channel(host)
    with good, bad:
        good.setblocking(False)
        bad.setblocking(False)
        bad.send(garbage)
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(bad)
            assert bad.recv(100) == b""
            good.send(rpc.Request(rpc.OP_IFADDRS, seq=3).emit())
            await trio.lowlevel.wait_readable(good)
        assert rpc.Answer.parse(good.recv(70_000)).seq == 3
    await wait_count(host, before)


async def test_another_version_is_told_ours(host: Host) -> None:
    with open_channel(host) as sock:
        sock.setblocking(False)
        message = bytearray(rpc.Request(rpc.OP_HELLO, seq=5).emit())
        message[4] = 2
        sock.send(message)
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(sock)
            answer = rpc.Answer.parse(sock.recv(100))
            assert (answer.seq, answer.ret, answer.err) == (5, -1, 71)  # EPROTO
            await trio.lowlevel.wait_readable(sock)
            assert sock.recv(100) == b""


async def test_an_unknown_operation_is_answered_and_forgiven(host: Host) -> None:
    with open_channel(host) as sock:
        sock.setblocking(False)
        for seq, op in enumerate((99, rpc.OP_IFADDRS)):
            sock.send(rpc.Request(op, seq=seq).emit())
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(sock)
            answer = rpc.Answer.parse(sock.recv(70_000))
            assert (answer.seq, answer.err) == (seq, 38 if op == 99 else 0)  # ENOSYS


async def test_a_flood_of_requests_does_not_starve_others(segment: Segment) -> None:
    server, client = await segment.host(), await segment.host()
    await server.start(PYTHON, "-c", ECHO, port=7200)
    program = """
import socket
sock = socket.socket()
while True: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
"""
    await client.run(PYTHON, "-c", CALL)
    before = count(client)
    floods = [await client.start(PYTHON, "-c", program) for _ in range(2)]
    await until(lambda: client.tap.broker.counters.requests > 5000)
    assert (await client.run(PYTHON, "-c", CALL)).strip() == "hello"
    for flood in floods:
        await flood.stop(signal.SIGKILL)
    await wait_count(client, before)


async def test_a_program_that_reads_no_answers_harms_only_itself(host: Host) -> None:
    await host.run("getent", "hosts", "localhost")
    before = count(host)
    with open_channel(host) as sock:
        sock.setblocking(False)
        request = rpc.Request(rpc.OP_IFADDRS).emit()
        sent = 0
        with trio.move_on_after(1):
            while True:  # noqa: ASYNC913 - it ends when it has to wait
                try:
                    sock.send(request)
                    sent += 1
                except BlockingIOError:
                    await trio.sleep(0.01)
        assert sent > 100
        assert (await host.run("getent", "hosts", "localhost")).strip()
        assert len(host.tap.broker.connections) == 0
    await wait_count(host, before)


async def test_a_program_that_never_reads_is_not_the_others_problem(segment: Segment) -> None:
    server, client = await segment.host(), await segment.host()
    await server.start(PYTHON, "-c", ECHO, port=7200)
    program = """
import socket, time
socks = [socket.create_connection(('10.7.0.1', 7200)) for _ in range(5)]
for sock in socks:
    sock.setblocking(False)
    try:
        while True: sock.send(b'x' * 65536)
    except BlockingIOError: pass
print('full', flush=True)
time.sleep(60)
"""
    await client.run(PYTHON, "-c", LONG_CALL)  # two stations keep what long frames go through
    before = count(client)
    stuck = await client.start(PYTHON, "-c", program)
    await until(lambda: "full" in stuck.output())
    assert (await client.run(PYTHON, "-c", CALL)).strip() == "hello"
    await stuck.stop(signal.SIGKILL)
    await wait_count(client, before)


async def test_another_user_is_not_let_in(host: Host) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be somebody else")
    program = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "sock.connect(sys.argv[1])\n"
    )
    result = await trio.run_process(
        [PYTHON, "-c", program, host.tap.address], check=False, capture_stderr=True
    )
    assert b"PermissionError" in result.stderr


# the service ends


SERVICE = """
import sys, trio
from functools import partial
from zttrio import Network
from zttrio.tap import service
from zttrio.wire import HostSegment
async def main():
    async with Network(wire=HostSegment(sys.argv[1]), addresses=['10.7.0.9/24']) as net:
        async with trio.open_nursery() as nursery:
            tap = await nursery.start(
                partial(service.serve, net._driver, net._resolver, path=sys.argv[2]))
            print(tap.address, flush=True)
trio.run(main)
"""


async def test_fifty_programs_survive_the_death_of_the_service(tmp_path: Path) -> None:
    cable = tmp_path / "segment"
    cable.mkdir(mode=0o700)
    path = str(tmp_path / "service" / "nc")
    program = """
import errno, os, socket, sys
listener = socket.create_server(('', 0))
sock = socket.create_connection(listener.getsockname())
accepted, _ = listener.accept()
print('up', flush=True)
try: print('recv', sock.recv(1))
except OSError as exc: print('recv', errno.errorcode[exc.errno])
try: socket.socket(); print('socket')
except OSError as exc: print('socket', errno.errorcode[exc.errno])
try: print('name', accepted.getsockname()[0])
except OSError as exc: print('name', errno.errorcode[exc.errno])
"""
    from zttrio.intercept import preload

    async with trio.open_nursery() as nursery:
        service = await trio.lowlevel.open_process(
            [PYTHON, "-c", SERVICE, str(cable), path], stdout=subprocess.PIPE
        )
        assert await read_line(service) == path
        env = preload.environment(path)
        processes = [
            await trio.lowlevel.open_process(
                ["unshare", "--net", "--", PYTHON, "-c", program], env=env, stdout=subprocess.PIPE
            )
            for _ in range(50)
        ]
        outputs: list[bytes] = []
        with trio.fail_after(60):
            for process in processes:
                assert await read_line(process) == "up"
            service.send_signal(signal.SIGKILL)

            async def collect(process: trio.Process) -> None:
                assert process.stdout is not None
                outputs.append(b"".join([piece async for piece in process.stdout]))
                await process.wait()

            async with trio.open_nursery() as collectors:
                for process in processes:
                    collectors.start_soon(collect, process)
        await service.wait()
        nursery.cancel_scope.cancel()
    assert [process.returncode for process in processes] == [0] * 50
    for output in outputs:
        lines = output.decode().splitlines()
        assert lines[:2] == ["recv ECONNRESET", "socket ENETDOWN"]


async def test_a_program_goes_on_with_a_service_that_was_started_again(tmp_path: Path) -> None:
    from zttrio.intercept import preload

    cable = tmp_path / "segment"
    cable.mkdir(mode=0o700)
    path = str(tmp_path / "service" / "nc")
    program = """
import errno, socket, sys
def outcome(call, *arguments):
    try: return call(*arguments)
    except OSError as exc: return errno.errorcode[exc.errno]
old = socket.create_server(('', 7000))
print('up', flush=True)
sys.stdin.readline()
print(outcome(socket.socket), outcome(old.getsockname), outcome(old.accept), flush=True)
sys.stdin.readline()
new = socket.create_server(('', 7000))
sock = socket.create_connection(new.getsockname())
accepted, _ = new.accept()
sock.sendall(b'again')
print(accepted.recv(10), outcome(old.getsockname), flush=True)
"""

    async def start() -> trio.Process:
        service = await trio.lowlevel.open_process(
            [PYTHON, "-c", SERVICE, str(cable), path], stdout=subprocess.PIPE
        )
        assert await read_line(service) == path
        return service

    service = await start()
    process = await trio.lowlevel.open_process(
        ["unshare", "--net", "--", PYTHON, "-c", program],
        env=preload.environment(path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert await read_line(process) == "up"
    service.kill()
    await service.wait()
    await process.stdin.send_all(b"\n")
    assert await read_line(process) == "ENETDOWN ENETDOWN EINVAL"
    service = await start()
    await process.stdin.send_all(b"\n")
    assert await read_line(process) == "b'again' ENOTCONN"
    with trio.fail_after(10):
        assert await process.wait() == 0
    service.kill()
    await service.wait()


async def test_a_program_without_a_service_is_told_soon(tmp_path: Path) -> None:
    from zttrio.intercept import preload

    env = preload.environment(str(tmp_path / "nobody")) | {"ZTTRIO_WAIT": "0.2"}
    program = "import socket; socket.socket()"
    with trio.fail_after(5):
        result = await trio.run_process(
            [PYTHON, "-c", program], env=env, check=False, capture_stderr=True
        )
    assert b"Network is down" in result.stderr


async def test_a_program_may_start_before_its_service(segment: Segment, tmp_path: Path) -> None:
    from functools import partial

    from zttrio.intercept import preload
    from zttrio.tap import service

    host = await segment.host()
    path = tmp_path / "late" / "nc"
    env = preload.environment(str(path))
    program = "import socket; print(socket.create_server(('', 0)).family.name)"
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [PYTHON, "-c", program], env=env, stdout=subprocess.PIPE
        )
        await trio.sleep(0.5)
        net = host.network
        await nursery.start(partial(service.serve, net._driver, net._resolver, path=path))
        assert await read_line(process) == "AF_INET"
        await process.wait()
        nursery.cancel_scope.cancel()


# nothing leaks


async def test_no_kernel_socket_is_ever_made(segment: Segment) -> None:
    server, client = await segment.host(), await segment.host(name="client")
    await server.start(PYTHON, "-m", "http.server", "8000", port=8000)
    trace = client.folder / "trace"
    for command in (
        ["curl", "-sS", "http://10.7.0.1:8000/"],
        ["curl", "-sS", "http://nowhere.example/"],
        ["wget", "-q", "-O", "-", "http://10.7.0.1:8000/"],
        ["getent", "ahosts", "nowhere.example"],
        [PYTHON, "-c", "import urllib.request as u; u.urlopen('http://10.7.0.1:8000/').read()"],
    ):
        await trio.run_process(
            ["strace", "-f", "-e", "trace=socket", "-o", str(trace), *client.command(command)],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
        assert "AF_UNIX" in trace.read_text()
        assert "AF_INET" not in trace.read_text(), command
