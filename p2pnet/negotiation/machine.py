"""multistream-select 1.0 as state machines. Rules: specs/multistream.md.

Theory of operation
===================

Two peers agree on one protocol for a stream. The initiator proposes, the responder accepts
by saying the same, or refuses with ``na``. Every line is a varint length, text and a newline.

    initiator                             responder
        | -- /multistream/1.0.0 ------------> |
        | -- /yamux/1.0.0 ------------------> |    (sent together: one round trip)
        | <------------ /multistream/1.0.0 -- |
        | <------------- /yamux/1.0.0 | na -- |

The bytes behind the agreed line belong to the protocol itself. So no machine here ever takes
more than the bytes of its own lines: ``wanted`` says how many may be read, and whoever reads
exactly so many has nothing left over to hand back. It is 0 once the machine has finished.

An optimistic initiator does not wait: ``LazyInitiation`` gives the bytes that go in front of
the first data, and checks the answer when it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from p2pnet.core.framing import FrameDecoder, encode_frame
from p2pnet.errors import BothDialed, NegotiationFailed, P2PError, ProtocolError, StreamReset

HEADER = "/multistream/1.0.0"
NOT_AVAILABLE = "na"
MAX_LINE_BYTES = 1024
MAX_PROPOSALS = 100
"""How many proposals a responder listens to, if not told otherwise."""
PROPOSALS_KEPT = 256
"""Of the protocols that are proposed in one go, so that each is put together once."""
MAX_QUOTED = 80
"""How much of a remote's line an error quotes."""

Supported = Collection[str] | Callable[[str], bool]
"""The protocols a responder accepts: all of them, or a judge of each."""

FOREIGN_OPENINGS = (
    (b"HTTP/", "HTTP"),
    (b"GET ", "HTTP"),
    (b"POST ", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"HEAD ", "HTTP"),
    (b"OPTIONS ", "HTTP"),
    (b"CONNECT ", "HTTP"),
    (b"PRI * HTTP/2", "HTTP/2"),
    (b"\x16\x03", "TLS"),
    (b"\x15\x03", "TLS"),
    (b"SSH-", "SSH"),
    (b"\x00\x20", "Noise that was not negotiated"),
    (b"/multistream/", "multistream without length prefixes"),
)
"""How other protocols begin, to say more than that the header is wrong."""


class Initiator:
    """Proposes protocols, in order of preference."""

    def __init__(self, proposals: Iterable[str]) -> None:
        self._proposals = tuple(proposals)
        if not self._proposals:
            raise ValueError("nothing to propose")
        for proposal in self._proposals:
            check_protocol_id(proposal)
        self._at = 0
        self._lines = LineDecoder()
        self._out = proposal_of(self._proposals[0])
        self._finished = False

    def data_to_send(self) -> bytes:
        """Take what must be sent now; empty if nothing."""
        data, self._out = self._out, b""
        return data

    def wanted(self) -> int:
        """Tell how many bytes may be read and given to ``receive``; 0 once finished."""
        return 0 if self._finished else self._lines.wanted()

    def receive(self, data: bytes) -> str | None:
        """Take at most ``wanted`` bytes; return the agreed protocol once there is one.

        The end of the stream is the empty ``data``.

        Raises:
            NegotiationFailed: if the remote refused all proposals.
            ProtocolError: if it answers with anything but the proposal or ``na``, or ends the
                stream within its answer.
            StreamReset: if it ended the stream without a byte of an answer.
        """
        if self._finished:
            raise ValueError("the negotiation has finished")
        self._lines.feed(data)
        line = self._lines.next_line()
        return None if line is None else self._receive_answer(line)

    def _receive_answer(self, line: str) -> str | None:
        proposal = self._proposals[self._at]
        if line == proposal:
            self._finished = True
            return proposal
        if line != NOT_AVAILABLE:
            raise wrong_answer(proposal, line)
        self._at += 1
        if self._at == len(self._proposals):
            self._finished = True
            raise NegotiationFailed(self._proposals)
        self._out = encode_line(self._proposals[self._at])
        return None


class LazyInitiation:
    """Proposes one protocol without waiting for the answer.

    Whoever owns the stream sends ``prefix`` in front of the first data, or alone before it
    reads or ends its side, and then reads no more than ``wanted`` until ``done`` before it
    takes anything as data. All errors are final: the stream must be reset (M10). So it does no
    harm that ``wanted`` is all of the one good answer, though a refusal is shorter.
    """

    def __init__(self, protocol_id: str) -> None:
        self.protocol_id = protocol_id
        self._proposal = proposal_of(protocol_id)
        self._is_proposed = False
        self._heard = b""
        self._error: P2PError | None = None
        self.done = False
        """True once the remote has accepted."""

    def prefix(self) -> bytes:
        """Take the bytes to send before all others; empty if they were taken already."""
        if self._is_proposed:
            return b""
        self._is_proposed = True
        return self._proposal

    def wanted(self) -> int:
        """Tell how many bytes may be read and given to ``receive``; 0 once done.

        Raises:
            NegotiationFailed, ProtocolError, StreamReset: again, if one was raised before.
        """
        if self._error is not None:
            raise self._error
        return len(self._proposal) - len(self._heard)

    def receive(self, data: bytes) -> None:
        """Take at most ``wanted`` bytes; the end of the stream is the empty ``data``.

        Raises:
            NegotiationFailed: if the remote does not speak the protocol.
            ProtocolError: if it breaks the rules, or ends the stream within its answer.
            StreamReset: if it ended the stream without a byte of an answer.
        """
        wanted = self.wanted()
        if len(data) > wanted:
            raise ValueError(f"{len(data)} bytes read where {wanted} were wanted")
        self._heard += data
        if data and self._proposal.startswith(self._heard):  # M4: it is accepted by repeating it
            self.done = len(data) == wanted
            return
        try:
            self._judge(ended=not data)
        except P2PError as error:
            self._error = error
            raise

    def _judge(self, *, ended: bool) -> None:
        """Say what is wrong with an answer that is not the good one, if enough of it came."""
        initiator, left = Initiator((self.protocol_id,)), self._heard
        while left:
            line = left[: initiator.wanted()]
            initiator.receive(line)
            left = left[len(line) :]
        if ended:
            initiator.receive(b"")
        if not self.wanted():
            begun = self._heard[len(HEADER_LINE) :][:MAX_QUOTED]
            reason = f"proposed {self.protocol_id!r}, and a longer answer begins with {begun!r}"
            raise ProtocolError(HEADER, reason)


class Responder:
    """Accepts the first proposal that is supported."""

    def __init__(self, supported: Supported, *, max_proposals: int = MAX_PROPOSALS) -> None:
        self._is_supported = supported if callable(supported) else supported.__contains__
        self._max_proposals = max_proposals
        self._heard = 0
        self._lines = LineDecoder()
        self._out = b""
        self._header_sent = False
        self._finished = False

    @property
    def answer(self) -> bytes:
        """What must be sent before more is listened to; empty if nothing."""
        # M3: the header travels with the answer if the proposal is on its way, but some
        # initiators say nothing more before they have seen our header.
        if not self._header_sent and (self._out or self._lines.is_between_lines):
            return HEADER_LINE + self._out
        return self._out

    def data_to_send(self) -> bytes:
        """Take what must be sent now; empty if nothing."""
        data, self._out = self.answer, b""
        self._header_sent = self._header_sent or bool(data)
        return data

    def wanted(self) -> int:
        """Tell how many bytes may be read and given to ``receive``; 0 once finished."""
        return 0 if self._finished else self._lines.wanted()

    def receive(self, data: bytes) -> str | None:
        """Take at most ``wanted`` bytes; return the agreed protocol once there is one.

        The end of the stream is the empty ``data``.

        Raises:
            ProtocolError: if the remote breaks a rule, proposes too often, or ends the stream
                in the middle.
            StreamReset: if it ended the stream without a byte.
        """
        if self._finished:
            raise ValueError("the negotiation has finished")
        self._lines.feed(data)
        line = self._lines.next_line()
        return None if line is None else self._receive_proposal(line)

    def _receive_proposal(self, line: str) -> str | None:
        self._heard += 1
        if line == HEADER:  # M2
            raise ProtocolError(HEADER, "the header came twice")
        if self._heard > self._max_proposals:  # M9
            raise ProtocolError(HEADER, f"more than {self._max_proposals} proposals")
        if self._is_supported(line):
            self._finished = True
            self._out = encode_line(line)
            return line
        self._out = encode_line(NOT_AVAILABLE)  # M7: ``ls`` is refused like any other
        return None


class LineDecoder:
    """Reads the header, then cuts what follows into lines."""

    def __init__(self) -> None:
        self._greeting = bytearray()
        self._greeted = False
        self._frames = FrameDecoder(MAX_LINE_BYTES, HEADER)
        self._begun = False

    @property
    def is_between_lines(self) -> bool:
        """True if the header has come, and of the next line not a byte."""
        return self._greeted and not self._begun

    def wanted(self) -> int:
        """Tell how many bytes may be fed now without reading past the current line.

        Raises:
            ProtocolError: if the line that has begun is malformed.
        """
        # A header is always followed by a line, so one byte of that may be read with it.
        return self._frames.wanted() if self._greeted else WHOLE_GREETING - len(self._greeting)

    def feed(self, data: bytes) -> None:
        """Take at most ``wanted`` bytes; the end of the stream is the empty ``data``.

        Raises:
            ValueError: if there are more: the stream was over-read.
            ProtocolError: if the remote does not begin with the header, or ends the stream
                in the middle.
            StreamReset: if it ended the stream without a byte.
        """
        if not data:
            raise self._ended()
        if len(data) > self.wanted():
            raise ValueError(f"{len(data)} bytes read where {self.wanted()} were wanted")
        if self._greeted:
            self._frames.feed(data)
            self._begun = True
            return
        self._greeting += data
        check_greeting(bytes(self._greeting))  # M2: at the first byte that differs
        if len(self._greeting) >= len(HEADER_LINE):
            self._greeted = True
            self._frames.feed(bytes(self._greeting[len(HEADER_LINE) :]))
            self._begun = len(self._greeting) > len(HEADER_LINE)

    def next_line(self) -> str | None:
        """Take the next line out, without its newline; None while it is incomplete.

        Raises:
            ProtocolError: if it is too long, has no newline or is not UTF-8.
        """
        line = self._frames.next_frame()
        if line is None:
            return None
        self._begun = False
        if not line.endswith(b"\n"):  # M1
            raise ProtocolError(HEADER, "a line without a newline")
        try:
            return line[:-1].decode()
        except UnicodeDecodeError:
            raise ProtocolError(HEADER, "a line that is not UTF-8") from None  # M1

    def _ended(self) -> ProtocolError | StreamReset:
        """Say what it means that the stream ended here, which never is in order."""
        if self._greeted or self._greeting:  # M11
            return ProtocolError(HEADER, "the stream ended during the negotiation")
        return StreamReset("the remote ended the stream before it negotiated anything")


def encode_line(text: str) -> bytes:
    return encode_frame(text.encode() + b"\n")


@lru_cache(PROPOSALS_KEPT)
def proposal_of(protocol_id: str) -> bytes:
    """Return what proposes a protocol, and accepts it. Raises ValueError, as ``Initiator``."""
    check_protocol_id(protocol_id)
    return HEADER_LINE + encode_line(protocol_id)


HEADER_LINE = encode_line(HEADER)
WHOLE_GREETING = len(HEADER_LINE) + 1


def check_protocol_id(protocol_id: str) -> None:
    """Refuse a protocol id that cannot be proposed. Raises ValueError."""
    if not protocol_id or "\n" in protocol_id or protocol_id in (HEADER, NOT_AVAILABLE):
        raise ValueError(f"{protocol_id!r} cannot be a protocol id")
    if len(protocol_id.encode()) >= MAX_LINE_BYTES:
        raise ValueError(f"a protocol id is at most {MAX_LINE_BYTES - 1} bytes long")


def check_greeting(data: bytes) -> None:
    """Compare the first bytes of a remote with the header. Raises ProtocolError."""
    if HEADER_LINE.startswith(data[: len(HEADER_LINE)]):
        return
    likely = next((name for opening, name in FOREIGN_OPENINGS if data.startswith(opening)), None)
    if likely is not None:
        raise ProtocolError(HEADER, f"no multistream header: the remote looks like {likely}")
    raise ProtocolError(HEADER, f"no multistream header but {data!r}")


def wrong_answer(proposal: str, answer: str) -> ProtocolError:
    """Say what is wrong with an answer that is neither the proposal nor ``na``."""
    quoted = repr(answer if len(answer) <= MAX_QUOTED else answer[:MAX_QUOTED] + "…")
    if answer == HEADER:
        return ProtocolError(HEADER, "the header came twice")
    if answer.startswith("/"):  # M8
        return BothDialed(
            HEADER,
            f"the remote proposed {quoted} where an answer to {proposal!r} was due: both ends "
            "took the part of the initiator, as after an accidental simultaneous open",
        )
    return ProtocolError(HEADER, f"proposed {proposal!r}, and the remote answered {quoted}")
