"""Can preloading act in a program?  Asked of real files, and of files made for the question."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from zttrio.errors import InterceptError
from zttrio.intercept import preload
from zttrio.intercept.elf import find_program, objection_to

OWN = Path(sys.executable).resolve()


def make_elf(path: Path, *, kinds: tuple[int, ...] = (), machine: int | None = None) -> Path:
    """A file with the header of an executable and program headers of these kinds."""
    head = bytearray(OWN.read_bytes()[:64])
    if head[4] != 2:
        pytest.skip("made for 64-bit hosts")
    if machine is not None:
        head[18:20] = struct.pack("<H", machine)
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, len(kinds))
    path.write_bytes(bytes(head) + b"".join(struct.pack("<I52x", kind) for kind in kinds))
    path.chmod(0o755)
    return path


def test_this_python_can_be_intercepted() -> None:
    assert objection_to(OWN) is None


def test_a_program_without_a_loader_is_static(tmp_path: Path) -> None:
    assert objection_to(make_elf(tmp_path / "static", kinds=(1, 6))) == "statically linked"
    assert objection_to(make_elf(tmp_path / "dynamic", kinds=(1, 3))) is None


def test_the_loader_itself_is_no_static_program(tmp_path: Path) -> None:
    assert objection_to(make_elf(tmp_path / "ld-linux-x86-64.so.2", kinds=(1,))) is None


def test_another_machine_is_noticed(tmp_path: Path) -> None:
    made = make_elf(tmp_path / "foreign", kinds=(3,), machine=0x1234)
    assert objection_to(made) == "made for another architecture"


def test_a_script_is_what_its_interpreter_is(tmp_path: Path) -> None:
    static = make_elf(tmp_path / "static", kinds=(1,))
    script = tmp_path / "script"
    script.write_text(f"#! {static} -x\necho\n")
    assert objection_to(script) == "statically linked"
    script.write_text(f"#!{OWN}\n")
    assert objection_to(script) is None
    script.write_text(f"#!{script}\n")  # without end
    assert objection_to(script) is None


def test_a_program_that_gains_rights_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to make a file of somebody else's")
    made = make_elf(tmp_path / "setuid", kinds=(3,))
    os.chown(made, 65534, 65534)
    made.chmod(0o4755)
    assert objection_to(made) == "gains rights (set-uid, set-gid or file capabilities)"
    made.chmod(0o755)
    assert objection_to(made) is None


def test_what_cannot_be_run_gets_no_objection(tmp_path: Path) -> None:
    for content in (b"", b"\x7fELF", b"text\n", b"#!\n"):
        path = tmp_path / "file"
        path.write_bytes(content)
        assert objection_to(path) is None
    assert objection_to(tmp_path / "missing") is None


def test_programs_are_found_as_a_shell_finds_them(tmp_path: Path) -> None:
    made = make_elf(tmp_path / "prog", kinds=(3,))
    assert find_program("prog", str(tmp_path)) == made
    assert find_program(str(made)) == made
    assert find_program("prog", "/nonexistent") is None


def test_a_program_that_cannot_be_intercepted_is_not_started(tmp_path: Path) -> None:
    static = make_elf(tmp_path / "static", kinds=(1,))
    with pytest.raises(InterceptError, match="statically linked"):
        preload.check_program([str(static)])
    with pytest.raises(InterceptError, match="no such program"):
        preload.check_program(["no-such-program-anywhere"])


def test_the_environment_names_service_and_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "lib.so"
    monkeypatch.setattr(preload, "find_library", lambda: library)
    made = preload.environment("/run/x", {"A": "b"})
    assert made == {"A": "b", "LD_PRELOAD": str(library), "ZTTRIO_NET": "/run/x"}
    kept = preload.environment("/run/x", {"LD_PRELOAD": "other.so"})
    assert kept["LD_PRELOAD"] == f"{library}:other.so"


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "LIBRARY", "libnot-there.so")
    with pytest.raises(InterceptError, match="reinstall zttrio"):
        preload.find_library()
