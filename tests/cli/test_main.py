"""The frame of the command line: what is refused, and what the exit codes say."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.cli import main as cli
from zttrio.errors import WireError

if TYPE_CHECKING:
    from pathlib import Path


def _namespace(run: cli.Run) -> argparse.Namespace:
    return argparse.Namespace(run=run)


async def _fail_in_a_nursery(_: argparse.Namespace) -> None:
    async with trio.open_nursery():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")


async def _be_interrupted_in_a_nursery(_: argparse.Namespace) -> None:
    async with trio.open_nursery():
        raise KeyboardInterrupt


async def _answer_three(_: argparse.Namespace) -> int:
    await trio.lowlevel.checkpoint()
    return 3


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"zttrio {metadata.version('zttrio')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["ping"],
        ["ping", "host", "-c", "0"],
        ["ping", "host", "-i", "-1"],
        ["ping", "host", "-W", "inf"],
        ["nc", "host", "not-a-port"],
        ["nc", "host", "65536"],
        ["nc", "host", "7", "-l", "7"],
        ["nc", "host"],
        ["nc"],
    ],
    ids=" ".join,
)
def test_a_senseless_command_line_is_code_2_and_says_how_it_should_look(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: zttrio" in capsys.readouterr().err


def test_what_a_coroutine_returns_is_the_exit_code() -> None:
    assert cli.execute(_namespace(_answer_three)) == 3


def test_what_a_function_returns_is_the_exit_code() -> None:
    assert cli.execute(_namespace(lambda _: 4)) == 4
    assert cli.execute(_namespace(lambda _: None)) == 0


def test_a_failure_in_a_group_is_code_1_and_one_line_without_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.execute(_namespace(_fail_in_a_nursery)) == 1
    assert capsys.readouterr().err == f"zttrio: [Errno {errno.ECONNREFUSED}] nobody listens there\n"


def test_a_failure_of_ours_is_code_1_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: argparse.Namespace) -> None:
        raise WireError("tap tap7: no permission")

    assert cli.execute(_namespace(run)) == 1
    assert capsys.readouterr().err == "zttrio: tap tap7: no permission\n"


def test_an_interrupt_is_code_130_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(_namespace(_be_interrupted_in_a_nursery)) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_not_mistaken_for_a_failure() -> None:
    def run(_: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, allow_unwrapped=True):
        cli.execute(_namespace(run))


@pytest.mark.parametrize(
    ("option", "value"), [("--address", "nonsense"), ("--tap", "a name with spaces")]
)
def test_an_address_or_device_that_makes_no_sense_is_code_1_and_quoted(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ping", "host", option, value]) == 1
    assert value in capsys.readouterr().err


def test_a_command_whose_extra_is_missing_says_how_to_install_it_and_spares_the_others(
    tmp_path: Path,
) -> None:
    program = "import sys; sys.modules['lz4'] = sys.modules['lz4.block'] = None\n"
    program += "from zttrio.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program]
    root = [*command, "root", "--home", str(tmp_path)]
    refused = subprocess.run(root, capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"pip install 'zttrio[zerotier]'" in refused.stderr
    helped = subprocess.run([*command, "ping", "--help"], capture_output=True, check=True)
    assert b"--count" in helped.stdout
