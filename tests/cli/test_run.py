"""`zttrio run` and `zttrio service`: unmodified programs from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from zttrio.cli import main as cli
from zttrio.errors import InterceptError
from zttrio.intercept import preload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    preload.find_library()
except InterceptError as exc:
    pytest.skip(str(exc), allow_module_level=True)

PYTHON = sys.executable
ZTTRIO = [PYTHON, "-m", "zttrio"]
BLOCKED = "import socket; socket.socket().connect_ex(('203.0.113.9', 80))"
OWN_ADDRESS = """
import socket
listener = socket.create_server(('0.0.0.0', 0))
sock = socket.create_connection(('169.254.7.7', listener.getsockname()[1]))
print(sock.getpeername()[0])
"""


def zttrio(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ZTTRIO, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise SystemExit(3)", 3),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGUSR1)})", 128 + signal.SIGUSR1),
    ],
)
@pytest.mark.usefixtures("segment")
def test_the_exit_code_of_a_program_is_that_of_run(program: str, code: int) -> None:
    assert zttrio("run", "--", PYTHON, "-c", program).returncode == code


@pytest.mark.usefixtures("segment")
def test_run_puts_a_program_on_the_network_and_says_what_it_blocked() -> None:
    done = zttrio("run", "--address", "169.254.7.7/16", "--", PYTHON, "-c", OWN_ADDRESS + BLOCKED)
    assert (done.returncode, done.stdout) == (0, "169.254.7.7\n"), done.stderr
    assert "203.0.113.9" in done.stderr
    assert "--allow-host" in done.stderr


@pytest.mark.usefixtures("segment")
def test_a_signal_reaches_the_program() -> None:
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [*ZTTRIO, "run", "--", PYTHON, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 9


@pytest.fixture
def service(segment: Path) -> Iterator[dict[str, str]]:
    """A running ``zttrio service``, and the variables that it prints."""
    del segment
    with subprocess.Popen(
        [*ZTTRIO, "service", "--network", "lan", "--address", "169.254.7.7/16"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(2)]
        try:
            yield dict(line.split("=", 1) for line in lines)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130


def test_a_program_finds_a_service_by_name_and_by_the_variables_it_prints(
    service: dict[str, str],
) -> None:
    done = zttrio("run", "--network", "lan", "--", PYTHON, "-c", OWN_ADDRESS)
    assert done.stdout == "169.254.7.7\n", done.stderr
    output = subprocess.run(
        [PYTHON, "-c", OWN_ADDRESS], env=os.environ | service, stdout=subprocess.PIPE, check=True
    ).stdout
    assert output == b"169.254.7.7\n"


@pytest.mark.usefixtures("segment")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--network", "nobodys", "--", "true"], "no tap service at"),
        (["--", "no-such-program-anywhere"], "no such program"),
        (["--allow-host", "10.0.0.300", "--", "true"], "10.0.0.300"),
        (["--policy", "/nowhere/policy.toml", "--", "true"], "/nowhere/policy.toml"),
    ],
)
def test_what_cannot_be_run_is_code_1_and_says_why(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *arguments]) == 1
    assert reason in capsys.readouterr().err


def test_run_without_a_program_is_code_2() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["run"])
    assert caught.value.code == 2
