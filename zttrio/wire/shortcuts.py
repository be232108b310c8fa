"""Which shortcuts wires may take around the complete way of a packet.

Shortcuts make no difference that a peer could see, so that they can be switched off to find out
whether one of them is to blame: ``ZTTRIO_OFFLOAD=0`` in the environment makes wires carry finished
checksums and plain frames only, and ``ZTTRIO_COALESCE=0`` keeps them from cutting super-segments
and merging segments themselves.  (``ZTTRIO_PURE=1`` is for `zttrio.kernels`.)  The test-suite runs
each way.
"""

from __future__ import annotations

import os

__all__ = ["COALESCE", "OFFLOAD"]

OFFLOAD = os.environ.get("ZTTRIO_OFFLOAD") != "0"
"""Checksums may stay unfinished, and the other side may cut and merge TCP segments."""
COALESCE = os.environ.get("ZTTRIO_COALESCE") != "0"
"""We may cut and merge TCP segments at the wire's edge."""
