"""Hosts for unmodified programs; see `hosts` and `pairs`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from .hosts import Segment
from .pairs import PLACEMENTS, make_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .hosts import Host, Station
    from .pairs import Pair


# What programs do to each other at will, and the kernel counts; see tests/kernel/verdict.py.
RESETS = (
    *("TcpAttemptFails", "TcpEstabResets", "TcpOutRsts"),
    *("TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData"),
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Say for every test here that resets are no violation; everything else would be one."""
    function = getattr(item, "function", None)
    if function is not None:
        function.explained = RESETS


@pytest.fixture
async def segment(tmp_path: Path) -> AsyncIterator[Segment]:
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, for network namespaces")
    async with trio.open_nursery() as nursery:
        yield Segment(tmp_path, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def host(segment: Segment) -> Host:
    return await segment.host()


@pytest.fixture(params=PLACEMENTS)
async def pair(request: pytest.FixtureRequest, namespace: None, segment: Segment) -> Pair:
    """A server's host and a client's; the test imports `namespace`."""
    del namespace
    return await make_pair(request.param, segment)


@pytest.fixture
async def server(pair: Pair) -> Station:
    return pair.server


@pytest.fixture
async def client(pair: Pair) -> Station:
    return pair.client
