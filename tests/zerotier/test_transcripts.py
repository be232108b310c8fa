"""What a member of the reference said in 29 recorded scenarios, step by step: ours says it too."""

from __future__ import annotations

from typing import Any

import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.armor import SUITE_SALSA
from zttrio.zerotier.network.derived import Group
from zttrio.zerotier.network.member_config import MemberConfig
from zttrio.zerotier.network.networks import ConfigChanged, NetworkStatus, StatusChanged

from .data import load
from .member_bench import NETWORK_ID, MemberBench

_TRANSCRIPTS = load("vl2")["node_transcripts"]
_VERBS = {messages.verb_name(verb): verb for verb in range(0x17)}
_AS_REFERENCE = MemberConfig(
    complaint_interval=0,
    gather_interval=0,
    deliver_at_once=False,
    push_always=False,
)
"""Where we do better than what was recorded, see `MemberConfig`."""


class _Replay:
    """One scenario."""

    def __init__(self, name: str) -> None:
        [scenario] = [s for s in _TRANSCRIPTS["scenarios"] if s["name"] == name]
        self.steps = scenario["steps"]
        self.bench = bench = MemberBench(member_config=_AS_REFERENCE)
        self.membership = bench.networks.join(NETWORK_ID, bench.now)
        self.puppets = {
            "controller": bench.controller,
            "peer": bench.peer,
            "peer2": bench.peer2,
        }
        self.names = {puppet.address: name for name, puppet in self.puppets.items()}
        self.start = bench.now - self.steps[0]["time"] / 1000
        self.asked: dict[int, bytes] = {}

    def do(self, step: dict[str, Any]) -> dict[str, Any]:
        """Do one step; returns what came of it."""
        bench = self.bench
        bench.now = self.start + step["time"] / 1000
        bench.network_events.clear()
        match step["op"]:
            case "receive":
                self.receive(step)
            case "tap_in":
                parts = (step[key] for key in ("dst", "src", "ethertype", "data"))
                self.membership.send(bytes.fromhex("".join(parts)), bench.now)
            case "subscribe":
                group = Group(bytes.fromhex(step["mac"]), step["adi"])
                self.membership.set_groups(frozenset((group,)), bench.now)
            case "tick":
                bench.networks.handle_timers(bench.now)
            case other:
                raise AssertionError(other)
        return self.outcome()

    def receive(self, step: dict[str, Any]) -> None:
        puppet = self.puppets[step["from"]]
        if "in_re" in step:
            verb = _VERBS[step["in_re"]]
            payload = messages.emit_ok(verb, self.asked[verb], bytes.fromhex(step["rest"]))
        else:
            payload = bytes.fromhex(step["payload"])
        # A packet ID stays on the wire what it is in this suite.
        packet_id = (
            bytes.fromhex(step["packet_id"])
            if "packet_id" in step
            else self.bench.random.randbytes(8)
        )
        packet = puppet.armor.seal(
            packet_id,
            self.bench.node.address + puppet.address,
            bytes((_VERBS[step["verb"]],)) + payload,
            SUITE_SALSA,
            fragmented=False,
        )
        self.bench.node.receive(0, puppet.endpoint, packet, self.bench.now)

    def outcome(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        sent = self.bench.sent()
        for packet in sent:
            self.asked[packet.verb] = packet.packet_id
        if sent:
            found["send"] = sorted(
                (self.names[s.raw[8:13]], messages.verb_name(s.verb), s.payload.hex()) for s in sent
            )
        frames = self.membership.take_frames()
        if frames:
            found["tap_out"] = [frame.hex() for frame in frames]
        if self.bench.network_events:
            found["config_event"] = self.config_event()
        return found

    def config_event(self) -> dict[str, Any]:
        config = self.membership.config
        assert config is not None
        assert all(
            isinstance(event, (ConfigChanged, StatusChanged)) for event in self.bench.network_events
        )
        return {
            "status": int(self.membership.status),
            "name": config.name,
            "mtu": config.mtu,
            "bridge": int(self.membership.is_bridge),
        }


def _expected(step: dict[str, Any]) -> dict[str, Any]:
    expect = dict(step["expect"])
    if "send" in expect:
        expect["send"] = sorted((s["to"], s["verb"], s["payload"]) for s in expect["send"])
    if "tap_out" in expect:
        expect["tap_out"] = [
            "".join(frame[key] for key in ("dst", "src", "ethertype", "data"))
            for frame in expect["tap_out"]
        ]
    return expect


@pytest.mark.parametrize("name", [s["name"] for s in _TRANSCRIPTS["scenarios"]])
def test_a_member_does_what_the_recorded_one_did(name: str) -> None:
    replay = _Replay(name)
    for number, step in enumerate(replay.steps):
        assert replay.do(step) == _expected(step), (number, step.get("note"))


def test_there_are_29_scenarios_with_165_steps() -> None:
    scenarios = _TRANSCRIPTS["scenarios"]
    assert len(scenarios) == 29
    assert sum(len(scenario["steps"]) for scenario in scenarios) == 165
    assert _TRANSCRIPTS["my_mac"] == MemberBench().mac().hex()
    assert NetworkStatus(6) is NetworkStatus.AUTHENTICATION_REQUIRED
