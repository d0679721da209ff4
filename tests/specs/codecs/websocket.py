"""WebSocket: addresses, requests, frames, and what the first bytes at a shared port are."""

from __future__ import annotations

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.interfaces import Opening
from p2pnet.swarm.resolver import at_ip
from p2pnet.transports.tcp_ports import opening_of
from p2pnet.transports.websocket.address import WebAddress, read, write
from p2pnet.transports.websocket.engine import BadFrame, FrameLimits, Frames, Heard, answer
from p2pnet.transports.websocket.heads import Refused
from tests.specs.forms import Fields

LIMITS = FrameLimits(1 << 20, 1 << 20)
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def read_all(given: Fields) -> list[dict[str, object]]:
    return [fields_of(read(parse(text))) for text in given["read"]]


def fields_of(web: WebAddress | None) -> dict[str, object]:
    if web is None:
        return {}
    return {"is_secure": web.is_secure, "host": web.host, "written": str(write(web))}


def resolve(given: Fields) -> list[Multiaddr]:
    return [at_ip(parse(text), given["to"]) for text in given["resolve"]]


def request(given: Fields) -> str:
    """Lines of text stand for lines that end as in HTTP; of a refusal, the first will do."""
    try:
        _, response = answer(given["request"].replace("\n", "\r\n").encode(), LIMITS)
    except Refused as refused:
        return refused.response.decode().partition("\r\n")[0]
    return response.decode().replace("\r\n", "\n")


def hear(given: Fields) -> list[Heard | dict[str, str]]:
    frames, _ = answer(REQUEST, LIMITS)
    return [heard_by(frames, bytes.fromhex(text)) for text in given["hear"]]


def heard_by(frames: Frames, data: bytes) -> Heard | dict[str, str]:
    try:
        return frames.receive(data)
    except BadFrame as error:
        return {"broken": error.reason, "farewell": error.farewell.hex()}


def opening(given: Fields) -> list[str]:
    found = [opening_of(bytes.fromhex(text), set(Opening)) for text in given["opening"]]
    return [each.name if each else "" for each in found]


FORMS = {
    "read": read_all,
    "resolve": resolve,
    "request": request,
    "hear": hear,
    "opening": opening,
}
