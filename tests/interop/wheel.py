"""The real core: the shared object of the libzt wheel, and what it needs to be loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

__all__ = ["NoWheelError", "prepare"]

HERE = Path(__file__).parent
WHEEL = "libzt-1.8.4-cp39-cp39-manylinux2010_x86_64.whl"
DOWNLOAD = (
    *("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
    *("--python-version", "3.9", "--platform", "manylinux2010_x86_64", "libzt==1.8.4"),
)


class NoWheelError(Exception):
    """The real core cannot be had here; the text says why."""


def prepare(folder: Path, wheel: str | None = None) -> tuple[str, str]:
    """Unpack and build into *folder*; the paths of the shared object and of the stub.

    Args:
        folder: for both.
        wheel: its file; by default the one that ``ZTTRIO_LIBZT_WHEEL`` names, or it is downloaded.

    Raises:
        NoWheelError: there is no wheel, or no C compiler.
    """
    wheel = wheel or os.environ.get("ZTTRIO_LIBZT_WHEEL")
    if wheel is None:
        command = [sys.executable, *DOWNLOAD, "--dest", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoWheelError(f"libzt cannot be downloaded: {done.stderr.strip()[-200:]}")
        wheel = str(folder / WHEEL)
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoWheelError("libzt needs a C compiler for four missing symbols")
    with ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith("x86_64-linux-gnu.so")]
        archive.extract(name, folder)
    stub = folder / "stub.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(stub), str(HERE / "stub.c")], check=True
    )
    return str(folder / name), str(stub)
