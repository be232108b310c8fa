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
from .channel import Channel
from .verdict import Everything

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from zttrio.driver import Driver
    from zttrio.resolve import Resolver

    from .connection import Policy

__all__ = ["ADDRESS_WAIT", "TapService", "default_folder", "private_path", "serve"]

BACKLOG = 1024  # programs that may wait to be let in; arbitrary
CHANNELS = 4096  # threads of programs at once; arbitrary
_PATH_LIMIT = 107  # octets of sun_path without its final zero, unix(7)
_log = logging.getLogger(__name__)


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
    say: Callable[[str], None] = _log.warning,
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
        async with trio.open_nursery() as nursery:
            broker = Broker(
                driver, resolver, name, Everything() if policy is None else policy, nursery, say
            )
            stack.callback(broker.poller.close)
            nursery.start_soon(broker.poller.run)
            nursery.start_soon(_admit, listener, broker, network, allowed, nursery)
            task_status.started(TapService(address, broker))


async def _admit(
    listener: socket.socket,
    broker: Broker,
    network: str,
    allowed: set[int],
    nursery: trio.Nursery,
) -> None:
    """Let programs in."""
    channels = 0

    async def run(channel: Channel) -> None:
        nonlocal channels
        channels += 1
        try:
            await channel.run()
        finally:
            channels -= 1

    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            continue
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                raise
            broker.counters.no_descriptors += 1
            await trio.sleep(0.1)  # nobody tells when a descriptor is free again
            continue
        channel = Channel(sock, broker, network)
        if channel.uid not in allowed or channels >= CHANNELS:
            broker.counters.clients_refused += 1
            sock.close()
            continue
        broker.counters.clients += 1
        nursery.start_soon(run, channel)


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
