"""A controller under test, a disk that can be made slow, and members written by hand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from zttrio.zerotier import messages
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.controller import Controller
from zttrio.zerotier.controller.journal import Write
from zttrio.zerotier.network.config_request import ConfigRequest, request_metadata
from zttrio.zerotier.network.credential import CredentialsMessage
from zttrio.zerotier.network.netconf import NetworkConfig
from zttrio.zerotier.network.piece import Assembler, Piece

from .bench import Bench
from .lab import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.zerotier.events import Message
    from zttrio.zerotier.network.credential import Revocation
    from zttrio.zerotier.network.dictionary import Dictionary

    from .bench import Puppet, Sent

POOL = {
    "routes": [{"target": "10.99.0.0/24", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "10.99.0.1", "ipRangeEnd": "10.99.0.254"}],
    "v4AssignMode": {"zt": True},
}


class RequestLayer:
    """The part of a network layer that a controller needs."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def receive_message(self, message: Message, now: float) -> None:
        if message.verb == messages.NETWORK_CONFIG_REQUEST:
            request = ConfigRequest.parse(message.payload)
            self.controller.receive_request(message, request.network_id, request.metadata, now)

    def receive_ok(
        self,
        message: Message,
        verb: int,
        packet_id: bytes,
        data: bytes,
        context: object,
        now: float,
    ) -> None:
        raise AssertionError("a controller sends nothing that is answered with OK")

    def receive_error(
        self, message: Message, verb: int, packet_id: bytes, code: int, data: bytes, now: float
    ) -> bool:
        return False


class ControllerBench(Bench):
    """A `Bench` whose node is a controller."""

    def __init__(self) -> None:
        super().__init__(config=NodeConfig(mtu=10_324))  # puppets do not put fragments together
        self.disk: dict[tuple[int, bytes | None], str] = {}
        self.is_slow = False
        """True while what is written does not become durable."""
        self.controller = self._start()

    @property
    def clock(self) -> int:
        """Milliseconds since 1970."""
        return int((self.now + EPOCH) * 1000)

    def restart(self) -> None:
        """Start the controller again with what is on disk."""
        self.controller = self._start()

    def network(self, **fields: Any) -> int:
        """A new network's ID."""
        record = self.controller.create_network(fields, self.now)
        self.settle()
        return record.network_id

    def change(self, network_id: int, **fields: Any) -> list[Sent]:
        """Change a network; returns what is sent at once."""
        self.controller.change_network(network_id, fields, self.now)
        return self.settle()

    def change_member(self, network_id: int, puppet: Puppet, **fields: Any) -> list[Sent]:
        """Change a member; returns what is sent at once."""
        self.controller.change_member(network_id, puppet.address, fields, self.now)
        return self.settle()

    def member(self, network_id: int, puppet: Puppet) -> dict[str, Any]:
        """A member's record."""
        return dict(self.controller.member(network_id, puppet.address).fields)

    def ask(
        self, puppet: Puppet, network_id: int, metadata: Dictionary | None = None
    ) -> list[Sent]:
        """Send a request; returns what is sent at once."""
        if metadata is None:
            metadata = request_metadata((1, 14, 1))
        request = ConfigRequest(network_id, metadata)
        sent = puppet.send(messages.NETWORK_CONFIG_REQUEST, request.emit())
        return sent + self.settle()

    def join(self, puppet: Puppet, network_id: int) -> NetworkConfig:
        """Authorise a member and let it ask; returns what it gets."""
        self.change_member(network_id, puppet, authorized=True)
        config = self.config(puppet, self.ask(puppet, network_id))
        assert config is not None
        return config

    def settle(self) -> list[Sent]:
        """Let the disk catch up and everything happen that is due now; returns what is sent."""
        sent = self.collect()
        while True:
            if not self.is_slow and self.controller.has_writes:
                self.write()
            elif (when := self.controller.next_timer()) is not None and when <= self.now:
                self.controller.handle_timers(self.now)
            else:
                return sent
            sent += self.collect()

    def write(self) -> None:
        """The disk has finished with everything so far."""
        number, writes = self.controller.take_writes()
        for network_id, address, record in writes:
            if record is None:
                self.disk.pop((network_id, address), None)
            else:
                self.disk[network_id, address] = record
        self.controller.written(number, self.now)

    def wait(self, seconds: float) -> list[Sent]:
        """Let time pass; returns what is sent meanwhile."""
        end = self.now + seconds
        sent = self.settle()
        while (when := self.controller.next_timer()) is not None and when <= end:
            sent += super().wait(max(when - self.now, 0.0))
            sent += self.settle()
        return sent + super().wait(end - self.now)

    def config(self, puppet: Puppet, sent: Sequence[Sent]) -> NetworkConfig | None:
        """The one configuration among what was sent to *puppet*, checked; None without any."""
        found = self.configs(puppet, sent)
        assert len(found) <= 1, found
        return found[0] if found else None

    def configs(self, puppet: Puppet, sent: Sequence[Sent]) -> list[NetworkConfig]:
        """The configurations among what was sent to *puppet*, in order, every piece checked."""
        assembler = Assembler()
        found = []
        for packet in sent:
            if packet.remote != puppet.endpoint:
                continue
            if packet.verb == messages.OK:
                verb, _, data = messages.parse_ok(packet.payload)
                if verb != messages.NETWORK_CONFIG_REQUEST:
                    continue
            elif packet.verb == messages.NETWORK_CONFIG:
                data = packet.payload
            else:
                continue
            piece = Piece.parse(data)
            assert piece.is_signed_by(self.node.identity)
            whole = assembler.receive(piece)
            if whole is not None:
                found.append(NetworkConfig.parse(whole))
        return found

    def _start(self) -> Controller:
        stored = [Write(network_id, address, r) for (network_id, address), r in self.disk.items()]
        stored.sort(key=lambda write: (write.network_id, write.address or b""))
        controller = Controller(
            self.node, rng=random.Random(6).randbytes, epoch=EPOCH, records=stored
        )
        self.node.set_network_layer(RequestLayer(controller))
        return controller


def error_codes(sent: Sequence[Sent]) -> list[int]:
    """The codes of the ERRORs about requests among what was sent."""
    found = []
    for packet in sent:
        if packet.verb == messages.ERROR:
            verb, _, code, _ = messages.parse_error(packet.payload)
            assert verb == messages.NETWORK_CONFIG_REQUEST
            found.append(code)
    return found


def revocations(sent: Sequence[Sent], puppet: Puppet) -> list[Revocation]:
    """The revocations among what was sent to *puppet*."""
    found: list[Revocation] = []
    for packet in sent:
        if packet.verb == messages.NETWORK_CREDENTIALS and packet.remote == puppet.endpoint:
            found += CredentialsMessage.parse(packet.payload).revocations
    return found
