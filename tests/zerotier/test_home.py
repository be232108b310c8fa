from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs
import pytest

from zttrio.errors import HeaderError, IdentityError, WireError
from zttrio.wire.zerotier.home import CachedPeer, Home, read_identity, read_world, write_private
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.world import MOON, PLANET, Root, World

from .data import node_identities, vectors
from .lab import WORLD_KEYS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "some" / "home")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _world(kind: int, world_id: int = 7) -> World:
    root = Root(node_identities()[0].without_secret(), (Endpoint.parse("10.0.0.1/9993"),))
    return World.make(kind, world_id, 5, [root], signer=WORLD_KEYS)


def test_a_new_home_is_private_and_empty(home: Home) -> None:
    assert _mode(home.folder) == 0o700
    assert home.load_identity() is None
    assert home.load_worlds() == []
    assert home.load_peers(0.0) == []


def test_an_identity_is_stored_as_the_real_software_does(home: Home) -> None:
    identity = node_identities()[0]
    home.save_identity(identity)
    secret, public = home.folder / "identity.secret", home.folder / "identity.public"
    assert (_mode(secret), _mode(public)) == (0o600, 0o644)
    assert secret.read_text() == identity.secret_text()
    assert public.read_text() == identity.text()
    loaded = home.load_identity()
    assert loaded is not None
    assert loaded.secret == identity.secret
    assert sorted(p.name for p in home.folder.iterdir()) == ["identity.public", "identity.secret"]


def test_an_identity_is_never_overwritten(home: Home) -> None:
    home.save_identity(node_identities()[0])
    with pytest.raises(IdentityError, match="never overwritten"):
        home.save_identity(node_identities()[1])
    assert home.load_identity() == node_identities()[0]


def test_an_identity_that_others_may_read_is_refused(home: Home) -> None:
    home.save_identity(node_identities()[0])
    (home.folder / "identity.secret").chmod(0o640)
    with pytest.raises(IdentityError, match=r"others may read it \(mode 640\)"):
        home.load_identity()


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff\xfe", b"0123456789:0:ab:cd"])
def test_a_damaged_identity_is_an_error_and_stays_as_it_is(home: Home, content: bytes) -> None:
    path = home.folder / "identity.secret"
    write_private(path, content)
    with pytest.raises(IdentityError):
        home.load_identity()
    assert path.read_bytes() == content


def test_an_identity_without_its_secret_is_not_ours(home: Home) -> None:
    write_private(home.folder / "identity.secret", node_identities()[0].text().encode())
    with pytest.raises(IdentityError, match="no secret"):
        home.load_identity()


def test_worlds_are_stored_and_found_again(home: Home) -> None:
    planet, moon = _world(PLANET), _world(MOON, 0xABC)
    home.save_world(planet)
    home.save_world(moon)
    assert home.load_worlds() == [planet, moon]
    assert (home.folder / "planet").read_bytes() == planet.emit()
    assert (home.folder / "moons.d" / "0000000000000abc.moon").read_bytes() == moon.emit()
    home.drop_moon(0xABC)
    assert home.load_worlds() == [planet]
    home.drop_moon(0xABC)


def test_moons_of_the_real_tool_are_read(home: Home) -> None:
    [vector] = [v for v in vectors("worlds", "worlds") if v["kind"] == "moon"][:1]
    folder = home.folder / "moons.d"
    folder.mkdir()
    (folder / vector["file"]).write_bytes(bytes.fromhex(vector["hex"]))
    [moon] = home.load_worlds()
    assert moon.emit().hex() == vector["hex"]


@pytest.mark.parametrize("damage", ["truncated", "longer", "a moon", "empty"])
def test_a_damaged_planet_is_an_error(home: Home, damage: str) -> None:
    good = _world(PLANET).emit()
    content = {
        "truncated": good[:-1],
        "longer": good + b"\n",
        "a moon": _world(MOON).emit(),
        "empty": b"",
    }[damage]
    (home.folder / "planet").write_bytes(content)
    with pytest.raises(WireError, match="planet"):
        home.load_worlds()


def test_a_moon_under_another_moons_name_is_an_error(home: Home) -> None:
    home.save_world(_world(MOON, 1))
    (home.folder / "moons.d" / "0000000000000001.moon").rename(
        home.folder / "moons.d" / "0000000000000002.moon"
    )
    with pytest.raises(WireError, match="holds moon 0000000000000001"):
        home.load_worlds()


def _peer(number: int) -> CachedPeer:
    return CachedPeer(
        node_identities()[number].without_secret(),
        12,
        (1, 14, 2),
        (Endpoint.parse("10.0.0.1/9993"), Endpoint.parse("2001:db8::1/1")),
    )


def test_peers_are_remembered_the_latest_first(home: Home) -> None:
    for number in range(3):
        home.save_peers([_peer(number)])
        path = home.folder / "peers.d" / f"{_peer(number).identity}.peer"
        assert _mode(path) == 0o600
        os.utime(path, (1000.0 + number, 1000.0 + number))
    assert home.load_peers(2000.0) == [_peer(2), _peer(1), _peer(0)]


def test_peers_older_than_thirty_days_are_forgotten(home: Home) -> None:
    home.save_peers([_peer(0)])
    [path] = (home.folder / "peers.d").iterdir()
    os.utime(path, (1000.0, 1000.0))
    assert home.load_peers(1000.0 + 30 * 86_400) == [_peer(0)]
    assert home.load_peers(1001.0 + 30 * 86_400) == []
    assert not path.exists()


def test_a_damaged_peer_is_skipped_and_counted(home: Home) -> None:
    home.save_peers([_peer(0), _peer(1)])
    (home.folder / "peers.d" / f"{_peer(0).identity}.peer").write_bytes(b"\x02junk")
    assert home.load_peers(0.0) == [_peer(1)]
    assert home.unreadable_peers == 1


@pytest.mark.parametrize("length", range(0, 107, 3))
def test_a_cached_peer_cut_anywhere_is_refused(length: int) -> None:
    data = _peer(0).emit()
    assert CachedPeer.parse(data) == _peer(0)
    assert len(data) == 108
    with pytest.raises(HeaderError):
        CachedPeer.parse(data[:length])


def test_another_version_of_the_peer_format_is_refused() -> None:
    with pytest.raises(HeaderError, match="another format"):
        CachedPeer.parse(b"\x01" + _peer(0).emit()[1:])


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing_behind(home: Home) -> None:
    (home.folder / "planet").mkdir()
    with pytest.raises(WireError, match="writing"):
        home.save_world(_world(PLANET))
    assert [p.name for p in home.folder.iterdir()] == ["planet"]


def test_a_home_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WireError, match="home"):
        Home(tmp_path / "file" / "home")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="nothing: No such file"):
        read_identity(tmp_path / "nothing")
    with pytest.raises(WireError, match="nothing: No such file"):
        read_world(tmp_path / "nothing")


def test_an_older_revision_is_replaced_at_once_or_not_at_all(home: Home) -> None:
    home.save_world(_world(PLANET))
    newer = attrs.evolve(_world(PLANET), timestamp=6)
    home.save_world(newer)
    assert home.load_worlds() == [newer]
    assert [p.name for p in home.folder.iterdir()] == ["planet"]


def test_a_network_is_stored_privately_and_a_line_feed_means_none_yet(home: Home) -> None:
    assert home.load_network(0x8056C2E21C000001) is None
    home.save_network(0x8056C2E21C000001)
    path = home.folder / "networks.d" / "8056c2e21c000001.conf"
    assert path.read_bytes() == b"\n"
    assert home.load_network(0x8056C2E21C000001) is None
    home.save_network(0x8056C2E21C000001, b"v=7\nn=\\0\\0")
    assert home.load_network(0x8056C2E21C000001) == b"v=7\nn=\\0\\0"
    assert _mode(path) == 0o600
    assert _mode(path.parent) == 0o700


def test_local_choices_are_read_as_the_real_software_writes_them(home: Home) -> None:
    assert home.load_choices(1) == {}
    home.save_network(1)
    path = home.folder / "networks.d" / "0000000000000001.local.conf"
    path.write_text("allowManaged=1\nallowGlobal=0\nallowDefault=true\nrubbish\n")
    expected = {"allowManaged": True, "allowGlobal": False, "allowDefault": True}
    assert home.load_choices(1) == expected


def test_a_locked_home_is_free_again_when_its_owner_lets_go(home: Home) -> None:
    home.lock()
    other = Home(home.folder)
    with pytest.raises(WireError, match="another node is running in it"):
        other.lock()
    home.unlock()
    home.unlock()
    other.lock()
    other.unlock()


def test_the_port_is_remembered_and_rubbish_is_none(home: Home) -> None:
    assert home.load_port() == 0
    home.save_port(23_456)
    assert home.load_port() == 23_456
    for rubbish in (b"", b"x", b"0", b"70000", b"-3"):
        (home.folder / "node.port").write_bytes(rubbish)
        assert home.load_port() == 0
