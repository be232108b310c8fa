"""Hosts on one segment, with a tap service each, whose programs have no other network at all.

Every program runs in a network namespace of its own in which even the loopback is down, so nothing
can reach its peer but through the preload library.
"""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from zttrio import Network
from zttrio.intercept import preload
from zttrio.tap import service
from zttrio.wire import HostSegment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zttrio.abc import Wire
    from zttrio.intercept.policy import Policy
    from zttrio.tap.service import TapService

__all__ = ["ISOLATED", "Host", "Program", "Segment", "Station", "until"]

ISOLATED = ("unshare", "--net", "--")


async def until(condition: Callable[[], bool], within: float = 20) -> None:
    """Return when *condition* holds: what happens in another process gives no event here."""
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.02)


@attrs.define
class Program:
    """A program that runs in the background."""

    process: trio.Process
    log: Path

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
            with trio.move_on_after(5):
                await self.process.wait()
            if self.process.returncode is None:
                self.process.kill()
        return await self.process.wait()

    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")


@attrs.define
class Station(ABC):
    """Where programs can be run."""

    address: str
    folder: Path
    nursery: trio.Nursery
    programs: list[Program] = attrs.field(factory=list, init=False)

    @abstractmethod
    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """*argv* with what makes a program live here in front of it."""

    @abstractmethod
    def is_listening(self, port: int) -> bool:
        """True if somebody accepts connections at *port* here."""

    @abstractmethod
    def has_datagram_socket(self, port: int) -> bool:
        """True if somebody gets the datagrams for *port* here."""

    async def run(
        self, *argv: str | Path, stdin: bytes = b"", check: bool = True, within: float = 40
    ) -> str:
        """Run a program to its end and return its output, both streams."""
        with trio.fail_after(within):
            result = await trio.run_process(
                self.command(argv),
                stdin=stdin,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=self.folder,
            )
        output = result.stdout.decode(errors="replace")
        if check:
            assert result.returncode == 0, f"{argv} ended with {result.returncode}:\n{output}"
        return output

    async def start(
        self, *argv: str | Path, port: int | None = None, datagram_port: int | None = None
    ) -> Program:
        """Run a program in the background; with a port, return when it is ready there."""
        log = self.folder / f"{Path(str(argv[0])).name}-{len(self.programs)}.log"
        with log.open("wb") as file:
            process = await self.nursery.start(
                partial(
                    trio.run_process,
                    self.command(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,
                    cwd=self.folder,
                )
            )
        program = Program(process, log)
        self.programs.append(program)

        def is_ready() -> bool:
            if process.returncode is not None:
                pytest.fail(f"the program ended:\n{program.output()}")
            return (port is None or self.is_listening(port)) and (
                datagram_port is None or self.has_datagram_socket(datagram_port)
            )

        if port is not None or datagram_port is not None:
            await until(is_ready)
        return program

    async def stop(self) -> None:
        """End every program that was started."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
            for program in self.programs:
                await program.stop()


@attrs.define
class Host(Station):
    """One station of the segment, with a tap service for its programs."""

    network: Network
    tap: TapService
    said: list[str]

    @property
    def env(self) -> dict[str, str]:
        """What makes a program live here."""
        return preload.environment(self.tap.address)

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """*argv* without any other network, and with our environment only behind the prefix."""
        variables = [f"{name}={self.env[name]}" for name in ("LD_PRELOAD", "ZTTRIO_NET")]
        return [*ISOLATED, "env", *variables, *map(str, argv)]

    def is_listening(self, port: int) -> bool:
        """True if somebody accepts connections at *port* here."""
        listeners = self.network._driver.stack.tcp.listeners()
        return any(listener.local[1] == port for listener in listeners)

    def has_datagram_socket(self, port: int) -> bool:
        """True if somebody gets the datagrams for *port* here."""
        endpoints = self.network._driver.stack.udp.endpoints()
        return any(endpoint.local[1] == port for endpoint in endpoints)


@attrs.define
class Segment:
    """A cable, and the hosts on it."""

    folder: Path
    nursery: trio.Nursery
    hosts: list[Host] = attrs.field(factory=list)

    async def host(
        self,
        policy: Policy | None = None,
        name: str | None = None,
        wire: Wire | None = None,
        address: str | None = None,
    ) -> Host:
        """Another host: by default the first is 10.7.0.1, the next 10.7.0.2 ..."""
        host: Host = await self.nursery.start(self._live, policy, name, wire, address)
        self.hosts.append(host)
        return host

    async def _live(
        self,
        policy: Policy | None,
        name: str | None,
        wire: Wire | None,
        address: str | None,
        *,
        task_status: trio.TaskStatus[Host],
    ) -> None:
        number = len(self.hosts) + 1
        if address is None:
            address = f"10.7.0.{number}"
        cable = self.folder / "segment"
        cable.mkdir(mode=0o700, exist_ok=True)
        folder = self.folder / f"host-{number}"
        folder.mkdir()
        wire = HostSegment(cable) if wire is None else wire
        async with (
            Network(wire=wire, addresses=[f"{address}/24"], name=name) as network,
            trio.open_nursery() as nursery,
        ):
            said: list[str] = []
            tap = await nursery.start(
                partial(
                    service.serve,
                    network._driver,
                    network._resolver,
                    name=name,
                    network=str(number),
                    path=self.folder / f"service-{number}" / "nc",
                    policy=policy,
                    say=said.append,
                )
            )
            host = Host(address, folder, nursery, network, tap, said)
            try:
                task_status.started(host)
                await trio.sleep_forever()
            finally:
                await host.stop()  # noqa: ASYNC102 - it is shielded, with a deadline
