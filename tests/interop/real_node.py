"""One real node: libzt's core behind ctypes, run as a process of its own in a namespace.

Writes one JSON object a line: what changes (whether it is online, how it reaches which peer), and
an answer to each line of standard input (``orbit MOON SEED``, ``quit``).

    real_node.py SHARED_OBJECT STUB HOME PLANET PORT
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import select
import sys
from typing import Any


def emit(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class EventMessage(ctypes.Structure):
    """What the library tells with each event; most of the pointers are null."""

    _fields_ = (
        ("code", ctypes.c_int16),
        ("node", ctypes.c_void_p),
        ("network", ctypes.c_void_p),
        ("interface", ctypes.c_void_p),
        ("route", ctypes.c_void_p),
        ("peer", ctypes.POINTER(ctypes.c_uint64)),  # its first field is the address
    )


PEER_EVENTS = {240: "direct", 241: "relay", 242: "unreachable", 243: "path_found", 244: "path_dead"}


def main() -> None:
    shared_object, stub, home, planet, port = sys.argv[1:]
    ctypes.CDLL(stub, mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(shared_object)
    library.zts_node_get_id.restype = ctypes.c_uint64
    events: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def told(this: int, message: Any) -> None:  # on one of the library's own threads
        del this
        content = message.contents
        if content.code in PEER_EVENTS and content.peer:
            events.put((content.code, content.peer[0]))

    # The wheel wants an object of a C++ class with one virtual method and a virtual destructor: a
    # pointer to a table of functions, of which only the first is ever called.
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(EventMessage))(told)
    table = (ctypes.c_void_p * 3)(ctypes.cast(function, ctypes.c_void_p).value)
    listener = ctypes.pointer(table)
    library.zts_init_set_event_handler(ctypes.byref(listener))
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
    is_online = False
    address = 0
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], 0.1)
        # Before it has started it answers with an error, which looks like an address.
        if not address and 0 < (found := library.zts_node_get_id()) < 1 << 40:
            address = found
            emit(event="ready", address=f"{address:010x}")
        if is_online != bool(library.zts_node_is_online() == 1):
            is_online = not is_online
            emit(event="online" if is_online else "offline")
        while True:
            try:
                code, peer = events.get_nowait()
            except queue.Empty:
                break
            emit(event=PEER_EVENTS[code], peer=f"{peer:010x}")
        if not readable:
            continue
        words = sys.stdin.readline().split()
        if not words or words[0] == "quit":
            os._exit(0)  # the library's own threads would keep the interpreter waiting
        if words[0] == "orbit":
            moon, seed = (ctypes.c_uint64(int(word, 16)) for word in words[1:])
            emit(event="orbit", result=library.zts_moon_orbit(moon, seed))


if __name__ == "__main__":
    main()
