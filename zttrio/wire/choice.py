"""Which wire a Network is on, from what its user says and from the environment."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from zttrio.errors import LocalError

from .host import HostSegment

if TYPE_CHECKING:
    from zttrio.abc import Wire

__all__ = ["choose_wire"]


def choose_wire(
    network_id: str | None,
    wire: Wire | None,
    home: str | os.PathLike[str] | None,
    planet: str | os.PathLike[str] | None,
    token: str | None,
) -> Wire:
    """The wire that the arguments of `zttrio.Network` name.

    Raises:
        ValueError: they contradict each other, or the network ID does not parse.
        TypeError: the network ID is no text.
        LocalError: a package of the ``zerotier`` extra is missing.
    """
    if network_id is not None and not isinstance(network_id, str):
        raise TypeError(
            f"network: an ID is text, not {network_id!r}; a wire is given as Network(wire=...)"
        )
    if wire is not None:
        if not (network_id is home is planet is token is None):
            raise ValueError("network: takes a wire, or what names a ZeroTier network, not both")
        return wire
    if network_id is None:
        network_id = os.environ.get("ZTTRIO_NETWORK") or None
    if network_id is None:
        if not (home is planet is token is None):
            raise ValueError("network: home, planet and token need a network ID")
        return HostSegment()
    try:
        zerotier = import_module("zttrio.wire.zerotier")
    except ModuleNotFoundError as exc:
        missing = (exc.name or "zttrio").partition(".")[0]
        if missing == "zttrio":
            raise
        text = f"network {network_id}: {missing} is not installed: pip install 'zttrio[zerotier]'"
        raise LocalError(text) from exc
    if home is None:
        home = os.environ.get("ZTTRIO_HOME") or None
    made: Wire = zerotier.ZeroTier(network_id, home=home, planet=planet, token=token)
    return made
