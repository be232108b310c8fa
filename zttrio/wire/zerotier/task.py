"""The task that drives a `zttrio.zerotier.node.Node`: sockets, a clock, threads and a home folder.

It decides nothing about the protocol.  Whoever changes the node (a datagram, a timer, a caller)
flushes it in the same breath, so nothing waits for another task to be scheduled.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from zttrio._background import open_background
from zttrio.errors import IdentityError, WireError
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.crypto import open_backend
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import (
    EchoAnswered,
    IdentityCollision,
    Offline,
    Online,
    UserMessageReceived,
    WorldUpdated,
)
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.node import Node
from zttrio.zerotier.world import PLANET

from .home import CachedPeer, Home
from .interfaces import interface_addresses
from .sockets import SocketCounters, open_udp_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from zttrio.zerotier.config import RelayConfig
    from zttrio.zerotier.events import Event
    from zttrio.zerotier.sender import Datagram
    from zttrio.zerotier.world import World

__all__ = ["NodeSocket", "NodeTask", "generate_identity"]

_ADDRESS_INTERVAL = 30.0  # between two looks at our own interfaces (17.1)
_MESSAGES = 1024  # USER_MESSAGEs that wait for a program; arbitrary
_GOODBYE = 2.0  # seconds that storing the peers may take; arbitrary


class NodeSocket(Protocol):
    """What the task needs of a UDP socket; see `zttrio.wire.zerotier.sockets.UdpSocket`."""

    length: int
    port: int
    ip: bytes

    async def wait_readable(self) -> None:
        """Return when there may be something to receive."""

    async def wait_writable(self) -> None:
        """Return when datagrams are taken again."""

    def receive(self) -> list[tuple[Endpoint, bytes]]:
        """What has arrived."""

    def send(self, datagrams: Sequence[Datagram]) -> None:
        """Send, or keep for `send_backlog`."""

    @property
    def has_backlog(self) -> bool:
        """True while datagrams wait."""

    def send_backlog(self) -> None:
        """Try again to send what waited."""

    def close(self) -> None:
        """Close the socket."""


async def generate_identity() -> Identity:
    """A new identity, made in a worker thread in a few seconds.

    If this is cancelled the thread's work is thrown away.
    """
    # A backend belongs to one thread at a time, so this one has its own.
    return await trio.to_thread.run_sync(
        lambda: Identity.generate(os.urandom, open_backend()), abandon_on_cancel=True
    )


class NodeTask:
    """One running node.

    Args:
        home: folder for identity, worlds and known peers; None keeps nothing.
        identity: with its secret; by default the one in *home*, or a new one.
        worlds: a planet and moons to trust, stored in *home* beside or in place of those there
            (a newer revision that is there stays).  Without any planet the node knows no roots,
            and sends nothing until it is given some.
        port: UDP port, 0 for a random one.
        bind: packed addresses to use; empty for all.
        config: the node's numbers.
        relay: how to relay, for a root; one of the worlds has to list it.
        open_sockets: makes the sockets; tests pass their own.
        check: tells if an identity is valid; called in a worker thread, one at a time.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        identity: Identity | None = None,
        worlds: Sequence[World] = (),
        port: int = 0,
        bind: Sequence[bytes] = (),
        config: NodeConfig | None = None,
        relay: RelayConfig | None = None,
        open_sockets: Callable[
            [Sequence[bytes], int, SocketCounters], Sequence[NodeSocket]
        ] = open_udp_sockets,
        check: Callable[[Identity], bool] | None = None,
    ) -> None:
        self.node: Node
        """Set when the task has started."""
        self.socket_counters = SocketCounters()
        self.messages_dropped = 0
        """USER_MESSAGEs that nobody received in time."""
        self.interface_errors = 0
        """How often the kernel did not tell our addresses."""
        self.on_event: Callable[[Event], None] = _ignore
        """Called synchronously with every event; must not raise."""
        self._home_folder = home
        self._home: Home | None = None
        self._identity = identity
        self._given = worlds
        self._port = port
        self._bind = bind
        self._config = NodeConfig() if config is None else config
        self._relay = relay
        self._open_sockets = open_sockets
        self._check = _is_valid if check is None else check
        self._sockets: list[NodeSocket] = []
        self._timer_scope: trio.CancelScope | None = None
        self._deadline = inf
        self._work = trio.Event()
        self._online = trio.Event()
        self._blocked = trio.Event()
        self._to_save: list[World] = []
        self._save = trio.Event()
        self._collision: bytes | None = None
        self._to_program, self._messages = trio.open_memory_channel[UserMessageReceived](_MESSAGES)

    # running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a node until cancelled; it has started when its sockets are open.

        Raises:
            IdentityError: the identity is invalid, or a root says that it is somebody else's.
            WireError: a file of the home folder is damaged, no world lists a node that is to
                relay, or a socket cannot be opened or died.
        """
        self._home = None
        if self._home_folder is not None:
            self._home = await trio.to_thread.run_sync(Home, self._home_folder)
        identity = await self._find_identity()
        worlds, peers = await self._load()
        self._sockets = list(self._open_sockets(self._bind, self._port, self.socket_counters))
        try:
            self._make_node(identity, worlds, peers)
            try:
                async with open_background() as background:
                    for number, _ in enumerate(self._sockets):
                        background.start_soon(self._receive, number)
                    background.start_soon(self._keep_time)
                    background.start_soon(self._check_identities)
                    background.start_soon(self._drain_backlogs)
                    background.start_soon(self._save_worlds)
                    background.start_soon(self._watch_interfaces)
                    task_status.started()
                    await trio.sleep_forever()
            finally:
                await self._save_peers()  # noqa: ASYNC102 - it shields itself, for a limited time
        finally:
            for sock in self._sockets:
                sock.close()

    async def _find_identity(self) -> Identity:
        identity, home = self._identity, self._home
        if identity is None and home is not None:
            identity = await trio.to_thread.run_sync(home.load_identity)
        if identity is None:
            identity = await generate_identity()
            if home is not None:
                await trio.to_thread.run_sync(home.save_identity, identity)
        elif not await self._is_valid(identity):
            raise IdentityError(f"identity {identity}: its address is not that of its keys")
        return identity

    async def _load(self) -> tuple[list[World], list[CachedPeer]]:
        """The worlds and peers to begin with."""
        home = self._home
        worlds: list[World] = []
        peers: list[CachedPeer] = []
        if home is not None:
            worlds = await trio.to_thread.run_sync(home.load_worlds)
            peers = await trio.to_thread.run_sync(home.load_peers, time.time())
        for given in self._given:
            # The planet is replaced whatever its ID; a moon only by the same moon.
            is_planet = given.kind == PLANET
            same = [w for w in worlds if w.kind == given.kind and (is_planet or w.id == given.id)]
            if any(w.id == given.id and w.timestamp > given.timestamp for w in same):
                continue
            worlds = [world for world in worlds if world not in same] + [given]
            if home is not None:
                await trio.to_thread.run_sync(home.save_world, given)
        return worlds, peers

    async def _save_peers(self) -> None:
        if self._home is not None:
            with trio.move_on_after(_GOODBYE, shield=True):
                await trio.to_thread.run_sync(
                    self._home.save_peers, self._cached_peers(), abandon_on_cancel=True
                )

    def _make_node(
        self, identity: Identity, worlds: Iterable[World], peers: Iterable[CachedPeer]
    ) -> None:
        now = trio.current_time()
        node = self.node = Node(
            identity,
            rng=os.urandom,
            backend=open_backend(),
            epoch=time.time() - now,
            config=self._config,
            relay=self._relay,
        )
        self._tell_sockets()
        for world in worlds:
            node.set_world(world, now)
        if self._relay is not None and not node.topology.is_root:
            raise WireError(f"root {identity}: none of its worlds lists it")
        node.start(now)
        for peer in peers:
            node.add_peer(peer.identity, peer.endpoints, now)
        self.flush()

    def _tell_sockets(self) -> None:
        """Say which sockets there are, and where this machine can be reached by them."""
        own: list[Endpoint] = []
        interfaces: list[bytes] | None = None
        for sock in self._sockets:
            if any(sock.ip):
                own.append(Endpoint(sock.ip, sock.port))
                continue
            if interfaces is None:
                try:
                    interfaces = interface_addresses()
                except OSError:
                    self.interface_errors += 1
                    interfaces = []
            own += [Endpoint(ip, sock.port) for ip in interfaces if len(ip) == sock.length]
        self.node.set_sockets({n: s.length for n, s in enumerate(self._sockets)}, own)

    # what a program does with a node

    async def wait_online(self) -> None:
        """Return when a root has answered.  Cancelling it loses nothing."""
        await self._online.wait()

    async def echo(self, address: bytes, payload: bytes = b"") -> EchoAnswered:
        """Ask a node to send *payload* back, and return its answer.

        Waits without end if there is none: callers use `trio.fail_after`.  An answer that comes
        after this was cancelled is thrown away.

        Raises:
            ValueError: *address* cannot be sent to, or *payload* is too long.
        """
        send, receive = trio.open_memory_channel[EchoAnswered](1)
        with send, receive:
            self.node.echo(address, payload, trio.current_time(), context=send)
            self.flush()
            return await receive.receive()

    def send_user_message(self, address: bytes, kind: int, data: bytes) -> None:
        """Send octets to another node's application; nothing tells whether they arrived.

        Raises:
            ValueError: *kind* is reserved, *address* cannot be sent to, or *data* is too long.
        """
        self.node.send_user_message(address, kind, data, trio.current_time())
        self.flush()

    async def receive_user_message(self) -> UserMessageReceived:
        """The next USER_MESSAGE, oldest first; 1024 wait, more are dropped and counted.

        Cancelling it loses nothing.
        """
        return await self._messages.receive()

    def orbit(self, moon_id: int, seed: bytes) -> None:
        """Take a moon from the network; see `Node.orbit`.

        Raises:
            ValueError: as many moons are held or wanted as may be.
        """
        self.node.orbit(moon_id, seed, trio.current_time())
        self.flush()

    async def deorbit(self, moon_id: int) -> None:
        """Neither hold nor want a moon any longer."""
        self.node.deorbit(moon_id, trio.current_time())
        if self._home is not None:
            await trio.to_thread.run_sync(self._home.drop_moon, moon_id)

    async def set_world(self, world: World) -> None:
        """Trust a world that the owner of this node vouches for, and store it.

        Raises:
            WireError: it cannot be stored.
        """
        self.node.set_world(world, trio.current_time())
        self.flush()
        if self._home is not None:
            await trio.to_thread.run_sync(self._home.save_world, world)

    def flush(self) -> None:
        """Carry out what the node wants: send, tell, check, and come back in time."""
        node = self.node
        datagrams = node.datagrams_to_send()
        if datagrams:
            self._send(datagrams)
        for event in node.take_events():
            self._handle(event)
        if node.has_validations:
            self._work.set()
        when = node.next_timer()
        if when is not None and when < self._deadline and self._timer_scope is not None:
            self._deadline = self._timer_scope.deadline = when

    # inside

    def _send(self, datagrams: list[Datagram]) -> None:
        if len(self._sockets) == 1:
            by_socket = {0: datagrams}
        else:
            by_socket = {}
            for datagram in datagrams:
                by_socket.setdefault(datagram.local, []).append(datagram)
        for number, burst in by_socket.items():
            sock = self._sockets[number]
            sock.send(burst)
            if sock.has_backlog:
                self._blocked.set()

    def _handle(self, event: Event) -> None:
        if isinstance(event, EchoAnswered):
            if isinstance(event.context, trio.MemorySendChannel):
                # Its owner may have gone, and a node may answer twice.
                with suppress(trio.ClosedResourceError, trio.WouldBlock):
                    event.context.send_nowait(event)
        elif isinstance(event, UserMessageReceived):
            try:
                self._to_program.send_nowait(event)
            except trio.WouldBlock:
                self.messages_dropped += 1
        elif isinstance(event, Online):
            self._online.set()
        elif isinstance(event, Offline):
            self._online = trio.Event()
        elif isinstance(event, WorldUpdated):
            self._to_save.append(event.world)
            self._save.set()
        elif isinstance(event, IdentityCollision):
            self._collision = event.reporter
            self._save.set()
        self.on_event(event)

    async def _receive(self, number: int) -> None:
        sock = self._sockets[number]
        node = self.node
        while True:
            await sock.wait_readable()
            now = trio.current_time()
            for remote, data in sock.receive():
                node.receive(number, remote, data, now)
            self.flush()

    async def _keep_time(self) -> None:
        node = self.node
        while True:
            when = node.next_timer()
            self._deadline = inf if when is None else when
            with trio.CancelScope(deadline=self._deadline) as self._timer_scope:
                await trio.sleep_forever()
            node.handle_timers(trio.current_time())
            self.flush()

    async def _check_identities(self) -> None:
        """One at a time: the queue in front of this is what bounds the price of strangers."""
        node = self.node
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while (identity := node.next_validation()) is not None:
                is_valid = await self._is_valid(identity)
                node.identity_checked(identity, trio.current_time(), is_valid=is_valid)
                self.flush()

    async def _is_valid(self, identity: Identity) -> bool:
        return await trio.to_thread.run_sync(self._check, identity, abandon_on_cancel=True)

    async def _drain_backlogs(self) -> None:
        while True:
            await self._blocked.wait()
            self._blocked = trio.Event()
            for sock in self._sockets:
                while sock.has_backlog:
                    await sock.wait_writable()
                    sock.send_backlog()

    async def _save_worlds(self) -> None:
        """Store updates, and end the node if its identity turns out to be somebody else's."""
        while True:
            await self._save.wait()
            self._save = trio.Event()
            if self._collision is not None:
                raise IdentityError(
                    f"identity {self.node.identity}: root {self._collision.hex()} says that "
                    "another node has this address"
                )
            while self._to_save:
                world = self._to_save.pop(0)
                if self._home is not None:
                    await trio.to_thread.run_sync(self._home.save_world, world)

    async def _watch_interfaces(self) -> None:
        while True:
            await trio.sleep(_ADDRESS_INTERVAL)
            self._tell_sockets()

    def _cached_peers(self) -> list[CachedPeer]:
        roots = self.node.topology.roots
        return [
            CachedPeer(
                peer.identity,
                peer.protocol,
                peer.version,
                tuple(dict.fromkeys(path.remote for path in peer.paths.values())),
            )
            for peer in self.node.peers()
            if peer.paths and peer.address not in roots
        ]


def _is_valid(identity: Identity) -> bool:
    return identity.is_valid(open_backend())  # a backend belongs to one thread at a time


def _ignore(event: Event) -> None:
    del event
