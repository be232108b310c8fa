"""What a controller answers to those who ask (16.2, 16.3, 16.6)."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.controller import Controller, MemberAsked, MemberConfigured, RecordError
from zttrio.zerotier.network.config_request import request_metadata
from zttrio.zerotier.network.dictionary import Dictionary
from zttrio.zerotier.network.frames import NetworkError
from zttrio.zerotier.network.netconf import ACTIVE_BRIDGE, ManagedRoute, NetworkConfig, Specialist
from zttrio.zerotier.network.piece import Piece
from zttrio.zerotier.network.rules import ACCEPT, DROP, Rule

from .controller_bench import POOL, ControllerBench, error_codes
from .data import node_identities
from .lab import EPOCH

if TYPE_CHECKING:
    from zttrio.zerotier.network.capability import Capability
    from zttrio.zerotier.network.credential import MembershipCertificate, Ownership, Tag


@pytest.fixture
def bench() -> ControllerBench:
    return ControllerBench()


def _check_signatures(config: NetworkConfig, bench: ControllerBench) -> int:
    """Every signature in *config* is good; returns how many there are."""
    assert config.membership is not None
    signed: list[MembershipCertificate | Capability | Tag | Ownership] = [config.membership]
    signed += [*config.capabilities, *config.tags, *config.ownerships]
    for credential in signed:
        assert credential.is_signed_by(bench.node.identity)
        assert credential.network_id == config.network_id
        assert credential.issued_to == config.address
        assert credential.timestamp == config.timestamp
    return len(signed)


def test_an_authorised_member_gets_a_configuration_whose_every_signature_is_good(
    bench: ControllerBench,
) -> None:
    member = bench.friend("10.0.0.5/9993")
    drop_port = [
        {"type": "MATCH_IP_DEST_PORT_RANGE", "not": False, "or": False, "start": 80, "end": 80},
        {"type": "ACTION_DROP"},
        {"type": "ACTION_ACCEPT"},
    ]
    network_id = bench.network(
        **POOL,
        name="näme",
        mtu=1400,
        multicastLimit=7,
        rules=drop_port,
        capabilities=[{"id": 77, "rules": [{"type": "ACTION_ACCEPT"}]}],
        tags=[{"id": 5, "default": 8}, {"id": 6, "default": None}],
        dns={"domain": "zt.example", "servers": ["10.99.0.53"]},
        v6AssignMode="rfc4193",
    )
    bench.change_member(network_id, member, authorized=True, capabilities=[77, 78], tags=[[9, 1]])
    config = bench.config(member, bench.ask(member, network_id))
    assert config is not None
    assert _check_signatures(config, bench) == 1 + 1 + 2 + 1
    assert config.network_id == network_id
    assert config.address == member.address
    assert config.timestamp == bench.clock
    assert config.window == 1_800_000
    assert config.membership is not None
    assert config.membership.window == 1_800_000
    assert config.membership.agrees_with(config.membership, member.identity)
    assert (config.name, config.mtu, config.multicast_limit) == ("näme", 1400, 7)
    assert not config.is_public
    assert config.broadcast
    assert config.ndp_emulation
    assert [rule.type for rule in config.rules] == [40, DROP, ACCEPT]
    assert [(c.id, c.rules) for c in config.capabilities] == [(77, (Rule.of(ACCEPT),))]
    assert [(tag.id, tag.value) for tag in config.tags] == [(5, 8), (9, 1)]
    assert config.routes == (ManagedRoute(ip_network("10.99.0.0/24")),)
    assert config.dns is not None
    assert config.dns == ("zt.example", (ip_address("10.99.0.53"),))
    derived, given = config.addresses
    assert derived.network.prefixlen == 88
    assert given in ip_network("10.99.0.0/24")
    assert given.network.prefixlen == 24
    [ownership] = config.ownerships
    assert ownership.owns_ip(derived.ip.packed)
    assert ownership.owns_ip(given.ip.packed)
    assert bench.member(network_id, member)["ipAssignments"] == [str(given.ip)]


def test_the_first_record_of_a_stranger_is_the_recorded_one(bench: ControllerBench) -> None:
    stranger = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    assert error_codes(bench.ask(stranger, network_id)) == [messages.ACCESS_DENIED]
    recorded = {
        "activeBridge": False,
        "address": str(stranger.identity),
        "authenticationExpiryTime": 0,
        "authorized": False,
        "capabilities": [],
        "creationTime": bench.clock,
        "id": str(stranger.identity),
        "identity": stranger.identity.text(),
        "ipAssignments": [],
        "lastAuthorizedCredential": None,
        "lastAuthorizedCredentialType": None,
        "lastAuthorizedTime": 0,
        "lastDeauthorizedTime": 0,
        "noAutoAssignIps": False,
        "nwid": f"{network_id:016x}",
        "objtype": "member",
        "remoteTraceLevel": 0,
        "remoteTraceTarget": None,
        "revision": 1,
        "ssoExempt": False,
        "tags": [],
        "vMajor": -1,
        "vMinor": -1,
        "vProto": -1,
        "vRev": -1,
    }
    assert bench.member(network_id, stranger) == recorded
    assert bench.controller.take_events() == [MemberAsked(network_id, stranger.address)]
    bench.wait(5)
    bench.ask(stranger, network_id)
    assert bench.member(network_id, stranger) == recorded
    assert bench.controller.take_events() == []


def test_a_request_is_refused_until_more_than_a_second_after_the_last(
    bench: ControllerBench,
) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.now = 6000.0
    bench.join(member, network_id)
    bench.now = 6001.0
    assert bench.ask(member, network_id) == []
    bench.now = 6001.001
    assert bench.config(member, bench.ask(member, network_id)) is not None
    assert bench.controller.counters.too_soon == 1


def test_an_unknown_network_is_not_found(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = int.from_bytes(bench.node.address, "big") << 24 | 0xABCDEF
    sent = bench.ask(member, network_id)
    assert error_codes(sent) == [messages.NOT_FOUND]
    _, _, code, data = messages.parse_error(sent[0].payload)
    assert NetworkError.parse(code, data).network_id == network_id


def test_another_controllers_network_gets_no_answer(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    bench.network()
    assert bench.ask(member, 0x0123456789ABCDEF) == []
    assert bench.controller.counters.not_ours == 1


def test_an_address_belongs_to_the_identity_that_was_seen_first(bench: ControllerBench) -> None:
    network_id = bench.network(private=False)
    member = bench.friend("10.0.0.5/9993")
    assert bench.config(member, bench.ask(member, network_id)) is not None
    record = dict(bench.member(network_id, member))
    bench.restart()
    other = node_identities()[9].text()[10:]
    key = (network_id, member.address)
    bench.disk[key] = bench.disk[key].replace(member.identity.text()[10:], other)
    bench.restart()
    bench.wait(2)
    assert error_codes(bench.ask(member, network_id)) == [messages.ACCESS_DENIED]
    assert bench.controller.counters.wrong_identity == 1
    assert bench.member(network_id, member) == {**record, "identity": str(member.identity) + other}


def test_everybody_may_join_a_public_network(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(private=False)
    config = bench.config(member, bench.ask(member, network_id))
    assert config is not None
    assert config.is_public
    record = bench.member(network_id, member)
    assert record["authorized"]
    assert record["lastAuthorizedTime"] == bench.clock
    assert record["lastAuthorizedCredentialType"] == "public"
    assert record["lastAuthorizedCredential"] is None
    assert bench.controller.take_events() == [MemberConfigured(network_id, member.address)]


@pytest.mark.parametrize(
    ("token", "expiry", "is_good"),
    [("secret", 0, True), ("secret", 60_000, True), ("secret", -1, False), ("wrong", 0, False)],
)
def test_a_token_lets_a_member_in_until_it_expires(
    bench: ControllerBench, token: str, expiry: int, is_good: bool
) -> None:
    member = bench.friend("10.0.0.5/9993")
    until = bench.clock + expiry if expiry else 0
    network_id = bench.network(authTokens={"secret": until})
    sent = bench.ask(member, network_id, request_metadata((1, 14, 1), token=token))
    record = bench.member(network_id, member)
    assert record["authorized"] is is_good
    if is_good:
        assert bench.config(member, sent) is not None
        assert record["lastAuthorizedCredentialType"] == "token"
        assert record["lastAuthorizedCredential"] == "secret"
    else:
        assert error_codes(sent) == [messages.ACCESS_DENIED]


def test_a_member_that_knows_no_rules_is_told_to_accept_everything(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(
        rules=[{"type": "ACTION_DROP"}],
        tags=[{"id": 1, "default": 2}],
        capabilities=[{"id": 1, "default": True, "rules": []}],
    )
    bench.change_member(network_id, member, authorized=True)
    config = bench.config(member, bench.ask(member, network_id, Dictionary()))
    assert config is not None
    assert config.rules == (Rule.of(ACCEPT),)
    assert config.tags == ()
    assert config.capabilities == ()
    bench.wait(2)
    config = bench.config(member, bench.ask(member, network_id))
    assert config is not None
    assert config.rules == (Rule.of(DROP),)
    assert len(config.tags) == len(config.capabilities) == 1


def test_a_members_software_is_noted_when_it_asks_for_itself(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    record = bench.member(network_id, member)
    assert [record[field] for field in ("vMajor", "vMinor", "vRev", "vProto")] == [1, 14, 1, 12]


def test_nothing_is_written_when_nothing_has_changed(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(**POOL)
    bench.join(member, network_id)
    before = bench.controller.number
    bench.wait(60)
    assert bench.config(member, bench.ask(member, network_id)) is not None
    assert bench.controller.number == before


def test_default_capabilities_come_with_the_first_authorisation_only(
    bench: ControllerBench,
) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(
        capabilities=[
            {"id": 3, "default": True, "rules": []},
            {"id": 4, "default": False, "rules": []},
        ]
    )
    bench.ask(member, network_id)  # the reference would now never give it the defaults
    bench.change_member(network_id, member, authorized=True)
    assert bench.member(network_id, member)["capabilities"] == [3]
    bench.change_member(network_id, member, capabilities=[4])
    bench.change_member(network_id, member, authorized=False)
    bench.change_member(network_id, member, authorized=True)
    assert bench.member(network_id, member)["capabilities"] == [4]


def test_bridges_are_listed_for_everybody_while_they_are_authorised(bench: ControllerBench) -> None:
    one, two = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network()
    bench.join(one, network_id)
    bench.join(two, network_id)
    bench.wait(2)
    sent = bench.change_member(network_id, two, activeBridge=True)
    config = bench.config(one, sent)
    assert config is not None
    assert config.specialists == (Specialist(two.address, ACTIVE_BRIDGE),)
    bench.wait(1)
    sent = bench.change_member(network_id, two, authorized=False)
    config = bench.config(one, sent)
    assert config is not None
    assert config.specialists == ()


def test_a_large_configuration_comes_in_signed_pieces_with_one_packet_id(
    bench: ControllerBench,
) -> None:
    member = bench.friend("10.0.0.5/9993")
    rules = [
        {"type": "MATCH_IPV6_SOURCE", "ip": f"fd00::{number:x}/128"} for number in range(1, 1023)
    ]
    network_id = bench.network(rules=[*rules, {"type": "ACTION_ACCEPT"}])
    bench.change_member(network_id, member, authorized=True)
    sent = bench.ask(member, network_id)
    pieces = [p for p in sent if p.verb == messages.OK]
    assert len(pieces) >= 3
    assert len({messages.parse_ok(p.payload)[1] for p in pieces}) == 1
    lengths = [len(Piece.parse(messages.parse_ok(p.payload)[2]).data) for p in pieces]
    assert lengths[:-1] == [9740] * (len(pieces) - 1)
    config = bench.config(member, sent)
    assert config is not None
    assert len(config.rules) == 1023


def test_sign_on_is_asked_for_when_it_has_expired(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(ssoEnabled=True, authorizationEndpoint="https://login.example/")
    bench.change_member(network_id, member, authorized=True)
    sent = bench.ask(member, network_id)
    assert error_codes(sent) == [messages.AUTHENTICATION_REQUIRED]
    _, _, code, data = messages.parse_error(sent[0].payload)
    assert NetworkError.parse(code, data).url == "https://login.example/"
    expiry = bench.clock + 10_000
    bench.change_member(network_id, member, authenticationExpiryTime=expiry)
    bench.wait(2)
    config = bench.config(member, bench.ask(member, network_id))
    assert config is not None
    assert config.sign_on_enabled
    assert config.sign_on_expiry == expiry
    bench.wait(9)
    assert error_codes(bench.ask(member, network_id)) == [messages.AUTHENTICATION_REQUIRED]
    bench.change_member(network_id, member, ssoExempt=True)
    bench.wait(2)
    assert bench.config(member, bench.ask(member, network_id)) is not None


def test_group_messages_are_believed_for_three_minutes_after_a_configuration(
    bench: ControllerBench,
) -> None:
    member, stranger = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network()
    controller = bench.controller
    assert not controller.answers_for(network_id, member.address, bench.now)
    bench.join(member, network_id)
    bench.ask(stranger, network_id)
    assert controller.answers_for(network_id, member.address, bench.now)
    assert not controller.answers_for(network_id, stranger.address, bench.now)
    assert not controller.answers_for(network_id + 1, member.address, bench.now)
    assert controller.answers_for(network_id, member.address, bench.now + 180)
    assert not controller.answers_for(network_id, member.address, bench.now + 180.001)
    bench.change_member(network_id, member, authorized=False)
    assert not controller.answers_for(network_id, member.address, bench.now)


def test_strangers_cannot_fill_the_records(
    bench: ControllerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zttrio.zerotier.controller.controller._STRANGERS", 3)
    network_id = bench.network()
    first, *others = (bench.friend(f"10.0.0.{n}/9993") for n in range(5, 11))
    named = others[0]
    bench.ask(first, network_id)
    bench.ask(named, network_id)
    bench.change_member(network_id, named, name="worth keeping")
    for puppet in others[1:]:
        bench.ask(puppet, network_id)
    known = {member.address for member in bench.controller.members(network_id)}
    assert known == {named.address, *(puppet.address for puppet in others[2:])}
    assert bench.controller.counters.records_evicted == 2
    assert {address for _, address in bench.disk if address is not None} == known


def test_a_public_network_takes_no_more_members_than_it_can_hold(
    bench: ControllerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zttrio.zerotier.controller.controller._MEMBERS", 1)
    network_id = bench.network(private=False)
    one, two = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    assert bench.config(one, bench.ask(one, network_id)) is not None
    assert error_codes(bench.ask(two, network_id)) == [messages.ACCESS_DENIED]
    assert bench.controller.counters.network_full == 1


def test_an_answer_waits_for_the_disk(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(private=False, **POOL)
    bench.is_slow = True
    assert bench.ask(member, network_id) == []
    bench.is_slow = False
    config = bench.config(member, bench.settle())
    assert config is not None
    assert config.addresses == (
        ip_interface(f"{bench.member(network_id, member)['ipAssignments'][0]}/24"),
    )


def test_a_disk_that_is_stuck_holds_only_so_many_answers(
    bench: ControllerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zttrio.zerotier.controller.journal._WAITING", 2)
    network_id = bench.network(private=False)
    bench.is_slow = True
    puppets = [bench.friend(f"10.0.0.{n}/9993") for n in range(5, 9)]
    for puppet in puppets:
        assert bench.ask(puppet, network_id) == []
    bench.is_slow = False
    sent = bench.settle()
    assert [len(bench.configs(puppet, sent)) for puppet in puppets] == [1, 1, 0, 0]
    bench.wait(5)
    assert bench.config(puppets[3], bench.ask(puppets[3], network_id)) is not None


def test_a_member_deleted_or_shut_out_meanwhile_gets_nothing(bench: ControllerBench) -> None:
    network_id = bench.network(private=False)
    one, two = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    bench.is_slow = True
    bench.ask(one, network_id)
    bench.ask(two, network_id)
    bench.controller.delete_member(network_id, one.address, bench.now)
    bench.change_member(network_id, two, authorized=False)
    bench.is_slow = False
    sent = bench.settle()
    assert bench.configs(one, sent) == bench.configs(two, sent) == []
    assert not bench.controller.answers_for(network_id, two.address, bench.now)


def test_network_numbers_are_not_used_twice(bench: ControllerBench) -> None:
    controller = Controller(bench.node, rng=lambda length: b"\xff" * length, epoch=EPOCH)
    made = [controller.create_network({}, bench.now).network_id for _ in range(3)]
    assert [network_id & 0xFFFFFF for network_id in made] == [1, 2, 3]
    assert {network_id >> 24 for network_id in made} == {int(str(bench.node.identity), 16)}


def test_a_configuration_that_no_member_could_take_is_not_sent(
    bench: ControllerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zttrio.zerotier.controller.controller.MAX_CONFIGURATION", 500)
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(private=False)
    assert bench.ask(member, network_id) == []
    assert bench.controller.counters.as_dict()["too_large"] == 1


@pytest.mark.parametrize(
    ("network", "member", "why"),
    [
        ("{", None, "is damaged"),
        ("[]", None, "not one of this controller's"),
        ('{"mtu": "wide"}', None, "mtu: needs a whole number"),
        (None, "{}", "stored members and no record"),
        ("{}", '{"tags": 5}', "tags: needs a list"),
    ],
)
def test_damaged_records_are_not_overlooked(
    bench: ControllerBench, network: str | None, member: str | None, why: str
) -> None:
    network_id = int(str(bench.node.identity) + "abcdef", 16)
    if network is not None:
        bench.disk[network_id, None] = network
    if member is not None:
        bench.disk[network_id, bytes(4) + b"\x01"] = member
    with pytest.raises(RecordError, match=why):
        bench.restart()


def test_records_of_an_earlier_version_get_defaults(bench: ControllerBench) -> None:
    network_id = int(str(bench.node.identity) + "abcdef", 16)
    bench.disk[network_id, None] = '{"name": "old", "revision": 7}'
    bench.disk[network_id, bytes(4) + b"\x01"] = '{"authorized": true}'
    bench.restart()
    network = bench.controller.network(network_id)
    assert (network.name, network.revision, network.is_private) == ("old", 7, True)
    [member] = bench.controller.members(network_id)
    assert member.is_authorized
    assert member.fields["vMajor"] == -1


def test_a_restarted_controller_knows_everything(bench: ControllerBench) -> None:
    member, stranger = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network(**POOL, name="before", certificateTimeoutWindowSize=400_000)
    config = bench.join(member, network_id)
    bench.ask(stranger, network_id)
    before = bench.controller
    bench.restart()
    after = bench.controller
    assert after.networks() == [network_id]
    assert after.network(network_id).fields == before.network(network_id).fields
    assert [m.fields for m in after.members(network_id)] == [
        m.fields for m in before.members(network_id)
    ]
    bench.wait(2)
    again = bench.config(member, bench.ask(member, network_id))
    assert again is not None
    assert again.addresses == config.addresses
    assert again.window == 400_000


def test_junk_requests_are_malformed_and_nothing_else(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(private=False)
    for length in (0, 5, 9):
        payload = network_id.to_bytes(8, "big") + b"\xff\xff"
        member.send(messages.NETWORK_CONFIG_REQUEST, payload[:length])
    bench.settle()
    assert bench.node.counters.packet_malformed == 3
    junk = Dictionary(v=b"x", a=b"token:\xff\xfe", majv=b"f" * 40, pv=b"-1", revr=b"zz")
    assert bench.config(member, bench.ask(member, network_id, junk)) is not None
    bench.restart()
    assert bench.member(network_id, member)["vMajor"] == (1 << 64) - 1
