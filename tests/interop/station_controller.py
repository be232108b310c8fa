"""Our root and controller, one process: carries out commands of standard input (see `.station`).

station_controller.py HOME PLANET PORT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from zttrio.controller import ControllerService
from zttrio.wire.zerotier.home import read_world
from zttrio.zerotier.config import NodeConfig, RelayConfig


def answer(number: int, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"id": number, **fields}) + "\n")
    sys.stdout.flush()


async def carry_out(service: ControllerService, request: dict[str, Any]) -> dict[str, Any]:
    controller = service.controller
    now = trio.current_time()
    network_id = int(request.get("network", "0"), 16)
    match request["do"]:
        case "create":
            record = controller.create_network(request["changes"], now)
            await service.commit()
            return {"network": f"{record.network_id:016x}"}
        case "change":
            controller.change_network(network_id, request["changes"], now)
            await service.commit()
            return {}
        case "member":
            address = bytes.fromhex(request["address"])
            member = controller.change_member(network_id, address, request["changes"], now)
            await service.commit()
            return {"member": dict(member.fields)}
        case "members":
            members = controller.members(network_id)
            return {"members": {member.address.hex(): dict(member.fields) for member in members}}
        case "counters":
            node, networks = service.task.node.counters, service.networks.counters
            return {"node": node.as_dict(), "networks": networks.as_dict()}
    return {"error": f"unknown: {request}"}


async def main() -> None:
    home, planet, port = sys.argv[1:]
    service = ControllerService(
        home,
        worlds=[read_world(Path(planet))],
        port=int(port),
        api_port=0,
        config=NodeConfig(validation_interval=0),
        relay=RelayConfig(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        answer(0, address=str(service.task.node.identity))
        buffer = b""
        async for chunk in trio.lowlevel.FdStream(0):
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                request = json.loads(line)
                try:
                    answer(request["id"], **await carry_out(service, request))
                except Exception as exc:
                    answer(request["id"], error=repr(exc))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
