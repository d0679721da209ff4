"""Frames of ``/p2pnet/resume/1.0.0``: their bytes, and a decoder that never holds the data.

A frame is one byte that says its kind, a varint that says how long its body is, and the body.
Rules: specs/resume.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from p2pnet.core import varint
from p2pnet.errors import ProtocolError

PROTOCOL_ID = "/p2pnet/resume/1.0.0"
MAX_DATA = 1 << 20
"""Bytes in one DATA frame."""
MAX_BODY = 512
"""Bytes in the body of any other frame."""
MAX_PROTOCOL_BYTES = 256
TOKEN_BYTES = 16
SMALLEST_WINDOW = 65_536
"""Bytes an opener may send before the answer tells it how many it really may."""
MAX_CODE = 0xFFFFFFFF
DATA = 7


class Why(IntEnum):
    """Why a stream is refused, or cannot move."""

    NOT_SERVED = 1
    TOO_MANY = 2
    UNKNOWN = 3
    STALE = 4


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a stream. First frame on a carrier."""

    secret: bytes = field(repr=False)
    limit: int
    """The receiver takes bytes up to this offset."""
    protocol: str


@dataclass(frozen=True, slots=True)
class Accept:
    limit: int


@dataclass(frozen=True, slots=True)
class Refuse:
    why: Why


@dataclass(frozen=True, slots=True)
class Move:
    """Carry a stream on over this carrier. First frame on it."""

    name: bytes
    number: int
    proof: bytes = field(repr=False)
    received: int
    """How much of what the other side sends has come; the FIN counts as one."""
    limit: int
    is_alive: bool
    """The old carrier works still: what is on its way there will be read."""


@dataclass(frozen=True, slots=True)
class Moved:
    received: int
    limit: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the opener to move a stream to this connection. First and only frame on its carrier."""

    name: bytes
    number: int
    """The last MOVE that was seen."""
    proof: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Seek:
    """The next DATA on this carrier begins at this offset."""

    offset: int


@dataclass(frozen=True, slots=True)
class Fin:
    """There is no more data."""


@dataclass(frozen=True, slots=True)
class Ack:
    received: int
    limit: int


@dataclass(frozen=True, slots=True)
class Again:
    """Send once more from here on: the carrier that brought these bytes is gone."""

    received: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Say so by ACK once all before this offset has come."""

    offset: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody reads here any more."""


@dataclass(frozen=True, slots=True)
class Reset:
    code: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing more comes on this carrier; it goes on over another."""


Frame: TypeAlias = (
    Open
    | Accept
    | Refuse
    | Move
    | Moved
    | Ask
    | Seek
    | Fin
    | Ack
    | Again
    | Mark
    | Stop
    | Reset
    | Leave
)


Data: TypeAlias = bytes | bytearray | memoryview
"""A piece of the application's data."""


# ---- writing -----------------------------------------------------------------------------


def encode(frame: Frame) -> bytes:
    kind, body = _numbered(frame)
    return bytes((kind,)) + varint.encode(len(body)) + body


def data_header(length: int) -> bytes:
    return b"\x07" + varint.encode(length)


def _numbered(frame: Frame) -> tuple[int, bytes]:
    match frame:
        case Open(secret, limit, protocol):
            return 1, secret + varint.encode(limit) + protocol.encode()
        case Move(name, number, proof, received, limit, is_alive):
            numbers = _numbers(number, received, limit, int(is_alive))
            return 4, name + proof + numbers
        case Ask(name, number, proof):
            return 6, name + proof + varint.encode(number)
        case _:
            return _numbered_simple(frame)


def _numbered_simple(frame: Frame) -> tuple[int, bytes]:
    """Write a frame that has nothing but numbers in it, or not even those."""
    match frame:
        case (
            Accept(value) | Refuse(value) | Seek(value) | Again(value) | Mark(value) | Reset(value)
        ):
            return SIMPLE[type(frame)], varint.encode(value)
        case Moved(received, limit) | Ack(received, limit):
            return SIMPLE[type(frame)], _numbers(received, limit)
        case _:
            return SIMPLE[type(frame)], b""


def _numbers(*values: int) -> bytes:
    return b"".join(map(varint.encode, values))


SIMPLE: Mapping[type[object], int] = {
    Accept: 2,
    Refuse: 3,
    Moved: 5,
    Seek: 8,
    Fin: 9,
    Ack: 10,
    Again: 11,
    Stop: 12,
    Reset: 13,
    Leave: 14,
    Mark: 15,
}


# ---- reading -----------------------------------------------------------------------------


class Body:
    """Reads the fields of a body, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, max_value: int = varint.MAX_VALUE) -> int:
        found = varint.decode_untrusted(
            self._data, self._at, max_value=max_value, protocol_id=PROTOCOL_ID
        )
        if found is None:
            raise ProtocolError(PROTOCOL_ID, "a frame that is cut short")
        value, self._at = found
        return value

    def token(self) -> bytes:
        token = self._data[self._at : self._at + TOKEN_BYTES]
        if len(token) < TOKEN_BYTES:
            raise ProtocolError(PROTOCOL_ID, "a frame that is cut short")
        self._at += TOKEN_BYTES
        return token

    def protocol(self) -> str:
        raw = self._data[self._at :]
        self._at = len(self._data)
        if not raw.startswith(b"/") or len(raw) > MAX_PROTOCOL_BYTES:
            raise ProtocolError(PROTOCOL_ID, "that is no name of a protocol")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ProtocolError(PROTOCOL_ID, "the name of a protocol is not UTF-8") from None

    def why(self) -> Why:
        number = self.number()
        if number not in Why.__members__.values():
            raise ProtocolError(PROTOCOL_ID, f"a refusal of unknown kind {number}")
        return Why(number)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ProtocolError(PROTOCOL_ID, "a frame that is too long")


def _open(body: Body) -> Open:
    return Open(body.token(), body.number(), body.protocol())


def _move(body: Body) -> Move:
    name, proof, number = body.token(), body.token(), body.number()
    return Move(name, number, proof, body.number(), body.number(), bool(body.number(1)))


def _ask(body: Body) -> Ask:
    name, proof = body.token(), body.token()
    return Ask(name, body.number(), proof)


READERS: Mapping[int, Callable[[Body], Frame]] = {
    1: _open,
    2: lambda body: Accept(body.number()),
    3: lambda body: Refuse(body.why()),
    4: _move,
    5: lambda body: Moved(body.number(), body.number()),
    6: _ask,
    8: lambda body: Seek(body.number()),
    9: lambda _: Fin(),
    10: lambda body: Ack(body.number(), body.number()),
    11: lambda body: Again(body.number()),
    12: lambda _: Stop(),
    13: lambda body: Reset(body.number(MAX_CODE)),
    14: lambda _: Leave(),
    15: lambda body: Mark(body.number()),
}


def decode_untrusted(kind: int, data: bytes) -> Frame:
    """Read the body of a frame that is no DATA.

    Raises:
        ProtocolError: if there is no such frame, or it is malformed.
    """
    reader = READERS.get(kind)
    if reader is None:
        raise ProtocolError(PROTOCOL_ID, f"a frame of unknown kind {kind}")
    body = Body(data)
    frame = reader(body)
    body.finish()
    return frame


class Decoder:
    """Cuts what comes on a carrier into frames, and pieces of data as they come."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._kind = 0
        self._left: int | None = None
        """Bytes of the current body that are to come; None while its header is incomplete."""
        self._body = bytearray()

    def wanted(self) -> int:
        """Tell how much may be read without reading past the current frame."""
        return 1 if self._left is None else self._left

    def feed(self, data: bytes | bytearray) -> list[Frame | Data]:
        """Take bytes; return the frames that are complete, and pieces of data, in their order.

        Data that comes by itself is returned as the very object that was given.

        Raises:
            ProtocolError: if a frame is malformed or too large.
        """
        found: list[Frame | Data] = []
        if self._kind == DATA and self._left is not None and self._left >= len(data):
            self._left = self._left - len(data) or None
            return [data]
        view = memoryview(data)
        at = 0
        while at < len(view):
            if self._left is None:
                self._read_header(view[at])
                at += 1
            else:
                stop = min(at + self._left, len(view))
                self._left -= stop - at
                if self._kind == DATA:
                    found.append(view[at:stop])
                else:
                    self._body += view[at:stop]
                at = stop
            if self._left == 0:
                self._complete(found)
        return found

    def _read_header(self, byte: int) -> None:
        self._header.append(byte)
        self._kind = self._header[0]
        maximum = MAX_DATA if self._kind == DATA else MAX_BODY
        length = varint.decode_untrusted(
            self._header, 1, max_value=maximum, protocol_id=PROTOCOL_ID
        )
        if length is None:
            return
        self._left = length[0]
        self._header.clear()
        if self._kind == DATA and not self._left:
            raise ProtocolError(PROTOCOL_ID, "DATA without data")

    def _complete(self, found: list[Frame | Data]) -> None:
        self._left = None
        if self._kind != DATA:
            body, self._body = bytes(self._body), bytearray()
            found.append(decode_untrusted(self._kind, body))
