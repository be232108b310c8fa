"""What routers may tell a host, for how long it holds, and how much of it a host keeps."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from zttrio.config import Config
from zttrio.header import icmpv6, ndp
from zttrio.header.address import ALL_ROUTERS, packed, solicited_node
from zttrio.stack.routers import (
    MAX_ADDRESSES,
    MAX_PREFIXES,
    MAX_ROUTERS,
    MAX_ROUTES,
    MINIMUM_HOP_LIMIT,
    TWO_HOURS,
)

from .ipv6_host import (
    ALL_NODES,
    FAR6,
    PEER6,
    PEER_LL,
    ROUTER,
    ROUTER_MAC,
    UNSPECIFIED,
    US6,
    Host6,
    Sent6,
    advertisement,
    apart,
    nd_frame,
    packet6,
    prefix,
    router_advertisement,
)
from .stack_host import MAC, PEER_MAC, Host

DAY = 86400
OTHER_ROUTER = packed("fe80::fe")


def autoconfigured(host: Host6, start: str = "2001:db8:1:") -> list[str]:
    return [
        str(interface) for interface in host.stack.addresses if str(interface).startswith(start)
    ]


def routes(host: Host6) -> set[str]:
    return {str(route) for route in host.stack.routes}


def solicitations(host: Host, until: float) -> list[tuple[float, Sent6]]:
    found: list[tuple[float, Sent6]] = []
    while (due := host.stack.next_timer()) is not None and due <= until:
        for sent in host.at(max(due, host.now)):
            six = apart(sent)
            if six.kind == icmpv6.ROUTER_SOLICITATION:
                found.append((host.now, six))
    host.at(until)
    return found


# soliciting


def test_routers_are_asked_for_three_times_four_seconds_apart() -> None:
    host = Host("10.0.0.1/24")
    host.stack.start_ipv6(0.0)
    sent = solicitations(host, 100.0)
    times = [at for at, _ in sent]
    assert len(times) == 3
    assert 0 <= times[0] <= 1
    assert times[1] - times[0] == pytest.approx(4.0)
    assert times[2] - times[1] == pytest.approx(4.0)
    (entry,) = host.stack.addresses.of_family(16)
    for _, six in sent:
        assert six.header.source == entry.packed
        assert six.header.destination == ALL_ROUTERS
        assert six.header.hop_limit == 255
    macs = [ndp.RouterSolicitation.parse(six.body).options.source_mac for _, six in sent]
    assert macs[0] is None  # the address is not verified yet
    assert macs[1:] == [MAC, MAC]


def test_an_answer_ends_the_asking() -> None:
    host = Host("10.0.0.1/24")
    host.stack.start_ipv6(0.0)
    host.at(2.0)
    host.put(router_advertisement())
    assert solicitations(host, 100.0) == []


def test_nobody_is_asked_and_nobody_believed_if_so_configured() -> None:
    host = Host("10.0.0.1/24", config=Config(accept_router_advertisements=False))
    host.stack.start_ipv6(0.0)
    assert solicitations(host, 100.0) == []
    host.put(router_advertisement(prefix()))
    assert len(host.stack.addresses.of_family(16)) == 1
    assert len(host.stack.routes) == 2
    assert host.counters.nd_ignored == 1
    host.check_books()


# believing


def test_an_advertisement_gives_a_route_an_address_and_the_routers_hardware_address() -> None:
    host = Host6()
    host.put(router_advertisement(prefix()))
    assert {"::/0 via fe80::ff metric 1024", "2001:db8:1::/64 metric 1024"} <= routes(host)
    (text,) = autoconfigured(host)
    address = ip_interface(text).ip.packed
    assert solicited_node(address) in host.stack.groups
    host.at(host.now + 5)
    host.stack.icmp.ping(FAR6, host.now)
    (ping,) = host.take6()
    assert ping.destination_mac == ROUTER_MAC
    assert ping.header.source == address
    assert host.counters.ra_accepted == 1
    host.check_books()


def test_the_autoconfigured_address_is_the_same_on_the_same_network_only() -> None:
    host = Host6()
    host.put(router_advertisement(prefix(), prefix("2001:db8:2::")))
    one, other = autoconfigured(host)[0], autoconfigured(host, "2001:db8:2:")[0]
    assert one.split("::")[-1] != other.split("::")[-1]
    again = Host6()
    again.put(router_advertisement(prefix()))
    assert autoconfigured(again) == [one]


def test_an_address_of_a_prefix_is_not_on_the_link_unless_the_router_says_so() -> None:
    host = Host6()
    host.put(router_advertisement(prefix(is_on_link=False)))
    assert len(autoconfigured(host)) == 1
    assert "2001:db8:1::/64 metric 1024" not in routes(host)
    host.at(host.now + 5)
    host.stack.ip.send(US6, packed("2001:db8:1::5"), 200, b"", b"", host.now)
    assert host.take6()[0].destination_mac == ROUTER_MAC


def test_a_duplicate_of_the_autoconfigured_address_leads_to_another() -> None:
    host = Host6()
    host.put(router_advertisement(prefix(valid=1000, preferred=500)))
    tried = []
    for _ in range(5):
        if not (texts := autoconfigured(host)):
            break
        address = ip_interface(texts[0]).ip.packed
        tried.append(address)
        host.put(advertisement(address, destination=ALL_NODES, is_solicited=False))
    assert len(set(tried)) == 4
    host.put(router_advertisement(prefix(valid=1000, preferred=500)))
    assert autoconfigured(host) == []  # enough is enough
    host.at(host.now + 2000)
    host.put(router_advertisement(prefix()))
    assert len(autoconfigured(host)) == 1
    host.check_books()


@pytest.mark.parametrize(
    "option",
    [
        prefix("fe80::"),
        prefix("ff02::"),
        prefix(length=63),
        prefix(length=65),
        prefix(valid=100, preferred=101),
        prefix(valid=0, preferred=0),
        prefix(is_autonomous=False),
    ],
)
def test_a_prefix_that_makes_no_address_makes_none(option: ndp.PrefixInformation) -> None:
    host = Host6()
    before = len(host.stack.addresses)
    host.put(router_advertisement(option))
    assert len(host.stack.addresses) == before


def test_parameters_of_the_link_are_taken_over_within_reason() -> None:
    host = Host6()
    message = ndp.RouterAdvertisement(200, reachable_time=100.0, retransmit_time=2.0)
    message.options.mtu = 1400
    host.put(router_advertisement(message=message))
    assert host.stack.ip.path_mtu(PEER6) == 1400
    assert host.stack.ip.hop_limits[16] == 200
    assert 50 <= host.stack.neighbors.reachable_time[16] <= 150
    assert host.stack.neighbors.retry_interval == {4: 1.0, 16: 2.0}
    host.stack.ip.send(US6, PEER6, 200, b"", b"", host.now)
    start = host.now
    host.take()
    assert host.at6(start + 1.999) == []
    assert len(host.at6(start + 2.0)) == 1
    nothing = ndp.RouterAdvertisement(0)
    host.put(router_advertisement(message=nothing))
    assert host.stack.ip.hop_limits[16] == 200
    assert host.stack.neighbors.retry_interval[16] == 2.0


@pytest.mark.parametrize("mtu", [0, 1279, 1501, 0xFFFF_FFFF])
def test_an_mtu_that_cannot_be_is_ignored(mtu: int) -> None:
    host = Host6()
    message = ndp.RouterAdvertisement()
    message.options.mtu = mtu
    host.put(router_advertisement(message=message))
    assert host.stack.ip.path_mtu(PEER6) == 1500


def test_extreme_parameters_do_not_cut_us_off() -> None:
    host = Host6()
    message = ndp.RouterAdvertisement(1, reachable_time=4e6, retransmit_time=4e6)
    host.put(router_advertisement(message=message))
    assert host.stack.ip.hop_limits[16] == 64
    assert host.stack.neighbors.retry_interval[16] == 10.0
    assert host.stack.neighbors.reachable_time[16] <= 1.5 * 3600
    message = ndp.RouterAdvertisement(
        MINIMUM_HOP_LIMIT, reachable_time=0.001, retransmit_time=0.001
    )
    host.put(router_advertisement(message=message))
    assert host.stack.ip.hop_limits[16] == 32
    assert host.stack.neighbors.retry_interval[16] == 0.1
    assert host.stack.neighbors.reachable_time[16] >= 0.5


def test_the_preferred_router_comes_first() -> None:
    host = Host6()
    for source, preference in ((ROUTER, 0), (OTHER_ROUTER, 1)):
        message = ndp.RouterAdvertisement(64, lifetime=1800, preference=preference)
        host.put(router_advertisement(source=source, message=message))
    route = host.stack.routes.lookup(FAR6)
    assert route is not None
    assert route.gateway == OTHER_ROUTER
    message = ndp.RouterAdvertisement(64, lifetime=1800, preference=-1)
    host.put(router_advertisement(source=OTHER_ROUTER, message=message))
    route = host.stack.routes.lookup(FAR6)
    assert route is not None
    assert route.gateway == ROUTER
    assert host.stack.sizes["routers"] == 2


def test_more_specific_routes_are_taken() -> None:
    host = Host6()
    message = ndp.RouterAdvertisement(64, lifetime=0)
    message.options.routes = (ndp.RouteInformation(packed("2001:db8::"), 32, 0, 600),)
    host.put(router_advertisement(source=OTHER_ROUTER, message=message))
    host.put(router_advertisement())
    route = host.stack.routes.lookup(FAR6)
    assert route is not None
    assert route.gateway == OTHER_ROUTER
    host.at(host.now + 600)
    route = host.stack.routes.lookup(FAR6)
    assert route is not None
    assert route.gateway == ROUTER


def test_name_servers_are_kept_while_they_hold() -> None:
    host = Host6()
    message = ndp.RouterAdvertisement()
    message.options.dns_servers = (ndp.DnsServers(100, (packed("fd00::53"), packed("fd00::54"))),)
    host.put(router_advertisement(message=message))
    assert list(host.stack.routers.dns_servers) == [packed("fd00::53"), packed("fd00::54")]
    message.options.dns_servers = (ndp.DnsServers(0, (packed("fd00::54"),)),)
    host.put(router_advertisement(message=message))
    assert list(host.stack.routers.dns_servers) == [packed("fd00::53")]
    host.at(host.now + 100)
    assert host.stack.routers.dns_servers == {}


# expiring


def test_a_router_is_forgotten_after_its_lifetime() -> None:
    host = Host6()
    start = host.now
    host.put(router_advertisement(lifetime=100))
    host.at(start + 99.9)
    assert host.stack.routes.lookup(FAR6) is not None
    host.at(start + 100)
    assert host.stack.routes.lookup(FAR6) is None


def test_a_router_may_resign() -> None:
    host = Host6()
    host.put(router_advertisement())
    host.put(router_advertisement(lifetime=0))
    assert host.stack.routes.lookup(FAR6) is None
    host.put(router_advertisement())
    host.stack.neighbors.use(ROUTER, host.link_local, host.now)
    host.put(advertisement(ROUTER, ROUTER_MAC, destination=host.link_local, is_router=False))
    assert host.stack.routes.lookup(FAR6) is None  # RFC 4861 7.2.5


def test_an_address_becomes_deprecated_and_then_goes() -> None:
    host = Host6()
    start = host.now
    host.put(router_advertisement(prefix(valid=10_000, preferred=5000), lifetime=9000))
    (text,) = autoconfigured(host)
    address = ip_interface(text).ip.packed
    host.at(start + 4999)
    assert host.stack.ip.select_source(packed("2001:db8:1::9")) == address
    host.at(start + 5000)
    host.stack.add_address(ip_interface("2001:db8:9::1/64"), host.now)
    host.at(host.now + 5)
    assert host.stack.ip.select_source(packed("2001:db8:1::9")) == packed("2001:db8:9::1")
    assert host.stack.addresses.is_ours(address)
    host.at(start + 10_000)
    assert not host.stack.addresses.is_ours(address)
    assert "2001:db8:1::/64 metric 1024" not in routes(host)
    assert host.stack.sizes["autoconfigured prefixes"] == 0


def test_a_renewed_prefix_holds_longer() -> None:
    host = Host6()
    start = host.now
    host.put(router_advertisement(prefix(valid=1000, preferred=1000)))
    host.at(start + 900)
    host.put(router_advertisement(prefix(valid=1000, preferred=1000)))
    host.at(start + 1899)
    assert len(autoconfigured(host)) == 1
    host.at(start + 1900)
    assert autoconfigured(host) == []


@pytest.mark.parametrize(
    ("remaining", "told", "left"),
    [
        (DAY, 3600, TWO_HOURS),  # not below two hours by one message
        (DAY, 2 * DAY, 2 * DAY),
        (DAY, 10_000, 10_000),
        (1800, 600, 1800),  # nor at all if less is left
        (1800, 3600, 3600),
        (1800, 0, 1800),
    ],
)
def test_nobody_makes_an_address_expire_at_once(remaining: int, told: int, left: float) -> None:
    host = Host6()
    start = host.now
    host.put(router_advertisement(prefix(valid=remaining, preferred=100)))
    host.put(router_advertisement(prefix(valid=told, preferred=0)))
    host.at(start + left - 1)
    assert len(autoconfigured(host)) == 1
    host.at(start + left)
    assert autoconfigured(host) == []


def test_infinite_lifetimes_do_not_end() -> None:
    host = Host6()
    host.put(
        router_advertisement(prefix(valid=ndp.INFINITY, preferred=ndp.INFINITY), lifetime=65535)
    )
    host.at(host.now + 100 * DAY)
    assert len(autoconfigured(host)) == 1
    assert host.stack.routes.lookup(FAR6) is None


# attacks


def test_a_flood_of_ten_thousand_prefixes_stays_bounded_and_the_first_router_works() -> None:
    host = Host6()
    host.put(router_advertisement(prefix()))
    host.at(host.now + 5)
    (ours,) = autoconfigured(host)
    for number in range(1000):
        flood = [prefix(f"2001:db8:{number + 16:x}:{index:x}::") for index in range(10)]
        source = packed(f"fe80::1:{number:x}")
        message = ndp.RouterAdvertisement(64, lifetime=1800)
        message.options.routes = (
            ndp.RouteInformation(packed(f"3fff:{number + 1:x}::"), 32, 0, 600),
        )
        message.options.dns_servers = (ndp.DnsServers(600, (packed(f"fd00::1:{number:x}"),)),)
        host.put(router_advertisement(*flood, source=source, message=message))
        host.take()
        sizes = host.stack.sizes
        assert sizes["autoconfigured prefixes"] <= MAX_ADDRESSES
        assert sizes["prefixes on the link"] <= MAX_PREFIXES
        assert sizes["routers"] <= MAX_ROUTERS
        assert sizes["routes of routers"] <= MAX_ROUTES
        assert sizes["name servers"] <= 8
        assert sizes["groups"] <= 2 + 2 + 2 * MAX_ADDRESSES
        assert sizes["neighbors"] <= 1024
    assert host.counters.ra_limited > 9000
    assert autoconfigured(host) == [ours]
    route = host.stack.routes.lookup(FAR6)
    assert route is not None
    assert route.gateway == ROUTER
    host.stack.icmp.ping(FAR6, host.now)
    (ping,) = [sent for sent in host.take6() if sent.kind == icmpv6.ECHO_REQUEST]
    assert ping.destination_mac == ROUTER_MAC
    host.check_books()


@pytest.mark.parametrize("source", [PEER6, UNSPECIFIED, FAR6])
def test_an_advertisement_from_anything_but_a_link_local_address_is_refused(source: bytes) -> None:
    host = Host6()
    host.put(router_advertisement(prefix(), source=source))
    assert host.counters.nd_refused == 1
    assert host.stack.routes.lookup(packed("2001:db8:ffff::1")) is None
    host.check_books()


def test_an_advertisement_from_beyond_the_link_is_refused() -> None:
    host = Host6()
    host.put(router_advertisement(prefix(), hop_limit=254))
    assert host.counters.nd_refused == 1
    assert autoconfigured(host) == []


def redirect(
    target: bytes,
    destination: bytes = FAR6,
    *,
    source: bytes = ROUTER,
    hop_limit: int = 255,
    quoted: bytes | None = None,
    mac: bytes | None = PEER_MAC,
) -> bytes:
    message = ndp.Redirect(target, destination)
    message.options.target_mac = mac
    if quoted is None:
        quoted = packet6(bytes(16), 17, source=US6, destination=destination)
    if quoted:
        message.options.redirected = quoted
    return nd_frame(message.emit(source, US6), source=source, destination=US6, hop_limit=hop_limit)


def routed() -> Host6:
    """A host with a router."""
    host = Host6()
    host.put(router_advertisement())
    host.take()
    return host


def first_hop(host: Host6, destination: bytes = FAR6) -> bytes:
    host.stack.ip.send(US6, destination, 200, b"", b"", host.now)
    return host.take6()[-1].destination_mac


def test_a_redirect_from_our_router_is_followed() -> None:
    host = routed()
    assert first_hop(host) == ROUTER_MAC
    host.put(redirect(PEER_LL))
    assert first_hop(host) == PEER_MAC
    assert first_hop(host, packed("2001:db8::a")) == ROUTER_MAC
    assert host.counters.redirects_accepted == 1
    host.check_books()


def test_a_redirect_may_say_that_the_destination_is_a_neighbor() -> None:
    host = routed()
    host.put(redirect(FAR6))
    assert first_hop(host) == PEER_MAC


@pytest.mark.parametrize(
    "frame",
    [
        redirect(PEER_LL, source=PEER_LL),
        redirect(PEER_LL, source=PEER6),
        redirect(PEER_LL, hop_limit=64),
        redirect(PEER6),
        redirect(PEER_LL, packed("ff0e::1")),
        redirect(PEER_LL, quoted=b""),
        redirect(PEER_LL, quoted=packet6(bytes(16), 17, source=PEER6, destination=FAR6)),
        redirect(PEER_LL, quoted=packet6(bytes(16), 17, source=US6, destination=PEER6)),
        redirect(PEER_LL, PEER6),
        redirect(PEER_LL, mac=MAC),
    ],
    ids=[
        "not our router",
        "not link-local",
        "beyond the link",
        "target not link-local",
        "multicast",
        "no quotation",
        "not our packet",
        "another packet",
        "a neighbor",
        "our MAC",
    ],
)
def test_a_redirect_that_fails_a_check_is_refused(frame: bytes) -> None:
    host = routed()
    host.put(frame)
    assert host.counters.nd_refused == 1
    assert first_hop(host) == ROUTER_MAC
    host.check_books()


def test_a_redirect_to_a_neighbor_that_is_silent_is_forgotten() -> None:
    host = routed()
    host.put(redirect(PEER_LL, mac=None))
    host.stack.ip.send(US6, FAR6, 200, b"", b"", host.now)
    host.at(host.now + 5)
    assert first_hop(host) == ROUTER_MAC


def test_redirects_are_bounded() -> None:
    host = routed()
    for number in range(1000):
        host.put(redirect(PEER_LL, packed(f"2001:db8::1:{number:x}")))
    assert host.stack.sizes["redirects"] == 256


# several routers


def test_a_router_that_does_not_answer_is_replaced_until_it_is_heard_again() -> None:
    host = Host6()
    for source in (ROUTER, OTHER_ROUTER):
        message = ndp.RouterAdvertisement(64, lifetime=1800)
        frame = nd_frame(message.emit(source, ALL_NODES), source=source, destination=ALL_NODES)
        host.put(frame)
    lost = host.stack.icmp.ping(FAR6, host.now)
    host.at(host.now + 3)
    assert lost.error
    host.stack.icmp.ping(FAR6, host.now)
    (question,) = host.take6()
    assert question.solicitation.target == OTHER_ROUTER
    host.put(router_advertisement())
    assert first_hop(host) == ROUTER_MAC


def test_routers_that_are_all_silent_are_tried_in_turn() -> None:
    host = Host6()
    for number in (1, 2, 3):
        host.stack.add_route(
            ip_interface("2001:db8::/32").network, ip_address(f"fd00::{number}:1"), metric=number
        )
    asked = []
    for _ in range(6):
        host.stack.icmp.ping(FAR6, host.now)
        asked.append(host.take6()[0].solicitation.target)
        host.at(host.now + 5)
    assert [str(ip_address(target)) for target in asked[:3]] == [
        "fd00::1:1",
        "fd00::2:1",
        "fd00::3:1",
    ]
    assert set(asked[3:]) <= set(asked[:3])
    assert asked[3] != asked[2]


def test_an_advertisement_counts_even_if_there_is_no_room_for_the_routers_address() -> None:
    host = Host6(config=Config(neighbor_limit=1))
    host.meet6()
    host.put(router_advertisement(prefix()))
    assert len(autoconfigured(host)) == 1
    assert host.stack.neighbors.get(ROUTER) is None


def test_routes_to_link_local_destinations_are_not_taken() -> None:
    host = Host6()
    message = ndp.RouterAdvertisement(64, lifetime=0)
    message.options.routes = (
        ndp.RouteInformation(packed("fe80::"), 64, 0, 600),
        ndp.RouteInformation(packed("ff02::"), 16, 0, 600),
        ndp.RouteInformation(bytes(16), 0, 0, 600),
    )
    host.put(router_advertisement(message=message))
    assert host.stack.sizes["routes of routers"] == 0
    assert host.stack.sizes["routers"] == 1


def test_an_address_that_somebody_has_configured_is_not_made_again() -> None:
    host = Host6()
    host.put(router_advertisement(prefix()))
    (text,) = autoconfigured(host)
    again = Host6()
    again.stack.add_address(ip_interface(text), again.now)
    again.put(router_advertisement(prefix()))
    assert autoconfigured(again) == [text]
