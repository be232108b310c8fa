"""A Network: supervises wire, driver and stack, and hands out streams, sockets and names."""

from __future__ import annotations

import os
import random
import socket as kernel
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
import trio

from . import dispatch, opening
from ._background import open_background
from .capture import Capture
from .config import Config
from .driver import Driver, Waiters
from .errors import LocalError
from .forward import splice_with
from .header.address import ip_text, mac_text, packed
from .intercept import preload
from .resolve import Resolver
from .socket import make_socket
from .stack.claim import ANNOUNCING, BOUND
from .stack.route import Route
from .stack.stack import Stack
from .stack.tcp.state import TIME_WAIT
from .status import ConnectionStatus, SocketStatus, Status
from .tap import service
from .wire.choice import choose_wire

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from .abc import Instrument, Wire
    from .intercept.policy import Policy
    from .stack.claim import Claim

__all__ = ["Network"]

Interface = IPv4Interface | IPv6Interface

IPV6_MTU = 1280  # RFC 8200 5
FIRST_CONTACT = 8  # questions for a neighbor, one a second; arbitrary


class Network(trio.abc.SocketFactory, trio.abc.HostnameResolver):
    """A virtual Ethernet with this program on it, for as long as the ``async with`` block lasts.

    With a network ID it joins that ZeroTier network.  Without arguments it joins the *host
    segment*: a virtual Ethernet shared by this user's processes on this machine, with an address
    chosen and defended without configuration.

    Leaving the block finishes what is open: FINs are sent, unsent data is delivered for up to
    `Config.linger` seconds (also when the block was cancelled), then the rest is reset.  A wire
    that dies ends the block with `WireError`; a failure leaves the block as itself, not in a group.

    Args:
        network_id: sixteen hex digits of a ZeroTier network; if this and *wire* are None, the
            environment variable ``ZTTRIO_NETWORK`` may name one.
        wire: where frames come from and go to, instead of a ZeroTier network; without either it
            is `zttrio.wire.HostSegment`.
        addresses: ``address/prefix`` texts, IPv4 and IPv6.  If there are none, the wire's own way
            of choosing applies.
        name: makes ``name`` and ``name.local`` resolve for the others on the wire, where the wire
            can do that.
        home: the folder of the ZeroTier node's identity and state; by default the one that the
            environment variable ``ZTTRIO_HOME`` names, or else none: the node is a new one each
            time.  Networks of one home share one node.
        planet: the file that lists the ZeroTier roots; by default the one in *home*.
        token: shown to the network's controller, if it lets in whoever knows one.
        config: every number that can be turned.
        instruments: see every burst go by.
        rng: source of all randomness, for reproducible tests; the system's by default.

    Raises:
        ValueError: an address or the network ID does not parse, or there are both a network ID
            and a wire, or a home, planet or token without a network.
        LocalError: the object was already used, or a package of the ``zerotier`` extra is missing.
        WireError: the wire cannot be opened; the text says what to do.
    """

    def __init__(
        self,
        network_id: str | None = None,
        *,
        wire: Wire | None = None,
        addresses: Iterable[str] = (),
        name: str | None = None,
        home: str | os.PathLike[str] | None = None,
        planet: str | os.PathLike[str] | None = None,
        token: str | None = None,
        config: Config | None = None,
        instruments: Sequence[Instrument] = (),
        rng: random.Random | None = None,
    ) -> None:
        self.config: Config = Config() if config is None else config
        self.name = name
        self._wire = choose_wire(network_id, wire, home, planet, token)
        self._requested = [ip_interface(text) for text in addresses]
        self._rng = random.SystemRandom() if rng is None else rng
        self._driver = Driver(self._wire, ring_size=self.config.ring_size, instruments=instruments)
        self._resolver = Resolver(self._wire, name)
        self._exit_stack: AsyncExitStack | None = None
        self._background: trio.Nursery | None = None
        self._was_used = False
        self._claim: Claim | None = None

    # life

    async def __aenter__(self) -> Self:
        if self._was_used:
            raise LocalError("network: an object serves one block; make a new one to join again")
        self._was_used = True
        async with AsyncExitStack() as stack:
            background = await stack.enter_async_context(open_background())
            stack.callback(self._driver.close)
            await background.start(self._driver.run_wire)
            wire = self._wire
            config = self.config
            if wire.configures:
                config = attrs.evolve(
                    config,
                    # A member must not give the others addresses and routes.
                    accept_router_advertisements=False,
                    # Two members that meet look each other up and check each other's identity
                    # first, which takes seconds on a slow machine.
                    neighbor_attempts=max(config.neighbor_attempts, FIRST_CONTACT),
                )
            network_stack = Stack(
                mac=wire.mac,
                mtu=wire.mtu,
                rng=self._rng,
                config=config,
                max_segment=wire.max_segment,
                checksum_offload=wire.checksum_offload,
                preferred_packet=wire.preferred_packet,
                has_unique_mac=wire.has_unique_macs,
            )
            self._driver.attach(network_stack)
            self._resolver.order = network_stack.order_destinations
            now = trio.current_time()
            for interface in self._requested:
                self._driver.stack.add_address(interface, now)
            if not self._requested and wire.configures_addresses:
                self._claim = self._driver.stack.claim_address(now)
            if self.config.ipv6 and wire.mtu >= IPV6_MTU:
                chooses = not self._requested and wire.configures_addresses
                network_stack.start_ipv6(now, wire.ipv6_prefix if chooses else None)
            background.start_soon(self._driver.run)
            background.start_soon(self._driver.run_timers)
            background.start_soon(self._driver.run_turns)
            self._driver.flush()
            if self.name is not None and self._is_online():
                self._publish(self.name)
            elif self.name is not None:
                background.start_soon(self._publish_when_online, self.name)
            stack.enter_context(dispatch.dispatching())
            self._background = background
            self._exit_stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._exit_stack is not None  # noqa: S101 - __aenter__ succeeded
        with trio.move_on_after(self.config.linger, shield=True):
            await self._driver.finish_connections()
        self._driver.close()
        # Not shielded: here the caller's own cancellation passes through.
        return await self._exit_stack.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102

    async def _publish_when_online(self, name: str) -> None:
        await self.wait_online()
        self._publish(name)

    def _publish(self, name: str) -> None:
        # Not those that are worth nothing without a scope.
        useful = [i.ip for i in self._interfaces() if i.version == 4 or not i.ip.is_link_local]
        self._wire.publish(name, [address.packed for address in useful])

    @property
    def addresses(self) -> tuple[Interface, ...]:
        """The addresses we have now: IPv4, then IPv6, then IPv6 link-local ones."""
        self._check_open()
        return self._interfaces()

    def add_route(self, prefix: str, gateway: str | None = None, *, metric: int = 0) -> None:
        """Send packets to *prefix* through *gateway*; the longest prefix wins, then the metric.

        The prefixes of our own addresses need no route.

        Args:
            prefix: ``address/length``; ``0.0.0.0/0`` and ``::/0`` are everything else.
            gateway: a neighbor's address of the same family; None sends straight to *prefix*.
            metric: of two routes with one prefix the lower is taken, and the other if its gateway
                does not answer.

        Raises:
            ValueError: a text does not parse, or the families differ.
        """
        self._check_open()
        via = None if gateway is None else ip_address(gateway)
        self._driver.stack.add_route(ip_network(prefix), via, metric)
        self._driver.flush()

    def remove_route(self, prefix: str, gateway: str | None = None, *, metric: int = 0) -> None:
        """Take back an `add_route` of the same arguments.

        Raises:
            KeyError: there is no such route.
            ValueError: a text does not parse.
        """
        self._check_open()
        network = ip_network(prefix)
        via = None if gateway is None else ip_address(gateway).packed
        self._driver.stack.remove_route(
            Route(network.network_address.packed, network.prefixlen, via, metric)
        )
        self._driver.flush()

    async def wait_online(self) -> tuple[Interface, ...]:
        """Wait until we have an address on the wire, and return all of them.

        Link-local addresses do not count, unless choosing one is the wire's way or the Network was
        given one.
        Cancelling loses nothing.

        Raises:
            OSError: ENETDOWN, the Network was left or its wire died.
            LocalError: the Network is not open.
            AccessDenied: the network's controller has not let us in; it may later on, so this may
                be called again.
            NetworkNotFound: the controller does not know this network.
        """
        self._check_open()
        await trio.lowlevel.checkpoint()
        while not self._is_online():
            self._driver.check()
            if self._wire.failure is not None:
                raise self._wire.failure
            await self._driver.wait_changed()
        return self._interfaces()

    @property
    def is_managed(self) -> bool:
        """True if somebody has to let us in, and gives us addresses: on ZeroTier networks."""
        return self._wire.configures

    def _is_online(self) -> bool:
        """An address is ours; a link-local one counts only if that is what was asked for."""
        if self._claim is not None:
            return self._claim.state in (ANNOUNCING, BOUND)
        if self._wire.configures and self._driver.managed.current is None:
            return False
        return any(
            not interface.ip.is_link_local or interface in self._requested
            for interface in self._driver.stack.addresses
        )

    def _interfaces(self) -> tuple[Interface, ...]:
        # People copy the first one, so IPv4 comes first and what needs a scope last.
        return tuple(
            sorted(
                self._driver.stack.addresses,
                key=lambda interface: (
                    interface.version == 6 and interface.ip.is_link_local,
                    interface.version,
                ),
            )
        )

    def _check_open(self) -> None:
        if self._exit_stack is None:
            raise LocalError("network: not open; use it inside `async with`")

    # streams

    async def open_tcp_stream(
        self,
        host: str | bytes,
        port: int,
        *,
        happy_eyeballs_delay: float | None = 0.25,
        local_address: str | None = None,
    ) -> trio.SocketStream:
        """Connect to *host*, trying its addresses as `trio.open_tcp_stream` does.

        If this is cancelled, attempts under way are reset and nothing stays behind.

        Raises:
            OSError: no attempt succeeded; has an errno if all attempts failed alike
                (ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH ...).
            socket.gaierror: *host* does not resolve on this network.
        """
        self._check_open()
        with dispatch.use_network(self):
            return await opening.open_tcp_stream(
                self.socket, host, port, happy_eyeballs_delay, local_address
            )

    async def open_tcp_listeners(
        self, port: int, *, host: str | bytes | None = None, backlog: int | None = None
    ) -> list[trio.SocketListener]:
        """Listen on *port* (0 picks one) of *host*, or of every address we have or get.

        Raises:
            OSError: EADDRINUSE or EADDRNOTAVAIL.
        """
        self._check_open()
        with dispatch.use_network(self):
            return await trio.open_tcp_listeners(
                port, host=host, backlog=self.config.backlog if backlog is None else backlog
            )

    async def serve_tcp(
        self,
        handler: Callable[[trio.SocketStream], Awaitable[object]],
        port: int,
        *,
        host: str | bytes | None = None,
        backlog: int | None = None,
        handler_nursery: trio.Nursery | None = None,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run ``handler(stream)`` in a task of its own for every connection; never returns.

        As `trio.serve_tcp`: a handler that raises ends the service.  ``nursery.start`` returns the
        listeners.

        Raises:
            OSError: EADDRINUSE or EADDRNOTAVAIL.
        """
        listeners = await self.open_tcp_listeners(port, host=host, backlog=backlog)
        await trio.serve_listeners(
            handler, listeners, handler_nursery=handler_nursery, task_status=task_status
        )

    async def open_udp_socket(
        self, port: int = 0, *, host: str | bytes | None = None
    ) -> trio.socket.SocketType:
        """A UDP socket bound to *port* (0 picks one) of *host*, or of every address.

        Raises:
            OSError: EADDRINUSE or EADDRNOTAVAIL.
            socket.gaierror: *host* does not resolve on this network.
        """
        self._check_open()
        found = await self.getaddrinfo(
            "0.0.0.0" if host is None else host,  # noqa: S104 - our own network's wildcard
            port,
            type=kernel.SOCK_DGRAM,
            flags=kernel.AI_PASSIVE,
        )
        family, kind, proto, _, address = found[0]
        sock = self.socket(family, kind, proto)
        try:
            await sock.bind(address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def forward_tcp(
        self,
        port: int,
        target: tuple[str, int],
        *,
        host: str | bytes | None = None,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve *port* by connecting each client to *target* on the host's own network.

        Never returns.  Half-closes and resets are passed on; a client of a target that refuses is
        reset.  ``nursery.start`` returns the listeners.

        Args:
            port: of this network, 0 picks one.
            target: host and port as the machine itself reaches them, by kernel sockets.
            host: as for `open_tcp_listeners`.
            task_status: see `trio.Nursery.start`.

        Raises:
            OSError: EADDRINUSE or EADDRNOTAVAIL for *port*; EMFILE, no descriptor is left.
        """

        async def connect() -> trio.SocketStream:
            with dispatch.use_network(None):
                return await trio.open_tcp_stream(*target)

        await self.serve_tcp(splice_with(connect), port, host=host, task_status=task_status)

    # unmodified programs

    async def run_process(
        self,
        command: Sequence[str],
        *,
        via: Literal["auto", "preload"] = "auto",
        policy: Policy | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run an unmodified program on this network, and return when it has ended.

        If this is cancelled the program is asked to end, and killed if it does not.

        Args:
            command: the program and its arguments.
            via: the front door; ``auto`` is ``preload``, the only one there is so far.
            policy: where its traffic may go; by default all of it to this network and nothing to
                the host's.
            **options: as for `trio.run_process`.

        Raises:
            InterceptError: the program cannot be intercepted; the text says why.
            subprocess.CalledProcessError: it ended badly; not with ``check=False``.
        """
        self._check_open()
        if via not in ("auto", "preload"):
            raise ValueError(f"via: {via!r} is neither 'auto' nor 'preload'")
        async with open_background() as background:
            tap = await background.start(
                partial(self.serve_tap, service.private_path(), policy=policy)
            )
            return await preload.run_process(
                command,
                address=tap.address,
                is_strict=policy is None or policy.is_strict,
                **options,
            )

    async def serve_tap(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        policy: Policy | None = None,
        network: str = "host",
        say: Callable[[str], None] = service.warn,
        task_status: trio.TaskStatus[service.TapService] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Give sockets of this network to programs that are started elsewhere; never returns.

        ``nursery.start`` returns a `zttrio.tap.service.TapService` with the address that programs
        need; see `zttrio.intercept.preload.environment`.

        Args:
            path: of the service's socket, in a folder of mode 0700 (made if it is not there).
            policy: as for `run_process`.
            network: what ``zttrio run --network`` calls it, if *path* is None.
            say: tells the user what was blocked, each thing once; a logger by default.
            task_status: see `trio.Nursery.start`.

        Raises:
            InterceptError: the folder is not private, or the socket is in use.
        """
        self._check_open()
        await service.serve(
            self._driver,
            self._resolver,
            name=self.name,
            network=network,
            path=path,
            policy=policy,
            say=say,
            task_status=task_status,
        )

    # trio's own interfaces

    @contextmanager
    def as_default(self) -> Iterator[Self]:
        """Every trio or anyio library lives on this network inside the block.

        The choice belongs to the calling task and to tasks started inside the block.
        """
        self._check_open()
        with dispatch.use_network(self):
            yield self

    def socket(
        self,
        family: int = kernel.AF_INET,
        type: int = kernel.SOCK_STREAM,  # noqa: A002 - the name trio's interface gives it
        proto: int = 0,
    ) -> trio.socket.SocketType:
        """A new socket on this network; see `trio.socket.socket`.

        Raises:
            OSError: EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT, or ENETDOWN.
        """
        self._check_open()
        return make_socket(self._driver, self._resolver, family, type, proto)

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name trio's interface gives it
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Resolve literals, ``localhost``, our own name and names published on the wire.

        Nothing is asked of the machine's own resolver: names do not leak to other networks.

        Raises:
            socket.gaierror: EAI_NONAME, nobody here has that name.
        """
        await trio.lowlevel.checkpoint()
        return self._resolver.getaddrinfo(host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Numeric host and port: this network has no reverse lookup.

        Raises:
            socket.gaierror: the address is not a literal, or NI_NAMEREQD was given.
        """
        await trio.lowlevel.checkpoint()
        return self._resolver.getnameinfo(sockaddr, flags)

    # instruments and status

    async def ping(self, host: str) -> float:
        """Send one ICMP echo request and return the seconds until its answer.

        Silence waits until the caller's own time limit; use `trio.fail_after`.

        Raises:
            OSError: EHOSTUNREACH or ENETUNREACH.
            socket.gaierror: *host* does not resolve on this network.
        """
        self._check_open()
        found = await self.getaddrinfo(host, 0, type=kernel.SOCK_DGRAM)
        self._driver.check()
        address = packed(found[0][4][0])
        request = self._driver.stack.icmp.ping(address, trio.current_time())
        waiters = Waiters(request)
        self._driver.sockets.add(waiters)
        self._driver.flush()
        try:
            while request.reply_time is None:
                if request.error:
                    raise OSError(request.error, f"{host}: {os.strerror(request.error)}")
                await waiters.wait_readable()
                self._driver.check()
            return request.reply_time
        finally:
            self._driver.sockets.discard(waiters)
            request.close()

    @contextmanager
    def capture(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Write every frame that passes inside the block to a pcapng file at *path*.

        Raises:
            OSError: the file cannot be written.
        """
        self._check_open()
        with open(path, "wb") as file, Capture(file) as capture:
            self._driver.add_instrument(capture)
            try:
                yield
            finally:
                self._driver.remove_instrument(capture)

    def status(self) -> Status:
        """A snapshot of everything that is open here; prints readably."""
        self._check_open()
        stack, wire, driver = self._driver.stack, self._wire, self._driver
        counters = {
            **stack.counters.as_dict(),
            **wire.counters(),
            "ring_drops": driver.ring_drops,
            "settings_refused": driver.managed.refused,
        }
        background = self._background
        return Status(
            name=self.name,
            wire=wire.name,
            mac=mac_text(wire.mac),
            mtu=stack.ip.mtus[4],
            addresses=tuple(map(str, self._interfaces())),
            connections=tuple(
                ConnectionStatus(
                    state=connection.state,
                    local=_text(connection.local),
                    remote=_text(connection.remote),
                    send_queue=connection.send_queued,
                    receive_queue=connection.receive_queued,
                )
                for connection in stack.tcp.connections()
            )
            + tuple(
                ConnectionStatus(TIME_WAIT, _text(entry.local), _text(entry.remote), 0, 0)
                for entry in stack.tcp.time_waits()
            ),
            sockets=(
                *(
                    SocketStatus("tcp", _text(listener.local), listener.queued)
                    for listener in stack.tcp.listeners()
                ),
                *(
                    SocketStatus("udp", _text(endpoint.local), endpoint.receive_queue)
                    for endpoint in stack.udp.endpoints()
                ),
            ),
            ports=tuple(sorted(map(str, stack.ports))),
            tasks=0 if background is None else len(background.child_tasks),
            neighbors=stack.neighbors.as_dict(),
            counters={reason: count for reason, count in counters.items() if count},
            identity=wire.identity,
            failure="" if wire.failure is None else str(wire.failure),
            peers=tuple(wire.peers()),
        )


def _text(name: tuple[bytes | None, int]) -> str:
    address, port = name
    text = "*" if address is None else ip_text(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
