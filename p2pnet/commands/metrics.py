"""Metrics of a relay for Prometheus: plain text over as much HTTP/1.1 as a scrape takes.

Whoever connects gets one answer, within fixed times, bytes and numbers of clients. Rules:
specs/relay.md (R40, R41).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream, Network
from p2pnet.core.tasks import boundary, close_at_once
from p2pnet.core.version import AGENT
from p2pnet.errors import ProtocolError
from p2pnet.host.host import Host
from p2pnet.protocols.relay import RelayServer

logger = logging.getLogger("p2pnet.metrics")

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_CLIENTS = 16
MAX_REQUEST_BYTES = 8_192
CLIENT_SECONDS = 5.0
"""For a request to arrive and its answer to leave."""
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
}

Labels = Mapping[str, str]


# ---- what is told ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of samples; a name that ends in ``_total`` only grows."""

    name: str
    about: str
    samples: Iterable[tuple[Labels, float]]

    def lines(self) -> Iterable[str]:
        kind = "counter" if self.name.endswith("_total") else "gauge"
        yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} {kind}"
        for labels, value in self.samples:
            inner = ",".join(f'{name}="{escape(text)}"' for name, text in labels.items())
            yield f"{self.name}{{{inner}}} {value:.15g}" if inner else f"{self.name} {value:.15g}"


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def alone(value: float) -> Iterable[tuple[Labels, float]]:
    return [({}, value)]


def exposition(host: Host) -> str:
    """Say what a relay carries, has done and allows, in the text format of Prometheus (R40)."""
    metrics = (*of_host(host), *of_relay(host))
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def of_host(host: Host) -> Iterable[Metric]:
    version = {"version": AGENT, "peer_id": str(host.peer_id)}
    yield Metric("p2pnet_info", "Which program this is, and which peer.", [(version, 1)])
    yield Metric("p2pnet_connections", "Live connections.", alone(len(host.connections())))
    turned_away = host.turned_away
    refused = [({"limit": limit}, count) for limit, count in turned_away.refused.items()]
    yield Metric("p2pnet_connections_refused_total", "Those there was no room for.", refused)
    yield Metric("p2pnet_connections_trimmed_total", "Idle ones.", alone(turned_away.trimmed))


def of_relay(host: Host) -> Iterable[Metric]:
    service = host.service(RelayServer)
    now = service.statistics()
    relay = "p2pnet_relay_"
    yield Metric(f"{relay}reservations", "Peers that can be called here.", alone(now.reservations))
    granted = (("false", now.reservations_granted), ("true", now.reservations_renewed))
    yield Metric(
        f"{relay}reservations_granted_total",
        "Reservations, and renewals.",
        [({"renewal": renewal}, count) for renewal, count in granted],
    )
    yield Metric(
        f"{relay}reservations_ended_total",
        "Reservations that ended, by reason.",
        [({"reason": reason}, count) for reason, count in now.reservations_ended.items()],
    )
    yield Metric(
        f"{relay}refused_total",
        "Requests that were refused, and the limit that said no.",
        [
            ({"request": way.request, "status": way.status, "limit": way.limit}, count)
            for way, count in now.refused.items()
        ],
    )
    yield Metric(f"{relay}circuits", "Circuits, open or being opened.", alone(now.circuits))
    yield Metric(f"{relay}circuits_opened_total", "Circuits.", alone(now.circuits_opened))
    yield Metric(
        f"{relay}circuits_closed_total",
        "Circuits that ended, by what ended them.",
        [({"cause": cause}, count) for cause, count in now.circuits_closed.items()],
    )
    carried = (("forward", now.bytes_forward), ("backward", now.bytes_backward))
    yield Metric(
        f"{relay}bytes_total",
        "Bytes carried: forward is to those who were called.",
        [({"direction": direction}, count) for direction, count in carried],
    )
    yield Metric(
        f"{relay}buffered_bytes", "Bytes read and not passed on yet.", alone(now.buffered_bytes)
    )
    limits = [({"name": name}, value) for name, value in service.limits.items() if value]
    yield Metric(f"{relay}limit", "The limits; one that is absent is none.", limits)


# ---- over HTTP ---------------------------------------------------------------------------


async def serve_metrics(
    network: Network,
    local: Endpoint,
    tell: Callable[[], str],
    *,
    task_status: trio.TaskStatus[Endpoint],
) -> None:
    """Answer scrapes until cancelled; start with where it listens. Raises OSError."""
    listener = await network.listen_tcp(local)
    clients = 0

    async def serve(stream: ByteStream) -> None:
        nonlocal clients
        try:
            with boundary(logger, f"a client of the metrics at {stream.remote.host}"):
                with trio.fail_after(CLIENT_SECONDS):
                    await answer(stream, tell)
        finally:
            await close_at_once(stream)
            clients -= 1

    try:
        async with trio.open_nursery() as nursery:
            task_status.started(listener.local)
            while True:
                stream = await listener.accept()
                if clients == MAX_CLIENTS:  # R41
                    await close_at_once(stream)
                else:
                    clients += 1
                    nursery.start_soon(serve, stream)
    finally:
        await close_at_once(listener)


async def answer(stream: ByteStream, tell: Callable[[], str]) -> None:
    """Read one request and answer it."""
    body, kind = "", "text/plain"
    try:
        method, target = parse_request(await read_head(stream))
        status = judge(method, target)
        if status == 200:
            body, kind = tell(), CONTENT_TYPE
    except ProtocolError as error:
        method, status = "GET", 431 if error.reason == TOO_LARGE else 400
    body = body or f"{status} {REASONS[status]}: see {PATH}\n"
    data = body.encode()
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status == 405 else []),
    ]
    head = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
    await stream.send_all(head + (b"" if method == "HEAD" else data))
    await stream.send_eof()


NAME = "HTTP"
TOO_LARGE = f"a request of more than {MAX_REQUEST_BYTES} bytes"


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    """Read a request, whose body is nobody's business.

    Raises:
        ProtocolError: if it is too large, or ends early.
    """
    head = bytearray()
    while b"\r\n\r\n" not in head:
        chunk = await stream.receive_some(MAX_REQUEST_BYTES + 1 - len(head))
        if not chunk:
            raise ProtocolError(NAME, "the request ended early")
        head += chunk
        if len(head) > MAX_REQUEST_BYTES:
            raise ProtocolError(NAME, TOO_LARGE)
    return bytes(head)


def parse_request(head: bytes) -> tuple[str, str]:
    """Return the method and the target of a request.

    Raises:
        ProtocolError: if it is none.
    """
    line = head.partition(b"\r\n")[0]
    parts = line.decode("ascii", "replace").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise ProtocolError(NAME, "that is no request of HTTP/1")
    return parts[0], parts[1]


def judge(method: str, target: str) -> int:
    """Return the status that a request gets."""
    if method not in ("GET", "HEAD"):
        return 405
    return 200 if target.partition("?")[0] == PATH else 404
