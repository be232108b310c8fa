from __future__ import annotations

import random
from itertools import permutations
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.errors import HeaderError, IdentityError
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.network.netconf import NetworkConfig
from zttrio.zerotier.network.piece import MAX_CONFIGURATION, Assembler, Piece, cut

from .data import load, network_identity, vectors

if TYPE_CHECKING:
    from collections.abc import Iterable

NETWORK = 0x072211D924ABCD01
CONTROLLER = network_identity("controller")
PEER = network_identity("peer")
PIECES = st.builds(
    lambda network_id, data, flags, update_id, before, behind, signature: Piece(
        network_id, data, flags, update_id, before + len(data) + behind, before, signature
    ),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=1, max_size=50),
    st.integers(0, 255),
    st.integers(0, 2**64 - 1),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.binary(min_size=96, max_size=96),
)


def _fake(update_id: int, position: int, length: int, total: int, mark: int = 0) -> Piece:
    """A piece as if its signature had been checked; *mark* tells equal ones apart."""
    digest = random.Random(f"{update_id} {position} {length} {total} {mark}").randbytes(32)
    data = bytes((position + i) % 251 for i in range(length))
    return Piece(NETWORK, data, 0, update_id, total, position, bytes(64) + digest)


def _whole(total: int) -> bytes:
    return bytes(i % 251 for i in range(total))


def _feed(assembler: Assembler, pieces: Iterable[Piece]) -> list[bytes | None]:
    return [assembler.receive(piece) for piece in pieces]


def test_a_configuration_is_cut_and_signed_as_recorded() -> None:
    vector = load("vl2")["config_chunks"]
    dictionary = bytes.fromhex(vector["dictionary"])
    recorded = [bytes.fromhex(chunk) for chunk in vector["chunks"]]
    pieces = cut(
        int(vector["network_id"], 16),
        dictionary,
        int(vector["update_id"], 16),
        network_identity(vector["controller"]),
        length=300,
    )
    assert [piece.emit() for piece in pieces] == recorded
    assert [Piece.parse(chunk) for chunk in recorded] == pieces
    assert all(piece.is_signed_by(CONTROLLER) for piece in pieces)
    for order in permutations(pieces):
        *early, last = _feed(Assembler(), order)
        assert early == [None] * (len(pieces) - 1)
        assert last == dictionary
    config = NetworkConfig.parse(dictionary)
    assert config.address == network_identity(vector["member"]).address


@pytest.mark.parametrize(
    "vector", vectors("networks", "network_config"), ids=lambda vector: vector["nwid"]
)
def test_what_a_real_controller_sends_is_what_its_member_stores(vector: dict[str, object]) -> None:
    packets = vector["packets"]
    stored = vector["member_files_hex"]
    assert isinstance(packets, list)
    assert isinstance(stored, dict)
    controller = Identity.parse_text(load("network_config")["controller_identity_secret"])
    found = {}
    for packet in packets:
        plain = bytes.fromhex(packet["decoded"]["plain"])
        if packet["dir"] == "in":
            piece = Piece.parse(plain[1:] if plain[0] == 0x0C else plain[10:])
            assert plain.endswith(piece.emit())
            assert piece.is_signed_by(controller)
            content = Assembler().receive(piece)
            assert content is not None
            found[NetworkConfig.parse(content).timestamp] = content
    assert [found[max(found)].hex()] == list(stored.values())


@given(piece=PIECES, junk=st.binary(max_size=3))
def test_a_piece_survives_its_encoding(piece: Piece, junk: bytes) -> None:
    assert Piece.parse(piece.emit() + junk) == piece


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(b"\0\0\0\0\0\0\0\1\0\5".__add__))
def test_junk_is_a_piece_or_a_header_error(data: bytes) -> None:
    try:
        piece = Piece.parse(data)
    except HeaderError:
        return
    assert piece.is_legacy or piece.position + len(piece.data) <= piece.total <= MAX_CONFIGURATION


def test_a_piece_may_end_behind_its_data_only() -> None:
    (piece,) = cut(NETWORK, b"hello", 1, CONTROLLER)
    encoded = piece.emit()
    for length in range(len(encoded)):
        if length == 15:
            legacy = Piece.parse(encoded[:length])
            assert legacy == Piece(NETWORK, b"hello")
            assert legacy.is_legacy
            assert legacy.emit() == encoded[:length]
        else:
            with pytest.raises(HeaderError):
                Piece.parse(encoded[:length])


@pytest.mark.parametrize(
    "change",
    [
        {"total": MAX_CONFIGURATION + 1},
        {"total": 4},
        {"position": 1},
        {"position": 2**32 - 1},
        {"data": b""},
    ],
    ids=str,
)
def test_a_piece_of_an_impossible_whole_is_refused(change: dict[str, object]) -> None:
    (piece,) = cut(NETWORK, b"hello", 1, CONTROLLER)
    with pytest.raises(HeaderError):
        Piece.parse(attrs.evolve(piece, **change).emit())  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [-99, -98, -97])
def test_other_signatures_than_of_type_1_are_refused(at: int) -> None:
    (piece,) = cut(NETWORK, b"hello", 1, CONTROLLER)
    encoded = bytearray(piece.emit())
    encoded[at] ^= 2
    with pytest.raises(HeaderError):
        Piece.parse(encoded)


def test_any_changed_octet_spoils_a_piece() -> None:
    (piece,) = cut(NETWORK, b"hello", 1, CONTROLLER, flags=1)
    assert piece.is_signed_by(CONTROLLER)
    assert piece.is_fast
    encoded = piece.emit()
    for at in range(len(encoded)):
        spoiled = bytearray(encoded)
        spoiled[at] ^= 1
        try:
            parsed = Piece.parse(spoiled)
        except HeaderError:
            continue
        assert not parsed.is_signed_by(CONTROLLER), at


def test_only_the_network_s_own_controller_can_sign_pieces() -> None:
    (piece,) = cut(NETWORK, b"hello", 1, PEER)
    assert not piece.is_signed_by(PEER)
    assert not piece.is_signed_by(CONTROLLER)
    assert not Piece(NETWORK, b"legacy").is_signed_by(CONTROLLER)
    assert not attrs.evolve(piece, signature=b"").is_signed_by(CONTROLLER)
    with pytest.raises(IdentityError):
        cut(NETWORK, b"hello", 1, CONTROLLER.without_secret())


@pytest.mark.parametrize("length", [0, MAX_CONFIGURATION + 1])
def test_what_members_would_refuse_is_not_cut(length: int) -> None:
    with pytest.raises(ValueError, match="1 to 484519"):
        cut(NETWORK, bytes(length), 1, CONTROLLER)


def test_the_largest_configuration_fits_in_fifty_pieces() -> None:
    dictionary = random.Random(1).randbytes(MAX_CONFIGURATION)
    pieces = cut(NETWORK, dictionary, 7, CONTROLLER)
    assert len(pieces) == 50
    assert max(len(piece.emit()) for piece in pieces) <= 9996 - 9  # behind an OK's header
    random.Random(2).shuffle(pieces)
    assert _feed(Assembler(), pieces)[-1] == dictionary


@settings(max_examples=50)
@given(data=st.data())
def test_pieces_come_together_in_any_order_and_more_than_once(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 60))
    length = data.draw(st.integers(1, 20))
    pieces = [_fake(1, at, min(length, total - at), total) for at in range(0, total, length)]
    order = data.draw(st.permutations(pieces * 2))
    results = _feed(Assembler(), order)
    complete = [result for result in results if result is not None]
    assert complete == [_whole(total)]
    seen: set[int] = set()
    for piece, result in zip(order, results, strict=True):
        was_complete = len(seen) == len(pieces)
        seen.add(piece.position)
        assert (result is not None) is (not was_complete and len(seen) == len(pieces))


def test_overlap_cannot_fake_completion() -> None:
    assembler = Assembler()
    assert assembler.receive(_fake(1, 0, 6, 10)) is None
    assert assembler.receive(_fake(1, 1, 6, 10)) is None  # 12 octets of 10, but the end is missing
    assert assembler.receive(_fake(1, 0, 7, 10)) is None
    assert assembler.receive(_fake(1, 7, 3, 10)) == _whole(10)
    for position in (0, 6, 7):
        assert assembler.receive(_fake(2, position, 10 - max(position, 6), 10)) is None
    assert assembler.receive(_fake(2, 7, 3, 10, mark=1)) is None  # 14 octets, but 4 and 5 missing
    assert assembler.receive(_fake(2, 3, 4, 10)) == _whole(10)


def test_a_piece_is_new_until_it_has_been_received() -> None:
    assembler = Assembler()
    first, second = _fake(1, 0, 5, 10), _fake(1, 5, 5, 10)
    assert assembler.is_new(first)
    assert assembler.is_new(first)
    assembler.receive(first)
    assert not assembler.is_new(first)
    assert assembler.is_new(second)
    assert assembler.receive(second) == _whole(10)
    assert not assembler.is_new(first)
    assert not assembler.is_new(second)
    assert assembler.receive(second) is None
    assert assembler.refused == 0


def test_another_signature_over_the_same_is_nothing_new() -> None:
    assembler = Assembler()
    piece = _fake(1, 0, 5, 10)
    assembler.receive(piece)
    malleated = attrs.evolve(piece, signature=b"x" * 64 + piece.signature[64:])
    assert not assembler.is_new(malleated)


def test_a_legacy_configuration_is_complete_by_itself() -> None:
    assert Assembler().receive(Piece(NETWORK, b"v=7")) == b"v=7"


def test_the_oldest_of_four_unfinished_updates_makes_room() -> None:
    assembler = Assembler()
    for update_id in range(1, 5):
        assembler.receive(_fake(update_id, 0, 5, 10))
    assert assembler.evicted == 1
    assert assembler.receive(_fake(2, 5, 5, 10)) == _whole(10)
    assert assembler.receive(_fake(1, 5, 5, 10)) is None
    assert assembler.evicted == 1


def test_a_finished_update_takes_no_room() -> None:
    assembler = Assembler()
    for update_id in range(100):
        assert assembler.receive(_fake(update_id, 0, 10, 10)) == _whole(10)
        assembler.receive(_fake(1000, 0, 5, 10))
    assert assembler.evicted == 0
    assert assembler.receive(_fake(1000, 5, 5, 10)) == _whole(10)


def test_thirty_two_finished_updates_are_remembered() -> None:
    assembler = Assembler()
    for update_id in range(33):
        assembler.receive(_fake(update_id, 0, 10, 10))
    assert assembler.is_new(_fake(0, 0, 10, 10))
    assert not assembler.is_new(_fake(1, 0, 10, 10))


def test_pieces_of_another_size_of_whole_are_refused() -> None:
    assembler = Assembler()
    assembler.receive(_fake(1, 0, 5, 10))
    assert assembler.receive(_fake(1, 5, 6, 11)) is None
    assert assembler.refused == 1
    assert assembler.receive(_fake(1, 5, 5, 10)) == _whole(10)
    assert assembler.receive(_fake(1, 5, 6, 11)) is None
    assert assembler.refused == 2


def test_an_update_has_at_most_474_pieces() -> None:
    assembler = Assembler()
    for mark in range(474):
        assert assembler.receive(_fake(1, 0, 1, 10, mark)) is None
    assert assembler.refused == 0
    assert assembler.receive(_fake(1, 1, 9, 10)) is None
    assert assembler.refused == 1
