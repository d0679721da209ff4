"""WebSocket without I/O: the handshake of each side, and frames. The one door to wsproto.

client                                        server
  | -- GET / HTTP/1.1, Upgrade: websocket -->   |   ask      answer
  | <-- 101 Switching Protocols -------------   |   answered
  | <==== binary frames, in both directions ==> |   Frames
  | -- close ------------------------------->   |
  | <------------------------------- close --   |

Frames carry a stream of bytes: where a message ends means nothing. Payload is handed out as it
comes, so a frame of whatever length needs no memory; wsproto keeps at most a header, or the
125 bytes of a control frame.

Rules: specs/websocket.md (W5 to W12).
"""

from __future__ import annotations

from dataclasses import dataclass

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from p2pnet.errors import ConnectionLost, ProtocolError
from p2pnet.transports.websocket.heads import (
    KEY,
    NAME,
    Refused,
    UpgradeRefused,
    check_request,
)

FRAME_BYTES = 65_536
"""Most payload in one frame of ours (W8)."""
MAX_HOLLOW_FRAMES = 10_000
"""Frames without payload in a row, pings and pongs too (W9): a day of pings to a proxy's taste."""
NORMAL, NO_STATUS, UNSUPPORTED, POLICY, TOO_BIG = 1000, 1005, 1003, 1008, 1009
END_OF_STREAM = (NORMAL, NO_STATUS)
SAYS_MORE = frozenset([ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING])


class BadFrame(ProtocolError):
    """The remote broke a rule for frames; ``farewell`` tells it so."""

    def __init__(self, reason: str, farewell: bytes) -> None:
        super().__init__(NAME, reason)
        self.farewell = farewell


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a remote may send at most."""

    frame_bytes: int
    message_bytes: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of some bytes."""

    data: bytes = b""
    reply: bytes = b""
    """What to send: a pong, the answer to a close frame."""
    is_over: bool = False
    """The remote has closed in good order."""


# ---- the handshake -----------------------------------------------------------------------


def ask(host: str) -> tuple[WSConnection, bytes]:
    """Begin as a client; return what is to be answered, and the request to send (W6)."""
    wire = WSConnection(ConnectionType.CLIENT)
    return wire, wire.send(Request(host=host, target="/"))


def answered(wire: WSConnection, head: bytes, limits: FrameLimits) -> Frames:
    """Take the head of the response.

    Raises:
        UpgradeRefused: if it is another than 101.
        ProtocolError: if it is no answer to the request (W7).
    """
    try:
        wire.receive_data(head)
        events = list(wire.events())
    except (RemoteProtocolError, UnicodeError) as error:
        raise ProtocolError(NAME, f"the response is malformed: {error}") from None
    match events:
        case [AcceptConnection()]:
            return Frames(wire, limits)
        case [RejectConnection(status_code=status), *_]:
            raise UpgradeRefused(status)
        case _:
            raise ProtocolError(NAME, "the response is malformed")


def answer(head: bytes, limits: FrameLimits) -> tuple[Frames, bytes]:
    """Take the head of a request as a server; return the response to send.

    Raises:
        Refused: if it is not as it must be (W5).
    """
    check_request(head)
    wire = WSConnection(ConnectionType.SERVER)
    try:
        wire.receive_data(head)
        request = next((event for event in wire.events() if isinstance(event, Request)), None)
    except RemoteProtocolError as error:
        raise refusal(error) from None
    except UnicodeError:
        raise Refused(400, "a header that is no text") from None
    if request is None:
        raise Refused(400, "the request is malformed")
    keys = [value for name, value in request.extra_headers if name == b"sec-websocket-key"]
    if len(keys) != 1 or not KEY.fullmatch(keys[0]):
        raise Refused(400, "one Sec-WebSocket-Key of 16 bytes is needed")
    # W6: what the client offers of subprotocols and extensions is declined by silence.
    return Frames(wire, limits), wire.send(AcceptConnection())


def refusal(error: RemoteProtocolError) -> Refused:
    hint = error.event_hint
    if isinstance(hint, RejectConnection) and hint.status_code == 426:
        return Refused(426, "only version 13 is spoken here", "Sec-WebSocket-Version: 13")
    return Refused(400, str(error))


# ---- frames ------------------------------------------------------------------------------


class Frames:
    """An open WebSocket."""

    def __init__(self, wire: WSConnection, limits: FrameLimits) -> None:
        self._wire = wire
        self._limits = limits
        self._frame_bytes = 0
        self._message_bytes = 0
        self._hollow_frames = 0
        self._is_over = False

    def frame(self, data: bytes) -> bytes:
        """Return a frame, a message of its own, to send; masked by a client (W8)."""
        return self._wire.send(BytesMessage(data=data))

    @property
    def says_more(self) -> bool:
        """False once either side has closed: then no data can be sent any more."""
        return self._wire.state is ConnectionState.OPEN

    def close(self, code: int = NORMAL) -> bytes:
        """Return a close frame to send; nothing if one was sent already."""
        if self._wire.state not in SAYS_MORE:
            return b""
        return self._wire.send(CloseConnection(code=code))

    def receive(self, data: bytes) -> Heard:
        """Take bytes of the remote; what follows its close frame is ignored.

        Raises:
            BadFrame: if it broke a rule.
            ConnectionLost: if it closed for a reason that is none to be content with (W11).
        """
        if self._is_over:
            return Heard(is_over=True)
        self._wire.receive_data(data)
        payload: list[bytes] = []
        reply = b""
        for event in self._wire.events():
            match event:
                case BytesMessage():
                    self._count(event)
                    payload.append(bytes(event.data))
                case Pong():
                    self._count_hollow()
                case Ping():
                    self._count_hollow()
                    if self.says_more:
                        reply = self._wire.send(event.response())  # W10: the last one will do
                case CloseConnection():
                    reply += self._closed(event)
                    self._is_over = True
                    break
                case TextMessage():  # W8
                    raise self._bad("a text frame", UNSUPPORTED)
                case _:
                    continue
        return Heard(b"".join(payload), reply, self._is_over)

    def _count(self, event: BytesMessage) -> None:
        self._frame_bytes += len(event.data)
        self._message_bytes += len(event.data)
        if self._frame_bytes > self._limits.frame_bytes:  # W9
            raise self._bad("a frame that is too long", TOO_BIG)
        if self._message_bytes > self._limits.message_bytes:
            raise self._bad("a message that is too long", TOO_BIG)
        if event.data:
            self._hollow_frames = 0
        elif event.frame_finished:
            self._count_hollow()
        if event.frame_finished:
            self._frame_bytes = 0
        if event.message_finished:
            self._message_bytes = 0

    def _count_hollow(self) -> None:
        self._hollow_frames += 1
        if self._hollow_frames > MAX_HOLLOW_FRAMES:  # W9
            raise self._bad("nothing but frames with nothing in them", POLICY)

    def _closed(self, event: CloseConnection) -> bytes:
        if self._wire.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            # So wsproto says that it could not parse what came.
            raise self._bad(event.reason or "malformed", event.code)
        if event.code not in END_OF_STREAM:
            raise ConnectionLost(f"the remote closed the WebSocket with code {int(event.code)}")
        return self.close()

    def _bad(self, reason: str, code: int) -> BadFrame:
        self._is_over = True
        return BadFrame(reason, self.close(code))
