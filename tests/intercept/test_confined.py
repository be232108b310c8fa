"""What a container without rights leaves to a program is enough.

No container here, but what makes one tight: no capability, no new privileges, no network device but
a loopback that is down, no /dev/net/tun, a read-only root file system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from .programs import digest_of, make_blob, needs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

ZTTRIO = [sys.executable, "-m", "zttrio"]
CONFINE = """
set -e
mount -t tmpfs none /dev/net 2>/dev/null || true
mount -o remount,ro,bind / 2>/dev/null || { mount --bind / / && mount -o remount,ro,bind /; }
mount --bind "$FOLDER" "$FOLDER"
mount -o remount,rw,bind "$FOLDER"
cd "$FOLDER"
exec setpriv --inh-caps=-all --bounding-set=-all --no-new-privs -- "$@"
"""


def confined(folder: Path, *command: str) -> list[str]:
    """*command* with nothing but *folder* to write to."""
    return [
        *("unshare", "--net", "--mount", "env", f"FOLDER={folder}", f"XDG_RUNTIME_DIR={folder}"),
        *("sh", "-c", CONFINE, "sh", *command),
    ]


@pytest.fixture(autouse=True)
def privileges() -> None:
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("needs root, to give it up, and setpriv")


@contextmanager
def running(folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        confined(folder, *command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def output_of(folder: Path, *command: str) -> str:
    done = subprocess.run(
        confined(folder, *command), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_tight(tmp_path: Path) -> None:
    script = (
        "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /dev/net; "
        "grep -o '[a-z0-9]*:' /proc/net/dev; wc -l < /proc/net/fib_trie; "
        "touch /root-is-writable 2>/dev/null && echo writable; touch here && echo folder"
    )
    lines = output_of(tmp_path, "sh", "-c", script).split()
    assert lines == [
        *("CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"),
        *("lo:", "0"),  # no other device, and no route
        "folder",
    ]


@needs("nginx", "curl")
def test_two_confined_programs_share_a_segment(tmp_path: Path) -> None:
    digest = make_blob(tmp_path)
    serve = "from http.server import *; print('ready', flush=True); "
    serve += "ThreadingHTTPServer(('', 80), SimpleHTTPRequestHandler).serve_forever()"
    run = [*ZTTRIO, "run"]
    with running(tmp_path, *run, "--name", "web", "--", sys.executable, "-c", serve) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        fetch = ["curl", "-sS", "--retry", "5", "--retry-connrefused", "-o", "got"]
        output_of(tmp_path, *run, "--", *fetch, "http://web/blob")
    assert digest_of(tmp_path / "got") == digest


@needs("curl")
def test_a_program_needs_no_python_if_a_service_is_shared(tmp_path: Path) -> None:
    digest = make_blob(tmp_path)
    with running(tmp_path, *ZTTRIO, "service", "--network", "lan", "--name", "me") as service:
        assert service.stdout is not None
        variables = [service.stdout.readline().strip() for _ in range(2)]
        serve = [sys.executable, "-u", "-m", "http.server", "8000"]
        with running(tmp_path, "env", *variables, *serve) as server:
            assert server.stdout is not None
            assert "Serving" in server.stdout.readline()
            fetch = ["curl", "-sS", "-o", "got", "http://127.0.0.1:8000/blob"]
            output_of(tmp_path, "env", *variables, *fetch)
    assert digest_of(tmp_path / "got") == digest
