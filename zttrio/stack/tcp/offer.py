"""What we announce when a connection opens, and the buffers that stand behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .emit import MIN_MSS

if TYPE_CHECKING:
    from zttrio.config import Config

    from .options import TcpOptions

__all__ = ["Offer"]

# At first; both grow to what Config allows while a connection makes use of them.
RECEIVE_BUFFER = 262_144  # twice Linux's tcp_rmem, whose windows leave room for overhead
SEND_BUFFER = 262_144  # arbitrary: a few writes of a program in a hurry
LARGE_SEGMENTS = 16  # of 64 KiB: with fewer, both ends of a fast cable take turns; arbitrary
MAX_SCALE = 14  # RFC 7323 2.3


@attrs.frozen
class Offer:
    """For one connection.

    Attributes:
        mss: the largest segment that fits the wire (RFC 9293 3.7.1).
        window_scale: lets the window name the largest receive buffer (RFC 7323 2.2).
        receive_buffer: octets that may wait to be read, at first.
        send_buffer: octets that may wait to be acknowledged, at first.
    """

    mss: int
    window_scale: int
    receive_buffer: int
    send_buffer: int

    @classmethod
    def make(cls, config: Config, options: TcpOptions, mtu: int, octets: int) -> Offer:
        """What to offer.

        Args:
            config: the stack's.
            options: the program's.
            mtu: octets of the largest packet on the way.
            octets: of an address of the family.
        """
        mss = mtu - (40 if octets == 4 else 60)
        if options.max_segment:
            mss = min(mss, options.max_segment)
        mss = max(min(mss, 0xFFFF), MIN_MSS)
        largest = max(options.receive_buffer, config.receive_buffer)
        scale = 0
        while scale < MAX_SCALE and 0xFFFF << scale < largest:
            scale += 1
        return cls(
            mss,
            scale,
            options.receive_buffer
            or min(max(RECEIVE_BUFFER, LARGE_SEGMENTS * mss), config.receive_buffer),
            options.send_buffer or min(max(SEND_BUFFER, LARGE_SEGMENTS * mss), config.send_buffer),
        )

    @property
    def window(self) -> int:
        """The window field of a SYN, which is never scaled."""
        return min(self.receive_buffer, 0xFFFF)
