"""Our controller and our members on one network, in virtual time."""

from __future__ import annotations

import random
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from zttrio.zerotier.controller import Controller
from zttrio.zerotier.network.membership import NetworkStatus
from zttrio.zerotier.network.networks import Networks

from .controller_bench import POOL
from .lab import EPOCH, Lab
from .network_lab import MemberHost, settled

if TYPE_CHECKING:
    from zttrio.zerotier.events import Message
    from zttrio.zerotier.network.netconf import NetworkConfig

    from .lab import Host
    from .network_lab import NetworkLab


class ControllerNetworks(Networks):
    """The networks of a node that is a controller, with a disk that takes no time."""

    def __init__(self, host: Host) -> None:
        self.host = host
        make = random.Random(8).randbytes
        self.service = Controller(host.node, rng=make, epoch=EPOCH)
        super().__init__(host.node, rng=make, epoch=EPOCH, controller=self.service)
        host.node.set_network_layer(self)
        host.networks = self

    def receive_message(self, message: Message, now: float) -> None:
        super().receive_message(message, now)
        self.settle(now)

    def handle_timers(self, now: float) -> None:
        super().handle_timers(now)
        self.service.handle_timers(now)
        self.settle(now)

    def next_timer(self) -> float | None:
        timers = (super().next_timer(), self.service.next_timer())
        return min((when for when in timers if when is not None), default=None)

    def settle(self, now: float) -> None:
        while self.service.has_writes:
            self.service.written(self.service.take_writes().number, now)


class ControllerLab(Lab):
    """A root that knows no networks, a controller, and members."""

    def __init__(self) -> None:
        super().__init__()
        self.root_host, self.planet = self.root(ip="50.0.0.1")
        host = self.host("controller", "60.0.0.1", planet=self.planet)
        self.networks = ControllerNetworks(host)
        self.members: dict[str, MemberHost] = {}
        for each in (self.root_host, host):
            self.at(self.now, each.start)
        self.run(1)
        self.network_id = self.service.create_network(POOL, self.now).network_id
        self.networks.settle(self.now)

    @property
    def service(self) -> Controller:
        return self.networks.service

    def member(
        self, name: str, *, is_authorised: bool = True, token: str | None = None
    ) -> MemberHost:
        number = len(self.members) + 1
        host = self.host(name, f"61.0.{number}.1", planet=self.planet)
        networks = host.networks = Networks(
            host.node, rng=random.Random(number).randbytes, epoch=EPOCH
        )
        host.node.set_network_layer(networks)
        if is_authorised:
            self.change_member(host, authorized=True)
        host.start()
        membership = networks.join(self.network_id, self.now, token=token)
        host.flush()
        member = self.members[name] = MemberHost(host, membership, number)
        return member

    def change_network(self, **fields: Any) -> None:
        self.service.change_network(self.network_id, fields, self.now)
        self._changed()

    def change_member(self, member: Host | MemberHost, **fields: Any) -> None:
        self.service.change_member(self.network_id, member.address, fields, self.now)
        self._changed()

    def _changed(self) -> None:
        self.networks.settle(self.now)
        self.networks.handle_timers(self.now)
        self.networks.host.flush()

    def _arrive(self, *args: Any) -> None:
        super()._arrive(*args)
        for member in self.members.values():
            member.take()


def _config(member: MemberHost) -> NetworkConfig:
    config = member.membership.config
    assert config is not None
    return config


def _settled(lab: ControllerLab, member: MemberHost, status: NetworkStatus, within: float) -> None:
    typed: Any = lab
    network_lab: NetworkLab = typed
    settled(network_lab, lambda: member.membership.status is status, within)


def _two(lab: ControllerLab) -> tuple[MemberHost, MemberHost]:
    """Two members that have their configurations and listen for ARP."""
    one, two = lab.member("one"), lab.member("two")
    for member in (one, two):
        _settled(lab, member, NetworkStatus.OK, 10)
        member.ip = _config(member).addresses[0].ip.packed
        member.listen()
    lab.run(2)
    return one, two


@pytest.fixture
def lab() -> ControllerLab:
    return ControllerLab()


def test_a_member_gets_a_configuration_whose_every_signature_is_good(lab: ControllerLab) -> None:
    lab.change_network(
        tags=[{"id": 1, "default": 2}],
        capabilities=[{"id": 3, "default": True, "rules": [{"type": "ACTION_ACCEPT"}]}],
        v6AssignMode="6plane",
    )
    member = lab.member("one")
    _settled(lab, member, NetworkStatus.OK, 10)
    config = _config(member)
    controller = lab.networks.host.node.identity
    assert config.membership is not None
    assert config.membership.is_signed_by(controller)
    assert config.membership.issued_to == member.address
    [capability], [tag], [ownership] = config.capabilities, config.tags, config.ownerships
    assert capability.is_signed_by(controller)
    assert tag.is_signed_by(controller)
    assert ownership.is_signed_by(controller)
    assert len(config.addresses) == 2
    record = lab.service.member(lab.network_id, member.address)
    assert [f"{record.fields['ipAssignments'][0]}/24"] == [str(config.addresses[1])]
    assert record.fields["identity"] == member.host.node.identity.text()


def test_members_without_a_common_registry_find_each_other_through_the_controller(
    lab: ControllerLab,
) -> None:
    one, two = _two(lab)
    one.ask(two.ip)
    lab.run(2)
    assert one.macs == {two.ip: two.mac}
    one.say(two, b"hello")
    two.say(one, b"hello yourself")
    lab.run(2)
    assert two.heard() == [b"hello"]
    assert one.heard() == [b"hello yourself"]


def test_a_member_shut_out_is_not_heard_any_more_and_one_let_in_again_is(
    lab: ControllerLab,
) -> None:
    one, two = _two(lab)
    one.say(two, b"1")
    lab.run(1)
    lab.change_member(one, authorized=False)
    lab.run(1)
    one.say(two, b"2")
    lab.run(6)
    assert two.heard() == [b"1"]
    lab.change_member(one, authorized=True)
    _settled(lab, one, NetworkStatus.OK, 1)
    one.say(two, b"3")
    lab.run(1)
    assert two.heard() == [b"1", b"3"]


def test_a_stranger_is_denied_until_it_is_let_in(lab: ControllerLab) -> None:
    member = lab.member("one", is_authorised=False)
    _settled(lab, member, NetworkStatus.ACCESS_DENIED, 10)
    [record] = lab.service.members(lab.network_id)
    assert record.address == member.address
    lab.change_member(member, authorized=True)
    _settled(lab, member, NetworkStatus.OK, 5.1)


def test_a_token_lets_a_stranger_in(lab: ControllerLab) -> None:
    lab.change_network(authTokens={"welcome": 0})
    member = lab.member("one", is_authorised=False, token="welcome")
    stranger = lab.member("two", is_authorised=False, token="welcomes")
    _settled(lab, member, NetworkStatus.OK, 10)
    _settled(lab, stranger, NetworkStatus.ACCESS_DENIED, 10)


def test_a_member_is_told_of_changes_at_once(lab: ControllerLab) -> None:
    one, two = _two(lab)
    lab.change_network(mtu=1400, name="renamed")
    lab.change_member(two, ipAssignments=["10.99.0.77"])
    lab.run(0.5)
    assert (_config(one).mtu, _config(one).name) == (1400, "renamed")
    assert _config(two).addresses == (ip_interface("10.99.0.77/24"),)
    assert two.membership.status is NetworkStatus.OK


def test_rules_take_effect_at_once(lab: ControllerLab) -> None:
    one, two = _two(lab)
    drop = [
        {"type": "MATCH_IP_PROTOCOL", "ipProtocol": 17},
        {"type": "ACTION_DROP"},
        {"type": "ACTION_ACCEPT"},
    ]
    lab.change_network(rules=drop)
    lab.run(0.5)
    one.say(two, b"UDP")
    lab.run(1)
    assert two.heard() == []
    one.ask(two.ip)
    lab.run(2)
    assert one.macs == {two.ip: two.mac}


def test_members_of_a_deleted_network_lose_it_and_each_other(lab: ControllerLab) -> None:
    one, two = _two(lab)
    lab.service.delete_network(lab.network_id, lab.now)
    lab._changed()
    lab.run(1)
    one.say(two, b"still?")
    _settled(lab, one, NetworkStatus.NOT_FOUND, 66)  # a minute, and a tick
    assert two.heard() == []


def test_members_stay_members_for_longer_than_a_certificate_is_good(lab: ControllerLab) -> None:
    one, two = _two(lab)
    number = lab.service.number
    lab.run(3600)
    one.say(two, b"later")
    lab.run(1)
    assert two.heard() == [b"later"]
    assert lab.service.number == number  # nothing to write
    assert 2 * 54 <= lab.service.counters.configurations <= 2 * 61  # at ticks of 5 s
