"""UDP (RFC 768, RFC 1122 4.1) for endpoints that behave like Linux's sockets.

An endpoint's local address is packed, or None for every address of both families; the family of a
datagram is the length of its addresses.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zttrio.header import udp
from zttrio.header.address import (
    IPV4_UNSPECIFIED,
    IPV6_UNSPECIFIED,
    ip_text,
    is_loopback,
    is_multicast,
    is_unspecified,
    packed,
    unspecified,
)
from zttrio.header.checksum import fold, pseudo_header, transport_checksum
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL
from zttrio.header.ipv4 import PROTOCOL_UDP

from .datagram import OVERHEAD, Control, Datagram, UdpEndpoint
from .events import ERR, RD, WR
from .path import GROUP, LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zttrio.config import Config
    from zttrio.header.frame import Buffer

    from .counters import Counters
    from .events import EventQueue
    from .groups import Groups
    from .icmp import Icmp
    from .ip import Ip
    from .packet import Packet, PathError
    from .ports import Ports

__all__ = ["OVERHEAD", "Control", "Datagram", "UdpEndpoint", "UdpLayer"]

MAX_PAYLOAD = {4: 0xFFFF - 20 - udp.LENGTH, 16: 0xFFFF - udp.LENGTH}
_LOOPBACKS = {4: packed("127.0.0.1"), 16: packed("::1")}


class UdpLayer:
    """All UDP endpoints of one stack; a transport.

    Args:
        ip: what it sends through.
        icmp: says that nobody listens.
        ports: which ports are taken.
        groups: which groups we are in.
        events: where endpoints report.
        counters: what is counted.
        config: the default receive buffer.

    Attributes:
        groups: which groups we are in.
    """

    def __init__(
        self,
        ip: Ip,
        icmp: Icmp,
        ports: Ports,
        groups: Groups,
        events: EventQueue,
        counters: Counters,
        config: Config,
    ) -> None:
        self.groups = groups
        self._ip = ip
        self._icmp = icmp
        self._ports = ports
        self._events = events
        self._counters = counters
        self._receive_buffer = config.udp_receive_buffer
        self._by_port: dict[int, list[UdpEndpoint]] = {}
        # by remote and local address and port
        self._connected: dict[tuple[bytes, int, bytes | None, int], list[UdpEndpoint]] = {}
        self._blocked: dict[UdpEndpoint, None] = {}
        ip.register(PROTOCOL_UDP, self)

    def open(self) -> UdpEndpoint:
        """A new endpoint, not bound yet."""
        return UdpEndpoint(self, self._receive_buffer)

    def endpoints(self) -> Iterator[UdpEndpoint]:
        """Every endpoint that is bound."""
        for bound in self._by_port.values():
            yield from bound

    @property
    def sizes(self) -> dict[str, int]:
        """How much every table holds."""
        return {
            "udp endpoints": sum(map(len, self._by_port.values())),
            "udp queues": sum(endpoint.receive_queue for endpoint in self.endpoints()),
        }

    # in

    def receive_packet(self, packet: Packet, now: float) -> None:
        """Take in one datagram.  Never raises."""
        counters = self._counters
        counters.udp_in += 1
        data = packet.transport
        payload = packet.payload
        if len(data) < udp.LENGTH:
            data, payload = packet.data(), b""
            if len(data) < udp.LENGTH:
                counters.udp_malformed += 1
                return
        # The ports and lengths are all there is: no header object for four numbers.
        ports = int.from_bytes(data[:4])
        length = data[4] << 8 | data[5]
        available = len(data) + len(payload)
        if not udp.LENGTH <= length <= available:
            counters.udp_malformed += 1
            return
        if length < available:
            if payload:
                data, payload = packet.data(), b""
            data = data[:length]
        if not data[6] and not data[7]:
            if len(packet.source) == 16:  # RFC 8200 8.1: IPv6 has no other checksum
                counters.udp_bad_checksum += 1
                return
        elif packet.checksum == CHECKSUM_COMPLETE and transport_checksum(
            packet.source, packet.destination, PROTOCOL_UDP, data, payload
        ):
            counters.udp_bad_checksum += 1
            return
        body = bytes(data[udp.LENGTH :])  # a copy: the frame behind it may be much longer
        if payload:
            body = b"".join((body, payload)) if body else bytes(payload)
        source = (packet.source, ports >> 16)
        destination = (packet.destination, ports & 0xFFFF)
        # A frame for everybody may carry a packet for one address.
        is_group = packet.is_multicast and self._ip.is_group(packet.destination)
        found = self._find(source, destination, is_group=is_group)
        if not found:
            if packet.is_multicast:
                counters.udp_group_not_wanted += 1
            else:
                counters.udp_no_port += 1
                self._icmp.port_unreachable(packet, now)
            return
        datagram = Datagram(body, source, destination, packet.hop_limit, packet.traffic_class)
        was_queued = False
        for endpoint in found:
            was_queued |= endpoint.enqueue(datagram)
        if was_queued:
            counters.udp_delivered += 1
        else:
            counters.udp_queue_full += 1

    def receive_error(self, error: PathError, now: float) -> None:
        """Learn that a datagram was lost.

        As on Linux only connected endpoints hear of it, and only of hard errors.
        """
        if len(error.quoted) < 4:
            self._counters.udp_errors_unmatched += 1
            return
        source = (error.source, int.from_bytes(error.quoted[:2]))
        destination = (error.destination, int.from_bytes(error.quoted[2:4]))
        found = self._find(destination, source, is_group=False)
        if not found:
            self._counters.udp_errors_unmatched += 1
            return
        if error.error == errno.EMSGSIZE and error.mtu:
            self._ip.lower_path_mtu(error.destination, error.mtu, now)
        for endpoint in found:
            if endpoint.remote == destination and (error.is_hard or error.error == errno.EMSGSIZE):
                endpoint.error = error.error
                self.report(endpoint, RD | WR | ERR)

    # for endpoints

    def report(self, endpoint: UdpEndpoint, bits: int) -> None:
        """Raise an event of *endpoint*."""
        self._events.raise_event(endpoint, bits)

    def wake_blocked(self) -> None:
        """The wire takes frames again: tell the endpoints that found it full."""
        if self._blocked:
            blocked, self._blocked = self._blocked, {}
            for endpoint in blocked:
                self.report(endpoint, WR)

    def bind(
        self,
        endpoint: UdpEndpoint,
        address: bytes | None,
        port: int,
        *,
        reuse_address: bool = False,
        reuse_port: bool = False,
    ) -> None:
        """Get a binding for *endpoint*; see `UdpEndpoint.bind`."""
        if address is not None and not self._ip.may_bind(address):
            raise OSError(errno.EADDRNOTAVAIL, f"bind: {ip_text(address)} is not our address")
        binding = self._ports.bind(
            PROTOCOL_UDP,
            address,
            port,
            reuse_address=reuse_address,
            reuse_port=reuse_port,
            owner_text="a UDP socket",
        )
        endpoint.attach(binding)
        self._by_port.setdefault(binding.port, []).append(endpoint)

    def connect(self, endpoint: UdpEndpoint, remote: tuple[bytes, int] | None) -> None:
        """Change the peer of *endpoint*; see `UdpEndpoint.connect`."""
        if remote is not None:
            remote = (_or_loopback(remote[0]), remote[1])
            source = self._source(endpoint, remote[0])  # nothing is changed if this fails
            if endpoint.binding is None:
                self.bind(endpoint, None, 0)
        self._disconnect(endpoint)
        if remote is not None:
            endpoint.remote = remote
            endpoint.local = (source, endpoint.local[1])
            self._connected.setdefault((*remote, *endpoint.local), []).append(endpoint)

    def send(
        self,
        endpoint: UdpEndpoint,
        data: Buffer,
        remote: tuple[bytes, int],
        now: float,
        control: Control | None = None,
    ) -> int:
        """Send one datagram of *endpoint*; see `UdpEndpoint.send`."""
        address, port = _or_loopback(remote[0]), remote[1]
        payload = data if type(data) is bytes else bytes(data)
        length = udp.LENGTH + len(payload)
        if len(payload) > MAX_PAYLOAD[len(address)]:
            raise OSError(
                errno.EMSGSIZE,
                f"send: {len(payload)} octets, at most {MAX_PAYLOAD[len(address)]} fit",
            )
        if not 0 < port <= 0xFFFF:
            raise OSError(errno.EINVAL, f"send: port {port} is not 1-65535")
        source = self._source(endpoint, address)
        if control is not None and control.source is not None:
            source = control.source
            if len(source) != len(address) or not self._ip.is_local(source):
                raise OSError(errno.EINVAL, f"send: {ip_text(source)} is not our address")
        path = self._ip.path(address)
        if path.kind != LOCAL and self._ip.is_congested:
            self._blocked[endpoint] = None
            raise BlockingIOError(errno.EAGAIN, "send: the wire is full")
        if endpoint.binding is None:
            self.bind(endpoint, None, 0)
        own_port = endpoint.local[1]
        header = (own_port << 48 | port << 32 | length << 16).to_bytes(8)
        if path.needs_checksum:
            value = transport_checksum(source, address, PROTOCOL_UDP, header, payload) or 0xFFFF
            state = CHECKSUM_COMPLETE
        else:
            value = fold(pseudo_header(source, address, PROTOCOL_UDP, length))
            state = CHECKSUM_PARTIAL
        hop_limit = endpoint.hop_limit
        leaves_host = True
        if path.kind == GROUP and not path.is_broadcast:
            hop_limit = endpoint.multicast_hop_limit
            leaves_host = hop_limit != 0
        traffic_class = endpoint.traffic_class
        if control is not None:
            hop_limit = control.hop_limit or hop_limit
            if control.traffic_class is not None:
                traffic_class = control.traffic_class
        self._counters.udp_out += 1
        self._ip.send(
            source,
            address,
            PROTOCOL_UDP,
            header[:6] + value.to_bytes(2),
            payload,
            now,
            checksum=state,
            hop_limit=max(0, hop_limit),  # programs say -1 for the default
            traffic_class=traffic_class,
            dont_fragment=length <= path.room,  # Linux's IP_PMTUDISC_WANT
            loop=bool(endpoint.multicast_loop),
            leaves_host=leaves_host,
        )
        return len(payload)

    def remove(self, endpoint: UdpEndpoint) -> None:
        """Forget *endpoint*, and free its port."""
        self._blocked.pop(endpoint, None)
        self._disconnect(endpoint)
        binding = endpoint.binding
        if binding is not None:
            bound = self._by_port[binding.port]
            bound.remove(endpoint)
            if not bound:
                del self._by_port[binding.port]
            binding.release()

    def _disconnect(self, endpoint: UdpEndpoint) -> None:
        if endpoint.remote is None:
            return
        key = (*endpoint.remote, *endpoint.local)
        connected = self._connected[key]
        connected.remove(endpoint)
        if not connected:
            del self._connected[key]
        endpoint.remote = None
        assert endpoint.binding is not None  # noqa: S101 - connecting binds
        endpoint.local = (endpoint.binding.address, endpoint.binding.port)

    def _source(self, endpoint: UdpEndpoint, destination: bytes) -> bytes:
        """The address that datagrams of *endpoint* to *destination* come from."""
        if not endpoint.may_broadcast and self._ip.is_broadcast(destination):
            raise OSError(
                errno.EACCES, f"send: {ip_text(destination)} is a broadcast address; SO_BROADCAST"
            )
        local = endpoint.local[0] if endpoint.binding is None else endpoint.binding.address
        if local is None or is_unspecified(local):
            chosen = endpoint.multicast_source
            if chosen is not None and len(destination) == 4 and is_multicast(destination):
                self._ip.select_source(destination)  # for its error, if there is no route
                if self._ip.is_local(chosen):
                    return chosen
        if local is None:
            return self._ip.select_source(destination)
        if len(local) != len(destination):
            raise OSError(
                errno.ENETUNREACH, f"send: {ip_text(local)} has no way to the other family"
            )
        if is_unspecified(local) or self._ip.is_group(local):
            return self._ip.select_source(destination)
        if not self._ip.is_local(local):
            raise OSError(errno.EADDRNOTAVAIL, f"send: {ip_text(local)} is no longer our address")
        if is_loopback(local) and not self._ip.is_local(destination):
            raise OSError(errno.EINVAL, "send: a loopback address cannot leave this host")
        self._ip.select_source(destination)  # for its error, if there is no route
        return local

    def _find(
        self, source: tuple[bytes, int], destination: tuple[bytes, int], *, is_group: bool
    ) -> list[UdpEndpoint]:
        """The endpoints that a datagram is for: the closest match, or all members of a group."""
        if not is_group:
            connected = self._connected.get((*source, *destination))
            if connected:
                return connected[-1:]
        address, port = destination
        bound = self._by_port.get(port)
        if not bound:
            return []
        if len(bound) == 1 and bound[0].local[0] is None:
            return bound  # nearly every port: one endpoint for every address
        found = [
            endpoint
            for endpoint in bound
            if (endpoint.remote is None or endpoint.remote == source)
            and (
                endpoint.accepts(address)
                if endpoint.remote is None or not is_group
                else self._accepts_group(endpoint, address)
            )
        ]
        if is_group or len(found) < 2:
            return found
        closest = [endpoint for endpoint in found if endpoint.local[0] == address] or found
        if closest[-1].reuse_port:
            # Spread by sender, and the same sender always to the same one.
            spread = int.from_bytes(source[0]) + source[1]
            return [closest[spread % len(closest)]]
        return closest[-1:]

    @staticmethod
    def _accepts_group(endpoint: UdpEndpoint, group: bytes) -> bool:
        """As `accepts`, by what a connected endpoint was bound to, not by where it sends from."""
        binding = endpoint.binding
        assert binding is not None  # noqa: S101 - connecting binds
        return binding.address in (None, group, unspecified(group))


def _or_loopback(address: bytes) -> bytes:
    """Where Linux sends what is addressed to nobody in particular."""
    if address in (IPV4_UNSPECIFIED, IPV6_UNSPECIFIED):
        return _LOOPBACKS[len(address)]
    return address
