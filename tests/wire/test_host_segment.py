from __future__ import annotations

import fcntl
import os
import resource
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.wire.recording import BROADCAST, RecordingPort, Running, frame_to, running
from zttrio.errors import WireError
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.wire import HostSegment, host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zttrio.wire.folder import SegmentFolder

with open("/proc/sys/net/unix/max_dgram_qlen") as file:
    ROOM = int(file.read()) + 1  # datagrams that the kernel keeps for one socket
MANY = 4 * ROOM + 20  # frames, certainly too many for one socket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "segment"


class Silent:
    """A station that reads only when told to, as a busy or a stopped process does."""

    def __init__(self, folder: Path, number: int) -> None:
        self.mac = b"\2\2\2\2\2" + bytes([number])
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(str(folder / f"{self.mac.hex()}.sock"))

    def read(self) -> list[bytes]:
        """The bodies of the frames that wait."""
        bodies = []
        with suppress(BlockingIOError):
            while True:
                bodies.append(self.sock.recv(65536)[14:])
        return bodies


@pytest.fixture
def silent(folder: Path) -> Iterator[list[Silent]]:
    """Three silent stations; the test runs its own before it uses them."""
    folder.mkdir(mode=0o700)
    stations = [Silent(folder, number) for number in range(3)]
    yield stations
    for station in stations:
        station.sock.close()


async def close_later(fd: int) -> None:
    await trio.sleep(0.05)
    os.close(fd)


def numbered(station: Running, destination: bytes, numbers: range) -> list[Frame]:
    return [frame_to(destination, station.mac, b"%d" % number) for number in numbers]


class TestFrames:
    async def test_unicast_goes_to_its_owner_and_broadcast_to_all_others(
        self, folder: Path
    ) -> None:
        async with running(*[HostSegment(folder) for _ in range(3)]) as (a, b, c):
            assert a.send(b.mac, b"one", b"two") == 2
            assert a.send(BROADCAST, b"all") == 1
            await b.port.wait_frames(3)
            await c.port.wait_frames(1)
            assert b.port.bodies == [b"one", b"two", b"all"]
            assert c.port.bodies == [b"all"]
            assert a.port.bodies == []
            assert b.port.frames[0] == b.mac + a.mac + b"\x88\xb5one"
            assert b.port.bursts[0][0].checksum == CHECKSUM_PARTIAL

    async def test_a_frame_of_64_kib_passes_whole(self, folder: Path) -> None:
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            body = bytes(range(256)) * 255 + bytes(240)
            assert len(body) == 65520 == a.wire.mtu
            a.send(b.mac, body)
            await b.port.wait_frames(1)
            assert b.port.bodies == [body]

    async def test_a_frame_in_one_piece_passes_too(self, folder: Path) -> None:
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            a.wire.send([Frame(b.mac + a.mac + b"\x88\xb5whole")])
            await b.port.wait_frames(1)
            assert b.port.bodies == [b"whole"]

    async def test_bad_frames_are_counted_and_dropped_on_both_sides(self, folder: Path) -> None:
        async with running(HostSegment(folder, mtu=1000), HostSegment(folder)) as (a, b):
            assert a.wire.send([Frame(b.mac), Frame(b"")]) == 2
            assert a.send(b.mac, bytes(1001)) == 1
            assert a.wire.counters()["malformed"] == 2
            assert a.wire.counters()["too_long"] == 1
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
                address = str(folder / f"{a.mac.hex()}.sock")
                for octets in (b"", b"x" * 13, bytes(1015), b"\2" * 14):
                    stranger.sendto(octets, address)
            await a.port.wait_frames(1)
            assert a.port.frames == [b"\2" * 14]
            assert a.wire.counters()["malformed"] == 5

    async def test_a_burst_of_nothing_but_bad_frames_is_not_delivered(self, folder: Path) -> None:
        async with running(HostSegment(folder), HostSegment(folder, mtu=1000)) as (a, b):
            a.send(b.mac, bytes(1001))
            while not b.wire.counters()["malformed"]:
                await trio.lowlevel.checkpoint()
            assert b.port.bursts == []

    async def test_a_frame_larger_than_the_socket_buffer_is_counted_and_dropped(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host, "SOCKET_BUFFER", 0)
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            assert a.send(b.mac, bytes(65520), b"small") == 2
            await b.port.wait_frames(1)
            assert b.port.bodies == [b"small"]
            assert a.wire.counters()["too_long"] == 1

    async def test_more_frames_than_a_burst_arrive_in_several(self, folder: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            ours.setblocking(False)
            for number in range(100):  # a pair takes more than a bound socket
                theirs.send(b"\2" * 14 + b"%d" % number)
            port = RecordingPort()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(HostSegment(folder)._receive, ours, port)
                await port.wait_frames(100)
                nursery.cancel_scope.cancel()
            assert [len(burst) for burst in port.bursts] == [64, 36]

    async def test_a_frame_for_nobody_is_counted_and_dropped(self, folder: Path) -> None:
        async with running(HostSegment(folder)) as (a,):
            assert a.send(b"\2\2\2\2\2\2", b"x") == 1
            assert a.wire.counters()["no_station"] == 1

    async def test_counters_count_what_passed(self, folder: Path) -> None:
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            a.send(b.mac, b"12345", b"6")
            await b.port.wait_frames(2)
            sent, received = a.wire.counters(), b.wire.counters()
            assert (sent["frames_sent"], sent["octets_sent"]) == (2, 34)
            assert (received["frames_received"], received["octets_received"]) == (2, 34)

    async def test_a_wire_that_does_not_run_takes_and_drops(self, folder: Path) -> None:
        wire = HostSegment(folder)
        assert wire.send([frame_to(BROADCAST, wire.mac)]) == 1
        async with running(wire):
            pass
        assert wire.send([frame_to(BROADCAST, wire.mac)]) == 1
        assert wire.counters()["not_running"] == 2


class TestProcesses:
    async def test_two_processes_exchange_frames_and_names(self, folder: Path) -> None:
        program = f"""
import trio
from zttrio.header.frame import Frame
from zttrio.wire import HostSegment

class Echo:
    def deliver(self, frames):
        for frame in frames:
            octets = bytes(frame)
            wire.send([Frame(octets[6:12] + wire.mac + octets[12:] + b" back")])
    def send_ready(self):
        pass

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(wire.run, Echo())
        wire.publish("echo", [b"\\x0a\\0\\0\\1"])
        print("ready", flush=True)

wire = HostSegment({str(folder)!r})
trio.run(main)
"""
        async with running(HostSegment(folder)) as (a,), trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(trio.run_process, stdout=subprocess.PIPE, check=False),
                [sys.executable, "-c", program],
            )
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
            assert a.wire.lookup("echo.local") == [b"\x0a\0\0\1"]
            a.send(BROADCAST, b"hello")
            await a.port.wait_frames(1)
            assert a.port.bodies == [b"hello back"]
            echo = a.port.frames[0][6:12]
            a.send(echo, b"unicast")
            await a.port.wait_frames(2)
            assert a.port.bodies[1] == b"unicast back"
            process.kill()
            await process.wait()
            # It had no chance to clean up; whoever meets its socket does.
            assert (folder / f"{echo.hex()}.sock").exists()
            assert a.wire.lookup("echo") == []
            a.send(echo, b"anybody?")
            assert not (folder / f"{echo.hex()}.sock").exists()
            assert a.wire.counters()["stale_removed"] == 1


class TestStaleSockets:
    async def test_a_broadcast_removes_the_sockets_of_the_dead(
        self, folder: Path, silent: list[Silent]
    ) -> None:
        silent[0].sock.close()
        async with running(HostSegment(folder)) as (a,):
            a.send(BROADCAST, b"who is there?")
            assert set(os.listdir(folder)) == {
                f"{mac.hex()}.sock" for mac in (a.mac, *(s.mac for s in silent[1:]))
            }
            assert silent[1].read() == silent[2].read() == [b"who is there?"]
            assert a.wire.counters()["stale_removed"] == 1

    async def test_a_station_that_comes_back_is_reached_again(self, folder: Path) -> None:
        mac = b"\2\0\0\0\0\7"
        async with running(HostSegment(folder)) as (a,):
            async with running(HostSegment(folder, mac=mac)) as (b,):
                a.send(mac, b"first")
                await b.port.wait_frames(1)
            a.send(mac, b"nobody is there")
            async with running(HostSegment(folder, mac=mac)) as (b,):
                a.send(mac, b"second")
                await b.port.wait_frames(1)
                assert b.port.bodies == [b"second"]
            assert a.wire.counters()["no_station"] == 1

    async def test_a_dead_station_met_by_broadcast_is_forgotten(self, folder: Path) -> None:
        mac = b"\2\0\0\0\0\7"
        async with running(HostSegment(folder)) as (a,):
            async with running(HostSegment(folder, mac=mac)) as (b,):
                a.send(mac, b"first")
                await b.port.wait_frames(1)
            (folder / f"{mac.hex()}.sock").touch()  # what it would be after a crash
            a.send(BROADCAST, b"x")
            assert a.wire.counters()["no_station"] == 1
            assert not (folder / f"{mac.hex()}.sock").exists()


class TestFullStations:
    async def test_frames_for_a_full_station_stay_with_the_caller_in_order(
        self, folder: Path, silent: list[Silent]
    ) -> None:
        busy = silent[0]
        async with running(HostSegment(folder)) as (a,):
            unsent = numbered(a, busy.mac, range(MANY))
            received: list[bytes] = []
            rounds = 0
            while unsent:
                ready = a.port.ready
                taken = a.wire.send(unsent)
                unsent = unsent[taken:]
                if unsent:
                    assert a.wire.send(unsent) == 0  # still full
                    received += busy.read()
                    await a.port.wait_ready(ready + 1)
                rounds += 1
            received += busy.read()
            assert received == [b"%d" % number for number in range(MANY)]
            assert rounds > 1
            assert a.wire.counters()["blocked"] == rounds - 1

    async def test_a_stuck_station_stops_the_others_only_for_a_moment(
        self, folder: Path, silent: list[Silent], autojump_clock: trio.testing.MockClock
    ) -> None:
        stuck, alive = silent[:2]
        async with running(HostSegment(folder)) as (a,):
            start = trio.current_time()
            frames = numbered(a, stuck.mac, range(MANY)) + numbered(a, alive.mac, range(1))
            taken = a.wire.send(frames)
            assert 0 < taken < MANY
            await a.port.wait_ready()
            assert trio.current_time() - start == pytest.approx(host.PATIENCE)
            assert a.wire.send(frames[taken:]) == len(frames) - taken
            assert alive.read() == [b"0"]
            assert a.wire.counters()["stuck_station"] == MANY - taken
            # It wakes up, reads what it has, and is a station like any other again.
            assert stuck.read() == [b"%d" % number for number in range(taken)]
            await a.port.wait_ready(2)
            assert a.send(stuck.mac, b"again") == 1
            assert stuck.read() == [b"again"]

    async def test_broadcasts_do_not_wait_for_a_full_station(
        self, folder: Path, silent: list[Silent]
    ) -> None:
        full, other = silent[:2]
        async with running(HostSegment(folder)) as (a,):
            assert a.wire.send(numbered(a, full.mac, range(MANY))) < MANY
            assert a.send(BROADCAST, b"x") == 1
            assert other.read() == [b"x"]
            assert a.wire.counters()["broadcast_full"] == 1

    async def test_broadcasts_that_nobody_reads_do_not_use_up_the_sender(
        self, folder: Path, silent: list[Silent], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host, "SOCKET_BUFFER", 0)  # the kernel's minimum: a few kilobytes
        full = silent[:2]
        async with running(HostSegment(folder)) as (a,):
            for _ in range(MANY):
                a.send(BROADCAST, bytes(1400))
                silent[2].read()
            assert a.wire.counters()["broadcast_full"] == 2 * (MANY - ROOM)
            a.send(BROADCAST, b"still here")
            assert silent[2].read() == [b"still here"]
            assert [len(station.read()) for station in full] == [ROOM, ROOM]

    async def test_a_full_station_that_dies_is_let_go(
        self, folder: Path, silent: list[Silent]
    ) -> None:
        dying = silent[0]
        async with running(HostSegment(folder)) as (a,):
            taken = a.wire.send(numbered(a, dying.mac, range(MANY)))
            assert taken < MANY
            dying.sock.close()
            await a.port.wait_ready()
            assert a.send(dying.mac, b"x", b"y") == 2
            assert a.wire.counters()["no_station"] == 2

    async def test_sending_while_the_wire_ends_does_not_raise(
        self, folder: Path, silent: list[Silent]
    ) -> None:
        wire = HostSegment(folder)
        frames = [frame_to(silent[0].mac, wire.mac)] * MANY
        async with trio.open_nursery() as nursery:
            await nursery.start(wire.run, RecordingPort())
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                while wire.send(frames) < MANY:  # until it has ended and drops them
                    silent[0].read()
                    await trio.lowlevel.checkpoint()
        assert wire.counters()["not_running"] == MANY


class TestDescriptors:
    async def test_sockets_to_others_are_bounded_and_all_are_closed(
        self, folder: Path, silent: list[Silent], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host, "PEER_LIMIT", 2)
        before = len(os.listdir("/proc/self/fd"))
        async with running(HostSegment(folder)) as (a,):
            opened = len(os.listdir("/proc/self/fd"))
            for number in range(10):
                for station in silent:
                    a.send(station.mac, b"%d" % number)
            assert len(os.listdir("/proc/self/fd")) == opened + 2
            for station in silent:
                assert station.read() == [b"%d" % number for number in range(10)]
        assert len(os.listdir("/proc/self/fd")) == before

    async def test_the_station_not_used_for_longest_makes_room(
        self, folder: Path, silent: list[Silent], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host, "PEER_LIMIT", 2)
        connected: list[bytes] = []

        class Watched(HostSegment):
            def _open_peer(self, mac: bytes, folder: SegmentFolder) -> Any:
                connected.append(mac)
                return super()._open_peer(mac, folder)

        async with running(Watched(folder)) as (a,):
            one, two, three = (station.mac for station in silent)
            for mac in (one, two, one, three, one, one):
                a.send(mac, b"x")
            assert connected == [one, two, three]

    async def test_a_full_station_may_be_the_one_that_makes_room(
        self, folder: Path, silent: list[Silent], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host, "PEER_LIMIT", 1)
        full, other = silent[:2]
        async with running(HostSegment(folder)) as (a,):
            assert a.wire.send(numbered(a, full.mac, range(MANY))) < MANY
            await trio.testing.wait_all_tasks_blocked()  # somebody waits for room
            assert a.send(other.mac, b"x") == 1
            assert other.read() == [b"x"]
            await a.port.wait_ready()

    async def test_without_a_free_descriptor_frames_are_counted_and_dropped(
        self, folder: Path, silent: list[Silent]
    ) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with running(HostSegment(folder)) as (a,):
            silent[1].sock.close()  # its socket stays, and cannot be removed for the moment
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                assert a.send(silent[0].mac, b"x") == 1
                assert a.send(BROADCAST, b"x") == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert a.wire.counters()["send_errors"] == 2
            a.send(silent[0].mac, b"y")
            assert silent[0].read() == [b"y"]

    async def test_a_stale_socket_that_cannot_be_removed_now_is_removed_later(
        self, folder: Path, silent: list[Silent]
    ) -> None:
        stale = silent[0]
        stale.sock.close()
        other = os.open(folder, os.O_RDONLY)
        async with running(HostSegment(folder)) as (a,):
            fcntl.flock(other, fcntl.LOCK_EX)
            a.send(stale.mac, b"x")
            assert (a.wire.counters()["no_station"], a.wire.counters()["stale_removed"]) == (1, 0)
            os.close(other)
            a.send(stale.mac, b"x")
            assert (a.wire.counters()["no_station"], a.wire.counters()["stale_removed"]) == (2, 1)

    async def test_nothing_is_left_in_the_folder(self, folder: Path) -> None:
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            a.wire.publish("web", [])
            a.send(b.mac, b"x")
            assert len(os.listdir(folder)) == 3
        assert os.listdir(folder) == []


class TestNames:
    async def test_a_name_resolves_for_the_others_while_its_station_runs(
        self, folder: Path
    ) -> None:
        async with running(HostSegment(folder)) as (a,):
            async with running(HostSegment(folder)) as (b,):
                b.wire.publish("Web", [b"\xa9\xfe\1\2", bytes(15) + b"\1"])
                assert a.wire.lookup("web.local") == [b"\xa9\xfe\1\2", bytes(15) + b"\1"]
                assert b.wire.lookup("web") == a.wire.lookup("web")
                with pytest.raises(WireError, match="name web: taken by the station"):
                    a.wire.publish("web", [])
            assert a.wire.lookup("web") == []
            a.wire.publish("web", [b"\xa9\xfe\1\3"])
            assert a.wire.lookup("web") == [b"\xa9\xfe\1\3"]

    async def test_names_are_bounded(self, folder: Path) -> None:
        async with running(HostSegment(folder)) as (a,):
            for n in range(16):
                a.wire.publish(f"name{n}", [])
            a.wire.publish("name0", [bytes(4)])
            with pytest.raises(WireError, match="has 16 names already"):
                a.wire.publish("one-more", [])

    def test_a_wire_that_does_not_run_has_no_names(self, folder: Path) -> None:
        wire = HostSegment(folder)
        with pytest.raises(WireError, match="does not run"):
            wire.publish("web", [])
        assert wire.lookup("web") == []


class TestFailure:
    async def test_a_folder_that_others_can_read_is_refused(self, folder: Path) -> None:
        os.mkdir(folder, 0o755)
        with pytest.raises(WireError, match="chmod 700"):
            await HostSegment(folder).run(RecordingPort())

    async def test_a_folder_that_stays_locked_is_explained(
        self, folder: Path, autojump_clock: trio.testing.MockClock
    ) -> None:
        os.mkdir(folder, 0o700)
        other = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(WireError, match="locked by another process"):
                await HostSegment(folder).run(RecordingPort())
        finally:
            os.close(other)

    async def test_a_folder_that_is_locked_for_a_moment_is_waited_for(
        self, folder: Path, autojump_clock: trio.testing.MockClock
    ) -> None:
        os.mkdir(folder, 0o700)
        other = os.open(folder, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        async with trio.open_nursery() as nursery:
            wire = HostSegment(folder)
            started = nursery.start(wire.run, RecordingPort())
            nursery.start_soon(close_later, other)
            await started
            assert (folder / f"{wire.mac.hex()}.sock").exists()
            nursery.cancel_scope.cancel()

    async def test_a_socket_that_fails_ends_the_wire(self, folder: Path) -> None:
        # A stream socket is reset when its other end is closed with something unread.
        broken, far = socket.socketpair()
        broken.setblocking(False)
        broken.send(b"unread")
        far.close()
        with pytest.raises(WireError, match=r"host: .*reset"):
            await HostSegment(folder)._receive(broken, RecordingPort())
        broken.close()

    async def test_an_emptied_folder_ends_the_wire_at_the_next_broadcast(
        self, folder: Path
    ) -> None:
        wire = HostSegment(folder)
        gone = pytest.RaisesExc(WireError, match="our socket is not in it any more")
        with pytest.RaisesGroup(gone):  # the group is this test's own nursery's
            async with trio.open_nursery() as nursery:
                await nursery.start(wire.run, RecordingPort())
                (folder / f"{wire.mac.hex()}.sock").unlink()
                assert wire.send([frame_to(BROADCAST, wire.mac)] * 3) == 3

    async def test_a_wire_serves_once(self, folder: Path) -> None:
        wire = HostSegment(folder)
        async with running(wire) as (a,):
            pass
        with pytest.raises(WireError, match="serves one Network once"):
            await wire.run(a.port)

    async def test_an_address_that_is_taken_is_refused(self, folder: Path) -> None:
        async with running(HostSegment(folder)) as (a,):
            with pytest.raises(WireError, match=f"has the address {a.mac.hex(':')}"):
                await HostSegment(folder, mac=a.mac).run(a.port)
            assert (folder / f"{a.mac.hex()}.sock").exists()

    @pytest.mark.parametrize("mac", [b"\1\0\0\0\0\0", b"\2\0\0"])
    def test_a_station_needs_a_unicast_address(self, mac: bytes) -> None:
        with pytest.raises(ValueError, match="mac: needs 6 octets"):
            HostSegment(mac=mac)

    @pytest.mark.parametrize("mtu", [67, 65521])
    def test_the_mtu_is_what_ip_and_the_kernel_allow(self, mtu: int) -> None:
        with pytest.raises(ValueError, match="mtu: must be between 68 and 65520"):
            HostSegment(mtu=mtu)
