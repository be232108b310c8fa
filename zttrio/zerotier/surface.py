"""What others see of us: our own addresses as they appear on the far side of NATs (14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .endpoint import LOOPBACK, MULTICAST, NONE, scope_of

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Surface"]

_VALIDITY = 600.0
_LIMIT = 512  # reports kept; arbitrary, the oldest makes room


@attrs.define(eq=False)
class _Report:
    seen: Endpoint
    at: float
    is_root: bool


class Surface:
    """Reports of our address, by reporter, socket, the reporter's own address, and scope."""

    def __init__(self) -> None:
        self._reports: dict[tuple[bytes, int, Endpoint, int], _Report] = {}

    def __len__(self) -> int:
        return len(self._reports)

    def report(
        self,
        reporter: bytes,
        local: int,
        remote: Endpoint,
        seen: Endpoint,
        now: float,
        *,
        is_root: bool,
    ) -> int | None:
        """Take in that *reporter*, at *remote*, sees our socket *local* as *seen*.

        Returns:
            The scope in which our address has changed, if a root says so: everything that was
            known in it is forgotten then.  None otherwise.
        """
        scope = scope_of(seen.ip)
        if scope in (NONE, LOOPBACK, MULTICAST) or scope != scope_of(remote.ip):
            return None
        key = (reporter, local, remote, scope)
        before = self._reports.pop(key, None)
        changed = (
            is_root
            and before is not None
            and before.is_root
            and before.seen.ip != seen.ip
            and now - before.at < _VALIDITY
        )
        if changed:
            for other in [k for k in self._reports if k[3] == scope]:
                del self._reports[other]
        elif len(self._reports) >= _LIMIT:
            del self._reports[next(iter(self._reports))]
        self._reports[key] = _Report(seen, now, is_root)
        return scope if changed else None

    def addresses(self, now: float) -> list[Endpoint]:
        """Where others have seen us lately, without repetitions, the newest report first."""
        fresh = [report for report in self._reports.values() if now - report.at < _VALIDITY]
        return list(dict.fromkeys(report.seen for report in reversed(fresh)))

    def expire(self, now: float) -> None:
        """Forget old reports."""
        for key in [k for k, report in self._reports.items() if now - report.at >= _VALIDITY]:
            del self._reports[key]
