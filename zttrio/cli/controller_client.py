"""``zttrio controller COMMAND``: tell a running controller what to do, by its HTTP interface."""

from __future__ import annotations

import http.client
import json
import sys
from typing import TYPE_CHECKING, Any

from zttrio.controller.service import PORT_FILE
from zttrio.controller.token import read_token
from zttrio.errors import LocalError
from zttrio.zerotier.network.rule_language import compile_text

from .main import EXIT_OK

if TYPE_CHECKING:
    import argparse
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

__all__ = [
    "authorize_members",
    "create_network",
    "deauthorize_members",
    "delete_members",
    "delete_network",
    "list_members",
    "list_networks",
    "set_member",
    "set_network",
    "set_rules",
    "show_member",
    "show_network",
]

_PATIENCE = 30.0  # seconds; arbitrary, more than any disk needs
_TEXTS = frozenset(("name", "rulesSource", "clientId", "authorizationEndpoint"))


def create_network(namespace: argparse.Namespace) -> int:
    """Make a network, with addresses for its members if there is a subnet."""
    subnets: list[IPv4Network | IPv6Network] = namespace.subnets
    versions = {subnet.version for subnet in subnets}
    fields = {
        "name": namespace.name,
        "private": not namespace.public,
        "routes": [{"target": str(subnet), "via": None} for subnet in subnets],
        "ipAssignmentPools": [_pool(subnet) for subnet in subnets],
        "v4AssignMode": {"zt": 4 in versions},
        "v6AssignMode": {
            "zt": 6 in versions,
            "6plane": namespace.sixplane,
            "rfc4193": namespace.rfc4193,
        },
    }
    print(_call(namespace, "POST", "/controller/network", fields)["id"])
    return EXIT_OK


def list_networks(namespace: argparse.Namespace) -> int:
    """One line for each network: ID, members and those who may be members, name."""
    networks = _call(namespace, "GET", "/unstable/controller/network")["data"]
    if namespace.json:
        _print_json(networks)
        return EXIT_OK
    for network in networks:
        path = f"/unstable/controller/network/{network['id']}/member"
        counts = _call(namespace, "GET", path)["meta"]
        kind = "private" if network["private"] else "public"
        members = f"{counts['authorizedCount']}/{counts['totalCount']} members"
        print(network["id"], kind, members, network["name"])
    return EXIT_OK


def show_network(namespace: argparse.Namespace) -> int:
    """Print a network's record."""
    _print_json(_call(namespace, "GET", _network(namespace)))
    return EXIT_OK


def delete_network(namespace: argparse.Namespace) -> int:
    """Delete a network."""
    _call(namespace, "DELETE", _network(namespace))
    print(f"network {namespace.network} deleted")
    return EXIT_OK


def set_network(namespace: argparse.Namespace) -> int:
    """Change fields of a network, and print what they are now."""
    _call(namespace, "GET", _network(namespace))  # a POST would make one that is not there
    _set(namespace, _network(namespace))
    return EXIT_OK


def set_rules(namespace: argparse.Namespace) -> int:
    """Compile a text in the rules language, and make a network use it.

    Raises:
        LocalError: the file cannot be read, or the text is wrong: where, and why.
    """
    source = _read(namespace.file)
    try:
        fields: dict[str, Any] = compile_text(source).as_json()
    except ValueError as exc:
        raise LocalError(f"rules {namespace.file}: {exc}") from exc
    if namespace.check:
        _print_json(fields)
        return EXIT_OK
    _call(namespace, "GET", _network(namespace))
    _call(namespace, "POST", _network(namespace), {**fields, "rulesSource": source})
    counts = ", ".join(f"{len(fields[name])} {name}" for name in ("rules", "capabilities", "tags"))
    print(f"network {namespace.network}: {counts}")
    return EXIT_OK


def list_members(namespace: argparse.Namespace) -> int:
    """One line for each member: address, whether it is let in, IP addresses, name."""
    path = f"/unstable{_network(namespace)}/member"
    members = _call(namespace, "GET", path)["data"]
    if namespace.json:
        _print_json(members)
        return EXIT_OK
    for member in members:
        words = [member["id"], "authorized" if member["authorized"] else "asks"]
        words += member["ipAssignments"]
        if member.get("name"):
            words.append(f'"{member["name"]}"')
        print(*words)
    return EXIT_OK


def show_member(namespace: argparse.Namespace) -> int:
    """Print a member's record."""
    _print_json(_call(namespace, "GET", _member(namespace, namespace.member)))
    return EXIT_OK


def set_member(namespace: argparse.Namespace) -> int:
    """Change fields of a member, and print what they are now."""
    _set(namespace, _member(namespace, namespace.member))
    return EXIT_OK


def authorize_members(namespace: argparse.Namespace) -> int:
    """Let nodes in, also those that have not asked yet."""
    for member in namespace.members:
        _call(namespace, "POST", _member(namespace, member), {"authorized": True})
        print(f"node {member} may be on network {namespace.network}")
    return EXIT_OK


def deauthorize_members(namespace: argparse.Namespace) -> int:
    """Shut members out."""
    for member in namespace.members:
        _call(namespace, "GET", _member(namespace, member))
        _call(namespace, "POST", _member(namespace, member), {"authorized": False})
        print(f"node {member} may not be on network {namespace.network} any longer")
    return EXIT_OK


def delete_members(namespace: argparse.Namespace) -> int:
    """Forget members."""
    for member in namespace.members:
        _call(namespace, "DELETE", _member(namespace, member))
        print(f"node {member} of network {namespace.network} forgotten")
    return EXIT_OK


def _network(namespace: argparse.Namespace) -> str:
    return f"/controller/network/{namespace.network}"


def _member(namespace: argparse.Namespace, member: str) -> str:
    return f"{_network(namespace)}/member/{member}"


def _pool(subnet: IPv4Network | IPv6Network) -> dict[str, str]:
    """All host addresses; a controller never gives out the last one of a pool."""
    first, last = subnet.network_address, subnet.broadcast_address
    if subnet.num_addresses > 2:
        first += 1
    return {"ipRangeStart": str(first), "ipRangeEnd": str(last)}


def _set(namespace: argparse.Namespace, path: str) -> None:
    changes = {name: _value(name, text) for name, text in namespace.fields}
    record = _call(namespace, "POST", path, changes)
    unknown = [name for name in changes if name not in record]
    if unknown:  # the interface ignores what it does not know, as the reference's does
        raise LocalError(f"{', '.join(unknown)}: no field of such a record")
    _print_json({name: record[name] for name in changes})


def _value(name: str, text: str) -> Any:
    """A value as somebody types it."""
    if name in _TEXTS:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except OSError as exc:
        raise LocalError(f"rules {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise LocalError(f"rules {path}: it is not UTF-8 text") from exc


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _call(namespace: argparse.Namespace, method: str, path: str, body: Any = None) -> Any:
    """Ask the controller that runs in the home.

    Raises:
        LocalError: there is no home, nobody answers, or the answer is not the one that we want.
        StoreError: the token cannot be read.
    """
    if namespace.home is None:
        raise LocalError("home: needed, with --home or ZTTRIO_HOME")
    token = read_token(namespace.home)
    try:
        port = int((namespace.home / PORT_FILE).read_text())
        connection = http.client.HTTPConnection(namespace.api_host, port, timeout=_PATIENCE)
    except (OSError, ValueError) as exc:
        raise LocalError(f"controller in {namespace.home}: it has never run: {exc}") from exc
    try:
        sent = None if body is None else json.dumps(body)
        headers = {"X-ZT1-Auth": token, "Content-Type": "application/json"}
        connection.request(method, path, sent, headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise LocalError(
            f"controller in {namespace.home}: nobody answers at {namespace.api_host} port {port}: "
            f"{exc}"
        ) from exc
    finally:
        connection.close()
    if answer.status != http.client.OK:
        unexplained = f"{method} {path}: {answer.status} {answer.reason}"
        raise LocalError(content.get("message") or unexplained)
    return content
