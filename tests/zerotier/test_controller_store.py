"""The database of a controller, on a real disk."""

from __future__ import annotations

import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from zttrio.controller import Store, StoreError
from zttrio.controller.token import load_token, read_token
from zttrio.zerotier.controller.journal import Write

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = 0x831A3028F4DD7106
A, B = bytes(4) + b"\x01", bytes(4) + b"\x02"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "controller.db"


def test_what_was_written_is_there_networks_first(path: Path) -> None:
    store = Store(path)
    writes = [
        Write(NETWORK, B, "b"),
        Write(NETWORK, A, "a"),
        Write(NETWORK, None, "network"),
        Write(NETWORK + 1, None, "other"),
    ]
    store.apply(writes)
    store.apply([Write(NETWORK, A, "newer"), Write(NETWORK + 1, None, None)])
    expected = [Write(NETWORK, None, "network"), Write(NETWORK, A, "newer"), Write(NETWORK, B, "b")]
    assert store.load() == expected
    store.close()
    store = Store(path)
    assert store.load() == expected
    store.apply([Write(NETWORK, A, None), Write(NETWORK, A, None)])
    assert [write.address for write in store.load()] == [None, B]
    store.close()


def test_all_of_a_batch_is_written_or_none(path: Path) -> None:
    store = Store(path)
    store.apply([Write(NETWORK, None, "before")])
    bad = Write(NETWORK, A, "\ud800")  # cannot be stored
    with pytest.raises(UnicodeEncodeError):
        store.apply([Write(NETWORK, None, "after"), bad])
    assert store.load() == [Write(NETWORK, None, "before")]
    store.apply([Write(NETWORK, None, "later")])
    assert store.load() == [Write(NETWORK, None, "later")]
    store.close()


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    store = Store(path)
    assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_nobody_else_may_read_the_files(path: Path) -> None:
    store = Store(path)
    store.apply([Write(NETWORK, None, "x")])
    files = list(path.parent.iterdir())
    assert {file.name for file in files} >= {"controller.db", "controller.db-wal"}
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    store.close()


def test_a_database_belongs_to_one_controller_at_a_time(path: Path) -> None:
    store = Store(path)
    with pytest.raises(StoreError, match="another process has it open"):
        Store(path)
    store.close()
    Store(path).close()


def test_what_is_no_database_of_ours_is_left_alone(path: Path) -> None:
    path.write_bytes(b"something else" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(path)
    assert path.read_bytes() == b"something else" * 100
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE network (id)")
    database.close()
    with pytest.raises(StoreError, match="holds something else"):
        Store(path)


def test_a_database_of_a_later_format_is_refused(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(StoreError, match="format 9, this program knows format 1"):
        Store(path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Store(tmp_path / "missing" / "controller.db")


def test_a_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    token = load_token(tmp_path)
    assert len(token) == 24
    assert token.isalnum()
    assert load_token(tmp_path) == read_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "authtoken.secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xff"])
def test_a_damaged_token_is_refused_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "authtoken.secret"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="token"):
        load_token(tmp_path)
    assert path.read_bytes() == content


def test_a_missing_token_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        read_token(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_keeps_what_was_there(path: Path) -> None:
    store = Store(path)
    store.apply([Write(NETWORK, None, "before")])
    store._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StoreError, match="full"):
        store.apply([Write(NETWORK, None, "x" * 100_000)])
    assert store.load() == [Write(NETWORK, None, "before")]
    store.close()


def test_a_damaged_name_is_an_error(path: Path) -> None:
    store = Store(path)
    store._database.execute("INSERT INTO network VALUES ('name', 'record')")
    with pytest.raises(StoreError, match="invalid literal"):
        store.load()
    store.close()
