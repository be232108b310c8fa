"""The stack driver: gives the sans-IO stack a clock and a wire, and wakes the tasks that wait.

It knows the stack, the wire and trio; it decides nothing about protocols.  The seed's `put()` is
`Driver.deliver`, its poll thread is `Driver.run`, and its `EV_CONN`, `EV_RD` and `EV_WR` leave
through `Waiters.notify`.  Neither direction waits for a task: a burst from the wire is taken in by
whoever brings it, unless the stack is at work, and whoever changed the stack calls `flush`, which
moves frames from stack to wire with no ``await`` in between.
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING

import trio

from .abc import Wire
from .errors import WireError
from .stack import events
from .stack.managed import ManagedSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .abc import Instrument, Settings
    from .header.frame import Frame
    from .stack.stack import Stack

__all__ = ["Driver", "Waiters"]

READ_EVENTS = events.CONN | events.RD | events.ERR | events.CLOSE
WRITE_EVENTS = events.CONN | events.WR | events.ERR | events.CLOSE
BURST = 64  # frames offered to the wire at once; measured: larger bursts gain nothing


class Waiters:
    """The at most two tasks that wait for an endpoint: one to read, one to write.

    Trio's sockets allow one task per direction, and so do these.
    """

    __slots__ = ("_endpoint", "_reader", "_writer", "on_readable")

    def __init__(self, endpoint: events.Endpoint) -> None:
        self._endpoint = endpoint
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None
        self.on_readable: bool = False  # report RD also while no task waits, to `readable_changed`
        endpoint.owner = self

    def attend(self, endpoint: events.Endpoint) -> None:
        """Wait for another endpoint from now on."""
        self._endpoint.owner = None
        self._endpoint = endpoint
        endpoint.owner = self

    def readable_changed(self) -> None:
        """Called for a reported RD when `on_readable` is set; for stand-in descriptors."""

    def notify(self, bits: int) -> None:
        """Wake the tasks that wait for any of *bits*."""
        if bits & READ_EVENTS and self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None
        if bits & WRITE_EVENTS and self._writer is not None:
            trio.lowlevel.reschedule(self._writer)
            self._writer = None
        if self.on_readable:
            self.readable_changed()

    def wake_all(self) -> None:
        """Wake whoever waits, to find the endpoint closed."""
        self.notify(READ_EVENTS | WRITE_EVENTS)

    async def wait_readable(self) -> None:
        """Return when there may be something to read (or an error to learn).

        Raises:
            trio.BusyResourceError: another task is waiting to read.
        """
        if self._reader is not None:
            raise trio.BusyResourceError("another task is already reading from this socket")
        self._reader = trio.lowlevel.current_task()
        self._endpoint.wanted |= READ_EVENTS

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def wait_writable(self) -> None:
        """Return when there may be room to write (or an error to learn).

        Raises:
            trio.BusyResourceError: another task is waiting to write.
        """
        if self._writer is not None:
            raise trio.BusyResourceError("another task is already writing to this socket")
        self._writer = trio.lowlevel.current_task()
        self._endpoint.wanted |= WRITE_EVENTS

        def abort(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class Driver:
    """Stands between wire, stack and sockets; one for each Network.

    Implements `zttrio.abc.WirePort` for the wire.

    Attributes:
        stack: the network stack; whoever changes it calls `flush` afterwards.
        ring_drops: frames lost because the stack was behind.
        failure: what ended the wire, None while it lives.
        sockets: the waiters of every open socket, to be woken when the network goes away.
        managed: what the wire has set on the stack.
    """

    def __init__(
        self, wire: Wire, *, ring_size: int, instruments: Sequence[Instrument] = ()
    ) -> None:
        self.stack: Stack
        self.managed: ManagedSettings
        self.ring_drops = 0
        self.failure: BaseException | None = None
        self.is_closed = False
        self._wire = wire
        self._instruments = list(instruments)
        self._ring_in, self._ring_out = trio.open_memory_channel[list["Frame"]](ring_size)
        self._unsent: list[Frame] = []
        self._wire_is_full = False
        self._is_flushing = False
        self._is_receiving = True  # until there is a stack
        self._waiting_bursts = 0
        self._error: Exception | None = None
        self._room = trio.lowlevel.ParkingLot()
        self._timer_at = inf
        self._timer_scope: trio.CancelScope | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._held = trio.lowlevel.ParkingLot()
        self._watchers = 0  # tasks that are in `_room` or `_changed`
        self.sockets: set[Waiters] = set()
        self._settings: Settings | None = None  # that came before there was a stack
        # Few wires care what the stack listens to; None is never a stack's set.
        self._is_followed = type(wire).follow is not Wire.follow
        self._followed: tuple[object, object] = (None, None)

    def attach(self, stack: Stack) -> None:
        """Give the driver its stack, once the wire has told its address and MTU."""
        self.stack = stack
        self.managed = ManagedSettings(stack)
        if self._settings is not None:
            self.managed.apply(self._settings, trio.current_time())

    def add_instrument(self, instrument: Instrument) -> None:
        """Show *instrument* every burst from now on."""
        self._instruments.append(instrument)

    def remove_instrument(self, instrument: Instrument) -> None:
        """Stop showing bursts to *instrument*."""
        self._instruments.remove(instrument)

    # the wire's side

    def deliver(self, frames: list[Frame]) -> None:
        """Take a burst from the wire; the oldest waiting burst makes room if the ring is full.

        It goes straight to the stack if that is idle, which saves waking a task for it.  Called
        from within `flush` (by a wire whose stations answer at once), it waits for `run`.
        """
        if not self._waiting_bursts and not self._is_flushing and not self._is_receiving:
            try:
                now = trio.current_time()
                self._receive(frames, now)
                self.flush(now)
            except Exception as exc:  # an instrument: the caller may be another network
                self._error = exc
                frames = []  # wakes `run`, which raises it
            else:
                return
        try:
            self._ring_in.send_nowait(frames)
            self._waiting_bursts += 1
        except trio.WouldBlock:
            self.ring_drops += len(self._ring_out.receive_nowait())
            self._ring_in.send_nowait(frames)
        except trio.BrokenResourceError:
            self.ring_drops += len(frames)  # the poll task has ended; so will the wire

    def send_ready(self) -> None:
        """The wire takes frames again."""
        if self._wire_is_full:
            self._wire_is_full = False
            self.flush()

    def configure(self, settings: Settings) -> None:
        """Let the stack have what the wire's network wants."""
        if self.is_closed:
            return
        if not hasattr(self, "stack"):
            self._settings = settings
            return
        self.managed.apply(settings, trio.current_time())
        self.flush()

    def failure_changed(self) -> None:
        """Let those who wait look at the wire's failure."""
        self._changed.unpark_all()

    # the tasks

    async def run_wire(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the wire, and tell every socket when it dies.

        Raises:
            WireError: the wire cannot be opened, or died.
        """
        try:
            await self._wire.run(self, task_status=task_status)
        except trio.Cancelled:
            raise
        except BaseException as exc:
            self.fail(exc)
            raise
        error = WireError(f"wire {self._wire.name}: ended although nobody asked it to")
        self.fail(error)
        raise error

    async def run(self) -> None:
        """The stack poll task: feed bursts that had to wait to the stack, until cancelled.

        Raises:
            Exception: what an instrument has raised.
        """
        ring = self._ring_out
        with ring:
            self._is_receiving = False
            try:
                while True:
                    frames = await ring.receive()
                    if self._error is not None:
                        raise self._error
                    while True:  # one wake-up for everything that waits
                        self._waiting_bursts -= 1
                        self._receive(frames, trio.current_time())
                        try:
                            frames = ring.receive_nowait()
                        except trio.WouldBlock:
                            break
                    self.flush()
            finally:
                self._is_receiving = True  # what comes now is lost with the ring

    def _receive(self, frames: list[Frame], now: float) -> None:
        """Let instruments and stack see a burst."""
        self._is_receiving = True
        try:
            for instrument in self._instruments:
                instrument.frames_received(frames, now)
            if not self.is_closed:
                self.stack.receive(frames, now)
        finally:
            self._is_receiving = False

    async def run_timers(self) -> None:
        """Call the stack's timers when they are due, until cancelled.

        There is one sleeping deadline.  Timers that move later leave it alone, so it may fire
        early and find nothing to do.
        """
        while True:
            deadline = self.stack.next_timer()
            self._timer_at = inf if deadline is None else deadline
            with trio.CancelScope(deadline=self._timer_at) as self._timer_scope:
                await trio.sleep_forever()
            self.stack.handle_timers(trio.current_time())
            self._timer_at = inf
            self.flush()

    async def run_turns(self) -> None:
        """Send ACKs that wait for a program's answer, when that had its turn, until cancelled."""
        tcp = self.stack.tcp
        tcp.gives_turns = True
        try:
            while True:
                if tcp.held:
                    await trio.lowlevel.checkpoint()
                else:
                    await self._held.park()
                now = trio.current_time()
                if tcp.end_turn(now):
                    self.flush(now)
        finally:
            tcp.gives_turns = False

    # the sockets' side

    def flush(self, now: float | None = None) -> None:
        """Move output to the wire, wake who waits, and arm the timer.  Call after every change.

        Neither blocks nor raises.  What the wire does not take stays here, at most one burst, and
        the rest stays in the stack until `send_ready`.

        Args:
            now: the time, if the caller has just asked for it.
        """
        if self._is_flushing or self.is_closed:
            return  # the wire or an event called back: the loop below sees what they did
        stack = self.stack
        if stack.is_quiet and not (self._unsent or self._watchers or self._is_followed):
            if stack.tcp.held and self._held:
                self._held.unpark()
            self._arm_timer()
            return  # a read that left the window alone, for example
        self._is_flushing = True
        try:
            if now is None:
                now = trio.current_time()
            while not self._wire_is_full:
                frames = self._unsent
                is_last = False
                if not frames:
                    frames = stack.frames_to_send(now, BURST)
                    is_last = len(frames) < BURST
                    if not frames:
                        break
                accepted = self._wire.send(frames)
                if accepted < len(frames):
                    self._unsent = frames[accepted:]
                    self._wire_is_full = True
                    frames = frames[:accepted]
                else:
                    self._unsent = []
                for instrument in self._instruments:
                    instrument.frames_sent(frames, now)
                if is_last:
                    break
            self._dispatch_events()
            if self._is_followed:
                listening = (stack.addresses.ours, stack.groups.macs)
                if listening != self._followed:
                    self._followed = listening
                    self._wire.follow(*listening)
        finally:
            self._is_flushing = False
        if self._watchers:
            if not self._wire_is_full:
                self._room.unpark_all()
            self._changed.unpark_all()
        if stack.tcp.held and self._held:
            self._held.unpark()
        self._arm_timer()

    def _arm_timer(self) -> None:
        deadline = self.stack.next_timer()
        if deadline is not None and deadline < self._timer_at:
            self._timer_at = deadline
            if self._timer_scope is not None:
                self._timer_scope.deadline = deadline

    def _dispatch_events(self) -> None:
        while endpoints := self.stack.events.take():
            for endpoint in endpoints:
                bits, endpoint.ready = endpoint.ready, 0
                if endpoint.owner is not None:
                    endpoint.owner.notify(bits)

    async def wait_sendable(self) -> None:
        """Return when the wire takes frames; at once (without a checkpoint) if it does now.

        Datagram senders wait here, so that a full wire slows them down instead of losing data.
        """
        while self._wire_is_full and not self.is_closed:
            await self._watch(self._room)

    async def wait_changed(self) -> None:
        """Return after the next `flush`, whatever it was for."""
        await self._watch(self._changed)

    async def _watch(self, lot: trio.lowlevel.ParkingLot) -> None:
        self._watchers += 1  # an empty lot is not as cheap to ask
        try:
            await lot.park()
        finally:
            self._watchers -= 1

    async def finish_connections(self) -> None:
        """Close every connection gracefully and return when all peers know.

        Cancel it to give up; what is not finished then is `close`'s to reset.
        """
        tcp = self.stack.tcp
        if not self.is_closed:
            now = trio.current_time()
            for connection in list(tcp.connections()):
                connection.close(now)
            self.flush()
        while (self._wire_is_full or tcp.has_unfinished()) and not self.is_closed:
            await self.wait_changed()

    def check(self) -> None:
        """Raise if the network is gone.

        Raises:
            OSError: ENETDOWN, the Network was left or its wire died.
        """
        if self.is_closed:
            why = "the Network is closed" if self.failure is None else str(self.failure)
            raise OSError(errno.ENETDOWN, f"network is down: {why}")

    def fail(self, exc: BaseException) -> None:
        """Remember why the wire died, and end everything that uses it."""
        self.failure = exc
        self.close()

    def close(self) -> None:
        """Reset what is still open, without waiting; afterwards every socket call says ENETDOWN."""
        if self.is_closed:
            return
        if hasattr(self, "stack"):
            self.stack.tcp.abort_all(trio.current_time())
            self.flush()
            self.is_closed = True
            self._dispatch_events()
        self.is_closed = True
        for waiters in list(self.sockets):
            waiters.wake_all()
        self._room.unpark_all()
        self._changed.unpark_all()
