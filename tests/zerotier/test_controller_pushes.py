"""What a controller says without being asked: pushes and revocations (16.7, 13, 5.4)."""

from __future__ import annotations

import pytest

from zttrio.zerotier import messages

from .controller_bench import POOL, ControllerBench, error_codes, revocations


@pytest.fixture
def bench() -> ControllerBench:
    return ControllerBench()


def test_a_changed_network_is_pushed_to_those_who_asked_within_two_minutes(
    bench: ControllerBench,
) -> None:
    one, two = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network()
    bench.join(two, network_id)
    bench.wait(60)
    bench.join(one, network_id)
    bench.wait(60)
    sent = bench.change(network_id, name="first")
    for puppet in (one, two):
        config = bench.config(puppet, sent)
        assert config is not None
        assert (config.name, config.revision) == ("first", 2)
        assert all(p.verb != messages.OK for p in sent if p.remote == puppet.endpoint)
    bench.wait(0.001)
    sent = bench.change(network_id, name="second") + bench.wait(0.02)
    assert bench.config(one, sent) is not None
    assert bench.config(two, sent) is None
    assert bench.controller.counters.pushes == 3


def test_a_push_is_no_request(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    bench.wait(119)
    assert bench.config(member, bench.change(network_id, name="first")) is not None
    assert bench.config(member, bench.ask(member, network_id)) is not None
    bench.wait(1.5)
    assert bench.config(member, bench.change(network_id, name="second")) is not None


def test_changes_in_quick_succession_are_pushed_as_one(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    bench.wait(1)
    for name in ("a", "b", "c"):
        bench.controller.change_network(network_id, {"name": name}, bench.now)
    config = bench.config(member, bench.settle() + bench.wait(1))
    assert config is not None
    assert config.name == "c"


def test_a_change_that_changes_nothing_is_not_pushed(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network(name="same")
    bench.join(member, network_id)
    bench.wait(1)
    sent = bench.change(network_id, name="same", mtu=2800, unknown=5)
    sent += bench.change_member(network_id, member, authorized=True)
    assert bench.configs(member, sent + bench.wait(1)) == []
    assert bench.controller.network(network_id).revision == 1


def test_a_push_waits_for_the_disk(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    bench.wait(1)
    bench.is_slow = True
    assert bench.configs(member, bench.change(network_id, name="new")) == []
    bench.is_slow = False
    assert bench.config(member, bench.settle()) is not None


def test_many_pushes_are_spread_over_time(bench: ControllerBench) -> None:
    network_id = bench.network(private=False)
    members = [bench.friend(f"10.0.0.{n}/9993") for n in range(5, 38)]
    for member in members:
        bench.ask(member, network_id)
    bench.wait(1)
    sent = bench.change(network_id, name="new")
    assert sum(bench.config(m, sent) is not None for m in members) == 16
    sent += bench.wait(0.01)
    assert sum(bench.config(m, sent) is not None for m in members) == 32
    sent += bench.wait(0.01)
    assert all(bench.config(m, sent) is not None for m in members)


def test_a_member_authorised_for_the_first_time_has_to_ask(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    assert error_codes(bench.ask(member, network_id)) == [messages.ACCESS_DENIED]
    bench.wait(2)
    sent = bench.change_member(network_id, member, authorized=True) + bench.wait(1)
    assert bench.configs(member, sent) == []
    assert bench.config(member, bench.ask(member, network_id)) is not None


def test_a_member_authorised_again_is_told_at_once_with_a_certificate_that_counts(
    bench: ControllerBench,
) -> None:
    member, other = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    bench.join(other, network_id)
    bench.wait(2)
    [revocation] = revocations(bench.change_member(network_id, member, authorized=False), other)
    # In the same millisecond.
    config = bench.config(member, bench.change_member(network_id, member, authorized=True))
    assert config is not None
    assert config.membership is not None
    assert config.membership.timestamp == revocation.threshold + 1
    record = bench.member(network_id, member)
    assert record["lastAuthorizedTime"] == record["lastDeauthorizedTime"] == bench.clock
    assert record["lastAuthorizedCredentialType"] == "api"


def test_a_changed_member_is_pushed_to_that_member_only(bench: ControllerBench) -> None:
    one, two = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network(**POOL)
    bench.join(one, network_id)
    bench.join(two, network_id)
    bench.wait(2)
    sent = bench.change_member(network_id, two, ipAssignments=["10.99.0.200/24"]) + bench.wait(1)
    config = bench.config(two, sent)
    assert config is not None
    assert [str(interface) for interface in config.addresses] == ["10.99.0.200/24"]
    assert bench.configs(one, sent) == []


def test_a_member_shut_out_is_revoked_everywhere_and_denied(bench: ControllerBench) -> None:
    member, other, late = (bench.friend(f"10.0.0.{n}/9993") for n in (5, 6, 7))
    network_id = bench.network()
    bench.join(late, network_id)
    bench.wait(100)
    bench.join(member, network_id)
    bench.join(other, network_id)
    bench.wait(30)
    sent = bench.change_member(network_id, member, authorized=False)
    assert revocations(sent, late) == []  # last asked 130 s ago
    for puppet in (member, other):
        [revocation] = revocations(sent, puppet)
        assert revocation.is_signed_by(bench.node.identity)
        assert revocation.network_id == network_id
        assert revocation.target == member.address
        assert (revocation.credential_type, revocation.credential_id) == (1, 0)
        assert revocation.threshold == bench.clock
        assert revocation.is_fast
    assert bench.configs(member, sent) == []
    assert error_codes(bench.ask(member, network_id)) == [messages.ACCESS_DENIED]
    record = bench.member(network_id, member)
    assert record["lastDeauthorizedTime"] == bench.clock
    # Its certificate is younger than two minutes, so the late one must hear of it too.
    assert [r.target for r in revocations(bench.ask(late, network_id), late)] == [member.address]
    bench.wait(60)
    assert revocations(bench.ask(late, network_id), late) == []


def test_a_revocation_survives_a_restart(bench: ControllerBench) -> None:
    member, other = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    bench.join(other, network_id)
    bench.wait(1)
    # Killed behind the write, before anything was sent.
    bench.controller.change_member(network_id, member.address, {"authorized": False}, bench.now)
    assert bench.collect() == []
    bench.write()
    bench.node.datagrams_to_send()
    bench.restart()
    bench.wait(10)
    [revocation] = revocations(bench.ask(other, network_id), other)
    assert revocation.target == member.address
    assert revocation.threshold == bench.member(network_id, member)["lastDeauthorizedTime"]


def test_an_old_revocation_is_not_repeated(bench: ControllerBench) -> None:
    member, other = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network(certificateTimeoutWindowSize=300_000)
    bench.join(member, network_id)
    bench.change_member(network_id, member, authorized=False)
    bench.now += 299.5
    bench.change_member(network_id, other, authorized=True)
    # Its path has been silent for so long that only its packet, once handled, brings it back.
    sent = bench.ask(other, network_id) + bench.wait(0.4)
    assert len(revocations(sent + bench.wait(0.1), other)) == 1
    bench.restart()
    bench.now += 1.1
    assert revocations(bench.ask(other, network_id), other) == []


def test_revocations_to_one_member_are_more_than_a_second_apart(bench: ControllerBench) -> None:
    network_id = bench.network(private=False)
    members = [bench.friend(f"10.0.0.{n}/9993") for n in range(5, 9)]
    for member in members:
        bench.ask(member, network_id)
    bench.wait(1)
    other = members[-1]
    sent = [bench.change_member(network_id, m, authorized=False) for m in members[:3]]
    assert [len(revocations(s, other)) for s in sent] == [1, 0, 0]
    assert revocations(bench.wait(1.09), other) == []
    # What had to wait goes into one message.
    assert len(revocations(bench.wait(0.02), other)) == 2
    assert bench.wait(5) is not None
    assert bench.controller.next_timer() is None


def test_a_deleted_member_is_revoked_and_forgotten(bench: ControllerBench) -> None:
    member, other = bench.friend("10.0.0.5/9993"), bench.friend("10.0.0.6/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    bench.join(other, network_id)
    bench.controller.delete_member(network_id, member.address, bench.now)
    sent = bench.settle()
    assert [r.target for r in revocations(sent, other)] == [member.address]
    assert [r.target for r in revocations(sent, member)] == [member.address]
    assert (network_id, member.address) not in bench.disk
    bench.wait(2)
    assert error_codes(bench.ask(member, network_id)) == [messages.ACCESS_DENIED]


def test_a_deleted_network_revokes_all_its_members(bench: ControllerBench) -> None:
    network_id = bench.network(private=False)
    members = [bench.friend(f"10.0.0.{n}/9993") for n in range(5, 8)]
    for member in members:
        bench.ask(member, network_id)
    bench.controller.delete_network(network_id, bench.now)
    sent = bench.settle()
    for member in members:
        targets = {revocation.target for revocation in revocations(sent, member)}
        assert targets == {m.address for m in members}
    assert bench.disk == {}
    bench.wait(2)
    assert error_codes(bench.ask(members[0], network_id)) == [messages.NOT_FOUND]
    bench.restart()
    assert bench.controller.networks() == []


def test_a_large_network_is_revoked_in_messages_that_fit(
    bench: ControllerBench,
) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    for number in range(1, 131):
        address = number.to_bytes(5, "big")
        bench.controller.change_member(network_id, address, {"authorized": True}, bench.now)
    bench.controller.delete_network(network_id, bench.now)
    bursts = [revocations(bench.settle(), member)]
    bursts += [revocations(bench.wait(1.1), member) for _ in range(3)]
    assert [len(burst) for burst in bursts] == [60, 60, 11, 0]
    assert len({r.target for burst in bursts for r in burst}) == 131


def test_who_was_shut_out_already_is_not_revoked_again(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    assert len(revocations(bench.change_member(network_id, member, authorized=False), member)) == 1
    bench.wait(5)
    bench.controller.delete_member(network_id, member.address, bench.now)
    bench.controller.delete_network(network_id, bench.now)
    assert revocations(bench.settle() + bench.wait(5), member) == []


def test_a_network_without_members_is_deleted_in_silence(bench: ControllerBench) -> None:
    member = bench.friend("10.0.0.5/9993")
    network_id = bench.network()
    bench.join(member, network_id)
    bench.change_member(network_id, member, authorized=False)
    bench.wait(5)
    bench.controller.delete_network(network_id, bench.now)
    assert revocations(bench.settle() + bench.wait(5), member) == []
    assert bench.disk == {}
