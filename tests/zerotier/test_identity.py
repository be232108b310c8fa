from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError, IdentityError
from zttrio.zerotier.digest import memory_hard_digest
from zttrio.zerotier.identity import Identity, derive_key, verify

from .data import (
    BACKEND_NAMES,
    BACKENDS,
    load,
    names,
    node_identities,
    recorded_identities,
    recorded_identity,
    vectors,
)

if TYPE_CHECKING:
    from zttrio.zerotier.crypto import Backend

_VALID = vectors("identity_valid")
_BY_ADDRESS = {v["address"]: Identity.parse_text(v["secret_string"]) for v in _VALID}


@pytest.mark.parametrize("vector", _VALID, ids=names("identity_valid"))
def test_a_real_identity_survives_both_forms(vector: dict[str, Any]) -> None:
    identity = Identity.parse_text(vector["secret_string"])
    assert identity.secret_text() == vector["secret_string"]
    assert identity.text() == vector["public_string"]
    assert identity.emit().hex() == vector["public_binary"]
    assert Identity.parse(bytes.fromhex(vector["public_binary"])) == (identity, 71)
    assert str(identity) == vector["address"]


def test_a_secret_that_comes_from_the_network_is_forgotten() -> None:
    binary = bytes.fromhex(_VALID[0]["secret_binary"])
    identity, end = Identity.parse(binary)
    assert identity.secret is None
    assert end == len(binary) == 71 + 64


@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
def test_the_memory_hard_digest_is_the_real_one(backend: Backend) -> None:
    _check_digests(_VALID[:1], backend)  # a tenth of a second to a whole one for each


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
def test_all_recorded_digests_are_the_real_ones(backend: Backend) -> None:
    _check_digests(_VALID, backend)


def _check_digests(recorded: list[dict[str, Any]], backend: Backend) -> None:
    for vector in recorded:
        public = bytes.fromhex(vector["public_binary"])[6:70]
        assert memory_hard_digest(public, backend).hex() == vector["hash_final_digest"]


def test_real_identities_are_valid() -> None:
    for identity in [_BY_ADDRESS["c2074114a8"], recorded_identities()[0]]:
        assert identity.is_valid(BACKENDS[0])


@pytest.mark.slow
def test_all_real_identities_and_all_of_ours_are_valid() -> None:
    for identity in [*_BY_ADDRESS.values(), *recorded_identities(), *node_identities()]:
        assert identity.is_valid(BACKENDS[0])


@pytest.mark.parametrize("vector", vectors("identity_invalid"), ids=names("identity_invalid"))
def test_a_damaged_identity_is_refused_at_the_right_step(vector: dict[str, Any]) -> None:
    if vector["rejected_by"] == "validation":
        assert not Identity.parse_text(vector["string"]).is_valid(BACKENDS[0])
    else:
        with pytest.raises(IdentityError):
            Identity.parse_text(vector["string"])


def test_an_identity_of_the_real_tool_with_a_foreign_address_is_not_valid() -> None:
    for vector in load("identities")["invalid"]:
        assert not Identity.parse_text(vector["public"]).is_valid(BACKENDS[0])


def test_trailing_white_space_and_upper_case_are_accepted() -> None:
    text = _VALID[0]["secret_string"]
    assert Identity.parse_text(text + " \r\n").secret_text() == text
    assert Identity.parse_text(text.upper()).secret_text() == text


@pytest.mark.parametrize(
    ("at", "octet"), [(5, 1), (0, 0xFF), (70, 1), (70, 63), (70, 65), (70, 64)]
)
def test_a_binary_identity_with_an_impossible_field_is_refused(at: int, octet: int) -> None:
    binary = bytearray.fromhex(_VALID[0]["public_binary"])
    binary[at] = octet
    with pytest.raises(HeaderError):
        Identity.parse(binary)


@given(data=st.binary(max_size=160), offset=st.integers(0, 100))
def test_junk_is_an_identity_or_a_header_error(data: bytes, offset: int) -> None:
    try:
        identity, end = Identity.parse(data, offset)
    except HeaderError:
        return
    assert end <= len(data)
    assert identity.emit()[:70] == data[offset : offset + 70]


@pytest.mark.parametrize("vector", vectors("key_agreement"))
def test_two_nodes_agree_on_the_recorded_key(vector: dict[str, Any]) -> None:
    a, b = _BY_ADDRESS[vector["a"]], _BY_ADDRESS[vector["b"]]
    assert a.agree(b).hex() == b.agree(a).hex() == vector["key48"]
    assert derive_key(a.agree(b), b"0").hex() == vector["kbkdf_0"]
    assert derive_key(a.agree(b), b"1").hex() == vector["kbkdf_1"]


@pytest.mark.parametrize("vector", vectors("agree", "crypto"))
def test_agreement_is_that_of_the_newer_core_too(vector: dict[str, Any]) -> None:
    key = recorded_identity(vector["a"]).agree(recorded_identity(vector["b"]))
    assert key.hex() == vector["key48"]
    assert derive_key(key, b"0")[:32].hex() == vector["aes_gmac_siv_k0"]
    assert derive_key(key, b"1")[:32].hex() == vector["aes_gmac_siv_k1"]


@pytest.mark.parametrize("vector", vectors("kbkdf_hmac_sha384"))
def test_keys_for_one_purpose_are_derived_as_recorded(vector: dict[str, Any]) -> None:
    derived = derive_key(
        bytes.fromhex(vector["key"]),
        bytes((vector["label"],)),
        context=vector["context"],
        iteration=vector["iteration"],
    )
    assert derived.hex() == vector["out"]


def test_a_public_key_of_small_order_agrees_on_nothing() -> None:
    mine = node_identities()[0]
    theirs = Identity(b"\x01\x02\x03\x04\x05", bytes(64))
    with pytest.raises(HeaderError, match="nothing secret"):
        mine.agree(theirs)


@pytest.mark.parametrize("vector", vectors("signature"), ids=names("signature"))
def test_signatures_are_checked_strictly(vector: dict[str, Any]) -> None:
    signer = _BY_ADDRESS[vector["signer"]]
    message, signature = bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"])
    assert signer.verify(message, signature) is vector["valid"]
    if vector["valid"]:
        assert signer.sign(message) == signature


@pytest.mark.parametrize("vector", vectors("sign", "crypto"))
def test_signatures_are_those_of_the_newer_core(vector: dict[str, Any]) -> None:
    signer = recorded_identity(vector["identity"])
    message, signature = bytes.fromhex(vector["message_hex"]), bytes.fromhex(vector["signature"])
    assert vector["verifies"]
    assert signer.sign(message) == signature
    assert signer.verify(message, signature)


@given(length=st.integers(0, 200))
def test_only_96_octets_can_be_a_signature(length: int) -> None:
    signer = node_identities()[0]
    signature = (signer.sign(b"x") * 3)[:length]
    assert verify(signer.public, b"x", signature) is (length == 96)


def test_without_the_secret_there_is_neither_signature_nor_key_nor_secret_text() -> None:
    public = node_identities()[0].without_secret()
    for attempt in (
        lambda: public.sign(b"x"),
        lambda: public.agree(node_identities()[1]),
        public.secret_text,
    ):
        with pytest.raises(IdentityError, match="secret is not known"):
            attempt()


def test_secrets_are_not_shown() -> None:
    identity = node_identities()[0]
    assert identity.secret is not None
    assert identity.secret.hex()[:16] not in repr(identity)
    assert repr(identity.secret)[2:10] not in repr(identity)


def test_a_new_identity_is_the_first_attempt_whose_work_is_enough() -> None:
    known = node_identities()[0]
    assert known.secret is not None
    # One random Ed25519 seed, then X25519 secrets until one is good; the first here is not.
    drawn = iter([known.secret[32:], bytes(range(1, 33)), known.secret[:32]])
    identity = Identity.generate(lambda length: next(drawn)[:length], BACKENDS[0])
    assert identity.secret_text() == known.secret_text()
    assert next(drawn, None) is None


@pytest.mark.slow
def test_a_generated_identity_is_valid() -> None:
    identity = Identity.generate(random.Random(7).randbytes, BACKENDS[0])
    assert identity.is_valid(BACKENDS[0])
    assert Identity.parse_text(identity.secret_text()) == identity
