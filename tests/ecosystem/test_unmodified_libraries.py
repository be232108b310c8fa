"""Libraries that have never heard of zttrio, on two networks of one lab."""

from __future__ import annotations

import socket as kernel
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
import trio
import trustme

from examples.http_client import serve_page
from zttrio.testing import Lab, Link

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from trio.testing import MockClock

    import zttrio

PAGE = b"<p>over a virtual Ethernet</p>\n" * 20_000  # many segments, but not many seconds
DELAY = 0.005


@asynccontextmanager
async def two_networks() -> AsyncGenerator[tuple[zttrio.Network, zttrio.Network, trio.Nursery]]:
    """A client's network, a server's called ``server.local``, and a nursery for services."""
    lab = Lab(seed=1, link=Link(delay=DELAY))
    async with (
        lab.network("server") as server,
        lab.network("client") as client,
        trio.open_nursery() as nursery,
    ):
        await server.wait_online()
        await client.wait_online()
        yield client, server, nursery
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("server.local").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echo(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.aclose()


def reasons(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def texts(network: zttrio.Network) -> set[str]:
    return {str(interface.ip) for interface in network.addresses}


async def test_httpx_fetches_a_page_by_name(autojump_clock: MockClock) -> None:
    async with two_networks() as (client, server, nursery):
        await nursery.start(partial(serve_page, server, 80, page=PAGE))
        with client.as_default():
            async with httpx.AsyncClient() as browser:
                response = await browser.get("http://server.local/")
    assert response.status_code == 200
    assert response.content == PAGE


async def test_httpx_times_out_in_virtual_time_when_the_server_says_nothing(
    autojump_clock: MockClock,
) -> None:
    async def say_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with two_networks() as (client, server, nursery):
        await nursery.start(server.serve_tcp, say_nothing, 80)
        with client.as_default():
            async with httpx.AsyncClient(timeout=3600) as browser:
                started = autojump_clock.current_time()
                with pytest.raises(httpx.ReadTimeout):
                    await browser.get("http://server.local/")
                assert 3600 <= autojump_clock.current_time() - started < 3601


async def test_httpx_says_refused_when_nobody_listens(autojump_clock: MockClock) -> None:
    async with two_networks() as (client, _, _):
        with client.as_default():
            async with httpx.AsyncClient() as browser:
                with pytest.raises(httpx.ConnectError):
                    await browser.get("http://server.local/")


async def test_httpx_verifies_a_certificate_over_tls(
    autojump_clock: MockClock,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            refused.set()  # the client did not like our certificate
        else:
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecret"
            )
        await stream.aclose()

    refused = trio.Event()

    async with two_networks() as (client, server, nursery):
        with server.as_default():
            await nursery.start(partial(trio.serve_ssl_over_tcp, answer, 443, server_context))
        with client.as_default():
            async with httpx.AsyncClient(verify=client_context) as browser:
                response = await browser.get("https://server.local/")
            async with httpx.AsyncClient() as browser:  # which does not know the authority
                with pytest.raises(httpx.ConnectError) as caught:
                    await browser.get("https://server.local/")
        await refused.wait()
    assert response.text == "secret"
    assert any(isinstance(reason, ssl.SSLCertVerificationError) for reason in reasons(caught.value))


async def test_tls_carries_a_megabyte_both_ways_and_ends_with_a_close_notify(
    autojump_clock: MockClock,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    payload = bytes(range(256)) * 4096

    async def tls_echo(stream: trio.SocketStream) -> None:
        await echo(trio.SSLStream(stream, server_context, server_side=True))

    async with two_networks() as (client, server, nursery):
        await nursery.start(server.serve_tcp, tls_echo, 4433)
        tcp = await client.open_tcp_stream("server.local", 4433)
        tls = trio.SSLStream(tcp, client_context, server_hostname="server.local")
        received = bytearray()
        async with trio.open_nursery() as both:
            both.start_soon(tls.send_all, payload)
            while len(received) < len(payload):
                received += await tls.receive_some()
        await tls.aclose()  # waits for the peer's close_notify, as https_compatible=False means
    assert received == payload


async def test_anyio_connects_and_sees_both_addresses(autojump_clock: MockClock) -> None:
    async with two_networks() as (client, server, nursery):
        await nursery.start(server.serve_tcp, echo, 7)
        with client.as_default():
            async with await anyio.connect_tcp("server.local", 7) as stream:
                await stream.send(b"hello from anyio")
                await stream.send_eof()
                answer = b"".join([data async for data in stream])
                peer = stream.extra(anyio.abc.SocketAttribute.remote_address)
                ours = stream.extra(anyio.abc.SocketAttribute.local_address)
            servers, clients = texts(server), texts(client)
    assert answer == b"hello from anyio"
    assert peer[0].partition("%")[0] in servers
    assert peer[1] == 7
    assert ours[0].partition("%")[0] in clients - servers


async def test_anyio_sends_datagrams(autojump_clock: MockClock) -> None:
    async with two_networks() as (client, server, _):
        with await server.open_udp_socket(13) as clock:
            address = str(server.addresses[0].ip)
            with client.as_default():
                async with await anyio.create_udp_socket(family=kernel.AF_INET) as sock:
                    await sock.sendto(b"what time is it?", address, 13)
                    question, asker = await clock.recvfrom(1024)
                    await clock.sendto(b"late", asker)
                    answer, source = await sock.receive()
    assert question == b"what time is it?"
    assert answer == b"late"
    assert source == (address, 13)


async def test_a_library_outside_the_block_still_uses_the_kernel(
    autojump_clock: MockClock,
) -> None:
    async with two_networks() as (client, _, _):
        with client.as_default(), trio.socket.socket() as inside:
            assert type(inside).__module__.startswith("zttrio.")
        with trio.socket.socket() as outside:
            assert type(outside).__module__.startswith("trio.")
