"""Who holds which port, for any number of transports and both address families.

A binding's address is packed (its length is its family), or None for the wildcard of both families
at once; ``0.0.0.0`` and ``::`` packed are the wildcards of one family.  The rules of sharing are
Linux's, because programs are written against them.
"""

from __future__ import annotations

import errno
import hashlib
from typing import TYPE_CHECKING

import attrs

from zttrio.header.address import IPV4_UNSPECIFIED, IPV6_UNSPECIFIED, ip_text
from zttrio.header.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

__all__ = ["Binding", "Ports"]

_NAMES = {PROTOCOL_TCP: "tcp", PROTOCOL_UDP: "udp"}
_WILDCARDS = (IPV4_UNSPECIFIED, IPV6_UNSPECIFIED)
_TABLE_SIZE = 256  # RFC 6056 3.3.4 TABLE_LENGTH: counters, so that ports do not tell of each other


def _never(port: int) -> bool:
    del port
    return False


@attrs.define(eq=False)
class Binding:
    """One holder of one port; give it back with `release`.

    Attributes:
        protocol: a protocol number.
        address: packed, or None for the wildcard of both families.
        port: 1 to 65535.
        owner_text: who holds it, for the message that others get.
        is_listening: a TCP listener uses it; reuse_address does not help others then.
        is_connected: it belongs to one connection, whose maker sees to it that no two have the
            same four-tuple; such bindings share ports with each other and with nobody else.
    """

    protocol: int
    address: bytes | None
    port: int
    reuse_address: bool
    reuse_port: bool
    owner_text: str
    is_connected: bool
    _ports: Ports
    is_listening: bool = False
    is_released: bool = False

    def release(self) -> None:
        """Give the port back; once is enough, more does no harm."""
        if not self.is_released:
            self.is_released = True
            self._ports._remove(self)

    def share(self) -> Binding:
        """Another holder of the same port: a connection that a listener has accepted.

        The port stays taken until both are released.
        """
        return self._ports._share(self)

    def start_listening(self) -> None:
        """Turn this into a listener's binding.

        Raises:
            OSError: EADDRINUSE, somebody else listens here (reuse_address had allowed both to
                bind, as Linux does).
        """
        self._ports._check_listening(self)
        self.is_listening = True

    def __str__(self) -> str:
        address = "*" if self.address is None else ip_text(self.address)
        if len(self.address or b"") == 16:
            address = f"[{address}]"
        return f"{_NAMES.get(self.protocol, self.protocol)} {address}:{self.port}"


class Ports:
    """The ports that are taken, and the choice of ephemeral ones.

    Args:
        rng: the source of the secret that makes ephemeral ports hard to guess (RFC 6056).
        ephemeral: first and last ephemeral port.
    """

    def __init__(self, rng: random.Random, ephemeral: tuple[int, int] = (32768, 60999)) -> None:
        # By protocol and port; a listener shares its port with every connection it has accepted,
        # of which there may be thousands, so these are ordered sets.
        self._taken: dict[tuple[int, int], dict[Binding, None]] = {}
        self._first, self._last = ephemeral
        self._key = rng.randbytes(16)
        self._counters = [rng.randrange(1 << 16) for _ in range(_TABLE_SIZE)]

    def bind(
        self,
        protocol: int,
        address: bytes | None,
        port: int,
        *,
        reuse_address: bool = False,
        reuse_port: bool = False,
        owner_text: str = "another socket",
    ) -> Binding:
        """Take *port* at *address*; 0 takes a free ephemeral one.

        Args:
            protocol: a protocol number; each has ports of its own.
            address: packed, or None for the wildcard of both families.  Whether it is ours is the
                caller's question to `zttrio.stack.ip.Ip.may_bind`.
            port: 0 to 65535.
            reuse_address: share with others who said the same, except with a TCP listener.
            reuse_port: share with others who said the same.
            owner_text: who this is, for the message that others get.

        Raises:
            OSError: EADDRINUSE; the text names the holder.
            OverflowError: *port* is not a port.
        """
        if not 0 <= port <= 0xFFFF:
            raise OverflowError(f"port {port}: must be 0-65535")
        binding = Binding(
            protocol, address, port, reuse_address, reuse_port, owner_text, False, self
        )
        if port == 0:
            binding.port = self._ephemeral(binding, b"", _never)
        elif (holder := self._conflict(binding)) is not None:
            raise OSError(
                errno.EADDRINUSE,
                f"{binding}: taken by {holder.owner_text} at {holder}; port 0 gets a free one",
            )
        return self._add(binding)

    def connect(
        self,
        protocol: int,
        address: bytes,
        remote: bytes,
        is_taken: Callable[[int], bool],
        *,
        owner_text: str = "a connection",
    ) -> Binding:
        """Take an ephemeral port for one connection (RFC 6056 algorithm 4).

        Connections to different remotes may share a port, so there are 28 thousand of them for
        each remote and not for all together.

        Args:
            protocol: a protocol number.
            address: our own, packed.
            remote: packed address and port of the other end, in any form.
            is_taken: whether a connection to *remote* from this port exists already.
            owner_text: who this is, for the message that others get.

        Raises:
            OSError: EADDRINUSE, no ephemeral port is left.
        """
        binding = Binding(protocol, address, 0, False, False, owner_text, True, self)
        binding.port = self._ephemeral(binding, address + remote, is_taken)
        return self._add(binding)

    def __iter__(self) -> Iterator[Binding]:
        for bindings in self._taken.values():
            yield from bindings

    def __len__(self) -> int:
        """How many ports are taken, each counted once however many share it."""
        return len(self._taken)

    def _ephemeral(self, binding: Binding, flow: bytes, is_taken: Callable[[int], bool]) -> int:
        """RFC 6056 3.3.4: an offset from a keyed hash of the flow, and a counter from another."""
        digest = hashlib.blake2b(flow, digest_size=8, key=self._key).digest()
        offset = int.from_bytes(digest[:6], "big")
        slot = int.from_bytes(digest[6:], "big") % _TABLE_SIZE
        span = self._last - self._first + 1
        for _ in range(span):
            binding.port = self._first + (offset + self._counters[slot]) % span
            self._counters[slot] += 1
            if self._conflict(binding) is None and not is_taken(binding.port):
                return binding.port
        name = _NAMES.get(binding.protocol, str(binding.protocol))
        raise OSError(errno.EADDRINUSE, f"{name} port: all of {self._first}-{self._last} are taken")

    def _conflict(self, binding: Binding) -> Binding | None:
        """The holder that keeps *binding* from its port, if there is one."""
        for other in self._taken.get((binding.protocol, binding.port), ()):
            if not _overlap(binding.address, other.address):
                continue
            if binding.is_connected and other.is_connected:
                continue
            if binding.reuse_port and other.reuse_port:
                continue
            if binding.reuse_address and other.reuse_address and not other.is_listening:
                continue
            return other
        return None

    def _check_listening(self, binding: Binding) -> None:
        for other in self._taken[binding.protocol, binding.port]:
            if (
                other is not binding
                and other.is_listening
                and _overlap(binding.address, other.address)
                and not (binding.reuse_port and other.reuse_port)
            ):
                raise OSError(errno.EADDRINUSE, f"{binding}: {other.owner_text} listens at {other}")

    def _add(self, binding: Binding) -> Binding:
        self._taken.setdefault((binding.protocol, binding.port), {})[binding] = None
        return binding

    def _share(self, binding: Binding) -> Binding:
        return self._add(
            Binding(
                binding.protocol,
                binding.address,
                binding.port,
                binding.reuse_address,
                binding.reuse_port,
                binding.owner_text,
                binding.is_connected,
                self,
            )
        )

    def _remove(self, binding: Binding) -> None:
        key = (binding.protocol, binding.port)
        bindings = self._taken[key]
        del bindings[binding]
        if not bindings:
            del self._taken[key]


def _overlap(one: bytes | None, other: bytes | None) -> bool:
    if one is None or other is None or one == other:
        return True
    return len(one) == len(other) and (one in _WILDCARDS or other in _WILDCARDS)
