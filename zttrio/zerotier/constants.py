"""Numbers that both ends of VL1 must agree on, and the reference's time constants.

Times are seconds, sizes are octets.  Numbers in brackets, here and in the other files of this
room, are sections of the VL1 specification.
"""

from __future__ import annotations

__all__ = [
    "ADDRESS_LENGTH",
    "HELLO_PERIOD",
    "HOP_LIMIT",
    "MAX_FRAGMENTS",
    "MAX_PACKET",
    "MAX_PAYLOAD",
    "MIN_PROTOCOL",
    "MTU",
    "PATH_ALIVE",
    "PATH_EXPIRY",
    "PATH_HEARTBEAT",
    "PROTOCOL",
    "PROTOCOL_AES",
    "PROTOCOL_ECHO",
    "TICK",
    "UNKNOWN_LATENCY",
    "WAITING_TIME",
    "WHOIS_RETRY",
    "is_reserved",
]

ADDRESS_LENGTH = 5
PROTOCOL = 12  # the first with AES-GMAC-SIV; what current nodes send
PROTOCOL_AES = 12
PROTOCOL_ECHO = 5  # older nodes do not know ECHO
MIN_PROTOCOL = 4  # older nodes are ignored
MTU = 1432  # UDP payload without knowing better (17.2)
MAX_FRAGMENTS = 7
MAX_PACKET = MTU * MAX_FRAGMENTS  # 10 024 (5.1)
MAX_PAYLOAD = MAX_PACKET - 28  # behind the verb
HOP_LIMIT = 3  # a relay passes on packets with fewer hops than this (18.4)

TICK = 5.0
WHOIS_RETRY = 0.5
WAITING_TIME = 5.0  # packets that wait for an identity or for their other fragments
PATH_ALIVE = 19.0
PATH_HEARTBEAT = 14.0
PATH_EXPIRY = 243.0
HELLO_PERIOD = 60.0
UNKNOWN_LATENCY = 65.535  # (12.3)


def is_reserved(address: bytes) -> bool:
    """True for addresses that no node can have: zero, and everything that starts with ff (2)."""
    return address[0] == 0xFF or not any(address)
