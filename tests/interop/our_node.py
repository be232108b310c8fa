"""One of our nodes, run as a process of its own in a namespace.

Writes one JSON object a line: every event, and an answer to each line of standard input
(``echo ADDRESS OCTETS``, ``peers``, ``counters``, ``worlds``, ``orbit MOON SEED``,
``world FILE``, ``quit``).

    our_node.py HOME PLANET PORT [--relay] [--protocol N] [--moon FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import trio

from zttrio.wire.zerotier import NodeTask
from zttrio.wire.zerotier.home import read_world
from zttrio.zerotier.config import NodeConfig, RelayConfig


def emit(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


def told(event: Any) -> None:
    fields = attrs.asdict(event, recurse=False)
    emit(event=type(event).__name__, **{name: _plain(value) for name, value in fields.items()})


async def command(task: NodeTask, words: list[str]) -> None:
    match words:
        case ["echo", address, size]:
            payload = bytes(i % 251 for i in range(int(size)))
            with trio.move_on_after(5):
                answer = await task.echo(bytes.fromhex(address), payload)
                emit(
                    event="echo",
                    intact=answer.payload == payload,
                    hops=answer.hops,
                    remote=str(answer.remote),
                )
                return
            emit(event="echo", intact=False, hops=-1, remote="")
        case ["peers"]:
            now = trio.current_time()
            emit(
                event="peers",
                peers={
                    str(peer.identity): {
                        "protocol": peer.protocol,
                        "version": peer.version,
                        "moons": peer.moons,
                        "paths": [str(p.remote) for p in peer.paths.values() if p.is_alive(now)],
                    }
                    for peer in task.node.peers()
                },
            )
        case ["counters"]:
            emit(event="counters", **task.node.counters.as_dict())
        case ["worlds"]:
            worlds = task.node.topology.worlds()
            emit(event="worlds", worlds={f"{w.id:016x}": w.timestamp for w in worlds})
        case ["orbit", moon, seed]:
            task.orbit(int(moon, 16), bytes.fromhex(seed))
        case ["world", name]:
            await task.set_world(read_world(Path(name)))
        case _:
            emit(event="unknown", words=words)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home")
    parser.add_argument("planet")
    parser.add_argument("port", type=int)
    parser.add_argument("--relay", action="store_true")
    parser.add_argument("--protocol", type=int, default=12)
    parser.add_argument("--moon")
    options = parser.parse_args()
    task = NodeTask(
        options.home,
        worlds=[read_world(Path(name)) for name in (options.planet, options.moon) if name],
        port=options.port,
        config=NodeConfig(protocol=options.protocol, validation_interval=0),
        relay=RelayConfig() if options.relay else None,
    )
    task.on_event = told
    async with trio.open_nursery() as nursery:
        await nursery.start(task.run)
        emit(event="ready", address=task.node.address.hex())
        stdin = trio.lowlevel.FdStream(0)
        buffer = b""
        async for chunk in stdin:
            buffer += chunk
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                words = line.decode().split()
                if words == ["quit"]:
                    nursery.cancel_scope.cancel()
                else:
                    nursery.start_soon(command, task, words)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
