"""Every recorded datagram, from the outside to the plaintext."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.armor import FRAGMENTED, SUITE_TRUSTED, Armor
from zttrio.zerotier.compression import decompress
from zttrio.zerotier.counters import Counters
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.fragment import Reassembler
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.messages import Hello, HelloAnswer, Rendezvous

from .data import BACKEND_NAMES, BACKENDS, load, names, vectors

if TYPE_CHECKING:
    from zttrio.zerotier.crypto import Backend

_SOMEWHERE = Endpoint.parse("10.0.0.1/9993")


class Opener:
    """Opens packets between nodes whose secrets are known."""

    def __init__(self, identities: list[str], backend: Backend) -> None:
        parsed = [Identity.parse_text(text) for text in identities]
        self.identities = {identity.address: identity for identity in parsed}
        self.backend = backend
        self.reassembler = Reassembler(Counters())
        self.armors: dict[frozenset[bytes], Armor] = {}

    def armor(self, packet: bytes) -> Armor:
        destination, source = packet[8:13], packet[13:18]
        pair = frozenset((destination, source))
        if pair not in self.armors:
            key = self.identities[source].agree(self.identities[destination])
            self.armors[pair] = Armor(key, self.backend)
        return self.armors[pair]

    def plain(self, datagram: bytes) -> tuple[bytes, bytes] | None:
        """The whole packet and its plaintext, or None while parts are missing."""
        packet: bytes | None = datagram
        if datagram[13] == 0xFF:
            whole = self.reassembler.receive_tail(datagram, _SOMEWHERE, 0.0)
            packet = None if whole is None else whole[0]
        elif datagram[18] & FRAGMENTED:
            packet = self.reassembler.receive_head(datagram, 0, _SOMEWHERE, 0.0)
        if packet is None:
            return None
        if packet[18] >> 3 & 7 == SUITE_TRUSTED:
            envelope: bytes | None = packet[27:]
        else:
            envelope = self.armor(packet).open(packet)
        assert envelope is not None, "not authentic"
        if envelope[0] & messages.COMPRESSED:
            envelope = bytes((envelope[0] & 0x7F,)) + decompress(envelope[1:])
        if envelope[0] == messages.HELLO:
            start = 1 + Hello.parse(envelope[1:]).length
            tail = self.armor(packet).hello_tail(packet[:8], envelope[start:])
            envelope = envelope[:start] + tail
        return packet, envelope


@pytest.mark.parametrize("backend", BACKENDS, ids=BACKEND_NAMES)
@pytest.mark.parametrize("capture", load("captures"))
def test_every_recorded_packet_is_opened(capture: str, backend: Backend) -> None:
    recorded = load("captures")[capture]
    opener = Opener(recorded["identities"], backend)
    checked = 0
    for record in recorded["packets"]:
        datagram = bytes.fromhex(record["hex"])
        if len(datagram) < 28:
            assert record["kind"] == "short"
            continue
        opened = opener.plain(datagram)
        plain = record.get("plain")
        assert (opened is None) is (plain is None)
        if opened is not None:
            assert opened[1].hex() == plain
            _reread(opened[1])
            checked += 1
    assert checked >= len(recorded["packets"]) // 3


def _reread(envelope: bytes) -> None:
    """What the codecs read they write again, octet for octet."""
    verb, payload = envelope[0], envelope[1:]
    if verb == messages.HELLO:
        hello = Hello.parse(payload)
        assert hello.emit() == payload[: hello.length]
        moons = messages.parse_moons(payload[hello.length :])
        assert messages.emit_moons(moons) == payload[hello.length :]
    elif verb == messages.OK:
        answered, packet_id, data = messages.parse_ok(payload)
        assert messages.emit_ok(answered, packet_id, data) == payload
        if answered == messages.HELLO:
            answer = HelloAnswer.parse(data)
            assert answer.emit() == data
            messages.parse_worlds(answer.worlds)
        elif answered == messages.WHOIS:
            assert Identity.parse(data)[0].emit() == data
    elif verb == messages.ERROR:
        assert messages.emit_error(*messages.parse_error(payload)) == payload
    elif verb == messages.RENDEZVOUS:
        assert Rendezvous.parse(payload).emit() == payload
    elif verb == messages.PUSH_DIRECT_PATHS:
        hints = messages.parse_path_hints(payload)
        assert messages.emit_path_hints([hint.endpoint for hint in hints]) == payload


@pytest.mark.parametrize("vector", vectors("captured"), ids=names("captured"))
def test_packets_of_older_and_newer_real_nodes_are_opened(vector: dict[str, object]) -> None:
    raw = bytes.fromhex(str(vector["raw"]))
    if "key48" not in vector:
        assert len(raw) == 4  # what opens a NAT
        return
    armor = Armor(bytes.fromhex(str(vector["key48"])), BACKENDS[0])
    assert raw[8:13].hex() == vector["dest"]
    assert raw[13:18].hex() == vector["src"]
    assert raw[18] >> 3 & 7 == vector["suite"]
    assert raw[18] & 7 == vector["hops"]
    envelope = armor.open(raw)
    assert envelope is not None
    if "uncompressed_payload" in vector:
        assert decompress(envelope[1:]).hex() == vector["uncompressed_payload"]
    if vector["verb"] == messages.HELLO:
        hello = Hello.parse(envelope[1:])
        tail = armor.hello_tail(raw[:8], raw[28 + hello.length :])
        assert tail.hex() == vector["hello_tail_decrypted"]
        assert str(hello.sent_to) == vector["hello_sent_to"]
        fields = vector["hello_fields"]
        assert isinstance(fields, dict)
        assert (hello.protocol, *hello.version, hello.timestamp) == tuple(fields.values())
    assert envelope.hex() == vector["decrypted_from_verb"]
