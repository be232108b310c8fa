"""A kernel TAP device: an Ethernet cable whose other end is a network interface of Linux.

The interface and our stack are two stations on that cable: each has its own hardware address and
its own IP addresses.  With offloads, each frame comes and goes with a header that says what nobody
has done yet: checksums stay unfinished, and TCP segments travel in bunches of up to 64 KiB under
one header.  Without, frames pass as they are on a real cable.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio import kernels
from zttrio._background import open_background
from zttrio.abc import Wire
from zttrio.errors import HeaderError, WireError
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame

from . import virtio
from .heap import keep_freed_memory
from .link import ETHERNET_HEADER
from .shortcuts import COALESCE, OFFLOAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.abc import WirePort

__all__ = ["Tap"]

DEVICE = "/dev/net/tun"
BURST = 128  # frames per wake-up: with twice as many others would wait for a millisecond and more
BURST_OCTETS = 1 << 20  # and octets: what fits a cache is acknowledged while it is there; arbitrary
SMALL = 512  # arbitrary: joining less than this costs less than a vector of pieces
VLAN_TAG = 4  # octets that an 802.1Q frame may be longer

# linux/if_tun.h and linux/sockios.h
TUNGETFEATURES = 0x800454CF
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCGIFMTU = 0x8921
SIOCSIFMTU = 0x8922
SIOCGIFHWADDR = 0x8927
IFF_UP = 0x1

OFFLOADS = (  # the best that the kernel takes; USO came with Linux 6.2
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
    TUN_F_CSUM,
    0,
)
MAX_SEGMENT = 0xFFFF - 40 - 60  # what longest headers leave of the longest IPv6 packet
LONGEST = ETHERNET_HEADER + VLAN_TAG + 40 + 0xFFFF  # octets of a frame that holds one

_NAME_LIMIT = 15  # IFNAMSIZ without its final zero
_FLAGS = struct.Struct("16sH22x")  # struct ifreq, 40 octets
_NUMBER = struct.Struct("16si20x")
_ADDRESS = struct.Struct("16sH6s16x")


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
    interface_down: int = 0
    send_errors: int = 0


class Tap(Wire):
    """A TAP device of this machine's kernel, for one Network.

    Opens the device of that name, or makes one that disappears again at the end.  The kernel's
    side is not configured, unless *mtu* or *up* ask for it: give it an address as usual, for
    example with ``ip address add 10.99.0.2/24 dev tap7``.

    Needs root, CAP_NET_ADMIN, or a device made for this user with
    ``ip tuntap add dev tap7 mode tap user NAME``.

    Args:
        name: the interface's name, at most 15 octets; ``tap%d`` lets the kernel choose a number.
        mtu: set the interface's MTU to this many octets; None leaves it, and uses what it is.
        mac: our hardware address (not the kernel's), random if not given.
        up: bring the interface up.
        offload: let the kernel and us exchange unfinished checksums and super-segments, as far as
            the kernel can; False makes every frame one that a real cable could carry.
        coalesce: where the kernel has no offloads, cut and merge TCP segments ourselves at this
            edge, so that the stack has fewer of them to think about.

    Raises:
        ValueError: *name* or *mac* cannot be one.
    """

    def __init__(
        self,
        name: str,
        *,
        mtu: int | None = None,
        mac: bytes | None = None,
        up: bool = False,
        offload: bool = True,
        coalesce: bool = True,
    ) -> None:
        octets = name.encode()
        if (
            not 0 < len(octets) <= _NAME_LIMIT
            or name in (".", "..")
            or any(letter in "/:\0" or letter.isspace() for letter in name)
        ):
            raise ValueError(
                f"interface name {name!r}: needs 1 to {_NAME_LIMIT} octets without slash, colon "
                f"and space"
            )
        if mac is None:
            mac = b"\x02" + secrets.token_bytes(5)  # locally administered, unicast
        if len(mac) != 6 or mac[0] & 1:
            raise ValueError(f"mac: needs 6 octets of a unicast address, got {mac.hex(':')}")
        self.name: str = name
        self.mac = mac
        self.mtu: int = 1500 if mtu is None else mtu
        self._wanted_mtu = mtu
        self._up = up
        self._wants_offload = offload and OFFLOAD
        self._has_virtio = False
        self._coalesces = coalesce and COALESCE
        self._pieces: deque[Frame] = deque()  # of a super-segment that the device took in part
        self._counts = _Counters()
        self._was_used = False
        self._fd = -1
        self._is_blocked = False

    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry frames until cancelled; see `zttrio.abc.Wire`.

        Raises:
            WireError: the device cannot be opened or set up, this wire has been used before, or
                the device was removed.
        """
        if self._was_used:
            raise WireError(f"tap {self.name}: a wire serves one Network once; make a new one")
        self._was_used = True
        keep_freed_memory()
        fd = self._open()
        try:
            async with open_background() as self._background:
                self._port = port
                self._fd = fd
                try:
                    task_status.started()
                    await self._receive(fd, port)
                finally:
                    self._fd = -1  # before the nursery closes, which `send` uses
        finally:
            os.close(fd)

    def _open(self) -> int:
        """A descriptor of the device, with `name` and `mtu` as the kernel has them now."""
        fd = self._open_device()
        try:
            features = struct.unpack("I", fcntl.ioctl(fd, TUNGETFEATURES, bytes(4)))[0]
            self._attach(fd, IFF_VNET_HDR if self._wants_offload else 0, features)
            if self._wants_offload and features & IFF_VNET_HDR and not self._start_offload(fd):
                os.close(fd)  # a descriptor keeps its device, and the header, to the end
                fd = self._open_device()
                self._attach(fd, 0, features)
            if not self._has_virtio:
                # A device that was made before may have them on from its last user.
                fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
                if self._coalesces:
                    self.max_segment = MAX_SEGMENT  # cut by us, not by the kernel
            self._configure()
        except OSError as exc:
            os.close(fd)
            raise WireError(f"tap {self.name}: {self._advice(exc, self.name)}") from exc
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open_device(self) -> int:
        try:
            return os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise WireError(f"tap {self.name}: {self._advice(exc, DEVICE)}") from exc

    def _attach(self, fd: int, wanted: int, features: int) -> None:
        flags = IFF_TAP | IFF_NO_PI | (wanted & features)
        request = bytearray(_FLAGS.pack(self.name.encode(), flags))
        fcntl.ioctl(fd, TUNSETIFF, request)
        self.name = request[:16].rstrip(b"\0").decode()

    def _start_offload(self, fd: int) -> bool:
        """Agree with the kernel on what is left undone; False if there is no agreement."""
        try:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", virtio.LENGTH))
        except OSError:
            return False
        for offloads in OFFLOADS:
            try:
                fcntl.ioctl(fd, TUNSETOFFLOAD, offloads)
            except OSError:
                continue
            # What the kernel takes from us does not depend on what we take from it.
            self._has_virtio = self.checksum_offload = True
            self.max_segment: int = MAX_SEGMENT
            return True
        return False

    def _configure(self) -> None:
        """Set what the user asked for on the kernel's side, and learn the rest."""
        name = self.name.encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            if self._wanted_mtu is not None:
                fcntl.ioctl(control, SIOCSIFMTU, _NUMBER.pack(name, self._wanted_mtu))
            answer = fcntl.ioctl(control, SIOCGIFMTU, _NUMBER.pack(name, 0))
            self.mtu = _NUMBER.unpack(answer)[1]
            answer = fcntl.ioctl(control, SIOCGIFHWADDR, _ADDRESS.pack(name, 0, b""))
            if _ADDRESS.unpack(answer)[2] == self.mac:
                raise WireError(
                    f"tap {self.name}: {self.mac.hex(':')} is the address of the kernel's side; "
                    f"ours has to be another"
                )
            if self._up:
                answer = fcntl.ioctl(control, SIOCGIFFLAGS, _FLAGS.pack(name, 0))
                flags = _FLAGS.unpack(answer)[1] | IFF_UP
                fcntl.ioctl(control, SIOCSIFFLAGS, _FLAGS.pack(name, flags))

    def _advice(self, exc: OSError, what: str) -> str:
        """What went wrong with *what*, and what to do about it."""
        if exc.errno in (errno.EPERM, errno.EACCES):
            return (
                f"no permission for {what}: run as root or with CAP_NET_ADMIN, or have the device "
                f"made for you by 'ip tuntap add dev {self.name} mode tap user {os.geteuid()}', "
                f"or use the host segment, which needs neither"
            )
        if exc.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            return (
                f"{what} is not there: load the kernel module with 'modprobe tun', or in a "
                f"container have {DEVICE} passed in, or use the host segment, which needs neither"
            )
        if exc.errno == errno.EBUSY:
            return "busy: another program has this device open"
        if exc.errno == errno.EINVAL:
            return "there is an interface of this name that is no TAP device, or the MTU is invalid"
        return exc.strerror or str(exc)

    async def _receive(self, fd: int, port: WirePort) -> None:
        take = self._take_plain
        if self._has_virtio:
            take = self._take_virtio
        elif self._coalesces and not kernels.is_native:
            take = self._take_merged_in_python
        elif self._coalesces:
            take = self._take_merged
            self._stride = ETHERNET_HEADER + VLAN_TAG + self.mtu + 2
            self._buffer = bytearray(BURST * self._stride)
        while True:
            await trio.lowlevel.wait_readable(fd)
            frames: list[Frame] = []
            try:
                take(fd, frames)
            except BlockingIOError:
                pass
            except OSError as exc:
                raise WireError(
                    f"tap {self.name}: the device was removed"
                    if exc.errno in (errno.EBADFD, errno.ENODEV)
                    else f"tap {self.name}: reading failed: {exc.strerror}"
                ) from exc
            if frames:
                port.deliver(frames)

    def _take_plain(self, fd: int, frames: list[Frame]) -> None:
        """Add a burst to *frames*.

        Raises:
            OSError: the device failed.
        """
        frames += map(Frame, self._read_burst(fd))

    def _take_merged_in_python(self, fd: int, frames: list[Frame]) -> None:
        """The same, with segments that belong together merged.

        Raises:
            OSError: the device failed.
        """
        burst = self._read_burst(fd)
        if len(burst) == 1:  # nothing to merge
            frames.append(Frame(burst[0]))
        elif burst:
            frames += kernels.merge_burst(burst)

    def _read_burst(self, fd: int) -> list[bytes]:
        """The octets of a burst of frames.

        Raises:
            OSError: the device failed.
        """
        counts = self._counts
        # Two octets more show that a frame was cut off: the MTU may grow while we run.
        longest = ETHERNET_HEADER + VLAN_TAG + self.mtu
        size = longest + 2
        burst: list[bytes] = []
        read = os.read
        for _ in range(BURST):
            try:
                octets = read(fd, size)
            except BlockingIOError:
                break
            length = len(octets)
            if ETHERNET_HEADER <= length <= longest:
                counts.octets_received += length
                burst.append(octets)
            elif length > longest:
                counts.too_long += 1
            else:
                counts.malformed += 1
        counts.frames_received += len(burst)
        return burst

    def _take_merged(self, fd: int, frames: list[Frame]) -> None:
        """The same with the C library, which wants them in one buffer.

        Raises:
            OSError: the device failed.
        """
        counts = self._counts
        buffer, stride = self._buffer, self._stride
        longest = stride - 2
        lengths: list[int] = []
        at = 0
        readv = os.readv
        with memoryview(buffer) as view:
            for _ in range(BURST):
                try:
                    size = readv(fd, (view[at : at + stride],))
                except BlockingIOError:
                    break
                if ETHERNET_HEADER <= size <= longest:
                    counts.octets_received += size
                    lengths.append(size)
                    at += stride
                elif size > longest:
                    counts.too_long += 1
                else:
                    counts.malformed += 1
        if len(lengths) == 1:  # nothing to merge, and summing it up here costs less than a call
            counts.frames_received += 1
            frames.append(Frame(bytes(buffer[: lengths[0]])))
        elif lengths:
            counts.frames_received += len(lengths)
            frames += kernels.merge(buffer, stride, lengths)

    def _take_virtio(self, fd: int, frames: list[Frame]) -> None:
        """The same with virtio headers.

        Raises:
            OSError: the device failed, or is empty (BlockingIOError).
        """
        counts = self._counts
        read = os.read
        longest = virtio.LENGTH + LONGEST
        shortest = virtio.LENGTH + ETHERNET_HEADER
        octets_left = BURST_OCTETS
        for _ in range(BURST):
            octets = read(fd, longest + 1)
            size = len(octets)
            octets_left -= size
            if shortest <= size <= longest:
                try:
                    frames += virtio.decode(octets)
                except HeaderError:
                    counts.malformed += 1
                else:
                    counts.frames_received += 1
                    counts.octets_received += size - virtio.LENGTH
            elif size > longest:
                counts.too_long += 1
            else:
                counts.malformed += 1
            if octets_left <= 0:
                return

    def send(self, frames: Sequence[Frame]) -> int:
        """Take frames for the wire; see `zttrio.abc.Wire`."""
        counts = self._counts
        fd = self._fd
        if fd < 0:
            counts.not_running += len(frames)
            return len(frames)
        if self._is_blocked:
            return 0
        for taken, frame in enumerate(frames):
            front = b""
            if self._has_virtio:
                try:
                    front = virtio.encode(frame)
                except HeaderError:
                    front = virtio.PLAIN  # what only software can cut, or nobody
                else:
                    if not self._write(fd, frame, front):
                        return taken
                    continue
            if not frame.gso_size and frame.checksum != CHECKSUM_PARTIAL:
                if not self._write(fd, frame, front):
                    return taken
                continue
            try:  # nothing unfinished may leave
                if frame.gso_size and not front:
                    if not self._write_run(fd, *kernels.cut(frame, self.mtu)):
                        return taken + 1
                    continue
                pieces = kernels.split(frame, self.mtu)
            except (HeaderError, ValueError):
                counts.malformed += 1
                continue
            for number, piece in enumerate(pieces):
                if not self._write(fd, piece, front):
                    self._pieces.extend(pieces[number:])
                    return taken + 1
        return len(frames)

    def _write(self, fd: int, frame: Frame, front: bytes) -> bool:
        """Write one frame behind *front*; False if it has to wait."""
        counts = self._counts
        try:
            if len(frame.payload) < SMALL:
                octets = b"".join((front, frame.header, frame.payload))
                written = os.write(fd, octets) - len(front)
            elif front:
                written = os.writev(fd, (front, frame.header, frame.payload)) - len(front)
            else:
                written = os.writev(fd, (frame.header, frame.payload))
        except OSError as exc:
            return self._failed(fd, exc.errno or errno.EIO)
        counts.frames_sent += 1
        counts.octets_sent += written
        return True

    def _write_run(self, fd: int, octets: bytearray, step: int) -> bool:
        """Write frames of *step* octets; False if some of them, which are kept, have to wait."""
        counts = self._counts
        size = len(octets)
        at = 0
        while at < size:
            count, error = kernels.write_frames(fd, octets, step, at)
            start, at = at, min(at + count * step, size)
            counts.frames_sent += count
            counts.octets_sent += at - start
            if not error:
                break
            if not self._failed(fd, error):
                rest = memoryview(octets)
                self._pieces.extend(Frame(rest[i : i + step]) for i in range(at, size, step))
                return False
            at += step  # that one is lost
        return True

    def _failed(self, fd: int, error: int) -> bool:
        """Count a frame that was not written; False if it has to wait."""
        counts = self._counts
        if error == errno.EAGAIN:
            if not self._is_blocked:
                counts.blocked += 1
                self._is_blocked = True
                self._background.start_soon(self._wait_for_room, fd)
            return False
        if error == errno.EIO:
            counts.interface_down += 1
        elif error == errno.EINVAL:
            counts.malformed += 1
        else:  # a removed device included: who reads finds out
            counts.send_errors += 1
        return True

    async def _wait_for_room(self, fd: int) -> None:
        await trio.lowlevel.wait_writable(fd)
        self._is_blocked = False
        pieces = self._pieces
        front = virtio.PLAIN if self._has_virtio else b""
        while pieces:
            if not self._write(fd, pieces[0], front):
                return  # and another task waits
            pieces.popleft()
        self._port.send_ready()

    def counters(self) -> dict[str, int]:
        """What was counted so far; everything but the first five are frames dropped, by reason."""
        return attrs.asdict(self._counts)
