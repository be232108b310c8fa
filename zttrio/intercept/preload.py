"""Front door A: starts programs with the preload library, which asks a tap service for sockets.

Knows nothing of networks: the service is running, and its address is all that is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from zttrio.errors import InterceptError

from .elf import find_program, objection_to

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

__all__ = ["environment", "find_library", "run_process"]

LIBRARY = "libzttrio_intercept.so"


def find_library() -> Path:
    """Where the preload library is.

    Raises:
        InterceptError: it was not built; the text says what to do.
    """
    path = Path(__file__).parents[1] / "_native" / LIBRARY
    if not path.is_file():
        raise InterceptError(
            f"preload library {path}: not there; reinstall zttrio on Linux with a C compiler "
            "(apt install gcc libc6-dev, then pip install --force-reinstall zttrio)"
        )
    return path


def environment(address: str, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program that shall live on the network of a tap service.

    Args:
        address: of the service, see `zttrio.tap.service.TapService`.
        base: what to start from; this process's own by default.

    Raises:
        InterceptError: the preload library was not built.
    """
    made = dict(os.environ if base is None else base)
    others = made.get("LD_PRELOAD", "")
    library = str(find_library())
    made["LD_PRELOAD"] = f"{library}:{others}" if others else library
    made["ZTTRIO_NET"] = address
    return made


def check_program(command: Sequence[str], path: str | None = None) -> None:
    """Make sure that preloading can act in what *command* starts.

    Raises:
        InterceptError: it cannot, and why.
    """
    program = find_program(command[0], path)
    if program is None:
        raise InterceptError(f"{command[0]}: no such program")
    objection = objection_to(program)
    if objection is not None:
        raise InterceptError(
            f"{program}: {objection}, so the preload library would have no effect in it "
            "and the program would use the host's network"
        )


async def run_process(
    command: Sequence[str],
    *,
    address: str,
    env: Mapping[str, str] | None = None,
    is_strict: bool = True,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Run *command* with its sockets on the network of the tap service at *address*.

    If this is cancelled the program is asked to end, and killed if it does not.

    Args:
        command: the program and its arguments.
        address: of the tap service.
        env: its environment; this process's own by default.
        is_strict: refuse programs in which preloading cannot act.
        **options: as `trio.run_process`.

    Raises:
        InterceptError: there is no preload library, no such program, or it cannot be intercepted.
        subprocess.CalledProcessError: it ended badly; not with ``check=False``.
    """
    made = environment(address, env)
    if is_strict:
        check_program(command, made.get("PATH"))
    return await trio.run_process(list(command), env=made, **options)
