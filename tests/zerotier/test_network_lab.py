"""Whole networks in virtual time: members find each other, talk, are let in and thrown out."""

from __future__ import annotations

import attrs
import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.network.derived import Group, sixplane
from zttrio.zerotier.network.netconf import ACTIVE_BRIDGE, Specialist
from zttrio.zerotier.network.networks import ConfigChanged, NetworkStatus, StatusChanged
from zttrio.zerotier.network.rules import ACCEPT, DROP, IP_PROTOCOL, Rule

from .network_lab import BROADCAST, IPV4, WINDOW, MemberHost, NetworkLab, packet, settled

GROUP = Group(bytes.fromhex("01005e0000fb"))


def _trio(lab: NetworkLab) -> tuple[MemberHost, MemberHost, MemberHost]:
    """Three members that have their configurations."""
    one, two, three = (lab.member(name) for name in ("one", "two", "three"))
    lab.run(4)
    assert all(m.membership.status is NetworkStatus.OK for m in (one, two, three))
    return one, two, three


def _statuses(member: MemberHost) -> list[NetworkStatus]:
    return [e.status for _, e in member.host.network_events if isinstance(e, StatusChanged)]


def _talks(lab: NetworkLab, one: MemberHost, other: MemberHost, text: bytes) -> bool:
    """Whether a frame of *one* reaches *other* within a second."""
    one.say(other, text)
    lab.run(1)
    return text in other.heard()


def test_a_member_has_its_configuration_within_a_second_and_a_half_of_its_first_packet() -> None:
    lab = NetworkLab()
    member = lab.member("one")
    taken = settled(lab, lambda: member.membership.status is NetworkStatus.OK, within=1.5)
    # HELLO and OK, WHOIS and OK, identities to check at 0.1 s each, request and OK by a relay.
    assert taken < 1.5


def test_three_members_find_each_other_by_arp_and_talk() -> None:
    lab = NetworkLab()
    members = _trio(lab)
    for asker in members:
        for other in members:
            if asker is not other:
                asker.ask(other.ip)
                took = settled(lab, lambda a=asker, o=other: o.ip in a.macs, within=1.0)  # type: ignore[misc]
                assert took < 1.0
                assert asker.macs[other.ip] == other.mac
    for asker in members:
        for other in members:
            if asker is not other:
                assert _talks(lab, asker, other, asker.ip + b" to " + other.ip)
    for member in members:
        counters = member.host.networks.counters  # type: ignore[union-attr]
        assert counters.message_refused == 0
        assert counters.frame_filtered == 0


def test_members_that_talk_do_so_directly_after_a_moment() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    for _ in range(3):
        one.say(two)
        two.say(one)
        lab.run(1)
    assert one.host.is_direct_to(two.host)
    assert two.host.is_direct_to(one.host)
    assert not one.host.is_direct_to(lab.members["three"].host)


def test_the_first_frame_to_a_stranger_arrives_within_a_second() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    one.say(two, b"first")  # neither has ever heard of the other
    assert settled(lab, lambda: two.heard() == [b"first"], within=1.0) < 1.0


def test_a_frame_of_full_mtu_arrives_whole() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    text = lab.random.randbytes(2780)
    assert _talks(lab, one, two, text)


def test_a_burst_of_small_and_full_frames_arrives_whole() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    texts = [lab.random.randbytes(size) for size in (10, 2780, 1374, 1375, 2780, 1)]
    head = two.mac + one.mac + IPV4
    frames = [head + packet(one.ip, two.ip, text) for text in texts]
    one.membership.send_burst(frames, lab.now)  # it goes by way of the waiting list...
    one.host.flush()
    lab.run(1)
    one.membership.send_burst(frames, lab.now)  # ...and straight there
    one.host.flush()
    lab.run(1)
    assert sorted(two.heard()) == sorted(texts * 2)


def test_a_broadcast_reaches_everybody() -> None:
    lab = NetworkLab()
    one, two, three = _trio(lab)
    one.send(BROADCAST, IPV4, packet(one.ip, b"\xff" * 4, b"to all"))
    lab.run(2)
    assert two.heard() == three.heard() == [b"to all"]


def test_a_group_reaches_those_who_listen_and_who_joins_within_five_seconds() -> None:
    lab = NetworkLab()
    one, two, three = _trio(lab)
    for member in (two,):
        member.membership.set_groups(frozenset((GROUP,)), lab.now)
        member.host.flush()
    lab.run(1)
    one.send(GROUP.mac, IPV4, packet(one.ip, bytes((224, 0, 0, 251)), b"to the group"))
    lab.run(2)
    assert two.heard() == [b"to the group"]
    assert three.heard() == []
    # Who listens from now on tells the registries, and its announcement reaches the sender as
    # the answer to the question for its next frame.
    three.membership.set_groups(frozenset((GROUP,)), lab.now)
    three.host.flush()
    lab.run(60)
    one.send(GROUP.mac, IPV4, packet(one.ip, bytes((224, 0, 0, 251)), b"again"))
    lab.run(2)
    assert b"again" in two.heard()
    assert three.heard() == [b"again"]


def test_a_member_that_is_not_authorised_is_told_and_let_in_five_seconds_after_it_is() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    late = lab.member("late", is_authorised=False)
    lab.run(12)
    assert late.membership.status is NetworkStatus.ACCESS_DENIED
    assert late.membership.config is None
    assert not _talks(lab, late, one, b"let me in")
    lab.controller.authorised.add(late.address)
    took = settled(lab, lambda: late.membership.status is NetworkStatus.OK, within=5.2)
    assert took <= 5.1
    assert _statuses(late) == [NetworkStatus.ACCESS_DENIED, NetworkStatus.OK]
    assert _talks(lab, late, one, b"thank you")
    assert _talks(lab, two, late, b"welcome")


def test_a_stranger_with_a_node_of_its_own_gets_nothing_through() -> None:
    lab = NetworkLab()
    one, _, _ = _trio(lab)
    stranger = lab.member("stranger", is_authorised=False)
    # It makes up a configuration without certificate for itself.
    config = lab.controller.config(one.address, lab.now)
    forged = attrs.evolve(config, address=stranger.address, membership=None, is_public=True)
    stranger.membership.accept(b"", forged, lab.now, is_direct=True)
    for number in range(5):
        assert not _talks(lab, stranger, one, b"%d" % number)
    stranger.send(BROADCAST, IPV4, packet(stranger.ip, b"\xff" * 4, b"to all"))
    lab.run(6)
    assert one.heard() == []
    assert one.host.networks is not None
    assert one.host.networks.counters.message_refused >= 5


def test_a_revoked_member_is_out_of_the_whole_network_within_a_second() -> None:
    lab = NetworkLab()
    one, two, three = _trio(lab)
    for member in (one, three):
        assert _talks(lab, two, member, b"before")
        assert _talks(lab, member, two, b"before")
    assert _talks(lab, one, three, b"between")
    assert _talks(lab, three, one, b"between")
    lab.run(61)  # everybody has a newer configuration
    lab.controller.authorised.discard(two.address)
    lab.controller.revoke(two.address, tell=one.address)  # one member is told, and tells the rest
    lab.run(1)
    for member in (one, three):
        assert not _talks(lab, two, member, b"after")
    assert _talks(lab, one, three, b"still")
    lab.run(70)
    assert two.membership.status is NetworkStatus.ACCESS_DENIED
    assert not _talks(lab, two, one, b"much later")


def test_without_a_revocation_a_member_falls_out_when_its_certificate_is_too_old() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    assert _talks(lab, two, one, b"before")
    lab.controller.authorised.discard(two.address)
    lab.run(WINDOW / 1000 - 120)
    assert _talks(lab, two, one, b"near the end")
    lab.run(240)
    assert not _talks(lab, two, one, b"after")


def test_members_go_on_without_their_controller_and_find_it_again() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    lab.controller_host.is_up = False
    lab.run(900)
    assert _talks(lab, one, two, b"alone")
    assert _talks(lab, two, one, b"too")
    assert one.membership.status is NetworkStatus.OK
    lab.controller_host.is_up = True
    before = len(lab.controller.requests)
    lab.run(70)
    asked = {address for _, address in lab.controller.requests[before:]}
    assert {one.address, two.address} <= asked
    assert _talks(lab, one, two, b"together again")


def test_a_restarted_member_with_a_stored_configuration_talks_without_its_controller() -> None:
    lab = NetworkLab()
    one, two, three = _trio(lab)
    assert _talks(lab, one, two, b"before")
    stored = [e.stored for _, e in three.host.network_events if isinstance(e, ConfigChanged)][-1]
    lab.controller_host.is_up = False
    three.host.is_up = False
    lab.run(30)
    network_id, identity = lab.controller.network_id, three.host.node.identity
    again = lab.host("three again", "61.0.99.1", planet=lab.planet, identity=identity)
    networks = lab.add_networks(again)
    again.start()
    membership = networks.join(network_id, lab.now, stored=stored)
    assert membership.status is NetworkStatus.OK
    member = lab.members["three again"] = MemberHost(again, membership, three.number)
    member.listen()
    lab.run(2)
    assert _talks(lab, member, one, b"I am back")
    assert _talks(lab, two, member, b"welcome")


def test_a_configuration_that_is_pushed_is_in_force_after_one_trip() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    assert _talks(lab, one, two, b"before")
    lab.controller.fields[None] = {"rules": (Rule.of(IP_PROTOCOL, 17), Rule(DROP), Rule(ACCEPT))}
    for member in (one, two):
        lab.controller.push(member.address)
    lab.run(0.2)
    assert not _talks(lab, one, two, b"after")
    assert one.host.networks is not None
    assert one.host.networks.counters.out_filtered == 1


def test_both_ends_filter() -> None:
    lab = NetworkLab()
    one, two, _ = _trio(lab)
    rules = {"rules": (Rule.of(IP_PROTOCOL, 17), Rule(DROP), Rule(ACCEPT))}
    lab.controller.fields[two.address] = rules
    lab.controller.push(two.address)
    lab.run(0.2)
    assert not _talks(lab, one, two, b"filtered by the receiver")
    assert two.host.networks is not None
    assert two.host.networks.counters.frame_filtered == 1
    assert not _talks(lab, two, one, b"filtered by the sender")


def test_a_network_with_loss_works_after_a_while() -> None:
    lab = NetworkLab(seed=3, loss=0.1)
    one, two, three = (lab.member(name) for name in ("one", "two", "three"))
    lab.run(60)
    assert all(m.membership.status is NetworkStatus.OK for m in (one, two, three))
    for _ in range(10):
        one.ask(two.ip)
        lab.run(1)
    assert one.macs == {two.ip: two.mac}
    sent = [b"%d" % number for number in range(100)]
    for text in sent:
        one.say(two, text)
        lab.run(0.1)
    assert len(two.heard()) >= 75


def test_an_hour_costs_about_one_request_and_one_push_a_minute_and_nothing_grows() -> None:
    lab = NetworkLab()
    members = _trio(lab)
    one, two, _ = members
    for number in range(60):
        one.say(two, b"%d" % number)
        two.say(one, b"%d" % number)
        lab.run(60)
    assert len(one.heard()) == len(two.heard()) == 60
    for member in members:
        networks = member.host.networks
        assert networks is not None
        assert 54 <= networks.counters.requests_out <= 66
        assert networks.counters.credentials_pushed <= 2 * 62
        assert networks.counters.complaints <= 2
        sizes = networks.sizes() | member.membership.sizes()
        assert sizes["members"] <= 2
        assert sizes["groups"] <= 9
        assert sizes["kept"] == sizes["queued"] == sizes["ring"] == 0
        assert member.host.node.sizes()["waiting"] == 0
    assert len(lab.root_host.networks.groups) <= 9  # type: ignore[union-attr]


def test_two_members_of_an_adhoc_network_need_nobody_but_a_root() -> None:
    lab = NetworkLab()
    network_id = 0xFF0050005A000000
    one = lab.member("one", network_id=network_id)
    two = lab.member("two", network_id=network_id)
    lab.controller_host.is_up = False
    lab.run(4)
    here, there = (sixplane(network_id, m.address).packed for m in (one, two))

    def tcp(port: int, flags: int) -> bytes:
        segment = b"\x10\0" + port.to_bytes(2, "big") + bytes(8) + bytes((0x50, flags)) + bytes(6)
        return bytes.fromhex("600000000014063f") + here + there + segment

    for port, flags in ((80, 2), (22, 2), (22, 16), (90, 2), (91, 2)):
        one.send(two.mac, b"\x86\xdd", tcp(port, flags))
    one.send(two.mac, IPV4, packet(one.ip, two.ip, b"IPv4"))
    lab.run(2)
    arrived = [(f[56] << 8 | f[57], f[67]) for _, f in two.received]
    assert sorted(arrived) == [(22, 16), (80, 2), (90, 2)]


def test_a_bridge_joins_a_machine_that_is_no_member() -> None:
    lab = NetworkLab()
    one, bridge, three = (lab.member(name) for name in ("one", "bridge", "three"))
    special = (Specialist(bridge.address, ACTIVE_BRIDGE),)
    lab.controller.fields[None] = {"specialists": special}
    for member in (one, bridge, three):
        if member.membership.config is not None:
            lab.controller.push(member.address)
    lab.run(4)
    behind = bytes.fromhex("0a1122334455")
    text = packet(bytes((10, 5, 0, 99)), one.ip, b"from behind")
    frame = one.mac + behind + IPV4 + text
    bridge.membership.send(frame, lab.now)
    bridge.host.flush()
    lab.run(1)
    assert one.heard() == [b"from behind"]
    one.send(behind, IPV4, packet(one.ip, bytes((10, 5, 0, 99)), b"back"))
    three.send(behind, IPV4, packet(three.ip, bytes((10, 5, 0, 99)), b"unlearned"))
    lab.run(1)
    assert [f[:6] for _, f in bridge.received] == [behind, behind]
    assert sorted(bridge.heard()) == [b"back", b"unlearned"]
    # A member that is no bridge cannot do the same.
    three.membership.send(frame, lab.now)
    three.host.flush()
    lab.run(1)
    assert one.heard() == [b"from behind"]


def test_the_controllers_clock_may_be_anything() -> None:
    lab = NetworkLab()
    for member in ("one", "two"):
        lab.member(member)
    lab.controller.fields[None] = {"timestamp": 5}
    lab.run(4)
    one, two = lab.members["one"], lab.members["two"]
    assert one.membership.config is not None
    assert one.membership.config.timestamp == 5
    assert _talks(lab, one, two, b"hello")


def test_metadata_says_that_we_know_rules() -> None:
    lab = NetworkLab()
    one, _, _ = _trio(lab)
    metadata = lab.controller.metadata[one.address]
    assert metadata.get_int("revr") == 1
    assert messages.NETWORK_CONFIG_REQUEST == 0x0B


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eight_hours_of_restarts_revocations_and_loss_leave_a_working_network() -> None:
    lab = NetworkLab(seed=11, loss=0.02)
    names = [f"member{number}" for number in range(6)]
    for name in names:
        lab.member(name)
    lab.run(30)
    for hour in range(8):
        restarted, revoked = lab.random.sample(names, 2)
        _restart(lab, restarted)
        lab.controller.authorised.discard(lab.members[revoked].address)
        for name in names:
            if name != revoked:
                lab.controller.revoke(lab.members[revoked].address, tell=lab.members[name].address)
        lab.run(1800)
        assert lab.members[revoked].membership.status is NetworkStatus.ACCESS_DENIED
        lab.controller.authorised.add(lab.members[revoked].address)
        lab.run(1800 - 120)
        for one in lab.members.values():
            for other in lab.members.values():
                if one is not other:
                    for copy in range(3):  # nothing is sent again on a lossy cable
                        one.say(other, b"%d %d %d" % (hour, one.number, copy))
                    lab.run(1)
        for one in lab.members.values():
            texts = set(one.heard())
            for other in lab.members.values():
                if one is not other:
                    prefix = b"%d %d " % (hour, other.number)
                    assert any(text.startswith(prefix) for text in texts), (hour, prefix)
            _check_sizes(one, len(names))
            one.received.clear()


def _restart(lab: NetworkLab, name: str) -> None:
    """Let a member start again, with what it has stored."""
    old = lab.members[name]
    stored = [e.stored for _, e in old.host.network_events if isinstance(e, ConfigChanged)][-1]
    old.host.is_up = False
    host = lab.host(
        name,
        f"61.0.{old.number}.{old.host.endpoint.ip[3] + 1}",
        planet=lab.planet,
        identity=old.host.node.identity,
    )
    networks = lab.add_networks(host)
    host.start()
    membership = networks.join(lab.controller.network_id, lab.now, stored=stored)
    lab.members[name] = MemberHost(host, membership, old.number)
    lab.members[name].listen()


def _check_sizes(member: MemberHost, members: int) -> None:
    networks = member.host.networks
    assert networks is not None
    sizes = networks.sizes() | member.membership.sizes()
    assert sizes["members"] <= members
    assert sizes["groups"] <= 3 * members
    assert sizes["kept"] <= 4
    assert sizes["queued"] == sizes["ring"] == 0
    assert sizes["complaints"] <= members
    assert sizes["credentials"] <= 3 * members
    assert member.host.node.sizes()["expected"] <= 8192
