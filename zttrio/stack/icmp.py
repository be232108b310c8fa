"""What ICMP and ICMPv6 have in common: our pings, and restraint about errors."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zttrio.header import icmpv4, icmpv6, ipv4
from zttrio.header.address import is_multicast, is_unspecified

from .echo import Echoes, EchoWaiter
from .icmpv4 import IcmpV4Layer
from .icmpv6 import IcmpV6Layer
from .ratelimit import TokenBucket

if TYPE_CHECKING:
    import random

    from zttrio.config import Config

    from .counters import Counters
    from .events import EventQueue
    from .ip import Ip
    from .packet import Packet, PathError

__all__ = ["Icmp"]

PING_PAYLOAD = bytes(range(56))  # as many octets as everybody's ping sends


class Icmp:
    """The ICMP side of one stack.

    Args:
        ip: what it sends through.
        events: where pings report.
        counters: what is counted.
        config: how many errors a second.
        rng: identifiers of pings.

    Attributes:
        echoes: our pings.
        v4: ICMP proper.
        v6: ICMPv6.
    """

    def __init__(
        self, ip: Ip, events: EventQueue, counters: Counters, config: Config, rng: random.Random
    ) -> None:
        self.echoes = Echoes(self, events, counters, rng)
        self._ip = ip
        self._counters = counters
        self._bucket = TokenBucket(config.icmp_rate, config.icmp_burst)
        self.v4 = IcmpV4Layer(self, ip, counters)
        self.v6 = IcmpV6Layer(self, ip, counters)

    # our own pings

    def ping(
        self, destination: bytes, now: float, *, payload: bytes = PING_PAYLOAD, hop_limit: int = 0
    ) -> EchoWaiter:
        """Send an echo request; the result reports RD when the reply comes.  Close it afterwards.

        Args:
            destination: packed.
            now: seconds.
            payload: what the request carries; long ones travel in fragments.
            hop_limit: 0 for the default.

        Raises:
            OSError: ENETUNREACH, ENOBUFS (thousands are open), EMSGSIZE.
        """
        if len(payload) > ipv4.MAX_PACKET - ipv4.LENGTH - icmpv4.LENGTH:
            raise OSError(errno.EMSGSIZE, f"ping: {len(payload)} octets do not fit a packet")
        self._ip.select_source(destination)
        is_group = self._ip.is_group(destination)
        waiter = self.echoes.open(destination, bytes(payload), hop_limit, is_group=is_group)
        waiter.send(now)
        return waiter

    def send_echo_request(self, waiter: EchoWaiter, sequence: int, now: float) -> None:
        """Send one request of *waiter*; called by it."""
        rest = waiter.identifier << 16 | sequence
        family = self.v4 if len(waiter.destination) == 4 else self.v6
        family.send_echo_request(waiter.destination, rest, waiter.payload, waiter.hop_limit, now)

    def request_lost(self, error: PathError, now: float) -> None:
        """Learn that an echo request of ours was lost (or something that we do not repeat)."""
        waiter = self.echoes.find(error)
        if waiter is None:
            return
        if error.error == errno.EMSGSIZE and error.mtu and error.reporter:
            # The next request travels in fragments; this one is lost like any other.
            self._ip.lower_path_mtu(error.destination, error.mtu, now)
        else:
            self.echoes.fail(waiter, error.error)

    # errors about what came in

    def port_unreachable(self, packet: Packet, now: float) -> None:
        """Nobody listens where *packet* goes."""
        if len(packet.source) == 4:
            self.v4.send_error(packet, icmpv4.DESTINATION_UNREACHABLE, icmpv4.UNREACHABLE_PORT, now)
        else:
            self.v6.send_error(packet, icmpv6.DESTINATION_UNREACHABLE, icmpv6.UNREACHABLE_PORT, now)

    def reassembly_expired(self, packet: Packet, now: float) -> None:
        """The rest of a packet never came; *packet* is its first fragment."""
        if len(packet.source) == 4:
            self.v4.send_error(packet, icmpv4.TIME_EXCEEDED, 1, now)
        else:
            self.v6.send_error(packet, icmpv6.TIME_EXCEEDED, icmpv6.TIME_EXCEEDED_REASSEMBLY, now)

    def may_answer(self, packet: Packet, now: float, *, even_to_group: bool = False) -> bool:
        """True if an error may be sent about *packet*; takes a token if so.

        RFC 1122 3.2.2 and RFC 4443 2.4 (e) forbid most answers to groups and to senders that are
        not one host.
        """
        if (
            (packet.is_multicast and not even_to_group)
            or is_unspecified(packet.source)
            or is_multicast(packet.source)
        ):
            self._counters.icmp_errors_unwanted += 1
            return False
        if not self._bucket.take(now):
            self._counters.icmp_errors_limited += 1
            return False
        return True
