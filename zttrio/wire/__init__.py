"""Where Ethernet frames come from and go to."""

from .host import HostSegment
from .kernel import Tap
from .link import Link
from .memory import FrameRecord, MemorySegment, MemoryWire

__all__ = ["FrameRecord", "HostSegment", "Link", "MemorySegment", "MemoryWire", "Tap"]
