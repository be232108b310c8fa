from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import Identity, KeyPair
from zttrio.zerotier.world import MOON, PLANET, Root, World, is_update

from .data import load, names, node_identities, vectors
from .test_endpoints import ENDPOINTS

_ROOTS = st.lists(
    st.builds(
        Root,
        st.sampled_from([identity.without_secret() for identity in node_identities()]),
        st.lists(ENDPOINTS, max_size=32).map(tuple),
    ),
    max_size=4,
)
_KEYS = KeyPair.generate(random.Random(1).randbytes)


@pytest.mark.parametrize("vector", vectors("world"), ids=names("world"))
def test_recorded_worlds_are_read_and_written_unchanged(vector: dict[str, Any]) -> None:
    binary = bytes.fromhex(vector["binary"])
    world, end = World.parse(binary)
    assert (end, world.emit()) == (len(binary), binary)
    assert world.kind == vector["type"]
    assert world.id == int(vector["id"])
    assert world.timestamp == vector["timestamp"]
    assert world.update_key.hex() == vector["update_public_key"]
    assert world.signature.hex() == vector["signature"]
    roots = [
        Root(Identity.parse_text(r["identity"]), tuple(map(Endpoint.parse, r["endpoints"])))
        for r in vector["roots"]
    ]
    assert list(world.roots) == roots


@pytest.mark.parametrize("vector", vectors("worlds", "worlds"), ids=lambda v: v["kind"])
def test_files_of_the_real_tools_are_read_and_their_signatures_are_right(
    vector: dict[str, Any],
) -> None:
    binary = bytes.fromhex(vector["hex"])
    world, end = World.parse(binary)
    decoded = vector["decoded_by_real_code"]
    assert end == len(binary) == decoded["bytes"]
    assert world.emit() == binary
    assert (world.kind, world.id, world.timestamp) == (
        decoded["type"],
        decoded["id"],
        decoded["timestamp"],
    )
    assert world.is_signed_by(world.update_key) is decoded["signatureValid"]
    for root, listed in zip(world.roots, decoded["roots"], strict=True):
        assert root.identity.text() == listed["identity"]
        assert [str(e) for e in root.endpoints] == listed["stableEndpoints"]


def test_the_signed_message_is_the_recorded_one() -> None:
    world, _ = World.parse(bytes.fromhex(vectors("world")[0]["binary"]))
    assert world.signed_message().hex() == load("vl1")["world_signed_message"]["message"]


@pytest.mark.parametrize("vector", vectors("world_update_rule"), ids=names("world_update_rule"))
def test_the_update_rule_decides_as_recorded(vector: dict[str, Any]) -> None:
    held = vector["current"] and World.parse(bytes.fromhex(vector["current"]))[0]
    candidate, _ = World.parse(bytes.fromhex(vector["candidate"]))
    assert is_update(held, candidate) is vector["accept"]


@pytest.mark.parametrize("vector", vectors("world_invalid"), ids=names("world_invalid"))
def test_recorded_malformed_worlds_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(HeaderError):
        World.parse(bytes.fromhex(vector["binary"]))


@given(
    kind=st.sampled_from([PLANET, MOON]),
    world_id=st.integers(0, 2**64 - 1),
    timestamp=st.integers(0, 2**64 - 1),
    roots=_ROOTS,
)
def test_a_world_survives_its_encoding_and_any_change_breaks_its_signature(
    kind: int, world_id: int, timestamp: int, roots: list[Root]
) -> None:
    world = World.make(kind, world_id, timestamp, roots, signer=_KEYS)
    assert World.parse(b"before" + world.emit() + b"after", 6) == (world, 6 + len(world.emit()))
    assert world.is_signed_by(_KEYS.public)
    assert not attrs.evolve(world, timestamp=timestamp ^ 1).is_signed_by(_KEYS.public)
    assert not attrs.evolve(world, id=world_id ^ 1).is_signed_by(_KEYS.public)


@pytest.mark.parametrize("length", range(0, 278, 9))
def test_a_world_cut_anywhere_is_refused(length: int) -> None:
    binary = bytes.fromhex(vectors("world")[4]["binary"])  # a moon of 278 octets
    with pytest.raises(HeaderError):
        World.parse(binary[:length])


@given(data=st.binary(max_size=400))
def test_junk_is_a_world_or_a_header_error(data: bytes) -> None:
    head = bytes((MOON,)) + data
    for candidate in (data, head):
        try:
            world, end = World.parse(candidate)
        except HeaderError:
            continue
        assert end <= len(candidate)
        assert len(world.roots) <= 4


def test_too_many_roots_or_endpoints_are_not_signed() -> None:
    identity = node_identities()[0].without_secret()
    with pytest.raises(ValueError, match="at most 4 roots, got 5"):
        World.make(PLANET, 1, 1, [Root(identity)] * 5, signer=_KEYS)
    endpoints = (Endpoint(b"\x0a\x00\x00\x01", 1),) * 33
    with pytest.raises(ValueError, match="at most 32, got 33"):
        World.make(PLANET, 1, 1, [Root(identity, endpoints)], signer=_KEYS)
