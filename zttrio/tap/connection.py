"""What every intercepted socket has: a stand-in, options, a state, and one task that joins ends.

A `Connection`, in the seed's word, stands between a program's descriptor and a socket of the stack.
News of the stand-in come through the poller, news of the stack through `Connection.notify`; both
only take notes.  What there is to move is then moved by `Connection.attend`: for a burst of news by
the one who brings it (see `zttrio.tap.broker.Broker.attend_news`), else by the connection's task.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs
import trio

from . import rpc
from .options import SocketOptions
from .poller import HANGUP

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from zttrio.driver import Driver

    from .poller import Poller

__all__ = ["Connection", "House", "Policy", "TapCounters"]


@attrs.define
class TapCounters:
    """What has happened, by reason."""

    sockets: int = 0
    accepted: int = 0
    requests: int = 0
    requests_malformed: int = 0
    requests_unknown: int = 0
    clients: int = 0
    clients_refused: int = 0
    connects_blocked: int = 0
    datagrams_blocked: int = 0
    datagrams_malformed: int = 0
    datagrams_failed: int = 0
    no_descriptors: int = 0
    notes_dropped: int = 0

    def as_dict(self) -> dict[str, int]:
        """Every counter by its name."""
        return {name: int(value) for name, value in attrs.asdict(self).items()}


class Policy(Protocol):
    """Where the traffic of programs may go."""

    def verdict(self, address: bytes, port: int) -> int:
        """One of rpc.POLICY_*, for the packed address and port of a destination."""

    def digest(self) -> bytes:
        """32 octets that change when the rules do."""

    @property
    def is_strict(self) -> bool:
        """True if nothing may reach the host's network but what a rule gives to it."""

    @property
    def has_host_rules(self) -> bool:
        """True if some destinations are the host's."""

    @property
    def host_names(self) -> bool:
        """True if names that nobody on the network has are asked of the host's resolver."""


class House(Protocol):
    """What a connection needs of the tap service it lives in."""

    driver: Driver
    poller: Poller
    policy: Policy
    counters: TapCounters
    keeps_residue: bool
    record_charge: int
    news: dict[Connection, None]
    is_attending: bool

    def adopt(self, connection: Connection) -> None:
        """Know a new connection, and start its task."""

    def depart(self, connection: Connection) -> None:
        """The stand-in is closed: keep the connection only to answer questions about it."""

    def report(self, text: str) -> None:
        """Tell the user what was blocked."""

    def when_freed(self, callback: Callable[[], None]) -> None:
        """Call *callback* once when a descriptor has been given back."""

    async def wait_for_address(self, address: bytes) -> None:
        """Return when the network has an address, if *address* can only be one of those."""


class Wakeup:
    """Wakes one task; waking it while it is awake makes its next wait short."""

    __slots__ = ("_is_set", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._is_set = False

    def set(self) -> None:
        """Wake the task, or do not let it sleep."""
        if self._task is None:
            self._is_set = True
        else:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> None:
        """Return after the next `set`, or at once if there was one since the last wait."""
        if self._is_set:
            self._is_set = False
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class Connection(ABC):
    """One intercepted socket.

    Attributes:
        cookie: SO_COOKIE of the program's end, by which everybody names it.
        descriptor: the number of our end.
        domain: AF_INET or AF_INET6.
        protocol: IPPROTO_*.
        options: what the program has set.
        state: one of rpc.STATE_*.
        error: errno that the program has not been told yet, for SO_ERROR.
        is_gone: the last copy of the program's end is closed, or both of its directions are shut.
    """

    kind: ClassVar[int]
    type: ClassVar[int]

    def __init__(
        self,
        house: House,
        service: socket.socket,
        cookie: int,
        domain: int,
        protocol: int,
        options: SocketOptions | None = None,
    ) -> None:
        self.house = house
        self.cookie = cookie
        self.domain = domain
        self.protocol = protocol
        self.options = (
            SocketOptions(domain, self.type, house.driver.stack.tcp.config.congestion)
            if options is None
            else options
        )
        self.state = rpc.STATE_NEW
        self.error = 0
        self.is_gone = False
        self._service = service
        self.descriptor = service.fileno()
        self._wakeup = Wakeup()
        self._app_events = 0
        self._wants_writable = False
        self._is_over = False
        house.poller.add(self.descriptor, self._app_changed)

    # news

    def _app_changed(self, bits: int) -> None:
        """The poller: something happened at the program's end; whoever asked it attends to us."""
        self._app_events |= bits
        self.house.news[self] = None

    def notify(self, bits: int) -> None:
        """The stack driver: something happened at the stack's end (`Endpoint.owner`)."""
        del bits
        # Whoever attends to the next burst does it for us, should our task's turn come later: what
        # has arrived must not wait behind more of the same, for which there may be no room.
        self.house.news[self] = None
        if not self.house.is_attending:
            self._wakeup.set()

    def wake(self) -> None:
        """Let our task attend to the news when it has its turn."""
        self._wakeup.set()

    def set_notify_writable(self, *, wanted: bool) -> None:
        """Hear of room in the program's receive queue, or no longer; the seed's notify-writable."""
        if wanted != self._wants_writable:
            self._wants_writable = wanted
            self.house.poller.want_writable(self.descriptor, wanted=wanted)

    # the task

    async def run(self) -> None:
        """Join the two ends until there is nothing left to join.  One task for each connection."""
        try:
            while not self._is_over:
                await self._wakeup.wait()
                self.attend()
                self.house.driver.flush()
        finally:
            if not self._is_over:  # the service ends: programs see it as a reset
                self.release()
                self._close_stand_in()
                self.house.driver.flush()

    def attend(self) -> None:
        """Act on the news there are; the caller flushes the driver afterwards."""
        self.house.news.pop(self, None)
        if self._is_over:
            return
        bits, self._app_events = self._app_events, 0
        if bits & HANGUP:
            self.is_gone = True
        self.pump(bits)

    @abstractmethod
    def pump(self, bits: int) -> None:
        """Move what there is to move; *bits* is what the poller said."""

    @abstractmethod
    def release(self) -> None:
        """Give everything back to the stack at once."""

    def end(self) -> None:
        """The stand-in has served: close it, and keep what can be asked about it."""
        if not self._is_over:
            self._is_over = True
            self.house.news.pop(self, None)
            self.state = rpc.STATE_DEAD
            self._close_stand_in()
            self.house.depart(self)
            self._wakeup.set()

    def _close_stand_in(self) -> None:
        self.house.poller.remove(self.descriptor)
        self._service.close()

    @property
    def is_forgotten(self) -> bool:
        """True if nobody can ask about it any more."""
        return self.is_gone

    @property
    def is_over(self) -> bool:
        """True after `end`."""
        return self._is_over

    # what programs ask

    @abstractmethod
    def local_name(self) -> bytes:
        """What getsockname() gives."""

    @abstractmethod
    def peer_name(self) -> bytes:
        """What getpeername() gives.

        Raises:
            OSError: ENOTCONN.
        """

    @abstractmethod
    async def bind(self, address: bytes) -> None:
        """Take an address; *address* is a socket address structure.

        Raises:
            OSError: as bind() on Linux.
        """

    @abstractmethod
    def shutdown(self, how: int) -> int:
        """Do what the pair alone cannot express, and return rpc.ANSWER_* bits for the answer.

        Raises:
            OSError: ENOTCONN.
        """

    def listen(self, backlog: int) -> None:
        """Start to listen.

        Raises:
            OSError: EOPNOTSUPP, EINVAL, EADDRINUSE.
        """
        del backlog
        raise OSError(errno.EOPNOTSUPP, "listen: only stream sockets listen")

    def take_error(self) -> int:
        """SO_ERROR: the errno that was not told yet, and forget it."""
        error, self.error = self.error, 0
        return error

    @abstractmethod
    def get_option(self, level: int, option: int, room: int) -> bytes:
        """What getsockopt() gives a program with *room* octets.

        Raises:
            OSError: as getsockopt() on Linux.
        """

    @abstractmethod
    def set_option(self, level: int, option: int, value: bytes) -> None:
        """What setsockopt() does.

        Raises:
            OSError: as setsockopt() on Linux.
        """

    @abstractmethod
    def unsent(self) -> int:
        """SIOCOUTQ: octets the peer has not acknowledged."""

    def describe(self) -> dict[str, Any]:
        """Values for people, for status reports."""
        return {"cookie": self.cookie, "state": self.state}
