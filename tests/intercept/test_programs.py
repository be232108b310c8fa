"""Real programs, unmodified, as client and server against each other over one segment."""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Host, Segment

pytestmark = pytest.mark.kernel

PYTHON = sys.executable
SIZE = 5_000_000


def needs(*programs: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture
async def server(segment: Segment) -> Host:
    return await segment.host(name="server")


@pytest.fixture
async def client(segment: Segment, server: Host) -> Host:
    assert server.address == "10.7.0.1"
    return await segment.host()


def make_blob(folder: Path, name: str = "blob", size: int = SIZE) -> str:
    """A file of random octets in *folder*; returns its digest."""
    data = random.Random(size).randbytes(size)
    (folder / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def start_http(server: Host, port: int = 8000) -> str:
    digest = make_blob(server.folder)
    await server.start(PYTHON, "-m", "http.server", str(port), port=port)
    return digest


async def start_nginx(server: Host, extra: str = "", workers: int = 2) -> str:
    digest = make_blob(server.folder)
    (server.folder / "temp").mkdir()
    (server.folder / "nginx.conf").write_text(
        f"""
        user root;
        daemon off;
        worker_processes {workers};
        pid {server.folder}/nginx.pid;
        error_log {server.folder}/error.log info;
        events {{ worker_connections 512; }}
        http {{
            access_log off;
            sendfile on;
            tcp_nopush on;
            client_body_temp_path {server.folder}/temp;
            proxy_temp_path {server.folder}/temp;
            fastcgi_temp_path {server.folder}/temp;
            uwsgi_temp_path {server.folder}/temp;
            scgi_temp_path {server.folder}/temp;
            server {{
                listen 8080;
                root {server.folder};
                {extra}
            }}
        }}
        """
    )
    await server.start("nginx", "-p", server.folder, "-c", server.folder / "nginx.conf", port=8080)
    return digest


# HTTP


@needs("curl")
async def test_curl_fetches_a_file_from_python(server: Host, client: Host) -> None:
    digest = await start_http(server)
    output = await client.run(
        "curl", "-sS", "-o", "got", "-w", "%{http_code} %{remote_ip} %{local_ip}",
        "http://10.7.0.1:8000/blob",
    )  # fmt: skip
    assert output == "200 10.7.0.1 10.7.0.2"
    assert digest_of(client.folder / "got") == digest


@needs("curl")
async def test_curl_finds_a_host_by_its_name(server: Host, client: Host) -> None:
    await start_http(server)
    assert "Directory listing" in await client.run("curl", "-sS", "http://server:8000/")


@needs("curl")
async def test_curl_is_told_that_a_port_is_closed(client: Host) -> None:
    output = await client.run("curl", "-sS", "http://10.7.0.1:8001/", check=False)
    assert "(7)" in output


@needs("curl")
async def test_nothing_reaches_the_hosts_network_and_the_user_is_told(host: Host) -> None:
    output = await host.run("curl", "-sS", "http://203.0.113.9/", check=False)
    assert "(7)" in output
    assert any("203.0.113.9" in text and "--allow-host" in text for text in host.said)
    await host.run("curl", "-sS", "http://example.com/", check=False)
    assert any("example.com" in text for text in host.said)


@needs("wget")
async def test_wget_fetches_a_file_from_python(server: Host, client: Host) -> None:
    digest = await start_http(server)
    await client.run("wget", "-q", "-O", "got", "http://10.7.0.1:8000/blob")
    assert digest_of(client.folder / "got") == digest


@needs("aria2c")
async def test_aria2_fetches_a_file_over_four_connections(server: Host, client: Host) -> None:
    digest = await start_nginx(server)
    await client.run(
        "aria2c", "-q", "-x4", "-s4", "-k1M", "--file-allocation=none", "-o", "got",
        "http://10.7.0.1:8080/blob",
    )  # fmt: skip
    assert digest_of(client.folder / "got") == digest


async def test_urllib_posts_to_http_server(server: Host, client: Host) -> None:
    (server.folder / "post.py").write_text(
        "import hashlib, http.server\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        data = self.rfile.read(int(self.headers['Content-Length']))\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "        self.wfile.write(hashlib.sha256(data).hexdigest().encode())\n"
        "http.server.ThreadingHTTPServer(('', 8000), Handler).serve_forever()\n"
    )
    await server.start(PYTHON, "post.py", port=8000)
    digest = make_blob(client.folder)
    program = (
        "import urllib.request\n"
        "data = open('blob', 'rb').read()\n"
        "print(urllib.request.urlopen('http://server:8000/', data).read().decode())\n"
    )
    assert (await client.run(PYTHON, "-c", program)).strip() == digest


@needs("nginx", "curl")
async def test_nginx_with_two_workers_sends_files(server: Host, client: Host) -> None:
    digest = await start_nginx(server)
    for number in range(8):
        await client.run("curl", "-sS", "-o", f"got{number}", "http://10.7.0.1:8080/blob")
        assert digest_of(client.folder / f"got{number}") == digest
    assert "alert" not in (server.folder / "error.log").read_text()


@needs("nginx", "curl")
async def test_nginx_passes_requests_on(server: Host, client: Host) -> None:
    digest = await start_nginx(server, "location /py/ { proxy_pass http://10.7.0.1:8000/; }")
    await server.start(PYTHON, "-m", "http.server", "8000", port=8000)
    await client.run("curl", "-sS", "-o", "got", "http://10.7.0.1:8080/py/blob")
    assert digest_of(client.folder / "got") == digest


@needs("nginx", "wrk")
async def test_wrk_gets_answers_from_nginx(server: Host, client: Host) -> None:
    await start_nginx(server)
    (server.folder / "small").write_text("small\n")
    output = await client.run("wrk", "-t2", "-c16", "-d2s", "http://10.7.0.1:8080/small", within=40)
    assert "requests in" in output
    assert "Non-2xx" not in output
    assert "Socket errors" not in output


@needs("nginx", "ab")
async def test_ab_gets_every_answer_from_nginx(server: Host, client: Host) -> None:
    await start_nginx(server)
    (server.folder / "small").write_text("small\n")
    output = await client.run("ab", "-q", "-n200", "-c10", "http://10.7.0.1:8080/small")
    assert "Complete requests:      200" in output
    assert "Failed requests:        0" in output


@needs("lighttpd", "curl")
async def test_lighttpd_sends_files(server: Host, client: Host) -> None:
    digest = make_blob(server.folder)
    (server.folder / "lighttpd.conf").write_text(
        f'server.document-root = "{server.folder}"\nserver.port = 8081\n'
    )
    await server.start("lighttpd", "-D", "-f", "lighttpd.conf", port=8081)
    await client.run("curl", "-sS", "-o", "got", "http://10.7.0.1:8081/blob")
    assert digest_of(client.folder / "got") == digest


@needs("haproxy", "nginx", "curl")
async def test_haproxy_stands_in_front_of_nginx(server: Host, client: Host) -> None:
    digest = await start_nginx(server)
    (server.folder / "haproxy.cfg").write_text(
        "global\n  maxconn 100\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        "frontend front\n  bind *:8082\n  default_backend back\n"
        "backend back\n  server one 10.7.0.1:8080 check\n"
    )
    await server.start("haproxy", "-db", "-f", "haproxy.cfg", port=8082)
    await client.run("curl", "-sS", "-o", "got", "http://10.7.0.1:8082/blob")
    assert digest_of(client.folder / "got") == digest


@needs("node", "curl")
async def test_node_serves_http_and_datagrams(server: Host, client: Host) -> None:
    digest = make_blob(server.folder)
    (server.folder / "server.js").write_text(
        "const fs = require('fs'), dgram = require('dgram');\n"
        "require('http').createServer((q, r) => fs.createReadStream('blob').pipe(r))"
        ".listen(8083, '0.0.0.0');\n"
        "const s = dgram.createSocket('udp4');\n"
        "s.on('message', (m, r) => s.send(m.toString().toUpperCase(), r.port, r.address));\n"
        "s.bind(8084);\n"
    )
    await server.start("node", "server.js", port=8083)
    await client.run("curl", "-sS", "-o", "got", "http://10.7.0.1:8083/")
    assert digest_of(client.folder / "got") == digest
    (client.folder / "client.js").write_text(
        "const s = require('dgram').createSocket('udp4');\n"
        "s.on('message', (m) => { console.log(m.toString()); s.close(); });\n"
        "s.send('hello', 8084, '10.7.0.1');\n"
    )
    assert (await client.run("node", "client.js")).strip() == "HELLO"


# databases and queues


@needs("redis-server", "redis-cli", "redis-benchmark")
async def test_redis_keeps_values_and_survives_its_benchmark(server: Host, client: Host) -> None:
    await server.start(
        "redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no",
        "--save", "", port=6379,
    )  # fmt: skip
    for name, value in (("a", "one"), ("b", "x" * 100_000)):
        assert (await client.run("redis-cli", "-h", "10.7.0.1", "set", name, value)).strip() == "OK"
        assert (await client.run("redis-cli", "-h", "10.7.0.1", "get", name)).strip() == value
    output = await client.run(
        "redis-benchmark", "-h", "10.7.0.1", "-n", "2000", "-c", "50", "-P", "4", "-q",
        "-t", "ping,set,get", within=60,
    )  # fmt: skip
    assert "GET:" in output
    assert "rror" not in output


@needs("memcached")
async def test_memcached_answers_over_tcp_and_udp(server: Host, client: Host) -> None:
    await server.start("memcached", "-u", "root", "-p", "11211", "-U", "11211", port=11211)
    program = (
        "import socket, struct\n"
        "s = socket.create_connection(('10.7.0.1', 11211))\n"
        "s.sendall(b'set k 0 0 5\\r\\nhello\\r\\n')\n"
        "print(s.recv(100))\n"
        "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "u.settimeout(5)\n"
        "u.sendto(struct.pack('!HHHH', 7, 0, 1, 0) + b'get k\\r\\n', ('10.7.0.1', 11211))\n"
        "print(u.recv(1000)[8:])\n"
    )
    output = await client.run(PYTHON, "-c", program)
    assert output.splitlines() == [
        repr(b"STORED\r\n"),
        repr(b"VALUE k 0 5\r\nhello\r\nEND\r\n"),
    ]


@needs("mosquitto", "mosquitto_pub", "mosquitto_sub")
async def test_mosquitto_delivers_messages(server: Host, client: Host) -> None:
    (server.folder / "mosquitto.conf").write_text("listener 1883 0.0.0.0\nallow_anonymous true\n")
    await server.start("mosquitto", "-c", "mosquitto.conf", port=1883)
    subscriber = await client.start(
        "mosquitto_sub", "-h", "10.7.0.1", "-t", "news", "-C", "1", "-v"
    )
    with trio.fail_after(20):
        while subscriber.process.returncode is None:  # it does not tell when it is ready
            await client.run("mosquitto_pub", "-h", "10.7.0.1", "-t", "news", "-m", "good")
            await trio.sleep(0.1)
    assert "news good" in subscriber.output()


# tools


@needs("socat")
async def test_socat_forks_and_runs_programs(server: Host, client: Host) -> None:
    await server.start("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:tr a-z A-Z", port=7000)
    for text in ("first", "second"):
        output = await client.run("socat", "-t5", "-", "TCP:10.7.0.1:7000", stdin=text.encode())
        assert output == text.upper()


@needs("socat")
async def test_socat_answers_datagrams(server: Host, client: Host) -> None:
    await server.start("socat", "UDP-RECVFROM:7001,fork", "EXEC:tr a-z A-Z")
    with trio.fail_after(15):
        while True:
            output = await client.run(
                "socat", "-t2", "-", "UDP:10.7.0.1:7001", stdin=b"datagram", check=False
            )
            if output == "DATAGRAM":
                return


@needs("ncat")
async def test_ncat_serves_commands(server: Host, client: Host) -> None:
    await server.start("ncat", "-l", "-k", "-c", "echo hello", "7002", port=7002)
    for _ in range(2):
        assert await client.run("ncat", "--recv-only", "10.7.0.1", "7002") == "hello\n"


@needs("nc")
async def test_netcat_moves_a_file(server: Host, client: Host) -> None:
    listener = await server.start("nc", "-l", "-N", "7003", port=7003)
    digest = make_blob(client.folder)
    await client.run("nc", "-N", "10.7.0.1", "7003", stdin=(client.folder / "blob").read_bytes())
    assert await listener.process.wait() == 0
    assert digest_of(listener.log) == digest


@needs("iperf3")
@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "4"), ("-u", "-b", "20M")])
async def test_iperf3_measures(server: Host, client: Host, options: tuple[str, ...]) -> None:
    await server.start("iperf3", "-s", port=5201)
    output = await client.run("iperf3", "-c", "10.7.0.1", "-t", "2", *options, within=40)
    assert "receiver" in output
    assert "iperf Done." in output


@needs("rsync")
async def test_rsync_copies_from_its_daemon(server: Host, client: Host) -> None:
    digest = make_blob(server.folder)
    (server.folder / "rsyncd.conf").write_text(
        f"use chroot = no\nuid = root\n[all]\n  path = {server.folder}\n  read only = yes\n"
    )
    await server.start(
        "rsync", "--daemon", "--no-detach", "--port", "8730", "--config", "rsyncd.conf", port=8730
    )
    await client.run("rsync", "rsync://10.7.0.1:8730/all/blob", "got")
    assert digest_of(client.folder / "got") == digest


@needs("git")
async def test_git_clones_from_its_daemon(server: Host, client: Host) -> None:
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
    await client.run("git", "clone", "-q", "git://10.7.0.1/repo", "copy")
    assert digest_of(client.folder / "copy" / "blob") == digest


@needs("dig")
async def test_dig_asks_over_udp_and_tcp(server: Host, client: Host) -> None:
    (server.folder / "dns.py").write_text(
        "import socket, struct, threading\n"
        "def answer(q):\n"
        "    end = q.index(b'\\0', 12) + 5\n"
        "    head = q[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0'\n"
        "    record = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\xc0\\0\\2\\7'\n"
        "    return head + q[12:end] + record\n"
        "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "udp.bind(('', 53))\n"
        "tcp = socket.create_server(('', 53))\n"
        "def serve():\n"
        "    while True:\n"
        "        q, a = udp.recvfrom(4096)\n"
        "        udp.sendto(answer(q), a)\n"
        "threading.Thread(target=serve, daemon=True).start()\n"
        "while True:\n"
        "    c, _ = tcp.accept()\n"
        "    n = int.from_bytes(c.recv(2, socket.MSG_WAITALL), 'big')\n"
        "    r = answer(c.recv(n, socket.MSG_WAITALL))\n"
        "    c.sendall(struct.pack('!H', len(r)) + r)\n"
        "    c.close()\n"
    )
    await server.start(PYTHON, "dns.py", port=53)
    for option in ("+notcp", "+tcp"):
        output = await client.run("dig", "@10.7.0.1", option, "+noedns", "+short", "example.test")
        assert output.strip() == "192.0.2.7"


@needs("dig")
async def test_dig_is_told_that_nobody_answers_dns(client: Host) -> None:
    output = await client.run(
        "dig", "@10.7.0.1", "+tries=1", "+time=3", "example.test", check=False
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
import asyncio, hashlib
async def call(number):
    reader, writer = await asyncio.open_connection('10.7.0.1', 7100)
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
        await asyncio.open_connection('10.7.0.1', 7199)
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
import trio
async def call(number):
    data = bytes([number]) * 300_000
    stream = await trio.open_tcp_stream('10.7.0.1', 7100)
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
async def test_event_loops_talk(server: Host, client: Host, echo: str, call: str) -> None:
    (server.folder / "echo.py").write_text(echo)
    await server.start(PYTHON, "echo.py", port=7100)
    assert (await client.run(PYTHON, "-c", call)).splitlines()[-1] == "done"


# programs that preloading cannot carry


@needs("busybox")
async def test_a_static_program_is_refused_and_the_user_is_told(host: Host) -> None:
    output = await host.run("sh", "-c", "busybox true", check=False)
    assert "not permitted" in output.lower()
    assert any("statically linked" in text for text in host.said)
