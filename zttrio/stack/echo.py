"""Our own echo requests, and the replies they wait for; both families alike."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

from zttrio.header import icmpv4

from .events import ERR, RD, Endpoint

if TYPE_CHECKING:
    import random

    from zttrio.header.frame import Buffer

    from .counters import Counters
    from .events import EventQueue
    from .packet import PathError

__all__ = ["ECHO_REQUEST_V6", "EchoWaiter", "Echoes"]

ECHO_REQUEST_V6 = 128  # RFC 4443 4.1
WAITER_LIMIT = 4096  # pings at once; arbitrary
REMEMBERED = 64  # requests of one waiter that may still be answered; arbitrary


class EchoSender(Protocol):
    """Who sends the requests: the ICMP layer."""

    def send_echo_request(self, waiter: EchoWaiter, sequence: int, now: float) -> None:
        """Send one echo request for *waiter*."""


class EchoWaiter(Endpoint):
    """Pings one destination; reports RD when a reply came, and RD and ERR when none will.

    Attributes:
        destination: packed.
        identifier: what tells our pings apart.
        payload: octets the requests carry.
        hop_limit: 0 for the default.
        sent_at: when the latest request was sent, in seconds.
        replied_at: when the latest reply came, or None.
        reply_time: seconds between a request and its reply, of the latest reply, or None.
        replies: how many came.
        error: errno of why there is none: EHOSTUNREACH and its kin; 0 while there is hope.
        is_group: the destination is a group, of which anybody may reply.
    """

    __slots__ = (
        "_echoes",
        "_requests",
        "_sequence",
        "destination",
        "error",
        "hop_limit",
        "identifier",
        "is_group",
        "payload",
        "replied_at",
        "replies",
        "reply_time",
        "sent_at",
    )

    def __init__(
        self,
        echoes: Echoes,
        destination: bytes,
        identifier: int,
        payload: bytes,
        hop_limit: int,
        *,
        is_group: bool,
    ) -> None:
        super().__init__()
        self.is_group = is_group
        self.destination = destination
        self.identifier = identifier
        self.payload = payload
        self.hop_limit = hop_limit
        self.sent_at = 0.0
        self.replied_at: float | None = None
        self.reply_time: float | None = None
        self.replies = 0
        self.error = 0
        self._sequence = 0
        self._requests: dict[int, float] = {}  # sequence -> when it was sent, oldest first
        self._echoes = echoes

    @property
    def is_readable(self) -> bool:
        """True if there is a reply or an error."""
        return self.replies > 0 or self.error != 0

    def send(self, now: float) -> None:
        """Send another request."""
        self._sequence = self._sequence + 1 & 0xFFFF
        self._requests[self._sequence] = self.sent_at = now
        if len(self._requests) > REMEMBERED:
            del self._requests[next(iter(self._requests))]
        self._echoes.send(self, self._sequence, now)

    def close(self) -> None:
        """Wait no longer; late replies are unexpected ones."""
        self._echoes.close(self)

    def reply(self, sequence: int, now: float) -> bool:
        """Note a reply; False if there was no such request."""
        sent = self._requests.pop(sequence, None)
        if sent is None:
            return False
        self.replies += 1
        self.replied_at = now
        self.reply_time = now - sent
        return True


class Echoes:
    """The waiters of one stack, bounded.

    Args:
        sender: sends the requests.
        events: where waiters report.
        counters: what is counted.
        rng: the first identifier.
    """

    def __init__(
        self, sender: EchoSender, events: EventQueue, counters: Counters, rng: random.Random
    ) -> None:
        self._sender = sender
        self._events = events
        self._counters = counters
        self._next = rng.getrandbits(16)
        self._waiters: dict[int, EchoWaiter] = {}

    def open(
        self, destination: bytes, payload: bytes, hop_limit: int, *, is_group: bool
    ) -> EchoWaiter:
        """A waiter for *destination*, which has sent nothing yet.

        Raises:
            OSError: ENOBUFS, WAITER_LIMIT are open.
        """
        if len(self._waiters) >= WAITER_LIMIT:
            raise OSError(errno.ENOBUFS, f"ping: {WAITER_LIMIT} are waiting for replies already")
        while self._next in self._waiters:
            self._next = self._next + 1 & 0xFFFF
        waiter = EchoWaiter(self, destination, self._next, payload, hop_limit, is_group=is_group)
        self._waiters[waiter.identifier] = waiter
        self._next = self._next + 1 & 0xFFFF
        return waiter

    def send(self, waiter: EchoWaiter, sequence: int, now: float) -> None:
        """Send one request; called by the waiter."""
        self._sender.send_echo_request(waiter, sequence, now)

    def close(self, waiter: EchoWaiter) -> None:
        """Forget *waiter*; once is enough, more does no harm."""
        if self._waiters.get(waiter.identifier) is waiter:
            del self._waiters[waiter.identifier]

    def receive_reply(self, source: bytes, rest: int, body: Buffer, now: float) -> None:
        """Take in an echo reply.

        Args:
            source: whose it is, packed.
            rest: identifier and sequence number.
            body: what it carries.
            now: seconds.
        """
        waiter = self._waiters.get(rest >> 16)
        if (
            waiter is not None
            and (source == waiter.destination or waiter.is_group)
            and body == waiter.payload
            and waiter.reply(rest & 0xFFFF, now)
        ):
            self._counters.icmp_echo_replies += 1
            self._events.raise_event(waiter, RD)
        else:
            self._counters.icmp_echo_unexpected += 1

    def find(self, error: PathError) -> EchoWaiter | None:
        """The waiter whose request *error* is about, or None."""
        if len(error.quoted) < 8 or error.quoted[0] not in (icmpv4.ECHO_REQUEST, ECHO_REQUEST_V6):
            return None
        waiter = self._waiters.get(int.from_bytes(error.quoted[4:6]))
        return waiter if waiter is not None and waiter.destination == error.destination else None

    def fail(self, waiter: EchoWaiter, error: int) -> None:
        """Tell *waiter* that no reply will come."""
        waiter.error = error
        self._events.raise_event(waiter, RD | ERR)

    def __len__(self) -> int:
        return len(self._waiters)
