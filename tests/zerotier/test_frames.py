from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.zerotier import messages
from zttrio.zerotier.constants import MAX_PACKET, MAX_PAYLOAD
from zttrio.zerotier.network.credential import CredentialsMessage, MembershipCertificate
from zttrio.zerotier.network.derived import BROADCAST, Group
from zttrio.zerotier.network.dictionary import Dictionary
from zttrio.zerotier.network.frames import (
    ACKNOWLEDGE,
    MAX_FRAME_PAYLOAD,
    WATCH_IN,
    WATCH_OUT,
    ConfigAnswer,
    ConfigRequest,
    ExtFrame,
    FrameMessage,
    Gather,
    GatherAnswer,
    GatherResults,
    MulticastAnswer,
    MulticastFrame,
    MulticastLike,
    NetworkError,
    emit_network_id,
    parse_network_id,
    request_metadata,
)
from zttrio.zerotier.network.piece import Piece

from .data import load, network_identity, vectors
from .test_credentials import COMS
from .test_derived import ADDRESSES, GROUPS, NETWORK_IDS

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK = 0x072211D924ABCD01
COM = MembershipCertificate.issue(
    network_identity("controller"),
    network_id=NETWORK,
    member=network_identity("peer"),
    timestamp=1,
    window=1,
)
GROUP = Group(b"\x33\x33\xff\x01\x02\x03")
_ETHERTYPES = st.integers(0, 0xFFFF)
_MACS = st.binary(min_size=6, max_size=6)
_DATA = st.binary(max_size=40)
_U32 = st.integers(0, 2**32 - 1)
_COM = st.none() | COMS
_RESULTS = st.builds(GatherResults, _U32, st.lists(ADDRESSES, max_size=5).map(tuple))
_DICTIONARIES = st.dictionaries(
    st.sampled_from(["v", "aV", "aU", "other"]), st.binary(max_size=20)
).map(Dictionary)

_ANY: dict[type, st.SearchStrategy[Any]] = {
    FrameMessage: st.builds(FrameMessage, NETWORK_IDS, _ETHERTYPES, _DATA),
    ExtFrame: st.builds(
        ExtFrame,
        NETWORK_IDS,
        st.integers(0, 127).map(lambda flags: flags << 1),
        _MACS,
        _MACS,
        _ETHERTYPES,
        _DATA,
        _COM,
    ),
    MulticastLike: st.builds(
        MulticastLike, st.lists(st.tuples(NETWORK_IDS, GROUPS), max_size=5).map(tuple)
    ),
    ConfigRequest: st.builds(
        ConfigRequest,
        NETWORK_IDS,
        _DICTIONARIES,
        st.integers(0, 2**64 - 1),
        st.integers(-(2**63), 2**63 - 1),
    ),
    ConfigAnswer: st.builds(ConfigAnswer, NETWORK_IDS, NETWORK_IDS),
    Gather: st.builds(Gather, NETWORK_IDS, GROUPS, _U32, _COM),
    GatherAnswer: st.builds(GatherAnswer, NETWORK_IDS, GROUPS, _RESULTS),
    MulticastFrame: st.builds(
        MulticastFrame,
        NETWORK_IDS,
        GROUPS,
        _ETHERTYPES,
        _DATA,
        st.none() | _MACS,
        st.none() | _U32,
        st.booleans(),
        _COM,
    ),
    MulticastAnswer: st.builds(MulticastAnswer, NETWORK_IDS, GROUPS, _COM, st.none() | _RESULTS),
}
_KINDS = list(_ANY)


def _name(kind: type) -> str:
    return kind.__name__


@pytest.mark.parametrize("kind", _KINDS, ids=_name)
@settings(max_examples=40)
@given(data=st.data())
def test_a_message_survives_its_encoding(kind: Any, data: st.DataObject) -> None:
    message = data.draw(_ANY[kind])
    assert kind.parse(message.emit()) == message
    assert kind.parse(memoryview(message.emit())) == message


@pytest.mark.parametrize("kind", _KINDS, ids=_name)
@settings(max_examples=40)
@given(data=st.data())
def test_junk_is_a_message_or_a_header_error(kind: Any, data: st.DataObject) -> None:
    octets = bytearray(
        data.draw(st.binary(max_size=80) | _ANY[kind].map(lambda message: message.emit()))
    )
    for _ in range(data.draw(st.integers(0, 3)) if octets else 0):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    octets = octets[: data.draw(st.integers(0, len(octets)))]
    try:
        kind.parse(octets)
    except HeaderError:
        return


@given(code=st.integers(0, 255), data=st.binary(max_size=60))
def test_junk_is_a_network_error_or_a_header_error(code: int, data: bytes) -> None:
    try:
        NetworkError.parse(code, data).emit()
    except HeaderError:
        assert len(data) < 8 or code in (
            messages.UNWANTED_MULTICAST,
            messages.AUTHENTICATION_REQUIRED,
        )


_READERS: dict[str, Callable[[bytes], bytes]] = {
    "FRAME": lambda payload: FrameMessage.parse(payload).emit(),
    "EXT_FRAME": lambda payload: ExtFrame.parse(payload).emit(),
    "MULTICAST_LIKE": lambda payload: MulticastLike.parse(payload).emit(),
    "NETWORK_CREDENTIALS": lambda payload: CredentialsMessage.parse(payload).emit()[0],
    "NETWORK_CONFIG": lambda payload: Piece.parse(payload).emit(),
    "MULTICAST_GATHER": lambda payload: Gather.parse(payload).emit(),
    "MULTICAST_FRAME": lambda payload: MulticastFrame.parse(payload).emit(),
    "NETWORK_CONFIG_REQUEST": lambda payload: ConfigRequest.parse(payload).emit(),
}


def _reencoded_ok(verb: int, data: bytes) -> bytes:
    readers: dict[int, Callable[[bytes], bytes]] = {
        messages.EXT_FRAME: lambda rest: emit_network_id(parse_network_id(rest)),
        messages.ECHO: lambda rest: ConfigAnswer.parse(rest).emit(),
        messages.MULTICAST_GATHER: lambda rest: GatherAnswer.parse(rest).emit(),
        messages.MULTICAST_FRAME: lambda rest: MulticastAnswer.parse(rest).emit(),
    }
    return readers[verb](data)


def _recorded() -> list[tuple[str, str, bytes]]:
    """Scenario, verb and payload of everything that was recorded in both directions."""
    found = []
    for scenario in load("vl2")["node_transcripts"]["scenarios"]:
        for step in scenario["steps"]:
            received = [step] if "payload" in step else []
            for message in received + step.get("expect", {}).get("send", []):
                payload = bytes.fromhex(message["payload"])
                found.append((scenario["name"], message["verb"], payload))
    return found


def test_every_recorded_message_is_understood_to_the_last_octet() -> None:
    seen: Counter[str] = Counter()
    malformed = []
    for scenario, verb, payload in _recorded():
        seen[verb] += 1
        try:
            if verb == "OK":
                in_re, packet_id, data = messages.parse_ok(payload)
                again = messages.emit_ok(in_re, packet_id, _reencoded_ok(in_re, data))
            elif verb == "ERROR":
                in_re, packet_id, code, data = messages.parse_error(payload)
                body = NetworkError.parse(code, data).emit()
                again = messages.emit_error(in_re, packet_id, code, body)
            else:
                again = _READERS[verb](payload)
        except HeaderError as exc:
            malformed.append((scenario, verb, str(exc)))
            continue
        assert again == payload, (scenario, verb)
    assert malformed == []
    assert {"FRAME", "EXT_FRAME", "MULTICAST_LIKE", "MULTICAST_FRAME", "OK", "ERROR"} <= set(seen)
    assert sum(seen.values()) > 150


def test_a_request_is_written_as_recorded() -> None:
    vector = load("vl2")["config_request"]
    metadata = request_metadata((1, 14, 1), vendor=1, platform="linux/x86_64")
    assert metadata.emit().decode() == vector["dictionary_text"]
    request = ConfigRequest(NETWORK, metadata)
    assert request.emit().hex() == vector["payload_without_config"]
    assert ConfigRequest.parse(request.emit()) == request


@pytest.mark.parametrize(
    "vector", vectors("networks", "network_config"), ids=lambda vector: vector["nwid"]
)
def test_a_real_member_s_request_is_understood(vector: dict[str, Any]) -> None:
    plain = bytes.fromhex(vector["packets"][0]["decoded"]["plain"])
    request = ConfigRequest.parse(plain[1:])
    assert plain[0] == messages.NETWORK_CONFIG_REQUEST
    assert request.emit() == plain[1:]
    assert f"{request.network_id:016x}" == vector["nwid"]
    assert request.metadata.get_int("pv") == 12
    answer = bytes.fromhex(vector["packets"][-1]["decoded"]["plain"])
    verb, _, data = messages.parse_ok(answer[1:])
    assert verb == ConfigAnswer.VERB
    assert ConfigAnswer.parse(data).network_id == request.network_id


def test_a_request_says_no_more_about_us_than_it_must() -> None:
    metadata = request_metadata((1, 14, 0))
    assert "o" not in metadata
    assert "a" not in metadata
    assert metadata.get_int("vend") == 0
    assert request_metadata((1, 14, 0), token="s=cret").emit().endswith(b"\na=token:s\\ecret")


def test_a_request_may_end_behind_its_metadata() -> None:
    request = ConfigRequest(NETWORK, request_metadata((1, 14, 0)), 5, 6)
    whole = request.emit()
    without = attrs.evolve(request, revision=0, timestamp=0)
    for length in range(len(whole)):
        if length < len(whole) - 16:
            with pytest.raises(HeaderError):
                ConfigRequest.parse(whole[:length])
        else:
            assert ConfigRequest.parse(whole[:length]) == without
    assert ConfigRequest.parse(whole) == request


def test_metadata_are_bounded() -> None:
    fits = ConfigRequest(NETWORK, Dictionary(a=bytes(510)))  # NULs need two octets each
    assert ConfigRequest.parse(fits.emit()) == fits
    too_much = Dictionary(a=bytes(511))
    with pytest.raises(ValueError, match="at most 1023"):
        ConfigRequest(NETWORK, too_much).emit()
    encoded = too_much.emit()
    with pytest.raises(HeaderError):
        ConfigRequest.parse(
            emit_network_id(NETWORK) + len(encoded).to_bytes(2, "big") + encoded + bytes(16)
        )


def test_a_frame_fills_the_largest_packet() -> None:
    frame = FrameMessage(NETWORK, 0x0800, bytes(MAX_FRAME_PAYLOAD))
    assert MAX_FRAME_PAYLOAD == 9986
    assert len(frame.emit()) == MAX_PAYLOAD == MAX_PACKET - 28


def test_a_frame_without_payload_is_one() -> None:
    assert FrameMessage.parse(emit_network_id(NETWORK) + b"\x08\x00").payload == b""


@pytest.mark.parametrize(
    ("flags", "wanted"), [(0, False), (0x10, True), (WATCH_OUT, True), (WATCH_IN, True), (8, False)]
)
def test_some_frames_want_an_answer(flags: int, wanted: bool) -> None:
    frame = ExtFrame(NETWORK, flags, bytes(6), bytes(6), 0, b"")
    assert frame.wants_answer is wanted
    assert ExtFrame.parse(frame.emit()).wants_answer is wanted
    assert ACKNOWLEDGE == 0x10


def test_an_old_sender_s_certificate_is_read_from_the_middle_of_a_frame() -> None:
    encoded = emit_network_id(NETWORK) + b"\x11" + COM.emit() + b"ddddddssssss\x08\x00payload"
    frame = ExtFrame.parse(encoded)
    assert frame == ExtFrame(NETWORK, 0x10, b"dddddd", b"ssssss", 0x0800, b"payload", COM)
    assert frame.emit() == encoded
    for length in range(len(encoded) - 7):
        with pytest.raises(HeaderError):
            ExtFrame.parse(encoded[:length])


def test_the_optional_parts_of_a_multicast_frame_have_their_order() -> None:
    encoded = b"".join(
        (
            emit_network_id(NETWORK),
            b"\x0f",
            COM.emit(),
            b"\x00\x00\x00\x05",
            b"ssssss",
            b"dddddd",
            b"\x0a\x05\x00\x07",
            b"\x08\x06",
            b"payload",
        )
    )
    frame = MulticastFrame.parse(encoded)
    group = Group(b"dddddd", 0x0A050007)
    assert frame == MulticastFrame(NETWORK, group, 0x0806, b"payload", b"ssssss", 5, True, COM)
    assert frame.emit() == encoded
    for length in range(len(encoded) - 7):
        with pytest.raises(HeaderError):
            MulticastFrame.parse(encoded[:length])


def test_a_gather_limit_of_zero_is_still_a_question() -> None:
    frame = MulticastFrame(NETWORK, GROUP, 0x0800, b"", gather_limit=0)
    assert MulticastFrame.parse(frame.emit()).gather_limit == 0


@pytest.mark.parametrize(
    "message",
    [
        Gather(NETWORK, GROUP, 10, COM),
        GatherAnswer(NETWORK, GROUP, GatherResults(9, (b"12345", b"23456"))),
        MulticastAnswer(NETWORK, GROUP, COM, GatherResults(1, (b"12345",))),
        ConfigAnswer(NETWORK, 1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_may_not_end_early(message: Any) -> None:
    encoded = message.emit()
    for length in range(len(encoded)):
        with pytest.raises(HeaderError):
            type(message).parse(encoded[:length])


def test_results_cannot_claim_more_addresses_than_they_bring() -> None:
    with pytest.raises(HeaderError, match="65535 addresses"):
        GatherResults.parse(b"\0\0\0\1\xff\xff12345")


def test_as_many_results_as_fit_fill_a_packet() -> None:
    results = GatherResults(5000, (b"12345",) * GatherAnswer.MAX_ADDRESSES)
    payload = messages.emit_ok(
        messages.MULTICAST_GATHER, bytes(8), GatherAnswer(NETWORK, GROUP, results).emit()
    )
    assert MAX_PAYLOAD - 5 < len(payload) <= MAX_PAYLOAD


def test_a_shorter_rest_of_announcements_is_ignored() -> None:
    entries = ((NETWORK, BROADCAST), (NETWORK + 1, GROUP))
    encoded = MulticastLike(entries).emit()
    assert len(encoded) == 36
    for length in range(36):
        assert MulticastLike.parse(encoded[:length]).entries == entries[: length // 18]


def test_many_announcements_take_several_packets() -> None:
    entries = [(NETWORK, Group(b"\x33\x33\xff\0\0\0", adi)) for adi in range(1200)]
    payloads = MulticastLike.payloads(entries)
    assert [len(payload) // 18 for payload in payloads] == [555, 555, 90]
    assert all(len(payload) <= MAX_PAYLOAD for payload in payloads)
    together = [entry for payload in payloads for entry in MulticastLike.parse(payload).entries]
    assert together == entries
    assert MulticastLike.payloads([]) == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (messages.NOT_FOUND, NetworkError(NETWORK)),
        (messages.NEED_MEMBERSHIP, NetworkError(NETWORK)),
        (messages.ACCESS_DENIED, NetworkError(NETWORK)),
        (messages.UNWANTED_MULTICAST, NetworkError(NETWORK, GROUP)),
        (
            messages.AUTHENTICATION_REQUIRED,
            NetworkError(NETWORK, sign_on=Dictionary(aV=b"0", aU=b"https://example.net/?a=b")),
        ),
    ],
)
def test_an_error_survives_its_encoding_and_does_not_end_early(
    code: int, error: NetworkError
) -> None:
    encoded = error.emit()
    assert NetworkError.parse(code, encoded) == error
    for length in range(len(encoded)):
        if code == messages.AUTHENTICATION_REQUIRED and length == 8:
            continue
        with pytest.raises(HeaderError):
            NetworkError.parse(code, encoded[:length])


@pytest.mark.parametrize(
    ("sign_on", "url"),
    [
        (None, ""),
        (Dictionary(), ""),
        (Dictionary(aU=b"u"), "u"),
        (Dictionary(aV=b"0", aU=b"u", iU=b"i"), "u"),
        (Dictionary(aV=b"1", aU=b"u", iU=b"i"), "i"),
    ],
)
def test_the_url_to_sign_on_at_depends_on_the_version(sign_on: Dictionary | None, url: str) -> None:
    assert NetworkError(NETWORK, sign_on=sign_on).url == url


def test_authentication_may_be_required_without_a_word() -> None:
    error = NetworkError.parse(messages.AUTHENTICATION_REQUIRED, emit_network_id(NETWORK))
    assert error.sign_on == {}
    assert error.url == ""


def test_a_message_says_first_which_network_it_is_about() -> None:
    assert parse_network_id(emit_network_id(NETWORK) + b"rest") == NETWORK
    with pytest.raises(HeaderError):
        parse_network_id(bytes(7))
