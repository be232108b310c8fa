"""Puts the sub-commands together, runs the chosen one, and turns how it ends into an exit code.

A sub-command, or a few that belong together, is a module of this package with this function::

    def register(subparsers: Subparsers) -> None:
        parser = subparsers.add_parser("ping", help="measure the round trip to a host")
        ...
        parser.set_defaults(run=run)

``run`` takes the parsed `argparse.Namespace` and returns an exit code (None counts as 0).  It may
be an ordinary function or a coroutine function; a coroutine function is run by trio here.

Exit codes: 0 it worked, 1 it did not (the reason is on standard error), 2 the command line makes
no sense, 130 interrupted from the keyboard.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from zttrio.errors import ZttrioError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "Run",
    "Subparsers",
    "execute",
    "main",
    "make_parser",
]

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], Any]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what shells report

_COMMANDS = ("controller", "join", "nc", "ping", "run", "service", "zerotier")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one ``zttrio`` command line and return its exit code.

    Args:
        arguments: what stands behind ``zttrio``; by default those of this process.

    Raises:
        SystemExit: with 2 if the arguments make no sense, with 0 after ``--help``.
    """
    return execute(make_parser().parse_args(arguments))


def execute(namespace: argparse.Namespace) -> int:
    """Run ``namespace.run`` and turn how it ends into an exit code, and a failure into a message.

    Raises:
        BaseException: whatever is neither a failure of ours nor an interrupt: a bug, with its
            traceback.
    """
    code = EXIT_OK
    try:
        code = _run(namespace.run, namespace)
    except* KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except* (OSError, ZttrioError, trio.BrokenResourceError) as failures:
        for failure in _leaves(failures):
            print(f"zttrio: {failure}", file=sys.stderr)
        code = EXIT_FAILED
    return code


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, with every sub-command registered."""
    parser = argparse.ArgumentParser(
        prog="zttrio",
        description="Put programs on a virtual network without root.",
        epilog="Exit codes: 0 worked, 1 failed, 2 wrong usage, 130 interrupted.",
    )
    version = f"zttrio {metadata.version('zttrio')}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        import_module(f"{__package__}.{name}").register(subparsers)
    return parser


def _run(run: Run, namespace: argparse.Namespace) -> int:
    if inspect.iscoroutinefunction(run):
        return trio.run(run, namespace) or EXIT_OK
    return run(namespace) or EXIT_OK


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
