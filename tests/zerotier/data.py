"""Access to the recorded vectors."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from zttrio.zerotier.crypto import backends
from zttrio.zerotier.identity import Identity

FOLDER = Path(__file__).parent / "vectors"
BACKENDS = backends()
BACKEND_NAMES = [backend.name for backend in BACKENDS]


@cache
def load(name: str) -> Any:
    """The content of ``vectors/<name>.json``."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def vectors(section: str, file: str = "vl1") -> list[dict[str, Any]]:
    """The vectors of one section."""
    found: list[dict[str, Any]] = load(file)[section]
    assert found
    return found


def names(section: str, file: str = "vl1") -> list[str]:
    """What to call them in test reports."""
    return [str(v.get("name", v.get("source", i))) for i, v in enumerate(vectors(section, file))]


@cache
def node_identities() -> list[Identity]:
    """Ready-made identities, all different and valid."""
    return [Identity.parse_text(t) for t in (FOLDER / "nodes.txt").read_text().split()]


@cache
def recorded_identities() -> list[Identity]:
    """Identities of the nodes that were recorded, with their secrets."""
    return [Identity.parse_text(v["secret"]) for v in vectors("identities", "identities")]


def recorded_identity(address: str) -> Identity:
    """The recorded identity with this address."""
    return next(i for i in recorded_identities() if str(i) == address)


@cache
def network_identity(name: str) -> Identity:
    """The ``controller``, ``me``, ``peer`` or ``peer2`` of the vectors of virtual networks."""
    return Identity.parse_text(load("vl2")["identities"][name]["secret"])
