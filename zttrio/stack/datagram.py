"""One UDP socket of the stack, and the datagrams it keeps for its program.

Which datagrams those are, and how they travel, is the business of `zttrio.stack.udp`.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

import attrs

from zttrio.header.address import ip_text, is_unspecified

from .events import RD, WR, Endpoint

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from .ports import Binding
    from .udp import UdpLayer

__all__ = ["MEMBERSHIP_LIMIT", "OVERHEAD", "Control", "Datagram", "UdpEndpoint"]

OVERHEAD = 512  # octets charged for keeping a datagram, whatever its size; about what Python needs
MEMBERSHIP_LIMIT = 20  # groups of one endpoint; Linux's igmp_max_memberships


@attrs.define
class Datagram:
    """One datagram as it was received.

    Attributes:
        data: its payload.
        source: packed address and port of the sender.
        destination: packed address and port it was sent to; may be a group's.
        hop_limit: what was left of it.
        traffic_class: DSCP and ECN.
    """

    data: bytes
    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    hop_limit: int
    traffic_class: int


@attrs.frozen
class Control:
    """What one datagram has that others of its endpoint have not (RFC 3542 section 6).

    Attributes:
        source: the packed address it comes from, one of ours; None for the endpoint's.
        hop_limit: 0 for the endpoint's.
        traffic_class: DSCP and ECN, None for the endpoint's.
    """

    source: bytes | None = None
    hop_limit: int = 0
    traffic_class: int | None = None


class UdpEndpoint(Endpoint):
    """One UDP socket of the stack.  Reports RD, WR (after a full wire) and ERR.

    Attributes:
        local: packed address, or None for every address of both families, and port; port 0 means
            not bound yet.
        remote: where `send` goes by default and the only sender that is listened to, or None.
        error: errno of something that happened since the last call, or 0.
        receive_buffer: octets that may wait for the program, overhead included.
        send_buffer: for the record: datagrams do not wait here but in the wire.
        receive_queue: octets that wait.
        may_broadcast: sending to a broadcast address is allowed.
        hop_limit: of what is sent to one host; 0 for the default.
        multicast_hop_limit: of what is sent to multicast groups; 0 keeps it on this host, and -1 is
            the default of 1.
        multicast_loop: members on this host get what we send to their group.
        multicast_source: the packed address that IPv4 datagrams to groups come from, unless the
            endpoint is bound to one; None for the usual one.
        traffic_class: DSCP and ECN of what is sent.
        memberships: packed addresses of the groups this endpoint has joined.
        is_closed: `close` was called.
    """

    __slots__ = (
        "_binding",
        "_is_read_shut",
        "_is_write_shut",
        "_layer",
        "_queue",
        "error",
        "hop_limit",
        "is_closed",
        "local",
        "may_broadcast",
        "memberships",
        "multicast_hop_limit",
        "multicast_loop",
        "multicast_source",
        "receive_buffer",
        "receive_queue",
        "remote",
        "reuse_port",
        "send_buffer",
        "traffic_class",
    )

    def __init__(self, layer: UdpLayer, receive_buffer: int) -> None:
        super().__init__()
        self.local: tuple[bytes | None, int] = (None, 0)
        self.remote: tuple[bytes, int] | None = None
        self.error = 0
        self.receive_buffer = receive_buffer
        self.send_buffer = receive_buffer
        self.receive_queue = 0
        self.may_broadcast = False
        self.hop_limit = 0
        self.multicast_hop_limit = 1
        self.multicast_loop = True
        self.multicast_source: bytes | None = None
        self.traffic_class = 0
        self.memberships: set[bytes] = set()
        self.reuse_port = False
        self.is_closed = False
        self._binding: Binding | None = None
        self._layer = layer
        self._queue: deque[Datagram] = deque()
        self._is_read_shut = False
        self._is_write_shut = False

    # addresses

    def bind(
        self,
        address: bytes | None,
        port: int,
        *,
        reuse_address: bool = False,
        reuse_port: bool = False,
    ) -> None:
        """Take *port* at *address*; port 0 picks one.

        Args:
            address: packed: ours, a group's, the wildcard of a family; None for both families.
            port: 0 to 65535.
            reuse_address: share with others who said the same: groups reach all of them, and
                other datagrams the one that bound last.
            reuse_port: share with others who said the same; senders are spread among them.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL, EINVAL (bound already), EBADF.
        """
        self._check()
        if self._binding is not None:
            raise OSError(errno.EINVAL, f"bind: already bound to {self._binding}")
        self._layer.bind(self, address, port, reuse_address=reuse_address, reuse_port=reuse_port)

    def connect(self, remote: tuple[bytes, int] | None, now: float) -> None:
        """Choose the peer; None takes the choice back.

        Raises:
            OSError: ENETUNREACH, EACCES (a broadcast address without permission), EADDRINUSE (no
                port is left), EBADF.
        """
        del now
        self._check()
        self._layer.connect(self, remote)

    def join_group(self, group: bytes) -> None:
        """Receive what is sent to a multicast group; leaving the endpoint leaves the group.

        As on Linux, every endpoint that is bound to the right port then hears the group.

        Args:
            group: packed.

        Raises:
            OSError: EINVAL (not a multicast address), EADDRINUSE (joined already), ENOBUFS (20 are
                joined, or too many by all endpoints together), EBADF.
        """
        self._check()
        if group in self.memberships:
            raise OSError(errno.EADDRINUSE, f"group {ip_text(group)}: joined already")
        if len(self.memberships) >= MEMBERSHIP_LIMIT:
            raise OSError(
                errno.ENOBUFS, f"group {ip_text(group)}: {MEMBERSHIP_LIMIT} are joined already"
            )
        self._layer.groups.join(group)
        self.memberships.add(group)

    def leave_group(self, group: bytes) -> None:
        """Take back `join_group`.

        Raises:
            OSError: EADDRNOTAVAIL (not joined), EBADF.
        """
        self._check()
        if group not in self.memberships:
            raise OSError(errno.EADDRNOTAVAIL, f"group {ip_text(group)}: not joined")
        self.memberships.discard(group)
        self._layer.groups.leave(group)

    # data

    def send(
        self,
        data: Buffer,
        remote: tuple[bytes, int] | None,
        now: float,
        control: Control | None = None,
    ) -> int:
        """Send one datagram, and return its length.

        Args:
            data: the payload; `bytes` are kept by reference, anything else is copied.
            remote: packed address and port, or None for the connected peer.
            now: seconds.
            control: what is different for this one.

        Raises:
            BlockingIOError: the wire is full; WR will be reported.
            OSError: an error that was pending (ECONNREFUSED and its kin), EDESTADDRREQ, EMSGSIZE,
                ENETUNREACH, EACCES, EINVAL (port 0; a source that is not ours), EADDRNOTAVAIL (our
                address is gone), EPIPE, EADDRINUSE (no port is left), EBADF.
        """
        self._check()
        if self._is_write_shut:
            raise OSError(errno.EPIPE, "send: the sending direction is shut down")
        self._raise_error("send")
        if remote is None:
            remote = self.remote
            if remote is None:
                raise OSError(errno.EDESTADDRREQ, "send: no destination, and not connected")
        return self._layer.send(self, data, remote, now, control)

    def receive(self) -> Datagram | None:
        """The oldest datagram that waits, or None.

        Raises:
            OSError: an error that was pending, EBADF.
        """
        self._check()
        self._raise_error("receive")
        if not self._queue:
            return None
        datagram = self._queue.popleft()
        self.receive_queue -= len(datagram.data) + OVERHEAD
        return datagram

    def peek(self) -> Datagram | None:
        """As `receive`, but the datagram stays."""
        self._check()
        self._raise_error("receive")
        return self._queue[0] if self._queue else None

    @property
    def is_readable(self) -> bool:
        """True if `receive` has something to say."""
        return bool(self._queue) or self.error != 0 or self._is_read_shut

    @property
    def is_at_end(self) -> bool:
        """True if nothing waits and `shutdown_read` was called."""
        return self._is_read_shut and not self._queue

    def take_error(self) -> int:
        """The pending errno, and forget it; 0 if there is none."""
        error, self.error = self.error, 0
        return error

    # end

    def shutdown_read(self) -> None:
        """Say that no more is wanted; what waits can still be received."""
        self._is_read_shut = True
        self._layer.report(self, RD)

    def shutdown_write(self) -> None:
        """Send no more."""
        self._is_write_shut = True
        self._layer.report(self, WR)

    def close(self) -> None:
        """Give everything back; once is enough, more does no harm."""
        if not self.is_closed:
            self.is_closed = True
            for group in self.memberships:
                self._layer.groups.leave(group)
            self.memberships.clear()
            self._layer.remove(self)
            self._queue.clear()
            self.receive_queue = 0

    # the layer's side

    def accepts(self, address: bytes) -> bool:
        """True if packets to the packed *address* may be for this endpoint."""
        local = self.local[0]
        if local is None or local == address:
            return True
        return len(local) == len(address) and is_unspecified(local)

    def enqueue(self, datagram: Datagram) -> bool:
        """Keep *datagram* for the program; False if there is no room.

        One always fits, so that a small buffer does not mean that long datagrams never arrive.
        """
        size = len(datagram.data) + OVERHEAD
        if self._queue and self.receive_queue + size > self.receive_buffer:
            return False
        self._queue.append(datagram)
        self.receive_queue += size
        self._layer.report(self, RD)
        return True

    def attach(self, binding: Binding) -> None:
        """Note the binding the layer has got for this endpoint."""
        self._binding = binding
        self.reuse_port = binding.reuse_port
        self.local = (binding.address, binding.port)

    @property
    def binding(self) -> Binding | None:
        """What holds the port, or None."""
        return self._binding

    def _check(self) -> None:
        if self.is_closed:
            raise OSError(errno.EBADF, "UDP endpoint: closed")

    def _raise_error(self, what: str) -> None:
        if self.error:
            remote = "" if self.remote is None else f" {ip_text(self.remote[0])}:{self.remote[1]}"
            raise OSError(self.take_error(), f"{what}: an earlier datagram to{remote} was refused")
