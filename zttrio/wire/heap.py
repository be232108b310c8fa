"""Keeps glibc from giving memory back that the next burst needs again."""

from __future__ import annotations

__all__ = ["keep_freed_memory"]

_BLOCK = 24 << 20  # below glibc's DEFAULT_MMAP_THRESHOLD_MAX of 32 MiB, see mallopt(3)


def keep_freed_memory() -> None:
    """Make this process keep freed buffers for their next use; a wire calls it when it starts.

    A wire that reads frames of 64 KiB allocates and frees a lot of them.  glibc returns them to
    the kernel each time, and clearing fresh pages then costs more than moving the frames: with
    this call the host segment takes less than half the processor time.  Freeing one large block
    raises glibc's thresholds for the life of the process (mallopt(3), M_MMAP_THRESHOLD); it
    is never touched and costs no memory itself.  Elsewhere than in glibc nothing happens.
    """
    block = bytearray(_BLOCK)
    del block
