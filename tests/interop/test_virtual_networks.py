"""Networks of our controller with members of both kinds: the real core's and ours."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from zttrio.zerotier.network.rule_language import compile_text

from .overlay import NETWORK, Overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .station import Station

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

GROUP, GROUP_PORT = "239.77.1.2", 7500
ANSWERED, NOTHING = True, False
AT_ONCE = 10.0  # seconds; the tries themselves take some of them
PATIENCE = 40.0


class Members:
    """Two real members and two of ours; and what several tests do with them.

    All were let in, but one of ours was thrown out again.
    """

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.real, self.other = overlay.real(), overlay.real()
        self.ours, self.banished = overlay.ours(), overlay.ours()
        members = (self.real, self.other, self.ours, self.banished)
        self.at = dict(zip(members, overlay.let_in(*members), strict=True))
        self.change(self.banished, {"authorized": False})

    def address(self, member: Station, version: int = 4) -> str:
        """A member's address of one version."""
        return next(
            str(text).lower()
            for text in member.ask("status")["addresses"]
            if (":" in text) == (version == 6)
        )

    def pair(self, who: str, version: int = 4) -> tuple[Station, str]:
        """The member that connects, and the other's address."""
        client, server = (self.real, self.ours) if who == "real" else (self.ours, self.real)
        return client, self.address(server, version)

    def change(self, member: Station, changes: dict[str, Any]) -> None:
        """Change what the controller knows of a member."""
        self.overlay.change_member(member.ready["address"], changes)

    @contextmanager
    def rules(self, source: str) -> Iterator[None]:
        """Other rules for a while."""
        self._change_network(compile_text(source).as_json())
        try:
            yield
        finally:
            self._change_network({"rules": NETWORK["rules"], "capabilities": [], "tags": []})

    def _change_network(self, changes: dict[str, Any]) -> None:
        self.overlay.controller.ask("change", network=self.overlay.network, changes=changes)

    def connects(self, clients: Sequence[Station], server: Station, port: int = 7000) -> list[bool]:
        """Which of them get an answer."""
        asked = [(c, c.start("connect", host=self.at[server], port=port)) for c in clients]
        return [client.finish(number)["answer"] == "x" for client, number in asked]

    def check_connections(self, *, port: int, wanted: bool) -> None:
        """Wait until connections of a real member to ours and the other way round are as wanted."""

        def are_as_wanted() -> bool:
            asked = [
                (client, client.start("connect", host=self.at[server], port=port))
                for client, server in ((self.real, self.ours), (self.ours, self.real))
            ]
            got = [client.finish(number)["answer"] == "x" for client, number in asked]
            return got == [wanted, wanted]

        self.wait_for(are_as_wanted)

    def hear(self, text: str, sender: Station, listeners: Sequence[Station], **where: Any) -> None:
        """Wait until all of *listeners* have heard what *sender* says now and again."""

        def have_heard() -> bool:
            sender.ask("say", text=text, **where)
            time.sleep(0.2)
            return all(text in listener.ask("heard")["heard"] for listener in listeners)

        self.wait_for(have_heard)

    def wait_for(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Try until it is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture(scope="module")
def members(
    tmp_path_factory: pytest.TempPathFactory, libzt: tuple[str, str], namespaces: None
) -> Iterator[Members]:
    del namespaces
    overlay = Overlay(tmp_path_factory.mktemp("overlay"), libzt)
    try:
        yield Members(overlay)
    finally:
        overlay.close()


def test_members_get_the_addresses_that_our_controller_gives(members: Members) -> None:
    records = members.overlay.controller.ask("members", network=members.overlay.network)["members"]
    for member, address in members.at.items():
        assert address in records[member.ready["address"]]["ipAssignments"]
        assert address.startswith("10.99.0.")


@pytest.mark.parametrize("version", [4, 6])
def test_our_member_pings_real_ones(members: Members, version: int) -> None:
    for real in (members.real, members.other):
        answer = members.ours.ask("ping", host=members.address(real, version))
        assert 0 < answer["seconds"] < 5


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("who", ["real", "ours"])
def test_tcp_echoes_whoever_connects(members: Members, who: str, version: int) -> None:
    client, host = members.pair(who, version)
    # With more over IPv6 two real members make one another crash as well.
    for size in (1, 1000, 300_000) if version == 4 else (1, 1000):
        assert client.ask("echo", host=host, size=size) == {"intact": True}


@pytest.mark.parametrize("way", ["upload", "download"])
@pytest.mark.parametrize("who", ["real", "ours"])
def test_twenty_megabytes_arrive_intact(members: Members, who: str, way: str) -> None:
    client, host = members.pair(who)
    assert client.ask(way, host=host, size=20_000_000)["intact"]


@pytest.mark.parametrize("who", ["real", "ours"])
def test_datagrams_of_every_size_come_back(members: Members, who: str) -> None:
    client, host = members.pair(who)
    sizes = [1, 100, 1366, 1367, 2772, 2773, 9000]
    assert client.ask("udp", host=host, sizes=sizes) == {"intact": len(sizes)}


def test_a_group_hears_a_real_member(members: Members) -> None:
    members.ours.ask("join_group", group=GROUP, port=GROUP_PORT)
    members.hear("to the group", members.real, [members.ours], host=GROUP, port=GROUP_PORT)


def test_our_member_hears_a_broadcast_of_a_real_one(members: Members) -> None:
    # The other way round there is ARP in every other test; lwIP gives programs no broadcasts.
    members.hear("to everybody", members.real, [members.ours], host="10.99.0.255")


def test_rules_drop_one_port_and_let_another_pass(members: Members) -> None:
    rules = "drop ipprotocol tcp and dport 80; accept;"
    with members.rules(rules):
        members.check_connections(port=80, wanted=NOTHING)
        members.check_connections(port=7000, wanted=ANSWERED)
    members.check_connections(port=80, wanted=ANSWERED)


def test_rules_know_members_by_their_tags(members: Members) -> None:
    rules = "tag department id 7 enum 1 red enum 2 blue;"
    rules += "drop ipprotocol tcp and not tdiff department 0; accept;"
    red, blue = {"tags": [[7, 1]]}, {"tags": [[7, 2]]}
    members.change(members.real, red)
    members.change(members.ours, blue)
    with members.rules(rules):
        members.check_connections(port=7000, wanted=NOTHING)
        members.change(members.ours, red)
        members.check_connections(port=7000, wanted=ANSWERED)


def test_a_capability_lets_its_holder_pass(members: Members) -> None:
    rules = "cap web id 9 accept ipprotocol tcp and dport 80; ;"
    rules += "break ipprotocol tcp and dport 80; accept;"
    with members.rules(rules):
        members.check_connections(port=80, wanted=NOTHING)
        for holder in (members.real, members.ours):
            members.change(holder, {"capabilities": [9]})
        members.check_connections(port=80, wanted=ANSWERED)


def test_a_member_that_is_thrown_out_loses_access_at_once(members: Members) -> None:
    victim = members.other
    others = [members.real, members.ours]
    assert members.connects(others, victim) == [True, True]
    members.change(victim, {"authorized": False})
    started = time.monotonic()
    members.wait_for(lambda: members.connects(others, victim) == [False, False])
    assert time.monotonic() - started < AT_ONCE
    assert members.connects([victim], members.ours) == [False]
    assert members.connects([members.real], members.ours) == [True]
    members.change(victim, {"authorized": True})
    members.wait_for(lambda: members.connects(others, victim) == [True, True])
    assert members.connects([victim], members.ours) == [True]


def test_our_member_that_is_thrown_out_is_told_so_and_can_come_back(members: Members) -> None:
    banished = members.banished  # it has been for a while: it asks once a minute
    members.wait_for(lambda: "not authorised" in banished.ask("status")["failure"], 70)
    assert members.connects([members.real, members.ours], banished) == [False, False]
    members.change(banished, {"authorized": True})
    banished.ask("online")
    members.wait_for(lambda: members.connects([members.real], banished) == [True])
