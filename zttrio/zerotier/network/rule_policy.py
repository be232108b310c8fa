"""From rules to decisions: rule lists made ready to run, and what a member does with them (9).

Every frame of the network passes here twice, once at each end, so a list is made ready once per
direction and kind of frame.  What cannot be reached is left out by then: of the usual list "drop
what is neither IPv4, ARP nor IPv6, accept the rest" nothing is left to do.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from . import rules as r
from .credential import THING_IPV4, THING_IPV6, THING_MAC
from .derived import rfc4193, sixplane
from .rule_frame import (
    KINDS,
    RFC4193_PREFIX,
    SIXPLANE_PREFIX,
    RuleFrame,
    Surroundings,
    kind_of,
)
from .rule_match import Setting, may_disarm, reads_transport, test_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from zttrio.header.frame import Buffer

    from .credential import Ownership
    from .netconf import NetworkConfig
    from .rule_frame import PeerCredentials, PeerRules
    from .rule_match import Test
    from .rules import Rule

__all__ = ["Copy", "Decision", "Outcome", "Policy", "RuleList", "Verdict"]

_KNOWN_THINGS = (THING_MAC, THING_IPV4, THING_IPV6)
_CACHED_LISTS = 1024  # arbitrary; lists of peers' capabilities that are kept ready


class Verdict(enum.Enum):
    """How the evaluation of one list ends."""

    NO_MATCH = "no match"
    DROP = "drop"
    REDIRECT = "redirect"
    ACCEPT = "accept"
    SUPER_ACCEPT = "super accept"


_NO_MATCH = Verdict.NO_MATCH
_DROP = Verdict.DROP
_REDIRECT = Verdict.REDIRECT
_ACCEPT = Verdict.ACCEPT
_SUPER_ACCEPT = Verdict.SUPER_ACCEPT


@attrs.frozen
class Copy:
    """An order to send the beginning of a frame to an observer.

    Attributes:
        address: of the observer.
        length: octets of the payload.
        is_watch: by WATCH, which asks for an acknowledgement, instead of TEE.
    """

    address: bytes
    length: int
    is_watch: bool


@attrs.frozen
class Outcome:
    """What one list says about a frame.

    Attributes:
        verdict: how it ended.
        redirect: the new destination, if the verdict is REDIRECT.
        copy: the last copy order, whatever the verdict is.
    """

    verdict: Verdict
    redirect: bytes | None = None
    copy: Copy | None = None


_PLAIN = {verdict: Outcome(verdict) for verdict in Verdict}


@attrs.frozen
class Decision:
    """What to do with a frame.

    Attributes:
        accepted: 0 drops it, 1 accepts it, 2 accepts it in spite of its MACs (10.2, inbound only).
        redirect: node that gets the whole frame instead of its destination.
        copies: to send, in this order. A pass that may not copy (11.1, 14) ignores them.
    """

    accepted: int
    redirect: bytes | None = None
    copies: tuple[Copy, ...] = ()


_REFUSED = Decision(0)
_ACCEPTED = Decision(1)
_SUPER_ACCEPTED = Decision(2)
_DECISIONS = {_DROP: _REFUSED, _ACCEPT: _ACCEPTED, _SUPER_ACCEPT: _SUPER_ACCEPTED}

# How a step joins the result so far.  The last one is for tests that do more than test.
_AND, _OR, _OR_ALWAYS = range(3)


@attrs.frozen
class _Block:
    """Matches, and the action behind them.

    Attributes:
        is_matched: the result before the first step.
        steps: how to join, and what.
        tests: the same, if all of them have to hold, which is usual.
        action: its type.
        target: of TEE, WATCH and REDIRECT.
        length: of the copy, 0 for everything.
        concerns_me: it is inbound, and the target is this node.
    """

    is_matched: bool
    steps: tuple[tuple[int, Test], ...]
    tests: tuple[Test, ...] | None
    action: int
    target: bytes = b""
    length: int = 0
    concerns_me: bool = False


_WITH_TARGET = (r.TEE, r.WATCH, r.REDIRECT)
_FINAL = {r.ACCEPT: _ACCEPT, r.PRIORITY: _ACCEPT, r.BREAK: _NO_MATCH}


class RuleList:
    """One rule list, for one node.

    Args:
        rules: as parsed.
        around: the node that decides.
    """

    __slots__ = ("_around", "_programs", "_rules", "is_open")

    is_open: bool
    """The list accepts everything in both directions, without copies."""

    def __init__(self, rules: Sequence[Rule], around: Surroundings) -> None:
        self._rules = tuple(rules)
        self._around = around
        self._programs: list[_Program | None] = [None] * (2 * KINDS)
        self.is_open = bool(rules) and rules[0].type in (r.ACCEPT, r.PRIORITY)

    def evaluate(self, frame: RuleFrame, *, is_inbound: bool) -> Outcome:
        """What the list says about *frame* (9.2)."""
        return self.run(frame, kind_of(frame.ethertype, frame.payload), is_inbound)

    def run(self, frame: RuleFrame, kind: int, is_inbound: bool) -> Outcome:
        """As `evaluate`, for those who know the kind of the frame."""
        return self.program(kind, is_inbound).run(frame)

    def program(self, kind: int, is_inbound: bool) -> _Program:
        """The list, made ready for one direction and kind of frame."""
        index = kind + KINDS if is_inbound else kind
        program = self._programs[index]
        if program is None:
            program = self._programs[index] = _prepare(self._rules, kind, is_inbound, self._around)
        return program


class _Program:
    """A rule list without what cannot matter for one direction and kind of frame."""

    __slots__ = ("_blocks", "_me", "_read_as", "constant", "decision")

    constant: Outcome | None
    """What it always results in, if that is always the same."""
    decision: Decision | None
    """The decision, if the list as a network's base list makes it always and alone."""

    def __init__(self, blocks: Sequence[_Block], read_as: int | None, me: bytes) -> None:
        self._blocks = tuple(blocks)
        self._me = me
        self._read_as = read_as  # the kind for `RuleFrame.read`, if that is needed
        self.constant = _constant(self._blocks)
        self.decision = None if self.constant is None else _DECISIONS.get(self.constant.verdict)

    def run(self, frame: RuleFrame) -> Outcome:
        """Evaluate the list (9.2)."""
        if self.constant is not None:
            return self.constant
        frame.is_super = frame.skip_drop = False
        if self._read_as is not None:
            frame.read(self._read_as)
        copy: Copy | None = None
        for block in self._blocks:
            tests = block.tests
            if tests is not None:
                for test in tests:
                    if not test(frame):
                        matched = False
                        break
                else:
                    matched = True
            else:
                matched = _matches(block, frame)
            if not matched:
                if block.concerns_me:
                    frame.is_super = True
                continue
            action = block.action
            if action == r.ACCEPT:
                return _finish(_SUPER_ACCEPT if frame.is_super else _ACCEPT, copy)
            if action == r.DROP:
                if not frame.skip_drop:
                    return _finish(_DROP, copy)
                frame.skip_drop = False
            elif action in _FINAL:
                return _finish(_FINAL[action], copy)
            elif action in _WITH_TARGET:
                target = block.target
                if target == frame.source:
                    continue
                if block.concerns_me:
                    return _finish(_SUPER_ACCEPT, copy)
                if target in (self._me, frame.destination):
                    continue
                if action == r.REDIRECT:
                    return Outcome(_REDIRECT, target, copy)
                size = len(frame.payload)
                length = min(block.length, size) if block.length else size
                copy = Copy(target, length, action == r.WATCH)
        return _finish(_NO_MATCH, copy)


def _matches(block: _Block, frame: RuleFrame) -> bool:
    """Whether the steps of *block* end in true (9.2, "match")."""
    matched = block.is_matched
    for join, test in block.steps:
        if matched:
            if join == _AND:
                matched = test(frame)
            elif join == _OR_ALWAYS:
                test(frame)
        elif join != _AND:
            matched = test(frame)
    return matched


def _finish(verdict: Verdict, copy: Copy | None) -> Outcome:
    return _PLAIN[verdict] if copy is None else Outcome(verdict, None, copy)


def _constant(blocks: tuple[_Block, ...]) -> Outcome | None:
    """What the program always results in, if it always is the same."""
    if not blocks:
        return _PLAIN[_NO_MATCH]
    first = blocks[0]
    if first.steps or not first.is_matched or first.action in _WITH_TARGET:
        return None
    return _PLAIN[_DROP if first.action == r.DROP else _FINAL[first.action]]


def _prepare(rules: Sequence[Rule], kind: int, is_inbound: bool, around: Surroundings) -> _Program:
    me = around.address
    setting = Setting(kind, is_inbound, False, around)
    blocks: list[_Block] = []
    matches: list[Rule] = []
    read_as: int | None = None
    for rule in rules:
        if not r.is_action(rule):
            matches.append(rule)
            if reads_transport(rule, kind):
                read_as = kind
            continue
        is_matched, steps = _join(matches, setting)
        disarms = any(may_disarm(match, setting) for match in matches)
        matches.clear()
        block = _block(rule, is_matched, steps, me if is_inbound else None)
        decides = rule.type <= r.PRIORITY and (is_matched or bool(steps))
        if decides or block.concerns_me or (disarms and steps):
            blocks.append(block)
        if block.concerns_me and not setting.may_be_super:
            setting = attrs.evolve(setting, may_be_super=True)
        is_final = rule.type in _FINAL or (rule.type == r.DROP and not _may_be_disarmed(blocks))
        if is_matched and not steps and is_final:
            break  # nothing behind this is ever reached
    # Matches without an action behind them decide about nothing; they are forgotten here.
    return _Program(blocks, read_as, me)


def _may_be_disarmed(blocks: Sequence[_Block]) -> bool:
    """Whether a DROP at the end of *blocks* might find `RuleFrame.skip_drop` set."""
    return any(block.steps for block in blocks)


def _block(
    action: Rule, is_matched: bool, steps: tuple[tuple[int, Test], ...], receiver: bytes | None
) -> _Block:
    tests: tuple[Test, ...] | None = None
    if is_matched and all(join == _AND for join, _ in steps):
        tests = tuple(test for _, test in steps)
    if action.type not in _WITH_TARGET:
        return _Block(is_matched, steps, tests, action.type)
    target, _, length = action.fields()
    return _Block(is_matched, steps, tests, action.type, target, length, target == receiver)


def _join(matches: Iterable[Rule], setting: Setting) -> tuple[bool, tuple[tuple[int, Test], ...]]:
    """The result before the first step, and the steps that are needed (9.2, "match")."""
    start = True
    steps: list[tuple[int, Test]] = []
    must_run = False  # a step among them does more than test
    for match in matches:
        disarms = may_disarm(match, setting)
        if not steps and start is match.is_or and not disarms:
            continue  # true already, or false for good
        test = test_for(match, setting)
        if isinstance(test, bool):
            if test is match.is_or:  # OR true, AND false: what precedes does not matter
                if must_run:
                    steps.append((_OR, _always) if match.is_or else (_AND, _never))
                else:
                    steps.clear()
                    start = test
            continue
        if not steps and not start and not match.is_or:
            continue
        join = _AND if not match.is_or else _OR_ALWAYS if disarms else _OR
        must_run = must_run or disarms
        steps.append((join, test))
    return start, tuple(steps)


def _always(_: RuleFrame) -> bool:
    return True


def _never(_: RuleFrame) -> bool:
    return False


class Policy:
    """The rules of one configuration of one network, as the node it was issued to enforces them.

    Args:
        rules: the base list.
        around: this node.
        capabilities: rule lists of the own capabilities, in ascending order of their IDs.
    """

    __slots__ = ("_around", "_base", "_capabilities", "_peer_lists", "is_open")

    is_open: bool
    """Everything is accepted in both directions, without copies: nobody needs to be asked."""

    def __init__(
        self,
        rules: Sequence[Rule],
        around: Surroundings,
        capabilities: Iterable[Sequence[Rule]] = (),
    ) -> None:
        self._around = around
        self._base = RuleList(rules, around)
        self._capabilities = tuple(RuleList(rules, around) for rules in capabilities)
        # By identity, which stays theirs as long as the tuple is kept beside the list.
        self._peer_lists: dict[int, tuple[tuple[Rule, ...], RuleList]] = {}
        self.is_open = self._base.is_open

    @classmethod
    def of(cls, config: NetworkConfig, random: Random, *, is_strict: bool = True) -> Policy:
        """What *config* demands of the node that it was issued to.

        Args:
            config: rules, own credentials and flags are used.
            random: for the match by chance.
            is_strict: see `Surroundings`.
        """
        around = Surroundings(
            config.address,
            random,
            {tag.id: tag.value for tag in config.tags},
            _owned(config.ownerships),
            config.unknown_matches,
            _derived_prefixes(config),
            is_strict,
        )
        own = sorted(config.capabilities, key=lambda capability: capability.id)
        return cls(config.rules, around, [capability.rules for capability in own])

    def decide_outbound(
        self,
        destination: bytes,
        mac_destination: bytes,
        mac_source: bytes,
        ethertype: int,
        payload: Buffer,
        peer: PeerCredentials | None = None,
    ) -> Decision:
        """What to do with a frame that leaves this node (9.7).

        Args:
            destination: node address of the recipient, or five zeros in the first pass for a
                multicast or bridged frame.
            mac_destination: 6 octets.
            mac_source: 6 octets.
            ethertype: of the frame.
            payload: what stands behind the Ethernet header.
            peer: what is known of the recipient.
        """
        if self.is_open:
            return _ACCEPTED
        kind = kind_of(ethertype, payload)
        program = self._base.program(kind, False)
        if program.decision is not None:
            return program.decision
        me = self._around.address
        frame = RuleFrame(me, destination, mac_destination, mac_source, ethertype, payload, peer)
        base = program.run(frame)
        if base.verdict is not _NO_MATCH:
            return _decide(base, None)
        for rules in self._capabilities:
            outcome = rules.run(frame, kind, False)
            if outcome.verdict is not _NO_MATCH and outcome.verdict is not _DROP:
                return _decide(outcome, base.copy)
        return _REFUSED

    def decide_inbound(
        self,
        source: bytes,
        mac_destination: bytes,
        mac_source: bytes,
        ethertype: int,
        payload: Buffer,
        peer: PeerCredentials | None,
    ) -> Decision:
        """What to do with a frame that arrived from another member (9.7).

        Args:
            source: node address of the sender.
            mac_destination: 6 octets.
            mac_source: 6 octets.
            ethertype: of the frame.
            payload: what stands behind the Ethernet header.
            peer: the sender's credentials.
        """
        if self.is_open:
            return _ACCEPTED
        kind = kind_of(ethertype, payload)
        program = self._base.program(kind, True)
        if program.decision is not None:
            return program.decision
        me = self._around.address
        frame = RuleFrame(source, me, mac_destination, mac_source, ethertype, payload, peer)
        base = program.run(frame)
        if base.verdict is not _NO_MATCH:
            return _decide(base, None)
        if peer is None:
            return _REFUSED
        for capability in peer.capabilities():
            outcome = self._list_of(capability).run(frame, kind, True)
            if outcome.verdict is not _NO_MATCH and outcome.verdict is not _DROP:
                return _decide(outcome, base.copy)
        return _REFUSED

    def _list_of(self, capability: PeerRules) -> RuleList:
        rules = capability.rules
        known = self._peer_lists.get(id(rules))
        if known is not None:
            return known[1]
        if len(self._peer_lists) >= _CACHED_LISTS:
            self._peer_lists.clear()
        made = RuleList(rules, self._around)
        self._peer_lists[id(rules)] = rules, made
        return made


def _decide(outcome: Outcome, base_copy: Copy | None) -> Decision:
    """A decision from the outcome that was decisive, and what the base list left behind (9.7)."""
    verdict = outcome.verdict
    if verdict is _DROP:
        return _REFUSED
    if outcome.copy is None and base_copy is None and verdict is not _REDIRECT:
        return _DECISIONS[verdict]
    copies = tuple(copy for copy in (outcome.copy, base_copy) if copy is not None)
    return Decision(2 if verdict is _SUPER_ACCEPT else 1, outcome.redirect, copies)


def _owned(ownerships: Iterable[Ownership]) -> frozenset[bytes]:
    things = [thing for ownership in ownerships for thing in ownership.things]
    return frozenset(thing.octets for thing in things if thing.kind in _KNOWN_THINGS)


def _derived_prefixes(config: NetworkConfig) -> tuple[bytes, ...]:
    """Prefixes of those IPv6 addresses that say who uses them (9.4, bit 60)."""
    found: list[bytes] = []
    if not config.ndp_emulation:
        return ()
    for make, size in ((sixplane, SIXPLANE_PREFIX), (rfc4193, RFC4193_PREFIX)):
        own = make(config.network_id, config.address)
        if own in config.addresses:
            found.append(own.packed[:size])
    return tuple(found)
