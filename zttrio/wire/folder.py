"""The folder that is the cable of the host segment: one socket per station, one file per name.

Knows the file system and nothing about frames.  The folder belongs to one user and is closed to
everybody else: whoever can write into it is on the cable.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import stat
import tempfile
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import attrs

from zttrio.errors import WireError

from .name import station_name

__all__ = ["SegmentFolder", "default_folder"]

_SOCKET_NAME = re.compile(r"([0-9a-f]{12})\.sock")
_MAC_TEXT = re.compile(r"[0-9a-f]{12}")
_NAME_FILE_LIMIT = 4096  # octets of a name's file that anybody reads; arbitrary
_ADDRESS_LIMIT = 64  # addresses of one name; arbitrary
_STATION_LIMIT = 1024  # stations that a broadcast reaches; as many as Linux's bridge has ports
_DESCRIPTORS = "/proc/self/fd"
_PATH_LIMIT = 107  # octets of sun_path without its final zero, unix(7)
_SETTLED = 0.05  # s; file systems stamp directories with the kernel's tick, at most 10 ms coarse


def default_folder() -> Path:
    """Where this user's host segment is, if nobody says otherwise.

    ``$XDG_RUNTIME_DIR/zttrio/segment`` if that variable names a folder of ours, and
    ``zttrio-UID/segment`` in the folder for temporary files if not.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        try:
            status = os.stat(runtime)
        except OSError:
            pass  # it is often left over from another session
        else:
            # After su or sudo the variable still names the other user's folder.
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                return Path(runtime, "zttrio", "segment")
    return Path(tempfile.gettempdir(), f"zttrio-{os.geteuid()}", "segment")


@attrs.frozen
class _Name:
    """What a name's file says."""

    mac: bytes
    addresses: tuple[bytes, ...]


class SegmentFolder:
    """An open segment folder.

    Args:
        path: the folder, made if it is not there (but not its parent); None means
            `default_folder`.

    Attributes:
        path: where it is, for messages.

    Raises:
        WireError: it cannot be made or opened, or it is not private.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is None:
            self.path = default_folder()
            # Its parent is ours too: in a folder for temporary files anybody could have made it.
            parent = _open_private(self.path.parent)
            try:
                self._fd = _open_private(self.path)
            finally:
                os.close(parent)
        else:
            self.path = Path(path).absolute()
            self._fd = _open_private(self.path)
        # A path through the descriptor is short whatever the folder's length, and it keeps
        # meaning this folder if somebody moves another one to its place.
        self._base = f"{_DESCRIPTORS}/{self._fd}"
        if not os.path.isdir(self._base):
            self._base = str(self.path)
            if len(os.fsencode(self._base)) + len("/0123456789ab.sock") > _PATH_LIMIT:
                os.close(self._fd)
                raise WireError(
                    f"segment folder {self.path}: longer than a socket's name may be, and /proc "
                    f"is not mounted: name a shorter one with HostSegment(folder=...)"
                )
        self._stations: tuple[bytes, ...] = ()
        self._listed_at = -1  # the folder's time stamp when that list was certain, or -1

    def close(self) -> None:
        """Forget the folder; what is in it stays."""
        os.close(self._fd)

    # Sockets.

    def address(self, mac: bytes) -> str:
        """The address of the station *mac*'s socket, for `bind`, `connect` and `sendto`."""
        return f"{self._base}/{mac.hex()}.sock"

    def bind(self, sock: socket.socket, mac: bytes) -> bool:
        """Give *sock* the address of *mac*; False if the folder is locked at this moment.

        Raises:
            WireError: another station has that address, or the folder does not allow it.
        """
        if not self._lock():
            return False
        try:
            if self.is_alive(mac):
                raise WireError(
                    f"segment folder {self.path}: another station has the address {mac.hex(':')}"
                )
            self._unlink(f"{mac.hex()}.sock")
            sock.bind(self.address(mac))
        except OSError as exc:
            raise WireError(f"segment folder {self.path}: cannot bind a socket: {exc}") from exc
        finally:
            self._unlock()
        return True

    def is_alive(self, mac: bytes) -> bool:
        """True if a station listens at *mac*.

        Raises:
            OSError: that cannot be found out, for example without a free descriptor.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.address(mac))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
        return True

    def remove_stale(self, mac: bytes) -> bool:
        """Remove the socket of a station that died without doing it, and say if that was done.

        If another process is just changing the folder nothing is; somebody will meet the socket
        again.

        Raises:
            OSError: the folder does not allow it.
        """
        if not self._lock():
            return False
        try:
            if self.is_alive(mac):
                return False
            self._unlink(f"{mac.hex()}.sock")
            self._unlink(f"{mac.hex()}.tmp")
        finally:
            self._unlock()
        return True

    def remove(self, mac: bytes) -> None:
        """Remove the socket of *mac*, which is ours."""
        self._unlink(f"{mac.hex()}.sock")

    def stations(self) -> tuple[bytes, ...]:
        """The addresses of all sockets here, dead ones included, at most 1024.

        The folder is read again only if it has changed since.

        Raises:
            OSError: the folder cannot be read.
        """
        stamp = os.fstat(self._fd).st_mtime_ns
        if stamp != self._listed_at:
            matches = map(_SOCKET_NAME.fullmatch, sorted(os.listdir(self._fd)))
            found = [bytes.fromhex(match[1]) for match in matches if match]
            self._stations = tuple(found[:_STATION_LIMIT])
            # A change in the same tick leaves the stamp as it is, so a fresh one proves nothing.
            settled = time.time_ns() - stamp > _SETTLED * 1e9
            self._listed_at = stamp if settled else -1
        return self._stations

    # Names.

    def write_name(self, name: str, mac: bytes, addresses: tuple[bytes, ...]) -> None:
        """Publish *name* for the station *mac*, which is ours.

        Raises:
            ValueError: *name* cannot be a name, or there are too many addresses.
            WireError: a living station has that name, or the folder does not allow it.
        """
        name = station_name(name)
        if len(addresses) > _ADDRESS_LIMIT:
            raise ValueError(f"name {name}: at most {_ADDRESS_LIMIT} addresses")
        texts = [str(ip_address(address)) for address in addresses]
        content = json.dumps({"mac": mac.hex(), "addresses": texts}).encode()
        try:
            self._write(f"{name}.name", mac, content)
        except OSError as exc:
            raise WireError(f"name {name}: cannot be published in {self.path}: {exc}") from exc

    def _write(self, file_name: str, mac: bytes, content: bytes) -> None:
        """Let the file of a name appear with all its content, unless a living station has it."""
        draft = f"{mac.hex()}.tmp"
        self._unlink(draft)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600, dir_fd=self._fd), "wb") as file:
            file.write(content)
        try:
            try:
                # A link never replaces, so of two stations that want a free name one gets it.
                os.link(draft, file_name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except FileExistsError:
                self._refuse_taken(file_name, mac)
                os.replace(draft, file_name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                self._refuse_taken(file_name, mac)  # two may have replaced a dead one's
        finally:
            self._unlink(draft)

    def _refuse_taken(self, file_name: str, mac: bytes) -> None:
        entry = self._read(file_name)
        if entry is not None and entry.mac != mac and self.is_alive(entry.mac):
            name = file_name.removesuffix(".name")
            raise WireError(f"name {name}: taken by the station {entry.mac.hex(':')}")

    def read_name(self, name: str) -> tuple[bytes, ...]:
        """The packed addresses that a living station has published for *name*, or none.

        Raises:
            OSError: it cannot be found out whether the station lives.
        """
        try:
            file_name = f"{station_name(name)}.name"
        except ValueError:
            return ()
        entry = self._read(file_name)
        if entry is None or not self.is_alive(entry.mac):
            return ()
        return entry.addresses

    def remove_name(self, name: str, mac: bytes) -> None:
        """Take back a name of the station *mac*, unless it is another's by now."""
        file_name = f"{station_name(name)}.name"
        entry = self._read(file_name)
        if entry is not None and entry.mac == mac:
            self._unlink(file_name)

    def _read(self, file_name: str) -> _Name | None:
        """What the file of a name says, or None if it is not there or makes no sense."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(file_name, flags, dir_fd=self._fd), "rb") as file:
                content = json.loads(file.read(_NAME_FILE_LIMIT))
            mac, texts = content["mac"], content["addresses"]
            if _MAC_TEXT.fullmatch(mac) is None or len(texts) > _ADDRESS_LIMIT:
                return None
            return _Name(bytes.fromhex(mac), tuple(_packed(text) for text in texts))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    # The folder itself.

    def _unlink(self, file_name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(file_name, dir_fd=self._fd)

    def _lock(self) -> bool:
        """Keep others from binding and removing; never waits, because the other may be stopped."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)


def _packed(text: object) -> bytes:
    if not isinstance(text, str):  # ip_address would take a number
        raise TypeError("an address is text")
    return ip_address(text).packed


def _open_private(path: Path) -> int:
    """A descriptor of the folder *path*, made if need be; its parent has to be there.

    Raises:
        WireError: somebody else could put frames on the cable, or there is no folder.
    """
    advice = "or name another folder with HostSegment(folder=...)"
    try:
        try:
            path.mkdir(mode=0o700)
            is_new = True
        except FileExistsError:
            is_new = False
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ELOOP or (exc.errno == errno.ENOTDIR and path.is_symlink()):
            raise WireError(
                f"segment folder {path}: is a symbolic link, which others may have put there: "
                f"remove it, {advice}"
            ) from exc
        if exc.errno == errno.ENOTDIR and path.exists():
            raise WireError(
                f"segment folder {path}: is not a folder: move it away, {advice}"
            ) from exc
        raise WireError(f"segment folder {path}: {exc.strerror}: make it, {advice}") from exc
    try:
        if is_new:
            os.fchmod(fd, 0o700)  # whatever the umask took away
        _refuse_shared(path, os.fstat(fd), advice)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_shared(path: Path, status: os.stat_result, advice: str) -> None:
    if status.st_uid != os.geteuid():
        raise WireError(
            f"segment folder {path}: belongs to user {status.st_uid}, we are user "
            f"{os.geteuid()}: remove it, {advice}"
        )
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if mode != 0o700:
        raise WireError(
            f"segment folder {path}: mode is {mode:04o}, so that others may be on the cable or we "
            f"may not: do 'chmod 700 {path}', {advice}"
        )
