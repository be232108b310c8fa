"""Salsa20 and Poly1305 from libsodium, through ctypes, where the machine has the library.

Only functions that have been in libsodium since 0.5 are used, so any version on a machine will do.
"""

from __future__ import annotations

import ctypes

__all__ = ["Sodium"]

_NAMES = (
    "libsodium.so.26",
    "libsodium.so.23",
    "libsodium.so.18",
    "libsodium.so",
    "libsodium.dylib",
    "libsodium.dll",
)
_SHORT = 10_240  # no packet and its first key-stream block are longer


class Sodium:
    """The libsodium backend; see `zttrio.zerotier.crypto.Backend`.

    An object belongs to one thread at a time: short results pass through a buffer of its own.

    Raises:
        OSError: the machine has no libsodium.
    """

    name = "libsodium"

    def __init__(self) -> None:
        path = _find()
        # Short calls keep the interpreter lock, letting it go would cost more than they take; the
        # one long call (10 MB of key stream per identity) lets it go, so that it can run in a
        # worker thread beside the event loop.
        short = ctypes.PyDLL(path)
        long = ctypes.CDLL(path)
        if short.sodium_init() < 0:
            raise OSError(f"libsodium: sodium_init of {path} failed")
        pointer, length = ctypes.c_char_p, ctypes.c_ulonglong
        self._xor12 = short.crypto_stream_salsa2012_xor
        self._xor12.argtypes = [pointer, pointer, length, pointer, pointer]
        self._onetimeauth = short.crypto_onetimeauth_poly1305
        self._onetimeauth.argtypes = [pointer, pointer, length, pointer]
        self._stream20 = long.crypto_stream_salsa20
        self._stream20.argtypes = [pointer, length, pointer, pointer]
        self._buffer = ctypes.create_string_buffer(_SHORT)
        self._view = memoryview(self._buffer)
        self._tag = ctypes.create_string_buffer(16)

    def salsa20_12_xor(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """*data* xor the Salsa20/12 key stream that starts at block 0."""
        length = len(data)
        if length > _SHORT:
            buffer = ctypes.create_string_buffer(length)
            self._xor12(buffer, data, length, iv, key)
            return buffer.raw
        self._xor12(self._buffer, data, length, iv, key)
        return bytes(self._view[:length])

    def salsa20_20(self, key: bytes, iv: bytes, length: int) -> bytes:
        """The first *length* octets of the Salsa20/20 key stream."""
        buffer = ctypes.create_string_buffer(length)
        self._stream20(buffer, length, iv, key)
        return buffer.raw

    def poly1305(self, key: bytes, data: bytes) -> bytes:
        """The 16-octet Poly1305 tag of *data* under a one-time key."""
        self._onetimeauth(self._tag, data, len(data), key)
        return self._tag.raw


def _find() -> str:
    # ctypes.util.find_library would start compilers and linkers to look for the file.
    for name in _NAMES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    raise OSError(f"libsodium: none of {', '.join(_NAMES)} can be loaded")
