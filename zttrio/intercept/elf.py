"""What kind of program a file is, as far as preloading cares: can the library act in it?"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import sys
from pathlib import Path
from typing import BinaryIO

__all__ = ["find_program", "objection_to"]

_MAGIC = b"\x7fELF"
_INTERPRETER = 3  # PT_INTERP
_SCRIPT_DEPTH = 4  # scripts that name scripts; as Linux
_PROGRAM_HEADERS = 128  # looked at; arbitrary
_FIRST_LINE = 256  # Linux's BINPRM_BUF_SIZE


def find_program(command: str, path: str | None = None) -> Path | None:
    """The file that starting *command* would run, or None if there is none."""
    found = shutil.which(command, path=path)
    return None if found is None else Path(found)


def objection_to(program: Path) -> str | None:
    """Why preloading cannot act in *program*, or None if it can.

    A file that cannot be read, or is nothing the kernel can run, gets no objection: starting it
    fails anyway, with a better message.
    """
    return _objection(program, 0)


def _objection(program: Path, depth: int) -> str | None:
    try:
        with open(program, "rb") as file:
            head = file.read(_FIRST_LINE)
            if head.startswith(b"#!") and depth < _SCRIPT_DEPTH:
                words = head[2:].split(b"\n", 1)[0].split()
                return _objection(Path(os.fsdecode(words[0])), depth + 1) if words else None
            if not head.startswith(_MAGIC) or len(head) < 52:
                return None
            if not _is_native(head):
                return "made for another architecture"
            if _gains_rights(os.fstat(file.fileno()), program):
                return "gains rights (set-uid, set-gid or file capabilities)"
            if not _has_interpreter(head, file) and not program.name.startswith("ld"):
                return "statically linked"
    except OSError:
        return None
    return None


def _is_native(head: bytes) -> bool:
    """The same word size, byte order and machine as the Python that runs this."""
    own = Path(sys.executable).resolve()
    with open(own, "rb") as file:
        mine = file.read(20)
    return head[4:6] == mine[4:6] and head[18:20] == mine[18:20]


def _has_interpreter(head: bytes, file: BinaryIO) -> bool:
    order = "<" if head[5] == 1 else ">"
    if head[4] == 2:  # ELFCLASS64
        (offset,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
    else:
        (offset,) = struct.unpack_from(f"{order}I", head, 28)
        size, count = struct.unpack_from(f"{order}HH", head, 42)
    for number in range(min(count, _PROGRAM_HEADERS)):
        file.seek(offset + number * size)
        kind = file.read(4)
        if len(kind) == 4 and struct.unpack(f"{order}I", kind)[0] == _INTERPRETER:
            return True
    return False


def _gains_rights(status: os.stat_result, program: Path) -> bool:
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        return True
    if (
        status.st_mode & stat.S_ISGID
        and status.st_mode & stat.S_IXGRP
        and status.st_gid != os.getgid()
    ):
        return True
    if os.getuid() == 0:
        return False
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False  # it has none
