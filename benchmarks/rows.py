"""The rows of the table: who talks to whom, and how one measurement of a row is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .process import Failed, Process
from .topology import (
    SLIRP_GATEWAY,
    SLIRP_LISTENER,
    SLIRP_MTU,
    SWITCH,
    TAP,
    TAP_ADDRESS,
    TAP_PEER,
    VETH_PEER,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .topology import Topology

__all__ = ["Row", "Sample", "measure", "rows"]

GRACE = 30.0  # seconds for a process to start and to end, beside its work; arbitrary


@attrs.frozen
class Kind:
    """One thing that is measured of a row.

    Attributes:
        key: short name, for ratios and JSON.
        title: what the table's column says.
        listener: the work of the end that is connected to.
        connector: the work of the end that connects.
        connections: how many there are.
        scale: what a sample's value is multiplied with for the table.
        is_speed: more is better; otherwise, less.
        is_compared: whether it makes sense to put anchors beside it.
    """

    key: str
    title: str
    listener: str
    connector: str
    connections: int = 1
    scale: float = 1.0
    is_speed: bool = True
    is_compared: bool = True


KINDS = {
    kind.key: kind
    for kind in (
        Kind("bulk", "MB/s", "receive", "send", scale=1e-6),
        Kind("latency", "RTT us", "answer", "ask", scale=1e6, is_speed=False),
        Kind("streams", "8 streams", "receive", "send", 8, 1e-6),
        Kind("connects", "opens/s", "serve", "connect"),
        Kind("hundred", "100 conns", "echo", "poll", 100),
        Kind("thousand", "1000 conns", "echo", "poll", 1000),
        Kind("idle", "idle ms/s", "idle", "idle", 1, 1e3, is_speed=False, is_compared=False),
        Kind("memory", "octets/conn", "hold", "hold", 1000, is_speed=False, is_compared=False),
    )
}


@attrs.frozen
class Row:
    """One line of the table.

    Attributes:
        key: short name, for ratios and JSON.
        title: what the table says.
        listener: arguments of the endpoint that is connected to.
        connector: arguments of the endpoint that connects.
        listener_netns: where the listener runs, None for where we are.
        connector_netns: where the connector runs.
        kinds: keys of what is measured.
        is_reversed: in bulk it is the listener that sends.
    """

    key: str
    title: str
    listener: tuple[str, ...]
    connector: tuple[str, ...]
    listener_netns: str | None = None
    connector_netns: str | None = None
    kinds: tuple[str, ...] = ("bulk", "latency")
    is_reversed: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether zttrio's stack takes part."""
        return not {"kernel", "trio"} >= {self.listener[1], self.connector[1]}


@attrs.frozen
class Sample:
    """What one measurement of one row gave.

    Attributes:
        value: octets, connections or exchanges per second; the median seconds of a round trip; CPU
            seconds per second of doing nothing; octets of memory per connection.
        cpu: CPU seconds of both ends per octet, connection, exchange or round trip.
        p99: the 99th percentile of the round trip in seconds; 0 for every other kind.
        wake_ups: of our ends, each second; only of idle ones.
        profiles: texts by ``listener`` and ``connector``, of the ends that have one.
    """

    value: float
    cpu: float
    p99: float = 0.0
    wake_ups: float = 0.0
    profiles: dict[str, str] = attrs.Factory(dict)


def rows(folder: Path, topology: Topology | None) -> list[Row]:
    """Every row that can be measured here.

    Args:
        folder: where a host segment may be made.
        topology: None if there are no namespaces: only what needs no root is measured.
    """
    segment = ("--transport", "host", "--folder", str(folder / "segment"))
    server, client = "198.18.4.1", "198.18.4.2"
    most = ("bulk", "latency", "streams", "connects", "hundred", "thousand")
    everything = tuple(KINDS)
    loopback = ("--transport", "kernel", "--host", "127.0.0.1")
    through_trio = ("--transport", "trio", "--host", "127.0.0.1")
    found = [
        Row(
            "host",
            "zttrio - host segment - zttrio",
            (*segment, "--address", f"{server}/24", "--host", server),
            (*segment, "--address", f"{client}/24", "--host", server),
            kinds=everything,
        ),
        Row(
            "trio-loopback",
            "trio.SocketStream - loopback - trio.SocketStream",
            through_trio,
            through_trio,
            kinds=most,
        ),
        Row("loopback", "kernel - loopback - kernel", loopback, loopback),
    ]
    if topology is None:
        return found
    a, b = topology.a, topology.b
    for plain, infix, title in (
        (True, "", "TAP, MTU 1500"),
        (False, "-virtio", "TAP, virtio headers"),
    ):
        ours = (
            *("--transport", "tap", "--tap", TAP, "--address", f"{TAP_PEER}/24"),
            *(["--plain"] if plain else []),
            "--host",
        )
        found += [
            Row(
                f"tap{infix}-receive",
                f"kernel - {title} - zttrio (receives)",
                (*ours, TAP_PEER),
                ("--transport", "kernel", "--host", TAP_PEER),
                a,
                a,
                kinds=("bulk", "latency", "connects") if plain else everything,
            ),
            Row(
                f"tap{infix}-send",
                f"zttrio (sends) - {title} - kernel",
                ("--transport", "kernel", "--host", TAP_ADDRESS),
                (*ours, TAP_ADDRESS),
                a,
                a,
                kinds=("bulk", "latency", "connects") if plain else most,
            ),
        ]
    for key, title, address in (
        ("switch", f"kernel - TAP - {topology.forwarder} loop - TAP - kernel", SWITCH[False][1]),
        ("switch-virtio", "the same with virtio headers (offloads)", SWITCH[True][1]),
        ("veth", "kernel - veth - kernel", VETH_PEER),
    ):
        kernel = ("--transport", "kernel", "--host", address)
        found.append(Row(key, title, kernel, kernel, b, a, most))
    if topology.behind_slirp is not None:
        kernel = ("--transport", "kernel", "--host", SLIRP_LISTENER)
        to_it = ("--transport", "kernel", "--host", SLIRP_GATEWAY)
        c = topology.behind_slirp
        title = f"slirp4netns, MTU {SLIRP_MTU}"
        found += [
            Row("slirp-receive", f"kernel - {title} (receives)", kernel, to_it, b, c, most),
            Row(
                "slirp-send",
                f"{title} (sends) - kernel",
                kernel,
                to_it,
                b,
                c,
                ("bulk",),
                is_reversed=True,
            ),
        ]
    return found


def measure(row: Row, kind: str, seconds: float, *, profile: bool = False) -> Sample:
    """Measure *row* once.

    Args:
        row: what to measure.
        kind: a key of `KINDS`.
        seconds: how long the work goes on.
        profile: also take profiles; the numbers are then worth nothing.

    Raises:
        Failed: a process failed or took too long.
    """
    what = KINDS[kind]
    works = (what.listener, what.connector)
    if row.is_reversed:
        works = (what.connector, what.listener)
    common = ["--seconds", str(seconds), "--connections", str(what.connections)]
    if profile:
        common.append("--profile")
    listener = Process(
        "endpoint", row.listener_netns, *row.listener, "--listen", "--work", works[0], *common
    )
    with listener:
        listener.wait_ready()
        with Process(
            "endpoint", row.connector_netns, *row.connector, "--work", works[1], *common
        ) as connector:
            ends = {
                "connector": connector.result(seconds + GRACE),
                "listener": listener.result(GRACE),
            }
    cpu = sum(end["cpu"] for end in ends.values())
    profiles = {name: end["profile"] for name, end in ends.items() if "profile" in end}
    asked = ends["connector"]
    if kind == "latency":
        sample = Sample(asked["median"], cpu / asked["rounds"], asked["p99"])
    elif kind == "idle":
        ours = [end for end in ends.values() if end["is_ours"]]
        idle = max(end["cpu"] for end in ours) / seconds
        sample = Sample(idle, idle, wake_ups=max(end["wake_ups"] for end in ours) / seconds)
    elif kind == "memory":
        sample = Sample(max(end.get("held", 0.0) for end in ends.values()), 0.0)
    elif "count" in asked:
        sample = Sample(asked["count"] / asked["seconds"], cpu / asked["count"])
    else:
        received = ends["connector" if row.is_reversed else "listener"]
        if not received["octets"]:
            raise Failed("nothing arrived")
        sample = Sample(received["octets"] / received["seconds"], cpu / received["octets"])
    return attrs.evolve(sample, profiles=profiles)
