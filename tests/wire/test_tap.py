from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.kernel.namespaces import CLONE_NEWNET, enter_namespace
from tests.wire.recording import BROADCAST, RecordingPort, frame_to, running
from zttrio.errors import WireError
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.ipv4 import PROTOCOL_TCP, Ipv4Header
from zttrio.header.offload import split
from zttrio.header.tcp import ACK, TcpHeader
from zttrio.wire import Tap, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHER = b"\2\xaa\0\0\0\1"


class PairTap(Tap):
    """A Tap whose device is one end of a pair of sockets: the same calls, and no privileges."""

    def __init__(self, *, coalesce: bool = True) -> None:
        super().__init__("pair0", mtu=1500, coalesce=coalesce)
        ours, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        self.far.setblocking(False)
        self._ours = ours.detach()

    def _open(self) -> int:
        return self._ours


def super_segment(source: bytes, payload: bytes) -> Frame:
    """Segments of 1000 octets under one header."""
    tcp = TcpHeader(1, 2, seq=1000, ack=0, flags=ACK, window=100).emit()
    ip = Ipv4Header(
        source=b"\x0a\0\0\1",
        destination=b"\x0a\0\0\2",
        protocol=PROTOCOL_TCP,
        total_length=20 + len(tcp) + len(payload),
    ).emit()
    return Frame(OTHER + source + b"\x08\0" + ip + tcp, payload, 1000, CHECKSUM_PARTIAL)


@pytest.fixture(params=[True, False], ids=["coalescing", "plain"])
def tap(request: pytest.FixtureRequest) -> Iterator[PairTap]:
    tap = PairTap(coalesce=request.param)
    yield tap
    tap.far.close()


class TestFrames:
    async def test_frames_pass_both_ways_as_they_are(self, tap: PairTap) -> None:
        async with running(tap) as (station,):
            assert station.send(OTHER, b"two pieces") == 1
            whole = Frame(OTHER + tap.mac + b"\x88\xb5one piece")
            assert tap.send([whole]) == 1
            assert tap.far.recv(2000) == OTHER + tap.mac + b"\x88\xb5two pieces"
            assert tap.far.recv(2000) == bytes(whole)
            tap.far.send(tap.mac + OTHER + b"\x88\xb5hello")
            await station.port.wait_frames(1)
            assert station.port.frames == [tap.mac + OTHER + b"\x88\xb5hello"]
            counters = tap.counters()
            assert (counters["frames_sent"], counters["octets_sent"]) == (2, 47)
            assert (counters["frames_received"], counters["octets_received"]) == (1, 19)

    async def test_what_waits_is_one_burst_of_at_most_128(self, tap: PairTap) -> None:
        for number in range(200):
            tap.far.send(bytes(14) + b"%d" % number)
        async with running(tap) as (station,):
            await station.port.wait_frames(200)
            assert [len(burst) for burst in station.port.bursts] == [128, 72]
            assert station.port.bodies == [b"%d" % number for number in range(200)]

    async def test_bad_frames_are_counted_and_dropped(self, tap: PairTap) -> None:
        tap.far.send(bytes(13))
        tap.far.send(bytes(14 + 4 + 1501))  # longer than a full frame with a VLAN tag
        tap.far.send(bytes(14 + 4 + 1500))
        async with running(tap) as (station,):
            await station.port.wait_frames(1)
            assert station.port.frames == [bytes(1518)]
            counters = tap.counters()
            assert (counters["malformed"], counters["too_long"]) == (1, 1)

    async def test_frames_that_a_full_device_refuses_stay_with_the_caller_in_order(
        self, tap: PairTap
    ) -> None:
        async with running(tap) as (station,):
            unsent = [frame_to(OTHER, tap.mac, b"%4d" % number) for number in range(500)]
            received: list[bytes] = []
            rounds = 0
            while unsent:
                ready = station.port.ready
                unsent = unsent[tap.send(unsent) :]
                if unsent:
                    assert tap.send(unsent) == 0
                received += drain(tap.far)
                if unsent:
                    await station.port.wait_ready(ready + 1)
                rounds += 1
            assert received == [b"%4d" % number for number in range(500)]
            assert tap.counters()["blocked"] == rounds - 1 > 0

    async def test_sending_while_the_wire_ends_does_not_raise(self, tap: PairTap) -> None:
        frames = [frame_to(OTHER, tap.mac, bytes(1000))] * 100
        async with trio.open_nursery() as nursery:
            await nursery.start(tap.run, RecordingPort())
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                while tap.send(frames) < 100:  # until it has ended and drops them
                    drain(tap.far)
                    await trio.lowlevel.checkpoint()
        assert tap.counters()["not_running"] == 100

    async def test_segments_of_one_burst_arrive_as_one_if_they_may(self, tap: PairTap) -> None:
        payload = bytes(range(250)) * 10
        for piece in split(super_segment(OTHER, payload)):
            tap.far.send(bytes(piece))
        async with running(tap) as (station,):
            await station.port.wait_frames(1)
            [burst] = station.port.bursts
            assert b"".join(bytes(frame)[54:] for frame in burst) == payload
            assert [frame.gso_size for frame in burst] == ([1000] if tap._coalesces else [0, 0, 0])

    async def test_nothing_unfinished_leaves(self, tap: PairTap) -> None:
        payload = bytes(range(250)) * 10
        async with running(tap):
            assert tap.send([super_segment(tap.mac, payload)]) == 1
            pieces = drain(tap.far)
            assert b"".join(piece[40:] for piece in pieces) == payload
            assert [len(piece) - 40 for piece in pieces] == [1000, 1000, 500]
            assert tap.send([Frame(b"junk" * 4, b"", 0, CHECKSUM_PARTIAL)]) == 1
            assert tap.counters()["malformed"] == 1

    async def test_a_super_segment_that_fits_only_in_part_is_finished_when_there_is_room(
        self, tap: PairTap
    ) -> None:
        payload = bytes(range(240)) * 250
        async with running(tap) as (station,):
            assert tap.send([super_segment(tap.mac, payload)] * 2) == 1
            received = drain(tap.far)
            assert 0 < len(received) < 60
            while not tap.send([frame_to(OTHER, tap.mac, b"last")]):
                received += drain(tap.far)
                await trio.lowlevel.checkpoint()
            assert station.port.ready
            received += drain(tap.far)
            assert b"".join(piece[40:] for piece in received[:-1]) == payload
            assert received[-1] == b"last"

    async def test_a_burst_of_nothing_but_bad_frames_is_not_delivered(self, tap: PairTap) -> None:
        async with running(tap) as (station,):
            tap.far.send(bytes(13))
            while not tap.counters()["malformed"]:
                await trio.lowlevel.checkpoint()
            assert station.port.bursts == []

    async def test_a_device_that_fails_ends_the_wire(self, tap: PairTap) -> None:
        closed, far = socket.socketpair()  # a stream socket is reset by unread data
        tap._ours, before = closed.detach(), tap._ours
        os.close(before)
        os.set_blocking(tap._ours, False)
        os.write(tap._ours, b"unread")
        far.close()
        with pytest.raises(WireError, match="tap pair0: reading failed: Connection reset"):
            await tap.run(RecordingPort())

    async def test_a_wire_that_does_not_run_takes_and_drops(self, tap: PairTap) -> None:
        assert tap.send([frame_to(BROADCAST, tap.mac)]) == 1
        async with running(tap):
            pass
        assert tap.send([frame_to(BROADCAST, tap.mac)]) == 1
        assert tap.counters()["not_running"] == 2

    async def test_a_wire_serves_once_and_closes_its_device(self, tap: PairTap) -> None:
        async with running(tap) as (station,):
            pass
        assert tap.far.recv(100) == b""
        with pytest.raises(WireError, match="tap pair0: a wire serves one Network once"):
            await tap.run(station.port)


def drain(sock: socket.socket) -> list[bytes]:
    bodies = []
    try:
        while True:
            bodies.append(sock.recv(65536)[14:])
    except BlockingIOError:
        return bodies


class TestBadUse:
    @pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a b", "a:b", ".", "..", "a\0"])
    def test_a_name_that_no_interface_can_have_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="interface name"):
            Tap(name)

    @pytest.mark.parametrize("mac", [b"\1\0\0\0\0\0", b"\2\0\0"])
    def test_a_station_needs_a_unicast_address(self, mac: bytes) -> None:
        with pytest.raises(ValueError, match="mac: needs 6 octets"):
            Tap("tap7", mac=mac)

    async def test_a_missing_device_file_is_explained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kernel, "DEVICE", str(tmp_path / "tun"))
        with pytest.raises(WireError, match=r"tun is not there: load .* 'modprobe tun'.* the host"):
            await Tap("tap7").run(RecordingPort())

    async def test_a_file_that_is_no_device_is_explained_and_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "tun").touch()
        monkeypatch.setattr(kernel, "DEVICE", str(tmp_path / "tun"))
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(WireError, match="tap tap7: Inappropriate ioctl for device"):
            await Tap("tap7").run(RecordingPort())
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network namespace that this test alone is in."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            if not os.path.exists(kernel.DEVICE):
                pytest.skip(f"no {kernel.DEVICE}")
            yield
        finally:
            enter_namespace(before)
    finally:
        os.close(before)


def ip(*arguments: str) -> str:
    return subprocess.run(
        ("ip", *arguments), check=True, capture_output=True, text=True, timeout=30
    ).stdout


def packet_socket(name: str) -> socket.socket:
    """The kernel's side of the cable, frame by frame."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setblocking(False)
    sock.bind((name, 0x88B5))
    return sock


@pytest.mark.kernel
@pytest.mark.usefixtures("namespace")
class TestKernel:
    async def test_frames_pass_between_us_and_the_interface(self) -> None:
        tap = Tap("tap7", up=True)
        async with running(tap) as (station,):
            with packet_socket("tap7") as far:
                station.send(BROADCAST, b"to the kernel")
                await trio.lowlevel.wait_readable(far)
                assert far.recv(2000) == BROADCAST + tap.mac + b"\x88\xb5to the kernel"
                far.send(tap.mac + OTHER + b"\x88\xb5" + bytes(1500))
                while bytes(1500) not in station.port.bodies:  # the kernel may say hello itself
                    await station.port.wait_frames(len(station.port.frames) + 1)
        assert "tap7" not in ip("-o", "link")

    async def test_the_interface_is_configured_only_as_asked(self) -> None:
        async with running(Tap("tap%d")) as (plain,):
            assert plain.wire.name == "tap0"
            assert plain.wire.mtu == 1500
            assert "state DOWN" in ip("-o", "link", "show", "dev", "tap0")
            async with running(Tap("tap%d", mtu=9000, up=True)) as (other,):
                assert other.wire.name == "tap1"
                assert other.wire.mtu == 9000
                shown = ip("-o", "link", "show", "dev", "tap1")
                assert "mtu 9000" in shown
                assert "UP" in shown.split(">")[0].split(",")

    async def test_a_device_made_before_stays_and_its_mtu_counts(self) -> None:
        ip("tuntap", "add", "dev", "tap7", "mode", "tap")
        ip("link", "set", "tap7", "mtu", "1400")
        async with running(Tap("tap7")) as (station,):
            assert station.wire.mtu == 1400
        assert "tap7" in ip("-o", "link")

    async def test_frames_for_an_interface_that_is_down_are_counted_and_dropped(self) -> None:
        async with running(Tap("tap7")) as (station,):
            assert station.send(BROADCAST, b"x", b"y") == 2
            assert station.wire.counters()["interface_down"] == 2

    async def test_a_frame_that_the_kernel_refuses_is_counted_and_dropped(self) -> None:
        async with running(Tap("tap7", up=True)) as (station,):
            assert station.wire.send([Frame(b"short")]) == 1
            assert station.wire.counters()["malformed"] == 1

    async def test_a_removed_device_ends_the_wire(self) -> None:
        removed = pytest.RaisesExc(WireError, match="tap tap7: the device was removed")
        tap = Tap("tap7", up=True)
        with pytest.RaisesGroup(removed):  # the group is this test's own nursery's
            async with trio.open_nursery() as nursery:
                await nursery.start(tap.run, RecordingPort())
                await trio.testing.wait_all_tasks_blocked()
                ip("link", "delete", "tap7")
                assert tap.send([frame_to(BROADCAST, tap.mac)]) == 1
                await trio.sleep_forever()
        assert tap.counters()["send_errors"] == 1

    async def test_a_device_in_use_is_explained(self) -> None:
        async with running(Tap("tap7")) as (station,):
            with pytest.raises(WireError, match="tap tap7: busy: another program"):
                await Tap("tap7").run(station.port)

    async def test_an_interface_that_is_no_tap_device_is_explained(self) -> None:
        with pytest.raises(WireError, match="tap lo: there is an interface of this name"):
            await Tap("lo").run(RecordingPort())

    async def test_an_mtu_that_the_kernel_refuses_is_explained(self) -> None:
        with pytest.raises(WireError, match="the MTU is invalid"):
            await Tap("tap7", mtu=10).run(RecordingPort())

    async def test_the_kernels_own_address_is_refused(self) -> None:
        ip("tuntap", "add", "dev", "tap7", "mode", "tap")
        ip("link", "set", "tap7", "address", OTHER.hex(":"))
        with pytest.raises(WireError, match="is the address of the kernel's side"):
            await Tap("tap7", mac=OTHER).run(RecordingPort())

    async def test_a_program_without_permission_is_told_what_to_do(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root to give it up")
        os.seteuid(65534)
        try:
            with pytest.raises(WireError) as caught:
                await Tap("tap7").run(RecordingPort())
        finally:
            os.seteuid(0)
        for advice in ("root", "CAP_NET_ADMIN", "'ip tuntap add dev tap7 mode tap user", "host"):
            assert advice in str(caught.value)
