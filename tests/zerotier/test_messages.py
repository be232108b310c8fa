from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.zerotier import messages
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.messages import Hello, HelloAnswer, PathHint, Rendezvous, UserMessage

from .data import node_identities
from .test_endpoints import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.zerotier.identity import Identity

_U64 = st.integers(0, 2**64 - 1)
_VERSION = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535))
_PUBLIC = [identity.without_secret() for identity in node_identities()]


@given(
    protocol=st.integers(0, 255),
    version=_VERSION,
    timestamp=_U64,
    identity=st.sampled_from(_PUBLIC),
    sent_to=st.none() | ENDPOINTS,
    planet=st.tuples(_U64, _U64),
    moons=st.lists(st.tuples(_U64, _U64), max_size=5),
)
def test_a_hello_survives_its_encoding(
    protocol: int,
    version: tuple[int, int, int],
    timestamp: int,
    identity: Identity,
    sent_to: Endpoint | None,
    planet: tuple[int, int],
    moons: list[tuple[int, int]],
) -> None:
    hello = Hello(protocol, version, timestamp, identity, sent_to, planet)
    tail = messages.emit_moons(moons)
    parsed = Hello.parse(hello.emit() + tail)
    assert parsed.length == len(hello.emit())
    assert parsed.emit() == hello.emit()
    assert (parsed.identity, parsed.sent_to, parsed.planet) == (identity, sent_to, planet)
    assert messages.parse_moons(tail) == moons


def test_a_hello_may_end_behind_each_of_its_optional_parts() -> None:
    here = Endpoint.parse("10.0.0.1/9993")
    whole = Hello(12, (1, 2, 3), 4, _PUBLIC[0], here, (5, 6)).emit()
    ends = {
        len(whole): (here, (5, 6)),
        len(whole) - 16: (here, None),
        len(whole) - 23: (None, None),
    }
    for length in range(len(whole) + 1):
        if length in ends:
            hello = Hello.parse(whole[:length])
            assert (hello.sent_to, hello.planet) == ends[length]
        else:
            with pytest.raises(HeaderError):
                Hello.parse(whole[:length])


def test_other_kinds_than_moons_in_a_hello_are_skipped() -> None:
    tail = b"\x00\x02" + b"\x01" + bytes(16) + b"\x7f" + bytes(15) + b"\x09"
    assert messages.parse_moons(tail) == [(0, 9)]


@given(
    timestamp=_U64,
    protocol=st.integers(0, 255),
    version=_VERSION,
    seen_from=st.none() | ENDPOINTS,
    worlds=st.binary(max_size=50),
)
def test_an_answer_to_hello_survives_its_encoding(
    timestamp: int,
    protocol: int,
    version: tuple[int, int, int],
    seen_from: Endpoint | None,
    worlds: bytes,
) -> None:
    answer = HelloAnswer(timestamp, protocol, version, seen_from, worlds)
    assert HelloAnswer.parse(answer.emit() + b"later versions may say more") == answer


@given(endpoint=ENDPOINTS.filter(lambda e: e.port > 0), address=st.binary(min_size=5, max_size=5))
def test_a_rendezvous_survives_its_encoding(endpoint: Endpoint, address: bytes) -> None:
    rendezvous = Rendezvous(address, endpoint)
    assert Rendezvous.parse(rendezvous.emit() + b"more") == rendezvous


@given(endpoints=st.lists(ENDPOINTS, max_size=20))
def test_path_hints_survive_their_encoding(endpoints: list[Endpoint]) -> None:
    parsed = messages.parse_path_hints(messages.emit_path_hints(endpoints))
    assert parsed == [PathHint(endpoint) for endpoint in endpoints]


def test_path_hints_of_other_kinds_are_skipped_and_withdrawn_ones_are_marked() -> None:
    odd = bytes.fromhex("00 0003 aabbcc 04 08 0a00000127090000".replace(" ", ""))
    gone = bytes.fromhex("01 0000 04 06 0a0000022709".replace(" ", ""))
    good = bytes.fromhex("00 0001 ff 04 06 0a0000032709".replace(" ", ""))
    hints = messages.parse_path_hints(b"\x00\x03" + odd + gone + good)
    assert hints == [
        PathHint(Endpoint.parse("10.0.0.2/9993"), forget=True),
        PathHint(Endpoint.parse("10.0.0.3/9993")),
    ]


@given(kind=_U64, data=st.binary(max_size=50))
def test_a_user_message_survives_its_encoding(kind: int, data: bytes) -> None:
    assert UserMessage.parse(UserMessage(kind, data).emit()) == UserMessage(kind, data)


@given(data=st.binary(max_size=33))
def test_a_whois_ignores_a_short_rest(data: bytes) -> None:
    addresses = messages.parse_addresses(data)
    assert len(addresses) == len(data) // 5
    assert b"".join(addresses) == data[: len(addresses) * 5]


@pytest.mark.parametrize(
    "parse",
    [
        Hello.parse,
        HelloAnswer.parse,
        Rendezvous.parse,
        UserMessage.parse,
        messages.parse_ok,
        messages.parse_error,
        messages.parse_path_hints,
        messages.parse_moons,
        messages.parse_worlds,
        messages.parse_addresses,
    ],
    ids=lambda parse: parse.__qualname__,
)
@given(data=st.binary(max_size=200))
def test_junk_parses_or_raises_a_header_error(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    with contextlib.suppress(HeaderError):
        parse(data)


def test_verbs_have_names_also_those_that_do_not_exist() -> None:
    assert messages.verb_name(messages.HELLO) == "HELLO"
    assert messages.verb_name(0x1F) == "0x1f"
