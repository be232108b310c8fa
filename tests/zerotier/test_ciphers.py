from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.zerotier.crypto import Backend, Lanes, open_backend

from .data import BACKEND_NAMES, BACKENDS, names, vectors

_KEY = st.binary(min_size=32, max_size=32)
_IV = st.binary(min_size=8, max_size=8)


@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
@pytest.mark.parametrize("vector", vectors("salsa20"), ids=names("salsa20"))
def test_key_streams_are_those_of_the_recorded_vectors(
    backend: Backend, vector: dict[str, Any]
) -> None:
    key, iv = bytes.fromhex(vector["key"]), bytes.fromhex(vector["iv"])
    stream = bytes.fromhex(vector["keystream_first_192"])
    if vector["rounds"] == 12:
        assert backend.salsa20_12_xor(key, iv, bytes(192)) == stream
    else:
        assert backend.salsa20_20(key, iv, 192) == stream


@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
def test_a_long_stream_goes_on_where_a_short_one_ends(backend: Backend) -> None:
    key, iv = bytes(range(32)), bytes(range(8))
    stream = backend.salsa20_20(key, iv, 64 * 1100 + 7)  # more than one chunk of the lanes
    assert len(stream) == 64 * 1100 + 7
    assert stream[: 64 * 3] == backend.salsa20_20(key, iv, 64 * 3)
    data = bytes(range(256)) * 50
    long = backend.salsa20_12_xor(key, iv, data)
    assert long[:777] == backend.salsa20_12_xor(key, iv, data[:777])
    assert backend.salsa20_12_xor(key, iv, long) == data


@pytest.mark.skipif(len(BACKENDS) < 2, reason="this machine has no libsodium to compare with")
@settings(deadline=None)
@given(key=_KEY, iv=_IV, data=st.binary(max_size=400))
def test_all_backends_give_the_same_octets(key: bytes, iv: bytes, data: bytes) -> None:
    lanes = Lanes()
    for backend in BACKENDS:
        assert backend.salsa20_12_xor(key, iv, data) == lanes.salsa20_12_xor(key, iv, data)
        assert backend.salsa20_20(key, iv, len(data)) == lanes.salsa20_20(key, iv, len(data))
        assert backend.poly1305(key, data) == lanes.poly1305(key, data)


def test_a_backend_is_found_by_its_name_and_a_wrong_name_says_which_there_are() -> None:
    assert open_backend("lanes").name == "lanes"
    assert open_backend().name == BACKEND_NAMES[0]
    with pytest.raises(ValueError, match=r"this machine has .*lanes"):
        open_backend("enigma")
