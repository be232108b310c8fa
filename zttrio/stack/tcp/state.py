"""The states of RFC 9293 3.3.2, spelled as there, and what may happen in which."""

from __future__ import annotations

__all__ = [
    "CLOSED",
    "CLOSE_WAIT",
    "CLOSING",
    "ESTABLISHED",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "LAST_ACK",
    "LISTEN",
    "MAY_QUEUE",
    "MAY_RECEIVE",
    "SENDS_DATA",
    "SYN_RECEIVED",
    "SYN_SENT",
    "TIME_WAIT",
]

CLOSED = "CLOSED"
LISTEN = "LISTEN"
SYN_SENT = "SYN_SENT"
SYN_RECEIVED = "SYN_RECEIVED"
ESTABLISHED = "ESTABLISHED"
FIN_WAIT_1 = "FIN_WAIT_1"
FIN_WAIT_2 = "FIN_WAIT_2"
CLOSE_WAIT = "CLOSE_WAIT"
CLOSING = "CLOSING"
LAST_ACK = "LAST_ACK"
TIME_WAIT = "TIME_WAIT"

MAY_QUEUE = frozenset((ESTABLISHED, CLOSE_WAIT))
"""The program may still send."""

MAY_RECEIVE = frozenset((ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2))
"""The peer may still send."""

SENDS_DATA = frozenset((ESTABLISHED, CLOSE_WAIT, FIN_WAIT_1, CLOSING, LAST_ACK))
"""There may be data or a FIN of ours to send or to send again."""
