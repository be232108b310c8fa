"""A node's home folder, in the file formats of the real software (VL1 specification, 23).

What cannot be read is an error and never replaced: a damaged ``planet`` must not send a private
network to somebody else's roots, and a damaged identity must not become a new one.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError, IdentityError, WireError
from zttrio.zerotier.endpoint import Endpoint, emit_endpoint, parse_endpoint
from zttrio.zerotier.identity import IDENTITY_LENGTH, Identity
from zttrio.zerotier.world import MOON, PLANET, World

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CachedPeer", "Home", "read_identity", "read_world", "write_private", "write_public"]

_PEER_VERSION = 2
_PEER_NUMBERS = struct.Struct("!5H")  # protocol, major, minor, revision, number of endpoints
_PEER_AGE = 30 * 86_400  # seconds (12.5)
_PEER_LIMIT = 1024  # arbitrary
_LARGEST = 65_536  # no file of a home is longer


@attrs.frozen
class CachedPeer:
    """What is remembered of a peer between two runs.

    Attributes:
        identity: checked before it was stored.
        protocol: what it spoke.
        version: its software: major, minor, revision.
        endpoints: where it was; hints, to be confirmed again.
    """

    identity: Identity
    protocol: int
    version: tuple[int, int, int]
    endpoints: tuple[Endpoint, ...]

    @classmethod
    def parse(cls, data: bytes) -> CachedPeer:
        """Read a file of ``peers.d``.

        Raises:
            HeaderError: it is none, or from another version of the format.
        """
        at = 1 + IDENTITY_LENGTH
        if len(data) < at + _PEER_NUMBERS.size or data[0] != _PEER_VERSION:
            raise HeaderError(f"cached peer: {len(data)} octets of another format")
        identity, _ = Identity.parse(data, 1)
        protocol, major, minor, revision, count = _PEER_NUMBERS.unpack_from(data, at)
        at += _PEER_NUMBERS.size
        endpoints = []
        for _ in range(count):
            endpoint, at = parse_endpoint(data, at)
            if endpoint is not None:
                endpoints.append(endpoint)
        return cls(identity, protocol, (major, minor, revision), tuple(endpoints))

    def emit(self) -> bytes:
        """The same as octets."""
        numbers = _PEER_NUMBERS.pack(self.protocol, *self.version, len(self.endpoints))
        endpoints = b"".join(map(emit_endpoint, self.endpoints))
        return bytes((_PEER_VERSION,)) + self.identity.emit() + numbers + endpoints


class Home:
    """The folder.  Methods block on the file system, so tasks call them in a worker thread.

    Args:
        folder: made with mode 0700 if it is not there.

    Raises:
        WireError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.unreadable_peers = 0
        """Files of the peer cache that were skipped."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise WireError(f"home {self.folder}: {exc.strerror}") from exc
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the folder for this node alone: two with one identity would confuse every peer.

        The kernel lets go of it when the process ends, however it ends.

        Raises:
            WireError: another node runs in it, or it cannot be written.
        """
        try:
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise WireError(
                f"home {self.folder}: another node is running in it; end that one, or use another "
                "home"
            ) from None
        except OSError as exc:
            self.unlock()
            raise WireError(f"home {self.folder}: {exc.strerror}") from exc

    def unlock(self) -> None:
        """Let others have the folder; once more does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # identity

    def load_identity(self) -> Identity | None:
        """The identity with its secret, or None if there is no file.

        Raises:
            IdentityError: the file is malformed, holds no secret, or others may read it.
        """
        path = self.folder / "identity.secret"
        if not path.exists():
            return None
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise IdentityError(
                f"identity {path}: others may read it (mode {mode & 0o777:o}); chmod 600 it"
            )
        identity = read_identity(path)
        if identity.secret is None:
            raise IdentityError(f"identity {path}: it holds no secret")
        return identity

    def save_identity(self, identity: Identity) -> None:
        """Write ``identity.secret`` (mode 0600) and ``identity.public``.

        Raises:
            IdentityError: there is an identity already, or *identity* has no secret.
            WireError: the files cannot be written.
        """
        secret = self.folder / "identity.secret"
        if secret.exists():
            raise IdentityError(f"identity {secret}: it exists, and is never overwritten")
        write_private(secret, identity.secret_text().encode())
        write_public(self.folder / "identity.public", identity.text().encode())

    # worlds

    def load_worlds(self) -> list[World]:
        """The planet and the moons that are stored.

        Raises:
            WireError: one of them is damaged.
        """
        worlds = []
        planet = self.folder / "planet"
        if planet.exists():
            worlds.append(read_world(planet, PLANET))
        for path in sorted((self.folder / "moons.d").glob("*.moon")):
            moon = read_world(path, MOON)
            if path.stem != f"{moon.id:016x}":
                raise WireError(f"moon {path}: the file holds moon {moon.id:016x}")
            worlds.append(moon)
        return worlds

    def save_world(self, world: World) -> None:
        """Store a world in place of its older revision.

        Raises:
            WireError: it cannot be written.
        """
        if world.kind == PLANET:
            write_public(self.folder / "planet", world.emit())
        else:
            self._subfolder("moons.d")
            write_public(self.folder / "moons.d" / f"{world.id:016x}.moon", world.emit())

    def drop_moon(self, moon_id: int) -> None:
        """Forget a moon."""
        (self.folder / "moons.d" / f"{moon_id:016x}.moon").unlink(missing_ok=True)

    # networks

    def load_network(self, network_id: int) -> bytes | None:
        """The configuration of a network that was stored, or None.

        Raises:
            WireError: it cannot be read.
        """
        path = self._network_path(network_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise WireError(f"network {path}: {exc.strerror}") from exc
        # A single line feed stands for "joined, and no configuration so far" (VL2, 6.4).
        return data if len(data) > 1 else None

    def save_network(self, network_id: int, data: bytes = b"\n") -> None:
        """Store the configuration of a network, by default that there is none yet.

        Raises:
            WireError: it cannot be written.
        """
        self._subfolder("networks.d")
        write_private(self._network_path(network_id), data)

    def load_choices(self, network_id: int) -> dict[str, bool]:
        """What the owner of this node allows a network to set (VL2, 6.4).

        Raises:
            WireError: the file cannot be read.
        """
        path = self._network_path(network_id, "local.conf")
        choices = {}
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise WireError(f"network {path}: {exc.strerror}") from exc
        for line in lines:
            key, is_setting, value = line.partition(b"=")
            if is_setting:
                choices[key.decode("latin-1")] = value[:1] in (b"1", b"t", b"T")
        return choices

    def _network_path(self, network_id: int, suffix: str = "conf") -> Path:
        return self.folder / "networks.d" / f"{network_id:016x}.{suffix}"

    # the port

    def load_port(self) -> int:
        """The UDP port that was used last, 0 if that is not known."""
        try:
            port = int((self.folder / "node.port").read_bytes()[:8])
        except (OSError, ValueError):
            return 0
        return port if 0 < port < 1 << 16 else 0

    def save_port(self, port: int) -> None:
        """Remember the UDP port for the next start.

        Raises:
            WireError: it cannot be written.
        """
        write_public(self.folder / "node.port", b"%d\n" % port)

    # peers

    def load_peers(self, now: float) -> list[CachedPeer]:
        """Peers of earlier runs, those that were seen last first; old files are removed.

        A file that cannot be read is skipped and counted: the cache only saves time.

        Args:
            now: seconds since 1970.
        """
        found = []
        for path in (self.folder / "peers.d").glob("*.peer"):
            try:
                age = now - path.stat().st_mtime
                if age > _PEER_AGE:
                    path.unlink()
                    continue
                peer = CachedPeer.parse(path.read_bytes()[:_LARGEST])
            except (OSError, HeaderError):
                self.unreadable_peers += 1
                continue
            found.append((age, path.name, peer))
        return [peer for _, _, peer in sorted(found, key=lambda item: item[:2])[:_PEER_LIMIT]]

    def save_peers(self, peers: Iterable[CachedPeer]) -> None:
        """Remember peers for the next run.

        Raises:
            WireError: they cannot be written.
        """
        self._subfolder("peers.d")
        for peer in peers:
            write_private(self.folder / "peers.d" / f"{peer.identity}.peer", peer.emit())

    def _subfolder(self, name: str) -> None:
        try:
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise WireError(f"home {self.folder / name}: {exc.strerror}") from exc


def read_identity(path: Path) -> Identity:
    """The identity in a file, with or without its secret.  Its address is not checked.

    Raises:
        IdentityError: there is none.
    """
    try:
        return Identity.parse_text(path.read_text("ascii"))
    except OSError as exc:
        raise IdentityError(f"identity {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise IdentityError(f"identity {path}: it is not text") from exc


def read_world(path: Path, kind: int | None = None) -> World:
    """The world in a file, of *kind* if that is given.

    Raises:
        WireError: there is none.
    """
    try:
        data = path.read_bytes()
        world, end = World.parse(data)
    except OSError as exc:
        raise WireError(f"world {path}: {exc.strerror}") from exc
    except HeaderError as exc:
        raise WireError(f"world {path}: {exc}") from exc
    if end != len(data):
        raise WireError(f"world {path}: {len(data) - end} octets too many")
    if kind is not None and world.kind != kind:
        raise WireError(f"world {path}: type {world.kind}, needs type {kind}")
    return world


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, all of it or nothing.

    Raises:
        WireError: it cannot be written.
    """
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, all of it or nothing.

    Raises:
        WireError: it cannot be written.
    """
    _write(path, data, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
    except OSError as exc:
        raise WireError(f"writing {path}: {exc.strerror}") from exc
