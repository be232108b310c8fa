"""Records of networks and members, and what may be written into them (16.5, 16.8)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.zerotier.controller import MemberRecord, NetworkRecord, RecordError
from zttrio.zerotier.controller.fields import MEMBER_FIELDS, NETWORK_FIELDS

from .data import load

NETWORK_ID = 0x831A3028F4DD7106
ADDRESS = bytes.fromhex("521fa3056e")


def _network(**changes: Any) -> dict[str, Any]:
    return dict(NetworkRecord.new(NETWORK_ID, 7).changed(changes).fields)


def _member(**changes: Any) -> dict[str, Any]:
    return dict(MemberRecord.new(NETWORK_ID, ADDRESS, 7).changed(changes, 9).fields)


def test_a_new_network_is_the_recorded_one() -> None:
    recorded = load("vl2")["controller_api"][
        "POST /controller/network/{controller address}______ with {}"
    ]
    clock = recorded["creationTime"]
    made = NetworkRecord.new(int(recorded["nwid"], 16), clock)
    assert dict(made.fields) == recorded


def test_recorded_members_are_read_and_kept_as_they_are() -> None:
    for name in ("member before authorisation", "member after authorisation, tags and addresses"):
        recorded = load("vl2")["controller_api"][name]
        network_id, address = int(recorded["nwid"], 16), bytes.fromhex(recorded["address"])
        assert dict(MemberRecord.load(network_id, address, recorded).fields) == recorded


def test_a_change_raises_the_revision_and_nothing_else_does() -> None:
    record = NetworkRecord.new(NETWORK_ID, 7)
    assert record.changed({}) is record
    assert record.changed({"name": "", "revision": 99, "nwid": "0", "nonsense": 1}) is record
    changed = record.changed({"name": "x", "id": "elsewhere", "creationTime": 0})
    assert changed.revision == 2
    assert {**changed.fields, "name": "", "revision": 1} == dict(record.fields)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (1, True),
        (0.5, True),
        (0, False),
        ("true", True),
        ("T", True),
        ("1", True),
        ("yes", False),
        ("false", False),
        ("", False),
    ],
)
def test_truth_may_be_written_as_the_reference_reads_it(value: Any, expected: bool) -> None:
    assert _network(private=not expected)["private"] is not expected
    assert _network(private=value)["private"] is expected


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("mtu", 100, 1280),
        ("mtu", 99_999, 10_000),
        ("mtu", "1400", 1400),
        ("mtu", 1400.0, 1400),
        ("multicastLimit", 0, 0),
        ("certificateTimeoutWindowSize", 5, 300_000),
        ("certificateTimeoutWindowSize", 1 << 70, 7_200_000),
        ("v4AssignMode", "zt", {"zt": True}),
        ("v4AssignMode", {"zt": 1, "more": 2}, {"zt": True}),
        ("v6AssignMode", "6plane, zt", {"zt": True, "6plane": True, "rfc4193": False}),
        ("v6AssignMode", {"rfc4193": True}, {"zt": False, "6plane": False, "rfc4193": True}),
        ("routes", [{"target": "10.0.0.5/24"}], [{"target": "10.0.0.0/24", "via": None}]),
        ("routes", [{"target": "10.0.0.0/33"}, {"via": None}], []),
        (
            "routes",
            [{"target": "::/0", "via": "FD00::1"}],
            [{"target": "::/0", "via": "fd00::1"}],
        ),
        (
            "ipAssignmentPools",
            [
                {"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.9"},
                {"ipRangeStart": "10.0.0.9", "ipRangeEnd": "10.0.0.1"},
                {"ipRangeStart": "10.0.0.1", "ipRangeEnd": "fd00::1"},
                {"ipRangeStart": "fe80::1%eth0", "ipRangeEnd": "fe80::9"},
                {"ipRangeStart": "10.0.0.1"},
            ],
            [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.9"}],
        ),
        ("authTokens", {"a": 5, "b": "0"}, {"a": 5, "b": 0}),
        ("authTokens", [None], [None]),
        ("authTokens", {}, [None]),
        ("dns", {}, []),
        ("dns", {"domain": "x", "servers": []}, {"domain": "x", "servers": []}),
        (
            "tags",
            [{"id": 2}, {"id": 1, "default": 3}],
            [{"id": 1, "default": 3}, {"id": 2, "default": None}],
        ),
        ("remoteTraceTarget", "", None),
        ("remoteTraceTarget", "0123456789", "0123456789"),
    ],
)
def test_a_networks_fields_are_kept_in_one_form(field: str, value: Any, kept: Any) -> None:
    assert _network(**{field: value})[field] == kept


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("name", "x" * 128, "at most 127 octets"),
        ("name", "a\0b", "without NUL"),
        ("name", "\ud800", "half a character"),
        ("name", 5, "needs a text, got 5"),
        ("private", [], "needs true or false"),
        ("multicastLimit", "many", "needs a whole number, got 'many'"),
        ("multicastLimit", True, "needs a whole number"),
        ("multicastLimit", -1, "needs 0 to"),
        ("mtu", None, "needs a whole number"),
        ("mtu", float("nan"), "needs a whole number"),
        ("routes", {}, "needs a list"),
        ("routes", [5], "needs objects"),
        ("routes", [{"target": "10.0.0.0/8", "via": "fd00::1"}], "does not fit"),
        ("routes", [{"target": "10.0.0.0/8", "via": "gateway"}], "is no IP address"),
        ("routes", [{"target": "10.0.0.0/8"}] * 129, "at most 128 entries"),
        ("ipAssignmentPools", ["10.0.0.1"], "needs objects"),
        ("v4AssignMode", 5, "needs an object"),
        ("rules", [{"type": "ACTION_ACCEPT"}, {"type": "MATCH_NOTHING"}], "rule 1"),
        ("rules", [{"type": "ACTION_ACCEPT"}] * 1025, "at most 1024 entries"),
        ("capabilities", [{"rules": []}], "needs objects with an id"),
        ("capabilities", [{"id": 1}, {"id": 1}], "capability 1: it is there twice"),
        ("capabilities", [{"id": 1, "rules": [{"type": "X"}]}], "capability 1: rule 0"),
        ("capabilities", [{"id": 1, "rules": [{"type": "ACTION_DROP"}] * 65}], "at most 64"),
        ("tags", [{"id": 1 << 32}], "needs 0 to 4294967295"),
        ("tags", [{"id": 1}, {"id": 1}], "tag 1 is there twice"),
        ("tags", ["1"], "needs objects"),
        ("authTokens", {"x": -5}, "needs 0 to"),
        ("authTokens", {"": 0}, "cannot be empty"),
        ("authTokens", ["x"], "needs an object"),
        ("dns", [1], "needs an object"),
        ("dns", {"domain": "x", "servers": ["10.0.0.1"] * 5}, "at most 4"),
        ("dns", {"domain": "x", "servers": ["name"]}, "is no IP address"),
        ("remoteTraceTarget", "xyz", "needs ten hex digits"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field_and_reason(
    field: str, value: Any, why: str
) -> None:
    with pytest.raises(RecordError, match=why) as caught:
        _network(**{field: value})
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("ipAssignments", ["10.0.0.1/24", "10.0.0.1", "FD00::1"], ["10.0.0.1", "fd00::1"]),
        ("tags", [[7, 1], [3, 2], [7, 9]], [[3, 2], [7, 9]]),
        ("capabilities", [9, 3, 3], [3, 9]),
        ("activeBridge", "t", True),
        ("name", "Zoë", "Zoë"),
    ],
)
def test_a_members_fields_are_kept_in_one_form(field: str, value: Any, kept: Any) -> None:
    assert _member(**{field: value})[field] == kept


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("ipAssignments", ["10.0.0.256"], "is no IP address"),
        ("ipAssignments", [5], "needs texts"),
        ("ipAssignments", [f"10.0.0.{n}" for n in range(33)], "at most 32"),
        ("tags", [[1]], "needs pairs"),
        ("tags", [{"1": 2}], "needs pairs"),
        ("capabilities", ["x"], "needs a whole number"),
        ("capabilities", [-1], "needs 0 to"),
        ("authenticationExpiryTime", -1, "needs 0 to"),
    ],
)
def test_what_a_member_cannot_have_is_refused(field: str, value: Any, why: str) -> None:
    with pytest.raises(RecordError, match=why):
        _member(**{field: value})


def test_authorising_and_shutting_out_are_dated() -> None:
    record = MemberRecord.new(NETWORK_ID, ADDRESS, 7).changed({"authorized": True}, 8)
    assert record.fields["lastAuthorizedTime"] == 8
    assert record.fields["lastAuthorizedCredentialType"] == "api"
    assert record.changed({"authorized": True}, 9) is record
    record = record.changed({"authorized": False}, 10)
    assert (record.fields["lastAuthorizedTime"], record.deauthorized_at) == (8, 10)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "target", "via", "ipRangeStart", "ipRangeEnd", "zt", "rules"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(NETWORK_FIELDS)), _JSON)
def test_junk_is_refused_or_kept_in_a_form_that_is_kept_again(field: str, value: Any) -> None:
    record = NetworkRecord.new(NETWORK_ID, 7)
    try:
        changed = record.changed({field: value})
    except RecordError:
        return
    stored = json.loads(json.dumps(dict(changed.fields), allow_nan=False))
    loaded = NetworkRecord.load(NETWORK_ID, stored)
    assert loaded.fields == changed.fields
    assert loaded.changed(stored) is loaded
    for name in ("rules", "capabilities", "routes", "gateways", "pools", "tag_defaults", "window"):
        getattr(loaded, name)


@settings(deadline=None)
@given(st.sampled_from(sorted(MEMBER_FIELDS)), _JSON)
def test_junk_about_a_member_is_refused_or_kept(field: str, value: Any) -> None:
    try:
        changed = MemberRecord.new(NETWORK_ID, ADDRESS, 7).changed({field: value}, 9)
    except RecordError:
        return
    stored = json.loads(json.dumps(dict(changed.fields), allow_nan=False))
    loaded = MemberRecord.load(NETWORK_ID, ADDRESS, stored)
    assert loaded.fields == changed.fields
    assert loaded.addresses == changed.addresses
