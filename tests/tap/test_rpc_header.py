"""``native/rpc.h`` and ``zttrio/tap/rpc.py`` say the same."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from zttrio.tap import rpc
from zttrio.tap.rpc import message, payload, record

HEADER = (Path(__file__).parents[2] / "native" / "rpc.h").read_text()
CODES = {
    "uint8_t": "B",
    "uint16_t": "H",
    "uint32_t": "I",
    "uint64_t": "Q",
    "int32_t": "i",
    "char": "s",
}
LAYOUTS = {
    "zt_header": message.HEADER,
    "zt_accept_record": record.RECORD,
    "zt_datagram_header": record.DATAGRAM,
    "zt_hello_request": payload.HELLO_REQUEST,
    "zt_hello_answer": payload.HELLO_ANSWER,
    "zt_resolve_head": payload.RESOLVE_HEAD,
    "zt_resolve_row": payload.RESOLVE_ROW,
    "zt_interface_row": payload.INTERFACE_ROW,
    "zt_query_row": payload.QUERY_ROW,
    "zt_option": payload.OPTION,
}


def constants() -> dict[str, int]:
    return {
        name: int(value, 0)
        for name, value in re.findall(r"#define ZT_(\w+) (0x[0-9A-Fa-f]+|\d+)\n", HEADER)
    }


def structures() -> dict[str, str]:
    return dict(re.findall(r"struct (\w+) \{\n(.*?)\n\};", HEADER, re.DOTALL))


def test_every_number_of_the_header_is_in_the_module() -> None:
    found = constants()
    assert len(found) > 50
    assert {name: getattr(rpc, name, None) for name in found} == found


def test_every_number_of_the_module_is_in_the_header() -> None:
    ours = {
        name
        for name, value in vars(rpc).items()
        if name.isupper()
        and type(value) is int
        and not name.startswith(("_", "AF_"))
        and not name.endswith(("_LENGTH", "_ROOM"))
    }
    assert ours == set(constants())


def test_the_header_has_exactly_the_structures_of_the_module() -> None:
    assert set(structures()) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_structure_has_the_layout_of_its_codec(name: str) -> None:
    format_ = ""
    for line in structures()[name].splitlines():
        match = re.fullmatch(r"\s+(\w+) (\w+)(?:\[(\d+)\])?;", line)
        assert match, line
        kind, _, room = match.groups()
        format_ += f"{room}s" if room else CODES[kind]
    assert struct.Struct("=" + format_).format == LAYOUTS[name].format
    # No padding: the C compiler's native layout is the packed one.
    assert struct.calcsize("@" + format_) == struct.calcsize("=" + format_)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_compiler_checks_the_size_of_a_structure(name: str) -> None:
    match = re.search(rf"_Static_assert\(sizeof\(struct {name}\) == (\d+),", HEADER)
    assert match is not None
    assert int(match[1]) == LAYOUTS[name].size
