"""A process in a namespace that carries out commands, several at a time, and answers in JSON."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Station"]

ROOT = Path(__file__).parent.parent.parent


class Station:
    """The process; its last lines are in every error.

    Args:
        namespace: where it lives.
        command: a Python script of this project, and its arguments.

    Attributes:
        namespace: as given.
        command: as given.
        ready: what it said when it was ready; see `wait_ready`.
    """

    def __init__(self, namespace: str, *command: str) -> None:
        self.namespace = namespace
        self.command = command
        self.ready: dict[str, Any] = {}
        self._serial = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._has_ended = False
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def wait_ready(self, seconds: float = 60) -> dict[str, Any]:
        """What it says when it has started: its node's address, for one."""
        self.ready = self._wait(0, seconds)
        return self.ready

    def start(self, do: str, **fields: Any) -> int:
        """Give a command; returns a number for `finish`."""
        number = next(self._serial)
        line = json.dumps({"id": number, "do": do, **fields}) + "\n"
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # who waits for the answer is told that there is none
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        return number

    def finish(self, number: int, seconds: float = 60) -> dict[str, Any]:
        """What became of a command."""
        answer = self._wait(number, seconds)
        if "error" in answer:
            raise AssertionError(f"{answer['error']}; it said {self._lines[-8:]}")
        return answer

    def ask(self, do: str, seconds: float = 60, **fields: Any) -> dict[str, Any]:
        """Give a command, and return what became of it."""
        return self.finish(self.start(do, **fields), seconds)

    def wait_until(self, do: str, seconds: float, **wanted: Any) -> dict[str, Any]:
        """Ask again and again, until the answer is like *wanted*."""
        end = time.monotonic() + seconds
        while True:
            answer = self.ask(do)
            if wanted.items() <= answer.items():
                return answer
            if time.monotonic() > end:
                raise AssertionError(f"{do}: wanted {wanted}, got {answer}")
            time.sleep(0.05)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()

    def _wait(self, number: int, seconds: float) -> dict[str, Any]:
        with self._news:
            if not self._news.wait_for(
                lambda: number in self._answers or self._has_ended, timeout=seconds
            ):
                raise AssertionError(f"no answer in {seconds} s; it said {self._lines[-20:]}")
            if number not in self._answers:
                code = self.process.wait()
                raise AssertionError(f"it has ended with {code}: {self._lines[-40:]}")
            return self._answers.pop(number)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                if line.startswith(b'{"id"'):
                    answer = json.loads(line)
                    self._answers[answer.pop("id")] = answer
                else:
                    self._lines.append(line.decode(errors="replace").rstrip())
                    del self._lines[:-100]
                self._news.notify_all()
        with self._news:
            self._has_ended = True
            self._news.notify_all()
