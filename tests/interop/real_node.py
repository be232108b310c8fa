"""One real node: libzt's core behind ctypes, run as a process of its own in a namespace.

Writes one JSON object a line: what changes (online, paths to the peers it was told to watch), and
an answer to each line of standard input (``watch ADDRESS``, ``orbit MOON SEED``, ``quit``).

    real_node.py SHARED_OBJECT STUB HOME PLANET PORT
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import sys
from typing import Any


def emit(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def paths(library: ctypes.CDLL, peer: int) -> list[str]:
    """Direct paths to a peer, as the core prints them."""
    found = []
    library.zts_core_lock_obtain()
    try:
        for index in range(max(0, library.zts_core_query_path_count(ctypes.c_uint64(peer)))):
            text = ctypes.create_string_buffer(64)
            library.zts_core_query_path(ctypes.c_uint64(peer), index, text, 64)
            found.append(text.value.decode(errors="replace"))
    finally:
        library.zts_core_lock_release()
    return sorted(found)


def main() -> None:
    shared_object, stub, home, planet, port = sys.argv[1:]
    ctypes.CDLL(stub, mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(shared_object)
    library.zts_node_get_id.restype = ctypes.c_uint64
    os.makedirs(home, exist_ok=True)
    library.zts_init_from_storage(home.encode())
    with open(planet, "rb") as file:
        world = file.read()
    if library.zts_init_set_roots(world, len(world)) != 0:
        raise SystemExit("zts_init_set_roots failed: it must not start with its built-in roots")
    library.zts_init_set_port(ctypes.c_uint16(int(port)))
    library.zts_init_allow_secondary_port(0)
    library.zts_init_allow_port_mapping(0)
    if library.zts_node_start() != 0:
        raise SystemExit("zts_node_start failed")
    watched: dict[int, list[str]] = {}
    is_online = False
    address = 0
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], 0.1)
        if not address and (address := library.zts_node_get_id()):
            emit(event="ready", address=f"{address:010x}")
        if is_online != bool(library.zts_node_is_online() == 1):
            is_online = not is_online
            emit(event="online" if is_online else "offline")
        for peer, before in watched.items():
            now = paths(library, peer)
            if now != before:
                watched[peer] = now
                emit(event="paths", peer=f"{peer:010x}", paths=now)
        if not readable:
            continue
        words = sys.stdin.readline().split()
        if not words or words[0] == "quit":
            os._exit(0)  # the library's own threads would keep the interpreter waiting
        if words[0] == "watch":
            watched[int(words[1], 16)] = []
        elif words[0] == "orbit":
            moon, seed = (ctypes.c_uint64(int(word, 16)) for word in words[1:])
            emit(event="orbit", result=library.zts_moon_orbit(moon, seed))


if __name__ == "__main__":
    main()
