"""Ports are shared by Linux's rules; ephemeral ports are hard to guess and never collide."""

from __future__ import annotations

import errno
import random

import pytest

from zttrio.header.address import IPV4_UNSPECIFIED, IPV6_UNSPECIFIED, packed
from zttrio.header.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP
from zttrio.stack.ports import Ports

A = packed("10.0.0.1")
B = packed("10.0.0.2")
V6 = packed("fd00::1")


def make(ephemeral: tuple[int, int] = (32768, 60999)) -> Ports:
    return Ports(random.Random(1), ephemeral)


def in_use(
    ports: Ports,
    address: bytes | None,
    port: int,
    *,
    reuse_address: bool = False,
    reuse_port: bool = False,
) -> bool:
    try:
        binding = ports.bind(
            PROTOCOL_TCP, address, port, reuse_address=reuse_address, reuse_port=reuse_port
        )
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        return True
    binding.release()
    return False


def test_a_port_is_free_again_after_release() -> None:
    ports = make()
    binding = ports.bind(PROTOCOL_TCP, A, 80)
    assert in_use(ports, A, 80)
    binding.release()
    binding.release()
    assert not in_use(ports, A, 80)
    assert len(ports) == 0


def test_the_error_says_who_holds_the_port() -> None:
    ports = make()
    ports.bind(PROTOCOL_TCP, None, 80, owner_text="listener 'web'")
    with pytest.raises(OSError, match=r"tcp 10\.0\.0\.1:80: taken by listener 'web' at tcp \*:80"):
        ports.bind(PROTOCOL_TCP, A, 80)


def test_protocols_do_not_share_ports() -> None:
    ports = make()
    ports.bind(PROTOCOL_UDP, A, 53)
    assert not in_use(ports, A, 53)


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (A, A, True),
        (A, B, False),
        (A, None, True),
        (A, IPV4_UNSPECIFIED, True),
        (A, IPV6_UNSPECIFIED, False),
        (V6, IPV6_UNSPECIFIED, True),
        (V6, IPV4_UNSPECIFIED, False),
        (V6, None, True),
        (IPV4_UNSPECIFIED, IPV6_UNSPECIFIED, False),
        (None, IPV6_UNSPECIFIED, True),
        (A, V6, False),
    ],
)
def test_addresses_conflict_when_they_overlap(
    one: bytes | None, other: bytes | None, conflict: bool
) -> None:
    ports = make()
    ports.bind(PROTOCOL_TCP, one, 80)
    assert in_use(ports, other, 80) is conflict
    ports = make()
    ports.bind(PROTOCOL_TCP, other, 80)
    assert in_use(ports, one, 80) is conflict


def test_both_must_agree_to_reuse() -> None:
    ports = make()
    ports.bind(PROTOCOL_TCP, A, 80, reuse_address=True)
    assert in_use(ports, A, 80)
    assert not in_use(ports, A, 80, reuse_address=True)
    assert in_use(ports, A, 80, reuse_port=True)


def test_a_listener_is_not_shared_by_reuse_address_but_by_reuse_port() -> None:
    ports = make()
    ports.bind(PROTOCOL_TCP, A, 80, reuse_address=True, reuse_port=True).start_listening()
    assert in_use(ports, A, 80, reuse_address=True)
    assert not in_use(ports, A, 80, reuse_port=True)


def test_only_one_of_two_reused_bindings_may_listen() -> None:
    ports = make()
    first = ports.bind(PROTOCOL_TCP, A, 80, reuse_address=True)
    second = ports.bind(PROTOCOL_TCP, None, 80, reuse_address=True)
    first.start_listening()
    with pytest.raises(OSError, match="listens at tcp") as caught:
        second.start_listening()
    assert caught.value.errno == errno.EADDRINUSE
    first.release()
    second.start_listening()


def test_an_accepted_connection_keeps_the_port_after_its_listener() -> None:
    ports = make()
    listener = ports.bind(PROTOCOL_TCP, A, 80, reuse_address=True)
    listener.start_listening()
    child = listener.share()
    listener.release()
    assert in_use(ports, A, 80)
    assert not in_use(ports, A, 80, reuse_address=True)
    child.release()
    assert not in_use(ports, A, 80)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(OverflowError, match="must be 0-65535"):
        make().bind(PROTOCOL_TCP, A, port)


def test_ephemeral_ports_stay_in_their_range_and_run_out() -> None:
    ports = make((40000, 40009))
    found = {ports.bind(PROTOCOL_UDP, None, 0).port for _ in range(10)}
    assert found == set(range(40000, 40010))
    with pytest.raises(OSError, match="all of 40000-40009 are taken") as caught:
        ports.bind(PROTOCOL_UDP, None, 0)
    assert caught.value.errno == errno.EADDRINUSE


def test_connections_to_different_remotes_share_ephemeral_ports() -> None:
    ports = make((40000, 40001))
    used: set[tuple[bytes, int]] = set()
    for remote in (b"one", b"two"):
        for _ in range(2):
            taken = {port for other, port in used if other == remote}
            binding = ports.connect(PROTOCOL_TCP, A, remote, taken.__contains__)
            used.add((remote, binding.port))
    assert len(used) == 4
    with pytest.raises(OSError, match="all of") as caught:
        ports.connect(PROTOCOL_TCP, A, b"one", lambda port: (b"one", port) in used)
    assert caught.value.errno == errno.EADDRINUSE
    assert in_use(ports, A, 40000)  # but a listener may not walk in


def test_ephemeral_ports_of_one_flow_increase_and_flows_start_apart() -> None:
    ports = make()
    first, second = (ports.connect(PROTOCOL_TCP, A, b"r", lambda _: False).port for _ in range(2))
    assert second - first in (1, -(60999 - 32768))
    starts = {ports.connect(PROTOCOL_TCP, A, bytes([n]), lambda _: False).port for n in range(50)}
    assert max(starts) - min(starts) > 10_000


def test_the_table_lists_every_holder() -> None:
    ports = make()
    ports.bind(PROTOCOL_TCP, V6, 443)
    ports.bind(PROTOCOL_UDP, None, 53)
    assert sorted(map(str, ports)) == ["tcp [fd00::1]:443", "udp *:53"]
