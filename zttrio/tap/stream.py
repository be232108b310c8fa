"""TCP sockets of unmodified programs: opening, listening, ending, and what programs ask about them.

The rules and errno values are Linux's, see the tables of inet_stream_connect() and its kin.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import trio

from zttrio.header.address import is_unspecified
from zttrio.stack.events import CLOSE, CONN, ERR
from zttrio.stack.tcp.options import TcpOptions
from zttrio.stack.tcp.state import CLOSED, SYN_RECEIVED, SYN_SENT, TIME_WAIT

from . import rpc
from .acceptor import Acceptor
from .connection import Connection
from .options import number
from .poller import HANGUP, PEER_SHUT, READABLE
from .relay import Relay
from .sockaddr import AF_UNSPEC, for_program, for_stack, wildcard
from .standin import StreamEnd
from .tcpinfo import pack_info

if TYPE_CHECKING:
    from zttrio.stack.ports import Binding
    from zttrio.stack.tcp.connection import TcpConnection

    from .connection import House
    from .options import SocketOptions

__all__ = ["Attempt", "StreamConnection"]

SOMAXCONN = 4096  # Linux's
APP_INPUT = READABLE | PEER_SHUT | HANGUP
_OPENING = (SYN_SENT, SYN_RECEIVED)


class Attempt:
    """One connect() under way.

    Attributes:
        finished: set when the outcome is known.
        error: the errno of a failure, 0 for success.
        waiting: blocking callers that wait for the outcome.
    """

    __slots__ = ("error", "finished", "waiting")

    def __init__(self) -> None:
        self.finished = trio.Event()
        self.error = 0
        self.waiting = 0

    def finish(self, error: int) -> None:
        """Tell the outcome."""
        self.error = error
        self.finished.set()


class StreamConnection(Connection):
    """A TCP socket of a program, in whatever state it is."""

    kind = rpc.KIND_STREAM
    type = int(socket.SOCK_STREAM)

    def __init__(
        self,
        house: House,
        service: socket.socket,
        cookie: int,
        domain: int,
        protocol: int,
        options: SocketOptions | None = None,
    ) -> None:
        super().__init__(house, service, cookie, domain, protocol, options)
        self._end = StreamEnd(service, keeps_residue=house.keeps_residue)
        self._binding: Binding | None = None
        self._bound_to: tuple[bytes | None, int] | None = None
        self._tcp: TcpConnection | None = None
        self._relay: Relay | None = None
        self._acceptor: Acceptor | None = None
        self._attempt: Attempt | None = None
        self._is_program_finished = False
        self._is_success_told = True  # connect() says 0 once after EINPROGRESS, then EISCONN
        self._has_failed = False  # an attempt failed while nobody waited for it
        self._has_shut_read = False
        self._local: tuple[bytes | None, int] = (None, 0)

    @property
    def _may_be_shut(self) -> bool:
        """True if what looks like the program's close() may be the shutdown() of its last side."""
        return self._has_shut_read or (self._relay is not None and self._relay.is_peer_finished)

    @property
    def is_forgotten(self) -> bool:
        """True if nobody can ask about it any more, as far as we know."""
        return self.is_gone and not self._may_be_shut

    # the task

    def pump(self, bits: int) -> None:
        """Go on with whatever this socket is doing."""
        if bits & (PEER_SHUT | HANGUP):
            self._is_program_finished = True
        if self.state == rpc.STATE_CONNECTING:
            self._pump_attempt()
        if self.state == rpc.STATE_CONNECTED:
            self._pump_relay(bits)
        elif self.state == rpc.STATE_LISTENING:
            if self.is_gone:
                self.release()
                self.end()
            elif self._acceptor is not None:
                self._acceptor.pump()
                self.set_notify_writable(wanted=self._acceptor.is_blocked)
        elif self.is_gone and not self.is_over:
            self.release()
            self.end()

    def _pump_relay(self, bits: int) -> None:
        relay = self._relay
        assert relay is not None  # noqa: S101 - there is one in this state
        relay.pump(
            is_readable=bool(bits & APP_INPUT),
            program_finished=self._is_program_finished,
            is_gone=self.is_gone,
        )
        if relay.failure:
            self._fail(relay.failure)
        elif self.is_gone:
            # A pair that is shut in both directions looks as if the program had closed it.  If it
            # has not, SO_LINGER is not asked for, and it finds the end of the stream, no reset.
            lingers = self._may_be_shut or relay.tcp.options.linger != 0
            if relay.is_drained or relay.is_unread or not lingers:
                relay.let_go(lingers=lingers)
                self._end.drop_residue()
                self.end()
            elif relay.has_more:
                self._wakeup.set()
        elif relay.is_finished:
            self._end.drop_residue()
            self.end()
        else:
            self.set_notify_writable(wanted=relay.is_blocked)
            if relay.has_more:
                self._wakeup.set()

    def _fail(self, error: int) -> None:
        """The connection has failed: closing with the residue inside shows a reset."""
        self.error = error
        self.end()

    def end(self) -> None:
        """The stand-in has served; what only the relay needed goes with it."""
        super().end()
        self._relay = None

    def release(self) -> None:
        """Reset or give back whatever the stack has for us."""
        now = trio.current_time()
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        if self._tcp is not None and self._tcp.state not in (CLOSED, TIME_WAIT):
            self._tcp.abort(now)
        if self._binding is not None:
            self._binding.release()
            self._binding = None
        if self._attempt is not None:
            self._attempt.finish(errno.ECONNABORTED)
            self._attempt = None

    # opening

    async def bind(self, address: bytes) -> None:
        """Take an address and port."""
        if self._is_bound:
            raise OSError(errno.EINVAL, "bind: the socket has an address")
        ip, port = for_stack(address, self.domain, is_bind=True)
        await self.house.wait_for_address(ip)
        if self._is_bound:  # another thread was faster
            raise OSError(errno.EINVAL, "bind: the socket has an address")
        self._bound_to = self._claimed(ip), port
        try:
            binding = self._rebind()
        except OSError:
            self._bound_to = None
            raise
        self._bound_to = binding.address, binding.port
        self.state = rpc.STATE_BOUND

    @property
    def _is_bound(self) -> bool:
        return self.state != rpc.STATE_NEW or self._binding is not None

    def _claimed(self, ip: bytes) -> bytes | None:
        """What a bind to *ip* takes; None is the wildcard of both families."""
        is_dual = self.domain == rpc.AF_INET6 and not self.options.is_v6_only
        return None if is_dual and is_unspecified(ip) else ip

    def _rebind(self) -> Binding:
        """Take the address again that the program has chosen, or any if it has not."""
        if self._binding is None:
            wanted = self._claimed(wildcard(self.domain)), 0
            address, port = self._bound_to or wanted
            self._binding = self.house.driver.stack.tcp.bind(
                address,
                port,
                reuse_address=self.options.reuse_address,
                reuse_port=self.options.reuse_port,
                owner_text="a program's socket",
            )
            self._local = self._binding.address, self._binding.port
        return self._binding

    def connect(self, address: bytes, *, is_blocking: bool) -> Attempt | int | None:
        """Start to connect, or say how an earlier start went.

        Returns:
            None: connected (or, for AF_UNSPEC, disconnected).  An `Attempt`: under way, and the
            caller waits.  An int: ANSWER_* bits for the answer.

        Raises:
            OSError: EINPROGRESS and all others of connect().
        """
        if rpc.family_of(address) == AF_UNSPEC:
            return self._disconnect()
        if self.state in (rpc.STATE_NEW, rpc.STATE_BOUND):
            return self._start(address, is_blocking=is_blocking)
        if self.state == rpc.STATE_CONNECTING:
            if not is_blocking:
                raise OSError(errno.EALREADY, "connect: already under way")
            return self._attempt
        if self.state == rpc.STATE_CONNECTED:
            if not self._is_success_told:
                self._is_success_told = True
                return None
            raise OSError(errno.EISCONN, "connect: the socket is connected")
        if self.state == rpc.STATE_LISTENING:
            raise OSError(errno.EISCONN, "connect: the socket listens")
        if self._has_failed:
            self._has_failed = False
            error = self.take_error() or errno.ECONNABORTED
            raise OSError(error, "connect: an earlier attempt failed")
        return rpc.ANSWER_REVIVE

    def _disconnect(self) -> int | None:
        if self.state in (rpc.STATE_NEW, rpc.STATE_BOUND):
            return None
        if not self.is_over:
            self.release()
            self.end()
        return rpc.ANSWER_REVIVE

    def _start(self, address: bytes, *, is_blocking: bool) -> Attempt:
        try:
            tcp = self._open(address)
        except OSError as exc:
            if exc.errno != errno.ECONNREFUSED or is_blocking:
                raise
            self.error = errno.ECONNREFUSED  # port 0: others learn that later
            self._has_failed = True
            self.end()
            raise OSError(errno.EINPROGRESS, "connect: under way") from None
        self._tcp = tcp
        tcp.owner = self
        tcp.wanted = CONN | ERR | CLOSE
        self._local = tcp.local
        self.state = rpc.STATE_CONNECTING
        self._attempt = Attempt()
        self._is_success_told = False
        self.house.driver.flush()
        if not is_blocking:
            raise OSError(errno.EINPROGRESS, "connect: under way")
        return self._attempt

    def _open(self, address: bytes) -> TcpConnection:
        remote = for_stack(address, self.domain)
        if len(remote[0]) == 4 and self.domain == rpc.AF_INET6 and self.options.is_v6_only:
            raise OSError(errno.ENETUNREACH, "connect: IPV6_V6ONLY is set")
        if self._bound_to is not None:
            self._rebind()
        tcp = self.house.driver.stack.tcp.connect(
            remote,
            trio.current_time(),
            binding=self._binding,
            options=TcpOptions(**self.options.changes()),
        )
        self._binding = None  # it is the connection's now
        return tcp

    def discard_plug(self) -> None:
        """Nothing came of a connect(): what waits in the pair is filler."""
        if not self.is_over and self.state in (rpc.STATE_NEW, rpc.STATE_BOUND):
            self._end.swallow_plug(self._end.queued, keep_last=False)

    def _pump_attempt(self) -> None:
        tcp = self._tcp
        attempt = self._attempt
        assert tcp is not None  # noqa: S101 - there is one in this state
        assert attempt is not None  # noqa: S101 - there is one in this state
        if self.is_gone:
            tcp.close(trio.current_time())
            attempt.finish(errno.ECONNABORTED)
            self._attempt = None
            self.end()
        elif tcp.state in _OPENING and not tcp.error:
            tcp.wanted = CONN | ERR | CLOSE
        else:
            self._attempt = None
            plug = self._end.queued
            if tcp.error or tcp.state == CLOSED:
                self._attempt_failed(tcp, attempt, tcp.take_error() or errno.ECONNABORTED, plug)
            else:
                self._end.swallow_plug(plug, keep_last=True)
                self._establish(tcp)
                self._is_success_told = attempt.waiting > 0
                attempt.finish(0)

    def _attempt_failed(self, tcp: TcpConnection, attempt: Attempt, error: int, plug: int) -> None:
        tcp.owner = None
        if attempt.waiting:  # the caller hears of it, and may try again on the same descriptor
            self._end.swallow_plug(plug, keep_last=False)
            self._tcp = None
            self.state = rpc.STATE_NEW if self._bound_to is None else rpc.STATE_BOUND
            self._local = (None, 0) if self._bound_to is None else self._bound_to
        else:  # closing with the plug inside shows what a refused socket shows
            self._has_failed = True
            self._fail(error)
        attempt.finish(error)

    def _establish(self, tcp: TcpConnection) -> None:
        tcp.owner = self
        self._tcp = tcp
        self._local = tcp.local
        self._relay = Relay(tcp, self._end)
        self.state = rpc.STATE_CONNECTED

    def make_accepted(self, service: socket.socket, cookie: int, tcp: TcpConnection) -> None:
        """Put *tcp*, which this listener has accepted, behind a stand-in of its own."""
        accepted = StreamConnection(
            self.house, service, cookie, self.domain, self.protocol, self.options.inherit()
        )
        accepted._end.residue = int(self.house.keeps_residue)
        accepted._establish(tcp)
        if not self.house.keeps_residue:
            service.recv(1)
        self.house.counters.accepted += 1
        self.house.adopt(accepted)
        accepted.notify(0)

    def listen(self, backlog: int) -> None:
        """Start to listen, or change the backlog."""
        if not 0 <= backlog <= SOMAXCONN:
            backlog = SOMAXCONN  # Linux compares as unsigned
        if self.state == rpc.STATE_LISTENING and self._acceptor is not None:
            self._acceptor.backlog = backlog
            self._acceptor.pump()
            return
        if self.state not in (rpc.STATE_NEW, rpc.STATE_BOUND):
            raise OSError(errno.EINVAL, "listen: the socket is connected")
        binding = self._rebind()
        listener = self.house.driver.stack.tcp.listen(
            binding,
            backlog,
            trio.current_time(),
            options=TcpOptions(**self.options.changes()),
        )
        self._bound_to = binding.address, binding.port
        self._binding = None
        listener.owner = self
        self._acceptor = Acceptor(self, listener, self._service, backlog)
        self.state = rpc.STATE_LISTENING
        self._acceptor.pump()

    # what programs ask

    def local_name(self) -> bytes:
        """What getsockname() gives."""
        return for_program(*self._local, self.domain)

    def peer_name(self) -> bytes:
        """What getpeername() gives."""
        tcp = self._tcp
        if tcp is None or tcp.state in (SYN_SENT, CLOSED, TIME_WAIT):
            raise OSError(errno.ENOTCONN, "getpeername: the socket is not connected")
        return for_program(*tcp.remote, self.domain)

    def shutdown(self, how: int) -> int:
        """As inet_shutdown()."""
        if self.state == rpc.STATE_LISTENING:
            if how != socket.SHUT_WR and self._acceptor is not None:
                self._acceptor.close()
                self._acceptor = None
                self.state = rpc.STATE_BOUND
                return rpc.ANSWER_NATIVE  # wakes those who accept
            return 0
        if self.state == rpc.STATE_CONNECTED:
            tcp = self._tcp
            if tcp is not None and tcp.state not in (CLOSED, TIME_WAIT):
                self._has_shut_read |= how != socket.SHUT_WR
                return rpc.ANSWER_NATIVE
        if self.state == rpc.STATE_CONNECTING:
            self.release()
            self._fail(errno.ECONNABORTED)
            return 0
        raise OSError(errno.ENOTCONN, "shutdown: the socket is not connected")

    def get_option(self, level: int, option: int, room: int) -> bytes:
        """Answer from the connection where it knows better than the table."""
        tcp = self._tcp
        if level == socket.SOL_SOCKET:
            if option == socket.SO_ACCEPTCONN:
                return number(int(self.state == rpc.STATE_LISTENING), level, room)
            if option == socket.SO_ERROR:
                return number(self.take_error(), level, room)
        elif level == socket.IPPROTO_TCP:
            if option == socket.TCP_INFO:
                return pack_info(self.state, tcp, trio.current_time())[:room]
            if option == socket.TCP_MAXSEG and tcp is not None:
                return number(tcp.mss, level, room)
        elif (level, option) in ((socket.IPPROTO_IP, 14), (socket.IPPROTO_IPV6, 24)):  # ..._MTU
            if tcp is None or self.state != rpc.STATE_CONNECTED:
                raise OSError(errno.ENOTCONN, "path MTU: the socket is not connected")
            return number(self.house.driver.stack.ip.path_mtu(tcp.remote[0]), level, room)
        return self.options.get(level, option, room)

    def set_option(self, level: int, option: int, value: bytes) -> None:
        """Remember an option and let it act."""
        if (level, option) == (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) and (
            self.state != rpc.STATE_NEW
        ):
            raise OSError(errno.EINVAL, "IPV6_V6ONLY: the socket has an address")
        self.options.set(level, option, value)
        changes = self.options.changes()
        if self._tcp is not None and self._tcp.state != CLOSED:
            self._tcp.configure(**changes)
        if self._acceptor is not None:
            self._acceptor.listener.configure(**changes)
        self.house.driver.flush()

    def unsent(self) -> int:
        """What waits in the pair and in the stack."""
        if self.is_over or self._tcp is None:
            return 0
        return max(0, self._end.queued) + self._tcp.send_queued
