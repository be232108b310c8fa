"""Where Ethernet frames come from and go to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .host import HostSegment
from .kernel import Tap
from .link import Link
from .memory import FrameRecord, MemorySegment, MemoryWire

if TYPE_CHECKING:
    from .zerotier import ZeroTier

__all__ = ["FrameRecord", "HostSegment", "Link", "MemorySegment", "MemoryWire", "Tap", "ZeroTier"]


def __getattr__(name: str) -> object:
    """Import what needs the packages of the ``zerotier`` extra when somebody asks for it."""
    if name == "ZeroTier":
        from .zerotier import ZeroTier

        return ZeroTier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
