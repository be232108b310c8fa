"""The controller's records in an SQLite file: what was written is there after a crash.

Knows JSON texts by network and member, and nothing of what is in them.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from zttrio.errors import ZttrioError
from zttrio.zerotier.controller.journal import Write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Store", "StoreError"]

_APPLICATION = 0x7A74_7472  # what `file` may know us by
_SCHEMA = 1
_TABLES = """
CREATE TABLE network (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE member (
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (network, address)
) WITHOUT ROWID;
"""


class StoreError(ZttrioError):
    """The database cannot be opened, read or written."""


class Store:
    """The file.  Methods block on the disk, so tasks call them in a worker thread, one at a time.

    Each `apply` is durable when it returns: SQLite has waited for the disk (``synchronous=FULL``).
    The file belongs to one process at a time.

    Args:
        path: made with mode 0600 if it is not there.

    Raises:
        StoreError: it cannot be opened, another process has it, or it is no database of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=0
            )
        except (OSError, sqlite3.Error) as exc:
            raise StoreError(f"database {path}: {_reason(exc)}") from exc
        try:
            self._prepare()
            _sync_folder(path.parent)
        except (OSError, sqlite3.Error) as exc:
            self._database.close()
            raise StoreError(f"database {path}: {_reason(exc)}") from exc
        except BaseException:
            self._database.close()
            raise

    def load(self) -> list[Write]:
        """Every record, networks first.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            with closing(self._database.cursor()) as cursor:
                cursor.execute("SELECT id, record FROM network ORDER BY id")
                found = [Write(int(name, 16), None, record) for name, record in cursor]
                cursor.execute(
                    "SELECT network, address, record FROM member ORDER BY network, address"
                )
                found += [
                    Write(int(name, 16), bytes.fromhex(address), record)
                    for name, address, record in cursor
                ]
        except (sqlite3.Error, ValueError) as exc:
            raise StoreError(f"database {self.path}: {exc}") from exc
        return found

    def apply(self, writes: Iterable[Write]) -> None:
        """Carry out *writes*: all of them are on disk when this returns.

        Raises:
            StoreError: they could not be written; none of them is there then.
        """
        try:
            with closing(self._database.cursor()) as cursor:
                cursor.execute("BEGIN")
                try:
                    for write in writes:
                        _apply(cursor, write)
                except BaseException:
                    if self._database.in_transaction:  # a full disk has ended it already
                        cursor.execute("ROLLBACK")
                    raise
                cursor.execute("COMMIT")
        except sqlite3.Error as exc:
            raise StoreError(f"database {self.path}: {exc}") from exc

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _prepare(self) -> None:
        database = self._database
        # Only this process: two controllers of one identity would overrule each other.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not (application or schema or tables):
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_SCHEMA}")
        elif application != _APPLICATION:
            raise StoreError(f"database {self.path}: it holds something else")
        elif schema != _SCHEMA:
            raise StoreError(
                f"database {self.path}: format {schema}, this program knows format {_SCHEMA}"
            )
        database.execute("COMMIT")


def _apply(cursor: sqlite3.Cursor, write: Write) -> None:
    network = f"{write.network_id:016x}"
    if write.address is None:
        if write.record is None:
            cursor.execute("DELETE FROM network WHERE id = ?", (network,))
        else:
            cursor.execute("INSERT OR REPLACE INTO network VALUES (?, ?)", (network, write.record))
        return
    address = write.address.hex()
    if write.record is None:
        cursor.execute("DELETE FROM member WHERE network = ? AND address = ?", (network, address))
    else:
        cursor.execute(
            "INSERT OR REPLACE INTO member VALUES (?, ?, ?)", (network, address, write.record)
        )


def _sync_folder(folder: Path) -> None:
    """Wait until the names of new files are on disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError):
        return str(exc.strerror)
    if "locked" in str(exc):
        return "another process has it open"
    return str(exc)
