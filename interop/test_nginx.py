"""nginx as a reverse proxy before a WebSocket listener: plain, and speaking TLS for it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from interop.conftest import unavailable
from interop.ports import free_port
from p2pnet import HostConfig, Identify, Noise, Ping, Stream, WebSocket, Yamux, open_host
from p2pnet.core.addresses import components
from p2pnet.errors import DialError, NegotiationFailed, SecurityError
from p2pnet.events import ConnectionClosed
from p2pnet.host.host import Host
from tests.transports.websocket.web_authority import Authority

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
NAME = "p2p.example"
ECHO = "/test/echo/1.0.0"
MEBIBYTES = 10
READY_SECONDS = 20.0
CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;

    server {{
        listen 127.0.0.1:{plain} default_server;
        listen 127.0.0.1:{secure} ssl default_server;
        return 404;
    }}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{secure} ssl;
        server_name localhost {name};
        location / {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """A running nginx."""

    plain: int
    secure: int
    authority: Authority

    @property
    def web(self) -> WebSocket:
        return WebSocket(authorities=self.authority.pem)


@pytest.fixture
def nginx() -> str:
    if not Path(NGINX).exists():
        unavailable("nginx is not installed: apt install nginx-light")
    return NGINX


@asynccontextmanager
async def proxying(nginx: str, folder: Path, backend: int) -> AsyncGenerator[Proxy]:
    """Run nginx before a port for as long as the block lasts."""
    authority = Authority()
    issued = authority.issue(NAME, "localhost", "127.0.0.1")
    (folder / "certificate.pem").write_bytes(issued.certificate)
    (folder / "key.pem").write_bytes(issued.key)
    plain, secure = free_port(), free_port()
    path = folder / "nginx.conf"
    path.write_text(
        CONFIG.format(folder=folder, name=NAME, plain=plain, secure=secure, backend=backend)
    )
    with (folder / "log").open("w") as log:
        argv = [nginx, "-p", str(folder), "-e", "stderr", "-c", str(path)]
        process = await trio.lowlevel.open_process(argv, stderr=log, stdin=subprocess.DEVNULL)
    try:
        with trio.fail_after(READY_SECONDS):
            for port in (plain, secure):
                await until_open(port, process, folder / "log")
        yield Proxy(plain, secure, authority)
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            await process.wait()


async def until_open(port: int, process: trio.Process, log: Path) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            check_runs(process, log)
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return


def check_runs(process: trio.Process, log: Path) -> None:
    assert process.poll() is None, log.read_text()


def port_of(host: Host) -> int:
    return int(dict(components(host.addresses.value[0]))["tcp"])


def config(web: WebSocket, *listen: str) -> HostConfig:
    return HostConfig(
        listen=listen,
        transports=[web],
        security=[Noise()],
        muxers=[Yamux()],
        services=[Identify(), Ping()],
    )


@asynccontextmanager
async def serving() -> AsyncGenerator[Host]:
    """Run a host that echoes, behind no proxy yet."""

    async def echo(stream: Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async with open_host(config(WebSocket(), "/ip4/127.0.0.1/tcp/0/ws")) as host:
        host.handle(ECHO, echo)
        yield host


@pytest.mark.parametrize(
    "form",
    [
        "/dns4/localhost/tcp/{plain}/ws",
        "/dns4/localhost/tcp/{secure}/tls/ws",
        "/dns4/localhost/tcp/{secure}/wss",
        f"/ip4/127.0.0.1/tcp/{{secure}}/tls/sni/{NAME}/ws",
    ],
)
async def test_w3_w15_much_goes_through_nginx_and_back(
    nginx: str, tmp_path: Path, form: str
) -> None:
    async with serving() as host, proxying(nginx, tmp_path, port_of(host)) as proxy:
        address = form.format(plain=proxy.plain, secure=proxy.secure)
        async with open_host(config(proxy.web)) as guest:
            connection = await guest.connect(f"{address}/p2p/{host.peer_id}")
            assert connection.peer_id == host.peer_id
            assert await guest.service(Ping).ping(host.peer_id) < 5
            async with await guest.open_stream(host.peer_id, ECHO) as stream:
                assert await echoed(stream) == digest(*blocks())
            with host.subscribe(ConnectionClosed) as closed, trio.fail_after(5):
                await connection.aclose()
                assert (await anext(closed)).connection.peer_id == guest.peer_id


def blocks() -> list[bytes]:
    return [hashlib.sha256(bytes([n])).digest() * (1 << 15) for n in range(MEBIBYTES)]


def digest(*data: bytes) -> str:
    total = hashlib.sha256()
    for each in data:
        total.update(each)
    return total.hexdigest()


async def echoed(stream: Stream) -> str:
    total = hashlib.sha256()

    async def send() -> None:
        for block in blocks():
            await stream.send_all(block)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async for chunk in stream:
            total.update(chunk)
    return total.hexdigest()


@pytest.mark.parametrize(
    ("form", "status"),
    [("/ip4/127.0.0.1/tcp/{plain}/ws", 404), ("/ip4/127.0.0.1/tcp/{secure}/tls/ws", 404)],
)
async def test_w3_w7_without_the_name_nginx_does_not_know_what_is_meant(
    nginx: str, tmp_path: Path, form: str, status: int
) -> None:
    async with serving() as host, proxying(nginx, tmp_path, port_of(host)) as proxy:
        address = form.format(plain=proxy.plain, secure=proxy.secure)
        error = await refused(proxy.web, f"{address}/p2p/{host.peer_id}")
        assert isinstance(error, NegotiationFailed)
        assert str(status) in str(error)


async def test_w7_nginx_tells_that_nobody_is_behind_it(nginx: str, tmp_path: Path) -> None:
    async with serving() as host:
        peer_id = host.peer_id
    async with proxying(nginx, tmp_path, free_port()) as proxy:
        address = f"/dns4/localhost/tcp/{proxy.plain}/ws/p2p/{peer_id}"
        error = await refused(proxy.web, address)
        assert "502" in str(error)


async def test_w14_a_certificate_for_another_name_is_refused(nginx: str, tmp_path: Path) -> None:
    async with serving() as host, proxying(nginx, tmp_path, port_of(host)) as proxy:
        base = f"/ip4/127.0.0.1/tcp/{proxy.secure}/tls/sni"
        error = await refused(proxy.web, f"{base}/other.example/ws/p2p/{host.peer_id}")
        assert isinstance(error, SecurityError)
        error = await refused(WebSocket(), f"{base}/{NAME}/ws/p2p/{host.peer_id}")
        assert isinstance(error, SecurityError)


async def refused(web: WebSocket, address: str) -> BaseException:
    async with open_host(config(web)) as guest:
        with pytest.raises(DialError) as caught:
            await guest.connect(address)
        (attempt,) = caught.value.attempts
        return attempt.cause
