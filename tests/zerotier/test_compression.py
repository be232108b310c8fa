from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.zerotier.compression import MAX_PAYLOAD, compress, decompress

from .data import names, vectors


@pytest.mark.parametrize("vector", vectors("lz4"), ids=names("lz4"))
def test_real_blocks_are_read_and_bad_ones_refused(vector: dict[str, Any]) -> None:
    if vector["payload"] is None:
        with pytest.raises(HeaderError):
            decompress(bytes.fromhex(vector["compressed_payload"]))
        return
    payload = bytes.fromhex(vector["payload"])
    if vector["compressed_payload"] is None:
        assert compress(payload) is None  # as in the recording: too short, or no gain
        return
    assert decompress(bytes.fromhex(vector["compressed_payload"])) == payload
    ours = compress(payload)
    assert ours is not None
    assert decompress(ours) == payload


@pytest.mark.parametrize("vector", vectors("compress", "crypto"))
def test_packets_compressed_by_the_newer_core_are_read(vector: dict[str, Any]) -> None:
    before, after = bytes.fromhex(vector["before"]), bytes.fromhex(vector["after"])
    if vector["compressed"]:
        assert decompress(after[28:]) == before[28:]
    else:
        assert compress(before[28:]) is None


def test_an_empty_block_is_an_empty_payload() -> None:
    assert decompress(b"") == b""


def test_the_longest_payload_fits_and_one_octet_more_does_not() -> None:
    for length, fits in ((MAX_PAYLOAD, True), (MAX_PAYLOAD + 1, False)):
        block = compress(bytes(length))
        assert block is not None
        if fits:
            assert decompress(block) == bytes(length)
        else:
            with pytest.raises(HeaderError):
                decompress(block)


@given(data=st.binary(max_size=300))
def test_junk_is_a_bounded_payload_or_a_header_error(data: bytes) -> None:
    with contextlib.suppress(HeaderError):
        assert len(decompress(data)) <= MAX_PAYLOAD


@given(data=st.binary(max_size=500))
def test_what_is_compressed_comes_back(data: bytes) -> None:
    for payload in (data, data * 20):
        block = compress(payload)
        assert block is None or decompress(block) == payload
