"""How a member asks for its configuration, and acknowledges one (5.5, 5.6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar

import attrs

from zttrio.errors import HeaderError

from .. import messages
from ..constants import PROTOCOL
from .dictionary import Dictionary

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["ConfigAnswer", "ConfigRequest", "request_metadata"]

MAX_METADATA = 1023

_REQUEST = struct.Struct("!QH")
_HELD = struct.Struct("!Qq")
_CONFIG_ANSWER = struct.Struct("!QQ")


@attrs.frozen
class ConfigRequest:
    """NETWORK_CONFIG_REQUEST (5.5).

    Attributes:
        network_id: which network's configuration is wanted.
        metadata: what the asker is and can, see `request_metadata`.
        revision: of the configuration held, or 0.
        timestamp: of the configuration held, or 0.
    """

    network_id: int
    metadata: Dictionary
    revision: int = 0
    timestamp: int = 0

    @classmethod
    def parse(cls, payload: Buffer) -> ConfigRequest:
        """Read a request.  Everything behind the metadata may be missing.

        Raises:
            HeaderError: it is none, or its metadata are larger than 1023 octets.
        """
        start = _REQUEST.size
        if len(payload) < start:
            raise HeaderError(f"NETWORK_CONFIG_REQUEST: only {len(payload)} octets")
        network_id, length = _REQUEST.unpack_from(payload)
        end = start + length
        if length > MAX_METADATA or end > len(payload):
            raise HeaderError(f"NETWORK_CONFIG_REQUEST: {length} octets of metadata")
        revision = timestamp = 0
        if end + _HELD.size <= len(payload):
            revision, timestamp = _HELD.unpack_from(payload, end)
        return cls(network_id, Dictionary.parse(payload[start:end]), revision, timestamp)

    def emit(self) -> bytes:
        """The same as octets.

        Raises:
            ValueError: the metadata are larger than 1023 octets.
        """
        metadata = self.metadata.emit()
        if len(metadata) > MAX_METADATA:
            raise ValueError(f"metadata: at most {MAX_METADATA} octets, got {len(metadata)}")
        return b"".join(
            (
                _REQUEST.pack(self.network_id, len(metadata)),
                metadata,
                _HELD.pack(self.revision, self.timestamp),
            )
        )


def request_metadata(
    version: tuple[int, int, int],
    *,
    platform: str = "",
    vendor: int = 0,
    token: str | None = None,
) -> Dictionary:
    """What a request tells the controller about us (5.5).

    Args:
        version: of the software, as in HELLO: major, minor, revision.
        platform: operating system and architecture, as ``linux/x86_64``; left out if empty.
        vendor: 1 for ZeroTier, 0 for nobody in particular.
        token: what the network's administrator gave for joining without having to ask.
    """
    major, minor, revision = version
    metadata = Dictionary()
    for key, value in (
        ("v", 7),
        ("vend", vendor),
        ("pv", PROTOCOL),
        ("majv", major),
        ("minv", minor),
        ("revv", revision),
        ("mr", 1024),
        ("mc", 128),
        ("mcr", 64),
        ("mt", 128),
        ("f", 0),
        ("revr", 1),
    ):
        metadata.set_int(key, value)
    if platform:
        metadata.set_text("o", platform)
    if token is not None:
        metadata.set_text("a", f"token:{token}")
    return metadata


@attrs.frozen
class ConfigAnswer:
    """OK to a NETWORK_CONFIG that completed an update; its in-re verb is ECHO's (5.6)."""

    VERB: ClassVar[int] = messages.ECHO  # sic: the reference's slip, which nobody reads

    network_id: int
    update_id: int

    @classmethod
    def parse(cls, data: Buffer) -> ConfigAnswer:
        """Read an answer.

        Raises:
            HeaderError: too short.
        """
        if len(data) < _CONFIG_ANSWER.size:
            raise HeaderError(f"OK(NETWORK_CONFIG): only {len(data)} octets")
        return cls(*_CONFIG_ANSWER.unpack_from(data))

    def emit(self) -> bytes:
        """The same as octets."""
        return _CONFIG_ANSWER.pack(self.network_id, self.update_id)
