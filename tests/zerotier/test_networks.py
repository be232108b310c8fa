"""Joining, asking, refreshing, leaving: a network's life, to the second (5.9, 6.2 to 7)."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, ip_network

import attrs
import pytest

from zttrio.zerotier import messages
from zttrio.zerotier.network.config_request import ConfigAnswer, ConfigRequest
from zttrio.zerotier.network.derived import Group, controller_of
from zttrio.zerotier.network.dictionary import Dictionary
from zttrio.zerotier.network.frames import NetworkError
from zttrio.zerotier.network.member_config import MemberConfig
from zttrio.zerotier.network.networks import ConfigChanged, NetworkStatus, StatusChanged
from zttrio.zerotier.network.piece import Piece, cut

from .bench import Sent, verbs
from .data import network_identity
from .member_bench import NETWORK_ID, MemberBench

ADHOC_PORTS = 0xFF0050005A000000
ADHOC_OPEN = 0xFF0A000000000001


def _requests(sent: list[tuple[float, Sent]]) -> list[float]:
    return [when for when, s in sent if s.verb == messages.NETWORK_CONFIG_REQUEST]


def _answer(bench: MemberBench, request: Sent, dictionary: bytes) -> list[Sent]:
    """Let the controller answer a request with signed pieces."""
    sent: list[Sent] = []
    for piece in cut(
        NETWORK_ID, dictionary, bench.random.getrandbits(60) + 1, network_identity("controller")
    ):
        sent += bench.quiet(bench.controller.answer(request, data=piece.emit()))
    return sent


def _error(
    bench: MemberBench, code: int, *, verb: int = 0x0B, sign_on: Dictionary | None = None
) -> None:
    data = NetworkError(NETWORK_ID, sign_on=sign_on).emit()
    payload = messages.emit_error(verb, bytes(8), code, data)
    bench.say(bench.controller, messages.ERROR, payload)


# asking


def test_joining_sends_nothing_and_a_request_is_due_at_once() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    assert bench.sent() == []
    assert bench.networks.next_timer() == bench.now
    assert membership.status is NetworkStatus.REQUESTING_CONFIGURATION
    [request] = bench.tick()
    assert request.verb == messages.NETWORK_CONFIG_REQUEST
    assert request.remote == bench.controller.endpoint


def test_a_request_says_what_we_are_and_what_we_have() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now, token="sesame")
    [sent] = bench.tick()
    request = ConfigRequest.parse(sent.payload)
    assert request.network_id == NETWORK_ID
    assert request.metadata.get_int("v") == 7
    assert request.metadata.get_int("pv") == 12
    assert request.metadata.get_int("revr") == 1
    assert request.metadata.get_text("a") == "token:sesame"
    assert (request.revision, request.timestamp) == (0, 0)
    _answer(bench, sent, bench.config(revision=7).emit())
    [(_, again)] = [s for s in bench.pass_time(61) if s[1].verb == 0x0B]
    request = ConfigRequest.parse(again.payload)
    assert (request.revision, request.timestamp) == (7, bench.timestamp)


def test_without_an_answer_it_asks_every_five_seconds() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now)
    assert _requests(bench.pass_time(20)) == [0, 5, 10, 15, 20]


def test_a_configuration_is_refreshed_after_a_minute_and_asked_for_until_it_comes() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now)
    [request] = bench.tick()
    bench.now += 0.5
    _answer(bench, request, bench.config().emit())
    assert _requests(bench.pass_time(74)) == [60, 65, 70]


def test_a_later_configuration_is_refreshed_at_the_first_tick_a_minute_after_it_came() -> None:
    bench = MemberBench()
    bench.join()
    bench.pass_time(0.5)  # the ticks are 0.5 s before now, and every 5 s from there
    bench.timestamp += 1
    bench.configure()
    assert _requests(bench.pass_time(70)) == [64.5, 69.5]


def test_an_unchanged_configuration_does_not_put_off_the_refresh() -> None:
    bench = MemberBench()
    bench.join()
    bench.pass_time(30)
    bench.configure()
    assert bench.networks.counters.config_unchanged == 1
    assert _requests(bench.pass_time(35)) == [30, 35]


def test_an_answer_to_nothing_that_was_asked_is_ignored() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now)
    [piece] = cut(NETWORK_ID, bench.config().emit(), 5, network_identity("controller"))
    payload = messages.emit_ok(messages.NETWORK_CONFIG_REQUEST, bytes(8), piece.emit())
    bench.say(bench.controller, messages.OK, payload)
    assert bench.networks.networks[NETWORK_ID].config is None
    assert bench.node.counters.ok_unexpected == 1


def test_an_answer_about_another_network_than_the_one_asked_for_is_ignored() -> None:
    bench = MemberBench()
    other = NETWORK_ID + 1
    membership = bench.networks.join(NETWORK_ID, bench.now)
    [request] = bench.tick()
    bench.networks.join(other, bench.now)
    [piece] = cut(
        other,
        attrs.evolve(bench.config(), network_id=other).emit(),
        5,
        network_identity("controller"),
    )
    bench.controller.answer(request, data=piece.emit())
    assert bench.networks.counters.message_unexpected == 1
    assert bench.networks.networks[other].config is membership.config is None


def test_a_network_of_our_own_controller_is_configured_without_packets() -> None:
    bench = MemberBench()
    network_id = int.from_bytes(bench.node.address, "big") << 24 | 1
    membership = bench.networks.join(network_id, bench.now)
    assert bench.pass_time(20) == []
    config = bench.config(network_id=network_id, is_public=True)
    assert bench.networks.accept_config(network_id, config.emit(), bench.now) == "config_accepted"
    assert membership.status is NetworkStatus.OK
    assert (
        bench.networks.accept_config(NETWORK_ID, config.emit(), bench.now) == "message_not_joined"
    )


# status


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (messages.NOT_FOUND, NetworkStatus.NOT_FOUND),
        (messages.UNSUPPORTED, NetworkStatus.NOT_FOUND),
        (messages.ACCESS_DENIED, NetworkStatus.ACCESS_DENIED),
        (messages.AUTHENTICATION_REQUIRED, NetworkStatus.AUTHENTICATION_REQUIRED),
    ],
)
def test_the_controllers_errors_become_the_status_until_a_configuration_comes(
    code: int, status: NetworkStatus
) -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    bench.tick()
    _error(bench, code)
    assert membership.status is status
    assert bench.network_events == [StatusChanged(NETWORK_ID, status)]
    assert _requests(bench.pass_time(10)) == [5, 10]
    bench.configure()
    assert membership.status is NetworkStatus.OK
    assert [e.status for e in bench.network_events if isinstance(e, StatusChanged)] == [
        status,
        NetworkStatus.OK,
    ]


@pytest.mark.parametrize(
    "code", [messages.NOT_FOUND, messages.UNSUPPORTED, messages.ACCESS_DENIED, 9]
)
def test_nobody_but_the_controller_may_refuse_us(code: int) -> None:
    bench = MemberBench()
    membership = bench.join()
    error = NetworkError(NETWORK_ID).emit()
    bench.say(bench.peer, messages.ERROR, messages.emit_error(0x0B, bytes(8), code, error))
    assert membership.status is NetworkStatus.OK
    assert bench.networks.counters.error_ignored == 1
    assert bench.node.counters.error_refused == 1


@pytest.mark.parametrize("code", [messages.NOT_FOUND, messages.UNSUPPORTED])
def test_that_something_else_was_not_found_says_nothing_about_the_network(code: int) -> None:
    bench = MemberBench()
    membership = bench.join()
    _error(bench, code, verb=messages.MULTICAST_GATHER)
    assert membership.status is NetworkStatus.OK


def test_an_unknown_error_of_the_controller_is_ignored() -> None:
    bench = MemberBench()
    membership = bench.join()
    _error(bench, 0x20)
    assert membership.status is NetworkStatus.OK


def test_an_error_about_a_network_that_we_are_not_on_is_ignored() -> None:
    bench = MemberBench()
    _error(bench, messages.ACCESS_DENIED)
    assert bench.networks.counters.error_ignored == 1


def test_a_denial_leaves_the_configuration_in_force() -> None:
    bench = MemberBench()
    membership = bench.join()
    held = membership.config
    bench.present(bench.peer)
    _error(bench, messages.ACCESS_DENIED)
    assert membership.config is held
    bench.say(bench.peer, messages.FRAME, membership.id_octets + b"\x08\x00x")
    assert len(membership.take_frames()) == 1


def test_where_to_sign_on_is_told() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    sign_on = Dictionary()
    sign_on.set_int("aV", 0)
    sign_on.set_text("aU", "https://example.com/login")
    _error(bench, messages.AUTHENTICATION_REQUIRED, sign_on=sign_on)
    assert membership.url == "https://example.com/login"
    status = NetworkStatus.AUTHENTICATION_REQUIRED
    assert bench.network_events == [StatusChanged(NETWORK_ID, status, membership.url)]
    bench.configure()
    assert membership.url == ""


def test_the_same_refusal_again_is_no_news() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now)
    for _ in range(3):
        _error(bench, messages.ACCESS_DENIED)
    assert len(bench.network_events) == 1


def test_events_that_nobody_takes_are_replaced_by_newer_ones() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    for number in range(100):
        config = bench.config(name=str(number), timestamp=bench.timestamp + number)
        membership.accept(config.emit(), config, bench.now, is_direct=True)
    changed, status = sorted(bench.networks.take_events(), key=lambda e: type(e).__name__)
    assert isinstance(changed, ConfigChanged)
    assert changed.config.name == "99"
    assert status == StatusChanged(NETWORK_ID, NetworkStatus.OK)
    assert bench.networks.take_events() == []


# accepting configurations


def test_a_configuration_is_told_with_the_octets_to_keep() -> None:
    bench = MemberBench()
    config = bench.config()
    bench.networks.join(NETWORK_ID, bench.now)
    bench.push(config.emit())
    assert bench.network_events == [
        ConfigChanged(NETWORK_ID, config, config.emit()),
        StatusChanged(NETWORK_ID, NetworkStatus.OK),
    ]


def test_a_configuration_in_many_pieces_in_any_order_is_put_together() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    dictionary = bench.config(name="in pieces").emit()
    pieces = cut(NETWORK_ID, dictionary, 9, network_identity("controller"), length=40)
    assert len(pieces) > 10
    bench.random.shuffle(pieces)
    for piece in pieces[:-1] + pieces[:5]:
        assert bench.say(bench.peer, messages.NETWORK_CONFIG, piece.emit()) == []
    assert membership.status is NetworkStatus.REQUESTING_CONFIGURATION
    [answer] = bench.say(bench.peer2, messages.NETWORK_CONFIG, pieces[-1].emit())
    assert membership.config is not None
    assert membership.config.name == "in pieces"
    verb, _, data = messages.parse_ok(answer.payload)
    assert (verb, ConfigAnswer.parse(data)) == (messages.ECHO, ConfigAnswer(NETWORK_ID, 9))
    assert answer.remote == bench.peer2.endpoint
    counters = bench.networks.counters
    assert (counters.piece_kept, counters.piece_known) == (len(pieces) - 1, 5)


def test_a_forged_piece_is_refused_whoever_brings_it() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    [piece] = cut(NETWORK_ID, bench.config().emit(), 9, network_identity("peer"))
    assert bench.say(bench.controller, messages.NETWORK_CONFIG, piece.emit()) == []
    assert membership.config is None
    assert bench.networks.counters.piece_refused == 1


def test_an_unsigned_configuration_counts_only_from_the_controller() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    legacy = Piece(NETWORK_ID, bench.config().emit()).emit()
    assert bench.say(bench.peer, messages.NETWORK_CONFIG, legacy) == []
    assert membership.status is NetworkStatus.REQUESTING_CONFIGURATION
    assert len(bench.say(bench.controller, messages.NETWORK_CONFIG, legacy)) == 1
    assert membership.config is not None


def test_a_configuration_of_a_network_that_we_are_not_on_is_ignored() -> None:
    bench = MemberBench()
    assert bench.configure() == []
    assert bench.networks.counters.message_not_joined == 1


def test_a_configuration_for_somebody_else_is_acknowledged_and_not_used() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    assert verbs(bench.configure(address=bench.peer.address)) == ["OK"]
    assert membership.config is None
    assert bench.networks.counters.config_not_ours == 1


def test_a_configuration_that_is_none_is_counted_and_not_acknowledged() -> None:
    bench = MemberBench()
    membership = bench.networks.join(NETWORK_ID, bench.now)
    assert bench.push(b"v=0000000000000005\nnwid=072211d924abcd01") == []
    assert membership.config is None
    assert bench.networks.counters.config_malformed == 1


def test_an_old_configuration_that_somebody_repeats_does_not_take_us_back() -> None:
    bench = MemberBench()
    membership = bench.join(name="old")
    recorded = bench.config(name="old").emit()
    bench.timestamp += 60_000
    bench.configure(name="new")
    bench.push(recorded, by=bench.peer)
    assert membership.config is not None
    assert membership.config.name == "new"
    assert bench.networks.counters.config_old == 1
    bench.push(recorded)  # the controller's clock may have been set back
    assert membership.config.name == "old"


def test_a_fast_piece_goes_on_to_every_member_but_its_sender_once() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    bench.present(bench.peer2)
    bench.sent()
    dictionary = bench.config(name="fast").emit()
    [piece] = cut(NETWORK_ID, dictionary, 3, network_identity("controller"), flags=1)
    sent = bench.say(bench.peer, messages.NETWORK_CONFIG, piece.emit())
    assert [(s.remote, s.payload) for s in sent if s.verb == messages.NETWORK_CONFIG] == [
        (bench.peer2.endpoint, piece.emit())
    ]
    assert bench.say(bench.peer2, messages.NETWORK_CONFIG, piece.emit()) == []
    assert bench.networks.counters.pieces_forwarded == 1


# keeping configurations


def test_a_stored_configuration_is_used_at_once_and_a_new_one_asked_for() -> None:
    bench = MemberBench()
    stored = bench.config(name="stored").emit()
    membership = bench.networks.join(NETWORK_ID, bench.now, stored=stored)
    assert membership.status is NetworkStatus.OK
    assert membership.config is not None
    assert membership.config.name == "stored"
    assert bench.networks.take_events() == [
        ConfigChanged(NETWORK_ID, membership.config, stored),
        StatusChanged(NETWORK_ID, NetworkStatus.OK),
    ]
    assert _requests(bench.pass_time(10)) == [0, 5, 10]  # it is as old as it may be


@pytest.mark.parametrize("wrong", [b"", b"\n", b"v=garbage", "network", "address"], ids=repr)
def test_a_stored_configuration_that_is_no_good_is_not_used(wrong: bytes | str) -> None:
    bench = MemberBench()
    if wrong == "network":
        wrong = attrs.evolve(bench.config(), network_id=NETWORK_ID + 1).emit()
    elif wrong == "address":
        wrong = bench.config(address=bench.peer.address).emit()
    assert isinstance(wrong, bytes)
    membership = bench.networks.join(NETWORK_ID, bench.now, stored=wrong)
    assert membership.config is None
    assert bench.networks.counters.stored_config_unusable == 1
    assert bench.networks.take_events() == []


# joining and leaving


def test_joining_twice_is_the_same_as_once() -> None:
    bench = MemberBench()
    assert bench.networks.join(NETWORK_ID, bench.now) is bench.networks.join(NETWORK_ID, bench.now)


@pytest.mark.parametrize("wrong", [0, -1, 1 << 64])
def test_a_number_that_is_no_network_is_refused(wrong: int) -> None:
    bench = MemberBench()
    with pytest.raises(ValueError, match="network"):
        bench.networks.join(wrong, bench.now)


def test_a_network_whose_controller_cannot_exist_is_not_found_and_nobody_is_asked() -> None:
    bench = MemberBench()
    membership = bench.networks.join(0x0000000000_000001, bench.now)
    assert membership.status is NetworkStatus.NOT_FOUND
    assert bench.pass_time(20) == []
    bench.networks.accept_config(1, bench.config(network_id=1).emit(), bench.now)
    membership.send(b"\x01" + bytes(5) + membership.mac + b"\x08\0hi", bench.now)
    assert bench.pass_time(70) == []


def test_a_token_that_no_request_can_carry_is_refused() -> None:
    bench = MemberBench()
    bench.networks.join(NETWORK_ID, bench.now, token="x" * 600)
    with pytest.raises(ValueError, match="1023"):
        bench.networks.join(NETWORK_ID + 1, bench.now, token="x" * 1000)
    assert list(bench.networks.networks) == [NETWORK_ID]
    bench.pass_time(5)


def test_no_more_networks_than_allowed_are_joined() -> None:
    bench = MemberBench(member_config=MemberConfig(network_limit=2))
    bench.networks.join(NETWORK_ID, bench.now)
    bench.networks.join(NETWORK_ID + 1, bench.now)
    with pytest.raises(ValueError, match="2 joined already"):
        bench.networks.join(NETWORK_ID + 2, bench.now)


def test_leaving_tells_nobody_and_leaves_nothing() -> None:
    bench = MemberBench()
    bench.join()
    bench.present(bench.peer)
    bench.say(bench.peer, messages.MULTICAST_LIKE, NETWORK_ID.to_bytes(8, "big") + bytes(10))
    assert bench.networks.sizes()["groups"] == 1
    bench.sent()
    bench.networks.leave(NETWORK_ID, bench.now)
    bench.networks.leave(NETWORK_ID, bench.now)
    assert bench.sent() == []
    assert bench.networks.sizes()["groups"] == 0
    assert dict(bench.networks.networks) == {}
    assert bench.pass_time(100) == []
    assert bench.say(bench.peer, messages.FRAME, NETWORK_ID.to_bytes(8, "big") + b"\x08\0x") == []


def test_a_node_without_networks_needs_no_timer() -> None:
    assert MemberBench().networks.next_timer() is None


# the addresses of networks


def test_vl1_keeps_out_of_the_addresses_of_the_networks() -> None:
    bench = MemberBench()
    bench.join(addresses=(IPv4Interface("10.5.0.7/24"), IPv6Interface("fd00::7/0")))
    assert set(bench.node._learning.prohibited) == {
        ip_network("10.5.0.0/24"),
        ip_network("fd00::7/128"),  # a prefix of 0 would be the whole world
    }
    bench.networks.leave(NETWORK_ID, bench.now)
    assert bench.node._learning.prohibited == ()


# networks without a controller (7.6)


def test_an_adhoc_network_is_there_at_once_and_redated_every_minute() -> None:
    bench = MemberBench()
    membership = bench.networks.join(ADHOC_PORTS, bench.now)
    assert membership.status is NetworkStatus.OK
    assert membership.config is not None
    assert membership.config.name == "adhoc-0050-005a"
    assert membership.config.timestamp == bench.clock
    [changed, _] = bench.networks.take_events()
    assert isinstance(changed, ConfigChanged)
    assert changed.stored == b""
    joined = bench.clock
    assert bench.pass_time(59.9) == []  # and there is nobody to ask
    assert membership.config.timestamp == joined
    bench.pass_time(0.1)
    assert membership.config.timestamp == joined + 60_000


@pytest.mark.parametrize("network_id", [0xFF005A0050000000, 0xFF00000000000002])
def test_an_adhoc_network_that_cannot_be_is_not_found(network_id: int) -> None:
    bench = MemberBench()
    membership = bench.networks.join(network_id, bench.now)
    assert membership.status is NetworkStatus.NOT_FOUND
    assert bench.networks.take_events() == [StatusChanged(network_id, NetworkStatus.NOT_FOUND)]
    assert bench.pass_time(10) == []


def test_an_open_adhoc_network_lets_anybody_in() -> None:
    bench = MemberBench()
    membership = bench.networks.join(ADHOC_OPEN, bench.now)
    assert membership.config is not None
    low = ".".join(map(str, bench.node.address[2:]))
    assert IPv4Interface(f"10.{low}/8") in membership.config.addresses
    assert IPv4Network("10.0.0.0/8") in bench.node._learning.prohibited
    bench.say(bench.peer, messages.FRAME, membership.id_octets + b"\x08\x00hello")
    assert [f[14:] for f in membership.take_frames()] == [b"hello"]


def test_a_group_on_an_adhoc_network_is_looked_up_at_roots_only() -> None:
    bench = MemberBench(root="10.9.9.9/9993")
    bench.online()
    membership = bench.networks.join(ADHOC_OPEN, bench.now)
    bench.sent()
    frame = b"\x01\x00\x5e\x00\x00\xfb" + membership.mac + b"\x08\x00" + bytes(28)
    membership.send(frame, bench.now)
    assert {(s.verb, s.remote) for s in bench.sent()} == {
        (messages.MULTICAST_GATHER, bench.root.endpoint)
    }


# requests that others send us


def test_a_node_that_is_no_controller_says_so_if_its_own_network_is_asked_for() -> None:
    bench = MemberBench()
    network_id = int.from_bytes(bench.node.address, "big") << 24 | 1
    request = ConfigRequest(network_id, Dictionary()).emit()
    [answer] = bench.say(bench.peer, messages.NETWORK_CONFIG_REQUEST, request)
    verb, _, code, data = messages.parse_error(answer.payload)
    assert (verb, code) == (messages.NETWORK_CONFIG_REQUEST, messages.UNSUPPORTED)
    assert NetworkError.parse(code, data).network_id == network_id


def test_a_request_for_another_controllers_network_is_not_answered() -> None:
    bench = MemberBench()
    request = ConfigRequest(NETWORK_ID, Dictionary()).emit()
    assert bench.say(bench.peer, messages.NETWORK_CONFIG_REQUEST, request) == []
    assert bench.networks.counters.request_refused == 1


class _Clerk:
    """A controller that only listens."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, int, float]] = []
        self.friends: set[bytes] = set()

    def receive_request(
        self, message: object, network_id: int, metadata: Dictionary, now: float
    ) -> None:
        self.heard.append((metadata.emit(), network_id, now))

    def answers_for(self, network_id: int, address: bytes, now: float) -> bool:
        return address in self.friends


def test_requests_go_to_the_controller_in_this_node() -> None:
    clerk = _Clerk()
    bench = MemberBench(controller=clerk)
    network_id = int.from_bytes(bench.node.address, "big") << 24 | 1
    request = ConfigRequest(network_id, Dictionary(a=b"b")).emit()
    assert bench.say(bench.peer, messages.NETWORK_CONFIG_REQUEST, request) == []
    assert clerk.heard == [(b"a=b", network_id, bench.now)]
    assert bench.networks.counters.request_taken == 1


def test_a_controller_keeps_track_of_groups_for_those_it_has_configured() -> None:
    clerk = _Clerk()
    bench = MemberBench(controller=clerk)
    group = Group(b"\x01\x00\x5e\x00\x00\xfb")
    like = NETWORK_ID.to_bytes(8, "big") + group.mac + bytes(4)
    ask = NETWORK_ID.to_bytes(8, "big") + b"\0" + group.mac + bytes(4) + (9).to_bytes(4, "big")
    bench.say(bench.peer, messages.MULTICAST_LIKE, like)
    assert bench.say(bench.peer2, messages.MULTICAST_GATHER, ask) == []
    clerk.friends = {bench.peer.address}
    bench.say(bench.peer, messages.MULTICAST_LIKE, like)
    assert bench.say(bench.peer2, messages.MULTICAST_GATHER, ask) == []
    clerk.friends.add(bench.peer2.address)
    [answer] = bench.say(bench.peer2, messages.MULTICAST_GATHER, ask)
    assert answer.payload.endswith(bench.peer.address)


def test_the_controllers_address_is_in_the_network_id() -> None:
    assert controller_of(NETWORK_ID) == network_identity("controller").address
