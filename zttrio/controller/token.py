"""The secret that opens the local HTTP interface, in the real software's file."""

from __future__ import annotations

import secrets
import string
from typing import TYPE_CHECKING

from zttrio.wire.zerotier.home import write_private

from .store import StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TOKEN_FILE", "load_token", "read_token"]

TOKEN_FILE = "authtoken.secret"  # noqa: S105 - a name
_LENGTH = 24  # as the reference's
_ALPHABET = string.ascii_lowercase + string.digits


def load_token(home: Path) -> str:
    """The token of *home*; made, with mode 0600, if there is none.  Blocks on the disk.

    Raises:
        StoreError: the file cannot be read, or it is empty.
        WireError: it cannot be written.
    """
    path = home / TOKEN_FILE
    if not path.exists():
        token = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        write_private(path, token.encode())
        return token
    return read_token(home)


def read_token(home: Path) -> str:
    """The token of *home*.  Blocks on the disk.

    Raises:
        StoreError: the file is not there, cannot be read, or holds no token.
    """
    path = home / TOKEN_FILE
    try:
        token = path.read_text("ascii").strip()
    except OSError as exc:
        raise StoreError(f"token {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise StoreError(f"token {path}: it is not text") from exc
    if not token:
        raise StoreError(f"token {path}: it is empty")
    return token
