"""The pages that walk through the code use names that the code has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("design.md", "performance.md", "under-the-hood.md")
CALL = re.compile(r"(?<![\w.>])([A-Za-z_][\w.]*)\(\)")
# Calls of programs, which are libc's or the kernel's, and Python's own.
FOREIGN = frozenset(
    [
        *("accept", "close", "connect", "dup", "epoll", "exec", "fork", "getaddrinfo", "poll"),
        *("gethostbyname", "getifaddrs", "listen", "read", "recvmsg", "select", "shutdown"),
        *("socket", "socket.send_fds", "trio.socket.socket", "write"),
    ]
)


@cache
def modules() -> list[tuple[str, ast.Module]]:
    """Every file of the package, parsed, with the name that it is imported by."""
    return [
        (path.parent.name if path.stem == "__init__" else path.stem, ast.parse(path.read_bytes()))
        for path in ROOT.glob("zttrio/**/*.py")
    ]


def names_of_python() -> set[str]:
    """`Class`, `function`, `Class.attribute` and `module.function` for all of the package."""
    names: set[str] = set()
    for module, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names |= {node.name, f"{module}.{node.name}"}
            elif isinstance(node, ast.ClassDef):
                names.add(node.name)
                names |= {f"{node.name}.{name}" for name in attributes_of(node)}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def attributes_of(cls: ast.ClassDef) -> set[str]:
    found = {
        node.name for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def bases() -> dict[str, list[str]]:
    """The base classes of every class, by name."""
    return {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for _, tree in modules()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def names_of_c() -> set[str]:
    text = "".join(path.read_text() for path in ROOT.glob("native/**/*.c"))
    defined = re.findall(r"^(?:static )?[a-z]\w*[\w *]*?\b(\w+)\([^;{]*\)\s*\{", text, re.MULTILINE)
    return {*defined, *re.findall(r"^EXPORT\([^,]+, (\w+),", text, re.MULTILINE)}


def called_names(page: str) -> set[str]:
    """Every name with parentheses behind it, without what a table says of 2016."""
    names: set[str] = set()
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        now = line.split("|")[2] if line.startswith("|") else line
        now = re.sub(r"the seed's \S+", "", now)
        names.update(CALL.findall(now))
    return names - FOREIGN


def is_inherited(name: str, python: set[str], parents: dict[str, list[str]]) -> bool:
    """True for `Class.name` that a base class has."""
    cls, _, attribute = name.rpartition(".")
    return any(
        f"{base}.{attribute}" in python or is_inherited(f"{base}.{attribute}", python, parents)
        for base in parents.get(cls, [])
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_name_that_a_page_calls_exists(page: str) -> None:
    python, c, parents = names_of_python(), names_of_c(), bases()
    found = called_names(page)
    assert found
    unknown = {
        name
        for name in found
        if name not in python and name not in c and not is_inherited(name, python, parents)
    }
    assert unknown == set()
