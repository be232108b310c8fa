"""Who a node is: two key pairs, and the address that follows from their public halves.

Knows the text form of ``identity.public`` and ``identity.secret``, the binary form inside packets,
key agreement and signatures (VL1 specification, 3 and 4).  Knows no files: see
`zttrio.wire.zerotier.home`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha512
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import TYPE_CHECKING, TypeAlias

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from zttrio.errors import HeaderError, IdentityError

from .constants import is_reserved
from .digest import memory_hard_digest

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from .crypto import Backend

__all__ = [
    "IDENTITY_LENGTH",
    "SIGNATURE_LENGTH",
    "Identity",
    "KeyPair",
    "Randomness",
    "derive_key",
    "verify",
]

Randomness: TypeAlias = Callable[[int], bytes]
"""Gives that many unpredictable octets, as `os.urandom` does."""

IDENTITY_LENGTH = 71  # without a secret
SIGNATURE_LENGTH = 96
_KEY_LENGTH = 64
_WORK_THRESHOLD = 17  # of 256: an identity takes 15 attempts on average (3.5)


def verify(public: bytes, message: Buffer, signature: bytes) -> bool:
    """True if *signature* was made over *message* with the secret half of *public* (4.3).

    Args:
        public: the 64 octets of public keys.
        message: what was signed.
        signature: any octets; anything but 96 of them is no signature.
    """
    if len(signature) != SIGNATURE_LENGTH:
        return False
    digest = sha512(message).digest()[:32]
    if not compare_digest(digest, signature[64:]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public[32:]).verify(signature[:64], digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def derive_key(key: bytes, label: bytes, *, context: int = 0, iteration: int = 0) -> bytes:
    """48 octets for one purpose out of a 48-octet key (KBKDF with HMAC-SHA-384, 4.2)."""
    message = iteration.to_bytes(4, "big") + b"ZT" + label + b"\x00" + bytes((context,))
    return hmac_digest(key, message + (384).to_bytes(4, "big"), "sha384")


@attrs.frozen
class KeyPair:
    """X25519 and Ed25519 keys without an address: what identities and worlds are signed with.

    Attributes:
        public: the two public halves, 64 octets.
        secret: X25519 scalar and Ed25519 seed, 64 octets.
    """

    public: bytes
    secret: bytes = attrs.field(repr=False)

    @classmethod
    def from_secret(cls, secret: bytes) -> KeyPair:
        """The pair whose secret half is *secret* (64 octets)."""
        agreement = X25519PrivateKey.from_private_bytes(secret[:32]).public_key()
        signing = Ed25519PrivateKey.from_private_bytes(secret[32:]).public_key()
        return cls(agreement.public_bytes_raw() + signing.public_bytes_raw(), secret)

    @classmethod
    def generate(cls, rng: Randomness) -> KeyPair:
        """A new pair."""
        return cls.from_secret(rng(_KEY_LENGTH))

    def sign(self, message: Buffer) -> bytes:
        """The 96-octet signature of *message* (4.3); the same message gives the same one."""
        digest = sha512(message).digest()[:32]
        return Ed25519PrivateKey.from_private_bytes(self.secret[32:]).sign(digest) + digest


@attrs.frozen
class Identity:
    """A node's name and keys.  Two are equal if address and public keys are.

    Attributes:
        address: 5 octets, never a reserved address.
        public: X25519 and Ed25519 public keys, 64 octets.
        secret: their secret halves, 64 octets, or None if somebody else has them.
    """

    address: bytes
    public: bytes = attrs.field(repr=False)
    secret: bytes | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        return self.address.hex()

    @classmethod
    def generate(cls, rng: Randomness, backend: Backend) -> Identity:
        """A new identity.  Takes seconds; meant for a worker thread.

        Args:
            rng: unpredictable octets; who guesses them owns the identity.
            backend: for the memory-hard digest; not to be used by another thread meanwhile.
        """
        seed = rng(32)
        while True:
            pair = KeyPair.from_secret(rng(32) + seed)
            digest = memory_hard_digest(pair.public, backend)
            address = digest[59:]
            if digest[0] < _WORK_THRESHOLD and not is_reserved(address):
                return cls(address, pair.public, pair.secret)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[Identity, int]:
        """Read the binary form; returns the identity without its secret, and where it ends.

        A secret that comes with it is skipped: from the network it would be somebody's mistake.

        Raises:
            HeaderError: there is no identity at *offset*.
        """
        end = offset + IDENTITY_LENGTH
        if end > len(data):
            raise HeaderError(f"identity at {offset}: only {len(data)} octets")
        address = bytes(data[offset : offset + 5])
        if data[offset + 5] != 0:
            raise HeaderError(f"identity {address.hex()}: unknown type {data[offset + 5]}")
        if is_reserved(address):
            raise HeaderError(f"identity {address.hex()}: the address is reserved")
        secret_length = data[end - 1]
        if secret_length not in (0, _KEY_LENGTH) or end + secret_length > len(data):
            raise HeaderError(f"identity {address.hex()}: secret of {secret_length} octets")
        return cls(address, bytes(data[offset + 6 : end - 1])), end + secret_length

    @classmethod
    def parse_text(cls, text: str) -> Identity:
        """Read the form of ``identity.public`` and ``identity.secret`` (3.2).

        Raises:
            IdentityError: it is not of that form, or the two halves of the keys do not belong
                together.  The address is not checked: `is_valid` does, at its price.
        """
        fields = text.rstrip().split(":")
        if len(fields) not in (3, 4):
            raise IdentityError(f"identity: needs 3 or 4 fields, got {len(fields)}")
        if fields[1] != "0":
            raise IdentityError(f"identity {fields[0]}: unknown type {fields[1]!r}")
        address = _unhex("address", fields[0], 5)
        if is_reserved(address):
            raise IdentityError(f"identity {fields[0]}: the address is reserved")
        public = _unhex("public key", fields[2], _KEY_LENGTH)
        if len(fields) == 3:
            return cls(address, public)
        secret = _unhex("secret key", fields[3], _KEY_LENGTH)
        if KeyPair.from_secret(secret).public != public:
            raise IdentityError(f"identity {fields[0]}: the secret belongs to another public key")
        return cls(address, public, secret)

    def text(self) -> str:
        """The form of ``identity.public``: no secret, no newline."""
        return f"{self.address.hex()}:0:{self.public.hex()}"

    def secret_text(self) -> str:
        """The form of ``identity.secret``: no newline.

        Raises:
            IdentityError: the secret is not known.
        """
        return f"{self.text()}:{self._need_secret().hex()}"

    def emit(self) -> bytes:
        """The binary form, 71 octets, without the secret."""
        return self.address + b"\x00" + self.public + b"\x00"

    def without_secret(self) -> Identity:
        """The same identity as others know it."""
        return Identity(self.address, self.public)

    def is_valid(self, backend: Backend) -> bool:
        """True if the address follows from the keys (3.5).  Takes as long as `memory_hard_digest`.

        Args:
            backend: not to be used by another thread meanwhile.
        """
        digest = memory_hard_digest(self.public, backend)
        return (
            not is_reserved(self.address)
            and digest[0] < _WORK_THRESHOLD
            and digest[59:] == self.address
        )

    def agree(self, other: Identity) -> bytes:
        """The 48-octet key that this node (which needs its secret) shares with *other* (4.1).

        Raises:
            HeaderError: the public key of *other* is one that shares the same key with everybody.
            IdentityError: our secret is not known.
        """
        mine = X25519PrivateKey.from_private_bytes(self._need_secret()[:32])
        try:
            raw = mine.exchange(X25519PublicKey.from_public_bytes(other.public[:32]))
        except ValueError as exc:
            raise HeaderError(f"identity {other}: its key agrees on nothing secret") from exc
        return sha512(raw).digest()[:48]

    def sign(self, message: Buffer) -> bytes:
        """The 96-octet signature of *message*.

        Raises:
            IdentityError: the secret is not known.
        """
        return KeyPair(self.public, self._need_secret()).sign(message)

    def verify(self, message: Buffer, signature: bytes) -> bool:
        """True if this identity signed *message*; see `verify`."""
        return verify(self.public, message, signature)

    def _need_secret(self) -> bytes:
        if self.secret is None:
            raise IdentityError(f"identity {self}: its secret is not known")
        return self.secret


def _unhex(what: str, text: str, length: int) -> bytes:
    # bytes.fromhex would skip spaces.
    try:
        if len(text) == 2 * length and text.isascii() and text.isalnum():
            return bytes.fromhex(text)
    except ValueError:
        pass
    raise IdentityError(f"identity: {what} needs {2 * length} hex digits, got {text[:16]!r}...")
