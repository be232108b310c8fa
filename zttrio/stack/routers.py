"""What routers say, and for how long it holds: routes, prefixes, addresses (RFC 4861, RFC 4862).

Everything learned is bounded and expires.  What is beyond a bound is not learned, rather than
pushing out what was: who floods the link with advertisements must not be able to disconnect us.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

import attrs

from zttrio.header import ipv6, ndp
from zttrio.header.address import (
    ALL_ROUTERS,
    IPV6_UNSPECIFIED,
    is_link_local,
    is_multicast,
)

from .route import Route

if TYPE_CHECKING:
    import random

    from zttrio.config import Config
    from zttrio.header.frame import Buffer

    from .addresses import Address, Addresses
    from .counters import Counters
    from .ip import Ip
    from .neighbor import Neighbors
    from .route import Routes
    from .selection import Selection
    from .timers import TimerQueue

__all__ = ["Routers"]

MAX_ROUTERS = 16  # arbitrary
MAX_PREFIXES = 32  # on the link; arbitrary
MAX_ROUTES = 32  # of RFC 4191; arbitrary
MAX_ADDRESSES = 16  # Linux's max_addresses
MAX_DNS_SERVERS = 8  # arbitrary
MAX_SOLICITATIONS = 3  # RFC 4861 10 MAX_RTR_SOLICITATIONS
SOLICITATION_INTERVAL = 4.0  # RFC 4861 10 RTR_SOLICITATION_INTERVAL
SOLICITATION_DELAY = 1.0  # RFC 4861 10 MAX_RTR_SOLICITATION_DELAY
TWO_HOURS = 7200.0  # RFC 4862 5.5.3 (e)
METRIC = 1024  # Linux's for what routers advertise: what was configured is better
MINIMUM_MTU = 1280
MINIMUM_HOP_LIMIT = 32  # arbitrary: below this an advertisement would cut us off, not tune us
_REACHABLE_RANGE = (1.0, 3600.0)  # seconds; RFC 4861 6.2.1 allows no more than an hour
_RETRY_RANGE = (0.1, 10.0)  # seconds; arbitrary: neither a flood nor silence

_Key = tuple[bytes, int, bytes | None]


class DiscoverySender(Protocol):
    """Where solicitations leave."""

    def send_discovery(self, message: bytes, source: bytes, destination: bytes) -> None:
        """Send a message of neighbor discovery to a group."""


class RouterUser(Protocol):
    """Who makes addresses of prefixes."""

    def autoconfigure(self, prefix: bytes, attempt: int, now: float) -> Address:
        """Make an address of *prefix*, and verify it."""

    def withdraw(self, entry: Address, now: float) -> None:
        """Give up an address that has expired."""


@attrs.define(eq=False)
class _Lease:
    """A route that a router has given us for a time.

    Attributes:
        route: as it stands in the routing table.
        until: seconds.
    """

    route: Route
    until: float


@attrs.define(eq=False)
class _Prefix:
    """A prefix that we have made an address of.

    Attributes:
        entry: the address, or None while there is none because the last was a duplicate.
        attempt: how many were duplicates.
    """

    entry: Address
    attempt: int = 0


class Routers:
    """Router discovery and address autoconfiguration of one stack; a timer owner.

    Args:
        mac: our hardware address.
        sender: takes solicitations.
        user: makes addresses.
        ip: gets MTU and hop limit.
        addresses: what is ours.
        routes: where routes of routers go.
        selection: keeps redirects.
        neighbors: gets timings, and hardware addresses of routers.
        timers: where the one deadline is kept.
        counters: what is counted.
        config: whether to listen at all.
        rng: delays.

    Attributes:
        dns_servers: packed addresses of name servers, and until when, in seconds.
        source: our link-local address, which solicitations come from.
    """

    def __init__(
        self,
        mac: bytes,
        sender: DiscoverySender,
        user: RouterUser,
        ip: Ip,
        addresses: Addresses,
        routes: Routes,
        selection: Selection,
        neighbors: Neighbors,
        timers: TimerQueue,
        counters: Counters,
        config: Config,
        rng: random.Random,
    ) -> None:
        self.deadline = inf
        self.queued = inf
        self.dns_servers: dict[bytes, float] = {}
        self._mac = mac
        self._sender = sender
        self._user = user
        self._ip = ip
        self._addresses = addresses
        self._routes = routes
        self._selection = selection
        self._neighbors = neighbors
        self._timers = timers
        self._counters = counters
        self._is_listening = config.accept_router_advertisements
        self._rng = rng
        self._defaults: dict[_Key, _Lease] = {}
        self._on_link: dict[_Key, _Lease] = {}
        self._more: dict[_Key, _Lease] = {}
        self._prefixes: dict[bytes, _Prefix] = {}
        self._solicit_at = inf
        self._solicitations = 0
        self.source = b""
        self._link_mtu = ip.mtus[16]

    def set_link_mtu(self, mtu: int) -> None:
        """Believe routers that name up to *mtu* octets from now on; see `Stack.set_mtu`."""
        self._link_mtu = mtu

    def start(self, now: float) -> None:
        """Look for routers (RFC 4861 6.3.7)."""
        if self._is_listening:
            self._solicitations = 0
            self._solicit_at = now + self._rng.uniform(0, SOLICITATION_DELAY)
            self._rearm()

    @property
    def sizes(self) -> dict[str, int]:
        """How much every table holds."""
        return {
            "routers": len(self._defaults),
            "prefixes on the link": len(self._on_link),
            "routes of routers": len(self._more),
            "autoconfigured prefixes": len(self._prefixes),
            "name servers": len(self.dns_servers),
        }

    # advertisements

    def receive_advertisement(self, source: bytes, data: Buffer, now: float) -> None:
        """Take in a router advertisement from the link-local *source* (RFC 4861 6.3.4).

        Raises:
            HeaderError: it is malformed.
        """
        message = ndp.RouterAdvertisement.parse(data)
        if not self._is_listening:
            self._counters.nd_ignored += 1
            return
        self._counters.ra_accepted += 1
        options = message.options
        if message.lifetime:
            self._solicit_at = inf
        if message.hop_limit >= MINIMUM_HOP_LIMIT:
            self._ip.hop_limits[16] = message.hop_limit
        self._neighbors.set_parameters(
            16,
            _clamp(message.reachable_time, _REACHABLE_RANGE) if message.reachable_time else None,
            _clamp(message.retransmit_time, _RETRY_RANGE) if message.retransmit_time else None,
        )
        if options.mtu is not None and MINIMUM_MTU <= options.mtu <= self._link_mtu:
            self._ip.mtus[16] = options.mtu
        mac = options.source_mac
        if mac is not None and not mac[0] & 1 and mac != self._mac:
            neighbor = self._neighbors.learn(source, mac, now)
            if neighbor is not None:
                neighbor.is_router = True
        self._selection.revive(source)
        default = Route(IPV6_UNSPECIFIED, 0, source, METRIC - message.preference)
        self._take(self._defaults, MAX_ROUTERS, default, message.lifetime, now)
        for prefix in options.prefixes[:MAX_PREFIXES]:
            self._receive_prefix(prefix, now)
        for route in options.routes[:MAX_ROUTES]:
            self._receive_route(route, source, now)
        for servers in options.dns_servers[:MAX_DNS_SERVERS]:
            for address in servers.addresses[:MAX_DNS_SERVERS]:
                if servers.lifetime == 0:
                    self.dns_servers.pop(address, None)
                elif address in self.dns_servers or len(self.dns_servers) < MAX_DNS_SERVERS:
                    self.dns_servers[address] = _until(servers.lifetime, now)
                else:
                    self._counters.ra_limited += 1
        self._ip.forget_paths()
        self._rearm()

    def receive_redirect(self, source: bytes, data: Buffer, now: float) -> None:
        """Take in a redirect from the link-local *source* (RFC 4861 8.1, 8.3).

        It is believed only if it comes from the router that we use for that destination, and quotes
        a packet of ours.

        Raises:
            HeaderError: it is malformed.
        """
        message = ndp.Redirect.parse(data)
        target, destination = message.target, message.destination
        quoted = message.options.redirected
        mac = message.options.target_mac
        if (
            not self._is_listening
            or is_multicast(destination)
            or not (target == destination or is_link_local(target))
            or self._addresses.is_ours(target)
            or self._selection.next_hop(destination, self._routes) != source
            or quoted is None
            or len(quoted) < ipv6.LENGTH
            or not self._addresses.is_ours(quoted[8:24])
            or quoted[24:40] != destination
            or (mac is not None and (mac[0] & 1 or mac == self._mac))
        ):
            self._counters.nd_refused += 1
            return
        self._counters.redirects_accepted += 1
        if mac is not None:
            neighbor = self._neighbors.learn(target, mac, now)
            if neighbor is not None and target != destination:
                neighbor.is_router = True
        self._selection.redirect(destination, target)
        self._ip.forget_paths()

    def router_vanished(self, address: bytes, now: float) -> None:
        """The neighbor *address* says that it is no router any more (RFC 4861 7.2.5)."""
        del now
        for table in (self._defaults, self._more):
            for key, lease in list(table.items()):
                if lease.route.gateway == address:
                    self._drop(table, key)
        self._selection.forget_redirects(address)
        self._rearm()

    def duplicated(self, entry: Address, attempts: int, now: float) -> None:
        """Somebody else has the autoconfigured *entry*; try another, a few times (RFC 7217 6)."""
        for prefix, known in list(self._prefixes.items()):
            if known.entry is entry:
                known.attempt += 1
                if known.attempt > attempts:
                    return  # it stays, so that the next advertisement does not start all over
                known.entry = self._user.autoconfigure(prefix, known.attempt, now)
                known.entry.preferred_until = entry.preferred_until
                known.entry.valid_until = entry.valid_until
                self._rearm()

    def handle_timer(self, now: float) -> None:
        """Ask for routers again, and let expire what nobody has renewed."""
        if self._solicit_at <= now:
            self._solicit(now)
        for table in (self._defaults, self._on_link, self._more):
            for key, lease in list(table.items()):
                if lease.until <= now:
                    self._drop(table, key)
        for prefix, known in list(self._prefixes.items()):
            entry = known.entry
            if entry.valid_until <= now:
                del self._prefixes[prefix]
                self._user.withdraw(entry, now)
            elif entry.preferred_until <= now and not entry.is_deprecated:
                entry.is_deprecated = True
                self._ip.forget_paths()
        for address, until in list(self.dns_servers.items()):
            if until <= now:
                del self.dns_servers[address]
        self._rearm()

    def _solicit(self, now: float) -> None:
        self._solicitations += 1
        is_last = self._solicitations >= MAX_SOLICITATIONS
        self._solicit_at = inf if is_last else now + SOLICITATION_INTERVAL
        message = ndp.RouterSolicitation()
        entry = self._addresses.entries.get(self.source)
        source = IPV6_UNSPECIFIED if entry is None else self.source
        if entry is not None and not entry.is_optimistic:
            message.options.source_mac = self._mac  # RFC 4429 3.2: not before it is ours for sure
        self._sender.send_discovery(message.emit(source, ALL_ROUTERS), source, ALL_ROUTERS)

    def _receive_prefix(self, option: ndp.PrefixInformation, now: float) -> None:
        length = option.prefix_length
        bits = 128 - length
        prefix = (int.from_bytes(option.prefix) >> bits << bits).to_bytes(16)
        if is_link_local(prefix) or is_multicast(prefix):
            return
        if option.is_on_link:
            route = Route(prefix, length, None, METRIC)
            self._take(self._on_link, MAX_PREFIXES, route, option.valid_lifetime, now)
        if (
            option.is_autonomous
            and length == 64  # RFC 4862 5.5.3 (d): the identifiers are 64 bits long
            and option.preferred_lifetime <= option.valid_lifetime
        ):
            self._autoconfigure(prefix, option, now)

    def _autoconfigure(self, prefix: bytes, option: ndp.PrefixInformation, now: float) -> None:
        """RFC 4862 5.5.3 (d) and (e)."""
        valid_until = _until(option.valid_lifetime, now)
        known = self._prefixes.get(prefix)
        if known is None:
            if not option.valid_lifetime:
                return
            if len(self._prefixes) >= MAX_ADDRESSES:
                self._counters.ra_limited += 1
                return
            entry = self._user.autoconfigure(prefix, 0, now)
            self._prefixes[prefix] = _Prefix(entry)
            entry.valid_until = valid_until
        else:
            entry = known.entry
            # Nobody may make an address expire within two hours by one forged message.
            if valid_until > now + TWO_HOURS or valid_until > entry.valid_until:
                entry.valid_until = valid_until
            elif entry.valid_until > now + TWO_HOURS:
                entry.valid_until = now + TWO_HOURS
        entry.preferred_until = min(_until(option.preferred_lifetime, now), entry.valid_until)
        entry.is_deprecated = entry.preferred_until <= now

    def _receive_route(self, option: ndp.RouteInformation, source: bytes, now: float) -> None:
        """RFC 4191 3.1."""
        bits = 128 - option.prefix_length
        prefix = (int.from_bytes(option.prefix) >> bits << bits).to_bytes(16)
        if is_link_local(prefix) or is_multicast(prefix):
            return
        route = Route(prefix, option.prefix_length, source, METRIC - option.preference)
        if option.prefix_length == 0:
            self._take(self._defaults, MAX_ROUTERS, route, option.lifetime, now)
        else:
            self._take(self._more, MAX_ROUTES, route, option.lifetime, now)

    def _take(
        self, table: dict[_Key, _Lease], limit: int, route: Route, lifetime: int, now: float
    ) -> None:
        """Note, renew or withdraw a route."""
        key = (route.prefix, route.prefix_length, route.gateway)
        lease = table.get(key)
        if not lifetime:
            if lease is not None:
                self._drop(table, key)
            return
        if lease is None:
            if len(table) >= limit:
                self._counters.ra_limited += 1
                return
            lease = table[key] = _Lease(route, 0.0)
            self._routes.add(route)
        elif lease.route != route:  # another preference
            self._routes.remove(lease.route)
            self._routes.add(route)
            lease.route = route
        lease.until = _until(lifetime, now)

    def _drop(self, table: dict[_Key, _Lease], key: _Key) -> None:
        self._routes.remove(table.pop(key).route)

    def _rearm(self) -> None:
        due = [self._solicit_at, *self.dns_servers.values()]
        for table in (self._defaults, self._on_link, self._more):
            due += [lease.until for lease in table.values()]
        for known in self._prefixes.values():
            entry = known.entry
            due.append(entry.valid_until if entry.is_deprecated else entry.preferred_until)
        self.deadline = min(due)
        self._timers.schedule(self)


def _until(lifetime: int, now: float) -> float:
    return inf if lifetime == ndp.INFINITY else now + lifetime


def _clamp(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])
