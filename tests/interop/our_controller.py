"""Our root and controller in one node, run as a process of its own in a namespace.

Writes one JSON object a line, an answer to each line of standard input: ``network FIELDS`` makes a
network, ``change ID FIELDS`` changes it, ``member ID ADDRESS FIELDS`` changes a member, with fields
as JSON without spaces; ``quit``.

    our_controller.py HOME PLANET PORT
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import trio

from zttrio.controller import ControllerService
from zttrio.wire.zerotier.home import read_world
from zttrio.zerotier.config import NodeConfig, RelayConfig

from our_node import emit  # type: ignore[import-not-found]  # beside this file


def change(service: ControllerService, words: list[str]) -> None:
    controller, now = service.controller, trio.current_time()
    match words:
        case ["network", fields]:
            network_id = controller.create_network(json.loads(fields), now).network_id
        case ["change", text, fields]:
            network_id = int(text, 16)
            controller.change_network(network_id, json.loads(fields), now)
        case ["member", text, address, fields]:
            network_id = int(text, 16)
            controller.change_member(network_id, bytes.fromhex(address), json.loads(fields), now)
        case _:
            raise ValueError(f"{words} is no command")
    emit(event=words[0], network=f"{network_id:016x}")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home")
    parser.add_argument("planet")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    service = ControllerService(
        options.home,
        worlds=[read_world(Path(options.planet))],
        port=options.port,
        config=NodeConfig(validation_interval=0),
        relay=RelayConfig(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        emit(event="ready", address=service.task.node.address.hex())
        buffer = b""
        async for chunk in trio.lowlevel.FdStream(0):
            buffer += chunk
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                words = line.decode().split()
                if words == ["quit"]:
                    nursery.cancel_scope.cancel()
                else:
                    change(service, words)
                    await service.commit()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
