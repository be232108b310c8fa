"""`zttrio run` puts a web server that nobody has changed before a real ZeroTier node."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from zttrio.errors import InterceptError
from zttrio.intercept import preload

from .overlay import HERE, Overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

ADDRESS = "10.99.0.7"
SIZE = 5_000_000
CONFIGURATION = """
user root;
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    server {{ listen 80; root {folder}; }}
}}
"""


@pytest.fixture
def overlay(tmp_path: Path, libzt: tuple[str, str], namespaces: None) -> Iterator[Overlay]:
    del namespaces
    folder = tmp_path / "overlay"
    folder.mkdir()
    made = Overlay(folder, libzt)
    yield made
    made.close()


def test_nginx_serves_a_real_node(overlay: Overlay, tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("there is no nginx")
    try:
        preload.find_library()
    except InterceptError as exc:
        pytest.skip(str(exc))
    folder = tmp_path / "www"
    (folder / "temp").mkdir(parents=True)
    blob = random.Random(7).randbytes(SIZE)
    (folder / "blob").write_bytes(blob)
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder))
    namespace, home, node = overlay.place()
    overlay.change_member(node, {"authorized": True, "ipAssignments": [ADDRESS]})
    real = overlay.real()
    command = [
        *("ip", "netns", "exec", namespace, sys.executable, "-m", "zttrio", "run"),
        *("--network", overlay.network, "--home", str(home), "--planet", str(overlay.planet)),
        *("--", "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as program:
        try:
            assert program.stderr is not None
            said = []
            while f"online as {ADDRESS}" not in (line := program.stderr.readline()):
                said.append(line)
                assert line, said
            overlay.let_in(real)
            fetched = real.ask("fetch", host=ADDRESS, port=80, path="/blob")
            assert fetched["head"].startswith("HTTP/1.1 200 OK")
            assert "Server: nginx" in fetched["head"]
            digest = hashlib.sha256(blob).hexdigest()
            assert (fetched["size"], fetched["digest"]) == (SIZE, digest)
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(20)
