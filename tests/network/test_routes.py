"""Routes that a program adds to its Network."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from zttrio.testing import Lab

from .conftest import QUICK

if TYPE_CHECKING:
    import trio.testing

PREFIXES = {"ipv4": ("192.0.2.1/24", "0.0.0.0/0"), "ipv6": ("2001:db8::1/64", "::/0")}


@pytest.mark.parametrize("name", PREFIXES)
async def test_a_route_leads_out_of_our_own_prefix_and_back_in(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    far, everything = PREFIXES[name]
    target = far.partition("/")[0]
    ours = "10.0.0.1/24" if name == "ipv4" else "fd00::1/64"
    lab = Lab(seed=1)
    async with (
        lab.network("near", addresses=[ours], config=QUICK) as near,
        lab.network("far", addresses=[far], config=QUICK) as other,
    ):
        with pytest.raises(OSError, match="no route") as caught:
            await near.ping(target)
        assert caught.value.errno == errno.ENETUNREACH
        near.add_route(far.replace("1/", "0/") if name == "ipv4" else "2001:db8::/64")
        other.add_route(everything)
        assert await near.ping(target) == 0
        near.remove_route(far.replace("1/", "0/") if name == "ipv4" else "2001:db8::/64")
        with pytest.raises(OSError, match="no route"):
            await near.ping(target)
        with pytest.raises(KeyError):
            near.remove_route("198.51.100.0/24")
        with pytest.raises(ValueError, match="famil"):
            near.add_route("10.2.0.0/16", "fe80::1")
