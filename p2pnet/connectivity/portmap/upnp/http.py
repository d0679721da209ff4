"""As much HTTP/1.1 as UPnP takes, the client's side: bytes in, an answer out. Pure. Rule PM15.

Theory of operation: one connection carries one request. The reader keeps what came until the
head is whole, then until the body is, whose end is told in one of three ways::

    HEAD --whole--> BODY --+-- Content-Length bytes are there ----> answer
                           +-- chunks, and the last one is there --> answer
                           `-- the connection ends -------------->  answer

Redirects are not followed; what is over a limit is an error as soon as it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from p2pnet.errors import ProtocolError

NAME = "HTTP"
MAX_HEAD_BYTES = 8_192
MAX_HEADERS = 64
MAX_BODY_BYTES = 131_072
MAX_CHUNK_LINE = 256
MAX_INTERIM = 4
"""Answers of the kind "100 Continue" before the real one."""
END_OF_LINE = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Head:
    """The first line, and the headers under lower-case names; of equal ones, the first."""

    first: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def encode_request(
    method: str,
    target: str,
    *,
    host: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "Connection: close",
        "User-Agent: p2pnet/0.1 UPnP/1.1",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("ascii") + END_OF_HEAD + body


def decode_head_untrusted(data: bytes) -> Head:
    """Read the head of a message, without the empty line that ends it.

    Raises:
        ProtocolError: if it has too many headers, or one that is none.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise ProtocolError(NAME, "a head that is too long")
    first, *lines = data.decode("latin-1").replace("\r\n", "\n").split("\n")
    if len(lines) > MAX_HEADERS:
        raise ProtocolError(NAME, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError(NAME, "a header without a name")
        headers.setdefault(name.strip().lower(), value.strip())
    return Head(first, headers)


def status_of(head: Head) -> int:
    """Return the status of an answer's head.

    Raises:
        ProtocolError: if it begins as no answer does.
    """
    words = head.first.split(" ", 2)
    well_formed = len(words) >= 2 and words[0] in ("HTTP/1.0", "HTTP/1.1")
    if not well_formed or not is_number(words[1], digits=3):
        raise ProtocolError(NAME, f"not an answer: {head.first[:64]!r}")
    return int(words[1])


def is_number(text: str, *, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


class AnswerReader:
    """Takes the bytes of one answer, in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._status = 0
        self._length: int | None = None
        self._chunks: Chunks | None = None
        self._has_head = False
        self._interim = 0

    def receive(self, data: bytes) -> Answer | None:
        """Take bytes; return the answer once it is whole.

        Raises:
            ProtocolError: if it breaks a rule, or a limit.
        """
        self._buffer += data
        while not self._has_head:
            if not self._read_head():
                return None
        if self._chunks is not None:
            body = self._chunks.read(self._buffer)
            return None if body is None else Answer(self._status, body)
        if self._length is None:
            if len(self._buffer) > MAX_BODY_BYTES:
                raise ProtocolError(NAME, "a body that is too long")
            return None
        if len(self._buffer) < self._length:
            return None
        return Answer(self._status, bytes(self._buffer[: self._length]))

    def end(self) -> Answer:
        """Return the answer now that the connection has ended.

        Raises:
            ProtocolError: if it is not whole.
        """
        if not self._has_head or self._length is not None or self._chunks is not None:
            raise ProtocolError(NAME, "the answer ends early")
        return Answer(self._status, bytes(self._buffer))

    def _read_head(self) -> bool:
        end = self._buffer.find(END_OF_HEAD)
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise ProtocolError(NAME, "a head that is too long")
        if end < 0:
            return False
        head = decode_head_untrusted(bytes(self._buffer[:end]))
        del self._buffer[: end + len(END_OF_HEAD)]
        self._status = status_of(head)
        if self._status < 200:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise ProtocolError(NAME, "too many answers that are none yet")
            return True
        self._has_head = True
        if "transfer-encoding" in head.headers:
            if head.headers["transfer-encoding"].lower() != "chunked":
                raise ProtocolError(NAME, "an unknown transfer encoding")
            self._chunks = Chunks()
        elif "content-length" in head.headers:
            self._length = read_length(head.headers["content-length"])
        return True


def read_length(text: str) -> int:
    if not is_number(text, digits=9):
        raise ProtocolError(NAME, "a length that is none")
    if int(text) > MAX_BODY_BYTES:
        raise ProtocolError(NAME, "a body that is too long")
    return int(text)


class Chunks:
    """A body in chunks: each behind its length in hexadecimal, and one of length 0 at the end."""

    def __init__(self) -> None:
        self._body = bytearray()

    def read(self, buffer: bytearray) -> bytes | None:
        """Take whole chunks off the buffer; return the body once the last one was there."""
        while True:
            end = buffer.find(END_OF_LINE)
            if end > MAX_CHUNK_LINE or (end < 0 and len(buffer) > MAX_CHUNK_LINE):
                raise ProtocolError(NAME, "a chunk without a length")
            if end < 0:
                return None
            length = read_hexadecimal(bytes(buffer[:end]))
            if length == 0:
                return bytes(self._body)
            if len(self._body) + length > MAX_BODY_BYTES:
                raise ProtocolError(NAME, "a body that is too long")
            start = end + len(END_OF_LINE)
            stop = start + length
            if len(buffer) < stop + len(END_OF_LINE):
                return None
            if buffer[stop : stop + len(END_OF_LINE)] != END_OF_LINE:
                raise ProtocolError(NAME, "a chunk of another length than it says")
            self._body += buffer[start:stop]
            del buffer[: stop + len(END_OF_LINE)]


def read_hexadecimal(line: bytes) -> int:
    digits = line.partition(b";")[0].strip().lower()
    if not 0 < len(digits) <= 8 or digits.strip(b"0123456789abcdef"):
        raise ProtocolError(NAME, "a chunk without a length")
    return int(digits, 16)
