"""Which network a socket belongs to: the factory and resolver behind `Network.as_default`.

Trio keeps one socket factory and one resolver for a whole run.  The dispatcher takes that place
while any Network is open, and asks a context variable for the Network of the calling task; tasks
inherit it from whoever starts them.  Outside every `as_default` block it hands the call to whatever
was there before, so the rest of the program keeps its kernel sockets.
"""

from __future__ import annotations

import socket as kernel
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Dispatcher", "dispatching", "use_network"]

_current: ContextVar[trio.abc.SocketFactory | None] = ContextVar("zttrio_network", default=None)
_installed: trio.lowlevel.RunVar[Dispatcher | None] = trio.lowlevel.RunVar("zttrio_dispatcher")
_FAMILIES = (kernel.AF_INET, kernel.AF_INET6)


class Dispatcher(trio.abc.SocketFactory, trio.abc.HostnameResolver):
    """Hands each call to the Network of the calling task, or to what was there before.

    Attributes:
        users: open Networks that need the dispatcher in place.
    """

    def __init__(self) -> None:
        self.users = 0
        self._factory: trio.abc.SocketFactory | None = None
        self._resolver: trio.abc.HostnameResolver | None = None

    def install(self) -> None:
        """Take the place of trio's socket factory and resolver, remembering both."""
        self._factory = trio.socket.set_custom_socket_factory(self)
        self._resolver = trio.socket.set_custom_hostname_resolver(self)

    def uninstall(self) -> None:
        """Put back what was there, unless somebody has taken our place since."""
        ours = trio.socket.set_custom_socket_factory(self._factory)
        if ours is not self:
            trio.socket.set_custom_socket_factory(ours)
        resolver = trio.socket.set_custom_hostname_resolver(self._resolver)
        if resolver is not self:
            trio.socket.set_custom_hostname_resolver(resolver)

    def socket(
        self,
        family: int = kernel.AF_INET,
        type: int = kernel.SOCK_STREAM,  # noqa: A002 - the name trio's interface gives it
        proto: int = 0,
    ) -> trio.socket.SocketType:
        """A socket on the calling task's Network, or what the program would have got without us."""
        network = _current.get()
        if network is not None and family in _FAMILIES:
            return network.socket(family, type, proto)
        if self._factory is not None:
            return self._factory.socket(family, type, proto)
        return trio.socket.from_stdlib_socket(kernel.socket(family, type, proto))

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name trio's interface gives it
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Resolve on the calling task's Network, or as the program would have without us."""
        resolver = _current.get() or self._resolver
        if isinstance(resolver, trio.abc.HostnameResolver):
            return await resolver.getaddrinfo(host, port, family, type, proto, flags)
        return await trio.to_thread.run_sync(
            kernel.getaddrinfo, host, port, family, type, proto, flags, abandon_on_cancel=True
        )

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Resolve on the calling task's Network, or as the program would have without us."""
        resolver = _current.get() or self._resolver
        if isinstance(resolver, trio.abc.HostnameResolver):
            return await resolver.getnameinfo(sockaddr, flags)
        return await trio.to_thread.run_sync(
            kernel.getnameinfo, sockaddr, flags, abandon_on_cancel=True
        )


@contextmanager
def dispatching() -> Iterator[None]:
    """Keep the dispatcher in place for one Network's lifetime."""
    dispatcher = _installed.get(None)
    if dispatcher is None:
        dispatcher = Dispatcher()
        _installed.set(dispatcher)
        dispatcher.install()
    dispatcher.users += 1
    try:
        yield
    finally:
        dispatcher.users -= 1
        if not dispatcher.users:
            dispatcher.uninstall()
            _installed.set(None)


@contextmanager
def use_network(network: trio.abc.SocketFactory | None) -> Iterator[None]:
    """Make *network* the one for this task, and for tasks started inside the block.

    None stands for what was there before any Network: the kernel's sockets.
    """
    token = _current.set(network)
    try:
        yield
    finally:
        _current.reset(token)
