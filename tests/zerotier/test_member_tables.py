"""The tables of a member: what they keep, for how long, and how they stay bounded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.zerotier import messages
from zttrio.zerotier.network.bridging import BridgeRoutes, GroupsBehind
from zttrio.zerotier.network.capability import Capability
from zttrio.zerotier.network.certificate import MembershipCertificate
from zttrio.zerotier.network.credential import Ownership, Revocation, Tag, Thing
from zttrio.zerotier.network.derived import Group, mac_of
from zttrio.zerotier.network.member_config import MemberConfig
from zttrio.zerotier.network.member_record import (
    FORGED,
    FULL,
    KNOWN,
    NEW,
    OLD,
    REVOKED,
    MemberRecord,
)
from zttrio.zerotier.network.member_table import MemberTable
from zttrio.zerotier.network.multicast import GroupTable, random_sample
from zttrio.zerotier.network.network_counters import (
    FRAME_OUTCOMES,
    MESSAGE_OUTCOMES,
    NetworkCounters,
)

from .data import network_identity
from .member_bench import NETWORK_ID, WINDOW, MemberBench

CONTROLLER = network_identity("controller")
PEER = network_identity("peer")
ME = network_identity("me")
TIME = 1_700_000_000_000
GROUP, OTHER = Group(b"\x01\x00\x5e\x00\x00\xfb"), Group(b"\xff" * 6, 7)


def _address(number: int) -> bytes:
    return b"\x01" + number.to_bytes(4, "big")


# groups


def test_a_member_of_a_group_stays_600_seconds_after_it_was_named_last() -> None:
    table = GroupTable(random.Random(1).randbytes)
    assert table.add(1, GROUP, _address(1), 0.0)
    assert not table.add(1, GROUP, _address(1), 100.0)
    assert table.add(1, GROUP, _address(2), 200.0)
    assert table.members(1, GROUP, 699.9) == [_address(1), _address(2)]
    assert table.members(1, GROUP, 700.0) == [_address(2)]
    assert table.members(2, GROUP, 700.0) == []
    table.expire(800.0)
    assert len(table) == 0


def test_a_member_that_comes_back_after_its_time_is_news() -> None:
    table = GroupTable(random.Random(1).randbytes)
    table.add(1, GROUP, _address(1), 0.0)
    assert table.add(1, GROUP, _address(1), 600.0)


def test_the_table_of_groups_is_bounded_and_a_flood_does_not_drive_anybody_out() -> None:
    table = GroupTable(random.Random(1).randbytes, limit=100, per_member=60)
    table.add(1, GROUP, _address(1), 0.0)
    for number in range(1000):
        table.add(1, Group(b"\1" * 6, number), _address(2), 0.0)
    assert len(table) == 61
    for number in range(1000):
        table.add(1, Group(b"\3" * 6, number), _address(3), 0.0)
    assert len(table) == 100
    assert table.refused == 940 + 961
    assert table.members(1, GROUP, 0.0) == [_address(1)]
    table.expire(600.0)
    assert len(table) == 0
    assert table.add(1, GROUP, _address(2), 600.0)


def test_leaving_a_network_or_a_group_makes_room() -> None:
    table = GroupTable(random.Random(1).randbytes, per_member=2)
    for network_id in (1, 2):
        for group in (GROUP, OTHER):
            table.add(network_id, group, _address(1), 0.0)
    table.remove(1, GROUP, _address(1))
    table.remove(1, GROUP, _address(1))
    assert len(table) == 3
    table.forget_network(2)
    assert len(table) == 1
    assert table.add(2, GROUP, _address(1), 0.0)


def test_a_sample_leaves_the_asker_out_and_counts_it() -> None:
    table = GroupTable(random.Random(1).randbytes)
    for number in range(10):
        table.add(1, GROUP, _address(number), 0.0)
    total, found = table.sample(1, GROUP, 4, 0.0, but_not=_address(3))
    assert (total, len(found)) == (10, 4)
    total, found = table.sample(1, GROUP, 99, 0.0, but_not=_address(3))
    assert sorted(found) == [_address(n) for n in range(10) if n != 3]


@given(size=st.integers(0, 30), count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_a_sample_has_no_doubles_and_the_right_size(size: int, count: int, seed: int) -> None:
    items = [_address(number) for number in range(size)]
    sample = random_sample(items, count, random.Random(seed).randbytes)
    assert len(sample) == len(set(sample)) == min(size, count)
    assert set(sample) <= set(items)


def test_every_member_is_equally_likely_to_be_in_a_sample() -> None:
    items = [_address(number) for number in range(5)]
    rng = random.Random(2).randbytes
    counts = dict.fromkeys(items, 0)
    for _ in range(2000):
        for item in random_sample(items, 2, rng):
            counts[item] += 1
    assert all(700 < count < 900 for count in counts.values())


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "expire", "forget"]),
            st.integers(0, 2),
            st.integers(0, 3),
            st.integers(0, 4),
            st.floats(0, 300),
        ),
        max_size=60,
    )
)
def test_the_table_of_groups_never_miscounts(
    steps: list[tuple[str, int, int, int, float]],
) -> None:
    table = GroupTable(random.Random(1).randbytes, limit=12, per_member=4)
    model: dict[tuple[int, Group, bytes], float] = {}
    now = 0.0
    for what, network_id, group_number, member, passed in steps:
        now += passed
        group, address = Group(b"\1" * 6, group_number), _address(member)
        key = network_id, group, address
        if what == "add":
            held = sum(k[0] == network_id and k[2] == address for k in model)
            if key in model or (len(model) < 12 and held < 4):
                model[key] = now
            table.add(network_id, group, address, now)
        elif what == "remove":
            model.pop(key, None)
            table.remove(network_id, group, address)
        elif what == "expire":
            model = {k: when for k, when in model.items() if now - when < 600}
            table.expire(now)
        else:
            model = {k: when for k, when in model.items() if k[0] != network_id}
            table.forget_network(network_id)
        assert len(table) == len(model)
    table.expire(now)
    alive = {k for k, when in model.items() if now - when < 600}
    for network_id in range(3):
        for number in range(4):
            group = Group(b"\1" * 6, number)
            expected = {k[2] for k in alive if k[:2] == (network_id, group)}
            assert set(table.members(network_id, group, now)) == expected


# bridges


def test_a_mac_is_behind_the_bridge_it_was_seen_last_by() -> None:
    routes = BridgeRoutes()
    routes.learn(b"mac--1", b"one--")
    routes.learn(b"mac--1", b"one--")
    assert routes.find(b"mac--1") == b"one--"
    routes.learn(b"mac--1", b"two--")
    assert routes.find(b"mac--1") == b"two--"
    routes.forget(b"one--")
    assert routes.find(b"mac--1") == b"two--"
    routes.forget(b"two--")
    assert routes.find(b"mac--1") is None


def test_a_flood_of_macs_harms_the_bridge_it_comes_by() -> None:
    routes = BridgeRoutes(limit=100)
    for number in range(10):
        routes.learn(b"good" + number.to_bytes(2, "big"), b"one--")
    for number in range(1000):
        routes.learn(b"evil" + number.to_bytes(2, "big"), b"two--")
        assert len(routes) <= 100
    assert all(routes.find(b"good" + n.to_bytes(2, "big")) == b"one--" for n in range(10))


def test_a_group_behind_us_is_forgotten_after_20_minutes() -> None:
    behind = GroupsBehind(limit=3)
    assert behind.learn(GROUP, 0.0)
    assert not behind.learn(GROUP, 100.0)
    assert not behind.expire(1299.9)
    assert behind.groups() == {GROUP}
    assert behind.expire(1300.0)
    assert behind.groups() == frozenset()
    for number in range(10):
        behind.learn(Group(b"\1" * 6, number), 2000.0)
    assert behind.groups() == {Group(b"\1" * 6, number) for number in (7, 8, 9)}


# members


def _table(limit: int = 3) -> tuple[MemberTable, NetworkCounters]:
    counters = NetworkCounters()
    return MemberTable(NETWORK_ID, ME.address, limit, counters), counters


def test_the_member_used_longest_ago_makes_room() -> None:
    table, counters = _table()
    records = [table.obtain(_address(n), float(n)) for n in range(3)]
    assert records[0] is not None
    table.touch(records[0], 10.0)
    table.obtain(_address(3), 11.0)
    assert [record.address for record in table] == [_address(2), _address(0), _address(3)]
    assert counters.records_evicted == 1
    assert table.by_mac.keys() == {mac_of(r.address, NETWORK_ID) for r in table}


def test_neither_we_nor_nobody_gets_a_record() -> None:
    table, _ = _table()
    for address in (ME.address, bytes(5), b"\xff\1\2\3\4"):
        assert table.obtain(address, 0.0) is None
        assert table.find(address, 0.0) is None
    assert len(table) == 0


def test_members_not_used_for_ten_minutes_are_forgotten() -> None:
    table, _ = _table()
    table.obtain(_address(1), 0.0)
    table.obtain(_address(2), 1.0)
    table.expire(599.9)
    assert len(table) == 2
    table.expire(600.0)
    assert [record.address for record in table] == [_address(2)]


def _revoked(table: MemberTable, number: int, threshold: int = TIME) -> MemberRecord:
    record = table.obtain(_address(number), 0.0)
    assert record is not None
    record.certificate_threshold = threshold
    return record


def test_a_revocation_is_not_forgotten_while_what_it_revokes_could_still_count() -> None:
    table, counters = _table()
    table.set_window(TIME, WINDOW)
    for number in range(3):
        _revoked(table, number)
    assert table.obtain(_address(9), 0.0) is None
    table.expire(10_000.0)
    assert len(table) == 3
    table.set_window(TIME + WINDOW + 1, WINDOW)
    assert table.obtain(_address(9), 0.0) is not None
    assert counters.records_evicted == 1
    table.expire(10_000.0)
    assert len(table) == 0


def test_what_is_repeated_to_members_a_second_later_is_bounded() -> None:
    bench = MemberBench()
    membership = bench.join()
    for number in range(300):
        record = membership.members.obtain(_address(number), bench.now)
        assert record is not None
        membership.push_if_due(record, bench.now)
    verb = messages.NETWORK_CREDENTIALS
    assert membership.tell_members(verb, bytes(9), bench.now, but_not=(_address(7),)) == 299
    assert membership.sizes()["later"] == 256
    bench.pass_time(1.2)
    assert membership.sizes()["later"] == 0


# credentials of one member


def _record() -> MemberRecord:
    return MemberRecord(PEER.address, mac_of(PEER.address, NETWORK_ID))


def _certificate(timestamp: int = TIME) -> MembershipCertificate:
    return MembershipCertificate.issue(
        CONTROLLER, network_id=NETWORK_ID, member=PEER, timestamp=timestamp, window=WINDOW
    )


def _tag(number: int = 7, timestamp: int = TIME, value: int = 3) -> Tag:
    return Tag.issue(
        CONTROLLER,
        network_id=NETWORK_ID,
        id=number,
        value=value,
        issued_to=PEER.address,
        timestamp=timestamp,
    )


def _offer(record: MemberRecord, credential: Tag | Capability | Ownership) -> str:
    return record.offer(credential, CONTROLLER, lambda _: None)


def test_a_credential_is_taken_once_and_only_a_newer_one_replaces_it() -> None:
    record = _record()
    assert _offer(record, _tag()) == NEW
    assert _offer(record, _tag()) == KNOWN
    assert _offer(record, _tag(timestamp=TIME - 1)) == OLD
    assert _offer(record, _tag(value=4)) == NEW  # as old, and different
    record.refresh(TIME, WINDOW, 1)
    assert record.tag(7) == 4


@pytest.mark.parametrize(("distance", "counts"), [(WINDOW, True), (WINDOW + 1, False)])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_credential_counts_within_the_window_around_our_own_time(
    distance: int, counts: bool, direction: int
) -> None:
    record = _record()
    _offer(record, _tag())
    record.refresh(TIME + direction * distance, WINDOW, 1)
    assert (record.tag(7) == 3) is counts
    record.refresh(TIME, WINDOW, 2)
    # What is too old is gone; what is too young may come of age.
    assert (record.tag(7) == 3) is (counts or direction == -1)


def test_a_credential_that_somebody_else_has_signed_is_not_taken() -> None:
    forged = Tag.issue(
        PEER, network_id=NETWORK_ID, id=7, value=3, issued_to=PEER.address, timestamp=TIME
    )
    assert _offer(_record(), forged) == FORGED
    capability = Capability.issue(
        PEER, network_id=NETWORK_ID, id=1, rules=(), issued_to=PEER.address, timestamp=TIME
    )
    assert _offer(_record(), capability) == FORGED


def test_capabilities_are_tried_in_ascending_order() -> None:
    record = _record()
    for number in (5, 1, 3):
        capability = Capability.issue(
            CONTROLLER,
            network_id=NETWORK_ID,
            id=number,
            rules=(),
            issued_to=PEER.address,
            timestamp=TIME,
        )
        assert _offer(record, capability) == NEW
    record.refresh(TIME, WINDOW, 1)
    assert [capability.id for capability in record.capabilities()] == [1, 3, 5]


def test_what_a_member_owns_is_what_its_certificates_list() -> None:
    record = _record()
    mac, ip = bytes(range(6)), bytes((10, 5, 0, 9))
    ownership = Ownership.issue(
        CONTROLLER,
        network_id=NETWORK_ID,
        things=(Thing.ip(ip), Thing.mac(mac)),
        issued_to=PEER.address,
        timestamp=TIME,
    )
    assert _offer(record, ownership) == NEW
    assert not record.owns_ip(ip)  # it counts when the record is refreshed
    record.refresh(TIME, WINDOW, 1)
    assert record.owns_ip(ip)
    assert record.owns_mac(mac)
    assert not record.owns_ip(bytes(4))
    assert not record.owns_mac(bytes(6))


def test_a_members_credentials_are_bounded_and_the_oldest_makes_room() -> None:
    record = _record()
    for number in range(128):
        assert _offer(record, _tag(number, TIME + number)) == NEW
    assert _offer(record, _tag(500, TIME)) == FULL
    assert _offer(record, _tag(501, TIME + 500)) == NEW
    record.refresh(TIME, WINDOW, 1)
    assert record.tag(0) is None
    assert record.tag(501) == 3


def _revocation(kind: int, number: int = 0, threshold: int = TIME) -> Revocation:
    return Revocation.issue(
        CONTROLLER,
        network_id=NETWORK_ID,
        id=1,
        threshold=threshold,
        target=PEER.address,
        credential_type=kind,
        credential_id=number,
    )


def test_what_was_taken_back_is_not_taken_again() -> None:
    record = _record()
    assert record.revoke(_revocation(3, 7), CONTROLLER) == NEW
    assert record.revoke(_revocation(3, 7), CONTROLLER) == KNOWN
    assert _offer(record, _tag()) == REVOKED
    assert _offer(record, _tag(timestamp=TIME + 1)) == NEW
    assert record.offer_certificate(_certificate(), CONTROLLER) == REVOKED
    assert record.offer_certificate(_certificate(TIME + 1), CONTROLLER) == NEW
    assert record.revoke(_revocation(1, threshold=TIME + 1), CONTROLLER) == NEW
    assert not record.agrees(_certificate(TIME + 1), PEER)


def test_thresholds_are_bounded_and_the_member_stays_out_all_the_same() -> None:
    record = _record()
    for number in range(1024):
        assert record.revoke(_revocation(3, number), CONTROLLER) == NEW
    assert record.revoke(_revocation(3, 5000, TIME + 9), CONTROLLER) == NEW
    assert record.certificate_threshold == TIME + 9
    assert _offer(record, _tag(5000)) == NEW


# counters and configuration


def test_every_outcome_is_a_counter() -> None:
    names = NetworkCounters().as_dict()
    assert set(MESSAGE_OUTCOMES) <= set(names)
    assert set(FRAME_OUTCOMES) <= set(names)
    assert not set(MESSAGE_OUTCOMES) & set(FRAME_OUTCOMES)
    with pytest.raises(AttributeError):
        NetworkCounters().count("what_nobody_counts")


@pytest.mark.parametrize(
    "wrong",
    [
        {"complaint_interval": -1},
        {"gather_interval": -1},
        {"network_limit": 0},
        {"record_limit": 0},
        {"ring": 0},
        {"kept": 0},
        {"kept_per_peer": 0},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=name):
        MemberConfig(**wrong)  # type: ignore[arg-type]
