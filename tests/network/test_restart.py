"""A host that starts again meets what its peer remembers of the connections it had before.

Its sequence numbers and timestamps are new, and its ports begin elsewhere (RFC 6528, RFC 7323,
RFC 6056), so that the peer cannot tell its SYNs from old ones, and answers for what it remembers.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from zttrio import Config
from zttrio.testing import Lab, Link

PORT = 80
CONNECTIONS = 32
RTT = 0.02  # seconds
SERVER = Config(dad_transmits=0)
CLIENT = Config(
    dad_transmits=0,
    # No more than are needed, so that each port is used again.
    ephemeral_ports=(50000, 50000 + CONNECTIONS - 1),
)


async def answer(stream: trio.SocketStream) -> None:
    """Close first, as a server does that has answered; TIME_WAIT is then here."""
    async with stream:
        assert await stream.receive_some() == b"?"
        await stream.send_all(b"!")


async def hold(stream: trio.SocketStream) -> None:
    """Wait for more, as a server does that knows nothing of its client's end."""
    async with stream:
        assert await stream.receive_some() == b"?"
        await stream.send_all(b"!")
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            return  # the client that started again has reset it
        raise AssertionError("the client that is gone has said goodbye")


@pytest.mark.parametrize("has_crashed", [False, True])
async def test_a_client_that_starts_again_opens_a_connection_in_two_round_trips(
    autojump_clock: trio.testing.MockClock, has_crashed: bool
) -> None:
    lab = Lab(link=Link(delay=RTT / 4))
    async with lab.network("server", config=SERVER) as server, trio.open_nursery() as nursery:
        [listener] = await server.open_tcp_listeners(PORT, host="0.0.0.0")
        nursery.start_soon(trio.serve_listeners, hold if has_crashed else answer, [listener])
        host = str(server.addresses[0].ip)
        for is_second in (False, True):
            async with lab.network("client", config=CLIENT) as client:
                await client.wait_online()
                await client.ping(host)  # so that what follows is TCP's time alone
                slow = []
                streams = []
                for _ in range(CONNECTIONS):
                    began = trio.current_time()
                    stream = await client.open_tcp_stream(host, PORT)
                    took = trio.current_time() - began
                    if took > 1.5 * RTT:
                        slow.append(took)
                    streams.append(stream)
                    await stream.send_all(b"?")
                    assert await stream.receive_some() == b"!"
                    if not has_crashed:
                        assert await stream.receive_some() == b""
                        await stream.aclose()
                if is_second:
                    assert len(slow) > CONNECTIONS // 4  # the ports were known, so there was work
                    assert slow == pytest.approx([2 * RTT] * len(slow))
                else:
                    assert not slow
                if has_crashed:
                    lab.partition(["client"])
            await trio.sleep(RTT)  # what it has said at last gets lost, too
            lab.heal()
        nursery.cancel_scope.cancel()
