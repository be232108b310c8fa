"""Pieces of a configuration: how controllers cut and sign it, and how members put it together.

A piece has been signed by the controller, so it does not matter who delivers it (5.6, 6.2).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from ..identity import SIGNATURE_LENGTH
from .derived import controller_of

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from ..identity import Identity

__all__ = ["Assembler", "Piece", "cut"]

MAX_CONFIGURATION = 484_519
"""Octets of the largest dictionary."""
PIECE_LENGTH = 9740
"""Octets that controllers put into one piece."""
FAST_PROPAGATION = 1

_PIECES_PER_UPDATE = 474
_UNFINISHED = 3
# Arbitrary.  Finished updates are remembered so that members that pass on the same pieces to each
# other (fast propagation) come to an end.
_FINISHED = 32

_HEAD = struct.Struct("!QH")
_TAIL = struct.Struct("!BQII")
_SIGNATURE = struct.Struct("!BH")


@attrs.frozen
class Piece:
    """A piece of a configuration dictionary.

    Attributes:
        network_id: whose configuration.
        data: at least one octet.
        flags: FAST_PROPAGATION or 0.
        update_id: tells the pieces of one configuration from those of the next, 64 bits.
        total: octets of the whole dictionary.
        position: where *data* belongs in it.
        signature: 96 octets; none for an old controller's whole configuration, which only the
            packet that it came in vouches for.
    """

    network_id: int
    data: bytes = attrs.field(repr=False)
    flags: int = 0
    update_id: int = 0
    total: int = attrs.field(default=attrs.Factory(lambda self: len(self.data), takes_self=True))
    position: int = 0
    signature: bytes = attrs.field(default=b"", repr=False)

    @property
    def is_legacy(self) -> bool:
        """True for an old controller's: nobody has signed it, and it is a whole configuration."""
        return not self.signature

    @property
    def is_fast(self) -> bool:
        """True if it is to be passed on to everybody."""
        return self.flags & FAST_PROPAGATION != 0

    @classmethod
    def parse(cls, payload: Buffer) -> Piece:
        """Read a NETWORK_CONFIG, or an OK(NETWORK_CONFIG_REQUEST) behind its header.

        The signature is not checked.

        Raises:
            HeaderError: it is none, or it cannot be a piece of what it says.
        """
        start = _HEAD.size
        if len(payload) < start:
            raise HeaderError(f"NETWORK_CONFIG: only {len(payload)} octets")
        network_id, length = _HEAD.unpack_from(payload)
        middle = start + length
        if not length or middle > len(payload):
            raise HeaderError(f"NETWORK_CONFIG: piece of {length} octets")
        data = bytes(payload[start:middle])
        if middle == len(payload):
            return cls(network_id, data)
        end = middle + _TAIL.size
        signature_at = end + _SIGNATURE.size
        stop = signature_at + SIGNATURE_LENGTH
        if stop > len(payload):
            raise HeaderError(f"NETWORK_CONFIG: truncated at {len(payload)} octets")
        flags, update_id, total, position = _TAIL.unpack_from(payload, middle)
        if total > MAX_CONFIGURATION or position + length > total:
            raise HeaderError(f"NETWORK_CONFIG: {length} octets at {position} of {total}")
        if _SIGNATURE.unpack_from(payload, end) != (1, SIGNATURE_LENGTH):
            raise HeaderError("NETWORK_CONFIG: unknown kind of signature")
        signature = bytes(payload[signature_at:stop])
        return cls(network_id, data, flags, update_id, total, position, signature)

    def signed_message(self) -> bytes:
        """The octets that the signature is made over."""
        return b"".join(
            (
                _HEAD.pack(self.network_id, len(self.data)),
                self.data,
                _TAIL.pack(self.flags, self.update_id, self.total, self.position),
            )
        )

    def emit(self) -> bytes:
        """The same as octets."""
        if self.is_legacy:
            return _HEAD.pack(self.network_id, len(self.data)) + self.data
        signature = (_SIGNATURE.pack(1, SIGNATURE_LENGTH), self.signature)
        return b"".join((self.signed_message(), *signature))

    def sign(self, controller: Identity) -> Piece:
        """The same, signed.

        Raises:
            IdentityError: the secret of *controller* is not known.
        """
        return attrs.evolve(self, signature=controller.sign(self.signed_message()))

    def is_signed_by(self, controller: Identity) -> bool:
        """True if *controller* rules this network and signed this."""
        return controller.address == controller_of(self.network_id) and controller.verify(
            self.signed_message(), self.signature
        )


def cut(
    network_id: int,
    dictionary: bytes,
    update_id: int,
    controller: Identity,
    *,
    flags: int = 0,
    length: int = PIECE_LENGTH,
) -> list[Piece]:
    """The signed pieces of a configuration, in order.

    Args:
        network_id: whose configuration.
        dictionary: the whole of it.
        update_id: random, not 0.
        controller: who signs.
        flags: FAST_PROPAGATION or 0.
        length: octets of a piece.

    Raises:
        IdentityError: the secret of *controller* is not known.
        ValueError: the dictionary is empty or larger than members take.
    """
    total = len(dictionary)
    if not 0 < total <= MAX_CONFIGURATION:
        raise ValueError(f"configuration of {total} octets: 1 to {MAX_CONFIGURATION}")
    return [
        Piece(network_id, dictionary[at : at + length], flags, update_id, total, position=at).sign(
            controller
        )
        for at in range(0, total, length)
    ]


@attrs.define
class _Update:
    total: int
    received: int = 0
    pieces: dict[bytes, Piece] = attrs.field(factory=dict)

    def content(self) -> bytes | None:
        """The whole dictionary, if every octet of it is there."""
        if self.received < self.total:
            return None
        end = 0
        for piece in sorted(self.pieces.values(), key=lambda piece: piece.position):
            if piece.position > end:
                return None
            end = max(end, piece.position + len(piece.data))
        if end < self.total:
            return None
        content = bytearray(self.total)
        for piece in self.pieces.values():
            content[piece.position : piece.position + len(piece.data)] = piece.data
        return bytes(content)


class Assembler:
    """Puts the pieces of one network's configurations together (6.2).

    At most 3 unfinished updates are kept, of at most 474 pieces each; the oldest makes room.

    Attributes:
        evicted: unfinished updates that made room for newer ones.
        refused: pieces that contradict others of their update, or are too many.
    """

    def __init__(self) -> None:
        self.evicted = 0
        self.refused = 0
        self._unfinished: dict[int, _Update] = {}
        self._finished: dict[int, frozenset[bytes]] = {}

    def is_new(self, piece: Piece) -> bool:
        """False if this signed piece has been received already.

        Says nothing about the signature: only what was verified may go into `receive`.
        """
        key = _key(piece)
        update = self._unfinished.get(piece.update_id)
        if update is not None:
            return key not in update.pieces
        return key not in self._finished.get(piece.update_id, ())

    def receive(self, piece: Piece) -> bytes | None:
        """Take in a piece whose origin has been verified; returns what it completes.

        A legacy piece is complete by itself; it must have come from the controller.
        """
        if piece.is_legacy:
            return piece.data
        if not self.is_new(piece):
            return None
        update_id = piece.update_id
        if update_id in self._finished:
            # The controller would have to draw a random number of 64 bits twice.
            self.refused += 1
            return None
        update = self._unfinished.get(update_id)
        if update is None:
            if len(self._unfinished) == _UNFINISHED:
                self._unfinished.pop(next(iter(self._unfinished)))
                self.evicted += 1
            update = self._unfinished[update_id] = _Update(piece.total)
        if piece.total != update.total or len(update.pieces) == _PIECES_PER_UPDATE:
            self.refused += 1
            return None
        update.pieces[_key(piece)] = piece
        update.received += len(piece.data)
        content = update.content()
        if content is not None:
            del self._unfinished[update_id]
            if len(self._finished) == _FINISHED:
                self._finished.pop(next(iter(self._finished)))
            self._finished[update_id] = frozenset(update.pieces)
        return content


def _key(piece: Piece) -> bytes:
    # The digest of what was signed (3.3); the other part of a signature could be made differently.
    return piece.signature[64:]
