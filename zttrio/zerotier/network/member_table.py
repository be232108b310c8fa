"""The member records of one network, by node address and by MAC, and no more than fit."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from ..constants import is_reserved
from .derived import mac_of
from .member_record import MemberRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .network_counters import NetworkCounters

__all__ = ["MemberTable"]

_IDLE = 600.0  # arbitrary; a member that is silent for so long shows its credentials first again
_LOOKED_AT = 64  # arbitrary; records tried before a new one is refused


class MemberTable:
    """Who else there is.

    Args:
        network_id: which network.
        own: our address, which gets no record.
        limit: records at once; the one used longest ago makes room, if it protects nothing.
        counters: where evictions are counted.
    """

    def __init__(self, network_id: int, own: bytes, limit: int, counters: NetworkCounters) -> None:
        self.by_mac: dict[bytes, MemberRecord] = {}
        """For those who have a MAC of this network, first octet included."""
        self._network_id = network_id
        self._own = own
        self._limit = limit
        self._counters = counters
        self._records: dict[bytes, MemberRecord] = {}  # the one used longest ago comes first
        self._timestamp = self._window = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[MemberRecord]:
        return iter(list(self._records.values()))

    def get(self, address: bytes) -> MemberRecord | None:
        """The record of a member, if there is one."""
        return self._records.get(address)

    def obtain(self, address: bytes, now: float) -> MemberRecord | None:
        """The record of a member, made now if there is none.

        Returns:
            None if no node can have that address, or it is ours, or there is no room.
        """
        record = self.find(address, now)
        return record if record is not None and self.keep(record) else None

    def find(self, address: bytes, now: float) -> MemberRecord | None:
        """The record of a member, or a new one that has to be kept with `keep`.

        Returns:
            None if no node can have that address, or it is ours.
        """
        record = self._records.get(address)
        if record is not None:
            return record
        if address == self._own or is_reserved(address):
            return None
        return MemberRecord(address, mac_of(address, self._network_id), last_used=now)

    def keep(self, record: MemberRecord) -> bool:
        """Keep a record that `find` has made; False if there is no room."""
        if record.address not in self._records:
            if len(self._records) >= self._limit and not self._evict():
                return False
            self._records[record.address] = self.by_mac[record.mac] = record
        return True

    def touch(self, record: MemberRecord, now: float) -> None:
        """*record*, one of ours, is in use.  To be called now and then."""
        record.last_used = now
        del self._records[record.address]
        self._records[record.address] = record

    def set_window(self, timestamp: int, window: int) -> None:
        """Say what credentials count by (4.7), to know which records must stay."""
        self._timestamp = timestamp
        self._window = window

    def expire(self, now: float) -> None:
        """Forget who has not been used for long."""
        for record in self:
            if now - record.last_used < _IDLE:
                return
            if not record.protects(self._timestamp, self._window):
                self._drop(record)

    def _evict(self) -> bool:
        for record in islice(self._records.values(), _LOOKED_AT):
            if not record.protects(self._timestamp, self._window):
                break
        else:
            return False
        self._drop(record)
        self._counters.records_evicted += 1
        return True

    def _drop(self, record: MemberRecord) -> None:
        del self._records[record.address]
        del self.by_mac[record.mac]
