"""Heads of HTTP messages: where one ends, and what a server says to those it refuses. Pure.

Rules: specs/websocket.md (W4, W5).
"""

from __future__ import annotations

import re

from p2pnet.errors import NegotiationFailed, ProtocolError

NAME = "websocket"
END = b"\r\n\r\n"
REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (\S+) HTTP/(\d\.\d)\r\n")
UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    505: "HTTP Version Not Supported",
}


class UpgradeRefused(NegotiationFailed):
    """The HTTP server does not turn into a WebSocket; ``status`` is its word for it."""

    def __init__(self, status: int) -> None:
        super().__init__((NAME,))
        self.status = status

    def __str__(self) -> str:
        return f"the server speaks no WebSocket there: it answers with HTTP status {self.status}"


class Refused(ProtocolError):
    """A request that is refused; ``response`` is what to tell the client."""

    def __init__(self, status: int, reason: str, *headers: str) -> None:
        super().__init__(NAME, f"{reason} ({status})")
        self.status = status
        self.response = response(status, reason, headers)


def response(status: int, reason: str, headers: tuple[str, ...]) -> bytes:
    body = f"{reason}\n".encode()
    lines = (
        f"HTTP/1.1 {status} {REASONS[status]}",
        *headers,
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + END + body


def split_head(heard: bytes, maximum: int) -> tuple[bytes, bytes] | None:
    """Return the head and what is behind it; None if more is to come.

    Raises:
        Refused: if it is too long.
    """
    end = heard.find(END, 0, maximum)
    if end >= 0:
        return heard[: end + len(END)], heard[end + len(END) :]
    if len(heard) >= maximum:  # W4
        raise Refused(431, f"a head of more than {maximum} bytes")
    return None


def is_request(head: bytes) -> bool:
    return REQUEST_LINE.match(head) is not None


def check_request(head: bytes) -> None:
    """Refuse what is no request to become a WebSocket, by the status that says why (W5).

    Raises:
        Refused: if so.
    """
    line = REQUEST_LINE.match(head)
    if line is None:
        raise Refused(400, "this is no HTTP request")
    method, _, version = line.groups()
    if version != b"1.1":
        raise Refused(505, "only HTTP/1.1 is spoken here")
    if method != b"GET":
        raise Refused(405, "only GET is allowed", "Allow: GET")
    if UPGRADE.search(head) is None:
        raise Refused(
            426, "only WebSocket is spoken here", "Upgrade: websocket", "Sec-WebSocket-Version: 13"
        )
