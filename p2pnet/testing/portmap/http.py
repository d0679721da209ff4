"""As much HTTP/1.1 as UPnP needs, the server's side: bytes in, bytes out.

Theory of operation: one connection carries one request and one answer; every answer says
``Connection: close``. What is received is kept until the head is whole, then until the body
is; both have a limit, and what breaks a rule is answered with its status and ends the
connection. Bodies come with Content-Length only, chunked ones get 411.

    HEAD --whole head--> BODY --whole body--> OVER
      |____________________|____ broken, or over a limit ___^
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from p2pnet.errors import ProtocolError
from p2pnet.testing.portmap.settings import PortMapConfig

NAME = "HTTP"
SERVER = "p2pnet-testing/1 UPnP/1.1 igd/1"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    505: "HTTP Version Not Supported",
}
END_OF_HEAD = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class Head:
    """The first line of a request, and its headers under lower-case names."""

    method: str
    target: str
    version: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpExchange:
    """One connection from a client, from its first byte to the answer."""

    def __init__(
        self, handle: Callable[[HttpRequest, float], HttpResponse], config: PortMapConfig
    ) -> None:
        self._handle = handle
        self._config = config
        self._buffer = bytearray()
        self._head: Head | None = None
        self._body_bytes = 0
        self._over = False

    @property
    def is_over(self) -> bool:
        """All is answered: send what ``receive`` returned, and close."""
        return self._over

    def receive(self, data: bytes, now: float) -> bytes:
        """Take bytes of the client, in any pieces; return what is to be sent."""
        if self._over:
            return b""
        self._buffer += data
        try:
            interim = b"" if self._head is not None else self._read_head()
        except HttpError as error:
            return self._finish(HttpResponse(error.status), "")
        if self._head is None or len(self._buffer) < self._body_bytes:
            return interim
        head, body = self._head, bytes(self._buffer[: self._body_bytes])
        request = HttpRequest(head.method, head.target.partition("?")[0], head.headers, body)
        return interim + self._finish(self._handle(request, now), head.method)

    def _read_head(self) -> bytes:
        end = self._buffer.find(END_OF_HEAD, 0, self._config.max_head_bytes)
        if end < 0:
            if len(self._buffer) >= self._config.max_head_bytes:
                raise HttpError(431, "a head that is too long")
            return b""
        head = decode_head(bytes(self._buffer[:end]), max_headers=self._config.max_headers)
        if head.version not in ("HTTP/1.0", "HTTP/1.1"):
            raise HttpError(505, "another version")
        self._body_bytes = body_bytes(head.headers)
        if self._body_bytes > self._config.max_body_bytes:
            raise HttpError(413, "a body that is too long")
        del self._buffer[: end + len(END_OF_HEAD)]
        self._head = head
        waits = head.headers.get("expect", "").lower() == "100-continue"
        return CONTINUE if waits and len(self._buffer) < self._body_bytes else b""

    def _finish(self, response: HttpResponse, method: str) -> bytes:
        self._over = True
        self._buffer.clear()
        return encode_response(response, with_body=method != "HEAD")


class HttpError(ProtocolError):
    """The client broke a rule; answered with ``status``."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(NAME, reason)
        self.status = status


def decode_head(data: bytes, *, max_headers: int) -> Head:
    """Read the head of a message without the empty line that ends it.

    Raises:
        HttpError: if it is none.
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not all(words) or not TOKEN.issuperset(words[0]):
        raise HttpError(400, "a first line that is none")
    if len(lines) > max_headers:
        raise HttpError(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not TOKEN.issuperset(name):
            raise HttpError(400, "a header that is none")
        name, value = name.lower(), value.strip(" \t")
        if headers.setdefault(name, value) != value and name == "content-length":
            raise HttpError(400, "two lengths")
    method, target, version = words
    return Head(method, target, version, headers)


def body_bytes(headers: Mapping[str, str]) -> int:
    """Return how long the body is.

    Raises:
        HttpError: if that is not said in digits.
    """
    if "transfer-encoding" in headers:
        raise HttpError(411, "a body in chunks")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise HttpError(400, "a length that is none")
    if len(text) > 9:
        raise HttpError(413, "a body that is too long")
    return int(text)


def encode_response(response: HttpResponse, *, with_body: bool = True) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {REASONS[response.status]}",
        f"Content-Length: {len(response.body)}",
        "Connection: close",
        f"Server: {SERVER}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    head = "\r\n".join(lines).encode() + END_OF_HEAD
    return head + response.body if with_body else head
