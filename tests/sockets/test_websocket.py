"""WebSocket conforms on real sockets; and hosts share one port for all there is over TCP."""

from __future__ import annotations

import pytest
import trio

from p2pnet import HostConfig, Identify, Noise, Ping, Yamux, open_host
from p2pnet.core.addresses import components
from p2pnet.core.env import Env
from p2pnet.errors import DialError, SecurityError
from p2pnet.host.host import Host
from p2pnet.testing.conformance import TransportCheck, transport_cases
from p2pnet.transports.tcp import TCP
from p2pnet.transports.websocket import WebSocket
from tests.transports.websocket.web_authority import Authority

pytestmark = pytest.mark.sockets

AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("127.0.0.1", "localhost")
SECURE = WebSocket(certificate=ISSUED.certificate, key=ISSUED.key, authorities=AUTHORITY.pem)


@pytest.mark.parametrize("form", ["ws", "tls/ws", "tls/sni/localhost/ws"])
@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_websocket_conforms_on_loopback(rule: str, check: TransportCheck, form: str) -> None:
    assert rule == check.rule
    await check(SECURE, listen=f"/ip4/127.0.0.1/tcp/0/{form}", env=Env.system())


def config(*listen: str, web: WebSocket = SECURE) -> HostConfig:
    return HostConfig(
        listen=listen,
        transports=[TCP(), web],
        security=[Noise()],
        muxers=[Yamux()],
        services=[Identify(), Ping()],
    )


async def free_port() -> int:
    """Return a port that was free a moment ago."""
    async with open_host(config("/ip4/127.0.0.1/tcp/0")) as host:
        return port_of(host)


def port_of(host: Host) -> int:
    return int(dict(components(host.addresses.value[0]))["tcp"])


async def test_w20_one_port_serves_all_three_and_a_plain_http_client() -> None:
    port = await free_port()
    base = f"/ip4/127.0.0.1/tcp/{port}"
    every = [base, f"{base}/ws", f"{base}/tls/ws"]
    async with open_host(config(*every)) as host:
        told = {str(address) for address in host.addresses.value}
        assert told == {f"{address}/p2p/{host.peer_id}" for address in every}
        for address in [*every, f"/dns4/localhost/tcp/{port}/tls/ws", f"{base}/wss"]:
            async with open_host(config()) as guest:
                connection = await guest.connect(f"{address}/p2p/{host.peer_id}")
                assert await guest.service(Ping).ping(host.peer_id) < 5
                (inbound,) = host.connections(guest.peer_id)
                assert inbound.is_inbound
                assert names(inbound.local_address) == names(connection.local_address)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            said = b"".join([chunk async for chunk in stream])
        assert said.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")


def names(address: object) -> list[str]:
    return [part for part in str(address).split("/") if part.isalpha()]


async def test_w24_dials_leave_from_the_shared_port() -> None:
    one, other = await free_port(), await free_port()
    listen = [f"/ip4/127.0.0.1/tcp/{one}{form}" for form in ("", "/ws", "/tls/ws")]
    async with open_host(config(*listen)) as host:
        for form in ("", "/ws", "/tls/ws"):
            address = f"/ip4/127.0.0.1/tcp/{other}{form}"
            async with open_host(config(address)) as remote:
                connection = await host.connect(f"{address}/p2p/{remote.peer_id}")
                assert str(connection.local_address) == f"/ip4/127.0.0.1/tcp/{one}{form}"


@pytest.mark.parametrize(
    ("web", "form", "reason"),
    [
        (WebSocket(), "tls/ws", "self-signed|self signed|unable to get"),
        (WebSocket(authorities=AUTHORITY.pem), "tls/sni/other.example/ws", "other.example"),
    ],
)
async def test_w14_a_certificate_that_is_not_trusted_is_refused(
    web: WebSocket, form: str, reason: str
) -> None:
    async with open_host(config("/ip4/127.0.0.1/tcp/0/tls/ws")) as host:
        async with open_host(config(web=web)) as guest:
            with pytest.raises(DialError) as caught:
                await guest.connect(f"/ip4/127.0.0.1/tcp/{port_of(host)}/{form}/p2p/{host.peer_id}")
            (attempt,) = caught.value.attempts
            assert isinstance(attempt.cause, SecurityError)
            with pytest.raises(SecurityError, match=reason):
                raise attempt.cause
