"""What the tests of real programs share: files to send, and servers to start."""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .hosts import Station

__all__ = ["PYTHON", "digest_of", "make_blob", "needs", "start_http", "start_nginx"]

PYTHON = sys.executable
SIZE = 5_000_000


def needs(*programs: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Skip a test where the machine lacks one of *programs*."""
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def make_blob(folder: Path, name: str = "blob", size: int = SIZE) -> str:
    """A file of random octets in *folder*; returns its digest."""
    data = random.Random(size).randbytes(size)
    (folder / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """What `make_blob` returned, if *path* has the same octets."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def start_http(server: Station, port: int = 8000) -> str:
    """Python's http.server; returns the digest of its ``/blob``."""
    digest = make_blob(server.folder)
    await server.start(PYTHON, "-m", "http.server", str(port), port=port)
    return digest


async def start_nginx(server: Station, extra: str = "", workers: int = 2) -> str:
    """nginx with sendfile at port 8080; returns the digest of its ``/blob``."""
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
