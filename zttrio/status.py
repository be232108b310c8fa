"""What a Network is doing right now, as frozen rows that print readably."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["ConnectionStatus", "SocketStatus", "Status"]


@attrs.frozen
class ConnectionStatus:
    """One TCP connection.

    Attributes:
        state: as RFC 9293 spells it.
        local: ``address:port``.
        remote: ``address:port``.
        send_queue: octets not yet acknowledged by the peer.
        receive_queue: octets that the program has not read.
    """

    state: str
    local: str
    remote: str
    send_queue: int
    receive_queue: int

    def __str__(self) -> str:
        return (
            f"tcp {self.state:<12} {self.local} -> {self.remote}"
            f"  send-q {self.send_queue}  receive-q {self.receive_queue}"
        )


@attrs.frozen
class SocketStatus:
    """A listener or a UDP endpoint.

    Attributes:
        protocol: ``tcp`` (a listener) or ``udp``.
        local: ``address:port``; the address is ``*`` for the wildcard.
        queue: connections to accept, or octets of datagrams to receive.
    """

    protocol: str
    local: str
    queue: int

    def __str__(self) -> str:
        word = "listening" if self.protocol == "tcp" else "bound"
        return f"{self.protocol} {word:<12} {self.local}  queue {self.queue}"


@attrs.frozen
class Status:
    """A snapshot; nothing in it changes afterwards.

    Attributes:
        name: the Network's name on its wire, or None.
        wire: what the wire calls itself.
        mac: hardware address as text.
        mtu: octets of the largest IP packet.
        addresses: ``address/prefix``, in the order they were added.
        connections: every TCP connection in any state.
        sockets: listeners and UDP endpoints.
        ports: ports taken, ``protocol/port``.
        tasks: tasks the Network runs for itself.
        neighbors: address to hardware address (or its state), as text.
        counters: stack, driver and wire, by reason; zeros left out.
        identity: what the wire's network knows us by, ten hex digits of a ZeroTier node, or None.
        failure: why the wire's network does not let us in, or nothing.
        peers: the wire's own neighbors and how they are reached, a line each.
    """

    name: str | None
    wire: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    connections: tuple[ConnectionStatus, ...]
    sockets: tuple[SocketStatus, ...]
    ports: tuple[str, ...]
    tasks: int
    neighbors: dict[str, str]
    counters: dict[str, int]
    identity: str | None = None
    failure: str = ""
    peers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as plain types, for JSON; ``schema`` is 1."""
        return {"schema": 1, **attrs.asdict(self)}

    def __str__(self) -> str:
        lines = [
            f"{self.name or 'network'} on {self.wire}  {self.mac}  mtu {self.mtu}",
            f"addresses  {' '.join(self.addresses) or 'none yet'}",
        ]
        if self.identity is not None:
            lines.append(f"node {self.identity}")
        if self.failure:
            lines.append(f"refused: {self.failure}")
        lines += [f"peer {peer}" for peer in self.peers]
        lines += map(str, self.sockets)
        lines += map(str, self.connections)
        lines += [f"neighbor {ip} {mac}" for ip, mac in self.neighbors.items()]
        lines += [f"{count:>12} {reason}" for reason, count in self.counters.items()]
        return "\n".join(lines)
