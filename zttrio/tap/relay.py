"""Moves the octets of an established connection between a program's stand-in and the stack.

The seed's `rxbuf` is what the program has not taken yet: at most one chunk, for as long as it is
not empty nothing more is taken from the stack, so the TCP window closes.  Its `txbuf` stays in the
kernel: what the stack has no room for is left in the pair, and a program that fills it blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from zttrio.stack.events import CLOSE, ERR, RD, WR
from zttrio.stack.tcp.state import CLOSED, TIME_WAIT

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer
    from zttrio.stack.tcp.connection import TcpConnection

    from .standin import StreamEnd

__all__ = ["Relay"]

CHUNK = 1 << 18  # octets taken from the stack at once; more does not fit a stand-in
ROUNDS = 16  # chunks in each direction before other tasks get their turn; arbitrary
LAST_WORDS = 64  # segments sent in front of a reset at most; arbitrary


class Relay:
    """Both directions of one connection.

    Attributes:
        tcp: the stack's end.
        end: the service end of the stand-in.
        rxbuf: what the program has not taken yet.
        failure: errno that ended the connection, 0 while none has.
        is_blocked: the program's receive queue is full; the owner asks for notify-writable.
        has_more: there is more to move, but others shall have their turn first.
        is_peer_finished: the program has been given everything that the peer has sent, and told so.
    """

    __slots__ = (
        "_is_drained",
        "_is_program_finished",
        "_is_unwanted",
        "_txbuf",
        "end",
        "failure",
        "has_more",
        "is_blocked",
        "is_peer_finished",
        "rxbuf",
        "tcp",
    )

    def __init__(self, tcp: TcpConnection, end: StreamEnd) -> None:
        self.tcp = tcp
        self.end = end
        self.rxbuf: list[Buffer] = []
        self._txbuf: Buffer = b""
        self.failure = 0
        self.is_blocked = False
        self.has_more = False
        self._is_drained = False
        self.is_peer_finished = False
        self._is_program_finished = False
        self._is_unwanted = False

    @property
    def is_finished(self) -> bool:
        """True if both directions have ended in peace and the stack has nothing left to do."""
        return (
            self.is_peer_finished
            and self._is_program_finished
            and self.tcp.state in (CLOSED, TIME_WAIT)
        )

    def pump(self, *, is_readable: bool, program_finished: bool, is_gone: bool) -> None:
        """Move what can be moved.

        Args:
            is_readable: the poller has told of something from the program.
            program_finished: the program will send no more than what waits now.
            is_gone: nobody will read any more.
        """
        if is_readable:
            self._is_drained = False
        self.has_more = self.is_blocked = False
        now = trio.current_time()
        if not is_gone:
            self._down(now)
        wants_room = False
        if not self.failure and not self.tcp.error and self.tcp.state != CLOSED:
            # With the program gone `let_go` decides how to end: a FIN cannot be taken back.
            wants_room = self._up(now, program_finished=program_finished and not is_gone)
        wanted = ERR | CLOSE
        if not self.is_blocked:
            wanted |= RD
        if wants_room:
            wanted |= WR
        self.tcp.wanted = wanted

    def _down(self, now: float) -> None:
        """From the stack to the program; the seed's `pico_cb_tcp_read` and `pico_handleRead`."""
        tcp = self.tcp
        end = self.end
        for _ in range(ROUNDS):
            if not self.rxbuf:
                if self.is_peer_finished:
                    # A reset may still come: the peer was written to after it had closed.
                    self.failure = tcp.take_error()
                    return
                try:
                    data = tcp.receive_pieces(CHUNK, now)
                except OSError as exc:
                    self.failure = exc.errno or 0
                    return
                if data is None:
                    return
                if not data:
                    self.is_peer_finished = True
                    if not self._is_unwanted:
                        end.finish()
                    return
                if self._is_unwanted:
                    continue
                self.rxbuf = data
            taken = end.give(self.rxbuf)
            if taken == sum(map(len, self.rxbuf)):
                self.rxbuf = []
            elif taken >= 0:
                self._keep_from(taken)
                self.is_blocked = True
                return
            elif end.is_hung_up:
                return  # closed: the poller is about to say so, and this data was left unread
            else:  # shutdown(SHUT_RD): TCP goes on acknowledging what nobody wants
                self.rxbuf = []
                self._is_unwanted = True
                tcp.shutdown_read(now)
        self.has_more = True

    def _keep_from(self, taken: int) -> None:
        """The program has taken that many octets of `rxbuf`."""
        pieces = self.rxbuf
        while taken >= len(pieces[0]):
            taken -= len(pieces.pop(0))
        pieces[0] = memoryview(pieces[0])[taken:]

    def _up(self, now: float, *, program_finished: bool) -> bool:
        """From the program to the stack; the seed's `phyOnUnixData` and `pico_handleWrite`.

        Returns True if there is more to send than the stack has room for.
        """
        if self._is_program_finished or (self._is_drained and not self._txbuf):
            return False
        tcp = self.tcp
        end = self.end
        for _ in range(ROUNDS):
            data = self._txbuf or end.take(tcp.send_buffer - tcp.send_queued)
            if data:
                try:
                    taken = tcp.send(data, now)
                except OSError:
                    return False  # `_down` tells of the failure, after the data that came before it
                self._txbuf = memoryview(data)[taken:] if taken < len(data) else b""
                if self._txbuf:
                    return True
            elif end.has_more:
                return True
            if not end.has_more:
                self._is_drained = True
                if program_finished:
                    self._is_program_finished = True
                    tcp.shutdown_write(now)
                return False
        self.has_more = True
        return False

    @property
    def is_drained(self) -> bool:
        """True if the stack has everything that the program has sent, or wants no more of it."""
        return self.tcp.state == CLOSED or (self._is_drained and not self._txbuf)

    @property
    def is_unread(self) -> bool:
        """True if the program has closed its end without reading everything."""
        return bool(self.rxbuf or self.tcp.receive_queued or self.end.is_reset)

    def let_go(self, *, lingers: bool) -> None:
        """The program has closed its end, and the stack has what it sent: end as Linux does.

        Args:
            lingers: False for a reset instead of a FIN, as SO_LINGER with a time of 0 asks for.
        """
        now = trio.current_time()
        tcp = self.tcp
        if self.is_unread or not lingers:
            # A kernel has sent by now what was written before the close, as far as the windows
            # allow; a reset throws away only the rest.
            tcp.transmit(now, LAST_WORDS)
            tcp.abort(now)  # RFC 2525 2.17
        else:
            if tcp.options.linger == 0:
                tcp.configure(linger=None)
            tcp.close(now)
