"""The broker: every intercepted socket by its cookie, and the operations programs ask for.

It knows nothing about how a request came and how its answer goes back, so every front door gets the
same results from it.
"""

from __future__ import annotations

import errno
import socket
import termios
from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio.errors import RpcError
from zttrio.header.address import ip_text, is_loopback, is_unspecified

from . import rpc, standin
from .connection import Connection, TapCounters
from .datagram import DatagramConnection
from .interfaces import answer_ioctl, list_interfaces
from .names import ResolveError, name_of, resolve
from .poller import Poller
from .sockaddr import AF_UNSPEC, for_stack
from .stream import Attempt, StreamConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.driver import Driver
    from zttrio.resolve import Resolver

    from .connection import Policy

__all__ = ["Broker", "Reply"]

DEPARTED = 4096  # sockets whose stand-in is closed, of which questions are answered; arbitrary
REPORTS = 256  # different things said about one service's programs at most; arbitrary
ROUNDS = 4  # of news that follow from news, there and back twice; arbitrary
ADDRESS_WAIT = 10.0  # s that bind() waits for a first address of the network; arbitrary
_TCP, _UDP = int(socket.IPPROTO_TCP), int(socket.IPPROTO_UDP)
_STREAM, _DGRAM, _RAW = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM), int(socket.SOCK_RAW)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


@attrs.define
class Reply:
    """What a request is answered with.

    Attributes:
        ret: what the libc function returns.
        err: errno, if *ret* is negative.
        flags: rpc.ANSWER_* bits.
        sock: a cookie, 0 for that of the request.
        payload: depends on the operation.
        descriptor: to be passed along and closed here.
    """

    ret: int = 0
    err: int = 0
    flags: int = 0
    sock: int = 0
    payload: bytes = b""
    descriptor: socket.socket | None = None


class Broker:
    """The sockets of unmodified programs on one network.

    Implements `zttrio.tap.connection.House` for them.

    Args:
        driver: the stack driver of the network.
        resolver: its names.
        name: what the others there call us, or None.
        policy: where traffic may go.
        nursery: where the connections' tasks run.
        say: tells the user what was blocked.
    """

    def __init__(
        self,
        driver: Driver,
        resolver: Resolver,
        name: str | None,
        policy: Policy,
        nursery: trio.Nursery,
        say: Callable[[str], None],
    ) -> None:
        self.driver = driver
        self.policy = policy
        self.poller = Poller()
        self.counters = TapCounters()
        self.keeps_residue = standin.keeps_residue_harmless()
        self.record_charge = _measure_record()
        self.can_repurpose = False
        self.news: dict[Connection, None] = {}  # those to be attended to, the first to come first
        self.is_attending = False
        self._resolver = resolver
        self._name = name
        self._nursery = nursery
        self._say = say
        self._said: set[str] = set()
        self._connections: dict[int, Connection] = {}
        self._departed: OrderedDict[int, Connection] = OrderedDict()
        self._freed: deque[Callable[[], None]] = deque()

    # what connections need

    def adopt(self, connection: Connection) -> None:
        """Know a new connection, and start its task."""
        self._connections[connection.cookie] = connection
        self._nursery.start_soon(connection.run)

    def depart(self, connection: Connection) -> None:
        """Keep a connection without a stand-in, but not for ever."""
        del self._connections[connection.cookie]
        if not connection.is_forgotten:
            self._departed[connection.cookie] = connection
            if len(self._departed) > DEPARTED:
                self._departed.popitem(last=False)
        while self._freed:
            self._freed.popleft()()

    def when_freed(self, callback: Callable[[], None]) -> None:
        """Call *callback* once when a descriptor has been given back."""
        self._freed.append(callback)

    def report(self, text: str) -> None:
        """Tell the user something, but the same only once and not without end."""
        if text in self._said:
            return
        if len(self._said) >= REPORTS:
            self.counters.notes_dropped += 1
            return
        self._said.add(text)
        self._say(text)

    async def wait_for_address(self, address: bytes) -> None:
        """Return when the network has an address, if *address* can only be one of those."""
        if is_unspecified(address) or is_loopback(address):
            return
        with trio.move_on_after(ADDRESS_WAIT):
            while not self.driver.stack.addresses and not self.driver.is_closed:
                await self.driver.wait_changed()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Every connection that has a stand-in."""
        return tuple(self._connections.values())

    # operations

    def is_blocking(self, request: rpc.Request) -> bool:
        """True if the answer may take long, so that others must not wait for it."""
        if request.op == rpc.OP_CONNECT:
            return not request.flags & rpc.REQUEST_NONBLOCK
        return request.op == rpc.OP_RESOLVE and self.policy.host_names

    async def perform(self, request: rpc.Request, client: str) -> Reply:
        """Do what a program asks for.

        Args:
            request: what.
            client: who, for messages.

        Raises:
            RpcError: the payload makes no sense.
        """
        self.counters.requests += 1
        self._catch_up()
        operation = _OPERATIONS.get(request.op)
        if operation is None:
            self.counters.requests_unknown += 1
            return Reply(-1, errno.ENOSYS)
        try:
            self.driver.check()
            return await operation(self, request, client)
        except OSError as exc:
            return Reply(-1, exc.errno or errno.EIO)

    def _catch_up(self) -> None:
        """Act on everything that programs did with their descriptors before they asked.

        A program that closes its listener and then connects to its port must be refused; both
        reach us at once, by different ways.  The poller may have told a connection's task before,
        which then waits for its turn just as we did.
        """
        self.poller.dispatch()
        self.attend_news()

    def attend_news(self) -> None:
        """Attend to every connection with news, and to those that get news thereby.

        What one program writes is so on its way to the other without waking a task for either.
        Who still has news after `ROUNDS` waits for its own task's turn, as others do.
        """
        self.is_attending = True
        try:
            for _ in range(ROUNDS):
                if not self.news:
                    return
                batch, self.news = self.news, {}
                for connection in batch:
                    connection.attend()
                self.driver.flush()  # one for all: what follows from it is the next batch
        finally:
            self.is_attending = False
        for connection in self.news:
            connection.wake()

    def _find(self, cookie: int) -> Connection:
        connection = self._connections.get(cookie) or self._departed.get(cookie)
        if connection is None:
            raise OSError(errno.ENOTCONN, f"socket {cookie}: not known, or long gone")
        return connection

    async def _socket(self, request: rpc.Request, client: str) -> Reply:
        if len(request.payload) != 4:
            raise RpcError("socket: needs a protocol")
        protocol = int.from_bytes(request.payload, "little", signed=True)
        kind: type[StreamConnection | DatagramConnection]
        if request.b == _STREAM:
            kind, own = StreamConnection, _TCP
        elif request.b == _DGRAM:
            kind, own = DatagramConnection, _UDP
        elif request.b == _RAW:
            self.report(f"{client}: raw sockets are not carried")
            return Reply(-1, errno.EPERM)
        else:
            return Reply(-1, errno.ESOCKTNOSUPPORT)
        if request.a not in (rpc.AF_INET, rpc.AF_INET6):
            return Reply(-1, errno.EAFNOSUPPORT)
        if protocol not in (0, own):
            return Reply(-1, errno.EPROTONOSUPPORT)
        connection, app = self._make(kind, request.a, own)
        return Reply(own, sock=connection.cookie, descriptor=app)

    def repurpose(self, request: rpc.Request, service: socket.socket) -> rpc.Answer:
        """Make the connection that brought a SOCKET request the service end of that socket.

        Raises:
            RpcError: it is no such request, or its cookie is somebody's.
        """
        if request.op != rpc.OP_SOCKET or request.sock in (0, *self._connections):
            raise RpcError("socket: a connection can become a socket of its own only")
        self.counters.requests += 1
        protocol = int.from_bytes(request.payload, "little", signed=True)
        error = 0
        if request.b != _STREAM:
            error = errno.ESOCKTNOSUPPORT
        elif request.a not in (rpc.AF_INET, rpc.AF_INET6):
            error = errno.EAFNOSUPPORT
        elif protocol not in (0, _TCP):
            error = errno.EPROTONOSUPPORT
        elif self.driver.is_closed:
            error = errno.ENETDOWN
        answer = rpc.Answer(request.op, request.seq, -1 if error else _TCP, error)
        answer.sock = request.sock
        if not error:
            service.send(answer.emit())  # in front of everything else
            connection = StreamConnection(self, service, request.sock, request.a, _TCP)
            self.counters.sockets += 1
            self.adopt(connection)
        return answer

    def _make(
        self, kind: type[StreamConnection | DatagramConnection], domain: int, protocol: int
    ) -> tuple[Connection, socket.socket]:
        pair = socket.SOCK_STREAM if kind is StreamConnection else socket.SOCK_SEQPACKET
        try:
            service, app, cookie = standin.make_pair(pair)
        except OSError as exc:
            if exc.errno in _NO_DESCRIPTOR:
                self.counters.no_descriptors += 1
                raise OSError(errno.ENFILE, "socket: the tap service has no descriptor") from exc
            raise
        connection = kind(self, service, cookie, domain, protocol)
        self.counters.sockets += 1
        self.adopt(connection)
        return connection, app

    async def _bind(self, request: rpc.Request, client: str) -> Reply:
        connection = self._find(request.sock)
        ip, port = for_stack(request.payload, connection.domain, is_bind=True)
        if not is_unspecified(ip) and self.policy.verdict(ip, port) == rpc.POLICY_HOST:
            return self._hand_to_host(connection)
        await connection.bind(request.payload)
        return Reply()

    def _hand_to_host(self, connection: Connection) -> Reply:
        """The program shall put a kernel socket in the stand-in's place, with the same options."""
        payload = rpc.pack_options(connection.options.settings())
        return Reply(flags=rpc.ANSWER_HOST, payload=payload)

    def _judge(self, address: bytes, domain: int, client: str, what: str) -> int:
        """What the policy says about a destination; what it denies is reported.

        Raises:
            OSError: EACCES, denied.
        """
        ip, port = for_stack(address, domain)
        verdict = self.policy.verdict(ip, port)
        if verdict == rpc.POLICY_DENY:
            self.counters.connects_blocked += 1
            self.report(f"{client}: {what} {ip_text(ip)} port {port}: denied by policy")
            raise OSError(errno.EACCES, f"{what}: denied by policy")
        return verdict

    def _report_unreachable(self, address: bytes, domain: int, client: str, what: str) -> None:
        ip, port = for_stack(address, domain)
        self.counters.connects_blocked += 1
        hint = f"; --allow-host {ip_text(ip)} gives it to the host" if port else ""
        self.report(f"{client}: {what} {ip_text(ip)} port {port}: not on this network{hint}")

    async def _connect(self, request: rpc.Request, client: str) -> Reply:
        connection = self._find(request.sock)
        address = request.payload
        if len(address) < 2:
            return Reply(-1, errno.EINVAL)
        is_blocking = not request.flags & rpc.REQUEST_NONBLOCK
        is_start = connection.state in (rpc.STATE_NEW, rpc.STATE_BOUND)
        try:
            if is_start and rpc.family_of(address) != AF_UNSPEC:
                verdict = self._judge(address, connection.domain, client, "connect to")
                if verdict == rpc.POLICY_HOST:
                    return self._hand_to_host(connection)
            if isinstance(connection, DatagramConnection):
                connection.connect(address)
                return Reply()
            assert isinstance(connection, StreamConnection)  # noqa: S101 - the only other kind
            outcome = connection.connect(address, is_blocking=is_blocking)
        except OSError as exc:
            if isinstance(connection, StreamConnection) and is_start:
                connection.discard_plug()
            if exc.errno == errno.ENETUNREACH:
                self._report_unreachable(address, connection.domain, client, "connect to")
            raise
        if isinstance(outcome, Attempt):
            outcome.waiting += 1
            try:
                await outcome.finished.wait()
            finally:
                outcome.waiting -= 1
            return Reply(-1, outcome.error) if outcome.error else Reply()
        return Reply(flags=outcome or 0)

    async def _listen(self, request: rpc.Request, client: str) -> Reply:
        del client
        self._find(request.sock).listen(request.a)
        return Reply()

    async def _getsockname(self, request: rpc.Request, client: str) -> Reply:
        del client
        return Reply(payload=self._find(request.sock).local_name())

    async def _getpeername(self, request: rpc.Request, client: str) -> Reply:
        del client
        return Reply(payload=self._find(request.sock).peer_name())

    async def _getsockopt(self, request: rpc.Request, client: str) -> Reply:
        del client
        if len(request.payload) != 4:
            raise RpcError("getsockopt: needs the size of the buffer")
        room = int.from_bytes(request.payload, "little")
        connection = self._find(request.sock)
        return Reply(payload=connection.get_option(request.a, request.b, room))

    async def _setsockopt(self, request: rpc.Request, client: str) -> Reply:
        del client
        self._find(request.sock).set_option(request.a, request.b, request.payload)
        return Reply()

    async def _shutdown(self, request: rpc.Request, client: str) -> Reply:
        del client
        if request.a not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            return Reply(-1, errno.EINVAL)
        reply = Reply(flags=self._find(request.sock).shutdown(request.a))
        self.driver.flush()
        return reply

    async def _resolve(self, request: rpc.Request, client: str) -> Reply:
        node, service = rpc.parse_texts(request.payload, 2)
        found = self._resolver.lookup(node) if node else []
        if node and not found and self.policy.host_names:
            found = await _host_lookup(node)
        families = {
            rpc.AF_INET if interface.version == 4 else rpc.AF_INET6
            for interface in self.driver.stack.addresses
        }
        if self.policy.has_host_rules:
            families = set()  # what the host can reach is not known here
        try:
            answer = resolve(
                None if request.flags & rpc.REQUEST_NO_NODE else node,
                None if request.flags & rpc.REQUEST_NO_SERVICE else service,
                request.b,
                request.a,
                found,
                families,
            )
        except ResolveError as exc:
            if exc.is_unknown_name:
                self.report(f"{client}: {exc}")
            return Reply(exc.code)
        return Reply(payload=answer.emit())

    async def _nameinfo(self, request: rpc.Request, client: str) -> Reply:
        del client
        address = rpc.Sockaddr.parse(request.payload)
        own: dict[bytes, str] = {}
        if self._name is not None:
            own = {interface.ip.packed: self._name for interface in self.driver.stack.addresses}
        try:
            name, service = name_of(address, request.a, own)
        except ResolveError as exc:
            return Reply(exc.code)
        return Reply(payload=rpc.emit_texts(name, service))

    async def _ifaddrs(self, request: rpc.Request, client: str) -> Reply:
        del request, client
        rows = list_interfaces(self.driver.stack)
        return Reply(payload=b"".join(row.emit() for row in rows))

    async def _ioctl(self, request: rpc.Request, client: str) -> Reply:
        del client
        if request.a == termios.TIOCOUTQ:
            unsent = self._find(request.sock).unsent()
            return Reply(payload=unsent.to_bytes(4, "little"))
        return Reply(payload=answer_ioctl(self.driver.stack, request.a, request.payload))

    async def _revive(self, request: rpc.Request, client: str) -> Reply:
        """A new stand-in with the old one's options, after an attempt that nobody waited for."""
        del client
        old = self._find(request.sock)
        if not isinstance(old, StreamConnection) or not old.is_over:
            return Reply(-1, errno.EINVAL)
        connection, app = self._make(StreamConnection, old.domain, old.protocol)
        connection.options = old.options.inherit()
        del self._departed[old.cookie]
        return Reply(sock=connection.cookie, descriptor=app)

    async def _query(self, request: rpc.Request, client: str) -> Reply:
        del client
        if len(request.payload) % 8:
            raise RpcError("query: cookies have 8 octets each")
        rows = []
        for at in range(0, len(request.payload), 8):
            cookie = int.from_bytes(request.payload[at : at + 8], "little")
            found = self._connections.get(cookie) or self._departed.get(cookie)
            row = rpc.QueryRow(rpc.KIND_NONE)
            if found is not None:
                row = rpc.QueryRow(found.kind, found.state, found.domain, found.protocol)
            rows.append(row.emit())
        return Reply(payload=b"".join(rows))

    async def _policy(self, request: rpc.Request, client: str) -> Reply:
        """May a datagram be sent there?  Its errors are wanted before it is sent, not after."""
        connection = self._find(request.sock)
        address = request.payload
        verdict = self._judge(address, rpc.family_of(address), client, "send to")
        if verdict == rpc.POLICY_HOST:
            reply = self._hand_to_host(connection)
            reply.ret = rpc.POLICY_HOST
            return reply
        if isinstance(connection, DatagramConnection):
            try:
                connection.check_destination(address)
            except OSError as exc:
                if exc.errno == errno.ENETUNREACH:
                    self._report_unreachable(address, rpc.family_of(address), client, "send to")
                raise
        return Reply(rpc.POLICY_VIRTUAL)

    async def _note(self, request: rpc.Request, client: str) -> Reply:
        text = request.payload.decode(errors="replace")
        self.report(f"{client}: {''.join(c if c.isprintable() else '?' for c in text)}")
        return Reply()


_OPERATIONS = {
    rpc.OP_SOCKET: Broker._socket,
    rpc.OP_BIND: Broker._bind,
    rpc.OP_CONNECT: Broker._connect,
    rpc.OP_LISTEN: Broker._listen,
    rpc.OP_GETSOCKNAME: Broker._getsockname,
    rpc.OP_GETPEERNAME: Broker._getpeername,
    rpc.OP_GETSOCKOPT: Broker._getsockopt,
    rpc.OP_SETSOCKOPT: Broker._setsockopt,
    rpc.OP_SHUTDOWN: Broker._shutdown,
    rpc.OP_RESOLVE: Broker._resolve,
    rpc.OP_NAMEINFO: Broker._nameinfo,
    rpc.OP_IFADDRS: Broker._ifaddrs,
    rpc.OP_IOCTL: Broker._ioctl,
    rpc.OP_REVIVE: Broker._revive,
    rpc.OP_QUERY: Broker._query,
    rpc.OP_POLICY: Broker._policy,
    rpc.OP_NOTE: Broker._note,
}


async def _host_lookup(name: str) -> list[str]:
    """The addresses that the host's resolver has for *name*; none if it has none."""
    try:
        # Not trio.socket's: that may be the virtual network's own.
        rows = await trio.to_thread.run_sync(
            partial(socket.getaddrinfo, name, None, type=socket.SOCK_STREAM), abandon_on_cancel=True
        )
    except socket.gaierror:
        return []
    return [str(row[4][0]) for row in rows]


def _measure_record() -> int:
    """What one accept record that waits is charged; the kernel rounds generously."""
    service, app, _ = standin.make_pair(socket.SOCK_STREAM)
    with service, app:
        service.send(bytes(rpc.RECORD_LENGTH))
        return standin.count(service.fileno(), standin.SIOCOUTQ)
