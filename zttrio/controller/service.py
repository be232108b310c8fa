"""A controller that runs: a node, the disk and the HTTP interface around a sans-IO `Controller`."""

from __future__ import annotations

import os
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from zttrio._background import open_background
from zttrio.errors import WireError
from zttrio.wire.zerotier.home import Home, write_public
from zttrio.wire.zerotier.sockets import open_udp_sockets
from zttrio.wire.zerotier.task import NodeTask
from zttrio.zerotier.controller import Controller, RecordError
from zttrio.zerotier.network.networks import Networks

from .api import Api
from .http import serve_http
from .store import Store, StoreError
from .token import load_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zttrio.wire.zerotier.sockets import SocketCounters
    from zttrio.wire.zerotier.task import Layer, NodeSocket
    from zttrio.zerotier.config import NodeConfig, RelayConfig
    from zttrio.zerotier.controller import MemberAsked, MemberConfigured
    from zttrio.zerotier.controller.journal import Write
    from zttrio.zerotier.identity import Identity
    from zttrio.zerotier.node import Node
    from zttrio.zerotier.world import World

__all__ = ["DATABASE_FILE", "PORT_FILE", "ControllerService"]

DATABASE_FILE = "controller.db"
PORT_FILE = "zerotier-one.port"  # where tools look for the port of the HTTP interface
_GOODBYE = 5.0  # seconds that the last writes may take; arbitrary


class ControllerService:
    """One controller, with its node.

    A change that the HTTP interface has acknowledged, and every address that a configuration has
    given to a member, is on disk: killing the process or the machine loses neither.

    Args:
        home: the folder of the node's identity, of ``controller.db`` and of the token for the
            HTTP interface; made if it is not there.
        api_port: TCP port of the HTTP interface; 0 for a random one, None for that of the node.
        api_host: where it listens; loopback unless its owner says otherwise.
        worlds: as for `NodeTask`.
        port: as for `NodeTask`.
        bind: as for `NodeTask`.
        config: as for `NodeTask`.
        relay: as for `NodeTask`: a controller that is a root as well.
        identity: as for `NodeTask`.
        open_sockets: as for `NodeTask`.
        check: as for `NodeTask`.

    Attributes:
        controller: set when the service has started, like the others.
        task: the node's.
        networks: what the node does for virtual networks.
        api_port: of the HTTP interface.
        token: what it wants to be shown.
        on_event: called synchronously with every event of the controller; must not raise.
    """

    def __init__(
        self,
        home: str | os.PathLike[str],
        *,
        api_port: int | None = None,
        api_host: str = "127.0.0.1",
        worlds: Sequence[World] = (),
        port: int = 0,
        bind: Sequence[bytes] = (),
        config: NodeConfig | None = None,
        relay: RelayConfig | None = None,
        identity: Identity | None = None,
        open_sockets: Callable[
            [Sequence[bytes], int, SocketCounters], Sequence[NodeSocket]
        ] = open_udp_sockets,
        check: Callable[[Identity], bool] | None = None,
    ) -> None:
        self.home = Path(home)
        self.controller: Controller
        self.networks: Networks
        self.token = ""
        self.api_port = port if api_port is None else api_port
        self.on_event: Callable[[MemberAsked | MemberConfigured], None] = _ignore
        self.task = NodeTask(
            home,
            worlds=worlds,
            port=port,
            bind=bind,
            config=config,
            relay=relay,
            identity=identity,
            open_sockets=open_sockets,
            check=check,
            make_layer=self._make_layer,
        )
        self._api_host = api_host
        self._is_registry = relay is not None
        self._store: Store
        self._records: list[Write] = []
        self._work = trio.Event()
        self._written = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a controller until cancelled; it has started when it answers HTTP.

        Raises:
            StoreError: the database or the token is damaged, or in use by another process, or
                cannot be written.
            IdentityError: as `NodeTask.run`.
            WireError: as `NodeTask.run`, or the HTTP interface cannot listen.
        """
        await trio.to_thread.run_sync(Home, self.home)
        self.token = await trio.to_thread.run_sync(load_token, self.home)
        self._store = await trio.to_thread.run_sync(Store, self.home / DATABASE_FILE)
        try:
            self._records = await trio.to_thread.run_sync(self._store.load)
            try:
                await self._open_node()
                try:
                    await self._serve(task_status)
                finally:
                    with trio.move_on_after(_GOODBYE, shield=True):
                        await self._write_all()
            finally:
                await self.task.close()  # noqa: ASYNC102 - it shields itself, for a limited time
        finally:
            self._store.close()

    async def commit(self) -> None:
        """Return when every change made so far is on disk.  Cancelling it loses nothing."""
        controller = self.controller
        number = controller.number
        self.task.flush()
        while controller.durable < number:
            await self._written.wait()

    async def _open_node(self) -> None:
        try:
            await self.task.open()
        except RecordError as exc:
            raise StoreError(f"database {self._store.path}: {exc}") from exc
        finally:
            self._records = []

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        task = self.task
        api = Api(
            self.controller,
            address=task.node.address,
            token=self.token,
            commit=self.commit,
            clock=trio.current_time,
            status=self._status,
            hosts=(self._api_host,),
        )
        try:
            listeners = await trio.open_tcp_listeners(self.api_port, host=self._api_host)
        except OSError as exc:
            raise WireError(
                f"HTTP interface at {self._api_host} port {self.api_port}: {exc.strerror or exc}"
            ) from exc
        async with open_background() as background:
            background.start_soon(serve_http, api.respond, api.admit, listeners)
            background.start_soon(self._write_on_demand)
            background.start_soon(task.drive)
            self.api_port = listeners[0].socket.getsockname()[1]
            port_file = self.home / PORT_FILE
            await trio.to_thread.run_sync(write_public, port_file, str(self.api_port).encode())
            task_status.started()
            await trio.sleep_forever()

    async def _write_on_demand(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            await self._write_all()

    async def _write_all(self) -> None:
        """Put everything on disk; changes that come meanwhile share the next transaction."""
        while self.controller.has_writes:
            number, writes = self.controller.take_writes()
            with trio.CancelScope(shield=True):  # what was taken is nowhere else
                await trio.to_thread.run_sync(self._store.apply, writes)
            self.controller.written(number, trio.current_time())
            self._written.set()
            self._written = trio.Event()
            self.task.flush()

    def _status(self) -> dict[str, Any]:
        node = self.task.node
        version = metadata.version("zttrio")
        planet = node.topology.planet
        return {
            "address": node.address.hex(),
            "publicIdentity": node.identity.text(),
            "online": node.is_online,
            "version": version,
            "clock": int(time.time() * 1000),
            "planetWorldId": 0 if planet is None else planet.id,
            "planetWorldTimestamp": 0 if planet is None else planet.timestamp,
            "tcpFallbackActive": False,
        }

    # what the node's task calls: see `zttrio.wire.zerotier.task.Layer`

    def _make_layer(self, node: Node, now: float) -> Layer:
        epoch = time.time() - now
        self.controller = Controller(node, rng=os.urandom, epoch=epoch, records=self._records)
        self.networks = Networks(
            node,
            rng=os.urandom,
            epoch=epoch,
            controller=self.controller,
            is_registry=self._is_registry,
        )
        node.set_network_layer(self.networks)
        return self

    def handle_timers(self, now: float) -> None:
        """Do what is due."""
        self.networks.handle_timers(now)
        self.controller.handle_timers(now)

    def next_timer(self) -> float | None:
        """When that is."""
        timers = (self.networks.next_timer(), self.controller.next_timer())
        return min((when for when in timers if when is not None), default=None)

    def collect(self) -> bool:
        """Hand on events, and wake the task that writes; what is sent waits for it anyway."""
        for event in self.controller.take_events():
            self.on_event(event)
        if self.controller.has_writes:
            self._work.set()
        return False

    def unblocked(self) -> None:
        """Nothing here counts what the sockets take."""


def _ignore(event: MemberAsked | MemberConfigured) -> None:
    del event
