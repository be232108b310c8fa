"""What the local HTTP interface of a controller says and does (16.8)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from zttrio.controller.api import Api
from zttrio.controller.http import Answer, Request

from .controller_bench import ControllerBench
from .data import load

TOKEN = "secret-token"


class ApiBench(ControllerBench):
    """A controller, and requests by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        self.api = Api(
            self.controller,
            address=self.node.address,
            token=TOKEN,
            commit=self._commit,
            clock=lambda: self.now,
            status=lambda: {"address": str(self.node.identity)},
            hosts=["controller.example"],
        )

    async def _commit(self) -> None:
        self.commits += 1

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        sent = b"" if body is None else json.dumps(body).encode()
        request = Request(method, path, {}, {"x-zt1-auth": TOKEN}, sent)
        assert self.api.admit(request) is None
        answer = await self.api.respond(request)
        json.dumps(answer.content, allow_nan=False)
        return answer

    async def get(self, path: str) -> Any:
        answer = await self.call("GET", path)
        assert answer.status == 200
        return answer.content


@pytest.fixture
def bench() -> ApiBench:
    return ApiBench()


async def test_the_controller_says_what_it_is(bench: ApiBench) -> None:
    recorded = load("vl2")["controller_api"]["GET /controller"]
    assert await bench.get("/controller") == {**recorded, "clock": bench.clock}
    assert await bench.get("/status") == {"address": str(bench.node.identity)}


async def test_a_network_is_made_read_changed_and_deleted(bench: ApiBench) -> None:
    own = str(bench.node.identity)
    made = (await bench.call("POST", f"/controller/network/{own}______", {})).content
    assert bench.commits == 1
    recorded = load("vl2")["controller_api"][
        "POST /controller/network/{controller address}______ with {}"
    ]
    changing = {key: made[key] for key in ("id", "nwid", "creationTime")}
    assert made == {**recorded, **changing}
    network_id = made["id"]
    assert network_id == made["nwid"]
    assert network_id[:10] == own
    assert network_id[10:] != "000000"
    assert await bench.get("/controller/network") == [network_id]
    changed = (
        await bench.call("PUT", f"/controller/network/{network_id}", {"name": "x", "mtu": "1400"})
    ).content
    assert changed == {**made, "name": "x", "mtu": 1400, "revision": 2}
    assert await bench.get(f"/controller/network/{network_id.upper()}/") == changed
    assert await bench.get("/unstable/controller/network") == {
        "data": [changed],
        "meta": {"networkCount": 1},
    }
    assert (await bench.call("DELETE", f"/controller/network/{network_id}")).content == changed
    assert await bench.get("/controller/network") == []
    assert (await bench.call("GET", f"/controller/network/{network_id}")).status == 404
    assert bench.commits == 3


async def test_a_network_may_be_made_under_a_number_of_ones_own(bench: ApiBench) -> None:
    own = str(bench.node.identity)
    made = (await bench.call("POST", f"/controller/network/{own}abcdef", {"name": "x"})).content
    assert (made["id"], made["name"], made["revision"]) == (f"{own}abcdef", "x", 1)
    zero = (await bench.call("POST", f"/controller/network/{own}000000")).content
    assert zero["id"] == f"{own}000001"
    again = (await bench.call("POST", "/controller/network", {"private": "no"})).content
    assert again["private"] is False
    assert await bench.get("/controller/network") == sorted([made["id"], zero["id"], again["id"]])


async def test_members_are_listed_changed_and_deleted(bench: ApiBench) -> None:
    network_id = f"{bench.network():016x}"
    path = f"/controller/network/{network_id}/member"
    assert await bench.get(path) == {}
    made = (await bench.call("POST", f"{path}/0123456789", {"authorized": True})).content
    assert made["authorized"]
    assert made["lastAuthorizedCredentialType"] == "api"
    assert made["nwid"] == network_id
    other = (await bench.call("POST", f"{path}/aabbccddee", {})).content
    assert await bench.get(path) == {"0123456789": made["revision"], "aabbccddee": 1}
    assert await bench.get(f"{path}/AABBCCDDEE") == other
    assert await bench.get(f"/unstable{path}") == {
        "data": [made, other],
        "meta": {"totalCount": 2, "authorizedCount": 1},
    }
    assert (await bench.call("DELETE", f"{path}/0123456789")).content == made
    assert (await bench.call("DELETE", f"{path}/0123456789")).status == 404
    assert (await bench.call("GET", f"{path}/0123456789")).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/controllers"),
        ("GET", "/controller/network/{own}00000"),
        ("GET", "/controller/network/{own}abcdef"),
        ("GET", "/controller/network/{own}abcdef/member"),
        ("POST", "/controller/network/{own}abcdef/member/0123456789"),
        ("GET", "/controller/network/{network}/member/0123456789/more"),
        ("GET", "/controller/network/{network}/members"),
        ("DELETE", "/controller/network/{own}abcdef"),
        ("GET", "/unstable/controller/network/{own}abcdef/member"),
        ("GET", "/unstable/controller"),
        ("GET", "/controller/network/xxxxxxxxxxxxxxxx"),
    ],
)
async def test_what_is_not_there_is_404(bench: ApiBench, method: str, path: str) -> None:
    known = f"{bench.network():016x}"
    path = path.format(own=str(bench.node.identity), network=known)
    assert (await bench.call(method, path)).status == 404
    assert await bench.get("/controller/network") == [known]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/controller"),
        ("DELETE", "/controller/network"),
        ("PATCH", "/controller/network/{network}"),
        ("POST", "/controller/network/{network}/member"),
        ("HEAD", "/controller/network/{network}/member/0123456789"),
        ("POST", "/status"),
        ("DELETE", "/unstable/controller/network"),
        ("GET", "/controller/network/{own}______"),
    ],
)
async def test_what_cannot_be_done_is_405(bench: ApiBench, method: str, path: str) -> None:
    network = f"{bench.network():016x}"
    path = path.format(own=str(bench.node.identity), network=network)
    assert (await bench.call(method, path)).status == 405


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "needs an object"),
        (b'{"mtu": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"mtu": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"name": "\\ud800"}', "half a character"),
        (b'{"rules": [{"type": "ACTION_ACCEPT"}, {"type": "MATCH_WIND"}]}', "rule 1: .*MATCH_WIND"),
        (b'{"rules": [{"type": "MATCH_ETHERTYPE"}]}', "rule 0: .*etherType"),
        (b'{"multicastLimit": "many"}', "multicastLimit: needs a whole number"),
    ],
)
async def test_a_bad_body_is_400_and_changes_nothing(
    bench: ApiBench, body: bytes, why: str
) -> None:
    path = f"/controller/network/{bench.network(name='before'):016x}"
    before = await bench.get(path)
    answer = await bench.api.respond(Request("POST", path, {}, {}, body))
    assert answer.status == 400
    assert re.search(why, answer.content["message"])
    assert await bench.get(path) == before
    assert bench.commits == 0


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/controller/network/0123456789______", "this controller is"),
        ("/controller/network/0123456789abcdef", "another controller"),
        ("/controller/network/{network}/member/ff00000000", "no node can have"),
        ("/controller/network/{network}/member/0000000000", "no node can have"),
    ],
)
async def test_impossible_names_are_400(bench: ApiBench, path: str, why: str) -> None:
    answer = await bench.call("POST", path.format(network=f"{bench.network():016x}"), {})
    assert answer.status == 400
    assert why in answer.content["message"]


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"x-zt1-auth": TOKEN}, {}, None),
        ({}, {"auth": TOKEN}, None),
        ({"host": "localhost:9993"}, {"auth": TOKEN}, None),
        ({"host": "127.0.0.1"}, {"auth": TOKEN}, None),
        ({"host": "[::1]:80"}, {"auth": TOKEN}, None),
        ({"host": "Controller.Example:1"}, {"auth": TOKEN}, None),
        ({}, {}, 401),
        ({"x-zt1-auth": TOKEN[:-1]}, {}, 401),
        ({"x-zt1-auth": ""}, {"auth": TOKEN}, 401),
        ({"x-zt1-auth": "ÿ"}, {}, 401),
        ({}, {"auth": "\udcff"}, 401),
        ({"host": "evil.example"}, {"auth": TOKEN}, 403),
        ({"host": "localhost.evil.example:9993"}, {"auth": TOKEN}, 403),
        ({"host": "1:2:3"}, {"auth": TOKEN}, 403),
        ({"host": ""}, {"auth": TOKEN}, 403),
    ],
)
def test_only_those_who_know_the_token_and_our_name_come_in(
    bench: ApiBench, headers: dict[str, str], query: dict[str, str], status: int | None
) -> None:
    answer = bench.api.admit(Request("GET", "/controller", query, headers))
    assert (None if answer is None else answer.status) == status
