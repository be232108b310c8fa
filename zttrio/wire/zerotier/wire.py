"""A ZeroTier network as a wire: frames of its members in and out, settings from its controller.

Knows how the stack's world (frames, super-segments, settings, failures) meets that of a node; what
a network is, and who is let in, is `zttrio.zerotier`'s business.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio import kernels
from zttrio.abc import Wire
from zttrio.errors import AccessDenied, HeaderError, JoinError, NetworkNotFound, WireError
from zttrio.header.address import BROADCAST_MAC, packed
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.offload import finish_checksum
from zttrio.wire.heap import keep_freed_memory
from zttrio.wire.shortcuts import COALESCE
from zttrio.zerotier.network.derived import Group, arp_group
from zttrio.zerotier.network.membership import ConfigChanged, NetworkStatus
from zttrio.zerotier.world import PLANET

from .home import Home, read_world
from .settings import Choices, make_settings
from .shared import SharedNode, shared_node

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from zttrio.abc import WirePort
    from zttrio.zerotier.network.membership import Membership, NetworkEvent
    from zttrio.zerotier.world import World

__all__ = ["ZeroTier", "parse_network_id"]

MTU = 2800  # before the controller says another one (1.2)
ETHERNET_HEADER = 14
PACKET = 1394  # octets of the IP packet that fills one datagram (10.3)
LONGEST = ETHERNET_HEADER + 9986  # what a FRAME can carry (5.1)
SUPER_SEGMENT = 44 * (PACKET - 40)  # as many segments as one call of UDP_SEGMENT sends
STRIDE = ETHERNET_HEADER + PACKET  # longer frames are no full segments of ours
WORTH_MERGING = 3  # frames; measured
_IPV4 = 4


@attrs.define
class _Counters:
    frames_sent: int = 0
    octets_sent: int = 0
    frames_received: int = 0
    octets_received: int = 0
    blocked: int = 0
    not_running: int = 0
    malformed: int = 0


class ZeroTier(Wire):
    """A ZeroTier network, for one Network.

    All wires of one home in one trio run are one node, on several networks.  The controller's
    settings reach the stack as far as the owner allows it, and are stored in the home, so that
    the next start does not have to wait for the controller.

    Args:
        network_id: sixteen hex digits, or the number.
        home: the folder of the node's identity and state, in the real software's formats, made if
            it is not there; None for a node of its own with a new identity, which is not kept.
        planet: the file that lists the roots, stored in *home*; None for the one that is there.
            There is none by default: nothing is sent to roots that nobody has chosen.
        token: shown to the controller, for networks that let in whoever knows one.
        allow_managed: let the controller give us addresses and routes at all.
        allow_global: also those that are publicly routable.
        allow_default: also a default route.
        allow_dns: also name servers.  For each of these four, None means what the home's
            ``networks.d/ID.local.conf`` says, or else yes, no, no and no.
        port: UDP port, 0 for a random one.
        bind: addresses to use; empty for all, or for loopback only, if the planet's roots are
            nowhere else.

    Raises:
        ValueError: *network_id* or one of *bind* is none.
    """

    configures = True
    has_unique_macs = True  # they follow from node addresses
    # Cut by us, before they are sealed.  What is not cut comes with its checksum: the stack has it
    # for less than finding its place again would cost.
    max_segment = SUPER_SEGMENT if COALESCE else 0
    preferred_packet = PACKET

    def __init__(
        self,
        network_id: str | int,
        *,
        home: str | os.PathLike[str] | None = None,
        planet: str | os.PathLike[str] | None = None,
        token: str | None = None,
        allow_managed: bool | None = None,
        allow_global: bool | None = None,
        allow_default: bool | None = None,
        allow_dns: bool | None = None,
        port: int = 0,
        bind: Iterable[str] = (),
    ) -> None:
        self.network_id: int = parse_network_id(network_id)
        self.name: str = f"zerotier {self.network_id:016x}"
        self.mac: bytes = bytes(6)
        self.mtu: int = MTU
        self.home: Path | None = None if home is None else Path(home)
        self._planet = planet
        self._wanted_planet: World | None = None
        self._token = token
        self._allowed = {
            "managed": allow_managed,
            "public": allow_global,
            "default": allow_default,
            "dns": allow_dns,
        }
        self._udp_port = port
        self._bind = [packed(text) for text in bind]
        self._given: SharedNode | None = None  # tests have nodes of their own
        self._choices = Choices()
        self._counts = _Counters()
        self._was_used = False
        self._node: SharedNode
        self._membership: Membership | None = None
        self._port: WirePort
        self._store: Home | None = None
        self._waits = False

    # running

    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be on the network until cancelled; see `zttrio.abc.Wire`.

        Raises:
            IdentityError: the home's identity is damaged, readable by others, or somebody else's.
            WireError: there is no planet, a file of the home is damaged, the home is in use by
                another process, a socket cannot be opened or died, this node is on the network
                already, or this wire has been used before.
        """
        if self._was_used:
            raise WireError(f"{self.name}: a wire serves one Network once; make a new one")
        self._was_used = True
        keep_freed_memory()
        self._port = port
        stored = await trio.to_thread.run_sync(self._read_home)
        self._node = node = await self._find_node()
        await node.enter()
        try:
            self._check_planet()
            self._membership = membership = node.join(
                self.network_id, self, stored=stored, token=self._token
            )
            self.mac = membership.mac
            self.identity: str | None = str(node.task.node.identity)
            try:
                node.task.flush()
                task_status.started()
                await node.drive()
            finally:
                self._membership = None
                node.part(self.network_id)
        finally:
            await node.leave()  # noqa: ASYNC102 - it shields itself, for a limited time

    def _read_home(self) -> bytes | None:
        """The stored configuration, and the owner's choices.

        Raises:
            WireError: a file cannot be read.
        """
        stored = None
        choices = Choices()
        if self.home is not None:
            self._store = home = Home(self.home)
            stored = home.load_network(self.network_id)
            choices = Choices.from_file(home.load_choices(self.network_id))
        given = {name: value for name, value in self._allowed.items() if value is not None}
        self._choices = attrs.evolve(choices, **given)
        return stored

    async def _find_node(self) -> SharedNode:
        if self._given is not None:
            return self._given
        if self._planet is not None:
            read = partial(read_world, Path(self._planet), PLANET)
            self._wanted_planet = await trio.to_thread.run_sync(read)
        return shared_node(
            self.home, planet=self._wanted_planet, port=self._udp_port, bind=self._bind
        )

    def _check_planet(self) -> None:
        """A node that was running already has its own planet, which is not to be mistaken.

        Raises:
            WireError: it is not the one that was asked for.
        """
        held = self._node.task.node.topology.planet
        wanted = self._wanted_planet
        if wanted is not None and (held is None or held.id != wanted.id):
            raise WireError(
                f"planet {self._planet}: home {self.home} is in use with another planet"
            )

    # what the stack calls

    def send(self, frames: Sequence[Frame]) -> int:
        """Take frames for the wire; see `zttrio.abc.Wire`."""
        counts = self._counts
        membership = self._membership
        if membership is None:
            counts.not_running += len(frames)
            return len(frames)
        task = self._node.task
        if task.is_blocked:
            counts.blocked += 1
            self._waits = True
            return 0
        burst: list[bytes] = []
        for frame in frames:
            if frame.gso_size or frame.checksum == CHECKSUM_PARTIAL:
                try:  # nothing unfinished may leave
                    burst += _finished(frame, self.mtu)
                except (HeaderError, ValueError):
                    counts.malformed += 1
            else:
                burst.append(bytes(frame))
        counts.frames_sent += len(burst)
        counts.octets_sent += sum(map(len, burst))
        membership.send_burst(burst, trio.current_time())
        task.flush()
        return len(frames)

    def follow(self, addresses: AbstractSet[bytes], macs: AbstractSet[bytes]) -> None:
        """Tell the network which groups we are in: those of our ARP entries among them (11.2)."""
        if self._membership is None:
            return
        groups = {Group(mac) for mac in macs if mac != BROADCAST_MAC}
        groups.update(arp_group(ip) for ip in addresses if len(ip) == _IPV4)
        self._membership.set_groups(frozenset(groups), trio.current_time())
        self._node.task.flush()

    def counters(self) -> dict[str, int]:
        """What the wire, its node and its sockets have counted; drops by reason among it."""
        counters = attrs.asdict(self._counts)
        if self._membership is not None:
            task = self._node.task
            for prefix, counted in (
                ("network", self._node.networks.counters.as_dict()),
                ("node", task.node.counters.as_dict()),
                ("udp", attrs.asdict(task.socket_counters)),
            ):
                counters |= {f"{prefix}_{name}": value for name, value in counted.items()}
        return counters

    def peers(self) -> list[str]:
        """The nodes that ours knows, and where they are."""
        if self._membership is None:
            return []
        node = self._node.task.node
        now = trio.current_time()
        roots = node.topology.roots
        members = {member.address: member.is_admitted for member in self._membership.peers()}
        lines = []
        for peer in node.peers():
            path = peer.best_path(now)
            how = "relayed" if path is None or not path.is_alive(now) else f"at {path.remote}"
            words = [str(peer.identity), how]
            if peer.address in roots:
                words.append("root")
            if peer.address in members:
                words.append("member" if members[peer.address] else "not admitted")
            lines.append(" ".join(words))
        return lines

    # what the node calls

    def take_event(self, event: NetworkEvent) -> None:
        """A configuration or a status; see `zttrio.wire.zerotier.shared.Member`."""
        if isinstance(event, ConfigChanged):
            config = event.config
            self.mtu = config.mtu
            if event.stored and self._store is not None:
                write = partial(self._store.save_network, self.network_id, event.stored)
                self._node.task.write_later(write)
            self._port.configure(make_settings(config, self._choices))
            return
        address = str(self._node.task.node.identity)
        network_id = f"{self.network_id:016x}"
        failure: JoinError | None = None
        if event.status == NetworkStatus.ACCESS_DENIED:
            failure = AccessDenied(network_id, address)
        elif event.status == NetworkStatus.NOT_FOUND:
            failure = NetworkNotFound(network_id)
        elif event.status == NetworkStatus.AUTHENTICATION_REQUIRED:
            where = event.url or "its administrator knows where"
            failure = JoinError(f"network {network_id} wants you to log in: {where}")
        self.failure: JoinError | None = failure
        self._port.failure_changed()

    def take_frames(self, frames: list[bytes]) -> None:
        """Frames of other members; see `zttrio.wire.zerotier.shared.Member`."""
        counts = self._counts
        counts.frames_received += len(frames)
        counts.octets_received += sum(map(len, frames))
        if COALESCE and len(frames) >= WORTH_MERGING:
            self._port.deliver(_merge(frames))
        else:
            self._port.deliver(list(map(Frame, frames)))

    def may_send(self) -> None:
        """The sockets have room; see `zttrio.wire.zerotier.shared.Member`."""
        if self._waits:
            self._waits = False
            self._port.send_ready()


def _finished(frame: Frame, mtu: int) -> list[bytes]:
    """The plain frames that *frame* stands for.

    Raises:
        HeaderError: it is not what it says.
        ValueError: *mtu* has no room for payload.
    """
    if not frame.gso_size:
        return [bytes(finish_checksum(frame))]
    octets, size = kernels.cut(frame, mtu)
    whole = bytes(octets)
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def _merge(frames: list[bytes]) -> list[Frame]:
    """*frames* in order, with segments that belong together merged; see `kernels.merge_burst`."""
    merged: list[Frame] = []
    run: list[bytes] = []
    for frame in frames:
        if len(frame) <= STRIDE and len(run) < kernels.MERGE_LIMIT:
            run.append(frame)
            continue
        merged += _merge_run(run)
        run = []
        if len(frame) <= STRIDE:
            run.append(frame)
        else:
            merged.append(Frame(frame))
    return merged + _merge_run(run)


def _merge_run(run: list[bytes]) -> list[Frame]:
    if len(run) < WORTH_MERGING:
        return list(map(Frame, run))
    return kernels.merge_burst(run)


def parse_network_id(network_id: str | int) -> int:
    """The number of a network.

    Raises:
        ValueError: it is neither sixteen hex digits nor a number of 64 bits that is not 0.
    """
    if isinstance(network_id, int):
        number = network_id
    else:
        try:
            number = int(network_id, 16) if len(network_id) == 16 else 0
        except ValueError:
            number = 0
    if not 0 < number < 1 << 64:
        raise ValueError(f"network ID {network_id!r}: needs sixteen hex digits")
    return number
