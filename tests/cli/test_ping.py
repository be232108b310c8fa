"""``zttrio ping`` on a host segment."""

from __future__ import annotations

import re

import pytest

import zttrio
from zttrio.cli.main import make_parser

pytestmark = pytest.mark.usefixtures("segment")


async def _ping(*arguments: str) -> int:
    namespace = make_parser().parse_args(["ping", "--address", "10.9.0.2/24", *arguments])
    code = await namespace.run(namespace)
    assert isinstance(code, int)
    return code


async def test_every_answer_gets_a_line_and_a_summary_follows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with zttrio.Network(addresses=["10.9.0.1/24"], name="there"):
        code = await _ping("-c", "3", "-i", "0.001", "10.9.0.1")
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert len(lines) == 4
    for number, line in enumerate(lines[:3], 1):
        assert re.fullmatch(rf"answer from 10\.9\.0\.1: seq={number} time=\d+\.\d{{3}} ms", line)
    assert lines[3].startswith("10.9.0.1: 3 sent, 3 answered, min ")


async def test_silence_is_code_1_and_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = await _ping("-c", "2", "-i", "0.001", "-W", "0.01", "10.9.0.77")
    output = capsys.readouterr()
    assert code == 1
    assert output.out == "10.9.0.77: 2 sent, 0 answered\n"
    assert output.err.count("no answer from 10.9.0.77: seq=") == 2


async def test_a_host_without_a_way_to_it_is_code_1_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = await _ping("-c", "1", "192.0.2.1")
    assert code == 1
    assert "no route" in capsys.readouterr().err


async def test_a_published_name_is_pinged_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    async with zttrio.Network(addresses=["10.9.0.1/24"], name="there") as there:
        await there.wait_online()
        code = await _ping("-c", "1", "there.local")
    assert code == 0
    assert "answer from there.local: seq=1" in capsys.readouterr().out
