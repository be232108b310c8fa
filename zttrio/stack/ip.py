"""IP on its way out, and the seam to the transports on its way in; both families alike.

This room knows the outbox and loopback; `paths` knows the way to each destination.  What comes in
is read by `zttrio.stack.ipv4` and `zttrio.stack.ipv6`, which hand whole packets to `Ip.deliver`.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from typing import TYPE_CHECKING

from zttrio.header import ipv4, ipv6
from zttrio.header.checksum import sum_of
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL, Buffer, Frame

from .fragmentation import finish_partial, fragment_ipv4, fragment_ipv6
from .packet import Packet, PathError
from .path import GROUP, MIN_MTU, NOWHERE, UNICAST, Path
from .paths import LOOPBACK_MTU, Paths

if TYPE_CHECKING:
    import random

    from zttrio.config import Config

    from .addresses import Addresses
    from .counters import Counters
    from .groups import Groups
    from .neighbor import Neighbor, Neighbors
    from .packet import Transport
    from .route import Routes
    from .selection import Selection
    from .timers import TimerQueue

__all__ = ["Ip"]

OUTBOX_LIMIT = 1024  # frames that wait for the wire, apart from what TCP keeps; Linux's txqueuelen
LOOPBACK_LIMIT = 1000  # packets to ourselves that wait; Linux's netdev_max_backlog
ERROR_LIMIT = 256  # news of lost packets that wait for the transports; arbitrary

_IPV4 = struct.Struct("!14sBBHHHBBH4s4s")
_IPV6 = struct.Struct("!14sIHBB16s16s")
_DONT_FRAGMENT = 0x4000


class Ip(Paths):
    """The IP layer of one stack.

    Args:
        groups: which multicast packets come back to us.
        counters: what is counted.
        config: default hop limit.

    The other ones are those of `Paths`; *rng* is for IPv6 fragment identifications too.

    Attributes:
        outbox: frames for the wire, oldest first; taken by the stack.
        neighbors: set by the stack, which the cache needs as well.
    """

    neighbors: Neighbors

    def __init__(
        self,
        *,
        mac: bytes,
        mtu: int,
        max_segment: int,
        checksum_offload: bool,
        preferred_packet: int,
        addresses: Addresses,
        routes: Routes,
        groups: Groups,
        selection: Selection,
        timers: TimerQueue,
        counters: Counters,
        config: Config,
        rng: random.Random,
    ) -> None:
        super().__init__(
            mac=mac,
            mtu=mtu,
            max_segment=max_segment,
            checksum_offload=checksum_offload,
            preferred_packet=preferred_packet,
            addresses=addresses,
            routes=routes,
            selection=selection,
            timers=timers,
            hop_limit=config.ttl,
            rng=rng,
        )
        self.outbox: deque[Frame] = deque()
        self._groups = groups
        self._counters = counters
        self._transports: dict[int, dict[int, Transport]] = {4: {}, 16: {}}
        self._loopback: deque[Packet] = deque()
        self._errors: deque[PathError] = deque()

    # what transports ask

    def register(
        self, protocol: int, transport: Transport, families: tuple[int, ...] = (4, 16)
    ) -> None:
        """Deliver packets of *protocol* to *transport*.

        Args:
            protocol: its number.
            transport: gets the packets, and news of lost ones.
            families: octets of an address of each family it works with.
        """
        for octets in families:
            self._transports[octets][protocol] = transport

    def transports(self, octets: int) -> dict[int, Transport]:
        """Who gets which protocol in the family of *octets*."""
        return self._transports[octets]

    def confirm(self, destination: bytes, now: float) -> None:
        """A transport has seen its packets to *destination* arrive (RFC 4861 7.3.1)."""
        path = self._paths.get(destination)
        if path is not None and path.kind == UNICAST:
            self.neighbors.confirm(path.next_hop, now)

    def waiting(self, destination: bytes) -> int:
        """How many packets wait for somebody to say where the next hop to *destination* is."""
        path = self.path(destination)
        if path.neighbor.mac is not None or path.kind != UNICAST:
            return 0
        neighbor = self.neighbors.get(path.next_hop)
        return 0 if neighbor is None or neighbor.queue is None else len(neighbor.queue)

    def lower_path_mtu(self, destination: bytes, mtu: int, now: float) -> None:
        """Believe an ICMP report that *mtu* octets are the most for *destination*.

        Called by the transport that the report's quotation belongs to, which alone can tell it
        from a stranger's guess (RFC 5927 7).  A report that is no news is ignored, and so is one
        below IPv6's minimum (RFC 8201 4).
        """
        path = self.path(destination)
        octets = len(destination)
        if path.kind != UNICAST or mtu >= path.mtu or (octets == 16 and mtu < MIN_MTU[16]):
            self._counters.pmtu_refused += 1
            return
        self._counters.pmtu_lowered += 1
        self.pmtus.lower(destination, mtu, now)

    @property
    def is_congested(self) -> bool:
        """True while so much waits for the wire that senders of datagrams should wait too."""
        return len(self.outbox) >= OUTBOX_LIMIT // 2

    # out

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
        loop: bool = True,
        leaves_host: bool = True,
    ) -> None:
        """Send one packet.  Never raises for what the network does: losses are counted.

        Args:
            source: packed, one of ours.
            destination: packed.
            protocol: the transport's number.
            header: the transport header.
            payload: what follows, kept by reference; must not change afterwards.
            now: seconds.
            checksum: a CHECKSUM_* about the transport's checksum.
            gso_size: not 0 for a super-segment (see `Frame`), up to `max_segment` octets.
            hop_limit: 0 for the default.
            traffic_class: DSCP and ECN.
            dont_fragment: a packet that is too long is dropped and reported as EMSGSIZE to the
                transport, instead of being cut.
            loop: of a packet to a group: members on this host get it too.
            leaves_host: of a packet to a group: nobody else does if this is False.
        """
        path = self._paths.get(destination)
        if path is None:
            path = self.path(destination)
        kind = path.kind
        if kind != UNICAST and not self._send_special(
            path,
            Packet(
                source,
                destination,
                protocol,
                header,
                payload,
                b"",
                hop_limit or path.hop_limit,
                traffic_class,
                checksum,
                gso_size,
                kind == GROUP,
            ),
            loop=loop,
            leaves_host=leaves_host,
        ):
            return
        length = len(header) + len(payload)
        if length > path.room and (not gso_size or gso_size + len(header) > path.room):
            if dont_fragment and path.may_discover:
                self._counters.ip_out_too_big += 1
                self._report(source, destination, protocol, header, errno.EMSGSIZE, path.mtu)
            else:
                data = b"".join((header, payload))
                if checksum == CHECKSUM_PARTIAL:
                    data = finish_partial(protocol, data)
                self._send_fragments(path, source, protocol, data, hop_limit, traffic_class, now)
            return
        neighbor = path.neighbor
        if now >= neighbor.fresh_until:
            neighbor = path.neighbor = self.neighbors.use(path.next_hop, source, now)
        if len(source) == 4:
            total = length + 20
            if total > 0xFFFF:
                total = 0  # a super-segment that is longer than any packet, see `Frame`
            if dont_fragment and path.may_discover:
                # RFC 6864 4.1: without fragments the identification means nothing
                identification = 0
                flags = _DONT_FRAGMENT
            else:
                identification = path.identification = path.identification + 1 & 0xFFFF
                flags = 0
            ttl = hop_limit or path.hop_limit
            check = path.address_sum if source == path.source else sum_of(source + destination)
            check += 0x4500 + traffic_class + total + identification + flags + (ttl << 8) + protocol
            check = (check & 0xFFFF) + (check >> 16)
            check = 0xFFFF - ((check & 0xFFFF) + (check >> 16))
            octets = _IPV4.pack(
                neighbor.ethernet,
                0x45,
                traffic_class,
                total,
                identification,
                flags,
                ttl,
                protocol,
                check,
                source,
                destination,
            )
        else:
            octets = _IPV6.pack(
                neighbor.ethernet,
                0x6000_0000 | traffic_class << 20,
                length if length <= 0xFFFF else 0,
                protocol,
                hop_limit or path.hop_limit,
                source,
                destination,
            )
        self._counters.ip_out += 1
        frame = Frame(octets + header, payload, gso_size, checksum)
        if neighbor.mac is None:
            self.neighbors.enqueue(neighbor, frame, now)
        else:
            self.transmit(frame)

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
        """`send` many, faster: of one size, but for the last, with headers of one size.

        Payloads of more than *gso_size* octets are super-segments of such parts.
        """
        outbox = self.outbox
        front = b""
        length = gso = 0
        for header, payload in segments:
            size = len(payload)
            if front and size == length and len(outbox) < OUTBOX_LIMIT:
                self._counters.ip_out += 1
                outbox.append(Frame(front + header, payload, gso, checksum))
                continue
            length = size
            gso = gso_size if size > gso_size else 0
            waiting = len(outbox)
            self.send(
                source,
                destination,
                protocol,
                header,
                payload,
                now,
                checksum=checksum,
                gso_size=gso,
                hop_limit=hop_limit,
                traffic_class=traffic_class,
            )
            path = self._paths.get(destination)
            if (
                len(outbox) == waiting + 1
                and path is not None
                and path.kind == UNICAST
                and path.may_discover
            ):
                # Packets of this size have the same headers below the transport's: what must not
                # be cut has no identification (RFC 6864 4.1).
                front = bytes(outbox[-1].header[: -len(header)])

    def transmit(self, frame: Frame) -> None:
        """Queue a complete frame for the wire; dropped and counted if too many wait."""
        outbox = self.outbox
        if len(outbox) >= OUTBOX_LIMIT:
            self._counters.frames_out_full += 1
        else:
            outbox.append(frame)

    def neighbor_failed(self, neighbor: Neighbor, frames: list[Frame], now: float) -> None:
        """Report packets that waited in vain for a neighbor (RFC 1122 2.3.2.2)."""
        del now
        for frame in frames:
            data = bytes(frame.header[14:])
            if len(neighbor.address) == 4:
                four = ipv4.Ipv4Header.parse_quoted(data)
                source, destination, protocol = four.source, four.destination, four.protocol
                start = ipv4.LENGTH
                is_later = four.fragment_offset != 0
            else:
                six = ipv6.Ipv6Header.parse_quoted(data)
                source, destination, protocol = six.source, six.destination, six.next_header
                start = ipv6.LENGTH
                is_later = False
                if protocol == ipv6.FRAGMENT:
                    fragment = ipv6.FragmentHeader.parse(data, start)
                    protocol = fragment.next_header
                    start += ipv6.FRAGMENT_LENGTH
                    is_later = fragment.fragment_offset != 0
            if not is_later:
                header = data[start:] or bytes(frame.payload[:64])
                self._report(source, destination, protocol, header, errno.EHOSTUNREACH)

    # in

    def deliver(self, packet: Packet, now: float) -> bool:
        """Hand a whole packet to its transport; False if there is none for its protocol."""
        transport = self._transports[len(packet.source)].get(packet.protocol)
        if transport is None:
            self._counters.ip_unknown_protocol += 1
            return False
        self._counters.ip_delivered += 1
        transport.receive_packet(packet, now)
        return True

    def settle(self, now: float) -> bool:
        """Deliver what we have sent to ourselves and the news of lost packets; False if none."""
        if not self._loopback and not self._errors:
            return False
        loopback = self._loopback
        for _ in range(len(loopback)):  # what this sets off is for the next round
            packet = loopback.popleft()
            self._counters.ip_in += 1
            self._counters.ip_loopback += 1
            self.deliver(packet, now)
        for _ in range(len(self._errors)):
            error = self._errors.popleft()
            transport = self._transports[len(error.source)].get(error.protocol)
            if transport is not None:
                transport.receive_error(error, now)
        return True

    @property
    def is_settled(self) -> bool:
        """True if `settle` has nothing to do."""
        return not self._loopback and not self._errors

    @property
    def sizes(self) -> dict[str, int]:
        """How much every bounded table of this layer holds."""
        return {
            "paths": len(self._paths),
            "path mtus": len(self.pmtus),
            "outbox": len(self.outbox),
            "loopback": len(self._loopback),
            "errors": len(self._errors),
        }

    def _send_special(self, path: Path, packet: Packet, *, loop: bool, leaves_host: bool) -> bool:
        """Send *packet* where no neighbor is; True if it has to go to the wire as well."""
        if path.kind == NOWHERE:
            self._counters.ip_out_no_route += 1
            self._report(
                packet.source, packet.destination, packet.protocol, packet.transport, path.error
            )
            return False
        is_group = path.kind == GROUP
        if is_group and not (loop and (path.is_broadcast or packet.destination in self._groups)):
            return leaves_host
        if len(self._loopback) >= LOOPBACK_LIMIT:
            self._counters.loopback_full += 1
        else:
            self._loopback.append(packet)
        return is_group and leaves_host

    def _report(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        header: Buffer,
        error: int,
        mtu: int = 0,
    ) -> None:
        """Tell the transport that its packet was lost, but not while it is sending."""
        if len(self._errors) < ERROR_LIMIT:
            self._errors.append(
                PathError(source, destination, protocol, bytes(header), error, mtu=mtu)
            )

    def _send_fragments(
        self,
        path: Path,
        source: bytes,
        protocol: int,
        data: bytes,
        hop_limit: int,
        traffic_class: int,
        now: float,
    ) -> None:
        destination = path.destination
        ttl = hop_limit or path.hop_limit
        if len(data) > LOOPBACK_MTU - (ipv4.LENGTH if len(source) == 4 else 0):
            self._counters.ip_out_too_big += 1
            self._report(source, destination, protocol, data[:64], errno.EMSGSIZE, path.mtu)
            return
        if len(source) == 4:
            path.identification = path.identification + 1 & 0xFFFF
            pieces = fragment_ipv4(
                ipv4.Ipv4Header(
                    source,
                    destination,
                    protocol,
                    0,
                    ttl,
                    path.identification,
                    traffic_class=traffic_class,
                ),
                data,
                path.mtu,
            )
        else:
            pieces = fragment_ipv6(
                ipv6.Ipv6Header(source, destination, protocol, 0, ttl, traffic_class),
                self._rng.getrandbits(32),  # RFC 7739: not to be guessed
                data,
                path.mtu,
            )
        self._counters.ip_out += 1
        self._counters.ip_out_fragmented += 1
        neighbor = path.neighbor
        if now >= neighbor.fresh_until:
            neighbor = path.neighbor = self.neighbors.use(path.next_hop, source, now)
        for header, piece in pieces:
            self._counters.ip_out_fragments += 1
            frame = Frame(neighbor.ethernet + header, piece)
            if neighbor.mac is None:
                self.neighbors.enqueue(neighbor, frame, now)
            else:
                self.transmit(frame)
