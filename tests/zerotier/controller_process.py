"""Runs controllers to be killed: for each line of input a new one, forked from this process.

Usage: python controller_process.py HOME.  Prints the process ID and the port of the HTTP interface
of each when it answers.
"""

from __future__ import annotations

import os
import sys

import trio

from zttrio.controller import ControllerService
from zttrio.header.address import packed


async def serve(home: str) -> None:
    service = ControllerService(home, bind=[packed("127.0.0.1")], check=lambda identity: True)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        sys.stdout.write(f"{os.getpid()} {service.api_port}\n")
        sys.stdout.flush()


def main() -> None:
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            trio.run(serve, sys.argv[1])
            os._exit(1)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
