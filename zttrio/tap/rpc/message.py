"""Requests of programs and answers of the service."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import RpcError

from .numbers import (
    ANSWER_BIT,
    MAGIC,
    MAJOR,
    PAYLOAD_LIMIT,
    RESOLVE_LIMIT,
)

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["HEADER_LENGTH", "Answer", "Request", "version_of"]

HEADER = struct.Struct("=IBBHIIQii")
HEADER_LENGTH = HEADER.size


@attrs.define
class Request:
    """What a program's thread asks for.

    Attributes:
        op: one of OP_*; numbers without a name are parsed too, for ENOSYS is the service's answer.
        flags: REQUEST_* bits.
        seq: chosen by the intercept; the answer repeats it.
        sock: the SO_COOKIE of the program's end of a stand-in, 0 where there is none.
        a: meaning depends on `op`.
        b: meaning depends on `op`.
        payload: meaning depends on `op`.
    """

    op: int
    flags: int = 0
    seq: int = 0
    sock: int = 0
    a: int = 0
    b: int = 0
    payload: bytes = b""

    @classmethod
    def parse(cls, message: Buffer) -> Request:
        """Read one request.

        Raises:
            RpcError: not a request of this protocol; `version_of` says if it is another version.
        """
        op, flags, seq, sock, a, b, payload = _parse(message, PAYLOAD_LIMIT)
        if op & ANSWER_BIT:
            raise RpcError(f"request: op {op:#x} is an answer's")
        return cls(op, flags, seq, sock, a, b, payload)

    def emit(self) -> bytes:
        """The message, 32 octets and the payload."""
        head = HEADER.pack(
            MAGIC,
            MAJOR,
            self.op,
            self.flags,
            self.seq,
            len(self.payload),
            self.sock,
            self.a,
            self.b,
        )
        return head + self.payload


@attrs.define
class Answer:
    """What the tap service says to one request; the seed's ``RPC_RETVAL``.

    Attributes:
        op: of the request.
        seq: of the request.
        ret: what the libc function returns: 0, -1, or a length.
        err: an errno value, meaningful if *ret* is negative.
        flags: ANSWER_* bits.
        sock: SO_COOKIE of the descriptor that comes with the answer, else that of the request.
        payload: meaning depends on `op`.
        major: the service's own protocol version, for those who speak another.
    """

    op: int
    seq: int
    ret: int = 0
    err: int = 0
    flags: int = 0
    sock: int = 0
    payload: bytes = b""
    major: int = MAJOR

    @classmethod
    def parse(cls, message: Buffer) -> Answer:
        """Read one answer.

        Raises:
            RpcError: not an answer of this protocol.
        """
        op, flags, seq, sock, ret, err, payload = _parse(message, RESOLVE_LIMIT)
        if not op & ANSWER_BIT:
            raise RpcError(f"answer: op {op:#x} is a request's")
        return cls(op & ~ANSWER_BIT, seq, ret, err, flags, sock, payload)

    def emit(self) -> bytes:
        """The message, 32 octets and the payload."""
        head = HEADER.pack(
            MAGIC,
            self.major,
            self.op | ANSWER_BIT,
            self.flags,
            self.seq,
            len(self.payload),
            self.sock,
            self.ret,
            self.err,
        )
        return head + self.payload


def _parse(message: Buffer, limit: int) -> tuple[int, int, int, int, int, int, bytes]:
    if len(message) < HEADER_LENGTH:
        raise RpcError(f"message: needs {HEADER_LENGTH} octets, got {len(message)}")
    magic, major, op, flags, seq, length, sock, a, b = HEADER.unpack_from(message)
    if magic != MAGIC:
        raise RpcError(f"message: magic is {magic:#x}, not {MAGIC:#x}")
    if major != MAJOR:
        raise RpcError(f"message: version is {major}, not {MAJOR}")
    if length != len(message) - HEADER_LENGTH:
        raise RpcError(
            f"message: length field {length} does not fit {len(message) - HEADER_LENGTH}"
        )
    if length > limit:
        raise RpcError(f"message: payload of {length} octets is above {limit}")
    return op, flags, seq, sock, a, b, bytes(message[HEADER_LENGTH:])


def version_of(message: Buffer) -> tuple[int, int, int] | None:
    """``(major, op, seq)`` of anything that starts like a message of any version, or None."""
    if len(message) < HEADER_LENGTH:
        return None
    magic, major, op, _, seq, *_ = HEADER.unpack_from(message)
    return (major, op, seq) if magic == MAGIC else None
