#!/usr/bin/env python3
"""Every type of the public interface is known, says pyright.

``pyright --verifytypes`` looks at every module whose name has no underscore.  Public is only what
`zttrio`, `zttrio.abc`, `zttrio.wire`, `zttrio.testing` and `zttrio.errors` list in ``__all__``, so
that is what fails this check; the figure for everything is printed for comparison.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

PUBLIC = ("zttrio", "zttrio.abc", "zttrio.errors", "zttrio.testing", "zttrio.wire")
# Hands out objects of the stack, which is not public and has attributes of inferred types.
INFERRED = ("zttrio.testing.trace.TcpTrace",)


def public_names() -> set[str]:
    """Where the public objects are defined, as ``module.name``."""
    names = set()
    for module in map(import_module, PUBLIC):
        for name in module.__all__:
            thing = getattr(module, name)
            names.add(f"{getattr(thing, '__module__', module.__name__)}.{name}")
    return names.difference(INFERRED)


def main() -> int:
    folder = Path(sys.executable).parent  # pyright takes the first python of the PATH
    done = subprocess.run(
        [folder / "pyright", "--verifytypes", "zttrio", "--ignoreexternal", "--outputjson"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    names = public_names()
    checked = [
        symbol
        for symbol in report["symbols"]
        if any(symbol["name"] == name or symbol["name"].startswith(f"{name}.") for name in names)
    ]
    unknown = [
        symbol for symbol in checked if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
    ]
    for symbol in unknown:
        for diagnostic in symbol["diagnostics"] or [{"message": "type is not known"}]:
            print(f"{symbol['name']}: {diagnostic['message']}")
    print(
        f"public: {len(checked) - len(unknown)} of {len(checked)} types known;"
        f" everything: {report['completenessScore']:.1%}"
    )
    if not checked:
        print("pyright found no public symbol: is zttrio installed?")
    return int(bool(unknown) or not checked)


if __name__ == "__main__":
    sys.exit(main())
