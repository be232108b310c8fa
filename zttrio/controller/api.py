"""The local HTTP interface of a controller, in the shape that tools for it use (VL2 spec, 16.8).

It differs from the reference where that would do harm: rules that are not understood are refused
with 400 instead of being left out, and so is everything else that cannot be stored as it is.
"""

from __future__ import annotations

import hmac
import json
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from zttrio.zerotier.constants import is_reserved
from zttrio.zerotier.controller import RecordError, RecordMissing

from .http import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from zttrio.zerotier.controller import Controller

    from .http import Request

__all__ = ["Api"]

_API_VERSION = 4  # the reference's
_CHANGE = ("POST", "PUT")
_MISSING = Answer(404, {})
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d+)?")
_PATH = re.compile(
    r"/controller"
    r"(?P<networks>/network(?:/(?:(?P<own>[0-9a-f]{10})______|(?P<network>[0-9a-f]{16})"
    r"(?P<members>/member(?:/(?P<member>[0-9a-f]{10}))?)?))?)?"
)
_LISTS = re.compile(r"/unstable/controller/network(?:/(?P<network>[0-9a-f]{16})/member)?")


class Api:
    """Turns requests into changes of a controller, and answers when they are on disk.

    Args:
        controller: whose networks these are.
        address: of its node, 5 octets.
        token: the secret that every request has to know.
        commit: returns when every change so far is on disk.
        clock: seconds, the controller's ``now``.
        status: what ``GET /status`` says.
        hosts: names, besides ``localhost``, that a request may call us by.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        address: bytes,
        token: str,
        commit: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        status: Callable[[], dict[str, Any]],
        hosts: Iterable[str] = (),
    ) -> None:
        self._controller = controller
        self._address = address
        self._token = token.encode()
        self._commit = commit
        self._clock = clock
        self._status = status
        self._hosts = {"localhost", *hosts}

    def admit(self, request: Request) -> Answer | None:
        """What a request gets that may not even send its body; None if it may."""
        host = request.headers.get("host")
        if host is not None and not self._is_ours(host):
            # A page of a browser on this machine, whose name was made to point here.
            return Answer(403, {"message": f"host {host[:100]!r}: not one of ours"})
        given = request.headers.get("x-zt1-auth", request.query.get("auth", ""))
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token):
            return Answer(401, {})
        return None

    async def respond(self, request: Request) -> Answer:
        """Carry out a request that was admitted.

        Cancelling it loses the answer; whether the change is made is not known then.
        """
        try:
            answer = self._route(request)
        except RecordMissing as exc:
            return Answer(404, {"message": str(exc)})
        except RecordError as exc:
            return Answer(400, {"message": str(exc)})
        if request.method != "GET":
            await self._commit()
        return answer

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower()
        if name in self._hosts:
            return True
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True  # nobody can make an address point elsewhere

    def _route(self, request: Request) -> Answer:
        path = request.path.rstrip("/").lower()
        if path == "/status":
            return self._only_get(request, self._status)
        match = _LISTS.fullmatch(path)
        if match is not None:
            listed = match["network"]
            return self._only_get(request, lambda: self._whole_list(listed))
        match = _PATH.fullmatch(path)
        if match is None:
            return _MISSING
        if match["member"] is not None:
            return self._member(request, int(match["network"], 16), bytes.fromhex(match["member"]))
        if match["members"] is not None:
            network_id = int(match["network"], 16)
            return self._only_get(request, lambda: self._members(network_id))
        if match["network"] is not None:
            return self._network(request, int(match["network"], 16))
        if match["networks"] is not None:
            return self._networks(request, match["own"])
        return self._only_get(request, self._about)

    def _only_get(self, request: Request, content: Callable[[], Any]) -> Answer:
        return Answer(200, content()) if request.method == "GET" else _not_allowed(request)

    def _about(self) -> dict[str, Any]:
        return {
            "controller": True,
            "apiVersion": _API_VERSION,
            "clock": self._controller.clock(self._clock()),
            "databaseReady": True,
        }

    def _networks(self, request: Request, own: str | None) -> Answer:
        controller = self._controller
        if request.method == "GET" and own is None:
            return Answer(200, [f"{network_id:016x}" for network_id in controller.networks()])
        if request.method not in _CHANGE:
            return _not_allowed(request)
        if own is not None and own != self._address.hex():
            raise RecordError(f"network {own}______: this controller is {self._address.hex()}")
        record = controller.create_network(_body(request), self._clock())
        return Answer(200, dict(record.fields))

    def _network(self, request: Request, network_id: int) -> Answer:
        controller = self._controller
        if request.method == "GET":
            record = controller.network(network_id)
        elif request.method in _CHANGE:
            record = controller.change_network(network_id, _body(request), self._clock())
        elif request.method == "DELETE":
            record = controller.delete_network(network_id, self._clock())
        else:
            return _not_allowed(request)
        return Answer(200, dict(record.fields))

    def _members(self, network_id: int) -> dict[str, int]:
        return {m.address.hex(): m.revision for m in self._controller.members(network_id)}

    def _member(self, request: Request, network_id: int, address: bytes) -> Answer:
        controller = self._controller
        if request.method == "GET":
            record = controller.member(network_id, address)
        elif request.method in _CHANGE:
            if is_reserved(address):
                raise RecordError(f"member {address.hex()}: no node can have this address")
            record = controller.change_member(network_id, address, _body(request), self._clock())
        elif request.method == "DELETE":
            record = controller.delete_member(network_id, address, self._clock())
        else:
            return _not_allowed(request)
        return Answer(200, dict(record.fields))

    def _whole_list(self, network: str | None) -> dict[str, Any]:
        controller = self._controller
        if network is None:
            networks = [dict(controller.network(n).fields) for n in controller.networks()]
            return {"data": networks, "meta": {"networkCount": len(networks)}}
        members = controller.members(int(network, 16))
        return {
            "data": [dict(member.fields) for member in members],
            "meta": {
                "totalCount": len(members),
                "authorizedCount": sum(member.is_authorized for member in members),
            },
        }


def _body(request: Request) -> dict[str, Any]:
    """The JSON object in a request; none is an empty one.

    Raises:
        RecordError: it holds something else.
    """
    if not request.body.strip():
        return {}
    try:
        found = json.loads(request.body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise RecordError(f"body: it is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise RecordError("body: needs an object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _not_allowed(request: Request) -> Answer:
    return Answer(405, {"message": f"{request.path} cannot {request.method[:20]}"})
