"""Tools for testing programs on simulated networks."""

from zttrio.wire.link import Link
from zttrio.wire.memory import FrameRecord

from .lab import Lab
from .trace import TcpTrace, TracedSegment

__all__ = ["FrameRecord", "Lab", "Link", "TcpTrace", "TracedSegment"]
