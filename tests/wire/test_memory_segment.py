from __future__ import annotations

import pytest
import trio

from tests.wire.recording import BROADCAST, Running, frame_to, running
from zttrio.errors import WireError
from zttrio.header.frame import Frame
from zttrio.wire import FrameRecord, Link, MemorySegment
from zttrio.wire.shortcuts import OFFLOAD
from zttrio.wire.station import INBOX_LIMIT


async def test_a_unicast_frame_reaches_its_owner_only() -> None:
    segment = MemorySegment()
    async with running(*map(segment.attach, "abc")) as (a, b, c):
        assert a.send(b.mac, b"one", b"two") == 2
        assert b.port.frames == [b.mac + a.mac + b"\x88\xb5" + body for body in (b"one", b"two")]
        assert len(b.port.bursts) == 1
        assert c.port.frames == []
        assert a.port.frames == []


@pytest.mark.parametrize("group", [BROADCAST, b"\x33\x33\0\0\0\1"])
async def test_broadcast_and_multicast_reach_everybody_else(group: bytes) -> None:
    segment = MemorySegment()
    async with running(*map(segment.attach, "abc")) as (a, b, c):
        a.send(group, b"hello")
        assert a.port.frames == []
        assert b.port.bodies == c.port.bodies == [b"hello"]
        assert b.port.bursts[0][0] is not c.port.bursts[0][0]


async def test_a_frame_for_nobody_or_for_oneself_is_counted_and_dropped() -> None:
    segment = MemorySegment()
    async with running(segment.attach("a"), segment.attach("b")) as (a, b):
        assert a.send(b"\2\2\2\2\2\2", b"x") == 1
        assert a.send(a.mac, b"x") == 1
        assert a.wire.counters()["no_station"] == 2
        assert a.port.frames == b.port.frames == []


async def test_a_frame_without_an_ethernet_header_is_counted_and_dropped() -> None:
    segment = MemorySegment()
    async with running(segment.attach("a"), segment.attach("b")) as (a, b):
        assert a.wire.send([Frame(b"\xff" * 13), Frame(b"")]) == 2
        assert a.wire.counters()["malformed"] == 2
        assert b.port.frames == []


async def test_a_wire_that_does_not_run_takes_and_drops() -> None:
    segment = MemorySegment()
    idle = segment.attach("idle")
    assert idle.send([frame_to(BROADCAST, idle.mac)]) == 1
    assert idle.counters()["not_running"] == 1
    async with running(segment.attach("a")) as (a,):
        a.send(idle.mac, b"x")
        assert idle.counters()["not_running"] == 2


async def test_a_frame_crosses_both_cables(autojump_clock: trio.testing.MockClock) -> None:
    segment = MemorySegment(link=Link(delay=0.5))
    wires = segment.attach("a"), segment.attach("b", up=Link(), down=Link(delay=0.25))
    async with running(*wires) as (a, b):
        start = trio.current_time()
        a.send(b.mac, b"there")
        await b.port.wait_frames(1)
        assert trio.current_time() - start == pytest.approx(0.75)
        b.send(a.mac, b"back")
        await a.port.wait_frames(1)
        assert trio.current_time() - start == pytest.approx(1.25)


async def test_what_is_due_together_arrives_as_one_burst(
    autojump_clock: trio.testing.MockClock,
) -> None:
    segment = MemorySegment()
    wires = segment.attach("a", up=Link(delay=1.0)), segment.attach("b")
    async with running(*wires) as (a, b):
        a.send(b.mac, *[b"%d" % n for n in range(100)])
        await b.port.wait_frames(100)
        assert len(b.port.bursts) == 1
        assert b.port.bodies == [b"%d" % n for n in range(100)]


async def test_a_frame_that_is_due_earlier_shortens_the_nap(
    autojump_clock: trio.testing.MockClock,
) -> None:
    segment = MemorySegment()
    wires = (
        segment.attach("slow", up=Link(delay=10.0)),
        segment.attach("fast", up=Link(delay=0.1)),
        segment.attach("b"),
    )
    async with running(*wires) as (slow, fast, b):
        start = trio.current_time()
        slow.send(b.mac, b"slow")
        await trio.testing.wait_all_tasks_blocked()
        fast.send(b.mac, b"fast")
        await b.port.wait_frames(2)
        assert b.port.bodies == [b"fast", b"slow"]
        assert [time - start for time in b.port.times] == pytest.approx([0.1, 10.0])


async def test_frames_of_a_station_that_has_left_still_arrive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    segment = MemorySegment()
    async with running(segment.attach("b")) as (b,):
        async with running(segment.attach("a", up=Link(delay=1.0))) as (a,):
            a.send(b.mac, b"goodbye")
        await b.port.wait_frames(1)
        assert b.port.bodies == [b"goodbye"]


async def test_the_others_deliver_when_the_first_station_stops(
    autojump_clock: trio.testing.MockClock,
) -> None:
    segment = MemorySegment(link=Link(delay=0.5))
    async with running(segment.attach("b")) as (b,), running(segment.attach("a")) as (a,):
        async with running(segment.attach("first")):
            pass
        a.send(b.mac, b"x")
        await b.port.wait_frames(1)


async def test_a_frame_for_a_station_that_left_meanwhile_is_counted_and_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    records: list[FrameRecord] = []
    segment = MemorySegment(link=Link(delay=0.5), observer=records.append)
    async with running(segment.attach("a")) as (a,):
        async with running(segment.attach("b")) as (b,):
            a.send(b.mac, b"x")
            await trio.sleep(0.75)  # past the switch
        await trio.sleep(1)
        assert b.port.frames == []
        assert [(record.time, record.fate) for record in records] == [(1.0, "not running")]


async def test_a_name_may_come_back_with_the_same_address() -> None:
    segment = MemorySegment()
    async with running(segment.attach("a")) as (a,):
        with pytest.raises(WireError, match="station a: this segment has one already"):
            segment.attach("A")
        mac = a.mac
    async with running(segment.attach("a")) as (a,):
        assert a.mac == mac
        with pytest.raises(WireError, match=r"its address .* is the one of a"):
            segment.attach("other", mac=mac)


async def test_a_wire_serves_once() -> None:
    segment = MemorySegment()
    wire = segment.attach("a")
    async with running(wire) as (a,):
        pass
    with pytest.raises(WireError, match="serves one Network once"):
        await wire.run(a.port)
    detached = segment.attach("b")
    segment.detach(detached)
    segment.detach(detached)
    with pytest.raises(WireError, match="attach again"):
        await detached.run(a.port)


@pytest.mark.parametrize("mac", [b"\1\0\0\0\0\0", b"\2\0\0"])
def test_a_station_needs_a_unicast_address(mac: bytes) -> None:
    with pytest.raises(ValueError, match="mac: needs 6 octets"):
        MemorySegment().attach("a", mac=mac)


def test_addresses_come_from_the_seed_and_the_name_only() -> None:
    one, two, other = MemorySegment(1), MemorySegment(1), MemorySegment(2)
    a = one.attach("a").mac
    assert two.attach("b").mac != a
    assert two.attach("a").mac == a
    assert other.attach("a").mac != a
    assert a[0] == 2  # locally administered, unicast


async def test_the_smallest_mtu_of_the_cable_is_the_wires() -> None:
    segment = MemorySegment()
    wire = segment.attach("a", up=Link(mtu=9000), down=Link(mtu=1400))
    assert wire.mtu == 1400


async def test_a_cable_whose_mtu_shrinks_swallows_long_frames() -> None:
    segment = MemorySegment()
    async with running(segment.attach("a"), segment.attach("b")) as (a, b):
        segment.set_link("b", down=Link(mtu=1000))
        a.send(b.mac, b"x" * 1000, b"y" * 1001)
        assert b.port.bodies == [b"x" * 1000]
        assert b.wire.counters()["down_too_long"] == 1


async def test_what_a_cable_without_delay_does_happens_at_once() -> None:
    segment = MemorySegment(link=Link(duplicate=1.0))
    async with running(segment.attach("a"), segment.attach("b")) as (a, b):
        a.send(b.mac, b"x")
        assert b.port.bodies == [b"x"] * 4
        segment.set_link("a", up=Link())
        a.send(b.mac, b"y")
        assert b.port.bodies[4:] == [b"y"] * 2
        b.send(a.mac, b"z")  # down to a there are still two of each
        assert a.port.bodies == [b"z"] * 4


async def test_links_change_while_frames_fly(autojump_clock: trio.testing.MockClock) -> None:
    segment = MemorySegment()
    async with running(segment.attach("a", up=Link(delay=1.0)), segment.attach("b")) as (a, b):
        a.send(b.mac, b"slow")
        segment.set_link("a", Link())
        a.send(b.mac, b"fast")
        assert b.port.bodies == [b"fast"]
        await b.port.wait_frames(2)
        assert trio.current_time() == 1.0
        segment.set_link("a", Link(loss=1.0))
        a.send(b.mac, b"lost")
        assert a.wire.counters()["up_lost"] == 1


def test_links_of_nobody_cannot_change() -> None:
    with pytest.raises(ValueError, match="station 'x': not on this segment, which has none"):
        MemorySegment().set_link("x", Link())


class TestPartition:
    async def test_frames_stay_inside_the_groups_until_it_heals(self) -> None:
        segment = MemorySegment()
        async with running(*map(segment.attach, "abcde")) as (a, b, c, d, e):
            segment.partition(["a", "b"], ["c"])
            for station in (a, c, d):
                station.send(BROADCAST, station.wire.name.encode())
            assert b.port.bodies == [b"a"]
            assert a.port.bodies == []
            assert c.port.bodies == []
            assert d.port.bodies == []
            assert e.port.bodies == [b"d"]
            assert a.wire.counters()["partitioned"] == 3
            segment.heal()
            a.send(BROADCAST, b"again")
            assert c.port.bodies == d.port.bodies == [b"again"]

    async def test_a_station_that_comes_back_is_on_its_old_side(self) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a")) as (a,):
            async with running(segment.attach("b")):
                segment.partition(["b"])
            async with running(segment.attach("b")) as (b,):
                a.send(b.mac, b"x")
                assert b.port.frames == []

    async def test_what_is_past_the_switch_still_arrives(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a"), segment.attach("b", down=Link(delay=1.0))) as (
            a,
            b,
        ):
            a.send(b.mac, b"before")
            segment.partition(["a"], ["b"])
            a.send(b.mac, b"after")
            await trio.sleep(2)
            assert b.port.bodies == [b"before"]

    def test_bad_groups_are_refused(self) -> None:
        segment = MemorySegment()
        segment.attach("a")
        with pytest.raises(ValueError, match="station a: is in two groups"):
            segment.partition(["a"], ["A"])
        with pytest.raises(ValueError, match="station 'b': not on this segment, which has a"):
            segment.partition(["b"])


class TestPushBack:
    async def test_a_full_queue_drops_unless_the_link_pushes_back(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        segment = MemorySegment()
        link = Link(rate=1000.0, queue=250)
        async with running(segment.attach("a", up=link), segment.attach("b")) as (a, b):
            assert a.send(b.mac, *[bytes(86)] * 5) == 5
            await trio.sleep(10)
            assert len(b.port.frames) == 2
            assert a.wire.counters()["up_queue_full"] == 3
            assert a.port.ready == 0

    async def test_the_sender_keeps_what_a_full_queue_refuses_and_hears_of_room(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        segment = MemorySegment()
        link = Link(rate=1000.0, queue=1000, push_back=True)
        async with running(segment.attach("a", up=link), segment.attach("b")) as (a, b):
            unsent = [frame_to(b.mac, a.mac, b"%3d" % n + bytes(83)) for n in range(100)]
            rounds = 0
            while unsent:
                ready = a.port.ready
                unsent = unsent[a.wire.send(unsent) :]
                if unsent:
                    await a.port.wait_ready(ready + 1)
                rounds += 1
            await b.port.wait_frames(100)
            assert [int(body[:3]) for body in b.port.bodies] == list(range(100))
            assert trio.current_time() == pytest.approx(10.0)  # no pause: it is never idle
            assert a.wire.counters()["up_queue_full"] == 0
            assert 10 < rounds < 30  # half a queue at a time

    async def test_asking_again_before_there_is_room_takes_nothing(self) -> None:
        segment = MemorySegment()
        link = Link(rate=1.0, queue=100, push_back=True)
        async with running(segment.attach("a", up=link), segment.attach("b")) as (a, b):
            assert a.send(b.mac, bytes(86), b"") == 1
            assert a.send(b.mac, b"") == 0


class TestBursts:
    async def test_a_stack_that_has_had_no_turn_gets_few_bursts_and_then_one_with_the_rest(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a"), segment.attach("b")) as (a, b):
            for n in range(50):
                a.send(b.mac, b"%d" % (2 * n), b"%d" % (2 * n + 1))
            direct = len(b.port.bursts)
            assert direct <= 4
            await b.port.wait_frames(100)
            assert len(b.port.bursts) == direct + 1
            assert b.port.bodies == [b"%d" % n for n in range(100)]

    async def test_one_frame_after_the_other_goes_straight_through(self) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a"), segment.attach("b")) as (a, b):
            for n in range(1, 20):
                a.send(b.mac, b"x")
                assert len(b.port.frames) == n
                await trio.testing.wait_all_tasks_blocked()

    async def test_the_inbox_is_bounded(self) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a"), segment.attach("b")) as (a, b):
            burst = [frame_to(b.mac, a.mac)] * 4096
            for _ in range(2 * INBOX_LIMIT // len(burst)):
                a.wire.send(burst)
            await trio.testing.wait_all_tasks_blocked()
            assert INBOX_LIMIT <= len(b.port.frames) <= INBOX_LIMIT + 5 * len(burst)
            lost = b.wire.counters()["inbox_full"]
            assert lost == 2 * INBOX_LIMIT - len(b.port.frames)

    async def test_what_waits_for_a_station_that_stops_is_counted(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a")) as (a,):
            stopped = 0
            for _ in range(40):  # who comes first, the delivery or the end, is up to trio
                async with running(segment.attach("b")) as (b,):
                    for _ in range(10):
                        a.send(b.mac, b"x")
                await trio.testing.wait_all_tasks_blocked()
                assert len(b.port.frames) + b.wire.counters()["not_running"] == 10
                stopped += b.wire.counters()["not_running"]
            assert stopped > 0


async def test_a_station_that_stops_while_it_waits_for_room_is_not_called(
    autojump_clock: trio.testing.MockClock,
) -> None:
    segment = MemorySegment()
    link = Link(rate=100.0, queue=100, push_back=True)
    async with running(segment.attach("b")) as (b,):
        async with running(segment.attach("a", up=link)) as (a,):
            assert a.send(b.mac, bytes(86), bytes(86)) == 1
        await trio.sleep(5)
        assert b.port.bodies == [bytes(86)]
        assert a.port.ready == 0


@pytest.mark.skipif(not OFFLOAD, reason="ZTTRIO_OFFLOAD=0")
async def test_a_super_segment_passes_whole_where_nothing_happens_to_it() -> None:
    segment = MemorySegment(max_segment=65535)
    async with running(segment.attach("a"), segment.attach("b")) as (a, b):
        assert a.wire.max_segment == 65535
        frame = Frame(b.mac + a.mac + bytes(42), bytes(60_000), 1446)
        a.wire.send([frame])
        assert b.port.bursts == [[frame]]


async def test_octets_in_flight_are_bounded(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zttrio.wire.memory.IN_FLIGHT_LIMIT", 1000)
    segment = MemorySegment(link=Link(delay=1.0))
    async with running(segment.attach("a"), segment.attach("b")) as (a, b):
        a.send(b.mac, *[bytes(86)] * 20)
        assert a.wire.counters()["in_flight_limit"] == 10
        await trio.sleep(3)
        assert len(b.port.frames) == 10
        a.send(b.mac, *[bytes(86)] * 10)  # what has arrived does not count any more
        await trio.sleep(3)
        assert len(b.port.frames) == 20


async def test_records_say_what_became_of_every_frame(
    autojump_clock: trio.testing.MockClock,
) -> None:
    records: list[FrameRecord] = []
    segment = MemorySegment(observer=records.append)
    async with running(*map(segment.attach, "abc")) as (a, b, c):
        segment.partition(["c"])
        a.send(b.mac, b"1")
        a.send(c.mac, b"2")
        a.send(b"\2\2\2\2\2\2", b"3")
        segment.set_link("a", Link(loss=1.0))
        a.send(b.mac, b"4")
        segment.set_link("a", Link(delay=2.0))
        a.send(b.mac, b"5")
        await b.port.wait_frames(2)
    assert [
        (record.time, record.source, record.destination, record.fate, record.frame[14:])
        for record in records
    ] == [
        (0.0, "a", "b", "delivered", b"1"),
        (0.0, "a", "c", "partitioned", b"2"),
        (0.0, "a", "", "no station", b"3"),
        (0.0, "a", "", "lost", b"4"),
        (2.0, "a", "b", "delivered", b"5"),
    ]
    assert str(records[2]).startswith("0.000000 a > ? no station 0202")


async def test_counters_count_what_passed() -> None:
    segment = MemorySegment()
    async with running(segment.attach("a"), segment.attach("b")) as (a, b):
        a.send(b.mac, b"12345", b"6")
        sent, received = a.wire.counters(), b.wire.counters()
        assert (sent["frames_sent"], sent["octets_sent"]) == (2, 34)
        assert (received["frames_received"], received["octets_received"]) == (2, 34)


class TestNames:
    async def test_a_name_resolves_while_its_station_runs(self) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a")) as (a,):
            async with running(segment.attach("b")) as (b,):
                b.wire.publish("Web", [b"\x0a\0\0\2", bytes(16)])
                assert a.wire.lookup("web.local") == [b"\x0a\0\0\2", bytes(16)]
                assert b.wire.lookup("WEB.") == [b"\x0a\0\0\2", bytes(16)]
                assert a.wire.lookup("ftp") == []
                assert a.wire.lookup("no/name") == []
            assert a.wire.lookup("web") == []

    async def test_a_name_belongs_to_one_station(self) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a"), segment.attach("b")) as (a, b):
            a.wire.publish("web", [b"\x0a\0\0\1"])
            a.wire.publish("web", [b"\x0a\0\0\3"])
            with pytest.raises(WireError, match="name web: taken by station a"):
                b.wire.publish("web", [b"\x0a\0\0\2"])
            assert b.wire.lookup("web") == [b"\x0a\0\0\3"]

    async def test_names_are_bounded(self) -> None:
        segment = MemorySegment()
        async with running(segment.attach("a")) as (a,):
            for n in range(16):
                a.wire.publish(f"name{n}", [])
            with pytest.raises(WireError, match="has 16 names already"):
                a.wire.publish("one-more", [])


async def test_order_of_attaching_does_not_change_what_happens_to_a_stations_frames(
    autojump_clock: trio.testing.MockClock,
) -> None:
    link = Link(delay=0.1, jitter=0.05, loss=0.2, duplicate=0.1, corrupt=0.1, reorder=0.1)

    async def outcome(names: str) -> tuple[list[float], list[bytes]]:
        segment = MemorySegment("seed", link=link)
        async with running(*map(segment.attach, names)) as stations:
            by_name: dict[str, Running] = {s.wire.name: s for s in stations}
            start = trio.current_time()
            for n in range(50):
                by_name["a"].send(by_name["b"].mac, b"%d" % n)
            await trio.sleep(1)
            port = by_name["b"].port
            return [round(time - start, 9) for time in port.times], port.frames

    one = await outcome("ab")
    assert one == await outcome("cba")
    assert 20 < len(one[1]) < 60


async def test_the_short_way_does_what_the_complete_one_does() -> None:
    """An observer makes every frame take the complete way; without one, plain frames do not."""
    seen: list[FrameRecord] = []
    outcomes = []
    for observer in (None, seen.append):
        segment = MemorySegment(seed=1, observer=observer)
        wires = [segment.attach(name) for name in "abc"]
        wires.append(segment.attach("d", down=Link(mtu=1280)))
        async with running(*wires) as stations:
            a, b, c, d = stations
            stranger = b"\2\0\0\0\0\x77"
            frames = [
                Frame(b.wire.mac + a.wire.mac + b"\x08\0", b"one"),
                Frame(b.wire.mac + a.wire.mac + b"\x08\0", bytes(1500)),
                Frame(b.wire.mac + a.wire.mac + b"\x08\0", bytes(1501)),  # too long
                Frame(b.wire.mac + a.wire.mac, b"\x08\0cut in its header"),
                Frame(b"\xff" * 6 + a.wire.mac + b"\x08\0", b"to all"),
                Frame(stranger + a.wire.mac + b"\x08\0", b"nobody"),
                Frame(a.wire.mac + a.wire.mac + b"\x08\0", b"ourselves"),
                Frame(b"\2", b"too short"),
                Frame(d.wire.mac + a.wire.mac + b"\x08\0", bytes(1400)),  # too long behind it
                Frame(c.wire.mac + a.wire.mac + b"\x08\0", b"last"),
            ]
            assert a.wire.send(frames) == len(frames)
            outcomes.append(
                (
                    [[bytes(f) for burst in s.port.bursts for f in burst] for s in stations],
                    [s.wire.counters() for s in stations],
                )
            )
    assert outcomes[0] == outcomes[1]
    assert [len(arrived) for arrived in outcomes[0][0]] == [0, 3, 2, 1]
    assert len(seen) == 10
