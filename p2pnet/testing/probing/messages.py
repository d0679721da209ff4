"""What probes, observers and rendezvous servers say: JSON objects, one a line or a datagram.

Not STUN: its request to answer from elsewhere (RFC 5780) exists for UDP only, while here a
TCP host has to be dialled back as well, and two hosts have to be brought together. And a
packet that can be read in a trace explains itself::

    asker                                    observer
      | {"kind": "where", "token": "1"}  ------> |   from any port, to any of its endpoints
      | <-- {"kind": "seen", "token": "1", "endpoint": {"host": "11.0.1.1", "port": 4001}}
      |                                          |
      | {"kind": "probe", "token": "2", "origin": "address", "port": 0} -------> |
      | <------- {"kind": "hit", "token": "2"}  from another address: a datagram, or a dial
      | <-- {"kind": "probed", "token": "2", "outcome": "sent"}

    host                                     rendezvous, over TCP after "where" and "seen"
      | {"kind": "meet", "name": "alice", "peer": "bob", "round_trip": 0.08} --> |
      | <-- {"kind": "go", "meeting": ..., "own": ..., "remote": ..., "round_trip": ...}

    host                                     its peer, directly
      | {"kind": "hello", "meeting": ..., "name": "alice", "stage": 0} --------> |
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError
from p2pnet.testing.packet import TransportName

NAME = "probing"
MAX_MESSAGE_BYTES = 768
MAX_TEXT = 160
MAX_ROUND_TRIP = 10.0
"""Seconds; a host that claims to be further away is not believed."""


class Origin(StrEnum):
    """From where a probe is to come."""

    PORT = "port"
    """The address that was asked, another port."""
    ADDRESS = "address"
    """Another address."""


class Outcome(StrEnum):
    """What became of a probe, as its sender saw it."""

    SENT = "sent"
    """A datagram left; nobody tells more."""
    CONNECTED = "connected"
    REFUSED = "refused"
    SILENT = "silent"
    UNABLE = "unable"
    """There is nothing here to send it from."""


@dataclass(frozen=True, slots=True)
class Where:
    """Ask which source is seen."""

    token: str


@dataclass(frozen=True, slots=True)
class Seen:
    token: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask for a probe to the source that is seen, or to another port of its address."""

    token: str
    origin: Origin
    port: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """The probe itself."""

    token: str


@dataclass(frozen=True, slots=True)
class Probed:
    token: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Delegate:
    """Ask a partner on another machine to send a probe: observers only, over TCP."""

    token: str
    transport: TransportName
    target: Endpoint


@dataclass(frozen=True, slots=True)
class Meet:
    """Ask to be brought together with a peer that asks for the same."""

    name: str
    peer: str
    round_trip: float
    """Seconds to the rendezvous and back; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Go:
    """Begin now: the peer does the same."""

    meeting: str
    own: Endpoint
    remote: Endpoint
    round_trip: float
    """Seconds from one to the other and back by way of the rendezvous."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What two hosts say to each other where they meet."""

    meeting: str
    name: str
    stage: int
    """0: I am here; 1: I hear you; 2: and I know that you hear me."""


@dataclass(frozen=True, slots=True)
class Bye:
    """Ask the other side to close, so that the port is free here at once."""


Message = Where | Seen | Probe | Hit | Probed | Delegate | Meet | Go | Hello | Bye


def encode(message: Message) -> bytes:
    """Write a message as one line, without the end of the line."""
    return json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}).encode()


def decode_untrusted(data: bytes) -> Message:
    """Read a message.

    Raises:
        ProtocolError: if it is too long, malformed or of an unknown kind.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(NAME, f"message of {len(data)} bytes")
    try:
        parsed: object = json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError(NAME, "not JSON") from None
    record = Record(parsed)
    kind = record.text("kind")
    if kind not in READERS:
        raise ProtocolError(NAME, "unknown kind")
    return READERS[kind](record)


class Record:
    """A JSON object of a stranger; each of its fields is checked as it is read."""

    def __init__(self, parsed: object) -> None:
        if not isinstance(parsed, dict):
            raise ProtocolError(NAME, "not an object")
        self._fields: Mapping[object, object] = parsed

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
            raise ProtocolError(NAME, f"{name} is no text")
        return value

    def count(self, name: str, limit: int) -> int:
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
            raise ProtocolError(NAME, f"{name} is no number up to {limit}")
        return value

    def seconds(self, name: str) -> float:
        value = self._fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProtocolError(NAME, f"{name} is no number")
        # Compared before it is converted: an integer can be too large for a float.
        if not value >= 0:  # negative, or not a number
            raise ProtocolError(NAME, f"{name} is no duration")
        return float(min(value, MAX_ROUND_TRIP))

    def endpoint(self, name: str) -> Endpoint:
        inner = Record(self._fields.get(name))
        try:
            host = str(ipaddress.ip_address(inner.text("host")))
        except ValueError:
            raise ProtocolError(NAME, f"{name} is no endpoint") from None
        port = inner.count("port", 65_535)
        if not port or "%" in host:
            raise ProtocolError(NAME, f"{name} is no endpoint")
        return Endpoint(host, port)

    def origin(self) -> Origin:
        try:
            return Origin(self.text("origin"))
        except ValueError:
            raise ProtocolError(NAME, "unknown origin") from None

    def outcome(self) -> Outcome:
        try:
            return Outcome(self.text("outcome"))
        except ValueError:
            raise ProtocolError(NAME, "unknown outcome") from None

    def transport(self) -> TransportName:
        match self.text("transport"):
            case "udp":
                return "udp"
            case "tcp":
                return "tcp"
            case _:
                raise ProtocolError(NAME, "unknown transport")


READERS: Mapping[str, Callable[[Record], Message]] = {
    "where": lambda r: Where(r.text("token")),
    "seen": lambda r: Seen(r.text("token"), r.endpoint("endpoint")),
    "probe": lambda r: Probe(r.text("token"), r.origin(), r.count("port", 65_535)),
    "hit": lambda r: Hit(r.text("token")),
    "probed": lambda r: Probed(r.text("token"), r.outcome()),
    "delegate": lambda r: Delegate(r.text("token"), r.transport(), r.endpoint("target")),
    "meet": lambda r: Meet(r.text("name"), r.text("peer"), r.seconds("round_trip")),
    "go": lambda r: Go(
        r.text("meeting"), r.endpoint("own"), r.endpoint("remote"), r.seconds("round_trip")
    ),
    "hello": lambda r: Hello(r.text("meeting"), r.text("name"), r.count("stage", 2)),
    "bye": lambda _: Bye(),
}
