"""Literals, names, wildcards, mapped addresses and scopes do what they do on Linux."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zttrio.header.address import INTERFACE_INDEX
from zttrio.testing import Lab

from . import dual_stack_program as program

if TYPE_CHECKING:
    import trio.testing

RECORD = Path(__file__).with_name("dual_stack.txt")
"""What Linux 6.18 says; tests/kernel/test_same_as_kernel.py asks the kernel that is here."""


async def test_sockets_say_what_the_kernel_s_say(autojump_clock: trio.testing.MockClock) -> None:
    said: list[str] = []
    lab = Lab(seed=1)
    own = [f"{program.V4}/24", f"{program.V6}/64", f"{program.LINK_LOCAL}/64"]
    peer, six = (
        [f"{address}/{64 if ':' in address else 24}" for address in program.PEER[name]]
        for name in ("peer", "six")
    )
    async with (
        lab.network("box", addresses=own) as box,
        lab.network("peer", addresses=peer),
        lab.network("six", addresses=six),
    ):
        with box.as_default():
            await program.run(said.append, INTERFACE_INDEX)
    assert said == RECORD.read_text().splitlines()
