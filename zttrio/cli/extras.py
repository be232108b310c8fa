"""Sub-commands that need optional packages: imported when one of them is run, not before."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

from zttrio.errors import LocalError

if TYPE_CHECKING:
    import argparse

    from .main import Run

__all__ = ["later"]


def later(module: str, function: str, extra: str) -> Run:
    """The function of that name in a module of this package, imported when it is called.

    Raises:
        LocalError: when it is called, if a package of *extra* is missing.
    """

    async def run(namespace: argparse.Namespace) -> int:
        try:
            command = getattr(import_module(f"{__package__}.{module}"), function)
        except ModuleNotFoundError as exc:
            missing = (exc.name or "zttrio").partition(".")[0]
            if missing == "zttrio":
                raise
            text = f"{missing} is not installed: pip install 'zttrio[{extra}]'"
            raise LocalError(text) from exc
        code = command(namespace)
        if inspect.iscoroutine(code):
            code = await code
        return int(code or 0)

    return run
