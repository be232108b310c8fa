"""Runs the groups that are named, or all."""

from __future__ import annotations

import sys

from . import datagrams, families, opening, options, processes, streams
from .base import GROUPS

MODULES = (
    opening,
    streams,
    datagrams,
    families,
    options,
    processes,
)  # they add themselves to GROUPS

for name in sys.argv[1:] or list(GROUPS):
    sys.stdout.write(f"== {name}\n")
    GROUPS[name]()
