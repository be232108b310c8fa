"""``python -m benchmarks.vl1``: what VL1 costs: ciphers, identities, and a whole node.

With ``LIBZT_SO`` and ``LIBZT_STUB`` (see ``tests/interop/conftest.py`` for how they are made) the
real core of libzt 1.8.4 does the same in the same run, where it can be called from outside: its
packets in suite 1 and its identities.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from zttrio.zerotier import messages
from zttrio.zerotier.armor import SUITE_AES, SUITE_PLAIN, SUITE_SALSA, Armor
from zttrio.zerotier.crypto import backends
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.node import Node

from .report import machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.zerotier.crypto import Backend
    from zttrio.zerotier.events import Message
    from zttrio.zerotier.sender import Datagram

SCHEMA = 1
SIZE = 1400  # of an envelope: one datagram of the usual size
SUITES = {"plain": SUITE_PLAIN, "Salsa20/12": SUITE_SALSA, "AES-GMAC-SIV": SUITE_AES}
BURST = 32


@attrs.frozen
class Row:
    """One number."""

    name: str
    who: str
    value: float
    unit: str


def rate(work: Callable[[], object], seconds: float) -> float:
    """How often *work* is done in a second, the best of three tries."""
    best = 0.0
    for _ in range(3):
        count, step = 0, 1
        start = time.perf_counter()
        while (taken := time.perf_counter() - start) < seconds / 3:
            for _ in range(step):
                work()
            count += step
            step = min(2 * step, 64)
        best = max(best, count / taken)
    return best


def armor_rows(backend: Backend, seconds: float) -> list[Row]:
    armor = Armor(bytes(range(48)), backend)
    envelope = random.Random(1).randbytes(SIZE)
    rows = []
    for name, suite in SUITES.items():
        if suite == SUITE_AES and backend.name == "lanes":
            continue  # AES comes from `cryptography` in both

        def seal(suite: int = suite) -> bytes:
            return armor.seal(os.urandom(8), b"destnsourc", envelope, suite, fragmented=False)

        sealed = seal()
        who = "cryptography" if suite == SUITE_AES else backend.name
        for verb, work in (("seal", seal), ("open", lambda p=sealed: armor.open(p))):
            rows.append(Row(f"{verb} {name}", who, rate(work, seconds) * SIZE / 1e6, "MB/s"))
    return rows


def identity_rows(backend: Backend, seconds: float) -> list[Row]:
    rng = random.Random(2).randbytes
    known = Identity.generate(rng, backend)
    validate = 1000 / rate(lambda: known.is_valid(backend), seconds)
    rows = [Row("validate an identity", backend.name, validate, "ms")]
    # Sixteen attempts each on average, so a few runs say little; attempts are what is timed.
    return [*rows, Row("generate an identity (mean)", backend.name, validate * 256 / 17, "ms")]


class _Sink:
    """A network layer that counts."""

    def __init__(self) -> None:
        self.received = 0

    def receive_message(self, message: Message, now: float) -> None:
        del message, now
        self.received += 1

    def receive_ok(self, *_: object) -> None:
        raise AssertionError("nothing is answered")

    def receive_error(self, *_: object) -> bool:
        raise AssertionError("nothing is refused")


def node_rows(backend: Backend, seconds: float, protocol: int) -> list[Row]:
    """Packets a second through two nodes that know each other, in bursts as the task makes them."""
    ends = [Endpoint.parse("10.0.0.1/1"), Endpoint.parse("10.0.0.2/1")]
    secrets = random.Random(3)
    identities = [Identity.generate(secrets.randbytes, backend) for _ in range(2)]
    nodes = [Node(identity, rng=os.urandom, backend=backend, epoch=1e9) for identity in identities]
    sink = _Sink()
    for mine, other in ((0, 1), (1, 0)):
        nodes[mine].set_sockets({0: 4}, [])
        nodes[mine].set_network_layer(sink)
        nodes[mine].add_peer(identities[other].without_secret(), [ends[other]], 0.0)
    for _ in range(3):  # HELLO and its answer, both ways
        for mine, other in ((0, 1), (1, 0)):
            for datagram in nodes[mine].datagrams_to_send():
                nodes[other].receive(0, ends[mine], datagram.data, 0.0)
    one, two = nodes
    peer = one.topology.peers[two.address]
    peer.protocol = protocol
    payload = bytes(SIZE)
    made: list[list[Datagram]] = []

    def send() -> None:
        for _ in range(BURST):
            one.send(two.address, messages.FRAME, payload, 0.0)
        made.append(one.datagrams_to_send())

    out = rate(send, seconds) * BURST
    bursts = iter(made)
    start = time.perf_counter()
    count = 0
    for burst in bursts:
        for datagram in burst:
            two.receive(0, ends[0], datagram.data, 0.0)
        count += len(burst)
        if time.perf_counter() - start > seconds:
            break
    taken = time.perf_counter() - start
    assert sink.received == count
    suite = "AES-GMAC-SIV" if protocol >= 12 else "Salsa20/12"
    return [
        Row(f"node sends, {suite}", backend.name, out, "packets/s"),
        Row(f"node receives, {suite}", backend.name, count / taken, "packets/s"),
    ]


class _Packet(ctypes.Structure):
    """The core's packet buffer: room, and a length."""

    _fields_ = (("data", ctypes.c_char * 10_024), ("length", ctypes.c_uint))


def libzt_rows(seconds: float) -> list[Row]:
    """The real core, called in this process; it is not started, and sends nothing."""
    shared_object, stub = os.environ.get("LIBZT_SO"), os.environ.get("LIBZT_STUB")
    if shared_object is None or stub is None:
        return []
    ctypes.CDLL(stub, mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(shared_object)
    key = bytes(range(48))
    packet = _Packet()
    plain = bytes(8) + b"destnsourc" + bytes(SIZE + 9)

    def prepare() -> None:
        packet.length = SIZE + 27
        ctypes.memmove(ctypes.byref(packet), plain, len(plain))

    def seal() -> None:
        prepare()
        library._ZN8ZeroTier6Packet5armorEPKvbPKNS_3AESE(
            ctypes.byref(packet), key, ctypes.c_bool(True), None
        )

    seal()
    sealed = ctypes.string_at(ctypes.addressof(packet), SIZE + 27)

    def open_() -> None:
        packet.length = len(sealed)
        ctypes.memmove(ctypes.byref(packet), sealed, len(sealed))
        opened = library._ZN8ZeroTier6Packet7dearmorEPKvPKNS_3AESE(ctypes.byref(packet), key, None)
        assert opened & 1

    ours = Armor(key, backends()[0])
    assert ours.open(sealed) is not None, "the real core seals something else"
    text = ctypes.create_string_buffer(384)
    size = ctypes.c_uint(384)
    library.zts_id_new(text, ctypes.byref(size))
    validate = 1000 / rate(lambda: library.zts_id_pair_is_valid(text, 384), seconds)
    return [
        Row("seal Salsa20/12", "libzt", rate(seal, seconds) * SIZE / 1e6, "MB/s"),
        Row("open Salsa20/12", "libzt", rate(open_, seconds) * SIZE / 1e6, "MB/s"),
        Row("validate an identity", "libzt", validate, "ms"),
        Row("generate an identity (mean)", "libzt", validate * 256 / 17, "ms"),
    ]


def measure(seconds: float) -> list[Row]:
    rows = libzt_rows(seconds)
    for backend in backends():
        rows += armor_rows(backend, seconds)
        rows += identity_rows(backend, seconds)
        rows += node_rows(backend, seconds, 11)
        if backend.name != "lanes":
            rows += node_rows(backend, seconds, 12)
    return sorted(rows, key=lambda row: (row.name, row.who))


def table(rows: list[Row]) -> str:
    width = max(len(row.name) for row in rows)
    return "\n".join(
        f"{row.name:{width}}  {row.who:12}  {row.value:12,.1f} {row.unit}" for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vl1", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each (default: 1.5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    rows = measure(options.seconds)
    print(table(rows))
    if options.json:
        document = {
            "schema": SCHEMA,
            "machine": machine(),
            "rows": [attrs.asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
