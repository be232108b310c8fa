from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from ipaddress import ip_network
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from zttrio.config import Config
from zttrio.errors import WireError
from zttrio.testing import Lab, Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zttrio import Network

BAD_CABLE = Link(delay=0.05, loss=0.05, reorder=0.1, reorder_delay=0.02)


async def transfer(lab: Lab, size: int) -> float:
    """Send *size* octets from a behind a bad cable to b, and return how long it took."""
    data = Random("payload").randbytes(size)
    received = hashlib.sha256()
    async with lab.network("a", link=BAD_CABLE) as a, lab.network("b") as b:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_hash, b, received)
            stream = await a.open_tcp_stream("b", 80)
            await stream.send_all(data)
            await stream.send_eof()
            assert await stream.receive_some() == b""  # b has read everything
            await stream.aclose()
        assert received.digest() == hashlib.sha256(data).digest()
        return trio.current_time() - start


async def serve_hash(
    network: Network,
    received: Any,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Feed what one client sends to the hash *received*."""
    [listener] = await network.open_tcp_listeners(80, host="0.0.0.0")
    task_status.started()
    async with listener, await listener.accept() as stream:
        async for chunk in stream:
            received.update(chunk)


class TestRepetition:
    def test_a_megabyte_survives_loss_delay_and_reordering_in_little_real_time(self) -> None:
        lab = Lab(seed=1)
        began = time.perf_counter()
        took = lab.run(transfer, lab, 1_000_000)
        assert time.perf_counter() - began < 5
        assert took > 1  # virtual seconds: there was a long way and a lot to repeat
        fates = [record.fate for record in lab.trace()]
        assert fates.count("lost") > 20
        assert fates.count("delivered") > 700

    def test_the_same_seed_gives_the_identical_trace_twice_and_another_one_does_not(self) -> None:
        def once(seed: int) -> tuple[float, str, list[Any]]:
            lab = Lab(seed, trace=None)
            took = lab.run(transfer, lab, 200_000)
            return took, lab.fingerprint(), lab.trace()

        first, second, other = once(7), once(7), once(8)
        assert len(first[2]) > 100
        assert first == second
        assert first[1] != other[1]
        assert first[2] != other[2]

    def test_another_process_with_another_hash_seed_gives_the_same_trace(self) -> None:
        program = (
            "from zttrio.testing import Lab\n"
            "from tests.testing.test_lab import transfer\n"
            "lab = Lab(7)\n"
            "lab.run(transfer, lab, 50_000)\n"
            "print(lab.fingerprint())\n"
        )
        hash_seed = "1" if sys.flags.hash_randomization else "random"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.curdir},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        lab = Lab(7)
        lab.run(transfer, lab, 50_000)
        assert done.stdout.split() == [lab.fingerprint()]

    def test_many_tasks_are_scheduled_the_same_way_every_time(self) -> None:
        async def order() -> list[int]:
            seen: list[int] = []

            async def note(number: int) -> None:
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                    seen.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(note, number)
            return seen

        assert Lab(1).run(order) == Lab(1).run(order)
        assert Lab(1).run(order) != Lab(2).run(order)

    def test_trio_schedules_as_before_when_the_last_lab_is_closed(self) -> None:
        module: Any = trio._core._run
        flag, state = module._ALLOW_DETERMINISTIC_SCHEDULING, module._r.getstate()
        module._ALLOW_DETERMINISTIC_SCHEDULING = False
        try:
            outer, inner = Lab(1), Lab(2)
            with outer:
                seeded = module._r.getstate()
                assert seeded != state
                with inner, inner:
                    assert module._r.getstate() == seeded  # the first one's seed counts
                assert module._ALLOW_DETERMINISTIC_SCHEDULING
            assert not module._ALLOW_DETERMINISTIC_SCHEDULING
            assert module._r.getstate() == state
            with pytest.raises(KeyError), outer:
                raise KeyError
            assert not module._ALLOW_DETERMINISTIC_SCHEDULING
            inner.__enter__()
            with outer:
                inner.__exit__(None, None, None)  # not in the order in which they opened
                assert module._ALLOW_DETERMINISTIC_SCHEDULING
            assert not module._ALLOW_DETERMINISTIC_SCHEDULING
            assert module._r.getstate() == state
        finally:
            module._ALLOW_DETERMINISTIC_SCHEDULING = flag

    def test_a_trio_that_schedules_in_another_way_is_told_about(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module: Any = trio._core._run
        monkeypatch.delattr(module, "_ALLOW_DETERMINISTIC_SCHEDULING")
        with pytest.warns(RuntimeWarning, match="schedules in its own way"), Lab(1):
            pass


@pytest.fixture
async def lab(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Lab]:
    with Lab(seed=1) as lab:
        yield lab


def texts(network: Network) -> list[str]:
    """The network's addresses, without the IPv6 link-local one that every network has."""
    *others, link_local = network.addresses
    assert link_local.network == ip_network("fe80::/64")
    return [str(address) for address in others]


class TestHosts:
    async def test_hosts_reach_each_other_by_name_and_address(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with lab.network("a") as a, lab.network("B") as b:
            assert texts(a) == ["10.0.0.1/16", "fd6c:6162::1/64"]
            assert texts(b) == ["10.0.0.2/16", "fd6c:6162::2/64"]
            assert await a.ping("b") == 0
            assert await b.ping("10.0.0.1") == 0
            assert await b.ping("fd6c:6162::1") == 0
            assert await b.ping(str(a.addresses[2].ip)) == 0

    async def test_a_host_that_comes_back_is_the_same_one(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with lab.network("a") as a:
            async with lab.network("b") as b:
                before = texts(b), b.status().mac
            with pytest.raises(OSError, match="No route to host"):
                await a.ping("10.0.0.2")
            async with lab.network("c"), lab.network("b") as b:
                assert (texts(b), b.status().mac) == before
                assert await a.ping("b") == 0

    async def test_a_name_is_there_once(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with lab.network("a"):
            with pytest.raises(WireError, match="station a"):
                async with lab.network("a"):
                    pass

    async def test_what_the_user_gives_counts(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        config = Config(ttl=7)
        async with lab.network("a", addresses=["192.168.1.1/24"], config=config) as a:
            assert texts(a) == ["192.168.1.1/24"]
            assert a.config is config

    async def test_a_host_that_cannot_start_leaves_its_name_free(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        with pytest.raises(ValueError, match="nonsense"):
            async with lab.network("a", addresses=["nonsense"]):
                pass
        async with lab.network("a"):
            pass

    async def test_a_failing_body_leaves_as_itself(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        error = KeyError("mine")
        with pytest.raises(KeyError) as caught:
            async with lab.network("a"), lab.network("b"):
                raise error
        assert caught.value is error

    async def test_a_lab_without_a_block_is_open_while_it_has_hosts(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        lab = Lab(seed=1)
        async with lab.network("a") as a, lab.network("b"):
            assert await a.ping("b") == 0


class TestFaults:
    async def test_a_link_of_the_lab_is_every_hosts_and_is_crossed_twice(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        lab = Lab(seed=1, link=Link(delay=0.01))
        async with lab.network("a") as a, lab.network("b"):
            await a.ping("b")  # and the neighbors know each other
            assert await a.ping("b") == pytest.approx(0.04)
            lab.set_link("a", Link())
            assert await a.ping("b") == pytest.approx(0.02)
            lab.set_link("a", up=Link(delay=0.1))
            assert await a.ping("b") == pytest.approx(0.12)
        async with lab.network("a", link=Link()) as a, lab.network("b", down=Link()):
            await a.ping("b")
            assert await a.ping("b") == pytest.approx(0.01)

    async def test_a_connection_survives_a_partition_that_heals(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with lab.network("a") as a, lab.network("b") as b, trio.open_nursery() as nursery:
            received = hashlib.sha256()
            await nursery.start(serve_hash, b, received)
            stream = await a.open_tcp_stream("b", 80)
            await stream.send_all(b"before")
            lab.partition(["a"], ["b"])
            await stream.send_all(b"during")
            with pytest.raises(trio.TooSlowError), trio.fail_after(5):
                await a.ping("b")
            lab.heal()
            await stream.send_eof()
            assert await stream.receive_some() == b""
            assert received.digest() == hashlib.sha256(b"beforeduring").digest()
            await stream.aclose()


class TestTrace:
    def lengths(self, trace: int | None) -> tuple[int, int]:
        lab = Lab(1, trace=trace)
        before = lab.fingerprint()
        lab.run(transfer, lab, 20_000)
        return len(lab.trace()), len({before, lab.fingerprint()})

    def test_as_many_records_are_kept_as_asked_for(self) -> None:
        assert self.lengths(10) == (10, 2)
        kept, fingerprints = self.lengths(None)
        assert kept > 30
        assert fingerprints == 2

    def test_no_frame_is_looked_at_without_a_trace(self) -> None:
        assert self.lengths(0) == (0, 1)

    def test_the_fingerprint_is_of_all_frames_whatever_is_kept(self) -> None:
        prints = set()
        for trace in (1, 10, None):
            lab = Lab(1, trace=trace)
            lab.run(transfer, lab, 20_000)
            prints.add(lab.fingerprint())
        assert len(prints) == 1

    async def test_the_report_says_what_somebody_needs_who_looks_for_a_failure(
        self, lab: Lab, autojump_clock: trio.testing.MockClock
    ) -> None:
        assert lab.report() == "seed: 1"
        async with lab.network("a") as a:
            async with lab.network("b"):
                await a.ping("b")
            report = lab.report()
        lines = report.splitlines()
        assert lines[0] == "seed: 1"
        assert "host a:" in lines
        assert "host b:" in lines  # as it was when it left
        assert "10.0.0.2/16" in report
        assert any("a > b delivered" in line for line in lines)
