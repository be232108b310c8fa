"""Which wire a Network gets from its arguments and the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zttrio import LocalError
from zttrio.wire import HostSegment, Tap, ZeroTier, choice
from zttrio.wire.choice import choose_wire

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = "8056c2e21c000001"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZTTRIO_NETWORK", raising=False)
    monkeypatch.delenv("ZTTRIO_HOME", raising=False)


def test_without_anything_it_is_the_host_segment() -> None:
    assert isinstance(choose_wire(None, None, None, None, None), HostSegment)


def test_a_wire_that_is_given_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZTTRIO_NETWORK", NETWORK)
    wire = Tap("tap7")
    assert choose_wire(None, wire, None, None, None) is wire


def test_a_network_id_is_a_zerotier_network(tmp_path: Path) -> None:
    wire = choose_wire(NETWORK, None, tmp_path, None, None)
    assert isinstance(wire, ZeroTier)
    assert (wire.network_id, wire.home) == (int(NETWORK, 16), tmp_path)


def test_the_environment_may_name_network_and_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZTTRIO_NETWORK", NETWORK)
    monkeypatch.setenv("ZTTRIO_HOME", str(tmp_path))
    wire = choose_wire(None, None, None, None, None)
    assert isinstance(wire, ZeroTier)
    assert (wire.network_id, wire.home) == (int(NETWORK, 16), tmp_path)
    other = choose_wire("8056c2e21c000002", None, tmp_path / "other", None, None)
    assert isinstance(other, ZeroTier)
    assert (other.network_id, other.home) == (0x8056C2E21C000002, tmp_path / "other")
    monkeypatch.setenv("ZTTRIO_NETWORK", "")
    assert isinstance(choose_wire(None, None, None, None, None), HostSegment)


@pytest.mark.parametrize("what", [(NETWORK, None), (None, "home")])
def test_a_wire_and_a_network_contradict_each_other(what: tuple[str | None, str | None]) -> None:
    network_id, home = what
    with pytest.raises(ValueError, match="not both"):
        choose_wire(network_id, Tap("tap7"), home, None, None)


def test_a_home_without_a_network_makes_no_sense(tmp_path: Path) -> None:
    for home, planet, token in ((tmp_path, None, None), (None, tmp_path, None), (None, None, "x")):
        with pytest.raises(ValueError, match="need a network ID"):
            choose_wire(None, None, home, planet, token)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name}", name="cryptography.hazmat")

    monkeypatch.setattr(choice, "import_module", missing)
    with pytest.raises(LocalError, match=r"cryptography is not installed: .*zttrio\[zerotier\]"):
        choose_wire(NETWORK, None, None, None, None)


def test_a_wire_in_the_place_of_the_network_id_is_told_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"Network\(wire=\.\.\.\)"):
        choose_wire(HostSegment(), None, None, None, None)  # type: ignore[arg-type]
