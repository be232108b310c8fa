from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.zerotier.armor import FRAGMENTED, SUITE_AES, SUITE_PLAIN, SUITE_SALSA, Armor

from .data import BACKEND_NAMES, BACKENDS, names, recorded_identity, vectors

if TYPE_CHECKING:
    from zttrio.zerotier.crypto import Backend

SUITES = (SUITE_PLAIN, SUITE_SALSA, SUITE_AES)


@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
@pytest.mark.parametrize("vector", vectors("packet_armor"), ids=names("packet_armor"))
def test_packets_are_sealed_as_recorded(backend: Backend, vector: dict[str, Any]) -> None:
    armor = Armor(bytes.fromhex(vector["key48"]), backend)
    plain = bytes.fromhex(vector["plaintext_packet"])
    fragmented = bool(int(vector["flags_byte"], 16) & FRAGMENTED)
    sealed = armor.seal(plain[:8], plain[8:18], plain[27:], vector["suite"], fragmented=fragmented)
    assert sealed.hex() == vector["armored"]
    assert armor.open(sealed) == plain[27:]


@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
@pytest.mark.parametrize("vector", vectors("packet_dearmor_checks"))
def test_a_changed_packet_is_opened_only_if_its_hops_changed(
    backend: Backend, vector: dict[str, Any]
) -> None:
    armor = Armor(bytes.fromhex(vector["key48"]), backend)
    assert (armor.open(bytes.fromhex(vector["armored"])) is not None) is vector["valid"]


@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
@pytest.mark.parametrize("vector", vectors("armor", "crypto"))
def test_packets_are_those_of_the_newer_core(backend: Backend, vector: dict[str, Any]) -> None:
    armor = Armor(recorded_identity(vector["from"]).agree(recorded_identity(vector["to"])), backend)
    before, wire = bytes.fromhex(vector["before"]), bytes.fromhex(vector["wire"])
    fragmented = bool(wire[18] & FRAGMENTED)
    sealed = armor.seal(
        before[:8], before[8:18], before[27:], vector["cipher"], fragmented=fragmented
    )
    assert sealed == wire
    assert armor.open(wire) == before[27:]


@settings(deadline=None)
@given(
    envelope=st.binary(min_size=1, max_size=200),
    suite=st.sampled_from(SUITES),
    fragmented=st.booleans(),
    bit=st.integers(0),
    backend=st.sampled_from(BACKENDS),
)
def test_any_flipped_bit_but_the_hops_is_noticed(
    envelope: bytes, suite: int, fragmented: bool, bit: int, backend: Backend
) -> None:
    armor = Armor(bytes(range(48)), backend)
    sealed = armor.seal(b"packetid", b"destnsourc", envelope, suite, fragmented=fragmented)
    assert armor.open(sealed) == envelope
    bit %= 8 * len(sealed)
    changed = bytearray(sealed)
    changed[bit // 8] ^= 1 << bit % 8
    hop_bit = bit // 8 == 18 and bit % 8 < 3
    assert armor.open(bytes(changed)) == (envelope if hop_bit else None)


@pytest.mark.parametrize("suite", [2, 4, 5, 6, 7])
def test_suites_without_a_key_are_not_opened(suite: int) -> None:
    armor = Armor(bytes(48), BACKENDS[0])
    packet = bytes(18) + bytes((suite << 3,)) + bytes(40)
    assert armor.open(packet) is None


@pytest.mark.parametrize("vector", vectors("hello_computed"), ids=names("hello_computed"))
def test_the_tail_of_a_hello_is_encrypted_as_recorded(vector: dict[str, Any]) -> None:
    armor = Armor(bytes.fromhex(vector["key48"]), BACKENDS[0])
    plain = bytes.fromhex(vector["plaintext_before_crypt"])
    start = vector["crypt_start_offset"]
    envelope = plain[27:start] + armor.hello_tail(plain[:8], plain[start:])
    sealed = armor.seal(plain[:8], plain[8:18], envelope, SUITE_PLAIN, fragmented=False)
    assert sealed.hex() == vector["armored"]
    assert armor.hello_tail(sealed[:8], sealed[start:]) == plain[start:]
