"""The processes that a benchmark measures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

__all__ = ["Failed", "Process"]

ROOT = Path(__file__).parents[1]


class Failed(Exception):
    """A measurement came to nothing; the text has what the processes said."""


class Process:
    """A running module of this package, whose last line is JSON.

    It is killed at the end of the block at the latest.
    """

    def __init__(self, module: str, netns: str | None, *arguments: str) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        if netns is not None:
            command = ["ip", "netns", "exec", netns, *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise Failed(self._last_words())

    def result(self, limit: float) -> dict[str, Any]:
        try:
            output, errors = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired as exc:
            raise Failed(f"no end after {limit:g} s") from exc
        if self._process.returncode:
            raise Failed(errors.strip() or f"exit code {self._process.returncode}")
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result

    def _last_words(self) -> str:
        return self._process.communicate()[1].strip() or "ended without a word"
