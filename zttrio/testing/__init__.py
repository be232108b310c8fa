"""Tools for testing programs on simulated networks."""

from zttrio.wire.link import Link
from zttrio.wire.memory import FrameRecord

from .lab import Lab

__all__ = ["FrameRecord", "Lab", "Link"]
