from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zttrio.errors import WireError
from zttrio.wire import folder as folder_module
from zttrio.wire.folder import SegmentFolder, default_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B, C = b"\2\0\0\0\0\x0a", b"\2\0\0\0\0\x0b", b"\2\0\0\0\0\x0c"
ADDRESS = b"\xa9\xfe\1\2"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SegmentFolder]:
    folder = SegmentFolder(tmp_path / "segment")
    yield folder
    folder.close()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Sockets that the test opened, closed after it."""
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def bind(folder: SegmentFolder, mac: bytes, sockets: list[socket.socket]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sockets.append(sock)
    assert folder.bind(sock, mac)
    return sock


def inside(folder: SegmentFolder) -> list[str]:
    return sorted(os.listdir(folder.path))


class TestPrivacy:
    def test_a_new_folder_is_closed_to_others_whatever_the_umask(self, tmp_path: Path) -> None:
        for umask in (0o000, 0o777):
            before = os.umask(umask)
            try:
                path = tmp_path / f"segment{umask}"
                SegmentFolder(path).close()
            finally:
                os.umask(before)
            assert stat.S_IMODE(path.stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o500])
    def test_a_folder_with_another_mode_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "segment"
        path.mkdir()
        path.chmod(mode)
        with pytest.raises(WireError, match=f"mode is {mode:04o}.*chmod 700 {path}"):
            SegmentFolder(path)

    def test_a_link_to_a_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir(mode=0o700)
        (tmp_path / "segment").symlink_to(tmp_path / "other")
        with pytest.raises(WireError, match=r"is a symbolic link.*remove it"):
            SegmentFolder(tmp_path / "segment")

    def test_a_link_to_nowhere_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "segment").symlink_to(tmp_path / "nowhere")
        with pytest.raises(WireError, match="is a symbolic link"):
            SegmentFolder(tmp_path / "segment")

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "segment").touch()
        with pytest.raises(WireError, match="is not a folder"):
            SegmentFolder(tmp_path / "segment")

    def test_the_parent_has_to_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(WireError, match="No such file or directory: make it, or name another"):
            SegmentFolder(tmp_path / "a" / "b")

    def test_a_folder_of_somebody_else_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "segment"
        path.mkdir(mode=0o700)
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(WireError, match=f"belongs to user {owner}, we are user {owner + 1}"):
            SegmentFolder(path)

    def test_refusing_leaves_no_descriptor_open(self, tmp_path: Path) -> None:
        path = tmp_path / "segment"
        path.mkdir()
        path.chmod(0o755)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(WireError):
                SegmentFolder(path)
        assert len(os.listdir("/proc/self/fd")) == before


class TestDefault:
    def test_the_runtime_folder_is_preferred(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        assert default_folder() == tmp_path / "zttrio" / "segment"
        folder = SegmentFolder()
        folder.close()
        assert folder.path == tmp_path / "zttrio" / "segment"
        for path in (folder.path, folder.path.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700

    @pytest.mark.parametrize("runtime", [None, "", "relative", "/nowhere/at/all"])
    def test_without_one_it_is_a_private_folder_among_the_temporary_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str | None
    ) -> None:
        if runtime is None:
            monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        else:
            monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert default_folder() == tmp_path / f"zttrio-{os.geteuid()}" / "segment"

    def test_a_runtime_folder_of_somebody_else_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert default_folder() == Path(tempfile.gettempdir(), "zttrio-12345", "segment")

    def test_a_parent_that_others_can_write_to_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        (tmp_path / "zttrio").mkdir()
        (tmp_path / "zttrio").chmod(0o777)
        with pytest.raises(WireError, match=f"{tmp_path}/zttrio: mode is 0777"):
            SegmentFolder()


class TestSockets:
    def test_a_station_is_a_socket_in_the_folder(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        sock = bind(folder, A, sockets)
        assert inside(folder) == ["02000000000a.sock"]
        assert folder.stations() == (A,)
        assert folder.is_alive(A)
        assert not folder.is_alive(B)
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sockets.append(sender)
        sender.sendto(b"x", folder.address(A))
        assert sock.recv(10) == b"x"
        folder.remove(A)
        assert folder.stations() == ()

    def test_a_long_path_is_no_problem(self, tmp_path: Path, sockets: list[socket.socket]) -> None:
        path = tmp_path / ("x" * 200)
        folder = SegmentFolder(path)
        bind(folder, A, sockets)
        assert folder.is_alive(A)
        folder.close()

    def test_without_proc_only_a_path_of_the_kernels_length_will_do(
        self, tmp_path: Path, sockets: list[socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder_module, "_DESCRIPTORS", str(tmp_path / "not mounted"))
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(WireError, match="longer than a socket's name may be"):
            SegmentFolder(tmp_path / ("x" * 100))
        assert len(os.listdir("/proc/self/fd")) == before
        with tempfile.TemporaryDirectory(dir="/tmp") as short:
            folder = SegmentFolder(short)
            bind(folder, A, sockets)
            assert folder.is_alive(A)
            folder.close()

    def test_an_address_is_taken_while_its_station_lives(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        bind(folder, A, sockets)
        with pytest.raises(WireError, match="another station has the address 02:00:00:00:00:0a"):
            bind(folder, A, sockets)

    def test_the_address_of_a_dead_station_is_free(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        bind(folder, A, sockets).close()
        assert inside(folder) == ["02000000000a.sock"]
        assert not folder.is_alive(A)
        bind(folder, A, sockets)
        assert folder.is_alive(A)

    def test_only_dead_sockets_are_removed_as_stale(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        bind(folder, A, sockets).close()
        bind(folder, B, sockets)
        (folder.path / f"{A.hex()}.tmp").touch()
        assert folder.remove_stale(A)
        assert not folder.remove_stale(B)
        assert inside(folder) == ["02000000000b.sock"]

    def test_nothing_is_bound_or_removed_while_another_process_does(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        bind(folder, A, sockets).close()
        other = os.open(folder.path, os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert not folder.remove_stale(A)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sockets.append(sock)
            assert not folder.bind(sock, B)
        finally:
            os.close(other)
        assert inside(folder) == ["02000000000a.sock"]
        assert folder.remove_stale(A)

    def test_the_list_notices_every_change_however_quick(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        for number in range(200):
            mac = b"\2\0\0\0\0" + bytes([number])
            sock = bind(folder, mac, sockets)
            assert mac in folder.stations()
            sock.close()
            folder.remove(mac)
            assert mac not in folder.stations()

    def test_a_quiet_folder_is_listed_once(
        self,
        folder: SegmentFolder,
        sockets: list[socket.socket],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        bind(folder, A, sockets)
        os.utime(folder.path, (0, 0))  # long ago
        listings = 0
        listdir = os.listdir

        def counting(path: Any) -> list[str]:
            nonlocal listings
            listings += 1
            return listdir(path)

        monkeypatch.setattr(os, "listdir", counting)
        for _ in range(5):
            assert folder.stations() == (A,)
        assert listings == 1

    def test_other_files_are_no_stations_and_stations_are_bounded(
        self, folder: SegmentFolder
    ) -> None:
        for name in ("x.sock", "02000000000A.sock", "02000000000a.sock.bak", "02000000000a.name"):
            (folder.path / name).touch()
        assert folder.stations() == ()
        for number in range(1100):
            (folder.path / f"{number:012x}.sock").touch()
        assert len(folder.stations()) == 1024


class TestNames:
    def test_a_name_is_there_as_long_as_its_station(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        sock = bind(folder, A, sockets)
        folder.write_name("Web.local", A, (ADDRESS, bytes(15) + b"\1"))
        assert inside(folder) == ["02000000000a.sock", "web.name"]
        assert stat.S_IMODE((folder.path / "web.name").stat().st_mode) == 0o600
        content = json.loads((folder.path / "web.name").read_bytes())
        assert content == {"mac": "02000000000a", "addresses": ["169.254.1.2", "::1"]}
        assert folder.read_name("WEB") == (ADDRESS, bytes(15) + b"\1")
        sock.close()
        assert folder.read_name("web") == ()

    def test_a_living_stations_name_is_taken_and_a_dead_ones_is_free(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        sock = bind(folder, A, sockets)
        bind(folder, B, sockets)
        folder.write_name("web", A, (ADDRESS,))
        with pytest.raises(WireError, match="name web: taken by the station 02:00:00:00:00:0a"):
            folder.write_name("web", B, ())
        assert folder.read_name("web") == (ADDRESS,)
        folder.write_name("web", A, (bytes(4),))  # one's own may change
        assert folder.read_name("web") == (bytes(4),)
        sock.close()
        folder.write_name("web", B, (ADDRESS,))
        assert folder.read_name("web") == (ADDRESS,)
        assert inside(folder) == ["02000000000a.sock", "02000000000b.sock", "web.name"]

    def test_only_ones_own_name_is_taken_back(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        bind(folder, A, sockets)
        folder.write_name("web", A, ())
        folder.remove_name("web", B)
        assert (folder.path / "web.name").exists()
        folder.remove_name("web", A)
        assert not (folder.path / "web.name").exists()
        folder.remove_name("web", A)

    @pytest.mark.parametrize(
        "name", ["../web", "a/b", "", ".", "..", ".web", "web..x", "a b", "a\0b", "é", "x" * 201]
    )
    def test_a_name_cannot_be_a_way_out_of_the_folder(
        self, folder: SegmentFolder, sockets: list[socket.socket], name: str
    ) -> None:
        bind(folder, A, sockets)
        with pytest.raises(ValueError, match="station name"):
            folder.write_name(name, A, ())
        assert folder.read_name(name) == ()
        assert inside(folder) == ["02000000000a.sock"]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b"null",
            b'{"mac": 5, "addresses": []}',
            b'{"mac": "02000000000a"}',
            b'{"mac": "../../etc/x", "addresses": []}',
            b'{"mac": "02000000000a", "addresses": 5}',
            b'{"mac": "02000000000a", "addresses": [5]}',
            b'{"mac": "02000000000a", "addresses": ["nonsense"]}',
            b'{"mac": "02000000000a", "addresses": ["1.2.3.4"' + b', "1.2.3.4"' * 64 + b"]}",
            b"[" * 4000,
            b"\xff\xfe",
            b" " * 5000 + b'{"mac": "02000000000a", "addresses": ["1.2.3.4"]}',
        ],
    )
    def test_a_file_that_makes_no_sense_is_no_name(
        self, folder: SegmentFolder, sockets: list[socket.socket], content: bytes
    ) -> None:
        bind(folder, A, sockets)
        (folder.path / "web.name").write_bytes(content)
        assert folder.read_name("web") == ()
        folder.write_name("web", A, (ADDRESS,))  # and is in nobody's way
        assert folder.read_name("web") == (ADDRESS,)

    def test_links_and_pipes_are_no_names(
        self, folder: SegmentFolder, sockets: list[socket.socket], tmp_path: Path
    ) -> None:
        bind(folder, A, sockets)
        folder.write_name("real", A, (ADDRESS,))
        (folder.path / "link.name").symlink_to(folder.path / "real.name")
        os.mkfifo(folder.path / "pipe.name")
        assert folder.read_name("link") == ()
        assert folder.read_name("pipe") == ()

    def test_a_left_over_draft_is_in_nobodys_way(
        self, folder: SegmentFolder, sockets: list[socket.socket]
    ) -> None:
        bind(folder, A, sockets)
        (folder.path / f"{A.hex()}.tmp").write_bytes(b"half a na")
        folder.write_name("web", A, (ADDRESS,))
        assert folder.read_name("web") == (ADDRESS,)

    def test_too_many_addresses_are_refused(self, folder: SegmentFolder) -> None:
        with pytest.raises(ValueError, match="at most 64 addresses"):
            folder.write_name("web", A, (ADDRESS,) * 65)

    def test_a_folder_that_is_gone_is_explained(self, folder: SegmentFolder) -> None:
        folder.path.rmdir()
        with pytest.raises(WireError, match="name web: cannot be published in"):
            folder.write_name("web", A, ())
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
            pytest.raises(WireError, match="cannot bind a socket"),
        ):
            folder.bind(sock, A)
