"""Databases, queues, tools, event loops: both ours on one segment, or one beside the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.kernel.conftest import namespace

from .programs import PYTHON, digest_of, make_blob, needs

if TYPE_CHECKING:
    from .hosts import Host, Station

pytestmark = pytest.mark.kernel
__all__ = ["namespace"]


# databases and queues


@needs("redis-server", "redis-cli", "redis-benchmark")
async def test_redis_keeps_values_and_survives_its_benchmark(
    server: Station, client: Station
) -> None:
    await server.start(
        "redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no",
        "--save", "", port=6379,
    )  # fmt: skip
    cli = ("redis-cli", "-h", server.address)
    make_blob(client.folder, size=300_000)
    text = (client.folder / "blob").read_bytes().hex()
    assert (await client.run(*cli, "-x", "set", "b", stdin=text.encode())).strip() == "OK"
    assert (await client.run(*cli, "get", "b")).strip() == text
    output = await client.run(
        "redis-benchmark", "-h", server.address, "-n", "1000", "-c", "50", "-P", "4", "-q",
        "-t", "ping,set,get", within=60,
    )  # fmt: skip
    assert "GET:" in output
    assert "rror" not in output


MEMCACHED = """
import hashlib, socket, struct, sys
address = sys.argv[1], 11211
blob = open('blob', 'rb').read()
s = socket.create_connection(address)
s.sendall(b'set k 0 0 %d\\r\\n%b\\r\\n' % (len(blob), blob))
assert s.recv(100) == b'STORED\\r\\n'
s.sendall(b'get k\\r\\n')
head = b'VALUE k 0 %d\\r\\n' % len(blob)
got = s.recv(len(head) + len(blob), socket.MSG_WAITALL)[len(head):]
print(hashlib.sha256(got).hexdigest())
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(5)
u.sendto(struct.pack('!HHHH', 7, 0, 1, 0) + b'get k\\r\\n', address)
pieces, total = {}, 1
while len(pieces) < total:
    piece = u.recv(2000)
    request, number, total, _ = struct.unpack_from('!HHHH', piece)
    assert request == 7
    pieces[number] = piece[8:]
got = b''.join(pieces[number] for number in range(total))[len(head):][:len(blob)]
print(hashlib.sha256(got).hexdigest())
"""


@needs("memcached")
async def test_memcached_answers_over_tcp_and_udp(server: Station, client: Station) -> None:
    await server.start("memcached", "-u", "root", "-p", "11211", "-U", "11211", port=11211)
    digest = make_blob(client.folder, size=30_000)  # some twenty datagrams
    output = await client.run(PYTHON, "-c", MEMCACHED, server.address)
    assert output.split() == [digest, digest]


@needs("mosquitto", "mosquitto_pub", "mosquitto_sub")
async def test_mosquitto_keeps_and_delivers_messages(server: Station, client: Station) -> None:
    (server.folder / "mosquitto.conf").write_text("listener 1883 0.0.0.0\nallow_anonymous true\n")
    await server.start("mosquitto", "-c", "mosquitto.conf", port=1883)
    digest = make_blob(client.folder, size=200_000)
    topic = ("-h", server.address, "-t", "news", "-q", "1")
    await client.run("mosquitto_pub", *topic, "-r", "-f", "blob")
    got = await client.start("mosquitto_sub", *topic, "-C", "1", "-N")
    with trio.fail_after(20):
        assert await got.process.wait() == 0
    assert digest_of(got.log) == digest


# tools


@needs("socat")
async def test_socat_forks_and_runs_programs(server: Station, client: Station) -> None:
    await server.start("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:sha256sum", port=7000)
    for size in (1, 1_000_000):
        digest = make_blob(client.folder, size=size)
        output = await client.run(
            "socat", "-t5", "-", f"TCP:{server.address}:7000",
            stdin=(client.folder / "blob").read_bytes(),
        )  # fmt: skip
        assert output.split()[0] == digest


@needs("socat")
async def test_socat_answers_datagrams(server: Station, client: Station) -> None:
    command = ("socat", "UDP-RECVFROM:7001,fork", "EXEC:tr a-z A-Z")
    await server.start(*command, datagram_port=7001)
    text = "datagram " * 100
    output = await client.run(
        "socat", "-t2", "-", f"UDP:{server.address}:7001", stdin=text.encode()
    )
    assert output == text.upper()


@needs("ncat")
async def test_ncat_serves_commands(server: Station, client: Station) -> None:
    digest = make_blob(server.folder)
    await server.start("ncat", "-l", "-k", "-c", "cat blob", "7002", port=7002)
    for _ in range(2):
        got = await client.start("ncat", "--recv-only", server.address, "7002")
        with trio.fail_after(20):
            assert await got.process.wait() == 0
        assert digest_of(got.log) == digest


@needs("nc")
async def test_netcat_moves_a_file(server: Station, client: Station) -> None:
    listener = await server.start("nc", "-l", "-N", "7003", port=7003)
    digest = make_blob(client.folder)
    blob = (client.folder / "blob").read_bytes()
    await client.run("nc", "-N", server.address, "7003", stdin=blob)
    with trio.fail_after(20):
        assert await listener.process.wait() == 0
    assert digest_of(listener.log) == digest


@needs("iperf3")
@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "4"), ("-u", "-b", "20M")])
async def test_iperf3_measures(server: Station, client: Station, options: tuple[str, ...]) -> None:
    await server.start("iperf3", "-s", port=5201)
    output = await client.run("iperf3", "-c", server.address, "-t", "1", *options)
    assert "receiver" in output
    assert "iperf Done." in output


@needs("rsync")
async def test_rsync_copies_from_its_daemon_and_to_it(server: Station, client: Station) -> None:
    digest = make_blob(server.folder)
    (server.folder / "rsyncd.conf").write_text(
        "use chroot = no\nuid = root\ngid = root\n"
        f"[all]\n  path = {server.folder}\n  read only = no\n"
    )
    await server.start(
        "rsync", "--daemon", "--no-detach", "--port", "8730", "--config", "rsyncd.conf", port=8730
    )
    url = f"rsync://{server.address}:8730/all"
    await client.run("rsync", f"{url}/blob", "got")
    assert digest_of(client.folder / "got") == digest
    digest = make_blob(client.folder, "other", 3_000_000)
    await client.run("rsync", "other", f"{url}/other")
    assert digest_of(server.folder / "other") == digest


@needs("git")
async def test_git_clones_from_its_daemon(server: Station, client: Station) -> None:
    digest = make_blob(server.folder, size=300_000)
    (server.folder / "repo").mkdir()
    (server.folder / "blob").rename(server.folder / "repo" / "blob")
    script = (
        "cd repo && git init -q && git add blob && "
        "git -c user.name=a -c user.email=a@example.com commit -q -m one"
    )
    await server.run("sh", "-c", script)
    await server.start(
        "git", "daemon", "--export-all", f"--base-path={server.folder}", "--port=9418",
        port=9418,
    )  # fmt: skip
    await client.run("git", "clone", "-q", f"git://{server.address}/repo", "copy")
    assert digest_of(client.folder / "copy" / "blob") == digest


DNS = """
import socket, struct, threading
def answer(q):
    end = q.index(b'\\0', 12) + 5
    head = q[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0'
    record = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\xc0\\0\\2\\7'
    return head + q[12:end] + record
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('', 53))
tcp = socket.create_server(('', 53))
def serve():
    while True:
        q, a = udp.recvfrom(4096)
        udp.sendto(answer(q), a)
threading.Thread(target=serve, daemon=True).start()
while True:
    c, _ = tcp.accept()
    n = int.from_bytes(c.recv(2, socket.MSG_WAITALL), 'big')
    r = answer(c.recv(n, socket.MSG_WAITALL))
    c.sendall(struct.pack('!H', len(r)) + r)
    c.close()
"""


@needs("dig")
async def test_dig_asks_over_udp_and_tcp(server: Station, client: Station) -> None:
    await server.start(PYTHON, "-c", DNS, port=53)
    for option in ("+notcp", "+tcp"):
        output = await client.run(
            "dig", f"@{server.address}", option, "+noedns", "+short", "example.test"
        )
        assert output.strip() == "192.0.2.7"


@needs("dig")
async def test_dig_is_told_that_nobody_answers_dns(server: Station, client: Station) -> None:
    output = await client.run(
        "dig", f"@{server.address}", "+tries=1", "+time=3", "example.test", check=False
    )
    assert "connection refused" in output


# asyncio and trio, which use sockets in ways of their own

ECHO_ASYNCIO = """
import asyncio
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, '0.0.0.0', 7100)
    await server.serve_forever()
asyncio.run(main())
"""
CALL_ASYNCIO = """
import asyncio, sys
async def call(number):
    reader, writer = await asyncio.open_connection(sys.argv[1], 7100)
    data = bytes([number]) * 300_000
    async def send():
        writer.write(data)
        await writer.drain()
        writer.write_eof()
    sending = asyncio.create_task(send())
    got = await reader.read(-1)
    await sending
    assert got == data, (len(got), len(data))
async def main():
    await asyncio.gather(*map(call, range(20)))
    try:
        await asyncio.open_connection(sys.argv[1], 7199)
    except ConnectionRefusedError:
        print('refused')
asyncio.run(main())
print('done')
"""
ECHO_TRIO = """
import trio
async def serve(stream):
    async for data in stream:
        await stream.send_all(data)
trio.run(trio.serve_tcp, serve, 7100)
"""
CALL_TRIO = """
import sys, trio
async def call(number):
    data = bytes([number]) * 300_000
    stream = await trio.open_tcp_stream(sys.argv[1], 7100)
    async with stream, trio.open_nursery() as nursery:
        async def send():
            await stream.send_all(data)
            await stream.send_eof()
        nursery.start_soon(send)
        got = b''.join([piece async for piece in stream])
        assert got == data
async def main():
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(call, number)
trio.run(main)
print('done')
"""


@pytest.mark.parametrize("call", [CALL_ASYNCIO, CALL_TRIO], ids=["asyncio", "trio"])
@pytest.mark.parametrize("echo", [ECHO_ASYNCIO, ECHO_TRIO], ids=["asyncio", "trio"])
async def test_event_loops_talk(server: Station, client: Station, echo: str, call: str) -> None:
    (server.folder / "echo.py").write_text(echo)
    await server.start(PYTHON, "echo.py", port=7100)
    assert (await client.run(PYTHON, "-c", call, server.address)).split()[-1] == "done"


# programs that preloading cannot carry


@needs("busybox")
async def test_a_static_program_is_refused_and_the_user_is_told(host: Host) -> None:
    output = await host.run("sh", "-c", "busybox true", check=False)
    assert "not permitted" in output.lower()
    assert any("statically linked" in text for text in host.said)
