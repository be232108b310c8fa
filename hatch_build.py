"""Builds the optional C libraries beside the package, when there is a compiler.

hatchling runs this for wheels, editable installs among them.  The libraries use no Python API, so
one ``py3-none-<platform>`` wheel serves every Python.  Without a compiler the wheel is a pure one,
and one warning says what is missing from it.  ``python hatch_build.py`` builds in place.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script: hatchling is only there while a wheel is being built
    BuildHookInterface = object  # type: ignore[misc,assignment]

FOLDER = Path("zttrio", "_native")
FLAGS = ["-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-fvisibility=hidden"]
LIBRARIES: dict[str, tuple[str, list[str], str]] = {
    # file name: sources, flags of its own, what does not work without it
    "libzttrio_intercept.so": (
        "native/intercept/*.c",
        ["-ftls-model=initial-exec", "-Wl,-z,nodelete", "-Wl,-Bsymbolic", "-ldl", "-lpthread"],
        "zttrio run --via preload",
    ),
    "libzttrio_kernels.so": ("native/kernels.c", ["-O3"], "the fast path on wires of plain frames"),
}


class LibrariesHook(BuildHookInterface):  # type: ignore[type-arg,unused-ignore]
    """The hook that ``[tool.hatch.build.targets.wheel.hooks.custom]`` names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and tell hatchling what to put into the wheel."""
        del version
        problems = build(Path(self.root))
        if problems:
            self.app.display_warning("zttrio: built without " + "; ".join(problems))
        built = [
            str(FOLDER / name) for name in LIBRARIES if (Path(self.root) / FOLDER / name).is_file()
        ]
        if built:
            build_data["artifacts"] += built
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"


def build(root: Path) -> list[str]:
    """Compile what has sources under *root*; what could not be built, and why."""
    problems = []
    compiler = find_compiler()
    for name, (pattern, flags, purpose) in LIBRARIES.items():
        sources = sorted(root.glob(pattern))
        if not sources:
            continue
        target = root / FOLDER / name
        if not sys.platform.startswith("linux"):
            problems.append(f"{name} ({purpose}): it is for Linux only")
        elif compiler is None:
            problems.append(f"{name} ({purpose}): there is no C compiler")
        elif (reason := compile_library(compiler, sources, flags, target)) is not None:
            problems.append(f"{name} ({purpose}): {reason}")
        else:
            continue
        target.unlink(missing_ok=True)  # an old one would be worse than none
    return problems


def find_compiler() -> list[str] | None:
    """The command in ``CC``, or the usual names; None if there is nothing to call."""
    candidates = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for candidate in candidates:
        words = shlex.split(candidate)
        if words and shutil.which(words[0]):
            return words
    return None


def compile_library(
    compiler: list[str], sources: list[Path], flags: list[str], target: Path
) -> str | None:
    """Compile *sources* into the shared library *target*; the reason if that fails."""
    target.parent.mkdir(exist_ok=True)
    # A running program may have the old library mapped: never write into that file.
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    extra = shlex.split(os.environ.get("CFLAGS", ""))
    command = [*compiler, *FLAGS, *extra, *map(str, sources), "-o", str(fresh), *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        fresh.unlink(missing_ok=True)
        lines = [line for line in result.stderr.splitlines() if "error" in line]
        return lines[0] if lines else f"{compiler[0]} ended with {result.returncode}"
    fresh.replace(target)
    return None


if __name__ == "__main__":
    failed = build(Path(__file__).parent)
    print("\n".join(failed) or f"built into {FOLDER}")  # noqa: T201 - run by hand
    sys.exit(bool(failed))
