"""The task that drives a `zttrio.zerotier.node.Node`: sockets, a clock, threads and a home folder.

It decides nothing about the protocol.  Whoever changes the node (a datagram, a timer, a caller)
flushes it in the same breath, so nothing waits for another task to be scheduled.

A node lives from `NodeTask.open` to `NodeTask.close`; in between `NodeTask.drive` works for it, and
may be cancelled and called again, by another task, without the node noticing.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
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

__all__ = ["Layer", "NodeSocket", "NodeTask", "generate_identity"]

_ADDRESS_INTERVAL = 30.0  # between two looks at our own interfaces (17.1)
_MESSAGES = 1024  # USER_MESSAGEs that wait for a program; arbitrary
_GOODBYE = 2.0  # seconds that storing the peers may take; arbitrary


class Layer(Protocol):
    """What lives on a node and shares its time: virtual networks, or a controller.

    Methods are synchronous and never raise.
    """

    def handle_timers(self, now: float) -> None:
        """Do what is due."""

    def next_timer(self) -> float | None:
        """When `handle_timers` must be called next, or None."""

    def collect(self) -> bool:
        """Hand on what has happened since the last call; False if that was nothing.

        Called after every burst of datagrams, every timer and every `NodeTask.flush`.  What it
        makes the node send leaves in the same breath.
        """

    def unblocked(self) -> None:
        """The sockets take datagrams again; see `NodeTask.is_blocked`."""


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
        port: UDP port; 0 for the last one of *home*, if it is free, or a random one.  Peers go on
            sending to the port that they know for a while.
        bind: packed addresses to use; empty for all.
        config: the node's numbers.
        relay: how to relay, for a root; one of the worlds has to list it.
        open_sockets: makes the sockets; tests pass their own.
        check: tells if an identity is valid; called in a worker thread, one at a time.
        make_layer: called with the new node before it starts, for what is to live on it.
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
        make_layer: Callable[[Node, float], Layer] | None = None,
    ) -> None:
        self.node: Node
        """Set by `open`."""
        self.layer: Layer | None = None
        """What `make_layer` has made."""
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
        self._make_layer = make_layer
        self._sockets: list[NodeSocket] = []
        self._timer_scope: trio.CancelScope | None = None
        self._deadline = inf
        self._work = trio.Event()
        self._online = trio.Event()
        self._blocked = trio.Event()
        self._to_save: list[Callable[[], None]] = []
        self._save = trio.Event()
        self._collision: bytes | None = None
        self._checking: Identity | None = None
        self._is_flushing = False
        self._is_open = False
        self._to_program, self._messages = trio.open_memory_channel[UserMessageReceived](_MESSAGES)

    # running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a node until cancelled: `open`, `drive` and `close`.

        Raises:
            IdentityError: as `open` and `drive`.
            WireError: as `open` and `drive`.
        """
        try:
            await self.open()
            task_status.started()
            await self.drive()
        finally:
            await self.close()  # noqa: ASYNC102 - it shields itself, for a limited time

    async def open(self) -> None:
        """Take the home, the identity, the worlds and the sockets, and start the node.

        Whether or not this succeeds, `close` has to be called.

        Raises:
            IdentityError: the identity is invalid.
            WireError: the home is in use, a file of it is damaged, no world lists a node that is to
                relay, or a socket cannot be opened.
        """
        self._home = None
        if self._home_folder is not None:
            self._home = await trio.to_thread.run_sync(Home, self._home_folder)
            self._home.lock()
        identity = await self._find_identity()
        worlds, peers = await self._load()
        self._sockets = await self._find_sockets()
        self._make_node(identity, worlds, peers)
        self._is_open = True

    async def drive(self) -> None:
        """Work for the open node until cancelled; one task at a time.

        Raises:
            IdentityError: a root says that the identity is somebody else's.
            WireError: a socket died, or a file of the home cannot be written.
        """
        async with open_background() as background:
            for number, _ in enumerate(self._sockets):
                background.start_soon(self._receive, number)
            background.start_soon(self._keep_time)
            background.start_soon(self._check_identities)
            background.start_soon(self._drain_backlogs)
            background.start_soon(self._write_files)
            background.start_soon(self._watch_interfaces)
            await trio.sleep_forever()

    async def close(self) -> None:
        """Store what is worth it, for a limited time, and close everything."""
        try:
            if self._is_open and self._home is not None:
                with trio.move_on_after(_GOODBYE, shield=True):
                    for write in self._to_save:
                        await trio.to_thread.run_sync(write, abandon_on_cancel=True)
                    await trio.to_thread.run_sync(
                        self._home.save_peers, self._cached_peers(), abandon_on_cancel=True
                    )
        finally:
            self._is_open = False
            for sock in self._sockets:
                sock.close()
            if self._home is not None:
                self._home.unlock()

    async def _find_sockets(self) -> list[NodeSocket]:
        before = 0
        if self._home is not None and not self._port:
            before = await trio.to_thread.run_sync(self._home.load_port)
        sockets: Sequence[NodeSocket] = ()
        if before:
            with suppress(WireError):  # somebody else has it now
                sockets = self._open_sockets(self._bind, before, self.socket_counters)
        if not sockets:
            sockets = self._open_sockets(self._bind, self._port, self.socket_counters)
        if self._home is not None and not self._port and sockets and sockets[0].port != before:
            self.write_later(partial(self._home.save_port, sockets[0].port))
        return list(sockets)

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
        if self._make_layer is not None:
            self.layer = self._make_layer(node, now)
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

    @property
    def is_blocked(self) -> bool:
        """True while datagrams wait because the kernel takes none: send less."""
        return any(sock.has_backlog for sock in self._sockets)

    def write_later(self, write: Callable[[], None]) -> None:
        """Call *write* in a worker thread soon, after those that were given before.

        What it raises ends the node.  What has not been written when the node is closed is
        written then.
        """
        self._to_save.append(write)
        self._save.set()

    def flush(self) -> None:
        """Carry out what the node wants: send, tell, check, and come back in time."""
        if self._is_flushing:
            return  # what is handed on below has called back: the loop sees what that did
        self._is_flushing = True
        node, layer = self.node, self.layer
        try:
            while True:
                has_news = layer is not None and layer.collect()
                datagrams = node.datagrams_to_send()
                if datagrams:
                    self._send(datagrams)
                events = node.take_events()
                for event in events:
                    self._handle(event)
                if not (has_news or datagrams or events):
                    break
        finally:
            self._is_flushing = False
        if node.has_validations:
            self._work.set()
        when = self._next_timer()
        if when < self._deadline and self._timer_scope is not None:
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
            if self._home is not None:
                self.write_later(partial(self._home.save_world, event.world))
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

    def _next_timer(self) -> float:
        when = self.node.next_timer()
        earliest = inf if when is None else when
        if self.layer is not None and (when := self.layer.next_timer()) is not None:
            earliest = min(earliest, when)
        return earliest

    async def _keep_time(self) -> None:
        node, layer = self.node, self.layer
        while True:
            self._deadline = self._next_timer()
            with trio.CancelScope(deadline=self._deadline) as self._timer_scope:
                await trio.sleep_forever()
            now = trio.current_time()
            node.handle_timers(now)
            if layer is not None:
                layer.handle_timers(now)
            self.flush()

    async def _check_identities(self) -> None:
        """One at a time: the queue in front of this is what bounds the price of strangers."""
        node = self.node
        while True:
            # One whose check was cancelled comes again: the node has given it away.
            while (identity := self._checking or node.next_validation()) is not None:
                self._checking = identity
                is_valid = await self._is_valid(identity)
                self._checking = None
                node.identity_checked(identity, trio.current_time(), is_valid=is_valid)
                self.flush()
            await self._work.wait()
            self._work = trio.Event()

    async def _is_valid(self, identity: Identity) -> bool:
        return await trio.to_thread.run_sync(self._check, identity, abandon_on_cancel=True)

    async def _drain_backlogs(self) -> None:
        while True:
            for sock in self._sockets:
                while sock.has_backlog:
                    await sock.wait_writable()
                    sock.send_backlog()
            if self.layer is not None:
                self.layer.unblocked()
                self.flush()
            await self._blocked.wait()
            self._blocked = trio.Event()

    async def _write_files(self) -> None:
        """Store updates, and end the node if its identity turns out to be somebody else's."""
        while True:
            if self._collision is not None:
                raise IdentityError(
                    f"identity {self.node.identity}: root {self._collision.hex()} says that "
                    "another node has this address"
                )
            while self._to_save:
                await trio.to_thread.run_sync(self._to_save[0])
                del self._to_save[0]  # not before: cancelled, it is written by the next task
            await self._save.wait()
            self._save = trio.Event()

    async def _watch_interfaces(self) -> None:
        while True:
            await trio.sleep(_ADDRESS_INTERVAL)
            self._tell_sockets()

    def _cached_peers(self) -> list[CachedPeer]:
        """Whom to remember: where somebody was found, and who the networks' controllers are."""
        topology = self.node.topology
        return [
            CachedPeer(
                peer.identity,
                peer.protocol,
                peer.version,
                tuple(dict.fromkeys(path.remote for path in peer.paths.values())),
            )
            for peer in self.node.peers()
            if (peer.paths or peer.address in topology.kept) and peer.address not in topology.roots
        ]


def _is_valid(identity: Identity) -> bool:
    return identity.is_valid(open_backend())  # a backend belongs to one thread at a time


def _ignore(event: Event) -> None:
    del event
