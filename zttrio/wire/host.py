"""The host segment: a virtual Ethernet between one user's processes on one machine.

The cable is a private folder.  Each station binds a datagram socket to ``MAC.sock`` in it, sends
unicast frames straight to the socket of their owner, and broadcasts to all of them: no root, no
server, no configuration.  Frames stay in this machine's memory, so their checksums stay unfinished,
and long ones go by reference (see `ring`), super-segments among them.

The kernel keeps only a few datagrams per socket (``net.unix.max_dgram_qlen``, often 10, of up to
64 KiB), and that is the back-pressure: a frame for a full station stays with the stack.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
import socket
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio._background import open_background
from zttrio.abc import Wire
from zttrio.errors import HeaderError, WireError
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.offload import split

from .folder import SegmentFolder
from .heap import keep_freed_memory
from .link import ETHERNET_HEADER
from .name import station_name
from .reference import (
    ANCILLARY,
    FLAGS,
    LONG,
    LONGEST_HEADER,
    MARK,
    SHARES,
    Lender,
    References,
)
from .shortcuts import OFFLOAD

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from zttrio.abc import WirePort

__all__ = ["HostSegment"]

MAX_SEGMENT = 5 << 16  # arbitrary: what a program writes at once, in a place of its own
RING_PAUSE = 0.0005  # s until the next look at a full ring, which empties in 2 ms; arbitrary
LONGEST_PAUSE = 0.05  # s, after a while of that; arbitrary
MTU = 65520  # an IP packet of at most 65535 octets, a multiple of 8 (and libvirt's choice too)
BURST = 64  # frames per wake-up; the kernel's NAPI budget
SMALL = 512  # arbitrary: joining less than this costs less than a vector of pieces
PEER_LIMIT = 64  # descriptors for stations we talk to; far from the usual limit of 1024
NAME_LIMIT = 16  # names that one station may publish; arbitrary
PATIENCE = 0.25  # s that a full station may hold up frames for others; arbitrary
SOCKET_BUFFER = 4 << 20  # octets asked for; the kernel gives what wmem_max allows
LOCK_ATTEMPTS = 50  # binding takes microseconds, so somebody is always quick enough; arbitrary
LOCK_RETRY = 0.01  # s; arbitrary

_GONE = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.EPIPE)


@attrs.define
class _Counters:
    frames_sent: int = 0
    octets_sent: int = 0
    frames_received: int = 0
    octets_received: int = 0
    blocked: int = 0
    not_running: int = 0
    malformed: int = 0
    too_long: int = 0
    no_station: int = 0
    stuck_station: int = 0
    broadcast_full: int = 0
    send_errors: int = 0
    stale_removed: int = 0


@attrs.define(eq=False)
class _Peer:
    """A station we send unicast frames to, by a socket of its own.

    Of its own, because a full station then uses up only this socket's buffer, and because the
    kernel tells only a connected socket when the other end has room again.
    """

    mac: bytes
    sock: socket.socket
    lender: Lender
    is_blocked: bool = False
    is_stuck: bool = False
    rest: list[Frame] = attrs.Factory(list)  # of a super-segment that it has taken a part of


class HostSegment(Wire):
    """The virtual Ethernet of this user's processes on this machine, for one Network.

    A station that does not take its frames for a quarter of a second (a stopped process) counts
    as stuck, and its frames are dropped until it takes some; until then the frames behind wait.
    Frames for stations that are not there are dropped.

    Args:
        folder: the cable, mode 0700 and ours, made if it is not there (its parent has to be);
            None means ``$XDG_RUNTIME_DIR/zttrio/segment``, or ``zttrio-UID/segment`` in the
            folder for temporary files.
        mac: our hardware address, random if not given.
        mtu: the largest IP packet in octets, the same for all stations.

    Raises:
        ValueError: *mac* is not the address of a station, or *mtu* is not between 68 and 65520.
    """

    checksum_offload = OFFLOAD
    max_segment = MAX_SEGMENT if SHARES else 0
    configures_addresses = True
    has_unique_macs = True  # two cannot bind the same socket

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        mac: bytes | None = None,
        mtu: int = MTU,
    ) -> None:
        if mac is None:
            mac = b"\x02" + secrets.token_bytes(5)  # locally administered, unicast
        if len(mac) != 6 or mac[0] & 1:
            raise ValueError(f"mac: needs 6 octets of a unicast address, got {mac.hex(':')}")
        if not 68 <= mtu <= MTU:
            raise ValueError(f"mtu: must be between 68 and {MTU}, got {mtu}")
        self.name: str = "host"
        self.mac = mac
        self.mtu = mtu
        self._wanted_folder = folder
        self._longest = ETHERNET_HEADER + mtu
        self._counts = _Counters()
        self._was_used = False
        self._folder: SegmentFolder | None = None
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()
        self._references = References(self._longest)
        self._names: set[str] = set()
        self._is_gone = False

    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry frames until cancelled; see `zttrio.abc.Wire`.

        Raises:
            WireError: the folder is not private or cannot be used, the hardware address is
                taken, this wire has been used before, or our socket was removed.
        """
        if self._was_used:
            raise WireError("host segment: a wire serves one Network once; make a new one")
        self._was_used = True
        keep_freed_memory()
        folder = SegmentFolder(self._wanted_folder)
        sock = _datagram_socket()
        self._caller = _datagram_socket()
        try:
            await self._bind(sock, folder)
            try:
                async with open_background() as self._background:
                    self._port = port
                    self._folder = folder
                    try:
                        task_status.started()
                        await self._receive(sock, port)
                    finally:
                        self._folder = None  # before the nursery closes, which `send` uses
            finally:
                for name in self._names:
                    folder.remove_name(name, self.mac)
                folder.remove(self.mac)
        finally:
            for peer in self._peers.values():
                peer.sock.close()
                peer.lender.close()
            self._peers.clear()
            self._references.close()
            self._caller.close()
            sock.close()
            folder.close()

    async def _bind(self, sock: socket.socket, folder: SegmentFolder) -> None:
        for _ in range(LOCK_ATTEMPTS):
            if folder.bind(sock, self.mac):
                self.name = f"host segment {folder.path}"
                self.ipv6_prefix: bytes | None = _unique_local_prefix(str(folder.path))
                return
            await trio.sleep(LOCK_RETRY)
        raise WireError(
            f"segment folder {folder.path}: locked by another process, which may be stopped: end it"
        )

    async def _receive(self, sock: socket.socket, port: WirePort) -> None:
        counts = self._counts
        longest = self._longest
        size = longest + 1  # one more shows that a datagram was cut off
        receive = sock.recvmsg
        while True:
            await trio.lowlevel.wait_readable(sock)
            frames: list[Frame] = []
            try:
                for _ in range(BURST):
                    octets, ancillary, _, _ = receive(size, ANCILLARY, FLAGS)
                    if ancillary or octets.startswith(MARK):
                        self._receive_marked(octets, ancillary, frames)
                    elif ETHERNET_HEADER <= len(octets) <= longest:
                        counts.octets_received += len(octets)
                        frames.append(Frame(octets, b"", 0, CHECKSUM_PARTIAL))
                    else:
                        counts.malformed += 1
            except BlockingIOError:
                pass
            except OSError as exc:
                raise WireError(f"{self.name}: {exc}") from exc
            if frames:
                counts.frames_received += len(frames)
                port.deliver(frames)

    def _receive_marked(
        self, octets: bytes, ancillary: list[tuple[int, int, bytes]], frames: list[Frame]
    ) -> None:
        try:
            frame = self._references.receive(octets, ancillary)
        except ValueError:
            self._counts.malformed += 1
            return
        if frame is not None:
            self._counts.octets_received += len(frame)
            frames.append(frame)

    def send(self, frames: Sequence[Frame]) -> int:
        """Take frames for the wire; see `zttrio.abc.Wire`."""
        counts = self._counts
        folder = self._folder
        if folder is None:
            counts.not_running += len(frames)
            return len(frames)
        peers = self._peers
        for taken, frame in enumerate(frames):
            header = frame.header
            size = len(frame)
            if size > self._longest and not frame.gso_size:
                counts.too_long += 1
                continue
            if len(header) < ETHERNET_HEADER:
                counts.malformed += 1
                continue
            if header[0] & 1:
                self._send_to_all(frame, folder)
                continue
            mac = bytes(header[:6])
            peer = peers.get(mac) or self._open_peer(mac, folder)
            if peer is None:
                continue
            peers.move_to_end(mac)
            if peer.is_blocked:
                if not peer.is_stuck:
                    return taken
                counts.stuck_station += 1
                continue
            try:
                if len(frame.payload) > LONG and SHARES and len(header) <= LONGEST_HEADER:
                    if not self._send_long(peer, frame):
                        counts.blocked += 1
                        self._block(peer)
                        return taken
                elif frame.gso_size:
                    self._send_split(peer, frame)
                elif size > SMALL:
                    peer.sock.sendmsg((header, frame.payload))
                else:
                    peer.sock.send(b"".join((header, frame.payload)))
            except BlockingIOError:
                counts.blocked += 1
                self._block(peer)
                return taken
            except HeaderError:
                counts.malformed += 1
            except OSError as exc:
                self._failed(peer, exc, folder)
            else:
                counts.frames_sent += 1
                counts.octets_sent += size
                if peer.rest and not peer.is_blocked:
                    counts.blocked += 1
                    self._block(peer)
        return len(frames)

    def _send_long(self, peer: _Peer, frame: Frame) -> bool:
        """Send a frame by reference if the station takes that; False if the ring is full.

        Raises:
            OSError: as from the socket.
            HeaderError: as `_send_split`.
        """
        if peer.lender.is_open:
            return peer.lender.send(peer.sock, frame)
        peer.lender.offer(peer.sock)
        if frame.gso_size:
            self._send_split(peer, frame)
        else:
            peer.sock.sendmsg((frame.header, frame.payload))
        return True

    def _send_split(self, peer: _Peer, frame: Frame) -> None:
        """Send the segments of a super-segment; what the station does not take is its `rest`.

        Raises:
            OSError: as from the socket; of BlockingIOError, nothing was sent.
            HeaderError: it is none.
        """
        pieces = split(frame, self.mtu, complete=False)
        peer.sock.sendmsg((pieces[0].header, pieces[0].payload))
        peer.rest = pieces[1:]
        self._send_rest(peer)

    def _send_rest(self, peer: _Peer) -> bool:
        """Send what is left of a super-segment; False if the station is full before the end.

        Raises:
            OSError: as from the socket, but for BlockingIOError.
        """
        rest = peer.rest
        try:
            while rest:
                peer.sock.sendmsg((rest[0].header, rest[0].payload))
                del rest[0]
        except BlockingIOError:
            return False
        return True

    def _block(self, peer: _Peer) -> None:
        peer.is_blocked = True
        self._background.start_soon(self._watch, peer)

    def _open_peer(self, mac: bytes, folder: SegmentFolder) -> _Peer | None:
        sock = None
        try:
            sock = _datagram_socket()
            sock.connect(folder.address(mac))
        except OSError as exc:
            if sock is not None:
                sock.close()
            self._not_sent(mac, exc, folder)
            return None
        for other in self._peers.values():
            other.lender.tidy()  # nobody says that a station has left, but its rings do
        while len(self._peers) >= PEER_LIMIT:
            self._close_peer(next(iter(self._peers.values())))
        peer = self._peers[mac] = _Peer(mac, sock, Lender(self.mac))
        return peer

    def _close_peer(self, peer: _Peer) -> None:
        del self._peers[peer.mac]
        if peer.is_blocked:
            trio.lowlevel.notify_closing(peer.sock)
        peer.sock.close()
        peer.lender.close()

    async def _watch(self, peer: _Peer) -> None:
        """Wait until a full station takes frames again, but let others wait for it only so long."""
        try:
            with trio.move_on_after(PATIENCE) as patience:
                await self._room(peer)
            if patience.cancelled_caught:
                peer.is_stuck = True
                self._port.send_ready()
                await self._room(peer)
        except trio.ClosedResourceError:
            pass  # it made room for another station, or is gone
        peer.is_blocked = peer.is_stuck = False
        self._port.send_ready()

    async def _room(self, peer: _Peer) -> None:
        """Return when a full station takes a frame, and has taken what is left of the last.

        Raises:
            trio.ClosedResourceError: it made room for another station, or is gone.
        """
        pause = RING_PAUSE
        while True:
            await trio.lowlevel.wait_writable(peer.sock)
            if peer.lender.is_full:
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                if peer.sock.fileno() < 0:
                    raise trio.ClosedResourceError("the station's socket was closed")
                continue
            try:
                if self._send_rest(peer):
                    return
            except OSError:
                peer.rest = []  # the next frame finds out
                return

    def _send_to_all(self, frame: Frame, folder: SegmentFolder) -> None:
        """Give everybody a copy.  Nobody waits for a full station: broadcasts may be lost."""
        counts = self._counts
        try:
            stations = folder.stations()
        except OSError:  # no descriptor is free, for example
            counts.send_errors += 1
            return
        octets = bytes(frame)
        counts.frames_sent += 1
        counts.octets_sent += len(octets)
        if self.mac not in stations:
            self._end()
        for mac in stations:
            if mac == self.mac:
                continue
            peer = self._peers.get(mac)
            if peer is not None and peer.is_blocked:
                counts.broadcast_full += 1
                continue
            try:
                if peer is not None:  # the same way as the unicasts, so that order is kept
                    peer.sock.send(octets)
                else:
                    self._call(octets, folder.address(mac))
            except BlockingIOError:
                counts.broadcast_full += 1
            except OSError as exc:
                if peer is not None:
                    self._failed(peer, exc, folder)
                else:
                    self._not_sent(mac, exc, folder)

    def _call(self, octets: bytes, address: str) -> None:
        """Send to a station that has no socket of its own here."""
        try:
            self._caller.sendto(octets, address)
        except BlockingIOError:
            # Either that station is full, or others that do not read hold all of our buffer: what
            # they have not read stays charged to the socket that sent it, even when it is closed.
            self._caller.close()
            self._caller = _datagram_socket()
            self._caller.sendto(octets, address)

    def _failed(self, peer: _Peer, exc: OSError, folder: SegmentFolder) -> None:
        if exc.errno in _GONE:
            self._close_peer(peer)  # somebody may have its address anew: the next frame finds out
        self._not_sent(peer.mac, exc, folder)

    def _not_sent(self, mac: bytes, exc: OSError, folder: SegmentFolder) -> None:
        """Count a frame that could not be sent to *mac*, by reason."""
        counts = self._counts
        if exc.errno in _GONE:
            counts.no_station += 1
        elif exc.errno == errno.EMSGSIZE:
            counts.too_long += 1
        else:  # no descriptor is free, for example
            counts.send_errors += 1
        if exc.errno == errno.ECONNREFUSED:
            with suppress(OSError):  # whatever it was: somebody will meet the socket again
                counts.stale_removed += folder.remove_stale(mac)

    def _end(self) -> None:
        """End the wire from `send`, which must not raise: nobody can reach us any more."""
        if not self._is_gone:
            self._is_gone = True
            self._background.start_soon(self._raise_gone)

    async def _raise_gone(self) -> None:
        raise WireError(f"{self.name}: our socket is not in it any more; somebody has emptied it")

    def counters(self) -> dict[str, int]:
        """What was counted so far; everything but the first five are frames dropped, by reason."""
        return attrs.asdict(self._counts)

    def publish(self, name: str, addresses: Sequence[bytes]) -> None:
        """Make *name* resolve to *addresses* for all stations, as long as this wire runs.

        Raises:
            ValueError: *name* cannot be a name.
            WireError: another station has it, this one has too many, the folder does not allow
                it, or the wire does not run.
        """
        if self._folder is None:
            raise WireError(f"name {name}: the host segment does not run")
        name = station_name(name)
        if name not in self._names and len(self._names) >= NAME_LIMIT:
            raise WireError(f"name {name}: this station has {NAME_LIMIT} names already")
        self._folder.write_name(name, self.mac, tuple(addresses))
        self._names.add(name)

    def lookup(self, name: str) -> list[bytes]:
        """The packed addresses that a running station has published for *name*, or none.

        Raises:
            OSError: no descriptor is free to ask whether that station still lives.
        """
        return [] if self._folder is None else list(self._folder.read_name(name))


def _unique_local_prefix(cable: str) -> bytes:
    """The same unique local /64 (RFC 4193) for all stations of a cable, another for each cable."""
    return b"\xfd" + hashlib.blake2b(cable.encode(), digest_size=7).digest() + bytes(8)


def _datagram_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    return sock
