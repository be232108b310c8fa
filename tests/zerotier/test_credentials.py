from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.errors import HeaderError, IdentityError
from zttrio.zerotier.constants import MAX_PAYLOAD
from zttrio.zerotier.network import rules
from zttrio.zerotier.network.capability import Capability, Custody
from zttrio.zerotier.network.certificate import MembershipCertificate, Qualifier, key_hash
from zttrio.zerotier.network.credential import (
    CAPABILITY,
    MEMBERSHIP,
    OWNERSHIP,
    REVOCATION,
    TAG,
    CredentialsMessage,
    Ownership,
    Revocation,
    Tag,
    Thing,
)
from zttrio.zerotier.network.rules import Rule, emit_rules, parse_rules
from zttrio.zerotier.network.signature import signed_message

from .data import load, network_identity, node_identities, vectors
from .test_derived import ADDRESSES, NETWORK_IDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.zerotier.identity import Identity

NETWORK = 0x072211D924ABCD01
CONTROLLER = network_identity("controller")
PEER = network_identity("peer")
PEER2 = network_identity("peer2")
NOW = 1_700_000_000_000

_U16 = st.integers(0, 2**16 - 1)
_U32 = st.integers(0, 2**32 - 1)
_U64 = st.integers(0, 2**64 - 1)
_I64 = st.integers(-(2**63), 2**63 - 1)
_SIGNATURES = st.just(b"") | st.binary(min_size=96, max_size=96)

COMS = st.builds(
    lambda qualifiers, signer, signature: MembershipCertificate(
        tuple(sorted(qualifiers, key=lambda q: q.id)), signer, signature if any(signer) else b""
    ),
    st.lists(st.builds(Qualifier, _U64, _U64, _U64), max_size=8),
    ADDRESSES,
    st.binary(min_size=96, max_size=96),
)
TAGS = st.builds(Tag, NETWORK_IDS, _I64, _U32, _U32, ADDRESSES, ADDRESSES, _SIGNATURES)
OWNERSHIPS = st.builds(
    Ownership,
    NETWORK_IDS,
    _I64,
    _U32,
    st.lists(
        st.builds(Thing, st.integers(0, 255), st.binary(min_size=16, max_size=16)), max_size=16
    ).map(tuple),
    ADDRESSES,
    _U64,
    ADDRESSES,
    _SIGNATURES,
)
REVOCATIONS = st.builds(
    Revocation,
    NETWORK_IDS,
    _U32,
    st.integers(0, 255),
    _U32,
    _I64,
    ADDRESSES,
    _U64,
    ADDRESSES,
    _SIGNATURES,
)
_RULES = st.sampled_from(
    (
        Rule.of(rules.ACCEPT),
        Rule.of(rules.IP_PROTOCOL, 6, is_not=True),
        Rule.of(rules.DESTINATION_PORT, 80, 443, is_or=True),
        Rule(62, b"what is this"),
        Rule(rules.DROP, b"longer than today"),
    )
)
CAPABILITIES = st.builds(
    Capability,
    NETWORK_IDS,
    _I64,
    _U32,
    st.lists(_RULES, max_size=64).map(tuple),
    st.just(7),
    st.lists(st.builds(Custody, ADDRESSES.filter(any), ADDRESSES, _SIGNATURES), max_size=7).map(
        tuple
    ),
)
MESSAGES = st.builds(
    CredentialsMessage,
    st.lists(COMS, max_size=2).map(tuple),
    st.lists(CAPABILITIES, max_size=1).map(tuple),
    st.lists(TAGS, max_size=3).map(tuple),
    st.lists(REVOCATIONS, max_size=2).map(tuple),
    st.lists(OWNERSHIPS, max_size=2).map(tuple),
)
_PARSERS: list[Callable[[bytes, int], tuple[Any, int]]] = [
    MembershipCertificate.parse,
    Capability.parse,
    Tag.parse,
    Ownership.parse,
    Revocation.parse,
]


def _com(timestamp: int = NOW, window: int = 1_800_000) -> MembershipCertificate:
    return MembershipCertificate.issue(
        CONTROLLER, network_id=NETWORK, member=PEER, timestamp=timestamp, window=window
    )


def _tag(number: int = 1) -> Tag:
    return Tag.issue(
        CONTROLLER,
        network_id=NETWORK,
        id=number,
        value=2,
        issued_to=PEER.address,
        timestamp=NOW,
    )


def _capability(number: int = 1, count: int = 1) -> Capability:
    return Capability.issue(
        CONTROLLER,
        network_id=NETWORK,
        id=number,
        rules=[Rule.of(rules.ACCEPT)] * count,
        issued_to=PEER.address,
        timestamp=NOW,
    )


def _revocation() -> Revocation:
    return Revocation.issue(
        CONTROLLER, network_id=NETWORK, id=5, threshold=NOW, target=PEER.address
    )


def _ownership() -> Ownership:
    return Ownership.issue(
        CONTROLLER,
        network_id=NETWORK,
        things=[Thing.ip(bytes((10, 0, 0, 1))), Thing.mac(b"\x02abcde")],
        issued_to=PEER.address,
        timestamp=NOW,
    )


def _all_kinds() -> list[MembershipCertificate | Tag | Capability | Revocation | Ownership]:
    return [_com(), _tag(), _capability(), _revocation(), _ownership()]


@pytest.mark.parametrize("name", ["controller", "me", "peer", "peer2"])
def test_key_hashes_are_those_of_the_real_core(name: str) -> None:
    recorded = load("vl2")["identities"][name]["pubkey_hash_sha384"]
    assert key_hash(network_identity(name)).hex() == recorded


def test_a_membership_certificate_is_signed_as_recorded() -> None:
    vector = load("vl2")["com"]
    recorded = bytes.fromhex(vector["encoded"])
    com = MembershipCertificate.issue(
        network_identity(vector["signer"]),
        network_id=int(vector["network_id"], 16),
        member=network_identity(vector["issued_to"]),
        timestamp=vector["timestamp"],
        window=vector["max_delta"],
    )
    assert com.emit() == recorded
    assert len(recorded) == 272
    assert MembershipCertificate.parse(b"xy" + recorded + b"z", 2) == (com, 2 + len(recorded))
    assert com.body().hex() == vector["signed_bytes"]
    assert com.signature.hex() == vector["signature"]
    assert [[q.id, f"{q.value:016x}", f"{q.delta:016x}"] for q in com.qualifiers] == vector[
        "qualifiers"
    ]
    assert com.is_signed_by(CONTROLLER)
    assert (com.network_id, com.timestamp, com.window) == (NETWORK, NOW, 1_800_000)
    assert com.issued_to == com.address == PEER.address
    assert (com.kind, com.id, com.signer) == (MEMBERSHIP, 0, CONTROLLER.address)


@pytest.mark.parametrize(
    "vector", vectors("com_agreement", "vl2"), ids=lambda vector: vector["name"]
)
def test_certificates_agree_as_recorded(vector: dict[str, Any]) -> None:
    mine, _ = MembershipCertificate.parse(bytes.fromhex(vector["mine"]))
    theirs, _ = MembershipCertificate.parse(bytes.fromhex(vector["theirs"]))
    identity = network_identity(vector["their_identity"])
    assert mine.agrees_with(theirs, identity) is vector["agrees"]


@pytest.mark.parametrize("missing", [3, 4, 5, 6])
def test_all_four_parts_of_the_key_hash_are_needed_if_mine_has_one(missing: int) -> None:
    mine, theirs = _com(), _com()
    one = attrs.evolve(mine, qualifiers=(*mine.qualifiers[:3], mine.qualifiers[3]))
    assert one.agrees_with(theirs, PEER)
    partial = attrs.evolve(theirs, qualifiers=theirs.qualifiers[:missing])
    assert not one.agrees_with(partial, PEER)


def test_a_tag_is_signed_as_recorded() -> None:
    vector = load("vl2")["credentials"]["tag"]
    tag = Tag.issue(
        CONTROLLER,
        network_id=NETWORK,
        id=vector["id"],
        value=vector["value"],
        issued_to=network_identity(vector["issued_to"]).address,
        timestamp=vector["timestamp"],
    )
    assert tag.emit().hex() == vector["encoded"]
    assert signed_message(tag.body()).hex() == vector["signed_bytes"]
    assert Tag.parse(tag.emit()) == (tag, 135)
    assert tag.is_signed_by(CONTROLLER)
    assert tag.kind == TAG


def test_an_ownership_is_signed_as_recorded() -> None:
    vector = load("vl2")["credentials"]["certificate_of_ownership"]
    things = []
    for kind, value in vector["things"]:
        octets = bytes.fromhex(value)
        things.append(Thing.mac(octets) if kind == 1 else Thing.ip(octets))
        assert (things[-1].kind, things[-1].octets) == (kind, octets)
    ownership = Ownership.issue(
        CONTROLLER,
        network_id=NETWORK,
        id=vector["id"],
        things=things,
        issued_to=network_identity(vector["issued_to"]).address,
        timestamp=vector["timestamp"],
    )
    assert ownership.emit().hex() == vector["encoded"]
    assert signed_message(ownership.body()).hex() == vector["signed_bytes"]
    assert Ownership.parse(ownership.emit()) == (ownership, 141 + 17 * len(things))
    assert ownership.is_signed_by(CONTROLLER)
    assert ownership.kind == OWNERSHIP


def test_a_revocation_is_signed_as_recorded() -> None:
    vector = load("vl2")["credentials"]["revocation"]
    revocation = Revocation.issue(
        CONTROLLER,
        network_id=NETWORK,
        id=vector["id"],
        credential_type=vector["type"],
        credential_id=vector["credential_id"],
        threshold=vector["threshold"],
        target=network_identity(vector["target"]).address,
        flags=vector["flags"],
    )
    assert revocation.emit().hex() == vector["encoded"]
    assert signed_message(revocation.body()).hex() == vector["signed_bytes"]
    assert Revocation.parse(revocation.emit()) == (revocation, 152)
    assert revocation.is_signed_by(CONTROLLER)
    assert revocation.is_fast
    assert revocation.kind == REVOCATION
    assert (revocation.timestamp, revocation.issued_to) == (NOW, PEER.address)


def test_a_capability_is_signed_as_recorded() -> None:
    vector = load("vl2")["credentials"]["capability"]
    listed = parse_rules(bytes.fromhex(vector["rules"]))
    assert len(listed) == vector["rule_count"]
    capability = Capability.issue(
        CONTROLLER,
        network_id=NETWORK,
        id=vector["id"],
        rules=listed,
        issued_to=network_identity(vector["issued_to"]).address,
        timestamp=vector["timestamp"],
        max_custody=vector["max_custody"],
    )
    encoded = capability.emit()
    assert encoded.hex() == vector["encoded"]
    assert signed_message(capability.body()).hex() == vector["signed_bytes"]
    assert Capability.parse(encoded) == (capability, len(encoded))
    assert capability.is_signed_by(CONTROLLER)
    assert capability.kind == CAPABILITY
    assert (capability.issued_to, capability.signer) == (PEER.address, CONTROLLER.address)


@given(com=COMS, junk=st.binary(max_size=5))
def test_a_membership_certificate_survives_its_encoding(
    com: MembershipCertificate, junk: bytes
) -> None:
    encoded = com.emit()
    parsed, end = MembershipCertificate.parse(junk + encoded + junk, len(junk))
    assert (parsed, end) == (com, len(junk) + len(encoded))
    assert len(parsed.issued_to) == 5


@settings(max_examples=50)
@given(message=MESSAGES)
def test_a_message_of_credentials_survives_its_encoding(message: CredentialsMessage) -> None:
    payloads = message.emit()
    assert all(len(payload) <= MAX_PAYLOAD for payload in payloads)
    parsed = [CredentialsMessage.parse(payload) for payload in payloads]
    for name in ("memberships", "capabilities", "tags", "revocations", "ownerships"):
        together = [item for part in parsed for item in getattr(part, name)]
        assert together == list(getattr(message, name))


@settings(max_examples=50)
@given(data=st.data())
def test_damaged_credentials_are_credentials_or_header_errors(data: st.DataObject) -> None:
    item = data.draw(COMS | CAPABILITIES | TAGS | OWNERSHIPS | REVOCATIONS)
    octets = bytearray(item.emit())
    for _ in range(data.draw(st.integers(0, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    octets = octets[: data.draw(st.integers(0, len(octets)))]
    try:
        parsed, end = type(item).parse(octets)
    except HeaderError:
        return
    assert 0 < end <= len(octets)
    assert type(item).parse(parsed.emit())[0] == parsed


@pytest.mark.parametrize("parse", _PARSERS, ids=lambda parse: parse.__self__.__name__)
@given(data=st.binary(max_size=300), offset=st.integers(0, 10))
def test_junk_is_a_credential_or_a_header_error(
    parse: Callable[[bytes, int], tuple[Any, int]], data: bytes, offset: int
) -> None:
    try:
        _, end = parse(data, offset)
    except HeaderError:
        return
    assert offset < end <= len(data)


@given(data=st.binary(max_size=60) | st.binary(max_size=40).map(b"\0".__add__))
def test_junk_is_a_message_of_credentials_or_a_header_error(data: bytes) -> None:
    try:
        CredentialsMessage.parse(data)
    except HeaderError:
        return


@pytest.mark.parametrize("item", _all_kinds(), ids=lambda item: type(item).__name__)
def test_a_credential_may_not_end_early(
    item: MembershipCertificate | Tag | Capability | Revocation | Ownership,
) -> None:
    encoded = item.emit()
    for length in range(len(encoded)):
        with pytest.raises(HeaderError):
            type(item).parse(encoded[:length])


@pytest.mark.parametrize("item", _all_kinds(), ids=lambda item: type(item).__name__)
def test_one_changed_bit_spoils_a_credential(
    item: MembershipCertificate | Tag | Capability | Revocation | Ownership,
) -> None:
    encoded = item.emit()
    assert item.is_signed_by(CONTROLLER)
    # A capability's signature does not cover its holder, nor anybody's the unused octets.
    holder = len(item.body()) if isinstance(item, Capability) else len(encoded)
    unused = {0, 1, 2, 3, 16, 17, 18, 19} if isinstance(item, Revocation) else set()
    body = len(item.body())
    start = 3 if isinstance(item, MembershipCertificate) else 0
    for at in range(start, start + body):
        if at in unused or holder <= at < holder + 5:
            continue
        spoiled = bytearray(encoded)
        spoiled[at] ^= 1
        try:
            parsed, _ = type(item).parse(spoiled)
        except HeaderError:
            continue
        assert not parsed.is_signed_by(CONTROLLER), at


@pytest.mark.parametrize("item", _all_kinds(), ids=lambda item: type(item).__name__)
def test_only_the_network_s_own_controller_can_sign(
    item: MembershipCertificate | Tag | Capability | Revocation | Ownership,
) -> None:
    assert not item.is_signed_by(PEER)
    impostor = attrs.evolve(PEER2, address=CONTROLLER.address)
    assert not item.is_signed_by(impostor)


def _issued_by(signer: Identity) -> list[Any]:
    common: dict[str, Any] = {"network_id": NETWORK}
    peer: dict[str, Any] = {"issued_to": PEER.address, "timestamp": NOW}
    return [
        MembershipCertificate.issue(signer, **common, member=PEER, timestamp=NOW, window=1),
        Tag.issue(signer, **common, **peer, id=1, value=1),
        Capability.issue(signer, **common, **peer, id=1, rules=[]),
        Ownership.issue(signer, **common, **peer, things=[]),
        Revocation.issue(signer, **common, id=1, threshold=NOW, target=PEER.address),
    ]


def test_a_member_that_signs_for_itself_convinces_nobody() -> None:
    for item in _issued_by(PEER):
        assert not item.is_signed_by(PEER), type(item)
        assert not item.is_signed_by(CONTROLLER), type(item)


def test_nothing_is_issued_without_the_secret() -> None:
    with pytest.raises(IdentityError):
        _issued_by(CONTROLLER.without_secret())


def test_an_unsigned_membership_certificate_ends_behind_the_signer() -> None:
    com = MembershipCertificate(_com().qualifiers)
    assert len(com.emit()) == 8 + 24 * 7
    assert MembershipCertificate.parse(com.emit() + b"more") == (com, len(com.emit()))
    assert not com.is_signed_by(CONTROLLER)


def test_an_empty_membership_certificate_names_nothing() -> None:
    com = MembershipCertificate(())
    assert (com.network_id, com.timestamp, com.window) == (0, 0, 0)
    assert com.issued_to == bytes(5)


def test_times_are_signed() -> None:
    com = MembershipCertificate((Qualifier(0, 2**64 - 5, 1),))
    assert com.timestamp == -5


def test_qualifiers_may_repeat_but_not_descend() -> None:
    com = _com()
    again = attrs.evolve(com, qualifiers=(com.qualifiers[0], *com.qualifiers))
    assert MembershipCertificate.parse(again.emit())[0] == again
    descending = attrs.evolve(com, qualifiers=com.qualifiers[::-1])
    with pytest.raises(HeaderError, match="descend"):
        MembershipCertificate.parse(descending.emit())


def test_nine_qualifiers_are_too_many() -> None:
    com = attrs.evolve(_com(), qualifiers=(Qualifier(0, 0, 0),) * 9)
    with pytest.raises(HeaderError, match="at most 8"):
        MembershipCertificate.parse(com.emit())


def test_a_signature_of_another_type_is_skipped_and_worth_nothing() -> None:
    tag = _tag()
    encoded = tag.body() + b"\x02\x00\x03abc" + b"\x00\x02xy"
    parsed, end = Tag.parse(encoded)
    assert end == len(encoded)
    assert parsed == attrs.evolve(tag, signature=b"")
    assert not parsed.is_signed_by(CONTROLLER)


def test_a_signature_of_the_known_type_has_its_length() -> None:
    with pytest.raises(HeaderError, match="has 96"):
        Tag.parse(_tag().body() + b"\x01\x00\x5f" + bytes(95) + b"\0\0")


def test_extra_fields_are_skipped_and_never_signed() -> None:
    tag = _tag()
    parsed, end = Tag.parse(tag.emit()[:-2] + b"\x00\x01z")
    assert (parsed, end) == (tag, 136)
    with pytest.raises(HeaderError):
        Tag.parse(tag.emit()[:-2] + b"\x00\x02z")


def test_seventeen_things_are_too_many() -> None:
    things = [Thing.ip(bytes((10, 0, 0, i))) for i in range(17)]
    with pytest.raises(ValueError, match="at most 16"):
        Ownership.issue(
            CONTROLLER, network_id=NETWORK, things=things, issued_to=PEER.address, timestamp=NOW
        )
    with pytest.raises(HeaderError, match="at most 16"):
        Ownership.parse(attrs.evolve(_ownership(), things=tuple(things)).emit())


def test_ownership_compares_as_many_octets_as_an_address_has() -> None:
    ipv6 = bytes(range(16))
    ownership = attrs.evolve(
        _ownership(),
        things=(
            Thing(2, bytes((10, 0, 0, 1)) + b"\xff" * 12),
            Thing.ip(ipv6),
            Thing.mac(b"\x02abcde"),
        ),
    )
    assert ownership.owns_ip(bytes((10, 0, 0, 1)))
    assert ownership.owns_ip(ipv6)
    assert ownership.owns_mac(b"\x02abcde")
    assert not ownership.owns_ip(bytes((10, 0, 0, 2)))
    assert not ownership.owns_ip(b"\x02abcde".ljust(16, b"\0"))
    assert not ownership.owns_mac(bytes((10, 0, 0, 1, 255, 255)))


def test_sixty_five_rules_are_too_many() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        _capability(count=65)
    many = attrs.evolve(_capability(), rules=(Rule.of(rules.ACCEPT),) * 65)
    with pytest.raises(HeaderError, match="at most 64"):
        Capability.parse(many.emit())


@pytest.mark.parametrize("length", [0, 8])
def test_a_custody_chain_has_one_to_seven_steps(length: int) -> None:
    with pytest.raises(ValueError, match="1 to 7"):
        Capability.issue(
            CONTROLLER,
            network_id=NETWORK,
            id=1,
            rules=[],
            issued_to=PEER.address,
            timestamp=NOW,
            max_custody=length,
        )
    with pytest.raises(HeaderError, match="at most 7"):
        Capability.parse(attrs.evolve(_capability(), max_custody=length).emit())


def test_a_custody_chain_is_no_longer_than_it_may_be() -> None:
    capability = _capability()
    longer = attrs.evolve(capability, custody=capability.custody * 2)
    with pytest.raises(HeaderError, match="more than 1"):
        Capability.parse(longer.emit())


def _handed_on(*holders: Identity) -> Capability:
    """A capability that goes from the controller to each of *holders* in turn."""
    first = Capability.issue(
        CONTROLLER,
        network_id=NETWORK,
        id=1,
        rules=[],
        issued_to=holders[0].address,
        timestamp=NOW,
        max_custody=7,
    )
    message = signed_message(first.body())
    chain = list(first.custody)
    for giver, to in pairwise(holders):
        chain.append(Custody(to.address, giver.address, giver.sign(message)))
    return attrs.evolve(first, custody=tuple(chain))


def test_every_step_of_a_custody_chain_is_checked() -> None:
    nodes = node_identities()[:3]
    known = {node.address: node for node in nodes}
    capability = _handed_on(*nodes)
    assert capability.issued_to == nodes[2].address
    assert capability.givers == (CONTROLLER.address, nodes[0].address, nodes[1].address)
    assert capability.is_signed_by(CONTROLLER, known.get)
    assert not capability.is_signed_by(CONTROLLER)
    del known[nodes[1].address]
    assert not capability.is_signed_by(CONTROLLER, known.get)
    known[nodes[1].address] = PEER
    assert not capability.is_signed_by(CONTROLLER, known.get)


def test_a_custody_chain_has_no_gap() -> None:
    nodes = node_identities()[:3]
    known = {node.address: node for node in nodes}
    whole = _handed_on(*nodes)
    gap = attrs.evolve(whole, custody=(whole.custody[0], whole.custody[2]))
    assert not gap.is_signed_by(CONTROLLER, known.get)
    headless = attrs.evolve(whole, custody=whole.custody[1:])
    assert not headless.is_signed_by(CONTROLLER, known.get)


def test_a_capability_without_custody_is_nobody_s() -> None:
    capability = attrs.evolve(_capability(), custody=())
    parsed, _ = Capability.parse(capability.emit())
    assert parsed == capability
    assert not parsed.is_signed_by(CONTROLLER)
    assert parsed.issued_to == parsed.signer == bytes(5)


def test_a_capability_s_signature_does_not_cover_its_holder() -> None:
    capability = _capability()
    stolen = attrs.evolve(capability, custody=(capability.custody[0]._replace(to=PEER2.address),))
    assert stolen.is_signed_by(CONTROLLER)


def test_rules_that_we_do_not_know_stay_signed() -> None:
    odd = (Rule(62, b"tomorrow"), Rule(rules.DROP, b"longer"))
    capability = Capability.issue(
        CONTROLLER, network_id=NETWORK, id=1, rules=odd, issued_to=PEER.address, timestamp=NOW
    )
    parsed, _ = Capability.parse(capability.emit())
    assert emit_rules(parsed.rules) == emit_rules(odd)
    assert parsed.is_signed_by(CONTROLLER)


def test_a_message_may_end_behind_each_of_its_parts() -> None:
    com, tag, ownership = _com(), _tag(), _ownership()
    whole = com.emit() + b"\0" + b"\0\0" + b"\0\1" + tag.emit() + b"\0\0" + b"\0\1"
    whole += ownership.emit()
    assert CredentialsMessage.parse(b"") == CredentialsMessage()
    assert CredentialsMessage.parse(b"\0") == CredentialsMessage()
    assert CredentialsMessage.parse(com.emit()) == CredentialsMessage((com,))
    after_tags = len(com.emit()) + 5 + len(tag.emit())
    ends = {
        272: CredentialsMessage((com,)),
        273: CredentialsMessage((com,)),
        275: CredentialsMessage((com,)),
        after_tags: CredentialsMessage((com,), (), (tag,)),
        after_tags + 2: CredentialsMessage((com,), (), (tag,)),
        len(whole): CredentialsMessage((com,), (), (tag,), (), (ownership,)),
    }
    for length in range(1, len(whole) + 1):
        if length in ends:
            assert CredentialsMessage.parse(whole[:length]) == ends[length]
        else:
            with pytest.raises(HeaderError):
                CredentialsMessage.parse(whole[:length])


def test_everything_that_fits_is_in_one_payload() -> None:
    message = CredentialsMessage(
        (_com(),), (_capability(),), (_tag(),), (_revocation(),), (_ownership(),)
    )
    (payload,) = message.emit()
    assert CredentialsMessage.parse(payload) == message
    assert CredentialsMessage().emit() == [bytes(9)]


def test_the_membership_certificate_is_in_the_first_of_many_payloads() -> None:
    message = CredentialsMessage((_com(),), (), tuple(_tag(number) for number in range(128)))
    first, second = message.emit()
    assert len(first) > MAX_PAYLOAD - 135
    assert CredentialsMessage.parse(first).memberships == (_com(),)
    assert CredentialsMessage.parse(second).memberships == ()
    together = CredentialsMessage.parse(first).tags + CredentialsMessage.parse(second).tags
    assert together == message.tags


def test_a_credential_that_fits_no_packet_keeps_no_other_back() -> None:
    huge = attrs.evolve(_capability(), rules=(Rule(62, bytes(255)),) * 64)
    assert len(huge.emit()) > MAX_PAYLOAD
    (payload,) = CredentialsMessage((_com(),), (huge, _capability())).emit()
    assert CredentialsMessage.parse(payload) == CredentialsMessage((_com(),), (_capability(),))
