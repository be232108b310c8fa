from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from time import perf_counter
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.network import rules
from zttrio.zerotier.network.capability import Capability
from zttrio.zerotier.network.certificate import MembershipCertificate
from zttrio.zerotier.network.credential import Ownership, Tag, Thing
from zttrio.zerotier.network.dictionary import Dictionary
from zttrio.zerotier.network.netconf import (
    ACTIVE_BRIDGE,
    ANCHOR,
    REPLICATOR,
    DnsConfig,
    ManagedRoute,
    NetworkConfig,
    Specialist,
)
from zttrio.zerotier.network.piece import MAX_CONFIGURATION
from zttrio.zerotier.network.rules import Rule

from .data import load, network_identity, vectors
from .test_credentials import CAPABILITIES, COMS, OWNERSHIPS, TAGS
from .test_derived import ADDRESSES

NETWORK = 0x072211D924ABCD01
ME = network_identity("me").address
MINIMAL = b"v=6\nnwid=072211d924abcd01\nid=317251008d"

_I64 = st.integers(-(2**63), 2**63 - 1)
_U16 = st.integers(0, 2**16 - 1)
_U64 = st.integers(0, 2**64 - 1)
_TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=30)
_IPV4 = st.integers(0, 2**32 - 1).map(IPv4Address)
_IPV6 = st.integers(0, 2**128 - 1).map(IPv6Address)
_INTERFACES = st.builds(
    lambda ip, length: IPv4Interface((ip, length)), _IPV4, st.integers(0, 32)
) | st.builds(lambda ip, length: IPv6Interface((ip, length)), _IPV6, st.integers(0, 128))
_ROUTES = st.builds(
    lambda target, via, flags, metric: ManagedRoute(target.network, via, flags, metric),
    _INTERFACES,
    st.none() | _IPV4 | _IPV6,
    _U16,
    _U16,
)
CONFIGS = st.builds(
    NetworkConfig,
    network_id=st.integers(1, 2**64 - 1),
    address=ADDRESSES.filter(any),
    timestamp=_I64,
    window=_U64,
    revision=_U64,
    name=_TEXT,
    mtu=st.integers(1280, 10_000),
    multicast_limit=st.integers(0, 2**32 - 1),
    is_public=st.booleans(),
    flags=_U64,
    membership=st.none() | COMS,
    capabilities=st.lists(CAPABILITIES, max_size=1).map(tuple),
    tags=st.lists(TAGS, max_size=3).map(lambda tags: tuple(sorted(tags, key=lambda t: t.id))),
    ownerships=st.lists(OWNERSHIPS, max_size=2).map(tuple),
    specialists=st.lists(
        st.builds(Specialist, ADDRESSES, st.integers(0, 2**24 - 1).map(lambda n: n << 40)),
        max_size=3,
    ).map(tuple),
    routes=st.lists(_ROUTES, max_size=3).map(tuple),
    addresses=st.lists(_INTERFACES, max_size=3).map(tuple),
    rules=st.lists(
        st.sampled_from(
            [Rule.of(rules.ACCEPT), Rule(60, b"?"), Rule.of(rules.ETHERTYPE, 0x800, is_not=True)]
        ),
        max_size=5,
    ).map(tuple),
    dns=st.none()
    | st.builds(DnsConfig, _TEXT.filter(bool), st.lists(_IPV4 | _IPV6, max_size=4).map(tuple)),
    sign_on_version=st.sampled_from([0, 1]),
)


_BLOBS = ["C", "CAP", "TAG", "COO", "S", "RT", "I", "R", "DNS", "n", "v"]


def _with(**values: bytes) -> bytes:
    dictionary = Dictionary.parse(MINIMAL)
    dictionary.update(values)
    return dictionary.emit()


def _routes(routes: tuple[ManagedRoute, ...]) -> list[list[Any]]:
    return [[str(r.target), r.via and str(r.via), r.flags, r.metric] for r in routes]


@pytest.mark.parametrize(
    "vector", vectors("network_configs", "vl2"), ids=lambda v: v["description"]
)
def test_a_real_controller_s_configuration_is_understood(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["dictionary"])
    decoded = vector["decoded"]
    config = NetworkConfig.parse(encoded)
    assert config.emit() == encoded
    assert config.network_id == int(decoded["nwid"], 16)
    assert config.address.hex() == decoded["id"]
    assert (config.timestamp, config.window) == (decoded["ts"], decoded["ctmd"])
    assert (config.revision, config.flags) == (decoded["r"], decoded["f"])
    assert (config.multicast_limit, config.mtu) == (decoded["ml"], decoded["mtu"])
    assert (config.is_public, config.name) == (decoded["t"] == 1, decoded["n"])
    assert [str(interface) for interface in config.addresses] == decoded["static_ips"]
    assert _routes(config.routes) == decoded["routes"]
    assert [[tag.id, tag.value] for tag in config.tags] == decoded["tags"]
    head = rules.emit_rules
    assert [[c.id, [head([r]).hex() for r in c.rules]] for c in config.capabilities] == decoded[
        "capabilities"
    ]
    owned = [thing for ownership in config.ownerships for thing in ownership.things]
    assert [[thing.kind, thing.value.hex()] for thing in owned] == decoded["ownership"]
    roles = [f"{roles | int.from_bytes(a, 'big'):016x}" for a, roles in config.specialists]
    assert roles == decoded["specialists"]
    encoded_rules = [head([rule]).hex() for rule in config.rules]
    assert [f"{text[:2]}:{text[4:]}" for text in encoded_rules] == decoded["rules"]
    assert (config.dns.domain if config.dns else "") == decoded["dns_domain"]
    assert config.membership is not None
    qualifiers = [
        [q.id, f"{q.value:016x}", f"{q.delta:016x}"] for q in config.membership.qualifiers
    ]
    assert qualifiers == decoded["com_qualifiers"]


@pytest.mark.parametrize(
    "vector", vectors("network_configs", "vl2"), ids=lambda v: v["description"]
)
def test_every_credential_of_a_real_controller_is_signed(vector: dict[str, Any]) -> None:
    config = NetworkConfig.parse(bytes.fromhex(vector["dictionary"]))
    controller = Identity.parse_text(vector["controller_public"])
    member = Identity.parse_text(vector["member_public"])
    assert config.membership is not None
    assert config.membership.agrees_with(config.membership, member)
    credentials: tuple[MembershipCertificate | Capability | Tag | Ownership, ...] = (
        config.membership,
        *config.capabilities,
        *config.tags,
        *config.ownerships,
    )
    for credential in credentials:
        assert credential.is_signed_by(controller)
        assert credential.issued_to == member.address == config.address
        assert credential.network_id == config.network_id
        assert credential.timestamp == config.timestamp


@pytest.mark.parametrize(
    "vector", vectors("networks", "network_config"), ids=lambda vector: vector["nwid"]
)
def test_a_real_member_s_stored_configuration_means_what_it_reports(
    vector: dict[str, Any],
) -> None:
    (stored,) = vector["member_files_hex"].values()
    config = NetworkConfig.parse(bytes.fromhex(stored))
    assert config.emit().hex() == stored
    (reported,) = vector["member_listnetworks"]
    assert f"{config.network_id:016x}" == reported["id"] == vector["nwid"]
    assert config.address.hex() == vector["member"]
    assert [str(interface) for interface in config.addresses] == reported["assignedAddresses"]
    assert config.broadcast is reported["broadcastEnabled"]
    assert config.mtu == reported["mtu"]
    assert config.name == reported["name"]
    assert config.is_public is (reported["type"] == "PUBLIC")
    assert config.multicast_limit == vector["controller_network"]["multicastLimit"]
    assert (config.address in config.active_bridges) is reported["bridge"]
    assert _routes(config.routes) == [
        [r["target"], r["via"], r["flags"], r["metric"]] for r in reported["routes"]
    ]
    dns = config.dns or DnsConfig("", ())
    assert dns.domain == reported["dns"]["domain"]
    assert [str(server) for server in dns.servers] == reported["dns"]["servers"]


@given(config=CONFIGS)
@settings(deadline=None, max_examples=40)
def test_a_configuration_survives_its_encoding(config: NetworkConfig) -> None:
    assert NetworkConfig.parse(config.emit()) == config


@pytest.mark.parametrize(("version", "key"), [(0, b"aurl"), (1, b"iurl")])
def test_single_sign_on_survives_the_encoding(version: int, key: bytes) -> None:
    config = NetworkConfig(
        NETWORK,
        ME,
        sign_on_version=version,
        sign_on_enabled=True,
        sign_on_url="https://example.net/?a=b",
        sign_on_expiry=5,
    )
    encoded = config.emit()
    assert b"\n" + key + b"=" in encoded
    assert NetworkConfig.parse(encoded) == config


def test_defaults_are_those_of_the_reference() -> None:
    config = NetworkConfig.parse(MINIMAL)
    assert config == NetworkConfig(NETWORK, ME)
    assert config.mtu == 2800
    assert config.multicast_limit == 0
    assert not config.is_public
    assert config.rules == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"v=5\nnwid=072211d924abcd01\nid=317251008d",
        b"nwid=072211d924abcd01\nid=317251008d",
        b"v=7\nnwid=0\nid=317251008d",
        b"v=7\nid=317251008d",
        b"v=7\nnwid=072211d924abcd01\nid=0000000000",
        b"v=7\nnwid=072211d924abcd01",
    ],
    ids=repr,
)
def test_a_configuration_says_its_format_and_whose_it_is(data: bytes) -> None:
    with pytest.raises(HeaderError):
        NetworkConfig.parse(data)


@pytest.mark.parametrize(("sent", "used"), [(0, 1280), (1279, 1280), (1400, 1400), (10001, 10000)])
def test_the_mtu_is_clamped(sent: int, used: int) -> None:
    assert NetworkConfig.parse(_with(mtu=b"%x" % sent)).mtu == used


@pytest.mark.parametrize(
    ("flag", "name"),
    [(2, "broadcast"), (4, "ndp_emulation"), (8, "unknown_matches"), (16, "no_compression")],
)
def test_flags_have_names(flag: int, name: str) -> None:
    every = ("broadcast", "ndp_emulation", "unknown_matches", "no_compression")
    config = NetworkConfig(NETWORK, ME, flags=flag)
    assert [key for key in every if getattr(config, key)] == [name]


def test_specialists_have_roles() -> None:
    both, bridge, nothing = b"12345", b"23456", b"34567"
    config = NetworkConfig(
        NETWORK,
        ME,
        specialists=(
            Specialist(both, ANCHOR | REPLICATOR),
            Specialist(bridge, ACTIVE_BRIDGE),
            Specialist(nothing, 0),
        ),
    )
    assert config.active_bridges == {bridge}
    assert config.anchors == config.replicators == {both}


def _tag(number: int) -> Tag:
    return Tag(NETWORK, 1, number, 2, ME)


def _capability(number: int) -> Capability:
    return Capability(NETWORK, 1, number, ())


def _ownership(number: int) -> Ownership:
    return Ownership(NETWORK, 1, number, (), ME)


def test_capabilities_and_tags_come_sorted() -> None:
    tags = tuple(map(_tag, (9, 3, 5)))
    capabilities = tuple(map(_capability, (2, 1)))
    config = NetworkConfig(NETWORK, ME, tags=tags, capabilities=capabilities)
    parsed = NetworkConfig.parse(config.emit())
    assert [tag.id for tag in parsed.tags] == [3, 5, 9]
    assert [capability.id for capability in parsed.capabilities] == [1, 2]


def test_broken_capabilities_and_tags_end_their_list_only() -> None:
    tags = _tag(7).emit() + b"\xff" * 50 + _tag(8).emit()
    capabilities = _capability(7).emit() + b"\xff" * 50
    config = NetworkConfig.parse(_with(TAG=tags, CAP=capabilities, R=b"\x01\x00"))
    assert config.tags == (_tag(7),)
    assert config.capabilities == (_capability(7),)
    assert config.rules == (Rule.of(rules.ACCEPT),)


@pytest.mark.parametrize(
    ("key", "blob"),
    [
        ("C", b"\x02"),
        ("C", b"\x01\x00\x09" + bytes(400)),
        ("COO", bytes(20)),
        ("RT", b"\x04\x0a\x00\x00\x00\x00\x08\x00\x00\x00\x00"),
        ("RT", b"\x09"),
        ("I", b"\x04\x0a\x00\x00"),
        ("R", b"\x25\x02\x08"),
        ("R", b"\x25\x01\x08"),
        ("DNS", bytes(127)),
        ("DNS", bytes(131)),
    ],
)
def test_other_broken_blobs_reject_the_configuration(key: str, blob: bytes) -> None:
    with pytest.raises(HeaderError):
        NetworkConfig.parse(_with(**{key: blob}))


def test_of_lists_that_are_too_long_the_first_entries_count() -> None:
    address = b"\x04\x0a\x00\x00\x01\x00\x08"
    config = NetworkConfig.parse(
        _with(
            TAG=b"".join(_tag(n).emit() for n in range(130)),
            CAP=b"".join(_capability(n).emit() for n in range(130)),
            COO=b"".join(_ownership(n).emit() for n in range(6)),
            S=b"".join(n.to_bytes(8, "big") for n in range(1, 300)),
            RT=(address + b"\0" + bytes(4)) * 130,
            I=address * 40,
            R=b"\x01\x00" * 1100,
            n=b"x" * 200,
            ml=b"ffffffffffff",
        )
    )
    assert [tag.id for tag in config.tags] == list(range(128))
    assert [capability.id for capability in config.capabilities] == list(range(128))
    assert [ownership.id for ownership in config.ownerships] == list(range(4))
    assert len(config.specialists) == 256
    assert len(config.routes) == 128
    assert len(config.addresses) == 32
    assert len(config.rules) == 1024
    assert config.name == "x" * 127
    assert config.multicast_limit == 2**32 - 1


def test_entries_of_other_kinds_and_with_impossible_prefixes_are_left_out() -> None:
    good = b"\x04\x0a\x00\x00\x01\x00\x08"
    long = b"\x04\x0a\x00\x00\x01\x00\x21"
    long6 = b"\x06" + bytes(16) + b"\x00\x81"
    none = b"\x00"
    blocks = none + long + long6 + good
    tail = bytes(4)
    config = NetworkConfig.parse(
        _with(I=blocks, RT=b"".join(b + none + tail for b in (none, long, long6, good)))
    )
    assert config.addresses == (IPv4Interface("10.0.0.1/8"),)
    assert config.routes == (ManagedRoute(IPv4Network("10.0.0.0/8")),)


@given(name=st.binary(max_size=200), domain=st.binary(min_size=128, max_size=128))
def test_names_that_are_not_utf_8_can_be_written_again(name: bytes, domain: bytes) -> None:
    config = NetworkConfig.parse(_with(n=name, DNS=domain + bytes(4)))
    assert NetworkConfig.parse(config.emit()) == config


def test_an_empty_dns_block_is_no_dns() -> None:
    encoded = NetworkConfig(NETWORK, ME).emit()
    assert b"\nDNS=" + rb"\0" * 132 + b"\n" in encoded
    assert NetworkConfig.parse(encoded).dns is None


@pytest.mark.parametrize(
    "change",
    [
        {"name": "ä" * 64},
        {"dns": DnsConfig("a" * 128, ())},
        {"dns": DnsConfig("a", (IPv4Address(1),) * 5)},
    ],
    ids=["name", "domain", "servers"],
)
def test_what_a_member_could_not_read_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        attrs.evolve(NetworkConfig(NETWORK, ME), **change).emit()


def test_a_configuration_that_is_too_large_is_not_looked_at() -> None:
    padding = MAX_CONFIGURATION - len(MINIMAL) - 3
    NetworkConfig.parse(MINIMAL + b"\nx=" + b"y" * padding)
    with pytest.raises(HeaderError, match="at most"):
        NetworkConfig.parse(MINIMAL + b"\nx=" + b"y" * (padding + 1))


@given(data=st.binary(max_size=100), key=st.sampled_from(_BLOBS))
def test_junk_in_any_key_is_a_configuration_or_a_header_error(data: bytes, key: str) -> None:
    try:
        NetworkConfig.parse(_with(**{key: data}))
    except HeaderError:
        return


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_damaged_configuration_is_a_configuration_or_a_header_error(
    data: st.DataObject,
) -> None:
    octets = bytearray.fromhex(vectors("network_configs", "vl2")[0]["dictionary"])
    for _ in range(data.draw(st.integers(1, 10))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        NetworkConfig.parse(octets).emit()
    except HeaderError:
        return


def test_the_largest_configuration_is_read_in_no_time() -> None:
    controller = network_identity("controller")
    common: dict[str, Any] = {"network_id": NETWORK, "issued_to": ME, "timestamp": 1}
    long_rule = Rule(62, bytes(70))
    config = NetworkConfig(
        NETWORK,
        ME,
        membership=MembershipCertificate.issue(
            controller, network_id=NETWORK, member=network_identity("me"), timestamp=1, window=1
        ),
        capabilities=tuple(
            Capability.issue(controller, **common, id=n, rules=[long_rule] * 15) for n in range(128)
        ),
        tags=tuple(Tag.issue(controller, **common, id=n, value=n) for n in range(128)),
        ownerships=tuple(
            Ownership.issue(
                controller,
                **common,
                id=n,
                things=[Thing.ip(bytes((10, 0, n, i))) for i in range(16)],
            )
            for n in range(4)
        ),
        routes=(ManagedRoute(IPv4Network("10.0.0.0/8"), IPv4Address(1)),) * 128,
        addresses=(IPv6Interface("fd00::1/64"),) * 32,
        specialists=(Specialist(ME, ACTIVE_BRIDGE),) * 256,
        rules=(long_rule,) * 1024,
    )
    encoded = config.emit()
    assert 400_000 < len(encoded) < MAX_CONFIGURATION
    started = perf_counter()
    assert NetworkConfig.parse(encoded) == config
    assert perf_counter() - started < 3.0  # about 0.03 s on a calm machine


def test_the_vectors_hold_what_this_file_relies_on() -> None:
    assert len(load("network_config")["networks"]) == 3
    assert len(vectors("network_configs", "vl2")) == 3
