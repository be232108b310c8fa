"""The codec between intercept and tap service: what goes in comes out, and junk only raises."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import RpcError
from zttrio.tap import rpc

if TYPE_CHECKING:
    from collections.abc import Callable

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 2**64 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
payloads = st.binary(max_size=200)
texts = st.text(max_size=20).filter(lambda text: "\0" not in text)
sockaddrs = st.one_of(
    st.builds(rpc.Sockaddr, st.binary(min_size=4, max_size=4), u16),
    st.builds(rpc.Sockaddr, st.binary(min_size=16, max_size=16), u16, u32, u32),
)
emitted = st.one_of(st.just(b""), sockaddrs.map(rpc.Sockaddr.emit))


@given(st.builds(rpc.Request, st.integers(0, 127), u16, u32, u64, i32, i32, payloads))
def test_a_request_survives_the_trip(request: rpc.Request) -> None:
    assert rpc.Request.parse(request.emit()) == request


@given(st.builds(rpc.Answer, st.integers(0, 127), u32, i32, i32, u16, u64, payloads))
def test_an_answer_survives_the_trip(answer: rpc.Answer) -> None:
    assert rpc.Answer.parse(answer.emit()) == answer


@given(sockaddrs)
def test_a_socket_address_survives_the_trip(address: rpc.Sockaddr) -> None:
    assert rpc.Sockaddr.parse(address.emit()) == address
    assert rpc.Sockaddr.parse(memoryview(address.emit() + b"tail")) == address


@given(st.builds(rpc.AcceptRecord, u64, emitted, emitted, u16))
def test_an_accept_record_survives_the_trip(record: rpc.AcceptRecord) -> None:
    assert rpc.AcceptRecord.parse(record.emit()) == record


local_addresses = st.sampled_from([b"", b"\x0a\0\0\1", bytes(15) + b"\1"])


@given(
    st.builds(
        rpc.DatagramHeader,
        emitted,
        local_addresses,
        u16,
        st.integers(0, 255),
        st.integers(0, 255),
        u32,
        u64,
    )
)
def test_a_datagram_header_survives_the_trip(header: rpc.DatagramHeader) -> None:
    assert rpc.DatagramHeader.parse(header.emit() + b"payload") == header


@given(st.builds(rpc.HelloRequest, i32, i32, texts, texts))
def test_a_hello_survives_the_trip(hello: rpc.HelloRequest) -> None:
    assert rpc.HelloRequest.parse(hello.emit()) == hello


def test_a_hello_answer_survives_the_trip() -> None:
    answer = rpc.HelloAnswer(rpc.FEATURE_STRICT, 77, "0.1.0", "host segment", bytes(range(32)))
    assert rpc.HelloAnswer.parse(answer.emit()) == answer


rows = st.builds(rpc.ResolveRow, u16, u16, u16, emitted)


@given(st.builds(rpc.ResolveAnswer, st.lists(rows, max_size=5), texts))
def test_a_resolve_answer_survives_the_trip(answer: rpc.ResolveAnswer) -> None:
    assert rpc.ResolveAnswer.parse(answer.emit()) == answer


def test_an_interface_survives_the_trip() -> None:
    address, mask, broadcast = (
        rpc.Sockaddr(bytes(octets), 0).emit()
        for octets in ((10, 1, 2, 3), (255, 0, 0, 0), (10, 255, 255, 255))
    )
    row = rpc.InterfaceRow("zt0", 2, 0x1043, 2800, b"\2\1\1\1\1\1", address, mask, broadcast)
    assert rpc.InterfaceRow.parse(row.emit()) == row
    bare = rpc.InterfaceRow("lo", 1, 0x49, 65536, bytes(6))
    assert rpc.InterfaceRow.parse(bare.emit()) == bare


@given(st.builds(rpc.QueryRow, *[st.integers(0, 255)] * 2, u16, u16))
def test_a_query_row_survives_the_trip(row: rpc.QueryRow) -> None:
    assert rpc.QueryRow.parse(row.emit()) == row


@given(st.lists(st.tuples(i32, i32, st.binary(max_size=20)), max_size=5))
def test_options_survive_the_trip(options: list[tuple[int, int, bytes]]) -> None:
    assert rpc.parse_options(rpc.pack_options(options)) == options


PARSERS: list[Callable[[bytes], object]] = [
    rpc.Request.parse,
    rpc.Answer.parse,
    rpc.Sockaddr.parse,
    rpc.AcceptRecord.parse,
    rpc.DatagramHeader.parse,
    rpc.HelloRequest.parse,
    rpc.HelloAnswer.parse,
    rpc.ResolveAnswer.parse,
    rpc.InterfaceRow.parse,
    rpc.QueryRow.parse,
    rpc.parse_options,
]
VALID = [
    rpc.Request(rpc.OP_BIND, payload=bytes(16)).emit(),
    rpc.Answer(rpc.OP_BIND, 1).emit(),
    rpc.AcceptRecord(1, b"", b"").emit(),
    rpc.DatagramHeader().emit(),
    rpc.HelloRequest(1, 2, "/bin/a", "a").emit(),
    rpc.ResolveAnswer([rpc.ResolveRow(2, 1, 6, bytes(16))], "a").emit(),
    rpc.InterfaceRow("lo", 1, 0, 1, bytes(6)).emit(),
    rpc.pack_options([(1, 2, b"abcd")]),
]


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.binary(max_size=150))
def test_any_octets_parse_or_raise_rpc_error(parse: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(RpcError):
        parse(data)


@pytest.mark.parametrize("parse", PARSERS)
@given(seed=st.sampled_from(VALID), at=st.integers(0, 200), value=st.integers(0, 255))
def test_a_damaged_message_parses_or_raises_rpc_error(
    parse: Callable[[bytes], object], seed: bytes, at: int, value: int
) -> None:
    damaged = bytearray(seed)
    damaged[at % len(damaged)] = value
    with contextlib.suppress(RpcError):
        parse(bytes(damaged))


def test_a_payload_above_the_limit_is_refused() -> None:
    fits = rpc.Request(rpc.OP_NOTE, payload=bytes(rpc.PAYLOAD_LIMIT))
    assert rpc.Request.parse(fits.emit()) == fits
    with pytest.raises(RpcError, match="above 4096"):
        rpc.Request.parse(rpc.Request(rpc.OP_NOTE, payload=bytes(rpc.PAYLOAD_LIMIT + 1)).emit())


def test_an_answer_is_not_taken_for_a_request() -> None:
    with pytest.raises(RpcError, match="an answer's"):
        rpc.Request.parse(rpc.Answer(rpc.OP_BIND, 1).emit())
    with pytest.raises(RpcError, match="a request's"):
        rpc.Answer.parse(rpc.Request(rpc.OP_BIND).emit())


def test_another_version_is_recognised_so_that_it_can_be_told_ours() -> None:
    message = bytearray(rpc.Request(rpc.OP_HELLO, seq=9).emit())
    message[4] = 7
    with pytest.raises(RpcError, match="version is 7"):
        rpc.Request.parse(message)
    assert rpc.version_of(message) == (7, rpc.OP_HELLO, 9)
    assert rpc.version_of(bytes(32)) is None


def test_a_socket_address_is_what_the_kernel_would_write() -> None:
    assert rpc.Sockaddr(b"\x7f\0\0\1", 80).emit()[2:] == b"\0\x50\x7f\0\0\1" + bytes(8)
    six = rpc.Sockaddr(bytes(15) + b"\1", 443, flow_info=0x01020304, scope=0).emit()
    assert six[2:8] == b"\x01\xbb\1\2\3\4"
    assert rpc.family_of(six) == rpc.AF_INET6
    assert rpc.family_of(b"") == 0


def test_names_that_are_no_utf8_survive() -> None:
    assert rpc.parse_texts(b"/tmp/\xff\0x\0", 2) == ["/tmp/\udcff", "x"]
    assert rpc.emit_texts("/tmp/\udcff", "x") == b"/tmp/\xff\0x\0"
