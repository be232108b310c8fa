"""Fixtures for pytest, and what the lab saw added to the report of a test that fails.

pytest finds this through the ``pytest11`` entry point.  The tests themselves need ``pytest-trio``,
and for virtual time they ask for its ``autojump_clock`` as well:

    async def test_it_survives_loss(lab, autojump_clock):
        lab.set_link(...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .lab import Lab

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from zttrio.network import Network

__all__ = ["lab", "network"]

_LAB = pytest.StashKey[Lab]()


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Generator[Lab, None, None]:
    """A `zttrio.testing.Lab` whose seed is the test's name, open for the whole test.

    So a test meets the same losses every time, and two tests meet different ones.
    """
    with Lab(seed=request.node.name) as lab:
        request.node.stash[_LAB] = lab
        yield lab


@pytest.fixture
async def network(lab: Lab) -> AsyncGenerator[Network, None]:
    """An open `zttrio.Network` in the `lab`, called ``network``."""
    async with lab.network("network") as network:
        yield network


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the seed, the hosts and the last frames below a failure."""
    report = yield
    lab = item.stash.get(_LAB, None)
    if lab is not None and report.failed:
        report.sections.append(("zttrio lab", lab.report()))
    return report
