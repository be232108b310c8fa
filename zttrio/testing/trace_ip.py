"""What a `zttrio.testing.trace.TcpTrace` has for an IP layer (see `zttrio.stack.tcp.lower`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header.frame import CHECKSUM_COMPLETE

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import Transport

    # source, destination, header, payload, now, checksum, gso_size, traffic_class, dont_fragment
    Take = Callable[[bytes, bytes, bytes, bytes, float, int, int, int, bool], None]

__all__ = ["TraceIp"]


class TraceIp:
    """Stands where the IP layer is: hands on what is sent, knows one path.

    Args:
        local: the packed address of the TCP under test.
        mtu: octets of the largest packet.
        max_segment: octets of the largest super-segment, 0 for plain segments only.
        take: gets each segment.

    Attributes:
        mtu: as above.
        segment: *max_segment*.
        checksum: segments need their checksum.
        queued: packets that wait for the next hop's address.
        confirmed: how often TCP has said that its packets arrive.
    """

    def __init__(self, local: bytes, mtu: int, max_segment: int, take: Take) -> None:
        self.mtu = mtu
        self.segment = max_segment
        self.checksum = True
        self.queued = 0
        self.confirmed = 0
        self._local = local
        self._take = take

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
        """Hand a segment to the trace."""
        del protocol, hop_limit
        self._take(
            source,
            destination,
            bytes(header),
            bytes(payload),
            now,
            checksum,
            gso_size,
            traffic_class,
            dont_fragment,
        )

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
        """Hand on segments one by one."""
        for header, payload in segments:
            self.send(
                source,
                destination,
                protocol,
                header,
                payload,
                now,
                checksum=checksum,
                gso_size=gso_size if len(payload) > gso_size else 0,
                hop_limit=hop_limit,
                traffic_class=traffic_class,
            )

    def select_source(self, destination: bytes) -> bytes:
        """Give the local address."""
        del destination
        return self._local

    def segment_mtu(self, destination: bytes) -> int:
        """Give `mtu`, wherever it goes."""
        del destination
        return self.mtu

    def may_bind(self, address: bytes) -> bool:
        """Take the local address, and the wildcards."""
        return address == self._local or not any(address)

    def is_local(self, address: bytes) -> bool:
        """True for the one local address."""
        return address == self._local

    def needs_checksum(self, destination: bytes) -> bool:
        """Give `checksum`, wherever it goes."""
        del destination
        return self.checksum

    def max_segment(self, destination: bytes) -> int:
        """Give `segment`, wherever it goes."""
        del destination
        return self.segment

    def register(self, protocol: int, transport: Transport, families: tuple[int, ...]) -> None:
        """Nothing to do: the trace calls the one transport there is."""
        del protocol, transport, families

    def lower_path_mtu(self, destination: bytes, mtu: int, now: float) -> None:
        """Believe every report."""
        del destination, now
        self.mtu = min(self.mtu, mtu)

    def waiting(self, destination: bytes) -> int:
        """Give `queued`."""
        del destination
        return self.queued

    def confirm(self, destination: bytes, now: float) -> None:
        """Count it."""
        del destination, now
        self.confirmed += 1
