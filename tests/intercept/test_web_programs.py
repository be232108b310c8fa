"""Programs that talk HTTP: both ours on one segment, and each side against the kernel's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.conftest import namespace

from .programs import PYTHON, digest_of, make_blob, needs, start_http, start_nginx

if TYPE_CHECKING:
    from .hosts import Host, Segment, Station

pytestmark = pytest.mark.kernel
__all__ = ["namespace"]


@needs("curl")
async def test_curl_fetches_a_file_from_python(server: Station, client: Station) -> None:
    digest = await start_http(server)
    output = await client.run(
        "curl", "-sS", "-o", "got", "-w", "%{http_code} %{remote_ip} %{local_ip}",
        f"http://{server.address}:8000/blob",
    )  # fmt: skip
    assert output == f"200 {server.address} {client.address}"
    assert digest_of(client.folder / "got") == digest


@needs("curl")
async def test_curl_is_told_that_a_port_is_closed(server: Station, client: Station) -> None:
    output = await client.run("curl", "-sS", f"http://{server.address}:8001/", check=False)
    assert "(7)" in output


@needs("curl")
async def test_curl_finds_a_host_by_its_name(segment: Segment) -> None:
    server, client = await segment.host(name="server"), await segment.host()
    await start_http(server)
    assert "Directory listing" in await client.run("curl", "-sS", "http://server:8000/")


@needs("curl")
async def test_nothing_reaches_the_hosts_network_and_the_user_is_told(host: Host) -> None:
    output = await host.run("curl", "-sS", "http://203.0.113.9/", check=False)
    assert "(7)" in output
    assert any("203.0.113.9" in text and "--allow-host" in text for text in host.said)
    await host.run("curl", "-sS", "http://example.com/", check=False)
    assert any("example.com" in text for text in host.said)


@needs("wget")
async def test_wget_fetches_a_file_from_python(server: Station, client: Station) -> None:
    digest = await start_http(server)
    await client.run("wget", "-q", "-O", "got", f"http://{server.address}:8000/blob")
    assert digest_of(client.folder / "got") == digest


@needs("aria2c", "nginx")
async def test_aria2_fetches_a_file_over_four_connections(server: Station, client: Station) -> None:
    digest = await start_nginx(server)
    await client.run(
        "aria2c", "-q", "-x4", "-s4", "-k1M", "--file-allocation=none", "-o", "got",
        f"http://{server.address}:8080/blob",
    )  # fmt: skip
    assert digest_of(client.folder / "got") == digest


async def test_urllib_posts_to_http_server(server: Station, client: Station) -> None:
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
        "import sys, urllib.request\n"
        "data = open('blob', 'rb').read()\n"
        "print(urllib.request.urlopen(sys.argv[1], data).read().decode())\n"
    )
    output = await client.run(PYTHON, "-c", program, f"http://{server.address}:8000/")
    assert output.strip() == digest


@needs("nginx", "curl")
async def test_nginx_with_two_workers_sends_files(server: Station, client: Station) -> None:
    digest = await start_nginx(server)
    for number in range(8):
        url = f"http://{server.address}:8080/blob"
        await client.run("curl", "-sS", "-o", f"got{number}", url)
        assert digest_of(client.folder / f"got{number}") == digest
    assert "alert" not in (server.folder / "error.log").read_text()


@needs("nginx", "curl")
async def test_nginx_passes_requests_on(server: Station, client: Station) -> None:
    rule = f"location /py/ {{ proxy_pass http://{server.address}:8000/; }}"
    digest = await start_nginx(server, rule)
    await server.start(PYTHON, "-m", "http.server", "8000", port=8000)
    await client.run("curl", "-sS", "-o", "got", f"http://{server.address}:8080/py/blob")
    assert digest_of(client.folder / "got") == digest


@needs("nginx", "curl")
async def test_nginx_passes_requests_on_to_another_host(server: Station, client: Station) -> None:
    rule = f"location /far/ {{ proxy_pass http://{server.address}:8000/; }}"
    await start_nginx(client, rule)
    digest = make_blob(server.folder, size=2_000_000)
    await server.start(PYTHON, "-m", "http.server", "8000", port=8000)
    await client.run("curl", "-sS", "-o", "got", f"http://{client.address}:8080/far/blob")
    assert digest_of(client.folder / "got") == digest


@needs("nginx", "wrk")
async def test_wrk_gets_answers_from_nginx(server: Station, client: Station) -> None:
    await start_nginx(server)
    (server.folder / "small").write_text("small\n")
    output = await client.run(
        "wrk", "-t2", "-c16", "-d1s", f"http://{server.address}:8080/small", within=40
    )
    assert "requests in" in output
    assert "Non-2xx" not in output
    assert "Socket errors" not in output


@needs("nginx", "ab")
async def test_ab_gets_every_answer_from_nginx(server: Station, client: Station) -> None:
    await start_nginx(server)
    (server.folder / "small").write_text("small\n")
    output = await client.run("ab", "-q", "-n200", "-c10", f"http://{server.address}:8080/small")
    assert "Complete requests:      200" in output
    assert "Failed requests:        0" in output


@needs("lighttpd", "curl")
async def test_lighttpd_sends_files(server: Station, client: Station) -> None:
    digest = make_blob(server.folder)
    (server.folder / "lighttpd.conf").write_text(
        f'server.document-root = "{server.folder}"\nserver.port = 8081\n'
    )
    await server.start("lighttpd", "-D", "-f", "lighttpd.conf", port=8081)
    await client.run("curl", "-sS", "-o", "got", f"http://{server.address}:8081/blob")
    assert digest_of(client.folder / "got") == digest


@needs("haproxy", "nginx", "curl")
async def test_haproxy_stands_in_front_of_nginx(server: Station, client: Station) -> None:
    digest = await start_nginx(server)
    (server.folder / "haproxy.cfg").write_text(
        "global\n  maxconn 100\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        "frontend front\n  bind *:8082\n  default_backend back\n"
        f"backend back\n  server one {server.address}:8080 check\n"
    )
    await server.start("haproxy", "-db", "-f", "haproxy.cfg", port=8082)
    await client.run("curl", "-sS", "-o", "got", f"http://{server.address}:8082/blob")
    assert digest_of(client.folder / "got") == digest


@needs("node")
async def test_node_serves_and_fetches_http_and_datagrams(server: Station, client: Station) -> None:
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
    (client.folder / "client.js").write_text(
        "const host = process.argv[2], file = require('fs').createWriteStream('got');\n"
        "require('http').get({host, port: 8083}, (r) => r.pipe(file));\n"
        "file.on('finish', () => {\n"
        "  const s = require('dgram').createSocket('udp4');\n"
        "  s.on('message', (m) => { console.log(m.toString()); s.close(); });\n"
        "  s.send('hello', 8084, host);\n"
        "});\n"
    )
    assert (await client.run("node", "client.js", server.address)).strip() == "HELLO"
    assert digest_of(client.folder / "got") == digest
