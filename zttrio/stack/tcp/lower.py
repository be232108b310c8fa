"""What TCP asks of the IP layer below it, whatever the family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zttrio.header.frame import CHECKSUM_COMPLETE

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import Transport

__all__ = ["IpService"]


class IpService(Protocol):
    """`zttrio.stack.ip.Ip` as TCP sees it; packet traces put something smaller there."""

    def send(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        header: Buffer,
        payload: Buffer,
        now: float,
        *,
        checksum: int = CHECKSUM_COMPLETE,
        gso_size: int = 0,
        hop_limit: int = 0,
        traffic_class: int = 0,
        dont_fragment: bool = True,
    ) -> None:
        """Send one packet; what the network does to it is reported later, if at all."""

    def send_run(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        segments: list[tuple[bytes, Buffer]],
        now: float,
        *,
        checksum: int,
        gso_size: int,
        hop_limit: int,
        traffic_class: int,
    ) -> None:
        """`send` many: headers and payloads, all of one size but the last, which may be shorter."""

    def select_source(self, destination: bytes) -> bytes:
        """Which of our addresses to use; OSError (ENETUNREACH) if there is no way."""

    def segment_mtu(self, destination: bytes) -> int:
        """Octets of the largest packet that is known to fit and that the wire likes."""

    def is_local(self, address: bytes) -> bool:
        """True if *address* is one of ours."""

    def may_bind(self, address: bytes) -> bool:
        """True if a program may bind to *address*."""

    def needs_checksum(self, destination: bytes) -> bool:
        """False if segments to *destination* may carry an unfinished checksum."""

    def max_segment(self, destination: bytes) -> int:
        """Octets of payload of the largest super-segment; 0 if there are none."""

    def waiting(self, destination: bytes) -> int:
        """How many packets wait for the next hop to *destination* to be found."""

    def register(self, protocol: int, transport: Transport, families: tuple[int, ...]) -> None:
        """Deliver packets and errors of *protocol* to *transport*."""

    def lower_path_mtu(self, destination: bytes, mtu: int, now: float) -> None:
        """Believe that *mtu* octets are the most that reach *destination*."""

    def confirm(self, destination: bytes, now: float) -> None:
        """Learn that packets to *destination* arrive (RFC 4861 7.3.1)."""
