"""The tap service: a socket in a private folder, behind it the broker, for programs of one network.

Programs find it by the environment variable ``ZTTRIO_NET``; `zttrio.intercept` sets that for those
it starts.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import secrets
import socket
import stat
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio.errors import InterceptError

from .broker import ADDRESS_WAIT, Broker
from .channel import Channel, peer_of, repurpose
from .verdict import Everything

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from zttrio.driver import Driver
    from zttrio.resolve import Resolver

    from .connection import Policy

__all__ = ["ADDRESS_WAIT", "TapService", "default_folder", "private_path", "serve", "warn"]

BACKLOG = 1024  # programs that may wait to be let in; arbitrary
CHANNELS = 4096  # threads of programs at once; arbitrary
_PATH_LIMIT = 107  # octets of sun_path without its final zero, unix(7)
warn = logging.getLogger(__name__).warning
"""Where a service says what it has blocked, unless it is told otherwise."""


@attrs.frozen
class TapService:
    """A running tap service.

    Attributes:
        address: what belongs into ``ZTTRIO_NET``: a path, or ``@`` and an abstract name.
        broker: its sockets and counters.
    """

    address: str
    broker: Broker


def default_folder() -> Path:
    """Where tap services have their sockets: closed to everybody but this user.

    ``$XDG_RUNTIME_DIR/zttrio`` if that variable names a folder of ours, else ``zttrio-UID`` in the
    folder for temporary files.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        with suppress(OSError):
            status = os.stat(runtime)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                return Path(runtime, "zttrio")
    return Path(tempfile.gettempdir(), f"zttrio-{os.geteuid()}")


def private_path() -> Path:
    """A path for the socket of a service that nobody else has to find."""
    return default_folder() / f"nc_{os.getpid()}-{secrets.token_hex(4)}"


async def serve(
    driver: Driver,
    resolver: Resolver,
    *,
    name: str | None = None,
    network: str = "host",
    path: str | os.PathLike[str] | None = None,
    policy: Policy | None = None,
    users: Collection[int] | None = None,
    say: Callable[[str], None] = warn,
    task_status: trio.TaskStatus[TapService] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Give sockets of a network to unmodified programs, until cancelled.

    ``nursery.start`` returns the `TapService`.  When this ends, programs see the connections they
    have left as reset, and every socket() they try as ENETDOWN.

    Args:
        driver: the stack driver of the network.
        resolver: its names.
        name: what others on the network call us.
        network: what the network is called; part of the default path, and told to programs.
        path: of the service's socket; its folder must be private (made if it is not there).
        policy: where traffic may go; by default all of it to the virtual network.
        users: who may come, as user IDs; by default ours and root's.
        say: tells the user what was blocked, each thing once.
        task_status: see `trio.Nursery.start`.

    Raises:
        InterceptError: the folder is not private, or the socket is in use.
        OSError: the socket cannot be made.
    """
    allowed = {os.geteuid(), 0} if users is None else set(users)
    _raise_descriptor_limit()
    where = default_folder() / f"nc_{network}" if path is None else Path(path)
    with ExitStack() as stack:
        listener, address = _listen(where, stack)
        streams = _listen_beside(address, stack)
        async with trio.open_nursery() as nursery:
            broker = Broker(
                driver, resolver, name, Everything() if policy is None else policy, nursery, say
            )
            stack.callback(broker.poller.close)
            nursery.start_soon(broker.poller.run, broker.attend_news)
            admission = Admission(broker, network, allowed, nursery)
            nursery.start_soon(admission.run, listener)
            if streams is not None:
                broker.can_repurpose = True
                nursery.start_soon(admission.run, streams)
            task_status.started(TapService(address, broker))


class Admission:
    """Lets programs in, as many as there may be.

    Args:
        broker: what they come for.
        network: what the network is called.
        allowed: the users who may come.
        nursery: where their tasks run.
    """

    def __init__(
        self, broker: Broker, network: str, allowed: set[int], nursery: trio.Nursery
    ) -> None:
        self._broker = broker
        self._network = network
        self._allowed = allowed
        self._nursery = nursery
        self._inside = 0

    async def run(self, listener: socket.socket) -> None:
        """Accept at *listener* until cancelled."""
        counters = self._broker.counters
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as exc:
                if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                    raise
                counters.no_descriptors += 1
                await trio.sleep(0.1)  # nobody tells when a descriptor is free again
                continue
            if peer_of(sock)[1] not in self._allowed or self._inside >= CHANNELS:
                counters.clients_refused += 1
                sock.close()
                continue
            self._nursery.start_soon(self._serve, sock, listener.type)

    async def _serve(self, sock: socket.socket, kind: int) -> None:
        self._inside += 1
        try:
            if kind == socket.SOCK_STREAM:
                await repurpose(sock, self._broker)
            else:
                self._broker.counters.clients += 1
                await Channel(sock, self._broker, self._network).run()
        finally:
            self._inside -= 1


def _listen_beside(address: str, stack: ExitStack) -> socket.socket | None:
    """The socket whose connections become sockets; None if its path would be too long."""
    name = os.fsencode(address) + b".s"
    if len(name) > _PATH_LIMIT:
        return None
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listener.setblocking(False)
    if address.startswith("@"):
        listener.bind(b"\0" + name[1:])
    else:
        path = Path(address + ".s")
        path.unlink(missing_ok=True)  # the service it belonged to is gone, or ours would not run
        listener.bind(name)
        stack.callback(path.unlink, missing_ok=True)
    listener.listen(BACKLOG)
    return listener


def _listen(path: Path, stack: ExitStack) -> tuple[socket.socket, str]:
    """The service's socket and its address; *stack* closes and removes it."""
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    listener.setblocking(False)
    if len(os.fsencode(path)) > _PATH_LIMIT:
        # No folder protects an abstract name, but the user of every caller is checked.
        address = f"@zttrio-{secrets.token_hex(16)}"
        listener.bind("\0" + address[1:])
    else:
        address = str(path)
        _make_private(path.parent)
        _bind(listener, path)
        stack.callback(path.unlink, missing_ok=True)
    listener.listen(BACKLOG)
    return listener, address


def _make_private(folder: Path) -> None:
    """Make sure that *folder* is ours alone.

    Raises:
        InterceptError: it is not, and what to do.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise InterceptError(
            f"tap service folder {folder}: must be a folder of user {os.geteuid()} that is closed "
            f"to others; chmod 700 it, or choose another path"
        )


def _bind(listener: socket.socket, path: Path) -> None:
    try:
        listener.bind(str(path))
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        # A socket file outlives its service: if nobody answers, it is nobody's.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                listener.bind(str(path))
                return
            except BlockingIOError:
                pass  # alive, and busy
        raise InterceptError(f"tap service {path}: another service is running there") from exc


def _raise_descriptor_limit() -> None:
    """Every socket of every program costs one descriptor here: take as many as are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
