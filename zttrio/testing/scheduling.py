"""Makes trio pick the next task the same way every time, while somebody wants it.

Trio shuffles its runnable tasks, so that nobody relies on their order.  It has a flag and a
generator for tests that must repeat themselves.  They are internal: Hypothesis and pytest-trio set
them too, and a future trio may do without, which is said in a warning and nothing else.
"""

from __future__ import annotations

import warnings
from random import Random
from typing import Any

import trio

__all__ = ["SCHEDULING", "Scheduling"]

_FLAG = "_ALLOW_DETERMINISTIC_SCHEDULING"
_GENERATOR = "_r"


class Scheduling:
    """Trio's choice of the next task; there is one in a process, because trio's generator is."""

    def __init__(self) -> None:
        self._users = 0
        self._before: tuple[bool, Any] | None = None

    def seed(self, seed: str) -> None:
        """Let *seed* decide from now on, unless somebody else's does already."""
        self._users += 1
        if self._users > 1:
            return
        module = trio._core._run
        flag, generator = getattr(module, _FLAG, None), getattr(module, _GENERATOR, None)
        if not isinstance(flag, bool) or not isinstance(generator, Random):
            warnings.warn(
                f"trio {trio.__version__} schedules in its own way: runs of a lab may differ",
                RuntimeWarning,
                stacklevel=4,
            )
            return
        self._before = flag, generator.getstate()
        setattr(module, _FLAG, True)
        generator.seed(seed)

    def release(self) -> None:
        """Let trio choose as before, when nobody wants it otherwise any more."""
        self._users -= 1
        if self._users == 0 and self._before is not None:
            flag, state = self._before
            self._before = None
            module = trio._core._run
            setattr(module, _FLAG, flag)
            getattr(module, _GENERATOR).setstate(state)


SCHEDULING = Scheduling()
